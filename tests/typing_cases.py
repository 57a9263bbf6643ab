"""Typical calls, and the types that a checker must find for them: `make types`."""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

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
