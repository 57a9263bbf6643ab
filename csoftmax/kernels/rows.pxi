# Tiles of contiguous rows: classes are lanes. What is computed for a row, and in which order, depends on n_classes
# alone; columns.pxi computes the same in the same order with rows as lanes.
#
# The order of a sum, for a chunk of n classes: class j belongs to lane j % 16, those after the last full group of 16
# to the lane that they have in the group that ends with the last class. Of 64 classes, a lane adds its four in the
# dtype, then lanes l and l + 8 are added, and the eight sums go on in double. In the end neighbours are added, then
# neighbours of those, and so on.

cdef enum:
    FOLD = 8                # rows whose lanes are folded together


cdef inline void max_of_rows(
    const floating *x,          # IN   (n_rows, n_classes)
    Py_ssize_t n_rows,          # at most FOLD
    Py_ssize_t n_classes,       # at least 16
    Py_ssize_t row_stride,
    floating *maximum,          # OUT  (n_rows,)
) noexcept nogil:
    cdef floating[128] lanes
    cdef floating[64] eights
    cdef floating[32] fours
    cdef floating[16] twos
    cdef Py_ssize_t row, j, start
    cdef int l
    cdef const floating *p
    for row in range(n_rows):
        p = x + row * row_stride
        for l in range(16):
            lanes[16 * row + l] = p[l]
        j = 0
        while j + 64 <= n_classes:
            max_of_four_groups(p + j, 16, lanes + 16 * row)
            j += 64
        while j < n_classes:
            start = j if j < n_classes - 16 else n_classes - 16
            max_of_group(p + start, lanes + 16 * row)
            j += 16
    for l in range(64):
        eights[l] = lanes[2 * l] if lanes[2 * l] > lanes[2 * l + 1] else lanes[2 * l + 1]
    for l in range(32):
        fours[l] = eights[2 * l] if eights[2 * l] > eights[2 * l + 1] else eights[2 * l + 1]
    for l in range(16):
        twos[l] = fours[2 * l] if fours[2 * l] > fours[2 * l + 1] else fours[2 * l + 1]
    for row in range(n_rows):
        maximum[row] = twos[2 * row] if twos[2 * row] > twos[2 * row + 1] else twos[2 * row + 1]


cdef inline void measure_group(
    const floating *x, const floating *maximum, int skip, floating *terms, floating *below, floating *all,
) noexcept nogil:
    cdef floating[16] term      # stays in registers
    exp_group(x, maximum, &term[0])
    memcpy(terms, term, sizeof(term))
    add_below(<const floating *>&term[0], skip, below)
    add_all(<const floating *>&term[0], skip, all)


cdef inline void add_rows(
    const floating *x,          # IN   (n_rows, n_classes)
    Py_ssize_t n_rows,          # at most FOLD
    Py_ssize_t n_classes,       # at least 16
    Py_ssize_t row_stride,
    Py_ssize_t ahead,           # from here to the same place of the next tile, in elements
    bint keep,
    const floating *maximum,    # IN   (n_rows,)
    floating *terms,            # OUT  (n_rows, n_classes)
    double *others,             # OUT  (n_rows,)
) noexcept nogil:
    cdef double[64] sums, carries
    cdef double *carry
    cdef floating[8] pairs
    cdef double[32] fours
    cdef double[16] twos
    cdef floating[64] alls
    cdef floating[32] all_fours
    cdef floating[16] all_twos
    cdef double *total          # the row's eight sums, where they are folded: a copy would wait for its own stores
    cdef floating[16] below, all, m
    cdef Py_ssize_t row, j, i, start
    cdef int l
    cdef const floating *p
    cdef floating *t
    for row in range(n_rows):
        p = x + row * row_stride
        t = terms + keep * row * n_classes
        for l in range(16):
            m[l] = maximum[row]
        total = &sums[8 * row]
        carry = &carries[8 * row]
        for l in range(8):
            total[l] = 0
        for l in range(8):
            carry[l] = 0
        for l in range(16):
            all[l] = 0
        j = 0
        while j < n_classes:
            for l in range(16):
                below[l] = 0
            i = 0
            while i < 64 * <Py_ssize_t>sizeof(floating):
                prefetch(<const char *>(p + j + ahead) + i)
                i += 64
            if j + 64 <= n_classes:
                measure_group(p + j, m, 0, t + keep * j, below, all)
                measure_group(p + j + 16, m, 0, t + keep * (j + 16), below, all)
                measure_group(p + j + 32, m, 0, t + keep * (j + 32), below, all)
                measure_group(p + j + 48, m, 0, t + keep * (j + 48), below, all)
            else:
                i = j
                while i + 16 <= n_classes:
                    measure_group(p + i, m, 0, t + keep * i, below, all)
                    i += 16
                if i < n_classes:
                    start = n_classes - 16
                    measure_group(p + start, m, i - start, t + keep * start, below, all)
            for l in range(8):
                pairs[l] = below[l] + below[l + 8]
            add_to_totals(<const floating *>&pairs[0], total, carry)
            j += 64
        for l in range(8):
            alls[8 * row + l] = all[l] + all[l + 8]
    if floating is double:
        for l in range(64):
            sums[l] += carries[l]
    for l in range(32):
        fours[l] = sums[2 * l] + sums[2 * l + 1]
    for l in range(16):
        twos[l] = fours[2 * l] + fours[2 * l + 1]
    for l in range(32):
        all_fours[l] = alls[2 * l] + alls[2 * l + 1]
    for l in range(16):
        all_twos[l] = all_fours[2 * l] + all_fours[2 * l + 1]
    for row in range(n_rows):
        others[row] = without_one(twos[2 * row] + twos[2 * row + 1], all_twos[2 * row] + all_twos[2 * row + 1])


cdef void measure_rows(
    const floating *x,          # IN   (n_rows, n_classes)
    Py_ssize_t n_rows,
    Py_ssize_t n_classes,       # at least 16
    Py_ssize_t row_stride,
    Py_ssize_t ahead,           # from a row to that of the next tile, in elements: it is fetched meanwhile
    bint keep,                  # whether terms are wanted
    floating *terms,            # OUT  (n_rows, n_classes), scaled_exp(x, maximum); without keep one group, scrap
    floating *maximum,          # OUT  (n_rows,)
    double *others,             # OUT  (n_rows,), the sum of exp(x - maximum) without the maximum's own 1
) noexcept nogil:
    """In phases: the ends of rows (folds) overlap with the beginnings of others, and are vectors over rows."""
    cdef Py_ssize_t first = 0, n
    while first < n_rows:
        n = n_rows - first if n_rows - first < FOLD else FOLD
        max_of_rows(x + first * row_stride, n, n_classes, row_stride, maximum + first)
        add_rows(x + first * row_stride, n, n_classes, row_stride, ahead, keep, maximum + first,
                 terms + keep * first * n_classes, others + first)
        first += FOLD
