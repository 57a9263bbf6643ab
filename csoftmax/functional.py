"""PyTorch's softmax, log_softmax, logsumexp, cross_entropy and nll_loss: its names, arguments and defaults.

Only arguments are translated here; arrays are NumPy's. The classes lie along axis 1, along 0 of a single row.
"""

import warnings

import numpy as np

from csoftmax import _batch, _checks, _functions, _general, special

__all__ = ["cross_entropy", "log_softmax", "logsumexp", "nll_loss", "softmax"]


def softmax(input, dim=None, _stacklevel=3, dtype=None):
    r"""Softmax with the signature of `torch.nn.functional.softmax`.

    .. math:: p_j = \frac{\exp(x_j)}{\sum_k \exp(x_k)}

    Parameters
    ----------
    input : array_like, any shape
        Logits. float32 and float64 are computed as they are; integers and bool in float64; float16 and
        bfloat16 in float32.
    dim : int, optional
        The axis along which the result sums to one. If left out, PyTorch's rule: 0 for an `input` of 0,
        1 or 3 dimensions, else 1, with PyTorch's warning that this is deprecated.
    _stacklevel : int, default 3
        Which caller the warning names.
    dtype : float16, bfloat16, float32 or float64, optional
        Convert `input` to this before anything else; for float64, differences of large integers stay
        exact.

    Returns
    -------
    ndarray of `input`'s shape
        float32, float64, float16 or bfloat16 as `input` or `dtype`, half-width ones rounded once from
        float32; float64 for integers and bool.

    Raises
    ------
    TypeError
        If a dtype is none of the above, or an array is masked, dask's, or a tensor that requires grad.
    ValueError
        If `dim` does not fit.

    Warns
    -----
    UserWarning
        If `dim` is left out.

    Notes
    -----
    Error bound and special values are those of `csoftmax.softmax`.

    References
    ----------
    Blanchard, Higham and Higham, doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import csoftmax.functional as F
    >>> F.softmax([[0, 0], [5, 5]], dim=1)
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """
    return _elementwise(_functions.softmax, "softmax", input, dim, _stacklevel, dtype)


def log_softmax(input, dim=None, _stacklevel=3, dtype=None):
    r"""Logarithm of the softmax with the signature of `torch.nn.functional.log_softmax`.

    .. math:: \log p_j = x_j - \log \sum_k \exp(x_k)

    Parameters
    ----------
    input : array_like, any shape
        Logits. float32 and float64 are computed as they are; integers and bool in float64; float16 and
        bfloat16 in float32.
    dim : int, optional
        The axis along which the exponentials of the result sum to one. If left out, PyTorch's rule: 0
        for an `input` of 0, 1 or 3 dimensions, else 1, with PyTorch's warning that this is deprecated.
    _stacklevel : int, default 3
        Which caller the warning names.
    dtype : float16, bfloat16, float32 or float64, optional
        Convert `input` to this before anything else; for float64, differences of large integers stay
        exact.

    Returns
    -------
    ndarray of `input`'s shape
        float32, float64, float16 or bfloat16 as `input` or `dtype`, half-width ones rounded once from
        float32; float64 for integers and bool.

    Raises
    ------
    TypeError
        If a dtype is none of the above, or an array is masked, dask's, or a tensor that requires grad.
    ValueError
        If `dim` does not fit.

    Warns
    -----
    UserWarning
        If `dim` is left out.

    Notes
    -----
    Error bound and special values are those of `csoftmax.log_softmax`: results near zero keep their
    digits.

    References
    ----------
    Blanchard, Higham and Higham, doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import csoftmax.functional as F
    >>> F.log_softmax([20.0, 0.0], dim=0)
    array([-2.06115362e-09, -2.00000000e+01])
    """
    return _elementwise(_functions.log_softmax, "log_softmax", input, dim, _stacklevel, dtype)


def logsumexp(input, dim, keepdim=False):
    r"""Logarithm of the sum of exponentials with the signature of `torch.logsumexp`.

    .. math:: \log \sum_k \exp(x_k)

    Parameters
    ----------
    input : array_like, any shape
        float32 and float64 are computed as they are; integers and bool in float64; float16 and bfloat16 in
        float32.
    dim : int or tuple of int
        The axis or axes to reduce.
    keepdim : bool, default False
        Keep the reduced axes, with size one.

    Returns
    -------
    ndarray or scalar
        float32 for float32, float16 and bfloat16, else float64.

    Raises
    ------
    TypeError
        If the dtype is complex (`torch.logsumexp` takes that), longdouble, object or not a number.
    ValueError
        If `dim` does not fit or names an axis twice.

    Notes
    -----
    Error bound and special values are those of `csoftmax.logsumexp`. Unlike PyTorch's, the
    result for half-width floats is float32.

    References
    ----------
    Blanchard, Higham and Higham, doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import csoftmax.functional as F
    >>> F.logsumexp([[1000.0, 1000.0], [0.0, 0.0]], dim=1)
    array([1.00069315e+03, 6.93147181e-01])
    >>> F.logsumexp([[0.0, 0.0], [0.0, 0.0]], dim=(0, 1))
    np.float64(1.3862943611198906)
    """
    name = "functional.logsumexp"
    input = special._real_array(input, "input", name, "torch.logsumexp")
    keepdim = _checks.flag(keepdim, "keepdim", name)
    if not isinstance(dim, (tuple, list)):  # None too is an error, as it is PyTorch's
        several = f"call csoftmax.special.logsumexp(input, axis={{}}, keepdims={keepdim})"
        dim = _checks.axis_number(dim, input.ndim, name, "dim", lambda: several)
        return _functions.logsumexp(input, dim, keepdims=keepdim)
    axes = special._axis_numbers(tuple(dim), input.ndim, name, "dim")
    return special._reduced(input, axes, None, keepdim and input.ndim > 0, False)


def cross_entropy(
    input,
    target,
    weight=None,
    size_average=None,
    ignore_index=-100,
    reduce=None,
    reduction="mean",
    label_smoothing=0.0,
):
    r"""Cross-entropy with the signature of `torch.nn.functional.cross_entropy`.

    .. math:: \ell_n = -w_{y_n} \log \operatorname{softmax}(\text{input}_n)_{y_n}

    Parameters
    ----------
    input : array_like, (C,), (N, C) or (N, C, d1, d2, ...)
        Logits. float32 and float64 are computed as they are; integers and bool in float64; float16 and
        bfloat16 in float32.
    target : array_like
        Integers of `input`'s shape without the axis of the classes: class indices, 0 to C - 1. Floats of
        `input`'s shape: class probabilities.
    weight : array_like, (C,), optional
        Weights of the classes. "mean" divides by the sum of the targets' weights, or, for probabilities,
        by the number of rows.
    size_average, reduce : bool, optional
        PyTorch's older names for `reduction`, which they override, with its warning: `reduce=False` is
        "none", `size_average=False` "sum", else "mean".
    ignore_index : int or None, default -100
        Rows with this class index do not count. Class probabilities have none: with them it must be negative,
        as in PyTorch.
    reduction : {"mean", "sum", "none"}
        What becomes of the rows' losses.
    label_smoothing : float, default 0.0
        From 0 to 1: this much of each target is spread evenly over all classes.

    Returns
    -------
    scalar, or ndarray of the rows' shape for "none"
        In nats; float32 for float32 and half-width floats (where PyTorch's have that width), else float64.

    Raises
    ------
    IndexError
        If a target is neither a class nor `ignore_index`.
    TypeError
        If a dtype is none of the above, or an array is masked, dask's, or a tensor that requires grad.
    ValueError
        If shapes, `reduction` or `label_smoothing` do not fit, or if `ignore_index` is 0 or more and `target` holds
        class probabilities.

    Warns
    -----
    UserWarning
        If `size_average` or `reduce` is given.

    Notes
    -----
    This is `csoftmax.cross_entropy` along axis 1 (0 of a single row), with its error bound and special
    values: a zero probability or weight at a log-probability of -inf adds nothing, where PyTorch's
    result is NaN. The gradient is `csoftmax.cross_entropy_with_grad`'s.

    References
    ----------
    Blanchard, Higham and Higham, doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import numpy as np
    >>> import csoftmax.functional as F
    >>> F.cross_entropy(np.float32([[20, 0]]), [0])
    np.float32(2.0611537e-09)
    >>> F.cross_entropy([[2.0, 1.0], [0.0, 3.0]], [0, 1], weight=[1, 3], reduction="none")
    array([0.31326169, 0.14576205])
    """
    name = "functional.cross_entropy"
    reduction = _reduction(size_average, reduce, reduction, name)
    input, axis = _with_class_axis(input, name)
    if type(ignore_index) is not int or ignore_index >= 0:
        ignore_index = _checks.ignore_number(ignore_index, name)
        if _checks.is_probabilities(target, input.shape):
            _checks.no_index_to_ignore(ignore_index, name)
    result = _batch.fast_cross_entropy(
        input,
        target,
        axis=axis,
        weight=weight,
        sample_weight=None,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        temperature=1.0,
        reduction=reduction,
        grad_output=None,
        out=None,
        with_grad=False,
        n_threads=None,
    )
    if result is None:
        options = _general.LossOptions(
            axis=axis,
            weight=weight,
            sample_weight=None,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            temperature=1.0,
            reduction=reduction,
            n_threads=None,
        )
        result = _general.cross_entropy(input, target, options, name)
    loss, _ = result
    return loss


def nll_loss(
    input,
    target,
    weight=None,
    size_average=None,
    ignore_index=-100,
    reduce=None,
    reduction="mean",
):
    r"""Negative log-likelihood with the signature of `torch.nn.functional.nll_loss`.

    .. math:: \ell_n = -w_{y_n} \text{input}_{n y_n}

    Parameters
    ----------
    input : array_like, (C,), (N, C) or (N, C, d1, d2, ...)
        Log-probabilities, as `log_softmax` gives them. float32 and float64 are computed as they are;
        integers and bool in float64; float16 and bfloat16 in float32.
    target : array_like of integers, `input`'s shape without the axis of the classes
        Class indices, 0 to C - 1.
    weight : array_like, (C,), optional
        Weights of the classes. "mean" divides by the sum of the targets' weights.
    size_average, reduce : bool, optional
        PyTorch's older names for `reduction`, which they override, with its warning: `reduce=False` is
        "none", `size_average=False` "sum", else "mean".
    ignore_index : int or None, default -100
        Rows with this target do not count.
    reduction : {"mean", "sum", "none"}
        What becomes of the rows' losses.

    Returns
    -------
    scalar, or ndarray of `target`'s shape for "none"
        float32 for float32 and half-width floats (where PyTorch's have that width), else float64.

    Raises
    ------
    IndexError
        If a target is neither a class nor `ignore_index`.
    TypeError
        If a dtype is none of the above, or an array is masked, dask's, or a tensor that requires grad.
    ValueError
        If shapes or `reduction` do not fit.

    Warns
    -----
    UserWarning
        If `size_average` or `reduce` is given.

    Notes
    -----
    Where the log-probabilities are not needed otherwise, `cross_entropy` of the logits saves an array of
    their size.

    References
    ----------
    Blanchard, Higham and Higham, doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import csoftmax.functional as F
    >>> F.nll_loss(F.log_softmax([[2.0, 1.0], [0.0, 3.0]], dim=1), [0, 1], reduction="none")
    array([0.31326169, 0.04858735])
    """
    name = "functional.nll_loss"
    reduction = _reduction(size_average, reduce, reduction, name)
    input, axis = _with_class_axis(input, name)
    return _general.negative_log_likelihood(
        input,
        target,
        axis=axis,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        function=name,
    )


def _input(given, function):
    input = _checks.any_array(given, "input", function)
    _checks.no_rounded_integers(given, input, function, "input")
    return input


def _elementwise(function, name, input, dim, stacklevel, dtype):
    if dtype is None:
        is_log = name == "log_softmax"
        result = _batch.fast_probabilities(input, dim, None, is_log, 1.0, None)
        if result is not None:
            return result
    given, caller = input, f"functional.{name}"
    input = _input(input, caller)
    if dim is None:
        warnings.warn(
            f"Implicit dimension choice for {name} has been deprecated. "
            "Change the call to include dim=X as an argument.",
            stacklevel=_checks.stack_level(stacklevel, caller),
        )
        dim = 0 if input.ndim in (0, 1, 3) else 1
    if dtype is not None:
        dtype = _result_dtype(dtype, caller)
        input = _converted(input, dtype)
    _checks.has_kernel(input, given, caller, "input")
    converted = "input" if dtype is None else "numpy.asarray(input, dtype=dtype)"
    several = f"call csoftmax.special.{name}({converted}, axis={{}})"
    axis = _checks.axis_number(dim, input.ndim, caller, "dim", lambda: several)
    if dtype is None:
        return function(input, axis)
    return _general.probabilities(
        input,
        axis=axis,
        temperature=1.0,
        out=None,
        n_threads=None,
        log=name == "log_softmax",
        function=name,
        dtype=dtype,
    )


def _result_dtype(dtype, function):
    """Return the `dtype` argument as a dtype of native byte order."""
    is_scalar_type = isinstance(dtype, type) and issubclass(dtype, np.generic)
    if is_scalar_type or isinstance(dtype, np.dtype):
        given = np.dtype(dtype)  # what is raised here is a signal's handler's
    else:
        try:
            given = np.dtype(dtype)
        except Exception:
            given = None  # it is none
    given = None if given is None else given.newbyteorder("=")
    if given is None or not _checks.has_float_kernel(given):
        raise TypeError(
            f"{function}() needs a dtype of numpy.float16, float32 or float64, or bfloat16,"
            f" got {_checks.shown(dtype)}: choose one of these"
        )
    return given


@_general.in_default_state  # numbers may overflow or vanish
def _converted(input, dtype):
    """Return `input` in `dtype`, if the kernels do not read it as it is with the same result."""
    if dtype == np.float64 and input.dtype.kind in "iub":
        return input  # it is computed in float64, and large ones' differences are not rounded
    if not _checks.is_real(input):
        return input  # has_kernel() says what is wrong with it
    if _checks.has_float_kernel(input.dtype):
        is_own = dtype == input.dtype.newbyteorder("=")
        if is_own or dtype.itemsize > max(2, input.dtype.itemsize):
            return input
    return input.astype(dtype, copy=False)


def _with_class_axis(input, function):
    given, input = input, _input(input, function)
    _checks.has_kernel(input, given, function, "input")
    return input, 1 if input.ndim > 1 else 0


def _reduction(size_average, reduce, reduction, function):
    """Return what PyTorch takes for `reduction`: the older arguments override it."""
    if size_average is None and reduce is None:
        return reduction
    means = size_average is None or _checks.flag(size_average, "size_average", function)
    reduces = reduce is None or _checks.flag(reduce, "reduce", function)
    reduction = "none" if not reduces else "mean" if means else "sum"
    warnings.warn(
        f"size_average and reduce args will be deprecated, please use reduction='{reduction}' instead.",
        stacklevel=3,
    )
    return reduction
