# What the passes of backward.pxi know of the rows that go back through softmax and log_softmax: see backward_rows.pxi.

from libc.stdint cimport int64_t

from csoftmax.kernels.exp cimport Reference

cdef struct Backward:       # what is known of a tile's rows, (width,) each; as COLUMNS also of what fills up the lanes
    int64_t *top            # the first class of the largest that is no NaN
    double *y_top
    double *g_top
    double *g_from          # softmax: r
    double *sum
    double *at_top          # log_softmax: the value at k
    double *low             # log_softmax: exp(y) is a term times low times high / sum
    double *high            # softmax: the sum of y
    double *down            # what g is multiplied by, and y divided, so that sums stay in float64's range: 1 or 2**-64
    double *lanes           # (width, 48), or as COLUMNS (width / 16, 48, 16 rows); with one chunk, of 16 rows
    double *largest         # of the chunks so far


cdef struct BackwardRow:    # of one of them, what its values are made with
    double g_from
    double sum
    double low
    double high
    double down
    Reference reference     # log_softmax: of the terms exp(y)
