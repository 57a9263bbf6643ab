"""The configuration, the choice of a build, and the documentation's examples."""

import doctest
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import csoftmax
from csoftmax import _functions, _isa


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_show_config_prints_what_is_in_use(capsys):
    csoftmax.release_memory()  # nothing is kept in the other process either
    csoftmax.show_config()
    text = capsys.readouterr().out
    assert text.startswith(f"csoftmax {csoftmax.__version__}\n")
    assert (
        f"kernels   {_isa.NAME} (this processor runs {', '.join(_isa.available())}; CSOFTMAX_ISA chooses)"
        in text
    )
    for word in ("threads", "memory", "compiler", "python"):
        assert word in text
    assert run("-m", "csoftmax").stdout == text


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine() != "x86_64",
    reason="needs Linux's list of an x86-64 processor's features",
)
def test_the_builds_are_those_whose_instructions_the_system_lists():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = set(next(line for line in lines if line.startswith("flags")).split())
    v3 = {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}
    v4 = v3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
    expected = ["baseline"] + ["v3"] * (v3 <= flags) + ["v4"] * (v4 <= flags)
    assert _isa.available() == expected


@pytest.mark.parametrize("name", _isa.available())
def test_the_environment_chooses_the_build(name):
    assert f"kernels   {name} " in run("-m", "csoftmax", CSOFTMAX_ISA=name).stdout


def test_a_build_that_cannot_run_is_an_import_error_that_lists_those_that_can():
    done = run("-c", "import csoftmax", CSOFTMAX_ISA="v9")
    assert done.returncode != 0
    expected = (
        f"ImportError: CSOFTMAX_ISA needs a build that this processor can run: {', '.join(_isa.available())},"
        " got 'v9'; unset it to use the best one"
    )
    assert done.stderr.strip().splitlines()[-1] == expected


def test_the_examples_in_the_docstrings_run():
    results = doctest.testmod(_functions)
    assert results.attempted > 10
    assert results.failed == 0


def test_every_public_name_is_documented():
    for name in csoftmax.__all__:
        if callable(getattr(csoftmax, name)):
            assert len(getattr(csoftmax, name).__doc__.splitlines()) > 5


def test_the_folder_to_include_holds_the_header_and_nothing_else():
    assert os.listdir(csoftmax.get_include()) == ["csoftmax.h"]
