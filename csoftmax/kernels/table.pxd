# The functions that one build offers. Every build fills one Kernels struct from the same text; nothing else crosses
# between drivers and kernels, but the task that they are called for.

from libc.stdint cimport int64_t

from csoftmax.kernels.single cimport SingleRow
from csoftmax.kernels.task cimport RowNumber, State, Steps, Task
from csoftmax.kernels.tile cimport Span

# Take `steps` with the rows and chunks of a span; FINISH with none of the latter says after which other step it comes,
# and returns whether ADD and FINISH have to be taken next, before WRITE. What the steps tell each other lies in states,
# states_size() bytes. Scratch belongs to the thread: numbers_size() bytes for numbers of rows,
# then arrays of array_size() elements: logits, term_arrays() for terms, and two more where there are masses or a second
# input. Both are aligned to 64 bytes. (On the stack there may be little room: threads with 64 KB call this.)
ctypedef bint (*tile_function)(
    const Task *task, Steps steps, const Span *span, char *states, char *scratch,
) noexcept nogil

cdef struct Kernels:        # arrays: for float32 and for float64
    tile_function[2] tile
    # Single rows and states: csoftmax.h says what they do. row() returns `number`, a loss before it is rounded to the
    # dtype, and writes out for PROBABILITY, LOG_PROBABILITY, GRADIENT; write() writes out; scale is that of
    # probabilities too. Elements are neighbours, of the storage that is named.
    double (*row[2])(const SingleRow *row) noexcept nogil
    void (*add[2])(State *state, int storage, const char *x, Py_ssize_t n_classes) noexcept nogil
    void (*merge[2])(State *state, const State *other) noexcept nogil
    double (*number[2])(RowNumber number, const State *state, double at_target) noexcept nogil
    void (*write[2])(const State *state, const SingleRow *row) noexcept nogil
    # Multiply n_rows rows of the output, of the task's dtype, from first_row on by what is left of their scale.
    void (*multiply_output[2])(const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows) noexcept nogil
    # sum + carry = the sum of n values times `scale`, a power of two.
    void (*add_up)(const double *values, Py_ssize_t n, double scale, double *sum, double *carry) noexcept nogil
    # How many of n targets are no class, and how many are `value`.
    Py_ssize_t (*count_outside)(const int64_t *target, Py_ssize_t n, Py_ssize_t n_classes) noexcept nogil
    Py_ssize_t (*count_equal)(const int64_t *target, Py_ssize_t n, int64_t value) noexcept nogil
    Py_ssize_t (*states_size)(Py_ssize_t width, Py_ssize_t n_chunks) noexcept nogil
    void (*fence)() noexcept nogil      # after the last tile of a thread, if the task streams
