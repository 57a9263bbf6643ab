"""Programs in processes of their own, which may hang, fork, or be interrupted."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def program(name):
    """The path of one of the programs in this package."""
    return HERE / "programs" / f"{name}.py"


def start(*arguments, **environment):
    """Start Python with `arguments`; it finds this package, and leads a group, so that its children end with it."""
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(*arguments, timeout=60, **environment):
    """Return code, output and errors of Python with `arguments`; to hang is to fail."""
    process = start(*arguments, **environment)
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        pytest.fail(f"still running after {timeout} s")
    return process.returncode, output, errors


def run_well(*arguments, **options):
    """Output of Python with `arguments`, which must end well."""
    code, output, errors = run(*arguments, **options)
    assert code == 0, f"exit code {code}\n{output}{errors}"
    return output


def run_consumer(folder, function, *arguments):
    """Run a function of consumers.py, which imports modules from the folder; it must come to its end."""
    assert run_well(program("consumers"), folder, function, *arguments) == "done\n"
