"""Small programs of other languages give the bits of the Python functions; docs/embedding.md shows them."""

import re
import shutil
import subprocess
import sys

import pytest

from support import building
from support.building import CONSUMERS, STRICT, SUFFIX, blocks_of
from support.children import run_consumer as run
from support.header import declared, functions_in


def test_cython_rows_give_the_mean_loss_and_gradient_of_the_batch(tmp_path):
    pytest.importorskip("Cython", reason="the test extra is not installed")
    source = building.cython(CONSUMERS / "consumer.pyx", tmp_path)
    building.shared(source, tmp_path / f"consumer{SUFFIX}")
    run(tmp_path, "cython_rows")


def test_a_c_module_that_reads_a_row_piece_by_piece_gives_the_loss_of_the_whole_row(tmp_path):
    building.shared(CONSUMERS / "consumer.c", tmp_path / f"consumer{SUFFIX}", "-std=c99", *STRICT)
    run(tmp_path, "c_pieces")


def test_a_cpp_library_without_python_gives_the_mean_loss_of_the_batch(tmp_path):
    library = tmp_path / "libconsumer.so"
    building.shared(CONSUMERS / "consumer.cpp", library, "-std=c++11", *STRICT, language="c++")
    run(tmp_path, "cpp_batch", library)


def test_ctypes_merges_the_states_of_shards_to_those_of_the_whole_row():
    run(CONSUMERS, "ctypes_shards")


def test_numba_loops_give_the_softmax_of_each_group():
    pytest.importorskip("numba", exc_type=ImportError)
    run(CONSUMERS, "numba_groups")


# ---- What the documentation shows ----

LANGUAGES = {
    "consumer.pyx": "cython",
    "consumer.c": "c",
    "consumer.cpp": "cpp",
    "ctypes_consumer.py": "python",
    "numba_consumer.py": "python",
}


def test_the_documentation_quotes_the_consumers_literally():
    for name, language in LANGUAGES.items():
        assert (CONSUMERS / name).read_text() in blocks_of("docs/embedding.md", language)


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_consumer_is_short_enough_to_be_read(name):
    lines = (CONSUMERS / name).read_text().splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= 120


def test_the_documented_prototypes_are_those_of_the_header():
    (text,) = (
        block
        for block in blocks_of("docs/embedding.md", "c")
        if block.startswith("void softmax_row(")
    )
    expected = []
    for prototype in text.strip().split(";\n"):
        for dtype, kind in (("f32", "float"), ("f64", "double")):
            line = re.sub(r"\bT\b", kind, prototype.rstrip(";"))
            line = re.sub(r"^(\w+ \w+)\(", rf"\1_{dtype}(", line)
            expected += functions_in(line, r"^(\w+) (\w+)\(([^)]+)\)$")
    for prototype in text.strip().split(";\n"):
        (name,) = re.findall(r"^\w+ (\w+)\(", prototype)
        if name in ("merge", "finish", "finish_loss"):
            continue
        for dtype in ("f16", "bf16"):
            of_classes = "x|grad|out" if "softmax" in name else "x|grad"
            line = re.sub(rf"\bT \*({of_classes})\b", r"uint16_t *\1", prototype.rstrip(";"))
            line = re.sub(r"^(\w+ \w+)\(", rf"\1_{dtype}(", re.sub(r"\bT\b", "float", line))
            expected += functions_in(line, r"^(\w+) (\w+)\(([^)]+)\)$")
    assert expected == declared()


@pytest.mark.parametrize("number", range(3))
def test_the_documented_commands_build_the_consumers(tmp_path, number):
    if sys.platform == "win32" or shutil.which("cc") is None:
        pytest.skip("no compiler named cc")
    command = blocks_of("docs/embedding.md", "sh")[number]
    (name,) = re.findall(r"\bconsumer\.(?:pyx|c|cpp)\b", command)
    if name == "consumer.pyx":
        pytest.importorskip("Cython", reason="the test extra is not installed")
        pytest.importorskip("setuptools", reason="Cython's -i needs it")
    if name == "consumer.cpp" and shutil.which("c++") is None:
        pytest.skip("no compiler named c++")
    shutil.copy(CONSUMERS / name, tmp_path)
    done = subprocess.run(
        ["sh", "-e", "-c", command],
        cwd=tmp_path,
        env=building.environment() | {"CFLAGS": "-O0"},  # compiles faster
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    built = tmp_path / ("libconsumer.so" if name == "consumer.cpp" else f"consumer{SUFFIX}")
    run(tmp_path, "loads", built)
    if name != "consumer.cpp":
        run(tmp_path, "imports", "consumer")


def test_the_example_in_the_readme_gives_the_loss(tmp_path):
    pytest.importorskip("Cython", reason="the test extra is not installed")
    (text,) = blocks_of("README.md", "cython")
    (tmp_path / "readme.pyx").write_text(text)
    building.shared(
        building.cython(tmp_path / "readme.pyx", tmp_path), tmp_path / f"readme{SUFFIX}"
    )
    run(tmp_path, "readme_loss")
