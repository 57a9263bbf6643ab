# What the passes of backward.pxi know of the rows that go back through softmax and log_softmax: see backward_rows.pxi.

from libc.stdint cimport int64_t

from csoftmax.kernels.exp cimport Reference

cdef struct Backward:       # what is known of a tile's rows, as COLUMNS also of what fills up the lanes
    Py_ssize_t width
    Py_ssize_t n_chunks
    # Of chunks, (n_chunks, width) each:
    int64_t *chunk_top      # the first class of the largest y that is no NaN
    double *chunk_y_top     # that y, -inf if there is none
    double *chunk_g_top     # its g; in float32 the r of a softmax's chunk, which may be added once more
    double *chunk_sum       # softmax: of y (g - r); log_softmax: of g but for the top's
    double *chunk_y         # softmax: of y
    # Of rows, which those of a single chunk are, (width,) each:
    int64_t *top
    double *y_top
    double *g_top
    double *sum
    double *g_from          # softmax: r
    double *down            # what g is multiplied by, so that sums stay in float64's range: 1 or 2**-64
    double *high            # softmax: the sum of y; log_softmax: exp(y) G is a term times low times (high + high_low)
    double *high_low
    double *low
    double *at_top          # log_softmax: the value at the top
    double *center          # softmax: S, as center + rest; in the place of high_low and low
    double *rest


cdef struct BackwardRow:    # of one of them, what its values are made with
    double g_from
    double sum
    double down
    double low
    double high
    double high_low
    double center
    double rest
    Reference reference     # log_softmax: of the terms exp(y)

cdef struct BackwardLanes:  # the same of 16 rows that are lanes, and the tops
    double[16] top
    double[16] g_from
    double[16] sum
    double[16] down
    double[16] low
    double[16] high
    double[16] high_low
    double[16] center
    double[16] rest
