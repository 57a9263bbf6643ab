# PyTorch's signatures; array types keep the dtype as in _functions.pyi.

from collections.abc import Sequence
from typing import Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from csoftmax._functions import _Bool, _Doubles, _Float, _Integer, _Kernel, _Number, _Real

__all__ = ["cross_entropy", "log_softmax", "logsumexp", "nll_loss", "softmax"]

_Wanted = TypeVar("_Wanted", bound=np.float16 | np.float32 | np.float64)

@overload
def softmax(
    input: NDArray[_Float],
    dim: _Integer | None = None,
    _stacklevel: int = 3,
    dtype: None = None,
) -> NDArray[_Float]: ...
@overload
def softmax(
    input: _Doubles,
    dim: _Integer | None = None,
    _stacklevel: int = 3,
    dtype: None = None,
) -> NDArray[np.float64]: ...
@overload
def softmax(
    input: _Number,
    dim: _Integer | None = None,
    _stacklevel: int = 3,
    dtype: None = None,
) -> np.float64: ...
@overload
def softmax(
    input: _Float,
    dim: _Integer | None = None,
    _stacklevel: int = 3,
    dtype: None = None,
) -> _Float: ...
@overload
def softmax(
    input: _Float | _Number,
    dim: _Integer | None = None,
    _stacklevel: int = 3,
    *,
    dtype: type[_Wanted] | np.dtype[_Wanted],
) -> _Wanted: ...
@overload
def softmax(
    input: ArrayLike,
    dim: _Integer | None = None,
    _stacklevel: int = 3,
    *,
    dtype: type[_Wanted] | np.dtype[_Wanted],
) -> NDArray[_Wanted]: ...
@overload
def softmax(
    input: ArrayLike,
    dim: _Integer | None = None,
    _stacklevel: int = 3,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]: ...
@overload
def log_softmax(
    input: NDArray[_Float],
    dim: _Integer | None = None,
    _stacklevel: int = 3,
    dtype: None = None,
) -> NDArray[_Float]: ...
@overload
def log_softmax(
    input: _Doubles,
    dim: _Integer | None = None,
    _stacklevel: int = 3,
    dtype: None = None,
) -> NDArray[np.float64]: ...
@overload
def log_softmax(
    input: _Number,
    dim: _Integer | None = None,
    _stacklevel: int = 3,
    dtype: None = None,
) -> np.float64: ...
@overload
def log_softmax(
    input: _Float,
    dim: _Integer | None = None,
    _stacklevel: int = 3,
    dtype: None = None,
) -> _Float: ...
@overload
def log_softmax(
    input: _Float | _Number,
    dim: _Integer | None = None,
    _stacklevel: int = 3,
    *,
    dtype: type[_Wanted] | np.dtype[_Wanted],
) -> _Wanted: ...
@overload
def log_softmax(
    input: ArrayLike,
    dim: _Integer | None = None,
    _stacklevel: int = 3,
    *,
    dtype: type[_Wanted] | np.dtype[_Wanted],
) -> NDArray[_Wanted]: ...
@overload
def log_softmax(
    input: ArrayLike,
    dim: _Integer | None = None,
    _stacklevel: int = 3,
    dtype: DTypeLike | None = None,
) -> NDArray[Any]: ...

# Scalars or arrays, as axes and keepdim decide: Any.
def logsumexp(
    input: ArrayLike, dim: _Integer | Sequence[_Integer], keepdim: _Bool = False
) -> Any: ...
@overload
def cross_entropy(
    input: NDArray[_Kernel],
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: _Integer | None = -100,
    reduce: None = None,
    reduction: Literal["mean", "sum"] = "mean",
    label_smoothing: _Real = 0.0,
) -> _Kernel: ...
@overload
def cross_entropy(
    input: NDArray[_Kernel],
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: _Integer | None = -100,
    reduce: None = None,
    *,
    reduction: Literal["none"],
    label_smoothing: _Real = 0.0,
) -> NDArray[_Kernel]: ...
@overload
def cross_entropy(
    input: NDArray[np.float16],
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: _Integer | None = -100,
    reduce: None = None,
    reduction: Literal["mean", "sum"] = "mean",
    label_smoothing: _Real = 0.0,
) -> np.float32: ...
@overload
def cross_entropy(
    input: NDArray[np.float16],
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: _Integer | None = -100,
    reduce: None = None,
    *,
    reduction: Literal["none"],
    label_smoothing: _Real = 0.0,
) -> NDArray[np.float32]: ...
@overload
def cross_entropy(
    input: _Doubles,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: _Integer | None = -100,
    reduce: None = None,
    reduction: Literal["mean", "sum"] = "mean",
    label_smoothing: _Real = 0.0,
) -> np.float64: ...
@overload
def cross_entropy(
    input: _Doubles,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: _Integer | None = -100,
    reduce: None = None,
    *,
    reduction: Literal["none"],
    label_smoothing: _Real = 0.0,
) -> NDArray[np.float64]: ...
@overload
def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: bool | None = None,
    ignore_index: _Integer | None = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: _Real = 0.0,
) -> Any: ...
@overload
def nll_loss(
    input: NDArray[_Kernel],
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: _Integer | None = -100,
    reduce: None = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> _Kernel: ...
@overload
def nll_loss(
    input: NDArray[_Kernel],
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: _Integer | None = -100,
    reduce: None = None,
    *,
    reduction: Literal["none"],
) -> NDArray[_Kernel]: ...
@overload
def nll_loss(
    input: NDArray[np.float16],
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: _Integer | None = -100,
    reduce: None = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> np.float32: ...
@overload
def nll_loss(
    input: NDArray[np.float16],
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: _Integer | None = -100,
    reduce: None = None,
    *,
    reduction: Literal["none"],
) -> NDArray[np.float32]: ...
@overload
def nll_loss(
    input: _Doubles,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: _Integer | None = -100,
    reduce: None = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> np.float64: ...
@overload
def nll_loss(
    input: _Doubles,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: None = None,
    ignore_index: _Integer | None = -100,
    reduce: None = None,
    *,
    reduction: Literal["none"],
) -> NDArray[np.float64]: ...
@overload
def nll_loss(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    size_average: bool | None = None,
    ignore_index: _Integer | None = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Any: ...
