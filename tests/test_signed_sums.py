"""special.logsumexp with factors of both signs: right to the last unit, however far the terms cancel."""

import decimal
import itertools

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from csoftmax import special
from support.bits import same_bits
from support.cases import logits_of
from support.reference import INF, NAN

BITS = 200
# a, b, the logarithm of the absolute sum, its sign: exact.
EXACT_ROWS = [
    ([40, 40, 0], [1, -1, 1], 0, 1),
    ([100, 100, 0], [1, -1, -1], 0, -1),
    ([40, 40, 40, 0], [1, 1, -2, 1], 0, 1),
    ([30, 30, 0], [1, -1, 1], 0, 1),
    ([40, 0, 40], [3, 1, -3], 0, 1),
    ([40, 40, 3], [0.1, -0.1, -1], 3, -1),
    ([0.0, -0.0, 5, -2], [1, -1, 0, 1], -2, 1),
    ([7, 1, 7, 2, 1, 2, 7], [2, -3, 1, 5, 3, -5, -2], 7, 1),
    ([7, 1, 7, 2, 1, 2, 7], [2, -3, 1, 5, 3, -5, -3], -INF, 0),
    ([3e38, 3e38, -3e38], [1, -1, -1], -3e38, -1),
    ([88, 88, -INF, 4], [1e30, -1e30, -7, 1], 4, 1),
    ([2, 2, 2, 1], [1e30, 1, -1e30, -1], None, 1),
    ([2, 2, 2, 2], [1e30, 1, -1e30, -1], -INF, 0),
    ([5, 5, 5, 5, 5], [1e30, 1, 1e-30, -1e30, -1], None, 1),
    ([5] * 7, [1e30, 1, 1e-30, 1e-10, -1e30, -1, -1e-10], None, 1),  # the third is lost for a while
    ([0] * 6, [1e30, 1, 1e-30, 1e-10, -1e30, -1e-10], None, 1),
    ([5, 5, 5, 5, 5], [1e-45, 1e30, 3e38, -1e30, -3e38], None, 1),
    ([1, 1, 0, 0], [3e38, -3e38, 1e-40, -2e-40], None, -1),
]


def as_dtype(value, dtype):
    return np.dtype(dtype).type(value)


def exact_sum(a, b, bits=BITS):
    """Of one row: the logarithm of the absolute sum, and its sign. Equal exponents are added first: exactly."""
    with mpmath.workprec(3000):
        weights = {}
        for x, y in zip(np.asarray(a).tolist(), np.asarray(b).tolist(), strict=True):
            if y != 0 and x != -INF:
                weights[x] = weights.get(x, 0) + mpmath.mpf(y)
    terms = [(mpmath.mpf(x), w) for x, w in weights.items() if w != 0]
    if not terms:
        return -mpmath.inf, 0
    with mpmath.workprec(bits):
        origin = max(x for x, _ in terms)
        total = mpmath.fsum(w * mpmath.exp(x - origin) for x, w in terms)
        return origin + mpmath.log(abs(total)), int(mpmath.sign(total))


def check(a, b, bits=BITS):
    """The law: the sign, and one unit in the last place of the logarithm. Rows of one sign have another."""
    value, sign = special.logsumexp(a, -1, b, return_sign=True)
    assert value.dtype == sign.dtype == a.dtype
    for row, weights, got, got_sign in zip(a, b, value, sign, strict=True):
        exact, exact_sign = exact_sum(row, weights, bits)
        assert got_sign == exact_sign, (row, weights)
        if exact_sign == 0:
            assert got == -INF
        elif (weights > 0).any() and (weights < 0).any():
            with mpmath.workprec(bits):
                unit = float(np.spacing(np.abs(a.dtype.type(float(exact)))))
                error = float(abs(mpmath.mpf(float(got)) - exact) / unit)
            assert error <= 1, (row, weights)


@pytest.mark.parametrize("case", range(len(EXACT_ROWS)))
def test_what_cancels_exactly_leaves_no_trace(dtype, case):
    a, b, expected, expected_sign = EXACT_ROWS[case]
    a, b = np.array(a, dtype), np.array(b, dtype)
    for order in itertools.islice(itertools.permutations(range(len(a))), 0, 120, 7):
        order = list(order)
        value, sign = special.logsumexp(a[order], b=b[order], return_sign=True)
        if expected is not None:
            assert value == as_dtype(expected, dtype)
        assert sign == expected_sign
        check(a[None, order], b[None, order])
        plain = special.logsumexp(a[order], b=b[order])
        assert_array_equal(plain, value if expected_sign >= 0 else NAN)


@pytest.mark.parametrize("n_terms", [2, 3, 15, 16, 17, 100])
@pytest.mark.parametrize("spread", [1e-8, 0.1, 1, 10, 100, 1e6, 1e30])
def test_random_sums(rng, dtype, n_terms, spread):
    a = logits_of(rng, (10, n_terms), dtype, spread)
    check(a, rng.uniform(-1, 1, a.shape).astype(dtype))


@pytest.mark.parametrize("n_terms", [4, 16, 33, 257])
def test_pairs_cancel_and_the_rest_remains(rng, dtype, n_terms):
    a, b = rng.uniform(-1, 1, (2, 20, n_terms)).astype(dtype)
    half = n_terms // 2
    a[:, :half] = logits_of(rng, (20, half), dtype, 30) + 50
    b[:, :half] = rng.uniform(-1, 1, (20, half))
    a[:, half : 2 * half], b[:, half : 2 * half] = a[:, :half], -b[:, :half]
    rest = [0, *range(2 * half, n_terms)]  # the first pair does not cancel
    a[:, rest] = logits_of(rng, (20, len(rest)), dtype, 1)
    order = rng.permuted(np.tile(np.arange(n_terms), (20, 1)), axis=1)
    a, b = np.take_along_axis(a, order, 1), np.take_along_axis(b, order, 1)
    check(a, b)


@pytest.mark.parametrize("large", [1e-3, 1, 40, 700, 1e4])
@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_neighbouring_exponents_cancel_to_their_difference(dtype, large, steps):
    a = np.array([[large, large, 0]] * 2, dtype)
    for _ in range(steps):
        a[:, 1] = np.nextafter(a[:, 1], as_dtype(INF, dtype))
    check(a, np.array([[1, -1, 1], [-3, 3, 0]], dtype))


@pytest.mark.parametrize("degree", [2, 3, 5])
def test_differences_of_a_higher_order_are_right_beyond_twice_the_digits(dtype, degree):
    """Sums that cancel to 2**-104 of their terms, and to 2**-260."""
    step = np.finfo(dtype).eps
    a = np.array([[1 + k * step for k in range(degree + 1)], range(degree + 1)], dtype)
    b = np.array([(-1) ** k * int(mpmath.binomial(degree, k)) for k in range(degree + 1)], dtype)
    check(a, np.stack([b, b]), bits=2000)


def test_weights_may_undo_their_exponentials(rng, dtype):
    """Sums of terms of about 1, in which almost nothing of the weights is left."""
    a = rng.uniform(-80, 80, (30, 12)).astype(dtype)
    b = np.exp(-a.astype(np.float64)).astype(dtype)
    b[:, ::2] *= -1
    check(a, b)


def test_sums_of_almost_one_have_small_logarithms(dtype):
    tiny = np.finfo(dtype).eps / 2
    a = np.array([[0, -60, -70], [0, -700, -1], [0, -tiny, 0], [0, tiny, -40], [1, 0, 0]], dtype)
    b = np.array([[1, 1, -1], [1, -1, 0], [2, -1, 0], [2, -1, -1], [0, 2, -1]], dtype)
    check(a, b, bits=2200)


def test_weights_of_any_size(rng, dtype):
    least, most = (-44, 37) if dtype == "float32" else (-322, 307)
    for spread in (0, 1, 300):
        a = logits_of(rng, (20, 9), dtype, spread)
        b = (rng.uniform(-9, 9, a.shape) * 10.0 ** rng.integers(least, most, a.shape)).astype(dtype)
        check(a, b)
        a[:, 4:8] = a[:, :4]
        b[:, 4:8] = -b[:, :4]
        check(a, b)


def test_sums_of_the_largest_weights_do_not_overflow(dtype):
    most = np.finfo(dtype).max
    a = np.array([[9, 9, 9, 9], [9, 9, 9, 9], [9, 9, 9, 8], [-9, 9, 9, 9]], dtype)
    small = np.finfo(dtype).smallest_subnormal
    b = np.array(
        [
            [most, most, -most, most],
            [most, most, -most, -most],
            [most, most, -2 * (most / 2), -most],
            [small, most, -most, 0],
        ],
        dtype,
    )
    check(a, b)
    b = np.array([[most, small, -most, small], [most, small, -most, -small]], dtype)
    check(a[:2], b)


def test_the_largest_exponents(dtype):
    most = np.finfo(dtype).max
    a = np.array([[most, -most, 0], [most, most, -most], [-most, -most, -most]], dtype)
    b = np.array([[1, -1, 1], [1, -1, -1], [1, 1, -1]], dtype)
    value, sign = special.logsumexp(a, 1, b, return_sign=True)
    assert_array_equal(value, [most, -most, -most])
    assert_array_equal(sign, [1, -1, 1])


@pytest.mark.parametrize(
    ("a", "b", "expected", "expected_sign"),
    [
        ([INF, 0, 1], [1, -1, 1], INF, 1),
        ([INF, 0, 1], [-1, -1, 1], INF, -1),
        ([INF, INF, 1], [1, -1, 1], NAN, NAN),
        ([INF, 0, 1], [0, -1, 1], None, 1),
        ([NAN, 0, 1], [0, -1, 1], None, 1),
        ([NAN, 0, 1], [1, -1, 1], NAN, NAN),
        ([NAN, INF, 1], [1, -1, 1], NAN, NAN),
        ([-INF, 0, 1], [1, -1, 1], None, 1),
        ([-INF, 0, 0], [1, -1, 1], -INF, 0),
        ([-INF, -INF, -INF], [1, -1, 1], -INF, 0),
        ([-INF, 0, 0], [INF, -1, 1], NAN, NAN),
        ([0, 0, 0], [INF, -1, 1], INF, 1),
        ([0, 0, 0], [INF, -INF, 1], NAN, NAN),
        ([0, 0, 0], [1, -INF, 1], INF, -1),
        ([0, INF, 0], [1, -INF, 1], INF, -1),
        ([0, INF, 0], [INF, -1, 1], NAN, NAN),
        ([0, 0, 0], [NAN, -1, 1], NAN, NAN),
        ([-INF, 0, 0], [NAN, -1, 1], NAN, NAN),
    ],
)
def test_infinities_and_nan_beside_both_signs(dtype, a, b, expected, expected_sign):
    if expected is None:
        with mpmath.workprec(BITS):
            expected = as_dtype(float(mpmath.log(mpmath.e - 1)), dtype)
    a, b = np.array([a, [40, 40, 0]], dtype), np.array([b, [1, -1, 1]], dtype)
    value, sign = special.logsumexp(a, 1, b, return_sign=True)
    assert_array_equal(value, [expected, 0])
    assert_array_equal(sign, [expected_sign, 1])


@pytest.mark.parametrize("axes", [0, 1, 2, None, (0, 2), (1, 2), (2, 0)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_layout_order_of_memory_and_axes_do_not_matter(rng, dtype, axes, keepdims):
    a = rng.integers(-3, 3, (5, 6, 7)).astype(dtype)  # with terms that cancel
    b = rng.integers(-2, 3, a.shape).astype(dtype)

    def sums(a, b):
        return np.stack(special.logsumexp(a, axes, b, keepdims, return_sign=True))

    expected = sums(a, b)
    shape = a.sum(axes, keepdims=keepdims).shape
    assert expected.shape == (2, *shape)
    read_only = a.copy()
    read_only.flags.writeable = False
    for other in (
        np.asfortranarray(a),
        a[::-1].copy()[::-1],
        np.repeat(a, 2, axis=-1)[..., ::2],
        a.astype(a.dtype.newbyteorder()),
        read_only,
    ):
        assert same_bits(sums(other, b), expected)
        assert same_bits(sums(a, np.asfortranarray(b)), expected)
    assert same_bits(sums(a, np.broadcast_to(b[:1], b.shape)), sums(a, b[:1]))
    assert same_bits(sums(np.broadcast_to(a[:, :1], a.shape), b), sums(a[:, :1], b))


def test_a_row_does_not_depend_on_the_others(rng, dtype):
    a = logits_of(rng, (60, 8), dtype, 3)
    b = rng.integers(-2, 3, a.shape).astype(dtype)
    b[::3] = np.abs(b[::3])
    b[1::6] = -np.abs(b[1::6])
    value, sign = special.logsumexp(a, 1, b, return_sign=True)
    for i in range(len(a)):
        one, its_sign = special.logsumexp(a[i], b=b[i], return_sign=True)
        assert same_bits(one, value[i])
        assert same_bits(its_sign, sign[i])
    opposite, opposite_sign = special.logsumexp(a, 1, -b, return_sign=True)
    assert same_bits(opposite, value)
    assert_array_equal(opposite_sign, -sign)


@pytest.mark.parametrize("n_values", [1, 40, 1000])
def test_a_hundred_thousand_terms(rng, dtype, n_values):
    values = logits_of(rng, n_values, dtype, 5)
    a = rng.choice(values, (2, 100_000))
    b = rng.standard_normal(a.shape).astype(dtype)
    a[1, 50_000:], b[1, 50_000:] = a[1, :50_000], -b[1, :50_000]
    b[1, 7] *= 2
    check(a, b)


def test_many_rows_are_computed_in_parts(rng, dtype):
    a = np.tile(logits_of(rng, (3, 5), dtype, 1), (15_000, 1))
    b = np.tile(np.array([[1, -1, 1, 0.5, -2]], dtype), (len(a), 1))
    value, sign = special.logsumexp(a, 1, b, return_sign=True)
    expected, expected_sign = special.logsumexp(a[:3], 1, b[:3], return_sign=True)
    assert same_bits(value, np.tile(expected, 15_000))
    assert same_bits(sign, np.tile(expected_sign, 15_000))


def test_decimal_settings_of_the_caller_neither_matter_nor_change(dtype):
    a, b, *_ = EXACT_ROWS[-4]
    a, b = np.array([a], dtype), np.array([b], dtype)
    with decimal.localcontext() as context:
        context.prec, context.Emax = 3, 9
        context.traps = dict.fromkeys(context.traps, True)
        flags = context.flags.copy()
        inside = special.logsumexp(a, 1, b, return_sign=True)
        assert context.flags == flags
        assert context.prec == 3
    assert same_bits(np.stack(inside), np.stack(special.logsumexp(a, 1, b, return_sign=True)))


def test_half_precision_is_computed_in_float32():
    a, b = np.float16([40, 40, 0, 1]), np.float16([1, -1, 1, -3])
    value, sign = special.logsumexp(a, b=b, return_sign=True)
    expected = special.logsumexp(np.float32(a), b=np.float32(b), return_sign=True)
    assert same_bits(np.stack([value, sign]), np.stack(expected))
    assert special.logsumexp(a[:3], b=b[:3]) == 0


def test_integers_of_both_signs():
    value, sign = special.logsumexp([40, 40, 0], b=np.int8([1, -1, 1]), return_sign=True)
    assert (value, sign) == (0, 1)
    value, sign = special.logsumexp([[True, False]], 1, [[1, -1]], return_sign=True)
    np.testing.assert_array_max_ulp(value, np.log(np.expm1([1.0])), 1)
    assert sign == 1


def test_arithmetic_raises_no_warning(dtype):
    with np.errstate(all="raise"):
        for a, b, *_ in EXACT_ROWS:
            special.logsumexp(np.array(a, dtype), b=np.array(b, dtype), return_sign=True)
        for b in ([1, -1, INF], [0, 0, -0.0], [NAN, 1, -1], [1, -1, 1e-45]):
            for a in ([0, 0, 0], [INF, -INF, NAN], [-INF, 3e38, -3e38]):
                special.logsumexp(np.array(a, dtype), b=np.array(b, dtype), return_sign=True)
