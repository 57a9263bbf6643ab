# cython: cdivision=True
# The numbers of one row, from its state: for tiles, in loops over rows that become vectors, and for single rows; and
# states that are merged. A state's sum and carry bear the scale of terms; `kind` tells what these refer to.

from cython cimport floating
from libc.math cimport INFINITY, NAN, fabs

from csoftmax.kernels.exp cimport (
    AT_MAXIMUM, DIVIDED, NEXT_TO_MAXIMUM, Reference, ReferenceKind, choose_divisor, divided, exp_parts, mul_add,
    product_rest, refer, reference_offset, reference_parts, term, term_scale, times_power,
)
from csoftmax.kernels.lanes cimport exact_sum, has_nan
from csoftmax.kernels.task cimport State


cdef inline ReferenceKind kind_of(Py_ssize_t n_classes, double temperature) noexcept nogil:
    """What the terms of whole rows refer to. Rows so short are always lanes."""
    return DIVIDED if temperature != 1 else AT_MAXIMUM if n_classes <= 8 else NEXT_TO_MAXIMUM


cdef inline floating term_at(
    floating x, floating maximum, ReferenceKind kind, const floating *divide,
) noexcept nogil:
    """The term of x in a row whose maximum is given."""
    return term(x, refer(maximum, kind), DIVIDED if kind == DIVIDED else AT_MAXIMUM, divide)


cdef inline floating top_term(floating maximum, ReferenceKind kind) noexcept nogil:
    """The term of the maximum itself."""
    return <floating>term_scale(maximum) if kind != NEXT_TO_MAXIMUM else (
        term_at(maximum, maximum, NEXT_TO_MAXIMUM, NULL))


cdef inline void share(
    double numerator, floating top, double sum, double carry, double ties, double *factor, double *factor_low,
) noexcept nogil:
    """numerator / (the maximum's terms + those of the others), and what its roundings leave; top is the maximum's."""
    cdef double back_to_one = 1 / term_scale(top)
    cdef double others = sum * back_to_one
    cdef double high = top * back_to_one * (1 + ties)
    cdef double total = high + others
    cdef double back = total - high
    cdef double low = ((high - (total - back)) + (others - back)) + carry * back_to_one
    cdef double inverse = 1 / total
    cdef double m = numerator * inverse
    factor[0] = m
    factor_low[0] = (mul_add(-m, total, numerator) - m * low) * inverse


cdef inline bint is_large(double factor, floating dtype_tag) noexcept nogil:
    """Whether a factor in the two parts that split_factor() makes loses no digit when it takes the scale of terms back:
    the lower part's last place is 2**-36 (2**-72) of the upper."""
    cdef double small = 2e-15 if floating is float else 1e-147
    return fabs(factor) > small


cdef inline void split_factor(
    double factor, double factor_low, double power, floating *high, floating *low, floating *unscale,
) noexcept nogil:
    """What terms are multiplied by, in the dtype: unscale, then high + low = factor * power for all of them together.

    A factor that is not large loses digits if the scale is taken back with it: then the term is freed of it first.
    `low` has few digits, so that it is the same, but for the power of two, for every power that leaves it large.
    """
    cdef bint large = is_large(factor, high[0])
    cdef double back = 1 / term_scale(high[0])
    # Taken back before the factor is rounded: one that is too large for the dtype then need not be.
    cdef double scaled = factor * back if large else factor
    cdef floating whole = <floating>scaled
    cdef double coarse = whole * (65536.0 if floating is float else 9.5367431640625e-07)
    cdef double left = (scaled - whole) + (factor_low * back if large else factor_low)
    cdef floating rest = <floating>((left + coarse) - coarse)
    unscale[0] = <floating>(1 if large else back)
    high[0] = whole * <floating>power
    low[0] = rest * <floating>power


cdef inline double all_but(floating at_target, floating top, double sum, double carry, double ties) noexcept nogil:
    """The sum of all terms but the target's, in their scale."""
    return (top * ties + (<double>top - at_target)) + (sum + carry)


cdef inline floating away_from(double factor, double factor_low, double others, floating dtype_tag) noexcept nogil:
    """The gradient at the target, -(factor * others), others bearing the scale of terms, which is taken off where no
    digit is lost; never -0.0, which some compilers' way to negate a multiply-add would make it and others' not."""
    cdef double back = 1 / term_scale(dtype_tag)
    cdef bint large = fabs(factor) >= 1
    factor = factor * back if large else factor
    factor_low = factor_low * back if large else factor_low
    others = others if large else others * back
    return <floating>0 - <floating>mul_add(factor, others, factor_low * others)


cdef inline double others_of(
    floating maximum, double sum, double carry, ReferenceKind kind,
) noexcept nogil:
    """The sum of exp(x - maximum) over the classes below it."""
    cdef double high, low
    if kind != NEXT_TO_MAXIMUM:
        return (sum + carry) * (1 / term_scale(maximum))
    reference_parts(maximum, &high, &low)
    if floating is float:
        return (sum + carry) * high * (1 / term_scale(maximum))
    else:
        return mul_add(sum, high, mul_add(carry, high, sum * low)) * (1 / term_scale(maximum))


cdef inline void add_logarithm(
    double m, double m_low, double log, double low, floating *shift, double *lost,
) noexcept nogil:
    """m + log(1 + s) = shift + lost, from what log1p_parts() gives: in the dtype, and what its rounding lost."""
    cdef double rounded, back
    shift[0] = <floating>(m + log)
    rounded = shift[0]
    back = rounded - m
    lost[0] = (low + m_low) + ((m - (rounded - back)) + (log - back))


cdef inline void quotient_parts(double x, double temperature, double *high, double *low) noexcept nogil:
    """x / temperature."""
    high[0] = x / temperature
    low[0] = -product_rest(high[0], temperature, x) / temperature
    low[0] = low[0] if fabs(low[0]) < INFINITY else 0


cdef inline floating divided_log(
    floating x, floating maximum, floating minus_log, const floating *divide,
) noexcept nogil:
    """(x - maximum) / T - log."""
    cdef floating high, low
    divided(x, maximum, divide, &high, &low)
    return high + (low + minus_log)


cdef inline double half_difference(double high, double low) noexcept nogil:
    """(high - low) / 2, which does not overflow where high - low does; halves of subnormals would lose a bit."""
    cdef double difference = high - low
    return 0.5 * difference if fabs(difference) < INFINITY else 0.5 * high - 0.5 * low


cdef inline double loss_of(
    floating at_target, floating shift, double lost, double maximum, double log, double temperature,
) noexcept nogil:
    """(shift - x_t) + lost, the difference exact, or (maximum - x_t) / temperature + log; infinite, it is the loss."""
    cdef double m = -<double>at_target
    cdef double high = shift + m
    cdef double back = high - shift
    cdef double low = (shift - (high - back)) + (m - back)
    if temperature != 1:
        high = maximum - at_target
        high = high / temperature if high < INFINITY else 2 * (half_difference(maximum, at_target) / temperature)
        return high + log
    return high + (low + lost) if high < INFINITY else high


cdef inline void settle_infinite(
    const floating *x, Py_ssize_t n_classes, Py_ssize_t class_stride, double *sum, double *ties,
) noexcept nogil:
    """What is known of classes whose maximum is infinite: there are no terms, so that a NaN is looked for
    among the classes themselves."""
    sum[0] = 0
    ties[0] = NAN if has_nan(x, n_classes, class_stride) else 0


# ---- States that are merged ----

cdef inline void scale_by_exp(double x, double x_low, double *sum, double *carry) noexcept nogil:
    """Multiply sum + carry by exp(x + x_low), x <= 0."""
    cdef double high, low, product, n
    if not x > -1400:           # also -inf: nothing is left even of 2**512 times 2**63
        sum[0] = carry[0] = 0
        return
    n = exp_parts(x, x_low, &high, &low)
    product = sum[0] * high
    low = product_rest(sum[0], high, product) + (sum[0] * low + carry[0] * high)
    sum[0] = times_power(product, n)
    carry[0] = times_power(low, n)


cdef inline void refer_to(
    State *state, double maximum, ReferenceKind kind, double temperature, floating dtype_tag,
) noexcept nogil:
    """Bring a state's sum to the reference of a larger maximum, with the terms of its own, which is not one any more.

    By a power of two, which is exact, where both are multiples of ln 2; else by an exponential in two parts, so that a
    thousand such steps cost no digit.
    """
    cdef Reference low = refer(<floating>state.maximum, kind), high = refer(<floating>maximum, kind)
    cdef double count = 1 + state.ties
    cdef double top = count * top_term(<floating>state.maximum, kind)
    cdef double difference, rest, offset, offset_low, high_offset, high_offset_low
    cdef double[5] divide       # (N_DIVIDE,)
    state.sum = exact_sum(state.sum, state.carry, top, 0, &state.carry)
    if low.origin == high.origin:
        state.sum = times_power(state.sum, high.exponent_bias - low.exponent_bias)
        state.carry = times_power(state.carry, high.exponent_bias - low.exponent_bias)
        return
    if kind == DIVIDED:
        choose_divisor(temperature, &divide[0])
        divided(state.maximum, maximum, <const double *>&divide[0], &difference, &rest)
    else:
        reference_offset(<floating>state.maximum, &offset, &offset_low)
        reference_offset(<floating>maximum, &high_offset, &high_offset_low)
        offset = exact_sum(offset, offset_low, -high_offset, -high_offset_low, &offset_low)
        difference = exact_sum(state.maximum, 0, -maximum, 0, &rest)
        difference = exact_sum(difference, rest, offset, offset_low, &rest)
    scale_by_exp(difference, rest, &state.sum, &state.carry)


cdef inline void merge(
    State *state, const State *added, ReferenceKind kind, double temperature, floating dtype_tag,
) noexcept nogil:
    """Add another state to a row's: the larger maximum stays, the other side joins the sum."""
    cdef State low = added[0]
    cdef double ties
    if low.maximum == state.maximum:
        state.sum = exact_sum(state.sum, state.carry, low.sum, low.carry, &state.carry)
        state.ties += low.ties + 1
        return
    if low.maximum > state.maximum:
        state[0], low = low, state[0]
    ties = low.ties
    if low.maximum > -INFINITY and state.maximum < INFINITY:
        refer_to(&low, state.maximum, kind, temperature, dtype_tag)
        state.sum = exact_sum(state.sum, state.carry, low.sum, low.carry, &state.carry)
    state.ties += 0 * ties      # NaN stays
