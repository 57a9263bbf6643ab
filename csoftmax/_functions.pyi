# Types that keep the dtype: float32 in, float32 out. The functions themselves are in _functions.py.

from typing import Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Float = TypeVar("_Float", np.float16, np.float32, np.float64)
_Kernel = TypeVar("_Kernel", np.float32, np.float64)
_Integers = NDArray[np.integer[Any]]

@overload
def softmax(
    x: NDArray[_Float],
    axis: int = -1,
    *,
    temperature: float = 1.0,
    out: NDArray[_Float] | None = None,
    n_threads: int | None = None,
) -> NDArray[_Float]: ...
@overload
def softmax(
    x: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    out: NDArray[np.float64] | None = None,
    n_threads: int | None = None,
) -> NDArray[np.float64]: ...
@overload
def log_softmax(
    x: NDArray[_Float],
    axis: int = -1,
    *,
    temperature: float = 1.0,
    out: NDArray[_Float] | None = None,
    n_threads: int | None = None,
) -> NDArray[_Float]: ...
@overload
def log_softmax(
    x: ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    out: NDArray[np.float64] | None = None,
    n_threads: int | None = None,
) -> NDArray[np.float64]: ...

# logsumexp of a one-dimensional array is a scalar, which the type of an array does not tell: Any.
@overload
def logsumexp(
    x: NDArray[_Kernel],
    axis: int = -1,
    *,
    keepdims: Literal[True],
    temperature: float = 1.0,
    out: NDArray[_Kernel] | None = None,
    n_threads: int | None = None,
) -> NDArray[_Kernel]: ...
@overload
def logsumexp(
    x: ArrayLike,
    axis: int = -1,
    *,
    keepdims: bool = False,
    temperature: float = 1.0,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> Any: ...
@overload
def cross_entropy(
    logits: NDArray[_Kernel],
    target: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
    n_threads: int | None = None,
) -> _Kernel: ...
@overload
def cross_entropy(
    logits: NDArray[_Kernel],
    target: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    reduction: Literal["none"],
    n_threads: int | None = None,
) -> NDArray[_Kernel]: ...
@overload
def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    reduction: Literal["mean", "sum", "none"] = "mean",
    n_threads: int | None = None,
) -> Any: ...
@overload
def cross_entropy_with_grad(
    logits: NDArray[_Kernel],
    target: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
    grad_output: ArrayLike | None = None,
    out: NDArray[_Kernel] | None = None,
    n_threads: int | None = None,
) -> tuple[_Kernel, NDArray[_Kernel]]: ...
@overload
def cross_entropy_with_grad(
    logits: NDArray[_Kernel],
    target: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    reduction: Literal["none"],
    grad_output: ArrayLike | None = None,
    out: NDArray[_Kernel] | None = None,
    n_threads: int | None = None,
) -> tuple[NDArray[_Kernel], NDArray[_Kernel]]: ...
@overload
def cross_entropy_with_grad(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    reduction: Literal["mean", "sum", "none"] = "mean",
    grad_output: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> tuple[Any, NDArray[Any]]: ...
@overload
def log_prob(
    logits: NDArray[_Kernel],
    index: _Integers,
    *,
    axis: int = -1,
    temperature: float = 1.0,
    n_threads: int | None = None,
) -> NDArray[_Kernel]: ...
@overload
def log_prob(
    logits: ArrayLike,
    index: ArrayLike,
    *,
    axis: int = -1,
    temperature: float = 1.0,
    n_threads: int | None = None,
) -> Any: ...
@overload
def softmax_backward(
    grad: NDArray[_Float],
    output: NDArray[_Float],
    axis: int = -1,
    *,
    out: NDArray[_Float] | None = None,
    n_threads: int | None = None,
) -> NDArray[_Float]: ...
@overload
def softmax_backward(
    grad: ArrayLike,
    output: ArrayLike,
    axis: int = -1,
    *,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> NDArray[Any]: ...
@overload
def log_softmax_backward(
    grad: NDArray[_Float],
    output: NDArray[_Float],
    axis: int = -1,
    *,
    out: NDArray[_Float] | None = None,
    n_threads: int | None = None,
) -> NDArray[_Float]: ...
@overload
def log_softmax_backward(
    grad: ArrayLike,
    output: ArrayLike,
    axis: int = -1,
    *,
    out: NDArray[Any] | None = None,
    n_threads: int | None = None,
) -> NDArray[Any]: ...

# What special and functional are made of.
def weighted_logsumexp(
    a: ArrayLike,
    b: ArrayLike | None,
    axis: int,
    keepdims: bool,
    return_sign: bool,
    function: str = "logsumexp",
) -> Any: ...
def negative_log_likelihood(
    log_p: ArrayLike,
    target: ArrayLike,
    axis: int,
    weight: ArrayLike | None,
    ignore_index: int | None,
    reduction: str,
    function: str = "nll_loss",
) -> Any: ...
