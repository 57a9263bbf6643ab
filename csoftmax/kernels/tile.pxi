# One tile from the arrays and back: take its elements, measure its rows, finish their numbers, write its classes.
# Everything is computed in scratch and put out at the end, so the output may be the input.

from libc.stdint cimport int64_t, uint64_t

from csoftmax.kernels.table cimport (
    ALWAYS_LANES, CHUNK, COLUMNS, FINISH, GRADIENT, LOG_PROB, LOG_PROBABILITY, LOG_SOFTMAX_BACKWARD, LOGSUMEXP, LOSS,
    MAX_TILE_ROWS, MEASURE, NOTHING, PROBABILITY, ROWS, SHORT, SOFTMAX_BACKWARD, WRITE, Kernels, Layout, Orientation,
    Output, RowNumber, State, Steps, Task, numbers_size, padded, room_size, term_rooms,
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


cdef const floating *take_logits(
    const Task *task, Part *part, floating *room, floating *added_room, bint is_there, Py_ssize_t *stride,
) noexcept nogil:
    """take() of x, with `other` added if there is something to add."""
    cdef Py_ssize_t n, m, i, j, added_stride = 0
    cdef const floating *x = take(task, &task.x, part, room, is_there, stride)
    cdef const floating *added
    cdef floating *to
    if not task.has_added:
        return x
    n, m = part.n_rows, part.n_classes
    if part.orientation == COLUMNS:
        n, m = m, part.width
    if is_there:
        stride[0] = m
        return room
    added = take(task, &task.other, part, added_room, False, &added_stride)
    for i in range(n):
        to = room + i * m
        for j in range(m):
            # A weight of zero, whose logarithm is -inf, takes out also what is infinite or NaN.
            to[j] = -<floating>INFINITY if added[i * added_stride + j] == -INFINITY else (
                x[i * stride[0] + j] + added[i * added_stride + j])
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


cdef Py_ssize_t board_size(Py_ssize_t width, Py_ssize_t n_chunks) noexcept nogil:
    """In bytes, for the larger dtype; a multiple of 64."""
    return (8 * width * (CHUNK_NUMBERS * n_chunks + ROW_NUMBERS) + 64 + 63) // 64 * 64


cdef Board board_at(char *memory, Py_ssize_t width, Py_ssize_t n_chunks) noexcept nogil:
    cdef Board board
    cdef double *p = <double *>memory
    board.maximum = p
    board.sum = p + width
    board.carry = p + 2 * width
    board.ties = p + 3 * width
    board.at_target = p + 4 * width
    board.factor = p + 5 * width
    board.factor_low = p + 6 * width
    board.scale = p + 7 * width
    board.a = p + 8 * width
    board.b = p + 9 * width
    p += ROW_NUMBERS * width
    board.chunk_maximum = p
    board.chunk_sum = p + n_chunks * width
    board.chunk_ties = p + 2 * n_chunks * width
    board.chunk_cost = p + 3 * n_chunks * width
    board.chunk_mass = p + 4 * n_chunks * width
    board.special = <bint *>(p + CHUNK_NUMBERS * n_chunks * width)
    if n_chunks == 1:
        board.maximum, board.sum, board.ties = board.chunk_maximum, board.chunk_sum, board.chunk_ties
    return board


cdef inline Board rows_from(const Board *board, Py_ssize_t first, floating like) noexcept nogil:
    """The board with the numbers of its rows from `first` on."""
    cdef Board part = board[0]
    part.maximum = <floating *>part.maximum + first
    part.sum += first
    part.carry += first
    part.ties += first
    part.at_target = <floating *>part.at_target + first
    part.factor += first
    part.factor_low += first
    part.scale += first
    part.a = <floating *>part.a + first
    part.b = <floating *>part.b + first
    return part


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
    cdef floating[5] divide     # (N_DIVIDE,)
    find_output(task, part, <Py_ssize_t>sizeof(floating))
    if task.temperature != 1:
        choose_divisor(task.temperature, &divide[0])
    if part.orientation == COLUMNS:
        measure_columns(x, stride, n, part.width, kind_of(task.n_classes, task.temperature),
                        <const floating *>&divide[0], &part.ahead, &part.output, terms, maximum, sum, ties)
    else:
        measure_rows(x, part.n_rows, n, stride, <const floating *>&divide[0] if task.temperature != 1 else NULL,
                     part.n_rows * (stride if n == task.n_classes else n), part.output.start, task.keep_terms,
                     part.term_stride, terms, maximum, sum, ties)
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
        found |= not is_ordinary_cost(cost[row], maximum[row])
    for row in range(part.n_rows):
        cost[row] *= 0.5
    for row in range(part.n_rows if found else 0):
        if is_ordinary_cost(2 * cost[row], maximum[row]):
            continue
        if part.orientation == ROWS:
            cost[row] = careful_cost(x + row * stride, 1, mass + row * mass_stride, 1, part.n_classes, maximum[row])
        else:
            cost[row] = careful_cost(x + row, stride, mass + row * row_step, mass_stride, part.n_classes, maximum[row])


cdef inline bint is_ordinary_cost(double cost, floating maximum) noexcept nogil:
    """Whether no product that matters has left the dtype's range: 2**24 that are lost to subnormals are too small to be
    seen beside it, and none is infinite. (A sum of 0 is not: all of it may be lost.)"""
    cdef double least = 8.1e-31 if floating is float else 1e-260        # 2**-100, 2**-863
    cdef double size = fabs(cost)
    return least < size < INFINITY


cdef inline bint has_far_mass(
    const floating *x, Py_ssize_t class_step, const floating *mass, Py_ssize_t mass_step, Py_ssize_t n_classes,
    floating maximum,
) noexcept nogil:
    """Whether a class that is not the maximum has a mass."""
    cdef Py_ssize_t j
    cdef int found = 0
    for j in range(n_classes):
        found |= (mass[j * mass_step] != 0) & (x[j * class_step] != maximum)
    return found


cdef double careful_cost(
    const floating *x, Py_ssize_t class_step, const floating *mass, Py_ssize_t mass_step, Py_ssize_t n_classes,
    floating maximum,
) noexcept nogil:
    """Half the sum of mass * (maximum - x), one by one: no mass at an infinite distance is 0, and what leaves the
    dtype's range is itself. Rows whose masses are all at the maximum are the common reason to come here."""
    cdef double cost = 0, carry = 0, of_class, distance
    cdef double scale = 1       # of the products, which so stay in the range of float64
    cdef Py_ssize_t j
    if maximum == -INFINITY:
        return cost_of_nothing(mass, mass_step, n_classes)
    if not (has_far_mass(x, 1, mass, 1, n_classes, maximum) if class_step == 1 and mass_step == 1 else
            has_far_mass(x, class_step, mass, mass_step, n_classes, maximum)):
        return 0
    if floating is double:
        scale = 4.149515568880993e+180          # 2**600
        for j in range(n_classes):
            distance = half_difference(maximum, x[j * class_step])
            if mass[j * mass_step] != 0 and fabs(mass[j * mass_step] * distance) > 1e-80:
                scale = 2.4099198651028841e-181
    for j in range(n_classes):
        of_class = mass[j * mass_step]
        if of_class == 0 or x[j * class_step] == maximum:
            continue
        distance = half_difference(maximum, x[j * class_step])
        if (fabs(of_class) < 1) == (scale > 1):
            of_class *= scale
        else:
            distance *= scale
        cost = exact_sum(cost, carry, of_class * distance, 0, &carry)
    if fabs(cost) < INFINITY:
        cost += carry
    return cost / scale


cdef double cost_of_nothing(const floating *mass, Py_ssize_t mass_step, Py_ssize_t n_classes) noexcept nogil:
    """Of a chunk of nothing but -inf, which is infinitely far from the row's maximum."""
    cdef double cost = 0
    cdef Py_ssize_t j
    for j in range(n_classes):
        if mass[j * mass_step] != 0:
            cost += mass[j * mass_step] * INFINITY
    return cost


cdef Py_ssize_t side_by_side(
    const Task *task, Py_ssize_t n_rows, Py_ssize_t chunk, Py_ssize_t end_chunk,
) noexcept nogil:
    """How many chunks from `chunk` on are measured together: whole ones of a single row, as if they were rows."""
    cdef Py_ssize_t n = task.n_classes // CHUNK - chunk
    if n_rows > 1 or not task.x.rows or task.has_added or task.orientation == COLUMNS:
        return 1
    n = n if n < end_chunk - chunk else end_chunk - chunk
    n = n if n < FOLD else FOLD
    return n if n > 1 else 1


cdef void measure_chunks(
    const Task *task, Board *board, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t chunk,
    Py_ssize_t n_chunks,        # side_by_side()
    floating *terms, const Rooms *rooms,
) noexcept nogil:
    cdef Part part = part_of(task, first_row, n_rows, chunk)
    cdef floating *room = <floating *>rooms.logits
    cdef floating *spare = <floating *>rooms.spare
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
            measure_masses(task, board, &part, chunk + i, x + i * CHUNK, stride, <floating *>rooms.mass, spare)
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


cdef struct Masses:             # of the rows of a phase
    bint plain                  # all of it at the target, and 1; gradients are all scaled alike: nothing else is set
    double[64] of_target        # the target's mass but for what every class has
    double[64] of_class         # what the target's class has as every class has
    double[64] shared           # the sum of what every class has
    double[64] cost             # half the sum of that * (maximum - x)
    double[64] scale            # of the gradient


cdef inline void add_chunks_masses(
    const Task *task, const Board *board, Py_ssize_t first, Py_ssize_t n_rows, Py_ssize_t width, Py_ssize_t n_chunks,
    Masses *masses, floating like,
) noexcept nogil:
    """Sums over the chunks with what rounding takes: a million classes lose no digit."""
    cdef const floating *maximum = <const floating *>board.maximum + first
    cdef const floating *of_chunk
    cdef const double *chunk_mass
    cdef const double *chunk_cost
    cdef double[64] mass_carry, cost_carry
    cdef Py_ssize_t row, chunk
    cdef double apart
    for row in range(n_rows):
        mass_carry[row] = cost_carry[row] = 0
    for chunk in range(n_chunks):
        of_chunk = <const floating *>board.chunk_maximum + chunk * width + first
        chunk_mass = board.chunk_mass + chunk * width + first
        chunk_cost = board.chunk_cost + chunk * width + first
        for row in range(n_rows):
            apart = half_difference(maximum[row], of_chunk[row])
            apart = chunk_mass[row] * apart if 0 < apart < INFINITY else 0
            masses.shared[row] = exact_sum(masses.shared[row], mass_carry[row], chunk_mass[row], 0, &mass_carry[row])
            masses.cost[row] = exact_sum(
                masses.cost[row], cost_carry[row], chunk_cost[row] + apart, 0, &cost_carry[row])
    if n_chunks > 1:
        for row in range(n_rows):
            masses.shared[row] += mass_carry[row]
            masses.cost[row] += cost_carry[row] if fabs(cost_carry[row]) < INFINITY else 0
    if task.temperature != 1:
        for row in range(n_rows):
            masses.cost[row] /= task.temperature


cdef void find_masses(
    const Task *task, const Board *board, Py_ssize_t first_row, Py_ssize_t first, Py_ssize_t n_rows, Py_ssize_t width,
    Py_ssize_t board_width, Py_ssize_t n_chunks, Masses *masses, floating like,
) noexcept nogil:
    """Of n_rows rows from the tile's first_row + first on, and what fills up the lanes to width."""
    cdef Py_ssize_t row, target
    masses.plain = (
        task.kept == 1 and task.weight == NULL and task.sample_weight == NULL and task.grad_weight == NULL
        and not has_masses(task))
    if masses.plain:
        return
    first_row += first
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
    if has_masses(task):
        add_chunks_masses(task, board, first, n_rows, board_width, n_chunks, masses, like)


cdef void pick(
    const Task *task, const floating *shift, const floating *low, const double *ties, const floating *maximum,
    Py_ssize_t first_row, Py_ssize_t n_rows,
) noexcept nogil:
    """Log-probabilities at the indices of each row: as LOGS and DIVIDED_LOGS have them."""
    cdef Py_ssize_t[64] offsets
    cdef Py_ssize_t row, k, place
    cdef floating[5] divide     # (N_DIVIDE,)
    cdef floating x
    row_offsets(&task.x, first_row, n_rows, offsets)
    choose_divisor(task.temperature, &divide[0])
    for row in range(n_rows):
        for k in range(task.n_indices):
            place = (first_row + row) * task.n_indices + k
            memcpy(&x, task.x.data + offsets[row] + place_of(task.index[place], task.n_classes) * task.x.class_stride,
                   sizeof(floating))
            if task.temperature != 1:
                x = divided_log(x, shift[row], low[row], <const floating *>&divide[0])
            else:
                x = (x - shift[row]) + low[row]
            if isnan(ties[row]) or isinf(maximum[row]):
                x = <floating>NAN
            (<floating *>task.picked)[place] = x


cdef void merge_chunks(
    const Task *task, Board *board, Py_ssize_t n_rows, Py_ssize_t width, Py_ssize_t n_chunks, floating like,
) noexcept nogil:
    """The states of the rows from those of their chunks, in order."""
    cdef floating *maximum = <floating *>board.maximum
    cdef const floating *of_chunk = <const floating *>board.chunk_maximum
    cdef Reference kind = DIVIDED if task.temperature != 1 else FAR
    cdef Py_ssize_t row, chunk, i
    cdef State state, other
    memset(board.carry, 0, width * sizeof(double))
    if n_chunks == 1:           # they are the same arrays
        return
    other.carry = 0
    for row in range(width):
        state.maximum, state.sum, state.carry, state.ties = (
            of_chunk[row], board.chunk_sum[row], 0, board.chunk_ties[row])
        for chunk in range(1, n_chunks if row < n_rows else 1):
            i = chunk * width + row
            other.maximum, other.sum, other.ties = of_chunk[i], board.chunk_sum[i], board.chunk_ties[i]
            merge(&state, &other, kind, task.temperature, like)
        maximum[row] = <floating>state.maximum
        board.sum[row], board.carry[row], board.ties[row] = state.sum, state.carry, state.ties


cdef void finish_rows(
    const Task *task, Board *board, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t width, Py_ssize_t n_chunks,
    floating like,              # of the dtype
) noexcept nogil:
    cdef Py_ssize_t first, n
    merge_chunks(task, board, n_rows, width, n_chunks, like)
    board.special[0] = find_special(<const floating *>board.maximum, <const double *>board.ties, n_rows)
    for first in range(0, width, 64):           # by PHASE_ROWS
        n = n_rows - first if n_rows - first < PHASE_ROWS else PHASE_ROWS
        finish_phase(task, board, first_row, first, n, width - first if width - first < PHASE_ROWS else PHASE_ROWS,
                     width, n_chunks, like)


cdef inline void mend_overflows(
    const Task *task, const Masses *masses, const floating *at_target, const floating *maximum, const double *logs,
    Py_ssize_t first_row, Py_ssize_t n_rows, double *loss,
) noexcept nogil:
    """Losses that overflow before they are multiplied by weights below 1 need not do so after it."""
    cdef Py_ssize_t row
    cdef double value, weight
    cdef int found = 0
    for row in range(n_rows):
        found |= not fabs(loss[row]) < INFINITY
    for row in range(n_rows if found else 0):
        if fabs(loss[row]) < INFINITY or not fabs(maximum[row]) < INFINITY:
            continue
        value = 0
        if masses.of_target[row] != 0:
            value = masses.of_target[row] * (half_difference(maximum[row], at_target[row]) / task.temperature)
        if has_masses(task):
            value += masses.cost[row] + masses.shared[row] * logs[row] * 0.5
        weight = task.sample_weight[first_row + row] if task.sample_weight != NULL else 1
        loss[row] = weight * value * 2 if weight != 0 else 0


cdef inline void finish_phase(
    const Task *task, const Board *board_of_tile, Py_ssize_t first_row, Py_ssize_t first, Py_ssize_t n_rows,
    Py_ssize_t width, Py_ssize_t board_width, Py_ssize_t n_chunks, floating like,
) noexcept nogil:
    """Results of n_rows rows from the tile's row `first` on, and numbers of what fills up the lanes to width."""
    cdef Board board = rows_from(board_of_tile, first, like)
    cdef const floating *maximum = <const floating *>board.maximum
    cdef const floating *at_target = <const floating *>board.at_target
    cdef floating *a = <floating *>board.a
    cdef floating *b = <floating *>board.b
    cdef const double *sum = board.sum
    cdef const double *carry = board.carry
    cdef const double *ties = board.ties
    cdef Py_ssize_t row
    cdef double high, m, temperature = task.temperature
    cdef double[64] factor, factor_low, numerator, others, lost, loss, logs, m_low
    cdef floating[64] top, shift
    cdef floating[5] divide     # (N_DIVIDE,)
    cdef Masses masses
    cdef bint special = board.special[0]
    cdef Reference kind = kind_of(task.n_classes, temperature)
    if kind == DIVIDED:
        choose_divisor(temperature, &divide[0])
    if task.target != NULL or task.has_probabilities:
        find_masses(task, board_of_tile, first_row, first, n_rows, width, board_width, n_chunks, &masses, like)
    first_row += first
    if task.output == PROBABILITY or task.output == GRADIENT:
        # Also for the columns that fill up the lanes: choose_numbers() looks at all.
        for row in range(width):
            numerator[row] = task.scale if task.output == GRADIENT else 1
        if task.output == GRADIENT and not masses.plain:
            for row in range(width):
                numerator[row] = masses.scale[row] * (masses.of_target[row] + masses.shared[row])
        if kind != FAR:
            for row in range(width):
                top[row] = <floating>unit(like)
        else:
            for row in range(width):
                top[row] = top_term(maximum[row], FAR)
        for row in range(width):
            share(numerator[row], top[row], sum[row], carry[row], ties[row], &factor[row], &factor_low[row])
        memcpy(board.factor, factor, width * sizeof(double))
        memcpy(board.factor_low, factor_low, width * sizeof(double))
    if task.output == GRADIENT and has_masses(task):
        memcpy(board.scale, masses.scale, width * sizeof(double))
    if task.output == GRADIENT and task.target != NULL:
        # Of the target's own mass p_t - 1 = -(sum of all terms but the target's) / (sum of all terms) is taken, so that
        # it keeps its digits; then come the masses that smoothing gives to all classes.
        if kind == DIVIDED:
            for row in range(n_rows):
                shift[row] = term_at(at_target[row], maximum[row], DIVIDED, <const floating *>&divide[0])
        else:
            for row in range(n_rows):
                shift[row] = term_at(at_target[row], maximum[row], kind, NULL)
        for row in range(n_rows):
            m = all_but(shift[row], top[row], sum[row], carry[row], ties[row])
            if task.mass == NULL:
                b[row] = away_from(factor[row], factor_low[row], m, like)
            else:
                high = shift[row] * (1 / unit(like))
                m *= 1 / unit(like)
                high = (masses.shared[row] * high - masses.of_target[row] * m) / (m + high)
                b[row] = <floating>(masses.scale[row] * (high - masses.of_class[row])) + <floating>0    # never -0.0
    if task.output == PROBABILITY:
        return
    if kind != FAR:
        for row in range(n_rows):
            others[row] = others_of(maximum[row], sum[row], carry[row], NEAR)
    else:
        for row in range(n_rows):
            others[row] = others_of(maximum[row], sum[row], carry[row], FAR)
    for row in range(n_rows):
        log1p_parts(others[row] + ties[row], like, &logs[row], &lost[row])
    if kind == DIVIDED:
        for row in range(n_rows):
            quotient_parts(maximum[row], temperature, &others[row], &m_low[row])
    else:
        for row in range(n_rows):
            others[row], m_low[row] = maximum[row], 0
    for row in range(n_rows):
        add_logarithm(others[row], m_low[row], logs[row], lost[row], &shift[row], &lost[row])
    if task.output == LOG_PROBABILITY or task.index != NULL:
        for row in range(n_rows):
            a[row] = maximum[row] if kind == DIVIDED else shift[row]
        for row in range(n_rows):   # never -0.0, so that the result is not
            b[row] = <floating>(0 - (logs[row] if kind == DIVIDED else lost[row]))
    if task.logsumexp != NULL:
        memcpy(<floating *>task.logsumexp + first_row, shift, n_rows * sizeof(floating))
        if special:
            for row in range(n_rows):
                if isnan(ties[row]) or isinf(maximum[row]):
                    like = <floating>NAN if isnan(ties[row]) else maximum[row]
                    (<floating *>task.logsumexp)[first_row + row] = like
    if task.index != NULL:
        pick(task, <const floating *>a, <const floating *>b, ties, maximum, first_row, n_rows)
    if task.target == NULL and not task.has_probabilities:
        return
    for row in range(n_rows if task.target != NULL else 0):
        loss[row] = loss_of(at_target[row], shift[row], lost[row], maximum[row], logs[row], temperature)
    if not masses.plain:
        for row in range(n_rows):
            m = masses.of_target[row]
            loss[row] = m * loss[row] if m != 0 else 0
        if has_masses(task):
            for row in range(n_rows):
                loss[row] += 2 * masses.cost[row] + masses.shared[row] * logs[row]
        if task.sample_weight != NULL:
            for row in range(n_rows):
                m = task.sample_weight[first_row + row]
                loss[row] = m * loss[row] if m != 0 else 0
        mend_overflows(task, &masses, at_target, maximum, logs, first_row, n_rows, &loss[0])
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
    DIVIDED_LOGITS              # LOGITS and LOGS whose differences are divided by a temperature
    DIVIDED_LOGS

cdef enum:                      # what a formula takes from a row
    FACTOR
    FACTOR_LOW
    ORIGIN
    LEAST
    MAGIC
    UNSCALE
    N_NUMBERS


cdef inline floating divided_log(
    floating x, floating maximum, floating minus_log, const floating *divide,
) noexcept nogil:
    """(x - maximum) / T - log."""
    cdef floating high, low
    divided(x, maximum, divide, &high, &low)
    return high + (low + minus_log)


cdef inline void write_group(
    Formula formula, const floating *source, const floating *numbers, Py_ssize_t step, const floating *divide,
    floating *to,
) noexcept nogil:
    """Sixteen values; number k of lane l is numbers[k * step + l]."""
    cdef floating[16] value     # read before anything is written: to may be source
    cdef int l
    for l in range(16):
        if formula == LOGS:
            value[l] = (source[l] - numbers[FACTOR * step + l]) + numbers[FACTOR_LOW * step + l]
        elif formula == DIVIDED_LOGS:
            value[l] = divided_log(source[l], numbers[FACTOR * step + l], numbers[FACTOR_LOW * step + l], divide)
        else:
            value[l] = source[l]
            if formula != TERMS:
                value[l] = term(value[l], numbers[ORIGIN * step + l], numbers[LEAST * step + l],
                                numbers[MAGIC * step + l], DIVIDED if formula == DIVIDED_LOGITS else NEAR,
                                divide) * numbers[UNSCALE * step + l]
            value[l] = mul_add(value[l], numbers[FACTOR * step + l], value[l] * numbers[FACTOR_LOW * step + l])
    copy_lanes(<const floating *>&value[0], to)


cdef inline void write_row(
    Formula formula, const floating *source, Py_ssize_t n_classes,
    const floating *lanes,      # IN   (N_NUMBERS, 16), each number sixteen times
    const floating *divide,
    floating *to,
) noexcept nogil:
    """A last group of fewer than 16 overlaps the one before: its values first, written last."""
    cdef floating[16] last
    cdef Py_ssize_t j = 0
    cdef int l
    if n_classes < 16:
        for l in range(16):
            last[l] = source[l if l < n_classes else 0]
        write_group(formula, <const floating *>&last[0], lanes, 16, divide, &last[0])
        memcpy(to, last, n_classes * sizeof(floating))
        return
    write_group(formula, source + n_classes - 16, lanes, 16, divide, &last[0])
    while j + 16 < n_classes:
        write_group(formula, source + j, lanes, 16, divide, to + j)
        j += 16
    memcpy(to + n_classes - 16, last, sizeof(last))


cdef inline void write_rows(
    Formula formula, const floating *source, Py_ssize_t stride, Py_ssize_t n_rows, Py_ssize_t n_classes,
    const floating *numbers, Py_ssize_t step, const floating *divide, floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    cdef Py_ssize_t row
    cdef int l, k
    cdef floating[96] lanes     # (N_NUMBERS, 16)
    for row in range(n_rows):
        for k in range(6 if formula == LOGITS or formula == DIVIDED_LOGITS else 2):
            for l in range(16):
                lanes[16 * k + l] = numbers[step * k + row]
        write_row(formula, source + row * stride, n_classes, <const floating *>&lanes[0], divide, to + row * to_stride)


cdef inline void write_columns(
    Formula formula, const floating *source, Py_ssize_t stride, Py_ssize_t width, Py_ssize_t n_classes,
    const floating *numbers, Py_ssize_t step, const floating *divide, floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    cdef Py_ssize_t row, j
    for j in range(n_classes):
        row = 0
        while row < width:
            write_group(formula, source + j * stride + row, numbers + row, step, divide, to + j * to_stride + row)
            row += 16


cdef inline void write_values(
    Formula formula, Orientation orientation, const floating *source, Py_ssize_t stride, Py_ssize_t n_rows,
    Py_ssize_t n_classes, const floating *numbers, Py_ssize_t step, double temperature, floating *to,
    Py_ssize_t to_stride,
) noexcept nogil:
    cdef floating[5] divide     # (N_DIVIDE,)
    if formula == DIVIDED_LOGITS or formula == DIVIDED_LOGS:
        choose_divisor(temperature, &divide[0])
    if orientation == ROWS:
        write_rows(formula, source, stride, n_rows, n_classes, numbers, step, <const floating *>&divide[0], to,
                   to_stride)
    else:
        write_columns(formula, source, stride, n_rows, n_classes, numbers, step, <const floating *>&divide[0], to,
                      to_stride)


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
    const Task *task, const Board *board, const Part *part, Py_ssize_t chunk, floating *numbers, Py_ssize_t step,
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
    cdef Reference kind = kind_of(task.n_classes, task.temperature)
    cdef int fits = task.keep_terms and not board.special[0] and (task.n_chunks == 1 or kind == FAR)
    cdef Py_ssize_t row
    for row in range(part.width):
        power[row] = 1
    if task.n_chunks > 1 and fits:
        for row in range(part.width):
            refer(maximum[row], FAR, &origin, &least, &magic)
            refer(chunk_maximum[row], FAR, &chunk_origin, &least, &chunk_magic)
            apart = <double>chunk_magic - <double>magic     # n of the row - n of the chunk
            fits &= (origin == chunk_origin) & (apart < 60)
            power[row] = two_to_the(-(apart if apart < 60 else 60))
    for row in range(part.width):
        fits &= is_large(board.factor[row] * power[row], numbers[0]) | (board.factor[row] == 0)
    if not fits:
        for row in range(part.width):
            power[row] = 1
        for row in range(part.width):
            refer(maximum[row], kind, &numbers[ORIGIN * step + row], &numbers[LEAST * step + row],
                  &numbers[MAGIC * step + row])
    for row in range(part.width):
        split_factor(board.factor[row], board.factor_low[row], power[row], &numbers[FACTOR * step + row],
                     &numbers[FACTOR_LOW * step + row], &numbers[UNSCALE * step + row])
    return fits


cdef void write_chunk(
    const Task *task, const Board *board, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t chunk,
    bint is_there,              # rooms still hold the chunk's logits and masses
    floating *values,           # INOUT terms if task.keep_terms
    const Rooms *rooms, floating like,
) noexcept nogil:
    cdef Part part = part_of(task, first_row, n_rows, chunk)
    cdef floating *room = <floating *>rooms.logits
    cdef floating *numbers = <floating *>rooms.numbers
    cdef Py_ssize_t step = padded(part.width)
    cdef const floating *x = NULL
    cdef const floating *mass = NULL
    cdef Py_ssize_t stride = 0, to_stride = 0, mass_stride = 0
    cdef int row_step = 0
    cdef floating *to
    cdef double temperature = task.temperature
    if task.output == LOG_PROBABILITY and task.x.rows and task.out.rows and part.n_classes >= 16:
        is_there = is_there and part.orientation == ROWS
        part.orientation = ROWS     # needs no exponentials: nothing to transpose
        part.width = n_rows
    to = destination(task, &part, values, &to_stride)
    if task.output == LOG_PROBABILITY:
        x = take_logits(task, &part, room, <floating *>rooms.spare, is_there, &stride)
        memcpy(&numbers[FACTOR * step], board.a, part.width * sizeof(floating))
        memcpy(&numbers[FACTOR_LOW * step], board.b, part.width * sizeof(floating))
        if temperature == 1:        # a constant in either: the loops are other ones
            write_values(LOGS, part.orientation, x, stride, part.width, part.n_classes, <const floating *>numbers, step,
                         1, to, to_stride)
        else:
            write_values(DIVIDED_LOGS, part.orientation, x, stride, part.width, part.n_classes,
                         <const floating *>numbers, step, temperature, to, to_stride)
    elif choose_numbers(task, board, &part, chunk, numbers, step):
        write_values(TERMS, part.orientation, <const floating *>values, part.term_stride, part.width, part.n_classes,
                     <const floating *>numbers, step, 1, to, to_stride)
    else:
        x = take_logits(task, &part, room, <floating *>rooms.spare, is_there, &stride)
        if temperature == 1:
            write_values(LOGITS, part.orientation, x, stride, part.width, part.n_classes, <const floating *>numbers,
                         step, 1, to, to_stride)
        else:
            write_values(DIVIDED_LOGITS, part.orientation, x, stride, part.width, part.n_classes,
                         <const floating *>numbers, step, temperature, to, to_stride)
    if task.output == GRADIENT and has_masses(task):
        mass = take_mass(task, &part, <floating *>rooms.mass, <floating *>rooms.spare, is_there, &mass_stride,
                         &row_step)
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
    cdef Rooms rooms
    cdef Py_ssize_t chunk, n
    rooms.numbers = scratch
    rooms.logits = scratch + numbers_size(task, part.width)
    rooms.terms = <floating *>rooms.logits + size
    rooms.mass = <floating *>rooms.terms + term_rooms(task) * size
    rooms.spare = <floating *>rooms.mass + size
    if task.output == SOFTMAX_BACKWARD:
        softmax_backward_tile(task, first_row, n_rows, &rooms, like)
        return
    if task.output == LOG_SOFTMAX_BACKWARD:
        log_softmax_backward_tile(task, first_row, n_rows, &rooms, like)
        return
    if steps & MEASURE:
        chunk = first_chunk
        while chunk < end_chunk:
            n = side_by_side(task, n_rows, chunk, end_chunk)
            measure_chunks(task, &board, first_row, n_rows, chunk, n, <floating *>rooms.terms + chunk * step, &rooms)
            chunk += n
    if steps & FINISH:
        finish_rows(task, &board, first_row, n_rows, part.width, n_chunks, like)
    if steps & WRITE and task.output != NOTHING:
        for chunk in range(first_chunk, end_chunk):
            write_chunk(task, &board, first_row, n_rows, chunk, (steps & MEASURE) != 0 and n_chunks == 1,
                        <floating *>rooms.terms + chunk * step, &rooms, like)


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


cdef inline void multiply_classes(
    floating *out, Py_ssize_t n_classes, Py_ssize_t class_stride, double factor, int exponent,
) noexcept nogil:
    cdef Py_ssize_t j
    cdef floating value
    for j in range(n_classes):
        memcpy(&value, <char *>out + j * class_stride, sizeof(floating))
        value = <floating>(ldexp(value, exponent) * factor)
        memcpy(<char *>out + j * class_stride, &value, sizeof(floating))


cdef inline bint weighs_nothing(const Task *task, Py_ssize_t row) noexcept nogil:
    """Whether the row's gradient is 0 whatever multiplies it."""
    return is_ignored(task, row) or task.grad_weight != NULL and task.grad_weight[row] == 0 or (
        task.target != NULL and task.mass == NULL and task.weight != NULL
        and task.weight[place_of(task.target[row], task.n_classes)] == 0)


cdef inline void multiply_rows(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, floating like,
) noexcept nogil:
    """At most MAX_TILE_ROWS."""
    cdef Py_ssize_t[256] offsets
    cdef Py_ssize_t row
    cdef double factor
    cdef int exponent
    row_offsets(&task.out, first_row, n_rows, offsets)
    for row in range(n_rows):
        if weighs_nothing(task, first_row + row):
            continue
        factor = task.scale_factor * (1 if task.row_factor == NULL else task.row_factor[first_row + row])
        exponent = task.scale_exponent + (0 if task.row_exponent == NULL else task.row_exponent[first_row + row])
        multiply_classes(<floating *>(task.out.data + offsets[row]), task.n_classes, task.out.class_stride, factor,
                         exponent)


cdef void multiply_f32(
    char *out, Py_ssize_t n_classes, Py_ssize_t class_stride, double factor, int exponent,
) noexcept nogil:
    multiply_classes(<float *>out, n_classes, class_stride, factor, exponent)


cdef void multiply_f64(
    char *out, Py_ssize_t n_classes, Py_ssize_t class_stride, double factor, int exponent,
) noexcept nogil:
    multiply_classes(<double *>out, n_classes, class_stride, factor, exponent)


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
