# States that are the caller's: rows that come in pieces, added, merged, and made numbers and classes of. Their sums
# refer to what the dtype fixes. Those of float32 bear a mark, half a tie. One without a sum is of either dtype. Where
# the two meet, the state becomes one of float64, and the numbers are right.

from cython cimport floating
from libc.math cimport INFINITY, NAN, floor, isinf, isnan
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from csoftmax.kernels.exp cimport NEXT_TO_MAXIMUM, reference_offset, term_scale
from csoftmax.kernels.lanes cimport exact_sum
from csoftmax.kernels.numbers cimport loss_of, merge, scale_by_exp
from csoftmax.kernels.single cimport SingleRow, single_row
from csoftmax.kernels.task cimport CHUNK, GRADIENT, LOGSUMEXP, RowNumber, State


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


cdef inline void add_to_state(State *state, const floating *x, Py_ssize_t n_classes) noexcept nogil:
    cdef floating[CHUNK] scratch
    cdef State own
    if n_classes <= 0:
        return
    if is_own(state, <floating>0):
        own = unmarked(state)
        add_classes(&own, x, n_classes, &scratch[0])
    elif floating is double:
        own = widened(state)
        add_classes(&own, x, n_classes, &scratch[0])
    else:
        own = State(-INFINITY, 0, 0, -1)
        add_classes(&own, x, n_classes, &scratch[0])
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


cdef inline void write_own_state(
    const State *state, const floating *x, Py_ssize_t n_classes, int64_t target, double scale, floating *out,
) noexcept nogil:
    cdef floating[CHUNK] scratch
    cdef SingleRow row
    if not is_finite(state):
        fill(out, n_classes, <floating>NAN)
        return
    row = single_row(GRADIENT, LOGSUMEXP, x, n_classes, target, scale, out)
    write_shares(row, state, NEXT_TO_MAXIMUM, False, <const floating *>NULL, &scratch[0])


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
