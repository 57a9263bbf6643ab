"""The same bits for every layout, number of threads, split of the batch, and instruction set with multiply-add."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import csoftmax
from csoftmax import _batch, _isa

N_CLASSES = [2, 3, 4, 5, 8, 10, 15, 16, 17, 30, 64, 70, 129, 1000, 2049]


def all_results(x, target, axis=-1, **options):
    loss, grad = csoftmax.cross_entropy_with_grad(x, target, axis=axis, reduction="none", **options)
    return (
        csoftmax.softmax(x, axis, **options), csoftmax.log_softmax(x, axis, **options),
        csoftmax.logsumexp(x, axis, **options), loss, grad,
        csoftmax.cross_entropy(x, target, axis=axis, **options),
    )


def layouts(x):
    """The same values, otherwise in memory."""
    yield "F", np.asfortranarray(x)
    doubled = np.zeros((2 * x.shape[0], 3 * x.shape[1]), x.dtype)
    doubled[::2, ::3] = x
    yield "strided", doubled[::2, ::3]
    yield "negative strides", x[::-1, ::-1].copy()[::-1, ::-1]
    yield "padded rows", np.pad(x, ((0, 0), (0, 3)))[:, :-3]
    raw = np.zeros(x.nbytes + 1, np.uint8)
    misaligned = raw[1:].view(x.dtype).reshape(x.shape)
    misaligned[...] = x
    yield "misaligned", misaligned
    read_only = x.copy()
    read_only.flags.writeable = False
    yield "read-only", read_only
    yield "other byte order", x.astype(x.dtype.newbyteorder())
    yield "moved axis", np.ascontiguousarray(x.T).T


@pytest.mark.parametrize("n_classes", N_CLASSES)
def test_the_answer_does_not_depend_on_the_layout(rng, dtype, n_classes):
    x = (9 * rng.standard_normal((37, n_classes))).astype(dtype)
    x[5, 0] = -np.inf
    target = rng.integers(0, n_classes, 37)
    expected = all_results(x, target)
    for name, other in layouts(x):
        for got, want in zip(all_results(other, target), expected, strict=True):
            assert_array_equal(got, want, err_msg=name)
    columns = all_results(np.ascontiguousarray(x.T), target, axis=0)
    for got, want in zip(columns, expected, strict=True):
        assert_array_equal(got.T, want, err_msg="first axis")


@pytest.mark.parametrize("shape", [(3, 70, 5), (2, 33, 16), (2, 17, 40), (2, 4100, 20), (4, 3, 64), (2, 50, 70)])
def test_a_middle_axis_gives_what_the_last_one_gives(rng, dtype, shape):
    x = (9 * rng.standard_normal(shape)).astype(dtype)
    target = rng.integers(0, shape[1], (shape[0], shape[2]))
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    for got, want in zip(all_results(x, target, 1), all_results(last, target), strict=True):
        assert_array_equal(np.moveaxis(got, 1, -1) if np.ndim(got) == 3 else got, want)


def test_broadcast_views_are_read_as_they_are(dtype):
    row = np.arange(20).astype(dtype)
    view = np.broadcast_to(row, (300, 20))
    assert_array_equal(csoftmax.softmax(view), csoftmax.softmax(view.copy()))
    view = np.broadcast_to(row[:, None], (20, 300))
    assert_array_equal(csoftmax.log_softmax(view), csoftmax.log_softmax(view.copy()))


@pytest.mark.parametrize(("shape", "axis"), [((20_000, 10), 1), ((4000, 33), 1), ((500, 1000), 1), ((3, 70_000), 1),
                                             ((1, 300_001), 1), ((50, 4000), 0), ((300_000, 2), 0), ((9, 30, 999), 1)])
def test_the_answer_does_not_depend_on_the_number_of_threads(rng, dtype, shape, axis):
    x = (9 * rng.standard_normal(shape)).astype(dtype)
    target = rng.integers(0, shape[axis], np.delete(shape, axis))
    expected = all_results(x, target, axis, n_threads=1)
    for n_threads in (2, 3, 8, None):
        for got, want in zip(all_results(x, target, axis, n_threads=n_threads), expected, strict=True):
            assert_array_equal(got, want)


@pytest.mark.parametrize("n_classes", [3, 16, 40, 1000, 5000])
def test_rows_do_not_depend_on_their_batch(rng, dtype, n_classes):
    x = (9 * rng.standard_normal((150, n_classes))).astype(dtype)
    whole = csoftmax.softmax(x)
    for start, end in ((0, 1), (1, 18), (18, 150), (149, 150)):
        assert_array_equal(csoftmax.softmax(x[start:end]), whole[start:end])


def digest():
    """Of all results on a fixed set of arrays; also run in child processes."""
    rng = np.random.default_rng(1)
    total = hashlib.sha256()
    for dtype in ("float32", "float64"):
        for n_classes in N_CLASSES:
            x = (rng.integers(-(2**20), 2**20, (65, n_classes)) / 2**16).astype(dtype)
            x[::7] *= 8
            for result in all_results(x, rng.integers(0, n_classes, 65)):
                total.update(np.ascontiguousarray(result).tobytes())
    return total.hexdigest()


def test_v3_and_v4_give_the_same_bits():
    if "v4" not in _isa.available():
        pytest.skip("this processor runs " + ", ".join(_isa.available()))
    digests = set()
    for name in ("v3", "v4"):
        program = "import test_same_bits; print(test_same_bits.digest())"
        folder = os.path.dirname(__file__)
        digests.add(subprocess.run([sys.executable, "-c", program], env={**os.environ, "CSOFTMAX_ISA": name}, cwd=folder,
                                   capture_output=True, text=True, check=True, timeout=100).stdout)
    assert len(digests) == 1


def test_large_calls_use_threads(monkeypatch):
    if _batch.max_threads() < 2:
        pytest.skip("one processor, or built without OpenMP")
    assert _batch.max_threads() >= 2
