"""The public functions: signatures and documentation.

Each tries the compiled fast path, which returns None for what it does not take; then it calls _general.py.
"""

from csoftmax import _batch, _general


def softmax(x, axis=-1, *, temperature=1.0, out=None, n_threads=None):
    r"""Probabilities proportional to the exponentials of `x`, along an axis.

    .. math:: p_j = \frac{\exp(x_j)}{\sum_k \exp(x_k)}

    Parameters
    ----------
    x : array_like, any shape
        Logits. float32 and float64 are computed as they are; integers and bool in float64, differences of
        large integers exactly; float16 and bfloat16 in float32. Whatever the dtype, the byte
        order, the axis and the strides, nothing of the array's size is allocated but the result.
    axis : int, default -1
        The axis along which the result sums to one.
    temperature : float, default 1
        The logits are divided by it: above 1 it evens probabilities out, below 1 it sets them apart.
    out : ndarray, optional
        Where to write the result: exact shape and dtype; for half-width `x` float32 too, which is not
        rounded. It may be `x` itself. On any error that is raised, it holds what it held before; only a
        signal's handler that raises (Ctrl-C) may leave it partly written.
    n_threads : int, optional
        At most so many threads. None, or -1, is as many as pay, up to the processors that this process may
        use. The result is the same, bit for bit.

    Returns
    -------
    ndarray of `x`'s shape
        float32, float64, float16 or bfloat16 as `x`, half-width ones rounded once from float32; float64 for
        integers and bool. A scalar for a scalar.

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
    result = _batch.fast_probabilities(x, axis, out, False, temperature, n_threads)
    if result is not None:
        return result
    return _general.probabilities(
        x,
        axis=axis,
        temperature=temperature,
        out=out,
        n_threads=n_threads,
        log=False,
        function="softmax",
    )


def log_softmax(x, axis=-1, *, temperature=1.0, out=None, n_threads=None):
    r"""Logarithm of the softmax of `x`, along an axis.

    .. math:: \log p_j = (x_j - m) - \log\Bigl(1 + \sum_{k \ne \operatorname{argmax}} \exp(x_k - m)\Bigr),
              \quad m = \max_k x_k

    Parameters
    ----------
    x : array_like, any shape
        Logits. float32 and float64 are computed as they are; integers and bool in float64, differences of
        large integers exactly; float16 and bfloat16 in float32. Whatever the dtype, the byte
        order, the axis and the strides, nothing of the array's size is allocated but the result.
    axis : int, default -1
        The axis along which the exponentials of the result sum to one.
    temperature : float, default 1
        The logits are divided by it: above 1 it evens probabilities out, below 1 it sets them apart.
    out : ndarray, optional
        Where to write the result: exact shape and dtype; for half-width `x` float32 too, which is not
        rounded. It may be `x` itself. On any error that is raised, it holds what it held before; only a
        signal's handler that raises (Ctrl-C) may leave it partly written.
    n_threads : int, optional
        At most so many threads. None, or -1, is as many as pay, up to the processors that this process may
        use. The result is the same, bit for bit.

    Returns
    -------
    ndarray of `x`'s shape
        float32, float64, float16 or bfloat16 as `x`, half-width ones rounded once from float32; float64 for
        integers and bool. A scalar for a scalar.

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
    result = _batch.fast_probabilities(x, axis, out, True, temperature, n_threads)
    if result is not None:
        return result
    return _general.probabilities(
        x,
        axis=axis,
        temperature=temperature,
        out=out,
        n_threads=n_threads,
        log=True,
        function="log_softmax",
    )


def logsumexp(x, axis=-1, *, keepdims=False, temperature=1.0, out=None, n_threads=None):
    r"""Logarithm of the sum of the exponentials of `x`, along an axis.

    .. math:: \log \sum_k \exp(x_k)

    Parameters
    ----------
    x : array_like, any shape
        float32 and float64 are computed as they are; integers and bool in float64, differences of large
        integers exactly; float16 and bfloat16 in float32.
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
        float32 for float32, float16 and bfloat16, else float64.

    Raises
    ------
    TypeError
        If the dtype is complex, longdouble, object or not a number, if `out` has another dtype, or for
        masked arrays, dask arrays and tensors that require grad.
    ValueError
        If `axis`, `temperature`, `n_threads` or `out`'s shape do not fit.

    Notes
    -----
    Each result is within 2 units in the last place (float64: 3) of the largest of its own size, the
    maximum's and the distance between them, which differ where the maximum and the logarithm of the sum
    nearly cancel. No classes or nothing but -inf give -inf, +inf gives +inf, NaN gives NaN.

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
    result = _batch.fast_logsumexp(x, axis, keepdims, temperature, out, n_threads)
    if result is not None:
        return result
    return _general.logsumexp(
        x, axis=axis, keepdims=keepdims, temperature=temperature, out=out, n_threads=n_threads
    )


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
        Unnormalised log-probabilities; the classes lie along `axis`. float32 and float64 are computed as
        they are; integers and bool in float64, differences of large integers exactly; float16 and bfloat16
        in float32.
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
        In nats; float32 for float32, float16 and bfloat16 logits, else float64. "mean" and "sum" accumulate
        in float64. The mean of no rows is NaN, their sum 0.

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
    logits' size is written, whatever their dtype and that of probability targets. A class without mass adds
    nothing, also if it is infinitely improbable. A row that holds NaN or +inf, or nothing but -inf, has the
    loss NaN, unless it is ignored.

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
    result = _batch.fast_cross_entropy(
        logits,
        target,
        axis=axis,
        weight=weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        temperature=temperature,
        reduction=reduction,
        grad_output=None,
        out=None,
        with_grad=False,
        n_threads=n_threads,
    )
    if result is None:
        options = _general.LossOptions(
            axis=axis,
            weight=weight,
            sample_weight=sample_weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            temperature=temperature,
            reduction=reduction,
            n_threads=n_threads,
        )
        result = _general.cross_entropy(logits, target, options, "cross_entropy")
    loss, _ = result
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
        Where to write the gradient: exact shape and dtype; for half-width logits float32 too, which is not
        rounded. It may be `logits` itself. On any error that is raised, it holds what it held before; only
        a signal's handler that raises (Ctrl-C) may leave it partly written.

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
    result = _batch.fast_cross_entropy(
        logits,
        target,
        axis=axis,
        weight=weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        temperature=temperature,
        reduction=reduction,
        grad_output=grad_output,
        out=out,
        with_grad=True,
        n_threads=n_threads,
    )
    if result is None:
        options = _general.LossOptions(
            axis=axis,
            weight=weight,
            sample_weight=sample_weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            temperature=temperature,
            reduction=reduction,
            n_threads=n_threads,
            grad_output=grad_output,
            out=out,
        )
        result = _general.cross_entropy(
            logits, target, options, "cross_entropy_with_grad", with_grad=True
        )
    return result


def log_prob(logits, index, *, axis=-1, temperature=1.0, n_threads=None):
    r"""Entries of the log-softmax of `logits`, which is not built: one or several for each row.

    .. math:: \log \operatorname{softmax}(\text{logits}_n / T)_{i_n}

    Parameters
    ----------
    logits : array_like, at least one dimension
        Unnormalised log-probabilities; the classes lie along `axis`. float32 and float64 are computed as
        they are; integers and bool in float64, differences of large integers exactly; float16 and bfloat16
        in float32.
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
        In nats; float32 for float32, float16 and bfloat16 logits, else float64.

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
    Each result is what `log_softmax` gives, bit for bit (for half-width logits in float32). Nothing of the
    logits' size is written.

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
    result = _batch.fast_log_prob(logits, index, axis, temperature, n_threads)
    if result is not None:
        return result
    return _general.log_prob(logits, index, axis=axis, temperature=temperature, n_threads=n_threads)


def softmax_backward(grad, output, axis=-1, *, out=None, n_threads=None):
    r"""Gradient with respect to the logits from that with respect to their softmax.

    .. math:: \frac{\partial L}{\partial x_j} = y_j \Bigl(g_j - \sum_k y_k g_k\Bigr)

    Parameters
    ----------
    grad : array_like
        The gradient with respect to the softmax. float32 and float64 are computed as they are, two dtypes
        in the wider one; integers and bool in float64; float16 and bfloat16 in float32.
    output : array_like of `grad`'s shape
        The softmax itself.
    axis : int, default -1
        The axis of the classes.
    out : ndarray, optional
        Where to write the result: exact shape and dtype; for half-width results float32 too, which is not
        rounded. It may be `grad` or `output` itself. On any error that is raised, it holds what it held
        before; only a signal's handler that raises (Ctrl-C) may leave it partly written.
    n_threads : int, optional
        At most so many threads. None, or -1, is as many as pay, up to the processors that this process may
        use. The result is the same, bit for bit.

    Returns
    -------
    ndarray of `grad`'s shape
        In the dtype of the computation; float16 or bfloat16 if both are that. A scalar for a scalar.

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
    result = _batch.fast_backward(grad, output, axis, out, False, n_threads)
    if result is not None:
        return result
    return _general.backward(
        grad,
        output,
        axis=axis,
        out=out,
        n_threads=n_threads,
        log=False,
        function="softmax_backward",
    )


def log_softmax_backward(grad, output, axis=-1, *, out=None, n_threads=None):
    r"""Gradient with respect to the logits from that with respect to their log-softmax.

    .. math:: \frac{\partial L}{\partial x_j} = g_j - \exp(\log p_j) \sum_k g_k

    Parameters
    ----------
    grad : array_like
        The gradient with respect to the log-softmax. float32 and float64 are computed as they are, two
        dtypes in the wider one; integers and bool in float64; float16 and bfloat16 in float32.
    output : array_like of `grad`'s shape
        The log-softmax itself; what is above 0 by rounding counts as 0.
    axis : int, default -1
        The axis of the classes.
    out : ndarray, optional
        Where to write the result: exact shape and dtype; for half-width results float32 too, which is not
        rounded. It may be `grad` or `output` itself. On any error that is raised, it holds what it held
        before; only a signal's handler that raises (Ctrl-C) may leave it partly written.
    n_threads : int, optional
        At most so many threads. None, or -1, is as many as pay, up to the processors that this process may
        use. The result is the same, bit for bit.

    Returns
    -------
    ndarray of `grad`'s shape
        In the dtype of the computation; float16 or bfloat16 if both are that. A scalar for a scalar.

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
    result = _batch.fast_backward(grad, output, axis, out, True, n_threads)
    if result is not None:
        return result
    return _general.backward(
        grad,
        output,
        axis=axis,
        out=out,
        n_threads=n_threads,
        log=True,
        function="log_softmax_backward",
    )
