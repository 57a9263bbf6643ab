# Tiles whose rows are lanes: a class axis that is not the last one, and rows of few classes, transposed.
# The order of every sum is that of rows.pxi, so that the answer does not depend on the layout.

cdef struct Ahead:
    # Where the next tile lies, which is fetched while this one is computed; steps in bytes between rows and classes.
    const char *start
    Py_ssize_t row_step, class_step


cdef inline void add_lane(
    const floating *terms, const Py_ssize_t *group, Py_ssize_t n_groups, floating *sum,
) noexcept nogil:
    """The classes of one lane, one from each group: in the order in which rows.pxi adds them."""
    cdef int l
    cdef const floating *p = terms + group[0]
    cdef const floating *q = terms + group[1]
    cdef const floating *r = terms + group[2]
    cdef const floating *s = terms + group[3]
    if n_groups == 4:
        for l in range(16):
            sum[l] = ((below_one(p[l]) + below_one(q[l])) + below_one(r[l])) + below_one(s[l])
    elif n_groups == 3:
        for l in range(16):
            sum[l] = (below_one(p[l]) + below_one(q[l])) + below_one(r[l])
    elif n_groups == 2:
        for l in range(16):
            sum[l] = below_one(p[l]) + below_one(q[l])
    elif n_groups == 1:
        for l in range(16):
            sum[l] = below_one(p[l])
    else:
        for l in range(16):
            sum[l] = 0


cdef inline void add_blocks(
    const floating *terms, Py_ssize_t term_stride, Py_ssize_t n_classes, double *total,
) noexcept nogil:
    """The sums of the eight pairs of lanes of classes."""
    cdef double[128] carry
    cdef floating[16] low, high
    cdef Py_ssize_t[4] group    # where the terms of each group of up to 16 classes begin
    cdef Py_ssize_t block, first, start, n_groups, lane
    cdef Py_ssize_t size = n_classes if n_classes < 16 else 16
    cdef Py_ssize_t skip = 0    # classes of the last group that the group before has counted
    cdef int l
    for lane in range(4):
        group[lane] = 0
    for block in range(0, n_classes, 64):
        n_groups = 0
        first = block
        while first < n_classes and n_groups < 4:
            start = first if first + size <= n_classes else n_classes - size
            group[n_groups] = start * term_stride
            skip = first - start
            n_groups += 1
            first += 16
        for lane in range(8):
            add_lane(terms + lane * term_stride, group, (n_groups - (lane < skip)) * (lane < size), low)
            add_lane(terms + (lane + 8) * term_stride, group, (n_groups - (lane + 8 < skip)) * (lane + 8 < size), high)
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
    if floating is double and n_classes > 64:
        for lane in range(128):
            total[lane] += carry[lane]


cdef inline void measure_lanes(
    const floating *x,          # IN   (n_classes, 16)
    Py_ssize_t class_stride,
    Py_ssize_t n_classes,
    const char *ahead,
    Py_ssize_t ahead_step,
    floating *terms,            # OUT  (n_classes, 16)
    Py_ssize_t term_stride,
    floating *maximum,          # OUT  (16,)
    double *others,             # OUT  (16,)
) noexcept nogil:
    cdef double[128] total      # (8 lanes of classes, 16 rows)
    cdef floating[16] top, all
    cdef Py_ssize_t j, lane
    cdef Py_ssize_t size = n_classes if n_classes < 16 else 16
    cdef const floating *p
    cdef int l
    for l in range(16):
        top[l] = x[l]
    j = 1
    while j + 4 <= n_classes:
        max_of_four_groups(x + j * class_stride, class_stride, top)
        j += 4
    while j < n_classes:
        max_of_group(x + j * class_stride, top)
        j += 1
    for j in range(n_classes):
        prefetch(ahead + j * ahead_step)
        if floating is double:
            prefetch(ahead + j * ahead_step + 64)
        exp_group(x + j * class_stride, top, terms + j * term_stride)
    for l in range(16):
        all[l] = 0
    j = 0
    while j + 4 <= n_classes:
        add_all_of_four(<const floating *>terms + j * term_stride, term_stride, all)
        j += 4
    while j < n_classes:
        add_all(<const floating *>terms + j * term_stride, 0, all)
        j += 1
    # Lanes without classes count as zeros: sums with them are left out.
    for lane in range(size, 2 if size < 3 else 4 if size < 5 else 8):
        for l in range(16):
            total[16 * lane + l] = 0
    if n_classes <= 16:
        for lane in range(size if size < 8 else 8):
            p = terms + lane * term_stride
            if lane + 8 < size:
                for l in range(16):
                    total[16 * lane + l] = below_one(p[l]) + below_one(p[l + 8 * term_stride])
            else:
                for l in range(16):
                    total[16 * lane + l] = below_one(p[l])
    else:
        add_blocks(<const floating *>terms, term_stride, n_classes, &total[0])
    for l in range(16):
        total[l] += total[l + 16]
    if size > 2:
        for l in range(16):
            total[l] += total[l + 32] + total[l + 48]
    if size > 4:
        for l in range(16):
            total[l] += (total[l + 64] + total[l + 80]) + (total[l + 96] + total[l + 112])
    for l in range(16):
        others[l] = without_one(total[l], all[l])
    for l in range(16):
        maximum[l] = top[l]


cdef void measure_columns(
    const floating *x,          # IN   (n_classes, n_rows)
    Py_ssize_t class_stride,
    Py_ssize_t n_classes,
    Py_ssize_t n_rows,          # a multiple of 16
    const Ahead *ahead,
    floating *terms,            # OUT  (n_classes, n_rows), scaled_exp(x, maximum)
    floating *maximum,          # OUT  (n_rows,)
    double *others,             # OUT  (n_rows,), the sum of exp(x - maximum) without the maximum's own 1
) noexcept nogil:
    cdef Py_ssize_t row = 0
    while row < n_rows:
        measure_lanes(x + row, class_stride, n_classes, ahead.start + row * ahead.row_step, ahead.class_step,
                      terms + row, n_rows, maximum + row, others + row)
        row += 16
