# exp and log on lanes: branch-free scalars that the compiler turns into vectors of any width.
# Each comes with the derivation of its error; u is half a unit in the last place of 1 (2**-24, 2**-53).

cdef extern from "lanes.h" nogil:
    float mul_add_f32(float, float, float)
    double mul_add_f64(double, double, double)
    float times_power_f32(float, float)
    double times_power_f64(double, double)
    double inverse_power_f64(double)
    double exponent_f64(double)
    void prefetch(const void *)


cdef inline floating mul_add(floating a, floating b, floating c) noexcept nogil:
    if floating is float:
        return mul_add_f32(a, b, c)
    else:
        return mul_add_f64(a, b, c)


cdef inline floating one(floating like) noexcept nogil:
    """The value of scaled_exp for a difference of zero: 2**64 in float32, 2**512 in float64."""
    if floating is float:
        return 18446744073709551616.0
    else:
        return 1.3407807929942597e154


cdef inline floating scaled_exp(floating x, floating maximum) noexcept nogil:
    """exp(x - maximum) * one, for x <= maximum: 0 for x = -inf, NaN where x - maximum is NaN.

    The scale keeps terms exact that would be subnormal, or 0, without it: whoever uses a term multiplies by something
    per row, which takes the scale back for nothing and rounds once, also into the subnormals.

    x - maximum is carried as high + low (Knuth's two-sum, exact), as its rounding alone would cost |x - maximum| / 2
    units in the last place. Then, with k = rint(high / ln 2) and ln 2 = LN2_HIGH + LN2_LOW (k * LN2_HIGH is exact:
    8 + 16 bits in float32, 11 + 42 in float64),

        r = (high - k * LN2_HIGH) + (low - k * LN2_LOW)       |r| <= 0.3475
        exp(r) = 1 + r * w(r),  w(r) = 1 + r * q(r)

    high - k * LN2_HIGH is exact (Sterbenz, or both lie on one grid), so r has one rounding, 0.35 u at most. q is the
    minimax polynomial for the relative error of exp: 2**-28.2 = 0.05 u in float32, 2**-56.8 = 0.07 u in float64.
    w's last rounding enters with the factor |r|, that of the result whole: 1.3 u relative in all, 0.9 units in the
    last place (without fused multiply-add r * w is rounded too: 1.2). A difference of zero gives 1 exactly.
    """
    cdef floating high = x - maximum
    cdef floating back = high - x
    cdef floating low = (x - (high - back)) - (maximum + back)
    cdef floating magic, k, r, w
    if floating is float:
        magic = mul_add(high, <floating>1.44269504088896341, <floating>12582976.0)
        k = magic - <floating>12582976.0
        r = mul_add(-k, <floating>0.693145751953125, high)
        r = r + mul_add(-k, <floating>1.4286068203094173e-06, low)
        w = <floating>0.0013814261033573934
        w = mul_add(w, r, <floating>0.008368898722764678)
        w = mul_add(w, r, <floating>0.04166840510034069)
        w = mul_add(w, r, <floating>0.16666519130277124)
        w = mul_add(w, r, <floating>0.49999993348327837)
    else:
        magic = mul_add(high, <floating>1.44269504088896341, <floating>6755399441056256.0)
        k = magic - <floating>6755399441056256.0
        r = mul_add(-k, <floating>0.6931471805598903, high)
        r = r + mul_add(-k, <floating>5.497923018708371e-14, low)
        w = <floating>2.5110348748311002e-08
        w = mul_add(w, r, <floating>2.763304439748786e-07)
        w = mul_add(w, r, <floating>2.755724154178541e-06)
        w = mul_add(w, r, <floating>2.4801486292305718e-05)
        w = mul_add(w, r, <floating>0.00019841269887295506)
        w = mul_add(w, r, <floating>0.001388888894873705)
        w = mul_add(w, r, <floating>0.008333333333321976)
        w = mul_add(w, r, <floating>0.041666666666518984)
        w = mul_add(w, r, <floating>0.16666666666666674)
        w = mul_add(w, r, <floating>0.500000000000001)
    w = mul_add(w, r, <floating>1)
    r = mul_add(w, r, <floating>1)
    # Below the cutoff even 2**20 terms are less than half of the smallest subnormal number.
    if floating is float:
        return <floating>0 if high < <floating>-130.0 else times_power_f32(r, magic)
    else:
        return <floating>0 if high < <floating>-1060.0 else times_power_f64(r, magic)


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
