"""What is accepted besides float32 and float64, and `out=`."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import csoftmax

ELEMENTWISE = [csoftmax.softmax, csoftmax.log_softmax]


@pytest.mark.parametrize("kind", ["?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q"])
@pytest.mark.parametrize("function", [*ELEMENTWISE, csoftmax.logsumexp])
def test_integers_and_bool_are_computed_in_float64(function, kind):
    x = np.array([[1, 0, 1], [0, 0, 1]], kind)
    assert function(x).dtype == np.float64
    assert_array_equal(function(x), function(x.astype(np.float64)))


def test_unsigned_differences_do_not_wrap_around():
    assert_array_equal(csoftmax.softmax(np.uint8([0, 255])), csoftmax.softmax([0.0, 255.0]))


def test_float16_is_computed_in_float32():
    x = np.float16([[1, 2, 3], [60000, -60000, 0]])
    single = x.astype(np.float32)
    with np.errstate(all="raise"):
        assert_array_equal(csoftmax.softmax(x), csoftmax.softmax(single).astype(np.float16))
        log_p = csoftmax.log_softmax(x)
    assert log_p.dtype == np.float16
    assert log_p[1, 1] == -np.inf
    assert csoftmax.logsumexp(x).dtype == np.float32
    loss, grad = csoftmax.cross_entropy_with_grad(x, [0, 0])
    assert loss.dtype == np.float32
    assert grad.dtype == np.float16
    out = np.empty_like(x)
    assert csoftmax.softmax(x, out=out) is out
    assert_array_equal(out, csoftmax.softmax(x))


def test_sums_of_float16_do_not_overflow():
    assert csoftmax.logsumexp(np.zeros(100_000, np.float16)) == np.float32(np.log(100_000))


def test_lists_and_scalars_are_arrays():
    assert_array_equal(
        csoftmax.softmax([[1, 2], [3, 4]]), csoftmax.softmax(np.array([[1.0, 2], [3, 4]]))
    )
    for value in (3, 3.5, np.float32(2), np.array(5.0)):
        assert csoftmax.softmax(value) == 1
        assert csoftmax.log_softmax(value) == 0
        assert csoftmax.logsumexp(value) == value
        assert np.ndim(csoftmax.softmax(value)) == 0
    assert type(csoftmax.softmax(np.float32(2))) is np.float32
    assert type(csoftmax.logsumexp(np.float32([1, 2]))) is np.float32


def test_one_row_of_logits_takes_one_target(dtype):
    x = np.array([1, 2, 3], dtype)
    assert csoftmax.cross_entropy(x, 1) == csoftmax.cross_entropy(x[None], [1])
    assert csoftmax.cross_entropy(x, np.array(1), reduction="none").shape == ()


@pytest.mark.parametrize("kind", "bBhHiIlLqQ")
def test_targets_of_every_integer_dtype_name_the_same_classes(kind):
    x = np.arange(12.0).reshape(3, 4) % 5
    expected = csoftmax.cross_entropy(x, [3, 0, 2], reduction="none")
    for order in "<>":
        target = np.array([3, 0, 2], np.dtype(kind).newbyteorder(order))
        assert_array_equal(csoftmax.cross_entropy(x, target, reduction="none"), expected)
    assert_array_equal(
        csoftmax.cross_entropy(x, np.array([3, 9, 0, 9, 2], kind)[::2], reduction="none"), expected
    )


@pytest.mark.parametrize("function", ELEMENTWISE)
def test_out_receives_the_result_and_is_returned(rng, dtype, function):
    x = rng.standard_normal((50, 33)).astype(dtype)
    expected = function(x)
    for out in (
        np.empty_like(x),
        np.empty_like(x, order="F"),
        np.empty((50, 66), dtype)[:, ::2],
        np.empty((50, 33), dtype)[::-1, ::-1],
        x.copy(),
    ):
        assert function(x, out=out) is out
        assert_array_equal(out, expected)
    in_place = x.copy()
    function(in_place, out=in_place)
    assert_array_equal(in_place, expected)


def test_logsumexp_out_and_keepdims(rng, dtype):
    x = rng.standard_normal((4, 5, 6)).astype(dtype)
    expected = csoftmax.logsumexp(x, 1)
    assert expected.shape == (4, 6)
    assert_array_equal(csoftmax.logsumexp(x, 1, keepdims=True), expected[:, None])
    out = np.empty((6, 4), dtype).T
    assert csoftmax.logsumexp(x, 1, out=out) is out
    assert_array_equal(out, expected)
    out = np.empty((4, 1, 6), dtype)
    assert csoftmax.logsumexp(x, 1, keepdims=True, out=out) is out


@pytest.mark.parametrize("n_classes", [3, 16, 17, 100, 5000])
def test_gradient_may_take_the_place_of_the_logits(rng, dtype, n_classes):
    x = rng.standard_normal((70, n_classes)).astype(dtype)
    target = rng.integers(0, n_classes, 70)
    loss, grad = csoftmax.cross_entropy_with_grad(x, target)
    in_place_loss, in_place = csoftmax.cross_entropy_with_grad(x, target, out=x)
    assert in_place is x
    assert in_place_loss == loss
    assert_array_equal(in_place, grad)


@pytest.mark.parametrize("shift", [1, 7, 16, 50])
def test_an_out_that_overlaps_the_input_is_not_silently_wrong(rng, dtype, shift):
    memory = rng.standard_normal(5000).astype(dtype)
    x, out = (
        memory[:-shift].reshape(-1)[:4900].reshape(70, 70),
        memory[shift:][:4900].reshape(70, 70),
    )
    expected = csoftmax.softmax(x.copy())
    csoftmax.softmax(x, out=out)
    assert_array_equal(out, expected)
