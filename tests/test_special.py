"""csoftmax.special: SciPy's arguments, any axes, weights and signs."""

import doctest
import inspect
import itertools

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import csoftmax
from csoftmax import special
from support.bits import same_bits
from support.cases import logits_of
from support.reference import INF, NAN

ELEMENTWISE = ["softmax", "log_softmax"]
SHAPE = (2, 3, 4, 5)
EVERY_AXES = [
    axes for n in range(1, 5) for axes in itertools.permutations(range(-4, 0), n) if n != 1
]

# a, b, the value without and with the sign asked for, the sign: SciPy 1.17's answers.
WEIGHTED_SPECIAL_ROWS = [
    ([INF, 1], [0, 1], 1, 1, 1),
    ([NAN, 1], [0, 1], 1, 1, 1),
    ([1, 2], [-0.0, 1], 2, 2, 1),
    ([1, 2], [0, 0], -INF, -INF, 0),
    ([1, 1], [1, -1], -INF, -INF, 0),
    ([-INF, -INF], [1, -1], -INF, -INF, 0),
    ([-INF, 2], [-3, 1], 2, 2, 1),
    ([2, 2], [-0.25, -0.75], NAN, 2, -1),
    ([INF, 0], [1, -1], INF, INF, 1),
    ([INF, 0], [-1, 1], NAN, INF, -1),
    ([INF, INF], [1, -1], NAN, NAN, NAN),
    ([1, 2], [INF, 1], INF, INF, 1),
    ([1, 2], [-INF, 1], NAN, INF, -1),
    ([1, 2], [NAN, 1], NAN, NAN, NAN),
    ([1, NAN], [1, 1], NAN, NAN, NAN),
    ([-INF, -INF], [INF, 1], NAN, NAN, NAN),
]


def moved(x, axes):
    """`x` with `axes` as one, the last."""
    rest = [i for i in range(x.ndim) if i not in {a % x.ndim for a in axes}]
    order = rest + sorted(a % x.ndim for a in axes)
    return x.transpose(order).reshape([x.shape[i] for i in rest] + [-1]), order


def scipy_special():
    return pytest.importorskip("scipy.special", reason="scikit-learn brings SciPy")


def test_every_example_in_the_docstrings_gives_what_it_shows():
    failed, attempted = doctest.testmod(special)
    assert attempted > 0
    assert failed == 0


@pytest.mark.parametrize("name", special.__all__)
def test_names_order_and_defaults_of_the_arguments_are_those_of_scipy(name):
    theirs = inspect.signature(getattr(scipy_special(), name)).parameters.values()
    ours = inspect.signature(getattr(special, name)).parameters.values()
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_no_axis_means_the_whole_array(rng, dtype, name):
    x = logits_of(rng, SHAPE, dtype)
    expected = getattr(csoftmax, name)(x.reshape(-1)).reshape(x.shape)
    assert same_bits(getattr(special, name)(x), expected)
    assert same_bits(getattr(special, name)(x, axis=None), expected)


@pytest.mark.parametrize("axes", EVERY_AXES)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_several_axes_are_as_one_of_all_their_elements(rng, dtype, name, axes):
    x = logits_of(rng, SHAPE, dtype)
    one, order = moved(x, axes)
    expected = getattr(csoftmax, name)(one).reshape([x.shape[i] for i in order])
    got = getattr(special, name)(x, axes)
    assert same_bits(got, expected.transpose(np.argsort(order)))


@pytest.mark.parametrize("axes", EVERY_AXES)
def test_logsumexp_of_several_axes_is_that_of_one_of_all_their_elements(rng, dtype, axes):
    x = logits_of(rng, SHAPE, dtype)
    expected = csoftmax.logsumexp(moved(x, axes)[0])
    assert same_bits(special.logsumexp(x, axes), expected)
    kept = special.logsumexp(x, axes, keepdims=True)
    assert kept.shape == x.sum(axes, keepdims=True).shape
    assert same_bits(np.squeeze(kept, axes)[()], expected)


@pytest.mark.parametrize("axis", range(-4, 4))
def test_one_axis_gives_what_the_package_gives(rng, dtype, axis):
    x = logits_of(rng, SHAPE, dtype)
    for axes in (axis, np.int8(axis), (axis,)):
        assert same_bits(special.softmax(x, axes), csoftmax.softmax(x, axis))
        assert same_bits(special.log_softmax(x, axes), csoftmax.log_softmax(x, axis))
        for keepdims in (False, True):
            expected = csoftmax.logsumexp(x, axis, keepdims=keepdims)
            assert same_bits(special.logsumexp(x, axes, keepdims=keepdims), expected)


@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (2, 3), (0, 1, 2), (1, 2, 3), (0, 1, 2, 3), ()])
def test_neighbouring_axes_of_a_contiguous_array_merge_without_a_copy(rng, axes):
    x = logits_of(rng, SHAPE, "float32")
    merged, number = special._one_axis(x, axes)
    assert np.shares_memory(merged, x)
    assert merged.shape[number] == np.prod([x.shape[i] for i in axes], dtype=int)


@pytest.mark.parametrize("axes", [None, (0, 1), (0, 2), (3, 0, 1)])
def test_the_layout_never_matters(rng, dtype, axes):
    x = logits_of(rng, SHAPE, dtype)
    read_only = x.copy()
    read_only.flags.writeable = False
    for other in (
        np.asfortranarray(x),
        x[::-1].copy()[::-1],
        read_only,
        x.astype(x.dtype.newbyteorder()),
    ):
        assert same_bits(special.softmax(other, axes), special.softmax(x, axes))
        assert same_bits(special.log_softmax(other, axes), special.log_softmax(x, axes))
        assert same_bits(special.logsumexp(other, axes), special.logsumexp(x, axes))
        assert same_bits(special.logsumexp(other, axes, b=-x), special.logsumexp(x, axes, b=-x))
    repeated = np.broadcast_to(x[:, :1], SHAPE)
    assert same_bits(special.softmax(repeated, axes), special.softmax(repeated.copy(), axes))


@pytest.mark.parametrize("axes", [0, 1, 2, None, (0, 2)])
@pytest.mark.parametrize("positive", [True, False])
def test_the_layout_of_terms_and_weights_never_matters(rng, dtype, axes, positive):
    a, b = (logits_of(rng, (17, 20, 33), dtype, 0.1) for _ in range(2))
    b = np.abs(b) if positive else b

    def sums(a, b):
        return special.logsumexp(a, axes, b=b, return_sign=True)

    every_second = np.zeros((17, 20, 66), dtype)[..., ::2]
    every_second[...] = b
    for other in (np.asfortranarray, lambda x: x[:, ::-1].copy()[:, ::-1]):
        assert same_bits(sums(other(a), other(b)), sums(a, b))
    assert same_bits(sums(np.asfortranarray(a), every_second), sums(a, b))
    assert same_bits(sums(a, np.broadcast_to(b[:1], b.shape)), sums(a, b[:1]))


def test_no_axes_at_all_make_each_element_a_sum(rng, dtype):
    x = logits_of(rng, (3, 4), dtype)
    assert same_bits(special.softmax(x, ()), np.ones_like(x))
    assert same_bits(special.log_softmax(x, ()), np.zeros_like(x))
    assert same_bits(special.logsumexp(x, ()), x)
    assert same_bits(special.logsumexp(x, (), keepdims=True), x)


def test_scalars_give_numpy_scalars():
    assert type(special.softmax(1000)) is np.float64
    assert special.softmax(1000) == 1
    assert type(special.log_softmax(np.float32(3))) is np.float32
    assert special.log_softmax(3.0, axis=0) == 0
    assert type(special.logsumexp(3.0)) is np.float64
    assert type(special.logsumexp([[1, 2]])) is np.float64
    assert special.logsumexp(3.0) == special.logsumexp(3, axis=0) == 3
    assert_array_equal(
        special.logsumexp(3.0, keepdims=True), [3.0]
    )  # SciPy's scalar has one dimension
    assert_array_equal(special.logsumexp(3.0, axis=()), [3.0])
    value, sign = special.logsumexp([1.0, 2.0], b=[1, -1], return_sign=True)
    assert type(value) is type(sign) is np.float64


@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (2, 0, 3)])
def test_empty_arrays_give_empty_results_and_sums_of_nothing(dtype, shape):
    x = np.empty(shape, dtype)
    for axes in (None, 0, (0,), tuple(range(len(shape)))):
        assert same_bits(special.softmax(x, axes), x)
        assert same_bits(special.log_softmax(x, axes), x)
        for keepdims in (False, True):
            like = x.sum(axes, keepdims=keepdims)
            got = special.logsumexp(x, axes, keepdims=keepdims)
            assert_array_equal(got, np.full(like.shape, -np.inf))
            assert got.dtype == dtype
            value, sign = special.logsumexp(x, axes, b=x, keepdims=keepdims, return_sign=True)
            assert_array_equal(value, got)
            assert_array_equal(sign, np.zeros(got.shape))
            assert sign.dtype == dtype


@pytest.mark.parametrize("kind", ["?", *np.typecodes["AllInteger"]])
def test_integers_and_bool_are_computed_in_float64(kind):
    x = np.array([[1, 0, 1], [0, 0, 1]], kind)
    for name in special.__all__:
        function = getattr(special, name)
        assert same_bits(function(x), function(x.astype(np.float64)))
    assert special.logsumexp(x, b=x).dtype == np.float64


def test_float16_is_computed_in_float32():
    x = np.float16([[1, 2, 3], [4, 5, 60000]])
    single = x.astype(np.float32)
    with np.errstate(all="ignore"):  # the smallest probabilities vanish
        assert same_bits(special.softmax(x), special.softmax(single).astype(np.float16))
    assert same_bits(special.logsumexp(x, 1), special.logsumexp(single, 1))
    value, sign = special.logsumexp(x, 1, b=np.float16([1, -1, 2]), return_sign=True)
    assert value.dtype == sign.dtype == np.float32


def exact_logsumexp(a, b):
    """Of one row in 200 bits: the logarithm of the absolute sum, its sign, its condition, the largest term."""
    with mpmath.workprec(200):
        terms = [
            mpmath.mpf(float(y)) * mpmath.exp(mpmath.mpf(float(x)))
            for x, y in zip(a, b, strict=True)
        ]
        total, size = mpmath.fsum(terms), mpmath.fsum(abs(t) for t in terms)
        largest = mpmath.log(max(abs(t) for t in terms))
        return (
            mpmath.log(abs(total)),
            int(mpmath.sign(total)),
            float(size / abs(total)),
            float(largest),
        )


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("n_terms", [1, 2, 15, 16, 17, 100])
def test_weighted_sums_err_by_units_of_their_condition_and_their_largest_term(
    rng, dtype, n_terms, signed
):
    """The law: 4 units, of the sum of absolute terms over the sum, and of the largest term's logarithm."""
    unit = np.finfo(dtype).eps
    for spread in (0.1, 1, 10, 100):
        a = logits_of(rng, (20, n_terms), dtype, spread)
        b = rng.uniform(-1 if signed else 0, 2, a.shape).astype(dtype)
        value, sign = special.logsumexp(a, 1, b, return_sign=True)
        assert value.dtype == sign.dtype == dtype
        for i in range(len(a)):
            exact, exact_sign, condition, largest = exact_logsumexp(a[i], b[i])
            assert sign[i] == exact_sign
            with mpmath.workprec(200):
                error = float(abs(mpmath.mpf(float(value[i])) - exact))
            assert error <= 4 * unit * (condition + abs(largest))
        assert_array_equal(special.logsumexp(a, 1, b), np.where(sign < 0, np.nan, value))


def test_weights_of_one_change_nothing_but_the_last_digits(rng, dtype):
    x = logits_of(rng, (30, 40), dtype)
    expected = special.logsumexp(x, 1)
    ones = np.ones_like(x)
    np.testing.assert_array_max_ulp(special.logsumexp(x, 1, b=ones), expected, 4)
    value, sign = special.logsumexp(x, 1, return_sign=True)
    assert same_bits(value, expected)
    assert same_bits(sign, np.ones_like(expected))


@pytest.mark.parametrize("case", range(len(WEIGHTED_SPECIAL_ROWS)))
def test_special_values_with_weights_are_those_of_scipy(dtype, case):
    a, b, plain, expected, expected_sign = WEIGHTED_SPECIAL_ROWS[case]
    a, b = np.array(a, dtype), np.array(b, dtype)
    assert_array_equal(special.logsumexp(a, b=b), plain)
    value, sign = special.logsumexp(a, b=b, return_sign=True)
    assert_array_equal(value, expected)
    assert_array_equal(sign, expected_sign)
    value, sign = special.logsumexp(np.tile(a, (20, 1)), 1, b, return_sign=True)  # many rows
    assert_array_equal(value, np.full(20, expected))
    assert_array_equal(sign, np.full(20, expected_sign))


@pytest.mark.parametrize("large", [1e3, 1e9, 1e18, 1e37])
def test_weights_that_vanish_beside_a_large_exponent_still_decide_the_sign(dtype, large):
    for a, b in [([large, 0], [-0.01, 1]), ([large, large], [0.01, -1]), ([-large, 0], [2, -1])]:
        _, sign = special.logsumexp(np.array(a, dtype), b=np.array(b, dtype), return_sign=True)
        assert sign == -1


@pytest.mark.parametrize("value", [-INF, INF, NAN, 3.0, -3.0])
def test_the_sign_of_an_unweighted_sum_is_that_of_the_sum(dtype, value):
    result, sign = special.logsumexp(np.array([value], dtype), return_sign=True)
    assert_array_equal(result, value)
    assert_array_equal(sign, np.sign(np.exp(value)))


@pytest.mark.parametrize(
    ("shape_a", "shape_b"),
    [
        ((4, 1, 2, 1), (3, 1, 5)),
        ((3, 4), (4,)),
        ((3, 4), (3, 1)),
        ((4,), (3, 4)),
        ((3, 1), (3, 4)),
        ((), (2, 3)),
        ((2, 3), ()),
        ((1, 3, 1, 2), (2, 1, 2, 2)),
        ((0, 1), (1, 3)),
    ],
)
def test_weights_broadcast_both_ways_along_any_axes(rng, dtype, shape_a, shape_b):
    a, b = logits_of(rng, shape_a, dtype), logits_of(rng, shape_b, dtype)
    shape = np.broadcast_shapes(shape_a, shape_b)
    full_a, full_b = np.broadcast_to(a, shape).copy(), np.broadcast_to(b, shape).copy()
    n = len(shape)
    for axes in [
        None,
        *(axes for k in range(n + 1) for axes in itertools.combinations(range(n), k)),
    ]:
        for keepdims in (False, True):
            got = special.logsumexp(a, axes, b, keepdims, return_sign=True)
            expected = special.logsumexp(full_a, axes, full_b, keepdims, return_sign=True)
            assert got[0].shape == full_a.sum(axes, keepdims=keepdims).shape
            assert same_bits(got[0], expected[0])
            assert same_bits(got[1], expected[1])


@pytest.mark.parametrize("n_dims", [31, 32, 33, 63, 64])  # around what NumPy broadcasts
@pytest.mark.parametrize("name", special.__all__)
def test_every_number_of_dimensions_is_taken(rng, dtype, name, n_dims):
    function, shape = getattr(special, name), (3, 4, *(1,) * (n_dims - 3), 2)
    a, last = rng.standard_normal(shape).astype(dtype), n_dims - 1
    for axes, few in [
        (None, None),
        (0, 0),
        (-1, -1),
        ((0, last), (0, 2)),
        ((1, 0), (1, 0)),
        ((), ()),
    ]:
        got, expected = function(a, axes), function(a.reshape(3, 4, 2), few)
        reduced = np.sum(a, axes).shape
        assert np.shape(got) == (reduced if name == "logsumexp" else shape)
        assert same_bits(np.reshape(got, np.shape(expected)), expected)


@pytest.mark.parametrize("n_dims", [31, 32, 33, 63, 64])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("return_sign", [False, True])
def test_weighted_sums_take_every_number_of_dimensions(rng, dtype, n_dims, keepdims, return_sign):
    shape, last = (3, 4, *(1,) * (n_dims - 3), 2), n_dims - 1
    a = rng.standard_normal(shape).astype(dtype)
    for b in (
        abs(a),
        -a,
        a[:1],
        -a[:, :, ..., :1],
        np.full((), 1.5, dtype),
        np.full((), -2, dtype),
    ):
        few_b = b.reshape(b.shape[:2] + b.shape[-1:])
        for axes, few in [(None, None), (0, 0), (-1, -1), ((0, last), (0, 2)), ((), ())]:
            got = special.logsumexp(a, axes, b, keepdims, return_sign)
            expected = special.logsumexp(a.reshape(3, 4, 2), few, few_b, False, return_sign)
            pairs = zip(got, expected, strict=True) if return_sign else [(got, expected)]
            for many, one in pairs:
                assert np.shape(many) == np.sum(a, axes, keepdims=keepdims).shape
                assert same_bits(np.reshape(many, np.shape(one)), one)


def test_random_calls_agree_with_scipy(rng):
    """The law: SciPy's sums of 60 terms err by 60 units of their condition, and of the largest exponent."""
    theirs = scipy_special()
    unit = np.finfo(np.float64).eps
    for axes in [None, 0, -1, (0, 1), (0, 2), (2, 0, 1)]:
        for keepdims in (False, True):
            a, b = logits_of(rng, (3, 4, 5), "float64"), rng.uniform(-1, 2, (4, 1))
            near = {"rtol": 60 * unit, "atol": 60 * unit * np.abs(a).max()}
            np.testing.assert_allclose(special.softmax(a, axes), theirs.softmax(a, axes), **near)
            np.testing.assert_allclose(
                special.log_softmax(a, axes), theirs.log_softmax(a, axes), **near
            )
            value, sign = special.logsumexp(a, axes, b, keepdims, return_sign=True)
            expected, expected_sign = theirs.logsumexp(a, axes, b, keepdims, return_sign=True)
            condition = np.exp(theirs.logsumexp(a, axes, np.abs(b), keepdims) - expected)
            assert value.shape == expected.shape
            assert_array_equal(sign, expected_sign)
            assert np.all(np.abs(value - expected) <= 60 * unit * (condition + np.abs(a).max()))


def test_dtypes_of_two_arrays_and_of_python_numbers_combine_as_in_numpy():
    a = np.float32([1, 2])
    for b, expected in [
        (2.0, np.float32),
        (2, np.float32),
        (True, np.float32),
        (1e300, np.float32),
        (np.float32(2), np.float32),
        (np.int8([1, 2]), np.float32),
        (np.float64(2), np.float64),
        ([1, 2], np.float64),
        (np.array(2.0), np.float64),
    ]:
        value, sign = special.logsumexp(a, b=b, return_sign=True)
        assert value.dtype == sign.dtype == expected
    assert special.logsumexp(1.0, b=a).dtype == np.float32
    assert special.logsumexp(1, b=2).dtype == np.float64


def test_arguments_are_not_written_to(rng, dtype):
    a, b = logits_of(rng, (5, 6), dtype), logits_of(rng, (5, 6), dtype)
    copies = a.copy(), b.copy()
    special.softmax(a)
    special.log_softmax(a, (0, 1))
    special.logsumexp(a, b=b, return_sign=True)
    assert same_bits(a, copies[0])
    assert same_bits(b, copies[1])


@pytest.mark.parametrize("kind", ["complex64", "complex128"])
def test_complex_numbers_are_sent_to_scipy(kind):
    x = np.array([1, 2], kind)
    for name in special.__all__:
        text = rf"special\.{name}\(\) needs real numbers, got {kind}: scipy\.special\.{name} takes complex ones"
        with pytest.raises(TypeError, match=text):
            getattr(special, name)(x)
    with pytest.raises(TypeError, match=r"scipy\.special\.logsumexp takes complex ones"):
        special.logsumexp([1.0, 2.0], b=x)
    with pytest.raises(TypeError, match=r"scipy\.special\.logsumexp takes complex ones"):
        special.logsumexp([1.0, 2.0], b=1j)


@pytest.mark.parametrize("name", special.__all__)
def test_wrong_axes_are_errors_that_name_the_function(name):
    function, x = getattr(special, name), np.zeros((2, 3))
    with pytest.raises(
        ValueError, match=rf"special\.{name}\(\) needs axes that differ, got \(0, -2\)"
    ):
        function(x, axis=(0, -2))
    for axis in (2, -3, (0, 2)):
        with pytest.raises(
            np.exceptions.AxisError, match=rf"special\.{name}\(\) needs an axis from -2 to 1"
        ):
            function(x, axis=axis)
    for axis in (1.0, "x", [0, 1], (0, 1.5)):
        with pytest.raises(TypeError, match=rf"special\.{name}\(\) needs an integer axis"):
            function(x, axis=axis)


@pytest.mark.parametrize("name", special.__all__)
def test_what_has_no_kernel_is_an_error(name):
    function = getattr(special, name)
    for x in (np.longdouble([1, 2]), np.array([1, 2], object), np.array(["a"])):
        with pytest.raises(TypeError, match=rf"{name}\(\) needs float32 or float64, got"):
            function(x)
    with pytest.raises(
        ValueError,
        match=rf"special\.{name}\(\) needs [xa] with rows of one length, got a ragged list",
    ):
        function([[1], [1, 2]])


def test_weights_that_do_not_broadcast_are_an_error_with_both_shapes():
    with pytest.raises(
        ValueError,
        match=r"special\.logsumexp\(\) needs a and b that broadcast, got shapes \(2, 3\) and \(1, 2\)",
    ):
        special.logsumexp(np.zeros((2, 3)), b=[1, 2])
    with pytest.raises(TypeError, match=r"logsumexp\(\) needs"):
        special.logsumexp([1.0, 2.0], b=["x", "y"])
