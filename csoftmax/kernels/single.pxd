# What a single row is asked for: one of the build's functions for rows and states hands it to those of single.pxi.

from libc.stdint cimport int64_t

from csoftmax.kernels.task cimport Output, RowNumber

cdef struct SingleRow:          # what a row is asked for
    Output output
    RowNumber number
    const void *x               # IN   floating, (n_classes,)
    Py_ssize_t n_classes
    int64_t target              # of LOSS and LOG_PROB, and of a GRADIENT; no class is none
    double scale                # of the gradient, or of probabilities
    void *out                   # OUT  floating, (n_classes,), may be x; not if output is NOTHING


cdef inline SingleRow single_row(
    Output output, RowNumber number, const void *x, Py_ssize_t n_classes, int64_t target, double scale, void *out,
) noexcept nogil:
    cdef SingleRow row
    row.output, row.number, row.x, row.n_classes = output, number, x, n_classes
    row.target, row.scale, row.out = target, scale, out
    return row
