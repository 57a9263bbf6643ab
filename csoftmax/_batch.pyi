from collections.abc import Callable
from typing import Any, TypedDict, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

_Result = TypeVar("_Result")

# What other languages call: the functions of csoftmax.h, and its table of them in a capsule.
C_NAMES: tuple[str, ...]
C_FUNCTIONS: object

# NumPy's interface to the memory of large results, in a capsule: for tests.
RESULTS_HANDLER: object

def fill_table() -> object: ...
def address(name: str) -> int: ...
def set_quota(n: int) -> None: ...
def set_serial(serial: bool) -> None: ...
def is_serial() -> bool: ...
def thread_limit() -> int: ...
def max_threads() -> int: ...
def has_openmp() -> bool: ...
def compiler() -> str: ...
def probabilities(
    x: NDArray[Any],
    axis: int,
    out: NDArray[Any],
    log: bool,
    temperature: float,
    n_threads: int,
    wide: bool = False,
    taken: NDArray[np.integer[Any]] | None = None,
) -> None: ...
def logsumexp(
    x: NDArray[Any],
    axis: int,
    out: NDArray[Any],
    temperature: float,
    added: NDArray[Any] | None,
    n_threads: int,
    taken: NDArray[np.integer[Any]] | None = None,
) -> None: ...
def log_prob(
    logits: NDArray[Any],
    axis: int,
    index: NDArray[np.int64],
    out: NDArray[Any],
    temperature: float,
    n_threads: int,
    taken: NDArray[np.integer[Any]] | None = None,
) -> None: ...
def backward(
    grad: NDArray[Any],
    result: NDArray[Any],
    axis: int,
    out: NDArray[Any],
    log: bool,
    n_threads: int,
) -> None: ...
def total_weight(
    target: NDArray[np.int64] | None,
    ignore_index: int | None,
    weight: NDArray[np.float64] | None,
    sample_weight: NDArray[np.float64] | None,
    n_threads: int,
) -> tuple[float, float]: ...
def look_at_losses(losses: NDArray[Any], wide_logits: bool) -> tuple[bool, bool]: ...
def are_ordinary_weights(values: NDArray[np.float64] | None) -> bool: ...
def are_ordinary_scales(values: NDArray[np.float64] | None) -> bool: ...
def is_ordinary_number(number: float) -> bool: ...
def is_ordinary_smoothing(smoothing: float) -> bool: ...
def allocated(make: Callable[..., _Result], *arguments: Any) -> _Result: ...
def empty_result(x: NDArray[Any], dtype: np.dtype[Any] | None = None) -> NDArray[Any]: ...
def set_keeping(keeping: bool) -> None: ...
def kept_memory() -> tuple[int, int, int] | None: ...
def release_memory() -> int: ...
def fast_log_prob(
    logits: object, index: object, axis: object, temperature: object, n_threads: object
) -> Any: ...
def in_default_state(
    function: Callable[..., _Result], arguments: tuple[Any, ...], options: dict[str, Any]
) -> _Result: ...
def scan_targets(
    target: NDArray[np.int64], n_classes: int, ignore_index: int | None, n_threads: int
) -> tuple[int, int]: ...
def fast_probabilities(
    x: object, axis: object, out: object, log: bool, temperature: object, n_threads: object
) -> Any: ...
def fast_logsumexp(
    x: object, axis: object, keepdims: object, temperature: object, out: object, n_threads: object
) -> Any: ...
def fast_backward(
    grad: object, output: object, axis: object, out: object, log: bool, n_threads: object
) -> Any: ...
def fast_cross_entropy(
    logits: object,
    target: object,
    axis: object,
    weight: object,
    sample_weight: object,
    ignore_index: object,
    label_smoothing: object,
    temperature: object,
    reduction: object,
    grad_output: object,
    out: object,
    with_grad: bool,
    n_threads: object,
) -> Any: ...
def reduce_losses(
    losses: NDArray[np.float64],
    divisor: float,
    divisor_carry: float,
    out: NDArray[Any],
    exponent: int,
    n_threads: int,
) -> None: ...

class _LossOptions(TypedDict, total=False):
    wide: bool
    taken: NDArray[np.integer[Any]] | None
    target: NDArray[np.int64] | None
    ignore_index: int | None
    probabilities: NDArray[Any] | None
    label_smoothing: float
    temperature: float
    divisor: float
    weight: NDArray[np.float64] | None
    sample_weight: NDArray[np.float64] | None
    grad_weight: NDArray[np.float64] | None
    row_factor: NDArray[np.float64] | None
    row_exponent: NDArray[np.intc] | None

def cross_entropy(
    logits: NDArray[Any],
    axis: int,
    loss: NDArray[Any],
    grad: NDArray[Any] | None,
    n_threads: int,
    **options: Unpack[_LossOptions],
) -> None: ...
