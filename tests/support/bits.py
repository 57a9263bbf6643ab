"""Whether results are the same to the last bit."""

import numpy as np


def same_bits(a, b):
    """Whether dtype, shape and every bit are equal: unlike ==, it tells -0.0 from +0.0."""
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def different(got, expected):
    """Names of the results whose bits differ; both have results of the same names."""
    assert got.keys() == expected.keys()
    return [name for name in got if not same_bits(got[name], expected[name])]
