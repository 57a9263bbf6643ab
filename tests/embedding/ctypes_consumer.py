"""A row whose classes lie in several shards: each sends its state, four numbers, and gets their sum back."""

import ctypes

import numpy as np

import csoftmax


class State(ctypes.Structure):
    _fields_ = [(name, ctypes.c_double) for name in ("maximum", "sum", "carry", "ties")]


def function(name, result, *arguments):
    return ctypes.CFUNCTYPE(result, *arguments)(csoftmax.address(name))


STATE, SIZE, INT64, REAL = ctypes.POINTER(State), ctypes.c_ssize_t, ctypes.c_int64, ctypes.c_double
FLOATS = np.ctypeslib.ndpointer(np.float32, ndim=1, flags="C_CONTIGUOUS, WRITEABLE")
partial = function("partial_f32", None, STATE, FLOATS, SIZE)
merge = function("merge_f32", None, STATE, STATE)
finish_loss = function("finish_loss_f32", ctypes.c_float, STATE, ctypes.c_float)
finish_grad = function("finish_grad_f32", None, STATE, FLOATS, SIZE, SIZE, INT64, REAL, FLOATS)


def cross_entropy(shards, target):
    """Return the loss of a row; its shards become the gradient, and must be float32 and contiguous."""
    row, first, target_logit, pieces = State(-np.inf, 0, 0, -1), 0, np.nan, []
    for x in shards:
        state = State(-np.inf, 0, 0, -1)
        partial(state, x, x.size)
        merge(row, state)
        if first <= target < first + x.size:
            target_logit = x[target - first]
        pieces += [(x, first)]
        first += x.size
    for x, first in pieces:
        finish_grad(row, x, x.size, first, target, 1, x)
    return finish_loss(row, target_logit)
