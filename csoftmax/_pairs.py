"""Numbers of twice float64's digits: arrays high + low, of which high is the sum rounded.

Sums and products are Knuth's and Dekker's, which need no fused multiply-add; the rest follows Hida, Li and Bailey
(doi:10.1109/ARITH.2001.930115). Nothing here may overflow. What the numbers mean is elsewhere.
"""

import numpy as np

# ln 2 in three parts: a whole number of up to 13 bits times either of the first two is exact.
_LN2 = (0.6931471805592082, 7.371002565161996e-13, 5.8029889835956905e-25)
_INVERSE_FACTORIALS = [  # of 5 to 3
    (0.008333333333333333, 1.1564823173178714e-19),
    (0.041666666666666664, 2.3129646346357427e-18),
    (0.16666666666666666, 9.25185853854297e-18),
]
_HALVINGS = 9
_SQRT_HALF = 0.7071067811865476


def two_sum(a, b):
    """Return a + b, without an error."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def summed(values):
    """Return the sums along the last axis, rounded once: halves are added to halves, with what rounding takes."""
    high, low = values, np.zeros_like(values)
    while (n := high.shape[-1]) > 1:
        half = n // 2
        parts = [slice(0, half), slice(half, 2 * half), slice(2 * half, n)]
        (a, b, rest), (a_low, b_low, rest_low) = ([v[..., i] for i in parts] for v in (high, low))
        total, lost = two_sum(a, b)
        high = np.concatenate([total, rest], -1)
        low = np.concatenate([a_low + b_low + lost, rest_low], -1)
    high, low = high.sum(-1), low.sum(-1)  # of one, or of none
    return np.where(np.isfinite(high), high + low, values.sum(-1))


def two_product(a, b):
    """Return a * b, without an error where neither is beyond 2**990 and the product is not below 2**-960."""
    product = a * b
    (a, a_low), (b, b_low) = _halves(a), _halves(b)
    return product, ((a * b - product) + a * b_low + a_low * b) + a_low * b_low


def _halves(a):
    """Return `a` as two parts of 26 bits."""
    scaled = 134217729.0 * a  # 2**27 + 1
    high = scaled - (scaled - a)
    return high, a - high


def add_with_loss(x, y):
    """Return x + y, and how far that is from the exact sum at most."""
    high, low = two_sum(x[0], y[0])
    of_lows, rest = two_sum(x[1], y[1])
    low, lost = two_sum(low, of_lows)
    high, low = two_sum(high, low)
    low, also_lost = two_sum(low, rest)
    return two_sum(high, low), np.abs(lost) + np.abs(also_lost)


def add(x, y):
    """Return x + y to within 2**-104 of the result's size."""
    high, low = two_sum(x[0], y[0])
    of_lows, rest = two_sum(x[1], y[1])
    high, low = two_sum(high, low + of_lows)
    return two_sum(high, low + rest)


def multiply(x, y):
    """Return x * y to within 2**-102 of the result's size."""
    high, low = two_product(x[0], y[0])
    return two_sum(high, low + (x[0] * y[1] + x[1] * y[0]))


def scale(x, exponent):
    """Return x * 2**exponent."""
    return np.ldexp(x[0], exponent), np.ldexp(x[1], exponent)


def normalised(x):
    """Return x / 2**exponent, of a size from sqrt(1/2) to sqrt(2), and the exponent; 0 stays 0."""
    mantissa, exponent = np.frexp(x[0])
    exponent = exponent - (np.abs(mantissa) < _SQRT_HALF)
    return scale(x, -exponent), exponent


def times_ln2(n):
    """Return whole numbers `n` of up to 13 bits times ln 2, to within 2**-104 of the result's size."""
    return add(two_sum(n * _LN2[0], n * _LN2[1]), (n * _LN2[2], np.zeros_like(n)))


def exp(x):
    """Return m and n so that exp(x) is m * 2**n to within 2**-100 of its size; x from -5000 to 5000."""
    n = np.rint(x[0] / (_LN2[0] + _LN2[1]))
    first, second, third = (-n * part for part in _LN2)
    rest = add(two_sum(x[0] + first, second), two_sum(x[1], third))  # the first sum is exact
    s = scale(rest, -_HALVINGS)
    # expm1(s) by Taylor's series, whose last terms need fewer digits
    tail = s[0] / 720 * (1 + s[0] / 7 * (1 + s[0] / 8 * (1 + s[0] / 9 * (1 + s[0] / 10))))
    result = (tail, np.zeros_like(tail))
    for factor in _INVERSE_FACTORIALS:
        result = add(result, factor)
        result = multiply(result, s)
    result = add(result, (0.5, 0.0))
    result = add(s, multiply(multiply(s, s), result))
    for _ in range(_HALVINGS):  # expm1(2 s) = 2 expm1(s) + expm1(s)**2
        result = add(scale(result, 1), multiply(result, result))
    return add(result, (1.0, 0.0)), n.astype(np.intc)


def log(x):
    """Return the logarithm of numbers from sqrt(1/2) to sqrt(2), to within 2**-99; 1 + low keeps low's digits."""
    guess = np.log(x[0])
    inverse, n = exp((-guess, np.zeros_like(guess)))
    ratio = add(
        multiply(x, scale(inverse, n)), (-1.0, 0.0)
    )  # far below 1: one step of Newton's is enough
    return add(two_sum(guess, ratio[0]), (ratio[1], -0.5 * ratio[0] * ratio[0]))
