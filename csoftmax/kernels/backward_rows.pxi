# The way back through softmax and log_softmax, the arithmetic of rows and of 16 rows that are lanes: from the gradient
# with respect to the result to that with respect to the logits. Passes over a tile are in backward.pxi. Sums are in
# double over 16 lanes of classes. With k the place of the largest y:
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

from csoftmax.kernels.backward cimport Backward, BackwardRow
from csoftmax.kernels.exp cimport (
    NEXT_TO_MAXIMUM, long_rest, mul_add, power_f64, reduce, refer, reference_at, store_reference, term, term_scale,
)
from csoftmax.kernels.lanes cimport copy_lanes, load_lanes, max_of_group, store_lanes
from csoftmax.kernels.task cimport CHUNK, LANES, padded
from csoftmax.kernels.tile cimport TwoInputs

cdef enum:
    BLOCK = 256             # classes that are added to one sum of a lane, so that errors do not pile up


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
    rows.largest = p + 9 * n
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
