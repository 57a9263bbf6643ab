"""Sums with signs and weights, for special.logsumexp: rows in which terms of both signs may cancel.

Rows of one sign are not here: _general.py adds their weights' logarithms in the kernels. Nor is the arithmetic with
twice float64's digits, which is in _pairs.py.
"""

import math

import numpy as np

from csoftmax import _pairs

_TERMS_AT_ONCE = 1 << 17  # so that some thirty arrays of them stay small
_FAR = 10000.0  # exp(-_FAR) times the quotient of any two sums of float64 is far below 2**-1100
_TERM_ERROR = 2.0**-101  # of a product of weight and exponential, of its size
_ADDITION_ERROR = 2.0**-104
_LOGARITHM_ERROR = 2.0**-102  # of a number that is not 1 + low
_SUM_ERROR = 2.0**-100  # of adding three logarithms, of their size
_WANTED = 2.0**-54  # of the result's size


def logsumexp(a, b):
    """Return log(abs(sum of b exp(a))) and the sum's sign for rows of (n_rows, n_terms) terms, in float64.

    `a` and `b` are pairs high + low. A term with the weight 0 does not count.

    The sum is 0 only where the weights of each a add up to 0: exponentials of different numbers that float64 can hold
    are linearly independent over such weights (Lindemann and Weierstrass). So equal a are brought together and their
    weights added without an error; what remains is a sum that is not 0. It is computed relative to its largest term,
    with twice float64's digits, and an error bound along with it. Rows of which this does not tell all digits of the
    result, as their terms cancel to less than some 2**-50 of their size, are computed one by one in decimal
    arithmetic, with as many digits as they need.
    """
    n_rows, n_terms = a[0].shape
    value, sign = np.empty(n_rows), np.empty(n_rows)
    step = max(1, _TERMS_AT_ONCE // max(1, n_terms))
    for start in range(0, n_rows, step):
        rows = slice(start, start + step)
        value[rows], sign[rows] = _some_rows(
            tuple(each[rows] for each in a), tuple(each[rows] for each in b)
        )
    return value, sign


def _some_rows(a, b):
    weighs = b[0] != 0
    infinite = weighs & ((a[0] == np.inf) | np.isinf(b[0]))
    vanishes = weighs & (a[0] == -np.inf)
    positive, negative = ((infinite & has).any(-1) for has in (b[0] > 0, b[0] < 0))
    undefined = np.isnan(b[0]) | (weighs & np.isnan(a[0])) | (vanishes & infinite)
    undefined = undefined.any(-1) | (positive & negative)
    special = undefined | positive | negative
    counts = weighs & ~vanishes & ~special[:, None]

    value, sign, is_sure = _cancelled(a, b, counts)
    for row in np.flatnonzero(~is_sure):
        terms = (each[row, counts[row]].tolist() for each in (*a, *b))
        value[row], sign[row] = _in_decimals(*terms)
    value = np.where(undefined, np.nan, np.where(special, np.inf, value))
    sign = np.where(undefined, np.nan, np.where(special, np.where(positive, 1, -1), sign))
    return value, sign


def _cancelled(a, b, counts):
    """Return the logarithm, the sign, and whether both have all their digits."""
    a, weight, is_sure = _grouped(a, b, counts)
    weighs = weight[0] != 0
    is_zero = ~weighs.any(-1)

    mantissa, exponent = _pairs.normalised(weight)
    largest = np.where(weighs, a[0] + np.log(np.abs(weight[0])), -np.inf).argmax(-1)[:, None]
    origin = (np.where(is_zero[:, None], 0, np.take_along_axis(each, largest, -1)) for each in a)
    origin = tuple(origin)
    origin_exponent = np.take_along_axis(exponent, largest, -1)
    is_near = weighs & (a[0] >= origin[0] - _FAR)
    apart = _pairs.add(
        tuple(np.where(is_near, each, 0) for each in a),
        tuple(np.where(is_near, -each, 0) for each in origin),
    )
    power, more = _pairs.exp(apart)
    terms = _pairs.multiply(mantissa, power)
    terms = _pairs.scale(terms, np.where(is_near, exponent - origin_exponent + more, -(1 << 15)))
    relative = _TERM_ERROR + _ADDITION_ERROR * math.log2(terms[0].shape[-1])
    error = np.where(is_near.sum(-1) > 1, relative * np.abs(terms[0]).sum(-1), 0)

    total, more = _pairs.normalised(_sum(terms))
    sign = np.sign(total[0])
    error = np.ldexp(error, -more)
    more = (origin_exponent[:, 0] + more).astype(np.float64)
    logarithm = _pairs.log(tuple(np.where(sign == 0, 1, sign * each) for each in total))
    origin = tuple(each[:, 0] for each in origin)
    result, _ = _pairs.add(_pairs.add(origin, _pairs.times_ln2(more)), logarithm)
    size = np.abs(origin[0]) + np.abs(more) + np.abs(logarithm[0])
    error += np.where((more != 0) | (logarithm[0] != 0), _SUM_ERROR * size, 0)
    error += np.where(np.abs(total[0]) != 1, _LOGARITHM_ERROR, 0)
    is_sure &= is_zero | ((sign != 0) & (error <= _WANTED * np.abs(result)))
    return np.where(is_zero, -np.inf, result), sign, is_sure


def _grouped(a, b, counts):
    """Return a in falling order, the weights of all equal a at the first of them, and which rows' weights are right.

    They are as good as exact where the loss is below their last digits. After an overflow it is NaN.
    """
    a = tuple(np.where(counts, each, fill) for each, fill in zip(a, (-np.inf, 0), strict=True))
    order = np.lexsort((-a[1], -a[0]), axis=-1)
    a = tuple(np.take_along_axis(each, order, -1) for each in a)
    weight = tuple(np.take_along_axis(np.where(counts, each, 0), order, -1) for each in b)
    lost = np.zeros(a[0].shape)
    step, n_terms = 1, lost.shape[-1]
    while step < n_terms:
        same = (a[0][:, :-step] == a[0][:, step:]) & (a[1][:, :-step] == a[1][:, step:])
        same &= a[0][:, step:] > -np.inf
        if not same.any():
            break
        # Each place has the weights of the next `step` terms, as far as they have its a.
        sums, more = _pairs.add_with_loss(
            tuple(each[:, :-step] for each in weight), tuple(each[:, step:] for each in weight)
        )
        more += lost[:, :-step] + lost[:, step:]
        for each, new in zip((*weight, lost), (*sums, more), strict=True):
            np.copyto(each[:, :-step], new, where=same)
        step *= 2
    repeats = np.zeros(lost.shape, bool)
    repeats[:, 1:] = (a[0][:, 1:] == a[0][:, :-1]) & (a[1][:, 1:] == a[1][:, :-1])
    weight = tuple(np.where(repeats, 0, each) for each in weight)
    is_sure = (repeats | (lost <= _ADDITION_ERROR * np.abs(weight[0]))).all(-1)
    return a, weight, is_sure


def _sum(terms):
    """Return the sums of rows, added by halves."""
    n = terms[0].shape[-1]
    while n > 1:
        half = (n + 1) // 2
        sums = _pairs.add(
            tuple(each[:, : n - half] for each in terms), tuple(each[:, half:n] for each in terms)
        )
        terms = tuple(
            np.concatenate([new, each[:, n - half : half]], axis=-1)
            for new, each in zip(sums, terms, strict=True)
        )
        n = half
    return tuple(each[:, 0] for each in terms)


def _in_decimals(a_high, a_low, b_high, b_low):
    """Return the same of one row's finite terms, with as many digits as it takes."""
    import decimal  # seldom needed, and a third of the package's import

    def context(digits):
        return decimal.Context(digits, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX, traps=[])

    ten = decimal.Decimal(10)
    weights = {}
    with decimal.localcontext(context(4000)):  # enough to add what float64 can hold, exactly
        for *exponent, high, low in zip(a_high, a_low, b_high, b_low, strict=True):
            key, weight = tuple(exponent), decimal.Decimal(high) + decimal.Decimal(low)
            weights[key] = weights[key] + weight if key in weights else weight
        weights = {
            decimal.Decimal(high) + decimal.Decimal(low): weight
            for (high, low), weight in weights.items()
            if weight
        }
        if not weights:
            return -np.inf, 0.0
        if weights.keys() == {0} and abs(weights[0]) == 1:
            return 0.0, float(weights[0])  # any other sum has a logarithm that is not 0
        origin = max(weights)
        terms = [(weight, exponent - origin) for exponent, weight in weights.items()]
    digits = 64
    while True:
        with decimal.localcontext(context(digits)):
            products = [weight * apart.exp() for weight, apart in terms]
            total = sum(products)
            error = sum(map(abs, products)) * ten ** (8 - digits)  # of up to 10**7 terms
            if 2 * error < abs(total):
                value = origin + abs(total).ln()
                error = 2 * error / abs(total) + abs(origin) * ten ** (2 - digits)
                if error < max(abs(value) * ten**-20, ten**-350):  # float64 has nothing so small
                    return float(value), 1.0 if total > 0 else -1.0
        digits *= 2
