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


cdef inline void add_blocks(
    const floating *terms, Py_ssize_t term_stride, Py_ssize_t n_classes, const floating *top, double *total,
) noexcept nogil:
    """The sum of all classes: first those of the eight pairs of lanes, total[16 * lane + row]; it ends in lane 0."""
    cdef double[128] carry
    cdef floating[16] low, high
    cdef Py_ssize_t apart
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
    apart = 16
    while apart < 128:
        lane = 0
        while lane < 128:
            for l in range(0, 16, 8):
                add_exactly(<const double *>total + lane + l, <const double *>&carry[lane + l],
                            <const double *>total + lane + apart + l, <const double *>&carry[lane + apart + l], 1,
                            total + lane + l, &carry[lane + l], low[0])
            lane += 2 * apart
        apart *= 2
    if floating is double:
        for l in range(16):
            total[l] += carry[l]


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
    cdef Py_ssize_t j, lane, step
    cdef Py_ssize_t size = n_classes if n_classes < 8 else 8
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
    if n_classes > 16:
        add_blocks(<const floating *>terms, term_stride, n_classes, <const floating *>&at_top[0], &total[0])
    else:
        for lane in range(size):
            p = <const floating *>terms + lane * term_stride
            if lane + 8 < n_classes:
                for l in range(16):
                    total[16 * lane + l] = below(p[l], at_top[l]) + below(p[l + 8 * term_stride], at_top[l])
            else:
                for l in range(16):
                    total[16 * lane + l] = below(p[l], at_top[l])
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
