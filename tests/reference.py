"""The definitions in longdouble, with the maximum's own 1 left out of the sum, and the bounds of the contract."""

import numpy as np

# Units in the last place; README and docstrings promise these. (function, dtype)
BOUNDS = {
    ("softmax", "float32"): 3.0,
    ("softmax", "float64"): 3.0,
    ("log_softmax", "float32"): 1.5,
    ("log_softmax", "float64"): 2.0,
    ("logsumexp", "float32"): 1.0,
    ("logsumexp", "float64"): 2.0,
    ("gradient", "float32"): 3.0,
    ("gradient", "float64"): 3.0,
}


def parts(x, axis):
    """Differences to the maximum, their exponentials, and the sum of all but one maximum's, in longdouble."""
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
    rest = np.where(np.arange(e.shape[axis]).reshape([-1 if d == axis % e.ndim else 1 for d in range(e.ndim)]) == index,
                    0, e).sum(axis, keepdims=True)
    np.put_along_axis(grad, index, -rest / (1 + others), axis)
    return np.where(counts, loss, 0).squeeze(axis), np.where(counts, grad, 0)


def ulps(got, exact, scale=None):
    """Largest distance, in units of the last place of the exact value (or of `scale`, if that is larger)."""
    got, exact = np.asarray(got), np.asarray(exact)
    size = np.abs(exact) if scale is None else np.maximum(np.abs(exact), scale)
    unit = np.spacing(np.asarray(size, got.dtype)).astype(np.longdouble)
    same = (got == exact) | (np.isnan(got) & np.isnan(exact))
    with np.errstate(all="ignore"):
        distance = np.where(same, 0, np.abs(got.astype(np.longdouble) - exact) / unit)
    return float(distance.max(initial=0))
