"""The consumers of tests/embedding beside the Python functions: python consumers.py FOLDER FUNCTION [ARGUMENT].

The folder has the modules that were built. Those that are given arrays which are not as they need them must refuse.
"""

import ctypes
import importlib
import io
import sys

import numpy as np
import pytest

import csoftmax
from support.bits import same_bits
from support.cases import logits_of

rng = np.random.default_rng(20261126)


def read_only(a):
    a.flags.writeable = False
    return a


# Each holds what x holds, but not as neighbours that may be written, of x's dtype.
OTHERS = {
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed": lambda x: x[..., ::-1].copy()[..., ::-1],
    "broadcast": lambda x: np.broadcast_to(x[..., :1], x.shape),
    "integers": lambda x: x.astype(np.int64),
    "wider or narrower": lambda x: x.astype(np.float64 if x.dtype == np.float32 else np.float32),
    "of two dimensions": lambda x: x[:, None],
    "read-only": lambda x: read_only(x.copy()),
}


def refused(error, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except error:
        return True
    return False


def imports(module):
    importlib.import_module(module)


def loads(library):
    ctypes.CDLL(library)


def cython_rows():
    from consumer import mean_loss

    for n_rows, n_classes in [(1, 1), (3, 10), (7, 100), (40, 1000), (3, 5000)]:
        logits = logits_of(rng, (n_rows, n_classes), np.float32)
        target = rng.integers(0, n_classes, n_rows)
        losses = csoftmax.cross_entropy(logits, target, reduction="none")
        grad = csoftmax.cross_entropy_with_grad(logits, target)[1]
        assert mean_loss(logits, target) == sum(map(float, losses)) / n_rows
        assert same_bits(logits, grad)
    assert np.isnan(mean_loss(logits, target + n_classes))


def c_pieces():
    from consumer import loss_of_pieces

    for n_classes in (9, 2048, 2049, 50_000):
        x = logits_of(rng, n_classes, np.float32)
        for target in (0, n_classes // 2, n_classes - 1):
            file = io.BytesIO(x.tobytes())
            pieces = iter(lambda file=file: file.read(4 * 2048), b"")
            assert loss_of_pieces(pieces, target) == csoftmax.cross_entropy(x, target)
        assert np.isnan(loss_of_pieces([x], n_classes))
        assert np.isnan(loss_of_pieces([], 0))
    with pytest.raises(TypeError, match="a bytes-like object is required, not 'NoneType'"):
        loss_of_pieces([x, None], 0)


def cpp_batch(library):
    from ctypes import byref, c_double, c_ssize_t, c_void_p, py_object

    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = c_void_p, (py_object, ctypes.c_char_p)
    table = pointer_of(csoftmax._batch.C_FUNCTIONS, b"csoftmax._batch.C_FUNCTIONS")
    mean_loss = ctypes.CDLL(library).mean_loss
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


def ctypes_shards():
    from ctypes_consumer import cross_entropy

    for n_classes in (10, 2048, 2049, 3 * 2048, 10_000):
        x = logits_of(rng, n_classes, np.float32)
        for target in (0, n_classes - 1):
            loss, grad = csoftmax.cross_entropy_with_grad(x, target)
            row = x.copy()
            shards = [row[first : first + 2048] for first in range(0, n_classes, 2048)]
            assert cross_entropy(shards, target) == loss
            assert same_bits(row, grad)


def numba_groups():
    from numba_consumer import softmax_of_groups

    sizes = np.array([1, 2, 3, 0, 8, 9, 100, 1, 2048, 2049, 5000])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    x = logits_of(rng, starts[-1], np.float64)
    expected = np.concatenate([csoftmax.softmax(part) for part in np.split(x, starts[1:-1])])
    assert same_bits(softmax_of_groups(x, starts), expected)


def readme_loss():
    from readme import loss

    x = logits_of(rng, 32, np.float32)
    assert loss(x, 5) == csoftmax.cross_entropy(x, 5)


# ---- Arrays that are not as they are needed ----


def numba_refuses():
    from numba_consumer import softmax_of_groups

    starts = np.array([0, 10, 11, 500])
    x = logits_of(rng, starts[-1], np.float64)
    expected = softmax_of_groups(x, starts)
    assert same_bits(expected, np.concatenate([*map(csoftmax.softmax, np.split(x, starts[1:-1]))]))
    for name, made in OTHERS.items():
        assert refused(TypeError, softmax_of_groups, made(x), starts), name
    for name in ("strided", "reversed"):
        assert refused(TypeError, softmax_of_groups, x, OTHERS[name](starts)), name
        copy = np.ascontiguousarray(OTHERS[name](x))
        assert same_bits(softmax_of_groups(copy, starts), expected)


def ctypes_refuses():
    from ctypes_consumer import cross_entropy

    x = logits_of(rng, 4096, np.float32)
    for name, made in OTHERS.items():
        first = x[:2048].copy()
        assert refused(ctypes.ArgumentError, cross_entropy, [first, made(x[2048:])], 7), name
        assert same_bits(first, x[:2048])
    shards = [x[:2048].copy(), x[2048:].copy()]
    assert cross_entropy(shards, 7) == csoftmax.cross_entropy(x, 7)


def cython_refuses():
    import consumer
    import readme

    x, target = logits_of(rng, (30, 20), np.float32), np.arange(30) % 20
    for name, made in OTHERS.items():
        assert refused(ValueError, consumer.mean_loss, made(x), target), name
        if name != "read-only":
            assert refused(ValueError, consumer.mean_loss, x, made(target)) or name == "integers"
            assert refused(ValueError, readme.loss, made(x[0]), 5), name
    before = x.copy()
    assert refused(ValueError, consumer.mean_loss, x.T, target[:20])
    assert same_bits(x, before)
    assert readme.loss(OTHERS["read-only"](x[0]), 5) == csoftmax.cross_entropy(x[0], 5)


def c_refuses():
    from consumer import loss_of_pieces

    x = logits_of(rng, 4096, np.float32)
    for name in ("strided", "reversed", "broadcast"):
        pieces = [x[:2048], OTHERS[name](x[2048:])]
        assert refused(ValueError, loss_of_pieces, pieces, 7), name
    assert refused(ValueError, loss_of_pieces, [x.tobytes()[:-1]], 7)
    assert loss_of_pieces([x[:2048], x[2048:]], 7) == csoftmax.cross_entropy(x, 7)


def cffi_refuses():
    import cffi

    ffi = cffi.FFI()
    address = csoftmax.address("logsumexp_row_f32")
    logsumexp = ffi.cast("float (*)(const float *, ptrdiff_t)", address)
    x = logits_of(rng, 100, np.float32)
    for name in ("strided", "reversed", "broadcast"):
        assert refused(ValueError, ffi.from_buffer, "float[]", OTHERS[name](x)), name
    assert logsumexp(ffi.from_buffer("float[]", x), x.size) == csoftmax.logsumexp(x)


if __name__ == "__main__":
    folder, function, *arguments = sys.argv[1:]
    sys.path.insert(0, folder)
    globals()[function](*arguments)
    print("done")
