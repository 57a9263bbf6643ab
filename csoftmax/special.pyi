# SciPy's signatures; array types keep the dtype as in _functions.pyi.

from typing import Any, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csoftmax._functions import _Bool, _Doubles, _Float, _Integer, _Number

__all__ = ["log_softmax", "logsumexp", "softmax"]

_Axis: TypeAlias = _Integer | tuple[_Integer, ...] | None

@overload
def softmax(
    x: NDArray[_Float],
    axis: _Axis = None,
) -> NDArray[_Float]: ...
@overload
def softmax(
    x: _Doubles,
    axis: _Axis = None,
) -> NDArray[np.float64]: ...
@overload
def softmax(
    x: _Number,
    axis: _Axis = None,
) -> np.float64: ...
@overload
def softmax(
    x: _Float,
    axis: _Axis = None,
) -> _Float: ...
@overload
def softmax(
    x: ArrayLike,
    axis: _Axis = None,
) -> NDArray[Any]: ...
@overload
def log_softmax(
    x: NDArray[_Float],
    axis: _Axis = None,
) -> NDArray[_Float]: ...
@overload
def log_softmax(
    x: _Doubles,
    axis: _Axis = None,
) -> NDArray[np.float64]: ...
@overload
def log_softmax(
    x: _Number,
    axis: _Axis = None,
) -> np.float64: ...
@overload
def log_softmax(
    x: _Float,
    axis: _Axis = None,
) -> _Float: ...
@overload
def log_softmax(
    x: ArrayLike,
    axis: _Axis = None,
) -> NDArray[Any]: ...

# A scalar or an array: the axes decide, which the type does not tell. Any.
@overload
def logsumexp(
    a: ArrayLike,
    axis: _Axis = None,
    b: ArrayLike | None = None,
    keepdims: _Bool = False,
    return_sign: Literal[False] = False,
) -> Any: ...
@overload
def logsumexp(
    a: ArrayLike,
    axis: _Axis = None,
    b: ArrayLike | None = None,
    keepdims: _Bool = False,
    *,
    return_sign: Literal[True],
) -> tuple[Any, Any]: ...
@overload
def logsumexp(
    a: ArrayLike,
    axis: _Axis,
    b: ArrayLike | None,
    keepdims: _Bool,
    return_sign: Literal[True],
) -> tuple[Any, Any]: ...
@overload
def logsumexp(
    a: ArrayLike,
    axis: _Axis = None,
    b: ArrayLike | None = None,
    keepdims: _Bool = False,
    return_sign: _Bool = False,
) -> Any: ...
