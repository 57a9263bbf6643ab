# Costs of classes that have masses, sums of mass * (maximum - x), and the sums of these masses: with classes as lanes,
# and with rows as lanes. The order is that of terms (lanes.pxd says it), but that a lane adds its four classes of a
# block one after the other, with multiply-adds, and that lanes l and l + 8 are added in the dtype.

from cython cimport floating
from libc.string cimport memcpy, memset

from csoftmax.kernels.exp cimport mul_add
from csoftmax.kernels.fetch cimport fetch_block
from csoftmax.kernels.lanes cimport FOLD, LaneSums, add_to_totals, cost_of_four, load_lanes, sums_at
from csoftmax.kernels.task cimport LANES
from csoftmax.kernels.tile cimport Part, TwoInputs, two_inputs

# ---- Classes as lanes ----

cdef inline void add_to_both(
    const floating *costs,      # IN   (16,), of a block
    const floating *masses,     # IN   (16,)
    bint with_mass,             # a constant
    LaneSums cost,              # INOUT (8,), the sum of mass * (top - x)
    LaneSums mass,              # INOUT (8,), if with_mass
) noexcept nogil:
    cdef floating[8] pairs
    cdef int l
    for l in range(8):
        pairs[l] = costs[l] + costs[l + 8]
    add_to_totals(<const floating *>&pairs[0], cost.total, cost.carry)
    if with_mass:
        for l in range(8):
            pairs[l] = masses[l] + masses[l + 8]
        add_to_totals(<const floating *>&pairs[0], mass.total, mass.carry)


cdef inline void costs_of_end(
    const floating *x, const floating *mass, Py_ssize_t n_classes, floating top,
    floating *cost, floating *sum_of_mass,      # OUT  (16,)
) noexcept nogil:
    """The last fewer than 64 classes of a row."""
    cdef floating[LANES] last, last_mass
    cdef Py_ssize_t j = 0
    cdef int l
    for l in range(LANES):
        cost[l] = sum_of_mass[l] = 0
    while j + LANES <= n_classes:
        for l in range(LANES):
            cost[l] = mul_add(mass[j + l], top - x[j + l], cost[l])
        for l in range(LANES):
            sum_of_mass[l] += mass[j + l]
        j += LANES
    if j < n_classes:
        load_lanes(x + j, n_classes - j, &last[0])
        load_lanes(mass + j, n_classes - j, &last_mass[0])
        for l in range(LANES):         # behind the last class: what costs nothing
            last[l] = last[l] if l < n_classes - j else top
            last_mass[l] = last_mass[l] if l < n_classes - j else 0
        for l in range(LANES):
            cost[l] = mul_add(last_mass[l], top - last[l], cost[l])
        for l in range(LANES):
            sum_of_mass[l] += last_mass[l]


cdef inline void cost_of_row(
    const floating *x, const floating *mass,
    Py_ssize_t ahead,           # from here to the same mass of the next tile, in elements
    Py_ssize_t n_classes, floating top, bint with_mass,
    LaneSums total, LaneSums total_mass,        # OUT  (8,), the latter if with_mass
) noexcept nogil:
    cdef floating[LANES] cost, sum_of_mass
    cdef double[8] costs, cost_carry, masses, mass_carry
    cdef LaneSums cost_sums = sums_at(&costs[0], &cost_carry[0]), mass_sums = sums_at(&masses[0], &mass_carry[0])
    cdef Py_ssize_t j = 0
    cdef int l
    for l in range(8):
        costs[l] = cost_carry[l] = masses[l] = mass_carry[l] = 0
    while j + 64 <= n_classes:
        if with_mass:
            fetch_block(<const char *>(mass + j + ahead), 64 * sizeof(floating))
        for l in range(LANES):
            cost[l] = cost_of_four(x + j + l, LANES, mass + j + l, LANES, top)
        if with_mass:
            for l in range(LANES):
                sum_of_mass[l] = ((mass[j + l] + mass[j + l + 16]) + mass[j + l + 32]) + mass[j + l + 48]
        add_to_both(<const floating *>&cost[0], <const floating *>&sum_of_mass[0], with_mass, cost_sums, mass_sums)
        j += 64
    if j < n_classes:
        if with_mass:
            fetch_block(<const char *>(mass + j + ahead), 64 * sizeof(floating))
        costs_of_end(x + j, mass + j, n_classes - j, top, &cost[0], &sum_of_mass[0])
        add_to_both(<const floating *>&cost[0], <const floating *>&sum_of_mass[0], with_mass, cost_sums, mass_sums)
    for l in range(8):
        total.total[l] = costs[l]
        total.carry[l] = cost_carry[l]
    if with_mass:
        for l in range(8):
            total_mass.total[l] = masses[l]
            total_mass.carry[l] = mass_carry[l]


cdef void cost_of_rows(
    const Part *part,
    const floating *x, Py_ssize_t row_stride,           # IN   (n_rows, n_classes)
    const floating *mass, Py_ssize_t mass_stride,       # IN   (n_rows, n_classes)
    const floating *maximum,    # IN   (n_rows,)
    double *cost,               # OUT  (n_rows,), sum of mass * (maximum - x)
    double *total_mass,         # OUT  (n_rows,), or NULL: one mass for all rows, whose sum is known
) noexcept nogil:
    """Of 64 classes a lane adds its four, then lanes l and l + 8 are added in the dtype; from there on as terms."""
    cdef double[64] totals, carries, masses, mass_carries
    cdef double[8] folded
    cdef Py_ssize_t first = 0, n, row, n_rows = part.n_rows, n_classes = part.n_classes
    cdef bint shared = total_mass == NULL
    while first < n_rows:
        n = n_rows - first if n_rows - first < FOLD else FOLD
        for row in range(n):
            if not shared:
                cost_of_row(x + (first + row) * row_stride, mass + (first + row) * mass_stride, n_rows * mass_stride,
                            n_classes, maximum[first + row], True, sums_at(&totals[8 * row], &carries[8 * row]),
                            sums_at(&masses[8 * row], &mass_carries[8 * row]))
            else:
                cost_of_row(x + (first + row) * row_stride, mass, 0, n_classes, maximum[first + row], False,
                            sums_at(&totals[8 * row], &carries[8 * row]), sums_at(NULL, NULL))
        fold_rows(<const double *>&totals[0], <const double *>&carries[0], True, &folded[0], maximum[0])
        memcpy(cost + first, folded, n * sizeof(double))
        if not shared:
            fold_rows(<const double *>&masses[0], <const double *>&mass_carries[0], True, &folded[0], maximum[0])
            memcpy(total_mass + first, folded, n * sizeof(double))
        first += FOLD


# ---- Rows as lanes ----

cdef inline void cost_of_lane(
    const TwoInputs *inputs,    # logits and masses, from this lane of 16 rows on
    int row_step,               # of masses: 1, or 0 for one mass for all rows; a constant
    Py_ssize_t n_left, const floating *top,
    floating *sum, floating *sum_of_mass,       # OUT  (16,)
) noexcept nogil:
    """Cost and mass of the classes of two lanes, 8 apart, of which n_left classes are left with those between."""
    cdef const floating *x = <const floating *>inputs.x
    cdef const floating *mass = <const floating *>inputs.second
    cdef Py_ssize_t class_stride = inputs.x_stride, mass_stride = inputs.second_stride
    cdef floating[LANES] cost, total
    cdef Py_ssize_t j
    cdef const floating *p
    cdef const floating *q
    cdef int l, half
    for half in range(2):
        if n_left <= 0:
            return
        if n_left > 48:
            for l in range(LANES):
                cost[l] = cost_of_four(x + l, LANES * class_stride, mass + l * row_step, LANES * mass_stride, top[l])
            for l in range(LANES):
                q = mass + l * row_step
                total[l] = ((q[0] + q[16 * mass_stride]) + q[32 * mass_stride]) + q[48 * mass_stride]
        else:
            for l in range(LANES):
                cost[l] = mass[l * row_step] * (top[l] - x[l])
                total[l] = mass[l * row_step]
            for j in range(16, n_left, 16):
                p = x + j * class_stride
                q = mass + j * mass_stride
                for l in range(LANES):
                    cost[l] = mul_add(q[l * row_step], top[l] - p[l], cost[l])
                    total[l] += q[l * row_step]
        for l in range(LANES):
            sum[l] = sum[l] + cost[l] if half else cost[l]
            sum_of_mass[l] = sum_of_mass[l] + total[l] if half else total[l]
        x += 8 * class_stride
        mass += 8 * mass_stride
        n_left -= 8


cdef inline void cost_of_few(
    const TwoInputs *inputs,    # logits and masses, from the first of 16 rows on
    int row_step, Py_ssize_t n_classes, const floating *top,
    double *total, double *total_mass,          # OUT  (16,), the latter unless row_step is 0
) noexcept nogil:
    """Class by class, four of them in the dtype as in rows.pxi: rows of so few classes are always lanes."""
    cdef floating[LANES] cost, sum
    cdef Py_ssize_t first, j
    cdef const floating *p
    cdef const floating *q
    cdef int l
    for l in range(LANES):
        total[l] = 0
    for l in range(LANES if row_step else 0):
        total_mass[l] = 0
    for first in range(0, n_classes, 4):
        for l in range(LANES):
            cost[l] = sum[l] = 0
        for j in range(first, first + 4 if first + 4 < n_classes else n_classes):
            p = <const floating *>inputs.x + j * inputs.x_stride
            q = <const floating *>inputs.second + j * inputs.second_stride
            for l in range(LANES):
                cost[l] = mul_add(q[l * row_step], top[l] - p[l], cost[l])
            if row_step:
                for l in range(LANES):
                    sum[l] += q[l * row_step]
        for l in range(LANES):
            total[l] += cost[l]
        if row_step:
            for l in range(LANES):
                total_mass[l] += sum[l]


cdef inline void cost_of_many(
    const TwoInputs *inputs, int row_step, Py_ssize_t n_classes, const floating *top, double *total,
    double *total_mass,
) noexcept nogil:
    """As rows.pxi adds them."""
    cdef double[128] costs, carry, masses, mass_carry     # (8 lanes of classes, 16 rows)
    cdef floating[LANES] sum, sum_of_mass
    cdef TwoInputs of_lane = inputs[0]
    cdef Py_ssize_t block, lane
    cdef int l
    memset(costs, 0, sizeof(costs))
    memset(carry, 0, sizeof(carry))
    memset(masses, 0, sizeof(masses))
    memset(mass_carry, 0, sizeof(mass_carry))
    for block in range(0, n_classes, 64):
        for lane in range(8 if n_classes - block > 8 else n_classes - block):
            of_lane.x = <const floating *>inputs.x + (block + lane) * inputs.x_stride
            of_lane.second = <const floating *>inputs.second + (block + lane) * inputs.second_stride
            cost_of_lane(&of_lane, row_step, n_classes - block - lane, top, &sum[0], &sum_of_mass[0])
            for l in range(0, 16, 8):
                add_to_totals(<const floating *>&sum[l], &costs[LANES * lane + l], &carry[LANES * lane + l])
                if row_step:
                    add_to_totals(<const floating *>&sum_of_mass[l], &masses[LANES * lane + l],
                                  &mass_carry[LANES * lane + l])
    fold_lanes(&costs[0], &carry[0], top[0])
    memcpy(total, costs, LANES * sizeof(double))
    if row_step:
        fold_lanes(&masses[0], &mass_carry[0], top[0])
        memcpy(total_mass, masses, LANES * sizeof(double))


cdef inline void cost_of_columns(
    const Part *part,
    bint few,                   # a constant: whether these are all classes of a row that is always lanes
    const TwoInputs *inputs,    # IN   (n_classes, width), logits and masses; of one mass for all rows (n_classes,)
    const floating *maximum,    # IN   (width,)
    double *cost,               # OUT  (width,), as in cost_of_rows
    double *total_mass,         # OUT  (width,), or NULL: one mass for all rows, whose sum is known
) noexcept nogil:
    cdef TwoInputs of_rows = inputs[0]
    cdef Py_ssize_t row = 0, n_classes = part.n_classes
    while row < part.width:
        of_rows.x = <const floating *>inputs.x + row
        if total_mass != NULL:  # a constant step in either: the loops are other ones
            of_rows.second = <const floating *>inputs.second + row
            if few:
                cost_of_few(&of_rows, 1, n_classes, maximum + row, cost + row, total_mass + row)
            else:
                cost_of_many(&of_rows, 1, n_classes, maximum + row, cost + row, total_mass + row)
        elif few:
            cost_of_few(&of_rows, 0, n_classes, maximum + row, cost + row, NULL)
        else:
            cost_of_many(&of_rows, 0, n_classes, maximum + row, cost + row, NULL)
        row += LANES


cdef void cost_of_few_columns(
    const Part *part, const floating *x, Py_ssize_t class_stride, const floating *mass, Py_ssize_t mass_stride,
    const floating *maximum, double *cost, double *total_mass,
) noexcept nogil:
    cdef TwoInputs inputs = two_inputs(x, class_stride, mass, mass_stride)
    cost_of_columns(part, True, &inputs, maximum, cost, total_mass)


cdef void cost_of_many_columns(
    const Part *part, const floating *x, Py_ssize_t class_stride, const floating *mass, Py_ssize_t mass_stride,
    const floating *maximum, double *cost, double *total_mass,
) noexcept nogil:
    cdef TwoInputs inputs = two_inputs(x, class_stride, mass, mass_stride)
    cost_of_columns(part, False, &inputs, maximum, cost, total_mass)
