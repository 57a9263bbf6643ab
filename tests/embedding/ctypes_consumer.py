"""A row whose classes lie in several shards: each sends its state, three numbers, and gets their sum back."""

import ctypes
import math

import csoftmax


class State(ctypes.Structure):
    _fields_ = (("maximum", ctypes.c_double), ("sum", ctypes.c_double), ("ties", ctypes.c_double))


def function(name, result, *arguments):
    return ctypes.CFUNCTYPE(result, *arguments)(csoftmax.address(name))


STATE, FLOATS, SIZE = ctypes.POINTER(State), ctypes.POINTER(ctypes.c_float), ctypes.c_ssize_t
partial = function("partial_f32", None, STATE, FLOATS, SIZE)
merge = function("merge_f32", None, STATE, STATE)
finish_loss = function("finish_loss_f32", ctypes.c_float, STATE, ctypes.c_float)
target_scale_grad = ctypes.c_int64, ctypes.c_double, FLOATS
finish_grad = function("finish_grad_f32", None, STATE, FLOATS, SIZE, SIZE, *target_scale_grad)


def cross_entropy(shards, target):
    """Return the loss of a row; its shards, float32 and contiguous, become the gradient."""
    row, first, target_logit, pieces = State(-math.inf, 0, -1), 0, math.nan, []
    for x in shards:
        state, p = State(-math.inf, 0, -1), x.ctypes.data_as(FLOATS)
        partial(state, p, x.size)
        merge(row, state)
        if first <= target < first + x.size:
            target_logit = x[target - first]
        pieces += [(p, x.size, first)]
        first += x.size
    for p, size, first in pieces:
        finish_grad(row, p, size, first, target, 1, p)
    return finish_loss(row, target_logit)
