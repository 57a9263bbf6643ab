# Tiles whose rows are lanes: a class axis that is not the last one, and rows of few classes, transposed. What rows.pxi
# finds is found here, in the same order (lanes.pxd says it), so that the answer does not depend on the layout.

from cython cimport floating
from libc.string cimport memcpy

from csoftmax.kernels.exp cimport (
    AT_MAXIMUM, DIVIDED, NEXT_TO_MAXIMUM, N_DIVIDE, ReferenceKind, long_rest, raised, reduce, refer, reference_at,
    short_rest, store_reference, term, term_scale,
)
from csoftmax.kernels.fetch cimport fetch_block
from csoftmax.kernels.lanes cimport (
    LaneSums, add_exactly, add_to_totals, below, copy_lanes, exact_sum, max_of_four_groups, max_of_group, sums_at,
    ties_of,
)
from csoftmax.kernels.task cimport LANES
from csoftmax.kernels.tile cimport PHASE_ROWS, Fetched, Measured, Part


cdef inline void fetch_lanes(
    const Fetched *fetched, Py_ssize_t row, Py_ssize_t n_classes, floating dtype_tag,
) noexcept nogil:
    """Sixteen rows of it."""
    cdef Py_ssize_t j
    for j in range(n_classes if fetched.start != NULL else 0):
        fetch_block(fetched.start + row * fetched.row_step + j * fetched.class_step, LANES * sizeof(floating))


cdef inline void fold_lanes(double *total, double *carry, floating dtype_tag) noexcept nogil:
    """Eight sums of 16 rows each, total[LANES * lane + row]: all end in lane 0."""
    cdef Py_ssize_t distance, lane
    cdef LaneSums left
    cdef int l
    distance = 16
    while distance < 128:
        lane = 0
        while lane < 128:
            for l in range(0, 16, 8):
                left = sums_at(total + lane + l, carry + lane + l)
                add_exactly(left, sums_at(left.total + distance, left.carry + distance), 1, 8, left, dtype_tag)
            lane += 2 * distance
        distance *= 2
    if floating is double:
        for l in range(LANES):
            total[l] += carry[l]


cdef inline double sum_of_lanes(
    const double *total, const double *carry, bint carried, double *sum_carry,
) noexcept nogil:
    """Of two neighbours."""
    return exact_sum(total[0], carry[0] if carried else 0, total[16], carry[16] if carried else 0, sum_carry)


cdef inline void fold_few(const double *total, const double *carry, bint carried, double *sum) noexcept nogil:
    """fold_lanes() in registers, for few classes; `carried`, a constant, tells whether there are carries yet."""
    cdef double lanes_01, lanes_23, lanes_45, lanes_67, carry_01, carry_23, carry_45, carry_67
    cdef int l
    for l in range(LANES):
        lanes_01 = sum_of_lanes(total + l, carry + l, carried, &carry_01)
        lanes_23 = sum_of_lanes(total + l + 32, carry + l + 32, carried, &carry_23)
        lanes_45 = sum_of_lanes(total + l + 64, carry + l + 64, carried, &carry_45)
        lanes_67 = sum_of_lanes(total + l + 96, carry + l + 96, carried, &carry_67)
        lanes_01 = exact_sum(lanes_01, carry_01, lanes_23, carry_23, &carry_01)
        lanes_45 = exact_sum(lanes_45, carry_45, lanes_67, carry_67, &carry_45)
        lanes_01 = exact_sum(lanes_01, carry_01, lanes_45, carry_45, &carry_01)
        sum[l] = lanes_01 + carry_01


cdef inline void tops_of_lanes(
    const floating *x, Py_ssize_t class_stride, Py_ssize_t n_classes, floating *maximum,
) noexcept nogil:
    cdef floating[LANES] top
    cdef Py_ssize_t j = 1
    cdef int l
    for l in range(LANES):
        top[l] = x[l]
    while j + 4 <= n_classes:
        max_of_four_groups(x + j * class_stride, class_stride, &top[0])
        j += 4
    while j < n_classes:
        max_of_group(x + j * class_stride, &top[0])
        j += 1
    copy_lanes(<const floating *>&top[0], maximum)


cdef inline void terms_of_lanes(
    const floating *x, Py_ssize_t class_stride, Py_ssize_t n_classes, ReferenceKind kind, const floating *divide,
    const floating *references,     # IN   (N_REFERENCE, PHASE_ROWS), from the lanes on
    floating *terms, Py_ssize_t term_stride,
) noexcept nogil:
    """Two classes side by side, in stages: see terms_of_block. An odd last one is computed twice."""
    cdef floating[32] r, k, q
    cdef Py_ssize_t j = 0, step = 1 if n_classes > 1 else 0
    cdef const floating *p
    cdef floating *t
    cdef int l
    while j < n_classes:
        if j + 1 == n_classes and j:
            j -= 1
        p = x + j * class_stride
        t = terms + j * term_stride
        for l in range(LANES):
            reduce(p[l], reference_at(references + l, PHASE_ROWS), kind, divide, &r[l], &k[l])
        for l in range(LANES):
            reduce(p[step * class_stride + l], reference_at(references + l, PHASE_ROWS), kind, divide, &r[LANES + l],
                   &k[LANES + l])
        for l in range(32):
            q[l] = short_rest(r[l]) if floating is float else long_rest(r[l])
        for l in range(LANES):
            t[l] = raised(r[l], q[l], k[l])
        for l in range(LANES):
            t[step * term_stride + l] = raised(r[LANES + l], q[LANES + l], k[LANES + l])
        j += 2


cdef inline void lanes_of_few(
    const floating *terms, Py_ssize_t stride, Py_ssize_t n_classes, const floating *top,
    double *total, double *carry,       # OUT  (8 lanes of classes, 16 rows), as many as have classes
    floating *all,                      # OUT  (16,)
) noexcept nogil:
    cdef floating[LANES] low
    cdef Py_ssize_t size = n_classes if n_classes < 8 else 8
    cdef Py_ssize_t n_pairs = n_classes - 8 if n_classes > 8 else 0
    cdef Py_ssize_t lane
    cdef const floating *p
    cdef const floating *q
    cdef int l
    for l in range(LANES):
        all[l] = 0
    for lane in range(n_pairs):
        p = terms + lane * stride
        q = p + 8 * stride
        for l in range(LANES):
            total[LANES * lane + l] = below(p[l], top[l])
        for l in range(LANES):
            low[l] = below(q[l], top[l])
        if floating is double:
            for l in range(LANES):
                carry[LANES * lane + l] = 0
        add_to_totals(<const floating *>&low[0], total + LANES * lane, carry + LANES * lane)
        add_to_totals(<const floating *>&low[8], total + LANES * lane + 8, carry + LANES * lane + 8)
        for l in range(LANES):
            all[l] += p[l] + q[l]
    for lane in range(n_pairs, size):
        p = terms + lane * stride
        for l in range(LANES):
            total[LANES * lane + l] = below(p[l], top[l])
        if floating is double and n_classes > 8:
            for l in range(LANES):
                carry[LANES * lane + l] = 0
        for l in range(LANES):
            all[l] += p[l]


cdef inline void sums_of_few(
    const floating *terms, Py_ssize_t stride, Py_ssize_t n_classes, const floating *top,
    double *sum,                # OUT  (16,), of the terms below top
    floating *sum_of_all,       # OUT  (16,)
) noexcept nogil:
    """Up to 16 classes. Lanes without classes count as zeros: of up to four, sums with them are left out."""
    cdef double[128] total, carry   # (8 lanes of classes, 16 rows)
    cdef floating[LANES] all
    cdef Py_ssize_t size = n_classes if n_classes < 8 else 8, lane
    cdef int l
    lanes_of_few(terms, stride, n_classes, top, &total[0], &carry[0], &all[0])
    for lane in range(size, 2 if size < 3 else 4 if size < 5 else 8):
        for l in range(LANES):
            total[LANES * lane + l] = 0
    for l in range(LANES):
        sum_of_all[l] = all[l]
    if floating is double and n_classes > 8:
        fold_few(<const double *>&total[0], <const double *>&carry[0], True, sum)
    elif floating is double and n_classes > 4:
        fold_few(<const double *>&total[0], <const double *>&carry[0], False, sum)
    elif size <= 2:
        for l in range(LANES):
            sum[l] = total[l] + total[l + 16]
    elif size <= 4:
        for l in range(LANES):
            sum[l] = (total[l] + total[l + 16]) + (total[l + 32] + total[l + 48])
    else:
        for l in range(LANES):
            sum[l] = ((total[l] + total[l + 16]) + (total[l + 32] + total[l + 48])) + (
                (total[l + 64] + total[l + 80]) + (total[l + 96] + total[l + 112]))


cdef inline void add_groups(
    const floating *terms,      # IN   (16 * n_groups, 16)
    Py_ssize_t stride,
    int n_groups,               # at most 4; a constant
    bint first,                 # a constant: there are no totals yet
    const floating *top,
    double *total,              # (8 lanes of classes, 16 rows)
    double *carry,
    floating *all,              # INOUT (16,)
) noexcept nogil:
    cdef floating[LANES] low, high
    cdef Py_ssize_t lane
    cdef Py_ssize_t step = LANES * stride
    cdef const floating *p
    cdef const floating *q
    cdef int l
    for lane in range(8):
        p = terms + lane * stride
        q = p + 8 * stride
        for l in range(LANES):
            low[l] = below(p[l], top[l])
            high[l] = below(q[l], top[l])
            all[l] += p[l] + q[l]
            if n_groups > 1:
                low[l] += below(p[l + step], top[l])
                high[l] += below(q[l + step], top[l])
                all[l] += p[l + step] + q[l + step]
            if n_groups == 3:
                low[l] += below(p[l + 2 * step], top[l])
                high[l] += below(q[l + 2 * step], top[l])
                all[l] += p[l + 2 * step] + q[l + 2 * step]
            if n_groups == 4:
                low[l] += below(p[l + 2 * step], top[l]) + below(p[l + 3 * step], top[l])
                high[l] += below(q[l + 2 * step], top[l]) + below(q[l + 3 * step], top[l])
                all[l] += (p[l + 2 * step] + q[l + 2 * step]) + (p[l + 3 * step] + q[l + 3 * step])
        if first:
            for l in range(LANES):
                total[LANES * lane + l] = low[l]
            if floating is double:
                for l in range(LANES):
                    carry[LANES * lane + l] = 0
        else:
            add_to_totals(<const floating *>&low[0], total + LANES * lane, carry + LANES * lane)
            add_to_totals(<const floating *>&low[8], total + LANES * lane + 8, carry + LANES * lane + 8)
        add_to_totals(<const floating *>&high[0], total + LANES * lane, carry + LANES * lane)
        add_to_totals(<const floating *>&high[8], total + LANES * lane + 8, carry + LANES * lane + 8)


cdef inline void add_block(
    const floating *terms, Py_ssize_t stride, Py_ssize_t n_classes, bint first, const floating *top, double *total,
    double *carry, floating *all,
) noexcept nogil:
    """What is left of n_classes, at most 64 of them."""
    if n_classes > 48:
        add_groups(terms, stride, 4, first, top, total, carry, all)
    elif n_classes > 32:
        add_groups(terms, stride, 3, first, top, total, carry, all)
    elif n_classes > LANES:
        add_groups(terms, stride, 2, first, top, total, carry, all)
    else:
        add_groups(terms, stride, 1, first, top, total, carry, all)


cdef inline void sums_of_many(
    const floating *terms,      # IN   (n_classes up to a multiple of 16, 16), zeros behind the last class
    Py_ssize_t stride, Py_ssize_t n_classes, const floating *top,
    double *sum,                # OUT  (16,), of the terms below top
    floating *sum_of_all,       # OUT  (16,)
) noexcept nogil:
    """As rows.pxi adds them."""
    cdef double[128] total, carry       # (8 lanes of classes, 16 rows)
    cdef floating[LANES] all
    cdef Py_ssize_t block = 64
    cdef int l
    for l in range(LANES):
        all[l] = 0
    add_block(terms, stride, n_classes, True, top, &total[0], &carry[0], &all[0])
    # Without add_block's choice, which inside this loop costs rows of 80 classes a fifth of their time.
    while block + 64 <= n_classes:
        add_groups(terms + block * stride, stride, 4, False, top, &total[0], &carry[0], &all[0])
        block += 64
    if block < n_classes:
        add_block(terms + block * stride, stride, n_classes - block, False, top, &total[0], &carry[0], &all[0])
    fold_lanes(&total[0], &carry[0], top[0])
    for l in range(LANES):
        sum[l] = total[l]
    for l in range(LANES):
        sum_of_all[l] = all[l]


cdef inline void sums_of_lanes(
    floating *terms, Py_ssize_t stride, Py_ssize_t n_classes, ReferenceKind kind, const floating *top, double *sum,
    floating *sum_of_all,
) noexcept nogil:
    cdef Py_ssize_t j
    cdef int l
    if kind == AT_MAXIMUM or n_classes <= LANES:
        sums_of_few(<const floating *>terms, stride, n_classes, top, sum, sum_of_all)
        return
    for j in range(n_classes, (n_classes + 15) // 16 * 16):
        for l in range(LANES):
            terms[j * stride + l] = 0
    sums_of_many(<const floating *>terms, stride, n_classes, top, sum, sum_of_all)


cdef inline void measure_phase(
    const Part *part, const floating *x, Py_ssize_t class_stride,
    ReferenceKind kind,         # a constant, and so three functions
    const floating *divide,
    floating *terms,            # OUT  (n_classes, width), zeros behind them up to a multiple of 16 classes
    Py_ssize_t first,           # row, of at most PHASE_ROWS
    const Measured *measured,
) noexcept nogil:
    """In steps: what is computed once per row is a chain of them, and those of other rows overlap with it."""
    cdef floating[PHASE_ROWS] at_top, all
    cdef floating[192] references       # (N_REFERENCE, PHASE_ROWS)
    cdef floating unit_term = <floating>term_scale(x[0])    # the maximum's, unless terms are NEXT_TO_MAXIMUM
    cdef floating *maximum = <floating *>measured.maximum + first
    cdef double *sum = measured.sum + first
    cdef double *ties = measured.ties + first
    cdef Py_ssize_t n_classes = part.n_classes, term_stride = part.width, row
    cdef Py_ssize_t n_rows = PHASE_ROWS if part.width - first > PHASE_ROWS else part.width - first
    cdef int l
    x += first
    terms += first
    for row in range(0, n_rows, 16):
        tops_of_lanes(x + row, class_stride, n_classes, maximum + row)
    for row in range(0, n_rows, 16):
        for l in range(LANES):
            store_reference(refer(maximum[row + l], kind), &references[row + l], PHASE_ROWS)
        for l in range(LANES):
            at_top[row + l] = unit_term if kind != NEXT_TO_MAXIMUM else (
                term(maximum[row + l], reference_at(<const floating *>&references[row + l], PHASE_ROWS), kind, NULL))
    for row in range(0, n_rows, 16):
        fetch_lanes(&part.ahead, first + row, n_classes, unit_term)
        fetch_lanes(&part.output, first + row, n_classes, unit_term)
        terms_of_lanes(x + row, class_stride, n_classes, kind, divide, <const floating *>&references[row], terms + row,
                       term_stride)
        sums_of_lanes(terms + row, term_stride, n_classes, kind, &at_top[row], sum + row, &all[row])
    for row in range(0, n_rows, 16):
        for l in range(LANES):
            ties[row + l] = ties_of(
                sum[row + l], all[row + l], unit_term if kind != NEXT_TO_MAXIMUM else at_top[row + l])


cdef inline void measure_phases(
    const Part *part, const floating *x, Py_ssize_t class_stride, ReferenceKind kind, const floating *divide,
    floating *terms, const Measured *measured,
) noexcept nogil:
    cdef Py_ssize_t first
    for first in range(0, part.width, 64):      # by PHASE_ROWS
        measure_phase(part, x, class_stride, kind, divide, terms, first, measured)


# Of each kind a function of its own, whose stack is not that of all.

cdef void measure_columns_at_maximum(
    const Part *part, const floating *x, Py_ssize_t class_stride, floating *terms, const Measured *measured,
) noexcept nogil:
    measure_phases(part, x, class_stride, AT_MAXIMUM, NULL, terms, measured)


cdef void measure_columns_next_to_maximum(
    const Part *part, const floating *x, Py_ssize_t class_stride, floating *terms, const Measured *measured,
) noexcept nogil:
    measure_phases(part, x, class_stride, NEXT_TO_MAXIMUM, NULL, terms, measured)


cdef void measure_divided_columns(
    const Part *part, const floating *x, Py_ssize_t class_stride, const floating *divide, floating *terms,
    const Measured *measured,
) noexcept nogil:
    cdef floating[N_DIVIDE] numbers     # in registers, which what lies elsewhere need not be
    memcpy(numbers, divide, sizeof(numbers))
    measure_phases(part, x, class_stride, DIVIDED, <const floating *>&numbers[0], terms, measured)


cdef inline void measure_columns(
    const Part *part,           # of (n_classes, width); ahead and its output are fetched meanwhile
    const floating *x,          # IN   (n_classes, width)
    Py_ssize_t class_stride,
    ReferenceKind kind,
    const floating *divide,     # IN   (N_DIVIDE,), if DIVIDED
    floating *terms,            # OUT  (n_classes up to a multiple of 16, width)
    const Measured *measured,   # OUT  (width,)
) noexcept nogil:
    if kind == AT_MAXIMUM:
        measure_columns_at_maximum(part, x, class_stride, terms, measured)
    elif kind == NEXT_TO_MAXIMUM:
        measure_columns_next_to_maximum(part, x, class_stride, terms, measured)
    else:
        measure_divided_columns(part, x, class_stride, divide, terms, measured)
