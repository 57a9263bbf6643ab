"""softmax alone; test_elementwise.py has what it does as log_softmax does."""

import numpy as np
from numpy.testing import assert_array_equal

import csoftmax


def test_subnormal_probabilities_are_kept():
    got = csoftmax.softmax(np.float32([[0, -100], [0, -103]]))
    assert_array_equal(got[:, 1], np.float32([np.exp(-100.0), np.exp(-103.0)]))
    got = csoftmax.softmax(np.array([0.0, -740.0]))
    assert got[1] == np.exp(np.float64(-740))
    assert 0 < got[1] < np.finfo(np.float64).smallest_normal


def test_classes_that_tie_for_the_maximum_share_the_probability(dtype):
    assert_array_equal(csoftmax.softmax(np.full((3, 4), 1e30, dtype)), np.full((3, 4), 0.25, dtype))
