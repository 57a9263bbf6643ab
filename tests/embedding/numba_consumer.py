"""The softmax of each of many groups of different sizes, which lie one after the other: in a loop of numba's."""

import ctypes

import numba
import numpy as np

import csoftmax

DOUBLES = ctypes.POINTER(ctypes.c_double)
signature = ctypes.CFUNCTYPE(None, DOUBLES, ctypes.c_ssize_t, DOUBLES)
softmax_row = signature(csoftmax.address("softmax_row_f64"))


# An address says nothing of strides: without [::1] each array has a version of its own, and a strided one's is wrong.
@numba.njit(numba.float64[::1](numba.float64[::1], numba.int64[::1]), parallel=True)
def softmax_of_groups(x, starts):
    """Return the probabilities within x[starts[0]:starts[1]], x[starts[1]:starts[2]] and so on."""
    out = np.empty_like(x)
    for i in numba.prange(len(starts) - 1):
        group = slice(starts[i], starts[i + 1])
        softmax_row(x[group].ctypes, len(x[group]), out[group].ctypes)
    return out
