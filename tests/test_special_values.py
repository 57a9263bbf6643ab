"""NaN, infinities, overflow, subnormals, and arrays without elements."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import csoftmax

INF, NAN = np.inf, np.nan
BIG = 3e38
TABLE = [  # row, softmax, log_softmax, logsumexp
    ([0, -INF, 0], [0.5, 0, 0.5], [-np.log(2), -INF, -np.log(2)], np.log(2)),
    ([-INF, -INF], [NAN, NAN], [NAN, NAN], -INF),
    ([-INF], [NAN], [NAN], -INF),
    ([1, INF], [NAN, NAN], [NAN, NAN], INF),
    ([INF, INF], [NAN, NAN], [NAN, NAN], INF),
    ([INF, -INF], [NAN, NAN], [NAN, NAN], INF),
    ([1, NAN], [NAN, NAN], [NAN, NAN], NAN),
    ([NAN, 1], [NAN, NAN], [NAN, NAN], NAN),
    ([NAN, INF, -INF], [NAN] * 3, [NAN] * 3, NAN),
    ([-INF, NAN], [NAN, NAN], [NAN, NAN], NAN),
    ([INF, NAN], [NAN, NAN], [NAN, NAN], NAN),
    ([BIG, -BIG], [1, 0], [0, -INF], BIG),
    ([7], [1], [0], 7),
]


@pytest.mark.parametrize("padding", [0, 3, 14, 15, 16, 40, 62, 100, 2046, 3000])
@pytest.mark.parametrize("orientation", ["last", "first"])
@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row[0]))
def test_special_rows_are_as_the_table_says(dtype, row, padding, orientation):
    if dtype == "float64" and BIG in row[0]:
        row = [np.where(np.abs(v) == BIG, np.sign(v) * 1.7e308, v) for v in row]
    # -inf classes change nothing: put some before and after, and ordinary rows around.
    values, p, log_p, lse = row
    around = [np.full(padding, -INF), np.full(padding // 2, -INF)]
    x = np.zeros((20, len(values) + len(around[0]) + len(around[1])), dtype)
    x[3] = np.concatenate([around[0], values, around[1]])
    axis = -1
    if orientation == "first":
        x, axis = np.ascontiguousarray(x.T), 0
    with np.errstate(all="raise"):
        results = [
            np.moveaxis(f(x, axis), axis, -1) for f in (csoftmax.softmax, csoftmax.log_softmax)
        ]
        lses = csoftmax.logsumexp(x, axis)
    for got, want, filler in zip(results, (p, log_p), (0, -INF), strict=True):
        filler = NAN if np.isnan(want).any() else filler
        want = np.concatenate(
            [np.full(len(around[0]), filler), want, np.full(len(around[1]), filler)]
        )
        np.testing.assert_allclose(got[3], np.asarray(want, dtype), rtol=1e-6)
        assert np.isfinite(np.delete(got, 3, 0)).all()
    np.testing.assert_allclose(lses[3], np.dtype(dtype).type(lse), rtol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 8, 9, 16, 17, 40, 200, 3000])
def test_a_nan_makes_its_row_nan_whatever_its_payload_and_sign(dtype, n_classes):
    # R marks missing values with payload 1954: its low bits must not reach an exponent field.
    quiet, bits, sign = (
        (0x7FC00000, np.uint32, 31) if dtype == "float32" else (0x7FF8 << 48, np.uint64, 63)
    )
    for payload in (0, 1, 0x1FF, 1954):
        for negative in (0, 1):
            x = np.zeros((20, n_classes), dtype)
            x.view(bits)[3, n_classes // 2] = quiet | payload | negative << sign
            for a, axis in ((x, 1), (np.ascontiguousarray(x.T), 0)):
                p = np.moveaxis(csoftmax.softmax(a, axis), axis, 1)
                assert np.isnan(p[3]).all()
                assert np.isnan(csoftmax.logsumexp(a, axis)[3])
                assert np.isfinite(np.delete(p, 3, 0)).all()


@pytest.mark.parametrize("n_classes", [1, 2, 8, 9, 16, 100, 3000])
@pytest.mark.parametrize("value", [0.3, -250.7, 1.449, 3000.5])
def test_a_class_that_is_alone_has_the_probability_one(dtype, value, n_classes):
    x = np.full((20, n_classes), -INF, dtype)
    x[:, n_classes // 2] = value
    assert_array_equal(csoftmax.softmax(x).sum(1), 1)
    assert_array_equal(csoftmax.softmax(x).max(1), 1)


def test_one_class_has_a_log_probability_of_plus_zero(dtype):
    for value in (0.0, -0.0, -5.5, 1e30):
        got = csoftmax.log_softmax(np.full((3, 1), value, dtype))
        assert_array_equal(np.signbit(got), False)
        assert_array_equal(got, 0)
        assert_array_equal(csoftmax.softmax(np.full((3, 1), value, dtype)), 1)


def test_subnormal_probabilities_are_kept():
    difference = np.arange(85, 105, 0.25)
    x = np.stack([np.zeros_like(difference), -difference], 1).astype(np.float32)
    exact = np.exp(-difference)
    got = csoftmax.softmax(x)[:, 1]
    assert (np.abs(got - exact) <= np.spacing(exact.astype(np.float32))).all()
    loss = csoftmax.cross_entropy(x, np.zeros(len(x), int), reduction="none")
    assert (np.abs(loss - exact) <= np.spacing(exact.astype(np.float32))).all()
    many = np.full(
        (1, 1 << 16), -108, np.float32
    )  # each less than the smallest number, together not
    many[0, 0] = 0
    np.testing.assert_allclose(
        csoftmax.cross_entropy(many, [0]), 65535 * np.exp(-108.0), rtol=0, atol=1.5e-45
    )


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((0, 3), 1), ((3, 0), 1), ((0,), 0), ((0, 0), 0), ((2, 0, 3), 1), ((2, 0, 3), 2)],
)
def test_arrays_without_elements_have_results_without_elements(dtype, shape, axis):
    x = np.empty(shape, dtype)
    for function in (csoftmax.softmax, csoftmax.log_softmax):
        assert function(x, axis).shape == shape
    lse = csoftmax.logsumexp(x, axis)
    assert lse.shape == tuple(np.delete(shape, axis))
    assert_array_equal(lse, np.full(lse.shape, -INF))


def test_no_rows_have_a_nan_mean_and_a_zero_sum(dtype):
    x, target = np.empty((0, 5), dtype), np.empty(0, int)
    assert np.isnan(csoftmax.cross_entropy(x, target))
    assert csoftmax.cross_entropy(x, [], reduction="sum") == 0
    assert csoftmax.cross_entropy(x, target, reduction="none").shape == (0,)


def test_ignored_rows_have_no_loss_and_no_gradient_whatever_they_hold(dtype):
    x = np.array([[1, 2], [NAN, 1], [INF, 1], [-INF, -INF], [3, 0]], dtype)
    target = [0, -100, -100, -100, 1]
    loss, grad = csoftmax.cross_entropy_with_grad(x, target, reduction="none")
    assert_array_equal(loss[1:4], 0)
    assert_array_equal(np.signbit(loss), False)
    assert_array_equal(grad[1:4], 0)
    assert (loss[[0, 4]] > 1).all()
    assert csoftmax.cross_entropy(x, target) == np.dtype(dtype).type(
        np.float64(loss[0] + np.float64(loss[4])) / 2
    )


def test_all_rows_ignored_is_a_nan_mean_a_zero_sum_and_no_gradient(dtype):
    x = np.ones((3, 4), dtype)
    loss, grad = csoftmax.cross_entropy_with_grad(x, [7] * 3, ignore_index=7)
    assert np.isnan(loss)
    assert_array_equal(grad, 0)
    total = csoftmax.cross_entropy(x, [7] * 3, ignore_index=7, reduction="sum")
    assert total == 0
    assert not np.signbit(total)


def test_a_target_of_no_probability_has_an_infinite_loss(dtype):
    x = np.array([[0, -INF, 1], [BIG, -BIG, 0]], dtype) * (1 if dtype == "float32" else 1e269)
    loss, grad = csoftmax.cross_entropy_with_grad(x, [1, 1], reduction="none")
    assert_array_equal(loss[:1], INF)
    assert_array_equal(grad[:, 1], -1)


def test_a_row_that_is_not_a_number_has_a_loss_that_is_none(dtype):
    x = np.array([[NAN, 0], [INF, 0], [-INF, -INF]], dtype)
    loss, grad = csoftmax.cross_entropy_with_grad(x, [1, 1, 1], reduction="none")
    assert np.isnan(loss).all()
    assert np.isnan(grad).all()


@pytest.mark.parametrize("ignore_index", [-1, 0, 4, 2**63, -(2**70), np.int8(3)])
def test_ignore_index_may_be_any_integer(ignore_index):
    x = np.arange(20.0).reshape(4, 5) % 7
    target = np.array([0, 3, 4, 4])
    counted = target != int(ignore_index)
    loss = csoftmax.cross_entropy(x, target, ignore_index=ignore_index, reduction="none")
    plain = csoftmax.cross_entropy(x, target, ignore_index=None, reduction="none")
    assert_array_equal(loss, np.where(counted, plain, 0))


def test_unsigned_targets_beyond_int64_may_be_ignored():
    target = np.array([1, 2**64 - 100, 2], np.uint64)
    x = np.eye(3)
    loss = csoftmax.cross_entropy(x, target, ignore_index=2**64 - 100, reduction="none")
    assert_array_equal(loss, csoftmax.cross_entropy(x, [1, -100, 2], reduction="none"))
    with pytest.raises(
        IndexError, match="target 18446744073709551516 at position 1 is not a class"
    ):
        csoftmax.cross_entropy(x, target)  # it is not -100
