# The values of classes: probabilities, log-probabilities and gradients, from terms that were kept or from logits.

from cython cimport floating
from libc.math cimport NAN, isinf, isnan
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from csoftmax.kernels.exp cimport (
    AT_MAXIMUM, DIVIDED, NEXT_TO_MAXIMUM, N_DIVIDE, Reference, ReferenceKind, choose_divisor, mul_add, refer,
    reference_at, store_reference, term, two_to_the,
)
from csoftmax.kernels.lanes cimport copy_lanes
from csoftmax.kernels.numbers cimport divided_log, is_large, kind_of, split_factor
from csoftmax.kernels.task cimport (
    GRADIENT, LANES, LOG_PROBABILITY, MAX_TILE_ROWS, ROWS, Task, has_masses, is_ignored, padded, place_of,
)
from csoftmax.kernels.tile cimport (
    DIVIDED_LOGITS, DIVIDED_LOGS, FACTOR, FACTOR_LOW, LOGITS, LOGS, N_NUMBERS, REFERENCE, TERMS, UNSCALE, Formula,
    Part, RowStates, Scratch,
)


cdef enum:
    CONVERTED = 4096            # elements that are written before they are converted: the first level holds them


cdef inline void write_group(
    Formula formula, const floating *source, const floating *numbers, Py_ssize_t step, const floating *divide,
    floating *to,
) noexcept nogil:
    """Sixteen values; number k of lane l is numbers[k * step + l]."""
    cdef floating[LANES] value      # read before anything is written: to may be source
    cdef int l
    for l in range(LANES):
        if formula == LOGS:
            value[l] = (source[l] - numbers[FACTOR * step + l]) + numbers[FACTOR_LOW * step + l]
        elif formula == DIVIDED_LOGS:
            value[l] = divided_log(source[l], numbers[FACTOR * step + l], numbers[FACTOR_LOW * step + l], divide)
        else:
            value[l] = source[l]
            if formula != TERMS:
                value[l] = term(value[l], reference_at(numbers + REFERENCE * step + l, step),
                                DIVIDED if formula == DIVIDED_LOGITS else AT_MAXIMUM, divide)
                value[l] *= numbers[UNSCALE * step + l]
            value[l] = mul_add(value[l], numbers[FACTOR * step + l], value[l] * numbers[FACTOR_LOW * step + l])
    copy_lanes(<const floating *>&value[0], to)


cdef inline void write_row(
    Formula formula, const floating *source, Py_ssize_t n_classes,
    const floating *lanes,      # IN   (N_NUMBERS, LANES), each number sixteen times
    const floating *divide,
    floating *to,
) noexcept nogil:
    """A last group of fewer than 16 overlaps the one before: its values first, written last."""
    cdef floating[LANES] last
    cdef Py_ssize_t j = 0
    cdef int l
    if n_classes < LANES:
        for l in range(LANES):
            last[l] = source[l if l < n_classes else 0]
        write_group(formula, <const floating *>&last[0], lanes, LANES, divide, &last[0])
        memcpy(to, last, n_classes * sizeof(floating))
        return
    write_group(formula, source + n_classes - LANES, lanes, LANES, divide, &last[0])
    while j + LANES < n_classes:
        write_group(formula, source + j, lanes, LANES, divide, to + j)
        j += LANES
    memcpy(to + n_classes - LANES, last, sizeof(last))


cdef inline void write_rows(
    Formula formula, const Part *part, const floating *source, Py_ssize_t stride, const floating *numbers,
    const floating *divide, floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    cdef floating[N_NUMBERS * LANES] lanes
    cdef Py_ssize_t row, step = padded(part.width)
    cdef int l, k
    for row in range(part.width):
        for k in range(N_NUMBERS if formula == LOGITS or formula == DIVIDED_LOGITS else 2):
            for l in range(LANES):
                lanes[LANES * k + l] = numbers[step * k + row]
        write_row(formula, source + row * stride, part.n_classes, <const floating *>&lanes[0], divide,
                  to + row * to_stride)


cdef inline void write_columns(
    Formula formula, const Part *part, const floating *source, Py_ssize_t stride, const floating *numbers,
    const floating *divide, floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    cdef Py_ssize_t row, j, step = padded(part.width)
    for j in range(part.n_classes):
        row = 0
        while row < part.width:
            write_group(formula, source + j * stride + row, numbers + row, step, divide, to + j * to_stride + row)
            row += LANES


cdef inline void write_values(
    Formula formula, const Part *part, const floating *source, Py_ssize_t stride,
    const floating *numbers,    # IN   (N_NUMBERS, padded(part.width))
    double temperature, floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    cdef floating[N_DIVIDE] divide
    if formula == DIVIDED_LOGITS or formula == DIVIDED_LOGS:
        choose_divisor(temperature, &divide[0])
    if part.orientation == ROWS:
        write_rows(formula, part, source, stride, numbers, <const floating *>&divide[0], to, to_stride)
    else:
        write_columns(formula, part, source, stride, numbers, <const floating *>&divide[0], to, to_stride)


cdef void subtract_masses(
    const Part *part, const floating *mass, Py_ssize_t stride, int row_step, const double *factor, floating *to,
    Py_ssize_t to_stride,
) noexcept nogil:
    """The second part of a gradient. A pass of its own: as an option of the formulas it would double their loops."""
    cdef Py_ssize_t row, j
    cdef floating[MAX_TILE_ROWS] of_row
    cdef const floating *p
    cdef floating *q
    for row in range(part.width):
        of_row[row] = <floating>-factor[row]
    if part.orientation == ROWS:
        for row in range(part.n_rows):
            p = mass + row * stride
            q = to + row * to_stride
            for j in range(part.n_classes):
                q[j] = mul_add(p[j], of_row[row], q[j])
        return
    for j in range(part.n_classes):
        p = mass + j * stride
        q = to + j * to_stride
        if row_step:
            for row in range(part.width):
                q[row] = mul_add(p[row], of_row[row], q[row])
        else:
            for row in range(part.width):
                q[row] = mul_add(p[0], of_row[row], q[row])


cdef void fix_special_rows(
    const Task *task, const Part *part, const RowStates *states, floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    """What the formulas do not give: a gradient's target entry, rows that are NaN, rows that are ignored."""
    cdef Py_ssize_t row, j, target
    cdef Py_ssize_t row_step = to_stride if part.orientation == ROWS else 1
    cdef Py_ssize_t class_step = 1 if part.orientation == ROWS else to_stride
    cdef const int64_t *targets
    cdef const floating *at_target = <const floating *>states.target_gradient
    cdef floating blank
    cdef int found = states.special[0]
    if task.output == GRADIENT and task.loss.target != NULL:
        targets = task.loss.target + part.first_row
        if task.plan.n_chunks == 1:
            for row in range(part.n_rows):
                to[row * row_step + place_of(targets[row], task.n_classes) * class_step] = at_target[row]
        else:
            for row in range(part.n_rows):
                target = place_of(targets[row], task.n_classes) - part.first_class
                if 0 <= target < part.n_classes:
                    to[row * row_step + target * class_step] = at_target[row]
        if task.loss.has_ignore_index:
            for row in range(part.n_rows):
                found |= targets[row] == task.loss.ignore_index
    if not found:
        return
    for row in range(part.n_rows):
        if is_ignored(task, part.first_row + row):
            blank = 0
        elif isinf((<floating *>states.maximum)[row]) or isnan(states.ties[row]):
            blank = NAN
        else:
            continue
        for j in range(part.n_classes):
            to[row * row_step + j * class_step] = blank


cdef bint find_numbers(
    const Task *task, const RowStates *states, const Part *part, floating *numbers,
) noexcept nogil:
    """Fill in the numbers of PROBABILITY and GRADIENT; whether they are those for terms that were kept.

    Terms refer to the M of their chunk, the row's numbers to that of its maximum. Both are multiples of ln 2 if the
    origins are equal, so that the factor between them is a power of two, and exact.
    """
    cdef const floating *chunk_maximum = <const floating *>states.chunk_maximum + part.chunk * states.width
    cdef const floating *maximum = <const floating *>states.maximum
    cdef Reference of_row, of_chunk
    cdef double[MAX_TILE_ROWS] power
    # What is left of a scale multiplies values that must not be subnormal before.
    cdef double difference, most = 60 if task.gradient.exponent == 0 and task.gradient.row_exponent == NULL else 8
    cdef ReferenceKind kind = kind_of(task.n_classes, task.temperature)
    cdef int fits = task.plan.keep_terms and not states.special[0] and (
        task.plan.n_chunks == 1 or kind == NEXT_TO_MAXIMUM)
    cdef Py_ssize_t row, step = padded(part.width)
    for row in range(part.width):
        power[row] = 1
    if task.plan.n_chunks > 1 and fits:
        for row in range(part.width):
            of_row, of_chunk = refer(maximum[row], NEXT_TO_MAXIMUM), refer(chunk_maximum[row], NEXT_TO_MAXIMUM)
            difference = of_chunk.exponent_bias - of_row.exponent_bias      # n of the row - n of the chunk
            fits &= (of_row.origin == of_chunk.origin) & (difference < most)
            power[row] = two_to_the(-(difference if difference < most else most))
    for row in range(part.width):
        fits &= is_large(states.factor[row] * power[row], numbers[0]) | (states.factor[row] == 0)
    if not fits:
        for row in range(part.width):
            power[row] = 1
        for row in range(part.width):
            store_reference(refer(maximum[row], kind), &numbers[REFERENCE * step + row], step)
    for row in range(part.width):
        split_factor(states.factor[row], states.factor_low[row], power[row], &numbers[FACTOR * step + row],
                     &numbers[FACTOR_LOW * step + row], &numbers[UNSCALE * step + row])
    return fits


cdef inline void write_logs(
    const Task *task, const RowStates *states, Part *part, bint is_loaded, const Scratch *scratch, floating *to,
    Py_ssize_t to_stride,
) noexcept nogil:
    cdef floating *numbers = <floating *>scratch.numbers
    cdef Py_ssize_t stride = 0, step = padded(part.width)
    cdef const floating *x = load_logits(
        task, part, <floating *>scratch.logits, <floating *>scratch.spare, is_loaded, &stride)
    memcpy(&numbers[FACTOR * step], states.log_shift, part.width * sizeof(floating))
    memcpy(&numbers[FACTOR_LOW * step], states.log_rest, part.width * sizeof(floating))
    if task.temperature == 1:       # a constant in either: the loops are other ones
        write_values(LOGS, part, x, stride, <const floating *>numbers, 1, to, to_stride)
    else:
        write_values(DIVIDED_LOGS, part, x, stride, <const floating *>numbers, task.temperature, to, to_stride)


cdef inline void write_exponentials(
    const Task *task, const RowStates *states, Part *part, bint is_loaded, const floating *terms,
    const Scratch *scratch, floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    """Probabilities times a number of each row."""
    cdef floating *numbers = <floating *>scratch.numbers
    cdef Py_ssize_t stride = 0
    cdef const floating *x
    if find_numbers(task, states, part, numbers):
        write_values(TERMS, part, terms, part.term_stride, <const floating *>numbers, 1, to, to_stride)
        return
    x = load_logits(task, part, <floating *>scratch.logits, <floating *>scratch.spare, is_loaded, &stride)
    if task.temperature == 1:
        write_values(LOGITS, part, x, stride, <const floating *>numbers, 1, to, to_stride)
    else:
        write_values(DIVIDED_LOGITS, part, x, stride, <const floating *>numbers, task.temperature, to, to_stride)


cdef void write_chunk(
    const Task *task, const RowStates *states, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t chunk,
    bint is_loaded,             # scratch still holds the chunk's logits and masses
    floating *values,           # INOUT terms if they are kept
    const Scratch *scratch,
) noexcept nogil:
    cdef Part part = part_of(task, first_row, n_rows, chunk)
    cdef const floating *mass
    cdef Py_ssize_t to_stride = 0, mass_stride = 0
    cdef int row_step = 0
    cdef floating *to
    if task.output == LOG_PROBABILITY and task.x.rows and task.out.rows and part.n_classes >= LANES:
        is_loaded = is_loaded and part.orientation == ROWS
        part.orientation = ROWS     # needs no exponentials: nothing to transpose
        part.width = n_rows
    to = destination(task, &part, values, &to_stride)
    if task.output == LOG_PROBABILITY:
        write_logs(task, states, &part, is_loaded, scratch, to, to_stride)
    else:
        write_exponentials(task, states, &part, is_loaded, <const floating *>values, scratch, to, to_stride)
    if task.output == GRADIENT and has_masses(task):
        mass = load_masses(task, &part, <floating *>scratch.masses, <floating *>scratch.spare, is_loaded,
                           &mass_stride, &row_step)
        subtract_masses(&part, mass, mass_stride, row_step, <const double *>states.mass_factor, to, to_stride)
    fix_special_rows(task, &part, states, to, to_stride)
    if to == values:
        store(task, &part, values, <floating *>scratch.logits)


cdef void write_chunks_rows(
    const Task *task, const RowStates *states, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t chunk,
    bint is_loaded, floating *values, const Scratch *scratch,
) noexcept nogil:
    """write_chunk(), of a few rows at a time if they are converted: values are read again while they are near."""
    cdef Part part = part_of(task, first_row, n_rows, chunk)
    cdef Scratch of_rows = scratch[0]
    cdef RowStates states_of_rows
    cdef Py_ssize_t row = 0, n
    cdef Py_ssize_t most = CONVERTED // part.n_classes if part.n_classes < CONVERTED else 1
    if part.orientation != ROWS or n_rows <= most or not task.out.converts:
        write_chunk(task, states, first_row, n_rows, chunk, is_loaded, values, scratch)
        return
    while row < n_rows:
        n = n_rows - row if n_rows - row < most else most
        of_rows.logits = <floating *>scratch.logits + row * part.n_classes
        of_rows.masses = <floating *>scratch.masses + row * part.n_classes
        states_of_rows = states_from(states, row, <floating>0)
        write_chunk(task, &states_of_rows, first_row + row, n, chunk, is_loaded,
                    values + row * part.term_stride if task.plan.keep_terms else values, &of_rows)
        row += n
