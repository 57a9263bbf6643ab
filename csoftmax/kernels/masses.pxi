# Masses of classes, as task.pxd explains them: what they cost, chunk by chunk, and what they are for each row.

from cython cimport floating
from libc.math cimport INFINITY, fabs

from csoftmax.kernels.lanes cimport exact_sum
from csoftmax.kernels.numbers cimport half_difference
from csoftmax.kernels.task cimport ALWAYS_LANES, ROWS, Task, has_masses, place_of
from csoftmax.kernels.tile cimport PHASE_ROWS, Masses, Part, Phase, RowStates, Scratch


cdef void measure_masses(
    const Task *task, RowStates *states, Part *part, const floating *x, Py_ssize_t stride, const Scratch *scratch,
) noexcept nogil:
    """Costs of a part's rows, and the sums of their masses."""
    cdef const floating *maximum = <const floating *>states.chunk_maximum + part.chunk * part.width
    cdef double *cost = states.chunk_cost + part.chunk * part.width
    cdef double *total = states.chunk_mass + part.chunk * part.width
    cdef Py_ssize_t mass_stride = 0, row
    cdef int row_step = 0, found = 0
    cdef const floating *mass = load_masses(
        task, part, <floating *>scratch.masses, <floating *>scratch.spare, False, &mass_stride, &row_step)
    if part.orientation == ROWS:
        cost_of_rows(part, x, stride, mass, mass_stride, maximum, cost, total if row_step else NULL)
    elif task.n_classes * <Py_ssize_t>sizeof(floating) <= ALWAYS_LANES:
        cost_of_few_columns(part, x, stride, mass, mass_stride, maximum, cost, total if row_step else NULL)
    else:
        cost_of_many_columns(part, x, stride, mass, mass_stride, maximum, cost, total if row_step else NULL)
    if row_step == 0:
        for row in range(part.n_rows):
            total[row] = task.loss.chunk_mass[part.chunk]
    for row in range(part.n_rows):
        found |= not is_ordinary_cost(cost[row], maximum[row])
    for row in range(part.n_rows):
        cost[row] *= 0.5
    for row in range(part.n_rows if found else 0):
        if is_ordinary_cost(2 * cost[row], maximum[row]):
            continue
        if part.orientation == ROWS:
            cost[row] = careful_cost(x + row * stride, 1, mass + row * mass_stride, 1, part.n_classes, maximum[row])
        else:
            cost[row] = careful_cost(x + row, stride, mass + row * row_step, mass_stride, part.n_classes, maximum[row])


cdef inline bint is_ordinary_cost(double cost, floating maximum) noexcept nogil:
    """Whether no product that matters has left the dtype's range: 2**24 that are lost to subnormals are too small to be
    seen beside it, and none is infinite. (A sum of 0 is not: all of it may be lost.)"""
    cdef double least = 8.1e-31 if floating is float else 1e-260        # 2**-100, 2**-863
    cdef double size = fabs(cost)
    return least < size < INFINITY


cdef inline bint has_far_mass(
    const floating *x, Py_ssize_t class_step, const floating *mass, Py_ssize_t mass_step, Py_ssize_t n_classes,
    floating maximum,
) noexcept nogil:
    """Whether a class that is not the maximum has a mass."""
    cdef Py_ssize_t j
    cdef int found = 0
    for j in range(n_classes):
        found |= (mass[j * mass_step] != 0) & (x[j * class_step] != maximum)
    return found


cdef double careful_cost(
    const floating *x, Py_ssize_t class_step, const floating *mass, Py_ssize_t mass_step, Py_ssize_t n_classes,
    floating maximum,
) noexcept nogil:
    """Half the sum of mass * (maximum - x), one by one: no mass at an infinite distance is 0, and what leaves the
    dtype's range is itself. Rows whose masses are all at the maximum are the common reason to come here."""
    cdef double cost = 0, carry = 0, of_class, distance
    cdef double scale = 1       # of the products, which so stay in the range of float64
    cdef Py_ssize_t j
    if maximum == -INFINITY:
        return cost_of_nothing(mass, mass_step, n_classes)
    if not (has_far_mass(x, 1, mass, 1, n_classes, maximum) if class_step == 1 and mass_step == 1 else
            has_far_mass(x, class_step, mass, mass_step, n_classes, maximum)):
        return 0
    if floating is double:
        scale = 4.149515568880993e+180          # 2**600
        for j in range(n_classes):
            distance = half_difference(maximum, x[j * class_step])
            if mass[j * mass_step] != 0 and fabs(mass[j * mass_step] * distance) > 1e-80:
                scale = 2.4099198651028841e-181
    for j in range(n_classes):
        of_class = mass[j * mass_step]
        if of_class == 0 or x[j * class_step] == maximum:
            continue
        distance = half_difference(maximum, x[j * class_step])
        if (fabs(of_class) < 1) == (scale > 1):
            of_class *= scale
        else:
            distance *= scale
        cost = exact_sum(cost, carry, of_class * distance, 0, &carry)
    if fabs(cost) < INFINITY:
        cost += carry
    return cost / scale


cdef double cost_of_nothing(const floating *mass, Py_ssize_t mass_step, Py_ssize_t n_classes) noexcept nogil:
    """Of a chunk of nothing but -inf, which is infinitely far from the row's maximum."""
    cdef double cost = 0
    cdef Py_ssize_t j
    for j in range(n_classes):
        if mass[j * mass_step] != 0:
            cost += mass[j * mass_step] * INFINITY
    return cost


cdef inline void add_chunks_masses(
    const Task *task, const Phase *phase, Masses *masses, floating dtype_tag,
) noexcept nogil:
    """Sums over the chunks with what rounding takes: a million classes lose no digit."""
    cdef const RowStates *states = &phase.states
    cdef const floating *maximum = <const floating *>states.maximum
    cdef const floating *of_chunk
    cdef const double *chunk_mass
    cdef const double *chunk_cost
    cdef double[PHASE_ROWS] mass_carry, cost_carry
    cdef Py_ssize_t row, chunk, n_rows = phase.n_rows
    cdef double distance
    for row in range(n_rows):
        mass_carry[row] = cost_carry[row] = 0
    for chunk in range(states.n_chunks):
        of_chunk = <const floating *>states.chunk_maximum + chunk * states.width
        chunk_mass = states.chunk_mass + chunk * states.width
        chunk_cost = states.chunk_cost + chunk * states.width
        for row in range(n_rows):
            distance = half_difference(maximum[row], of_chunk[row])
            distance = chunk_mass[row] * distance if 0 < distance < INFINITY else 0
            masses.shared[row] = exact_sum(masses.shared[row], mass_carry[row], chunk_mass[row], 0, &mass_carry[row])
            masses.cost[row] = exact_sum(
                masses.cost[row], cost_carry[row], chunk_cost[row] + distance, 0, &cost_carry[row])
    if states.n_chunks > 1:
        for row in range(n_rows):
            masses.shared[row] += mass_carry[row]
            masses.cost[row] += cost_carry[row] if fabs(cost_carry[row]) < INFINITY else 0
    if task.temperature != 1:
        for row in range(n_rows):
            masses.cost[row] /= task.temperature


cdef void find_masses(const Task *task, const Phase *phase, Masses *masses, floating dtype_tag) noexcept nogil:
    """Of the phase's rows, and what fills up the lanes."""
    cdef Py_ssize_t row, target, first_row = phase.first_row
    masses.plain = (
        task.loss.kept == 1 and task.loss.weight == NULL and task.loss.sample_weight == NULL
        and task.gradient.weight == NULL and not has_masses(task))
    if masses.plain:
        return
    for row in range(phase.width):
        masses.of_target[row] = task.loss.kept if task.loss.target != NULL else 0
        masses.factor[row] = task.gradient.scale
        masses.shared[row] = masses.cost[row] = 0
    if task.gradient.weight != NULL:
        for row in range(phase.n_rows):
            masses.factor[row] *= task.gradient.weight[first_row + row]
    if task.loss.target != NULL and (task.loss.weight != NULL or task.loss.mass != NULL):
        for row in range(phase.n_rows):
            target = place_of(task.loss.target[first_row + row], task.n_classes)
            if task.loss.weight != NULL:
                masses.of_target[row] = task.loss.kept * task.loss.weight[target]
            masses.of_class[row] = (
                (<const floating *>task.loss.mass)[target] if task.loss.mass != NULL else <floating>0)
    if has_masses(task):
        add_chunks_masses(task, phase, masses, dtype_tag)
