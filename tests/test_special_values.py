"""NaN, infinities, overflow, subnormals, and arrays without elements."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import csoftmax
from support.reference import INF, NAN, special_rows

BIG = 3e38


@pytest.mark.parametrize("padding", [0, 3, 14, 15, 16, 40, 62, 100, 2046, 3000])
@pytest.mark.parametrize("orientation", ["last", "first"])
@pytest.mark.parametrize("case", range(len(special_rows("float32"))))
def test_special_rows_are_as_the_table_says(dtype, case, padding, orientation):
    # -inf classes change nothing: put some before and after, and ordinary rows around.
    values, p, log_p, lse = special_rows(dtype)[case]
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


# ---- With options ----


@pytest.mark.parametrize("n_classes", [2, 9, 17, 40, 100, 2100])
def test_a_class_of_no_mass_adds_nothing_where_it_has_no_probability(dtype, n_classes):
    x = np.linspace(0, 1, 20 * n_classes).reshape(20, n_classes).astype(dtype)
    dead = np.arange(n_classes) % 2 == 1
    without = x[:, ~dead].copy()
    x[:, dead] = -INF
    weight = np.where(dead, 0.0, 2.0)
    q = np.where(dead, 0, 1 / np.count_nonzero(~dead)).astype(dtype)
    target = np.zeros(20, int)
    eps = 0.1 * np.count_nonzero(~dead) / n_classes  # the mass that smoothing gives to those there
    for a, b, axis in ((x, without, 1), (x.T.copy(), without.T.copy(), 0)):
        options = {"axis": axis, "reduction": "none"}
        rows = np.broadcast_to(q, (20, n_classes))
        got, grad = csoftmax.cross_entropy_with_grad(a, rows if axis else rows.T, **options)
        few = rows[:, ~dead]
        want = csoftmax.cross_entropy(b, few if axis else few.T, **options)
        np.testing.assert_allclose(got, want, rtol=1e-6)
        assert_array_equal(np.moveaxis(grad, axis, 1)[:, dead], 0)
        assert np.isfinite(grad).all()
        got, grad = csoftmax.cross_entropy_with_grad(
            a, target, weight=weight, label_smoothing=0.1, **options
        )
        plain = csoftmax.cross_entropy(b, target, **options)
        even = csoftmax.cross_entropy(b, np.full(b.shape, 1 / without.shape[1]), **options)
        np.testing.assert_allclose(got, 2 * (0.9 * plain + eps * even), rtol=1e-6)
        assert_array_equal(np.moveaxis(grad, axis, 1)[:, dead], 0)
        assert np.isfinite(grad).all()


def test_a_mass_at_a_class_of_no_probability_is_an_infinite_loss_and_a_finite_gradient(dtype):
    x = np.array([[0, -INF, 0]] * 20, dtype)
    q = np.full_like(x, 0.25)
    for target in (np.zeros(20, int), q):
        for options in ({"label_smoothing": 0.25}, {"weight": [1, 2, 3], "label_smoothing": 0.5}):
            loss, grad = csoftmax.cross_entropy_with_grad(x, target, reduction="none", **options)
            assert_array_equal(loss, INF)
            assert (grad[:, 1] < 0).all()
            assert np.isfinite(grad).all()
            assert csoftmax.cross_entropy(x, target, **options) == INF


@pytest.mark.parametrize("eps", [0, 0.1])
def test_rows_of_no_weight_add_nothing_even_where_their_loss_is_infinite(dtype, eps):
    x = np.zeros((20, 3), dtype)
    x[4:8, 1] = -INF
    target, rows = np.ones(20, int), np.ones(20)
    rows[4:8] = 0
    some = np.delete(np.arange(20), np.arange(4, 8))
    q = np.full_like(x, 1 / 3)
    for y in (target, q):
        options = {"label_smoothing": eps}
        got = csoftmax.cross_entropy(x, y, sample_weight=rows, reduction="none", **options)
        want = csoftmax.cross_entropy(x[some], y[some], reduction="none", **options)
        assert_array_equal(got[4:8], 0)
        assert not np.signbit(got).any()
        assert_array_equal(got[some], want)
        for reduction in ("mean", "sum"):
            got, grad = csoftmax.cross_entropy_with_grad(
                x, y, sample_weight=rows, reduction=reduction, **options
            )
            want = csoftmax.cross_entropy(x[some], y[some], reduction=reduction, **options)
            np.testing.assert_allclose(got, want, rtol=1e-6)
            assert_array_equal(grad[4:8], 0)
            assert np.isfinite(grad).all()


def test_a_target_of_no_weight_adds_nothing_even_where_its_loss_is_infinite(dtype):
    x = np.array([[0, -INF, 1], [0, 1, 2]], dtype)
    loss, grad = csoftmax.cross_entropy_with_grad(x, [1, 1], weight=[1, 0, 1], reduction="none")
    assert_array_equal(loss, 0)
    assert not np.signbit(loss).any()
    assert_array_equal(grad, 0)
    assert csoftmax.cross_entropy(x, [1, 2], weight=[1, 0, 2]) == csoftmax.cross_entropy(x[1:], [2])


@pytest.mark.parametrize("n_classes", [2, 9, 17, 100, 2100])
@pytest.mark.parametrize(
    "options",
    [
        {"weight": 0},
        {"weight": 2},
        {"sample_weight": 0},
        {"sample_weight": 2},
        {"label_smoothing": 0.1},
        {"label_smoothing": 1},
        {"temperature": 0.7},
        {"weight": 0, "label_smoothing": 0.1},
    ],
    ids=str,
)
def test_rows_that_are_not_numbers_have_losses_and_gradients_that_are_none(
    dtype, n_classes, options
):
    x = np.zeros((20, n_classes), dtype)
    x[3, 0], x[4, n_classes - 1], x[5], x[6, 1] = NAN, INF, -INF, NAN
    bad = np.isin(np.arange(20), [3, 4, 5, 6])
    options = {
        name: np.full(n_classes if name == "weight" else 20, value) if "weight" in name else value
        for name, value in options.items()
    }
    first, q = np.full(20, n_classes // 2), np.zeros_like(x)
    q[:, n_classes // 2] = 1
    for target in (first, q):
        for a, axis in ((x, 1), (x.T.copy(), 0)):
            y = target.T.copy() if axis == 0 else target
            loss, grad = csoftmax.cross_entropy_with_grad(
                a, y, axis=axis, reduction="none", **options
            )
            grad = np.moveaxis(grad, axis, 1)
            assert np.isnan(loss[bad]).all()
            assert np.isnan(grad[bad]).all()
            assert np.isfinite(loss[~bad]).all()
            assert np.isfinite(grad[~bad]).all()


def test_a_probability_that_is_not_a_number_makes_its_row_nan_and_no_other(dtype):
    for n_classes in (2, 9, 17, 100, 2100):
        x, q = np.zeros((20, n_classes), dtype), np.full((20, n_classes), 0.5, dtype)
        q[3, n_classes // 2] = NAN
        for options in ({}, {"label_smoothing": 0.1}, {"weight": np.ones(n_classes)}):
            loss, grad = csoftmax.cross_entropy_with_grad(x, q, reduction="none", **options)
            assert np.isnan(loss[3])
            assert np.isnan(grad[3]).all()
            assert np.isfinite(np.delete(loss, 3)).all()
            assert np.isfinite(np.delete(grad, 3, 0)).all()


def test_differences_that_overflow_give_infinite_losses_and_finite_gradients_with_options(dtype):
    largest = np.finfo(dtype).max
    x = np.array([[largest, -largest, 0], [-largest, -largest, largest]] * 9, dtype)
    for target in (np.ones(18, int), np.full_like(x, 0.5)):
        for options in ({"label_smoothing": 0.1}, {"weight": [1, 2, 3]}, {"temperature": 1e-3}):
            loss, grad = csoftmax.cross_entropy_with_grad(x, target, reduction="none", **options)
            assert_array_equal(loss[::2], INF)
            assert np.isfinite(grad).all()
