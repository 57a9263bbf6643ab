"""What type checkers find in the installed package is there, and is what the calls return."""

import runpy
import subprocess
import sys
import typing
from pathlib import Path
from types import UnionType

import numpy as np
import pytest

HERE = Path(__file__).parent


def checked(folder, *command):
    """Run a checker where no csoftmax but the installed one can be found."""
    pytest.importorskip("mypy", reason="the dev extra is not installed")
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_finds_the_types_of_typical_calls_in_the_installed_package(tmp_path):
    cases = (HERE / "typing_cases.py").read_text()
    (tmp_path / "typing_cases.py").write_text(cases)
    checked(tmp_path, "mypy", "--strict", "typing_cases.py")


def test_the_stubs_name_what_the_modules_have_with_the_same_parameters(tmp_path):
    checked(tmp_path, "mypy.stubtest", "csoftmax", "--allowlist", HERE / "stubtest_allowlist.txt")


def is_of(value, wanted):
    """Whether a value is what a type says, as far as types say it."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is typing.Any:
        return True
    if origin in (typing.Union, UnionType):
        return any(is_of(value, each) for each in arguments)
    if origin is tuple:
        return len(value) == len(arguments) and all(map(is_of, value, arguments))
    if origin is np.ndarray:
        (dtype,) = typing.get_args(arguments[1])
        return isinstance(value, np.ndarray) and (
            isinstance(dtype, typing.TypeVar) or is_of(value.dtype.type(), dtype)
        )
    return value is None if wanted is None else type(value) is wanted


def test_calls_return_what_their_types_say(monkeypatch):
    n_checked = 0

    def check(value, wanted):
        nonlocal n_checked
        n_checked += 1
        assert is_of(value, wanted), f"{type(value)} {getattr(value, 'dtype', '')}, not {wanted}"

    monkeypatch.setattr(typing, "assert_type", check)
    runpy.run_path(str(HERE / "typing_cases.py"))
    assert n_checked > 100
