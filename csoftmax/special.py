"""SciPy's softmax, log_softmax and logsumexp: its names, arguments and defaults over csoftmax's arithmetic.

Only arguments are translated here: several axes become one, and `b` the weights of the terms.
"""

import math

import numpy as np

from csoftmax import _checks, _cures, _functions, _general

_BROADCAST_DIMS = 32  # as many as numpy.broadcast_arrays() takes
_MAX_DIMS = 64  # as many as arrays have

__all__ = ["log_softmax", "logsumexp", "softmax"]


def softmax(x, axis=None):
    r"""Softmax with SciPy's signature: over the whole array, along an axis, or over several.

    .. math:: p_j = \frac{\exp(x_j)}{\sum_k \exp(x_k)}

    Parameters
    ----------
    x : array_like, any shape
        Logits. float32 and float64 are computed as they are; integers and bool in float64; float16 and
        bfloat16 in float32.
    axis : None, int or tuple of int, default None
        The axis or axes over which the result sums to one; None for the whole array.

    Returns
    -------
    ndarray of `x`'s shape
        float32, float64, float16 or bfloat16 as `x`, half-width ones rounded once from float32; float64 for
        integers and bool. A scalar for a scalar.

    Raises
    ------
    TypeError
        If the dtype is complex (`scipy.special.softmax` takes that), longdouble, object or not a number.
    ValueError
        If `axis` does not fit or names an axis twice.

    Notes
    -----
    Error bound and special values are those of `csoftmax.softmax`. Neighbouring axes of a C-contiguous
    array are read where they lie; along others the array is copied. Unlike SciPy's, it
    takes bool, and an array without classes gives an empty result.

    References
    ----------
    Blanchard, Higham and Higham, doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> from csoftmax.special import softmax
    >>> softmax([[0.0, 0.0], [0.0, 0.0]])
    array([[0.25, 0.25],
           [0.25, 0.25]])
    >>> softmax([[0.0, 0.0], [0.0, 0.0]], axis=1)
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """
    return _elementwise(_functions.softmax, x, axis, "softmax")


def log_softmax(x, axis=None):
    r"""Logarithm of the softmax with SciPy's signature: over the whole array, along an axis, or over several.

    .. math:: \log p_j = x_j - \log \sum_k \exp(x_k)

    Parameters
    ----------
    x : array_like, any shape
        Logits. float32 and float64 are computed as they are; integers and bool in float64; float16 and
        bfloat16 in float32.
    axis : None, int or tuple of int, default None
        The axis or axes over which the exponentials of the result sum to one; None for the whole array.

    Returns
    -------
    ndarray of `x`'s shape
        float32, float64, float16 or bfloat16 as `x`, half-width ones rounded once from float32; float64 for
        integers and bool. A scalar for a scalar.

    Raises
    ------
    TypeError
        If the dtype is complex (`scipy.special.log_softmax` takes that), longdouble, object or not a
        number.
    ValueError
        If `axis` does not fit or names an axis twice.

    Notes
    -----
    Error bound and special values are those of `csoftmax.log_softmax`: results near zero keep their
    digits. They differ from SciPy's along axes that hold +inf: the result is NaN there, SciPy's is
    -inf beside NaN. An array without classes gives an empty result, where SciPy raises an error.

    References
    ----------
    Blanchard, Higham and Higham, doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> from csoftmax.special import log_softmax
    >>> log_softmax([20.0, 0.0])
    array([-2.06115362e-09, -2.00000000e+01])
    >>> log_softmax([[1000.0, 1.0], [1000.0, 1.0]], axis=1)
    array([[   0., -999.],
           [   0., -999.]])
    """
    return _elementwise(_functions.log_softmax, x, axis, "log_softmax")


def logsumexp(a, axis=None, b=None, keepdims=False, return_sign=False):
    r"""Logarithm of a sum of exponentials with SciPy's signature: weights, signs, any axes.

    .. math:: \log \sum_k b_k \exp(a_k)

    Parameters
    ----------
    a : array_like, any shape
        Exponents. float32 and float64 are computed as they are; integers and bool in float64; float16 and
        bfloat16 in float32.
    axis : None, int or tuple of int, default None
        The axis or axes to reduce; None for all.
    b : array_like, optional
        Factors of the exponentials, which may be negative or zero; 1 if left out. `a` and `b` broadcast
        against each other.
    keepdims : bool, default False
        Keep the reduced axes, with size one.
    return_sign : bool, default False
        Return the logarithm of the sum's absolute value, and its sign. If False, the logarithm of a
        negative sum is NaN.

    Returns
    -------
    value : ndarray or scalar
        float32 if neither `a` nor `b` is computed in float64, else float64.
    sign : ndarray or scalar of `value`'s shape and dtype
        1, 0, -1 or NaN; only with `return_sign`.

    Raises
    ------
    TypeError
        If a dtype is complex (`scipy.special.logsumexp` takes that), longdouble, object or not a number.
    ValueError
        If `axis` does not fit or names an axis twice, or if `a` and `b` do not broadcast.

    Notes
    -----
    Without `b`, error bound and special values are those of `csoftmax.logsumexp`. A term whose
    factor is 0 adds nothing, whatever its exponent. Where factors of both signs meet, the result is within
    one unit in the last place however far the terms cancel, and -inf with the sign 0 only if the sum is 0;
    sums that cancel to less than 1e-15 of their terms take some 30 microseconds a term. Unlike SciPy's, the
    result for half-width floats is float32, and the sum of an empty array is 0, with the logarithm -inf and
    the sign 0, whatever `axis`.

    References
    ----------
    Blanchard, Higham and Higham, doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> from csoftmax.special import logsumexp
    >>> logsumexp([[1000.0, 1000.0], [1000.0, 1000.0]])
    np.float64(1001.3862943611199)
    >>> logsumexp([1000.0, 1000.0], b=[1, -3], return_sign=True)
    (np.float64(1000.6931471805599), np.float64(-1.0))
    >>> logsumexp([40, 40, 0], b=[1, -1, 1], return_sign=True)
    (np.float64(0.0), np.float64(1.0))
    """
    name = "special.logsumexp"
    keepdims = _checks.flag(keepdims, "keepdims", name)
    return_sign = _checks.flag(return_sign, "return_sign", name)
    if b is None:
        a = np.atleast_1d(_real_array(a, "a", name, "scipy.special.logsumexp"))
    else:
        a, b = _pair(a, b, name)
    axes = _axis_numbers(axis, a.ndim, name)
    if b is not None:
        a, b = _with_sizes_along(axes, a, b, name)
    return _reduced(a, axes, b, keepdims, return_sign)


def _elementwise(function, x, axis, name):
    x = _real_array(x, "x", f"special.{name}", f"scipy.special.{name}")
    axes = _axis_numbers(axis, x.ndim, f"special.{name}")
    if len(axes) == 1:
        return function(x, axes[0])
    if not axes and x.ndim == _MAX_DIMS:
        return function(x.reshape(-1, 1), 1).reshape(x.shape)
    merged, number = _one_axis(x, axes)
    order, _ = _order(axes, x.ndim)
    result = function(merged, number).reshape([x.shape[i] for i in order])
    return result.transpose(np.argsort(order))[()]


def _reduced(a, axes, b, keepdims, return_sign):
    """Return what is left of `a` without `axes`; `b` has the same sizes along these, or one."""
    if not axes and a.ndim == _MAX_DIMS:
        return _of_each_element(a, b, return_sign)
    a, number = _one_axis(a, axes)
    if b is not None:
        b, _ = _one_axis(b, axes)
    if b is None and not return_sign:
        value = _functions.logsumexp(a, number)
        return np.expand_dims(value, axes) if keepdims else value
    if a.ndim > _BROADCAST_DIMS:
        result = _of_many_dims(a, b, number, return_sign)
    else:
        result = _weighted(a, b, number, return_sign)
    if not keepdims:
        return result
    if return_sign:
        return tuple(np.expand_dims(each, axes) for each in result)
    return np.expand_dims(result, axes)


def _weighted(a, b, axis, return_sign):
    return _general.weighted_logsumexp(
        a, b, axis=axis, return_sign=return_sign, function="special.logsumexp"
    )


def _of_many_dims(a, b, number, return_sign):
    """Return the weighted sums of arrays of more dimensions than NumPy broadcasts: those of rows are made two."""
    a, b, shape = _broadcast(a, b)
    before, rest = shape[:number], shape[number + 1 :]
    three = math.prod(before), shape[number], math.prod(rest)
    a, b = a.reshape(three), b if b is None else b.reshape(three)
    result = _weighted(a, b, 1, return_sign)
    return _reshaped(result, before + rest)


def _of_each_element(a, b, return_sign):
    """Return the sums of one term each, of arrays that have no room for an axis of these."""
    a, b, shape = _broadcast(a, b)
    b = b if b is None else b.reshape(-1)
    return _reshaped(_reduced(a.reshape(-1), (), b, False, return_sign), shape)


def _broadcast(a, b):
    """Return `a` and `b`, which may be None, broadcast against each other, and their shape."""
    if b is None:
        return a, b, a.shape
    shape = _broadcast_shape(a.shape, b.shape)
    return np.broadcast_to(a, shape), np.broadcast_to(b, shape), shape


def _reshaped(result, shape):
    if isinstance(result, tuple):
        return tuple(each.reshape(shape) for each in result)
    return result.reshape(shape)


def _broadcast_shape(*shapes):
    """Return what numpy.broadcast_shapes() does, of any number of dimensions, for shapes of as many."""
    sizes = [set(each) - {1} for each in zip(*shapes, strict=True)]
    if any(len(each) > 1 for each in sizes):
        raise ValueError
    return tuple(each.pop() if each else 1 for each in sizes)


def _real_array(x, name, function, elsewhere):
    """Return `x` as an array that has a kernel; complex ones are for `elsewhere`."""
    given, x = x, _checks.any_array(x, name, function)
    _checks.no_rounded_integers(given, x, function, name)
    if x.dtype.kind == "c":
        raise TypeError(
            f"{function}() needs real numbers, got {x.dtype}: {elsewhere} takes complex ones,"
            f" or pass {_cures.of_numbers(given, x, name)}"
        )
    _checks.has_kernel(x, given, function, name)
    return x


@_general.in_default_state  # a Python number may overflow the other's dtype
def _pair(a, b, function):
    """Return `a` and `b` as arrays of as many dimensions, at least one; in the floats' dtype what goes into it."""
    arrays = [
        _real_array(given, name, function, "scipy.special.logsumexp")
        for given, name in ((a, "a"), (b, "b"))
    ]
    if all(x.dtype.kind in "fiub" for x in arrays):
        is_python = [type(given) in (bool, int, float) for given in (a, b)]
        pairs = list(zip(arrays, is_python, strict=True))
        dtype = np.result_type(*(x.item() if python else x for x, python in pairs))
        if dtype.kind == "f":  # else both are computed in float64, whichever integers they are
            arrays = [
                x.astype(dtype) if python or (x.dtype.kind != "f" and x.itemsize < 8) else x
                for x, python in pairs
            ]
    n_dims = max(1, *(x.ndim for x in arrays))
    return [x.reshape((1,) * (n_dims - x.ndim) + x.shape) for x in arrays]


def _axis_numbers(axis, n_dims, function, name="axis"):
    """Return `axis` as a tuple of axes counted from the front, in order."""
    if axis is None:
        return tuple(range(n_dims))
    if type(axis) is int and -n_dims <= axis < n_dims:
        return (axis % n_dims,)
    each = axis if isinstance(axis, tuple) else (axis,)
    if not all(_checks.is_integer(number) for number in each):
        _checks.axis_number(
            axis, n_dims, function, name, lambda: f"pass {name}={{}}"
        )  # an error about all of them
    numbers = tuple(sorted(_checks.axis_number(number, n_dims, function, name) for number in each))
    if len(set(numbers)) < len(numbers):
        raise ValueError(
            f"{function}() needs axes that differ, got {axis}: pass {name}={tuple(dict.fromkeys(numbers))}"
        )
    return numbers


def _order(axes, n_dims):
    """Return an order of the dimensions in which `axes` are neighbours, and the place of the first."""
    first = axes[0] if axes else n_dims
    if axes == tuple(range(first, first + len(axes))):
        return tuple(range(n_dims)), first
    rest = tuple(i for i in range(n_dims) if i not in axes)
    return rest + axes, len(rest)


def _one_axis(x, axes):
    """Return `x` with `axes` made one, and that one's number.

    Neighbours stay where they are: of a C-contiguous array the result is a view.
    """
    order, first = _order(axes, x.ndim)
    shape = tuple(x.shape[i] for i in order)
    end = first + len(axes)
    one = math.prod(shape[first:end])
    return x.transpose(order).reshape((*shape[:first], one, *shape[end:])), first


def _with_sizes_along(axes, a, b, function):
    """Return `a` and `b` with the same sizes along `axes`, or with size one along all of these.

    Only so far must they be broadcast before `axes` are made one.
    """
    try:
        shape = _broadcast_shape(a.shape, b.shape)
    except ValueError:
        raise ValueError(
            f"{function}() needs a and b that broadcast, got shapes {a.shape} and {b.shape}:"
            " pass one factor for each element of a"
        ) from None

    def widened(x):
        if all(x.shape[i] == 1 for i in axes) or all(x.shape[i] == shape[i] for i in axes):
            return x
        return np.broadcast_to(x, [shape[i] if i in axes else x.shape[i] for i in range(x.ndim)])

    return widened(a), widened(b)
