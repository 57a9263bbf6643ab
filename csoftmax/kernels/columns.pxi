# Tiles whose rows are lanes: a class axis that is not the last one, and rows of few classes, transposed.
# The order of every sum is that of rows.pxi, so that the answer does not depend on the layout.

cdef inline void measure_lanes(
    const floating *x,          # IN   (n_classes, 16)
    Py_ssize_t class_stride,
    Py_ssize_t n_classes,
    floating *terms,            # OUT  (n_classes, 16)
    Py_ssize_t term_stride,
    floating *maximum,          # OUT  (16,)
    double *others,             # OUT  (16,)
) noexcept nogil:
    cdef double[256] total      # (16 lanes of classes, 16 rows)
    cdef floating[16] top
    cdef floating[16] below
    cdef floating[16] ties
    cdef Py_ssize_t j, group, first, start, skip, lane
    cdef Py_ssize_t live = n_classes if n_classes < 16 else 16
    cdef int l
    cdef double unscale = 1 / <double>one(x[0])
    for l in range(16):
        top[l] = x[l]
    j = 1
    while j + 4 <= n_classes:
        max_of_four_groups(x + j * class_stride, class_stride, top)
        j += 4
    while j < n_classes:
        max_of_group(x + j * class_stride, top)
        j += 1
    for l in range(16):
        maximum[l] = top[l]
    for l in range(16):
        ties[l] = 0
    for l in range(256):
        total[l] = 0
    group = 0
    while group < n_classes:
        for lane in range(live):
            for l in range(16):
                below[l] = 0
            first = group
            while first < n_classes and first < group + 64:
                start = first if first < n_classes - live else n_classes - live
                if start + lane >= first:
                    add_group(x + (start + lane) * class_stride, top, 0, terms + (start + lane) * term_stride,
                              below, ties)
                first += 16
            for l in range(16):
                total[16 * lane + l] += below[l]
        group += 64
    lane = 8
    while lane < live:
        for l in range(16):
            total[16 * (lane - 8) + l] += total[16 * lane + l]
        lane += 1
    live = live if live < 8 else 8
    while live > 1:
        # A lane without a neighbour stands for a sum with zero.
        for lane in range((live + 1) // 2):
            if 2 * lane + 1 < live:
                for l in range(16):
                    total[16 * lane + l] = total[32 * lane + l] + total[32 * lane + 16 + l]
            else:
                for l in range(16):
                    total[16 * lane + l] = total[32 * lane + l]
        live = (live + 1) // 2
    for l in range(16):
        others[l] = total[l] * unscale + (ties[l] - 1)


cdef void measure_columns(
    const floating *x,          # IN   (n_classes, n_rows)
    Py_ssize_t class_stride,
    Py_ssize_t n_classes,
    Py_ssize_t n_rows,          # a multiple of 16
    floating *terms,            # OUT  (n_classes, n_rows), scaled_exp(x, maximum)
    floating *maximum,          # OUT  (n_rows,)
    double *others,             # OUT  (n_rows,), the sum of exp(x - maximum) without the maximum's own 1
) noexcept nogil:
    cdef Py_ssize_t row = 0
    while row < n_rows:
        measure_lanes(x + row, class_stride, n_classes, terms + row, n_rows, maximum + row, others + row)
        row += 16
