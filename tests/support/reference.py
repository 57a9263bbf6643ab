"""The definitions in longdouble, the maximum's own 1 left out, and the bounds of the contract."""

import numpy as np
import pytest

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
    ("gradient", "float32"): 3.5,
    ("gradient", "float64"): 4.5,
    # Those of log_softmax, and half a unit for each of two weights.
    ("weighted loss", "float32"): 4.0,
    ("weighted loss", "float64"): 4.5,
    ("smoothed loss", "float32"): 5.5,
    ("smoothed loss", "float64"): 7.0,
    ("smoothed gradient", "float32"): 8.0,  # of the larger of its two parts
    ("smoothed gradient", "float64"): 8.0,
    ("softmax_backward", "float32"): 2.0,  # of the sum of its terms' magnitudes, as the next
    ("softmax_backward", "float64"): 6.0,
    ("log_softmax_backward", "float32"): 2.0,
    ("log_softmax_backward", "float64"): 6.0,
}
if _isa.NAME == "baseline":  # multiply-adds round twice where the processor has no fused ones
    BOUNDS = {key: bound + 1 for key, bound in BOUNDS.items()}

INF, NAN = np.inf, np.nan
WIDE = np.finfo(np.longdouble).nmant > 52  # not on Windows, nor on Apple's aarch64


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
        ([INF, -INF], [NAN, NAN], [NAN, NAN], INF),
        ([-INF, INF, 3], [NAN] * 3, [NAN] * 3, INF),
        ([1, NAN], [NAN, NAN], [NAN, NAN], NAN),
        ([NAN, 1], [NAN, NAN], [NAN, NAN], NAN),
        ([-INF, NAN], [NAN, NAN], [NAN, NAN], NAN),
        ([INF, NAN], [NAN, NAN], [NAN, NAN], NAN),
        ([INF, NAN, -INF], [NAN] * 3, [NAN] * 3, NAN),
        ([NAN, INF, -INF], [NAN] * 3, [NAN] * 3, NAN),
        ([big, -big], [1, 0], [0, -INF], big),
        ([-7.25], [1], [0], -7.25),
    ]


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


def shares(target, shape, axis=-1, ignore_index=-100, weight=None, label_smoothing=0.0):
    """a of l_n = -s_n sum_c a_nc log p_nc: what each class counts in its row's loss; 0 in ignored rows."""
    target, eps = np.asarray(target), np.longdouble(label_smoothing)
    if target.dtype.kind == "f":
        a = target.astype(np.longdouble)
    else:
        a = np.zeros(shape, np.longdouble)
        index = np.expand_dims(np.where(target == ignore_index, 0, target), axis)
        np.put_along_axis(a, index, 1, axis)
    a = (1 - eps) * a + eps / shape[axis]
    if weight is not None:
        a = np.moveaxis(np.moveaxis(a, axis, -1) * np.asarray(weight, np.longdouble), -1, axis)
    if target.dtype.kind != "f":
        a = np.where(np.expand_dims(target != ignore_index, axis), a, 0)
    return a


def rows_times(values, sample_weight, axis):
    """values of the logits' shape times those of their rows; 0 * inf is 0."""
    if sample_weight is None:
        return values
    rows = np.expand_dims(np.asarray(sample_weight, np.longdouble), axis)
    with np.errstate(all="ignore"):
        return np.where((rows == 0) & ~np.isnan(values), 0, values * rows)


def divided(logits, temperature, axis=-1):
    """(logits - the largest) / temperature, exactly but for longdouble's last places: what rows are functions of."""
    logits = np.asarray(logits, np.longdouble)
    if float(temperature) == 1:
        return logits
    top = logits.max(axis, keepdims=True, initial=-INF)
    return (logits - np.where(np.isfinite(top), top, 0)) / np.longdouble(float(temperature))


def cross_entropy(
    logits,
    target,
    axis=-1,
    ignore_index=-100,
    *,
    weight=None,
    sample_weight=None,
    label_smoothing=0.0,
    temperature=1.0,
):
    """Loss of each row and its gradient, of the sum: neither is divided by a number of rows."""
    logits, target = divided(logits, temperature, axis), np.asarray(target)
    a = shares(target, logits.shape, axis, ignore_index, weight, label_smoothing)
    counts = np.full(logits.shape, True)
    if target.dtype.kind != "f":
        counts &= np.expand_dims(target != ignore_index, axis)
    _, e, others = parts(logits, axis)
    log_p, p = log_softmax(logits, axis), e / (1 + others)
    with np.errstate(all="ignore"):
        loss = np.where((a == 0) & ~np.isnan(log_p), 0, a * -log_p)
    loss = rows_times(np.where(counts, loss, 0).sum(axis, keepdims=True), sample_weight, axis)
    # p sum_k a_k - a, without what cancels: the class's own part of either. Only the maximum may exceed 1/2.
    rest = np.where(p > 0.5, others / (1 + others), 1 - p)
    grad = p * (a.sum(axis, keepdims=True) - a) - a * rest
    grad = rows_times(np.where(counts, grad, 0), sample_weight, axis)
    return loss.squeeze(axis), grad / np.longdouble(float(temperature))


def gradient_scale(logits, target, axis=-1, *, sample_weight=None, temperature=1.0, **options):
    """The larger of the probability's part and the target mass in each entry of the gradient."""
    logits = divided(logits, temperature, axis)
    a = shares(target, logits.shape, axis, **options)
    scale = np.maximum(np.abs(softmax(logits, axis) * a.sum(axis, keepdims=True)), np.abs(a))
    scale = np.abs(rows_times(scale, sample_weight, axis))
    return scale / np.longdouble(float(temperature))


def mean_divisor(target, shape, axis=-1, ignore_index=-100, weight=None, sample_weight=None):
    """What the mean divides by: the weights of the rows that count; of probabilities, the rows' alone."""
    target = np.asarray(target)
    rows = np.ones(np.delete(shape, axis), np.longdouble)
    if sample_weight is not None:
        rows = rows * np.asarray(sample_weight, np.longdouble)
    if target.dtype.kind != "f":
        counts = target != ignore_index
        if weight is not None:
            rows = rows * np.asarray(weight, np.longdouble)[np.where(counts, target, 0)]
        rows = np.where(counts, rows, 0)
    return rows.sum()


def softmax_backward(grad, output, axis=-1):
    """The gradient with respect to the logits, and for each entry the sum of its terms' magnitudes."""
    g, y = np.asarray(grad, np.longdouble), np.asarray(output, np.longdouble)
    g = g - np.take_along_axis(g, np.expand_dims(y.argmax(axis), axis), axis)
    terms = y * g  # the maximum's own is 0
    size = y * (np.abs(g) + np.abs(terms).sum(axis, keepdims=True))
    return y * (g - terms.sum(axis, keepdims=True)), size


def log_softmax_backward(grad, output, axis=-1):
    """The gradient with respect to the logits, and for each entry the sum of its terms' magnitudes."""
    g, log_p = np.asarray(grad, np.longdouble), np.asarray(output, np.longdouble)
    p, top = np.exp(log_p), np.zeros(g.shape, bool)
    np.put_along_axis(top, np.expand_dims(log_p.argmax(axis), axis), True, axis)
    with np.errstate(all="ignore"):  # -0 * inf, where the maximum is not
        own = np.where(top, -g * np.expm1(log_p), g)
    others = np.where(top, 0, g).sum(axis, keepdims=True)
    others_size = np.where(top, 0, np.abs(g)).sum(axis, keepdims=True)
    exact = np.where(top, own - p * others, own - p * g.sum(axis, keepdims=True))
    size = np.where(top, others_size, np.abs(g).sum(axis, keepdims=True))
    return exact, np.abs(own) + p * size


def ulps(got, exact, scale=None, dtype=None):
    """Largest distance, in units of the last place of the exact value (or of `scale`, if larger).

    The units are those of `dtype`, `got`'s unless given, subnormal ones included.
    """
    got, exact = np.asarray(got), np.asarray(exact)
    if exact.dtype == np.longdouble and not WIDE and np.dtype(dtype or got.dtype) == np.float64:
        pytest.skip("longdouble is float64 here, too narrow to judge float64 by")
    size = np.abs(exact) if scale is None else np.maximum(np.abs(exact), scale)
    with np.errstate(all="ignore"):
        rounded = exact.astype(dtype or got.dtype)
        unit = np.spacing(np.asarray(size, rounded.dtype)).astype(np.longdouble)
        same = (got == exact) | (np.isnan(got) & np.isnan(exact))
        same |= np.isinf(rounded) & (got == rounded)  # the exact value overflows the dtype
        distance = np.where(same, 0, np.abs(got.astype(np.longdouble) - exact) / unit)
    return float(distance.max(initial=0))
