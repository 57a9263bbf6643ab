"""Losses where a weight, a temperature or a divisor is so far from 1 that products could leave the range of float64.

What is ordinary, nearly everything, does not come here: are_ordinary() tells. Here numbers are mantissas and exponents,
as large as they may be, and arrays of the logits' size are made. What an argument may be is in _checks.py.
"""

import numpy as np

from csoftmax import _batch

# What multiplies gradients in the kernels: the smallest probability keeps its digits, and none overflows.
_MOST = {np.dtype(np.float32): 80, np.dtype(np.float64): 560}
_NO_EXPONENT = -(1 << 28)


class Wide:
    """Numbers of any size: number * 2**exponent, number being from 1/2 to 1 in size, 0, infinite or NaN."""

    def __init__(self, number, exponent=0):
        self.number, more = np.frexp(number)
        self.exponent = np.asarray(exponent, np.intc) + more

    def __mul__(self, other):
        """0 * inf is 0."""
        product = self.number * other.number
        vanishes = (self.number == 0) | (other.number == 0)
        return Wide(np.where(vanishes, 0.0, product), self.exponent + other.exponent)

    def __truediv__(self, other):
        return Wide(self.number / other.number, self.exponent - other.exponent)

    def __neg__(self):
        return Wide(-self.number, self.exponent)

    def __add__(self, other):
        exponent = np.maximum(self._size(), other._size())
        exponent = np.where(exponent == _NO_EXPONENT, 0, exponent)
        return Wide(self._over(exponent) + other._over(exponent), exponent)

    def sum(self, axis):
        """Along an axis, which stays."""
        exponent = self._size().max(axis, keepdims=True, initial=_NO_EXPONENT)
        exponent = np.where(exponent == _NO_EXPONENT, 0, exponent)
        # NumPy adds in an order that depends on the strides.
        terms = np.ascontiguousarray(np.moveaxis(self._over(exponent), axis, -1))
        return Wide(np.expand_dims(terms.sum(-1), axis), exponent)

    def where(self, condition, other):
        """These numbers where the condition holds, others elsewhere."""
        return Wide(
            np.where(condition, self.number, other.number),
            np.where(condition, self.exponent, other.exponent),
        )

    def expanded(self, axis):
        return Wide(np.expand_dims(self.number, axis), np.expand_dims(self.exponent, axis))

    def squeezed(self, axis):
        return Wide(self.number.squeeze(axis), self.exponent.squeeze(axis))

    def brought_together(self):
        """Return float64 numbers and the exponent that they have in common."""
        size = self._size()
        exponent = int(size.max(initial=_NO_EXPONENT))
        exponent = 0 if exponent == _NO_EXPONENT else exponent
        return np.asarray(self._over(exponent), order="C"), exponent

    def value(self):
        return np.ldexp(self.number, self.exponent)

    def _size(self):
        counts = (self.number != 0) & np.isfinite(self.number)
        return np.where(counts, self.exponent, _NO_EXPONENT)

    def _over(self, exponent):
        return np.ldexp(self.number, np.clip(self.exponent - exponent, -3000, 3000))


def are_ordinary(weight, sample_weight, grad_output, label_smoothing, temperature, divisor):
    """Whether no product of these can leave the range of float32, nor a mass that counts."""
    return (
        (label_smoothing == 0 or label_smoothing >= 1e-12)
        and 1e-12 < temperature < 1e12
        and 1e-12 < abs(divisor * temperature) < 1e12
        and (weight is None or _batch.are_ordinary(weight, 20))
        and (sample_weight is None or _batch.are_ordinary(sample_weight, 40))
        and (grad_output is None or _batch.are_ordinary(grad_output, 40))
    )


def are_ordinary_masses(probabilities, most=1e30):
    """Whether each of the numbers is 0 or between 1 / most and most in size."""
    sizes = np.abs(probabilities)
    return bool(((sizes == 0) | ((sizes > 1 / most) & (sizes < most))).all())


def cross_entropy(
    logits, axis, target, probabilities, *, weight, sample_weight, counts, label_smoothing,
    temperature, reduction, grad_output, with_grad, n_threads, kind,
):  # fmt: skip
    """Return the loss, of dtype `kind`, and the gradient, of the logits' or a wider dtype, or None.

    `target` holds classes alone, or is None beside probabilities; `counts` tells the rows that are not ignored.
    """
    if not 1e-12 < temperature < 1e12:
        logits = logits.astype(np.float64, copy=False)
    of_row = Wide(counts.astype(np.float64))
    if sample_weight is not None:
        of_row = of_row * Wide(sample_weight)
    divisor = Wide(1.0)
    if reduction == "mean":
        weights = of_row
        if target is not None and weight is not None and weight.size:
            weights = weights * Wide(np.where(counts, weight[target], 0.0))
        weights, exponent = weights.brought_together()
        divisor = Wide(_batch.total_weight(None, None, None, weights, n_threads)[0], exponent)
    of_gradient = Wide(1.0) / Wide(temperature) / divisor
    if grad_output is not None:
        of_gradient = Wide(grad_output) * of_gradient
    if target is None or label_smoothing or weight is not None or sample_weight is not None:
        masses = _masses(logits.shape, axis, target, probabilities, weight, label_smoothing)
        loss, grad = _with_masses(
            logits.astype(np.float64, copy=False), axis, temperature, masses,
            of_gradient if with_grad else None, of_row, n_threads,
        )  # fmt: skip
    else:
        loss, grad = _with_indices(
            logits, axis, temperature, target, of_gradient if with_grad else None, n_threads
        )
    loss = loss.where(counts, Wide(0.0))
    if with_grad and not counts.all():
        np.copyto(grad, 0.0, where=~np.expand_dims(counts, axis))
    return _reduced(loss, divisor, reduction, kind, n_threads), grad


def negative_log_likelihood(loss, weight_of_row, reduction, kind):
    """Return the losses of rows times their weights, reduced; a weight of 0 takes a row out."""
    weights = Wide(weight_of_row)
    divisor = Wide(1.0)
    if reduction == "mean":
        numbers, exponent = weights.brought_together()
        divisor = Wide(_batch.total_weight(None, None, None, numbers, 0)[0], exponent)
    return _reduced(Wide(loss) * weights, divisor, reduction, kind, 0)


def _reduced(loss, divisor, reduction, kind, n_threads):
    if reduction == "none":
        return (loss.value().astype(kind) + kind.type(0))[()]  # never -0.0
    numbers, exponent = loss.brought_together()
    result = np.empty((), kind)
    mantissa, of_divisor = float(divisor.number), int(divisor.exponent)
    _batch.reduce_losses(numbers, mantissa, 0.0, result, exponent - of_divisor, n_threads)
    return result[()]


def _with_indices(logits, axis, temperature, target, of_gradient, n_threads):
    """Return losses and gradient of class indices without weights: the kernels', with their bits."""
    loss = np.zeros(target.shape)
    if of_gradient is None:
        _batch.cross_entropy(
            logits, axis, target, None, loss, None, 1.0, n_threads, None, None, None, None, 0.0,
            temperature,
        )  # fmt: skip
        return Wide(loss), None
    grad = np.empty_like(logits)
    number, exponent = of_gradient.number, of_gradient.exponent
    most = _MOST[logits.dtype]
    taken = np.clip(exponent, -most, most)
    finite = np.isfinite(number)
    in_kernel = np.where(finite, np.ldexp(number, taken), 1.0)
    rows = (
        np.ascontiguousarray(np.broadcast_to(each, target.shape)).reshape(target.shape)
        for each in (in_kernel, (exponent - taken).astype(np.intc), np.where(finite, 1.0, number))
    )
    in_kernel, exponent, factor = rows
    _batch.cross_entropy(
        logits, axis, target, None, loss, grad, 1.0, n_threads, None, None, None, in_kernel, 0.0,
        temperature, factor, exponent,
    )  # fmt: skip
    return Wide(loss), grad


def _masses(shape, axis, target, probabilities, weight, label_smoothing):
    """Return what each class counts in its row's loss."""
    if probabilities is None:
        probabilities = np.zeros(shape)
        if probabilities.size:
            np.put_along_axis(probabilities, np.expand_dims(target, axis), 1.0, axis)
    masses = Wide(probabilities.astype(np.float64))
    if label_smoothing:
        spread = Wide(label_smoothing) / Wide(float(max(shape[axis], 1)))
        masses = masses * Wide(1 - label_smoothing) + spread
    if weight is not None:
        masses = masses * Wide(weight.reshape(-1, *(1,) * (len(shape) - 1 - axis)))
    return masses


def _with_masses(logits, axis, temperature, masses, of_gradient, of_row, n_threads):
    """Return losses and gradient (None without `of_gradient`) of float64 logits, classes having masses of any size."""
    of_row = of_row.expanded(axis)
    log_p, p = _logarithms_and_probabilities(logits, axis, temperature, n_threads)
    undefined = np.isnan(log_p).any(axis, keepdims=True)
    top = logits.max(axis, keepdims=True, initial=-np.inf)
    is_top = logits == top
    # The sum of all but one of the largest: what is left of 1 beside it, and of the logarithm's 1 + that.
    place = np.zeros(logits.shape, bool)
    if logits.size:
        np.put_along_axis(place, np.expand_dims(log_p.argmax(axis), axis), True, axis)
    others = p.where(~place, Wide(0.0)).sum(axis)
    log = np.where(is_top, -log_p, -np.inf).max(axis, keepdims=True, initial=-np.inf)
    log = others.where(log < 1e-200, Wide(log))
    total = masses.sum(axis)
    distance = (Wide(top) + -Wide(logits)).where(~is_top, Wide(0.0)) / Wide(temperature)
    loss = (masses * distance).sum(axis) + total * log
    loss = loss * of_row
    loss = loss.where(~undefined, Wide(np.nan)).squeezed(axis)
    if of_gradient is None:
        return loss, None
    if of_gradient.number.ndim:
        of_gradient = of_gradient.expanded(axis)
    rest = others.where(place, Wide(1.0) + -p)
    grad = p * (total + -masses) + -(masses * rest)
    # A row that weighs nothing has no gradient, whatever its divisor.
    weighs = (of_row.number != 0) & (masses.number != 0).any(axis, keepdims=True)
    grad = (grad * of_row * of_gradient).where(weighs, Wide(0.0))
    return loss, grad.where(~undefined, Wide(np.nan)).value()


def _logarithms_and_probabilities(logits, axis, temperature, n_threads):
    """Return log_softmax, and softmax of which what is subnormal keeps its digits."""
    log_p = np.empty_like(logits)
    _batch.probabilities(logits, axis, log_p, True, temperature, n_threads)
    if not logits.size:
        return log_p, Wide(log_p)
    # They are the gradient of a loss but for its target's entry: of the largest class, which is not small.
    top = np.asarray(log_p.argmax(axis))
    rows, zeros = np.full(top.shape, 2.0**560), np.zeros(top.shape, np.intc)
    p, loss = np.empty_like(logits), np.empty(top.shape)
    _batch.cross_entropy(
        logits, axis, top, None, loss, p, 1.0, n_threads, None, None, None, rows, 0.0, temperature,
        None, zeros,
    )  # fmt: skip
    of_top = np.empty_like(logits)
    _batch.probabilities(logits, axis, of_top, False, temperature, n_threads)
    top = np.expand_dims(top, axis)
    np.put_along_axis(p, top, np.ldexp(np.take_along_axis(of_top, top, axis), 560), axis)
    return log_p, Wide(p, -560)
