# What a task is: one call, as the drivers describe it to the kernels, and how it is cut. The words of the kernels:
#
#   reference   the number M that the terms of a row refer to: its maximum, or a multiple of ln 2 next to it
#   term        exp(x - M) of a class, scaled so that none is subnormal; below the cutoff, an x - M, it is 0
#   storage     the dtype of an array's elements in memory; terms and sums are computed in the task's dtype
#   lane        one of the 16 numbers that are computed side by side: classes of a row, or rows
#   group       16 neighbours, one for each lane
#   chunk       up to 2048 classes of a row, which share a reference
#   tile        neighbouring rows that one thread takes from the arrays and back
#   part        the rows of a tile in one chunk: as much of it as is computed at a time
#   state       what is known of some classes of a row: their maximum, the sum of the other terms, and the ties
#   ties        how many other classes share the maximum; NaN if one of the classes is a NaN
#   carry       what rounding took from a sum: it is added in the end
#   mass        what a class counts in the loss of a row: the loss is the sum of mass * -log_probability
#   cost        the sum of mass * (maximum - x) over some classes; it and the masses' sum are all a loss needs of them

from libc.stdint cimport int64_t, uint64_t

cdef enum:
    LANES = 16              # the order of every sum follows from it
    CHUNK = 2048            # classes
    SHORT = 64              # classes of single rows that are measured without loops over them
    MAX_TILE_ROWS = 256     # rows that one tile may hold
    MAX_DIMS = 64           # as in NumPy
    ALWAYS_LANES = 384      # bytes; rows so short are always lanes

cdef enum:                  # dtypes; the first two number the functions of a build, the others are storage alone
    FLOAT32
    FLOAT64
    FLOAT16
    BFLOAT16
    INT8
    UINT8
    INT16
    UINT16
    INT32
    UINT32
    INT64
    UINT64
    BOOL

cdef enum Output:           # what is written for every class
    NOTHING
    PROBABILITY             # softmax
    LOG_PROBABILITY         # log_softmax
    GRADIENT                # of the cross-entropy with respect to the logits
    SOFTMAX_BACKWARD        # from here on of a loss with respect to the logits, from its gradient with respect to the
    LOG_SOFTMAX_BACKWARD    # result: x is that result, the second input that gradient

cdef enum Orientation:
    ROWS                    # a tile is (n_rows, n_classes): classes are lanes
    COLUMNS                 # a tile is (n_classes, n_rows): rows are lanes

cdef enum Steps:            # of a tile; they may be added
    MEASURE = 1             # chunks: their maxima and sums
    ADD = 2                 # chunks of gradients that go back: their sums, from what FINISH has found
    FINISH = 4              # rows: merge their chunks, results of rows
    WRITE = 8               # chunks: results of classes

cdef enum RowNumber:        # what a single row is asked for
    LOGSUMEXP
    LOSS
    LOG_PROB

cdef struct State:          # csoftmax_state of csoftmax.h
    double maximum
    double sum              # of the terms below the maximum's, in their scale
    double carry
    double ties

cdef struct Layout:         # where the elements of an array lie; strides in bytes, rows in C order of their dimensions
    char *data
    int n_dims              # dimensions that number the rows, those merged that can be
    Py_ssize_t[MAX_DIMS] shape
    Py_ssize_t[MAX_DIMS] strides
    Py_ssize_t class_stride
    int storage             # the dtype of its elements,
    Py_ssize_t item         # their size in bytes,
    bint swapped            # and whether their bytes are in the other order; an output's never are
    const uint64_t *taken   # (n_rows,), of INT64 and UINT64 modulo 2**64, or NULL: the element less this is read
    # The drivers' plan() says these:
    bint converts           # elements are not of the task's dtype: they pass through scratch
    bint rows               # rows are contiguous, at one distance from each other (an output's: at none),
    bint columns            # or neighbouring rows are neighbours in memory; else elements are gathered and scattered
    bint collides           # columns whose classes share a few sets of the cache: brought together first

# A row's loss is the sum over the classes of mass * -log_probability. The mass of a class is
#   index targets:          smooth * weight, and for the target kept * weight more
#   probability targets:    (kept * probability + smooth) * weight

cdef struct Loss:           # zeros, but kept, unless losses or their gradients are asked for
    const int64_t *target   # (n_rows,), or NULL
    bint has_probabilities  # the targets are the second input
    bint has_ignore_index
    int64_t ignore_index
    double kept             # 1 - label_smoothing
    double smooth           # label_smoothing / n_classes
    const double *weight            # (n_classes,), or NULL for ones
    const double *sample_weight     # (n_rows,), of the loss, or NULL for ones
    const void *mass                # (n_classes,), of the dtype: smooth * weight, or NULL
    const double *chunk_mass        # (n_chunks,), its sums
    float *f32              # OUT (n_rows,), or NULL
    double *f64             # OUT (n_rows,), or NULL

cdef struct Gradient:       # what a GRADIENT is multiplied by
    double scale            # of moderate size, and divided by the temperature
    const double *weight    # (n_rows,), or NULL for ones
    # What is left of the scale, a power of two and a factor that is not finite, multiplies the output once it is
    # written (see multiply_output), or before it is converted, so that it is rounded once (see store); and so do, of
    # each row, factors that are not finite and exponents.
    int exponent
    double factor
    const double *row_factor        # (n_rows,), or NULL for ones
    const int *row_exponent         # (n_rows,), or NULL for zeros

cdef struct Pick:           # log-probabilities of single classes
    const int64_t *index    # (n_rows, n_indices), or NULL
    Py_ssize_t n_indices
    void *out               # OUT (n_rows, n_indices), of the dtype

cdef struct Plan:           # how a task is cut, and where its numbers lie: the drivers' part of it
    Orientation orientation
    bint stream             # out is too large to stay in the cache
    bint fetch_output       # out, of one chunk, is far from the caches: it, or its rows' ends, are fetched before
    bint keep_terms         # terms stay in scratch until they are written; else they are computed again
    Py_ssize_t n_chunks
    Py_ssize_t tile_rows    # at most MAX_TILE_ROWS
    Py_ssize_t tail_rows    # tiles of so few, at the ends of `inner`, are ROWS whatever the orientation
    Py_ssize_t inner        # a tile never crosses a multiple of so many rows
    Py_ssize_t first_tile_offset    # by so many rows the first tile of `inner` is shorter than the others
    Py_ssize_t tiles_per_inner
    Py_ssize_t states_bytes
    Py_ssize_t scratch_bytes

cdef struct Task:
    int dtype               # FLOAT32 or FLOAT64: of the computation, and of results of rows
    Output output
    Py_ssize_t n_rows
    Py_ssize_t n_classes
    double temperature      # differences of logits are divided by it
    bint has_added          # logits are x + the second input
    void *logsumexp         # OUT (n_rows,), of the dtype, or NULL
    Loss loss
    Gradient gradient
    Pick pick
    Plan plan
    Layout x
    Layout second_input     # if has_added, loss.has_probabilities, or backward; of x's shape
    Layout out              # unless output is NOTHING


cdef inline Py_ssize_t item_size(const Task *task) noexcept nogil:
    return 8 if task.dtype == FLOAT64 else 4


cdef inline Py_ssize_t size_of(int storage) noexcept nogil:
    """Bytes of an element."""
    if storage == FLOAT64 or storage == INT64 or storage == UINT64:
        return 8
    if storage == FLOAT32 or storage == INT32 or storage == UINT32:
        return 4
    return 1 if storage == INT8 or storage == UINT8 or storage == BOOL else 2


cdef inline bint has_factors(const Task *task) noexcept nogil:
    """Whether something of a gradient's scale is left to multiply the output."""
    return task.output == GRADIENT and (
        task.gradient.exponent != 0 or task.gradient.factor != 1 or task.gradient.row_factor != NULL
        or task.gradient.row_exponent != NULL)


cdef inline bint is_backward(const Task *task) noexcept nogil:
    return task.output == SOFTMAX_BACKWARD or task.output == LOG_SOFTMAX_BACKWARD


cdef inline bint has_second_input(const Task *task) noexcept nogil:
    return task.has_added or task.loss.has_probabilities or is_backward(task)


cdef inline bint has_masses(const Task *task) noexcept nogil:
    """Whether classes beside the target have masses."""
    return task.loss.mass != NULL or task.loss.has_probabilities


cdef inline bint is_ignored(const Task *task, Py_ssize_t row) noexcept nogil:
    return task.loss.target != NULL and task.loss.has_ignore_index and task.loss.target[row] == task.loss.ignore_index


cdef inline Py_ssize_t place_of(int64_t target, Py_ssize_t n_classes) noexcept nogil:
    """The target. It was checked, but another thread may have changed it since: never outside the row."""
    return target if 0 <= target < n_classes else 0


cdef inline Py_ssize_t padded(Py_ssize_t n) noexcept nogil:
    """Up to whole groups of lanes."""
    return (n + LANES - 1) // LANES * LANES


cdef inline Py_ssize_t array_size(const Task *task, Orientation orientation, Py_ssize_t width) noexcept nogil:
    """Elements of a scratch array for a part of so many rows, its logits or its terms.

    Whole blocks of 64 classes as ROWS, of 16 as COLUMNS, where zeros fill up the sums. The 32 at the end keep arrays
    from lying at multiples of 4096 bytes from each other, where a load waits for the store to another one before it.
    """
    cdef Py_ssize_t n = task.n_classes if task.n_classes < CHUNK else CHUNK
    return ((n + 63) // 64 * 64 if orientation == ROWS else padded(n)) * width + 32


cdef inline Py_ssize_t numbers_size(const Task *task, Py_ssize_t width) noexcept nogil:
    """Bytes of scratch for numbers of a tile's rows, which its values are made with."""
    return 0 if is_backward(task) else 8 * 6 * padded(width)


cdef inline Py_ssize_t term_arrays(const Task *task) noexcept nogil:
    """How many arrays hold terms: of all chunks, or of one; of two where chunks are measured as rows."""
    return task.plan.n_chunks if task.plan.keep_terms else 2 if task.plan.n_chunks > 1 else 1
