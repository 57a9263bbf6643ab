# What a single row is asked for: one of the build's functions for rows and states hands it to those of single.pxi.

from libc.stdint cimport int64_t

from csoftmax.kernels.task cimport Output, RowNumber

cdef struct SingleRow:          # what a row is asked for
    Output output
    RowNumber number
    const char *x               # IN   (n_classes,), neighbours of native byte order; any alignment
    char *out                   # OUT  (n_classes,), likewise; may be x; not if output is NOTHING
    int x_storage, out_storage  # their dtypes
    Py_ssize_t n_classes
    int64_t target              # of LOSS and LOG_PROB, and of a GRADIENT; no class is none
    double scale                # of the gradient, or of probabilities
    int exponent                # what is left of the gradient's scale: 2**exponent * factor multiplies it, before it is
    double factor               # rounded to another dtype


cdef inline SingleRow single_row(
    Output output, RowNumber number, int storage, const void *x, Py_ssize_t n_classes, int64_t target, void *out,
) noexcept nogil:
    """With a scale of 1; x and out are of one dtype."""
    cdef SingleRow row
    row.output, row.number, row.x, row.n_classes = output, number, <const char *>x, n_classes
    row.target, row.out = target, <char *>out
    row.x_storage = row.out_storage = storage
    row.scale, row.exponent, row.factor = 1, 0, 1
    return row


cdef inline bint has_factors_left(const SingleRow *row) noexcept nogil:
    return row.exponent != 0 or row.factor != 1
