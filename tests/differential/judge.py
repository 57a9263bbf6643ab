"""Whether the result of a call is right: its dtype and shape, and each number by the bounds of the contract."""

import math

import exact
import mpmath
import numpy as np
from exact import FLOAT16, FLOAT32, FLOAT64, WIDE, Longdouble, TwoHundredBits

from csoftmax import _isa

# Units in the last place: the contract's table. (float32, float64)
BOUNDS = {
    "softmax": (3, 3),
    "log_softmax": (3, 3.5),
    "logsumexp": (2, 3),
    "gradient": (3.5, 4.5),
    "weighted index gradient": (5, 6),
    "weighted loss": (4, 4.5),
    "spread loss": (5.5, 7),
    "weighted gradient": (8, 8),
    "softmax_backward": (2, 6),
    "log_softmax_backward": (2, 6),
    # Nothing is promised where factors of terms have logarithms of their own: two units more than without.
    "weighted logsumexp": (4, 5),
    "nll_loss": (1, 1),
}
# Multiply-adds round twice where the processor has no fused ones.
MORE = 1 if _isa.NAME == "baseline" else 0
MOST_AT_200_BITS = 30_000  # elements: a minute


class ResultError(AssertionError):
    """A result that the contract does not allow."""


def bound(name, dtype, times=1):
    return WIDE(BOUNDS[name][dtype is FLOAT64] + MORE) * times


def rows_along(values, axes):
    """A (rows, classes) array of `values`, and what is needed to bring a result back."""
    order = [i for i in range(values.ndim) if i not in axes] + list(axes)
    n_classes = math.prod(values.shape[i] for i in axes)
    n_rows = math.prod(values.shape[i] for i in order[: values.ndim - len(axes)])
    return np.ascontiguousarray(values.transpose(order)).reshape(n_rows, n_classes)


def axes_of(axis, n_dims):
    """Axes from the front, in order; of a scalar none."""
    if not n_dims:
        return ()
    if axis is None:
        return tuple(range(n_dims))
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    return tuple(sorted(each % n_dims for each in axes))


def computed(dtype):
    """The dtype that numbers of this one are computed in."""
    dtype = np.dtype(dtype)
    return np.dtype(np.float32 if dtype.type in (np.float16, np.float32) else np.float64)


def elementwise(dtype):
    """The dtype of a result that has one number for each of the input."""
    return np.dtype(np.float16) if np.dtype(dtype).type is np.float16 else computed(dtype)


def wide(values):
    return np.asarray(values).astype(WIDE)


def compare(name, got, expected, dtype, again=None):
    """Raise ResultError unless each of `got` (rows, ...) is as `expected`.

    `again` gives that at 200 bits for some rows. `dtype` is that of the computation; half a unit more is allowed if
    `got`'s is narrower.
    """
    target = exact.dtype_of(got.dtype)
    number = wide(got)
    low, high = expected.low, expected.high
    error = expected.error
    size = np.maximum(np.abs(low), np.abs(high))
    if target is not dtype:
        with_unit = np.where(np.isfinite(size), size, 0)
        error = error + target.unit(with_unit) / 2
    limit = target.overflow
    above = np.where(np.isposinf(number), high + error < limit, number > high + error)
    below = np.where(np.isneginf(number), low - error > -limit, number < low - error)
    is_nan = np.isnan(number)
    bad = np.where(expected.nan, ~is_nan, np.where(expected.loose, is_nan, above | below | is_nan))
    bad &= ~expected.free
    if not bad.any():
        return
    at = tuple(int(i) for i in np.argwhere(bad)[0])
    rows = sorted({int(i) for i in np.argwhere(bad)[:8, 0]})
    near = 0
    if again is not None and (finer := again(rows)) is not None:
        for i, n in enumerate(rows):
            for j in np.argwhere(bad[n]).tolist():
                if _is_bad(number[n][tuple(j)], finer, (i, *j), target, dtype):
                    at = (n, *j)
                    break
                near += 1
            else:
                continue
            break
        else:
            return
    with np.errstate(all="ignore"):
        nearest = np.clip(number[at], low[at] - error[at], high[at] + error[at])
        unit = target.unit(size[at])
        distance = np.abs(number[at] - nearest) / unit
    raise ResultError(
        f"{name}: row and class {at}: got {got[at]!r}, not"
        f" {_shown(expected, at, error)}; {float(distance):.4g} units too far;"
        f" {int(bad.sum())} of {bad.size} numbers wrong"
    )


def _is_bad(number, finer, at, target, dtype):
    low, high, error = finer.low[at], finer.high[at], mpmath.mpf(0)
    if finer.nan[at]:
        return not np.isnan(number)
    if np.isnan(number):
        return True
    error = exact._mpf(finer.error[at])
    if target is not dtype:
        size = max(abs(exact._wide(low)), abs(exact._wide(high)))
        error += exact._mpf(target.unit(size) / 2 if np.isfinite(size) else 0)
    limit = exact._mpf(target.overflow)
    if np.isposinf(number):
        return high + error < limit
    if np.isneginf(number):
        return low - error > -limit
    return not low - error <= exact._mpf(number) <= high + error


def _shown(expected, at, error):
    if expected.nan[at]:
        return "NaN"
    if expected.loose[at]:
        return "any number but NaN"
    low, high = expected.low[at], expected.high[at]
    span = f"{low:.12g}" if low == high else f"from {low:.12g} to {high:.12g}"
    return f"{span} +- {error[at]:.3g}"


def finer(function, *arrays):
    """A function of rows that computes an Expected at 200 bits, or None if that takes too long."""

    def again(rows):
        chosen = [each[rows] if isinstance(each, np.ndarray) else each for each in arrays]
        if sum(each.size for each in chosen if isinstance(each, np.ndarray)) > MOST_AT_200_BITS:
            return None
        with mpmath.workprec(200):
            return function(TwoHundredBits, *chosen)

    return again


def is_shaped(name, got, shape, dtype):
    got = np.asarray(got)
    if got.shape != tuple(shape) or got.dtype != dtype:
        raise ResultError(
            f"{name}: got {got.dtype} of shape {got.shape}, not {dtype} of {tuple(shape)}"
        )


def softmax(name, x, axis, temperature, result, log, times=1, dtype=None):
    """softmax or log_softmax of `x` along one or more axes."""
    dtype = elementwise(x.dtype) if dtype is None else dtype
    is_shaped(name, result, x.shape, dtype)
    kind = exact.dtype_of(computed(x.dtype))
    if x.ndim == 0:
        x, result, axis = x.reshape(1), np.asarray(result).reshape(1), 0
    axes = axes_of(axis, x.ndim)
    rows, got = rows_along(wide(x), axes), rows_along(np.asarray(result), axes)
    if not rows.size:
        return
    function = exact.log_softmax if log else exact.softmax
    limit = bound("log_softmax" if log else "softmax", kind, times)
    arguments = rows, temperature, kind, limit
    expected = function(Longdouble, *arguments)
    compare(name, got, expected, kind, finer(function, *arguments))


def logsumexp(name, x, axis, temperature, result, keepdims, times=1):
    axes = axes_of(axis, x.ndim)
    shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape) if keepdims or i not in axes)
    kind = computed(x.dtype)
    is_shaped(name, result, shape, kind)
    rows = rows_along(wide(x), axes)
    got = np.asarray(result).reshape(-1)
    kind = exact.dtype_of(kind)
    if not rows.shape[1]:
        if not (np.isneginf(got)).all():
            raise ResultError(f"{name}: no classes have the logsumexp -inf, got {got}")
        return
    if not len(rows):
        return
    arguments = rows, temperature, kind, bound("logsumexp", kind, times)
    expected = exact.logsumexp(Longdouble, *arguments)
    compare(name, got, expected, kind, finer(exact.logsumexp, *arguments))


def cross_entropy(name, logits, target, options, loss, grad=None, with_grad=False, times=1):
    """The loss, and the gradient if there is one. Options as cross_entropy_with_grad has them."""
    axis = options.get("axis", -1) % logits.ndim
    reduction = options.get("reduction", "mean")
    temperature = options.get("temperature", 1.0)
    shape = logits.shape
    row_shape = shape[:axis] + shape[axis + 1 :]
    kind = computed(logits.dtype)
    is_shaped(f"{name}'s loss", loss, row_shape if reduction == "none" else (), kind)
    if with_grad:
        is_shaped(f"{name}'s gradient", grad, shape, elementwise(logits.dtype))
    kind = exact.dtype_of(kind)
    rows = rows_along(wide(logits), (axis,))
    is_index = target.dtype.kind in "iu"
    if not rows.size:
        if is_index:  # no rows, or rows of no classes, which are all ignored
            is_nothing(name, loss, reduction)
        return
    target = target.reshape(-1) if is_index else rows_along(wide(target), (axis,))
    weight = options.get("weight")
    weight = None if weight is None else wide(weight)
    sample_weight = options.get("sample_weight")
    sample_weight = None if sample_weight is None else wide(sample_weight).reshape(-1)
    smoothing = options.get("label_smoothing", 0.0)
    ignore_index = options.get("ignore_index", -100)
    of = exact.masses(target, rows.shape, weight, smoothing, ignore_index)
    grad_output = options.get("grad_output")
    if grad_output is not None:
        grad_output = np.broadcast_to(wide(grad_output).reshape(-1), len(rows))
    divisor = exact.mean_divisor(of, sample_weight) if reduction == "mean" else None
    loss_bound = "log_softmax"
    if of.is_spread:
        loss_bound = "spread loss"
    elif of.is_weighted or sample_weight is not None:
        loss_bound = "weighted loss"
    if of.is_spread or of.is_weighted:
        grad_bound = "weighted gradient" if of.is_spread else "weighted index gradient"
    elif sample_weight is not None or grad_output is not None:
        grad_bound = "weighted index gradient"
    else:
        grad_bound = "gradient"

    def chosen(rows_chosen):
        """Everything of some rows."""
        pick = slice(None) if rows_chosen is None else rows_chosen
        few = exact.Masses(
            *(each[pick] if isinstance(each, np.ndarray) else each for each in vars(of).values())
        )
        s = None if sample_weight is None else sample_weight[pick]
        g = None if grad_output is None else grad_output[pick]
        return rows[pick], few, s, g

    def losses(a, rows_chosen=None, reduce=True):
        x, few, s, _ = chosen(rows_chosen)
        measured = exact.measured(a, x, temperature, kind)
        each, size = exact.losses(a, measured, few, s, kind, bound(loss_bound, kind, times))
        if reduction == "none":
            return exact.as_results(each, size, kind, bound(loss_bound, kind, times))
        return exact.reduced(a, each, size, divisor, kind)

    def gradients(a, rows_chosen=None):
        x, few, s, g = chosen(rows_chosen)
        measured = exact.measured(a, x, temperature, kind)
        return exact.gradient(
            a, measured, few, s, g, temperature, divisor, kind, bound(grad_bound, kind, times)
        )

    def finely(function, is_reduced):
        def again(rows_chosen):
            n = rows.size if is_reduced else len(rows_chosen) * rows.shape[1]
            if n > MOST_AT_200_BITS:
                return None
            with mpmath.workprec(200):
                return function(TwoHundredBits, None if is_reduced else rows_chosen)

        return again

    got = np.asarray(loss).reshape(-1)
    if (np.signbit(got) & (got == 0)).any():
        raise ResultError(f"{name}: a loss is -0.0")
    compare(f"{name}'s loss", got, losses(Longdouble), kind, finely(losses, reduction != "none"))
    if with_grad:
        got = rows_along(np.asarray(grad), (axis,))
        expected = gradients(Longdouble)
        compare(f"{name}'s gradient", got, expected, kind, finely(gradients, False))


def is_nothing(name, loss, reduction):
    """The loss of rows that do not count."""
    got = np.asarray(loss).reshape(-1)
    if not (np.isnan(got) if reduction == "mean" else got == 0).all():
        raise ResultError(f"{name}: the {reduction} of no rows that count is {got}")


def log_prob(name, logits, index, axis, temperature, result):
    is_shaped(name, result, index.shape, computed(logits.dtype))
    axis %= logits.ndim
    kind = exact.dtype_of(computed(logits.dtype))
    rows = rows_along(wide(logits), (axis,))
    if not rows.size or not index.size:
        return
    several = index.reshape(len(rows), -1).astype(np.int64)
    got = np.asarray(result).reshape(several.shape)

    def function(a, rows, several):
        all_of = exact.log_softmax(a, rows, temperature, kind, bound("log_softmax", kind))
        fields = (
            np.take_along_axis(np.broadcast_to(each, rows.shape), several, 1)
            for each in vars(all_of).values()
        )
        return exact.Expected(*fields)

    compare(name, got, function(Longdouble, rows, several), kind, finer(function, rows, several))


def backward(name, grad, output, axis, result, log, is_softmax):
    dtype = np.result_type(elementwise(grad.dtype), elementwise(output.dtype))
    is_shaped(name, result, grad.shape, dtype)
    kind = exact.dtype_of(computed(dtype))
    axes = axes_of(axis, grad.ndim)
    g, y = (rows_along(wide(each), axes) for each in (grad, output))
    if not g.size:
        return
    got = rows_along(np.asarray(result), axes)
    if log:
        function, arguments = exact.log_softmax_backward, (g, y, kind, bound(name, kind))
    else:
        function, arguments = exact.softmax_backward, (g, y, is_softmax, kind, bound(name, kind))
    compare(name, got, function(Longdouble, *arguments), kind, finer(function, *arguments))


def weighted_logsumexp(name, x, b, axis, keepdims, return_sign, result):
    """special.logsumexp with b, or with return_sign."""
    kind = computed(np.result_type(x, b) if b is not None else x.dtype)
    if b is None:
        b = np.ones((), x.dtype)
    x, b = np.broadcast_arrays(np.atleast_1d(x), b)
    axes = axes_of(axis, x.ndim)
    shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape) if keepdims or i not in axes)
    value, sign = result if return_sign else (result, None)
    for each in (value, sign)[: 1 + return_sign]:
        is_shaped(name, each, shape, kind)
    kind = exact.dtype_of(kind)
    xs, bs = rows_along(wide(x), axes), rows_along(wide(b), axes)
    limit = bound("weighted logsumexp", kind)

    if not len(xs):
        return
    signs = {}

    def function(a, xs, bs):
        value, error, sign, free, unsure = exact.weighted_logsumexp(a, xs, bs, kind, limit)
        signs[a] = sign, free | unsure
        nan = np.isnan(a.wide(value)) | (sign < 0 if not return_sign else False)
        return exact.Expected.made(value, value, error, nan=nan, free=free | unsure)

    got = np.asarray(value).reshape(-1)
    compare(name, got, function(Longdouble, xs, bs), kind, finer(function, xs, bs))
    if return_sign:
        got = np.asarray(sign).reshape(-1)
        right, free = signs[Longdouble]
        if not ((got == right) | (np.isnan(got) & np.isnan(right)) | free).all():
            raise ResultError(f"{name}: got the signs {got}, not {right}")


def nll_loss(name, log_p, target, weight, ignore_index, reduction, result):
    axis = 1 if log_p.ndim > 1 else 0
    row_shape = log_p.shape[:axis] + log_p.shape[axis + 1 :]
    kind = computed(log_p.dtype)
    is_shaped(name, result, row_shape if reduction == "none" else (), kind)
    kind = exact.dtype_of(kind)
    rows = rows_along(wide(log_p), (axis,))
    if not rows.size:
        is_nothing(name, result, reduction)
        return
    weight = None if weight is None else wide(weight)
    of = exact.masses(target.reshape(-1), rows.shape, weight, 0.0, ignore_index)
    divisor = exact.mean_divisor(of, None)
    index = np.where(of.ignored, 0, target.reshape(-1)).astype(np.int64)
    x = np.take_along_axis(rows, index[:, None], 1)[:, 0]
    w = np.where(
        of.ignored, 0, 1 if weight is None else np.where(np.isfinite(weight), weight, 0)[index]
    )
    with np.errstate(all="ignore"):
        value = np.where(w == 0, 0, -w * x)
    nan, free = np.isnan(x) & ~of.ignored, of.unknown | (np.isnan(x) & (w == 0) & ~of.ignored)
    size = np.abs(np.where(np.isfinite(value), value, 0))
    error = bound("nll_loss", kind) * kind.unit(size, subnormal=False)
    error = error + exact.DOUBLE_TINY * ((size > 0) & (size < exact.NORMAL))
    loose = size > exact.DOUBLE_MAX

    def function(a, rows_chosen):
        pick = slice(None) if reduction != "none" else rows_chosen
        mp = a.number(value[pick])
        each = exact.Expected.made(mp, mp, error[pick], nan[pick], loose[pick], free[pick])
        if reduction == "none":
            each.loose = np.broadcast_to(False, each.nan.shape)
            return exact.as_results(each, size[pick], kind, bound("nll_loss", kind))
        return exact.reduced(a, each, size, divisor if reduction == "mean" else None, kind)

    got = np.asarray(result).reshape(-1)
    if (np.signbit(got) & (got == 0)).any():
        raise ResultError(f"{name}: a loss is -0.0")

    def again(rows_chosen):
        with mpmath.workprec(200):
            return function(TwoHundredBits, rows_chosen)

    compare(name, got, function(Longdouble, slice(None)), kind, again)


__all__ = ["FLOAT16", "FLOAT32", "FLOAT64", "ResultError"]
