"""Random calls of every public function beside exact arithmetic.

python tests/differential/run.py --calls 1000000 --seed 1
python tests/differential/run.py --seed 1 --call 4711        # that one alone, and its arguments
"""

import argparse
import os
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # where `support` is

import c_surface
import draws
import numpy as np
from judge import ResultError

from csoftmax import _isa

draws.DRAWS.update(c_surface.DRAWS)


def command(seed, number, only=None):
    """What replays one call."""
    names = f" --only '{','.join(only)}'" if only else ""
    python = os.path.relpath(sys.executable)
    return (
        f"CSOFTMAX_ISA={_isa.NAME} {python} tests/differential/run.py"
        f" --seed {seed} --call {number}{names}"
    )


def run(seed, numbers, only=None, failed=None, most_failures=1):
    """Make these calls; return how many of each function were answered, refused and wrong.

    `failed` is called with (number, call, error) for each that is wrong.
    """
    counts = {"answered": Counter(), "refused": Counter(), "wrong": Counter()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in numbers:
            call = draws.draw(seed, number, only)
            try:
                kind = "answered" if call.run() else "refused"
            except ResultError as error:
                kind = "wrong"
                if failed is not None:
                    failed(number, call, error)
            counts[kind][call.name] += 1
            if sum(counts["wrong"].values()) >= most_failures:
                break
    return counts


def table(counts):
    """One line for each function."""
    lines = [f"{'':28}{'answered':>10}{'refused':>10}{'wrong':>10}"]
    for name in draws.DRAWS:
        numbers = [counts[kind][name] for kind in ("answered", "refused", "wrong")]
        if any(numbers):
            lines.append(f"{name:28}" + "".join(f"{n:10}" for n in numbers))
    totals = [sum(counts[kind].values()) for kind in ("answered", "refused", "wrong")]
    return "\n".join([*lines, f"{'all':28}" + "".join(f"{n:10}" for n in totals)])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    environment = os.environ.get
    parser.add_argument(
        "--seed", type=int, default=int(environment("CSOFTMAX_DIFFERENTIAL_SEED", "0"))
    )
    calls = int(environment("CSOFTMAX_DIFFERENTIAL_CALLS", "10000"))
    parser.add_argument("--calls", type=int, default=calls)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--call", type=int, help="make this call alone, and show it")
    parser.add_argument("--only", help="functions, separated by commas")
    parser.add_argument("--failures", type=int, default=10, help="stop after so many")
    options = parser.parse_args()
    if np.finfo(np.longdouble).nmant < 63:
        parser.error(
            "longdouble is double here, too narrow to judge by: run this on x86-64 or Linux"
        )
    only = tuple(options.only.split(",")) if options.only else None

    def failed(number, call, error):
        print(f"call {number}: {error}\n    {command(options.seed, number, only)}", flush=True)

    if options.call is not None:
        call = draws.draw(options.seed, options.call, only)
        print(call.shown())
        try:
            print("right" if call.run() else "refused")
        except ResultError:
            traceback.print_exc()
            return 1
        return 0
    start = time.perf_counter()
    numbers = range(options.first, options.first + options.calls)
    counts = run(options.seed, numbers, only, failed, options.failures)
    seconds = time.perf_counter() - start
    n = sum(sum(each.values()) for each in counts.values())
    print(table(counts))
    print(f"{n} calls of seed {options.seed} in {seconds:.0f} s, kernels {_isa.NAME}")
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
