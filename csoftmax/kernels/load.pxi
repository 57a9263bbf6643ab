# Elements in: a part of a tile is read where it lies, or brought into scratch as the kernels want it. What two inputs
# give together, sums of logits and masses of classes, is made on the way.

from cython cimport floating
from libc.math cimport INFINITY
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset

from csoftmax.kernels.exp cimport mul_add
from csoftmax.kernels.fetch cimport prefetch
from csoftmax.kernels.task cimport (
    ALWAYS_LANES, CHUNK, COLUMNS, LANES, MAX_DIMS, MAX_TILE_ROWS, ROWS, Layout, Task, padded,
)
from csoftmax.kernels.tile cimport Part

cdef extern from "transpose.h" nogil:
    enum:
        TALL
    void transpose_f32(const float *start, Py_ssize_t stride, float *to, Py_ssize_t to_stride)
    void transpose_f64(const double *start, Py_ssize_t stride, double *to, Py_ssize_t to_stride)
    void transpose_tall_f32(const float *start, Py_ssize_t stride, float *to, Py_ssize_t to_stride)
    void transpose_wide_f32(const float *start, Py_ssize_t stride, float *to, Py_ssize_t to_stride)


cdef void row_offsets(
    const Layout *layout, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t *offsets,
) noexcept nogil:
    """Offsets in bytes of the first classes of rows first_row, first_row + 1, ... in C order of the row dimensions."""
    cdef Py_ssize_t[MAX_DIMS] index
    cdef Py_ssize_t offset = 0, row, rest = first_row
    cdef int d = layout.n_dims - 1
    while d >= 0:
        index[d] = rest % layout.shape[d]
        rest = rest // layout.shape[d]
        offset += index[d] * layout.strides[d]
        d -= 1
    for row in range(n_rows):
        offsets[row] = offset
        d = layout.n_dims - 1
        while d >= 0:
            index[d] += 1
            offset += layout.strides[d]
            if index[d] < layout.shape[d]:
                break
            offset -= index[d] * layout.strides[d]
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


cdef inline bint has_close_rows(const Layout *layout) noexcept nogil:
    """Whether neighbouring rows are nearer to each other in memory than neighbouring classes."""
    cdef Py_ssize_t of_rows = layout.strides[layout.n_dims - 1] if layout.n_dims else 0
    cdef Py_ssize_t of_classes = layout.class_stride
    return 0 < (of_rows if of_rows > 0 else -of_rows) < (of_classes if of_classes > 0 else -of_classes)


cdef inline Py_ssize_t side_by_side_from(
    const char *start, const Py_ssize_t *offsets, Py_ssize_t row, Py_ssize_t n_rows, Py_ssize_t class_stride,
    Py_ssize_t item,
) noexcept nogil:
    """How many rows from `row` on are neighbours in memory, and can be transposed with their classes."""
    cdef Py_ssize_t n = 1
    if <uintptr_t>(start + offsets[row]) % item or class_stride % item:
        return 1
    while row + n < n_rows and offsets[row + n] == offsets[row] + n * item:
        n += 1
    return n


cdef void gather(
    const Layout *layout, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t first_class, Py_ssize_t n_classes,
    floating *to, Py_ssize_t row_step, Py_ssize_t class_step,
) noexcept nogil:
    """Copy any tile of any layout, also one whose elements are not aligned."""
    cdef Py_ssize_t[MAX_TILE_ROWS] offsets
    cdef Py_ssize_t row, j, n
    cdef const char *start = layout.data + first_class * layout.class_stride
    row_offsets(layout, first_row, n_rows, offsets)
    if layout.converts:
        gather_converted(layout, first_row, n_rows, n_classes, start, offsets, to, row_step, class_step)
    elif layout.class_stride == sizeof(floating) and class_step == 1:
        for row in range(n_rows):
            memcpy(to + row * row_step, start + offsets[row], n_classes * sizeof(floating))
    elif class_step == 1 and not has_close_rows(layout):
        for row in range(n_rows):
            for j in range(n_classes):
                memcpy(to + row * row_step + j, start + offsets[row] + j * layout.class_stride, sizeof(floating))
    elif class_step == 1:
        row = 0
        while row < n_rows:
            n = side_by_side_from(start, offsets, row, n_rows, layout.class_stride, sizeof(floating))
            if n > 1:
                transpose(<const floating *>(start + offsets[row]), n_classes, n,
                          layout.class_stride // <Py_ssize_t>sizeof(floating), to + row * row_step, row_step)
            for j in range(n_classes if n == 1 else 0):
                memcpy(to + row * row_step + j, start + offsets[row] + j * layout.class_stride, sizeof(floating))
            row += n
    else:
        for j in range(n_classes):
            for row in range(n_rows):
                memcpy(to + row * row_step + j * class_step, start + offsets[row] + j * layout.class_stride,
                       sizeof(floating))


cdef void gather_converted(
    const Layout *layout, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t n_classes, const char *start,
    const Py_ssize_t *offsets, floating *to, Py_ssize_t row_step, Py_ssize_t class_step,
) noexcept nogil:
    cdef Py_ssize_t row, j
    if class_step == 1 and (layout.class_stride == layout.item or not has_close_rows(layout)):
        for row in range(n_rows):
            read_strided(layout, first_row + row, start + offsets[row], layout.class_stride, n_classes,
                         to + row * row_step)
    else:
        for j in range(n_classes):
            read_scattered(layout, first_row, start + j * layout.class_stride, offsets, n_rows, to + j * class_step,
                           row_step)


cdef inline void read_block(
    const Layout *layout, const char *start, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride,
    floating *to,
) noexcept nogil:
    """Rows of neighbours, row_stride bytes apart, one behind the other."""
    cdef Py_ssize_t row
    if row_stride == n_classes * layout.item:
        read_numbers(layout.storage, start, n_rows * n_classes, to)
        return
    for row in range(n_rows):
        read_numbers(layout.storage, start + row * row_stride, n_classes, to + row * n_classes)


cdef void transpose_converted(
    const Layout *layout, const char *start, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride,
    floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    """Rows of neighbours, in blocks that are converted before they are transposed."""
    cdef double[768] memory                                                 # of LANES * ALWAYS_LANES bytes
    cdef floating *block = <floating *>&memory[0]
    cdef Py_ssize_t size = LANES * ALWAYS_LANES // <Py_ssize_t>sizeof(floating)
    cdef Py_ssize_t m = n_classes if n_classes * LANES <= size else size // LANES       # classes of a block
    cdef Py_ssize_t n = size // m // LANES * LANES, row = 0, j, rows, classes
    while row < n_rows:
        rows = n_rows - row if n_rows - row < n else n
        j = 0
        while j < n_classes:
            classes = n_classes - j if n_classes - j < m else m
            read_block(layout, start + row * row_stride + j * layout.item, rows, classes, row_stride, block)
            transpose(<const floating *>block, rows, classes, classes, to + j * to_stride + row, to_stride)
            j += m
        row += n


cdef enum:
    COPIED_AHEAD = 24           # classes: as many as the few sets hold into which colliding ones fall


cdef Part part_of(const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t chunk) noexcept nogil:
    cdef Part part
    memset(&part, 0, sizeof(Part))
    part.orientation = ROWS if n_rows <= task.plan.tail_rows else task.plan.orientation
    part.first_row = first_row
    part.n_rows = n_rows
    part.width = n_rows if part.orientation == ROWS else padded(n_rows)
    part.chunk = chunk
    part.first_class = chunk * CHUNK
    part.n_classes = task.n_classes - part.first_class
    if part.n_classes > CHUNK:
        part.n_classes = CHUNK
    part.term_stride = (part.n_classes + 63) // 64 * 64 if part.orientation == ROWS else part.width
    return part


cdef const floating *load(
    const Task *task, const Layout *source, Part *part, floating *scratch, bint is_loaded, Py_ssize_t *stride,
) noexcept nogil:
    """The part's elements of an input: where they lie if the kernels can read them there, else brought into scratch.

    is_loaded: scratch still holds them.
    stride is that of rows (ROWS) or of classes (COLUMNS); columns from n_rows up to width hold zeros.
    """
    cdef Py_ssize_t offset, j, row
    cdef Py_ssize_t item = sizeof(floating)
    cdef Py_ssize_t row_stride = source.strides[0] // source.item if source.n_dims else task.n_classes
    cdef const floating *x
    if source.converts:
        load_converted(source, part, scratch, is_loaded, stride)
        return scratch
    row_offsets(source, part.first_row, 1, &offset)
    if part.orientation == ROWS:
        if source.rows:
            stride[0] = row_stride
            return <const floating *>(source.data + offset) + part.first_class
        stride[0] = part.n_classes
        if not is_loaded:
            gather(source, part.first_row, part.n_rows, part.first_class, part.n_classes, scratch, part.n_classes, 1)
        return scratch
    if source.columns:
        x = <const floating *>(source.data + offset + part.first_class * source.class_stride)
        if part.n_rows == part.width and not source.collides:
            stride[0] = source.class_stride // item
            part.ahead.start = <const char *>(x + part.width)
            part.ahead.row_step = item
            part.ahead.class_step = source.class_stride
            return x
    stride[0] = part.width
    if is_loaded:
        return scratch
    if source.columns:          # where lines collide, what is fetched for the next tile would be lost before it comes
        for j in range(part.n_classes):
            for row in range(0, part.n_rows * item, 64):
                prefetch(<const char *>x + (j + COPIED_AHEAD) * source.class_stride + row)
            memcpy(scratch + j * part.width, <const char *>x + j * source.class_stride, part.n_rows * item)
    elif source.rows:
        x = <const floating *>(source.data + offset) + part.first_class
        transpose(x, part.n_rows, part.n_classes, row_stride, scratch, part.width)
        part.ahead.start = <const char *>(x + part.n_rows * row_stride)
        part.ahead.row_step = row_stride * item
        part.ahead.class_step = LANES * item
    else:
        gather(source, part.first_row, part.n_rows, part.first_class, part.n_classes, scratch, 1, part.width)
    fill_up(part, scratch)
    return scratch


cdef inline void fill_up(const Part *part, floating *scratch) noexcept nogil:
    """Zeros behind the last row of columns."""
    cdef Py_ssize_t j, row
    for j in range(part.n_classes if part.n_rows < part.width else 0):
        for row in range(part.n_rows, part.width):
            scratch[j * part.width + row] = 0


cdef inline void fetch_ahead(const Layout *source, Part *part, const char *start) noexcept nogil:
    """Have the rows of the next tile fetched while this one is measured; the processor follows a single one."""
    cdef Py_ssize_t row_stride = source.strides[0] if source.n_dims else 0
    if part.n_rows > 1:
        part.ahead.row_step = row_stride
        part.ahead.row_bytes = part.n_classes * source.item
        part.ahead.start = start + part.n_rows * row_stride


cdef void load_converted(
    const Layout *source, Part *part, floating *scratch, bint is_loaded, Py_ssize_t *stride,
) noexcept nogil:
    """load() of elements that are not of the task's dtype, or do not lie where its numbers can: always into scratch."""
    cdef Py_ssize_t offset, j, row_stride, n = part.n_classes
    cdef const char *start
    stride[0] = n if part.orientation == ROWS else part.width
    if is_loaded:
        return
    row_offsets(source, part.first_row, 1, &offset)
    start = source.data + offset + part.first_class * source.class_stride
    if part.orientation == ROWS:
        gather(source, part.first_row, part.n_rows, part.first_class, n, scratch, n, 1)
        if source.rows:
            fetch_ahead(source, part, start)
        return
    if source.columns:
        part.ahead.start = start + part.n_rows * source.item
        part.ahead.row_step = source.item
        part.ahead.class_step = source.class_stride
        for j in range(n):
            read_numbers(source.storage, start + j * source.class_stride, part.n_rows, scratch + j * part.width)
    elif source.rows:
        row_stride = source.strides[0] if source.n_dims else n * source.item
        transpose_converted(source, start, part.n_rows, n, row_stride, scratch, part.width)
        part.ahead.start = start + part.n_rows * row_stride
        part.ahead.row_step = row_stride
        part.ahead.class_step = LANES * source.item
    else:
        gather(source, part.first_row, part.n_rows, part.first_class, n, scratch, 1, part.width)
    fill_up(part, scratch)


cdef const floating *load_to_measure(
    const Task *task, Part *part, floating *scratch, floating *spare, Py_ssize_t *stride,
) noexcept nogil:
    """load_logits() for measure(): rows that only have to be converted are so as it comes to them."""
    cdef Py_ssize_t offset
    if part.orientation != ROWS or task.has_added or not task.x.converts or not task.x.rows:
        return load_logits(task, part, scratch, spare, False, stride)
    row_offsets(&task.x, part.first_row, 1, &offset)
    part.unread.storage = task.x.storage
    part.unread.start = task.x.data + offset + part.first_class * task.x.class_stride
    part.unread.row_step = task.x.strides[0] if task.x.n_dims else 0
    part.unread.together = part.n_classes <= 512 and part.unread.row_step == part.n_classes * task.x.item
    fetch_ahead(&task.x, part, part.unread.start)
    stride[0] = part.n_classes
    return scratch


cdef const floating *load_logits(
    const Task *task, Part *part, floating *scratch, floating *spare, bint is_loaded, Py_ssize_t *stride,
) noexcept nogil:
    """load() of x, with the second input added if it is there to be added."""
    cdef Py_ssize_t n, m, i, j, added_stride = 0
    cdef const floating *x = load(task, &task.x, part, scratch, is_loaded, stride)
    cdef const floating *added
    cdef floating *to
    if not task.has_added:
        return x
    n, m = part.n_rows, part.n_classes
    if part.orientation == COLUMNS:
        n, m = m, part.width
    if is_loaded:
        stride[0] = m
        return scratch
    added = load(task, &task.second_input, part, spare, False, &added_stride)
    for i in range(n):
        to = scratch + i * m
        for j in range(m):
            # A weight of zero, whose logarithm is -inf, takes out also what is infinite or NaN.
            to[j] = -<floating>INFINITY if added[i * added_stride + j] == -INFINITY else (
                x[i * stride[0] + j] + added[i * added_stride + j])
    stride[0] = m
    return scratch


cdef const floating *load_masses(
    const Task *task, Part *part, floating *scratch, floating *spare, bint is_loaded, Py_ssize_t *stride,
    int *row_step,
) noexcept nogil:
    """The masses of a part, as rows (stride 0 if all have one) or with rows as lanes (row_step 0 if all have one)."""
    cdef Py_ssize_t n, m, i, j, raw_stride = 0
    cdef const floating *raw
    cdef const double *weight = task.loss.weight + part.first_class if task.loss.weight != NULL else NULL
    cdef double kept = task.loss.kept, smooth = task.loss.smooth
    if not task.loss.has_probabilities:
        row_step[0] = 0
        stride[0] = 0 if part.orientation == ROWS else 1
        return <const floating *>task.loss.mass + part.first_class
    row_step[0] = 1
    if kept == 1 and smooth == 0 and weight == NULL:
        return load(task, &task.second_input, part, scratch, is_loaded, stride)
    n, m = part.n_rows, part.n_classes
    if part.orientation == COLUMNS:
        n, m = m, part.width
    stride[0] = m
    if is_loaded:
        return scratch
    raw = load(task, &task.second_input, part, spare, False, &raw_stride)
    for i in range(n):
        if weight == NULL:
            for j in range(m):
                scratch[i * m + j] = <floating>mul_add(kept, raw[i * raw_stride + j], smooth)
        elif part.orientation == ROWS:
            for j in range(m):
                scratch[i * m + j] = <floating>(weight[j] * mul_add(kept, raw[i * raw_stride + j], smooth))
        else:
            for j in range(m):
                scratch[i * m + j] = <floating>(weight[i] * mul_add(kept, raw[i * raw_stride + j], smooth))
    return scratch
