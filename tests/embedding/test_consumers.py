"""Small programs of other languages give the bits of the Python functions; docs/embedding.md shows them."""

import re
import shutil
import subprocess
import sys

import building
import children
import pytest
from building import HERE, STRICT, SUFFIX
from header import declared, functions_in

ROOT = HERE.parents[1]

PRELUDE = f"""if True:
    import ctypes, sys
    import numpy as np
    sys.path[:0] = [{{folder!r}}, {str(HERE.parent)!r}]
    import csoftmax
    from reference import logits_of, same_bits
    rng = np.random.default_rng(20261126)
"""


def run(folder, body):
    """Run a program in a child process in which the folder's modules can be imported."""
    assert children.run_well("-c", PRELUDE.format(folder=str(folder)) + body) == "done\n"


def test_cython_rows_give_the_mean_loss_and_gradient_of_the_batch(tmp_path):
    pytest.importorskip("Cython", reason="the test extra is not installed")
    source = building.cython(HERE / "consumer.pyx", tmp_path)
    building.shared(source, tmp_path / f"consumer{SUFFIX}")
    body = """
    import consumer
    for n_rows, n_classes in [(1, 1), (3, 10), (7, 100), (40, 1000), (3, 5000)]:
        logits = logits_of(rng, (n_rows, n_classes), np.float32)
        target = rng.integers(0, n_classes, n_rows)
        losses = csoftmax.cross_entropy(logits, target, reduction="none")
        grad = csoftmax.cross_entropy_with_grad(logits, target)[1]
        assert consumer.mean_loss(logits, target) == sum(map(float, losses)) / n_rows
        assert same_bits(logits, grad)
    assert np.isnan(consumer.mean_loss(logits, target + n_classes))
    print("done")
"""
    run(tmp_path, body)


def test_a_c_module_that_reads_a_row_piece_by_piece_gives_the_loss_of_the_whole_row(tmp_path):
    building.shared(HERE / "consumer.c", tmp_path / f"consumer{SUFFIX}", "-std=c99", *STRICT)
    body = """
    import consumer, io
    for n_classes in (9, 2048, 2049, 50_000):
        x = logits_of(rng, n_classes, np.float32)
        for target in (0, n_classes // 2, n_classes - 1):
            file = io.BytesIO(x.tobytes())
            pieces = iter(lambda: file.read(4 * 2048), b"")
            assert consumer.loss_of_pieces(pieces, target) == csoftmax.cross_entropy(x, target)
        assert np.isnan(consumer.loss_of_pieces([x], n_classes))
        assert np.isnan(consumer.loss_of_pieces([], 0))
    try:
        consumer.loss_of_pieces([x, None], 0)
    except TypeError as error:
        assert str(error) == "a bytes-like object is required, not 'NoneType'"
        print("done")
"""
    run(tmp_path, body)


def test_a_cpp_library_without_python_gives_the_mean_loss_of_the_batch(tmp_path):
    library = tmp_path / "libconsumer.so"
    building.shared(HERE / "consumer.cpp", library, "-std=c++11", *STRICT, language="c++")
    body = f"""
    from ctypes import byref, c_double, c_ssize_t, c_void_p, py_object
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = c_void_p, (py_object, ctypes.c_char_p)
    table = pointer_of(csoftmax._batch.C_FUNCTIONS, b"csoftmax._batch.C_FUNCTIONS")
    mean_loss = ctypes.CDLL({str(library)!r}).mean_loss
    mean_loss.argtypes = (*[c_void_p] * 3, *[c_ssize_t] * 2, *[c_void_p] * 2)
    mean, bad = c_double(7), c_ssize_t(7)
    for n_rows, n_classes in [(1, 1), (30, 10), (300, 1000), (5, 40_000)]:
        x = logits_of(rng, (n_rows, n_classes), np.float32)
        tokens = rng.integers(0, n_classes, n_rows, np.int32)
        tokens[1::3] = -100
        arguments = (table, x.ctypes.data, tokens.ctypes.data, *x.shape, byref(mean), byref(bad))
        assert mean_loss(*arguments) == 0
        losses = csoftmax.cross_entropy(x, tokens, reduction="none")
        assert mean.value == sum(map(float, losses)) / np.count_nonzero(tokens != -100)
        assert bad.value == 7
    tokens[4] = n_classes
    assert mean_loss(*arguments) == 1
    assert bad.value == 4
    print("done")
"""
    run(tmp_path, body)


def test_ctypes_merges_the_states_of_shards_to_those_of_the_whole_row():
    body = """
    import ctypes_consumer
    for n_classes in (10, 2048, 2049, 3 * 2048, 10_000):
        x = logits_of(rng, n_classes, np.float32)
        for target in (0, n_classes - 1):
            loss, grad = csoftmax.cross_entropy_with_grad(x, target)
            row = x.copy()
            shards = [row[first : first + 2048] for first in range(0, n_classes, 2048)]
            assert ctypes_consumer.cross_entropy(shards, target) == loss
            assert same_bits(row, grad)
    print("done")
"""
    run(HERE, body)


def test_numba_loops_give_the_softmax_of_each_group():
    pytest.importorskip("numba", exc_type=ImportError)
    body = """
    import numba_consumer
    sizes = np.array([1, 2, 3, 0, 8, 9, 100, 1, 2048, 2049, 5000])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    x = logits_of(rng, starts[-1], np.float64)
    expected = np.concatenate([csoftmax.softmax(part) for part in np.split(x, starts[1:-1])])
    assert same_bits(numba_consumer.softmax_of_groups(x, starts), expected)
    print("done")
"""
    run(HERE, body)


# ---- What the documentation shows ----

CONSUMERS = {
    "consumer.pyx": "cython",
    "consumer.c": "c",
    "consumer.cpp": "cpp",
    "ctypes_consumer.py": "python",
    "numba_consumer.py": "python",
}


def blocks_of(page, language):
    """The code in this language on a page of the documentation."""
    return re.findall(
        rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE
    )


def test_the_documentation_quotes_the_consumers_literally():
    for name, language in CONSUMERS.items():
        assert (HERE / name).read_text() in blocks_of("docs/embedding.md", language)


@pytest.mark.parametrize("name", CONSUMERS)
def test_a_consumer_is_short_enough_to_be_read(name):
    lines = (HERE / name).read_text().splitlines()
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
    shutil.copy(HERE / name, tmp_path)
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
    run(tmp_path, f"    ctypes.CDLL({str(built)!r})\n    print('done')\n")
    if name != "consumer.cpp":
        run(tmp_path, "    import consumer\n    print('done')\n")


def test_the_example_in_the_readme_gives_the_loss(tmp_path):
    pytest.importorskip("Cython", reason="the test extra is not installed")
    (text,) = blocks_of("README.md", "cython")
    (tmp_path / "readme.pyx").write_text(text)
    building.shared(
        building.cython(tmp_path / "readme.pyx", tmp_path), tmp_path / f"readme{SUFFIX}"
    )
    body = """
    import readme
    x = logits_of(rng, 32, np.float32)
    assert readme.loss(x, 5) == csoftmax.cross_entropy(x, 5)
    print("done")
"""
    run(tmp_path, body)
