"""Programs in processes of their own, which may hang, fork, or be interrupted."""

import os
import signal
import subprocess
import sys

import pytest


def start(*arguments, **environment):
    """Start Python with `arguments`; it leads a group, so that its children end with it."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **environment},
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
