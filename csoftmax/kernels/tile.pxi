# One tile from the arrays and back: take its elements, measure its rows, finish their numbers, write its classes.
# Everything is computed in scratch and put out at the end, so the output may be the input.

from libc.stdint cimport int64_t, uint64_t

from csoftmax.kernels.table cimport (
    ALWAYS_LANES, CHUNK, COLUMNS, FINISH, GRADIENT, LOG_PROB, LOG_PROBABILITY, LOG_SOFTMAX_BACKWARD, LOGSUMEXP, LOSS,
    MAX_TILE_ROWS, MEASURE, NOTHING, PROBABILITY, ROWS, SHORT, SOFTMAX_BACKWARD, WRITE, Kernels, Layout, Orientation,
    Output, RowNumber, State, Steps, Task, room_size, term_rooms,
)

cdef extern from "lanes.h" nogil:
    void stream_bytes(char *out, const char *start, size_t size)
    void stream_fence()
    enum:
        TALL
    void transpose_f32(const float *start, Py_ssize_t stride, float *to, Py_ssize_t to_stride)
    void transpose_f64(const double *start, Py_ssize_t stride, double *to, Py_ssize_t to_stride)
    void transpose_tall_f32(const float *start, Py_ssize_t stride, float *to, Py_ssize_t to_stride)
    void transpose_wide_f32(const float *start, Py_ssize_t stride, float *to, Py_ssize_t to_stride)


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


cdef inline void transpose_blocks(
    const floating *start, Py_ssize_t n, Py_ssize_t m, Py_ssize_t stride, floating *to, Py_ssize_t to_stride,
    int tall, int wide,         # constants: the sides of a block, in those of a square one
) noexcept nogil:
    """In blocks that fit in; where their size does not divide a side, the last block overlaps the one before."""
    cdef Py_ssize_t size = 32 // sizeof(floating)
    cdef Py_ssize_t i = 0, j, i0, j0
    cdef const floating *block
    cdef floating *place
    while i < n:
        i0 = i if i < n - tall * size else n - tall * size
        j = 0
        while j < m:
            j0 = j if j < m - wide * size else m - wide * size
            block = start + i0 * stride + j0
            place = to + j0 * to_stride + i0
            if floating is float:
                if tall > wide:
                    transpose_tall_f32(block, stride, place, to_stride)
                elif wide > tall:
                    transpose_wide_f32(block, stride, place, to_stride)
                else:
                    transpose_f32(block, stride, place, to_stride)
            else:
                transpose_f64(block, stride, place, to_stride)
            j += wide * size
        i += tall * size


cdef inline void transpose_short(
    const floating *start, Py_ssize_t n, Py_ssize_t m, Py_ssize_t stride, floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    """(n, m) to (m, n), element by element; with m and a stride that are constants the compiler shuffles."""
    cdef Py_ssize_t i, j
    for j in range(m):
        for i in range(n):
            to[j * to_stride + i] = start[i * stride + j]


cdef void transpose(
    const floating *start,      # IN   (n, m)
    Py_ssize_t n,
    Py_ssize_t m,
    Py_ssize_t stride,
    floating *to,               # OUT  (m, n)
    Py_ssize_t to_stride,
) noexcept nogil:
    cdef Py_ssize_t size = 32 // sizeof(floating)
    if floating is float and n >= TALL * size and m >= size:
        transpose_blocks(start, n, m, stride, to, to_stride, TALL, 1)
    elif floating is float and n >= size and m >= TALL * size:
        transpose_blocks(start, n, m, stride, to, to_stride, 1, TALL)
    elif n >= size and m >= size:
        transpose_blocks(start, n, m, stride, to, to_stride, 1, 1)
    elif m == 2 and stride == 2:
        transpose_short(start, n, 2, 2, to, to_stride)
    elif m == 3 and stride == 3:
        transpose_short(start, n, 3, 3, to, to_stride)
    elif m == 4 and stride == 4:
        transpose_short(start, n, 4, 4, to, to_stride)
    elif n == 2 and to_stride == 2:
        transpose_short(start, 2, m, stride, to, 2)
    elif n == 3 and to_stride == 3:
        transpose_short(start, 3, m, stride, to, 3)
    elif n == 4 and to_stride == 4:
        transpose_short(start, 4, m, stride, to, 4)
    else:
        transpose_short(start, n, m, stride, to, to_stride)


cdef inline bint has_close_rows(const Layout *a) noexcept nogil:
    """Whether neighbouring rows are nearer to each other in memory than neighbouring classes."""
    cdef Py_ssize_t stride = a.strides[a.n_dims - 1] if a.n_dims else 0
    return 0 < (stride if stride > 0 else -stride) < (a.class_stride if a.class_stride > 0 else -a.class_stride)


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
    elif class_step == 1 and not has_close_rows(a):
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
    elif class_step == 1 and not has_close_rows(a):
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


# ---- A part of a tile: all its rows, or rows as lanes, and a chunk of its classes ----

cdef enum:
    COPIED_AHEAD = 24           # classes: as many as the few sets hold into which colliding ones fall

cdef struct Part:
    Orientation orientation
    Py_ssize_t first_row, n_rows
    Py_ssize_t width            # n_rows; as COLUMNS up to the next multiple of 16
    Py_ssize_t first_class, n_classes
    Py_ssize_t term_stride      # of the terms, between rows (ROWS) or classes (COLUMNS)
    Fetched ahead, output


cdef Part part_of(const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t chunk) noexcept nogil:
    cdef Part part
    memset(&part, 0, sizeof(Part))
    part.orientation = ROWS if n_rows <= task.tail_rows else task.orientation
    part.first_row = first_row
    part.n_rows = n_rows
    part.width = n_rows if part.orientation == ROWS else (n_rows + 15) // 16 * 16
    part.first_class = chunk * CHUNK
    part.n_classes = task.n_classes - part.first_class
    if part.n_classes > CHUNK:
        part.n_classes = CHUNK
    part.term_stride = (part.n_classes + 63) // 64 * 64 if part.orientation == ROWS else part.width
    return part


cdef const floating *take(
    const Task *task, const Layout *source, Part *part, floating *room, bint is_there, Py_ssize_t *stride,
) noexcept nogil:
    """The part's elements of x or other: where they lie if the kernels can read them there, else brought into room.

    is_there: room still holds them.
    stride is that of rows (ROWS) or of classes (COLUMNS); columns from n_rows up to width hold zeros.
    """
    cdef Py_ssize_t offset, j, row
    cdef Py_ssize_t item = sizeof(floating)
    cdef Py_ssize_t row_stride = source.strides[0] // item if source.n_dims else task.n_classes
    cdef const floating *x
    row_offsets(source, part.first_row, 1, &offset)
    if part.orientation == ROWS:
        if source.rows:
            stride[0] = row_stride
            return <const floating *>(source.data + offset) + part.first_class
        stride[0] = part.n_classes
        if not is_there:
            gather(source, part.first_row, part.n_rows, part.first_class, part.n_classes, room, part.n_classes, 1)
        return room
    if source.columns:
        x = <const floating *>(source.data + offset + part.first_class * source.class_stride)
        if part.n_rows == part.width and not source.collides:
            stride[0] = source.class_stride // item
            part.ahead.start = <const char *>(x + part.width)
            part.ahead.row_step = item
            part.ahead.class_step = source.class_stride
            return x
    stride[0] = part.width
    if is_there:
        return room
    if source.columns:          # where lines collide, what is fetched for the next tile would be lost before it comes
        for j in range(part.n_classes):
            for row in range(0, part.n_rows * item, 64):
                prefetch(<const char *>x + (j + COPIED_AHEAD) * source.class_stride + row)
            memcpy(room + j * part.width, <const char *>x + j * source.class_stride, part.n_rows * item)
    elif source.rows:
        x = <const floating *>(source.data + offset) + part.first_class
        transpose(x, part.n_rows, part.n_classes, row_stride, room, part.width)
        part.ahead.start = <const char *>(x + part.n_rows * row_stride)
        part.ahead.row_step = row_stride * item
        part.ahead.class_step = 16 * item
    else:
        gather(source, part.first_row, part.n_rows, part.first_class, part.n_classes, room, 1, part.width)
    for j in range(part.n_classes):
        for row in range(part.n_rows, part.width):
            room[j * part.width + row] = 0
    return room


cdef inline floating largest(floating like) noexcept nogil:
    if floating is float:
        return 3.4028234663852886e38
    else:
        return 1.7976931348623157e308


cdef inline floating quotient(floating x, floating temperature) noexcept nogil:
    """x / temperature; finite for finite x, so that no row becomes NaN by it."""
    cdef floating top = largest(x), value = x / temperature
    value = top if value > top and x <= top else value
    return -top if value < -top and x >= -top else value


cdef const floating *take_logits(
    const Task *task, Part *part, floating *room, floating *added_room, bint is_there, Py_ssize_t *stride,
) noexcept nogil:
    """take() of x, and what the kernels are to see of it: with `other` added, divided by the temperature."""
    cdef bint changed = task.has_added or task.temperature != 1
    cdef Py_ssize_t n, m, i, j, added_stride = 0
    cdef floating temperature = <floating>task.temperature
    cdef const floating *x
    cdef const floating *added
    cdef floating *to
    x = take(task, &task.x, part, room, is_there, stride)
    if not changed:
        return x
    n, m = part.n_rows, part.n_classes
    if part.orientation == COLUMNS:
        n, m = m, part.width
    if is_there:
        stride[0] = m
        return room
    added = NULL
    if task.has_added:
        added = take(task, &task.other, part, added_room, False, &added_stride)
    for i in range(n):
        to = room + i * m
        if added != NULL:
            for j in range(m):
                # A weight of zero, whose logarithm is -inf, takes out also what is infinite or NaN.
                to[j] = -<floating>INFINITY if added[i * added_stride + j] == -INFINITY else (
                    x[i * stride[0] + j] + added[i * added_stride + j])
        if task.temperature != 1:
            for j in range(m):
                to[j] = quotient(to[j] if added != NULL else x[i * stride[0] + j], temperature)
    stride[0] = m
    return room


cdef const floating *take_mass(
    const Task *task, Part *part, floating *room, floating *raw_room, bint is_there, Py_ssize_t *stride,
    int *row_step,
) noexcept nogil:
    """The masses of a part, as rows (stride 0 if all have one) or with rows as lanes (row_step 0 if all have one)."""
    cdef Py_ssize_t n, m, i, j, raw_stride = 0
    cdef const floating *raw
    cdef const double *weight = task.weight + part.first_class if task.weight != NULL else NULL
    cdef double kept = task.kept, smooth = task.smooth
    if not task.has_probabilities:
        row_step[0] = 0
        stride[0] = 0 if part.orientation == ROWS else 1
        return <const floating *>task.mass + part.first_class
    row_step[0] = 1
    if kept == 1 and smooth == 0 and weight == NULL:
        return take(task, &task.other, part, room, is_there, stride)
    n, m = part.n_rows, part.n_classes
    if part.orientation == COLUMNS:
        n, m = m, part.width
    stride[0] = m
    if is_there:
        return room
    raw = take(task, &task.other, part, raw_room, False, &raw_stride)
    for i in range(n):
        if weight == NULL:
            for j in range(m):
                room[i * m + j] = <floating>mul_add(kept, raw[i * raw_stride + j], smooth)
        elif part.orientation == ROWS:
            for j in range(m):
                room[i * m + j] = <floating>(weight[j] * mul_add(kept, raw[i * raw_stride + j], smooth))
        else:
            for j in range(m):
                room[i * m + j] = <floating>(weight[i] * mul_add(kept, raw[i * raw_stride + j], smooth))
    return room


cdef floating *destination(const Task *task, const Part *part, floating *values, Py_ssize_t *stride) noexcept nogil:
    """Where values are written as they come: the output itself if they may lie there at once, else `values`."""
    cdef Py_ssize_t offset
    cdef bint at_once = task.out.rows if part.orientation == ROWS else task.out.columns
    if task.stream or part.n_rows != part.width or not at_once:
        stride[0] = part.n_classes if part.orientation == ROWS else part.width
        return values
    stride[0] = task.n_classes if part.orientation == ROWS else task.out.class_stride // <Py_ssize_t>sizeof(floating)
    row_offsets(&task.out, part.first_row, 1, &offset)
    return <floating *>(task.out.data + offset + part.first_class * task.out.class_stride)


cdef void put(const Task *task, const Part *part, const floating *values, floating *room) noexcept nogil:
    """Bring values to the output; room is free."""
    cdef Py_ssize_t offset, j
    cdef Py_ssize_t item = sizeof(floating)
    cdef Py_ssize_t size = part.n_rows * part.n_classes * item
    cdef char *to
    row_offsets(&task.out, part.first_row, 1, &offset)
    to = task.out.data + offset + part.first_class * task.out.class_stride
    if part.orientation == ROWS and task.out.rows and (part.n_rows == 1 or part.n_classes == task.n_classes):
        put_block(to, values, size, task.stream)
    elif part.orientation == ROWS:
        scatter(&task.out, part.first_row, part.n_rows, part.first_class, part.n_classes, values, part.n_classes, 1)
    elif task.out.columns:
        for j in range(part.n_classes):
            put_block(to + j * task.out.class_stride, values + j * part.width, part.n_rows * item, task.stream)
    elif task.out.rows and part.n_classes == task.n_classes:
        if task.stream:
            transpose(values, part.n_classes, part.n_rows, part.width, room, part.n_classes)
            put_block(to, room, size, True)
        else:
            transpose(values, part.n_classes, part.n_rows, part.width, <floating *>to, part.n_classes)
    else:
        scatter(&task.out, part.first_row, part.n_rows, part.first_class, part.n_classes, values, 1, part.width)


# ---- What is known of a tile's rows ----

cdef struct Board:
    # (n_chunks, width) each: the states of the chunks
    void *chunk_maximum         # floating
    double *chunk_sum
    double *chunk_ties
    double *chunk_cost          # where classes have masses: sum of mass * (maximum - x)
    double *chunk_mass          # with probability targets: sum of masses
    # (width,) each: the states, which are those of a single chunk, and numbers of the rows
    void *maximum               # floating
    double *sum                 # of exp(x - M) over the classes below the maximum
    double *ties                # how many other classes share it; NaN if the row holds a NaN
    void *at_target             # floating, the target's logit
    double *factor              # PROBABILITY, GRADIENT: exp(x - M) times factor + factor_low is a class's value
    double *factor_low
    double *scale               # GRADIENT: what a mass is multiplied by
    void *a                     # floating: LOG_PROBABILITY: (x - a) + b is the value
    void *b                     # floating; GRADIENT: the target's value
    bint *special               # whether some row is not finite


cdef Py_ssize_t board_size(Py_ssize_t width, Py_ssize_t n_chunks) noexcept nogil:
    """In bytes, for the larger dtype; a multiple of 64."""
    return (8 * width * (5 * n_chunks + 9) + 64 + 63) // 64 * 64


cdef Board board_at(char *memory, Py_ssize_t width, Py_ssize_t n_chunks) noexcept nogil:
    cdef Board board
    cdef double *p = <double *>memory
    board.maximum = p
    board.sum = p + width
    board.ties = p + 2 * width
    board.at_target = p + 3 * width
    board.factor = p + 4 * width
    board.factor_low = p + 5 * width
    board.scale = p + 6 * width
    board.a = p + 7 * width
    board.b = p + 8 * width
    p += 9 * width
    board.chunk_maximum = p
    board.chunk_sum = p + n_chunks * width
    board.chunk_ties = p + 2 * n_chunks * width
    board.chunk_cost = p + 3 * n_chunks * width
    board.chunk_mass = p + 4 * n_chunks * width
    board.special = <bint *>(p + 5 * n_chunks * width)
    if n_chunks == 1:
        board.maximum, board.sum, board.ties = board.chunk_maximum, board.chunk_sum, board.chunk_ties
    return board


# ---- Three steps: measure the chunks, finish the rows, write the chunks ----

cdef bint find_special(const floating *maximum, const double *ties, Py_ssize_t n_rows) noexcept nogil:
    """Whether there is a row whose result is not finite: its maximum is infinite, or it holds a NaN."""
    cdef Py_ssize_t row
    cdef int found = 0
    for row in range(n_rows):
        found |= (maximum[row] - maximum[row] != 0) | (ties[row] != ties[row])
    return found


cdef void find_output(const Task *task, Part *part, Py_ssize_t item) noexcept nogil:
    """Where the part's output lies, if it is to be fetched while the part is measured: then writing need not wait. Of
    one that goes past the cache come the lines at the ends, which it shares with its neighbours."""
    cdef Py_ssize_t offset
    if not task.fetch_output or not task.out.rows and part.orientation == ROWS:
        return
    row_offsets(&task.out, part.first_row, 1, &offset)
    if task.stream:
        prefetch(task.out.data + offset)
        prefetch(task.out.data + offset + part.n_rows * task.n_classes * item - 1)
        return
    part.output.start = task.out.data + offset
    part.output.row_step = item if task.out.columns else task.n_classes * item
    part.output.class_step = task.out.class_stride if task.out.columns else 16 * item


cdef void measure(
    const Task *task, Part *part, const floating *x, Py_ssize_t stride, floating *terms, floating *maximum,
    double *sum, double *ties,
) noexcept nogil:
    """State of each row in a chunk; where the maximum is infinite, ties is 0, or NaN if the row holds a NaN."""
    cdef Py_ssize_t n = part.n_classes
    cdef Py_ssize_t row, j
    cdef const floating *first
    find_output(task, part, <Py_ssize_t>sizeof(floating))
    if part.orientation == COLUMNS:
        measure_columns(x, stride, n, part.width, are_near(task.n_classes), &part.ahead, &part.output, terms, maximum,
                        sum, ties)
    else:
        measure_rows(x, part.n_rows, n, stride, part.n_rows * (stride if n == task.n_classes else n),
                     part.output.start, task.keep_terms, part.term_stride, terms, maximum, sum, ties)
    if not find_special(<const floating *>maximum, <const double *>ties, part.n_rows):
        return
    for row in range(part.n_rows):
        if isinf(maximum[row]):
            sum[row] = 0
            first = x + row * (stride if part.orientation == ROWS else 1)
            ties[row] = NAN if has_nan(first, n, 1 if part.orientation == ROWS else stride) else 0
            for j in range(n if task.keep_terms else 0):
                # A chunk of nothing but -inf: the row's other chunks decide.
                terms[row * part.term_stride + j if part.orientation == ROWS else j * part.width + row] = 0


cdef inline Py_ssize_t place_of(int64_t target, Py_ssize_t n_classes) noexcept nogil:
    """The target. It was checked, but another thread may have changed it since: never outside the row."""
    return target if 0 <= target < n_classes else 0


cdef inline bint has_masses(const Task *task) noexcept nogil:
    return task.mass != NULL or task.has_probabilities


cdef void measure_masses(
    const Task *task, Board *board, Part *part, Py_ssize_t chunk, const floating *x, Py_ssize_t stride,
    floating *room, floating *spare,
) noexcept nogil:
    cdef const floating *maximum = <const floating *>board.chunk_maximum + chunk * part.width
    cdef double *cost = board.chunk_cost + chunk * part.width
    cdef double *total = board.chunk_mass + chunk * part.width
    cdef Py_ssize_t mass_stride = 0, row, j
    cdef int row_step = 0, found = 0
    cdef const floating *mass = take_mass(task, part, room, spare, False, &mass_stride, &row_step)
    cdef floating of_class, distance
    if part.orientation == ROWS:
        cost_of_rows(x, part.n_rows, part.n_classes, stride, mass, mass_stride, row_step == 0, maximum,
                     cost, total)
    else:
        cost_of_columns(x, stride, part.n_classes, task.n_classes * <Py_ssize_t>sizeof(floating) <= ALWAYS_LANES,
                        part.width, mass, mass_stride, row_step, maximum, cost, total)
    if row_step == 0:
        for row in range(part.n_rows):
            total[row] = task.chunk_mass[chunk]
    for row in range(part.n_rows):
        found |= cost[row] != cost[row]
    for row in range(part.n_rows if found else 0):
        if cost[row] == cost[row]:
            continue
        # No mass at an infinite distance, infinite summands' carries, or a row that holds a NaN, whose loss is that.
        cost[row] = 0
        for j in range(part.n_classes):
            if part.orientation == ROWS:
                of_class = mass[row * mass_stride + j]
                distance = x[row * stride + j]
            else:
                of_class = mass[j * mass_stride + row * row_step]
                distance = x[j * stride + row]
            if of_class != 0:   # a chunk of nothing but -inf is infinitely far from the row's maximum
                cost[row] += of_class * (maximum[row] - distance if maximum[row] > -INFINITY else <floating>INFINITY)


cdef Py_ssize_t side_by_side(
    const Task *task, Py_ssize_t n_rows, Py_ssize_t chunk, Py_ssize_t end_chunk,
) noexcept nogil:
    """How many chunks from `chunk` on are measured together: whole ones of a single row, as if they were rows."""
    cdef Py_ssize_t n = task.n_classes // CHUNK - chunk
    if n_rows > 1 or not task.x.rows or task.has_added or task.temperature != 1 or task.orientation == COLUMNS:
        return 1
    n = n if n < end_chunk - chunk else end_chunk - chunk
    n = n if n < FOLD else FOLD
    return n if n > 1 else 1


cdef void measure_chunks(
    const Task *task, Board *board, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t chunk,
    Py_ssize_t n_chunks,        # side_by_side()
    floating *room, floating *terms, floating *mass_room, floating *spare,
) noexcept nogil:
    cdef Part part = part_of(task, first_row, n_rows, chunk)
    cdef Py_ssize_t first = chunk * part.width, stride = 0, row, target, i
    cdef const floating *x = take_logits(task, &part, room, spare, False, &stride)
    cdef Py_ssize_t row_step = stride if part.orientation == ROWS else 1
    cdef Py_ssize_t class_step = 1 if part.orientation == ROWS else stride
    cdef const int64_t *targets
    cdef floating *at_target = <floating *>board.at_target
    if n_chunks > 1:            # the part's rows are chunks, each with its own room for terms
        part.n_rows = n_chunks
        part.term_stride = room_size(task, ROWS, 1)
        stride = CHUNK
    measure(task, &part, x, stride, terms, <floating *>board.chunk_maximum + first, board.chunk_sum + first,
            board.chunk_ties + first)
    part.n_rows = n_rows
    if has_masses(task):
        for i in range(n_chunks):
            part.first_class = (chunk + i) * CHUNK
            measure_masses(task, board, &part, chunk + i, x + i * CHUNK, stride, mass_room, spare)
        part.first_class = chunk * CHUNK
    if task.target != NULL:
        targets = task.target + first_row
        if task.n_chunks == 1:
            for row in range(n_rows):
                at_target[row] = x[row * row_step + place_of(targets[row], task.n_classes) * class_step]
            return
        for row in range(n_rows):
            target = place_of(targets[row], task.n_classes) - part.first_class
            if 0 <= target < part.n_classes + (n_chunks - 1) * CHUNK:
                at_target[row] = x[row * row_step + target * class_step]


cdef inline bint is_ignored(const Task *task, Py_ssize_t row) noexcept nogil:
    return task.target != NULL and task.has_ignore_index and task.target[row] == task.ignore_index


cdef struct Masses:             # of the rows of a tile
    bint plain                  # all of it at the target, and 1; gradients are all scaled alike: nothing else is set
    double[256] of_target       # the target's mass but for what every class has
    double[256] of_class        # what the target's class has as every class has
    double[256] shared          # the sum of what every class has
    double[256] cost            # sum of that * (maximum - x)
    double[256] scale           # of the gradient


cdef void find_masses(
    const Task *task, const Board *board, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t width,
    Py_ssize_t n_chunks, Masses *masses, floating like,
) noexcept nogil:
    cdef const floating *maximum = <const floating *>board.maximum
    cdef const floating *of_chunk
    cdef Py_ssize_t row, chunk, target
    cdef double mass, apart
    masses.plain = (
        task.kept == 1 and task.weight == NULL and task.sample_weight == NULL and task.grad_weight == NULL
        and not has_masses(task))
    if masses.plain:
        return
    for row in range(width):
        masses.of_target[row] = task.kept if task.target != NULL else 0
        masses.scale[row] = task.scale
        masses.shared[row] = masses.cost[row] = 0
    if task.grad_weight != NULL:
        for row in range(n_rows):
            masses.scale[row] *= task.grad_weight[first_row + row]
    if task.target != NULL and (task.weight != NULL or task.mass != NULL):
        for row in range(n_rows):
            target = place_of(task.target[first_row + row], task.n_classes)
            if task.weight != NULL:
                masses.of_target[row] = task.kept * task.weight[target]
            masses.of_class[row] = (<const floating *>task.mass)[target] if task.mass != NULL else <floating>0
    if not has_masses(task):
        return
    for chunk in range(n_chunks):
        of_chunk = <const floating *>board.chunk_maximum + chunk * width
        for row in range(n_rows):
            mass = board.chunk_mass[chunk * width + row]
            apart = <double>maximum[row] - of_chunk[row]
            masses.shared[row] += mass
            masses.cost[row] += board.chunk_cost[chunk * width + row] + (mass * apart if 0 < apart < INFINITY else 0)


cdef void pick(
    const Task *task, const floating *shift, const double *lost, const double *ties, const floating *maximum,
    Py_ssize_t first_row, Py_ssize_t n_rows,
) noexcept nogil:
    """Log-probabilities at the indices of each row: as LOGS has them."""
    cdef Py_ssize_t[256] offsets
    cdef Py_ssize_t row, k, place
    cdef floating x, low, temperature = <floating>task.temperature
    row_offsets(&task.x, first_row, n_rows, offsets)
    for row in range(n_rows):
        low = <floating>(0 - lost[row])
        for k in range(task.n_indices):
            place = (first_row + row) * task.n_indices + k
            memcpy(&x, task.x.data + offsets[row] + place_of(task.index[place], task.n_classes) * task.x.class_stride,
                   sizeof(floating))
            if task.temperature != 1:
                x = quotient(x, temperature)
            x = (x - shift[row]) + low
            if isnan(ties[row]) or isinf(maximum[row]):
                x = <floating>NAN
            (<floating *>task.picked)[place] = x


cdef void finish_rows(
    const Task *task, Board *board, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t width, Py_ssize_t n_chunks,
    floating like,              # of the dtype
) noexcept nogil:
    cdef floating *maximum = <floating *>board.maximum
    cdef const floating *at_target = <const floating *>board.at_target
    cdef floating *a = <floating *>board.a
    cdef floating *b = <floating *>board.b
    cdef double *sum = board.sum
    cdef double *ties = board.ties
    cdef Py_ssize_t row, chunk
    cdef double high, m
    cdef double[256] factor, factor_low, numerator, others, lost, loss, logs
    cdef floating[256] top, shift
    cdef Masses masses
    cdef bint special, near = are_near(task.n_classes)
    if n_chunks > 1:            # else they are the same arrays
        memcpy(maximum, board.chunk_maximum, width * sizeof(floating))
        memcpy(sum, board.chunk_sum, width * sizeof(double))
        memcpy(ties, board.chunk_ties, width * sizeof(double))
    for chunk in range(1, n_chunks):
        for row in range(n_rows):
            merge(maximum + row, sum + row, ties + row, (<floating *>board.chunk_maximum)[chunk * width + row],
                  board.chunk_sum[chunk * width + row], board.chunk_ties[chunk * width + row])
    special = find_special(<const floating *>maximum, <const double *>ties, n_rows)
    board.special[0] = special
    if task.target != NULL or task.has_probabilities:
        find_masses(task, board, first_row, n_rows, width, n_chunks, &masses, like)
    if task.output == PROBABILITY or task.output == GRADIENT:
        # Also for the columns that fill up the lanes: choose_numbers() looks at all.
        for row in range(width):
            numerator[row] = task.scale if task.output == GRADIENT else 1
        if task.output == GRADIENT and not masses.plain:
            for row in range(width):
                numerator[row] = masses.scale[row] * (masses.of_target[row] + masses.shared[row])
        if near:
            for row in range(width):
                top[row] = <floating>unit(like)
        else:
            for row in range(width):
                top[row] = term_at(maximum[row], maximum[row], False)
        for row in range(width):
            share(numerator[row], top[row], sum[row], ties[row], &factor[row], &factor_low[row])
        memcpy(board.factor, factor, width * sizeof(double))
        memcpy(board.factor_low, factor_low, width * sizeof(double))
    if task.output == GRADIENT and has_masses(task):
        memcpy(board.scale, masses.scale, width * sizeof(double))
    if task.output == GRADIENT and task.target != NULL:
        # Of the target's own mass p_t - 1 = -(sum of all terms but the target's) / (sum of all terms) is taken, so that
        # it keeps its digits; then come the masses that smoothing gives to all classes.
        for row in range(n_rows):
            shift[row] = term_at(at_target[row], maximum[row], near)
        for row in range(n_rows):
            m = all_but(shift[row], top[row], sum[row], ties[row])
            if task.mass == NULL:
                b[row] = away_from(factor[row], factor_low[row], m, like)
            else:
                high = shift[row] * (1 / unit(like))
                high = (masses.shared[row] * high - masses.of_target[row] * m) / (m + high)
                b[row] = <floating>(masses.scale[row] * (high - masses.of_class[row])) + <floating>0    # never -0.0
    if task.output == PROBABILITY:
        return
    if near:                    # the reference is the maximum
        memcpy(others, sum, n_rows * sizeof(double))
    else:
        for row in range(n_rows):
            others[row] = others_of(maximum[row], sum[row])
    for row in range(n_rows):
        logarithm(maximum[row], others[row], ties[row], &shift[row], &lost[row], &logs[row])
    if task.output == LOG_PROBABILITY:
        memcpy(a, shift, n_rows * sizeof(floating))
        for row in range(n_rows):
            b[row] = <floating>(0 - lost[row])  # never -0.0, so that the result is not
    if task.logsumexp != NULL:
        memcpy(<floating *>task.logsumexp + first_row, shift, n_rows * sizeof(floating))
        if special:
            for row in range(n_rows):
                if isnan(ties[row]) or isinf(maximum[row]):
                    like = <floating>NAN if isnan(ties[row]) else maximum[row]
                    (<floating *>task.logsumexp)[first_row + row] = like
    if task.index != NULL:
        pick(task, <const floating *>shift, <const double *>lost, <const double *>ties, <const floating *>maximum,
             first_row, n_rows)
    if task.target == NULL and not task.has_probabilities:
        return
    for row in range(n_rows if task.target != NULL else 0):
        loss[row] = loss_of(at_target[row], shift[row], lost[row])
    if not masses.plain:
        for row in range(n_rows):
            m = masses.of_target[row]
            loss[row] = m * loss[row] if m != 0 else 0
        if has_masses(task):
            for row in range(n_rows):
                loss[row] += masses.cost[row] + masses.shared[row] * logs[row]
        if task.sample_weight != NULL:
            for row in range(n_rows):
                m = task.sample_weight[first_row + row]
                loss[row] = m * loss[row] if m != 0 else 0
        for row in range(n_rows):
            loss[row] += 0.0        # never -0.0
    if special:
        for row in range(n_rows):
            if isnan(ties[row]) or isinf(maximum[row]):
                loss[row] = NAN
    if task.has_ignore_index:
        for row in range(n_rows):
            loss[row] = 0 if task.target[first_row + row] == task.ignore_index else loss[row]
    if task.loss_f32 != NULL:
        for row in range(n_rows):
            task.loss_f32[first_row + row] = <float>loss[row] + <float>0    # too small a one may be -0.0
    if task.loss_f64 != NULL:
        memcpy(task.loss_f64 + first_row, loss, n_rows * sizeof(double))


cdef enum Formula:
    TERMS                       # term * (FACTOR + FACTOR_LOW), source being terms
    LOGITS                      # the same, source being logits: term * UNSCALE first
    LOGS                        # (logit - FACTOR) + FACTOR_LOW

cdef enum:                      # what a formula takes from a row
    FACTOR
    FACTOR_LOW
    ORIGIN
    LEAST
    MAGIC
    UNSCALE
    N_NUMBERS


cdef inline void write_group(
    Formula formula, const floating *source, const floating *numbers, int step, floating *to,
) noexcept nogil:
    """Sixteen values; number k of lane l is numbers[k * step + l]."""
    cdef floating[16] value     # read before anything is written: to may be source
    cdef int l
    for l in range(16):
        if formula == LOGS:
            value[l] = (source[l] - numbers[FACTOR * step + l]) + numbers[FACTOR_LOW * step + l]
        else:
            value[l] = source[l]
            if formula == LOGITS:
                value[l] = term(value[l], numbers[ORIGIN * step + l], numbers[LEAST * step + l],
                                numbers[MAGIC * step + l], True) * numbers[UNSCALE * step + l]
            value[l] = mul_add(value[l], numbers[FACTOR * step + l], value[l] * numbers[FACTOR_LOW * step + l])
    copy_lanes(<const floating *>&value[0], to)


cdef inline void write_row(
    Formula formula, const floating *source, Py_ssize_t n_classes,
    const floating *lanes,      # IN   (N_NUMBERS, 16), each number sixteen times
    floating *to,
) noexcept nogil:
    """A last group of fewer than 16 overlaps the one before: its values first, written last."""
    cdef floating[16] last
    cdef Py_ssize_t j = 0
    cdef int l
    if n_classes < 16:
        for l in range(16):
            last[l] = source[l if l < n_classes else 0]
        write_group(formula, <const floating *>&last[0], lanes, 16, &last[0])
        memcpy(to, last, n_classes * sizeof(floating))
        return
    write_group(formula, source + n_classes - 16, lanes, 16, &last[0])
    while j + 16 < n_classes:
        write_group(formula, source + j, lanes, 16, to + j)
        j += 16
    memcpy(to + n_classes - 16, last, sizeof(last))


cdef inline void write_rows(
    Formula formula, const floating *source, Py_ssize_t stride, Py_ssize_t n_rows, Py_ssize_t n_classes,
    const floating *numbers, floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    cdef Py_ssize_t row
    cdef int l, k
    cdef floating[96] lanes     # (N_NUMBERS, 16)
    for row in range(n_rows):
        for k in range(6 if formula == LOGITS else 2):
            for l in range(16):
                lanes[16 * k + l] = numbers[MAX_TILE_ROWS * k + row]
        write_row(formula, source + row * stride, n_classes, <const floating *>&lanes[0], to + row * to_stride)


cdef inline void write_columns(
    Formula formula, const floating *source, Py_ssize_t stride, Py_ssize_t width, Py_ssize_t n_classes,
    const floating *numbers, floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    cdef Py_ssize_t row, j
    for j in range(n_classes):
        row = 0
        while row < width:
            write_group(formula, source + j * stride + row, numbers + row, MAX_TILE_ROWS, to + j * to_stride + row)
            row += 16


cdef inline void write_values(
    Formula formula, Orientation orientation, const floating *source, Py_ssize_t stride, Py_ssize_t n_rows,
    Py_ssize_t n_classes, const floating *numbers, floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    if orientation == ROWS:
        write_rows(formula, source, stride, n_rows, n_classes, numbers, to, to_stride)
    else:
        write_columns(formula, source, stride, n_rows, n_classes, numbers, to, to_stride)


cdef void take_off_masses(
    const Part *part, const floating *mass, Py_ssize_t stride, int row_step, const double *scale, floating *to,
    Py_ssize_t to_stride,
) noexcept nogil:
    """The second part of a gradient. A pass of its own: as an option of the formulas it would double their loops."""
    cdef Py_ssize_t row, j
    cdef floating[256] of_row
    cdef const floating *p
    cdef floating *q
    for row in range(part.width):
        of_row[row] = <floating>-scale[row]
    if part.orientation == ROWS:
        for row in range(part.n_rows):
            p = mass + row * stride
            q = to + row * to_stride
            for j in range(part.n_classes):
                q[j] = mul_add(p[j], of_row[row], q[j])
        return
    for j in range(part.n_classes):
        p = mass + j * stride
        q = to + j * to_stride
        if row_step:
            for row in range(part.width):
                q[row] = mul_add(p[row], of_row[row], q[row])
        else:
            for row in range(part.width):
                q[row] = mul_add(p[0], of_row[row], q[row])


cdef void mend(
    const Task *task, const Part *part, const Board *board, floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    """What the formulas do not give: a gradient's target entry, rows that are NaN, rows that are ignored."""
    cdef Py_ssize_t row, j, target
    cdef Py_ssize_t row_step = to_stride if part.orientation == ROWS else 1
    cdef Py_ssize_t class_step = 1 if part.orientation == ROWS else to_stride
    cdef const int64_t *targets
    cdef const floating *at_target = <const floating *>board.b
    cdef floating blank
    cdef int found = board.special[0]
    if task.output == GRADIENT and task.target != NULL:
        targets = task.target + part.first_row
        if task.n_chunks == 1:
            for row in range(part.n_rows):
                to[row * row_step + place_of(targets[row], task.n_classes) * class_step] = at_target[row]
        else:
            for row in range(part.n_rows):
                target = place_of(targets[row], task.n_classes) - part.first_class
                if 0 <= target < part.n_classes:
                    to[row * row_step + target * class_step] = at_target[row]
        if task.has_ignore_index:
            for row in range(part.n_rows):
                found |= targets[row] == task.ignore_index
    if not found:
        return
    for row in range(part.n_rows):
        if is_ignored(task, part.first_row + row):
            blank = 0
        elif isinf((<floating *>board.maximum)[row]) or isnan(board.ties[row]):
            blank = NAN
        else:
            continue
        for j in range(part.n_classes):
            to[row * row_step + j * class_step] = blank


cdef bint choose_numbers(
    const Task *task, const Board *board, const Part *part, Py_ssize_t chunk, floating *numbers,
) noexcept nogil:
    """Fill in the numbers of PROBABILITY and GRADIENT; whether they are those for terms that were kept.

    Terms refer to the M of their chunk, the row's numbers to that of its maximum. Both are multiples of ln 2 if the
    origins are equal, so that the factor between them is a power of two, and exact.
    """
    cdef const floating *chunk_maximum = <const floating *>board.chunk_maximum + chunk * part.width
    cdef const floating *maximum = <const floating *>board.maximum
    cdef floating origin, least, magic, chunk_origin, chunk_magic
    cdef double[256] power
    cdef double apart
    cdef int fits = task.keep_terms and not board.special[0]
    cdef Py_ssize_t row
    for row in range(part.width):
        power[row] = 1
    if task.n_chunks > 1 and fits:
        for row in range(part.width):
            refer(maximum[row], False, &origin, &least, &magic)
            refer(chunk_maximum[row], False, &chunk_origin, &least, &chunk_magic)
            apart = <double>chunk_magic - <double>magic     # n of the row - n of the chunk
            fits &= (origin == chunk_origin) & (apart < 60)
            power[row] = two_to_the(-(apart if apart < 60 else 60))
    for row in range(part.width):
        fits &= is_large(board.factor[row] * power[row], numbers[0]) | (board.factor[row] == 0)
    if not fits:
        for row in range(part.width):
            power[row] = 1
        for row in range(part.width):
            refer(maximum[row], are_near(task.n_classes), &numbers[ORIGIN * MAX_TILE_ROWS + row],
                  &numbers[LEAST * MAX_TILE_ROWS + row], &numbers[MAGIC * MAX_TILE_ROWS + row])
    for row in range(part.width):
        split_factor(board.factor[row], board.factor_low[row], power[row], &numbers[FACTOR * MAX_TILE_ROWS + row],
                     &numbers[FACTOR_LOW * MAX_TILE_ROWS + row], &numbers[UNSCALE * MAX_TILE_ROWS + row])
    return fits


cdef void write_chunk(
    const Task *task, const Board *board, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t chunk, floating *room,
    bint is_there,              # rooms still hold the chunk's logits and masses
    floating *values,           # INOUT terms if task.keep_terms
    floating *mass_room, floating *spare,
) noexcept nogil:
    cdef Part part = part_of(task, first_row, n_rows, chunk)
    cdef const floating *x = NULL
    cdef const floating *mass = NULL
    cdef floating[6 * 256] numbers      # (N_NUMBERS, MAX_TILE_ROWS)
    cdef Py_ssize_t stride = 0, to_stride = 0, mass_stride = 0
    cdef int row_step = 0
    cdef floating *to
    if task.output == LOG_PROBABILITY and task.x.rows and task.out.rows and part.n_classes >= 16:
        is_there = is_there and part.orientation == ROWS
        part.orientation = ROWS     # needs no exponentials: nothing to transpose
        part.width = n_rows
    to = destination(task, &part, values, &to_stride)
    if task.output == LOG_PROBABILITY:
        x = take_logits(task, &part, room, spare, is_there, &stride)
        memcpy(&numbers[FACTOR * MAX_TILE_ROWS], board.a, part.width * sizeof(floating))
        memcpy(&numbers[FACTOR_LOW * MAX_TILE_ROWS], board.b, part.width * sizeof(floating))
        write_values(LOGS, part.orientation, x, stride, part.width, part.n_classes,
                     <const floating *>&numbers[0], to, to_stride)
    elif choose_numbers(task, board, &part, chunk, &numbers[0]):
        write_values(TERMS, part.orientation, <const floating *>values, part.term_stride, part.width, part.n_classes,
                     <const floating *>&numbers[0], to, to_stride)
    else:
        x = take_logits(task, &part, room, spare, is_there, &stride)
        write_values(LOGITS, part.orientation, x, stride, part.width, part.n_classes, <const floating *>&numbers[0],
                     to, to_stride)
    if task.output == GRADIENT and has_masses(task):
        mass = take_mass(task, &part, mass_room, spare, is_there, &mass_stride, &row_step)
        take_off_masses(&part, mass, mass_stride, row_step, <const double *>board.scale, to, to_stride)
    mend(task, &part, board, to, to_stride)
    if to == values:
        put(task, &part, values, room)


# ---- The build's functions ----

cdef inline void run_tile(
    const Task *task, Steps steps, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t first_chunk,
    Py_ssize_t end_chunk, char *memory, char *scratch, floating like,
) noexcept nogil:
    cdef Py_ssize_t n_chunks = (task.n_classes + CHUNK - 1) // CHUNK
    cdef Part part = part_of(task, first_row, n_rows, 0)
    cdef Board board = board_at(memory, part.width, n_chunks)
    cdef Py_ssize_t size = room_size(task, part.orientation, part.width)
    cdef Py_ssize_t step = size if task.keep_terms else 0
    cdef floating *room = <floating *>scratch
    cdef floating *terms = room + size
    cdef floating *mass_room = terms + term_rooms(task) * size
    cdef floating *spare = mass_room + size
    cdef Py_ssize_t chunk, n
    if task.output == SOFTMAX_BACKWARD:     # a constant in either: the loops are other ones
        backward_tile(task, first_row, n_rows, False, room, terms, mass_room, spare)
        return
    if task.output == LOG_SOFTMAX_BACKWARD:
        backward_tile(task, first_row, n_rows, True, room, terms, mass_room, spare)
        return
    if steps & MEASURE:
        chunk = first_chunk
        while chunk < end_chunk:
            n = side_by_side(task, n_rows, chunk, end_chunk)
            measure_chunks(task, &board, first_row, n_rows, chunk, n, room, terms + chunk * step, mass_room, spare)
            chunk += n
    if steps & FINISH:
        finish_rows(task, &board, first_row, n_rows, part.width, n_chunks, like)
    if steps & WRITE and task.output != NOTHING:
        for chunk in range(first_chunk, end_chunk):
            write_chunk(task, &board, first_row, n_rows, chunk, room, (steps & MEASURE) != 0 and n_chunks == 1,
                        terms + chunk * step, mass_room, spare)


cdef void tile_f32(
    const Task *task, Steps steps, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t first_chunk,
    Py_ssize_t end_chunk, char *board, char *scratch,
) noexcept nogil:
    run_tile(task, steps, first_row, n_rows, first_chunk, end_chunk, board, scratch, <float>0)


cdef void tile_f64(
    const Task *task, Steps steps, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t first_chunk,
    Py_ssize_t end_chunk, char *board, char *scratch,
) noexcept nogil:
    run_tile(task, steps, first_row, n_rows, first_chunk, end_chunk, board, scratch, <double>0)


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
