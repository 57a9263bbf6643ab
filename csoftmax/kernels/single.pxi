# Single rows, where they lie and whatever their length, without a tile's bookkeeping: nothing is allocated, and a chunk
# of numbers or two are on the stack, of which a caller may have little. Steps and order are those of rows.pxi, so that
# the numbers are those of a tile, bit for bit. Rows in pieces are in states.pxi.

from cython cimport floating
from libc.math cimport INFINITY, NAN, isinf, isnan
from libc.string cimport memcpy

from csoftmax.kernels.exp cimport (
    AT_MAXIMUM, NEXT_TO_MAXIMUM, Reference, ReferenceKind, log1p_parts, long_rest, raised, reduce, refer, short_rest,
    store_reference, term, term_scale,
)
from csoftmax.kernels.lanes cimport add_to_totals, below, load_lanes, max_of_group, store_lanes, ties_of, tops_in_lanes
from csoftmax.kernels.numbers cimport (
    add_logarithm, all_but, away_from, is_large, kind_of, loss_of, merge, others_of, settle_infinite, share,
    split_factor, term_at, top_term,
)
from csoftmax.kernels.single cimport SingleRow, has_factors_left
from csoftmax.kernels.task cimport (
    CHUNK, FLOAT32, FLOAT64, GRADIENT, LANES, LOGSUMEXP, LOG_PROBABILITY, LOSS, NOTHING, PROBABILITY, SHORT, State,
    size_of,
)
from csoftmax.kernels.tile cimport FACTOR, FACTOR_LOW, LOGITS, LOGS, REFERENCE, TERMS, UNSCALE, Formula

cdef enum:
    TERMS_AT_ONCE = 256     # of a chunk whose terms are not kept; a multiple of 64


cdef inline floating load_short(
    const floating *x, Py_ssize_t n_classes, int n_groups,
    floating *lanes,            # OUT  (16 * n_groups,), x, filled up with some of its elements
) noexcept nogil:
    """The maximum."""
    cdef floating[LANES] tops
    cdef int l, first
    for first in range(0, LANES * n_groups, 16):
        load_lanes(x + first if first < n_classes else x, n_classes - first if first < n_classes else 1, lanes + first)
    for l in range(LANES):
        tops[l] = lanes[l]
    for first in range(16, LANES * n_groups, 16):
        max_of_group(<const floating *>lanes + first, &tops[0])
    return top_of_lanes(<const floating *>&tops[0])


cdef inline void measure_short(
    int n_groups,               # of 16 lanes: 1, 2 or 4; a constant, as kind is
    ReferenceKind kind,
    const floating *x,          # IN   (n_classes,)
    Py_ssize_t n_classes,
    floating *lanes,            # OUT  (16 * n_groups,), x, filled up with some of its elements
    floating *terms,            # OUT  (16 * n_groups,), filled up with zeros
    State *state,               # OUT
) noexcept nogil:
    """measure_row() for few classes: each step is a vector or a few, and nothing waits for memory."""
    cdef floating[SHORT] r, k, q
    cdef floating[LANES] sums
    cdef double[8] total, carry
    cdef floating top = load_short(x, n_classes, n_groups, lanes), at_top
    cdef Reference reference = refer(top, kind)
    cdef double n_tops
    cdef int l, first, n = n_classes
    for l in range(LANES * n_groups):
        reduce(lanes[l], reference, kind, NULL, &r[l], &k[l])
    for l in range(LANES * n_groups):
        q[l] = short_rest(r[l]) if floating is float else long_rest(r[l])
    for l in range(LANES * n_groups):
        q[l] = raised(r[l], q[l], k[l])
        terms[l] = q[l] if l < n else <floating>0
    at_top = <floating>term_scale(top) if kind == AT_MAXIMUM else term(top, reference, NEXT_TO_MAXIMUM, NULL)
    for l in range(LANES):
        sums[l] = below(terms[l], at_top)
        if n_groups > 1:
            sums[l] += below(terms[16 + l], at_top)
        if n_groups > 2:
            sums[l] += below(terms[32 + l], at_top) + below(terms[48 + l], at_top)
    for l in range(8):
        total[l], carry[l] = sums[l], 0
    add_to_totals(<const floating *>&sums[8], &total[0], &carry[0])
    n_tops = tops_in_lanes(<const floating *>terms, at_top)
    for first in range(16, LANES * n_groups, 16):
        n_tops += tops_in_lanes(<const floating *>terms + first, at_top)
    state.maximum = top
    state.sum = fold_row(<const double *>&total[0], <const double *>&carry[0], n_classes > 4, top)
    state.carry = 0
    state.ties = n_tops - 1
    if isinf(top):
        settle_infinite(<const floating *>lanes, LANES * n_groups, 1, &state.sum, &state.ties)


cdef inline void measure_row(
    const floating *x,          # IN   (n_classes,)
    Py_ssize_t n_classes,       # at most CHUNK
    bint keep_terms,            # a constant
    floating *terms,            # OUT  (n_classes up to a multiple of 64,), or scrap of (TERMS_AT_ONCE,)
    State *state,               # OUT
) noexcept nogil:
    cdef floating[LANES] all
    cdef double[8] total, carry
    cdef floating top = max_of_row(x, n_classes), at_top
    cdef Reference reference = refer(top, NEXT_TO_MAXIMUM)
    cdef Py_ssize_t j = 0, n
    cdef int l
    at_top = term(top, reference, NEXT_TO_MAXIMUM, NULL)
    begin_sums(&total[0], &carry[0], &all[0])
    while j < n_classes:
        n = n_classes - j if keep_terms or n_classes - j < TERMS_AT_ONCE else TERMS_AT_ONCE
        terms_of_row(x + j, n, 0, NULL, reference, NEXT_TO_MAXIMUM, NULL, terms)
        add_sums_of_row(<const floating *>terms, n, at_top, &total[0], &carry[0], &all[0])
        j += n
    for l in range(8):
        all[l] += all[l + 8]
    state.maximum = top
    state.sum = fold_row(&total[0], &carry[0], n_classes > 4, top)
    state.carry = 0
    state.ties = ties_of(
        state.sum, ((all[0] + all[1]) + (all[2] + all[3])) + ((all[4] + all[5]) + (all[6] + all[7])), at_top)
    if isinf(top):
        settle_infinite(x, n_classes, 1, &state.sum, &state.ties)


cdef inline int own_storage(floating dtype_tag) noexcept nogil:
    if floating is float:
        return FLOAT32
    else:
        return FLOAT64


cdef inline bint is_own_place(int storage, const void *p, floating dtype_tag) noexcept nogil:
    """Whether numbers can be read or written there as they lie."""
    return storage == own_storage(dtype_tag) and <size_t>p % sizeof(floating) == 0


cdef inline const floating *brought(
    int storage, const char *x, Py_ssize_t first, Py_ssize_t n, floating *scratch,
) noexcept nogil:
    """n elements of x from the first on: where they lie, or in scratch."""
    x += first * size_of(storage)
    if is_own_place(storage, x, scratch[0]):
        return <const floating *>x
    read_numbers(storage, x, n, scratch)
    return scratch


cdef inline floating element(int storage, const char *x, Py_ssize_t j, floating dtype_tag) noexcept nogil:
    cdef floating value
    read_numbers(storage, x + j * size_of(storage), 1, &value)
    return value


cdef inline void add_classes(
    State *state, int storage, const char *x, Py_ssize_t n_classes, floating *scratch,
) noexcept nogil:
    """Add the classes' chunks to a state."""
    cdef floating[TERMS_AT_ONCE] terms
    cdef State chunk
    cdef Py_ssize_t j = 0, n
    while j < n_classes:
        n = n_classes - j if n_classes - j < CHUNK else CHUNK
        measure_row(brought(storage, x, j, n, scratch), n, False, &terms[0], &chunk)
        merge(state, &chunk, NEXT_TO_MAXIMUM, 1, <floating>0)
        j += n


cdef inline void multiply_values(const SingleRow *row, floating *values, Py_ssize_t n) noexcept nogil:
    """By what is left of the scale."""
    if has_factors_left(row):
        multiply_classes(values, n, sizeof(floating), row.factor, row.exponent)


cdef inline void write_classes(
    Formula formula, const SingleRow *row,
    const floating *terms,      # IN   (n_classes,), for TERMS; may be scratch
    const floating *numbers,    # IN   (N_NUMBERS,)
    floating *scratch,          # (CHUNK,)
) noexcept nogil:
    cdef floating[96] lanes     # (N_NUMBERS, 16)
    cdef const floating *source
    cdef floating *to
    cdef char *out
    cdef Py_ssize_t j = 0, n, n_classes = row.n_classes
    cdef bint at_once = is_own_place(row.out_storage, row.out, scratch[0])
    cdef int k, l
    for k in range(6 if formula == LOGITS else 2):
        for l in range(LANES):
            lanes[LANES * k + l] = numbers[k]
    while j < n_classes:
        n = n_classes - j if n_classes - j < CHUNK else CHUNK
        source = terms if formula == TERMS else brought(row.x_storage, row.x, j, n, scratch)
        out = row.out + j * size_of(row.out_storage)
        to = <floating *>out if at_once else scratch
        write_row(formula, source, n, <const floating *>&lanes[0], NULL, to)
        multiply_values(row, to, n)
        if not at_once:
            write_numbers(row.out_storage, <const floating *>to, n, out)
        j += n


cdef inline void write_element(const SingleRow *row, Py_ssize_t j, floating value) noexcept nogil:
    write_numbers(row.out_storage, <const floating *>&value, 1, row.out + j * size_of(row.out_storage))


cdef inline void fill(const SingleRow *row, floating value) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(row.n_classes):
        write_element(row, j, value)


cdef inline void write_lanes(
    Formula formula, const floating *source, Py_ssize_t n_classes, const floating *numbers, floating *out,
) noexcept nogil:
    """write_classes() for a short row, whose source is filled up to whole groups of lanes, into its own place."""
    cdef floating[32] lanes     # (2, 16)
    cdef floating[LANES] values
    cdef Py_ssize_t j
    cdef int l
    for l in range(LANES):
        lanes[l], lanes[16 + l] = numbers[FACTOR], numbers[FACTOR_LOW]
    for j in range(0, n_classes, 16):
        write_group(formula, source + j, <const floating *>&lanes[0], LANES, NULL, &values[0])
        store_lanes(<const floating *>&values[0], n_classes - j, out + j)


cdef inline void write_shares(
    const SingleRow *row,
    const State *state,
    ReferenceKind kind,
    bint short,                 # x is short
    const floating *terms,      # IN   of all classes, or NULL: they are computed again
    floating *scratch,          # (CHUNK,); may be terms
) noexcept nogil:
    """Probabilities times the scale; for a GRADIENT, that of the target minus the scale."""
    cdef floating[6] numbers    # (N_NUMBERS,)
    cdef double factor, factor_low, rest
    cdef floating at_target = 0, maximum = <floating>state.maximum, top = top_term(maximum, kind)
    cdef bint has_target = row.output == GRADIENT and 0 <= row.target < row.n_classes
    share(row.scale, top, state.sum, state.carry, state.ties, &factor, &factor_low)
    split_factor(factor, factor_low, 1, &numbers[FACTOR], &numbers[FACTOR_LOW], &numbers[UNSCALE])
    if has_target:
        at_target = terms[row.target] if terms != NULL else (
            term_at(element(row.x_storage, row.x, row.target, maximum), maximum, kind, NULL))
        rest = all_but(at_target, top, state.sum, state.carry, state.ties)
        at_target = away_from(factor, factor_low, rest, at_target)
    if terms == NULL or not is_large(factor, top) and factor != 0:
        store_reference(refer(maximum, kind), &numbers[REFERENCE], 1)
        write_classes(LOGITS, row, NULL, <const floating *>&numbers[0], scratch)
    elif short:
        write_lanes(TERMS, terms, row.n_classes, &numbers[0], <floating *>row.out)
        multiply_values(row, <floating *>row.out, row.n_classes)
    else:
        write_classes(TERMS, row, terms, <const floating *>&numbers[0], scratch)
    if has_target:
        multiply_values(row, &at_target, 1)
        write_element(row, row.target, at_target)


cdef inline double find_logarithm(
    const State *state, ReferenceKind kind,
    floating *shift, double *lost,      # OUT  the log-sum-exp in the dtype, and what its rounding lost
) noexcept nogil:
    """The logarithm of the sum of exp(x - maximum)."""
    cdef floating maximum = <floating>state.maximum
    cdef double log, low
    log1p_parts(others_of(maximum, state.sum, state.carry, kind) + state.ties, maximum, &log, &low)
    add_logarithm(maximum, 0, log, low, shift, lost)
    return log


cdef inline double finish_row(
    const SingleRow *row,
    const State *state,
    ReferenceKind kind,
    const floating *lanes,      # IN   of a short row, or NULL
    const floating *terms,      # IN   or NULL
    floating *scratch,          # (CHUNK,), or of a short row whatever holds it; may be lanes or terms
) noexcept nogil:
    cdef floating[2] numbers
    cdef floating maximum = <floating>state.maximum, shift
    cdef floating at_target = element(row.x_storage, row.x, row.target, maximum) if row.number != LOGSUMEXP else 0
    cdef double lost, log
    if maximum - maximum != 0 or isnan(state.ties):
        if row.output != NOTHING:
            fill(row, <floating>NAN)
        return maximum if row.number == LOGSUMEXP and not isnan(state.ties) else NAN
    if row.output == PROBABILITY or row.output == GRADIENT:
        write_shares(row, state, kind, lanes != NULL, terms, scratch)
    if row.output == PROBABILITY:
        return 0
    log = find_logarithm(state, kind, &shift, &lost)
    if row.output == LOG_PROBABILITY:
        numbers[FACTOR], numbers[FACTOR_LOW] = shift, <floating>(0 - lost)
        if lanes != NULL:
            write_lanes(LOGS, lanes, row.n_classes, &numbers[0], <floating *>row.out)
        else:
            write_classes(LOGS, row, NULL, <const floating *>&numbers[0], scratch)
    if row.number == LOGSUMEXP:
        return shift
    if row.number == LOSS:
        return loss_of(at_target, shift, lost, maximum, log, 1)
    return (at_target - shift) + <floating>(0 - lost)


cdef inline double run_short_row(const SingleRow *row, floating dtype_tag) noexcept nogil:
    """x and out being where the numbers can lie."""
    cdef const floating *x = <const floating *>row.x
    cdef Py_ssize_t n_classes = row.n_classes
    cdef floating[SHORT] lanes, terms
    cdef State state
    if n_classes <= 8:
        measure_short(1, AT_MAXIMUM, x, n_classes, &lanes[0], &terms[0], &state)
    elif n_classes <= LANES:
        measure_short(1, NEXT_TO_MAXIMUM, x, n_classes, &lanes[0], &terms[0], &state)
    elif n_classes <= 32:
        measure_short(2, NEXT_TO_MAXIMUM, x, n_classes, &lanes[0], &terms[0], &state)
    else:
        measure_short(4, NEXT_TO_MAXIMUM, x, n_classes, &lanes[0], &terms[0], &state)
    return finish_row(row, &state, kind_of(n_classes, 1), <const floating *>&lanes[0], <const floating *>&terms[0],
                      &lanes[0])


cdef inline double run_short_copy(const SingleRow *row, floating dtype_tag) noexcept nogil:
    """run_short_row() of a row that does not lie where its numbers can."""
    cdef floating[SHORT] x, out
    cdef SingleRow copy = row[0]
    cdef double result
    read_numbers(row.x_storage, row.x, row.n_classes, &x[0])
    copy.x, copy.out = <const char *>&x[0], <char *>&out[0]
    copy.x_storage = copy.out_storage = own_storage(dtype_tag)
    result = run_short_row(&copy, dtype_tag)
    if row.output != NOTHING:
        write_numbers(row.out_storage, <const floating *>&out[0], row.n_classes, row.out)
    return result


cdef double run_copied_row(const SingleRow *row) noexcept nogil:
    """A row of one chunk and of float32 lanes that does not lie where these can."""
    cdef float[CHUNK] x, terms
    cdef State state
    read_numbers(row.x_storage, row.x, row.n_classes, &x[0])
    measure_row(<const float *>&x[0], row.n_classes, True, &terms[0], &state)
    return finish_row(row, &state, NEXT_TO_MAXIMUM, NULL, <const float *>&terms[0], &terms[0])


cdef double run_long_row(const SingleRow *row, floating dtype_tag) noexcept nogil:
    """Also a row that does not lie where its numbers can."""
    cdef floating[CHUNK] scratch        # of the terms, or of numbers that are brought where they can lie
    cdef State state
    cdef bint keep_terms = row.n_classes <= CHUNK and is_own_place(row.x_storage, row.x, dtype_tag)
    state = State(-INFINITY, 0, 0, -1)
    if keep_terms:
        measure_row(<const floating *>row.x, row.n_classes, True, &scratch[0], &state)
    else:
        add_classes(&state, row.x_storage, row.x, row.n_classes, &scratch[0])
    return finish_row(row, &state, NEXT_TO_MAXIMUM, NULL, <const floating *>&scratch[0] if keep_terms else NULL,
                      &scratch[0])


cdef inline double run_row(const SingleRow *row, floating dtype_tag) noexcept nogil:
    cdef bint own_place
    if row.number != LOGSUMEXP and not 0 <= row.target < row.n_classes:
        return NAN
    if row.n_classes <= 0:
        return -INFINITY
    own_place = is_own_place(row.x_storage, row.x, dtype_tag)
    if row.n_classes > SHORT:
        if floating is float:       # two chunks of doubles would take too much of the stack
            if not own_place and row.n_classes <= CHUNK:
                return run_copied_row(row)
        return run_long_row(row, dtype_tag)
    if own_place and (row.output == NOTHING or is_own_place(row.out_storage, row.out, dtype_tag)):
        return run_short_row(row, dtype_tag)
    return run_short_copy(row, dtype_tag)


# ---- The build's functions for either dtype ----

cdef double row_f32(const SingleRow *row) noexcept nogil:
    return run_row(row, <float>0)


cdef double row_f64(const SingleRow *row) noexcept nogil:
    return run_row(row, <double>0)
