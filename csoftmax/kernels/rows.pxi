# Tiles of contiguous rows: classes are lanes. What is computed for a row, and in which order, depends on n_classes
# alone; columns.pxi computes the same in the same order with rows as lanes.
#
# The order of a sum, for a chunk of n classes: class j belongs to lane j % 16. Of 64 classes, a lane adds two and two
# in the dtype, then those, and goes on in double, where lanes l and l + 8 are one; in float64, which has no wider type,
# it keeps what rounding takes, from 5 classes on. In the end neighbours are added, then neighbours of those, and so on.
# (All terms, the maximum's too, may be added in any order: from that sum a whole number is found.)

from cython cimport floating
from libc.string cimport memcpy

from csoftmax.kernels.exp cimport (
    DIVIDED, NEXT_TO_MAXIMUM, Reference, ReferenceKind, mul_add, refer, reference_at, store_reference, term,
    term_scale, terms_of_block,
)
from csoftmax.kernels.fetch cimport fetch_block
from csoftmax.kernels.lanes cimport (
    add_exactly, add_to_totals, below, copy_lanes, cost_of_four, load_lanes, max_of_four_groups, max_of_group, ties_of,
)

cdef enum:
    FOLD = 8                # rows whose lanes are folded together


cdef inline void lanes_of_row(const floating *x, Py_ssize_t n_classes, floating *lanes) noexcept nogil:
    """Sixteen numbers of which the largest is the row's maximum."""
    cdef Py_ssize_t j, start
    cdef int l
    if n_classes < 16:
        for l in range(16):
            lanes[l] = x[l if l < n_classes else 0]
        return
    for l in range(16):
        lanes[l] = x[l]
    j = 0
    while j + 64 <= n_classes:
        max_of_four_groups(x + j, 16, lanes)
        j += 64
    if j == n_classes:
        return
    if n_classes >= 64:         # once more what the last whole block has in common with the end
        max_of_four_groups(x + n_classes - 64, 16, lanes)
        return
    while j < n_classes:
        start = j if j < n_classes - 16 else n_classes - 16
        max_of_group(x + start, lanes)
        j += 16


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
    cdef floating[16] lanes
    lanes_of_row(x, n_classes, &lanes[0])
    return top_of_lanes(<const floating *>&lanes[0])


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
    cdef Py_ssize_t row
    cdef int l
    for row in range(n_rows):
        lanes_of_row(x + row * row_stride, n_classes, &lanes[16 * row])
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
    Py_ssize_t output,          # from here to the same place of the output, in bytes, or 0
    Reference reference,
    ReferenceKind kind,         # a constant, NEXT_TO_MAXIMUM or DIVIDED
    const floating *divide,
    floating *terms,            # OUT  (n_classes up to a multiple of 64,), zeros behind the last class
) noexcept nogil:
    cdef Py_ssize_t j = n_classes // 16 * 16
    cdef int l
    while j < (n_classes + 63) // 64 * 64:
        for l in range(16):
            terms[j + l] = 0
        j += 16
    j = 0
    while j + 32 <= n_classes:
        terms_of_block(x + j, 32, ahead, output, reference, kind, divide, terms + j)
        j += 32
    if n_classes < 16:
        while j < n_classes:
            terms[j] = term(x[j], reference, kind, divide)
            j += 1
        return
    while j < n_classes:        # once more what the last whole block has in common with the end
        j = j if j < n_classes - 16 else n_classes - 16
        terms_of_block(x + j, 16, ahead, output, reference, kind, divide, terms + j)
        j += 16


cdef inline void begin_sums(double *total, double *carry, floating *all) noexcept nogil:
    """Zeros, for add_sums_of_row() to add to."""
    cdef int l
    for l in range(8):
        total[l] = 0
    if floating is double:
        for l in range(8):
            carry[l] = 0
    for l in range(16):
        all[l] = 0


cdef inline void add_sums_of_row(
    const floating *terms,      # IN   (n_classes up to a multiple of 64,)
    Py_ssize_t n_classes,
    floating top,
    double *total,              # INOUT (8,), of the terms below top
    double *carry,              # INOUT (8,), what rounding took from them; float64 only
    floating *all,              # INOUT (16,), of all terms
) noexcept nogil:
    cdef floating[16] sums, everything
    cdef const floating *p
    cdef Py_ssize_t j = 0
    cdef int l
    for l in range(16):
        everything[l] = all[l]
    while j < n_classes:
        p = terms + j
        for l in range(16):
            sums[l] = (below(p[l], top) + below(p[l + 16], top)) + (below(p[l + 32], top) + below(p[l + 48], top))
        for l in range(16):
            everything[l] += (p[l] + p[l + 16]) + (p[l + 32] + p[l + 48])
        j += 64
        add_to_totals(<const floating *>&sums[0], total, carry)
        add_to_totals(<const floating *>&sums[8], total, carry)
    copy_lanes(<const floating *>&everything[0], all)


cdef inline void fold_rows(
    const double *totals, const double *carries,    # IN   (FOLD, 8)
    bint carried,               # whether the carries count: sums of four classes have none
    double *sum,                # OUT  (FOLD,)
    floating like,
) noexcept nogil:
    """What is left of each row's eight totals."""
    cdef double[32] fours, four_carries
    cdef double[16] twos, two_carries
    cdef double[8] left
    cdef int l
    for l in range(4):
        add_exactly(totals + 16 * l, carries + 16 * l, totals + 16 * l + 1, carries + 16 * l + 1, 2, 8, &fours[8 * l],
                    &four_carries[8 * l], like)
    for l in range(2):
        add_exactly(<const double *>&fours[16 * l], <const double *>&four_carries[16 * l],
                    <const double *>&fours[16 * l + 1], <const double *>&four_carries[16 * l + 1], 2, 8,
                    &twos[8 * l], &two_carries[8 * l], like)
    add_exactly(<const double *>&twos[0], <const double *>&two_carries[0], <const double *>&twos[1],
                <const double *>&two_carries[1], 2, 8, sum, &left[0], like)
    if floating is double and carried:
        for l in range(8):
            sum[l] += left[l]


cdef inline double fold_row(const double *total, const double *carry, bint carried, floating like) noexcept nogil:
    """The same for one row."""
    cdef double[4] fours, four_carries
    cdef double[2] twos, two_carries
    cdef double sum, left
    add_exactly(total, carry, total + 1, carry + 1, 2, 4, &fours[0], &four_carries[0], like)
    add_exactly(<const double *>&fours[0], <const double *>&four_carries[0], <const double *>&fours[1],
                <const double *>&four_carries[1], 2, 2, &twos[0], &two_carries[0], like)
    add_exactly(<const double *>&twos[0], <const double *>&two_carries[0], <const double *>&twos[1],
                <const double *>&two_carries[1], 2, 1, &sum, &left, like)
    return sum + left if floating is double and carried else sum


cdef inline void measure_all_rows(
    const floating *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride,
    ReferenceKind kind,             # a constant, and so two functions: see measure_rows()
    const floating *divide,
    Py_ssize_t ahead, const char *output, bint keep_terms, Py_ssize_t term_stride, floating *terms, floating *maximum,
    double *sum, double *ties,
) noexcept nogil:
    """In phases: the ends of rows (folds) overlap with the beginnings of others, and are vectors over rows."""
    cdef floating[16] top, at_top           # (2, FOLD): of these rows and of the coming ones
    cdef floating[48] references            # (N_REFERENCE, 2, FOLD)
    cdef double[8] below_top, equal
    cdef double[64] totals, carries
    cdef floating[128] alls
    cdef floating[64] all_eights
    cdef floating[32] all_fours
    cdef floating[16] all_twos
    cdef Py_ssize_t first, coming, n, row, side
    cdef int l
    cdef const floating *x_row
    cdef const char *place
    cdef floating *t
    for l in range(16):
        top[l] = 0
    for coming in range(0, n_rows + 8, 8):      # by FOLD
        # The maxima of rows and what follows from them are chains of steps, beside the terms of the rows before.
        if coming < n_rows:
            n = n_rows - coming if n_rows - coming < FOLD else FOLD
            side = coming % 16
            max_of_rows(x + coming * row_stride, n, n_classes, row_stride, &top[side])
            for l in range(8):
                store_reference(refer(top[side + l], kind), &references[side + l], 16)
            for l in range(8):
                at_top[side + l] = <floating>term_scale(top[0]) if kind != NEXT_TO_MAXIMUM else (
                    term(top[side + l], reference_at(<const floating *>&references[side + l], 16), kind, NULL))
        first = coming - FOLD
        if first < 0:
            continue
        side = first % 16
        n = n_rows - first if n_rows - first < FOLD else FOLD
        # The sums of a row wait for its terms: meanwhile those of the next one are computed.
        for row in range(n + 1):
            t = terms + (first + row if keep_terms else row % 2) * term_stride
            if row < n:
                x_row = x + (first + row) * row_stride
                if output != NULL:      # the loops are other ones, with 0 as a constant
                    place = <const char *>(<const floating *>output + (first + row) * n_classes)
                    terms_of_row(x_row, n_classes, ahead, place - <const char *>x_row,
                                 reference_at(<const floating *>&references[side + row], 16), kind, divide, t)
                else:
                    terms_of_row(x_row, n_classes, ahead, 0,
                                 reference_at(<const floating *>&references[side + row], 16), kind, divide, t)
            if row > 0:
                t = terms + (first + row - 1 if keep_terms else (row - 1) % 2) * term_stride
                begin_sums(&totals[8 * (row - 1)], &carries[8 * (row - 1)], &alls[16 * (row - 1)])
                add_sums_of_row(<const floating *>t, n_classes, at_top[side + row - 1], &totals[8 * (row - 1)],
                                &carries[8 * (row - 1)], &alls[16 * (row - 1)])
        fold_rows(<const double *>&totals[0], <const double *>&carries[0], n_classes > 4, &below_top[0],
                  top[0])
        for l in range(64):
            all_eights[l] = alls[2 * l] + alls[2 * l + 1]
        for l in range(32):
            all_fours[l] = all_eights[2 * l] + all_eights[2 * l + 1]
        for l in range(16):
            all_twos[l] = all_fours[2 * l] + all_fours[2 * l + 1]
        for l in range(8):
            equal[l] = ties_of(below_top[l], all_twos[2 * l] + all_twos[2 * l + 1], at_top[side + l])
        for row in range(n):
            maximum[first + row] = top[side + row]
            sum[first + row] = below_top[row]
            ties[first + row] = equal[row]


cdef void measure_far_rows(
    const floating *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t ahead,
    const char *output, bint keep_terms, Py_ssize_t term_stride, floating *terms, floating *maximum, double *sum,
    double *ties,
) noexcept nogil:
    measure_all_rows(x, n_rows, n_classes, row_stride, NEXT_TO_MAXIMUM, NULL, ahead, output, keep_terms, term_stride,
                     terms, maximum, sum, ties)


cdef void measure_divided_rows(
    const floating *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, const floating *divide,
    Py_ssize_t ahead, const char *output, bint keep_terms, Py_ssize_t term_stride, floating *terms, floating *maximum,
    double *sum, double *ties,
) noexcept nogil:
    cdef floating[5] numbers    # in registers, which what lies elsewhere need not be
    memcpy(numbers, divide, sizeof(numbers))
    measure_all_rows(x, n_rows, n_classes, row_stride, DIVIDED, <const floating *>&numbers[0], ahead, output,
                     keep_terms, term_stride, terms, maximum, sum, ties)


cdef inline void measure_rows(
    const floating *x,          # IN   (n_rows, n_classes)
    Py_ssize_t n_rows,
    Py_ssize_t n_classes,
    Py_ssize_t row_stride,
    const floating *divide,     # IN   (N_DIVIDE,), or NULL for a temperature of 1
    Py_ssize_t ahead,           # from a row to that of the next tile, in elements: it is fetched meanwhile
    const char *output,         # (n_rows, n_classes), fetched likewise; or NULL, or x itself, which is there
    bint keep_terms,
    Py_ssize_t term_stride,
    floating *terms,            # OUT  (n_rows, term_stride), or scrap of (2, term_stride) if they are not kept
    floating *maximum,          # OUT  (n_rows,)
    double *sum,                # OUT  (n_rows,), of the terms below the maximum's
    double *ties,               # OUT  (n_rows,), how many other classes share the maximum
) noexcept nogil:
    if divide == NULL:
        measure_far_rows(x, n_rows, n_classes, row_stride, ahead, output, keep_terms, term_stride, terms, maximum, sum,
                         ties)
    else:
        measure_divided_rows(x, n_rows, n_classes, row_stride, divide, ahead, output, keep_terms, term_stride, terms,
                             maximum, sum, ties)


cdef inline void add_to_both(
    const floating *costs,      # IN   (16,), of a block
    const floating *masses,     # IN   (16,)
    bint with_mass,             # a constant
    double *total,              # INOUT (8,), the sum of mass * (top - x)
    double *carry,              # INOUT (8,)
    double *total_mass,         # INOUT (8,), if with_mass
    double *mass_carry,         # INOUT (8,), if with_mass
) noexcept nogil:
    cdef floating[8] pairs
    cdef int l
    for l in range(8):
        pairs[l] = costs[l] + costs[l + 8]
    add_to_totals(<const floating *>&pairs[0], total, carry)
    if with_mass:
        for l in range(8):
            pairs[l] = masses[l] + masses[l + 8]
        add_to_totals(<const floating *>&pairs[0], total_mass, mass_carry)


cdef inline void cost_of_row(
    const floating *x, const floating *mass,
    Py_ssize_t ahead,           # from here to the same mass of the next tile, in elements
    Py_ssize_t n_classes, floating top, bint with_mass, double *total, double *carry, double *total_mass,
    double *mass_carry,
) noexcept nogil:
    cdef floating[16] cost, sum_of_mass, last, last_mass
    cdef double[8] costs, cost_carry, masses, carries
    cdef Py_ssize_t j = 0
    cdef int l
    for l in range(8):
        costs[l] = cost_carry[l] = masses[l] = carries[l] = 0
    while j + 64 <= n_classes:
        if with_mass:
            fetch_block(<const char *>(mass + j + ahead), 64 * sizeof(floating))
        for l in range(16):
            cost[l] = cost_of_four(x + j + l, 16, mass + j + l, 16, top)
        if with_mass:
            for l in range(16):
                sum_of_mass[l] = ((mass[j + l] + mass[j + l + 16]) + mass[j + l + 32]) + mass[j + l + 48]
        add_to_both(<const floating *>&cost[0], <const floating *>&sum_of_mass[0], with_mass, &costs[0],
                    &cost_carry[0], &masses[0], &carries[0])
        j += 64
    if j < n_classes:
        for l in range(16):
            cost[l] = sum_of_mass[l] = 0
        if with_mass:
            fetch_block(<const char *>(mass + j + ahead), 64 * sizeof(floating))
        while j + 16 <= n_classes:
            for l in range(16):
                cost[l] = mul_add(mass[j + l], top - x[j + l], cost[l])
            for l in range(16):
                sum_of_mass[l] += mass[j + l]
            j += 16
        if j < n_classes:
            load_lanes(x + j, n_classes - j, &last[0])
            load_lanes(mass + j, n_classes - j, &last_mass[0])
            for l in range(16):         # behind the last class: what costs nothing
                last[l] = last[l] if l < n_classes - j else top
                last_mass[l] = last_mass[l] if l < n_classes - j else 0
            for l in range(16):
                cost[l] = mul_add(last_mass[l], top - last[l], cost[l])
            for l in range(16):
                sum_of_mass[l] += last_mass[l]
        add_to_both(<const floating *>&cost[0], <const floating *>&sum_of_mass[0], with_mass, &costs[0],
                    &cost_carry[0], &masses[0], &carries[0])
    for l in range(8):
        total[l] = costs[l]
        carry[l] = cost_carry[l]
    if with_mass:
        for l in range(8):
            total_mass[l] = masses[l]
            mass_carry[l] = carries[l]


cdef void cost_of_rows(
    const floating *x,          # IN   (n_rows, n_classes)
    Py_ssize_t n_rows,
    Py_ssize_t n_classes,
    Py_ssize_t row_stride,
    const floating *mass,       # IN   (n_rows, n_classes)
    Py_ssize_t mass_stride,
    bint shared,                # one mass for all rows, whose sum is known
    const floating *maximum,    # IN   (n_rows,)
    double *cost,               # OUT  (n_rows,), sum of mass * (maximum - x)
    double *total_mass,         # OUT  (n_rows,), unless shared
) noexcept nogil:
    """Of 64 classes a lane adds its four, then lanes l and l + 8 are added in the dtype; from there on as terms."""
    cdef double[64] totals, carries, masses, mass_carries
    cdef double[8] folded
    cdef Py_ssize_t first = 0, n, row
    while first < n_rows:
        n = n_rows - first if n_rows - first < FOLD else FOLD
        for row in range(n):
            if not shared:
                cost_of_row(x + (first + row) * row_stride, mass + (first + row) * mass_stride, n_rows * mass_stride,
                            n_classes, maximum[first + row], True, &totals[8 * row], &carries[8 * row],
                            &masses[8 * row], &mass_carries[8 * row])
            else:
                cost_of_row(x + (first + row) * row_stride, mass, 0, n_classes, maximum[first + row], False,
                            &totals[8 * row], &carries[8 * row], NULL, NULL)
        fold_rows(<const double *>&totals[0], <const double *>&carries[0], True, &folded[0], maximum[0])
        memcpy(cost + first, folded, n * sizeof(double))
        if not shared:
            fold_rows(<const double *>&masses[0], <const double *>&mass_carries[0], True, &folded[0], maximum[0])
            memcpy(total_mass + first, folded, n * sizeof(double))
        first += FOLD
