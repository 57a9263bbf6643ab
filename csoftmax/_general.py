"""Every argument that is allowed: check, allocate, call; one function per kind of call.

What an argument may be is in _checks.py, the arithmetic in the kernels. Losses whose products may leave float64's range
are in _extremes.py. The public functions, which try the compiled fast path first, are in _functions.py.
"""

import collections
import functools
import math
import operator

import numpy as np

from csoftmax import _batch, _checks, _extremes, _large_integers, _signed

_MOST_INDICES = 32  # arrays that every NumPy takes as indices at once

# Beyond them differences, divided by an ordinary temperature and multiplied by ordinary masses, may be infinite.
_FAR_LOGITS = {np.dtype(np.float32): 1e18, np.dtype(np.float64): 1e280}


def in_default_state(function):
    """Let NumPy's conversions and sums round as the kernels do and raise no warning, whatever the caller's state."""

    def quietly(*arguments, **options):
        with np.errstate(all="ignore"):
            return function(*arguments, **options)

    @functools.wraps(function)
    def call(*arguments, **options):
        return _batch.in_default_state(quietly, arguments, options)

    return call


# ---- One result per logit, or one per row ----


@in_default_state
def probabilities(x, *, axis, temperature, out, n_threads, log, function, dtype=None):
    """Return softmax, or log_softmax if `log`, computed as if `x` were of `dtype`, which holds all its numbers."""
    x, own_dtype = _checks.floating_array(x, function)
    dtype = own_dtype if dtype is None else dtype
    temperature = _checks.positive_number(temperature, function)
    axis = _checks.axis_number(
        axis, x.ndim, function, several=lambda: _of_axes(function, temperature)
    )
    n_threads = _checks.thread_count(n_threads, function)
    if out is not None:
        _checks.output_array(out, x.shape, dtype, function)
    taken = _large_integers.taken_off(x, axis)
    result = _room_for(out, x, dtype)
    is_wide = dtype == np.float64 or _needs_float64(temperature)
    _batch.probabilities(
        _as_row(x), axis, _as_row(result), log, temperature, n_threads, is_wide, taken
    )
    return _deliver(result, dtype, out)


@in_default_state
def logsumexp(x, *, axis, keepdims, temperature, out, n_threads):
    x, dtype = _checks.floating_array(x, "logsumexp")
    dtype = _checks.computation_dtype(dtype)
    keepdims = _checks.flag(keepdims, "keepdims", "logsumexp")
    temperature = _checks.positive_number(temperature, "logsumexp")
    axis = _checks.axis_number(
        axis, x.ndim, "logsumexp", several=lambda: _of_axes("logsumexp", temperature, keepdims)
    )
    n_threads = _checks.thread_count(n_threads, "logsumexp")
    shape = x.shape[:axis] + (1,) * (keepdims and x.ndim > 0) + x.shape[axis + 1 :]
    if out is not None:
        _checks.output_array(out, shape, dtype, "logsumexp")
    kind = np.float64 if _needs_float64(temperature) else dtype
    taken = _large_integers.taken_off(x, axis)
    result = _batch.allocated(np.empty, shape, kind)
    if not x.size:
        result.fill(-np.inf)
    _batch.logsumexp(_as_row(x), axis, result, temperature, None, n_threads, taken)
    if taken is not None:
        result = _large_integers.with_maximum(result, taken.reshape(shape), temperature)
    if out is None:
        return result.astype(dtype, copy=False)[()]
    out[...] = result
    return out


@in_default_state
def log_prob(logits, index, *, axis, temperature, n_threads):
    logits, dtype = _checks.floating_array(logits, "log_prob", "logits")
    dtype = _checks.computation_dtype(dtype)
    temperature = _checks.positive_number(temperature, "log_prob")
    written, axis = axis, _checks.axis_number(axis, logits.ndim, "log_prob")
    n_threads = _checks.thread_count(n_threads, "log_prob")
    _checks.some_classes(logits, "log_prob")
    rows = logits.shape[:axis] + logits.shape[axis + 1 :]
    given = _checks.index_array(index, rows, logits.shape, operator.index(written), "log_prob")
    index, _, _ = _scanned(given, logits.shape[axis], None, n_threads, "log_prob", "index")
    kind = np.float64 if _needs_float64(temperature) else dtype
    result = _batch.allocated(np.empty, index.shape, kind)
    if index.size:
        taken = _large_integers.taken_off(logits, axis)
        _batch.log_prob(logits, axis, index, result, temperature, n_threads, taken)
    return result.astype(dtype, copy=False)[()]


@in_default_state
def backward(grad, output, *, axis, out, n_threads, log, function):
    """Return the gradient that goes back through softmax, or through log_softmax if `log`."""
    grad, dtype = _checks.floating_array(grad, function, "grad")
    output, other_dtype = _checks.floating_array(output, function, "output")
    if dtype != other_dtype:
        dtypes = _checks.computation_dtype(dtype), _checks.computation_dtype(other_dtype)
        dtype = np.result_type(*dtypes)
    _checks.same_shapes(grad, output, function)
    axis = _checks.axis_number(axis, grad.ndim, function)
    n_threads = _checks.thread_count(n_threads, function)
    if out is not None:
        _checks.output_array(out, grad.shape, dtype, function)
    result = _room_for(out, output, dtype, grad)
    _batch.backward(_as_row(grad), _as_row(output), axis, _as_row(result), log, n_threads)
    return _deliver(result, dtype, out)


def _of_axes(function, temperature, keepdims=False):
    """Return the cure for several axes: the call that takes them."""
    x = "x" if temperature == 1 else "numpy.divide(x, temperature)"
    return (
        f"call csoftmax.special.{function}({x}, axis={{}}{', keepdims=True' if keepdims else ''})"
    )


def _as_row(x):
    """Return a scalar as a row of one class."""
    return x.reshape(1) if x.ndim == 0 else x


def _needs_float64(temperature):
    """Whether float32 cannot hold the temperature or what differences become by it."""
    return not 1e-30 < temperature < 1e30


def _room_for(out, x, dtype, *others, apart=()):
    """Return `out` if the kernels can write there while they read the other arguments, else a new array.

    `x` and `others` may be `out` itself; what has to lie `apart` may not.
    """
    if out is None:
        return _batch.empty_result(x, dtype)
    for given in (x, *others):
        if np.may_share_memory(given, out):
            same = given.ctypes.data == out.ctypes.data and given.strides == out.strides
            if not (same and given.shape == out.shape and given.dtype == out.dtype):
                return _batch.empty_result(x, out.dtype)
    if any(given is not None and np.may_share_memory(given, out) for given in apart):
        return _batch.empty_result(x, out.dtype)
    return out


def _deliver(result, dtype, out):
    """Return `result`, of its own dtype or the computation's, in `out` if there is one, else in `dtype`."""
    if result is out:
        return out
    dtype = dtype if out is None else out.dtype
    if dtype.itemsize == 2 and result.dtype == np.float64:
        result = result.astype(np.float32)  # the result of float32, rounded once
    if out is None and result.dtype == dtype:
        return result if result.ndim else result[()]
    given = _batch.empty_result(result, dtype) if out is None else out
    given[...] = result  # it may overflow or vanish
    return given if given is out or given.ndim else given[()]


# ---- Losses ----


# What cross_entropy and its kin take beside logits and target.
LossOptions = collections.namedtuple(
    "LossOptions",
    "axis weight sample_weight ignore_index label_smoothing temperature reduction n_threads grad_output out",
    defaults=(None, None),
)


@in_default_state
def cross_entropy(logits, target, options, function, with_grad=False):
    """Return the loss and, `with_grad`, the gradient, else None."""
    given = _Loss(logits, target, options, function)
    if given.is_ordinary():
        grad = given.room_for_grad() if with_grad else None
        looks_first = grad is not None and given.may_need_logits_behind(grad)
        losses = given.write_losses(None if looks_first else grad)
        # Where the gradient has taken the logits' place, they cannot be asked for again, nor need to be.
        was_taken = grad is not None and not looks_first and np.may_share_memory(grad, given.logits)
        if was_taken or not given.is_extreme(losses):
            if looks_first:
                losses = given.write_losses(grad)
            return given.reduced(losses), given.delivered(grad)
    loss, grad = _extremes.cross_entropy(given, with_grad)
    return loss, given.delivered(grad)


class _Loss:
    """The arguments of a loss: checked, and as the drivers and _extremes.py read them."""

    def __init__(self, logits, target, options, function):
        self.logits, self.dtype = _checks.floating_array(logits, function, "logits")
        self.kind = _checks.computation_dtype(self.dtype)
        self.axis = _checks.axis_number(options.axis, self.logits.ndim, function)
        self.n_threads = _checks.thread_count(options.n_threads, function)
        self.reduction = _checks.reduction_name(options.reduction, function)
        self.ignore_index = _checks.ignore_number(options.ignore_index, function)
        self.temperature = _checks.positive_number(options.temperature, function)
        self.label_smoothing = _checks.fraction(options.label_smoothing, function)
        _checks.some_classes(self.logits, function)
        shape = self.logits.shape
        self.rows = rows = shape[: self.axis] + shape[self.axis + 1 :]
        written = operator.index(options.axis)  # the axis as messages name it
        given = _checks.target_array(target, rows, shape, written, self.ignore_index, function)
        place = shape, written, function
        n_classes = shape[self.axis]
        self.weight = _checks.weights(options.weight, "weight", "class", (n_classes,), *place)
        self.sample_weight = _checks.weights(
            options.sample_weight, "sample_weight", "row", rows, *place
        )
        self.grad_output = _checks.output_gradient(
            options.grad_output, self.reduction, rows, *place
        )
        self.grad_weight = self._grad_weight()
        self.out = options.out
        if self.out is not None:
            _checks.output_array(self.out, shape, self.dtype, function)
        self.target, self.probabilities, n_ignored = None, None, 0
        if given.dtype.kind not in "iu":
            self.probabilities = given
            self.ignore_index = None  # there is no index to ignore
        else:
            self.target, self.ignore_index, n_ignored = _scanned(
                given, n_classes, self.ignore_index, self.n_threads, function
            )
        self.divisor, self.divisor_carry = self._divisor(math.prod(rows) - n_ignored)
        self.taken = _large_integers.taken_off(self.logits, self.axis)

    def _divisor(self, n_rows):
        """Return what the losses' sum is divided by, and what rounding took from it."""
        if self.reduction != "mean":
            return 1.0, 0.0
        of_class = self.weight if self.probabilities is None else None
        if of_class is None and self.sample_weight is None:
            return float(n_rows), 0.0
        return _batch.total_weight(
            self.target, self.ignore_index, of_class, self.sample_weight, self.n_threads
        )

    def _grad_weight(self):
        """Return what the rows' gradients are multiplied by."""
        if self.grad_output is None:
            return self.sample_weight
        scales = self.grad_output
        if self.sample_weight is not None:
            scales = scales * self.sample_weight
        return np.ascontiguousarray(np.broadcast_to(scales, self.rows))

    def is_ordinary(self):
        """Whether no product with one of these numbers can leave the range of the computation."""
        narrows = self.kind == np.float32 and self.probabilities is not None
        return _extremes.are_ordinary(
            self.weight,
            self.sample_weight,
            self.grad_output,
            self.label_smoothing,
            self.temperature,
            self.divisor,
        ) and not (
            narrows
            and (self.probabilities.dtype.itemsize > 4 or self._magnifies())
            and not _extremes.are_ordinary_masses(self.probabilities)
        )

    def _magnifies(self):
        """Whether gradients are multiplied by so much that digits of subnormal masses would be missed."""
        most = 1.0 / abs(self.temperature * self.divisor)
        if self.grad_weight is not None and self.grad_weight.size:
            most *= np.abs(self.grad_weight).max()
        return most > 4

    def room_for_grad(self):
        """Return `out`, if nothing but the logits is read there, else a new array."""
        weights = (self.weight, self.sample_weight, self.grad_weight)
        apart = (self.target, self.probabilities, self.grad_output, *weights)
        return _room_for(self.out, self.logits, self.dtype, apart=apart)

    def may_need_logits_behind(self, grad):
        """Whether `grad` takes the place of the logits, though is_extreme() may ask for them again.

        Without masses far from 1 or below 0, or logits near the end of the range, it does not.
        """
        if not np.may_share_memory(grad, self.logits):
            return False
        masses = self.probabilities
        if masses is not None and not _extremes.are_ordinary_masses(masses):
            return True
        if masses is not None or self.weight is not None or self.label_smoothing:
            lowest, highest = self._ends_of_rows()
            most = _FAR_LOGITS[self.kind]  # beside a -inf, others may be as far
            if (np.isfinite(highest) & ((lowest < -most) | (highest > most))).any():
                return True
        return any(
            each is not None and each.size > 0 and each.min() < 0
            for each in (self.weight, self.sample_weight, masses)
        )

    def _ends_of_rows(self):
        """Return the least and the largest logit of each row."""
        return (
            np.asarray(ends(self.logits, self.axis)).astype(np.float64) for ends in (np.min, np.max)
        )

    def write_losses(self, grad):
        """Return the rows' losses; write the gradient to `grad`, if it is not None."""
        kind = self.kind if self.reduction == "none" else np.float64
        losses = _batch.allocated(np.zeros, self.rows, kind)
        _batch.cross_entropy(
            self.logits,
            self.axis,
            losses,
            grad,
            self.n_threads,
            taken=self.taken,
            target=self.target,
            ignore_index=self.ignore_index,
            probabilities=self.probabilities,
            label_smoothing=self.label_smoothing,
            temperature=self.temperature,
            divisor=self.divisor,
            weight=self.weight,
            sample_weight=self.sample_weight,
            grad_weight=self.grad_weight,
        )
        return losses

    def is_extreme(self, losses):
        """Whether `losses` tell that a product has left the range of the computation."""
        far, not_finite = _batch.look_at_losses(losses, self.kind == np.float64)
        if far and self.probabilities is not None:  # some are far from 1
            if not _extremes.are_ordinary_masses(self.probabilities):
                return True
        options = (
            self.weight,
            self.sample_weight,
            self.probabilities,
            self.label_smoothing or None,
        )
        if not not_finite or all(each is None for each in options):
            return False
        # Summands, or losses of both signs, may have been too large for the dtype where the sum is not.
        _, highest = self._ends_of_rows()
        rows = np.moveaxis(self.logits, self.axis, -1)[np.isfinite(highest) & ~np.isfinite(losses)]
        rows = rows.astype(np.float64)
        is_finite = np.isfinite(rows)
        # Where there is a -inf it may be the loss that is infinite, unless others are as far away.
        sizes = np.abs(np.where(is_finite, rows, 0)).max(-1, initial=0)
        return bool((is_finite.all(-1) | (sizes > _FAR_LOGITS[self.kind])).any())

    def reduced(self, losses):
        if self.reduction == "none":
            return losses[()]
        result = np.empty((), self.kind)
        _batch.reduce_losses(losses, self.divisor, self.divisor_carry, result, 0, self.n_threads)
        return result[()]

    def delivered(self, grad):
        return None if grad is None else _deliver(grad, self.dtype, self.out)


def _scanned(given, n_classes, ignore_index, n_threads, function, name="target"):
    """Return class indices as int64, all of them classes or ignored, what is ignored, and how many are."""
    target, ignore_index = _checks.target_int64(given, n_classes, ignore_index, function, name)
    bad, n_ignored = _batch.scan_targets(target, n_classes, ignore_index, n_threads)
    if bad >= 0:
        raise _checks.bad_target(given, bad, n_classes, function, name)
    return target, ignore_index, n_ignored


@in_default_state
def negative_log_likelihood(log_p, target, *, axis, weight, ignore_index, reduction, function):
    """Return minus the weighted log-probabilities at the targets, reduced."""
    log_p, dtype = _checks.floating_array(log_p, function, "input")
    dtype = _checks.computation_dtype(dtype)
    axis = _checks.axis_number(axis, log_p.ndim, function)
    _checks.reduction_name(reduction, function)
    ignore_index = _checks.ignore_number(ignore_index, function)
    _checks.some_classes(log_p, function)
    shape, n_classes = log_p.shape, log_p.shape[axis]
    rows = shape[:axis] + shape[axis + 1 :]
    given = _checks.index_targets(target, rows, shape, axis, ignore_index, function)
    weight = _checks.weights(weight, "weight", "class", (n_classes,), shape, axis, function)
    target, ignore_index, n_ignored = _scanned(given, n_classes, ignore_index, 0, function)
    counts = np.ones(rows, bool) if ignore_index is None else target != ignore_index
    index = np.where(counts, target, 0)
    loss = np.zeros(rows, np.float64)
    divisor, divisor_carry = float(target.size - n_ignored), 0.0
    if n_classes:
        of_target = _at_targets(log_p, index, axis).astype(np.float64)
        np.negative(of_target, out=loss, where=counts)
    if weight is not None:
        of_target = np.where(counts, weight[index] if n_classes else loss, 0)
        of_rows = np.abs(np.where(of_target != 0, loss, 0))
        if not _extremes.are_ordinary(weight, None, None, 0.0, 1.0, 1.0) or (of_rows > 1e290).any():
            return _extremes.negative_log_likelihood(loss, of_target, reduction, dtype)
        divisor, divisor_carry = _batch.total_weight(target, ignore_index, weight, None, 0)
        loss = np.where(
            of_target != 0,
            np.multiply(loss, of_target, where=of_target != 0, out=np.zeros(rows)),
            0,
        )
    loss = np.asarray(loss + 0.0, order="C")  # never -0.0
    if reduction == "none":
        return loss.astype(dtype)[()]
    if reduction == "sum":
        divisor, divisor_carry = 1.0, 0.0
    result = np.empty((), dtype)
    _batch.reduce_losses(loss, divisor, divisor_carry, result, 0, 0)
    return result[()]


def _at_targets(log_p, index, axis):
    """Return the entry of each row that `index` names."""
    if log_p.ndim > _MOST_INDICES:  # all rows before are made one dimension, and all behind
        before, rest = log_p.shape[:axis], log_p.shape[axis + 1 :]
        log_p = log_p.reshape(math.prod(before), log_p.shape[axis], math.prod(rest))
        return _at_targets(log_p, index.reshape(log_p.shape[::2]), 1).reshape(before + rest)
    return np.take_along_axis(log_p, np.expand_dims(index, axis), axis).squeeze(axis)


# ---- Sums with weights ----


@in_default_state
def weighted_logsumexp(a, b, *, axis, return_sign, function):
    """Return log(abs(sum of b exp(a))) along an axis, and its sign: the arithmetic of special.logsumexp.

    `a` and `b` (None for ones) are real, have at least one dimension and are broadcast against each other. Weights
    enter as added logarithms, so that nothing overflows; rows with weights of both signs are _signed.py's. Without
    `return_sign` a negative sum gives NaN.
    """
    a, kind = _checks.floating_array(a, function, "a")
    kind = _checks.computation_dtype(kind)
    if b is None:
        b = np.ones((1,) * a.ndim, kind)
    b, of_b = _checks.floating_array(b, function, "b")
    kind = np.result_type(kind, _checks.computation_dtype(of_b))
    shape = np.broadcast_shapes(a.shape, b.shape)
    rows = shape[:axis] + shape[axis + 1 :]
    exponents, taken = a, None
    if a.dtype.kind in "iu" and _large_integers.are_wide(a):
        counts = np.broadcast_to(b != 0, shape)
        exponents, taken = _large_integers.differences(np.broadcast_to(a, shape), axis, counts)
    # NumPy's logarithm may depend on the strides.
    logarithm = np.log(np.abs(b.astype(kind, order="C")))
    exponents, logarithm = np.broadcast_arrays(exponents, logarithm)
    value = np.full(rows, -np.inf, kind)
    _batch.logsumexp(exponents, axis, value, 1.0, logarithm, 0)
    if taken is not None:
        value = _large_integers.with_maximum(value, taken)
    positive, negative = (np.broadcast_to(has.any(axis), rows) for has in (b > 0, b < 0))
    sign = np.where(np.isnan(value), value, value > -np.inf)
    sign = np.where(negative & (sign == 1), -1, sign).astype(kind)
    mixed = positive & negative
    if mixed.any():
        value[mixed], sign[mixed] = _signed.logsumexp(
            *(
                _large_integers.as_pair(np.moveaxis(np.broadcast_to(each, shape), axis, -1)[mixed])
                for each in (a, b)
            )
        )
    if return_sign:
        return value[()], sign[()]
    return np.where(sign < 0, np.nan, value).astype(kind)[()]
