"""Plant one fault at a time (faults.py), build, run the suite: each must make it fail.

python tests/mutation/mutate.py [--only WORDS] [--resume] [--report docs/testing.md]    renews its lines in the report
python tests/mutation/mutate.py --check    the faults still have a text to change: part of `make lint`

Works on a copy, with the best build that this processor has; the other builds stay as they are.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from faults import FAULTS
from tqdm import tqdm

from csoftmax import _isa

ROOT = Path(__file__).parent.parent.parent
COPY = ROOT / "build" / "mutation"
# With one build mutated and the other not, this would see any fault, and so none that a user could meet.
COMPARES_BUILDS = (
    "--deselect=tests/test_splits.py::test_v3_and_v4_give_the_same_bits_on_a_fixed_corpus"
)
# What fails for most faults and takes seconds comes first; then all the rest.
FIRST = [
    f"tests/test_{name}.py"
    for name in (
        "special_values",
        "softmax",
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
BUILD = """
import runpy, sys
import Cython.Build
cythonize, wanted = Cython.Build.cythonize, sys.argv[1]
Cython.Build.cythonize = lambda extensions: cythonize([e for e in extensions if e.name == wanted])
sys.argv = ["setup.py", "-q", "build_ext", "--inplace", "--force"]
runpy.run_path("setup.py")
"""


def fresh_copy():
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(
        ROOT,
        COPY,
        ignore=shutil.ignore_patterns(".venv", ".git", "build", "__pycache__", ".*_cache"),
    )


def check_texts():
    for what, file, text, _ in FAULTS:
        if (n := (ROOT / file).read_text().count(text)) != 1:
            raise SystemExit(f"{what}: {file} must hold this once, it does {n} times: {text}")


def run(*command, seconds):
    """Exit code and output; None for a run that takes too long."""
    environment = os.environ | {"PYTHONPATH": str(COPY), "CSOFTMAX_ISA": _isa.NAME}
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=COPY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


def module_of(file):
    """The extension that a file is part of, or None."""
    if file.endswith((".py", ".pyi")):
        return None
    return f"csoftmax.kernels._{_isa.NAME}" if "/kernels/" in file else "csoftmax._batch"


def build(module):
    code, output = run("-c", BUILD, module, seconds=1200)
    if code != 0:
        raise SystemExit(f"the fault does not build:\n{output[-2000:]}")


def first_failure():
    """The test that fails first, or None if all pass."""
    # Three runs: pytest takes files out of its arguments that lie in a folder of these, and with them their order.
    others = ["tests", *(f"--ignore={name}" for name in (*FIRST, *LAST))]
    for tests in (FIRST, others, LAST):
        code, output = run(
            "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", COMPARES_BUILDS, *tests, seconds=1200
        )  # fmt: skip
        if code is None:
            return "the suite hangs"
        if code != 0:
            found = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
            return found.group(1).partition("[")[0] if found else "the interpreter crashes"
    return None


def known_failures(report):
    """What the report's table says of each fault that is still in the list, if it is of the same kernels."""
    if f"kernels {_isa.NAME}." not in report.read_text():
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
    fresh_copy()
    # A run that is resumed has looked already.
    if not arguments.resume and (failure := first_failure()) is not None:
        raise SystemExit(f"the suite fails without a fault: {failure}")
    failures = {}
    if arguments.report and (arguments.only or arguments.resume):
        failures = known_failures(arguments.report)
    faults = [fault for fault in FAULTS if arguments.only in fault[0]]
    if arguments.resume:
        faults = [fault for fault in faults if failures.get(fault[0], SURVIVES) == SURVIVES]
    survives = False
    for what, file, text, instead in tqdm(faults):
        path = COPY / file
        original = path.read_text()
        path.write_text(original.replace(text, instead))
        module, binary = module_of(file), None
        if module is not None:
            binary = next(COPY.glob(module.replace(".", "/") + ".*.so"))
            sound = binary.read_bytes()
            build(module)
        caught = first_failure()
        path.write_text(original)
        if binary is not None:
            binary.write_bytes(sound)
        failures[what] = caught or SURVIVES
        survives |= caught is None
        tqdm.write(f"{what}: {caught or 'SURVIVES'}")
        if arguments.report:  # each time: an hour may be interrupted
            write_between_marks(arguments.report, "mutation", table(failures))
    return int(survives)


if __name__ == "__main__":
    sys.exit(main())
