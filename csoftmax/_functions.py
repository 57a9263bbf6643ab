"""The public functions: check, allocate, call. All user documentation lives here."""

import functools
import math
import operator

import numpy as np

from csoftmax import _batch, _checks, _extremes, _large_integers, _signed

# Of the numbers that _batch.kinds_of_losses sums; NaN is 1.
_INFINITE_LOSSES = 2 + 4  # of both signs
_FAR_LOSS = 8

_MOST_INDICES = 32  # arrays that every NumPy takes as indices at once


def _in_default_state(function):
    """Let NumPy's conversions and sums round as the kernels do and raise no warning, whatever the caller's state."""

    def quietly(*arguments, **options):
        with np.errstate(all="ignore"):
            return function(*arguments, **options)

    @functools.wraps(function)
    def call(*arguments, **options):
        return _batch.in_default_state(quietly, arguments, options)

    return call


def softmax(x, axis=-1, *, temperature=1.0, out=None, n_threads=None):
    r"""Probabilities proportional to the exponentials of `x`, along an axis.

    .. math:: p_j = \frac{\exp(x_j)}{\sum_k \exp(x_k)}

    Parameters
    ----------
    x : array_like, any shape
        Logits. float32 and float64 are computed as they are; integers and bool in float64, differences
        of large integers exactly; float16 in float32. float32 and float64 of the machine's byte order are
        read where they lie, whatever the axis and the strides; other arrays are converted as a whole first.
    axis : int, default -1
        The axis along which the result sums to one.
    temperature : float, default 1
        The logits are divided by it: above 1 it evens probabilities out, below 1 it sets them apart.
    out : ndarray, optional
        Where to write the result: exact shape and dtype. It may be `x` itself. On any error that is
        raised, it holds what it held before; only a signal's handler that raises (Ctrl-C) may leave it
        partly written.
    n_threads : int, optional
        At most so many threads. None, or -1, is as many as pay, up to the processors that this process may
        use. The result is the same, bit for bit.

    Returns
    -------
    ndarray of `x`'s shape
        float32, float64 or float16 as `x`; float64 for integers and bool. A scalar for a scalar.

    Raises
    ------
    TypeError
        If the dtype is complex, longdouble, object or not a number, if `out` has another dtype, or for
        masked arrays, dask arrays and tensors that require grad.
    ValueError
        If `axis`, `temperature`, `n_threads` or `out`'s shape do not fit.

    Notes
    -----
    Each result is within 3 units in the last place, also where it is subnormal; without fused
    multiply-add (the baseline build) this and all other bounds are one unit wider. A row that
    holds NaN or +inf, or nothing but -inf, is NaN; other finite or -inf values never give NaN.

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
    if (
        result := _batch.plain_probabilities(x, axis, out, False, temperature, n_threads)
    ) is not None:
        return result
    return _elementwise(x, axis, out, temperature, n_threads, False, "softmax")


def log_softmax(x, axis=-1, *, temperature=1.0, out=None, n_threads=None):
    r"""Logarithm of the softmax of `x`, along an axis.

    .. math:: \log p_j = (x_j - m) - \log\Bigl(1 + \sum_{k \ne \operatorname{argmax}} \exp(x_k - m)\Bigr),
              \quad m = \max_k x_k

    Parameters
    ----------
    x : array_like, any shape
        Logits. float32 and float64 are computed as they are; integers and bool in float64, differences
        of large integers exactly; float16 in float32. float32 and float64 of the machine's byte order are
        read where they lie, whatever the axis and the strides; other arrays are converted as a whole first.
    axis : int, default -1
        The axis along which the exponentials of the result sum to one.
    temperature : float, default 1
        The logits are divided by it: above 1 it evens probabilities out, below 1 it sets them apart.
    out : ndarray, optional
        Where to write the result: exact shape and dtype. It may be `x` itself. On any error that is
        raised, it holds what it held before; only a signal's handler that raises (Ctrl-C) may leave it
        partly written.
    n_threads : int, optional
        At most so many threads. None, or -1, is as many as pay, up to the processors that this process may
        use. The result is the same, bit for bit.

    Returns
    -------
    ndarray of `x`'s shape
        float32, float64 or float16 as `x`; float64 for integers and bool. A scalar for a scalar.

    Raises
    ------
    TypeError
        If the dtype is complex, longdouble, object or not a number, if `out` has another dtype, or for
        masked arrays, dask arrays and tensors that require grad.
    ValueError
        If `axis`, `temperature`, `n_threads` or `out`'s shape do not fit.

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
    if (
        result := _batch.plain_probabilities(x, axis, out, True, temperature, n_threads)
    ) is not None:
        return result
    return _elementwise(x, axis, out, temperature, n_threads, True, "log_softmax")


def logsumexp(x, axis=-1, *, keepdims=False, temperature=1.0, out=None, n_threads=None):
    r"""Logarithm of the sum of the exponentials of `x`, along an axis.

    .. math:: \log \sum_k \exp(x_k)

    Parameters
    ----------
    x : array_like, any shape
        float32 and float64 are computed as they are; integers and bool in float64, differences of large
        integers exactly; float16 in float32.
    axis : int, default -1
        The axis to reduce.
    keepdims : bool, default False
        Keep the reduced axis, with size one.
    temperature : float, default 1
        The logits are divided by it: above 1 it evens probabilities out, below 1 it sets them apart.
    out : ndarray, optional
        Where to write the result: exact shape and dtype. On any error that is raised, it holds what it
        held before; only a signal's handler that raises (Ctrl-C) may leave it partly written.
    n_threads : int, optional
        At most so many threads. None, or -1, is as many as pay, up to the processors that this process may
        use. The result is the same, bit for bit.

    Returns
    -------
    ndarray or scalar
        float32 for float32 and float16, else float64.

    Raises
    ------
    TypeError
        If the dtype is complex, longdouble, object or not a number, if `out` has another dtype, or for
        masked arrays, dask arrays and tensors that require grad.
    ValueError
        If `axis`, `temperature`, `n_threads` or `out`'s shape do not fit.

    Notes
    -----
    Each result is within 2 units in the last place (float64: 3) of the larger of its own size and the
    maximum's, which differ where the maximum and the logarithm of the sum nearly cancel. No classes or
    nothing but -inf give -inf, +inf gives +inf, NaN gives NaN.

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
    if out is None and keepdims is False:
        if (result := _batch.plain_logsumexp(x, axis, temperature, n_threads)) is not None:
            return result
    return _logsumexp(x, axis, keepdims, temperature, out, n_threads)


def cross_entropy(
    logits,
    target,
    *,
    axis=-1,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    temperature=1.0,
    reduction="mean",
    n_threads=None,
):
    r"""Cross-entropy of the softmax of `logits` with class indices or class probabilities.

    .. math:: \ell_n = -s_n \sum_c a_{nc} \log \operatorname{softmax}(\text{logits}_n / T)_c

    With weights :math:`w` of the classes and label smoothing :math:`\varepsilon`, the masses are
    :math:`a_{nc} = w_c ((1 - \varepsilon) [c = y_n] + \varepsilon / C)` for class indices :math:`y`, and
    :math:`a_{nc} = w_c ((1 - \varepsilon) q_{nc} + \varepsilon / C)` for probabilities :math:`q`.

    Parameters
    ----------
    logits : array_like, at least one dimension
        Unnormalised log-probabilities; the classes lie along `axis`. float32 and float64 are computed
        as they are; integers and bool in float64, differences of large integers exactly; float16 in
        float32.
    target : array_like
        Integers of `logits`' shape without `axis`: class indices, 0 to C - 1, of any integer dtype. Or
        floats of `logits`' shape: class probabilities, taken in the dtype of the computation.
    axis : int, default -1
        The axis of the classes.
    weight : array_like of shape (C,), optional
        Weights of the classes.
    sample_weight : array_like of `logits`' shape without `axis`, optional
        Weights of the rows.
    ignore_index : int or None, default -100
        Rows with this target do not count: their loss is 0. It may be any integer. Probability targets
        take no notice of it.
    label_smoothing : float from 0 to 1, default 0
        The part of the target that is spread evenly over all classes.
    temperature : float, default 1
        The logits are divided by it: above 1 it evens probabilities out, below 1 it sets them apart.
    reduction : {"mean", "sum", "none"}
        What becomes of the rows' losses. "mean" divides by the sum of the weights of the rows that
        count: of targets and samples for class indices, of samples for probabilities.
    n_threads : int, optional
        At most so many threads. None, or -1, is as many as pay, up to the processors that this process may
        use. The result is the same, bit for bit.

    Returns
    -------
    scalar, or ndarray of the rows' shape for "none"
        In nats; float32 for float32 and float16 logits, else float64. "mean" and "sum" accumulate in
        float64. The mean of no rows is NaN, their sum 0.

    Raises
    ------
    IndexError
        If a target is neither a class nor `ignore_index`. Negative targets do not count from the end.
    TypeError
        If a dtype is not one of the above; bool is no class index. Masked arrays, dask arrays and
        tensors that require grad are refused wherever they stand.
    ValueError
        If shapes, `axis`, `label_smoothing`, `temperature`, `reduction` or `n_threads` do not fit.

    Notes
    -----
    Small losses keep their digits: each is within the bound of `log_softmax`; with weights within 4 units in
    the last place (float64: 4.5), with label smoothing or probability targets within 5.5 (7). Nothing of the
    logits' size is written, if they, and probability targets, are float32 or float64 (both the same) in the
    machine's byte order: else they are converted first. A class without mass adds nothing, also if it is
    infinitely improbable. A row that holds NaN or +inf, or nothing but -inf, has the loss NaN, unless it is
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
    >>> csoftmax.cross_entropy([[2.0, 1.0]], [[0.25, 0.75]], label_smoothing=0.1).round(9)
    np.float64(1.038261688)
    """
    loss, _ = _cross_entropy(
        logits,
        target,
        axis,
        weight,
        sample_weight,
        ignore_index,
        label_smoothing,
        temperature,
        reduction,
        None,
        None,
        n_threads,
        False,
        "cross_entropy",
    )
    return loss


def cross_entropy_with_grad(
    logits,
    target,
    *,
    axis=-1,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    temperature=1.0,
    reduction="mean",
    grad_output=None,
    out=None,
    n_threads=None,
):
    r"""Cross-entropy and its gradient with respect to the logits, in one pass.

    .. math:: \frac{\partial \ell}{\partial x_{nc}} = \frac{s_n}{T D} \Bigl(p_{nc} \sum_k a_{nk} - a_{nc}\Bigr)

    Parameters
    ----------
    logits, target, axis, weight, sample_weight, ignore_index, label_smoothing, temperature, reduction, n_threads
        As in `cross_entropy`.
    grad_output : float, or array_like of the rows' shape for "none", optional
        What the gradient is multiplied by: that of a further loss with respect to this one.
    out : ndarray, optional
        Where to write the gradient: exact shape and dtype. It may be `logits` itself. On any error that
        is raised, it holds what it held before; only a signal's handler that raises (Ctrl-C) may leave it
        partly written.

    Returns
    -------
    loss : scalar, or ndarray of the rows' shape for "none"
        As in `cross_entropy`.
    grad : ndarray of `logits`' shape and dtype
        The gradient of the loss; for "none" that of the sum of losses times `grad_output`. D is what
        "mean" divides by, else 1. Ignored rows have a gradient of exactly 0, whatever their logits.

    Raises
    ------
    IndexError, TypeError, ValueError
        As in `cross_entropy`, and if `grad_output` or `out` do not fit; before anything is written.

    Notes
    -----
    The target's entry is minus the sum of the other probabilities, not p - 1: it keeps its digits
    where p is close to one. Each entry is within 3.5 units in the last place (float64: 4.5); with weights,
    label smoothing or probability targets within 8 units of the larger of p and the target's mass, each
    multiplied as the entry is.

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
        weight,
        sample_weight,
        ignore_index,
        label_smoothing,
        temperature,
        reduction,
        grad_output,
        out,
        n_threads,
        True,
        "cross_entropy_with_grad",
    )


def log_prob(logits, index, *, axis=-1, temperature=1.0, n_threads=None):
    r"""Entries of the log-softmax of `logits`, which is not built: one or several for each row.

    .. math:: \log \operatorname{softmax}(\text{logits}_n / T)_{i_n}

    Parameters
    ----------
    logits : array_like, at least one dimension
        Unnormalised log-probabilities; the classes lie along `axis`. float32 and float64 are computed
        as they are; integers and bool in float64, differences of large integers exactly; float16 in
        float32.
    index : array_like of integers
        Class indices, 0 to C - 1: of `logits`' shape without `axis`, or with a further last axis of K
        indices for each row.
    axis : int, default -1
        The axis of the classes.
    temperature : float, default 1
        The logits are divided by it: above 1 it evens probabilities out, below 1 it sets them apart.
    n_threads : int, optional
        At most so many threads. None, or -1, is as many as pay, up to the processors that this process may
        use. The result is the same, bit for bit.

    Returns
    -------
    ndarray of `index`' shape, or scalar
        In nats; float32 for float32 and float16 logits, else float64.

    Raises
    ------
    IndexError
        If an index is no class. Negative ones do not count from the end.
    TypeError
        If a dtype is not one of the above; bool is no class index. Masked arrays, dask arrays and
        tensors that require grad are refused wherever they stand.
    ValueError
        If shapes, `axis`, `temperature` or `n_threads` do not fit.

    Notes
    -----
    Each result is what `log_softmax` gives, bit for bit (for float16 logits in float32). Nothing of the
    logits' size is written, if they are float32 or float64 in the machine's byte order; others are converted
    first.

    References
    ----------
    Blanchard, Higham and Higham, doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import csoftmax
    >>> csoftmax.log_prob([[20.0, 0.0], [1.0, 3.0]], [0, 1])
    array([-2.06115362e-09, -1.26928011e-01])
    >>> csoftmax.log_prob([1.0, 3.0], [1, 0, 1])
    array([-0.12692801, -2.12692801, -0.12692801])
    """
    if (result := _batch.plain_log_prob(logits, index, axis, temperature, n_threads)) is not None:
        return result
    return _log_prob(logits, index, axis, temperature, n_threads)


def softmax_backward(grad, output, axis=-1, *, out=None, n_threads=None):
    r"""Gradient with respect to the logits from that with respect to their softmax.

    .. math:: \frac{\partial L}{\partial x_j} = y_j \Bigl(g_j - \sum_k y_k g_k\Bigr)

    Parameters
    ----------
    grad : array_like
        The gradient with respect to the softmax. float32 and float64 are computed as they are, two
        dtypes in the wider one; integers and bool in float64; float16 in float32.
    output : array_like of `grad`'s shape
        The softmax itself.
    axis : int, default -1
        The axis of the classes.
    out : ndarray, optional
        Where to write the result: exact shape and dtype. It may be `grad` or `output` itself. On any
        error that is raised, it holds what it held before; only a signal's handler that raises (Ctrl-C)
        may leave it partly written.
    n_threads : int, optional
        At most so many threads. None, or -1, is as many as pay, up to the processors that this process may
        use. The result is the same, bit for bit.

    Returns
    -------
    ndarray of `grad`'s shape
        In the dtype of the computation, float16 if both are. A scalar for a scalar.

    Raises
    ------
    TypeError
        If a dtype is complex, longdouble, object or not a number, if `out` has another dtype, or for
        masked arrays, dask arrays and tensors that require grad.
    ValueError
        If the shapes differ, or if `axis`, `n_threads` or `out`'s shape do not fit.

    Notes
    -----
    Sums run over y (g - g_k), k being the largest class: where y_k is almost one, the usual formula
    leaves no digit of the result at k. The sum is accumulated in double. Each result is within 2 units in
    the last place of y_j (abs(g_j - g_k) + sum of y abs(g - g_k)), in float64 within 6.

    References
    ----------
    Blanchard, Higham and Higham, doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import csoftmax
    >>> y = csoftmax.softmax([40.0, 0.0])
    >>> csoftmax.softmax_backward([1.0, 0.5], y)
    array([ 2.12417713e-18, -2.12417713e-18])
    """
    return _backward(grad, output, axis, out, n_threads, False, "softmax_backward")


def log_softmax_backward(grad, output, axis=-1, *, out=None, n_threads=None):
    r"""Gradient with respect to the logits from that with respect to their log-softmax.

    .. math:: \frac{\partial L}{\partial x_j} = g_j - \exp(\log p_j) \sum_k g_k

    Parameters
    ----------
    grad : array_like
        The gradient with respect to the log-softmax. float32 and float64 are computed as they are, two
        dtypes in the wider one; integers and bool in float64; float16 in float32.
    output : array_like of `grad`'s shape
        The log-softmax itself; what is above 0 by rounding counts as 0.
    axis : int, default -1
        The axis of the classes.
    out : ndarray, optional
        Where to write the result: exact shape and dtype. It may be `grad` or `output` itself. On any
        error that is raised, it holds what it held before; only a signal's handler that raises (Ctrl-C)
        may leave it partly written.
    n_threads : int, optional
        At most so many threads. None, or -1, is as many as pay, up to the processors that this process may
        use. The result is the same, bit for bit.

    Returns
    -------
    ndarray of `grad`'s shape
        In the dtype of the computation, float16 if both are. A scalar for a scalar.

    Raises
    ------
    TypeError
        If a dtype is complex, longdouble, object or not a number, if `out` has another dtype, or for
        masked arrays, dask arrays and tensors that require grad.
    ValueError
        If the shapes differ, or if `axis`, `n_threads` or `out`'s shape do not fit.

    Notes
    -----
    At the largest class k it is -g_k expm1(log p_k) - exp(log p_k) times the sum of the others' gradients,
    which keeps its digits where p_k is almost one. The sum is accumulated in double. Each result is within
    2 units in the last place of the sum of its terms' magnitudes, in float64 within 6.

    References
    ----------
    Blanchard, Higham and Higham, doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import csoftmax
    >>> log_p = csoftmax.log_softmax([40.0, 0.0])
    >>> csoftmax.log_softmax_backward([1.0, 0.0], log_p)
    array([ 4.24835426e-18, -4.24835426e-18])
    """
    return _backward(grad, output, axis, out, n_threads, True, "log_softmax_backward")


@_in_default_state
def weighted_logsumexp(a, b, axis, return_sign, function):
    """Return log(abs(sum of b exp(a))) along an axis, and its sign: the arithmetic of special.logsumexp.

    `a` and `b` (None for ones) are real, have at least one dimension and are broadcast against each other. Weights
    enter as added logarithms, so that nothing overflows; rows with weights of both signs are _signed.py's. Without
    `return_sign` a negative sum gives NaN.
    """
    a, _ = _checks.floating_array(a, function, "a", keep_wide=True)
    if b is None:
        b = np.ones((1,) * a.ndim, np.float64 if a.dtype.kind in "iu" else a.dtype)
    b, _ = _checks.floating_array(b, function, "b", keep_wide=True)
    shape = np.broadcast_shapes(a.shape, b.shape)
    rows = shape[:axis] + shape[axis + 1 :]
    counts = np.broadcast_to(b != 0, shape) if a.dtype.kind in "iu" else None
    exponents, taken = _large_integers.differences(
        a if counts is None else np.broadcast_to(a, shape), axis, counts
    )
    factors = b.astype(np.float64, copy=False) if b.dtype.kind in "iu" else b
    kind = np.result_type(exponents, factors)
    # NumPy's logarithm may depend on the strides.
    logarithm = np.log(np.abs(factors.astype(kind, order="C", copy=False)))
    exponents, logarithm = np.broadcast_arrays(exponents.astype(kind, copy=False), logarithm)
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


def _at_targets(log_p, index, axis):
    """Return the entry of each row that `index` names."""
    if (
        log_p.ndim > _MOST_INDICES
    ):  # more than NumPy's indexing takes: all rows before and behind are one dimension
        before, rest = log_p.shape[:axis], log_p.shape[axis + 1 :]
        log_p = log_p.reshape(math.prod(before), log_p.shape[axis], math.prod(rest))
        return _at_targets(log_p, index.reshape(log_p.shape[::2]), 1).reshape(before + rest)
    return np.take_along_axis(log_p, np.expand_dims(index, axis), axis).squeeze(axis)


@_in_default_state
def negative_log_likelihood(
    log_p, target, axis, weight, ignore_index, reduction, function="nll_loss"
):
    """Return minus the weighted log-probabilities at the targets, reduced: the arithmetic of functional.nll_loss."""
    log_p, _ = _checks.floating_array(log_p, function, "input")
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
        np.negative(_at_targets(log_p, index, axis), out=loss, where=counts)
    if weight is not None:
        of_target = np.where(counts, weight[index] if n_classes else loss, 0)
        of_rows = np.abs(np.where(of_target != 0, loss, 0))
        if not _extremes.are_ordinary(weight, None, None, 0.0, 1.0, 1.0) or (of_rows > 1e290).any():
            return _extremes.negative_log_likelihood(loss, of_target, reduction, log_p.dtype)
        divisor, divisor_carry = _batch.total_weight(target, ignore_index, weight, None, 0)
        loss = np.where(
            of_target != 0,
            np.multiply(loss, of_target, where=of_target != 0, out=np.zeros(rows)),
            0,
        )
    loss = np.asarray(loss + 0.0, order="C")  # never -0.0
    if reduction == "none":
        return loss.astype(log_p.dtype)[()]
    if reduction == "sum":
        divisor, divisor_carry = 1.0, 0.0
    result = np.empty((), log_p.dtype)
    _batch.reduce_losses(loss, divisor, divisor_carry, result, 0, 0)
    return result[()]


def _of_axes(function, temperature, keepdims=False):
    """Return the cure for several axes: the call that takes them."""
    x = "x" if temperature == 1 else "numpy.divide(x, temperature)"
    return (
        f"call csoftmax.special.{function}({x}, axis={{}}{', keepdims=True' if keepdims else ''})"
    )


@_in_default_state
def _elementwise(x, axis, out, temperature, n_threads, log, function):
    x, dtype = _checks.floating_array(x, function, keep_wide=True)
    temperature = _checks.positive_number(temperature, function)
    axis = _checks.axis_number(
        axis, x.ndim, function, several=lambda: _of_axes(function, temperature)
    )
    x, _ = _large_integers.differences(x, axis)
    n_threads = _checks.thread_count(n_threads, function)
    if out is not None:
        _checks.output_array(out, x.shape, dtype, function)
    x = _for_temperature(x, temperature)
    result = _room_for(out, x)
    _batch.probabilities(_as_row(x), axis, _as_row(result), log, temperature, n_threads)
    return _deliver(result, dtype, out)


@_in_default_state
def _logsumexp(x, axis, keepdims, temperature, out, n_threads):
    x, _ = _checks.floating_array(x, "logsumexp", keep_wide=True)
    keepdims = _checks.flag(keepdims, "keepdims", "logsumexp")
    temperature = _checks.positive_number(temperature, "logsumexp")
    axis = _checks.axis_number(
        axis, x.ndim, "logsumexp", several=lambda: _of_axes("logsumexp", temperature, keepdims)
    )
    x, taken = _large_integers.differences(x, axis)
    dtype = x.dtype
    n_threads = _checks.thread_count(n_threads, "logsumexp")
    shape = x.shape[:axis] + (1,) * (keepdims and x.ndim > 0) + x.shape[axis + 1 :]
    if out is not None:
        _checks.output_array(out, shape, dtype, "logsumexp")
    x = _for_temperature(x, temperature)
    result = np.empty(shape, x.dtype) if x.size else np.full(shape, -np.inf, x.dtype)
    _batch.logsumexp(_as_row(x), axis, result, temperature, None, n_threads)
    if taken is not None:
        result = _large_integers.with_maximum(result, taken.reshape(shape), temperature)
    if out is None:
        return result.astype(dtype, copy=False)[()]
    out[...] = result
    return out


@_in_default_state
def _log_prob(logits, index, axis, temperature, n_threads):
    logits, _ = _checks.floating_array(logits, "log_prob", "logits", keep_wide=True)
    temperature = _checks.positive_number(temperature, "log_prob")
    written, axis = axis, _checks.axis_number(axis, logits.ndim, "log_prob")
    logits, _ = _large_integers.differences(logits, axis)
    dtype = logits.dtype
    n_threads = _checks.thread_count(n_threads, "log_prob")
    _checks.some_classes(logits, "log_prob")
    rows = logits.shape[:axis] + logits.shape[axis + 1 :]
    given = _checks.index_array(index, rows, logits.shape, operator.index(written), "log_prob")
    index, _, _ = _scanned(given, logits.shape[axis], None, n_threads, "log_prob", "index")
    logits = _for_temperature(logits, temperature)
    result = np.empty(index.shape, logits.dtype)
    if index.size:
        _batch.log_prob(logits, axis, index, result, temperature, n_threads)
    return result.astype(dtype, copy=False)[()]


def _as_row(x):
    """Return a scalar as a row of one class."""
    return x.reshape(1) if x.ndim == 0 else x


def _for_temperature(x, temperature):
    """Return `x` in float64 if its dtype, float32, cannot hold the temperature or what differences become by it."""
    return x if x.dtype == np.float64 or 1e-30 < temperature < 1e30 else x.astype(np.float64)


def _room_for(out, x, *others, apart=()):
    """Return `out` if the kernels can write there while they read the other arguments, else a new array.

    `x` and `others` may be `out` itself; what has to lie `apart` may not.
    """
    if out is None or out.dtype != x.dtype:
        return np.empty_like(x)
    for given in (x, *others):
        if np.may_share_memory(given, out):
            same = given.ctypes.data == out.ctypes.data and given.strides == out.strides
            if not (same and given.shape == out.shape and given.dtype == out.dtype):
                return np.empty_like(x)
    if any(given is not None and np.may_share_memory(given, out) for given in apart):
        return np.empty_like(x)
    return out


def _deliver(result, dtype, out):
    """Return `result` in `dtype`, in `out` if there is one."""
    if result is out:
        return out
    if result.dtype != dtype or out is not None:
        if out is None:
            return result.astype(dtype)[()]  # a float16 may overflow or vanish
        np.copyto(out, result, casting="same_kind")
        return out
    return result[()]


@_in_default_state
def _backward(grad, output, axis, out, n_threads, log, function):
    grad, dtype = _checks.floating_array(grad, function, "grad")
    output, other_dtype = _checks.floating_array(output, function, "output")
    dtype = np.result_type(dtype, other_dtype)
    kind = np.result_type(grad, output)
    grad, output = grad.astype(kind, copy=False), output.astype(kind, copy=False)
    _checks.same_shapes(grad, output, function)
    axis = _checks.axis_number(axis, grad.ndim, function)
    n_threads = _checks.thread_count(n_threads, function)
    if out is not None:
        _checks.output_array(out, grad.shape, dtype, function)
    result = _room_for(out, output, grad)
    _batch.backward(_as_row(grad), _as_row(output), axis, _as_row(result), log, n_threads)
    return _deliver(result, dtype, out)


def _scanned(given, n_classes, ignore_index, n_threads, function, name="target"):
    """Return class indices as int64, all of them classes or ignored, what is ignored, and how many are."""
    target, ignore_index = _checks.target_int64(given, n_classes, ignore_index, function, name)
    bad, n_ignored = _batch.scan_targets(target, n_classes, ignore_index, n_threads)
    if bad >= 0:
        raise _checks.bad_target(given, bad, n_classes, function, name)
    return target, ignore_index, n_ignored


def _cross_entropy(
    logits,
    target,
    axis,
    weight,
    sample_weight,
    ignore_index,
    label_smoothing,
    temperature,
    reduction,
    grad_output,
    out,
    n_threads,
    with_grad,
    function,
):
    if sample_weight is None and grad_output is None:
        plain = _batch.plain_cross_entropy(
            logits,
            target,
            axis,
            weight,
            ignore_index,
            label_smoothing,
            temperature,
            reduction,
            out,
            with_grad,
            n_threads,
        )
        if plain is not None:
            return plain
    return _any_cross_entropy(
        logits,
        target,
        axis,
        weight,
        sample_weight,
        ignore_index,
        label_smoothing,
        temperature,
        reduction,
        grad_output,
        out,
        n_threads,
        with_grad,
        function,
    )


@_in_default_state
def _any_cross_entropy(
    logits,
    target,
    axis,
    weight,
    sample_weight,
    ignore_index,
    label_smoothing,
    temperature,
    reduction,
    grad_output,
    out,
    n_threads,
    with_grad,
    function,
):
    logits, dtype = _checks.floating_array(logits, function, "logits", keep_wide=True)
    written, axis = axis, _checks.axis_number(axis, logits.ndim, function)
    logits, _ = _large_integers.differences(logits, axis)
    n_threads = _checks.thread_count(n_threads, function)
    _checks.reduction_name(reduction, function)
    ignore_index = _checks.ignore_number(ignore_index, function)
    temperature = _checks.positive_number(temperature, function)
    label_smoothing = _checks.fraction(label_smoothing, function)
    _checks.some_classes(logits, function)
    shape, n_classes = logits.shape, logits.shape[axis]
    rows = shape[:axis] + shape[axis + 1 :]
    written = operator.index(written)  # the axis as messages name it
    given = _checks.target_array(target, rows, shape, written, ignore_index, function)
    weight = _checks.weights(weight, "weight", "class", (n_classes,), shape, written, function)
    sample_weight = _checks.weights(
        sample_weight, "sample_weight", "row", rows, shape, written, function
    )
    grad_output = _checks.output_gradient(grad_output, reduction, rows, shape, written, function)
    if out is not None:
        _checks.output_array(out, shape, dtype, function)
    probabilities, target, n_ignored = None, None, 0
    kind = logits.dtype
    if given.dtype.kind == "f":
        probabilities = given
        ignore_index = None  # there is no index to ignore
    else:
        target, ignore_index, n_ignored = _scanned(
            given, n_classes, ignore_index, n_threads, function
        )
    divisor, divisor_carry = 1.0, 0.0
    if reduction == "mean":
        of_class = weight if probabilities is None else None
        divisor = float(math.prod(rows) - n_ignored)
        if of_class is not None or sample_weight is not None:
            divisor, divisor_carry = _batch.total_weight(
                target, ignore_index, of_class, sample_weight, n_threads
            )

    def in_any_range():
        counts = np.ones(rows, bool)
        if ignore_index is not None:
            counts = np.asarray(target != ignore_index)
        loss, grad = _extremes.cross_entropy(
            logits,
            axis,
            None if target is None else np.where(counts, target, 0),
            probabilities,
            weight=weight,
            sample_weight=sample_weight,
            counts=counts,
            label_smoothing=label_smoothing,
            temperature=temperature,
            reduction=reduction,
            grad_output=grad_output,
            with_grad=with_grad,
            n_threads=n_threads,
            kind=kind,
        )
        return loss, None if grad is None else _deliver(grad, dtype, out)

    if not _extremes.are_ordinary(
        weight, sample_weight, grad_output, label_smoothing, temperature, divisor
    ):
        return in_any_range()
    if probabilities is not None and probabilities.dtype != kind:
        if kind == np.float32 and not _extremes.are_ordinary_masses(probabilities):
            return in_any_range()
        probabilities = probabilities.astype(kind)
    grad_weight = sample_weight
    if grad_output is not None:
        scales = grad_output if sample_weight is None else grad_output * sample_weight
        grad_weight = np.ascontiguousarray(np.broadcast_to(scales, rows))
    grad = None
    if with_grad:  # probabilities are read once more after the first part is written
        read = (target, weight, sample_weight, grad_weight, probabilities)
        grad = _room_for(out, logits, apart=read)
        if grad is out and probabilities is not None and np.may_share_memory(grad, logits):
            grad = np.empty_like(logits)  # they may have to be read again, see below
    loss = np.zeros(rows, kind if reduction == "none" else np.float64)
    _batch.cross_entropy(
        logits,
        axis,
        target,
        ignore_index,
        loss,
        grad,
        divisor,
        n_threads,
        probabilities,
        weight,
        sample_weight,
        grad_weight,
        label_smoothing,
        temperature,
    )
    kinds = _batch.kinds_of_losses(loss, logits.dtype == np.float64)
    if kinds & _FAR_LOSS and probabilities is not None:  # some are far from 1
        if not _extremes.are_ordinary_masses(probabilities):
            return in_any_range()
    of_both_signs = kinds & ~_FAR_LOSS == _INFINITE_LOSSES
    if reduction != "none" and of_both_signs and grad is not logits:
        # Infinite ones of both signs: their sum is no number, but of finite logits they are only too large for float64.
        if np.isfinite(logits).all():
            return in_any_range()
    if reduction != "none":
        losses, loss = loss, np.empty((), kind)
        _batch.reduce_losses(losses, divisor, divisor_carry, loss, 0, n_threads)
    return loss[()], None if grad is None else _deliver(grad, dtype, out)
