# What the kernels of a tile tell each other: its parts, the states of its rows, the masses of their classes, and the
# numbers that values are made with. Structs alone; who writes which member stands beside it.

from csoftmax.kernels.task cimport Orientation

cdef enum:
    PHASE_ROWS = 64             # of a tile whose numbers of rows lie on the stack at a time

cdef struct Fetched:            # a tile elsewhere, brought into the cache meanwhile: the next one, or this one's output
    const char *start           # NULL: nothing
    Py_ssize_t row_step, class_step     # in bytes
    Py_ssize_t row_bytes        # as ROWS of another dtype: what is fetched at once, before a row's terms are computed

cdef struct Scratch:            # of a thread; arrays of array_size() elements of the dtype, as table.pxd says
    void *numbers               # (N_NUMBERS, padded(width)), of a part's rows
    void *logits                # of a part
    void *terms                 # of a part, or of all of a tile's
    void *masses                # of a part; or the second input of a gradient that goes back
    void *spare

cdef struct Span:               # of a task, what a build computes at a time: a tile, or some of its chunks
    Py_ssize_t first_row
    Py_ssize_t n_rows
    Py_ssize_t first_chunk
    Py_ssize_t end_chunk

cdef struct Unread:             # rows of another dtype, converted into scratch when their maxima are found
    const char *start           # NULL: none
    Py_ssize_t row_step         # in bytes
    int storage
    bint together               # short ones, one behind the other: eight at a time

cdef struct Part:               # part_of() says what it is, load() what comes next
    Orientation orientation
    Py_ssize_t first_row
    Py_ssize_t n_rows
    Py_ssize_t width            # n_rows; as COLUMNS up to the next multiple of 16
    Py_ssize_t chunk
    Py_ssize_t first_class
    Py_ssize_t n_classes
    Py_ssize_t term_stride      # of the terms, between rows (ROWS) or classes (COLUMNS)
    Unread unread
    Fetched ahead
    Fetched output

cdef struct TwoInputs:          # of a part: logits and masses, or a result and the gradient that goes back
    const void *x
    Py_ssize_t x_stride         # between rows (ROWS) or classes (COLUMNS), as the other
    const void *second
    Py_ssize_t second_stride

cdef struct Measured:           # of a part's rows, whose sums have no carries: (n_rows,) each
    void *maximum               # of the dtype
    double *sum                 # of the terms below the maximum's
    double *ties                # how many other classes share the maximum; NaN if a class is

cdef struct RowStates:          # what is known of a tile's rows; arrays of the dtype are void *
    Py_ssize_t width            # rows, and what fills up the lanes
    Py_ssize_t n_chunks
    # measure_chunks() writes the states of chunks, whose sums have no carries, (n_chunks, width) each,
    void *chunk_maximum
    double *chunk_sum
    double *chunk_ties
    double *chunk_cost          # where classes have masses: half of it; it may overflow
    double *chunk_mass          # with probability targets: the sum of the masses
    void *at_target             # and (width,) the target's logit;
    # finish_rows() the states of rows, which are those of a single chunk, (width,) each,
    void *maximum
    double *sum                 # of the terms below the maximum's
    double *carry
    double *ties
    bint *special               # and whether some row is not finite;
    # and what write_chunk() makes values with, (width,) each:
    double *factor              # PROBABILITY, GRADIENT: term * (factor + factor_low) is a class's value
    double *factor_low
    double *mass_factor         # GRADIENT: what a mass is multiplied by
    void *target_gradient       # GRADIENT: the target's value
    void *log_shift             # LOG_PROBABILITY: (x - log_shift) + log_rest is the value,
    void *log_rest              # or (x - log_shift) / temperature + log_rest; where target_gradient is

cdef enum:
    ROW_ARRAYS = 10             # of (width,)
    CHUNK_ARRAYS = 5            # of (n_chunks, width)

cdef struct Phase:              # rows of a tile whose numbers are found together
    Py_ssize_t first_row        # of the arrays
    Py_ssize_t n_rows           # at most PHASE_ROWS
    Py_ssize_t width            # these, and what fills up the lanes
    RowStates states            # theirs

cdef struct Masses:             # of the rows of a phase
    bint plain                  # all of it at the target, and 1; gradients are all scaled alike: nothing else is set
    double[PHASE_ROWS] of_target    # the target's mass but for what every class has
    double[PHASE_ROWS] of_class     # what the target's class has as every class has
    double[PHASE_ROWS] shared       # the sum of what every class has
    double[PHASE_ROWS] cost         # half the sum of that * (maximum - x)
    double[PHASE_ROWS] factor       # of the gradient

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


cdef inline TwoInputs two_inputs(
    const void *x, Py_ssize_t x_stride, const void *second, Py_ssize_t second_stride,
) noexcept nogil:
    cdef TwoInputs inputs
    inputs.x, inputs.x_stride, inputs.second, inputs.second_stride = x, x_stride, second, second_stride
    return inputs
