# Tiles of contiguous rows: classes are lanes. What is computed for a row, and in which order, depends on n_classes
# alone; columns.pxi computes the same in the same order with rows as lanes.
#
# The order of a sum, for a chunk of n classes: class j belongs to lane j % 16, those after the last full group of 16
# to the lane that they have in the group that ends with the last class. A lane adds up to four classes in the dtype,
# and such fours in double. Lanes l and l + 8 are added, then neighbours, neighbours of those, and so on.

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


cdef inline void add_rows(
    const floating *x,          # IN   (n_rows, n_classes)
    Py_ssize_t n_rows,          # at most FOLD
    Py_ssize_t n_classes,       # at least 16
    Py_ssize_t row_stride,
    const floating *maximum,    # IN   (n_rows,)
    floating *terms,            # OUT  (n_rows, n_classes)
    double *others,             # OUT  (n_rows,)
) noexcept nogil:
    cdef double[64] sums
    cdef double[32] fours
    cdef double[16] twos
    cdef floating[64] counts
    cdef floating[32] count_fours
    cdef floating[16] count_twos
    cdef double[16] total
    cdef floating[16] below
    cdef floating[16] ties
    cdef Py_ssize_t row, j, i, start
    cdef int l
    cdef const floating *p
    cdef floating *t
    cdef floating[16] m
    cdef double unscale = 1 / <double>one(maximum[0])
    for row in range(n_rows):
        p = x + row * row_stride
        t = terms + row * n_classes
        for l in range(16):
            m[l] = maximum[row]
        for l in range(16):
            total[l] = 0
        for l in range(16):
            ties[l] = 0
        j = 0
        while j < n_classes:
            for l in range(16):
                below[l] = 0
            if j + 64 <= n_classes:
                add_group(p + j, m, 0, t + j, below, ties)
                add_group(p + j + 16, m, 0, t + j + 16, below, ties)
                add_group(p + j + 32, m, 0, t + j + 32, below, ties)
                add_group(p + j + 48, m, 0, t + j + 48, below, ties)
            else:
                i = j
                while i < n_classes:
                    start = i if i < n_classes - 16 else n_classes - 16
                    add_group(p + start, m, i - start, t + start, below, ties)
                    i += 16
            for l in range(16):
                total[l] += below[l]
            j += 64
        for l in range(8):
            sums[8 * row + l] = total[l] + total[l + 8]
        for l in range(8):
            counts[8 * row + l] = ties[l] + ties[l + 8]
    for l in range(32):
        fours[l] = sums[2 * l] + sums[2 * l + 1]
    for l in range(16):
        twos[l] = fours[2 * l] + fours[2 * l + 1]
    for l in range(32):
        count_fours[l] = counts[2 * l] + counts[2 * l + 1]
    for l in range(16):
        count_twos[l] = count_fours[2 * l] + count_fours[2 * l + 1]
    for row in range(n_rows):
        others[row] = (twos[2 * row] + twos[2 * row + 1]) * unscale + (count_twos[2 * row] + count_twos[2 * row + 1] - 1)


cdef void measure_rows(
    const floating *x,          # IN   (n_rows, n_classes)
    Py_ssize_t n_rows,
    Py_ssize_t n_classes,       # at least 16
    Py_ssize_t row_stride,
    floating *terms,            # OUT  (n_rows, n_classes), scaled_exp(x, maximum)
    floating *maximum,          # OUT  (n_rows,)
    double *others,             # OUT  (n_rows,), the sum of exp(x - maximum) without the maximum's own 1
) noexcept nogil:
    """In phases: the ends of rows (folds) overlap with the beginnings of others, and are vectors over rows."""
    cdef Py_ssize_t first = 0, n
    while first < n_rows:
        n = n_rows - first if n_rows - first < FOLD else FOLD
        max_of_rows(x + first * row_stride, n, n_classes, row_stride, maximum + first)
        add_rows(x + first * row_stride, n, n_classes, row_stride, maximum + first, terms + first * n_classes,
                 others + first)
        first += FOLD
