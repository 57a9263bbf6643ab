# States that are the caller's: rows that come in pieces, added, merged, and made numbers and classes of. Their sums
# refer to what the dtype fixes. Those of float32 bear a mark, half a tie. One without a sum is of either dtype. Where
# the two meet, the state becomes one of float64, and the numbers are right.

from cython cimport floating
from libc.math cimport INFINITY, NAN, floor, isinf, isnan

from csoftmax.kernels.exp cimport NEXT_TO_MAXIMUM, reference_offset, term_scale
from csoftmax.kernels.lanes cimport exact_sum
from csoftmax.kernels.numbers cimport loss_of, merge, scale_by_exp
from csoftmax.kernels.single cimport SingleRow
from csoftmax.kernels.task cimport CHUNK, FLOAT64, LOGSUMEXP, RowNumber, State, size_of


cdef inline bint is_own(const State *state, floating dtype_tag) noexcept nogil:
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


cdef inline void mark(State *state, floating dtype_tag) noexcept nogil:
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


cdef inline void add_to_state(
    State *state, int storage, const char *x, Py_ssize_t n_classes, floating dtype_tag,
) noexcept nogil:
    cdef floating[CHUNK] scratch
    cdef State own
    if n_classes <= 0:
        return
    if is_own(state, <floating>0):
        own = unmarked(state)
        add_classes(&own, storage, x, n_classes, &scratch[0])
    elif floating is double:
        own = widened(state)
        add_classes(&own, storage, x, n_classes, &scratch[0])
    else:
        own = State(-INFINITY, 0, 0, -1)
        add_classes(&own, storage, x, n_classes, &scratch[0])
        mark(&own, <floating>0)
        merge_states(state, &own, <float>0)
        return
    mark(&own, <floating>0)
    state[0] = own


cdef inline void merge_states(State *state, const State *other, floating dtype_tag) noexcept nogil:
    cdef State own, added
    if is_own(state, dtype_tag) and is_own(other, dtype_tag):
        own, added = unmarked(state), unmarked(other)
        merge(&own, &added, NEXT_TO_MAXIMUM, 1, dtype_tag)
        mark(&own, dtype_tag)
    else:
        own, added = widened(state), widened(other)
        merge(&own, &added, NEXT_TO_MAXIMUM, 1, <double>0)
    state[0] = own


cdef inline double number_of_own_state(RowNumber number, const State *state, floating at_target) noexcept nogil:
    cdef floating shift
    cdef double lost, log
    if not is_finite(state):
        return state.maximum if number == LOGSUMEXP and not isnan(state.ties) else NAN
    log = find_logarithm(state, NEXT_TO_MAXIMUM, &shift, &lost)
    return shift if number == LOGSUMEXP else loss_of(at_target, shift, lost, <floating>state.maximum, log, 1)


cdef inline double number_of_state(RowNumber number, const State *state, floating at_target) noexcept nogil:
    cdef State own
    if is_own(state, at_target):
        own = unmarked(state)
        return number_of_own_state(number, &own, at_target)
    own = widened(state)
    return number_of_own_state(number, &own, <double>at_target)


cdef inline void write_own_state(const State *state, const SingleRow *row, floating dtype_tag) noexcept nogil:
    cdef floating[CHUNK] scratch
    if not is_finite(state):
        fill(row, <floating>NAN)
        return
    write_shares(row, state, NEXT_TO_MAXIMUM, False, <const floating *>NULL, &scratch[0])


cdef void write_wide_state(const State *state, const SingleRow *row) noexcept nogil:
    """Classes of float32 lanes, of a row whose state is one of float64."""
    cdef double[64] some
    cdef float[64] values
    cdef SingleRow piece = row[0]
    cdef Py_ssize_t j = 0, n, i
    piece.x, piece.out = <const char *>&some[0], <char *>&some[0]
    piece.x_storage = piece.out_storage = FLOAT64
    piece.exponent, piece.factor = 0, 1
    while j < row.n_classes:
        n = row.n_classes - j if row.n_classes - j < 64 else 64
        read_numbers(row.x_storage, row.x + j * size_of(row.x_storage), n, &some[0])
        piece.n_classes = n
        write_own_state(state, &piece, <double>0)
        for i in range(n):
            values[i] = <float>some[i]
        multiply_values(row, &values[0], n)
        write_numbers(row.out_storage, <const float *>&values[0], n, row.out + j * size_of(row.out_storage))
        piece.target -= n
        j += n


cdef inline void write_state(const State *state, const SingleRow *row, floating dtype_tag) noexcept nogil:
    cdef State own
    if is_own(state, <floating>0):
        own = unmarked(state)
        write_own_state(&own, row, dtype_tag)
    elif floating is double:
        own = widened(state)
        write_own_state(&own, row, dtype_tag)
    else:
        own = widened(state)
        write_wide_state(&own, row)


# ---- The build's functions for either dtype ----

cdef void add_f32(State *state, int storage, const char *x, Py_ssize_t n_classes) noexcept nogil:
    add_to_state(state, storage, x, n_classes, <float>0)


cdef void add_f64(State *state, int storage, const char *x, Py_ssize_t n_classes) noexcept nogil:
    add_to_state(state, storage, x, n_classes, <double>0)


cdef void merge_f32(State *state, const State *other) noexcept nogil:
    merge_states(state, other, <float>0)


cdef void merge_f64(State *state, const State *other) noexcept nogil:
    merge_states(state, other, <double>0)


cdef double number_f32(RowNumber number, const State *state, double at_target) noexcept nogil:
    return <float>number_of_state(number, state, <float>at_target)


cdef double number_f64(RowNumber number, const State *state, double at_target) noexcept nogil:
    return number_of_state(number, state, at_target)


cdef void write_f32(const State *state, const SingleRow *row) noexcept nogil:
    write_state(state, row, <float>0)


cdef void write_f64(const State *state, const SingleRow *row) noexcept nogil:
    write_state(state, row, <double>0)
