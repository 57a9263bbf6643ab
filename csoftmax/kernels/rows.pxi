# Tiles of contiguous rows: classes are lanes. What is computed for a row, and in which order, depends on n_classes
# alone; columns.pxi computes the same in the same order with rows as lanes.
#
# The order of a sum, for a chunk of n classes: class j belongs to lane j % 16. Of 64 classes, a lane adds its four in
# the dtype, then lanes l and l + 8 are added, and the eight sums go on in double. In the end neighbours are added,
# then neighbours of those, and so on.

cdef enum:
    FOLD = 8                # rows whose lanes are folded together


cdef inline void max_of_rows(
    const floating *x,          # IN   (n_rows, n_classes)
    Py_ssize_t n_rows,          # at most FOLD
    Py_ssize_t n_classes,
    Py_ssize_t row_stride,
    floating *maximum,          # OUT  (FOLD,), those from n_rows on undefined
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
        if n_classes < 16:
            for l in range(16):
                lanes[16 * row + l] = p[l if l < n_classes else 0]
            continue
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
    for l in range(8):
        maximum[l] = twos[2 * l] if twos[2 * l] > twos[2 * l + 1] else twos[2 * l + 1]


cdef inline void terms_of_row(
    const floating *x,          # IN   (n_classes,)
    Py_ssize_t n_classes,
    Py_ssize_t ahead,           # from here to the same place of the next tile, in elements
    floating origin, floating least, floating magic,
    floating *terms,            # OUT  (n_classes up to a multiple of 16,), zeros behind the last class
) noexcept nogil:
    cdef Py_ssize_t j = 0
    cdef int l
    while j + 32 <= n_classes:
        terms_of_block(x + j, ahead, origin, least, magic, terms + j)
        j += 32
    if j == n_classes:
        return
    if n_classes >= 32:         # once more what the last whole block has in common with the end
        terms_of_block(x + n_classes - 32, ahead, origin, least, magic, terms + n_classes - 32)
    else:
        while j < n_classes:
            terms[j] = term(x[j], origin, least, magic, False)
            j += 1
    for l in range((16 - n_classes % 16) % 16):
        terms[n_classes + l] = 0


cdef inline void sums_of_row(
    const floating *terms,      # IN   (n_classes up to a multiple of 16,)
    Py_ssize_t n_classes,
    floating top,
    double *total,              # OUT  (8,), of the terms below top
    double *carry,              # OUT  (8,), what rounding took from them; float64 only
    floating *all,              # OUT  (8,), of all terms
) noexcept nogil:
    cdef floating[16] sums, everything
    cdef floating[8] pairs
    cdef const floating *p
    cdef Py_ssize_t j = 0
    cdef int l
    for l in range(8):
        total[l] = 0
    if floating is double:
        for l in range(8):
            carry[l] = 0
    for l in range(16):
        everything[l] = 0
    while j < n_classes:
        p = terms + j
        if j + 48 < n_classes:
            for l in range(16):
                sums[l] = ((below(p[l], top) + below(p[l + 16], top)) + below(p[l + 32], top)) + below(p[l + 48], top)
            for l in range(16):
                everything[l] += (p[l] + p[l + 16]) + (p[l + 32] + p[l + 48])
            j += 64
        else:
            for l in range(16):
                sums[l] = 0
            while j < n_classes:
                for l in range(16):
                    sums[l] += below(terms[j + l], top)
                for l in range(16):
                    everything[l] += terms[j + l]
                j += 16
        for l in range(8):
            pairs[l] = sums[l] + sums[l + 8]
        add_to_totals(<const floating *>&pairs[0], total, carry)
    for l in range(8):
        all[l] = everything[l] + everything[l + 8]


cdef void measure_rows(
    const floating *x,          # IN   (n_rows, n_classes)
    Py_ssize_t n_rows,
    Py_ssize_t n_classes,
    Py_ssize_t row_stride,
    Py_ssize_t ahead,           # from a row to that of the next tile, in elements: it is fetched meanwhile
    Py_ssize_t term_stride,     # 0: the terms of one row are scrap for the next
    floating *terms,            # OUT  (n_rows, term_stride)
    floating *maximum,          # OUT  (n_rows,)
    double *sum,                # OUT  (n_rows,), of exp(x - M) over the classes below the maximum
    double *ties,               # OUT  (n_rows,), how many other classes share it
) noexcept nogil:
    """In phases: the ends of rows (folds) overlap with the beginnings of others, and are vectors over rows."""
    cdef floating[8] top, origin, least, magic, at_top
    cdef double[8] below_top, equal
    cdef double[64] totals, carries
    cdef double[32] fours, four_carries
    cdef double[16] twos, two_carries
    cdef double[8] left
    cdef floating[64] alls
    cdef floating[32] all_fours
    cdef floating[16] all_twos
    cdef Py_ssize_t first = 0, n, row
    cdef int l
    cdef const floating *p
    cdef floating *t
    for l in range(8):
        top[l] = 0
    while first < n_rows:
        n = n_rows - first if n_rows - first < FOLD else FOLD
        max_of_rows(x + first * row_stride, n, n_classes, row_stride, &top[0])
        for l in range(8):
            refer(top[l], False, &origin[l], &least[l], &magic[l])
        for l in range(8):
            at_top[l] = term(top[l], origin[l], least[l], magic[l], False)
        for row in range(n):
            p = x + (first + row) * row_stride
            t = terms + (first + row) * term_stride
            terms_of_row(p, n_classes, ahead, origin[row], least[row], magic[row], t)
            sums_of_row(<const floating *>t, n_classes, at_top[row], &totals[8 * row], &carries[8 * row],
                        &alls[8 * row])
        for l in range(4):
            add_exactly(<const double *>&totals[16 * l], <const double *>&carries[16 * l],
                        <const double *>&totals[16 * l + 1], <const double *>&carries[16 * l + 1], 2, &fours[8 * l],
                        &four_carries[8 * l], top[0])
        for l in range(2):
            add_exactly(<const double *>&fours[16 * l], <const double *>&four_carries[16 * l],
                        <const double *>&fours[16 * l + 1], <const double *>&four_carries[16 * l + 1], 2, &twos[8 * l],
                        &two_carries[8 * l], top[0])
        add_exactly(<const double *>&twos[0], <const double *>&two_carries[0], <const double *>&twos[1],
                    <const double *>&two_carries[1], 2, &below_top[0], &left[0], top[0])
        if floating is double and n_classes > 16:
            for l in range(8):
                below_top[l] += left[l]
        for l in range(32):
            all_fours[l] = alls[2 * l] + alls[2 * l + 1]
        for l in range(16):
            all_twos[l] = all_fours[2 * l] + all_fours[2 * l + 1]
        for l in range(8):
            equal[l] = ties_of(below_top[l], all_twos[2 * l] + all_twos[2 * l + 1], at_top[l])
        for row in range(n):
            maximum[first + row] = top[row]
            sum[first + row] = below_top[row] * (1 / unit(top[row]))
            ties[first + row] = equal[row]
        first += FOLD
