# PyTorch's signatures; array types keep the dtype as in _functions.pyi.

from collections.abc import Sequence
from typing import Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["cross_entropy", "log_softmax", "logsumexp", "nll_loss", "softmax"]

_Float = TypeVar("_Float", np.float16, np.float32, np.float64)
_Wanted = TypeVar("_Wanted", np.float16, np.float32, np.float64)
_Kernel = TypeVar("_Kernel", np.float32, np.float64)
_Reduction = Literal["mean", "sum", "none"]

@overload
def softmax(
    input: NDArray[_Float], dim: int | None = None, _stacklevel: int = 3, dtype: None = None
) -> NDArray[_Float]: ...
@overload
def softmax(
    input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, *, dtype: type[_Wanted]
) -> NDArray[_Wanted]: ...
@overload
def softmax(
    input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, dtype: None = None
) -> NDArray[np.float64]: ...
@overload
def softmax(
    input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike | None = None
) -> NDArray[Any]: ...
@overload
def log_softmax(
    input: NDArray[_Float], dim: int | None = None, _stacklevel: int = 3, dtype: None = None
) -> NDArray[_Float]: ...
@overload
def log_softmax(
    input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, *, dtype: type[_Wanted]
) -> NDArray[_Wanted]: ...
@overload
def log_softmax(
    input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, dtype: None = None
) -> NDArray[np.float64]: ...
@overload
def log_softmax(
    input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike | None = None
) -> NDArray[Any]: ...

# Scalars or arrays, as axes and keepdim decide: Any.
def logsumexp(input: ArrayLike, dim: int | Sequence[int], keepdim: bool = False) -> Any: ...
@overload
def cross_entropy(
    input: NDArray[_Kernel],
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: int | None = -100,
    reduce: None = None,
    reduction: Literal["mean", "sum"] = "mean",
    label_smoothing: float = 0.0,
) -> _Kernel: ...
@overload
def cross_entropy(
    input: NDArray[_Kernel],
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: int | None = -100,
    reduce: None = None,
    *,
    reduction: Literal["none"],
    label_smoothing: float = 0.0,
) -> NDArray[_Kernel]: ...
@overload
def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: bool | None = None,
    ignore_index: int | None = -100,
    reduce: bool | None = None,
    reduction: _Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Any: ...
@overload
def nll_loss(
    input: NDArray[_Kernel],
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: int | None = -100,
    reduce: None = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> _Kernel: ...
@overload
def nll_loss(
    input: NDArray[_Kernel],
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: int | None = -100,
    reduce: None = None,
    *,
    reduction: Literal["none"],
) -> NDArray[_Kernel]: ...
@overload
def nll_loss(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: bool | None = None,
    ignore_index: int | None = -100,
    reduce: bool | None = None,
    reduction: _Reduction = "mean",
) -> Any: ...
