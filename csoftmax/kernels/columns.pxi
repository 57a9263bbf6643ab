# Tiles whose rows are lanes: a class axis that is not the last one, and rows of few classes, transposed.
# The order of every sum is that of rows.pxi, so that the answer does not depend on the layout.

from cython cimport floating
from libc.string cimport memcpy, memset

from csoftmax.kernels.exp cimport (
    AT_MAXIMUM, DIVIDED, NEXT_TO_MAXIMUM, ReferenceKind, long_rest, mul_add, raised, reduce, refer, reference_at,
    short_rest, store_reference, term, term_scale,
)
from csoftmax.kernels.fetch cimport fetch_block
from csoftmax.kernels.lanes cimport (
    add_exactly, add_to_totals, below, copy_lanes, cost_of_four, exact_sum, max_of_four_groups, max_of_group, ties_of,
)
from csoftmax.kernels.tile cimport Fetched


cdef inline void fetch_lanes(const Fetched *a, Py_ssize_t row, Py_ssize_t n_classes, floating like) noexcept nogil:
    """Sixteen rows of it."""
    cdef Py_ssize_t j
    for j in range(n_classes if a.start != NULL else 0):
        fetch_block(a.start + row * a.row_step + j * a.class_step, 16 * sizeof(floating))


cdef inline void fold_lanes(double *total, double *carry, floating like) noexcept nogil:
    """Eight sums of 16 rows each, total[16 * lane + row]: all end in lane 0."""
    cdef Py_ssize_t apart, lane
    cdef int l
    apart = 16
    while apart < 128:
        lane = 0
        while lane < 128:
            for l in range(0, 16, 8):
                add_exactly(<const double *>total + lane + l, <const double *>carry + lane + l,
                            <const double *>total + lane + apart + l, <const double *>carry + lane + apart + l, 1, 8,
                            total + lane + l, carry + lane + l, like)
            lane += 2 * apart
        apart *= 2
    if floating is double:
        for l in range(16):
            total[l] += carry[l]


cdef inline double sum_of_lanes(
    const double *total, const double *carry, bint carried, double *sum_carry,
) noexcept nogil:
    """Of two neighbours."""
    return exact_sum(total[0], carry[0] if carried else 0, total[16], carry[16] if carried else 0, sum_carry)


cdef inline void fold_few(const double *total, const double *carry, bint carried, double *sum) noexcept nogil:
    """fold_lanes() in registers, for few classes; `carried`, a constant, tells whether there are carries yet."""
    cdef double a, b, c, d, a_carry, b_carry, c_carry, d_carry
    cdef int l
    for l in range(16):
        a = sum_of_lanes(total + l, carry + l, carried, &a_carry)
        b = sum_of_lanes(total + l + 32, carry + l + 32, carried, &b_carry)
        c = sum_of_lanes(total + l + 64, carry + l + 64, carried, &c_carry)
        d = sum_of_lanes(total + l + 96, carry + l + 96, carried, &d_carry)
        a = exact_sum(a, a_carry, b, b_carry, &a_carry)
        c = exact_sum(c, c_carry, d, d_carry, &c_carry)
        a = exact_sum(a, a_carry, c, c_carry, &a_carry)
        sum[l] = a + a_carry


cdef inline void tops_of_lanes(
    const floating *x, Py_ssize_t class_stride, Py_ssize_t n_classes, floating *maximum,
) noexcept nogil:
    cdef floating[16] top
    cdef Py_ssize_t j = 1
    cdef int l
    for l in range(16):
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
        for l in range(16):
            reduce(p[l], reference_at(references + l, 64), kind, divide, &r[l], &k[l])
        for l in range(16):
            reduce(p[step * class_stride + l], reference_at(references + l, 64), kind, divide, &r[16 + l], &k[16 + l])
        for l in range(32):
            q[l] = short_rest(r[l]) if floating is float else long_rest(r[l])
        for l in range(16):
            t[l] = raised(r[l], q[l], k[l])
        for l in range(16):
            t[step * term_stride + l] = raised(r[16 + l], q[16 + l], k[16 + l])
        j += 2


cdef inline void sums_of_few(
    const floating *terms, Py_ssize_t stride, Py_ssize_t n_classes, const floating *top,
    double *sum,                # OUT  (16,), of the terms below top
    floating *sum_of_all,       # OUT  (16,)
) noexcept nogil:
    """Up to 16 classes. Lanes without classes count as zeros: of up to four, sums with them are left out."""
    cdef double[128] total, carry   # (8 lanes of classes, 16 rows)
    cdef floating[16] all, low
    cdef Py_ssize_t size = n_classes if n_classes < 8 else 8
    cdef Py_ssize_t n_pairs = n_classes - 8 if n_classes > 8 else 0
    cdef Py_ssize_t lane
    cdef const floating *p
    cdef const floating *q
    cdef int l
    for l in range(16):
        all[l] = 0
    for lane in range(n_pairs):
        p = terms + lane * stride
        q = p + 8 * stride
        for l in range(16):
            total[16 * lane + l] = below(p[l], top[l])
        for l in range(16):
            low[l] = below(q[l], top[l])
        if floating is double:
            for l in range(16):
                carry[16 * lane + l] = 0
        add_to_totals(<const floating *>&low[0], &total[16 * lane], &carry[16 * lane])
        add_to_totals(<const floating *>&low[8], &total[16 * lane + 8], &carry[16 * lane + 8])
        for l in range(16):
            all[l] += p[l] + q[l]
    for lane in range(n_pairs, size):
        p = terms + lane * stride
        for l in range(16):
            total[16 * lane + l] = below(p[l], top[l])
        if floating is double and n_classes > 8:
            for l in range(16):
                carry[16 * lane + l] = 0
        for l in range(16):
            all[l] += p[l]
    for lane in range(size, 2 if size < 3 else 4 if size < 5 else 8):
        for l in range(16):
            total[16 * lane + l] = 0
    for l in range(16):
        sum_of_all[l] = all[l]
    if floating is double and n_classes > 8:
        fold_few(<const double *>&total[0], <const double *>&carry[0], True, sum)
    elif floating is double and n_classes > 4:
        fold_few(<const double *>&total[0], <const double *>&carry[0], False, sum)
    elif size <= 2:
        for l in range(16):
            sum[l] = total[l] + total[l + 16]
    elif size <= 4:
        for l in range(16):
            sum[l] = (total[l] + total[l + 16]) + (total[l + 32] + total[l + 48])
    else:
        for l in range(16):
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
    cdef floating[16] low, high
    cdef Py_ssize_t lane
    cdef Py_ssize_t step = 16 * stride
    cdef const floating *p
    cdef const floating *q
    cdef int l
    for lane in range(8):
        p = terms + lane * stride
        q = p + 8 * stride
        for l in range(16):
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
            for l in range(16):
                total[16 * lane + l] = low[l]
            if floating is double:
                for l in range(16):
                    carry[16 * lane + l] = 0
        else:
            add_to_totals(<const floating *>&low[0], total + 16 * lane, carry + 16 * lane)
            add_to_totals(<const floating *>&low[8], total + 16 * lane + 8, carry + 16 * lane + 8)
        add_to_totals(<const floating *>&high[0], total + 16 * lane, carry + 16 * lane)
        add_to_totals(<const floating *>&high[8], total + 16 * lane + 8, carry + 16 * lane + 8)


cdef inline void add_block(
    const floating *terms, Py_ssize_t stride, Py_ssize_t n_classes, bint first, const floating *top, double *total,
    double *carry, floating *all,
) noexcept nogil:
    """What is left of n_classes, at most 64 of them."""
    if n_classes > 48:
        add_groups(terms, stride, 4, first, top, total, carry, all)
    elif n_classes > 32:
        add_groups(terms, stride, 3, first, top, total, carry, all)
    elif n_classes > 16:
        add_groups(terms, stride, 2, first, top, total, carry, all)
    else:
        add_groups(terms, stride, 1, first, top, total, carry, all)


cdef inline void sums_of_many(
    const floating *terms,      # IN   (n_classes up to a multiple of 16, 16), zeros behind the last class
    Py_ssize_t stride, Py_ssize_t n_classes, const floating *top,
    double *sum,                # OUT  (16,), of the terms below top
    floating *sum_of_all,       # OUT  (16,)
) noexcept nogil:
    """In the order of rows.pxi."""
    cdef double[128] total, carry       # (8 lanes of classes, 16 rows)
    cdef floating[16] all
    cdef Py_ssize_t block = 64
    cdef int l
    for l in range(16):
        all[l] = 0
    add_block(terms, stride, n_classes, True, top, &total[0], &carry[0], &all[0])
    # Without add_block's choice, which inside this loop costs rows of 80 classes a fifth of their time.
    while block + 64 <= n_classes:
        add_groups(terms + block * stride, stride, 4, False, top, &total[0], &carry[0], &all[0])
        block += 64
    if block < n_classes:
        add_block(terms + block * stride, stride, n_classes - block, False, top, &total[0], &carry[0], &all[0])
    fold_lanes(&total[0], &carry[0], top[0])
    for l in range(16):
        sum[l] = total[l]
    for l in range(16):
        sum_of_all[l] = all[l]


cdef inline void sums_of_lanes(
    floating *terms, Py_ssize_t stride, Py_ssize_t n_classes, ReferenceKind kind, const floating *top, double *sum,
    floating *sum_of_all,
) noexcept nogil:
    cdef Py_ssize_t j
    cdef int l
    if kind == AT_MAXIMUM or n_classes <= 16:
        sums_of_few(<const floating *>terms, stride, n_classes, top, sum, sum_of_all)
        return
    for j in range(n_classes, (n_classes + 15) // 16 * 16):
        for l in range(16):
            terms[j * stride + l] = 0
    sums_of_many(<const floating *>terms, stride, n_classes, top, sum, sum_of_all)


cdef inline void measure_lanes(
    const floating *x,          # IN   (n_classes, n_rows)
    Py_ssize_t class_stride, Py_ssize_t n_classes,
    Py_ssize_t first, Py_ssize_t n_rows,        # at most PHASE_ROWS, of a tile from here on
    ReferenceKind kind,             # a constant, and so three functions
    const floating *divide,
    const Fetched *ahead,
    const Fetched *output,
    floating *terms,            # OUT  (n_classes, term_stride), zeros behind them up to a multiple of 16 classes
    Py_ssize_t term_stride, floating *maximum, double *sum, double *ties,
) noexcept nogil:
    """In phases: what is computed once per row is a chain of steps, and those of other rows overlap with it."""
    cdef floating[64] at_top, all
    cdef floating[192] references       # (N_REFERENCE, PHASE_ROWS)
    cdef floating unit_term = <floating>term_scale(x[0])    # the maximum's, unless terms are NEXT_TO_MAXIMUM
    cdef Py_ssize_t row
    cdef int l
    for row in range(0, n_rows, 16):
        tops_of_lanes(x + row, class_stride, n_classes, maximum + row)
    for row in range(0, n_rows, 16):
        for l in range(16):
            store_reference(refer(maximum[row + l], kind), &references[row + l], 64)
        for l in range(16):
            at_top[row + l] = unit_term if kind != NEXT_TO_MAXIMUM else (
                term(maximum[row + l], reference_at(<const floating *>&references[row + l], 64), NEXT_TO_MAXIMUM, NULL))
    for row in range(0, n_rows, 16):
        fetch_lanes(ahead, first + row, n_classes, unit_term)
        fetch_lanes(output, first + row, n_classes, unit_term)
        terms_of_lanes(x + row, class_stride, n_classes, kind, divide,
                       <const floating *>&references[row], terms + row, term_stride)
        sums_of_lanes(terms + row, term_stride, n_classes, kind, &at_top[row], sum + row, &all[row])
    for row in range(0, n_rows, 16):
        for l in range(16):
            ties[row + l] = ties_of(
                sum[row + l], all[row + l], unit_term if kind != NEXT_TO_MAXIMUM else at_top[row + l])


cdef inline void measure_phases(
    const floating *x, Py_ssize_t class_stride, Py_ssize_t n_classes, Py_ssize_t n_rows, ReferenceKind kind,
    const floating *divide, const Fetched *ahead, const Fetched *output, floating *terms, floating *maximum,
    double *sum, double *ties,
) noexcept nogil:
    cdef Py_ssize_t first
    for first in range(0, n_rows, 64):          # by PHASE_ROWS
        measure_lanes(x + first, class_stride, n_classes, first, 64 if n_rows - first > 64 else n_rows - first, kind,
                      divide, ahead, output, terms + first, n_rows, maximum + first, sum + first, ties + first)


# Of each kind a function of its own, whose stack is not that of all.

cdef void measure_near_columns(
    const floating *x, Py_ssize_t class_stride, Py_ssize_t n_classes, Py_ssize_t n_rows, const Fetched *ahead,
    const Fetched *output, floating *terms, floating *maximum, double *sum, double *ties,
) noexcept nogil:
    measure_phases(x, class_stride, n_classes, n_rows, AT_MAXIMUM, NULL, ahead, output, terms, maximum, sum, ties)


cdef void measure_far_columns(
    const floating *x, Py_ssize_t class_stride, Py_ssize_t n_classes, Py_ssize_t n_rows, const Fetched *ahead,
    const Fetched *output, floating *terms, floating *maximum, double *sum, double *ties,
) noexcept nogil:
    measure_phases(x, class_stride, n_classes, n_rows, NEXT_TO_MAXIMUM, NULL, ahead, output, terms, maximum, sum, ties)


cdef void measure_divided_columns(
    const floating *x, Py_ssize_t class_stride, Py_ssize_t n_classes, Py_ssize_t n_rows, const floating *divide,
    const Fetched *ahead, const Fetched *output, floating *terms, floating *maximum, double *sum, double *ties,
) noexcept nogil:
    cdef floating[5] numbers    # in registers, which what lies elsewhere need not be
    memcpy(numbers, divide, sizeof(numbers))
    measure_phases(x, class_stride, n_classes, n_rows, DIVIDED, <const floating *>&numbers[0], ahead, output, terms,
                   maximum, sum, ties)


cdef inline void measure_columns(
    const floating *x,          # IN   (n_classes, n_rows)
    Py_ssize_t class_stride,
    Py_ssize_t n_classes,
    Py_ssize_t n_rows,          # a multiple of 16, at most MAX_TILE_ROWS
    ReferenceKind kind,
    const floating *divide,     # IN   (N_DIVIDE,), if DIVIDED
    const Fetched *ahead,
    const Fetched *output,
    floating *terms,            # OUT  (n_classes up to a multiple of 16, n_rows)
    floating *maximum,          # OUT  (n_rows,)
    double *sum,                # OUT  (n_rows,), of the terms below the maximum's
    double *ties,               # OUT  (n_rows,), how many other classes share the maximum
) noexcept nogil:
    if kind == AT_MAXIMUM:
        measure_near_columns(x, class_stride, n_classes, n_rows, ahead, output, terms, maximum, sum, ties)
    elif kind == NEXT_TO_MAXIMUM:
        measure_far_columns(x, class_stride, n_classes, n_rows, ahead, output, terms, maximum, sum, ties)
    else:
        measure_divided_columns(x, class_stride, n_classes, n_rows, divide, ahead, output, terms, maximum, sum, ties)


cdef inline void cost_of_lane(
    const floating *x, Py_ssize_t class_stride, const floating *mass, Py_ssize_t mass_stride, int row_step,
    Py_ssize_t n_left, const floating *top, floating *sum, floating *sum_of_mass,
) noexcept nogil:
    """Cost and mass of the classes of two lanes, 8 apart, of which n_left classes are left with those between."""
    cdef floating[16] cost, total
    cdef Py_ssize_t j
    cdef const floating *p
    cdef const floating *q
    cdef int l, half
    for half in range(2):
        if n_left <= 0:
            return
        if n_left > 48:
            for l in range(16):
                cost[l] = cost_of_four(x + l, 16 * class_stride, mass + l * row_step, 16 * mass_stride, top[l])
            for l in range(16):
                q = mass + l * row_step
                total[l] = ((q[0] + q[16 * mass_stride]) + q[32 * mass_stride]) + q[48 * mass_stride]
        else:
            for l in range(16):
                cost[l] = mass[l * row_step] * (top[l] - x[l])
                total[l] = mass[l * row_step]
            for j in range(16, n_left, 16):
                p = x + j * class_stride
                q = mass + j * mass_stride
                for l in range(16):
                    cost[l] = mul_add(q[l * row_step], top[l] - p[l], cost[l])
                    total[l] += q[l * row_step]
        for l in range(16):
            sum[l] = sum[l] + cost[l] if half else cost[l]
            sum_of_mass[l] = sum_of_mass[l] + total[l] if half else total[l]
        x += 8 * class_stride
        mass += 8 * mass_stride
        n_left -= 8


cdef inline void cost_of_few(
    const floating *x, Py_ssize_t class_stride, Py_ssize_t n_classes, const floating *mass, Py_ssize_t mass_stride,
    int row_step, const floating *top, double *total, double *total_mass,
) noexcept nogil:
    """Class by class, four of them in the dtype as in rows.pxi: rows of so few classes are always lanes."""
    cdef floating[16] cost, sum
    cdef Py_ssize_t first, j
    cdef const floating *p
    cdef const floating *q
    cdef int l
    for l in range(16):
        total[l] = total_mass[l] = 0
    for first in range(0, n_classes, 4):
        for l in range(16):
            cost[l] = sum[l] = 0
        for j in range(first, first + 4 if first + 4 < n_classes else n_classes):
            p = x + j * class_stride
            q = mass + j * mass_stride
            for l in range(16):
                cost[l] = mul_add(q[l * row_step], top[l] - p[l], cost[l])
            if row_step:
                for l in range(16):
                    sum[l] += q[l * row_step]
        for l in range(16):
            total[l] += cost[l]
        if row_step:
            for l in range(16):
                total_mass[l] += sum[l]


cdef inline void cost_of_many(
    const floating *x, Py_ssize_t class_stride, Py_ssize_t n_classes, const floating *mass, Py_ssize_t mass_stride,
    int row_step, const floating *top, double *total, double *total_mass,
) noexcept nogil:
    """In the order of rows.pxi."""
    cdef double[128] costs, carry, masses, mass_carry     # (8 lanes of classes, 16 rows)
    cdef floating[16] sum, sum_of_mass
    cdef Py_ssize_t block, lane
    cdef int l
    memset(costs, 0, sizeof(costs))
    memset(carry, 0, sizeof(carry))
    memset(masses, 0, sizeof(masses))
    memset(mass_carry, 0, sizeof(mass_carry))
    for block in range(0, n_classes, 64):
        for lane in range(8 if n_classes - block > 8 else n_classes - block):
            cost_of_lane(x + (block + lane) * class_stride, class_stride, mass + (block + lane) * mass_stride,
                         mass_stride, row_step, n_classes - block - lane, top, &sum[0], &sum_of_mass[0])
            for l in range(0, 16, 8):
                add_to_totals(<const floating *>&sum[l], &costs[16 * lane + l], &carry[16 * lane + l])
                if row_step:
                    add_to_totals(<const floating *>&sum_of_mass[l], &masses[16 * lane + l],
                                  &mass_carry[16 * lane + l])
    fold_lanes(&costs[0], &carry[0], top[0])
    memcpy(total, costs, 16 * sizeof(double))
    if row_step:
        fold_lanes(&masses[0], &mass_carry[0], top[0])
        memcpy(total_mass, masses, 16 * sizeof(double))


cdef inline void cost_of_lanes(
    const floating *x, Py_ssize_t class_stride, Py_ssize_t n_classes, bint few, const floating *mass,
    Py_ssize_t mass_stride, int row_step, const floating *top, double *total, double *total_mass,
) noexcept nogil:
    if few:
        cost_of_few(x, class_stride, n_classes, mass, mass_stride, row_step, top, total, total_mass)
    else:
        cost_of_many(x, class_stride, n_classes, mass, mass_stride, row_step, top, total, total_mass)


cdef void cost_of_columns(
    const floating *x,          # IN   (n_classes, n_rows)
    Py_ssize_t class_stride,
    Py_ssize_t n_classes,
    bint few,                   # whether these are all classes of a row that is always lanes
    Py_ssize_t n_rows,          # a multiple of 16
    const floating *mass,       # IN   (n_classes, n_rows), or if row_step is 0 (n_classes,)
    Py_ssize_t mass_stride,
    int row_step,               # 1, or 0: one mass for all rows, whose sum is known
    const floating *maximum,    # IN   (n_rows,)
    double *cost,               # OUT  (n_rows,), as in cost_of_rows
    double *total_mass,         # OUT  (n_rows,), undefined if row_step is 0
) noexcept nogil:
    cdef Py_ssize_t row = 0
    while row < n_rows:
        if row_step:            # a constant in either: the loops are other ones
            cost_of_lanes(x + row, class_stride, n_classes, few, mass + row, mass_stride, 1, maximum + row, cost + row,
                          total_mass + row)
        else:
            cost_of_lanes(x + row, class_stride, n_classes, few, mass, mass_stride, 0, maximum + row, cost + row,
                          total_mass + row)
        row += 16
