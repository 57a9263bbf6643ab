"""Nanoseconds for each call of csoftmax's row functions from C, beside the scalar loops over libm they replace.

python benchmarks/rows.py [--readme README.md]
"""

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import report
from bench import machine

import csoftmax

HERE = Path(__file__).parent
CLASSES = (10, 32, 1000)
OPERATIONS = {  # and what calls them
    "softmax": "time_array",
    "log_softmax": "time_array",
    "logsumexp": "time_number",
    "cross_entropy": "time_target",
    "cross_entropy_with_grad": "time_gradient",
    "log_prob": "time_target",
}
N_ROWS = 64
ROUNDS = 41


def loops(dtype, folder):
    """The compiled rows.c for a dtype."""
    c_type, libm = {"float32": ("float", "name##f"), "float64": ("double", "name")}[dtype]
    library = f"{folder}/rows_{dtype}.so"
    subprocess.run(
        [
            os.environ.get("CC", "gcc"),
            "-O3",
            "-march=native",
            "-shared",
            "-fPIC",
            f"-DFLOAT={c_type}",
            f"-DE(name)={libm}",
            str(HERE / "rows.c"),
            "-o",
            library,
            "-lm",
        ],
        check=True,
    )
    return ctypes.CDLL(library)


def measure(library, dtype, operation, n_classes):
    """Median nanoseconds of csoftmax, and of the loop over csoftmax, in turns."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-5, 5, (N_ROWS, n_classes)).astype(dtype)
    out = np.empty(n_classes, dtype)
    repeat = max(1, 20000 // (N_ROWS * n_classes)) * 4
    timed = getattr(library, OPERATIONS[operation])
    timed.restype = ctypes.c_double
    suffix = {"float32": "f32", "float64": "f64"}[dtype]
    functions = {
        "csoftmax": csoftmax.address(f"{operation}_row_{suffix}"),
        "libm": ctypes.cast(getattr(library, operation), ctypes.c_void_p).value,
    }
    times = {name: [] for name in functions}
    for _ in range(ROUNDS):
        for name, function in functions.items():
            times[name].append(
                timed(
                    ctypes.c_void_p(function),
                    ctypes.c_void_p(x.ctypes.data),
                    ctypes.c_ssize_t(N_ROWS),
                    ctypes.c_ssize_t(n_classes),
                    ctypes.c_void_p(out.ctypes.data),
                    repeat,
                )
            )
    ratios = np.array(times["libm"]) / times["csoftmax"]
    return np.median(times["csoftmax"]), np.median(ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--readme", type=Path, help="file whose table between marks is replaced")
    arguments = parser.parse_args()
    about = machine(1)
    lines = [
        f"{about['cpu']}, one thread, kernels {about['kernels']}, {about['compiler']}, {about['date']}.",
        "",
        "| row function | "
        + " | ".join(f"{dtype}, {n}" for dtype in ("float32", "float64") for n in CLASSES)
        + " |",
        "|---" * (1 + 2 * len(CLASSES)) + "|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        libraries = {dtype: loops(dtype, folder) for dtype in ("float32", "float64")}
        for operation in OPERATIONS:
            cells = []
            for dtype, library in libraries.items():
                for n_classes in CLASSES:
                    nanoseconds, ratio = measure(library, dtype, operation, n_classes)
                    cells.append(f"{nanoseconds:.0f} ns, {ratio:.1f}")
            lines.append(f"| {operation} | " + " | ".join(cells) + " |")
            print(lines[-1], file=sys.stderr)
    print("\n".join(lines))
    if arguments.readme:
        report.write_between_marks(arguments.readme, "rows", "\n".join(lines))


if __name__ == "__main__":
    main()
