# The way back through softmax and log_softmax: from the gradient with respect to their result to that with respect to
# the logits. With k the place of the largest, and sums in double over 16 lanes of classes:
#
#   softmax:        y_j (g_j - g_k - d),   d = sum of y_j (g_j - g_k)
#   log_softmax:    g_j - y_j G,           G = sum of g_j;    at k:  -g_k (y_k - 1) - y_k (G - g_k)
#
# The usual formula y_j (g_j - sum of y g) loses all digits at k where y_k is almost one.

cdef enum:
    BLOCK = 256             # classes that are added to one sum of a lane, so that errors do not pile up


cdef struct Backward:       # what is known of a tile's rows; as COLUMNS also of those that fill up the lanes
    int64_t[256] top        # the first class of the largest that is no NaN
    double[256] y_top
    double[256] g_top
    double[4096] lanes      # (256, 16), or as COLUMNS (256 / 16, 16, 16), each of 16 rows
    double[256] sum
    double[256] at_top      # log_softmax: the value at k


cdef inline double summand(floating y, floating g, double g_top, bint log) noexcept nogil:
    return g if log else y * (<double>g - g_top)


cdef inline floating backward_value(
    floating y, floating g, double g_top, double sum, floating origin, floating least, floating magic, bint log,
) noexcept nogil:
    if log:
        y = term(<floating>0 if y > 0 else y, origin, least, magic, False) * <floating>(1 / unit(y))
        return <floating>mul_add(-<double>y, sum, g)
    return <floating>(y * ((<double>g - g_top) - sum))


cdef inline double value_at_top(double y_top, double g_top, double others) noexcept nogil:
    """-g_k (exp(y_k) - 1) - exp(y_k) * others, the difference exact where exp(y_k) is almost one."""
    cdef double origin, least, magic, r, k, scale
    refer(<double>0, False, &origin, &least, &magic)
    reduce(0 if y_top > 0 else y_top, origin, least, magic, False, &r, &k)
    scale = power_f64(k) * (1 / unit(r))
    r = mul_add(long_rest(r) * r, r, r)
    return -g_top * mul_add(r, scale, scale - 1) - mul_add(r, scale, scale) * others


cdef inline void fetch_row(const char *start, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(0, size, 64):
        prefetch(start + i)


cdef inline void top_of_row(
    const floating *y, Py_ssize_t n_classes, Py_ssize_t first_class, double *largest, int64_t *top,
) noexcept nogil:
    """The maximum first, then where it stands: without jumps that depend on it."""
    cdef floating[64] high
    cdef floating[16] last, place
    cdef floating high_of_all, minus_j = 0
    cdef Py_ssize_t j = 0
    cdef int l
    for l in range(64):
        high[l] = -<floating>INFINITY
    while j + 64 <= n_classes:
        for l in range(64):
            high[l] = y[j + l] if y[j + l] > high[l] else high[l]
        j += 64
    while j + 16 <= n_classes:
        max_of_group(y + j, &high[0])
        j += 16
    if j < n_classes:
        load_lanes(y + j, n_classes - j, &last[0])
        max_of_group(<const floating *>&last[0], &high[0])
    for l in range(16, 64, 16):
        max_of_group(<const floating *>&high[l], &high[0])
    high_of_all = top_of_lanes(<const floating *>&high[0])
    for l in range(16):
        place[l] = -<floating>CHUNK
    j = 0
    while j + 16 <= n_classes:
        for l in range(16):
            high[l] = minus_j if y[j + l] == high_of_all else -<floating>CHUNK
        max_of_group(<const floating *>&high[0], &place[0])
        minus_j -= 16
        j += 16
    if j < n_classes:
        for l in range(16):
            high[l] = minus_j if last[l] == high_of_all and l < n_classes - j else -<floating>CHUNK
        max_of_group(<const floating *>&high[0], &place[0])
    for l in range(16):
        place[l] -= l
    if high_of_all > largest[0]:
        largest[0] = high_of_all
        top[0] = first_class - <int64_t>top_of_lanes(<const floating *>&place[0])


cdef inline void tops_of_group(
    const floating *y, Py_ssize_t stride, Py_ssize_t n_classes, Py_ssize_t first_class, double *largest, int64_t *top,
) noexcept nogil:
    """The same for 16 rows that are lanes."""
    cdef floating[16] high, place
    cdef Py_ssize_t j
    cdef const floating *p
    cdef int l
    for l in range(16):
        high[l] = <floating>largest[l]
        place[l] = -1
    for j in range(n_classes):
        p = y + j * stride
        for l in range(16):         # not as a choice of places, of which GCC 12 makes a jump that is often mistaken
            place[l] += <floating>(p[l] > high[l]) * (<floating>j - place[l])
        for l in range(16):
            high[l] = p[l] if p[l] > high[l] else high[l]
    for l in range(16):
        largest[l] = high[l]
        top[l] = first_class + <int64_t>place[l] if place[l] >= 0 else top[l]


cdef inline void add_row(
    const floating *y, const floating *g, Py_ssize_t n_classes, double g_top, bint log,
    Py_ssize_t top,             # log_softmax: the class that is left out, if it is one of these
    double *lanes,              # INOUT (16,)
) noexcept nogil:
    cdef double[16] block
    cdef floating[16] last_y, last_g
    cdef Py_ssize_t j = 0, end
    cdef int l
    while j < n_classes:
        end = j + BLOCK if j + BLOCK < n_classes else n_classes
        for l in range(16):
            block[l] = 0
        while j + 16 <= end:
            if log and j <= top < j + 16:
                for l in range(16):
                    block[l] += 0 if j + l == top else summand(y[j + l], g[j + l], g_top, log)
            else:
                for l in range(16):
                    block[l] += summand(y[j + l], g[j + l], g_top, log)
            j += 16
        if j < end:
            load_lanes(y + j, end - j, &last_y[0])
            load_lanes(g + j, end - j, &last_g[0])
            for l in range(16):
                block[l] += 0 if l >= end - j or log and j + l == top else (
                    summand(last_y[l], last_g[l], g_top, log))
        for l in range(16):
            lanes[l] += block[l]
        j = end


cdef inline void add_group(
    const floating *y, Py_ssize_t y_stride, const floating *g, Py_ssize_t g_stride, Py_ssize_t n_classes,
    const double *g_top, bint log,
    const floating *top,        # (16,)
    double *lanes,              # INOUT (16, 16 rows)
) noexcept nogil:
    cdef double[16] block, total
    cdef Py_ssize_t lane, first, j
    cdef const floating *p
    cdef const floating *q
    cdef int l
    for lane in range(16 if n_classes > 16 else n_classes):
        copy_lanes(<const double *>lanes + 16 * lane, &total[0])
        for first in range(lane, n_classes, 256):   # by BLOCK
            for l in range(16):
                block[l] = 0
            for j in range(first, first + BLOCK - lane if first + BLOCK - lane < n_classes else n_classes, 16):
                p = y + j * y_stride
                q = g + j * g_stride
                if log:
                    for l in range(16):
                        block[l] += <floating>0 if <floating>j == top[l] else q[l]
                else:
                    for l in range(16):
                        block[l] += summand(p[l], q[l], g_top[l], log)
            for l in range(16):
                total[l] += block[l]
        copy_lanes(<const double *>&total[0], lanes + 16 * lane)


cdef inline void write_back_row(
    const floating *y, const floating *g, Py_ssize_t n_classes, double g_top, double sum, bint log, floating *to,
) noexcept nogil:
    cdef floating[16] value     # read before anything is written: to may be y or g
    cdef floating[16] last_y, last_g
    cdef floating origin, least, magic
    cdef Py_ssize_t j = 0
    cdef int l
    refer(<floating>0, False, &origin, &least, &magic)
    while j + 16 <= n_classes:
        for l in range(16):
            value[l] = backward_value(y[j + l], g[j + l], g_top, sum, origin, least, magic, log)
        copy_lanes(<const floating *>&value[0], to + j)
        j += 16
    if j < n_classes:
        load_lanes(y + j, n_classes - j, &last_y[0])
        load_lanes(g + j, n_classes - j, &last_g[0])
        for l in range(16):
            value[l] = backward_value(last_y[l], last_g[l], g_top, sum, origin, least, magic, log)
        store_lanes(<const floating *>&value[0], n_classes - j, to + j)


cdef inline void write_back_group(
    const floating *y, Py_ssize_t y_stride, const floating *g, Py_ssize_t g_stride, Py_ssize_t n_classes,
    const double *g_top, const double *sum, bint log, floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    cdef floating[16] value
    cdef floating origin, least, magic
    cdef Py_ssize_t j
    cdef const floating *p
    cdef const floating *q
    cdef int l
    refer(<floating>0, False, &origin, &least, &magic)
    for j in range(n_classes):
        p = y + j * y_stride
        q = g + j * g_stride
        for l in range(16):
            value[l] = backward_value(p[l], q[l], g_top[l], sum[l], origin, least, magic, log)
        copy_lanes(<const floating *>&value[0], to + j * to_stride)


cdef inline void fold_backward_row(const double *lanes, double *sum) noexcept nogil:
    cdef double[8] eights
    cdef int l
    for l in range(8):
        eights[l] = lanes[l] + lanes[l + 8]
    for l in range(4):
        eights[l] += eights[l + 4]
    sum[0] = (eights[0] + eights[2]) + (eights[1] + eights[3])


cdef inline void fold_backward_group(double *lanes, double *sum) noexcept nogil:
    cdef Py_ssize_t i
    cdef int l
    for i in range(0, 128, 16):
        for l in range(16):
            lanes[i + l] += lanes[i + 128 + l]
    for i in range(0, 64, 16):
        for l in range(16):
            lanes[i + l] += lanes[i + 64 + l]
    for l in range(16):
        sum[l] = (lanes[l] + lanes[32 + l]) + (lanes[16 + l] + lanes[48 + l])


cdef inline void add_part(
    const Task *task, Part *part, Backward *rows, bint log, const floating *y, Py_ssize_t y_stride, const floating *g,
    Py_ssize_t g_stride,
) noexcept nogil:
    """Add up a part's rows; with the last chunk their sums are known."""
    cdef Py_ssize_t row, n = part.n_classes, apart = 16 if task.n_chunks > 1 else 0     # else one place will do
    cdef bint is_first = part.first_class == 0, is_last = part.first_class + n == task.n_classes
    cdef floating[16] top
    cdef double *lanes
    cdef int l
    if part.orientation == ROWS:
        for row in range(part.n_rows):
            lanes = &rows.lanes[apart * row]
            fetch_row(<const char *>(g + (part.n_rows + row) * g_stride), n * <Py_ssize_t>sizeof(floating))
            if part.output.start != NULL:
                fetch_row(part.output.start + row * part.output.row_step, n * <Py_ssize_t>sizeof(floating))
            if is_first:
                memset(lanes, 0, 16 * sizeof(double))
            add_row(y + row * y_stride, g + row * g_stride, n, rows.g_top[row], log, rows.top[row] - part.first_class,
                    lanes)
            if is_last:
                fold_backward_row(<const double *>lanes, &rows.sum[row])
        return
    for row in range(0, part.width, 16):
        fetch_lanes(&part.ahead, row, n, g[0])
        fetch_lanes(&part.output, row, n, g[0])
        lanes = &rows.lanes[apart * row]
        if is_first:
            memset(lanes, 0, 256 * sizeof(double))
        for l in range(16):
            top[l] = <floating>(rows.top[row + l] - part.first_class)
        add_group(y + row, y_stride, g + row, g_stride, n, &rows.g_top[row], log, <const floating *>&top[0], lanes)
        if is_last:
            fold_backward_group(lanes, &rows.sum[row])


cdef inline void write_part(
    const Part *part, const Backward *rows, bint log, const floating *y, Py_ssize_t y_stride, const floating *g,
    Py_ssize_t g_stride, floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    cdef Py_ssize_t row, n = part.n_classes, target
    if part.orientation == ROWS:
        for row in range(part.n_rows):
            write_back_row(y + row * y_stride, g + row * g_stride, n, rows.g_top[row], rows.sum[row], log,
                           to + row * to_stride)
    else:
        for row in range(0, part.width, 16):
            write_back_group(y + row, y_stride, g + row, g_stride, n, &rows.g_top[row], &rows.sum[row], log, to + row,
                             to_stride)
    for row in range(part.n_rows if log else 0):
        target = rows.top[row] - part.first_class
        if 0 <= target < n:
            to[row * to_stride + target if part.orientation == ROWS else target * to_stride + row] = (
                <floating>rows.at_top[row])


cdef inline void pick_tops(
    const Layout *a, Py_ssize_t first_row, Py_ssize_t n_rows, const int64_t *top, double *values, floating like,
) noexcept nogil:
    """The elements of a at the top of each row."""
    cdef Py_ssize_t[256] offsets
    cdef Py_ssize_t row
    row_offsets(a, first_row, n_rows, offsets)
    for row in range(n_rows):
        memcpy(&like, a.data + offsets[row] + top[row] * a.class_stride, sizeof(floating))
        values[row] = like


cdef inline void backward_tile(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, bint log, floating *room, floating *values,
    floating *g_room, floating *spare,
) noexcept nogil:
    """Three passes over the chunks: where the largest is, the sum, the values."""
    cdef Backward rows
    cdef Part part = part_of(task, first_row, n_rows, 0)
    cdef Part other
    cdef bint is_there = task.n_chunks == 1
    cdef double[256] largest
    cdef const floating *y
    cdef const floating *g
    cdef floating *to
    cdef Py_ssize_t chunk, row, y_stride = 0, g_stride = 0, to_stride = 0
    for row in range(part.width):
        largest[row] = -INFINITY
        rows.top[row] = 0
        rows.y_top[row] = rows.g_top[row] = 0
    for chunk in range(task.n_chunks):
        part = part_of(task, first_row, n_rows, chunk)
        y = take(task, &task.x, &part, room, False, &y_stride)
        if part.orientation == ROWS:
            for row in range(n_rows):           # what comes next is fetched: the next tile's y, with the sums its g
                fetch_row(<const char *>(y + (n_rows + row) * y_stride), part.n_classes * <Py_ssize_t>sizeof(floating))
                top_of_row(y + row * y_stride, part.n_classes, part.first_class, &largest[row], &rows.top[row])
        else:
            for row in range(0, part.width, 16):
                fetch_lanes(&part.ahead, row, part.n_classes, y[0])
                tops_of_group(y + row, y_stride, part.n_classes, part.first_class, &largest[row], &rows.top[row])
    pick_tops(&task.x, first_row, n_rows, <const int64_t *>rows.top, rows.y_top, y[0])
    pick_tops(&task.other, first_row, n_rows, <const int64_t *>rows.top, rows.g_top, y[0])
    for chunk in range(task.n_chunks):
        part = part_of(task, first_row, n_rows, chunk)
        g = take(task, &task.other, &part, g_room, False, &g_stride)
        if log:                 # whose sum is of g alone
            y, y_stride = g, g_stride
        else:
            other = part
            y = take(task, &task.x, &other, room, is_there, &y_stride)
        find_output(task, &part, <Py_ssize_t>sizeof(floating))
        add_part(task, &part, &rows, log, y, y_stride, g, g_stride)
    for row in range(part.width if log else 0):
        rows.at_top[row] = value_at_top(rows.y_top[row], rows.g_top[row], rows.sum[row])
    for row in range(part.width if log else 0):
        rows.sum[row] += rows.g_top[row]
    for chunk in range(task.n_chunks):
        part = part_of(task, first_row, n_rows, chunk)
        y = take(task, &task.x, &part, room, is_there, &y_stride)
        g = take(task, &task.other, &part, g_room, is_there, &g_stride)
        to = destination(task, &part, values, &to_stride)
        write_part(&part, &rows, log, y, y_stride, g, g_stride, to, to_stride)
        if to == values:
            put(task, &part, values, spare)
