# Tiles whose rows are lanes: a class axis that is not the last one, and rows of few classes, transposed.
# The order of every sum is that of rows.pxi, so that the answer does not depend on the layout.

cdef struct Ahead:
    # Where the next tile lies, which is fetched while this one is computed; steps in bytes between rows and classes.
    const char *start
    Py_ssize_t row_step, class_step


cdef inline void add_lane(
    const floating *terms, Py_ssize_t group_stride, Py_ssize_t n_groups, const floating *top, floating *sum,
) noexcept nogil:
    """The classes of one lane, one from each group of 16: in the order in which rows.pxi adds them."""
    cdef int l
    cdef const floating *p = terms
    cdef const floating *q = terms + group_stride
    cdef const floating *r = terms + 2 * group_stride
    cdef const floating *s = terms + 3 * group_stride
    if n_groups == 4:
        for l in range(16):
            sum[l] = ((below(p[l], top[l]) + below(q[l], top[l])) + below(r[l], top[l])) + below(s[l], top[l])
    elif n_groups == 3:
        for l in range(16):
            sum[l] = (below(p[l], top[l]) + below(q[l], top[l])) + below(r[l], top[l])
    elif n_groups == 2:
        for l in range(16):
            sum[l] = below(p[l], top[l]) + below(q[l], top[l])
    elif n_groups == 1:
        for l in range(16):
            sum[l] = below(p[l], top[l])
    else:
        for l in range(16):
            sum[l] = 0


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


cdef inline void add_blocks(
    const floating *terms, Py_ssize_t term_stride, Py_ssize_t n_classes, const floating *top, double *total,
) noexcept nogil:
    """The sum of all classes: first those of the eight pairs of lanes, total[16 * lane + row]; it ends in lane 0."""
    cdef double[128] carry
    cdef floating[16] low, high
    cdef Py_ssize_t block, lane, n
    cdef const floating *p
    cdef int l
    for block in range(0, n_classes, 64):
        n = n_classes - block if n_classes - block < 64 else 64
        for lane in range(8):
            p = terms + (block + lane) * term_stride
            add_lane(p, 16 * term_stride, (n - lane + 15) // 16, top, &low[0])
            add_lane(p + 8 * term_stride, 16 * term_stride, (n - lane + 7) // 16, top, &high[0])
            if block == 0:
                for l in range(16):
                    total[16 * lane + l] = low[l] + high[l]
                for l in range(16):
                    carry[16 * lane + l] = 0
            else:
                for l in range(16):
                    low[l] += high[l]
                add_to_totals(<const floating *>&low[0], total + 16 * lane, &carry[16 * lane])
                add_to_totals(<const floating *>&low[8], total + 16 * lane + 8, &carry[16 * lane + 8])
    fold_lanes(total, &carry[0], low[0])


cdef inline void sum_of_lanes(
    const floating *terms,      # IN   (n_classes, 16)
    Py_ssize_t term_stride,
    Py_ssize_t n_classes,
    const floating *top,
    double *total,              # OUT  (128,), of which the first 16 are the sums
) noexcept nogil:
    cdef Py_ssize_t size = n_classes if n_classes < 8 else 8
    cdef Py_ssize_t lane
    cdef const floating *p
    cdef int l
    if n_classes > 16:
        add_blocks(terms, term_stride, n_classes, top, total)
        return
    for lane in range(size):
        p = terms + lane * term_stride
        if lane + 8 < n_classes:
            for l in range(16):
                total[16 * lane + l] = below(p[l], top[l]) + below(p[l + 8 * term_stride], top[l])
        else:
            for l in range(16):
                total[16 * lane + l] = below(p[l], top[l])
    # Lanes without classes count as zeros: sums with them are left out.
    for lane in range(size, 2 if size < 3 else 4 if size < 5 else 8):
        for l in range(16):
            total[16 * lane + l] = 0
    for l in range(16):
        total[l] += total[l + 16]
    if size > 2:
        for l in range(16):
            total[l] += total[l + 32] + total[l + 48]
    if size > 4:
        for l in range(16):
            total[l] += (total[l + 64] + total[l + 80]) + (total[l + 96] + total[l + 112])


cdef inline void measure_lanes(
    const floating *x,          # IN   (n_classes, 16)
    Py_ssize_t class_stride,
    Py_ssize_t n_classes,
    bint near,                  # a constant, and so two functions
    const char *ahead,
    Py_ssize_t ahead_step,
    floating *terms,            # OUT  (n_classes, 16)
    Py_ssize_t term_stride,
    floating *maximum,          # OUT  (16,)
    double *sum,                # OUT  (16,)
    double *ties,               # OUT  (16,)
) noexcept nogil:
    cdef double[128] total      # (8 lanes of classes, 16 rows)
    cdef floating[16] top, at_top, origin, least, magic, all
    cdef floating[32] r, k, q
    cdef Py_ssize_t j, step
    cdef const floating *p
    cdef floating *t
    cdef int l
    for l in range(16):
        top[l] = x[l]
    j = 1
    while j + 4 <= n_classes:
        max_of_four_groups(x + j * class_stride, class_stride, &top[0])
        j += 4
    while j < n_classes:
        max_of_group(x + j * class_stride, &top[0])
        j += 1
    for l in range(16):
        refer(top[l], near, &origin[l], &least[l], &magic[l])
    for l in range(16):
        at_top[l] = <floating>unit(top[l]) if near else term(top[l], origin[l], least[l], magic[l], False)
    for j in range(n_classes):
        prefetch(ahead + j * ahead_step)
        if floating is double:
            prefetch(ahead + j * ahead_step + 64)
    # Two classes side by side, in stages: see terms_of_block. An odd last one is computed twice.
    j = 0
    while j < n_classes:
        if j + 1 == n_classes and j:
            j -= 1
        step = 1 if n_classes > 1 else 0
        p = x + j * class_stride
        t = terms + j * term_stride
        for l in range(16):
            reduce(p[l], origin[l], least[l], magic[l], near, &r[l], &k[l])
        for l in range(16):
            reduce(p[step * class_stride + l], origin[l], least[l], magic[l], near, &r[16 + l], &k[16 + l])
        for l in range(32):
            q[l] = short_rest(r[l]) if floating is float else long_rest(r[l])
        for l in range(16):
            t[l] = raised(r[l], q[l], k[l])
        for l in range(16):
            t[step * term_stride + l] = raised(r[16 + l], q[16 + l], k[16 + l])
        j += 2
    for l in range(16):
        all[l] = 0
    for j in range(n_classes):
        p = <const floating *>terms + j * term_stride
        for l in range(16):
            all[l] += p[l]
    sum_of_lanes(<const floating *>terms, term_stride, n_classes, <const floating *>&at_top[0], &total[0])
    for l in range(16):
        sum[l] = total[l] * (1 / unit(top[l]))
    for l in range(16):
        ties[l] = ties_of(total[l], all[l], at_top[l])
    for l in range(16):
        maximum[l] = top[l]


cdef void measure_columns(
    const floating *x,          # IN   (n_classes, n_rows)
    Py_ssize_t class_stride,
    Py_ssize_t n_classes,
    Py_ssize_t n_rows,          # a multiple of 16
    bint near,
    const Ahead *ahead,
    floating *terms,            # OUT  (n_classes, n_rows)
    floating *maximum,          # OUT  (n_rows,)
    double *sum,                # OUT  (n_rows,), of exp(x - M) over the classes below the maximum
    double *ties,               # OUT  (n_rows,), how many other classes share it
) noexcept nogil:
    cdef Py_ssize_t row = 0
    while row < n_rows:
        if near:
            measure_lanes(x + row, class_stride, n_classes, True, ahead.start + row * ahead.row_step, ahead.class_step,
                          terms + row, n_rows, maximum + row, sum + row, ties + row)
        else:
            measure_lanes(x + row, class_stride, n_classes, False, ahead.start + row * ahead.row_step, ahead.class_step,
                          terms + row, n_rows, maximum + row, sum + row, ties + row)
        row += 16


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
