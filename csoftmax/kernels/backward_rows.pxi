# The way back through softmax and log_softmax, the arithmetic of rows and of 16 rows that are lanes: from the gradient
# with respect to the result to that with respect to the logits. Passes over a tile are in backward.pxi. With k the
# place of the largest y:
#
#   softmax:        y_j (g_j - S),   S = sum of y_j g_j
#   log_softmax:    g_j - exp(y_j) G,   G = sum of g_j;    at k:  -g_k (exp(y_k) - 1) - exp(y_k) (G - g_k)
#
# Where y_k is almost one, g_k - S leaves no digit at k. If the y add up to one, S is
#
#   S(r) = r + sum of y_j (g_j - r)
#
# for any r, and g_k - S keeps its digits if r = g_k. So S is S(g_k) where what they lack is no more than their
# rounding; else S(0). It is held in two parts, center + rest, the center of the dtype: (g_j - center) - rest rounds
# once.
# float64, which has no wider type, adds what is small: where a large g_k has a small y_k it takes r = S(0) as first
# found, and then S(g_k) = S(r) - (g_k - r) (sum of y_j - 1).
#
# Sums of a chunk are added as lanes.pxd says, float64's with carries; but float32's (and the r of float64) in double
# from the first product on, each class in its lane: in float32 a chain of only four products may be 5 units off.

from cython cimport floating
from libc.math cimport INFINITY, fabs
from libc.stdint cimport int64_t

from csoftmax.kernels.backward cimport Backward, BackwardLanes, BackwardRow
from csoftmax.kernels.exp cimport (
    NEXT_TO_MAXIMUM, long_rest, mul_add, power_f64, reduce, refer, reference_at, store_reference, term, term_scale,
)
from csoftmax.kernels.lanes cimport (
    FOLD, add_products, add_to_totals, add_values, copy_lanes, load_lanes, max_of_group, store_lanes,
)
from csoftmax.kernels.task cimport CHUNK, LANES
from csoftmax.kernels.tile cimport TwoInputs

cdef inline Backward backward_at(char *memory, Py_ssize_t width, Py_ssize_t n_chunks) noexcept nogil:
    """In the memory of RowStates, whose ROW_ARRAYS and CHUNK_ARRAYS are as many."""
    cdef Backward rows
    cdef double *p = <double *>memory
    rows.width, rows.n_chunks = width, n_chunks
    rows.top, rows.y_top, rows.g_top = <int64_t *>p, p + width, p + 2 * width
    rows.sum, rows.high = p + 3 * width, p + 4 * width
    rows.g_from, rows.down = p + 5 * width, p + 6 * width
    rows.high_low, rows.low, rows.at_top = p + 7 * width, p + 8 * width, p + 9 * width
    rows.center, rows.rest = rows.high_low, rows.low
    if n_chunks > 1:
        p += 10 * width
    rows.chunk_top = <int64_t *>p
    rows.chunk_y_top = p + n_chunks * width
    rows.chunk_g_top = p + 2 * n_chunks * width
    rows.chunk_sum = p + 3 * n_chunks * width
    rows.chunk_y = p + 4 * n_chunks * width
    return rows


# ---- The largest class ----

cdef inline void largest_in_lanes(
    const floating *y, Py_ssize_t n_classes,
    floating *lanes,            # OUT  (16,), of which the largest is that of the classes, NaN apart
) noexcept nogil:
    cdef floating[64] high
    cdef floating[LANES] last
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
        load_lanes(y + j, n_classes - j, &last[0])
        max_of_group(<const floating *>&last[0], &high[0])
    for l in range(16, 64, 16):
        max_of_group(<const floating *>&high[l], &high[0])
    copy_lanes(<const floating *>&high[0], lanes)


cdef inline void keep_place(
    const floating *y, floating value, floating minus_j, floating *place,   # INOUT (16,)
) noexcept nogil:
    cdef floating[LANES] here
    cdef int l
    for l in range(LANES):
        here[l] = minus_j if y[l] == value else -<floating>CHUNK
    max_of_group(<const floating *>&here[0], place)


cdef inline void places_in_lanes(
    const floating *y, Py_ssize_t n_classes, floating value,
    floating *place,            # OUT  (16,), of which the largest is minus the first class that equals `value`
) noexcept nogil:
    """Without jumps that depend on where it is."""
    cdef floating[64] places
    cdef floating[LANES] last
    cdef Py_ssize_t j = 0
    cdef int l
    for l in range(64):
        places[l] = -<floating>CHUNK
    while j + 64 <= n_classes:          # four chains of steps side by side
        for l in range(0, 64, 16):
            keep_place(y + j + l, value, -<floating>(j + l), &places[l])
        j += 64
    while j + LANES <= n_classes:
        keep_place(y + j, value, -<floating>j, &places[0])
        j += LANES
    if j < n_classes:                   # filled up with class j, which is in front of what it fills
        load_lanes(y + j, n_classes - j, &last[0])
        keep_place(<const floating *>&last[0], value, -<floating>j, &places[0])
    for l in range(16, 64, 16):
        max_of_group(<const floating *>&places[l], &places[0])
    for l in range(LANES):
        place[l] = places[l] - l


cdef inline void tops_of_rows(
    const floating *y, Py_ssize_t row_stride, Py_ssize_t n_rows,    # at most FOLD
    Py_ssize_t n_classes,
    double *largest, int64_t *top,      # OUT  (n_rows,)
) noexcept nogil:
    """The largest that is no NaN, -inf if there is none, and the first class that has it, or 0."""
    cdef floating[128] lanes
    cdef floating[FOLD] high, place
    cdef Py_ssize_t row
    for row in range(n_rows):
        largest_in_lanes(y + row * row_stride, n_classes, &lanes[LANES * row])
    fold_maxima(<const floating *>&lanes[0], &high[0])
    for row in range(n_rows):
        places_in_lanes(y + row * row_stride, n_classes, high[row], &lanes[LANES * row])
    fold_maxima(<const floating *>&lanes[0], &place[0])
    for row in range(n_rows):
        largest[row] = high[row]
        top[row] = -<int64_t>place[row] if high[row] > -INFINITY else 0


cdef inline void tops_of_group(
    const floating *y, Py_ssize_t stride, Py_ssize_t n_classes,
    double *largest, int64_t *top,      # OUT  (16,)
) noexcept nogil:
    """The same for 16 rows that are lanes."""
    cdef floating[LANES] high, place
    cdef Py_ssize_t j
    cdef const floating *p
    cdef int l
    for l in range(LANES):
        high[l] = -<floating>INFINITY
        place[l] = 0
    for j in range(n_classes):
        p = y + j * stride
        for l in range(LANES):         # not as a choice of places, of which GCC 12 makes a jump that is often mistaken
            place[l] += <floating>(p[l] > high[l]) * (<floating>j - place[l])
        for l in range(LANES):
            high[l] = p[l] if p[l] > high[l] else high[l]
    for l in range(LANES):
        largest[l] = high[l]
        top[l] = <int64_t>place[l]


# ---- Sums ----

cdef inline floating summand(
    floating y, floating g, double g_from, double down, bint scaled, bint log,
) noexcept nogil:
    """What a class adds to the sum, in the dtype."""
    g = <floating>(g * down) if scaled else g
    return g if log else y * (g - <floating>g_from)


cdef inline void add_groups_of_row(
    const floating *y, const floating *g, Py_ssize_t n_classes, Py_ssize_t top, double g_from, bint log,
    double *sums, double *sums_of_y,    # OUT  (8,)
) noexcept nogil:
    """One after the other, in double."""
    cdef double[LANES] totals, totals_of_y
    cdef floating[LANES] last_y, last_g
    cdef Py_ssize_t j = 0, n
    cdef int l
    top = top if log else -1
    for l in range(LANES):
        totals[l] = totals_of_y[l] = 0
    while j < n_classes:
        n = n_classes - j if top < j else top - j       # whole groups without the top
        if n >= LANES:
            if log:
                add_values(g + j, n // LANES, &totals[0])
            else:
                add_products(y + j, g + j, n // LANES, g_from, &totals[0], &totals_of_y[0])
            j += n // LANES * LANES
            continue
        n = n_classes - j if n_classes - j < LANES else LANES
        load_lanes(y + j, n, &last_y[0])
        load_lanes(g + j, n, &last_g[0])
        for l in range(LANES):          # behind the last class: what adds nothing
            last_y[l] = <floating>0 if l >= n else last_y[l]
            last_g[l] = <floating>0 if (l >= n) | (j + l == top) else last_g[l]
        if log:
            add_values(<const floating *>&last_g[0], 1, &totals[0])
        else:
            add_products(<const floating *>&last_y[0], <const floating *>&last_g[0], 1, g_from, &totals[0],
                         &totals_of_y[0])
        j += LANES
    for l in range(8):
        sums[l] = totals[l] + totals[l + 8]
    if not log:
        for l in range(8):
            sums_of_y[l] = totals_of_y[l] + totals_of_y[l + 8]


cdef inline void add_blocks_of_row(
    const floating *y, const floating *g, Py_ssize_t n_classes, Py_ssize_t top, const double *g_from,   # and down
    bint scaled, bint log,
    double *sums, double *carries, double *sums_of_y,       # OUT  (8,)
) noexcept nogil:
    """In blocks of 64, with what rounding takes."""
    cdef floating[64] last_y, last_g
    cdef floating[LANES] block
    cdef const floating *p
    cdef const floating *q
    cdef double down = g_from[1]
    cdef Py_ssize_t j
    cdef int l
    for l in range(8):
        sums[l] = carries[l] = sums_of_y[l] = 0
    for j in range(0, n_classes, 64):
        p, q = y + j, g + j
        if n_classes - j < 64 or log and j <= top < j + 64:
            for l in range(64):         # behind the last class: what adds nothing
                last_y[l] = y[j + l] if l < n_classes - j else <floating>0
                last_g[l] = <floating>0 if l >= n_classes - j or log and j + l == top else g[j + l]
            p, q = <const floating *>&last_y[0], <const floating *>&last_g[0]
        for l in range(LANES):
            block[l] = (summand(p[l], q[l], g_from[0], down, scaled, log)
                        + summand(p[l + 16], q[l + 16], g_from[0], down, scaled, log)) + (
                            summand(p[l + 32], q[l + 32], g_from[0], down, scaled, log)
                            + summand(p[l + 48], q[l + 48], g_from[0], down, scaled, log))
        add_to_totals(<const floating *>&block[0], sums, carries)
        add_to_totals(<const floating *>&block[8], sums, carries)
        if not log:
            for l in range(LANES):
                block[l] = (p[l] + p[l + 16]) + (p[l + 32] + p[l + 48])
            for l in range(8):
                sums_of_y[l] += block[l] + block[l + 8]


cdef inline void add_rows(
    const TwoInputs *inputs,    # y and g, of at most FOLD rows
    Py_ssize_t n_rows, Py_ssize_t n_classes,
    const BackwardLanes *lanes,     # log_softmax: the tops, if they are among these classes, are left out
    bint carried,               # whether rounding is to be made good
    bint scaled, bint log,
    double *sum, double *sum_of_y,      # OUT  (FOLD,), those from n_rows on undefined
    floating dtype_tag,
) noexcept nogil:
    cdef double[64] sums, carries, sums_of_y
    cdef double[2] numbers
    cdef const floating *y
    cdef const floating *g
    cdef Py_ssize_t row, top
    for row in range(n_rows):
        y = <const floating *>inputs.x + row * inputs.x_stride
        g = <const floating *>inputs.second + row * inputs.second_stride
        top = <Py_ssize_t>lanes.top[row]
        if not carried:
            add_groups_of_row(y, g, n_classes, top, lanes.g_from[row], log, &sums[8 * row], &sums_of_y[8 * row])
        else:
            numbers[0], numbers[1] = lanes.g_from[row], lanes.down[row]
            add_blocks_of_row(y, g, n_classes, top, <const double *>&numbers[0], scaled, log, &sums[8 * row],
                              &carries[8 * row], &sums_of_y[8 * row])
    if carried:
        fold_rows(<const double *>&sums[0], <const double *>&carries[0], True, sum, dtype_tag)
    else:
        fold_rows(<const double *>&sums[0], <const double *>&carries[0], False, sum, <float>0)
    if not log:
        fold_rows(<const double *>&sums_of_y[0], <const double *>&carries[0], False, sum_of_y, <float>0)


cdef inline void add_class(
    const TwoInputs *inputs, Py_ssize_t j, const BackwardLanes *lanes, bint scaled, bint log,
    floating *sums, floating *sums_of_y,    # INOUT (16,)
) noexcept nogil:
    """Of 16 rows that are lanes, in the dtype."""
    cdef const floating *p = <const floating *>inputs.x + j * inputs.x_stride
    cdef const floating *q = <const floating *>inputs.second + j * inputs.second_stride
    cdef floating value
    cdef int l
    for l in range(LANES):
        value = summand(p[l], q[l], lanes.g_from[l], lanes.down[l], scaled, log)
        sums[l] += <floating>0 if log and <double>j == lanes.top[l] else value
    if not log:
        for l in range(LANES):
            sums_of_y[l] += p[l]


cdef inline void add_four_classes(
    const TwoInputs *inputs, Py_ssize_t j, Py_ssize_t n_classes, const BackwardLanes *lanes, bint scaled, bint log,
    floating *sums, floating *sums_of_y,    # OUT  (16,)
) noexcept nogil:
    """Those of a lane in a block of 64, as far as there are so many: two, two, and these."""
    cdef floating[LANES] second, second_y
    cdef int l
    for l in range(LANES):
        sums[l] = sums_of_y[l] = second[l] = second_y[l] = 0
    add_class(inputs, j, lanes, scaled, log, sums, sums_of_y)
    if j + 16 < n_classes:
        add_class(inputs, j + 16, lanes, scaled, log, sums, sums_of_y)
    if j + 32 < n_classes:
        add_class(inputs, j + 32, lanes, scaled, log, &second[0], &second_y[0])
        if j + 48 < n_classes:
            add_class(inputs, j + 48, lanes, scaled, log, &second[0], &second_y[0])
        for l in range(LANES):
            sums[l] += second[l]
            sums_of_y[l] += second_y[l]


cdef inline void add_pair_of_lanes(
    const TwoInputs *inputs, Py_ssize_t lane, Py_ssize_t n_classes, const BackwardLanes *lanes, bint scaled, bint log,
    double *total, double *carry, double *total_of_y,       # OUT  (16 rows,), of classes lane + 8 i
    floating dtype_tag,
) noexcept nogil:
    """In blocks of 64, with what rounding takes."""
    cdef floating[LANES] sums, sums_of_y, low_y
    cdef Py_ssize_t block, j
    cdef int l
    for l in range(LANES):
        total[l] = carry[l] = total_of_y[l] = 0
    for block in range(lane, n_classes, 64):
        add_four_classes(inputs, block, n_classes, lanes, scaled, log, &sums[0], &low_y[0])
        add_to_totals(<const floating *>&sums[0], total, carry)
        add_to_totals(<const floating *>&sums[8], total + 8, carry + 8)
        if block + 8 < n_classes:
            add_four_classes(inputs, block + 8, n_classes, lanes, scaled, log, &sums[0], &sums_of_y[0])
            add_to_totals(<const floating *>&sums[0], total, carry)
            add_to_totals(<const floating *>&sums[8], total + 8, carry + 8)
            for l in range(LANES):
                low_y[l] += sums_of_y[l]
        for l in range(LANES):
            total_of_y[l] += low_y[l]


cdef inline void add_lane(
    const TwoInputs *inputs, Py_ssize_t lane, Py_ssize_t n_classes, const BackwardLanes *lanes, bint log,
    double *total, double *total_of_y,      # OUT  (16 rows,)
    floating dtype_tag,
) noexcept nogil:
    """One after the other, in double."""
    cdef const floating *p
    cdef const floating *q
    cdef Py_ssize_t j
    cdef int l
    for l in range(LANES):
        total[l] = total_of_y[l] = 0
    for j in range(lane, n_classes, 16):
        p = <const floating *>inputs.x + j * inputs.x_stride
        q = <const floating *>inputs.second + j * inputs.second_stride
        if log:
            for l in range(LANES):
                total[l] += 0 if <double>j == lanes.top[l] else q[l]
        else:
            for l in range(LANES):
                total[l] = mul_add(<double>p[l], q[l] - lanes.g_from[l], total[l])
            for l in range(LANES):
                total_of_y[l] += p[l]


cdef inline void fold_group(double *lanes, Py_ssize_t n_lanes, double *sum) noexcept nogil:
    """Eight lanes of 16 rows, of which n_lanes have classes: as fold_rows(), without carries."""
    cdef Py_ssize_t distance = 1, lane
    cdef int l
    while distance < n_lanes:
        lane = 0
        while lane + distance < n_lanes:
            for l in range(LANES):
                lanes[LANES * lane + l] += lanes[LANES * (lane + distance) + l]
            lane += 2 * distance
        distance *= 2
    for l in range(LANES):
        sum[l] = lanes[l]


cdef inline void add_group(
    const TwoInputs *inputs,    # y and g, from the first of 16 rows on
    Py_ssize_t n_classes, const BackwardLanes *lanes, bint carried, bint scaled, bint log,
    double *sum, double *sum_of_y,      # OUT  (16,)
    floating dtype_tag,
) noexcept nogil:
    cdef double[128] totals, carries, totals_of_y       # (8 lanes, 16 rows)
    cdef double[LANES] high, high_of_y
    cdef Py_ssize_t n_lanes = n_classes if n_classes < 8 else 8, lane
    cdef int l
    for lane in range(8 if carried else n_lanes):
        if carried:
            add_pair_of_lanes(inputs, lane, n_classes, lanes, scaled, log, &totals[LANES * lane],
                              &carries[LANES * lane], &totals_of_y[LANES * lane], dtype_tag)
            continue
        add_lane(inputs, lane, n_classes, lanes, log, &totals[LANES * lane], &totals_of_y[LANES * lane], dtype_tag)
        if lane + 8 < n_classes:
            add_lane(inputs, lane + 8, n_classes, lanes, log, &high[0], &high_of_y[0], dtype_tag)
            for l in range(LANES):
                totals[LANES * lane + l] += high[l]
                totals_of_y[LANES * lane + l] += high_of_y[l]
    if carried:
        fold_lanes(&totals[0], &carries[0], dtype_tag)
        n_lanes = 1
    fold_group(&totals[0], n_lanes, sum)
    if not log:
        fold_group(&totals_of_y[0], n_classes if n_classes < 8 else 8, sum_of_y)


# ---- Values ----

cdef inline double value_at_top(double y_top, double g_top, double others) noexcept nogil:
    """-g_k (exp(y_k) - 1) - exp(y_k) * others, the difference exact where exp(y_k) is almost one; y_k <= 1."""
    cdef double r, k, scale
    reduce(y_top, refer(<double>0, NEXT_TO_MAXIMUM), NEXT_TO_MAXIMUM, NULL, &r, &k)
    scale = power_f64(k) * (1 / term_scale(r))
    r = mul_add(long_rest(r) * r, r, r)
    return -g_top * mul_add(r, scale, scale - 1) - mul_add(r, scale, scale) * others


cdef inline floating reference_of_logs(double y_top, floating dtype_tag) noexcept nogil:
    """What the terms of a row of logarithms refer to: 0, unless one of them is above it, and no logarithm of a
    probability; and then no more than what the exponential of would be infinite anyway."""
    cdef double most = 200 if floating is float else 1000
    return <floating>(y_top if 0 < y_top < most else 0 if not y_top > 0 else most)


cdef inline bint is_usual(const Backward *rows, Py_ssize_t row, bint log, floating dtype_tag) noexcept nogil:
    """Whether the dtype has the range for what the values of a row are made of. Where y add up to little and none is
    large, none is very negative either."""
    cdef double most = 1e27 if floating is float else 1e280
    if log:
        return rows.down[row] == 1 and rows.y_top[row] <= 1 and fabs(rows.sum[row] + rows.g_top[row]) < most
    return (rows.down[row] == 1 and rows.y_top[row] <= 2 and fabs(rows.high[row]) < 1e9
            and fabs(rows.sum[row]) < most and fabs(rows.g_from[row]) < most)


cdef inline floating usual_value(floating y, floating g, BackwardRow row, bint log) noexcept nogil:
    if not log:
        return mul_add(y, g - <floating>row.center, -(y * <floating>row.rest))
    y = term(y, row.reference, NEXT_TO_MAXIMUM, NULL) * <floating>row.low
    if floating is float:
        g = mul_add(-y, <floating>row.high_low, g)
    return mul_add(-y, <floating>row.high, g)


cdef inline floating careful_value(floating y, floating g, BackwardRow row, bint log) noexcept nogil:
    """In double, scaled down if need be."""
    cdef double value = g * row.down
    if not log:
        return <floating>(y / row.down * ((value - row.g_from) - row.sum))
    y = term(y, row.reference, NEXT_TO_MAXIMUM, NULL)
    if row.down != 1 and fabs(y * row.low * row.high) < 1e270 and fabs(value) < 1e270:
        return <floating>(g - y * row.low * row.high / row.down)        # as small as it may be
    return <floating>(mul_add(-(y * row.low), row.high, value) / row.down)


cdef inline floating backward_value(floating y, floating g, BackwardRow row, bint usual, bint log) noexcept nogil:
    return usual_value(y, g, row, log) if usual else careful_value(y, g, row, log)


cdef inline BackwardRow backward_row(const Backward *rows, Py_ssize_t row, floating dtype_tag) noexcept nogil:
    cdef BackwardRow numbers
    numbers.g_from, numbers.sum, numbers.down = rows.g_from[row], rows.sum[row], rows.down[row]
    numbers.center, numbers.rest = rows.center[row], rows.rest[row]
    numbers.low, numbers.high, numbers.high_low = rows.low[row], rows.high[row], rows.high_low[row]
    numbers.reference = refer(reference_of_logs(rows.y_top[row], dtype_tag), NEXT_TO_MAXIMUM)
    return numbers


cdef inline void write_back_row(
    const floating *y, const floating *g, Py_ssize_t n_classes, BackwardRow row, bint usual, bint log, floating *to,
) noexcept nogil:
    cdef floating[LANES] value     # read before anything is written: to may be y or g
    cdef floating[LANES] last_y, last_g
    cdef Py_ssize_t j = 0
    cdef int l
    while j + LANES <= n_classes:
        for l in range(LANES):
            value[l] = backward_value(y[j + l], g[j + l], row, usual, log)
        copy_lanes(<const floating *>&value[0], to + j)
        j += LANES
    if j < n_classes:
        load_lanes(y + j, n_classes - j, &last_y[0])
        load_lanes(g + j, n_classes - j, &last_g[0])
        for l in range(LANES):
            value[l] = backward_value(last_y[l], last_g[l], row, usual, log)
        store_lanes(<const floating *>&value[0], n_classes - j, to + j)


cdef inline void write_back_group(
    const TwoInputs *inputs,    # y and g, from the first of 16 rows on
    Py_ssize_t n_classes, const Backward *rows, Py_ssize_t row,
    bint all_usual,             # a constant; else rows are, one by one, or not
    bint log, floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    cdef floating[LANES] value
    cdef floating[48] references        # (N_REFERENCE, LANES)
    cdef BackwardLanes lanes
    cdef BackwardRow numbers
    cdef Py_ssize_t j
    cdef const floating *p
    cdef const floating *q
    cdef bint[LANES] usual
    cdef int l
    for l in range(LANES):
        numbers = backward_row(rows, row + l, to[0])
        lanes.g_from[l], lanes.sum[l], lanes.down[l] = numbers.g_from, numbers.sum, numbers.down
        lanes.center[l], lanes.rest[l] = numbers.center, numbers.rest
        lanes.low[l], lanes.high[l], lanes.high_low[l] = numbers.low, numbers.high, numbers.high_low
        store_reference(numbers.reference, &references[l], LANES)
        usual[l] = is_usual(rows, row + l, log, to[0])
    for j in range(n_classes):
        p = <const floating *>inputs.x + j * inputs.x_stride
        q = <const floating *>inputs.second + j * inputs.second_stride
        for l in range(LANES):
            numbers.g_from, numbers.sum, numbers.down = lanes.g_from[l], lanes.sum[l], lanes.down[l]
            numbers.center, numbers.rest = lanes.center[l], lanes.rest[l]
            numbers.low, numbers.high, numbers.high_low = lanes.low[l], lanes.high[l], lanes.high_low[l]
            numbers.reference = reference_at(<const floating *>&references[l], LANES)
            value[l] = backward_value(p[l], q[l], numbers, all_usual or usual[l], log)
        copy_lanes(<const floating *>&value[0], to + j * to_stride)
