"""The formulas of the contract over rows of exact numbers, in longdouble or at 200 bits: what each result may be.

The same text runs in either arithmetic. Every array is (rows, classes) or (rows,). A result is a range from `low` to
`high`, which differ only where the contract leaves it open whether a probability below the dtype's range counts,
widened by `error` on either side.
"""

from dataclasses import dataclass
from fractions import Fraction

import mpmath
import numpy as np

WIDE = np.longdouble
DOUBLE_EPSILON = WIDE(2) ** -52
DOUBLE_MAX = WIDE(np.finfo(np.float64).max)
DOUBLE_TINY = WIDE(2) ** -1074
NORMAL = WIDE(2) ** -1020  # from here on doubles have all their digits
# What two doubles that carry each other's rounding lose of a sum of terms that cancel, of the sum of their magnitudes.
CARRIED = WIDE(2) ** -100
SPLITTER = WIDE(2 ** ((np.finfo(WIDE).nmant + 2) // 2) + 1)  # halves of its digits


class Longdouble:
    """64 bits, twice that where a difference's digits matter: exp(-745 (1 + 2**-64)) is off by a fifth of a unit."""

    @staticmethod
    def number(value):
        return np.asarray(value, WIDE)

    exp, expm1, log1p, log = (staticmethod(f) for f in (np.exp, np.expm1, np.log1p, np.log))

    @staticmethod
    def quotient(x, y, divisor):
        """(x - y) / divisor as two numbers, of which the second is what the first has lost."""
        whole = x - y
        back = whole - x
        lost = (x - (whole - back)) - (y + back)
        if divisor == 1:
            return whole, lost
        q = whole / divisor
        product, rest = _product(q, divisor)
        return q, ((whole - product) - rest + lost) / divisor

    @staticmethod
    def wide(value):
        return value


class TwoHundredBits:
    """mpmath's numbers in arrays of objects."""

    @staticmethod
    def number(value):
        return np.asarray(_mpfs(value), object)

    exp = staticmethod(np.frompyfunc(mpmath.exp, 1, 1))
    expm1 = staticmethod(np.frompyfunc(mpmath.expm1, 1, 1))
    log1p = staticmethod(np.frompyfunc(mpmath.log1p, 1, 1))
    log = staticmethod(np.frompyfunc(mpmath.log, 1, 1))

    @staticmethod
    def quotient(x, y, divisor):
        return (x - y) / divisor, 0 * x

    @staticmethod
    def wide(value):
        return np.asarray(np.frompyfunc(_wide, 1, 1)(value), WIDE)


def _product(a, b):
    """a b as two numbers (Dekker)."""
    whole = a * b
    c, d = SPLITTER * a, SPLITTER * b
    a_high, b_high = c - (c - a), d - (d - b)
    a_low, b_low = a - a_high, b - b_high
    return whole, ((a_high * b_high - whole) + a_high * b_low + a_low * b_high) + a_low * b_low


def _mpf(value):
    """A longdouble as an mpf."""
    value = WIDE(value)
    if not np.isfinite(value):
        return mpmath.mpf(float(value))
    mantissa, exponent = np.frexp(value)
    high = float(mantissa)
    return mpmath.ldexp(mpmath.mpf(high) + mpmath.mpf(float(mantissa - WIDE(high))), int(exponent))


_mpfs = np.frompyfunc(_mpf, 1, 1)


def _wide(value):
    """An mpf as a longdouble, which has a wider range than a double."""
    if not mpmath.isfinite(value):
        return WIDE(float(value))
    mantissa, exponent = mpmath.frexp(value)
    high = float(mantissa)
    low = float(mantissa - high)
    return np.ldexp(WIDE(high) + WIDE(low), np.clip(int(exponent), -17000, 17000))


@dataclass
class Dtype:
    """What counts of a dtype: its unit in the last place, its smallest number, and from where on it is infinite."""

    epsilon: np.longdouble
    tiny: np.longdouble
    overflow: np.longdouble

    @classmethod
    def of(cls, dtype):
        info = np.finfo(dtype)
        most = WIDE(info.max)
        return cls(WIDE(info.eps), WIDE(info.smallest_subnormal), most * (1 + WIDE(info.eps) / 4))

    def unit(self, size, subnormal=True):
        """The last place of numbers of this size; of subnormal ones as the dtype has it, or as if it had more."""
        _, exponent = np.frexp(np.abs(size))
        unit = np.where((size == 0) | np.isinf(size), 0, np.ldexp(self.epsilon, exponent - 1))
        return np.maximum(unit, self.tiny) if subnormal else unit


FLOAT16, FLOAT32, FLOAT64 = (Dtype.of(each) for each in (np.float16, np.float32, np.float64))
DTYPES = {2: FLOAT16, 4: FLOAT32, 8: FLOAT64}  # by size


def dtype_of(dtype):
    return DTYPES[np.dtype(dtype).itemsize]


@dataclass
class Expected:
    """A result: from `low` - `error` to `high` + `error`; NaN where `nan`, any number where `loose`, anything where
    `free`."""

    low: np.ndarray
    high: np.ndarray
    error: np.ndarray
    nan: np.ndarray
    loose: np.ndarray
    free: np.ndarray

    @classmethod
    def made(cls, low, high, error, nan=False, loose=False, free=False):
        shape = np.shape(low)
        return cls(low, high, error, *(np.broadcast_to(each, shape) for each in (nan, loose, free)))


@dataclass
class Measured:
    """Rows: differences to the maximum, their exponentials, and what the rest of the classes adds up to."""

    difference: np.ndarray  # (x - maximum) / T, 0 where absent
    p: np.ndarray
    absent: np.ndarray  # -inf
    broken: np.ndarray  # (rows,): all results are NaN
    top: np.ndarray  # bool, the maximum
    maximum: np.ndarray  # (rows,), divided by T
    others: np.ndarray  # (rows,): sum of the exponentials of all classes but the top
    few: (
        np.ndarray
    )  # the same without probabilities below the dtype's range; `others` itself if there are none
    few_p: np.ndarray  # p, 0 if below the dtype's range; `p` itself if there are none
    lost: np.ndarray  # the second part of `difference`
    logarithm: np.ndarray  # log(1 + others)
    few_logarithm: np.ndarray
    kind: np.ndarray  # (rows,): nan, +inf, -inf or 0: what a special row's logsumexp is


def measured(a, x, temperature, dtype):
    """Measure rows of at least one class. `x` is longdouble, which holds every dtype's numbers exactly."""
    temperature = WIDE(temperature)
    has_nan, has_inf = np.isnan(x).any(1), (x == np.inf).any(1)
    absent = x == -np.inf
    nothing = absent.all(1)
    broken = has_nan | has_inf | nothing
    kind = np.where(has_nan, np.nan, np.where(has_inf, np.inf, np.where(nothing, -np.inf, 0)))
    if broken.any():
        x = np.where(broken[:, None], 0, x)
        absent = absent & ~broken[:, None]
    at = x.argmax(1)[:, None]
    top = np.arange(x.shape[1]) == at
    m = np.take_along_axis(x, at, 1)
    if absent.any():
        x = np.where(absent, m, x)
    number, divisor = a.number(x), a.number(temperature)[()]
    m = a.number(m)
    difference, lost = a.quotient(number, m, divisor)
    e = a.exp(difference) * (1 + lost)
    rest = np.where(top | absent, 0 * e, e)
    others = rest.sum(1)
    p = np.where(absent, 0 * e, e) / (1 + others)[:, None]
    small = (p < a.number(dtype.tiny)[()]) & ~absent
    few, few_p = others, p
    if small.any():
        few, few_p = np.where(small, 0 * rest, rest).sum(1), np.where(small, 0 * p, p)
    logarithm = a.log1p(others)
    few_logarithm = logarithm if few is others else a.log1p(few)
    return Measured(
        difference,
        p,
        absent,
        broken,
        top,
        (m / divisor)[:, 0],
        others,
        few,
        few_p,
        lost,
        logarithm,
        few_logarithm,
        kind,
    )


def softmax(a, x, temperature, dtype, bound):
    rows = measured(a, x, temperature, dtype)
    size = a.wide(rows.p)
    return Expected.made(rows.p, rows.p, bound * dtype.unit(size), nan=rows.broken[:, None])


def log_softmax(a, x, temperature, dtype, bound):
    rows = measured(a, x, temperature, dtype)
    low = (rows.difference - rows.logarithm[:, None]) + rows.lost
    high = (rows.difference - rows.few_logarithm[:, None]) + rows.lost
    error = bound * dtype.unit(a.wide(low))
    if rows.absent.any():
        infinite = a.number(-np.inf)[()]
        low, high = (np.where(rows.absent, infinite, each) for each in (low, high))
        error = np.where(rows.absent, 0, error)
    return Expected.made(low, high, error, nan=rows.broken[:, None])


def logsumexp(a, x, temperature, dtype, bound):
    rows = measured(a, x, temperature, dtype)
    low, high = rows.maximum + rows.few_logarithm, rows.maximum + rows.logarithm
    # The logarithm of the sum counts too: a maximum of -0.22 and one of 0.43 leave 0.21.
    sizes = [np.abs(a.wide(each)) for each in (high, rows.maximum, rows.logarithm)]
    with np.errstate(invalid="ignore"):
        error = bound * dtype.unit(np.maximum.reduce([np.where(np.isnan(v), 0, v) for v in sizes]))
    if rows.broken.any():
        kind = a.number(rows.kind)
        low, high = (np.where(rows.broken, kind, each) for each in (low, high))
    return Expected.made(low, high, error, nan=np.isnan(rows.kind))


@dataclass
class Masses:
    """a of l_n = -s_n sum_c a_nc log p_nc, its terms' magnitudes, and where doubles cannot hold it."""

    mass: np.ndarray  # longdouble (rows, classes)
    size: np.ndarray
    error: np.ndarray  # what a product below the normal range may have lost
    ignored: np.ndarray  # (rows,)
    overflows: np.ndarray  # (rows,): a product or a sum is beyond a double's range
    unknown: np.ndarray  # (rows,): not finite
    row_weight: np.ndarray  # (rows,): what counts in the mean's divisor, before the sample's weight
    is_index: bool
    is_weighted: bool
    is_spread: bool  # by probabilities or smoothing


def masses(target, shape, weight, label_smoothing, ignore_index):
    """`target` is (rows,) of integers or (rows, classes) of floats; `weight` longdouble or None."""
    n_rows, n_classes = shape
    smoothing = WIDE(label_smoothing)
    ignored = np.zeros(n_rows, bool)
    is_index = target.dtype.kind in "iu"
    if is_index:
        target = target.astype(object) if target.dtype == np.uint64 else target
        if ignore_index is not None:
            ignored = np.array(target == ignore_index, bool).reshape(n_rows)
        index = np.where(ignored, 0, target).astype(np.int64)
        hot = np.arange(n_classes) == index[:, None]
        q = np.where(hot, WIDE(1), WIDE(0))
    else:
        q = target
    known = np.isfinite(q).all(1)
    q = np.where(np.isfinite(q), q, 0)
    share = smoothing / n_classes if n_classes else WIDE(0)
    if smoothing:
        mass = (1 - smoothing) * q + share
        size = (1 - smoothing) * np.abs(q) + share
    else:
        mass, size = q, np.abs(q)
    row_weight = np.ones(n_rows, WIDE)
    unknown = ~known
    # What doubles lose of a mass below their normal range, in each of its products.
    below = ((size != 0) & (size < NORMAL)).any(1) | (smoothing != 0) & (share < NORMAL)
    if not is_index and smoothing:
        below |= ((q != 0) & (np.abs(q) < NORMAL)).any(1)
    error = np.where(below & ((smoothing != 0) | (not is_index)), DOUBLE_TINY, 0)
    if weight is not None:
        finite = np.isfinite(weight)
        w = np.where(finite, weight, 0)
        unknown |= ((size != 0) & ~finite).any(1) | (~finite).any()
        mass, size = mass * w, size * np.abs(w)
        if is_index:
            row_weight = w[index]
        error = error * np.abs(w).max(initial=0)
        if smoothing or not is_index:
            error = error + DOUBLE_TINY * ((size != 0) & (size < NORMAL)).any(1)
    if is_index:
        mass, size = (np.where(ignored[:, None], 0, each) for each in (mass, size))
        unknown &= ~ignored
    overflows = size.sum(1) > DOUBLE_MAX
    return Masses(
        mass,
        size,
        error,
        ignored,
        overflows,
        unknown,
        np.where(ignored, 0, row_weight),
        is_index,
        weight is not None,
        bool(smoothing) or not is_index,
    )


@dataclass
class Divisor:
    """What the mean divides by: exact, and how far a double may be from it."""

    value: np.longdouble
    error: np.longdouble
    overflows: bool
    unknown: bool


def mean_divisor(of, sample_weight):
    """The exact sum of the weights of the rows that count, where they cancel too."""
    counts = ~of.ignored
    if not of.is_weighted or not of.is_index:
        weights = counts.astype(WIDE)
    else:
        weights = of.row_weight
    both = False
    if sample_weight is not None:
        both = of.is_weighted and of.is_index
        if not np.isfinite(sample_weight[counts]).all():
            return Divisor(WIDE(1), WIDE(0), False, True)
        sample_weight = np.where(counts, sample_weight, 0)
        products = weights * sample_weight
    else:
        products = weights
    if of.unknown.any() and of.is_weighted and of.is_index:
        return Divisor(WIDE(1), WIDE(0), False, True)
    size = np.abs(products).sum()
    if size > DOUBLE_MAX:
        return Divisor(WIDE(1), WIDE(0), True, False)
    value = products.sum()
    if np.abs(value) < size:  # terms cancel: what is left has its digits only in exact arithmetic
        left = Fraction(0)
        for n in np.flatnonzero(products):
            term = Fraction(float(weights[n]))
            left += term * Fraction(float(sample_weight[n])) if sample_weight is not None else term
        value = _longdouble(left)
    error = DOUBLE_EPSILON * np.abs(value) + CARRIED * size * (value != size)
    if both:  # each product is rounded
        below = ((products != 0) & (np.abs(products) < NORMAL)).sum()
        error += DOUBLE_EPSILON / 2 * size + below * DOUBLE_TINY
    return Divisor(value, error, False, False)


def _longdouble(fraction):
    """A fraction, rounded to the digits of two doubles and then to longdouble."""
    high = float(fraction)
    return WIDE(high) + WIDE(float(fraction - Fraction(high)))


def _ordered(one, other):
    if one is other:
        return one, other
    first = one <= other
    return np.where(first, one, other), np.where(first, other, one)


def losses(a, rows, of, sample_weight, dtype, bound):
    """The loss of each row, with an error that knows no smallest number: they may be added in double."""
    s = np.ones(len(of.ignored), WIDE) if sample_weight is None else sample_weight
    known = np.isfinite(s)
    s = np.where(known, s, 0)
    counted = (of.mass != 0) & rows.absent
    mass = a.number(np.where(rows.absent | rows.broken[:, None], 0, of.mass))
    scale = a.number(s)
    linear = (mass * ((-rows.difference) - rows.lost)).sum(1)
    total = mass.sum(1)
    one = (linear + rows.logarithm * total) * scale
    other = one
    if rows.few_logarithm is not rows.logarithm:
        other = (linear + rows.few_logarithm * total) * scale
    log_p = a.wide(rows.logarithm)[:, None] - a.wide(rows.difference)
    log_p = np.where(rows.absent | rows.broken[:, None], 0, log_p)
    size = (of.size * log_p).sum(1) * np.abs(s)
    error = bound * dtype.unit(size, subnormal=False)
    error = error + of.error * log_p.sum(1) * np.abs(s)
    error = error + DOUBLE_TINY * ((size > 0) & (size < NORMAL))
    low, high = _ordered(one, other)
    zero = a.number(WIDE(0))[()]
    nan = np.zeros(len(s), bool)
    if counted.any():
        up, down = (counted & (of.mass > 0)).any(1), (counted & (of.mass < 0)).any(1)
        nan |= up & down & (s != 0)
        sign = np.where(up, np.sign(s), np.where(down, -np.sign(s), 0))
        infinite = a.number(np.where(sign == 0, WIDE(0), sign * np.inf))
        use = (up | down) & (s != 0)
        low, high = np.where(use, infinite, low), np.where(use, infinite, high)
    idle = (s == 0) | of.ignored
    low, high = np.where(idle, zero, low), np.where(idle, zero, high)
    error = np.where(idle, 0, error)
    nan = (nan | rows.broken) & ~of.ignored
    lost_mass = (counted & (of.size < DOUBLE_TINY)).any(1)  # 0 times infinite, or not
    free = (
        of.unknown | ~known | lost_mass | (rows.broken & (idle | (of.mass == 0).all(1)))
    ) & ~of.ignored
    # Terms of both signs whose sum is finite, though parts of it are beyond a double's range.
    parts = (of.size * log_p).sum(1)
    mixed = np.abs((of.mass * log_p).sum(1)) < parts * (1 - DOUBLE_EPSILON)
    loose = of.overflows | (mixed & (np.maximum(parts, size) > DOUBLE_MAX))
    return Expected.made(low, high, error, nan, loose & ~of.ignored, free), size


def as_results(each, size, dtype, bound):
    """Losses that are results themselves: subnormal ones have the dtype's unit, and are rounded to it."""
    each.error = each.error + (bound + WIDE(0.5)) * dtype.tiny * (
        size < 2 * dtype.tiny / dtype.epsilon
    )
    return each


def reduced(a, each, size, divisor, dtype):
    """The sum of losses, or their mean; `size` their magnitudes."""
    free = bool(each.free.any()) or (divisor is not None and divisor.unknown)
    nan = bool(each.nan.any())
    infinite = a.wide(each.high)
    infinite = infinite[np.isinf(infinite) & ~each.nan]
    finite = np.isfinite(a.wide(each.high))
    if nan or (infinite.size and (infinite > 0).any() and (infinite < 0).any()):
        return _one(a, WIDE(np.nan), 0, nan=True, free=free)
    total = np.where(finite, size, 0).sum()
    loose = bool(each.loose.any()) or bool(total > DOUBLE_MAX)
    low = high = infinite[0] if infinite.size else None
    error = WIDE(0)
    if low is None:
        low, high = each.low.sum(), each.high.sum()
        low, high = (value if len(each.low) else a.number(WIDE(0))[()] for value in (low, high))
        error = each.error.sum() + _unit_of(a, dtype, low, high) + CARRIED * total
    else:
        low = high = a.number(low)[()]
    if divisor is None:
        error = error + dtype.tiny * (error > 0)
        return _one(a, low, error, high, loose=loose, free=free)
    if divisor.value == 0:
        # Of nothing, and of losses that are 0, NaN; else an infinity. An error may hide which.
        if divisor.error or (low != high) or (low == 0 and error):
            return _one(a, low, error, high, free=True)
        if low == 0:
            return _one(a, WIDE(np.nan), 0, nan=True, free=free)
        unsure = np.abs(_wide_of(a, low)) <= error
        value = WIDE(np.inf) * (1 if low > 0 else -1)
        return _one(a, a.number(value)[()], 0, loose=loose, free=free or bool(unsure))
    loose = loose or divisor.overflows
    free = free or bool(divisor.error >= np.abs(divisor.value) / 4)
    d = a.number(divisor.value)[()]
    low, high = low / d, high / d
    if low > high:
        low, high = high, low
    size = max(np.abs(_wide_of(a, low)), np.abs(_wide_of(a, high)))
    error = error / np.abs(divisor.value)
    if np.isfinite(size):
        error = error + size * divisor.error / np.abs(divisor.value)
        error = error + dtype.unit(size)
    return _one(a, low, error, high, loose=loose, free=free)


def _wide_of(a, value):
    return a.wide(np.array([value]))[0]


def _unit_of(a, dtype, low, high):
    """One unit of the sum, and the half that a result's own rounding may take."""
    size = max(np.abs(_wide_of(a, low)), np.abs(_wide_of(a, high)))
    return WIDE(1.5) * dtype.unit(size, subnormal=False)


def _one(a, low, error, high=None, nan=False, loose=False, free=False):
    high = low if high is None else high
    low, high = (np.array([value]) for value in (low, high))
    return Expected.made(low, high, np.array([error], WIDE), nan, loose, free)


def gradient(a, rows, of, sample_weight, grad_output, temperature, divisor, dtype, bound):
    """g = (p sum(a) - a) s G / (T D); `grad_output` (rows,) or None, `divisor` a Divisor or None."""
    n_rows, n_classes = of.mass.shape
    factors = np.ones(n_rows, WIDE)
    unknown = of.unknown.copy()
    infinite = np.zeros(n_rows, bool)
    if sample_weight is not None:
        unknown |= ~np.isfinite(sample_weight)
        factors = factors * np.where(np.isfinite(sample_weight), sample_weight, 0)
    own = (factors == 0) | (of.mass == 0).all(1)
    if grad_output is not None:
        unknown |= np.isnan(grad_output)
        infinite = np.isinf(grad_output)
        factors = factors * np.where(
            infinite, np.sign(grad_output), np.where(np.isnan(grad_output), 0, grad_output)
        )
    overflows = of.overflows | (divisor is not None and divisor.overflows)
    relative = WIDE(0)
    value = WIDE(1)
    if divisor is not None:
        unknown |= divisor.unknown
        value = divisor.value
        if value == 0:
            infinite |= True
            unknown |= bool(divisor.error)
            value = WIDE(1)
        else:
            relative = divisor.error / np.abs(value)
            unknown |= bool(relative >= 0.25)
    mass = a.number(of.mass)
    total = mass.sum(1)[:, None]
    rest = (rows.others / (1 + rows.others))[:, None]
    rest = np.where(rows.top, rest, 1 - rows.p)
    one = rows.p * (total - mass) - mass * rest
    other = one
    if rows.few_p is not rows.p:
        few_rest = (rows.few / (1 + rows.few))[:, None]
        few_rest = np.where(rows.top, few_rest, 1 - rows.few_p)
        other = rows.few_p * (total - mass) - mass * few_rest
    scale = factors / value
    factor = (a.number(scale) / a.number(WIDE(temperature))[()])[:, None]
    wide_factor = (np.abs(scale) / WIDE(temperature))[:, None]
    low, high = _ordered(one * factor, other * factor)
    p = a.wide(rows.p)
    unscaled = np.maximum(np.abs(a.wide(one)), np.abs(a.wide(other)))
    if of.is_weighted or of.is_spread:
        size = np.maximum(p * of.size.sum(1)[:, None], of.size)
        if not of.is_spread:
            size = unscaled
    else:
        size = unscaled
    error = bound * dtype.unit(size * wide_factor)
    error = error + unscaled * wide_factor * relative
    error = error + of.error[:, None] * (1 + p * n_classes) * wide_factor
    error = error + dtype.tiny / 2
    zero = (own | of.ignored)[:, None]
    free = np.broadcast_to(unknown[:, None], low.shape)
    if infinite.any():
        # An entry is infinite, or 0 times infinite: a probability below the range may be either.
        least, other_wide = a.wide(one), a.wide(other)
        sure = np.sign(least) == np.sign(other_wide)
        least = np.minimum(np.abs(least), np.abs(other_wide))
        sure &= least > 32 * dtype.epsilon * size + 2 * of.error[:, None] * (1 + p * n_classes)
        sure &= factors[:, None] != 0
        sign = np.sign(a.wide(low))
        value = a.number(np.where(sign == 0, WIDE(0), sign * np.inf))
        low, high = (np.where(infinite[:, None], value, each) for each in (low, high))
        free = free | (infinite[:, None] & ~sure)
    nothing = a.number(WIDE(0))[()]
    low, high = np.where(zero, nothing, low), np.where(zero, nothing, high)
    error = np.where(zero, 0, error)
    free = (free & ~zero) | (rows.broken & own)[:, None] | unknown[:, None]
    free = free & ~of.ignored[:, None]
    nan = (rows.broken & ~of.ignored)[:, None]
    loose = (overflows & ~of.ignored)[:, None]
    return Expected.made(low, high, error, nan, loose, free)


def softmax_backward(a, g, y, is_softmax, dtype, bound):
    """y (g - sum(y g)). Of a softmax, whose rounding leaves a sum that is not 1, the differences to the largest's."""
    free = ~(np.isfinite(g).all(1) & np.isfinite(y).all(1))
    g, y = (np.where(free[:, None], 0, each) for each in (g, y))
    at = y.argmax(1)[:, None]
    residue = y.sum(1) - 1
    big_g, big_y = a.number(g), a.number(y)
    shifted = big_g - a.number(np.take_along_axis(g, at, 1))
    of_softmax = big_y * (shifted - (big_y * shifted).sum(1)[:, None])
    wide = a.wide(shifted)
    size = np.abs(y) * (np.abs(wide) + (np.abs(y) * np.abs(wide)).sum(1)[:, None])
    low = high = of_softmax
    if not is_softmax:
        # Up to 1 %, it is anyone's guess whether the sum was meant to be 1.
        formula = big_y * (big_g - (big_y * big_g).sum(1)[:, None])
        guess = (np.abs(residue) < 0.01)[:, None]
        size = np.abs(y) * (np.abs(g) + (np.abs(y) * np.abs(g)).sum(1)[:, None])
        low, high = _ordered(formula, np.where(guess, of_softmax, formula))
    # Each summand may be subnormal, and lose half of the smallest number.
    error = bound * dtype.unit(size) + np.abs(y) * y.shape[1] * dtype.tiny / 2
    error = np.where(size > 0, error + dtype.tiny / 2, 0)
    return Expected.made(low, high, error, free=free[:, None])


def log_softmax_backward(a, g, log_p, dtype, bound):
    """g - exp(log p) sum(g); at the largest without what cancels."""
    free = ~np.isfinite(g).all(1) | np.isnan(log_p).any(1) | (log_p == np.inf).any(1)
    g, log_p = (np.where(free[:, None], 0, each) for each in (g, log_p))
    absent = log_p == -np.inf
    log_p = np.minimum(np.where(absent, 0, log_p), 0)
    ranked = np.where(absent, -np.inf, log_p)
    top = np.arange(g.shape[1]) == ranked.argmax(1)[:, None]
    big_g, big_log = a.number(g), a.number(log_p)
    zero = a.number(WIDE(0))[()]
    p = np.where(absent, zero, a.exp(big_log))
    complement = np.where(absent, zero + 1, -a.expm1(big_log))
    others = np.where(top, zero, big_g).sum(1)[:, None]
    total = big_g.sum(1)[:, None]
    size_others = np.where(top, 0, np.abs(g)).sum(1)[:, None]
    size_all = np.abs(g).sum(1)[:, None]
    one = np.where(top, big_g * complement - p * others, big_g - p * total)
    few = np.where(a.wide(p) < dtype.tiny, zero, p)
    other = np.where(top, big_g * complement - few * others, big_g - few * total)
    wide_p = a.wide(p)
    size = np.where(
        top,
        np.abs(g) * a.wide(complement) + wide_p * size_others,
        np.abs(g) + wide_p * size_all,
    )
    low, high = _ordered(one, other)
    error = np.where(size > 0, bound * dtype.unit(size) + dtype.tiny / 2, 0)
    return Expected.made(low, high, error, free=free[:, None])


def weighted_logsumexp(a, x, b, dtype, bound):
    """log of the absolute sum of b exp(x), and its sign; equal exponents are added first, exactly."""
    n_rows = len(x)
    value = np.zeros(n_rows, object)
    error, sign = np.zeros(n_rows, WIDE), np.zeros(n_rows)
    free, unsure = np.zeros(n_rows, bool), np.zeros(n_rows, bool)
    for n in range(n_rows):
        counts = b[n] != 0
        xs, bs = x[n][counts], b[n][counts]
        value[n] = a.number(WIDE(-np.inf))[()]
        if np.isnan(bs).any() or np.isinf(bs).any():
            free[n] = True
        elif np.isnan(xs).any():
            value[n], sign[n] = a.number(WIDE(np.nan))[()], np.nan
        elif (xs == np.inf).any():
            signs = set(np.sign(bs[xs == np.inf]))
            both = len(signs) > 1
            value[n] = a.number(WIDE(np.nan if both else np.inf))[()]
            sign[n] = np.nan if both else signs.pop()
        else:
            present = xs > -np.inf
            value[n], error[n], sign[n], unsure[n] = _signed(
                a, xs[present], bs[present], dtype, bound
            )
    value = value if a is TwoHundredBits else value.astype(WIDE)
    return value, error, sign, free, unsure


def _signed(a, x, b, dtype, bound):
    """One row of finite numbers: value, error, sign, and whether so much cancels that nothing is known."""
    if (b < 0).any():
        groups = {}
        for exponent, factor in zip(x.tolist(), b.tolist(), strict=True):
            groups.setdefault(exponent, []).append(Fraction(float(factor)))
        keep = [exponent for exponent, factors in groups.items() if sum(factors) != 0]
        if not keep:
            return a.number(WIDE(-np.inf))[()], WIDE(0), 0, False
        use = np.isin(x, np.array(keep, x.dtype))
        x, b = x[use], b[use]
    if not x.size:
        return a.number(WIDE(-np.inf))[()], WIDE(0), 0, False
    logarithm = np.log(np.abs(b))
    reference = x[np.argmax(x + logarithm)]
    high, lost = a.quotient(a.number(x), a.number(reference)[()], a.number(WIDE(1))[()])
    largest = a.number(np.abs(b[np.argmax(x + logarithm)]))[()]
    terms = a.number(b) / largest * a.exp(high) * (1 + lost)
    total = terms.sum()
    sizes = np.abs(a.wide(terms))
    all_sizes = sizes.sum()
    left = np.abs(_wide_of(a, total))
    if left <= 64 * dtype.epsilon * all_sizes * len(x):
        return a.number(WIDE(0))[()], WIDE(0), 0, True
    exact_m = a.number(reference)[()] + a.log(largest)
    value = exact_m + a.log(abs(total))
    size = (sizes * (np.abs(x) + np.abs(logarithm))).sum() / left
    size = max(size, np.abs(_wide_of(a, value)))
    error = bound * (dtype.unit(size) + dtype.epsilon * all_sizes / left)
    return value, error, 1 if total > 0 else -1, False
