# exp and log on lanes: branch-free scalars that the compiler turns into vectors of any width.
# Each comes with the derivation of its error; u is half a unit in the last place of 1 (2**-24, 2**-53).
# Without fused multiply-add each step of a polynomial rounds twice, which costs about 0.3 units more.

cdef extern from "lanes.h" nogil:
    float mul_add_f32(float, float, float)
    double mul_add_f64(double, double, double)
    float power_f32(float)
    double power_f64(double)
    double inverse_power_f64(double)
    double exponent_f64(double)
    void prefetch(const void *)


cdef inline floating mul_add(floating a, floating b, floating c) noexcept nogil:
    if floating is float:
        return mul_add_f32(a, b, c)
    else:
        return mul_add_f64(a, b, c)


cdef inline double two_to_the(double n) noexcept nogil:
    """2**n for a whole n above -1023."""
    return power_f64(6755399441055744.0 + 1023 + n)


cdef inline double unit(floating like) noexcept nogil:
    """The scale of terms, 2**64 in float32 and 2**512 in float64: it keeps those exact that would be subnormal, or 0,
    without it. Whoever uses a term multiplies by something per row, which takes the scale back for nothing and rounds
    once, also into the subnormals."""
    if floating is float:
        return 18446744073709551616.0
    else:
        return 1.3407807929942597e154


cdef inline void refer(
    floating maximum, bint near, floating *origin, floating *least, floating *magic,
) noexcept nogil:
    """What the terms of a row refer to: M = origin + n ln 2, the number of that kind next to the maximum.

    The origin is 0, so that x - origin is x, unless |maximum| is so large that every x that counts is within a factor
    of two of it, and x - maximum is exact (Sterbenz): then it is the maximum, as it is for `near` terms. `least` is
    where terms end, about x - maximum = -130 (float64: -1060): even 2**20 terms there are less than half of the
    smallest subnormal number. `magic` holds -n, the bias of the exponent field and the unit, added to 1.5 * 2**23
    (2**52), so that adding to it rounds to an integer.
    """
    cdef floating difference
    if floating is float:
        origin[0] = <floating>0 if not near and -264 <= maximum <= 264 else maximum
        difference = maximum - origin[0]
        least[0] = difference - <floating>130
        magic[0] = <floating>12583103.0 - (
            mul_add(difference, <floating>1.44269504088896341, <floating>12582912.0) - <floating>12582912.0)
    else:
        origin[0] = <floating>0 if not near and -2200 <= maximum <= 2200 else maximum
        difference = maximum - origin[0]
        least[0] = difference - <floating>1060
        magic[0] = <floating>6755399441057279.0 - (
            mul_add(difference, <floating>1.44269504088896341, <floating>6755399441055744.0)
            - <floating>6755399441055744.0)


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


cdef inline void reduce(
    floating x, floating origin, floating least, floating magic, bint near, floating *r, floating *k,
) noexcept nogil:
    """The first half of term(): r, and k added to magic."""
    cdef floating shifted, back, rest, multiple
    shifted = x - origin
    if near:
        back = shifted - x
        rest = (x - (shifted - back)) - (origin + back)
        rest = rest if shifted > least else <floating>0
    shifted = least if least > shifted else shifted     # NaN stays
    k[0] = mul_add(shifted, <floating>1.44269504088896341, magic)
    multiple = k[0] - magic
    if floating is float:
        r[0] = mul_add(-multiple, <floating>0.69317626953125, shifted)
        r[0] = mul_add(-multiple, <floating>-2.908897130469058e-05, r[0] + rest if near else r[0])
    else:
        r[0] = mul_add(-multiple, <floating>0.6931471805601177, shifted)
        r[0] = mul_add(-multiple, <floating>-1.7239444525614835e-13, r[0] + rest if near else r[0])


cdef inline floating raised(floating r, floating rest, floating k) noexcept nogil:
    """The last half of term(): 2**k exp(r), rest being q(r)."""
    cdef floating scale
    if floating is float:
        scale = power_f32(k)
    else:
        scale = power_f64(k)
    return mul_add(mul_add(rest * r, r, r), scale, scale)


cdef inline floating term(
    floating x, floating origin, floating least, floating magic, bint near,
) noexcept nogil:
    """exp(x - M) * unit, M as told by refer(); for x = -inf less than can be seen beside it, NaN for NaN.

    Rounding x - maximum would cost |x - maximum| / 2 units in the last place. It is not needed: M is a multiple of
    ln 2 from an origin whose distance to x is exact. With k = rint((x - origin) / ln 2), ln 2 = LN2_HIGH + LN2_LOW,

        r = ((x - origin) - k * LN2_HIGH) - k * LN2_LOW       |r| <= 0.3475
        exp(x - M) = 2**(k - n) * (1 + (r + r * (r * q(r))))

    k * LN2_HIGH is exact (10 + 14 bits in float32, 13 + 39 in float64), and so is the difference: both lie on one
    grid, of at least 2**-25 (2**-54). So r has one rounding, 0.25 u at most, as has the sum in parentheses, beside
    which r * q(r) and q cost 0.1 u; the result's own is half a unit: at most 1.1 units in the last place.
    The exponent field of the scale is that of `magic` + k, whose low bits are it: a shift moves them there.

    That M is not the maximum costs every row its exp(maximum - M). Rows of few classes do without: `near` terms refer
    to the maximum itself, and what rounding takes from x - maximum (Knuth's two-sum) is added to r.
    """
    cdef floating r, k
    reduce(x, origin, least, magic, near, &r, &k)
    if floating is float:
        return raised(r, short_rest(r), k)
    else:
        return raised(r, long_rest(r), k)


cdef inline void fetch_block(const char *start, int size) noexcept nogil:
    """Ask for `size` bytes, a constant, that are needed soon; any address will do."""
    cdef int i
    for i in range(0, size, 64):
        prefetch(start + i)


cdef inline void terms_of_block(
    const floating *x, int n, Py_ssize_t ahead, Py_ssize_t output, floating origin, floating least, floating magic,
    floating *terms,
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
        reduce(x[l], origin, least, magic, False, &r[l], &k[l])
    for l in range(n):
        q[l] = short_rest(r[l]) if floating is float else long_rest(r[l])
    for l in range(n):
        terms[l] = raised(r[l], q[l], k[l])


cdef inline void reference(floating maximum, double *high, double *low) noexcept nogil:
    """exp(M - maximum) as high + low, to 0.05 u of the dtype: what the terms of the row are multiplied by."""
    cdef floating origin, least, magic
    cdef double difference, k, first, r, r_low, whole
    refer(maximum, False, &origin, &least, &magic)
    difference = maximum - origin
    if floating is float:
        k = 12583103.0 - <double>magic
        r = mul_add(k, 0.6931471805599453, -difference)
        high[0] = mul_add(r * short_rest(r), r, 1 + r)
        low[0] = 0
    else:
        k = 6755399441057279.0 - magic
        first = mul_add(k, 0.6931471805601177, -difference)
        r_low = k * -1.7239444525614835e-13
        r = first + r_low
        r_low = (first - r) + r_low
        whole = 1 + r
        r_low = ((1 - whole) + r) + mul_add(r * r, long_rest(r), mul_add(r_low, r, r_low))
        high[0] = whole + r_low
        low[0] = (whole - high[0]) + r_low


cdef inline double top_term(floating maximum) noexcept nogil:
    """exp(maximum - M) as terms have it."""
    cdef floating origin, least, magic
    refer(maximum, False, &origin, &least, &magic)
    return term(maximum, origin, least, magic, False) * (1 / unit(maximum))


cdef inline double reference_ratio(floating low, floating high) noexcept nogil:
    """exp(M of low - M of high) for low < high: what brings terms from one reference to the other.

    A power of two, and exact, where the origins are the same.
    """
    cdef floating origin, other_origin, least, magic, other_magic
    cdef double of_low, of_high, rest, apart
    refer(low, False, &origin, &least, &magic)
    refer(high, False, &other_origin, &least, &other_magic)
    if origin == other_origin:
        apart = <double>magic - <double>other_magic
        return two_to_the(-apart) if apart < 1000 else 0
    if <double>low - <double>high < -1060:  # also if one of them is infinite
        return 0
    reference(low, &of_low, &rest)
    reference(high, &of_high, &rest)
    return near_exp(low, high) * (of_low / of_high)


cdef inline double near_exp(double x, double maximum) noexcept nogil:
    """exp(x - maximum) for x <= maximum."""
    cdef double origin, least, magic
    refer(maximum, True, &origin, &least, &magic)
    return term(x, origin, least, magic, True) * (1 / unit(x))


cdef inline void log1p_parts(double s, floating like, double *high, double *low) noexcept nogil:
    """log(1 + s) as high + low, for s >= 0; NaN for NaN. `like` tells the dtype that it must be exact for.

    With 2**e next to 1 + s in ratio and f = (1 + s) / 2**e - 1, in [sqrt(1/2) - 1, sqrt(2) - 1]:

        log(1 + s) = e ln 2 + f - f**2 / 2 + f**3 * p(f)

    f = s exactly where e = 0, one rounding elsewhere. p is the minimax polynomial for the relative error of log1p,
    2**-32.7 for float32 (0.002 units in the last place) and 2**-56.5 for float64. e * LN2_HIGH is exact; what rounding
    takes from the sum stays in low, whose own error is below 0.2 u of it.
    """
    cdef double inverse = inverse_power_f64(1 + s)
    cdef double f = mul_add(s, inverse, inverse - 1)
    cdef double e = exponent_f64(inverse)
    cdef double p
    if floating is float:
        p = -0.05987876265001076
        p = mul_add(p, f, 0.10650321757189354)
        p = mul_add(p, f, -0.10825005096185271)
        p = mul_add(p, f, 0.11033682059854177)
        p = mul_add(p, f, -0.12423293442127994)
        p = mul_add(p, f, 0.1428521007860071)
        p = mul_add(p, f, -0.16669465845497677)
        p = mul_add(p, f, 0.20000090127227688)
        p = mul_add(p, f, -0.2499996601478522)
        p = mul_add(p, f, 0.3333333235563973)
    else:
        p = 0.026240434846314272
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
        p = mul_add(p, f, 0.33333333333333137)
    cdef double square = f * f
    cdef double main = e * 0.6931471805598903
    cdef double rest = mul_add(e, 5.497923018708371e-14, square * mul_add(f, p, -0.5))
    cdef double sum = main + f
    # Dekker's fast two-sum, twice: |main| >= |f| or main = 0, and |sum| >= |rest|.
    rest = rest + ((main - sum) + f)
    high[0] = sum + rest
    low[0] = rest - (high[0] - sum)
