"""log_softmax: values, special rows, conversions, out."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import csoftmax
from support import reference
from support.bits import same_bits
from support.cases import CLASSES, INNER, ROWS, logits_of
from support.reference import BOUNDS, special_rows


def distance(x, axis=-1):
    got = csoftmax.log_softmax(x, axis)
    assert got.shape == x.shape
    assert got.dtype == x.dtype
    return reference.ulps(got, reference.log_softmax(x, axis))


@pytest.mark.parametrize("n_classes", CLASSES)
def test_log_softmax_is_within_its_bound_for_every_number_of_classes(rng, dtype, n_classes):
    for spread in (1, 5, 30):
        assert (
            distance(logits_of(rng, (18, n_classes), dtype, spread)) <= BOUNDS["log_softmax", dtype]
        )


@pytest.mark.parametrize("n_rows", ROWS)
@pytest.mark.parametrize("n_classes", [2, 10, 16, 17, 65])
def test_log_softmax_is_within_its_bound_for_every_number_of_rows(rng, dtype, n_rows, n_classes):
    assert distance(logits_of(rng, (n_rows, n_classes), dtype)) <= BOUNDS["log_softmax", dtype]


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("n_classes", [1, 3, 16, 33, 2049])
def test_log_softmax_is_within_its_bound_along_first_and_middle_axes(rng, dtype, inner, n_classes):
    x = logits_of(rng, (2, n_classes, inner), dtype)
    assert distance(x, 1) <= BOUNDS["log_softmax", dtype]
    assert distance(x, -2) <= BOUNDS["log_softmax", dtype]
    assert distance(np.ascontiguousarray(x[0]), 0) <= BOUNDS["log_softmax", dtype]


def test_every_axis_of_many_gives_what_the_last_one_gives(rng, dtype):
    x = logits_of(rng, (2, 3, 1, 4, 5), dtype)
    for axis in range(-5, 5):
        last = csoftmax.log_softmax(np.ascontiguousarray(np.moveaxis(x, axis, -1)))
        assert same_bits(csoftmax.log_softmax(x, axis), np.moveaxis(last, -1, axis))


@pytest.mark.parametrize("case", range(len(special_rows("float32"))))
def test_special_rows_are_as_the_table_says_and_leave_their_neighbours_alone(dtype, case):
    row, _, expected, _ = special_rows(dtype)[case]
    x = np.zeros((20, len(row)), dtype)
    ordinary = csoftmax.log_softmax(x)
    x[7] = row
    got = csoftmax.log_softmax(np.ascontiguousarray(x.T), 0)
    for log_p in (csoftmax.log_softmax(x)[7], csoftmax.log_softmax(x[7]), got[:, 7]):
        assert reference.ulps(log_p, expected) <= BOUNDS["log_softmax", dtype]  # NaN: only for NaN
    assert same_bits(np.delete(got.T, 7, 0), np.delete(ordinary, 7, 0))


@pytest.mark.parametrize("n_classes", [5, 17, 64, 2100])
def test_classes_at_minus_infinity_stay_there_and_the_rest_is_as_if_absent(rng, dtype, n_classes):
    x = logits_of(rng, (9, n_classes), dtype)
    absent = np.arange(n_classes) % 3 == 1
    x[:, absent] = -np.inf
    got = csoftmax.log_softmax(x)
    assert_array_equal(got[:, absent], -np.inf)
    exact = reference.log_softmax(x[:, ~absent])
    assert reference.ulps(got[:, ~absent], exact) <= BOUNDS["log_softmax", dtype]


def test_small_results_keep_their_digits():
    got = csoftmax.log_softmax(np.float32([[20, 0]]))
    assert_array_equal(got, np.float32([[-2.0611537e-09, -20]]))
    assert csoftmax.log_softmax([-40.0, 0.0])[1] == -4.248354255291589e-18


def test_one_class_has_a_log_probability_of_plus_zero(dtype):
    for value in (0.0, -0.0, -5.5, 1e30):
        for n_rows in (1, 3, 40):
            got = csoftmax.log_softmax(np.full((n_rows, 1), value, dtype))
            assert same_bits(got, np.zeros((n_rows, 1), dtype))


def test_results_that_are_too_small_for_the_dtype_are_minus_infinity():
    with np.errstate(all="raise"):
        assert_array_equal(csoftmax.log_softmax(np.float16([60000, -60000])), [0, -np.inf])
        assert_array_equal(csoftmax.log_softmax(np.float32([3e38, -3e38])), [0, -np.inf])


@pytest.mark.parametrize("kind", ["?", *np.typecodes["AllInteger"]])
def test_integers_and_bool_are_computed_in_float64(kind):
    x = np.array([[1, 0, 1], [0, 0, 1]], kind)
    assert same_bits(csoftmax.log_softmax(x), csoftmax.log_softmax(x.astype(np.float64)))


def test_float16_is_computed_in_float32_and_returned_in_float16():
    x = np.float16([[1, 2, 3], [60000, -60000, 0]])
    with np.errstate(over="ignore"):
        expected = csoftmax.log_softmax(x.astype(np.float32)).astype(np.float16)
    assert expected[1, 1] == -np.inf
    assert same_bits(csoftmax.log_softmax(x), expected)


def test_lists_tuples_and_scalars_are_what_numpy_makes_of_them():
    assert same_bits(
        csoftmax.log_softmax([[1, 2], [3, 5]]), csoftmax.log_softmax(np.array([[1.0, 2], [3, 5]]))
    )
    assert same_bits(csoftmax.log_softmax((0.0, 1.0)), csoftmax.log_softmax(np.array([0.0, 1.0])))
    for scalar, kind in ((3, np.float64), (np.float32(2), np.float32), (np.array(7.0), np.float64)):
        got = csoftmax.log_softmax(scalar)
        assert type(got) is kind
        assert got == 0


def test_out_receives_the_result_and_is_returned(rng, dtype):
    x = logits_of(rng, (30, 21), dtype)
    out = np.full_like(x, 7)
    assert csoftmax.log_softmax(x, out=out) is out
    assert same_bits(out, csoftmax.log_softmax(x))
    zero_dimensional = np.full((), 7, dtype)
    assert csoftmax.log_softmax(np.array(3, dtype), out=zero_dimensional) is zero_dimensional
    assert zero_dimensional == 0


def test_out_of_the_results_dtype_takes_results_of_integers_and_float16():
    x = np.array([[1, 2], [3, 5]])
    out = np.full(x.shape, 7.0)
    assert csoftmax.log_softmax(x, out=out) is out
    assert same_bits(out, csoftmax.log_softmax(x))
    half = x.astype(np.float16)
    expected = csoftmax.log_softmax(half)
    assert csoftmax.log_softmax(half, out=half) is half
    assert same_bits(half, expected)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0,), (0, 0), (2, 0, 3), (0, 5, 0)])
def test_arrays_without_elements_give_arrays_without_elements(dtype, shape):
    for axis in range(len(shape)):
        x = np.empty(shape, dtype)
        assert same_bits(csoftmax.log_softmax(x, axis), x)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0,), (0, 0), (2, 0, 3), (0, 5, 0)])
def test_an_out_without_elements_is_returned(dtype, shape):
    for axis in range(len(shape)):
        x, out = np.empty(shape, dtype), np.empty(shape, dtype)
        assert csoftmax.log_softmax(x, axis, out=out) is out


def test_the_input_is_not_modified(rng, dtype):
    x = logits_of(rng, (17, 33), dtype)
    before = x.copy()
    csoftmax.log_softmax(x)
    assert same_bits(x, before)
