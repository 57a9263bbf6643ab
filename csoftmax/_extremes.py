"""Losses where a weight, a temperature or a divisor is so far from 1 that products could leave the range of float64.

What is ordinary, nearly everything, does not come here: are_ordinary() tells. Here numbers are mantissas and exponents,
as large as they may be, and arrays of the logits' size are made. What an argument may be is in _checks.py.
"""

import numpy as np

from csoftmax import _batch, _large_integers, _pairs

# What multiplies gradients in the kernels: the smallest probability keeps its digits, and none overflows.
_MOST = {np.dtype(np.float32): 80, np.dtype(np.float64): 560}
_NO_EXPONENT = -(1 << 28)

_AT_ONCE = 1 << 15  # masses that are looked at together


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
        terms = np.moveaxis(self._over(exponent), axis, -1)
        return Wide(np.expand_dims(_pairs.summed(terms), axis), exponent)

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
        _batch.is_ordinary_smoothing(label_smoothing)
        and _batch.is_ordinary_number(temperature)
        and _batch.is_ordinary_number(divisor * temperature)
        and _batch.are_ordinary_weights(weight)
        and _batch.are_ordinary_scales(sample_weight)
        and _batch.are_ordinary_scales(grad_output)
    )


def are_ordinary_masses(masses):
    """Whether each of the numbers, of any dtype and layout, is 0 or between 1e-30 and 1e30 in size."""
    parts = [masses]
    if masses.size > _AT_ONCE:  # nothing of their size is allocated
        flags = [["readonly", "nbo", "aligned"]]
        parts = np.nditer(masses, ["external_loop", "buffered"], flags, buffersize=_AT_ONCE)
    if masses.itemsize == 2:
        parts = (part.astype(np.float32) for part in parts)
    return all(_are_ordinary(np.abs(part)) for part in parts)


def _are_ordinary(sizes):
    if not sizes.max(initial=0) < 1e30:
        return False
    # Mostly there are no zeros to tell from what is too small.
    return bool(sizes.min(initial=1) > 1e-30 or ((sizes > 1e-30) | (sizes == 0)).all())


def cross_entropy(given, with_grad):
    """Return the loss, of the logits' dtype, and the gradient, of that or a wider dtype, or None.

    `given` holds the arguments as _general.py has checked them.
    """
    counts = np.ones(given.rows, bool)
    target = None
    if given.target is not None:
        if given.ignore_index is not None:
            counts = np.asarray(given.target != given.ignore_index)
        target = np.where(counts, given.target, 0)
    of_row = Wide(counts.astype(np.float64))
    if given.sample_weight is not None:
        of_row = of_row * Wide(given.sample_weight)
    divisor = _divisor(given, target, counts, of_row)
    of_gradient = None
    if with_grad:
        of_gradient = Wide(1.0) / Wide(given.temperature) / divisor
        if given.grad_output is not None:
            of_gradient = Wide(given.grad_output) * of_gradient
    logits, axis, n_threads = given.logits, given.axis, given.n_threads
    has_masses = target is None or given.label_smoothing or given.weight is not None
    if has_masses or given.sample_weight is not None:
        if logits.dtype.kind in "iu":
            logits, _ = _large_integers.differences(logits, axis)
        loss, grad = _with_masses(
            logits.astype(np.float64, copy=False),
            axis,
            given.temperature,
            _masses(given, target),
            of_gradient,
            of_row,
            n_threads,
        )
    else:
        loss, grad = _with_indices(given, target, of_gradient)
    loss = loss.where(counts, Wide(0.0))
    if with_grad and not counts.all():
        np.copyto(grad, 0.0, where=~np.expand_dims(counts, axis))
    return _reduced(loss, divisor, given.reduction, given.kind, n_threads), grad


def _divisor(given, target, counts, of_row):
    """Return what the losses' sum is divided by."""
    if given.reduction != "mean":
        return Wide(1.0)
    weights = of_row
    if target is not None and given.weight is not None and given.weight.size:
        weights = weights * Wide(np.where(counts, given.weight[target], 0.0))
    numbers, exponent = weights.brought_together()
    return Wide(_batch.total_weight(None, None, None, numbers, given.n_threads)[0], exponent)


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


def _with_indices(given, target, of_gradient):
    """Return losses and gradient of class indices without weights: the kernels', with their bits."""
    is_wide = not _batch.is_ordinary_number(given.temperature)
    options = {"target": target, "temperature": given.temperature}
    options |= {"wide": is_wide, "taken": given.taken}
    place, loss = (given.logits, given.axis), np.zeros(target.shape)
    if of_gradient is None:
        _batch.cross_entropy(*place, loss, None, given.n_threads, **options)
        return Wide(loss), None
    dtype = given.dtype if given.out is None else given.out.dtype
    grad = _batch.empty_result(given.logits, np.dtype(np.float64) if is_wide else dtype)
    number, exponent = of_gradient.number, of_gradient.exponent
    most = _MOST[np.dtype(np.float64) if is_wide else given.kind]
    taken = np.clip(exponent, -most, most)
    finite = np.isfinite(number)
    # An infinite number multiplies what is as large as may be: of subnormal probabilities only zeros stay zeros.
    in_kernel = np.ldexp(np.where(finite, number, 1.0), np.where(finite, taken, most))
    rows = (
        np.ascontiguousarray(np.broadcast_to(each, target.shape)).reshape(target.shape)
        for each in (in_kernel, (exponent - taken).astype(np.intc), np.where(finite, 1.0, number))
    )
    in_kernel, exponent, factor = rows
    options |= {"grad_weight": in_kernel, "row_factor": factor, "row_exponent": exponent}
    _batch.cross_entropy(*place, loss, grad, given.n_threads, **options)
    return Wide(loss), grad


def _masses(given, target):
    """Return what each class counts in its row's loss."""
    shape, axis, masses = given.logits.shape, given.axis, given.probabilities
    if masses is None:
        masses = np.zeros(shape)
        if masses.size:
            np.put_along_axis(masses, np.expand_dims(target, axis), 1.0, axis)
    masses = Wide(masses.astype(np.float64))
    if given.label_smoothing:
        spread = Wide(given.label_smoothing) / Wide(float(max(shape[axis], 1)))
        masses = masses * Wide(1 - given.label_smoothing) + spread
    if given.weight is not None:
        masses = masses * Wide(given.weight.reshape(-1, *(1,) * (len(shape) - 1 - axis)))
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
        logits,
        axis,
        loss,
        p,
        n_threads,
        target=top,
        temperature=temperature,
        grad_weight=rows,
        row_exponent=zeros,
    )
    of_top = np.empty_like(logits)
    _batch.probabilities(logits, axis, of_top, False, temperature, n_threads)
    top = np.expand_dims(top, axis)
    np.put_along_axis(p, top, np.ldexp(np.take_along_axis(of_top, top, axis), 560), axis)
    return log_p, Wide(p, -560)
