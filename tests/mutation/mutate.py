"""Plant one fault at a time (faults.py), build, run the suite: each must make it fail.

python tests/mutation/mutate.py [--only WORDS] [--resume] [--report docs/testing.md]    renews its lines in the report
python tests/mutation/mutate.py --check    the faults still have a text to change: part of `make lint`

Works on copies, one for each of two jobs, with the best build that this processor has; the other builds stay as they
are. A test that the report names for a fault is run first: mostly it is the one that fails again.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from faults import FAULTS
from tqdm import tqdm

from csoftmax import _isa

ROOT = Path(__file__).parent.parent.parent
# With one build mutated and the other not, this would see any fault, and so none that a user could meet.
COMPARES_BUILDS = (
    "--deselect=tests/test_splits.py::test_v3_and_v4_give_the_same_bits_on_a_fixed_corpus"
)
# What fails for most faults and takes seconds comes first; then all the rest.
FIRST = [
    f"tests/test_{name}.py"
    for name in (
        "special_values",
        "elementwise",
        "cross_entropy_with_grad",
        "splits",
        "wrong_uses",
        "config",
        "conversions",
        "cross_entropy",
        "layouts",
        "state",
        "options",
    )
]
LAST = ["tests/embedding", "tests/test_embedding_examples.py"]  # which compile
SURVIVES = "**none**"
JOBS = 2  # faults at a time
SECONDS = 1800  # of a run that is taken for one that hangs
NO_SUCH_TEST = 4  # an exit code of pytest
# -O1, the last of the flags, gives the same bits in a third of the time.
BUILD = """
import runpy, sys
import Cython.Build
cythonize, wanted = Cython.Build.cythonize, sys.argv[1]
def the_one(extensions):
    extension, = (e for e in extensions if e.name == wanted)
    extension.extra_compile_args.append("-O1")
    return cythonize([extension])
Cython.Build.cythonize = the_one
sys.argv = ["setup.py", "-q", "build_ext", "--inplace", "--force"]
runpy.run_path("setup.py")
"""


def check_texts():
    for what, file, text, _ in FAULTS:
        if (n := (ROOT / file).read_text().count(text)) != 1:
            raise SystemExit(f"{what}: {file} must hold this once, it does {n} times: {text}")


def module_of(file):
    """The extension that a file is part of, or None."""
    if file.endswith((".py", ".pyi")):
        return None
    return f"csoftmax.kernels._{_isa.NAME}" if "/kernels/" in file else "csoftmax._batch"


class Copy:
    """The tree in a folder of its own, in which faults are planted one after the other."""

    def __init__(self, number):
        self.root = ROOT / "build" / f"mutation-{number}"
        shutil.rmtree(self.root, ignore_errors=True)
        left_out = (".venv", ".git", "build", "__pycache__", ".*_cache", ".hypothesis")
        shutil.copytree(ROOT, self.root, ignore=shutil.ignore_patterns(*left_out))

    def run(self, *command):
        """Exit code and output; None for a run that takes too long."""
        environment = os.environ | {"PYTHONPATH": str(self.root), "CSOFTMAX_ISA": _isa.NAME}
        try:
            done = subprocess.run(
                [sys.executable, *command],
                cwd=self.root,
                env=environment,
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return None, ""
        return done.returncode, done.stdout + done.stderr

    def build(self, module):
        code, output = self.run("-c", BUILD, module)
        if code != 0:
            raise SystemExit(f"the fault does not build:\n{output[-2000:]}")

    def first_failure(self, likely=None):
        """The test that fails first, or None if all pass."""
        # Three runs: pytest takes files out of its arguments that lie in a folder of these, and with them their order.
        others = ["tests", *(f"--ignore={name}" for name in (*FIRST, *LAST))]
        for tests in ([likely] if likely else [], FIRST, others, LAST):
            if not tests:
                continue
            code, output = self.run(
                "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", COMPARES_BUILDS, *tests
            )
            if code is None:
                return "the suite hangs"
            if code == NO_SUCH_TEST and tests == [likely]:
                continue
            if code != 0:
                found = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
                return found.group(1).partition("[")[0] if found else "the interpreter crashes"
        return None

    def plant(self, file, text, instead, likely=None):
        """What catches a fault, or None."""
        path = self.root / file
        original = path.read_text()
        path.write_text(original.replace(text, instead))
        module, binary = module_of(file), None
        if module is not None:
            binary = next(self.root.glob(module.replace(".", "/") + ".*.so"))
            sound = binary.read_bytes()
            self.build(module)
        caught = self.first_failure(likely)
        path.write_text(original)
        if binary is not None:
            binary.write_bytes(sound)
        return caught


def reported(report, of_any_kernels):
    """What the report's table says of each fault that is still in the list, if it is of the same kernels."""
    if report is None or not (of_any_kernels or f"kernels {_isa.NAME}." in report.read_text()):
        return {}
    lines = re.findall(r"^\| (.+?) \| .+? \| (.+?) \|$", report.read_text(), re.MULTILINE)
    names = {what for what, *_ in FAULTS}
    return {what: caught for what, caught in lines if what in names}


def table(failures):
    n_caught = sum(caught != SURVIVES for caught in failures.values())
    lines = [
        f"{len(failures)} of {len(FAULTS)} faults planted, {n_caught} caught, kernels {_isa.NAME}.",
        "",
        "| fault | in | first failure |",
        "|---|---|---|",
    ]
    for what, file, *_ in FAULTS:
        if what in failures:
            lines.append(f"| {what} | {file.removeprefix('csoftmax/')} | {failures[what]} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="faults whose description holds this")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="faults that the report's table does not show as caught",
    )
    parser.add_argument("--report", type=Path, help="file whose table between marks is replaced")
    parser.add_argument("--check", action="store_true", help="plant nothing")
    arguments = parser.parse_args()
    if arguments.resume and not arguments.report:
        parser.error("--resume needs the report that it goes on with: --report docs/testing.md")
    check_texts()
    if arguments.check:
        return 0
    if arguments.report:
        sys.path.insert(0, str(ROOT / "benchmarks"))
        from report import write_between_marks
    failures = {}
    if arguments.only or arguments.resume:
        failures = reported(arguments.report, of_any_kernels=False)
    faults = [fault for fault in FAULTS if arguments.only in fault[0]]
    if arguments.resume:
        faults = [fault for fault in faults if failures.get(fault[0], SURVIVES) == SURVIVES]
    likely = reported(arguments.report, of_any_kernels=True)
    copies = [Copy(number) for number in range(JOBS)]
    # A run that is resumed has looked already.
    if not arguments.resume and (failure := copies[0].first_failure()) is not None:
        raise SystemExit(f"the suite fails without a fault: {failure}")
    lock = threading.Lock()
    progress = tqdm(total=len(faults))

    def plant(fault):
        what, *where = fault
        test = likely.get(what, "")
        with lock:
            copy = copies.pop()
        caught = copy.plant(*where, likely=test if test.startswith("tests/") else None)
        with lock:
            copies.append(copy)
            failures[what] = caught or SURVIVES
            tqdm.write(f"{what}: {caught or 'SURVIVES'}")
            progress.update()
            if arguments.report:  # each time: an hour may be interrupted
                write_between_marks(arguments.report, "mutation", table(failures))

    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(plant, faults))
    return int(any(failures[fault[0]] == SURVIVES for fault in faults))


if __name__ == "__main__":
    sys.exit(main())
