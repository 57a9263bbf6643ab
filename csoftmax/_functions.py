"""The public functions: check, allocate, call. All user documentation lives here."""

import numpy as np

from csoftmax import _batch, _checks


def softmax(x, axis=-1, *, out=None, n_threads=None):
    r"""Probabilities proportional to the exponentials of `x`, along an axis.

    .. math:: p_j = \frac{\exp(x_j)}{\sum_k \exp(x_k)}

    Parameters
    ----------
    x : array_like, any shape
        Logits. float32 and float64 are computed as they are; integers and bool in float64; float16 in
        float32. Any strides; C-contiguous arrays are never copied, whichever the axis.
    axis : int, default -1
        The axis along which the result sums to one.
    out : ndarray, optional
        Where to write the result: exact shape and dtype. It may be `x` itself.
    n_threads : int, optional
        Number of threads; by default as many as pay. The result is the same, bit for bit.

    Returns
    -------
    ndarray of `x`'s shape
        float32, float64 or float16 as `x`; float64 for integers and bool. A scalar for a scalar.

    Raises
    ------
    TypeError
        If the dtype is complex, longdouble, object or not a number, or if `out` has another dtype.
    ValueError
        If `axis`, `n_threads` or `out`'s shape do not fit.

    Notes
    -----
    Each result is within 3 units in the last place, also where it is subnormal. A row that holds NaN
    or +inf, or nothing but -inf, is NaN; other finite or -inf values never give NaN.

    References
    ----------
    Blanchard, Higham and Higham, "Accurately computing the log-sum-exp and softmax functions", IMA J.
    Numer. Anal. 41 (2021), doi:10.1093/imanum/draa038: the shifted formulas.

    Examples
    --------
    >>> import numpy as np
    >>> import csoftmax
    >>> csoftmax.softmax(np.float32([[0, 0], [80, 0]]))
    array([[5.0000000e-01, 5.0000000e-01],
           [1.0000000e+00, 1.8048513e-35]], dtype=float32)
    """
    if (result := _batch.plain_probabilities(x, axis, out, False, n_threads)) is not None:
        return result
    return _elementwise(x, axis, out, n_threads, False, "softmax")


def log_softmax(x, axis=-1, *, out=None, n_threads=None):
    r"""Logarithm of the softmax of `x`, along an axis.

    .. math:: \log p_j = (x_j - m) - \log\Bigl(1 + \sum_{k \ne \operatorname{argmax}} \exp(x_k - m)\Bigr),
              \quad m = \max_k x_k

    Parameters
    ----------
    x : array_like, any shape
        Logits. float32 and float64 are computed as they are; integers and bool in float64; float16 in
        float32. Any strides; C-contiguous arrays are never copied, whichever the axis.
    axis : int, default -1
        The axis along which the exponentials of the result sum to one.
    out : ndarray, optional
        Where to write the result: exact shape and dtype. It may be `x` itself.
    n_threads : int, optional
        Number of threads; by default as many as pay. The result is the same, bit for bit.

    Returns
    -------
    ndarray of `x`'s shape
        float32, float64 or float16 as `x`; float64 for integers and bool. A scalar for a scalar.

    Raises
    ------
    TypeError
        If the dtype is complex, longdouble, object or not a number, or if `out` has another dtype.
    ValueError
        If `axis`, `n_threads` or `out`'s shape do not fit.

    Notes
    -----
    The sum leaves out the maximum's own term, so that results near zero keep all their digits: where
    the formula ``x - logsumexp(x)`` gives 0, this gives the small negative number. Each result is within
    3 units in the last place (float64: 3.5), near zero too. Special values are those of `softmax`, with
    -inf for a probability of zero.

    References
    ----------
    Blanchard, Higham and Higham, doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import numpy as np
    >>> import csoftmax
    >>> csoftmax.log_softmax([20.0, 0.0])
    array([-2.06115362e-09, -2.00000000e+01])
    """
    if (result := _batch.plain_probabilities(x, axis, out, True, n_threads)) is not None:
        return result
    return _elementwise(x, axis, out, n_threads, True, "log_softmax")


def logsumexp(x, axis=-1, *, keepdims=False, out=None, n_threads=None):
    r"""Logarithm of the sum of the exponentials of `x`, along an axis.

    .. math:: \log \sum_k \exp(x_k)

    Parameters
    ----------
    x : array_like, any shape
        float32 and float64 are computed as they are; integers and bool in float64; float16 in float32.
    axis : int, default -1
        The axis to reduce.
    keepdims : bool, default False
        Keep the reduced axis, with size one.
    out : ndarray, optional
        Where to write the result: exact shape and dtype.
    n_threads : int, optional
        Number of threads; by default as many as pay. The result is the same, bit for bit.

    Returns
    -------
    ndarray or scalar
        float32 for float32 and float16, else float64.

    Raises
    ------
    TypeError
        If the dtype is complex, longdouble, object or not a number, or if `out` has another dtype.
    ValueError
        If `axis`, `n_threads` or `out`'s shape do not fit.

    Notes
    -----
    Each result is within 1.5 units in the last place (float64: 3), of the maximum where that and the
    logarithm of the sum nearly cancel. No classes or nothing but -inf give -inf, +inf gives +inf, NaN
    gives NaN.

    References
    ----------
    Blanchard, Higham and Higham, doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import csoftmax
    >>> csoftmax.logsumexp([1000.0, 1000.0])
    np.float64(1000.6931471805599)
    >>> csoftmax.logsumexp([-40.0, 0.0])
    np.float64(4.248354255291589e-18)
    """
    if out is None and not keepdims:
        if (result := _batch.plain_logsumexp(x, axis, n_threads)) is not None:
            return result
    x, _ = _checks.floating_array(x, "logsumexp")
    axis = _checks.axis_number(axis, x.ndim, "logsumexp")
    n_threads = _checks.thread_count(n_threads, "logsumexp")
    shape = x.shape[:axis] + (1,) * bool(keepdims and x.ndim) + x.shape[axis + 1 :]
    if out is not None:
        _checks.output_array(out, shape, x.dtype, "logsumexp")
    result = np.empty(shape, x.dtype) if x.size else np.full(shape, -np.inf, x.dtype)
    _batch.logsumexp(x.reshape(1) if x.ndim == 0 else x, axis, result, n_threads)
    if out is None:
        return result[()]
    out[...] = result
    return out


def cross_entropy(logits, target, *, axis=-1, ignore_index=-100, reduction="mean", n_threads=None):
    r"""Cross-entropy of the softmax of `logits` with class indices: minus the target's log-probability.

    .. math:: \ell_n = -\log \operatorname{softmax}(\text{logits}_n)_{y_n}

    Parameters
    ----------
    logits : array_like, at least one dimension
        Unnormalised log-probabilities; the classes lie along `axis`. float32 and float64 are computed
        as they are; integers and bool in float64; float16 in float32.
    target : array_like of integers, `logits`' shape without `axis`
        Class indices, 0 to C - 1, of any integer dtype.
    axis : int, default -1
        The axis of the classes.
    ignore_index : int or None, default -100
        Rows with this target do not count: their loss is 0. It may be any integer.
    reduction : {"mean", "sum", "none"}
        What becomes of the rows' losses. "mean" divides by the number of rows that count.
    n_threads : int, optional
        Number of threads; by default as many as pay. The result is the same, bit for bit.

    Returns
    -------
    scalar, or ndarray of `target`'s shape for "none"
        In nats; float32 for float32 and float16 logits, else float64. "mean" and "sum" accumulate in
        float64. The mean of no rows is NaN, their sum 0.

    Raises
    ------
    IndexError
        If a target is neither a class nor `ignore_index`. Negative targets do not count from the end.
    TypeError
        If a dtype is not one of the above; bool is no class index.
    ValueError
        If shapes, `axis`, `reduction` or `n_threads` do not fit.

    Notes
    -----
    Small losses keep their digits: each is within the bound of `log_softmax`. Nothing of the logits'
    size is written. A row that holds NaN or +inf, or nothing but -inf, has the loss NaN, unless it is
    ignored.

    References
    ----------
    Blanchard, Higham and Higham, doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import numpy as np
    >>> import csoftmax
    >>> csoftmax.cross_entropy(np.float32([[20, 0]]), [0])
    np.float32(2.0611537e-09)
    >>> csoftmax.cross_entropy([[2.0, 1.0], [0.0, 3.0]], [0, -100], reduction="none")
    array([0.31326169, 0.        ])
    """
    loss, _ = _cross_entropy(
        logits, target, axis, ignore_index, reduction, n_threads, None, False, "cross_entropy"
    )
    return loss


def cross_entropy_with_grad(
    logits, target, *, axis=-1, ignore_index=-100, reduction="mean", out=None, n_threads=None
):
    r"""Cross-entropy and its gradient with respect to the logits, in one pass.

    .. math:: \frac{\partial \ell}{\partial x_{nc}} = \frac{p_{nc} - [c = y_n]}{D}

    Parameters
    ----------
    logits, target, axis, ignore_index, reduction, n_threads
        As in `cross_entropy`.
    out : ndarray, optional
        Where to write the gradient: exact shape and dtype. It may be `logits` itself.

    Returns
    -------
    loss : scalar, or ndarray of `target`'s shape for "none"
        As in `cross_entropy`.
    grad : ndarray of `logits`' shape and dtype
        The gradient of the loss; for "none" that of the sum. D is the number of rows that count for
        "mean", else 1. Ignored rows have a gradient of exactly 0, whatever their logits.

    Raises
    ------
    IndexError, TypeError, ValueError
        As in `cross_entropy`, and if `out` does not fit; before anything is written.

    Notes
    -----
    The target's entry is minus the sum of the other probabilities, not p - 1: it keeps its digits
    where p is close to one. Each entry is within 3 units in the last place (float64: 4).

    References
    ----------
    Blanchard, Higham and Higham, doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import numpy as np
    >>> import csoftmax
    >>> loss, grad = csoftmax.cross_entropy_with_grad(np.float32([[20, 0]]), [0])
    >>> loss
    np.float32(2.0611537e-09)
    >>> grad
    array([[-2.0611537e-09,  2.0611537e-09]], dtype=float32)
    """
    return _cross_entropy(
        logits,
        target,
        axis,
        ignore_index,
        reduction,
        n_threads,
        out,
        True,
        "cross_entropy_with_grad",
    )


def _elementwise(x, axis, out, n_threads, log, function):
    x, dtype = _checks.floating_array(x, function)
    axis = _checks.axis_number(axis, x.ndim, function)
    n_threads = _checks.thread_count(n_threads, function)
    if out is not None:
        _checks.output_array(out, x.shape, dtype, function)
    result = _room_for(x, out)
    if x.ndim == 0:
        _batch.probabilities(x.reshape(1), 0, result.reshape(1), log, n_threads)
    else:
        _batch.probabilities(x, axis, result, log, n_threads)
    return _deliver(result, dtype, out)


def _room_for(x, out):
    """Return `out` if the kernels can write there while they read `x`, else a new array."""
    if out is None or out.dtype != x.dtype:
        return np.empty_like(x)
    same = out.ctypes.data == x.ctypes.data and out.strides == x.strides
    return out if same or not np.may_share_memory(x, out) else np.empty_like(x)


def _deliver(result, dtype, out):
    """Return `result` in `dtype`, in `out` if there is one."""
    if result is out:
        return out
    if result.dtype != dtype or out is not None:
        with np.errstate(all="ignore"):  # a float16 may overflow or vanish
            if out is None:
                return result.astype(dtype)[()]
            np.copyto(out, result, casting="same_kind")
        return out
    return result[()]


def _cross_entropy(
    logits, target, axis, ignore_index, reduction, n_threads, out, with_grad, function
):
    plain = _batch.plain_cross_entropy(
        logits, target, axis, ignore_index, reduction, out, with_grad, n_threads
    )
    if plain is not None:
        return plain
    logits, dtype = _checks.floating_array(logits, function, "logits")
    axis = _checks.axis_number(axis, logits.ndim, function)
    n_threads = _checks.thread_count(n_threads, function)
    _checks.reduction_name(reduction, function)
    ignore_index = _checks.ignore_number(ignore_index, function)
    if logits.ndim == 0:
        raise ValueError(
            f"{function}() needs logits of at least one dimension, got a scalar: pass one logit for each class"
        )
    n_classes = logits.shape[axis]
    given = _checks.target_array(target, logits.shape, axis, function)
    if out is not None:
        _checks.output_array(out, logits.shape, dtype, function)
    target, ignore_index = _checks.target_int64(given, n_classes, ignore_index, function)
    bad, n_ignored = _batch.scan_targets(target, n_classes, ignore_index)
    if bad >= 0:
        raise _checks.bad_target(given, bad, n_classes, function)

    grad = _room_for(logits, out) if with_grad else None
    divisor = target.size - n_ignored if reduction == "mean" else 1
    loss = np.zeros(target.shape, logits.dtype if reduction == "none" else np.float64)
    _batch.cross_entropy(logits, axis, target, ignore_index, loss, grad, divisor or 1, n_threads)
    if reduction != "none":
        losses, loss = loss, np.empty((), logits.dtype)
        _batch.reduce_losses(losses, divisor, loss)
    return loss[()], None if grad is None else _deliver(grad, dtype, out)
