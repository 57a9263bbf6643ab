# Single rows, where they lie and whatever their length, without a tile's bookkeeping: nothing is allocated, and one
# chunk of numbers is on the stack, of which a caller may have little. Steps and order are those of rows.pxi, so that
# the numbers are those of a tile, bit for bit.

from cython cimport floating
from libc.math cimport INFINITY, NAN, floor, isinf, isnan
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from csoftmax.kernels.exp cimport (
    AT_MAXIMUM, NEXT_TO_MAXIMUM, Reference, ReferenceKind, log1p_parts, long_rest, raised, reduce, refer,
    reference_offset, short_rest, store_reference, term, term_scale,
)
from csoftmax.kernels.lanes cimport (
    add_to_totals, below, exact_sum, has_nan, load_lanes, max_of_group, store_lanes, ties_of, tops_in_lanes,
)
from csoftmax.kernels.numbers cimport (
    add_logarithm, all_but, away_from, is_large, kind_of, loss_of, merge, others_of, scale_by_exp, share, split_factor,
    term_at, top_term,
)
from csoftmax.kernels.task cimport (
    CHUNK, GRADIENT, LOGSUMEXP, LOG_PROBABILITY, LOSS, NOTHING, PROBABILITY, SHORT, Output, RowNumber, State,
)
from csoftmax.kernels.tile cimport FACTOR, FACTOR_LOW, LOGITS, LOGS, REFERENCE, TERMS, UNSCALE, Formula

cdef enum:
    TERMS_AT_ONCE = 256     # of a chunk whose terms are not kept; a multiple of 64


cdef inline void measure_short(
    int n_groups,               # of 16 lanes: 1, 2 or 4; a constant, as kind is
    ReferenceKind kind,
    const floating *x,          # IN   (n_classes,)
    Py_ssize_t n_classes,
    floating *lanes,            # OUT  (16 * n_groups,), x, filled up with some of its elements
    floating *terms,            # OUT  (16 * n_groups,), filled up with zeros
    floating *maximum, floating *at_top, double *sum, double *ties,     # OUT  as in measure_row
) noexcept nogil:
    """measure_row() for few classes: each step is a vector or a few, and nothing waits for memory."""
    cdef floating[64] r, k, q
    cdef floating[16] tops, sums
    cdef double[8] total, carry
    cdef floating top
    cdef Reference reference
    cdef double below_top, n_tops
    cdef int l, first, n = n_classes
    for first in range(0, 16 * n_groups, 16):
        load_lanes(x + first if first < n_classes else x, n_classes - first if first < n_classes else 1, lanes + first)
    for l in range(16):
        tops[l] = lanes[l]
    for first in range(16, 16 * n_groups, 16):
        max_of_group(<const floating *>lanes + first, &tops[0])
    top = top_of_lanes(<const floating *>&tops[0])
    reference = refer(top, kind)
    for l in range(16 * n_groups):
        reduce(lanes[l], reference, kind, NULL, &r[l], &k[l])
    for l in range(16 * n_groups):
        q[l] = short_rest(r[l]) if floating is float else long_rest(r[l])
    for l in range(16 * n_groups):
        q[l] = raised(r[l], q[l], k[l])
        terms[l] = q[l] if l < n else <floating>0
    at_top[0] = <floating>term_scale(top) if kind == AT_MAXIMUM else term(top, reference, NEXT_TO_MAXIMUM, NULL)
    for l in range(16):
        sums[l] = below(terms[l], at_top[0])
        if n_groups > 1:
            sums[l] += below(terms[16 + l], at_top[0])
        if n_groups > 2:
            sums[l] += below(terms[32 + l], at_top[0]) + below(terms[48 + l], at_top[0])
    for l in range(8):
        total[l], carry[l] = sums[l], 0
    add_to_totals(<const floating *>&sums[8], &total[0], &carry[0])
    below_top = fold_row(<const double *>&total[0], <const double *>&carry[0], n_classes > 4, top)
    n_tops = tops_in_lanes(<const floating *>terms, at_top[0])
    for first in range(16, 16 * n_groups, 16):
        n_tops += tops_in_lanes(<const floating *>terms + first, at_top[0])
    maximum[0] = top
    sum[0] = below_top
    ties[0] = n_tops - 1
    if isinf(top):              # terms mean nothing, but a NaN is one
        sum[0] = 0
        ties[0] = NAN if has_nan(<const floating *>lanes, 16 * n_groups, 1) else 0


cdef inline void measure_row(
    const floating *x,          # IN   (n_classes,)
    Py_ssize_t n_classes,       # at most CHUNK
    bint keep_terms,            # a constant
    floating *terms,            # OUT  (n_classes up to a multiple of 64,), or scrap of (TERMS_AT_ONCE,)
    floating *maximum,
    floating *at_top,           # OUT  the maximum's term
    double *sum,                # OUT  as in measure_rows
    double *ties,
) noexcept nogil:
    cdef floating[16] all
    cdef double[8] total, carry
    cdef floating top
    cdef Reference reference
    cdef double below_top
    cdef Py_ssize_t j = 0, n
    cdef int l
    top = max_of_row(x, n_classes)
    reference = refer(top, NEXT_TO_MAXIMUM)
    at_top[0] = term(top, reference, NEXT_TO_MAXIMUM, NULL)
    begin_sums(&total[0], &carry[0], &all[0])
    while j < n_classes:
        n = n_classes - j if keep_terms or n_classes - j < TERMS_AT_ONCE else TERMS_AT_ONCE
        terms_of_row(x + j, n, 0, 0, reference, NEXT_TO_MAXIMUM, NULL, terms)
        add_sums_of_row(<const floating *>terms, n, at_top[0], &total[0], &carry[0], &all[0])
        j += n
    below_top = fold_row(&total[0], &carry[0], n_classes > 4, top)
    for l in range(8):
        all[l] += all[l + 8]
    maximum[0] = top
    sum[0] = below_top
    ties[0] = ties_of(below_top, ((all[0] + all[1]) + (all[2] + all[3])) + ((all[4] + all[5]) + (all[6] + all[7])),
                      at_top[0])
    if isinf(top):              # terms mean nothing, but a NaN is one
        sum[0] = 0
        ties[0] = NAN if has_nan(x, n_classes, 1) else 0


cdef inline bint is_aligned(const void *p, size_t item) noexcept nogil:
    return <size_t>p % item == 0


cdef inline const floating *aligned(const floating *x, Py_ssize_t n, floating *room) noexcept nogil:
    """x, or n elements of it in room, if it lies where floats cannot."""
    if is_aligned(x, sizeof(floating)):
        return x
    memcpy(room, x, n * sizeof(floating))
    return room


cdef inline floating element(const floating *x, Py_ssize_t j) noexcept nogil:
    cdef floating value
    memcpy(&value, <const char *>x + j * <Py_ssize_t>sizeof(floating), sizeof(floating))
    return value


cdef inline void add_classes(
    State *state, const floating *x, Py_ssize_t n_classes, floating *room,
) noexcept nogil:
    """Add the classes' chunks to a state."""
    cdef floating[TERMS_AT_ONCE] terms
    cdef floating maximum, at_top
    cdef State chunk
    cdef Py_ssize_t j = 0, n
    chunk.carry = 0
    while j < n_classes:
        n = n_classes - j if n_classes - j < CHUNK else CHUNK
        measure_row(aligned(x + j, n, room), n, False, &terms[0], &maximum, &at_top, &chunk.sum, &chunk.ties)
        chunk.maximum = maximum
        merge(state, &chunk, NEXT_TO_MAXIMUM, 1, maximum)
        j += n


cdef inline void write_classes(
    Formula formula,
    const floating *x,          # IN   (n_classes,)
    const floating *terms,      # IN   (n_classes,), for TERMS; may be room
    Py_ssize_t n_classes,
    const floating *numbers,    # IN   (N_NUMBERS,)
    floating *room,             # (CHUNK,)
    floating *out,              # OUT  (n_classes,); may be x
) noexcept nogil:
    cdef floating[96] lanes     # (N_NUMBERS, 16)
    cdef const floating *source
    cdef Py_ssize_t j = 0, n
    cdef bint at_once = is_aligned(out, sizeof(floating))
    cdef int k, l
    for k in range(6 if formula == LOGITS else 2):
        for l in range(16):
            lanes[16 * k + l] = numbers[k]
    while j < n_classes:
        n = n_classes - j if n_classes - j < CHUNK else CHUNK
        source = terms if formula == TERMS else aligned(x + j, n, room)
        write_row(formula, source, n, <const floating *>&lanes[0], NULL, out + j if at_once else room)
        if not at_once:
            memcpy(out + j, room, n * sizeof(floating))
        j += n


cdef inline void fill(floating *out, Py_ssize_t n_classes, floating value) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n_classes):
        memcpy(<char *>out + j * <Py_ssize_t>sizeof(floating), &value, sizeof(floating))


cdef inline void write_lanes(
    Formula formula, const floating *source, Py_ssize_t n_classes, const floating *numbers, floating *out,
) noexcept nogil:
    """write_classes() for a short row, whose source is filled up to whole groups of lanes."""
    cdef floating[32] lanes     # (2, 16)
    cdef floating[16] values
    cdef Py_ssize_t j
    cdef int l
    for l in range(16):
        lanes[l], lanes[16 + l] = numbers[FACTOR], numbers[FACTOR_LOW]
    for j in range(0, n_classes, 16):
        write_group(formula, source + j, <const floating *>&lanes[0], 16, NULL, &values[0])
        store_lanes(<const floating *>&values[0], n_classes - j, out + j)


cdef inline void write_shares(
    const State *state, const floating *x, const floating *terms, bint short, Py_ssize_t n_classes, double numerator,
    ReferenceKind kind, int64_t target, floating *room, floating *out,
) noexcept nogil:
    """Probabilities times numerator; that of the target, if it is one of the classes, minus numerator.

    terms: those of all classes, or NULL if they are to be computed again.
    """
    cdef floating[6] numbers
    cdef double factor, factor_low, rest
    cdef floating at_target = 0, maximum = <floating>state.maximum, top = top_term(maximum, kind)
    share(numerator, top, state.sum, state.carry, state.ties, &factor, &factor_low)
    split_factor(factor, factor_low, 1, &numbers[FACTOR], &numbers[FACTOR_LOW], &numbers[UNSCALE])
    if 0 <= target < n_classes:
        at_target = terms[target] if terms != NULL else term_at(element(x, target), maximum, kind, NULL)
        rest = all_but(at_target, top, state.sum, state.carry, state.ties)
        at_target = away_from(factor, factor_low, rest, at_target)
    if terms == NULL or not is_large(factor, top) and factor != 0:
        store_reference(refer(maximum, kind), &numbers[REFERENCE], 1)
        write_classes(LOGITS, x, NULL, n_classes, &numbers[0], room, out)
    elif short:
        write_lanes(TERMS, terms, n_classes, &numbers[0], out)
    else:
        write_classes(TERMS, x, terms, n_classes, &numbers[0], room, out)
    if 0 <= target < n_classes:
        memcpy(<char *>out + target * <Py_ssize_t>sizeof(floating), &at_target, sizeof(floating))


cdef inline double finish_row(
    Output output, RowNumber number, const State *state, const floating *x,
    const floating *lanes,      # IN   of a short row, or NULL
    const floating *terms,      # IN   or NULL
    Py_ssize_t n_classes, int64_t target, double scale, ReferenceKind kind, floating *room, floating *out,
) noexcept nogil:
    cdef floating[2] numbers
    cdef floating maximum = <floating>state.maximum, shift, at_target = element(x, target) if number != LOGSUMEXP else 0
    cdef double lost, log
    if maximum - maximum != 0 or isnan(state.ties):
        if output != NOTHING:
            fill(out, n_classes, <floating>NAN)
        return maximum if number == LOGSUMEXP and not isnan(state.ties) else NAN
    if output == PROBABILITY or output == GRADIENT:
        write_shares(state, x, terms, lanes != NULL, n_classes, scale, kind, target if output == GRADIENT else -1,
                     room, out)
    if output == PROBABILITY:
        return 0
    log1p_parts(others_of(maximum, state.sum, state.carry, kind) + state.ties, maximum, &log, &lost)
    add_logarithm(maximum, 0, log, lost, &shift, &lost)
    if output == LOG_PROBABILITY:
        numbers[FACTOR], numbers[FACTOR_LOW] = shift, <floating>(0 - lost)
        if lanes != NULL:
            write_lanes(LOGS, lanes, n_classes, &numbers[0], out)
        else:
            write_classes(LOGS, x, NULL, n_classes, &numbers[0], room, out)
    if number == LOGSUMEXP:
        return shift
    if number == LOSS:
        return loss_of(at_target, shift, lost, maximum, log, 1)
    return (at_target - shift) + <floating>(0 - lost)


cdef inline double run_short_row(
    Output output, RowNumber number, const floating *x, Py_ssize_t n_classes, int64_t target, double scale,
    floating *out,
) noexcept nogil:
    cdef floating[64] lanes, terms
    cdef floating maximum, top
    cdef State state
    state.carry = 0
    if n_classes <= 8:
        measure_short(1, AT_MAXIMUM, x, n_classes, &lanes[0], &terms[0], &maximum, &top, &state.sum, &state.ties)
    elif n_classes <= 16:
        measure_short(1, NEXT_TO_MAXIMUM, x, n_classes, &lanes[0], &terms[0], &maximum, &top, &state.sum, &state.ties)
    elif n_classes <= 32:
        measure_short(2, NEXT_TO_MAXIMUM, x, n_classes, &lanes[0], &terms[0], &maximum, &top, &state.sum, &state.ties)
    else:
        measure_short(4, NEXT_TO_MAXIMUM, x, n_classes, &lanes[0], &terms[0], &maximum, &top, &state.sum, &state.ties)
    state.maximum = maximum
    return finish_row(output, number, &state, x, <const floating *>&lanes[0], <const floating *>&terms[0], n_classes,
                      target, scale, kind_of(n_classes, 1), &lanes[0], out)


cdef double run_other_row(
    Output output, RowNumber number, const floating *x, Py_ssize_t n_classes, int64_t target, double scale,
    floating *out,
) noexcept nogil:
    """A row that is long, or does not lie where floats do."""
    cdef floating[CHUNK] room   # of the terms, or of numbers that are brought where floats lie
    cdef floating maximum, top
    cdef State state
    cdef bint keep_terms = n_classes <= CHUNK and is_aligned(x, sizeof(floating))
    cdef double result
    if n_classes <= SHORT:
        memcpy(room, x, n_classes * sizeof(floating))
        result = run_short_row(output, number, <const floating *>&room[0], n_classes, target, scale, &room[SHORT])
        if output != NOTHING:
            memcpy(out, &room[SHORT], n_classes * sizeof(floating))
        return result
    state = State(-INFINITY, 0, 0, -1)
    if keep_terms:
        measure_row(x, n_classes, True, &room[0], &maximum, &top, &state.sum, &state.ties)
        state.maximum = maximum
    else:
        add_classes(&state, x, n_classes, &room[0])
    return finish_row(output, number, &state, x, NULL, <const floating *>&room[0] if keep_terms else NULL, n_classes,
                      target, scale, NEXT_TO_MAXIMUM, &room[0], out)


cdef inline double run_row(
    Output output,
    RowNumber number,
    const floating *x,          # IN   (n_classes,)
    Py_ssize_t n_classes,
    int64_t target,             # of LOSS and LOG_PROB
    double scale,               # of the gradient
    floating *out,              # OUT  (n_classes,), may be x; not if output is NOTHING
) noexcept nogil:
    if number != LOGSUMEXP and not 0 <= target < n_classes:
        return NAN
    if n_classes <= 0:
        return -INFINITY
    if n_classes <= SHORT and is_aligned(x, sizeof(floating)) and is_aligned(out, sizeof(floating)):
        return run_short_row(output, number, x, n_classes, target, scale, out)
    return run_other_row(output, number, x, n_classes, target, scale, out)


# ---- States that are the caller's ----

# Their sums refer to what the dtype fixes. Those of float32 bear a mark, half a tie. One without a sum is of either.
# Where the two meet, the state becomes one of float64, and the numbers are right.

cdef inline bint is_own(const State *state, floating like) noexcept nogil:
    """Whether a state can be taken as one of the dtype."""
    if state.sum == 0 and state.carry == 0 or isnan(state.ties):
        return <floating>state.maximum == state.maximum or isnan(state.maximum)
    if floating is float:
        return state.ties != floor(state.ties)
    else:
        return state.ties == floor(state.ties)


cdef inline State unmarked(const State *state) noexcept nogil:
    cdef State own = state[0]
    own.ties = floor(own.ties)      # NaN stays
    return own


cdef inline void mark(State *state, floating like) noexcept nogil:
    if floating is float and state.ties >= 0:
        state.ties += 0.5


cdef inline State widened(const State *state) noexcept nogil:
    """The state as one of float64, without a mark."""
    cdef State wide = unmarked(state)
    cdef double offset, offset_low, wide_offset, wide_offset_low
    if is_own(state, <double>0) or isinf(state.maximum) or isnan(state.maximum + state.ties):
        return wide
    reference_offset(<float>wide.maximum, &offset, &offset_low)
    reference_offset(wide.maximum, &wide_offset, &wide_offset_low)
    offset = exact_sum(offset, offset_low, -wide_offset, -wide_offset_low, &offset_low)
    scale_by_exp(offset, offset_low, &wide.sum, &wide.carry)
    wide.sum *= term_scale(<double>0) / term_scale(<float>0)
    wide.carry *= term_scale(<double>0) / term_scale(<float>0)
    return wide


cdef inline bint is_finite(const State *state) noexcept nogil:
    return not isinf(state.maximum) and not isnan(state.maximum + state.ties)


cdef inline void add_to_state(State *state, const floating *x, Py_ssize_t n_classes) noexcept nogil:
    cdef floating[CHUNK] room
    cdef State own
    if n_classes <= 0:
        return
    if is_own(state, <floating>0):
        own = unmarked(state)
        add_classes(&own, x, n_classes, &room[0])
    elif floating is double:
        own = widened(state)
        add_classes(&own, x, n_classes, &room[0])
    else:
        own = State(-INFINITY, 0, 0, -1)
        add_classes(&own, x, n_classes, &room[0])
        mark(&own, <floating>0)
        merge_states(state, &own, <float>0)
        return
    mark(&own, <floating>0)
    state[0] = own


cdef inline void merge_states(State *state, const State *other, floating like) noexcept nogil:
    cdef State own, added
    if is_own(state, like) and is_own(other, like):
        own, added = unmarked(state), unmarked(other)
        merge(&own, &added, NEXT_TO_MAXIMUM, 1, like)
        mark(&own, like)
    else:
        own, added = widened(state), widened(other)
        merge(&own, &added, NEXT_TO_MAXIMUM, 1, <double>0)
    state[0] = own


cdef inline double number_of_own_state(RowNumber number, const State *state, floating at_target) noexcept nogil:
    cdef floating maximum = <floating>state.maximum, shift
    cdef double lost, log
    if not is_finite(state):
        return state.maximum if number == LOGSUMEXP and not isnan(state.ties) else NAN
    log1p_parts(others_of(maximum, state.sum, state.carry, NEXT_TO_MAXIMUM) + state.ties, maximum, &log, &lost)
    add_logarithm(maximum, 0, log, lost, &shift, &lost)
    return shift if number == LOGSUMEXP else loss_of(at_target, shift, lost, maximum, log, 1)


cdef inline double number_of_state(RowNumber number, const State *state, floating at_target) noexcept nogil:
    cdef State own
    if is_own(state, at_target):
        own = unmarked(state)
        return number_of_own_state(number, &own, at_target)
    own = widened(state)
    return number_of_own_state(number, &own, <double>at_target)


cdef inline void write_own_state(
    const State *state, const floating *x, Py_ssize_t n_classes, int64_t target, double scale, floating *out,
) noexcept nogil:
    cdef floating[CHUNK] room
    if not is_finite(state):
        fill(out, n_classes, <floating>NAN)
    else:
        write_shares(state, x, NULL, False, n_classes, scale, NEXT_TO_MAXIMUM, target, &room[0], out)


cdef void write_wide_state(
    const State *state, const float *x, Py_ssize_t n_classes, int64_t target, double scale, float *out,
) noexcept nogil:
    """float32 classes of a row whose state is one of float64."""
    cdef double[64] some
    cdef float value
    cdef Py_ssize_t j = 0, n, i
    while j < n_classes:
        n = n_classes - j if n_classes - j < 64 else 64
        for i in range(n):
            some[i] = element(x, j + i)
        write_own_state(state, <const double *>&some[0], n, target - j, scale, &some[0])
        for i in range(n):
            value = <float>some[i]
            memcpy(<char *>out + (j + i) * <Py_ssize_t>sizeof(float), &value, sizeof(float))
        j += n


cdef inline void write_state(
    const State *state, const floating *x, Py_ssize_t n_classes, int64_t target, double scale, floating *out,
) noexcept nogil:
    cdef State own
    if is_own(state, <floating>0):
        own = unmarked(state)
        write_own_state(&own, x, n_classes, target, scale, out)
    elif floating is double:
        own = widened(state)
        write_own_state(&own, x, n_classes, target, scale, out)
    else:
        own = widened(state)
        write_wide_state(&own, x, n_classes, target, scale, out)


# ---- The build's functions for either dtype ----

cdef double row_f32(Output output, RowNumber number, const void *x, Py_ssize_t n_classes, int64_t target, double scale,
                    void *out) noexcept nogil:
    return run_row(output, number, <const float *>x, n_classes, target, scale, <float *>out)


cdef double row_f64(Output output, RowNumber number, const void *x, Py_ssize_t n_classes, int64_t target, double scale,
                    void *out) noexcept nogil:
    return run_row(output, number, <const double *>x, n_classes, target, scale, <double *>out)


cdef void add_f32(State *state, const void *x, Py_ssize_t n_classes) noexcept nogil:
    add_to_state(state, <const float *>x, n_classes)


cdef void add_f64(State *state, const void *x, Py_ssize_t n_classes) noexcept nogil:
    add_to_state(state, <const double *>x, n_classes)


cdef void merge_f32(State *state, const State *other) noexcept nogil:
    merge_states(state, other, <float>0)


cdef void merge_f64(State *state, const State *other) noexcept nogil:
    merge_states(state, other, <double>0)


cdef double number_f32(RowNumber number, const State *state, double at_target) noexcept nogil:
    return <float>number_of_state(number, state, <float>at_target)


cdef double number_f64(RowNumber number, const State *state, double at_target) noexcept nogil:
    return number_of_state(number, state, at_target)


cdef void write_f32(const State *state, const void *x, Py_ssize_t n_classes, int64_t target, double scale,
                    void *out) noexcept nogil:
    write_state(state, <const float *>x, n_classes, target, scale, <float *>out)


cdef void write_f64(const State *state, const void *x, Py_ssize_t n_classes, int64_t target, double scale,
                    void *out) noexcept nogil:
    write_state(state, <const double *>x, n_classes, target, scale, <double *>out)
