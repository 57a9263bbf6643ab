# One tile from the arrays and back: its chunks are measured, its rows finished, its classes written. All is computed in
# scratch and put out at the end, so the output may be the input. Here are the build's functions for
# tiles, and those that count targets and add up losses, too.

from cython cimport floating
from libc.math cimport isinf
from libc.stdint cimport int64_t, uint64_t

from csoftmax.kernels.exp cimport N_DIVIDE, choose_divisor
from csoftmax.kernels.lanes cimport FOLD, exact_sum
from csoftmax.kernels.numbers cimport kind_of, settle_infinite
from csoftmax.kernels.task cimport (
    CHUNK, COLUMNS, FINISH, LOG_SOFTMAX_BACKWARD, MEASURE, NOTHING, ROWS, SOFTMAX_BACKWARD, WRITE, Steps, Task,
    array_size, has_masses, numbers_size, place_of, term_arrays,
)
from csoftmax.kernels.tile cimport CHUNK_ARRAYS, ROW_ARRAYS, Measured, Part, RowStates, Scratch, Span

cdef extern from "stream.h" nogil:
    void stream_fence()


cdef Py_ssize_t states_size(Py_ssize_t width, Py_ssize_t n_chunks) noexcept nogil:
    """In bytes, for the larger dtype; a multiple of 64."""
    return (8 * width * (CHUNK_ARRAYS * n_chunks + ROW_ARRAYS) + 64 + 63) // 64 * 64


cdef RowStates states_at(char *memory, Py_ssize_t width, Py_ssize_t n_chunks) noexcept nogil:
    cdef RowStates states
    cdef double *p = <double *>memory
    states.width, states.n_chunks = width, n_chunks
    states.maximum = p
    states.sum = p + width
    states.carry = p + 2 * width
    states.ties = p + 3 * width
    states.at_target = p + 4 * width
    states.factor = p + 5 * width
    states.factor_low = p + 6 * width
    states.mass_factor = p + 7 * width
    states.log_shift = p + 8 * width
    states.log_rest = states.target_gradient = p + 9 * width
    p += ROW_ARRAYS * width
    states.chunk_maximum = p
    states.chunk_sum = p + n_chunks * width
    states.chunk_ties = p + 2 * n_chunks * width
    states.chunk_cost = p + 3 * n_chunks * width
    states.chunk_mass = p + 4 * n_chunks * width
    states.special = <bint *>(p + CHUNK_ARRAYS * n_chunks * width)
    if n_chunks == 1:
        states.maximum, states.sum, states.ties = states.chunk_maximum, states.chunk_sum, states.chunk_ties
    return states


cdef void measure(
    const Task *task, Part *part, const floating *x, Py_ssize_t stride, floating *terms, floating *maximum,
    double *sum, double *ties,
) noexcept nogil:
    """State of each row in a chunk; where the maximum is infinite, ties is 0, or NaN if the row holds a NaN."""
    cdef Py_ssize_t n = part.n_classes
    cdef Py_ssize_t row, j
    cdef const floating *first
    cdef floating[N_DIVIDE] divide
    cdef Measured measured
    measured.maximum, measured.sum, measured.ties = maximum, sum, ties
    find_output(task, part)
    if task.temperature != 1:
        choose_divisor(task.temperature, &divide[0])
    if part.orientation == COLUMNS:
        measure_columns(part, x, stride, kind_of(task.n_classes, task.temperature), <const floating *>&divide[0], terms,
                        &measured)
    else:
        measure_rows(part, x, stride, <const floating *>&divide[0] if task.temperature != 1 else NULL,
                     part.n_rows * (stride if n == task.n_classes else n), task.plan.keep_terms, terms, &measured)
    if not find_special(<const floating *>maximum, <const double *>ties, part.n_rows):
        return
    for row in range(part.n_rows):
        if isinf(maximum[row]):
            first = x + row * (stride if part.orientation == ROWS else 1)
            settle_infinite(first, n, 1 if part.orientation == ROWS else stride, &sum[row], &ties[row])
            for j in range(n if task.plan.keep_terms else 0):
                # A chunk of nothing but -inf: the row's other chunks decide.
                terms[row * part.term_stride + j if part.orientation == ROWS else j * part.width + row] = 0


cdef Py_ssize_t side_by_side(
    const Task *task, Py_ssize_t n_rows, Py_ssize_t chunk, Py_ssize_t end_chunk,
) noexcept nogil:
    """How many chunks from `chunk` on are measured together: whole ones of a single row, as if they were rows."""
    cdef Py_ssize_t n = task.n_classes // CHUNK - chunk
    if n_rows > 1 or not task.x.rows or task.x.converts or task.has_added or task.plan.orientation == COLUMNS:
        return 1
    n = n if n < end_chunk - chunk else end_chunk - chunk
    n = n if n < FOLD else FOLD
    return n if n > 1 else 1


cdef void measure_chunks(
    const Task *task, RowStates *states, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t chunk,
    Py_ssize_t n_chunks,        # side_by_side()
    floating *terms, const Scratch *scratch,
) noexcept nogil:
    cdef Part part = part_of(task, first_row, n_rows, chunk), measured
    cdef Py_ssize_t first = chunk * part.width, stride = 0, i
    cdef const floating *x = load_to_measure(
        task, &part, <floating *>scratch.logits, <floating *>scratch.spare, &stride)
    measured = part
    if n_chunks > 1:            # chunks as if they were rows, each with its own terms
        measured.n_rows = n_chunks
        measured.term_stride = array_size(task, ROWS, 1)
    measure(task, &measured, x, CHUNK if n_chunks > 1 else stride, terms, <floating *>states.chunk_maximum + first,
            states.chunk_sum + first, states.chunk_ties + first)
    if task.loss.target != NULL:
        find_targets(task, &part, n_chunks, x, stride, <floating *>states.at_target)
    for i in range(n_chunks if has_masses(task) else 0):
        part.chunk = chunk + i
        part.first_class = part.chunk * CHUNK
        measure_masses(task, states, &part, x + i * CHUNK, stride, scratch)


cdef inline void find_targets(
    const Task *task, const Part *part, Py_ssize_t n_chunks, const floating *x, Py_ssize_t stride,
    floating *at_target,        # OUT  (n_rows,), the logits of those targets that are in these chunks
) noexcept nogil:
    cdef Py_ssize_t row_step = stride if part.orientation == ROWS else 1
    cdef Py_ssize_t class_step = 1 if part.orientation == ROWS else stride
    cdef const int64_t *targets = task.loss.target + part.first_row
    cdef Py_ssize_t row, target
    if task.plan.n_chunks == 1:
        for row in range(part.n_rows):
            at_target[row] = x[row * row_step + place_of(targets[row], task.n_classes) * class_step]
        return
    for row in range(part.n_rows):
        target = place_of(targets[row], task.n_classes) - part.first_class
        if 0 <= target < part.n_classes + (n_chunks - 1) * CHUNK:
            at_target[row] = x[row * row_step + target * class_step]


# ---- The build's functions ----

cdef inline void run_forward(
    const Task *task, Steps steps, const Span *span, char *memory, Py_ssize_t width, floating *terms,
    Py_ssize_t step,            # from the terms of a chunk to those of the next
    const Scratch *scratch,
) noexcept nogil:
    cdef Py_ssize_t n_chunks = (task.n_classes + CHUNK - 1) // CHUNK
    cdef RowStates states = states_at(memory, width, n_chunks)
    cdef Py_ssize_t first_row = span.first_row, n_rows = span.n_rows
    cdef Py_ssize_t chunk = span.first_chunk, n
    while steps & MEASURE and chunk < span.end_chunk:
        n = side_by_side(task, n_rows, chunk, span.end_chunk)
        measure_chunks(task, &states, first_row, n_rows, chunk, n, terms + chunk * step, scratch)
        chunk += n
    if steps & FINISH:
        finish_rows(task, &states, first_row, n_rows, terms[0])
    if steps & WRITE and task.output != NOTHING:
        for chunk in range(span.first_chunk, span.end_chunk):
            write_chunks_rows(task, &states, first_row, n_rows, chunk, (steps & MEASURE) != 0 and n_chunks == 1,
                              terms + chunk * step, scratch)


cdef inline bint run_tile(
    const Task *task, Steps steps, const Span *span, char *memory,
    floating *numbers,          # the scratch, which begins with these
) noexcept nogil:
    cdef Part part = part_of(task, span.first_row, span.n_rows, 0)
    cdef Py_ssize_t size = array_size(task, part.orientation, part.width)
    cdef floating *terms
    cdef Scratch scratch
    scratch.numbers = numbers
    scratch.logits = <char *>numbers + numbers_size(task, part.width)
    scratch.terms = terms = <floating *>scratch.logits + size
    scratch.masses = terms + term_arrays(task) * size
    scratch.spare = <floating *>scratch.masses + size
    if task.output == SOFTMAX_BACKWARD:
        return softmax_backward_steps(task, steps, span, memory, &scratch, <floating>0)
    if task.output == LOG_SOFTMAX_BACKWARD:
        return log_softmax_backward_steps(task, steps, span, memory, &scratch, <floating>0)
    run_forward(task, steps, span, memory, part.width, terms, size if task.plan.keep_terms else 0, &scratch)
    return False


cdef bint tile_f32(const Task *task, Steps steps, const Span *span, char *states, char *scratch) noexcept nogil:
    return run_tile(task, steps, span, states, <float *>scratch)


cdef bint tile_f64(const Task *task, Steps steps, const Span *span, char *states, char *scratch) noexcept nogil:
    return run_tile(task, steps, span, states, <double *>scratch)


cdef void multiply_output_f32(const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows) noexcept nogil:
    multiply_rows(task, first_row, n_rows, <float>0)


cdef void multiply_output_f64(const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows) noexcept nogil:
    multiply_rows(task, first_row, n_rows, <double>0)


cdef void add_up(const double *values, Py_ssize_t n, double scale, double *sum, double *carry) noexcept nogil:
    """In eight lanes, value i in lane i % 8, each with what rounding takes; then these, in order."""
    cdef double[8] lanes, carries
    cdef double total, back, value
    cdef Py_ssize_t i = 0
    cdef int l
    if n == 1:
        sum[0], carry[0] = values[0] * scale, 0
        return
    for l in range(8):
        lanes[l] = carries[l] = 0
    while i + 8 <= n:
        for l in range(8):
            value = values[i + l] * scale
            total = lanes[l] + value
            back = total - lanes[l]
            carries[l] += (lanes[l] - (total - back)) + (value - back)
            lanes[l] = total
        i += 8
    for l in range(8):
        if i + l < n:
            lanes[l] = exact_sum(lanes[l], carries[l], values[i + l] * scale, 0, &carries[l])
    sum[0] = lanes[0]
    carry[0] = carries[0]
    for l in range(1, 8):
        sum[0] = exact_sum(sum[0], carry[0], lanes[l], carries[l], carry)


cdef Py_ssize_t count_outside(const int64_t *target, Py_ssize_t n, Py_ssize_t n_classes) noexcept nogil:
    cdef Py_ssize_t i, count = 0
    for i in range(n):
        count += <uint64_t>target[i] >= <uint64_t>n_classes     # so are negative ones
    return count


cdef Py_ssize_t count_equal(const int64_t *target, Py_ssize_t n, int64_t value) noexcept nogil:
    cdef Py_ssize_t i, count = 0
    for i in range(n):
        count += target[i] == value
    return count


cdef void fence() noexcept nogil:
    stream_fence()
