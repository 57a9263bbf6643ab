"""Measure csoftmax beside its peers, in turns within one process, and print what the README shows.

python benchmarks/bench.py [--quick] [--only PART] [--threads N] [--json FILE] [--figures FOLDER]
"""

import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import report
import threadpoolctl
from cases import cases
from contestants import PEERS, contestants
from tqdm import tqdm

import csoftmax

HERE = Path(__file__).parent


def once(work, n):
    """Seconds for one of n calls."""
    start = time.perf_counter()
    for _ in range(n):
        work()
    return (time.perf_counter() - start) / n


# Seconds until the threads of the library that had the turn before have stopped spinning.
PAUSE, PAUSE_AFTER = 0.01, {"ONNX Runtime": 0.06, "ONNX Runtime fresh": 0.06}
# Seconds of calls before the one that is measured: threads that they wake may share a processor until the scheduler's
# next tick, 4 ms later, and a processor that was idle while one thread worked reaches its speed only after some tens of
# milliseconds. A LONG call needs none.
WAKING, LONG = 0.05, 0.1
TINY_CALLS = 100  # at least, of a tiny call


def measure(table, budget, least_rounds, least_calls):
    """Seconds per call, (rounds,) for each contestant; each round runs all of them in turn."""
    calls, before, pauses = {}, {}, {}
    previous = list(table)[-1]  # whose turn it was before the first
    for name, work in table.items():
        work()  # compiles, touches memory
        first = once(work, 1)
        calls[name] = max(least_calls, int(100e-6 / max(first, 1e-9)))
        if calls[name] > 1:
            calls[name] = max(least_calls, int(200e-6 / max(once(work, calls[name]), 1e-9)))
        before[name] = 0 if first > LONG else max(1, int(WAKING / max(once(work, 1), 1e-6)))
        pauses[name] = PAUSE_AFTER.get(previous, PAUSE)
        previous = name
    seconds = {name: [] for name in table}
    start = time.perf_counter()
    while time.perf_counter() - start < budget or len(seconds["csoftmax"]) < least_rounds:
        for name, work in table.items():
            time.sleep(pauses[name])
            for _ in range(before[name]):
                work()
            seconds[name].append(once(work, calls[name]))
    return seconds


def ceilings(n_threads, size=1 << 28, rounds=9):
    """GB/s of input for reading, copying and streaming arrays far beyond the cache; the median."""
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/ceiling.so"
        kernels = HERE.parent / "csoftmax" / "kernels"
        subprocess.run(
            [
                "gcc",
                "-O3",
                "-march=native",
                "-fopenmp",
                "-shared",
                "-fPIC",
                f"-I{kernels}",
                str(HERE / "ceiling.c"),
                "-o",
                library,
            ],
            check=True,
        )
        functions = ctypes.CDLL(library)
    x, out = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    result = {}
    for name in ("read", "copy", "stream"):
        work = getattr(functions, f"ceiling_{name}")
        work.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]
        seconds = [
            once(partial(work, x.ctypes.data, out.ctypes.data, size, n_threads), 1)
            for _ in range(rounds)
        ]
        result[name] = size / np.median(seconds) / 1e9
    return result


def machine(n_threads):
    """What a reader needs to know to compare."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    packages = {}
    for name in ("numpy", "torch", "jax", "onnxruntime", "scikit-learn", "scipy"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    from csoftmax import _batch, _isa

    return {
        "cpu": cpu,
        "processors": os.cpu_count(),
        "threads": n_threads,
        "kernels": _isa.NAME,
        "compiler": _batch.compiler(),
        "csoftmax": csoftmax.__version__,
        "python": platform.python_version(),
        "packages": packages,
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "not set"),
        "date": time.strftime("%Y-%m-%d"),
    }


def same_case(a, b):
    """Whether two results are of one case; one may come from a JSON file."""
    return all(a[key] == b[key] for key in ("operation", "axis", "dtype")) and (
        list(a["shape"]) == list(b["shape"])
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="fewer shapes and rounds: under three minutes"
    )
    parser.add_argument("--only", default="", help="cases whose group and name hold this")
    parser.add_argument("--update", action="store_true", help="keep the other cases of --json")
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--budget", type=float, help="seconds for each case")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--figures", type=Path, help="folder for the figures")
    parser.add_argument("--readme", type=Path, help="file whose table between marks is replaced")
    arguments = parser.parse_args()
    budget = arguments.budget or (0.6 if arguments.quick else 1.5)

    results = {"machine": machine(arguments.threads), "cases": []}
    results["ceilings"] = ceilings(arguments.threads)
    chosen = cases(arguments.quick, arguments.only)
    if arguments.update:
        results = json.loads(arguments.json.read_text())
    for case in tqdm(chosen, file=sys.stderr, dynamic_ncols=True):
        tqdm.write(case.name, file=sys.stderr)
        table = contestants(case, arguments.threads, arguments.peers.split(","))
        # The thread limit of OpenMP is ours: torch has its own, the others take no notice.
        with threadpoolctl.threadpool_limits(arguments.threads, user_api="openmp"):
            seconds = measure(
                table,
                budget,
                3 if case.bytes >= 1 << 27 else 5,
                TINY_CALLS if case.group == "tiny call" else 1,
            )
        result = {
            "operation": case.operation,
            "group": case.group,
            "shape": case.shape,
            "axis": case.axis,
            "dtype": case.dtype,
            "bytes": case.bytes,
            "seconds": seconds,
        }
        same = [i for i, q in enumerate(results["cases"]) if same_case(q, result)]
        if same:
            results["cases"][same[0]] = result
        else:
            results["cases"].append(result)
        if arguments.json:
            arguments.json.write_text(json.dumps(results))
    report.print_tables(results)
    if arguments.figures:
        report.draw(results, arguments.figures)
    if arguments.readme:
        report.write_between_marks(arguments.readme, "bench", report.compact_tables(results))


if __name__ == "__main__":
    main()
