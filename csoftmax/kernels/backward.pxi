# The way back through softmax and log_softmax: from the gradient with respect to their result to that with respect to
# the logits, row by row. With k the place of the largest, and sums in double over 16 lanes of classes:
#
#   softmax:        y_j (g_j - g_k - d),   d = sum of y_j (g_j - g_k)
#   log_softmax:    g_j - y_j G,           G = sum of g_j;    at k:  -g_k (y_k - 1) - y_k (G - g_k)
#
# The usual formula y_j (g_j - sum of y g) loses all digits at k where y_k is almost one.

from libc.math cimport exp, expm1


cdef const floating *take_row(
    const Layout *a, Py_ssize_t row, Py_ssize_t first_class, Py_ssize_t n_classes, floating *room,
) noexcept nogil:
    cdef Py_ssize_t offset
    if a.rows:
        row_offsets(a, row, 1, &offset)
        return <const floating *>(a.data + offset) + first_class
    gather(a, row, 1, first_class, n_classes, room, n_classes, 1)
    return room


cdef inline void add_products(
    const floating *y, const floating *g, Py_ssize_t n_classes, double g_top, double *lanes,
) noexcept nogil:
    """Add y (g - g_top) to the lanes, or without y just g; in blocks of 256 classes, so that errors do not pile up."""
    cdef double[16] block
    cdef Py_ssize_t j = 0, end
    cdef int l
    while j < n_classes:
        end = j + 256 if j + 256 < n_classes else n_classes
        for l in range(16):
            block[l] = 0
        while j + 16 <= end:
            for l in range(16):
                block[l] += g[j + l] if y == NULL else y[j + l] * (g[j + l] - g_top)
            j += 16
        for l in range(end - j):
            block[l] += g[j + l] if y == NULL else y[j + l] * (g[j + l] - g_top)
        for l in range(16):
            lanes[l] += block[l]
        j = end


cdef void backward_row(const Task *task, Py_ssize_t row, floating *scratch) noexcept nogil:
    """scratch has room for two chunks. In chunks, of which those of long rows are gathered once for each pass."""
    cdef bint log = task.output == LOG_SOFTMAX_BACKWARD
    cdef Py_ssize_t n = task.n_classes, chunk, first, m, j, top = 0, offset
    cdef floating *g_room = scratch + (n if n < CHUNK else CHUNK)
    cdef const floating *y
    cdef const floating *g
    cdef floating *to
    cdef floating high, largest = -<floating>INFINITY, y_top, g_top, p, origin, least, magic
    cdef double[16] lanes
    cdef double sum = 0, at_top
    cdef int l
    for chunk in range(task.n_chunks):
        first = chunk * CHUNK
        m = n - first if n - first < CHUNK else CHUNK
        y = take_row(&task.x, row, first, m, scratch)
        high = max_of_row(y, m)
        if high > largest:
            largest = high
            top = 0
            while top < m - 1 and y[top] != high:
                top += 1
            top += first
    row_offsets(&task.x, row, 1, &offset)
    memcpy(&y_top, task.x.data + offset + top * task.x.class_stride, sizeof(floating))
    row_offsets(&task.other, row, 1, &offset)
    memcpy(&g_top, task.other.data + offset + top * task.other.class_stride, sizeof(floating))
    for l in range(16):
        lanes[l] = 0
    for chunk in range(task.n_chunks):
        first = chunk * CHUNK
        m = n - first if n - first < CHUNK else CHUNK
        g = take_row(&task.other, row, first, m, g_room)
        if not log:
            y = take_row(&task.x, row, first, m, scratch)
            add_products(y, g, m, g_top, &lanes[0])
        elif first <= top < first + m:
            add_products(<const floating *>NULL, g, top - first, 0, &lanes[0])
            add_products(<const floating *>NULL, g + (top - first + 1), m - (top - first + 1), 0, &lanes[0])
        else:
            add_products(<const floating *>NULL, g, m, 0, &lanes[0])
    for l in range(8):
        lanes[l] += lanes[l + 8]
    for l in range(4):
        lanes[l] += lanes[l + 4]
    sum = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])
    at_top = 0
    if log:
        at_top = -<double>g_top * expm1(y_top) - exp(y_top) * sum
        sum += g_top
    refer(<floating>0, False, &origin, &least, &magic)
    row_offsets(&task.out, row, 1, &offset)
    for chunk in range(task.n_chunks):
        first = chunk * CHUNK
        m = n - first if n - first < CHUNK else CHUNK
        y = take_row(&task.x, row, first, m, scratch)
        g = take_row(&task.other, row, first, m, g_room)
        to = <floating *>(task.out.data + offset) + first if task.out.rows else scratch
        if log:
            for j in range(m):
                p = term(<floating>0 if y[j] > 0 else y[j], origin, least, magic, False) * <floating>(1 / unit(p))
                to[j] = <floating>mul_add(-<double>p, sum, g[j])
            if first <= top < first + m:
                to[top - first] = <floating>at_top
        else:
            for j in range(m):
                to[j] = <floating>(y[j] * ((<double>g[j] - g_top) - sum))
        if not task.out.rows:
            scatter(&task.out, row, 1, first, m, <const floating *>scratch, m, 1)
