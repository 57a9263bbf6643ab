# The numbers of rows, from the states of their chunks: what the values of classes are made with, and the results of
# rows. Rows go through it in phases: each loop is a vector over rows, and few of their numbers lie on the stack.

from cython cimport floating
from libc.math cimport INFINITY, NAN, fabs, isinf, isnan
from libc.string cimport memcpy, memset

from csoftmax.kernels.exp cimport (
    AT_MAXIMUM, DIVIDED, NEXT_TO_MAXIMUM, N_DIVIDE, ReferenceKind, choose_divisor, divided, log1p_parts, term_scale,
)
from csoftmax.kernels.numbers cimport (
    add_logarithm, all_but, away_from, divided_log, half_difference, kind_of, loss_of, merge, others_of,
    quotient_parts, share, term_at, top_term,
)
from csoftmax.kernels.task cimport GRADIENT, LOG_PROBABILITY, PROBABILITY, State, Task, has_masses, place_of
from csoftmax.kernels.tile cimport PHASE_ROWS, Masses, Phase, RowStates


cdef bint find_special(const floating *maximum, const double *ties, Py_ssize_t n_rows) noexcept nogil:
    """Whether there is a row whose result is not finite: its maximum is infinite, or it holds a NaN."""
    cdef Py_ssize_t row
    cdef int found = 0
    for row in range(n_rows):
        found |= (maximum[row] - maximum[row] != 0) | (ties[row] != ties[row])
    return found


cdef void merge_chunks(
    const Task *task, RowStates *states, Py_ssize_t n_rows, floating dtype_tag,
) noexcept nogil:
    """The states of the rows from those of their chunks, in order."""
    cdef floating *maximum = <floating *>states.maximum
    cdef const floating *of_chunk = <const floating *>states.chunk_maximum
    cdef ReferenceKind kind = DIVIDED if task.temperature != 1 else NEXT_TO_MAXIMUM
    cdef Py_ssize_t row, chunk, i
    cdef State state, added
    memset(states.carry, 0, states.width * sizeof(double))
    if states.n_chunks == 1:    # they are the same arrays
        return
    added.carry = 0
    for row in range(states.width):
        state.maximum, state.sum, state.carry, state.ties = (
            of_chunk[row], states.chunk_sum[row], 0, states.chunk_ties[row])
        for chunk in range(1, states.n_chunks if row < n_rows else 1):
            i = chunk * states.width + row
            added.maximum, added.sum, added.ties = of_chunk[i], states.chunk_sum[i], states.chunk_ties[i]
            merge(&state, &added, kind, task.temperature, dtype_tag)
        maximum[row] = <floating>state.maximum
        states.sum[row], states.carry[row], states.ties[row] = state.sum, state.carry, state.ties


cdef inline RowStates states_from(const RowStates *states, Py_ssize_t first, floating dtype_tag) noexcept nogil:
    """The states of the rows from `first` on."""
    cdef RowStates part = states[0]
    part.chunk_maximum = <floating *>part.chunk_maximum + first
    part.chunk_sum += first
    part.chunk_ties += first
    part.chunk_cost += first
    part.chunk_mass += first
    part.at_target = <floating *>part.at_target + first
    part.maximum = <floating *>part.maximum + first
    part.sum += first
    part.carry += first
    part.ties += first
    part.factor += first
    part.factor_low += first
    part.mass_factor += first
    part.target_gradient = <floating *>part.target_gradient + first
    part.log_shift = <floating *>part.log_shift + first
    part.log_rest = <floating *>part.log_rest + first
    return part


cdef void finish_rows(
    const Task *task, RowStates *states, Py_ssize_t first_row, Py_ssize_t n_rows, floating dtype_tag,
) noexcept nogil:
    cdef Phase phase
    cdef Py_ssize_t first
    merge_chunks(task, states, n_rows, dtype_tag)
    states.special[0] = find_special(<const floating *>states.maximum, <const double *>states.ties, n_rows)
    for first in range(0, states.width, 64):        # by PHASE_ROWS
        phase.first_row = first_row + first
        phase.n_rows = n_rows - first if n_rows - first < PHASE_ROWS else PHASE_ROWS
        phase.width = states.width - first if states.width - first < PHASE_ROWS else PHASE_ROWS
        phase.states = states_from(states, first, dtype_tag)
        finish_phase(task, &phase, dtype_tag)


cdef inline void finish_phase(const Task *task, const Phase *phase, floating dtype_tag) noexcept nogil:
    cdef double[PHASE_ROWS] factor, factor_low, lost, logs
    cdef floating[PHASE_ROWS] top, shift
    cdef Masses masses
    cdef bint has_targets = task.loss.target != NULL or task.loss.has_probabilities
    if has_targets:
        find_masses(task, phase, &masses, dtype_tag)
    if task.output == PROBABILITY or task.output == GRADIENT:
        find_factors(task, phase, &masses, &top[0], &factor[0], &factor_low[0])
    if task.output == GRADIENT and task.loss.target != NULL:
        find_target_gradients(task, phase, &masses, <const floating *>&top[0], <const double *>&factor[0],
                              <const double *>&factor_low[0])
    if task.output == PROBABILITY:
        return
    find_logarithms(task, phase, &shift[0], &lost[0], &logs[0])
    if task.output == LOG_PROBABILITY or task.pick.index != NULL:
        find_log_numbers(task, phase, <const floating *>&shift[0], <const double *>&lost[0], <const double *>&logs[0])
    if task.logsumexp != NULL:
        write_logsumexp(task, phase, <const floating *>&shift[0])
    if task.pick.index != NULL:
        pick_classes(task, phase, dtype_tag)
    if has_targets:
        find_losses(task, phase, &masses, <const floating *>&shift[0], <const double *>&lost[0],
                    <const double *>&logs[0])


# ---- What values are made with ----

cdef inline void find_factors(
    const Task *task, const Phase *phase, const Masses *masses,
    floating *top,              # OUT  (width,), the maximum's term
    double *factor,             # OUT  (width,), factor + factor_low is what a term is multiplied by
    double *factor_low,
) noexcept nogil:
    """Also for the columns that fill up the lanes: find_numbers() looks at all."""
    cdef const RowStates *states = &phase.states
    cdef const floating *maximum = <const floating *>states.maximum
    cdef const double *sum = states.sum
    cdef const double *carry = states.carry
    cdef const double *ties = states.ties
    cdef double[PHASE_ROWS] numerator
    cdef Py_ssize_t row, width = phase.width
    for row in range(width):
        numerator[row] = task.gradient.scale if task.output == GRADIENT else 1
    if task.output == GRADIENT and not masses.plain:
        for row in range(width):
            numerator[row] = masses.of_target[row] + masses.shared[row]
            numerator[row] = masses.factor[row] * numerator[row] if masses.factor[row] != 0 else 0
    if kind_of(task.n_classes, task.temperature) != NEXT_TO_MAXIMUM:
        for row in range(width):
            top[row] = <floating>term_scale(maximum[row])
    else:
        for row in range(width):
            top[row] = top_term(maximum[row], NEXT_TO_MAXIMUM)
    for row in range(width):
        share(numerator[row], top[row], sum[row], carry[row], ties[row], &factor[row], &factor_low[row])
    memcpy(states.factor, factor, width * sizeof(double))
    memcpy(states.factor_low, factor_low, width * sizeof(double))
    if task.output == GRADIENT and has_masses(task):
        memcpy(states.mass_factor, masses.factor, width * sizeof(double))


cdef inline void find_target_gradients(
    const Task *task, const Phase *phase, const Masses *masses, const floating *top, const double *factor,
    const double *factor_low,
) noexcept nogil:
    """Of the target's own mass p_t - 1 = -(sum of all terms but the target's) / (sum of all terms) is taken, so that it
    keeps its digits; then come the masses that smoothing gives to all classes."""
    cdef const RowStates *states = &phase.states
    cdef const floating *maximum = <const floating *>states.maximum
    cdef const floating *at_target = <const floating *>states.at_target
    cdef const double *sum = states.sum
    cdef const double *carry = states.carry
    cdef const double *ties = states.ties
    cdef floating *gradient = <floating *>states.target_gradient
    cdef floating[PHASE_ROWS] target_term
    cdef floating[N_DIVIDE] divide
    cdef double target, rest
    cdef Py_ssize_t row, n_rows = phase.n_rows
    cdef ReferenceKind kind = kind_of(task.n_classes, task.temperature)
    if kind == DIVIDED:
        choose_divisor(task.temperature, &divide[0])
        for row in range(n_rows):
            target_term[row] = term_at(at_target[row], maximum[row], DIVIDED, <const floating *>&divide[0])
    else:
        for row in range(n_rows):
            target_term[row] = term_at(at_target[row], maximum[row], kind, NULL)
    for row in range(n_rows):
        rest = all_but(target_term[row], top[row], sum[row], carry[row], ties[row])
        if task.loss.mass == NULL:
            gradient[row] = away_from(factor[row], factor_low[row], rest, top[row])
        else:
            target = target_term[row] * (1 / term_scale(top[row]))
            rest *= 1 / term_scale(top[row])
            target = (masses.shared[row] * target - masses.of_target[row] * rest) / (rest + target)
            target = masses.factor[row] * (target - masses.of_class[row]) if masses.factor[row] != 0 else 0
            gradient[row] = <floating>target + <floating>0      # never -0.0


cdef inline void find_logarithms(
    const Task *task, const Phase *phase,
    floating *shift,            # OUT  (n_rows,), the logsumexp
    double *lost,               # OUT  (n_rows,), what rounding it has lost
    double *logs,               # OUT  (n_rows,), what it is above the maximum
) noexcept nogil:
    cdef const RowStates *states = &phase.states
    cdef const floating *maximum = <const floating *>states.maximum
    cdef const double *sum = states.sum
    cdef const double *carry = states.carry
    cdef const double *ties = states.ties
    cdef double[PHASE_ROWS] high, low
    cdef Py_ssize_t row, n_rows = phase.n_rows
    cdef ReferenceKind kind = kind_of(task.n_classes, task.temperature)
    if kind != NEXT_TO_MAXIMUM:
        for row in range(n_rows):
            high[row] = others_of(maximum[row], sum[row], carry[row], AT_MAXIMUM)
    else:
        for row in range(n_rows):
            high[row] = others_of(maximum[row], sum[row], carry[row], NEXT_TO_MAXIMUM)
    for row in range(n_rows):
        log1p_parts(high[row] + ties[row], maximum[row], &logs[row], &lost[row])
    if kind == DIVIDED:
        for row in range(n_rows):
            quotient_parts(maximum[row], task.temperature, &high[row], &low[row])
    else:
        for row in range(n_rows):
            high[row], low[row] = maximum[row], 0
    for row in range(n_rows):
        add_logarithm(high[row], low[row], logs[row], lost[row], &shift[row], &lost[row])


cdef inline void find_log_numbers(
    const Task *task, const Phase *phase, const floating *shift, const double *lost, const double *logs,
) noexcept nogil:
    cdef const floating *maximum = <const floating *>phase.states.maximum
    cdef floating *log_shift = <floating *>phase.states.log_shift
    cdef floating *log_rest = <floating *>phase.states.log_rest
    cdef bint divided = task.temperature != 1
    cdef Py_ssize_t row, n_rows = phase.n_rows
    for row in range(n_rows):
        log_shift[row] = maximum[row] if divided else shift[row]
    for row in range(n_rows):       # never -0.0, so that the result is not
        log_rest[row] = <floating>(0 - (logs[row] if divided else lost[row]))


# ---- Results of rows ----

cdef inline void write_logsumexp(const Task *task, const Phase *phase, const floating *shift) noexcept nogil:
    cdef const floating *maximum = <const floating *>phase.states.maximum
    cdef const double *ties = phase.states.ties
    cdef floating *out = <floating *>task.logsumexp + phase.first_row
    cdef Py_ssize_t row
    memcpy(out, shift, phase.n_rows * sizeof(floating))
    for row in range(phase.n_rows if phase.states.special[0] else 0):
        if isnan(ties[row]):
            out[row] = <floating>NAN
        elif isinf(maximum[row]):
            out[row] = maximum[row]


cdef void pick_classes(const Task *task, const Phase *phase, floating dtype_tag) noexcept nogil:
    """Log-probabilities at the indices of each row: as LOGS and DIVIDED_LOGS have them."""
    cdef const floating *maximum = <const floating *>phase.states.maximum
    cdef const floating *log_shift = <const floating *>phase.states.log_shift
    cdef const floating *log_rest = <const floating *>phase.states.log_rest
    cdef Py_ssize_t[PHASE_ROWS] offsets
    cdef Py_ssize_t row, k, place, index
    cdef floating[N_DIVIDE] divide
    cdef floating x
    row_offsets(&task.x, phase.first_row, phase.n_rows, offsets)
    choose_divisor(task.temperature, &divide[0])
    for row in range(phase.n_rows):
        for k in range(task.pick.n_indices):
            place = (phase.first_row + row) * task.pick.n_indices + k
            index = place_of(task.pick.index[place], task.n_classes)
            x = element_of(&task.x, phase.first_row + row, task.x.data + offsets[row] + index * task.x.class_stride,
                           log_shift[row])
            if task.temperature != 1:
                x = divided_log(x, log_shift[row], log_rest[row], <const floating *>&divide[0])
            else:
                x = (x - log_shift[row]) + log_rest[row]
            if isnan(phase.states.ties[row]) or isinf(maximum[row]):
                x = <floating>NAN
            (<floating *>task.pick.out)[place] = x


cdef inline void find_losses(
    const Task *task, const Phase *phase, const Masses *masses, const floating *shift, const double *lost,
    const double *logs,
) noexcept nogil:
    cdef const floating *maximum = <const floating *>phase.states.maximum
    cdef const floating *at_target = <const floating *>phase.states.at_target
    cdef const double *ties = phase.states.ties
    cdef double[PHASE_ROWS] loss
    cdef Py_ssize_t row, n_rows = phase.n_rows, first_row = phase.first_row
    for row in range(n_rows if task.loss.target != NULL else 0):
        loss[row] = loss_of(at_target[row], shift[row], lost[row], maximum[row], logs[row], task.temperature)
    if not masses.plain:
        weigh_losses(task, phase, masses, logs, &loss[0], maximum[0])
    if phase.states.special[0]:
        for row in range(n_rows):
            if isnan(ties[row]) or isinf(maximum[row]):
                loss[row] = NAN
    if task.loss.has_ignore_index:
        for row in range(n_rows):
            loss[row] = 0 if task.loss.target[first_row + row] == task.loss.ignore_index else loss[row]
    if task.loss.f32 != NULL:
        for row in range(n_rows):
            task.loss.f32[first_row + row] = <float>loss[row] + <float>0    # too small a one may be -0.0
    if task.loss.f64 != NULL:
        memcpy(task.loss.f64 + first_row, loss, n_rows * sizeof(double))


cdef inline void weigh_losses(
    const Task *task, const Phase *phase, const Masses *masses, const double *logs,
    double *loss,               # INOUT (n_rows,), of a mass of 1 at the target, if targets are classes
    floating dtype_tag,
) noexcept nogil:
    cdef Py_ssize_t row, n_rows = phase.n_rows, first_row = phase.first_row
    cdef double mass
    for row in range(n_rows):
        mass = masses.of_target[row]
        loss[row] = mass * loss[row] if mass != 0 else 0
    if has_masses(task):
        for row in range(n_rows):
            loss[row] += 2 * masses.cost[row] + masses.shared[row] * logs[row]
    if task.loss.sample_weight != NULL:
        for row in range(n_rows):
            mass = task.loss.sample_weight[first_row + row]
            loss[row] = mass * loss[row] if mass != 0 else 0
    fix_overflows(task, phase, masses, logs, loss, dtype_tag)
    for row in range(n_rows):
        loss[row] += 0.0        # never -0.0


cdef inline void fix_overflows(
    const Task *task, const Phase *phase, const Masses *masses, const double *logs, double *loss, floating dtype_tag,
) noexcept nogil:
    """Losses that overflow before they are multiplied by weights below 1 need not do so after it."""
    cdef const floating *maximum = <const floating *>phase.states.maximum
    cdef const floating *at_target = <const floating *>phase.states.at_target
    cdef Py_ssize_t row, n_rows = phase.n_rows
    cdef double value, weight
    cdef int found = 0
    for row in range(n_rows):
        found |= not fabs(loss[row]) < INFINITY
    for row in range(n_rows if found else 0):
        if fabs(loss[row]) < INFINITY or not fabs(maximum[row]) < INFINITY:
            continue
        value = 0
        if masses.of_target[row] != 0:
            value = masses.of_target[row] * (half_difference(maximum[row], at_target[row]) / task.temperature)
        if has_masses(task):
            value += masses.cost[row] + masses.shared[row] * logs[row] * 0.5
        weight = task.loss.sample_weight[phase.first_row + row] if task.loss.sample_weight != NULL else 1
        loss[row] = weight * value * 2 if weight != 0 else 0
