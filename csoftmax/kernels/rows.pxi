# Tiles of contiguous rows: classes are lanes. Here are their maxima, terms and sums; not where they lie (load.pxi) nor
# what is made of them (finish.pxi, write.pxi). What is computed for a row, and in which order (lanes.pxd says it),
# depends on n_classes alone: columns.pxi computes the same with rows as lanes.

from cython cimport floating
from libc.string cimport memcpy

from csoftmax.kernels.exp cimport (
    DIVIDED, NEXT_TO_MAXIMUM, N_DIVIDE, Reference, ReferenceKind, refer, reference_at, store_reference, term,
    term_scale, terms_of_block,
)
from csoftmax.kernels.fetch cimport fetch_row
from csoftmax.kernels.lanes cimport (
    FOLD, add_exactly, add_to_totals, below, copy_lanes, max_of_four_groups, max_of_group, sums_at, ties_of,
)
from csoftmax.kernels.task cimport LANES
from csoftmax.kernels.tile cimport Fetched, Measured, Part


cdef inline void lanes_of_row(const floating *x, Py_ssize_t n_classes, floating *lanes) noexcept nogil:
    """Sixteen numbers of which the largest is the row's maximum."""
    cdef Py_ssize_t j, start
    cdef int l
    if n_classes < LANES:
        for l in range(LANES):
            lanes[l] = x[l if l < n_classes else 0]
        return
    for l in range(LANES):
        lanes[l] = x[l]
    j = 0
    while j + 64 <= n_classes:
        max_of_four_groups(x + j, LANES, lanes)
        j += 64
    if j == n_classes:
        return
    if n_classes >= 64:         # once more what the last whole block has in common with the end
        max_of_four_groups(x + n_classes - 64, LANES, lanes)
        return
    while j < n_classes:
        start = j if j < n_classes - LANES else n_classes - LANES
        max_of_group(x + start, lanes)
        j += LANES


cdef inline floating top_of_lanes(const floating *lanes) noexcept nogil:
    cdef floating[8] eights
    cdef floating[4] fours
    cdef floating[2] twos
    cdef int l
    for l in range(8):
        eights[l] = lanes[l] if lanes[l] > lanes[l + 8] else lanes[l + 8]
    for l in range(4):
        fours[l] = eights[l] if eights[l] > eights[l + 4] else eights[l + 4]
    for l in range(2):
        twos[l] = fours[l] if fours[l] > fours[l + 2] else fours[l + 2]
    return twos[0] if twos[0] > twos[1] else twos[1]


cdef inline floating max_of_row(const floating *x, Py_ssize_t n_classes) noexcept nogil:
    cdef floating[LANES] lanes
    lanes_of_row(x, n_classes, &lanes[0])
    return top_of_lanes(<const floating *>&lanes[0])


cdef inline void fold_maxima(
    const floating *lanes,      # IN   (FOLD, 16)
    floating *maximum,          # OUT  (FOLD,)
) noexcept nogil:
    cdef floating[64] eights
    cdef floating[32] fours
    cdef floating[16] twos
    cdef int l
    for l in range(64):
        eights[l] = lanes[2 * l] if lanes[2 * l] > lanes[2 * l + 1] else lanes[2 * l + 1]
    for l in range(32):
        fours[l] = eights[2 * l] if eights[2 * l] > eights[2 * l + 1] else eights[2 * l + 1]
    for l in range(16):
        twos[l] = fours[2 * l] if fours[2 * l] > fours[2 * l + 1] else fours[2 * l + 1]
    for l in range(8):
        maximum[l] = twos[2 * l] if twos[2 * l] > twos[2 * l + 1] else twos[2 * l + 1]


cdef inline void max_of_rows(
    const Part *part, Py_ssize_t first,
    Py_ssize_t n_rows,          # from the first on, at most FOLD
    const floating *x,          # IN   (n_rows, n_classes); OUT if the part is unread
    Py_ssize_t row_stride,
    floating *maximum,          # OUT  (FOLD,), those from n_rows on undefined
) noexcept nogil:
    cdef floating[128] lanes
    cdef Py_ssize_t row
    if part.unread.start != NULL and part.unread.together:
        read_numbers(part.unread.storage, part.unread.start + first * part.unread.row_step, n_rows * part.n_classes,
                     <floating *>x)
    for row in range(n_rows):
        if part.unread.start != NULL and not part.unread.together:
            read_numbers(part.unread.storage, part.unread.start + (first + row) * part.unread.row_step, part.n_classes,
                         <floating *>x + row * row_stride)
        lanes_of_row(x + row * row_stride, part.n_classes, &lanes[LANES * row])
    fold_maxima(<const floating *>&lanes[0], maximum)


cdef inline void terms_of_classes(
    const floating *x, Py_ssize_t n_classes, Py_ssize_t ahead, Py_ssize_t output, Reference reference,
    ReferenceKind kind, const floating *divide, floating *terms,
) noexcept nogil:
    cdef Py_ssize_t j = n_classes // LANES * LANES
    cdef int l
    while j < (n_classes + 63) // 64 * 64:
        for l in range(LANES):
            terms[j + l] = 0
        j += LANES
    j = 0
    while j + 32 <= n_classes:
        terms_of_block(x + j, 32, ahead, output, reference, kind, divide, terms + j)
        j += 32
    if n_classes < LANES:
        while j < n_classes:
            terms[j] = term(x[j], reference, kind, divide)
            j += 1
        return
    while j < n_classes:        # once more what the last whole block has in common with the end
        j = j if j < n_classes - LANES else n_classes - LANES
        terms_of_block(x + j, LANES, ahead, output, reference, kind, divide, terms + j)
        j += LANES


cdef inline void terms_of_row(
    const floating *x,          # IN   (n_classes,)
    Py_ssize_t n_classes,
    Py_ssize_t ahead,           # from here to the same place of the next tile, in elements
    const char *output,         # the same place of the output, or NULL
    Reference reference,
    ReferenceKind kind,         # a constant, NEXT_TO_MAXIMUM or DIVIDED
    const floating *divide,
    floating *terms,            # OUT  (n_classes up to a multiple of 64,), zeros behind the last class
) noexcept nogil:
    if output != NULL:          # the loops are other ones, with 0 as a constant
        terms_of_classes(x, n_classes, ahead, output - <const char *>x, reference, kind, divide, terms)
    else:
        terms_of_classes(x, n_classes, ahead, 0, reference, kind, divide, terms)


cdef inline void fetch_bytes_of_row(const Fetched *fetched, Py_ssize_t row) noexcept nogil:
    if fetched.row_bytes:
        fetch_row(fetched.start + row * fetched.row_step, fetched.row_bytes)


cdef inline void begin_sums(double *total, double *carry, floating *all) noexcept nogil:
    """Zeros, for add_sums_of_row() to add to."""
    cdef int l
    for l in range(8):
        total[l] = 0
    if floating is double:
        for l in range(8):
            carry[l] = 0
    for l in range(LANES):
        all[l] = 0


cdef inline void add_sums_of_row(
    const floating *terms,      # IN   (n_classes up to a multiple of 64,)
    Py_ssize_t n_classes,
    floating top,
    double *total,              # INOUT (8,), of the terms below top
    double *carry,              # INOUT (8,), what rounding took from them; float64 only
    floating *all,              # INOUT (16,), of all terms
) noexcept nogil:
    cdef floating[LANES] sums, everything
    cdef const floating *p
    cdef Py_ssize_t j = 0
    cdef int l
    for l in range(LANES):
        everything[l] = all[l]
    while j < n_classes:
        p = terms + j
        for l in range(LANES):
            sums[l] = (below(p[l], top) + below(p[l + 16], top)) + (below(p[l + 32], top) + below(p[l + 48], top))
        for l in range(LANES):
            everything[l] += (p[l] + p[l + 16]) + (p[l + 32] + p[l + 48])
        j += 64
        add_to_totals(<const floating *>&sums[0], total, carry)
        add_to_totals(<const floating *>&sums[8], total, carry)
    copy_lanes(<const floating *>&everything[0], all)


cdef inline void fold_rows(
    const double *totals, const double *carries,    # IN   (FOLD, 8)
    bint carried,               # whether the carries count: sums of four classes have none
    double *sum,                # OUT  (FOLD,)
    floating dtype_tag,
) noexcept nogil:
    """What is left of each row's eight totals."""
    cdef double[32] fours, four_carries
    cdef double[16] twos, two_carries
    cdef double[8] left
    cdef int l, first
    for l in range(4):
        first = 16 * l
        add_exactly(sums_at(totals + first, carries + first), sums_at(totals + first + 1, carries + first + 1), 2, 8,
                    sums_at(&fours[8 * l], &four_carries[8 * l]), dtype_tag)
    for l in range(2):
        first = 16 * l
        add_exactly(sums_at(&fours[first], &four_carries[first]), sums_at(&fours[first + 1], &four_carries[first + 1]),
                    2, 8, sums_at(&twos[8 * l], &two_carries[8 * l]), dtype_tag)
    add_exactly(sums_at(&twos[0], &two_carries[0]), sums_at(&twos[1], &two_carries[1]), 2, 8, sums_at(sum, &left[0]),
                dtype_tag)
    if floating is double and carried:
        for l in range(8):
            sum[l] += left[l]


cdef inline double fold_row(const double *total, const double *carry, bint carried, floating dtype_tag) noexcept nogil:
    """The same for one row."""
    cdef double[4] fours, four_carries
    cdef double[2] twos, two_carries
    cdef double sum, left
    add_exactly(sums_at(total, carry), sums_at(total + 1, carry + 1), 2, 4, sums_at(&fours[0], &four_carries[0]),
                dtype_tag)
    add_exactly(sums_at(&fours[0], &four_carries[0]), sums_at(&fours[1], &four_carries[1]), 2, 2,
                sums_at(&twos[0], &two_carries[0]), dtype_tag)
    add_exactly(sums_at(&twos[0], &two_carries[0]), sums_at(&twos[1], &two_carries[1]), 2, 1, sums_at(&sum, &left),
                dtype_tag)
    return sum + left if floating is double and carried else sum


cdef inline void begin_fold(
    const Part *part, Py_ssize_t first, Py_ssize_t n_rows, const floating *x, Py_ssize_t row_stride, ReferenceKind kind,
    floating *top, floating *at_top,        # OUT  (FOLD,)
    floating *references,                   # OUT  (N_REFERENCE, 2 * FOLD), of which every second FOLD
) noexcept nogil:
    """Maxima of at most FOLD rows, and what follows from them."""
    cdef int l
    max_of_rows(part, first, n_rows, x, row_stride, top)
    for l in range(8):
        store_reference(refer(top[l], kind), references + l, 2 * FOLD)
    for l in range(8):
        at_top[l] = <floating>term_scale(top[0]) if kind != NEXT_TO_MAXIMUM else (
            term(top[l], reference_at(<const floating *>references + l, 2 * FOLD), kind, NULL))


cdef inline void fold_ties(
    const floating *alls,       # IN   (FOLD, 16)
    const double *below_top, const floating *at_top,        # IN   (FOLD,)
    double *equal,              # OUT  (FOLD,)
) noexcept nogil:
    """How many other classes share each row's maximum."""
    cdef floating[64] eights
    cdef floating[32] fours
    cdef floating[16] twos
    cdef int l
    for l in range(64):
        eights[l] = alls[2 * l] + alls[2 * l + 1]
    for l in range(32):
        fours[l] = eights[2 * l] + eights[2 * l + 1]
    for l in range(16):
        twos[l] = fours[2 * l] + fours[2 * l + 1]
    for l in range(8):
        equal[l] = ties_of(below_top[l], twos[2 * l] + twos[2 * l + 1], at_top[l])


cdef inline void measure_all_rows(
    const Part *part, const floating *x, Py_ssize_t row_stride,
    const floating *divide,     # NULL, or not, a constant: two functions, see measure_rows()
    Py_ssize_t ahead, bint keep_terms, floating *terms, const Measured *measured,
) noexcept nogil:
    """In phases: the ends of rows (folds) overlap with the beginnings of others, and are vectors over rows."""
    cdef Py_ssize_t n_rows = part.n_rows, n_classes = part.n_classes, term_stride = part.term_stride
    cdef ReferenceKind kind = NEXT_TO_MAXIMUM if divide == NULL else DIVIDED
    cdef const floating *output = <const floating *>part.output.start if part.output.row_bytes == 0 else NULL
    cdef floating[16] top, at_top           # (2, FOLD): of these rows and of the coming ones
    cdef floating[48] references            # (N_REFERENCE, 2, FOLD)
    cdef double[8] below_top, equal
    cdef double[64] totals, carries
    cdef floating[128] alls
    cdef Py_ssize_t first, coming, n, row, side
    cdef floating *t
    for row in range(16):
        top[row] = 0
    for coming in range(0, n_rows + 8, 8):      # by FOLD
        # The maxima of rows and what follows from them are chains of steps, beside the terms of the rows before.
        side = coming % (2 * FOLD)
        if coming < n_rows:
            begin_fold(part, coming, n_rows - coming if n_rows - coming < FOLD else FOLD, x + coming * row_stride,
                       row_stride, kind, &top[side], &at_top[side], &references[side])
        first = coming - FOLD
        if first < 0:
            continue
        side = first % (2 * FOLD)
        n = n_rows - first if n_rows - first < FOLD else FOLD
        # The sums of a row wait for its terms: meanwhile those of the next one are computed.
        for row in range(n + 1):
            if row < n:
                fetch_bytes_of_row(&part.ahead, first + row)
                t = terms + (first + row if keep_terms else row % 2) * term_stride
                terms_of_row(x + (first + row) * row_stride, n_classes, ahead,
                             <const char *>(output + (first + row) * n_classes) if output != NULL else NULL,
                             reference_at(<const floating *>&references[side + row], 2 * FOLD), kind, divide, t)
            if row > 0:
                fetch_bytes_of_row(&part.output, first + row - 1)
                t = terms + (first + row - 1 if keep_terms else (row - 1) % 2) * term_stride
                begin_sums(&totals[8 * (row - 1)], &carries[8 * (row - 1)], &alls[LANES * (row - 1)])
                add_sums_of_row(<const floating *>t, n_classes, at_top[side + row - 1], &totals[8 * (row - 1)],
                                &carries[8 * (row - 1)], &alls[LANES * (row - 1)])
        fold_rows(<const double *>&totals[0], <const double *>&carries[0], n_classes > 4, &below_top[0], top[0])
        fold_ties(<const floating *>&alls[0], <const double *>&below_top[0], <const floating *>&at_top[side], &equal[0])
        for row in range(n):
            (<floating *>measured.maximum)[first + row] = top[side + row]
            measured.sum[first + row] = below_top[row]
            measured.ties[first + row] = equal[row]


cdef void measure_undivided_rows(
    const Part *part, const floating *x, Py_ssize_t row_stride, Py_ssize_t ahead, bint keep_terms, floating *terms,
    const Measured *measured,
) noexcept nogil:
    measure_all_rows(part, x, row_stride, NULL, ahead, keep_terms, terms, measured)


cdef void measure_divided_rows(
    const Part *part, const floating *x, Py_ssize_t row_stride, const floating *divide, Py_ssize_t ahead,
    bint keep_terms, floating *terms, const Measured *measured,
) noexcept nogil:
    cdef floating[N_DIVIDE] numbers     # in registers, which what lies elsewhere need not be
    memcpy(numbers, divide, sizeof(numbers))
    measure_all_rows(part, x, row_stride, <const floating *>&numbers[0], ahead, keep_terms, terms, measured)


cdef inline void measure_rows(
    const Part *part,           # (n_rows, n_classes); its output is fetched meanwhile
    const floating *x,          # IN   (n_rows, n_classes)
    Py_ssize_t row_stride,
    const floating *divide,     # IN   (N_DIVIDE,), or NULL for a temperature of 1
    Py_ssize_t ahead,           # from a row to that of the next tile, in elements: it is fetched meanwhile
    bint keep_terms,
    floating *terms,            # OUT  (n_rows, term_stride), or scrap of (2, term_stride) if they are not kept
    const Measured *measured,   # OUT  (n_rows,)
) noexcept nogil:
    if divide == NULL:
        measure_undivided_rows(part, x, row_stride, ahead, keep_terms, terms, measured)
    else:
        measure_divided_rows(part, x, row_stride, divide, ahead, keep_terms, terms, measured)
