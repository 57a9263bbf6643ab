"""Typical calls, and the types that a checker must find for them: `make types`."""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import csoftmax

single = np.zeros((3, 4), np.float32)
double = np.zeros((3, 4))
half = np.zeros((3, 4), np.float16)

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
assert_type(csoftmax.show_config(), None)
