"""Builds by other compilers, and with flags that would change the arithmetic; the long ones run in `make compilers`."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from csoftmax import _isa
from support import children

ROOT = Path(__file__).resolve().parent.parent
COMPILER = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"

pytestmark = [
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the source folder"),
    pytest.mark.skipif(sys.platform == "win32", reason="the flags are those of GCC and Clang"),
    pytest.mark.skipif(
        shutil.which(shlex.split(COMPILER)[0]) is None, reason=f"{COMPILER} is not installed"
    ),
    pytest.mark.skipif(
        "libasan" in os.environ.get("LD_PRELOAD", ""), reason="the compiler is no sanitized program"
    ),
]
long = pytest.mark.skipif(
    not os.environ.get("CSOFTMAX_TEST_BUILDS"), reason="`make compilers` runs this"
)
# Each extension from one text, in which flags show: what is seen below is what setup.py's flags leave of others.
PROBE = children.program("probe").with_suffix(".c")


def seen(libraries):
    """The deviations of all these libraries, a list for each."""
    return json.loads(children.run_well(children.program("deviations"), *libraries))


def setup(tmp_path, folder, **environment):
    """Run setup.py on the probe, in the source folder."""
    source = tmp_path / "probe.c"
    source.write_text(f'#include "{ROOT}/csoftmax/kernels/arithmetic.h"\n{PROBE.read_text()}')
    return subprocess.run(
        [sys.executable, children.program("build_probe"), source, folder],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def built(tmp_path, **environment):
    """The libraries of all extensions whose instructions this processor has."""
    done = setup(tmp_path, tmp_path / "built", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    paths = sorted(map(str, (tmp_path / "built").glob("csoftmax/**/*.so")))
    foreign = tuple({"_v3", "_v4"} - {f"_{name}" for name in _isa.available()})
    paths = [path for path in paths if not Path(path).name.split(".")[0].endswith(foreign)]
    assert len(paths) >= 3
    return paths


def answer_of(tmp_path, compiler):
    """(version of GCC, version of Clang, flags of each extension): one version is 0."""
    done = setup(tmp_path, "-", CC=compiler)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def is_clang(tmp_path_factory):
    return answer_of(tmp_path_factory.mktemp("compiler"), COMPILER)[1] > 0


HOSTILE = ["-Ofast", "-ffast-math", "-funsafe-math-optimizations", "-ffinite-math-only"]
HOSTILE += ["-fassociative-math -fno-signed-zeros -fno-trapping-math", "-fno-signed-zeros"]
HOSTILE += ["-freciprocal-math", "-ffp-contract=fast", "-frounding-math"]
HOSTILE_X86 = ["-mrecip", "-mfpmath=387"]
HOSTILE_GCC = ["-fsingle-precision-constant", "-fsignaling-nans", "-fcx-limited-range"]
HOSTILE_CLANG = ["-fdenormal-fp-math=preserve-sign", "-fno-honor-nans", "-ffp-model=fast"]


def hostile_flags(is_clang):
    x86 = HOSTILE_X86 * sysconfig.get_platform().endswith("x86_64")
    return HOSTILE + x86 + (HOSTILE_CLANG if is_clang else HOSTILE_GCC)


def surrounded(place, flags):
    """The environment that has flags in a variable."""
    given = COMPILER if place == "CC" else os.environ.get(place, "")
    return {place: f"{given} {flags}"}


@pytest.mark.parametrize("place", ["CC", "CFLAGS", "CPPFLAGS", "LDFLAGS"])
def test_foreign_flags_do_not_change_the_arithmetic(tmp_path, place, is_clang):
    flags = " ".join(hostile_flags(is_clang))
    libraries = built(tmp_path, **surrounded(place, flags))
    assert seen(libraries) == {path: [] for path in libraries}


@long
@pytest.mark.parametrize("place", ["CFLAGS", "LDFLAGS"])
@pytest.mark.parametrize("flags", [*HOSTILE, *HOSTILE_X86, *HOSTILE_GCC, *HOSTILE_CLANG])
def test_no_foreign_flag_changes_the_arithmetic(tmp_path, place, flags, is_clang):
    if flags not in hostile_flags(is_clang):
        pytest.skip("another compiler's")
    libraries = built(tmp_path, **surrounded(place, flags))
    assert seen(libraries) == {path: [] for path in libraries}


def test_the_probe_sees_what_foreign_flags_change(tmp_path):
    found = set()
    for flags in ("-ffast-math", "-Ofast -fno-fast-math", "-ffp-contract=fast"):
        path = tmp_path / "probe.so"
        machine = "-march=x86-64-v3" if sysconfig.get_platform().endswith("x86_64") else "-O2"
        command = [*shlex.split(COMPILER), "-DMODULE=probe", "-O2", *flags.split(), machine]
        command += ["-fPIC", "-shared", PROBE, "-o", path]  # without arithmetic.h
        subprocess.run(command, check=True, timeout=60)
        found.update(seen([path])[str(path)])
    assert found >= {"fast_math", "reassociated", "is_nan", "contracted", "divided"}


@pytest.mark.parametrize(
    ("place", "flag"),
    [
        ("CC", "-mdaz-ftz"),
        ("CFLAGS", "-mdaz-ftz"),
        ("CPPFLAGS", "-mpc64"),
        ("LDFLAGS", "-mdaz-ftz"),
        ("LDSHARED", "-mpc32"),
        ("LDFLAGS", "/usr/lib/gcc/x86_64-linux-gnu/12/crtfastmath.o"),
        ("CFLAGS", "-mllvm -enable-unsafe-fp-math"),
        ("CC", "-Xclang -ffast-math"),
        ("CPPFLAGS", "-Xclang -menable-no-nans"),
    ],
)
def test_flags_that_no_other_takes_back_are_refused_by_name(tmp_path, place, flag):
    done = setup(tmp_path, tmp_path / "built", **surrounded(place, f"-g {flag} -g"))
    assert done.returncode != 0
    assert done.stderr.strip() == (
        f"csoftmax needs the arithmetic of IEEE 754: take {flag} out of {place}"
    )
    assert not (tmp_path / "built").exists()


def test_what_gets_past_the_flags_does_not_compile(tmp_path, is_clang):
    (tmp_path / "pragma.h").write_text('#pragma GCC optimize("fast-math")\n')
    (tmp_path / "flags").write_text("-Xclang -ffast-math\n")
    flags = f"@{tmp_path}/flags" if is_clang else f"-include {tmp_path}/pragma.h"
    done = setup(tmp_path, tmp_path / "built", **surrounded("CFLAGS", flags))
    assert done.returncode != 0
    assert "csoftmax needs the arithmetic of IEEE 754" in done.stdout + done.stderr


def test_floats_computed_in_a_wider_format_do_not_compile(tmp_path, is_clang):
    flag = "-ffp-eval-method=double"
    question = [*shlex.split(COMPILER), flag, "-xc", "-fsyntax-only", os.devnull]
    if not is_clang or subprocess.run(question, capture_output=True).returncode != 0:
        pytest.skip(f"{COMPILER} has no {flag}")
    done = setup(tmp_path, tmp_path / "built", **surrounded("CFLAGS", flag))
    assert done.returncode != 0
    assert "csoftmax needs floats and doubles computed as such" in done.stdout + done.stderr


def test_other_flags_for_clang_itself_are_no_affair_of_ours(tmp_path, is_clang):
    flags = "-Xclang -fno-pch-timestamp" if is_clang else "-fwrapv"
    libraries = built(tmp_path, **surrounded("CFLAGS", flags))
    assert seen(libraries) == {path: [] for path in libraries}


def wrapper(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("name", ["clang", "gcc", "cc"])
def test_the_compiler_is_told_by_what_it_answers_and_not_by_its_name(tmp_path, name):
    expected = answer_of(tmp_path, COMPILER)
    assert answer_of(tmp_path, wrapper(tmp_path, name, f'exec {COMPILER} "$@"')) == expected
    assert answer_of(tmp_path, f"env {COMPILER} -g") == expected  # as "ccache gcc"


@pytest.mark.parametrize(
    ("answer", "gcc", "clang"),
    [
        ("__clang_major__ 11", 11, 0),
        ("__clang_major__ 12", 12, 0),
        ("14 4", 0, 14),
        ("# a note 1\n\n17 4", 0, 17),
        ("", 0, 0),
        ("what?", 0, 0),
        ("__clang_major__ __GNUC__", 0, 0),
    ],
)
def test_each_compiler_gets_the_flags_that_it_knows(tmp_path, answer, gcc, clang):
    got = answer_of(tmp_path, wrapper(tmp_path, "cc", f"cat >/dev/null; echo '{answer}'"))
    assert got[:2] == [gcc, clang]
    for name, flags in got[2].items():
        assert ("-fno-single-precision-constant" in flags) == (gcc > 0)
        assert ("-fdenormal-fp-math=ieee" in flags) == (clang > 0)
        for_copies = any(flag.startswith("-mmove-max") for flag in flags)
        assert for_copies == (gcc >= 12 and name.endswith(("_v3", "_v4")))


def test_without_a_compiler_there_are_flags_still(tmp_path):
    assert answer_of(tmp_path, str(tmp_path / "no-compiler"))[:2] == [0, 0]  # an sdist needs none


@long
def test_a_package_built_with_fast_math_gives_the_same_bits(tmp_path):
    # Built as the ImportError in the source folder says, by which that is followed too.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("csoftmax", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    for path in source.glob("csoftmax/**/*.so"):
        path.unlink()
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    fast = "-Ofast -ffast-math"
    environment.update(CFLAGS=fast, CPPFLAGS=f"{environment.get('CPPFLAGS', '')} {fast}")
    environment.update(LDFLAGS=f"{environment.get('LDFLAGS', '')} {fast}")

    def run(*arguments):
        done = subprocess.run(
            [python, *arguments], cwd=source, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("-m", "pip", "install", "--editable", ".")
    run("-c", "import csoftmax; assert float('5e-324') * float('1') != 0")
    program = ROOT / "scripts" / "output_hash.py"
    assert run(program) == children.run_well(program, timeout=300)
