# The way back through softmax and log_softmax: from the gradient with respect to their result to that with respect to
# the logits. Sums are in double over 16 lanes of classes. With k the place of the largest y:
#
#   softmax:        y_j (g_j - S),   S = sum of y_j g_j
#   log_softmax:    g_j - exp(y_j) G,   G = sum of g_j;    at k:  -g_k (exp(y_k) - 1) - exp(y_k) (G - g_k)
#
# Where y_k is almost one, g_k - S leaves no digit at k. If the y add up to one, g_j - S is
#
#   (g_j - r) - sum of y_j (g_j - r)
#
# for any r, and r = g_k keeps them. So it is taken where what they lack is no more than their rounding; else r = 0.

from cython cimport floating
from libc.math cimport INFINITY, fabs
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from csoftmax.kernels.exp cimport (
    NEXT_TO_MAXIMUM, Reference, long_rest, mul_add, multiple_of, power_f64, reduce, refer, reference_at,
    store_reference, term, term_scale, two_to_the,
)
from csoftmax.kernels.fetch cimport fetch_row
from csoftmax.kernels.lanes cimport copy_lanes, load_lanes, max_of_group, store_lanes
from csoftmax.kernels.task cimport CHUNK, LANES, MAX_TILE_ROWS, ROWS, Layout, Task, padded
from csoftmax.kernels.tile cimport Part, Scratch, TwoInputs, two_inputs

cdef enum:
    BLOCK = 256             # classes that are added to one sum of a lane, so that errors do not pile up


cdef struct Backward:       # what is known of a tile's rows, (width,) each; as COLUMNS also of what fills up the lanes
    int64_t *top            # the first class of the largest that is no NaN
    double *y_top
    double *g_top
    double *g_from          # softmax: r
    double *sum
    double *at_top          # log_softmax: the value at k
    double *low             # log_softmax: exp(y) is a term times low times high / sum
    double *high            # softmax: the sum of y
    double *down            # what g is multiplied by, and y divided, so that sums stay in float64's range: 1 or 2**-64
    double *lanes           # (width, 48), or as COLUMNS (width / 16, 48, 16 rows); with one chunk, of 16 rows
    double *spare


cdef struct BackwardRow:    # of one of them, what its values are made with
    double g_from
    double sum
    double low
    double high
    double down
    Reference reference     # log_softmax: of the terms exp(y)


cdef inline Backward backward_at(char *memory, Py_ssize_t width) noexcept nogil:
    cdef Backward rows
    cdef Py_ssize_t n = padded(width)
    cdef double *p = <double *>memory
    rows.top = <int64_t *>p
    rows.y_top = p + n
    rows.g_top = p + 2 * n
    rows.g_from = p + 3 * n
    rows.sum = p + 4 * n
    rows.at_top = p + 5 * n
    rows.low = p + 6 * n
    rows.high = p + 7 * n
    rows.down = p + 8 * n
    rows.spare = p + 9 * n
    rows.lanes = p + 10 * n
    return rows


cdef inline floating backward_value(floating y, floating g, BackwardRow row, bint scaled, bint log) noexcept nogil:
    cdef double value = g * row.down if scaled else g
    if log:
        y = term(y, row.reference, NEXT_TO_MAXIMUM, NULL)
        if scaled and row.down != 1 and fabs(y * row.low * row.high) < 1e270 and fabs(value) < 1e270:
            return <floating>(g - y * row.low * row.high / row.down)        # as small as it may be
        value = mul_add(-(y * row.low), row.high, value)
        return <floating>(value / row.down if scaled else value)
    return <floating>((y / row.down if scaled else y) * ((value - row.g_from) - row.sum))


cdef inline double value_at_top(double y_top, double g_top, double others) noexcept nogil:
    """-g_k (exp(y_k) - 1) - exp(y_k) * others, the difference exact where exp(y_k) is almost one; y_k <= 1."""
    cdef double r, k, scale
    reduce(y_top, refer(<double>0, NEXT_TO_MAXIMUM), NEXT_TO_MAXIMUM, NULL, &r, &k)
    scale = power_f64(k) * (1 / term_scale(r))
    r = mul_add(long_rest(r) * r, r, r)
    return -g_top * mul_add(r, scale, scale - 1) - mul_add(r, scale, scale) * others


cdef inline floating largest_of_row(
    const floating *y, Py_ssize_t n_classes,
    floating *last,             # OUT  (16,), the classes behind the last whole group, filled up with the first of them
) noexcept nogil:
    cdef floating[64] high
    cdef Py_ssize_t j = 0
    cdef int l
    for l in range(64):
        high[l] = -<floating>INFINITY
    while j + 64 <= n_classes:
        for l in range(64):
            high[l] = y[j + l] if y[j + l] > high[l] else high[l]
        j += 64
    while j + LANES <= n_classes:
        max_of_group(y + j, &high[0])
        j += LANES
    if j < n_classes:
        load_lanes(y + j, n_classes - j, last)
        max_of_group(<const floating *>last, &high[0])
    for l in range(16, 64, 16):
        max_of_group(<const floating *>&high[l], &high[0])
    return top_of_lanes(<const floating *>&high[0])


cdef inline void top_of_row(
    const floating *y, Py_ssize_t n_classes, Py_ssize_t first_class, double *largest, int64_t *top,
) noexcept nogil:
    """The maximum first, then where it stands: without jumps that depend on it."""
    cdef floating[LANES] high, last, place
    cdef floating high_of_all = largest_of_row(y, n_classes, &last[0]), minus_j = 0
    cdef Py_ssize_t j = 0
    cdef int l
    for l in range(LANES):
        place[l] = -<floating>CHUNK
    while j + LANES <= n_classes:
        for l in range(LANES):
            high[l] = minus_j if y[j + l] == high_of_all else -<floating>CHUNK
        max_of_group(<const floating *>&high[0], &place[0])
        minus_j -= LANES
        j += LANES
    if j < n_classes:
        for l in range(LANES):
            high[l] = minus_j if last[l] == high_of_all and l < n_classes - j else -<floating>CHUNK
        max_of_group(<const floating *>&high[0], &place[0])
    for l in range(LANES):
        place[l] -= l
    if high_of_all > largest[0]:
        largest[0] = high_of_all
        top[0] = first_class - <int64_t>top_of_lanes(<const floating *>&place[0])


cdef inline void tops_of_group(
    const floating *y, Py_ssize_t stride, Py_ssize_t n_classes, Py_ssize_t first_class, double *largest, int64_t *top,
) noexcept nogil:
    """The same for 16 rows that are lanes."""
    cdef floating[LANES] high, place
    cdef Py_ssize_t j
    cdef const floating *p
    cdef int l
    for l in range(LANES):
        high[l] = <floating>largest[l]
        place[l] = -1
    for j in range(n_classes):
        p = y + j * stride
        for l in range(LANES):         # not as a choice of places, of which GCC 12 makes a jump that is often mistaken
            place[l] += <floating>(p[l] > high[l]) * (<floating>j - place[l])
        for l in range(LANES):
            high[l] = p[l] if p[l] > high[l] else high[l]
    for l in range(LANES):
        largest[l] = high[l]
        top[l] = first_class + <int64_t>place[l] if place[l] >= 0 else top[l]


cdef inline void add_to_lanes(
    const floating *y, const floating *g, double g_from, double down, bint scaled, bint log, double *sum, double *all,
) noexcept nogil:
    """Sixteen classes of a row; `all`, the sum of y, only without `log`."""
    cdef int l
    for l in range(LANES):
        if log:
            sum[l] += g[l] * down if scaled else g[l]
        else:
            sum[l] += y[l] * ((g[l] * down if scaled else g[l]) - g_from)
    if not log:
        for l in range(LANES):
            all[l] += y[l]


cdef inline void add_block_sums(const double *block, double *total, double *carry, floating dtype_tag) noexcept nogil:
    """Sixteen sums to sixteen; in float64, which has no wider type, with what rounding takes."""
    cdef double sum, back
    cdef int l
    for l in range(LANES):
        sum = total[l] + block[l]
        if floating is double:
            back = sum - total[l]
            carry[l] += (total[l] - (sum - back)) + (block[l] - back)
        total[l] = sum


cdef inline void add_row(
    const floating *y, const floating *g, Py_ssize_t n_classes,
    BackwardRow row,            # of which g_from and down are known
    bint scaled, bint log,
    Py_ssize_t top,             # log_softmax: the class that is left out, if it is one of these
    double *lanes,              # INOUT (3, 16): the sum, unless log that of y, and in float64 what rounding took
) noexcept nogil:
    cdef double[LANES] block, all_y
    cdef floating[LANES] last_y, last_g
    cdef Py_ssize_t j = 0, end
    cdef int l
    while j < n_classes:
        end = j + BLOCK if j + BLOCK < n_classes else n_classes
        for l in range(LANES):
            block[l] = all_y[l] = 0
        while j + LANES <= end:
            if log and j <= top < j + LANES:
                for l in range(LANES):
                    last_g[l] = <floating>0 if j + l == top else g[j + l]
                add_to_lanes(y + j, <const floating *>&last_g[0], row.g_from, row.down, scaled, log, &block[0],
                             &all_y[0])
            else:
                add_to_lanes(y + j, g + j, row.g_from, row.down, scaled, log, &block[0], &all_y[0])
            j += LANES
        if j < end:
            load_lanes(y + j, end - j, &last_y[0])
            load_lanes(g + j, end - j, &last_g[0])
            for l in range(LANES):         # behind the last class: what adds nothing
                last_y[l] = <floating>0 if l >= end - j else last_y[l]
                last_g[l] = <floating>0 if l >= end - j or log and j + l == top else last_g[l]
            add_to_lanes(<const floating *>&last_y[0], <const floating *>&last_g[0], row.g_from, row.down, scaled,
                         log, &block[0], &all_y[0])
        add_block_sums(<const double *>&block[0], lanes, lanes + 32, y[0])
        if not log:
            for l in range(LANES):
                lanes[16 + l] += all_y[l]
        j = end


cdef inline void add_group(
    const TwoInputs *inputs,    # y and g, from the first of 16 rows on
    Py_ssize_t n_classes, const double *g_from, const double *down, bint scaled, bint log,
    const floating *top,        # (16,)
    double *lanes,              # INOUT (3, 16, 16 rows)
) noexcept nogil:
    cdef double[LANES] block, all_y, total, total_of_y, carry
    cdef Py_ssize_t lane, first, j
    cdef const floating *p
    cdef const floating *q
    cdef int l
    for lane in range(LANES if n_classes > LANES else n_classes):
        copy_lanes(<const double *>lanes + LANES * lane, &total[0])
        copy_lanes(<const double *>lanes + 512 + LANES * lane, &carry[0])
        if not log:
            copy_lanes(<const double *>lanes + 256 + LANES * lane, &total_of_y[0])
        for first in range(lane, n_classes, 256):   # by BLOCK
            for l in range(LANES):
                block[l] = all_y[l] = 0
            for j in range(first, first + BLOCK - lane if first + BLOCK - lane < n_classes else n_classes, 16):
                p = <const floating *>inputs.x + j * inputs.x_stride
                q = <const floating *>inputs.second + j * inputs.second_stride
                if log:
                    for l in range(LANES):
                        block[l] += 0 if <floating>j == top[l] else (q[l] * down[l] if scaled else q[l])
                else:
                    for l in range(LANES):
                        block[l] += p[l] * ((q[l] * down[l] if scaled else q[l]) - g_from[l])
                if not log:
                    for l in range(LANES):
                        all_y[l] += p[l]
            add_block_sums(<const double *>&block[0], &total[0], &carry[0], top[0])
            if not log:
                for l in range(LANES):
                    total_of_y[l] += all_y[l]
        copy_lanes(<const double *>&total[0], lanes + LANES * lane)
        copy_lanes(<const double *>&carry[0], lanes + 512 + LANES * lane)
        if not log:
            copy_lanes(<const double *>&total_of_y[0], lanes + 256 + LANES * lane)


cdef inline BackwardRow backward_row(const Backward *rows, Py_ssize_t row) noexcept nogil:
    """All but its reference."""
    cdef BackwardRow numbers
    numbers.g_from, numbers.sum, numbers.down = rows.g_from[row], rows.sum[row], rows.down[row]
    numbers.low, numbers.high = rows.low[row], rows.high[row]
    return numbers


cdef inline void write_back_row(
    const floating *y, const floating *g, Py_ssize_t n_classes, const Backward *rows, Py_ssize_t row, bint scaled,
    bint log, floating *to,
) noexcept nogil:
    cdef floating[LANES] value     # read before anything is written: to may be y or g
    cdef floating[LANES] last_y, last_g
    cdef BackwardRow numbers = backward_row(rows, row)
    cdef Py_ssize_t j = 0
    cdef int l
    numbers.reference = refer(reference_of_logs(rows.y_top[row], <floating>0), NEXT_TO_MAXIMUM)
    while j + LANES <= n_classes:
        for l in range(LANES):
            value[l] = backward_value(y[j + l], g[j + l], numbers, scaled, log)
        copy_lanes(<const floating *>&value[0], to + j)
        j += LANES
    if j < n_classes:
        load_lanes(y + j, n_classes - j, &last_y[0])
        load_lanes(g + j, n_classes - j, &last_g[0])
        for l in range(LANES):
            value[l] = backward_value(last_y[l], last_g[l], numbers, scaled, log)
        store_lanes(<const floating *>&value[0], n_classes - j, to + j)


cdef inline floating reference_of_logs(double y_top, floating dtype_tag) noexcept nogil:
    """What the terms of a row of logarithms refer to: 0, unless one of them is above it, and no logarithm of a
    probability; and then no more than what the exponential of would be infinite anyway."""
    cdef double most = 200 if floating is float else 1000
    return <floating>(y_top if 0 < y_top < most else 0 if not y_top > 0 else most)


cdef inline void write_back_group(
    const TwoInputs *inputs,    # y and g, from the first of 16 rows on
    Py_ssize_t n_classes, const Backward *rows, Py_ssize_t row, bint scaled, bint log, floating *to,
    Py_ssize_t to_stride,
) noexcept nogil:
    cdef floating[LANES] value
    cdef floating[48] references        # (N_REFERENCE, LANES)
    cdef double[LANES] g_from, sum, low, high, down
    cdef BackwardRow numbers
    cdef Py_ssize_t j
    cdef const floating *p
    cdef const floating *q
    cdef int l
    for l in range(LANES):
        g_from[l], sum[l], down[l] = rows.g_from[row + l], rows.sum[row + l], rows.down[row + l]
        low[l], high[l] = rows.low[row + l], rows.high[row + l]
    for l in range(LANES):
        store_reference(
            refer(reference_of_logs(rows.y_top[row + l], <floating>0), NEXT_TO_MAXIMUM), &references[l], LANES)
    for j in range(n_classes):
        p = <const floating *>inputs.x + j * inputs.x_stride
        q = <const floating *>inputs.second + j * inputs.second_stride
        for l in range(LANES):
            numbers.g_from, numbers.sum, numbers.down = g_from[l], sum[l], down[l]
            numbers.low, numbers.high = low[l], high[l]
            numbers.reference = reference_at(<const floating *>&references[l], LANES)
            value[l] = backward_value(p[l], q[l], numbers, scaled, log)
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
        for l in range(LANES):
            lanes[i + l] += lanes[i + 128 + l]
    for i in range(0, 64, 16):
        for l in range(LANES):
            lanes[i + l] += lanes[i + 64 + l]
    for l in range(LANES):
        sum[l] = (lanes[l] + lanes[32 + l]) + (lanes[16 + l] + lanes[48 + l])


cdef inline void add_part_as_rows(
    const Task *task, const Part *part, Backward *rows, bint scaled, bint log, const TwoInputs *inputs,
    floating dtype_tag,
) noexcept nogil:
    cdef Py_ssize_t row, n = part.n_classes, lanes_step = 48 if task.plan.n_chunks > 1 else 0   # one place will do
    cdef bint is_first = part.first_class == 0, is_last = part.first_class + n == task.n_classes
    cdef const floating *y = <const floating *>inputs.x
    cdef const floating *g = <const floating *>inputs.second
    cdef double *lanes
    cdef double left
    for row in range(part.n_rows):
        lanes = rows.lanes + lanes_step * row
        fetch_row(<const char *>(g + (part.n_rows + row) * inputs.second_stride), n * <Py_ssize_t>sizeof(floating))
        if part.output.start != NULL:
            fetch_row(part.output.start + row * part.output.row_step, n * <Py_ssize_t>sizeof(floating))
        if is_first:
            memset(lanes, 0, 48 * sizeof(double))
        add_row(y + row * inputs.x_stride, g + row * inputs.second_stride, n, backward_row(rows, row), scaled, log,
                rows.top[row] - part.first_class, lanes)
        if is_last:
            fold_backward_row(<const double *>lanes, &rows.sum[row])
            if floating is double:
                fold_backward_row(<const double *>lanes + 32, &left)
                rows.sum[row] += left if fabs(left) < INFINITY else 0
            if not log:
                fold_backward_row(<const double *>lanes + 16, &rows.high[row])


cdef inline void add_part_as_columns(
    const Task *task, const Part *part, Backward *rows, bint scaled, bint log, const TwoInputs *inputs,
    floating dtype_tag,
) noexcept nogil:
    cdef Py_ssize_t row, n = part.n_classes, lanes_step = 48 if task.plan.n_chunks > 1 else 0
    cdef bint is_first = part.first_class == 0, is_last = part.first_class + n == task.n_classes
    cdef TwoInputs group = inputs[0]
    cdef floating[LANES] top
    cdef double *lanes
    cdef double[LANES] left
    cdef int l
    for row in range(0, part.width, 16):
        fetch_lanes(&part.ahead, row, n, dtype_tag)
        fetch_lanes(&part.output, row, n, dtype_tag)
        lanes = rows.lanes + lanes_step * row
        if is_first:
            memset(lanes, 0, 768 * sizeof(double))
        for l in range(LANES):
            top[l] = <floating>(rows.top[row + l] - part.first_class)
        group.x, group.second = <const floating *>inputs.x + row, <const floating *>inputs.second + row
        add_group(&group, n, rows.g_from + row, rows.down + row, scaled, log, <const floating *>&top[0], lanes)
        if is_last:
            fold_backward_group(lanes, &rows.sum[row])
            if floating is double:
                fold_backward_group(lanes + 512, &left[0])
                for l in range(LANES):
                    rows.sum[row + l] += left[l] if fabs(left[l]) < INFINITY else 0
            if not log:
                fold_backward_group(lanes + 256, &rows.high[row])


cdef inline void add_part(
    const Task *task, const Part *part, Backward *rows, bint scaled, bint log, const TwoInputs *inputs,
    floating dtype_tag,
) noexcept nogil:
    """Add up a part's rows; with the last chunk their sums are known."""
    if part.orientation == ROWS:
        add_part_as_rows(task, part, rows, scaled, log, inputs, dtype_tag)
    else:
        add_part_as_columns(task, part, rows, scaled, log, inputs, dtype_tag)


cdef inline void write_part(
    const Part *part, const Backward *rows, bint scaled, bint log, const TwoInputs *inputs, floating *to,
    Py_ssize_t to_stride,
) noexcept nogil:
    cdef const floating *y = <const floating *>inputs.x
    cdef const floating *g = <const floating *>inputs.second
    cdef TwoInputs group = inputs[0]
    cdef Py_ssize_t row, n = part.n_classes, target
    if part.orientation == ROWS:
        for row in range(part.n_rows):
            write_back_row(y + row * inputs.x_stride, g + row * inputs.second_stride, n, rows, row, scaled, log,
                           to + row * to_stride)
    else:
        for row in range(0, part.width, 16):
            group.x, group.second = y + row, g + row
            write_back_group(&group, n, rows, row, scaled, log, to + row, to_stride)
    for row in range(part.n_rows if log else 0):
        target = rows.top[row] - part.first_class
        if 0 <= target < n and -1 <= rows.y_top[row] <= 1:      # else nothing cancels
            to[row * to_stride + target if part.orientation == ROWS else target * to_stride + row] = (
                <floating>rows.at_top[row])


cdef inline void pick_tops(
    const Layout *source, Py_ssize_t first_row, Py_ssize_t n_rows, const int64_t *top, double *values,
    floating dtype_tag,
) noexcept nogil:
    """The elements at the top of each row."""
    cdef Py_ssize_t[MAX_TILE_ROWS] offsets
    cdef Py_ssize_t row
    cdef floating value
    row_offsets(source, first_row, n_rows, offsets)
    for row in range(n_rows):
        memcpy(&value, source.data + offsets[row] + top[row] * source.class_stride, sizeof(floating))
        values[row] = value


cdef inline void find_tops(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, Backward *rows, floating *scratch,
) noexcept nogil:
    cdef Part part = part_of(task, first_row, n_rows, 0)
    cdef const floating *y
    cdef Py_ssize_t chunk, row, y_stride = 0
    cdef double *largest = rows.spare
    for row in range(part.width):
        largest[row] = -INFINITY
        rows.top[row] = 0
        rows.y_top[row] = rows.g_top[row] = 0
    for chunk in range(task.plan.n_chunks):
        part = part_of(task, first_row, n_rows, chunk)
        y = load(task, &task.x, &part, scratch, False, &y_stride)
        if part.orientation == ROWS:
            for row in range(n_rows):           # what comes next is fetched: the next tile's y, with the sums its g
                fetch_row(<const char *>(y + (n_rows + row) * y_stride), part.n_classes * <Py_ssize_t>sizeof(floating))
                top_of_row(y + row * y_stride, part.n_classes, part.first_class, &largest[row], &rows.top[row])
        else:
            for row in range(0, part.width, 16):
                fetch_lanes(&part.ahead, row, part.n_classes, y[0])
                tops_of_group(y + row, y_stride, part.n_classes, part.first_class, &largest[row], &rows.top[row])
    pick_tops(&task.x, first_row, n_rows, <const int64_t *>rows.top, rows.y_top, y[0])
    pick_tops(&task.second_input, first_row, n_rows, <const int64_t *>rows.top, rows.g_top, y[0])


cdef inline void find_backward_sums(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, bint scaled, bint log, Backward *rows,
    const Scratch *scratch, floating dtype_tag,
) noexcept nogil:
    cdef Part part, part_of_y
    cdef TwoInputs inputs
    cdef const floating *y
    cdef const floating *g
    cdef Py_ssize_t chunk, y_stride = 0, g_stride = 0
    cdef bint is_loaded = task.plan.n_chunks == 1
    for chunk in range(task.plan.n_chunks):
        part = part_of(task, first_row, n_rows, chunk)
        g = load(task, &task.second_input, &part, <floating *>scratch.masses, False, &g_stride)
        if log:                 # whose sum is of g alone
            y, y_stride = g, g_stride
        else:
            part_of_y = part
            y = load(task, &task.x, &part_of_y, <floating *>scratch.logits, is_loaded, &y_stride)
        find_output(task, &part, <Py_ssize_t>sizeof(floating))
        inputs = two_inputs(y, y_stride, g, g_stride)
        add_part(task, &part, rows, scaled, log, &inputs, dtype_tag)


cdef inline bint find_exceptions(
    const Task *task, Backward *rows, Py_ssize_t n_rows, bint log, floating dtype_tag,
) noexcept nogil:
    """Whether there are rows whose sums are to be found once more: whose y do not add up to 1, or whose sums leave the
    range of float64; and how."""
    # A softmax has three units in the last place, and its sum here what so many summands add.
    cdef double rounding = (4.76837158203125e-07 if floating is float else 8.881784197001252e-16) * (
        1 + task.plan.n_chunks // 16)
    cdef Py_ssize_t row
    cdef double size
    cdef bint found = False
    for row in range(n_rows):
        size = fabs(rows.sum[row]) + fabs(rows.g_from[row])
        # (g_j - r) - sum must not overflow where y_j times that need not; a g_j of log_softmax is nearly its own value.
        if floating is double and not size < (INFINITY if log else 1e290):
            rows.down[row] = 5.421010862427522e-20              # 2**-64
            rows.g_top[row] *= rows.down[row]
            rows.g_from[row] *= rows.down[row]
            found = True
        if not log and not fabs(1 - rows.high[row]) <= rounding:
            rows.g_from[row] = 0
            found = True
    return found


cdef inline void finish_logs(Backward *rows, Py_ssize_t width, floating dtype_tag) noexcept nogil:
    """What the values of the classes are made with, for log_softmax."""
    cdef double sum, n
    cdef Py_ssize_t row
    for row in range(width):
        rows.at_top[row] = value_at_top(
            rows.y_top[row] if -1 <= rows.y_top[row] <= 1 else 0, rows.g_top[row], rows.sum[row]) / rows.down[row]
        sum = rows.sum[row] + rows.g_top[row]
        n = multiple_of(refer(reference_of_logs(rows.y_top[row], dtype_tag), NEXT_TO_MAXIMUM), dtype_tag)
        # The scale of terms goes where no digit is lost: to a sum that is not small, or to the term.
        rows.low[row] = 1 if fabs(sum) >= 1 else 1 / term_scale(dtype_tag)
        rows.high[row] = sum * two_to_the(n) * (1 / term_scale(dtype_tag) if fabs(sum) >= 1 else 1)


cdef void softmax_backward_tile(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, const Scratch *scratch, floating dtype_tag,
) noexcept nogil:
    backward_tile(task, first_row, n_rows, False, scratch, dtype_tag)


cdef void log_softmax_backward_tile(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, const Scratch *scratch, floating dtype_tag,
) noexcept nogil:
    backward_tile(task, first_row, n_rows, True, scratch, dtype_tag)


cdef inline void backward_tile(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, bint log, const Scratch *scratch, floating dtype_tag,
) noexcept nogil:
    """Three passes over the chunks: where the largest is, the sum, the values."""
    cdef Py_ssize_t width = part_of(task, first_row, n_rows, 0).width, row
    cdef Backward rows = backward_at(<char *>scratch.numbers, width)
    cdef bint scaled = False
    find_tops(task, first_row, n_rows, &rows, <floating *>scratch.logits)
    for row in range(width):
        rows.down[row] = 1
        rows.g_from[row] = rows.g_top[row]
        rows.low[row] = rows.high[row] = 0
    find_backward_sums(task, first_row, n_rows, False, log, &rows, scratch, dtype_tag)
    if find_exceptions(task, &rows, n_rows, log, dtype_tag):
        if floating is double:
            scaled = True
            find_backward_sums(task, first_row, n_rows, True, log, &rows, scratch, dtype_tag)
        else:
            find_backward_sums(task, first_row, n_rows, False, log, &rows, scratch, dtype_tag)
    if log:
        finish_logs(&rows, width, dtype_tag)
    if floating is double and scaled:
        write_back(task, first_row, n_rows, True, log, &rows, scratch, dtype_tag)
    else:
        write_back(task, first_row, n_rows, False, log, &rows, scratch, dtype_tag)


cdef inline void write_back(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, bint scaled, bint log, const Backward *rows,
    const Scratch *scratch, floating dtype_tag,
) noexcept nogil:
    cdef Part part
    cdef TwoInputs inputs
    cdef const floating *y
    cdef const floating *g
    cdef floating *values = <floating *>scratch.terms
    cdef floating *to
    cdef Py_ssize_t chunk, y_stride = 0, g_stride = 0, to_stride = 0
    cdef bint is_loaded = task.plan.n_chunks == 1
    for chunk in range(task.plan.n_chunks):
        part = part_of(task, first_row, n_rows, chunk)
        y = load(task, &task.x, &part, <floating *>scratch.logits, is_loaded, &y_stride)
        g = load(task, &task.second_input, &part, <floating *>scratch.masses, is_loaded, &g_stride)
        to = destination(task, &part, values, &to_stride)
        inputs = two_inputs(y, y_stride, g, g_stride)
        write_part(&part, rows, scaled, log, &inputs, to, to_stride)
        if to == values:
            store(task, &part, values, <floating *>scratch.spare)
