"""log_softmax alone; test_elementwise.py has what it does as softmax does."""

import numpy as np
from numpy.testing import assert_array_equal

import csoftmax
from support.bits import same_bits


def test_small_results_keep_their_digits():
    got = csoftmax.log_softmax(np.float32([[20, 0]]))
    assert_array_equal(got, np.float32([[-2.0611537e-09, -20]]))
    assert csoftmax.log_softmax([-40.0, 0.0])[1] == -4.248354255291589e-18


def test_one_class_has_a_log_probability_of_plus_zero(dtype):
    for value in (0.0, -0.0, -5.5, 1e30):
        for n_rows in (1, 3, 40):
            got = csoftmax.log_softmax(np.full((n_rows, 1), value, dtype))
            assert same_bits(got, np.zeros((n_rows, 1), dtype))


def test_results_that_are_too_small_for_the_dtype_are_minus_infinity():
    with np.errstate(all="raise"):
        assert_array_equal(csoftmax.log_softmax(np.float16([60000, -60000])), [0, -np.inf])
        assert_array_equal(csoftmax.log_softmax(np.float32([3e38, -3e38])), [0, -np.inf])
