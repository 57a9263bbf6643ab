"""softmax and log_softmax: what both do alike. test_softmax.py and test_log_softmax.py have what each does alone."""

import numpy as np
import pytest

import csoftmax
from support import reference
from support.bits import same_bits
from support.cases import CLASSES, INNER, ROWS, logits_of
from support.reference import BOUNDS, INF, special_rows

OF_ONE_CLASS = {"softmax": 1, "log_softmax": 0}
OF_AN_ABSENT_CLASS = {"softmax": 0, "log_softmax": -INF}


@pytest.fixture(params=["softmax", "log_softmax"])
def name(request):
    return request.param


@pytest.fixture
def function(name):
    return getattr(csoftmax, name)


def check(name, x, axis=-1):
    got = getattr(csoftmax, name)(x, axis)
    assert got.shape == x.shape
    assert got.dtype == x.dtype
    assert reference.ulps(got, getattr(reference, name)(x, axis)) <= BOUNDS[name, str(x.dtype)]


@pytest.mark.parametrize("n_classes", CLASSES)
def test_results_are_within_their_bound_for_every_number_of_classes(rng, dtype, name, n_classes):
    for spread in (1, 5, 30):
        check(name, logits_of(rng, (18, n_classes), dtype, spread))


@pytest.mark.parametrize("n_rows", ROWS)
@pytest.mark.parametrize("n_classes", [2, 10, 16, 17, 65])
def test_results_are_within_their_bound_for_every_number_of_rows(
    rng, dtype, name, n_rows, n_classes
):
    check(name, logits_of(rng, (n_rows, n_classes), dtype))


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("n_classes", [1, 3, 16, 33, 2049])
def test_results_are_within_their_bound_along_first_and_middle_axes(
    rng, dtype, name, inner, n_classes
):
    x = logits_of(rng, (2, n_classes, inner), dtype)
    check(name, x, 1)
    check(name, x, -2)
    check(name, np.ascontiguousarray(x[0]), 0)


def test_every_axis_of_many_gives_what_the_last_one_gives(rng, dtype, function):
    x = logits_of(rng, (2, 3, 1, 4, 5), dtype)
    for axis in range(-5, 5):
        last = function(np.ascontiguousarray(np.moveaxis(x, axis, -1)))
        assert same_bits(function(x, axis), np.moveaxis(last, -1, axis))


@pytest.mark.parametrize("case", range(len(special_rows("float32"))))
def test_special_rows_are_as_the_table_says_and_leave_their_neighbours_alone(
    dtype, name, function, case
):
    row, p, log_p, _ = special_rows(dtype)[case]
    # Those of softmax are exact.
    expected, bound = (p, 0) if name == "softmax" else (log_p, BOUNDS[name, dtype])
    x = np.zeros((20, len(row)), dtype)
    ordinary = function(x)
    x[7] = row
    of_columns = function(np.ascontiguousarray(x.T), 0)
    for got in (function(x)[7], function(x[7]), of_columns[:, 7]):
        assert reference.ulps(got, expected) <= bound  # NaN: only for NaN
    assert same_bits(np.delete(of_columns.T, 7, 0), np.delete(ordinary, 7, 0))


@pytest.mark.parametrize("n_classes", [5, 17, 64, 2100])
def test_classes_at_minus_infinity_have_no_part_and_the_rest_is_as_if_absent(
    rng, dtype, name, function, n_classes
):
    x = logits_of(rng, (9, n_classes), dtype)
    absent = np.arange(n_classes) % 3 == 1
    x[:, absent] = -INF
    got = function(x)
    assert (got[:, absent] == OF_AN_ABSENT_CLASS[name]).all()
    exact = getattr(reference, name)(x[:, ~absent])
    assert reference.ulps(got[:, ~absent], exact) <= BOUNDS[name, dtype]


@pytest.mark.parametrize("kind", ["?", *np.typecodes["AllInteger"]])
def test_integers_and_bool_are_computed_in_float64(function, kind):
    x = np.array([[1, 0, 1], [0, 0, 1]], kind)
    assert same_bits(function(x), function(x.astype(np.float64)))


def test_float16_is_computed_in_float32_and_returned_in_float16(function):
    x = np.float16([[1, 2, 3], [60000, -60000, 0]])
    with np.errstate(over="ignore"):  # NumPy's, where a log-probability is too small for float16
        expected = function(x.astype(np.float32)).astype(np.float16)
    assert same_bits(function(x), expected)


def test_lists_tuples_and_scalars_are_what_numpy_makes_of_them(name, function):
    assert same_bits(function([[1, 2], [3, 5]]), function(np.array([[1.0, 2], [3, 5]])))
    assert same_bits(function((0.0, 1.0)), function(np.array([0.0, 1.0])))
    for scalar, kind in ((3, np.float64), (np.float32(2), np.float32), (np.array(7.0), np.float64)):
        got = function(scalar)
        assert type(got) is kind
        assert got == OF_ONE_CLASS[name]


def test_out_receives_the_result_and_is_returned(rng, dtype, name, function):
    x = logits_of(rng, (30, 21), dtype)
    out = np.full_like(x, 7)
    assert function(x, out=out) is out
    assert same_bits(out, function(x))
    zero_dimensional = np.full((), 7, dtype)
    assert function(np.array(3, dtype), out=zero_dimensional) is zero_dimensional
    assert zero_dimensional == OF_ONE_CLASS[name]


def test_out_of_the_results_dtype_takes_results_of_integers_and_float16(function):
    x = np.array([[1, 2], [3, 5]])
    out = np.full(x.shape, 7.0)
    assert function(x, out=out) is out
    assert same_bits(out, function(x))
    half = x.astype(np.float16)
    expected = function(half)
    assert function(half, out=half) is half
    assert same_bits(half, expected)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0,), (0, 0), (2, 0, 3), (0, 5, 0)])
def test_arrays_without_elements_give_arrays_without_elements(dtype, function, shape):
    for axis in range(len(shape)):
        x = np.empty(shape, dtype)
        assert same_bits(function(x, axis), x)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0,), (0, 0), (2, 0, 3), (0, 5, 0)])
def test_an_out_without_elements_is_returned(dtype, function, shape):
    for axis in range(len(shape)):
        x, out = np.empty(shape, dtype), np.empty(shape, dtype)
        assert function(x, axis, out=out) is out


def test_the_input_is_not_modified(rng, dtype, function):
    x = logits_of(rng, (17, 33), dtype)
    before = x.copy()
    function(x)
    assert same_bits(x, before)
