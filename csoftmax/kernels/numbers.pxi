# The numbers of one row, from its state: for rows.pxi's and columns.pxi's tiles, in loops over rows that become
# vectors, and for single rows. In all of them `near` says whether the row's terms refer to the maximum itself.

cdef inline bint are_near(Py_ssize_t n_classes) noexcept nogil:
    """Whether the terms of a whole row of so many classes refer to its maximum: such rows are always lanes."""
    return n_classes <= 8


cdef inline floating term_at(floating x, floating maximum, bint near) noexcept nogil:
    """The term of x in a row whose maximum is given."""
    cdef floating origin, least, magic
    refer(maximum, near, &origin, &least, &magic)
    return term(x, origin, least, magic, True)


cdef inline void share(
    double numerator, floating top, double sum, double ties, double *factor, double *factor_low,
) noexcept nogil:
    """numerator / (the maximum's terms + those of the others), and what its roundings leave; top is the maximum's."""
    cdef double high = top * (1 / unit(top)) * (1 + ties)
    cdef double total = high + sum
    cdef double back = total - high
    cdef double low = (high - (total - back)) + (sum - back)
    cdef double inverse = 1 / total
    cdef double m = numerator * inverse
    factor[0] = m
    factor_low[0] = (mul_add(-m, total, numerator) - m * low) * inverse


cdef inline bint is_large(double factor, floating like) noexcept nogil:
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
    cdef double back = 1 / unit(high[0])
    cdef bint large = is_large(factor, high[0])
    cdef floating whole = <floating>factor
    cdef double coarse = whole * (65536.0 if floating is float else 9.5367431640625e-07)
    cdef floating rest = <floating>((((factor - whole) + factor_low) + coarse) - coarse)
    unscale[0] = <floating>(1 if large else back)
    power = power * (back if large else 1)
    high[0] = whole * <floating>power
    low[0] = rest * <floating>power


cdef inline double all_but(floating at_target, floating top, double sum, double ties) noexcept nogil:
    """The sum of all terms but the target's, of the unit 1."""
    return (top * ties + (<double>top - at_target)) * (1 / unit(top)) + sum


cdef inline floating away_from(double factor, double factor_low, double others, floating like) noexcept nogil:
    """The gradient at the target, -(factor * others); never -0.0, which some compilers' way to negate a multiply-add
    would make it and others' not."""
    return <floating>0 - <floating>mul_add(factor, others, factor_low * others)


cdef inline double others_of(floating maximum, double sum) noexcept nogil:
    """The sum of exp(x - maximum) over the classes below it, from that of exp(x - M), or that itself for near rows."""
    cdef double high, low
    reference(maximum, &high, &low)
    return sum * high if floating is float else mul_add(sum, high, sum * low)


cdef inline void logarithm(
    floating maximum, double others, double ties, floating *shift, double *lost, double *log,
) noexcept nogil:
    """logsumexp = shift + lost: in the dtype, and what its rounding lost; log is logsumexp - maximum."""
    cdef double low, rounded, back, m = maximum
    log1p_parts(others + ties, maximum, log, &low)
    shift[0] = <floating>(m + log[0])
    rounded = shift[0]
    back = rounded - m
    lost[0] = low + ((m - (rounded - back)) + (log[0] - back))


cdef inline double loss_of(floating at_target, floating shift, double lost) noexcept nogil:
    """(shift - x_t) + lost, the difference exact; an infinite one is the loss."""
    cdef double m = -<double>at_target
    cdef double high = shift + m
    cdef double back = high - shift
    cdef double low = (shift - (high - back)) + (m - back)
    return high + (low + lost) if high < INFINITY else high


cdef inline void merge(
    floating *maximum, double *sum, double *ties, floating chunk_maximum, double chunk_sum, double chunk_ties,
) noexcept nogil:
    """Add a chunk's state to a row's: the larger maximum stays, the other side joins the sum."""
    cdef floating high = maximum[0], low = chunk_maximum
    cdef double ratio
    if high == low:
        sum[0] += chunk_sum
        ties[0] += chunk_ties + 1
        return
    if low > high:
        high, low = low, high
        sum[0], chunk_sum = chunk_sum, sum[0]
        ties[0], chunk_ties = chunk_ties, ties[0]
    maximum[0] = high
    ratio = reference_ratio(low, high)
    if ratio > 0:               # 0 also if one of them is infinite
        sum[0] += (chunk_sum + (1 + chunk_ties) * top_term(low)) * ratio
    ties[0] += 0 * chunk_ties   # NaN stays
