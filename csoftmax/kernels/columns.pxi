# Tiles whose rows are lanes: a class axis that is not the last one, and rows of few classes, transposed.
# The order of every sum is that of rows.pxi, so that the answer does not depend on the layout.

cdef void add_blocks(
    const floating *terms, Py_ssize_t term_stride, Py_ssize_t n_classes, double *total,
) noexcept nogil:
    """The sums of the eight pairs of lanes of classes, for more than 16 classes."""
    cdef floating[16] below, upper
    cdef Py_ssize_t[4] group    # where the terms of each group of 16 classes begin,
    cdef Py_ssize_t[4] skip     # and how many of its classes were counted before
    cdef Py_ssize_t block = 0, j, lane, first, n_groups
    cdef int l
    while block < n_classes:
        n_groups = 0
        j = block
        while j < n_classes and n_groups < 4:
            first = j if j < n_classes - 16 else n_classes - 16
            group[n_groups] = first * term_stride
            skip[n_groups] = j - first
            n_groups += 1
            j += 16
        for lane in range(8):
            for l in range(16):
                below[l] = 0
            for l in range(16):
                upper[l] = 0
            for j in range(n_groups):
                if lane >= skip[j]:
                    add_below(terms + group[j] + lane * term_stride, 0, below)
                if lane + 8 >= skip[j]:
                    add_below(terms + group[j] + (lane + 8) * term_stride, 0, upper)
            if block == 0:
                for l in range(16):
                    total[16 * lane + l] = below[l] + upper[l]
            else:
                for l in range(16):
                    total[16 * lane + l] += below[l] + upper[l]
        block += 64


cdef inline void measure_lanes(
    const floating *x,          # IN   (n_classes, 16)
    Py_ssize_t class_stride,
    Py_ssize_t n_classes,
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
    cdef double sum
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
    for lane in range(size, 8):
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
        add_blocks(terms, term_stride, n_classes, &total[0])
    for l in range(16):
        sum = ((total[l] + total[l + 16]) + (total[l + 32] + total[l + 48])) + (
            (total[l + 64] + total[l + 80]) + (total[l + 96] + total[l + 112]))
        others[l] = without_one(sum, all[l])
    for l in range(16):
        maximum[l] = top[l]


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
