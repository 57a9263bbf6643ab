"""Compile C, C++ and Cython as a reader of docs/embedding.md would, against the csoftmax that is installed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import csoftmax

ROOT = Path(__file__).resolve().parents[2]
CONSUMERS = ROOT / "tests" / "embedding"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
STRICT = ("-Wall", "-Wextra", "-pedantic", "-Werror")


def blocks_of(page, language):
    """The code in this language on a page of the documentation."""
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def command_of(variable):
    """The words of one of Python's compiler commands, which must be there to go on."""
    words = shlex.split(sysconfig.get_config_var(variable) or "")
    if not words or shutil.which(words[0]) is None:
        pytest.skip(f"no compiler: {variable} is {' '.join(words) or 'not set'}")
    return words


def run(*command, folder):
    """Run a command, which must end well and say nothing."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "", done.stderr
    return done.stdout


def includes(with_python):
    """csoftmax.h as what is compiled, so that its warnings count; Python.h as the system's."""
    python = ("-isystem", sysconfig.get_path("include")) if with_python else ()
    return "-I", csoftmax.get_include(), *python


def shared(source, target, *options, language="c"):
    """Compile one file to a module or library."""
    variable = "LDSHARED" if language == "c" else "LDCXXSHARED"
    command = [*command_of(variable), "-fPIC", *options, *includes(True), source, "-o", target]
    run(*command, folder=target.parent)


def program(source, target, *options, language="c", with_python=False):
    """Compile one file to a program, or with -c to an object."""
    command = command_of("CC" if language == "c" else "CXX")
    run(*command, *options, *includes(with_python), source, "-o", target, folder=target.parent)
    return target


def environment():
    """Programs find Python's as if it were activated; Cython does not follow an editable install by itself."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    root = Path(csoftmax.__file__).parents[1]
    told = {} if root == Path(sysconfig.get_path("platlib")) else {"PYTHONPATH": str(root)}
    return os.environ | {"PATH": path} | told


def cython(source, folder):
    """Translate to C."""
    target = folder / f"{source.stem}.c"
    run(sys.executable, "-m", "cython", source, "-o", target, folder=folder)
    return target
