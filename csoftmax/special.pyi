# SciPy's signatures; array types keep the dtype as in _functions.pyi.

from typing import Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["log_softmax", "logsumexp", "softmax"]

_Float = TypeVar("_Float", np.float16, np.float32, np.float64)
_Axis = int | tuple[int, ...] | None

@overload
def softmax(x: NDArray[_Float], axis: _Axis = None) -> NDArray[_Float]: ...
@overload
def softmax(x: ArrayLike, axis: _Axis = None) -> NDArray[np.float64]: ...
@overload
def log_softmax(x: NDArray[_Float], axis: _Axis = None) -> NDArray[_Float]: ...
@overload
def log_softmax(x: ArrayLike, axis: _Axis = None) -> NDArray[np.float64]: ...

# A scalar or an array: the axes decide, which the type does not tell. Any.
@overload
def logsumexp(
    a: ArrayLike,
    axis: _Axis = None,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    return_sign: Literal[False] = False,
) -> Any: ...
@overload
def logsumexp(
    a: ArrayLike,
    axis: _Axis = None,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    *,
    return_sign: Literal[True],
) -> tuple[Any, Any]: ...
@overload
def logsumexp(
    a: ArrayLike,
    axis: _Axis,
    b: ArrayLike | None,
    keepdims: bool,
    return_sign: Literal[True],
) -> tuple[Any, Any]: ...
