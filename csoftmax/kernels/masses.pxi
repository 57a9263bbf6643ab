# Masses of classes, as task.pxd explains them: what they cost, chunk by chunk, and what they are for each row.

from cython cimport floating
from libc.math cimport INFINITY, fabs

from csoftmax.kernels.lanes cimport exact_sum
from csoftmax.kernels.numbers cimport half_difference
from csoftmax.kernels.task cimport ALWAYS_LANES, ROWS, Task, has_masses, place_of
from csoftmax.kernels.tile cimport Board, Masses, Part


cdef void measure_masses(
    const Task *task, Board *board, Part *part, Py_ssize_t chunk, const floating *x, Py_ssize_t stride,
    floating *room, floating *spare,
) noexcept nogil:
    cdef const floating *maximum = <const floating *>board.chunk_maximum + chunk * part.width
    cdef double *cost = board.chunk_cost + chunk * part.width
    cdef double *total = board.chunk_mass + chunk * part.width
    cdef Py_ssize_t mass_stride = 0, row, j
    cdef int row_step = 0, found = 0
    cdef const floating *mass = take_mass(task, part, room, spare, False, &mass_stride, &row_step)
    if part.orientation == ROWS:
        cost_of_rows(x, part.n_rows, part.n_classes, stride, mass, mass_stride, row_step == 0, maximum,
                     cost, total)
    else:
        cost_of_columns(x, stride, part.n_classes, task.n_classes * <Py_ssize_t>sizeof(floating) <= ALWAYS_LANES,
                        part.width, mass, mass_stride, row_step, maximum, cost, total)
    if row_step == 0:
        for row in range(part.n_rows):
            total[row] = task.loss.chunk_mass[chunk]
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
    const Task *task, const Board *board, Py_ssize_t first, Py_ssize_t n_rows, Py_ssize_t width, Py_ssize_t n_chunks,
    Masses *masses, floating like,
) noexcept nogil:
    """Sums over the chunks with what rounding takes: a million classes lose no digit."""
    cdef const floating *maximum = <const floating *>board.maximum + first
    cdef const floating *of_chunk
    cdef const double *chunk_mass
    cdef const double *chunk_cost
    cdef double[64] mass_carry, cost_carry
    cdef Py_ssize_t row, chunk
    cdef double apart
    for row in range(n_rows):
        mass_carry[row] = cost_carry[row] = 0
    for chunk in range(n_chunks):
        of_chunk = <const floating *>board.chunk_maximum + chunk * width + first
        chunk_mass = board.chunk_mass + chunk * width + first
        chunk_cost = board.chunk_cost + chunk * width + first
        for row in range(n_rows):
            apart = half_difference(maximum[row], of_chunk[row])
            apart = chunk_mass[row] * apart if 0 < apart < INFINITY else 0
            masses.shared[row] = exact_sum(masses.shared[row], mass_carry[row], chunk_mass[row], 0, &mass_carry[row])
            masses.cost[row] = exact_sum(
                masses.cost[row], cost_carry[row], chunk_cost[row] + apart, 0, &cost_carry[row])
    if n_chunks > 1:
        for row in range(n_rows):
            masses.shared[row] += mass_carry[row]
            masses.cost[row] += cost_carry[row] if fabs(cost_carry[row]) < INFINITY else 0
    if task.temperature != 1:
        for row in range(n_rows):
            masses.cost[row] /= task.temperature


cdef void find_masses(
    const Task *task, const Board *board, Py_ssize_t first_row, Py_ssize_t first, Py_ssize_t n_rows, Py_ssize_t width,
    Py_ssize_t board_width, Py_ssize_t n_chunks, Masses *masses, floating like,
) noexcept nogil:
    """Of n_rows rows from the tile's first_row + first on, and what fills up the lanes to width."""
    cdef Py_ssize_t row, target
    masses.plain = (
        task.loss.kept == 1 and task.loss.weight == NULL and task.loss.sample_weight == NULL
        and task.gradient.weight == NULL and not has_masses(task))
    if masses.plain:
        return
    first_row += first
    for row in range(width):
        masses.of_target[row] = task.loss.kept if task.loss.target != NULL else 0
        masses.scale[row] = task.gradient.scale
        masses.shared[row] = masses.cost[row] = 0
    if task.gradient.weight != NULL:
        for row in range(n_rows):
            masses.scale[row] *= task.gradient.weight[first_row + row]
    if task.loss.target != NULL and (task.loss.weight != NULL or task.loss.mass != NULL):
        for row in range(n_rows):
            target = place_of(task.loss.target[first_row + row], task.n_classes)
            if task.loss.weight != NULL:
                masses.of_target[row] = task.loss.kept * task.loss.weight[target]
            masses.of_class[row] = (<const floating *>task.loss.mass)[target] if task.loss.mass != NULL else <floating>0
    if has_masses(task):
        add_chunks_masses(task, board, first, n_rows, board_width, n_chunks, masses, like)
