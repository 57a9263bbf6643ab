"""logsumexp: values, special rows, conversions, keepdims, out."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import csoftmax
from support import reference
from support.bits import same_bits
from support.cases import CLASSES, INNER, ROWS, logits_of
from support.reference import BOUNDS, special_rows


def distance(x, axis=-1):
    """In units of the larger of result and maximum."""
    got = csoftmax.logsumexp(x, axis)
    assert got.dtype == x.dtype
    assert got.shape == tuple(np.delete(x.shape, axis))
    return reference.ulps(got, reference.logsumexp(x, axis), np.abs(x.max(axis)))


@pytest.mark.parametrize("n_classes", CLASSES)
def test_logsumexp_is_within_its_bound_for_every_number_of_classes(rng, dtype, n_classes):
    for spread in (0.1, 1, 5, 30):
        x = logits_of(rng, (18, n_classes), dtype, spread)
        assert distance(x) <= BOUNDS["logsumexp", dtype]
        assert distance(x - x.max()) <= BOUNDS["logsumexp", dtype]


@pytest.mark.parametrize("n_rows", ROWS)
@pytest.mark.parametrize("n_classes", [2, 10, 16, 17, 65])
def test_logsumexp_is_within_its_bound_for_every_number_of_rows(rng, dtype, n_rows, n_classes):
    assert distance(logits_of(rng, (n_rows, n_classes), dtype)) <= BOUNDS["logsumexp", dtype]


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("n_classes", [1, 3, 16, 33, 2049])
def test_logsumexp_is_within_its_bound_along_first_and_middle_axes(rng, dtype, inner, n_classes):
    x = logits_of(rng, (2, n_classes, inner), dtype)
    assert distance(x, 1) <= BOUNDS["logsumexp", dtype]
    assert distance(x, -2) <= BOUNDS["logsumexp", dtype]
    assert distance(np.ascontiguousarray(x[0]), 0) <= BOUNDS["logsumexp", dtype]


@pytest.mark.parametrize("case", range(len(special_rows("float32"))))
def test_special_rows_are_as_the_table_says_and_leave_their_neighbours_alone(dtype, case):
    row, _, _, expected = special_rows(dtype)[case]
    x = np.zeros((20, len(row)), dtype)
    ordinary = csoftmax.logsumexp(x)
    x[7] = row
    got = csoftmax.logsumexp(np.ascontiguousarray(x.T), 0)
    scale = np.abs(expected)
    for value in (csoftmax.logsumexp(x)[7], csoftmax.logsumexp(x[7]), got[7]):
        assert reference.ulps(value, expected, scale) <= BOUNDS["logsumexp", dtype]
    assert same_bits(np.delete(got, 7), np.delete(ordinary, 7))


def test_classes_at_minus_infinity_are_as_if_absent(rng, dtype):
    x = logits_of(rng, (9, 40), dtype)
    absent = np.arange(40) % 3 == 1
    x[:, absent] = -np.inf
    exact = reference.logsumexp(x[:, ~absent])
    scale = np.abs(x[:, ~absent].max(-1))
    assert reference.ulps(csoftmax.logsumexp(x), exact, scale) <= BOUNDS["logsumexp", dtype]


def test_small_results_are_kept():
    assert csoftmax.logsumexp([-40.0, 0.0]) == 4.248354255291589e-18
    assert csoftmax.logsumexp(np.float32([-100, 0])) == np.float32(np.exp(-100.0))


def test_one_class_gives_the_value(dtype):
    x = np.array([[0.1], [-7.5], [3e38], [-3e38], [1e-45]], dtype)
    assert same_bits(csoftmax.logsumexp(x), x[:, 0])


def test_keepdims_keeps_the_axis_with_size_one(rng, dtype):
    x = logits_of(rng, (4, 5, 6), dtype)
    for axis in (-3, -2, -1, 0, 1, 2):
        got = csoftmax.logsumexp(x, axis, keepdims=True)
        assert same_bits(got, np.expand_dims(csoftmax.logsumexp(x, axis), axis))
    assert csoftmax.logsumexp(x[0, 0], keepdims=True).shape == (1,)
    assert np.ndim(csoftmax.logsumexp(np.array(3, dtype), keepdims=True)) == 0


@pytest.mark.parametrize("kind", ["?", *np.typecodes["AllInteger"]])
def test_integers_and_bool_are_computed_in_float64(kind):
    x = np.array([[1, 0, 1], [0, 0, 1]], kind)
    assert same_bits(csoftmax.logsumexp(x), csoftmax.logsumexp(x.astype(np.float64)))


def test_float16_gives_float32():
    x = np.float16([[1, 2, 3], [60000, -60000, 0]])
    assert same_bits(csoftmax.logsumexp(x), csoftmax.logsumexp(x.astype(np.float32)))


def test_one_row_and_scalars_give_numpy_scalars():
    assert type(csoftmax.logsumexp([1000.0, 1000.0])) is np.float64
    assert type(csoftmax.logsumexp(np.float32([1, 2]))) is np.float32
    assert type(csoftmax.logsumexp(np.float16([1, 2]))) is np.float32
    for value in (3, 2.5, np.array(7.0), True):
        assert csoftmax.logsumexp(value) == value
        assert type(csoftmax.logsumexp(value)) is np.float64


def test_out_receives_the_result_and_is_returned(rng, dtype):
    x = logits_of(rng, (4, 5, 6), dtype)
    expected = csoftmax.logsumexp(x, 1)
    for out in (
        np.full((4, 6), 7, dtype),
        np.full((6, 4), 7, dtype).T,
        np.full((4, 12), 7, dtype)[:, ::2],
    ):
        assert csoftmax.logsumexp(x, 1, out=out) is out
        assert same_bits(out, expected)
    kept = np.full((4, 1, 6), 7, dtype)
    assert csoftmax.logsumexp(x, 1, keepdims=True, out=kept) is kept
    assert same_bits(kept[:, 0], expected)
    zero_dimensional = np.full((), 7, dtype)
    assert csoftmax.logsumexp(x[0, 0], out=zero_dimensional) is zero_dimensional
    assert zero_dimensional == csoftmax.logsumexp(x[0, 0])


def test_out_may_lie_inside_the_input(rng, dtype):
    x = logits_of(rng, (40, 40), dtype)
    expected = csoftmax.logsumexp(x)
    csoftmax.logsumexp(x, out=x[:, 3])
    assert same_bits(x[:, 3], expected)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0,), (0, 0), (2, 0, 3), (0, 5, 0)])
def test_no_classes_give_minus_infinity_and_no_rows_give_no_results(dtype, shape):
    for axis in range(len(shape)):
        for keepdims in (False, True):
            want = np.full(np.empty(shape).sum(axis, keepdims=keepdims).shape, -np.inf, dtype)
            got = csoftmax.logsumexp(np.empty(shape, dtype), axis, keepdims=keepdims)
            assert got.dtype == dtype
            assert_array_equal(got, want)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0,), (0, 0), (2, 0, 3), (0, 5, 0)])
def test_out_takes_the_results_of_no_rows_or_no_classes(dtype, shape):
    for axis in range(len(shape)):
        x = np.empty(shape, dtype)
        for keepdims in (False, True):
            out = np.full(x.sum(axis, keepdims=keepdims).shape, 7, dtype)
            assert csoftmax.logsumexp(x, axis, keepdims=keepdims, out=out) is out
            assert_array_equal(out, np.full_like(out, -np.inf))


def test_sums_of_float16_do_not_overflow():
    assert csoftmax.logsumexp(np.zeros(100_000, np.float16)) == np.float32(np.log(100_000))
