# The one seam between drivers and kernels: what a task is, and which functions a build offers for it.
# Every build fills one Kernels struct from the same text; nothing else crosses.

from libc.stdint cimport int64_t

cdef enum:
    LANES = 16              # classes that are summed side by side; the order of every sum follows from it
    CHUNK = 2048            # classes that share one maximum; longer rows merge the states of their chunks in order
    SHORT = 64              # classes of single rows that are measured without loops over them
    MAX_TILE_ROWS = 256     # rows that one tile may hold
    MAX_DIMS = 64           # as in NumPy
    ALWAYS_LANES = 384      # bytes; rows so short are always lanes

cdef enum Output:           # what is written for every class
    NOTHING
    PROBABILITY             # softmax
    LOG_PROBABILITY         # log_softmax
    GRADIENT                # of the cross-entropy with respect to the logits
    SOFTMAX_BACKWARD        # from here on of a loss with respect to x, from its gradient with respect to the result:
    LOG_SOFTMAX_BACKWARD    # x is the result, other that gradient

cdef enum Orientation:
    ROWS                    # a tile is (n_rows, n_classes): classes are lanes
    COLUMNS                 # a tile is (n_classes, n_rows): rows are lanes

cdef enum Steps:            # of a tile; they may be added
    MEASURE = 1             # chunks: their maxima and sums
    FINISH = 2              # rows: merge their chunks, results of rows
    WRITE = 4               # chunks: results of classes

cdef struct Layout:         # where the elements of an array lie; strides in bytes, rows in C order of their dimensions
    char *data
    int n_dims              # dimensions that number the rows, those merged that can be
    Py_ssize_t[MAX_DIMS] shape
    Py_ssize_t[MAX_DIMS] strides
    Py_ssize_t class_stride
    bint rows               # rows are contiguous, at one distance from each other (an output's: at none),
    bint columns            # or neighbouring rows are neighbours in memory; else elements are gathered and scattered
    bint collides           # columns whose classes share a few sets of the cache: brought together first

cdef struct Task:
    Output output
    Orientation orientation
    bint stream             # out is too large to stay in the cache
    bint fetch_output       # out, of one chunk, is far from the caches: it, or its rows' ends, are fetched before
    bint keep_terms         # exponentials stay in scratch until they are written; else they are computed again
    Py_ssize_t n_rows
    Py_ssize_t n_classes
    Py_ssize_t tile_rows    # at most MAX_TILE_ROWS
    Py_ssize_t tail_rows    # tiles of so few, at the ends of `inner`, are ROWS whatever the orientation
    Py_ssize_t inner        # a tile never crosses a multiple of so many rows
    Py_ssize_t skew         # by so many the first tile of `inner` is shorter than the others
    Py_ssize_t tiles_per_inner
    Py_ssize_t n_chunks
    Py_ssize_t board_bytes
    Py_ssize_t scratch_bytes
    void *logsumexp         # OUT (n_rows,), or NULL
    float *loss_f32         # OUT (n_rows,), or NULL
    double *loss_f64        # OUT (n_rows,), or NULL
    const int64_t *target   # (n_rows,), or NULL
    bint has_ignore_index
    int64_t ignore_index
    double scale            # of the gradient, divided by the temperature; of moderate size
    int scale_exponent      # what is left of it, a power of two and a factor that is not finite, multiplies the output
    double scale_factor     # once it is written: see multiply_output()
    const double *row_factor        # (n_rows,) each, which do likewise: factors that are not finite, or NULL for ones,
    const int *row_exponent         # and exponents, or NULL for zeros
    double temperature      # differences of logits are divided by it
    bint has_added          # logits are x + other
    bint has_probabilities  # the targets are other, of x's shape
    # A row's loss is the sum over the classes of mass * -log_probability. The mass of a class is
    #   index targets:          smooth * weight, and for the target kept * weight more
    #   probability targets:    (kept * probability + smooth) * weight
    double kept             # 1 - label_smoothing
    double smooth           # label_smoothing / n_classes
    const double *weight            # (n_classes,), or NULL for ones
    const double *sample_weight     # (n_rows,), of the loss, or NULL for ones
    const double *grad_weight       # (n_rows,), of the gradient, or NULL for ones
    const void *mass                # (n_classes,), of the dtype: smooth * weight, or NULL
    const double *chunk_mass        # (n_chunks,), its sums
    const int64_t *index            # (n_rows, n_indices), or NULL
    Py_ssize_t n_indices
    void *picked            # OUT (n_rows, n_indices), the log-probabilities at index
    Layout x                # the fields before this one are zero unless they are set
    Layout out              # unless output is NOTHING
    Layout other            # if has_added, has_probabilities, or backward

# Take `steps` with n_rows rows from first_row on and chunks first_chunk to end_chunk - 1. The board holds what the
# steps tell each other, board_size() bytes. Scratch belongs to the thread: numbers of rows, numbers_size() bytes, a
# room for a part's logits, term_rooms(), and two more where there are masses, something is added or a gradient goes
# back. Both are aligned to 64 bytes. (On the stack there may be little room: threads with 64 KB call this.)
ctypedef void (*tile_function)(
    const Task *task, Steps steps, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t first_chunk,
    Py_ssize_t end_chunk, char *board, char *scratch,
) noexcept nogil

cdef inline Py_ssize_t room_size(const Task *task, Orientation orientation, Py_ssize_t width) noexcept nogil:
    """Elements of scratch for a part of so many rows, its logits or its terms.

    Whole blocks of 64 classes as ROWS, of 16 as COLUMNS, where zeros fill up the sums. The 32 at the end keep rooms
    from lying at multiples of 4096 bytes from each other, where a load waits for the store to another room before it.
    """
    cdef Py_ssize_t n = task.n_classes if task.n_classes < CHUNK else CHUNK
    return ((n + 63) // 64 * 64 if orientation == ROWS else (n + 15) // 16 * 16) * width + 32

cdef inline Py_ssize_t padded(Py_ssize_t n_rows) noexcept nogil:
    return (n_rows + 15) // 16 * 16

cdef inline Py_ssize_t numbers_size(const Task *task, Py_ssize_t width) noexcept nogil:
    """Bytes of scratch for numbers of a tile's rows: what its values are made with, or the sums of a gradient that goes
    back, in 48 lanes, which are kept between chunks."""
    cdef Py_ssize_t n = padded(width)
    if task.output == SOFTMAX_BACKWARD or task.output == LOG_SOFTMAX_BACKWARD:
        return 8 * (10 * n + 48 * (n if task.n_chunks > 1 else 16))
    return 8 * 6 * n

cdef inline Py_ssize_t term_rooms(const Task *task) noexcept nogil:
    """How many rooms hold terms: of all chunks, or of one; of two where chunks are measured as rows."""
    return task.n_chunks if task.keep_terms else 2 if task.n_chunks > 1 else 1

cdef enum RowNumber:        # what a single row is asked for
    LOGSUMEXP
    LOSS
    LOG_PROB

cdef struct State:          # what is known of some classes of a row
    double maximum
    double sum              # of the terms below the maximum's, in their unit
    double carry            # what rounding took from the sum
    double ties             # how many other classes share the maximum; NaN if one is a NaN

cdef struct Kernels:        # arrays: for float32 and for float64
    tile_function[2] tile
    # Single rows and states: csoftmax.h says what they do. row() returns `number`, a loss before it is rounded to the
    # dtype, and writes out for PROBABILITY, LOG_PROBABILITY, GRADIENT; scale is that of probabilities too.
    double (*row[2])(Output output, RowNumber number, const void *x, Py_ssize_t n_classes, int64_t target,
                     double scale, void *out) noexcept nogil
    void (*add[2])(State *state, const void *x, Py_ssize_t n_classes) noexcept nogil
    void (*merge[2])(State *state, const State *other) noexcept nogil
    double (*number[2])(RowNumber number, const State *state, double at_target) noexcept nogil
    void (*write[2])(const State *state, const void *x, Py_ssize_t n_classes, int64_t target, double scale,
                     void *out) noexcept nogil
    # Multiply n_classes numbers, class_stride bytes apart, by factor * 2**exponent.
    void (*multiply[2])(char *out, Py_ssize_t n_classes, Py_ssize_t class_stride, double factor,
                        int exponent) noexcept nogil
    # The same for n_rows rows of the output from first_row on: by what the task has left of their scale.
    void (*multiply_output[2])(const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows) noexcept nogil
    # sum + carry = the sum of n values times `scale`, a power of two.
    void (*add_up)(const double *values, Py_ssize_t n, double scale, double *sum, double *carry) noexcept nogil
    # How many of n targets are no class, and how many are `value`.
    Py_ssize_t (*count_outside)(const int64_t *target, Py_ssize_t n, Py_ssize_t n_classes) noexcept nogil
    Py_ssize_t (*count_equal)(const int64_t *target, Py_ssize_t n, int64_t value) noexcept nogil
    Py_ssize_t (*board_size)(Py_ssize_t width, Py_ssize_t n_chunks) noexcept nogil
    void (*fence)() noexcept nogil      # after the last tile of a thread, if the task streams
