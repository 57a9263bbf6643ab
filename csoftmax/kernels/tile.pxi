# One tile from the arrays and back: take its elements, measure its rows, finish their numbers, write its classes.
# Everything is computed in scratch and put out at the end, so the output may be the input.

from libc.math cimport INFINITY, NAN, isinf, isnan
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from csoftmax.kernels.table cimport (
    CHUNK, COLUMNS, GRADIENT, LOG_PROBABILITY, MAX_TILE_ROWS, NOTHING, PROBABILITY, ROWS, Kernels, Layout, Task,
)

cdef extern from "lanes.h" nogil:
    void stream_bytes(char *out, const char *start, size_t size)
    void stream_fence()


# ---- Elements in and out ----

cdef void row_offsets(const Layout *a, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t *offsets) noexcept nogil:
    """Offsets in bytes of the first classes of rows first_row, first_row + 1, ... in C order of the row dimensions."""
    cdef Py_ssize_t[64] index
    cdef Py_ssize_t offset = 0, row, rest = first_row
    cdef int d = a.n_dims - 1
    while d >= 0:
        index[d] = rest % a.shape[d]
        rest = rest // a.shape[d]
        offset += index[d] * a.strides[d]
        d -= 1
    for row in range(n_rows):
        offsets[row] = offset
        d = a.n_dims - 1
        while d >= 0:
            index[d] += 1
            offset += a.strides[d]
            if index[d] < a.shape[d]:
                break
            offset -= index[d] * a.strides[d]
            index[d] = 0
            d -= 1


cdef inline void transpose(
    const floating *start,      # IN   (n, m)
    Py_ssize_t n,
    Py_ssize_t m,
    Py_ssize_t from_stride,
    floating *to,               # OUT  (m, n)
    Py_ssize_t to_stride,
) noexcept nogil:
    cdef Py_ssize_t i, j
    for j in range(m):
        for i in range(n):
            to[j * to_stride + i] = start[i * from_stride + j]


cdef void gather(
    const Layout *a, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t first_class, Py_ssize_t n_classes,
    floating *to, Py_ssize_t row_step, Py_ssize_t class_step,
) noexcept nogil:
    """Copy any tile of any layout, also one whose elements are not aligned."""
    cdef Py_ssize_t[256] offsets
    cdef Py_ssize_t row, j
    cdef const char *start = a.data + first_class * a.class_stride
    row_offsets(a, first_row, n_rows, offsets)
    if a.class_stride == sizeof(floating) and class_step == 1:
        for row in range(n_rows):
            memcpy(to + row * row_step, start + offsets[row], n_classes * sizeof(floating))
    elif class_step == 1:
        for row in range(n_rows):
            for j in range(n_classes):
                memcpy(to + row * row_step + j, start + offsets[row] + j * a.class_stride, sizeof(floating))
    else:
        for j in range(n_classes):
            for row in range(n_rows):
                memcpy(to + row * row_step + j * class_step, start + offsets[row] + j * a.class_stride,
                       sizeof(floating))


cdef void scatter(
    const Layout *a, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t first_class, Py_ssize_t n_classes,
    const floating *start, Py_ssize_t row_step, Py_ssize_t class_step,
) noexcept nogil:
    """The way back of gather."""
    cdef Py_ssize_t[256] offsets
    cdef Py_ssize_t row, j
    cdef char *to = a.data + first_class * a.class_stride
    row_offsets(a, first_row, n_rows, offsets)
    if a.class_stride == sizeof(floating) and class_step == 1:
        for row in range(n_rows):
            memcpy(to + offsets[row], start + row * row_step, n_classes * sizeof(floating))
    elif class_step == 1:
        for row in range(n_rows):
            for j in range(n_classes):
                memcpy(to + offsets[row] + j * a.class_stride, start + row * row_step + j, sizeof(floating))
    else:
        for j in range(n_classes):
            for row in range(n_rows):
                memcpy(to + offsets[row] + j * a.class_stride, start + row * row_step + j * class_step,
                       sizeof(floating))


cdef inline void put_block(void *to, const void *start, size_t size, bint stream) noexcept nogil:
    if stream:
        stream_bytes(<char *>to, <const char *>start, size)
    else:
        memcpy(to, start, size)


# ---- A chunk of classes of a tile, as ROWS or as COLUMNS ----

cdef const floating *take(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t width, Py_ssize_t first_class,
    Py_ssize_t n_classes, floating *room, Py_ssize_t *stride,
) noexcept nogil:
    """The tile's logits: where they lie if the kernels can read them there, else gathered into room.

    stride is that of rows (ROWS) or of classes (COLUMNS); columns beyond n_rows up to width hold zeros.
    """
    cdef Py_ssize_t offset, j, row
    cdef Py_ssize_t item = sizeof(floating)
    if task.orientation == ROWS:
        if task.x_direct:
            row_offsets(&task.x, first_row, 1, &offset)
            stride[0] = task.x.strides[0] // item if task.x.n_dims else n_classes
            return <const floating *>(task.x.data + offset) + first_class
        gather(&task.x, first_row, n_rows, first_class, n_classes, room, n_classes, 1)
        stride[0] = n_classes
        return room
    if task.x_direct and n_rows == width:
        row_offsets(&task.x, first_row, 1, &offset)
        stride[0] = task.x.class_stride // item
        return <const floating *>(task.x.data + offset) + first_class * stride[0]
    gather(&task.x, first_row, n_rows, first_class, n_classes, room, 1, width)
    for j in range(n_classes):
        for row in range(n_rows, width):
            room[j * width + row] = 0
    stride[0] = width
    return room


cdef void put(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t width, Py_ssize_t first_class,
    Py_ssize_t n_classes, const floating *values,
) noexcept nogil:
    cdef Py_ssize_t offset, j
    cdef Py_ssize_t item = sizeof(floating)
    cdef char *to
    if not task.out_direct:
        if task.orientation == ROWS:
            scatter(&task.out, first_row, n_rows, first_class, n_classes, values, n_classes, 1)
        else:
            scatter(&task.out, first_row, n_rows, first_class, n_classes, values, 1, width)
        return
    row_offsets(&task.out, first_row, 1, &offset)
    to = task.out.data + offset + first_class * task.out.class_stride
    if task.orientation == ROWS:
        put_block(to, values, n_rows * n_classes * item, task.stream)
    else:
        for j in range(n_classes):
            put_block(to + j * task.out.class_stride, values + j * width, n_rows * item, task.stream)


cdef void measure(
    const Task *task, const floating *x, Py_ssize_t stride, Py_ssize_t n_rows, Py_ssize_t width, Py_ssize_t n_classes,
    floating *terms, floating *maximum, double *others,
) noexcept nogil:
    """Maximum and sum of the others of each row; a row whose maximum is infinite has 0, or NaN if it holds a NaN."""
    cdef floating[16] padded, padded_terms
    cdef Py_ssize_t row, j
    cdef Py_ssize_t row_step = stride if task.orientation == ROWS else 1
    cdef Py_ssize_t class_step = 1 if task.orientation == ROWS else stride
    if task.orientation == COLUMNS:
        measure_columns(x, stride, n_classes, width, terms, maximum, others)
    elif n_classes >= 16:
        measure_rows(x, n_rows, n_classes, stride, terms, maximum, others)
    else:
        for row in range(n_rows):
            for j in range(16):
                padded[j] = x[row * stride + j] if j < n_classes else -<floating>INFINITY
            measure_rows(&padded[0], 1, 16, 16, &padded_terms[0], maximum + row, others + row)
            memcpy(terms + row * n_classes, padded_terms, n_classes * sizeof(floating))
    for row in range(n_rows):
        if isinf(maximum[row]):
            others[row] = 0
            for j in range(n_classes):
                if isnan(x[row * row_step + j * class_step]):
                    others[row] = NAN


cdef void terms_again(
    const Task *task, const floating *x, Py_ssize_t stride, Py_ssize_t n_rows, Py_ssize_t width, Py_ssize_t n_classes,
    const floating *maximum, floating *terms,
) noexcept nogil:
    """scaled_exp of a chunk, now that the maximum of the whole row is known."""
    cdef Py_ssize_t row, j
    if task.orientation == ROWS:
        for row in range(n_rows):
            for j in range(n_classes):
                terms[row * n_classes + j] = scaled_exp(x[row * stride + j], maximum[row])
    else:
        for j in range(n_classes):
            for row in range(width):
                terms[j * width + row] = scaled_exp(x[j * stride + row], maximum[row])


# ---- The numbers of a row ----

cdef void merge(floating *maximum, double *others, floating chunk_maximum, double chunk_others) noexcept nogil:
    """Add a chunk's state to a row's: the larger maximum stays, the other side joins the sum of the others."""
    cdef double high = maximum[0], low = chunk_maximum, stays = others[0], joins = chunk_others
    if low > high:
        high, low, stays, joins = low, high, joins, stays
    maximum[0] = <floating>high
    if high == low:
        others[0] = stays + joins + 1
    else:
        others[0] = stays + (1 + joins) * (scaled_exp(low, high) / one(high))


cdef void two_sum(double a, double b, double *high, double *low) noexcept nogil:
    """a + b = high + low exactly."""
    cdef double back
    high[0] = a + b
    back = high[0] - a
    low[0] = (a - (high[0] - back)) + (b - back)


cdef inline bint is_ignored(const Task *task, Py_ssize_t row) noexcept nogil:
    return task.target != NULL and task.has_ignore_index and task.target[row] == task.ignore_index


cdef inline Py_ssize_t target_of(const Task *task, Py_ssize_t row) noexcept nogil:
    """The row's target. It was checked, but another thread may have changed it since: never outside the row."""
    cdef int64_t target = task.target[row]
    return target if 0 <= target < task.n_classes else 0


cdef void finish(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows,
    const floating *maximum,    # IN   (n_rows,)
    const double *others,       # IN   (n_rows,)
    const double *at_target,    # IN   (n_rows,), the target's logit
    floating *a,                # OUT  (n_rows,)  PROBABILITY, GRADIENT: a term times a is the class's value
    floating *b,                # OUT  (n_rows,)  LOG_PROBABILITY: (x - a) - b; GRADIENT: the target's value
) noexcept nogil:
    cdef Py_ssize_t row
    cdef double high, low, s, m, d, d_low, loss
    cdef double[256] log_high, log_low, shift
    cdef double scale = task.scale / one(<floating>1)
    if task.output == PROBABILITY or task.output == GRADIENT:
        for row in range(n_rows):
            a[row] = <floating>(scale / (1 + others[row]))
    if task.output == PROBABILITY:
        return
    for row in range(n_rows):
        log1p_parts(others[row], &log_high[row], &log_low[row])
    for row in range(n_rows):
        # logsumexp in the dtype, and what its rounding lost
        m = maximum[row]
        d = <floating>(m + log_high[row])
        s = d - m
        shift[row] = d
        log_low[row] = log_low[row] + ((m - (d - s)) + (log_high[row] - s))
    if task.output == LOG_PROBABILITY:
        for row in range(n_rows):
            a[row] = <floating>shift[row]
            b[row] = <floating>log_low[row]
    if task.logsumexp != NULL:
        for row in range(n_rows):
            (<floating *>task.logsumexp)[first_row + row] = <floating>shift[row]
            if isinf(maximum[row]) or isnan(others[row]):
                (<floating *>task.logsumexp)[first_row + row] = NAN if isnan(others[row]) else maximum[row]
    if task.target == NULL:
        return
    for row in range(n_rows):
        m = maximum[row]
        s = others[row]
        if is_ignored(task, first_row + row):
            loss = 0
        elif isinf(maximum[row]) or isnan(s):
            loss = NAN
        else:
            # (m - x_t) + log1p(others); shift and log_low hold m + log1p(others), whole.
            two_sum(shift[row], -at_target[row], &high, &low)
            loss = high + (low + log_low[row]) if high < INFINITY else INFINITY
        if task.loss_f32 != NULL:
            task.loss_f32[first_row + row] = <float>loss
        if task.loss_f64 != NULL:
            task.loss_f64[first_row + row] = loss
        if task.output == GRADIENT:
            # p_t - 1 = -(sum of all terms but the target's) / (sum of all terms)
            high = scaled_exp(at_target[row], m) / one(m)
            b[row] = <floating>(-task.scale * (s + (1 - high)) / (1 + s))


# ---- The tile ----

cdef void write_chunk(
    const Task *task, const floating *x, Py_ssize_t stride, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t width,
    Py_ssize_t first_class, Py_ssize_t n_classes, const floating *maximum, const double *others, const floating *a,
    const floating *b, floating *values,
) noexcept nogil:
    """Turn a chunk's terms (LOG_PROBABILITY: its logits) into the output's values, in place in `values`."""
    cdef Py_ssize_t row, j, target
    cdef Py_ssize_t row_step = n_classes if task.orientation == ROWS else 1
    cdef Py_ssize_t class_step = 1 if task.orientation == ROWS else width
    cdef floating blank
    cdef bint is_blank
    if task.output == LOG_PROBABILITY:
        if task.orientation == ROWS:
            for row in range(n_rows):
                for j in range(n_classes):
                    values[row * n_classes + j] = (x[row * stride + j] - a[row]) - b[row]
        else:
            for j in range(n_classes):
                for row in range(width):
                    values[j * width + row] = (x[j * stride + row] - a[row]) - b[row]
    elif task.orientation == ROWS:
        for row in range(n_rows):
            for j in range(n_classes):
                values[row * n_classes + j] *= a[row]
    else:
        for j in range(n_classes):
            for row in range(width):
                values[j * width + row] *= a[row]
    for row in range(n_rows):
        is_blank = isinf(maximum[row]) or isnan(others[row])
        blank = NAN
        if task.output == GRADIENT:
            target = target_of(task, first_row + row) - first_class
            if 0 <= target < n_classes:
                values[row * row_step + target * class_step] = b[row]
            if is_ignored(task, first_row + row):
                is_blank = True
                blank = 0
        if is_blank:
            for j in range(n_classes):
                values[row * row_step + j * class_step] = blank


cdef void run_tile(const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, floating *room) noexcept nogil:
    """room holds two chunks of the tile: gathered logits, and terms that become the output's values."""
    cdef floating[256] maximum, chunk_maximum, a, b
    cdef double[256] others, chunk_others, at_target
    cdef Py_ssize_t width = n_rows if task.orientation == ROWS else (n_rows + 15) // 16 * 16
    cdef Py_ssize_t chunk = task.n_classes if task.n_classes < CHUNK else CHUNK
    cdef Py_ssize_t first_class = 0, n, stride = 0, row, target
    cdef floating *values = room + chunk * width
    cdef const floating *x = NULL
    cdef Py_ssize_t row_step, class_step
    while first_class < task.n_classes:
        n = task.n_classes - first_class if task.n_classes - first_class < chunk else chunk
        x = take(task, first_row, n_rows, width, first_class, n, room, &stride)
        if first_class == 0:
            measure(task, x, stride, n_rows, width, n, values, &maximum[0], &others[0])
        else:
            measure(task, x, stride, n_rows, width, n, values, &chunk_maximum[0], &chunk_others[0])
            for row in range(n_rows):
                merge(&maximum[row], &others[row], chunk_maximum[row], chunk_others[row])
        if task.target != NULL:
            row_step = stride if task.orientation == ROWS else 1
            class_step = 1 if task.orientation == ROWS else stride
            for row in range(n_rows):
                target = target_of(task, first_row + row) - first_class
                if 0 <= target < n:
                    at_target[row] = x[row * row_step + target * class_step]
        first_class += n
    finish(task, first_row, n_rows, &maximum[0], &others[0], &at_target[0], &a[0], &b[0])
    if task.output == NOTHING:
        return
    first_class = 0
    while first_class < task.n_classes:
        n = task.n_classes - first_class if task.n_classes - first_class < chunk else chunk
        if chunk < task.n_classes:
            x = take(task, first_row, n_rows, width, first_class, n, room, &stride)
            if task.output != LOG_PROBABILITY:
                terms_again(task, x, stride, n_rows, width, n, &maximum[0], values)
        write_chunk(task, x, stride, first_row, n_rows, width, first_class, n, &maximum[0], &others[0], &a[0], &b[0],
                    values)
        put(task, first_row, n_rows, width, first_class, n, values)
        first_class += n


cdef void tile_f32(const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, char *scratch) noexcept nogil:
    run_tile(task, first_row, n_rows, <float *>scratch)


cdef void tile_f64(const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, char *scratch) noexcept nogil:
    run_tile(task, first_row, n_rows, <double *>scratch)


cdef void fence() noexcept nogil:
    stream_fence()
