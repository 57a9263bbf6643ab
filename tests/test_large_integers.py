"""Integers beyond 2**53: what float64 cannot tell apart, every function does."""

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import csoftmax
from csoftmax import functional, special
from support.bits import same_bits
from support.reference import BOUNDS

INT64, UINT64 = np.iinfo(np.int64), np.iinfo(np.uint64)
ROWS = [
    ("int64", [2**62, 2**62 + 1]),
    ("int64", [2**53, 2**53 + 1, 2**53 - 1]),
    ("int64", [-(2**53) - 1, -(2**53), -(2**53) - 3]),
    ("int64", [INT64.min, INT64.max]),
    ("int64", [INT64.min, INT64.min + 1, INT64.min + 2]),
    ("int64", [2**60, 2**60 - 40, 5, -(2**62)]),
    ("int64", [3, 2, INT64.min + 1]),
    ("int64", [INT64.max, -(2**53) - 1, 0]),  # a difference that rounds
    ("uint64", [UINT64.max, UINT64.max - 1]),
    ("uint64", [0, UINT64.max]),
    ("uint64", [2**63, 2**63 + 1, 2**63 - 1, 1]),
    ("uint64", [2**53 + 1, 2**53, 0]),
]
OF_A_ROW = pytest.mark.parametrize(("kind", "row"), ROWS)


def exact_logsumexp(row, temperature=1.0):
    """In 400 bits; the largest term's logarithm too."""
    with mpmath.workprec(400):
        t = mpmath.mpf(temperature)
        top = max(row) / t
        return top + mpmath.log(mpmath.fsum(mpmath.exp((v - max(row)) / t) for v in row)), top


def distance(got, exact, scale=0.0):
    """Units in the last place of the exact value, or of `scale` if that is larger."""
    with mpmath.workprec(400):
        size = max(abs(exact), abs(scale))
        if size > np.finfo(np.float64).max:
            return 0.0 if got == np.sign(float(mpmath.sign(exact))) * np.inf else np.inf
        return float(abs(mpmath.mpf(float(got)) - exact) / float(np.spacing(float(size))))


def differences(row):
    return np.array([value - max(row) for value in row], np.float64)


def large(rng, shape, kind="int64"):
    """Random integers, each near one that float64 cannot hold."""
    base = rng.choice(np.array([2**53 + 100, 2**62 + 5, 2**63 - 200], kind), (*shape[:-1], 1))
    sign = 1 if kind == "uint64" else rng.choice(np.array([-1, 1]), base.shape)
    return sign * base + rng.integers(0, 60, shape).astype(kind)


def shifted(x, axis):
    """`x` less its maxima: these differences are small, and float64 holds them."""
    return 0.0 - (x.max(axis, keepdims=True) - x)


@OF_A_ROW
def test_differences_of_large_integers_are_not_rounded_away(kind, row):
    x = np.array(row, kind)
    p, log_p = csoftmax.softmax(x), csoftmax.log_softmax(x)
    assert p.dtype == log_p.dtype == np.float64
    total, top = exact_logsumexp(row)
    for j, value in enumerate(row):
        with mpmath.workprec(400):
            exact = value - total
            probability = mpmath.exp(exact)
        assert distance(p[j], probability) <= BOUNDS["softmax", "float64"]
        assert distance(log_p[j], exact) <= BOUNDS["log_softmax", "float64"]
    assert distance(csoftmax.logsumexp(x), total, top) <= BOUNDS["logsumexp", "float64"]


@OF_A_ROW
@pytest.mark.parametrize("temperature", [1e-300, 0.3, 7.0, 1e18, 1e300])
def test_differences_are_divided_by_the_temperature(kind, row, temperature):
    x, y = np.array(row, kind), differences(row)
    for name in ("softmax", "log_softmax"):
        function = getattr(csoftmax, name)
        expected = function(y, temperature=temperature)
        assert same_bits(function(x, temperature=temperature), expected)
        assert not np.isnan(expected).any()


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 2.5e-290, 1e-3, 1e10, 1.7e308])
@OF_A_ROW
def test_logsumexp_divides_the_maximum_by_any_temperature(kind, row, temperature):
    got = csoftmax.logsumexp(np.array(row, kind), temperature=temperature)
    assert distance(got, *exact_logsumexp(row, temperature)) <= BOUNDS["logsumexp", "float64"]


def test_the_example_of_the_contract():
    for x in ([2**62, 2**62 + 1], np.uint64([2**63, 2**63 + 1])):
        for function in (csoftmax.softmax, special.softmax, lambda x: functional.softmax(x, 0)):
            np.testing.assert_array_max_ulp(
                function(x), np.array([0.2689414213699951, 0.7310585786300049]), 3
            )


@OF_A_ROW
def test_every_namespace_gives_the_same_bits(kind, row):
    x = np.array(row, kind)
    for name in ("softmax", "log_softmax", "logsumexp"):
        expected = getattr(csoftmax, name)(x)
        assert same_bits(getattr(special, name)(x), expected)
        assert same_bits(getattr(special, name)(x, 0), expected)
        assert same_bits(getattr(functional, name)(x, 0), expected)
        assert same_bits(getattr(csoftmax, name)(x[None], -1), expected[None])
    for name in ("softmax", "log_softmax"):
        in_float64 = getattr(functional, name)(x, 0, dtype=np.float64)
        assert same_bits(in_float64, getattr(csoftmax, name)(x))
    assert same_bits(functional.cross_entropy(x, 0), csoftmax.cross_entropy(x, 0))


@pytest.mark.parametrize("kind", ["int64", "uint64"])
@pytest.mark.parametrize("shape", [(1, 2), (5, 3), (70, 17), (3, 2049)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 2.5},
        {"label_smoothing": 0.1},
        {"weighted": True},
        {"weighted": True, "label_smoothing": 0.3, "temperature": 0.5, "reduction": "none"},
        {"ignore_index": 1, "reduction": "sum"},
    ],
)
def test_losses_and_gradients_are_those_of_the_differences(rng, kind, shape, options):
    x = large(rng, shape, kind)
    y, options = shifted(x, -1), dict(options)
    if options.pop("weighted", False):
        options["weight"] = rng.uniform(0, 2, shape[-1])
        options["sample_weight"] = rng.uniform(0, 2, shape[0])
    for target in (rng.integers(0, shape[-1], shape[0]), csoftmax.softmax(rng.normal(size=shape))):
        expected = csoftmax.cross_entropy(y, target, **options)
        assert same_bits(csoftmax.cross_entropy(x, target, **options), expected)
        loss, grad = csoftmax.cross_entropy_with_grad(x, target, **options)
        expected, expected_grad = csoftmax.cross_entropy_with_grad(y, target, **options)
        assert same_bits(loss, expected)
        assert same_bits(grad, expected_grad)


@pytest.mark.parametrize("kind", ["int64", "uint64"])
def test_log_probabilities_are_those_of_the_differences(rng, kind):
    x = large(rng, (6, 9), kind)
    for index in (rng.integers(0, 9, 6), rng.integers(0, 9, (6, 4))):
        for temperature in (1.0, 0.7):
            expected = csoftmax.log_prob(shifted(x, -1), index, temperature=temperature)
            assert same_bits(csoftmax.log_prob(x, index, temperature=temperature), expected)


def test_a_loss_is_the_rounded_difference_and_the_logarithm():
    assert csoftmax.cross_entropy([INT64.min, INT64.max], 0) == 2.0**64
    assert csoftmax.cross_entropy([INT64.min, INT64.max], 1) == 0
    loss = csoftmax.cross_entropy([[2**62, 2**62 + 40]], [1])
    with mpmath.workprec(200):
        exact = mpmath.log1p(mpmath.exp(-40))
    assert distance(loss, exact) <= BOUNDS["log_softmax", "float64"]


@pytest.mark.parametrize("kind", ["int64", "uint64"])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_axis_and_layout_do_not_matter(rng, kind, axis):
    x = np.moveaxis(large(rng, (3, 5, 7), kind), -1, axis)
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), kind)
    wide[..., ::2] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    misaligned = np.empty(x.nbytes + 1, np.uint8)[1:].view(kind).reshape(x.shape)
    misaligned[...] = x
    for name in ("softmax", "log_softmax", "logsumexp"):
        function = getattr(csoftmax, name)
        moved = function(np.moveaxis(x, axis, -1).copy())
        expected = moved if name == "logsumexp" else np.moveaxis(moved, -1, axis)
        for layout in (
            x,
            np.asfortranarray(x),
            x[::-1].copy()[::-1],
            wide[..., ::2],
            x.astype(x.dtype.newbyteorder()),
            read_only,
            misaligned,
        ):
            assert same_bits(function(layout, axis), expected)
    repeated = np.broadcast_to(x[:1], x.shape)
    assert same_bits(csoftmax.softmax(repeated, axis), csoftmax.softmax(repeated.copy(), axis))


@pytest.mark.parametrize("axes", [None, (0, 1), (0, 2), (2, 0), ()])
def test_several_axes_are_as_one(rng, axes):
    x = rng.integers(0, 30, (3, 4, 5))
    x += 2**62 + 1 - x.max(axes, keepdims=True)  # one maximum in all that is reduced
    y = (x - (2**62 + 1)).astype(np.float64)
    for name in ("softmax", "log_softmax"):
        assert same_bits(getattr(special, name)(x, axes), getattr(special, name)(y, axes))
    total = special.logsumexp(x, axes, keepdims=True)
    assert_array_equal(total, special.logsumexp(y, axes, keepdims=True) + np.float64(2**62 + 1))


def test_rows_of_small_integers_keep_their_bits_beside_rows_of_large_ones(rng):
    small = rng.integers(-(2**53), 2**53, (40, 6), endpoint=True)
    small[:20] = rng.integers(-50, 50, (20, 6))
    x = np.stack([small, large(rng, (40, 6))], axis=1)
    for name in ("softmax", "log_softmax", "logsumexp"):
        function = getattr(csoftmax, name)
        assert same_bits(function(x)[:, 0], function(small.astype(np.float64)))
        assert same_bits(function(small), function(small.astype(np.float64)))
    expected = csoftmax.logsumexp(small.astype(np.float64), temperature=3.0)
    assert same_bits(csoftmax.logsumexp(x, temperature=3.0)[:, 0], expected)


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, INT64.min, INT64.max, UINT64.max])
def test_one_class_and_scalars(value):
    for x in (value, [value], np.array([value]), np.array(value)):
        assert csoftmax.softmax(x) == special.softmax(x) == 1
        assert same_bits(csoftmax.log_softmax(x), np.zeros(np.shape(x)))
        assert csoftmax.logsumexp(x) == special.logsumexp(x) == np.float64(value)
        assert np.shape(csoftmax.logsumexp(x)) == ()
    assert csoftmax.cross_entropy([value], 0) == 0
    assert special.logsumexp([value], return_sign=True) == (np.float64(value), 1)


def test_out_takes_the_results_also_where_the_integers_lie():
    x = np.array([2**62, 2**62 + 1])
    expected, total = csoftmax.softmax(x), csoftmax.logsumexp(x)
    out = np.empty(2)
    assert csoftmax.softmax(x, out=out) is out
    assert same_bits(out, expected)
    out = np.empty(())
    assert csoftmax.logsumexp(x, out=out) is out
    assert out == total
    assert_array_equal(x, [2**62, 2**62 + 1])
    in_place = x.view(np.float64)
    assert same_bits(csoftmax.softmax(x, out=in_place), expected)


def test_lists_for_which_numpy_has_no_integers_are_right_or_refused():
    assert_array_equal(csoftmax.softmax([2**63, -1]), [1, 0])  # float64 holds both
    assert_array_equal(csoftmax.log_softmax([[2**63], [-1]], 0), [[0], [-(2.0**63)]])
    for x in ([2**63 + 1, -1], [[2**64 - 1], [-(2**53)]], [np.uint64(2**63 + 1), np.int64(-1)]):
        for function in (
            csoftmax.softmax,
            csoftmax.log_softmax,
            csoftmax.logsumexp,
            special.softmax,
            special.logsumexp,
            lambda x: functional.softmax(x, 0),
            lambda x: functional.logsumexp(x, 0),
            lambda x: functional.cross_entropy(x, 0 if np.ndim(x) == 1 else [0, 0]),
            lambda x: csoftmax.cross_entropy(x, 0 if np.ndim(x) == 1 else [0, 0]),
            lambda x: csoftmax.log_prob(x, 0 if np.ndim(x) == 1 else [0, 0]),
        ):
            with pytest.raises(
                TypeError, match=r"neither int64 nor uint64 holds: .*numpy\.asarray"
            ):
                function(x)
            function(np.asarray(x, dtype=np.float64))  # the cure
    with pytest.raises(TypeError, match=r"got object: pass numpy\.asarray"):
        csoftmax.softmax([2**64, 1])
    assert_array_equal(csoftmax.softmax(np.asarray([2**64, 1], dtype=np.float64)), [1, 0])
    assert_array_equal(csoftmax.softmax([2**63 + 1, 0.5, -1]), [1, 0, 0])  # floats are floats


@pytest.mark.parametrize("kind", ["int64", "uint64"])
def test_weighted_sums_of_large_exponents(kind):
    top = 2**62
    a = np.array([top, top + 1, top - 1, top + 1], kind)
    for b in ([1, 2, 3, 4], [0.5, 0, 0, 1], [1, 1, 1, -3], [1, 2, 0, -2], [-1, 0, -2, 0]):
        with mpmath.workprec(200):
            total = mpmath.fsum(w * mpmath.exp(int(v) - top) for v, w in zip(a, b, strict=True))
            exact = top + mpmath.log(abs(total))
        value, sign = special.logsumexp(a, b=b, return_sign=True)
        assert distance(value, exact) <= 1
        assert sign == mpmath.sign(total)
    # What does not count is not what the others are compared to.
    assert special.logsumexp(np.array([top, 1], kind), b=[0, 1]) == 1
    assert special.logsumexp(np.array([top, 1], kind), b=[0, -1], return_sign=True) == (1, -1)
    assert special.logsumexp(np.array([top, 1], kind), b=[0, 0]) == -np.inf
    # Exact differences count also where the large terms cancel.
    a = np.array([top, top, 5, 3], kind)
    value, sign = special.logsumexp(a, b=[1, -1, 1, -1], return_sign=True)
    with mpmath.workprec(200):
        exact = mpmath.log(mpmath.exp(5) - mpmath.exp(3))
    assert distance(value, exact) <= 1
    assert sign == 1


def test_large_integer_weights_cancel_exactly():
    for b, expected in [
        ([2**62 + 1, -(2**62)], 1),
        ([2**63 - 1, -(2**63)], -1),
        ([2**53 + 1, -(2**53) - 1], 0),
    ]:
        value, sign = special.logsumexp([7, 7], b=b, return_sign=True)
        assert sign == expected
        assert value == (7 if expected else -np.inf)
        repeated = [special.logsumexp(np.full((3, 2), 7), 1, np.array([b] * 3), return_sign=True)]
        assert_array_equal(repeated, [[[value] * 3, [sign] * 3]])


def test_python_integers_beside_arrays_do_not_wrap_around():
    log_3 = float(mpmath.log(3))
    assert special.logsumexp(300, b=np.int8([1, 2])) == 300 + log_3
    assert special.logsumexp(2**63, b=np.int64([1, 2])) == 2.0**63
    value, sign = special.logsumexp(np.uint64([1, 1]), b=-3, return_sign=True)
    np.testing.assert_array_max_ulp(value, 1 + np.log(6), 1)
    assert sign == -1


def test_arithmetic_raises_no_warning():
    with np.errstate(all="raise"):
        for kind, row in ROWS:
            x = np.array(row, kind)
            csoftmax.softmax(x, temperature=1e-300)
            csoftmax.logsumexp(x, temperature=1e-300)
            csoftmax.cross_entropy_with_grad(x, 0)
            special.logsumexp(x, b=np.arange(len(row)) - 1)
