# What the kernels of a tile tell each other: its parts, the states of its rows, the masses of their classes.

from csoftmax.kernels.task cimport Orientation

cdef enum:
    PHASE_ROWS = 64             # of a tile whose numbers of rows lie on the stack at a time

cdef struct Fetched:            # a tile elsewhere, brought into the cache meanwhile: the next one, or this one's output
    const char *start           # NULL: nothing
    Py_ssize_t row_step, class_step     # in bytes

cdef struct Rooms:              # of a thread: see table.pxd
    void *numbers               # floating, (N_NUMBERS, padded(width))
    void *logits                # floating, as are those that follow: of a part
    void *terms                 # of a part or of all of a tile's
    void *mass                  # of a part; or another input
    void *spare

cdef struct Part:
    Orientation orientation
    Py_ssize_t first_row, n_rows
    Py_ssize_t width            # n_rows; as COLUMNS up to the next multiple of 16
    Py_ssize_t first_class, n_classes
    Py_ssize_t term_stride      # of the terms, between rows (ROWS) or classes (COLUMNS)
    Fetched ahead, output

cdef struct Board:
    # (n_chunks, width) each: the states of the chunks, whose sums have no carries
    void *chunk_maximum         # floating
    double *chunk_sum
    double *chunk_ties
    double *chunk_cost          # where classes have masses: half the sum of mass * (maximum - x); it may overflow
    double *chunk_mass          # with probability targets: sum of masses
    # (width,) each: the states, which are those of a single chunk, and numbers of the rows
    void *maximum               # floating
    double *sum                 # of the terms below the maximum's
    double *carry               # what rounding took from the sum
    double *ties                # how many other classes share the maximum; NaN if the row holds a NaN
    void *at_target             # floating, the target's logit
    double *factor              # PROBABILITY, GRADIENT: exp(x - M) times factor + factor_low is a class's value
    double *factor_low
    double *scale               # GRADIENT: what a mass is multiplied by
    void *a                     # floating: LOG_PROBABILITY: (x - a) + b is the value, or (x - a) / T + b
    void *b                     # floating; GRADIENT: the target's value
    bint *special               # whether some row is not finite

cdef enum:
    ROW_NUMBERS = 10            # arrays of (width,)
    CHUNK_NUMBERS = 5           # of (n_chunks, width)

cdef struct Masses:             # of the rows of a phase
    bint plain                  # all of it at the target, and 1; gradients are all scaled alike: nothing else is set
    double[64] of_target        # the target's mass but for what every class has
    double[64] of_class         # what the target's class has as every class has
    double[64] shared           # the sum of what every class has
    double[64] cost             # half the sum of that * (maximum - x)
    double[64] scale            # of the gradient

cdef enum Formula:
    TERMS                       # term * (FACTOR + FACTOR_LOW), source being terms
    LOGITS                      # the same, source being logits: term * UNSCALE first
    LOGS                        # (logit - FACTOR) + FACTOR_LOW
    DIVIDED_LOGITS              # LOGITS and LOGS whose differences are divided by a temperature
    DIVIDED_LOGS

cdef enum:                      # what a formula takes from a row
    FACTOR
    FACTOR_LOW
    REFERENCE                   # three numbers: see store_reference()
    UNSCALE = 5
    N_NUMBERS
