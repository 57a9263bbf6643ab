# cython: cdivision=True
# exp and log on lanes: branch-free scalars that the compiler turns into vectors of any width.
# Each comes with the derivation of its error; u is half a unit in the last place of 1 (2**-24, 2**-53).
# Without fused multiply-add each step of a polynomial rounds twice, which costs about 0.3 units more.

from cython cimport floating

from csoftmax.kernels.fetch cimport fetch_block

cdef extern from "bits.h" nogil:
    float mul_add_f32(float, float, float)
    double mul_add_f64(double, double, double)
    float product_rest_f32(float, float, float)
    double product_rest_f64(double, double, double)
    float power_f32(float)
    double power_f64(double)
    double inverse_power_f64(double)
    double exponent_f64(double)


cdef inline floating mul_add(floating a, floating b, floating c) noexcept nogil:
    if floating is float:
        return mul_add_f32(a, b, c)
    else:
        return mul_add_f64(a, b, c)


cdef inline floating product_rest(floating a, floating b, floating product) noexcept nogil:
    """a * b - product, where `product` is a * b or next to it: exact unless it is subnormal."""
    if floating is float:
        return product_rest_f32(a, b, product)
    else:
        return product_rest_f64(a, b, product)


cdef inline double two_to_the(double n) noexcept nogil:
    """2**n for a whole n above -1023."""
    return power_f64(6755399441055744.0 + 1023 + n)


cdef inline double term_scale(floating dtype_tag) noexcept nogil:
    """The scale of terms, 2**64 in float32 and 2**512 in float64: it keeps those exact that would be subnormal, or 0,
    without it. Whoever uses a term multiplies by something per row, which takes the scale back for nothing and rounds
    once, also into the subnormals."""
    if floating is float:
        return 18446744073709551616.0
    else:
        return 1.3407807929942597e154


cdef enum ReferenceKind:    # what the terms of a row refer to
    NEXT_TO_MAXIMUM         # the multiple of ln 2 next to the maximum
    AT_MAXIMUM              # the maximum itself
    DIVIDED                 # the same, and differences are divided by a temperature

cdef struct Reference:      # of a row: see refer(). All are of the dtype, and exact in double
    double origin           # what is taken from a logit first
    double cutoff           # logits below origin + cutoff have terms of 0
    double exponent_bias    # makes the exponent field of a term from its power of two

cdef enum:                  # a reference in an array of the dtype, where rows are lanes
    ORIGIN
    CUTOFF
    EXPONENT_BIAS
    N_REFERENCE

cdef enum:                  # the numbers of a temperature T: see choose_divisor()
    BEFORE
    AFTER
    DIVISOR
    DIVISOR_LOW
    INVERSE
    N_DIVIDE


cdef inline void choose_divisor(double temperature, floating *divide) noexcept nogil:
    """Powers of two: BEFORE of logits, so that their difference does not overflow where its quotient need not; AFTER of
    differences, where T is extreme; DIVISOR + DIVISOR_LOW = T times both, whose inverse is normal; and that inverse."""
    cdef double before = 0.25 if temperature > 1 else 1, after = 1, divisor
    if floating is double:
        if temperature < 1.1830521861667747e-271:       # 2**-900
            after = 4.149515568880993e+180              # 2**600
        elif temperature > 8.452712498170644e+270:
            before = 2.4099198651028841e-181
    divisor = temperature * before * after
    divide[BEFORE] = <floating>before
    divide[AFTER] = <floating>after
    divide[DIVISOR] = <floating>divisor
    divide[DIVISOR_LOW] = <floating>(divisor - divide[DIVISOR])
    divide[INVERSE] = <floating>(1 / divisor)


cdef inline Reference refer(floating maximum, ReferenceKind kind) noexcept nogil:
    """What the terms of a row refer to: M = origin + n ln 2, the number of that kind next to the maximum.

    The origin is 0, so that x - origin is x, unless |maximum| is so large that every x that counts is within a factor
    of two of it, and x - maximum is exact (Sterbenz): then it is the maximum, as it is for the other kinds.
    `exponent_bias` holds -n, the bias of the exponent field and the power of the scale, added to 1.5 * 2**23 (2**52),
    so that adding to it rounds to an integer. `cutoff` is where that field becomes 0, and with it the terms: at
    x - M = -132.4 (-1064), far below what the dtype can hold.
    """
    cdef Reference reference
    cdef floating origin, n
    if floating is float:
        origin = <floating>0 if kind == NEXT_TO_MAXIMUM and -264 <= maximum <= 264 else maximum
        n = mul_add(maximum - origin, <floating>1.44269504088896341, <floating>12582912.0) - <floating>12582912.0
        reference.cutoff = (n - <floating>191.0) * <floating>0.6931471805599453
        reference.exponent_bias = <floating>12583103.0 - n
    else:
        origin = <floating>0 if kind == NEXT_TO_MAXIMUM and -2200 <= maximum <= 2200 else maximum
        n = mul_add(maximum - origin, <floating>1.44269504088896341, <floating>6755399441055744.0) - (
            <floating>6755399441055744.0)
        reference.cutoff = (n - <floating>1535.0) * <floating>0.6931471805599453
        reference.exponent_bias = <floating>6755399441057279.0 - n
    reference.origin = origin
    return reference


cdef inline double multiple_of(Reference reference, floating dtype_tag) noexcept nogil:
    """The n of a reference."""
    return (12583103.0 if floating is float else 6755399441057279.0) - reference.exponent_bias


cdef inline void store_reference(Reference reference, floating *to, Py_ssize_t step) noexcept nogil:
    """To a column of (N_REFERENCE, step) numbers: rows that are lanes need them in the dtype, side by side."""
    to[ORIGIN * step] = <floating>reference.origin
    to[CUTOFF * step] = <floating>reference.cutoff
    to[EXPONENT_BIAS * step] = <floating>reference.exponent_bias


cdef inline Reference reference_at(const floating *column, Py_ssize_t step) noexcept nogil:
    """From there. Nothing is converted: the compiler knows that double and back is the same number."""
    cdef Reference reference
    reference.origin = column[ORIGIN * step]
    reference.cutoff = column[CUTOFF * step]
    reference.exponent_bias = column[EXPONENT_BIAS * step]
    return reference


cdef inline floating short_rest(floating r) noexcept nogil:
    """q with exp(r) = 1 + r + r**2 q for |r| <= 0.3475; minimax for the relative error of exp, 2**-28.2 = 0.05 u."""
    cdef floating q = <floating>0.0013814261033573934
    q = mul_add(q, r, <floating>0.008368898722764678)
    q = mul_add(q, r, <floating>0.04166840510034069)
    q = mul_add(q, r, <floating>0.16666519130277124)
    return mul_add(q, r, <floating>0.49999993348327837)


cdef inline floating long_rest(floating r) noexcept nogil:
    """The same for float64: 2**-56.8 = 0.07 u."""
    cdef floating q = <floating>2.5110348748311002e-08
    q = mul_add(q, r, <floating>2.763304439748786e-07)
    q = mul_add(q, r, <floating>2.755724154178541e-06)
    q = mul_add(q, r, <floating>2.4801486292305718e-05)
    q = mul_add(q, r, <floating>0.00019841269887295506)
    q = mul_add(q, r, <floating>0.001388888894873705)
    q = mul_add(q, r, <floating>0.008333333333321976)
    q = mul_add(q, r, <floating>0.041666666666518984)
    q = mul_add(q, r, <floating>0.16666666666666674)
    return mul_add(q, r, <floating>0.500000000000001)


cdef inline void divided(
    floating x, floating maximum, const floating *divide, floating *high, floating *low,
) noexcept nogil:
    """(x - maximum) / T as high + low, to 2**-46 (2**-104) of it; but where it is huge, and only its size matters."""
    cdef floating shifted, back, rest
    x *= divide[BEFORE]
    maximum *= divide[BEFORE]
    shifted = x - maximum
    back = shifted - x
    rest = (x - (shifted - back)) - (maximum + back)
    if floating is double:
        shifted *= divide[AFTER]
        rest *= divide[AFTER]
    high[0] = shifted * divide[INVERSE]
    if floating is float:
        rest = mul_add(-high[0], divide[DIVISOR_LOW], rest)
    rest = (rest - product_rest(high[0], divide[DIVISOR], shifted)) * divide[INVERSE]
    low[0] = rest if high[0] > -<floating>1e30 else <floating>0


cdef inline void reduce(
    floating x, Reference reference, ReferenceKind kind, const floating *divide, floating *r, floating *k,
) noexcept nogil:
    """The first half of term(): r, and k added to the exponent's bias."""
    cdef floating origin = <floating>reference.origin, cutoff = <floating>reference.cutoff
    cdef floating exponent_bias = <floating>reference.exponent_bias
    cdef floating shifted, back, rest, multiple
    if kind == DIVIDED:
        divided(x, origin, divide, &shifted, &rest)
        rest = rest if shifted > cutoff else <floating>0
    else:
        shifted = x - origin
    if kind == AT_MAXIMUM:
        back = shifted - x
        rest = (x - (shifted - back)) - (origin + back)
        rest = rest if shifted > cutoff else <floating>0
    shifted = cutoff if cutoff > shifted else shifted       # NaN stays
    k[0] = mul_add(shifted, <floating>1.44269504088896341, exponent_bias)
    multiple = k[0] - exponent_bias
    if floating is float:
        r[0] = mul_add(-multiple, <floating>0.69317626953125, shifted)
        r[0] = mul_add(-multiple, <floating>-2.908897130469058e-05, r[0] + rest if kind != NEXT_TO_MAXIMUM else r[0])
    else:
        r[0] = mul_add(-multiple, <floating>0.6931471805601177, shifted)
        r[0] = mul_add(-multiple, <floating>-1.7239444525614835e-13, r[0] + rest if kind != NEXT_TO_MAXIMUM else r[0])


cdef inline floating raised(floating r, floating rest, floating k) noexcept nogil:
    """The last half of term(): 2**k exp(r), rest being q(r)."""
    cdef floating scale
    if floating is float:
        scale = power_f32(k)
    else:
        scale = power_f64(k)
    return mul_add(mul_add(rest * r, r, r), scale, scale)


cdef inline floating term(
    floating x, Reference reference, ReferenceKind kind, const floating *divide,
) noexcept nogil:
    """exp(x - M) * term_scale, M as told by refer(); 0 for x = -inf and what is below the cutoff, NaN for NaN.

    Rounding x - maximum would cost |x - maximum| / 2 units in the last place. It is not needed: M is a multiple of
    ln 2 from an origin whose distance to x is exact. With k = rint((x - origin) / ln 2), ln 2 = LN2_HIGH + LN2_LOW,

        r = ((x - origin) - k * LN2_HIGH) - k * LN2_LOW       |r| <= 0.3475
        exp(x - M) = 2**(k - n) * (1 + (r + r * (r * q(r))))

    k * LN2_HIGH is exact (10 + 14 bits in float32, 13 + 39 in float64), and so is the difference: both lie on one
    grid, of at least 2**-25 (2**-54). So r has one rounding, 0.25 u at most, as has the sum in parentheses, beside
    which r * q(r) and q cost 0.1 u; the result's own is half a unit: at most 1.1 units in the last place.
    The exponent field of the scale is in the low bits of `exponent_bias` + k: a shift moves them there.

    That M is not the maximum costs every row its exp(maximum - M). Rows of few classes do without: terms AT_MAXIMUM
    refer to the maximum itself, and what rounding takes from x - maximum (Knuth's two-sum) is added to r. So do DIVIDED
    ones, exp((x - maximum) / T) * term_scale, where it is also what rounding takes from the quotient; `divide` has the
    numbers of T.
    """
    cdef floating r, k
    reduce(x, reference, kind, divide, &r, &k)
    if floating is float:
        return raised(r, short_rest(r), k)
    else:
        return raised(r, long_rest(r), k)


cdef inline void terms_of_block(
    const floating *x, int n, Py_ssize_t ahead, Py_ssize_t output, Reference reference, ReferenceKind kind,
    const floating *divide, floating *terms,
) noexcept nogil:
    """term() for n neighbours, a constant of at most 32, in stages, while those `ahead` elements on are fetched, and
    those `output` bytes on unless it is 0.

    A term is one chain of 13 steps, of which few fit a processor's window of waiting instructions: side by side, four
    vectors at a time, they take three quarters of the time.
    """
    cdef floating[32] r, k, q
    cdef int l
    fetch_block(<const char *>(x + ahead), 32 * sizeof(floating))
    if output:
        fetch_block(<const char *>x + output, 32 * sizeof(floating))
    for l in range(n):
        reduce(x[l], reference, kind, divide, &r[l], &k[l])
    for l in range(n):
        q[l] = short_rest(r[l]) if floating is float else long_rest(r[l])
    for l in range(n):
        terms[l] = raised(r[l], q[l], k[l])


cdef inline double exp_parts(double x, double x_low, double *high, double *low) noexcept nogil:
    """exp(x + x_low) as 2**n (high + low), to 0.05 u; n is returned."""
    cdef double n = mul_add(x, 1.44269504088896341, 6755399441055744.0) - 6755399441055744.0
    cdef double first = mul_add(-n, 0.6931471805601177, x)
    cdef double second = mul_add(-n, -1.7239444525614835e-13, x_low)
    cdef double r = first + second
    cdef double whole = 1 + r
    second = (first - r) + second
    second = ((1 - whole) + r) + mul_add(r * r, long_rest(r), mul_add(second, r, second))
    high[0] = whole + second
    low[0] = (whole - high[0]) + second
    return n


cdef inline double times_power(double x, double n) noexcept nogil:
    """x * 2**n for n <= 0, rounded once; 0 from 2**-2000 on."""
    if n > -1000:
        return x * two_to_the(n)
    return x * two_to_the(-1000) * two_to_the(n + 1000) if n > -2000 else 0 * x


cdef inline void reference_parts(floating maximum, double *high, double *low) noexcept nogil:
    """exp(M - maximum) as high + low, to 0.05 u of the dtype: what terms NEXT_TO_MAXIMUM are multiplied by."""
    cdef double offset, offset_low, r, power
    reference_offset(maximum, &offset, &offset_low)
    if floating is float:
        r = offset + offset_low
        high[0] = mul_add(r * short_rest(r), r, 1 + r)
        low[0] = 0
    else:
        power = two_to_the(exp_parts(offset, offset_low, high, low))
        high[0] *= power
        low[0] *= power


cdef inline void reference_offset(floating maximum, double *high, double *low) noexcept nogil:
    """M - maximum of terms NEXT_TO_MAXIMUM as high + low; high is exact."""
    cdef Reference reference = refer(maximum, NEXT_TO_MAXIMUM)
    cdef double n = multiple_of(reference, maximum)
    high[0] = mul_add(n, 0.6931471805601177, reference.origin - <double>maximum)
    low[0] = n * -1.7239444525614835e-13


cdef inline double short_log_rest(double f) noexcept nogil:
    """p with log(1 + f) = f - f**2 / 2 + f**3 p for f in [sqrt(1/2) - 1, sqrt(2) - 1]; minimax for the relative error
    of log1p, 2**-32.7: 0.002 units in the last place of float32."""
    cdef double p = -0.05987876265001076
    p = mul_add(p, f, 0.10650321757189354)
    p = mul_add(p, f, -0.10825005096185271)
    p = mul_add(p, f, 0.11033682059854177)
    p = mul_add(p, f, -0.12423293442127994)
    p = mul_add(p, f, 0.1428521007860071)
    p = mul_add(p, f, -0.16669465845497677)
    p = mul_add(p, f, 0.20000090127227688)
    p = mul_add(p, f, -0.2499996601478522)
    return mul_add(p, f, 0.3333333235563973)


cdef inline double long_log_rest(double f) noexcept nogil:
    """The same for float64: 2**-56.5."""
    cdef double p = 0.026240434846314272
    p = mul_add(p, f, -0.060015965047611274)
    p = mul_add(p, f, 0.06514835554160507)
    p = mul_add(p, f, -0.056749364133322724)
    p = mul_add(p, f, 0.056641191576952216)
    p = mul_add(p, f, -0.06196259743659509)
    p = mul_add(p, f, 0.06685168940052379)
    p = mul_add(p, f, -0.07149564115753201)
    p = mul_add(p, f, 0.07691490517968107)
    p = mul_add(p, f, -0.08332901875352836)
    p = mul_add(p, f, 0.0909092533381537)
    p = mul_add(p, f, -0.10000015752199408)
    p = mul_add(p, f, 0.11111111122965615)
    p = mul_add(p, f, -0.12499999677990666)
    p = mul_add(p, f, 0.14285714280240278)
    p = mul_add(p, f, -0.16666666669986782)
    p = mul_add(p, f, 0.20000000000067106)
    p = mul_add(p, f, -0.2499999999998728)
    return mul_add(p, f, 0.33333333333333137)


cdef inline void log1p_parts(double s, floating dtype_tag, double *high, double *low) noexcept nogil:
    """log(1 + s) as high + low, for s >= 0; NaN for NaN; as exact as the dtype needs it.

    With 2**e next to 1 + s in ratio and f = (1 + s) / 2**e - 1, in [sqrt(1/2) - 1, sqrt(2) - 1]:

        log(1 + s) = e ln 2 + f - f**2 / 2 + f**3 * p(f)

    f = s exactly where e = 0, one rounding elsewhere. e * LN2_HIGH is exact; what rounding takes from the sum stays in
    low, whose own error is below 0.2 u of it.
    """
    cdef double inverse = inverse_power_f64(1 + s)
    cdef double f = mul_add(s, inverse, inverse - 1)
    cdef double e = exponent_f64(inverse)
    cdef double p = short_log_rest(f) if floating is float else long_log_rest(f)
    cdef double square = f * f
    cdef double main = e * 0.6931471805598903
    cdef double rest = mul_add(e, 5.497923018708371e-14, square * mul_add(f, p, -0.5))
    cdef double sum = main + f
    # Dekker's fast two-sum, twice: |main| >= |f| or main = 0, and |sum| >= |rest|.
    rest = rest + ((main - sum) + f)
    high[0] = sum + rest
    low[0] = rest - (high[0] - sum)
