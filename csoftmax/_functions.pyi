# Types that keep the dtype: float32 in, float32 out. The functions themselves are in _functions.py.

from collections.abc import Sequence
from typing import Any, Literal, SupportsFloat, SupportsIndex, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Bounds, and not lists of dtypes: an array of float32 or float64 comes back as one of float32 or float64.
_Kernel = TypeVar("_Kernel", bound=np.float32 | np.float64)
_Float = TypeVar("_Float", bound=np.float16 | np.float32 | np.float64)
_AnyFloat = TypeVar("_AnyFloat", bound=np.floating[Any])

# NumPy's scalars wherever Python's numbers are taken.
_Integer: TypeAlias = SupportsIndex
_Real: TypeAlias = SupportsFloat | SupportsIndex
_Bool: TypeAlias = bool | np.bool

# What is computed in float64: Python's numbers, lists of them, and arrays of integers or bool.
_Number: TypeAlias = float | np.integer[Any] | np.bool
_Numbers: TypeAlias = Sequence["float | _Numbers"]
_Integers: TypeAlias = NDArray[np.integer[Any]]
_Doubles: TypeAlias = NDArray[np.integer[Any] | np.bool] | _Numbers

# A scalar for a scalar; with out the array that was given. Of other array_likes the dtype is not known.
@overload
def softmax(
    x: NDArray[_Float],
    axis: _Integer = -1,
    *,
    temperature: _Real = 1.0,
    out: None = None,
    n_threads: _Integer | None = None,
) -> NDArray[_Float]: ...
@overload
def softmax(
    x: _Doubles,
    axis: _Integer = -1,
    *,
    temperature: _Real = 1.0,
    out: None = None,
    n_threads: _Integer | None = None,
) -> NDArray[np.float64]: ...
@overload
def softmax(
    x: _Number,
    axis: _Integer = -1,
    *,
    temperature: _Real = 1.0,
    out: None = None,
    n_threads: _Integer | None = None,
) -> np.float64: ...
@overload
def softmax(
    x: _Float,
    axis: _Integer = -1,
    *,
    temperature: _Real = 1.0,
    out: None = None,
    n_threads: _Integer | None = None,
) -> _Float: ...
@overload
def softmax(
    x: ArrayLike,
    axis: _Integer = -1,
    *,
    temperature: _Real = 1.0,
    out: NDArray[_AnyFloat],
    n_threads: _Integer | None = None,
) -> NDArray[_AnyFloat]: ...
@overload
def softmax(
    x: ArrayLike,
    axis: _Integer = -1,
    *,
    temperature: _Real = 1.0,
    out: None = None,
    n_threads: _Integer | None = None,
) -> NDArray[Any]: ...
@overload
def log_softmax(
    x: NDArray[_Float],
    axis: _Integer = -1,
    *,
    temperature: _Real = 1.0,
    out: None = None,
    n_threads: _Integer | None = None,
) -> NDArray[_Float]: ...
@overload
def log_softmax(
    x: _Doubles,
    axis: _Integer = -1,
    *,
    temperature: _Real = 1.0,
    out: None = None,
    n_threads: _Integer | None = None,
) -> NDArray[np.float64]: ...
@overload
def log_softmax(
    x: _Number,
    axis: _Integer = -1,
    *,
    temperature: _Real = 1.0,
    out: None = None,
    n_threads: _Integer | None = None,
) -> np.float64: ...
@overload
def log_softmax(
    x: _Float,
    axis: _Integer = -1,
    *,
    temperature: _Real = 1.0,
    out: None = None,
    n_threads: _Integer | None = None,
) -> _Float: ...
@overload
def log_softmax(
    x: ArrayLike,
    axis: _Integer = -1,
    *,
    temperature: _Real = 1.0,
    out: NDArray[_AnyFloat],
    n_threads: _Integer | None = None,
) -> NDArray[_AnyFloat]: ...
@overload
def log_softmax(
    x: ArrayLike,
    axis: _Integer = -1,
    *,
    temperature: _Real = 1.0,
    out: None = None,
    n_threads: _Integer | None = None,
) -> NDArray[Any]: ...

# logsumexp of a one-dimensional array is a scalar, which the type of an array does not tell: Any.
@overload
def logsumexp(
    x: NDArray[_Kernel],
    axis: _Integer = -1,
    *,
    keepdims: Literal[True],
    temperature: _Real = 1.0,
    out: None = None,
    n_threads: _Integer | None = None,
) -> NDArray[_Kernel]: ...
@overload
def logsumexp(
    x: NDArray[np.float16],
    axis: _Integer = -1,
    *,
    keepdims: Literal[True],
    temperature: _Real = 1.0,
    out: None = None,
    n_threads: _Integer | None = None,
) -> NDArray[np.float32]: ...
@overload
def logsumexp(
    x: _Doubles,
    axis: _Integer = -1,
    *,
    keepdims: Literal[True],
    temperature: _Real = 1.0,
    out: None = None,
    n_threads: _Integer | None = None,
) -> NDArray[np.float64]: ...
@overload
def logsumexp(
    x: _Number,
    axis: _Integer = -1,
    *,
    keepdims: _Bool = False,
    temperature: _Real = 1.0,
    out: None = None,
    n_threads: _Integer | None = None,
) -> np.float64: ...
@overload
def logsumexp(
    x: _Kernel,
    axis: _Integer = -1,
    *,
    keepdims: _Bool = False,
    temperature: _Real = 1.0,
    out: None = None,
    n_threads: _Integer | None = None,
) -> _Kernel: ...
@overload
def logsumexp(
    x: np.float16,
    axis: _Integer = -1,
    *,
    keepdims: _Bool = False,
    temperature: _Real = 1.0,
    out: None = None,
    n_threads: _Integer | None = None,
) -> np.float32: ...
@overload
def logsumexp(
    x: ArrayLike,
    axis: _Integer = -1,
    *,
    keepdims: _Bool = False,
    temperature: _Real = 1.0,
    out: NDArray[_AnyFloat],
    n_threads: _Integer | None = None,
) -> NDArray[_AnyFloat]: ...
@overload
def logsumexp(
    x: ArrayLike,
    axis: _Integer = -1,
    *,
    keepdims: _Bool = False,
    temperature: _Real = 1.0,
    out: None = None,
    n_threads: _Integer | None = None,
) -> Any: ...

# A reduction that is not written down is a str: a scalar or an array, Any. Half-width logits have losses of float32.
@overload
def cross_entropy(
    logits: NDArray[_Kernel],
    target: ArrayLike,
    *,
    axis: _Integer = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: _Integer | None = -100,
    label_smoothing: _Real = 0.0,
    temperature: _Real = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
    n_threads: _Integer | None = None,
) -> _Kernel: ...
@overload
def cross_entropy(
    logits: NDArray[_Kernel],
    target: ArrayLike,
    *,
    axis: _Integer = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: _Integer | None = -100,
    label_smoothing: _Real = 0.0,
    temperature: _Real = 1.0,
    reduction: Literal["none"],
    n_threads: _Integer | None = None,
) -> NDArray[_Kernel]: ...
@overload
def cross_entropy(
    logits: NDArray[np.float16],
    target: ArrayLike,
    *,
    axis: _Integer = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: _Integer | None = -100,
    label_smoothing: _Real = 0.0,
    temperature: _Real = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
    n_threads: _Integer | None = None,
) -> np.float32: ...
@overload
def cross_entropy(
    logits: NDArray[np.float16],
    target: ArrayLike,
    *,
    axis: _Integer = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: _Integer | None = -100,
    label_smoothing: _Real = 0.0,
    temperature: _Real = 1.0,
    reduction: Literal["none"],
    n_threads: _Integer | None = None,
) -> NDArray[np.float32]: ...
@overload
def cross_entropy(
    logits: _Doubles,
    target: ArrayLike,
    *,
    axis: _Integer = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: _Integer | None = -100,
    label_smoothing: _Real = 0.0,
    temperature: _Real = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
    n_threads: _Integer | None = None,
) -> np.float64: ...
@overload
def cross_entropy(
    logits: _Doubles,
    target: ArrayLike,
    *,
    axis: _Integer = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: _Integer | None = -100,
    label_smoothing: _Real = 0.0,
    temperature: _Real = 1.0,
    reduction: Literal["none"],
    n_threads: _Integer | None = None,
) -> NDArray[np.float64]: ...
@overload
def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    axis: _Integer = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: _Integer | None = -100,
    label_smoothing: _Real = 0.0,
    temperature: _Real = 1.0,
    reduction: str = "mean",
    n_threads: _Integer | None = None,
) -> Any: ...
@overload
def cross_entropy_with_grad(
    logits: NDArray[_Kernel],
    target: ArrayLike,
    *,
    axis: _Integer = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: _Integer | None = -100,
    label_smoothing: _Real = 0.0,
    temperature: _Real = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
    grad_output: ArrayLike | None = None,
    out: NDArray[_Kernel] | None = None,
    n_threads: _Integer | None = None,
) -> tuple[_Kernel, NDArray[_Kernel]]: ...
@overload
def cross_entropy_with_grad(
    logits: NDArray[_Kernel],
    target: ArrayLike,
    *,
    axis: _Integer = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: _Integer | None = -100,
    label_smoothing: _Real = 0.0,
    temperature: _Real = 1.0,
    reduction: Literal["none"],
    grad_output: ArrayLike | None = None,
    out: NDArray[_Kernel] | None = None,
    n_threads: _Integer | None = None,
) -> tuple[NDArray[_Kernel], NDArray[_Kernel]]: ...
@overload
def cross_entropy_with_grad(
    logits: NDArray[np.float16],
    target: ArrayLike,
    *,
    axis: _Integer = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: _Integer | None = -100,
    label_smoothing: _Real = 0.0,
    temperature: _Real = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
    grad_output: ArrayLike | None = None,
    out: NDArray[np.float16] | None = None,
    n_threads: _Integer | None = None,
) -> tuple[np.float32, NDArray[np.float16]]: ...
@overload
def cross_entropy_with_grad(
    logits: NDArray[np.float16],
    target: ArrayLike,
    *,
    axis: _Integer = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: _Integer | None = -100,
    label_smoothing: _Real = 0.0,
    temperature: _Real = 1.0,
    reduction: Literal["none"],
    grad_output: ArrayLike | None = None,
    out: NDArray[np.float16] | None = None,
    n_threads: _Integer | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float16]]: ...
@overload
def cross_entropy_with_grad(
    logits: _Doubles,
    target: ArrayLike,
    *,
    axis: _Integer = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: _Integer | None = -100,
    label_smoothing: _Real = 0.0,
    temperature: _Real = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
    grad_output: ArrayLike | None = None,
    out: NDArray[np.float64] | None = None,
    n_threads: _Integer | None = None,
) -> tuple[np.float64, NDArray[np.float64]]: ...
@overload
def cross_entropy_with_grad(
    logits: _Doubles,
    target: ArrayLike,
    *,
    axis: _Integer = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: _Integer | None = -100,
    label_smoothing: _Real = 0.0,
    temperature: _Real = 1.0,
    reduction: Literal["none"],
    grad_output: ArrayLike | None = None,
    out: NDArray[np.float64] | None = None,
    n_threads: _Integer | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
@overload
def cross_entropy_with_grad(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    axis: _Integer = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: _Integer | None = -100,
    label_smoothing: _Real = 0.0,
    temperature: _Real = 1.0,
    reduction: str = "mean",
    grad_output: ArrayLike | None = None,
    out: NDArray[_AnyFloat],
    n_threads: _Integer | None = None,
) -> tuple[Any, NDArray[_AnyFloat]]: ...
@overload
def cross_entropy_with_grad(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    axis: _Integer = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: _Integer | None = -100,
    label_smoothing: _Real = 0.0,
    temperature: _Real = 1.0,
    reduction: str = "mean",
    grad_output: ArrayLike | None = None,
    out: None = None,
    n_threads: _Integer | None = None,
) -> tuple[Any, NDArray[Any]]: ...
@overload
def log_prob(
    logits: NDArray[_Kernel],
    index: _Integers,
    *,
    axis: _Integer = -1,
    temperature: _Real = 1.0,
    n_threads: _Integer | None = None,
) -> NDArray[_Kernel]: ...
@overload
def log_prob(
    logits: NDArray[_Kernel],
    index: int | np.integer[Any],
    *,
    axis: _Integer = -1,
    temperature: _Real = 1.0,
    n_threads: _Integer | None = None,
) -> _Kernel: ...
@overload
def log_prob(
    logits: ArrayLike,
    index: ArrayLike,
    *,
    axis: _Integer = -1,
    temperature: _Real = 1.0,
    n_threads: _Integer | None = None,
) -> Any: ...
@overload
def softmax_backward(
    grad: NDArray[_Float],
    output: NDArray[_Float],
    axis: _Integer = -1,
    *,
    out: None = None,
    n_threads: _Integer | None = None,
) -> NDArray[_Float]: ...
@overload
def softmax_backward(
    grad: _Number,
    output: _Number,
    axis: _Integer = -1,
    *,
    out: None = None,
    n_threads: _Integer | None = None,
) -> np.float64: ...
@overload
def softmax_backward(
    grad: _Float,
    output: _Float,
    axis: _Integer = -1,
    *,
    out: None = None,
    n_threads: _Integer | None = None,
) -> _Float: ...
@overload
def softmax_backward(
    grad: ArrayLike,
    output: ArrayLike,
    axis: _Integer = -1,
    *,
    out: NDArray[_AnyFloat],
    n_threads: _Integer | None = None,
) -> NDArray[_AnyFloat]: ...
@overload
def softmax_backward(
    grad: ArrayLike,
    output: ArrayLike,
    axis: _Integer = -1,
    *,
    out: None = None,
    n_threads: _Integer | None = None,
) -> NDArray[Any]: ...
@overload
def log_softmax_backward(
    grad: NDArray[_Float],
    output: NDArray[_Float],
    axis: _Integer = -1,
    *,
    out: None = None,
    n_threads: _Integer | None = None,
) -> NDArray[_Float]: ...
@overload
def log_softmax_backward(
    grad: _Number,
    output: _Number,
    axis: _Integer = -1,
    *,
    out: None = None,
    n_threads: _Integer | None = None,
) -> np.float64: ...
@overload
def log_softmax_backward(
    grad: _Float,
    output: _Float,
    axis: _Integer = -1,
    *,
    out: None = None,
    n_threads: _Integer | None = None,
) -> _Float: ...
@overload
def log_softmax_backward(
    grad: ArrayLike,
    output: ArrayLike,
    axis: _Integer = -1,
    *,
    out: NDArray[_AnyFloat],
    n_threads: _Integer | None = None,
) -> NDArray[_AnyFloat]: ...
@overload
def log_softmax_backward(
    grad: ArrayLike,
    output: ArrayLike,
    axis: _Integer = -1,
    *,
    out: None = None,
    n_threads: _Integer | None = None,
) -> NDArray[Any]: ...
