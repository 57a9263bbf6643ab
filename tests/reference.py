"""The definitions in longdouble, the maximum's own 1 left out, and the bounds of the contract."""

import numpy as np

from csoftmax import _isa

# Units in the last place, docstrings promise these: the largest that `make accuracy` and the many rows of
# test_accuracy.py find, rounded up to the next half. (function, dtype)
BOUNDS = {
    ("softmax", "float32"): 3.0,
    ("softmax", "float64"): 3.0,
    ("log_softmax", "float32"): 3.0,
    ("log_softmax", "float64"): 3.5,
    ("logsumexp", "float32"): 1.5,
    ("logsumexp", "float64"): 3.0,
    ("gradient", "float32"): 3.0,
    ("gradient", "float64"): 4.0,
}
if _isa.NAME == "baseline":  # multiply-adds round twice where the processor has no fused ones
    BOUNDS = {key: bound + 0.5 for key, bound in BOUNDS.items()}

# Around the 16 lanes, blocks of 64 and chunks of 2048 classes; around tiles and lanes of rows.
CLASSES = [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 129, 1000]
CLASSES += [2047, 2048, 2049, 4097]
ROWS = [1, 2, 15, 16, 17, 63, 64, 65, 257]
INNER = [1, 3, 15, 16, 17, 49, 64, 100]

INF, NAN = np.inf, np.nan


def special_rows(dtype):
    """Rows of the contract's table of special values: row, softmax, log_softmax, logsumexp."""
    big = 3e38 if dtype == "float32" else 1.7e308
    return [
        ([0, -INF, 0], [0.5, 0, 0.5], [-np.log(2), -INF, -np.log(2)], np.log(2)),
        ([-INF, 5], [0, 1], [-INF, 0], 5),
        ([-INF, -INF], [NAN, NAN], [NAN, NAN], -INF),
        ([-INF], [NAN], [NAN], -INF),
        ([1, INF], [NAN, NAN], [NAN, NAN], INF),
        ([INF, INF], [NAN, NAN], [NAN, NAN], INF),
        ([-INF, INF, 3], [NAN] * 3, [NAN] * 3, INF),
        ([1, NAN], [NAN, NAN], [NAN, NAN], NAN),
        ([-INF, NAN], [NAN, NAN], [NAN, NAN], NAN),
        ([INF, NAN, -INF], [NAN] * 3, [NAN] * 3, NAN),
        ([big, -big], [1, 0], [0, -INF], big),
        ([-7.25], [1], [0], -7.25),
    ]


def logits_of(rng, shape, dtype, spread=5):
    return (spread * rng.standard_normal(shape)).astype(dtype)


def same_bits(a, b):
    """Whether dtype, shape and every bit are equal: unlike ==, it tells -0.0 from +0.0."""
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def parts(x, axis):
    """Differences to the maximum, their exponentials, the sum of all but one's, in longdouble."""
    x = np.asarray(x, np.longdouble)
    with np.errstate(all="ignore"):
        difference = x - x.max(axis, keepdims=True, initial=-np.inf)
        e = np.exp(difference)
    top = np.zeros(x.shape, bool)
    if x.shape[axis]:
        np.put_along_axis(top, np.expand_dims(x.argmax(axis), axis), True, axis)
    return difference, e, np.where(top, 0, e).sum(axis, keepdims=True)


def softmax(x, axis=-1):
    _, e, others = parts(x, axis)
    return e / (1 + others)


def log_softmax(x, axis=-1):
    difference, _, others = parts(x, axis)
    return difference - np.log1p(others)


def logsumexp(x, axis=-1):
    _, _, others = parts(x, axis)
    return (np.asarray(x, np.longdouble).max(axis, keepdims=True) + np.log1p(others)).squeeze(axis)


def cross_entropy(logits, target, axis=-1, ignore_index=-100):
    """Loss of each row and, unscaled, its gradient."""
    _, e, others = parts(logits, axis)
    target = np.asarray(target)
    counts = np.expand_dims(target != ignore_index, axis)
    index = np.expand_dims(np.where(target == ignore_index, 0, target), axis)
    loss = -np.take_along_axis(log_softmax(logits, axis), index, axis)
    grad = e / (1 + others)
    is_target = np.zeros(e.shape, bool)
    np.put_along_axis(is_target, index, True, axis)
    rest = np.where(is_target, 0, e).sum(axis, keepdims=True)
    np.put_along_axis(grad, index, -rest / (1 + others), axis)
    return np.where(counts, loss, 0).squeeze(axis), np.where(counts, grad, 0)


def ulps(got, exact, scale=None, dtype=None):
    """Largest distance, in units of the last place of the exact value (or of `scale`, if larger).

    The units are those of `dtype`, `got`'s unless given, subnormal ones included.
    """
    got, exact = np.asarray(got), np.asarray(exact)
    size = np.abs(exact) if scale is None else np.maximum(np.abs(exact), scale)
    with np.errstate(all="ignore"):
        rounded = exact.astype(dtype or got.dtype)
        unit = np.spacing(np.asarray(size, rounded.dtype)).astype(np.longdouble)
        same = (got == exact) | (np.isnan(got) & np.isnan(exact))
        same |= np.isinf(rounded) & (got == rounded)  # the exact value overflows the dtype
        distance = np.where(same, 0, np.abs(got.astype(np.longdouble) - exact) / unit)
    return float(distance.max(initial=0))
