"""Typical calls, and the types that a checker must find for them: `make types`. They run, too: test_types.py."""

from typing import TYPE_CHECKING, Any, TypeVar, assert_type, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

import csoftmax

single = np.zeros((3, 4), np.float32)
double = np.zeros((3, 4))
half = np.zeros((3, 4), np.float16)
index = np.zeros((3, 2), np.int64)

assert_type(csoftmax.softmax(single), NDArray[np.float32])
assert_type(csoftmax.softmax(double, 0, n_threads=2), NDArray[np.float64])
assert_type(csoftmax.softmax(half), NDArray[np.float16])
assert_type(csoftmax.softmax([[1, 2], [3, 4]]), NDArray[np.float64])
assert_type(csoftmax.log_softmax(single, axis=1, out=single), NDArray[np.float32])
assert_type(csoftmax.logsumexp(single, keepdims=True), NDArray[np.float32])
assert_type(csoftmax.logsumexp(single), Any)
assert_type(csoftmax.cross_entropy(single, [0, 1, 2]), np.float32)
assert_type(csoftmax.cross_entropy(double, [0, 1, 2], reduction="none"), NDArray[np.float64])
assert_type(
    csoftmax.cross_entropy_with_grad(single, [0, 1, 2], ignore_index=None, out=single),
    tuple[np.float32, NDArray[np.float32]],
)
assert_type(csoftmax.log_softmax(half, temperature=0.7), NDArray[np.float16])
assert_type(csoftmax.logsumexp(double, keepdims=True, temperature=2), NDArray[np.float64])
assert_type(
    csoftmax.cross_entropy(single, double, weight=[1, 2, 3, 4], label_smoothing=0.1), np.float32
)
assert_type(
    csoftmax.cross_entropy(double, index[:, 0], sample_weight=single[:, 0], reduction="none"),
    NDArray[np.float64],
)
assert_type(
    csoftmax.cross_entropy_with_grad(
        single, half, temperature=0.7, reduction="none", grad_output=[1.0, 2.0, 3.0]
    ),
    tuple[NDArray[np.float32], NDArray[np.float32]],
)
assert_type(
    csoftmax.cross_entropy_with_grad(double, [0, 1, 2], grad_output=0.5),
    tuple[np.float64, NDArray[np.float64]],
)
assert_type(csoftmax.log_prob(single, index, temperature=0.7), NDArray[np.float32])
assert_type(csoftmax.log_prob([1.0, 2.0], 1), Any)
assert_type(csoftmax.softmax_backward(single, single), NDArray[np.float32])
assert_type(csoftmax.softmax_backward(half, half, 0, n_threads=2), NDArray[np.float16])
assert_type(csoftmax.log_softmax_backward([1.0, 0.0], [0.0, -1.0]), NDArray[Any])
assert_type(csoftmax.log_softmax_backward(double, double, out=double), NDArray[np.float64])
assert_type(csoftmax.release_memory(), None)
assert_type(csoftmax.show_config(), None)
assert_type(csoftmax.get_include(), str)
assert_type(csoftmax.address("softmax_row_f32"), int)
assert_type(csoftmax.special.softmax(single), NDArray[np.float32])
assert_type(csoftmax.special.log_softmax(double, axis=(0, 1)), NDArray[np.float64])
assert_type(csoftmax.functional.softmax(single, dim=1), NDArray[np.float32])
assert_type(csoftmax.functional.log_softmax(half, 1), NDArray[np.float16])
assert_type(csoftmax.functional.cross_entropy(single, index[:, 0]), np.float32)
assert_type(
    csoftmax.functional.nll_loss(double, index[:, 0], reduction="none"), NDArray[np.float64]
)

# ---- NumPy's scalars wherever Python's numbers are taken ----

names = {"reduction": "none"}
assert_type(
    csoftmax.softmax(
        single, np.int64(1), temperature=np.float32(2), n_threads=np.int64(2), out=None
    ),
    NDArray[np.float32],
)
assert_type(csoftmax.log_softmax(double, axis=np.int8(0), temperature=2), NDArray[np.float64])
assert_type(
    csoftmax.logsumexp(single, np.int64(0), keepdims=True, temperature=np.float64(2)),
    NDArray[np.float32],
)
assert_type(csoftmax.logsumexp(single, keepdims=np.True_), Any)
assert_type(csoftmax.logsumexp(single, keepdims=bool(index.size)), Any)
assert_type(
    csoftmax.cross_entropy(
        single,
        index[:, 0],
        axis=np.int64(1),
        ignore_index=np.int64(-1),
        label_smoothing=np.float32(0.1),
        temperature=np.float32(2),
        n_threads=np.int32(1),
    ),
    np.float32,
)
assert_type(csoftmax.cross_entropy(single, [0, 1, 2], reduction=names["reduction"]), Any)
assert_type(
    csoftmax.cross_entropy_with_grad(
        double,
        index[:, 0],
        axis=np.int64(1),
        ignore_index=np.uint8(7),
        label_smoothing=np.float64(0.1),
        temperature=np.float32(2),
        grad_output=np.float32(2),
        n_threads=np.int64(1),
    ),
    tuple[np.float64, NDArray[np.float64]],
)
assert_type(
    csoftmax.cross_entropy_with_grad(single, [0, 1, 2], reduction=names["reduction"]),
    tuple[Any, NDArray[Any]],
)
assert_type(
    csoftmax.log_prob(
        single, index, axis=np.int64(1), temperature=np.float64(2), n_threads=np.int8(1)
    ),
    NDArray[np.float32],
)
assert_type(
    csoftmax.softmax_backward(double, double, np.int64(0), n_threads=np.int64(1)),
    NDArray[np.float64],
)
assert_type(
    csoftmax.log_softmax_backward(half, half, axis=np.int16(-1), n_threads=None),
    NDArray[np.float16],
)
assert_type(csoftmax.special.softmax(single, (np.int64(0), 1)), NDArray[np.float32])
assert_type(csoftmax.special.log_softmax(double, np.int64(1)), NDArray[np.float64])
assert_type(csoftmax.special.logsumexp(single, (np.int64(1),), keepdims=np.True_), Any)
assert_type(csoftmax.special.logsumexp(single, return_sign=True), tuple[Any, Any])
assert_type(csoftmax.special.logsumexp(single, return_sign=bool(index.size)), Any)
assert_type(csoftmax.functional.softmax(single, np.int64(1)), NDArray[np.float32])
assert_type(csoftmax.functional.log_softmax(double, dim=np.int8(-1)), NDArray[np.float64])
assert_type(csoftmax.functional.logsumexp(single, np.int64(1), np.True_), Any)
assert_type(csoftmax.functional.logsumexp(single, (np.int64(0), 1)), Any)
assert_type(
    csoftmax.functional.cross_entropy(
        single, index[:, 0], ignore_index=np.int64(-1), label_smoothing=np.float32(0.1)
    ),
    np.float32,
)
assert_type(
    csoftmax.functional.cross_entropy(single, index[:, 0], reduction=names["reduction"]), Any
)
assert_type(
    csoftmax.functional.nll_loss(double, index[:, 0], ignore_index=np.int64(-1)), np.float64
)
assert_type(csoftmax.functional.nll_loss(single, index[:, 0], reduction=names["reduction"]), Any)

# ---- Scalars, lists and arrays of integers ----

assert_type(csoftmax.softmax(3.0), np.float64)
assert_type(csoftmax.softmax(np.float32(3)), np.float32)
assert_type(csoftmax.log_softmax(np.float16(3)), np.float16)
assert_type(csoftmax.log_softmax(np.int64(3)), np.float64)
assert_type(csoftmax.logsumexp(True), np.float64)
assert_type(csoftmax.logsumexp(np.float16(3)), np.float32)
assert_type(csoftmax.softmax_backward(np.float32(1), np.float32(1)), np.float32)
assert_type(csoftmax.log_softmax_backward(1.0, 0.0), np.float64)
assert_type(csoftmax.special.softmax(np.float32(3)), np.float32)
assert_type(csoftmax.special.log_softmax(3), np.float64)
assert_type(csoftmax.functional.softmax(np.float32(3), 0), np.float32)
assert_type(csoftmax.functional.log_softmax(3.0, 0), np.float64)
assert_type(csoftmax.functional.log_softmax(3, 0, dtype=np.float16), np.float16)
assert_type(csoftmax.softmax(index), NDArray[np.float64])
assert_type(csoftmax.log_softmax(index > 0), NDArray[np.float64])
assert_type(csoftmax.softmax(((1.0, 2.0), (3.0, 4.0)), out=np.empty((2, 2))), NDArray[np.float64])
assert_type(csoftmax.softmax([np.float32(1), np.float32(2)]), NDArray[Any])  # of float32
assert_type(csoftmax.softmax([single, single]), NDArray[Any])
assert_type(csoftmax.softmax([single], out=single[None]), NDArray[np.float32])
assert_type(csoftmax.logsumexp([[1, 2]], keepdims=True), NDArray[np.float64])
assert_type(csoftmax.logsumexp(half, keepdims=True), NDArray[np.float32])
assert_type(csoftmax.logsumexp(double, out=np.empty(3)), NDArray[np.float64])
assert_type(csoftmax.cross_entropy([[1, 2]], [0]), np.float64)
assert_type(csoftmax.cross_entropy(index, [0, 1, 1], reduction="none"), NDArray[np.float64])
assert_type(csoftmax.cross_entropy(half, [0, 1, 2]), np.float32)
assert_type(
    csoftmax.cross_entropy_with_grad(half, [0, 1, 2], reduction="none", out=half),
    tuple[NDArray[np.float32], NDArray[np.float16]],
)
assert_type(
    csoftmax.cross_entropy_with_grad([[1, 2]], [0], out=np.empty((1, 2))),
    tuple[np.float64, NDArray[np.float64]],
)
assert_type(csoftmax.log_prob(np.zeros(2, np.float32), 1), np.float32)
assert_type(csoftmax.log_prob(np.zeros(2), np.int64(1)), np.float64)
assert_type(csoftmax.functional.softmax(single, 1, dtype=np.float64), NDArray[np.float64])
assert_type(csoftmax.functional.softmax(single, 1, dtype=np.dtype(np.float16)), NDArray[np.float16])
assert_type(csoftmax.functional.log_softmax(single, 1, dtype="float64"), NDArray[Any])
assert_type(csoftmax.functional.nll_loss(half, index[:, 0]), np.float32)

# ---- Arrays of one dtype or another ----

Wide = TypeVar("Wide", np.float32, np.float64)
Bound = TypeVar("Bound", bound=np.float32 | np.float64)
AnyFloat = TypeVar("AnyFloat", bound=np.floating[Any])
either = cast("NDArray[np.float32 | np.float64]", single)
arrays = cast("NDArray[np.float32] | NDArray[np.float64]", single)
maybe = cast("NDArray[np.float32] | None", single)
anything = cast("ArrayLike", [1.0, 2.0])


def of_constrained(x: NDArray[Wide]) -> NDArray[Wide]:
    loss, grad = csoftmax.cross_entropy_with_grad(x, index[:, 0], out=np.empty_like(x))
    loss = csoftmax.cross_entropy(x, index[:, 0], weight=[loss] * x.shape[1])
    grad = csoftmax.softmax_backward(grad, csoftmax.special.softmax(x, 1))
    return csoftmax.log_softmax_backward(grad, csoftmax.functional.log_softmax(x, 1), out=grad)


def of_bound(x: NDArray[Bound]) -> NDArray[Bound]:
    assert_type(csoftmax.cross_entropy(x, index[:, 0], reduction="none"), NDArray[Bound])
    assert_type(csoftmax.log_prob(x, index), NDArray[Bound])
    return csoftmax.logsumexp(csoftmax.softmax(x, out=np.empty_like(x)), keepdims=True)


def of_any_float(x: NDArray[AnyFloat]) -> NDArray[AnyFloat]:
    y = csoftmax.special.log_softmax(csoftmax.functional.softmax(x, 1), axis=1)
    return csoftmax.log_softmax(csoftmax.softmax(y), out=np.empty_like(y))


assert_type(of_constrained(single), NDArray[np.float32])
assert_type(of_bound(double), NDArray[np.float64])
assert_type(of_any_float(half), NDArray[np.float16])
assert_type(csoftmax.softmax(either), NDArray[np.float32 | np.float64])
assert_type(csoftmax.log_softmax(either, out=either), NDArray[np.float32 | np.float64])
assert_type(csoftmax.logsumexp(either, keepdims=True), NDArray[np.float32 | np.float64])
assert_type(csoftmax.cross_entropy(either, [0, 1, 2]), np.float32 | np.float64)
assert_type(
    csoftmax.cross_entropy(either, [0, 1, 2], reduction="none"), NDArray[np.float32 | np.float64]
)
assert_type(
    csoftmax.cross_entropy_with_grad(either, [0, 1, 2]),
    tuple[np.float32 | np.float64, NDArray[np.float32 | np.float64]],
)
assert_type(csoftmax.log_prob(either, index), NDArray[np.float32 | np.float64])
assert_type(csoftmax.softmax_backward(either, either), NDArray[np.float32 | np.float64])
assert_type(csoftmax.special.softmax(either), NDArray[np.float32 | np.float64])
assert_type(csoftmax.functional.log_softmax(either, 1), NDArray[np.float32 | np.float64])
assert_type(csoftmax.functional.cross_entropy(either, [0, 1, 2]), np.float32 | np.float64)
assert_type(csoftmax.functional.nll_loss(either, [0, 1, 2]), np.float32 | np.float64)
assert_type(csoftmax.cross_entropy(arrays, [0, 1, 2]), np.float32 | np.float64)
assert_type(csoftmax.softmax(single, out=maybe), NDArray[np.float32])
assert_type(csoftmax.softmax(anything), NDArray[Any])

# ---- What must be refused: an ignore that is not needed is an error ----

if TYPE_CHECKING:
    csoftmax.softmax(single, 1.0)  # type: ignore[call-overload]
    csoftmax.softmax(single, None)  # type: ignore[call-overload]
    csoftmax.log_softmax(single, (0, 1))  # type: ignore[call-overload]
    csoftmax.logsumexp(single, temperature="2")  # type: ignore[call-overload]
    csoftmax.softmax(single, temperature=2j)  # type: ignore[call-overload]
    csoftmax.log_softmax(single, n_threads=1.5)  # type: ignore[call-overload]
    csoftmax.softmax(single, out=index)  # type: ignore[type-var]
    csoftmax.cross_entropy(single, [0], ignore_index=0.0)  # type: ignore[call-overload]
    csoftmax.cross_entropy(single, [0], reduction=None)  # type: ignore[call-overload]
    csoftmax.cross_entropy_with_grad(single, [0], label_smoothing="1")  # type: ignore[call-overload]
    csoftmax.special.softmax(single, 0.0)  # type: ignore[call-overload]
    csoftmax.functional.softmax(single, (0, 1))  # type: ignore[call-overload]
    csoftmax.functional.logsumexp(single, None)  # type: ignore[arg-type]
