"""log_prob: bit for bit log_softmax at the index, of which nothing else is written."""

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import csoftmax
from support import reference
from support.bits import same_bits
from support.cases import CLASSES, CLASSES_AND_INNER, ROWS, logits_of
from support.reference import BOUNDS, special_rows


def taken(x, index, axis=-1, **options):
    """log_softmax at the index, from the whole of it."""
    log_p = np.moveaxis(csoftmax.log_softmax(x, axis, **options), axis, -1)
    index = np.asarray(index)
    if index.ndim < x.ndim:
        return np.take_along_axis(log_p, index[..., None].astype(np.int64), -1)[..., 0]
    return np.take_along_axis(log_p, index.astype(np.int64), -1)


def indices_of(rng, shape, axis):
    """One index per row, and several: fewer and more than there are classes, none at all."""
    rows, n_classes = tuple(np.delete(shape, axis).tolist()), shape[axis]
    yield rng.integers(0, n_classes, rows)
    for n_indices in (0, 1, 3, n_classes + 1 if n_classes < 70 else 17):
        yield rng.integers(0, n_classes, (*rows, n_indices))


def check(rng, x, axis=-1, **options):
    for index in indices_of(rng, x.shape, axis):
        got = csoftmax.log_prob(x, index, axis=axis, **options)
        assert same_bits(got, taken(x, index, axis, **options))


@pytest.mark.parametrize("n_classes", CLASSES)
def test_log_prob_is_log_softmax_at_the_index_for_every_number_of_classes(rng, dtype, n_classes):
    for spread in (1, 30):
        check(rng, logits_of(rng, (10, n_classes), dtype, spread))
        check(rng, logits_of(rng, n_classes, dtype, spread))


@pytest.mark.parametrize("n_rows", ROWS)
@pytest.mark.parametrize("n_classes", [2, 10, 16, 17, 65])
def test_log_prob_is_log_softmax_at_the_index_for_every_number_of_rows(
    rng, dtype, n_rows, n_classes
):
    check(rng, logits_of(rng, (n_rows, n_classes), dtype))


@pytest.mark.parametrize(("n_classes", "inner"), CLASSES_AND_INNER)
def test_log_prob_is_log_softmax_at_the_index_along_first_and_middle_axes(
    rng, dtype, inner, n_classes
):
    x = logits_of(rng, (2, n_classes, inner), dtype)
    check(rng, x, 1)
    check(rng, x, -2)
    check(rng, np.ascontiguousarray(x[0]), 0)


@pytest.mark.parametrize("temperature", [0.5, 0.7, 1e-3, 30, np.float32(0.1)])
def test_log_prob_takes_a_temperature(rng, dtype, temperature):
    for shape, axis in (((20, 10), 1), ((20, 100), 1), ((3, 2049), 1), ((30, 20), 0)):
        check(rng, logits_of(rng, shape, dtype), axis, temperature=temperature)


def test_log_prob_is_within_the_bound_of_log_softmax(rng, dtype):
    x = logits_of(rng, (300, 50), dtype, 10)
    index = x.argmax(-1)  # the smallest magnitudes
    exact = np.take_along_axis(reference.log_softmax(x), index[:, None], -1)[:, 0]
    assert reference.ulps(csoftmax.log_prob(x, index), exact) <= BOUNDS["log_softmax", dtype]


def test_log_prob_is_minus_the_loss_within_both_bounds(rng, dtype):
    x, target = logits_of(rng, (40, 30), dtype), rng.integers(0, 30, 40)
    loss = csoftmax.cross_entropy(x, target, reduction="none")
    # Each is within the bound of one exact value: at most twice it, and a change of binade.
    bound = 2 * 2 * BOUNDS["log_softmax", dtype]
    assert reference.ulps(-csoftmax.log_prob(x, target), loss.astype(np.longdouble)) <= bound


@pytest.mark.parametrize("case", range(len(special_rows("float32"))))
def test_log_probs_of_special_rows_are_those_of_the_table(dtype, case):
    row, _, expected, _ = special_rows(dtype)[case]
    x = np.zeros((20, len(row)), dtype)
    x[7] = row
    index = np.tile(np.arange(len(row)), (20, 1))
    for a, axis in ((x, 1), (np.ascontiguousarray(x.T), 0)):
        got = csoftmax.log_prob(a, index, axis=axis)
        exact = np.asarray(expected, np.longdouble)
        assert reference.ulps(got[7], exact) <= BOUNDS["log_softmax", dtype]
        assert np.isfinite(np.delete(got, 7, 0)).all()


def test_a_certain_class_has_the_log_probability_plus_zero(dtype):
    for row in ([3.5], [0.0, -np.inf], [1e30, -1e30]):
        got = csoftmax.log_prob(np.array([row] * 20, dtype), np.zeros((20, 2), int))
        assert same_bits(got, np.zeros((20, 2), dtype))


@pytest.mark.parametrize("kind", np.typecodes["AllInteger"])
def test_an_index_of_every_integer_dtype_and_layout_names_the_same_classes(kind):
    x = np.arange(12.0).reshape(3, 4) % 5
    expected = csoftmax.log_prob(x, [[3, 0], [1, 1], [2, 3]])
    for order in "<>":
        index = np.array([[3, 0], [1, 1], [2, 3]], np.dtype(kind).newbyteorder(order))
        for layout in (index, np.asfortranarray(index), index[::-1, ::-1].copy()[::-1, ::-1]):
            layout.flags.writeable = False
            assert same_bits(csoftmax.log_prob(x, layout), expected)
    one = csoftmax.log_prob(x, np.broadcast_to(np.array(2, kind), (3, 2)))
    assert same_bits(one, csoftmax.log_prob(x, np.full((3, 2), 2)))


def test_a_single_row_takes_a_scalar_or_a_list(dtype):
    x = np.array([1, 2, 4], dtype)
    expected = csoftmax.log_softmax(x)
    got = csoftmax.log_prob(x, 1)
    assert type(got) is np.dtype(dtype).type
    assert got == expected[1]
    assert same_bits(csoftmax.log_prob(x, [2, 2, 0, 1, 2]), expected[[2, 2, 0, 1, 2]])
    assert same_bits(csoftmax.log_prob(x, []), expected[:0])


def test_integers_float16_and_lists_are_converted_as_the_contract_says():
    rows, index = [[1, 2, 0], [3, 5, 1]], [[0, 2], [1, 1]]
    expected = csoftmax.log_prob(np.array(rows, np.float64), index)
    for logits in (rows, np.array(rows, np.uint8), np.array(rows, ">i4")):
        assert same_bits(csoftmax.log_prob(logits, index), expected)
    half = np.array(rows, np.float16)
    assert same_bits(
        csoftmax.log_prob(half, index), csoftmax.log_prob(half.astype(np.float32), index)
    )


def test_no_rows_give_no_log_probs(dtype):
    for shape in ((0,), (0, 3), (0, 0)):
        got = csoftmax.log_prob(np.empty((0, 4), dtype), np.empty(shape, int))
        assert same_bits(got, np.empty(shape, dtype))
    assert same_bits(csoftmax.log_prob(np.empty((0, 4), dtype), []), np.empty(0, dtype))
    none = csoftmax.log_prob(np.empty((3, 0), dtype), np.empty((3, 0), int))
    assert same_bits(none, np.empty((3, 0), dtype))


def test_the_arguments_are_not_modified(rng, dtype):
    x, index = logits_of(rng, (17, 33), dtype), rng.integers(0, 33, (17, 2))
    before = x.copy(), index.copy()
    csoftmax.log_prob(x, index)
    assert same_bits(x, before[0])
    assert_array_equal(index, before[1])


@pytest.mark.parametrize("axis", [0, 1])
def test_nothing_of_the_logits_size_is_allocated(dtype, axis):
    x = np.zeros((1000, 1000), dtype)
    index = np.zeros((1000, 2), np.int64)
    csoftmax.log_prob(x, index, axis=axis)
    tracemalloc.start()
    try:
        csoftmax.log_prob(x, index, axis=axis, temperature=0.7)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes / 20
