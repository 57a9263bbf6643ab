"""Integers that float64 would round: what is taken off each row, so that it holds the differences.

The kernels take it off as they read the row; what is done with the result is in _general.py.
"""

import numpy as np

from csoftmax import _pairs

_EXACT = 1 << 53  # float64 holds each integer up to this magnitude


def are_wide(x):
    """Whether there are integers in `x` that float64 may not hold."""
    if x.dtype.itemsize < 8 or not x.size:
        return False
    if np.maximum.reduce(x, axis=None) > _EXACT:
        return True
    return x.dtype.kind == "i" and np.minimum.reduce(x, axis=None) < -_EXACT


def taken_off(x, axis):
    """Return what the kernels take off each row of integers, without `axis`; None if there are no wide ones.

    Of a row with wide integers it is the maximum, so that each difference, of up to 64 bits, is rounded once. Other
    rows stay as they are: their bits do not depend on the rest of the array.
    """
    if x.dtype.kind not in "iu" or not are_wide(x):
        return None
    return _maximum_of_wide_rows(x.reshape(x.shape or 1), axis, {}).squeeze(axis)


def _maximum_of_wide_rows(x, axis, where):
    """Return it for each row, native and contiguous, 0 for the others; `where` says what counts."""
    taken = x.max(axis, keepdims=True, **where)
    is_wide = taken > _EXACT
    if x.dtype.kind == "i":
        lowest = {**where, "initial": 0} if where else {}
        is_wide |= x.min(axis, keepdims=True, **lowest) < -_EXACT
    return np.ascontiguousarray(np.where(is_wide, taken, 0), x.dtype.newbyteorder("="))


def differences(x, axis, counts=None):
    """Return integers as float64 with what taken_off() says taken off each row, and that, or None.

    What does not count may become anything finite. All is copied: this is for who goes on without the kernels.
    """
    if x.dtype.kind not in "iu" or not are_wide(x):
        return x.astype(np.float64), None
    shape = x.shape
    x = x.reshape(shape or 1).astype(x.dtype.newbyteorder("="), copy=False)
    where = {} if counts is None else {"where": counts, "initial": np.iinfo(x.dtype).min}
    taken = _maximum_of_wide_rows(x, axis, where)
    is_wide = taken != 0
    if counts is not None:
        x = np.where(counts, x, taken)
    # Modulo 2**64 the difference is right also where it overflows int64.
    result = np.subtract(taken.view(np.uint64), x.view(np.uint64)).astype(np.float64)
    np.subtract(0.0, result, out=result)
    np.copyto(result, x, where=~is_wide)
    return result.reshape(shape), taken.squeeze(axis)


def with_maximum(values, taken, temperature=1.0):
    """Return taken / temperature + values, rounded almost once: logarithms of sums as they are for whole logits."""
    fraction, exponent = np.frexp(np.float64(temperature))  # a product with it cannot overflow
    high, low = as_pair(taken)
    quotient = high / fraction
    product, lost = _pairs.two_product(quotient, fraction)
    rest = ((high - product) - lost + low) / fraction
    quotient, rest = np.ldexp(quotient, -exponent), np.ldexp(rest, -exponent)
    sums = np.where(np.isfinite(quotient), quotient + (values + rest), quotient)
    return np.where(taken == 0, values, sums)


def as_pair(x):
    """Return floats or integers of any width, exactly, as a sum of two float64."""
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
        return _pairs.two_sum((x >> 32) * 2.0**32, (x & 0xFFFFFFFF).astype(np.float64))
    x = x.astype(np.float64, copy=False)
    return x, np.zeros_like(x)
