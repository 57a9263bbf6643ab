# cython: freethreading_compatible=True
# Cross-entropy of rows whose classes lie in several places, on csoftmax's C functions: sharded_cross_entropy.py builds
# this file and says what for. Only float32; the functions for float64 are the same with _f64.

from libc.stdint cimport int64_t

import numpy as np

from csoftmax cimport csoftmax_empty, csoftmax_state, finish_grad_f32, finish_loss_f32, merge_f32, partial_f32

STATE = np.dtype([("maximum", "f8"), ("sum", "f8"), ("carry", "f8"), ("ties", "f8")])


def measure(const float[:, ::1] x, Py_ssize_t piece):
    """Return the states of x (n_rows, n_classes) after every `piece` classes: (n_pieces, n_rows)."""
    cdef Py_ssize_t n_rows = x.shape[0], n_classes = x.shape[1], first, row, i
    states = np.empty((-(-n_classes // piece), n_rows), STATE)
    cdef csoftmax_state[:, ::1] state = states
    for i in range(state.shape[0]):
        first = i * piece
        for row in range(n_rows):
            state[i, row] = csoftmax_empty()
            partial_f32(&state[i, row], &x[row, first], min(piece, n_classes - first))
    return states


def merge(const csoftmax_state[:, ::1] states):
    """Return the states (n_rows,) of all classes from those of the pieces, (n_pieces, n_rows), in their order."""
    cdef Py_ssize_t i, row
    merged = np.empty(states.shape[1], STATE)
    cdef csoftmax_state[::1] state = merged
    for row in range(states.shape[1]):
        state[row] = csoftmax_empty()
        for i in range(states.shape[0]):
            merge_f32(&state[row], &states[i, row])
    return merged


def finish(
    const csoftmax_state[::1] state,    # (n_rows,), of all classes
    const float[:, ::1] x,              # (n_rows, width), the classes from first_class on
    Py_ssize_t first_class,
    const int64_t[::1] target,          # (n_rows,), among all classes
    const float[::1] target_logit,      # (n_rows,)
    double scale,
):
    """Return the losses (n_rows,), and for these classes the gradient of the sum of the losses times `scale`."""
    cdef Py_ssize_t row
    losses, gradient = np.empty(x.shape[0], np.float32), np.empty_like(x)
    cdef float[::1] loss = losses
    cdef float[:, ::1] grad = gradient
    for row in range(x.shape[0]):
        loss[row] = finish_loss_f32(&state[row], target_logit[row])
        finish_grad_f32(&state[row], &x[row, 0], x.shape[1], first_class, target[row], scale, &grad[row, 0])
    return losses, gradient
