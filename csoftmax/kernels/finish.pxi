# The numbers of rows, from the states of their chunks: what their classes are written with, and the results of rows.

from cython cimport floating
from libc.math cimport INFINITY, NAN, fabs, isinf, isnan
from libc.string cimport memcpy, memset

from csoftmax.kernels.exp cimport (
    AT_MAXIMUM, DIVIDED, NEXT_TO_MAXIMUM, ReferenceKind, choose_divisor, log1p_parts, term_scale,
)
from csoftmax.kernels.numbers cimport (
    add_logarithm, all_but, away_from, half_difference, kind_of, loss_of, merge, others_of, quotient_parts, share,
    term_at, top_term,
)
from csoftmax.kernels.task cimport GRADIENT, LOG_PROBABILITY, PROBABILITY, State, Task, has_masses, place_of
from csoftmax.kernels.tile cimport PHASE_ROWS, Board, Masses

cdef bint find_special(const floating *maximum, const double *ties, Py_ssize_t n_rows) noexcept nogil:
    """Whether there is a row whose result is not finite: its maximum is infinite, or it holds a NaN."""
    cdef Py_ssize_t row
    cdef int found = 0
    for row in range(n_rows):
        found |= (maximum[row] - maximum[row] != 0) | (ties[row] != ties[row])
    return found


cdef void merge_chunks(
    const Task *task, Board *board, Py_ssize_t n_rows, Py_ssize_t width, Py_ssize_t n_chunks, floating like,
) noexcept nogil:
    """The states of the rows from those of their chunks, in order."""
    cdef floating *maximum = <floating *>board.maximum
    cdef const floating *of_chunk = <const floating *>board.chunk_maximum
    cdef ReferenceKind kind = DIVIDED if task.temperature != 1 else NEXT_TO_MAXIMUM
    cdef Py_ssize_t row, chunk, i
    cdef State state, other
    memset(board.carry, 0, width * sizeof(double))
    if n_chunks == 1:           # they are the same arrays
        return
    other.carry = 0
    for row in range(width):
        state.maximum, state.sum, state.carry, state.ties = (
            of_chunk[row], board.chunk_sum[row], 0, board.chunk_ties[row])
        for chunk in range(1, n_chunks if row < n_rows else 1):
            i = chunk * width + row
            other.maximum, other.sum, other.ties = of_chunk[i], board.chunk_sum[i], board.chunk_ties[i]
            merge(&state, &other, kind, task.temperature, like)
        maximum[row] = <floating>state.maximum
        board.sum[row], board.carry[row], board.ties[row] = state.sum, state.carry, state.ties


cdef inline Board rows_from(const Board *board, Py_ssize_t first, floating like) noexcept nogil:
    """The board with the numbers of its rows from `first` on."""
    cdef Board part = board[0]
    part.maximum = <floating *>part.maximum + first
    part.sum += first
    part.carry += first
    part.ties += first
    part.at_target = <floating *>part.at_target + first
    part.factor += first
    part.factor_low += first
    part.scale += first
    part.a = <floating *>part.a + first
    part.b = <floating *>part.b + first
    return part


cdef void finish_rows(
    const Task *task, Board *board, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t width, Py_ssize_t n_chunks,
    floating like,              # of the dtype
) noexcept nogil:
    cdef Py_ssize_t first, n
    merge_chunks(task, board, n_rows, width, n_chunks, like)
    board.special[0] = find_special(<const floating *>board.maximum, <const double *>board.ties, n_rows)
    for first in range(0, width, 64):           # by PHASE_ROWS
        n = n_rows - first if n_rows - first < PHASE_ROWS else PHASE_ROWS
        finish_phase(task, board, first_row, first, n, width - first if width - first < PHASE_ROWS else PHASE_ROWS,
                     width, n_chunks, like)


cdef inline void finish_phase(
    const Task *task, const Board *board_of_tile, Py_ssize_t first_row, Py_ssize_t first, Py_ssize_t n_rows,
    Py_ssize_t width, Py_ssize_t board_width, Py_ssize_t n_chunks, floating like,
) noexcept nogil:
    """Results of n_rows rows from the tile's row `first` on, and numbers of what fills up the lanes to width."""
    cdef Board board = rows_from(board_of_tile, first, like)
    cdef const floating *maximum = <const floating *>board.maximum
    cdef const floating *at_target = <const floating *>board.at_target
    cdef floating *a = <floating *>board.a
    cdef floating *b = <floating *>board.b
    cdef const double *sum = board.sum
    cdef const double *carry = board.carry
    cdef const double *ties = board.ties
    cdef Py_ssize_t row
    cdef double high, m, temperature = task.temperature
    cdef double[64] factor, factor_low, numerator, others, lost, loss, logs, m_low
    cdef floating[64] top, shift
    cdef floating[5] divide     # (N_DIVIDE,)
    cdef Masses masses
    cdef bint special = board.special[0]
    cdef ReferenceKind kind = kind_of(task.n_classes, temperature)
    if kind == DIVIDED:
        choose_divisor(temperature, &divide[0])
    if task.loss.target != NULL or task.loss.has_probabilities:
        find_masses(task, board_of_tile, first_row, first, n_rows, width, board_width, n_chunks, &masses, like)
    first_row += first
    if task.output == PROBABILITY or task.output == GRADIENT:
        # Also for the columns that fill up the lanes: choose_numbers() looks at all.
        for row in range(width):
            numerator[row] = task.gradient.scale if task.output == GRADIENT else 1
        if task.output == GRADIENT and not masses.plain:
            for row in range(width):
                numerator[row] = masses.scale[row] * (masses.of_target[row] + masses.shared[row])
        if kind != NEXT_TO_MAXIMUM:
            for row in range(width):
                top[row] = <floating>term_scale(like)
        else:
            for row in range(width):
                top[row] = top_term(maximum[row], NEXT_TO_MAXIMUM)
        for row in range(width):
            share(numerator[row], top[row], sum[row], carry[row], ties[row], &factor[row], &factor_low[row])
        memcpy(board.factor, factor, width * sizeof(double))
        memcpy(board.factor_low, factor_low, width * sizeof(double))
    if task.output == GRADIENT and has_masses(task):
        memcpy(board.scale, masses.scale, width * sizeof(double))
    if task.output == GRADIENT and task.loss.target != NULL:
        # Of the target's own mass p_t - 1 = -(sum of all terms but the target's) / (sum of all terms) is taken, so that
        # it keeps its digits; then come the masses that smoothing gives to all classes.
        if kind == DIVIDED:
            for row in range(n_rows):
                shift[row] = term_at(at_target[row], maximum[row], DIVIDED, <const floating *>&divide[0])
        else:
            for row in range(n_rows):
                shift[row] = term_at(at_target[row], maximum[row], kind, NULL)
        for row in range(n_rows):
            m = all_but(shift[row], top[row], sum[row], carry[row], ties[row])
            if task.loss.mass == NULL:
                b[row] = away_from(factor[row], factor_low[row], m, like)
            else:
                high = shift[row] * (1 / term_scale(like))
                m *= 1 / term_scale(like)
                high = (masses.shared[row] * high - masses.of_target[row] * m) / (m + high)
                b[row] = <floating>(masses.scale[row] * (high - masses.of_class[row])) + <floating>0    # never -0.0
    if task.output == PROBABILITY:
        return
    if kind != NEXT_TO_MAXIMUM:
        for row in range(n_rows):
            others[row] = others_of(maximum[row], sum[row], carry[row], AT_MAXIMUM)
    else:
        for row in range(n_rows):
            others[row] = others_of(maximum[row], sum[row], carry[row], NEXT_TO_MAXIMUM)
    for row in range(n_rows):
        log1p_parts(others[row] + ties[row], like, &logs[row], &lost[row])
    if kind == DIVIDED:
        for row in range(n_rows):
            quotient_parts(maximum[row], temperature, &others[row], &m_low[row])
    else:
        for row in range(n_rows):
            others[row], m_low[row] = maximum[row], 0
    for row in range(n_rows):
        add_logarithm(others[row], m_low[row], logs[row], lost[row], &shift[row], &lost[row])
    if task.output == LOG_PROBABILITY or task.pick.index != NULL:
        for row in range(n_rows):
            a[row] = maximum[row] if kind == DIVIDED else shift[row]
        for row in range(n_rows):   # never -0.0, so that the result is not
            b[row] = <floating>(0 - (logs[row] if kind == DIVIDED else lost[row]))
    if task.logsumexp != NULL:
        memcpy(<floating *>task.logsumexp + first_row, shift, n_rows * sizeof(floating))
        if special:
            for row in range(n_rows):
                if isnan(ties[row]) or isinf(maximum[row]):
                    like = <floating>NAN if isnan(ties[row]) else maximum[row]
                    (<floating *>task.logsumexp)[first_row + row] = like
    if task.pick.index != NULL:
        pick(task, <const floating *>a, <const floating *>b, ties, maximum, first_row, n_rows)
    if task.loss.target == NULL and not task.loss.has_probabilities:
        return
    for row in range(n_rows if task.loss.target != NULL else 0):
        loss[row] = loss_of(at_target[row], shift[row], lost[row], maximum[row], logs[row], temperature)
    if not masses.plain:
        for row in range(n_rows):
            m = masses.of_target[row]
            loss[row] = m * loss[row] if m != 0 else 0
        if has_masses(task):
            for row in range(n_rows):
                loss[row] += 2 * masses.cost[row] + masses.shared[row] * logs[row]
        if task.loss.sample_weight != NULL:
            for row in range(n_rows):
                m = task.loss.sample_weight[first_row + row]
                loss[row] = m * loss[row] if m != 0 else 0
        mend_overflows(task, &masses, at_target, maximum, logs, first_row, n_rows, &loss[0])
        for row in range(n_rows):
            loss[row] += 0.0        # never -0.0
    if special:
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


cdef inline void mend_overflows(
    const Task *task, const Masses *masses, const floating *at_target, const floating *maximum, const double *logs,
    Py_ssize_t first_row, Py_ssize_t n_rows, double *loss,
) noexcept nogil:
    """Losses that overflow before they are multiplied by weights below 1 need not do so after it."""
    cdef Py_ssize_t row
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
        weight = task.loss.sample_weight[first_row + row] if task.loss.sample_weight != NULL else 1
        loss[row] = weight * value * 2 if weight != 0 else 0


cdef void pick(
    const Task *task, const floating *shift, const floating *low, const double *ties, const floating *maximum,
    Py_ssize_t first_row, Py_ssize_t n_rows,
) noexcept nogil:
    """Log-probabilities at the indices of each row: as LOGS and DIVIDED_LOGS have them."""
    cdef Py_ssize_t[64] offsets
    cdef Py_ssize_t row, k, place, index
    cdef floating[5] divide     # (N_DIVIDE,)
    cdef floating x
    row_offsets(&task.x, first_row, n_rows, offsets)
    choose_divisor(task.temperature, &divide[0])
    for row in range(n_rows):
        for k in range(task.pick.n_indices):
            place = (first_row + row) * task.pick.n_indices + k
            index = place_of(task.pick.index[place], task.n_classes)
            memcpy(&x, task.x.data + offsets[row] + index * task.x.class_stride, sizeof(floating))
            if task.temperature != 1:
                x = divided_log(x, shift[row], low[row], <const floating *>&divide[0])
            else:
                x = (x - shift[row]) + low[row]
            if isnan(ties[row]) or isinf(maximum[row]):
                x = <floating>NAN
            (<floating *>task.pick.out)[place] = x
