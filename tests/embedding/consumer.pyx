# cython: freethreading_compatible=True
# The mean loss of some rows, one after the other as they lie, without the GIL and without a call of Python.

from libc.stdint cimport int64_t

from csoftmax cimport cross_entropy_with_grad_row_f32


def mean_loss(float[:, ::1] logits, const int64_t[::1] target):
    """Return the mean loss of at least one row; the logits become its gradient."""
    cdef Py_ssize_t i, n_rows = logits.shape[0], n_classes = logits.shape[1]
    cdef float *row = &logits[0, 0]
    cdef const int64_t *classes = &target[0]
    cdef double scale = 1.0 / n_rows, total = 0
    if target.shape[0] != n_rows:
        raise ValueError(f"mean_loss() needs {n_rows} targets, got {target.shape[0]}")
    with nogil:
        for i in range(n_rows):     # a target that is no class makes the result NaN
            total += cross_entropy_with_grad_row_f32(row, n_classes, classes[i], scale, row)
            row += n_classes
    return total / n_rows
