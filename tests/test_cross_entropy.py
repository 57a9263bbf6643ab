"""cross_entropy: values, special rows, targets, reductions, ignore_index."""

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import csoftmax
from support import reference
from support.bits import same_bits
from support.cases import CLASSES, INNER, ROWS, logits_of, targets_of
from support.reference import BOUNDS, INF, NAN, special_rows


def distance(x, target, axis=-1):
    got = csoftmax.cross_entropy(x, target, axis=axis, reduction="none")
    assert got.shape == target.shape
    assert got.dtype == x.dtype
    return reference.ulps(got, reference.cross_entropy(x, target, axis)[0])


@pytest.mark.parametrize("n_classes", CLASSES)
def test_losses_are_within_their_bound_for_every_number_of_classes(rng, dtype, n_classes):
    for spread in (1, 5, 30):
        x = logits_of(rng, (18, n_classes), dtype, spread)
        assert distance(x, targets_of(rng, x.shape, -1)) <= BOUNDS["log_softmax", dtype]
        assert distance(x, x.argmax(-1)) <= BOUNDS["log_softmax", dtype]  # the smallest losses


@pytest.mark.parametrize("n_rows", ROWS)
@pytest.mark.parametrize("n_classes", [2, 10, 16, 17, 65])
def test_losses_are_within_their_bound_for_every_number_of_rows(rng, dtype, n_rows, n_classes):
    x = logits_of(rng, (n_rows, n_classes), dtype)
    assert distance(x, targets_of(rng, x.shape, -1)) <= BOUNDS["log_softmax", dtype]


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("n_classes", [1, 3, 16, 33, 2049])
def test_losses_are_within_their_bound_along_first_and_middle_axes(rng, dtype, inner, n_classes):
    x = logits_of(rng, (2, n_classes, inner), dtype)
    target = targets_of(rng, x.shape, 1)
    assert distance(x, target, 1) <= BOUNDS["log_softmax", dtype]
    assert distance(x, target, -2) <= BOUNDS["log_softmax", dtype]
    assert distance(np.ascontiguousarray(x[0]), target[0], 0) <= BOUNDS["log_softmax", dtype]


def test_small_losses_keep_their_digits():
    assert csoftmax.cross_entropy(np.float32([[20, 0]]), [0]) == np.float32(2.0611537e-09)
    assert csoftmax.cross_entropy([[40.0, 0.0]], [0]) == 4.248354255291589e-18
    assert csoftmax.cross_entropy(np.float32([[100, 0]]), [0]) == np.float32(np.exp(-100.0))


@pytest.mark.parametrize("case", range(len(special_rows("float32"))))
def test_losses_of_special_rows_are_minus_the_log_probabilities_of_the_table(dtype, case):
    row, _, log_p, _ = special_rows(dtype)[case]
    x = np.zeros((20, len(row)), dtype)
    x[7] = row
    for target, expected in enumerate(log_p):
        targets = np.full(20, target)
        losses = csoftmax.cross_entropy(x, targets, reduction="none")
        assert reference.ulps(losses[7], -expected) <= BOUNDS["log_softmax", dtype]
        assert np.isfinite(np.delete(losses, 7)).all()
        columns = csoftmax.cross_entropy(
            np.ascontiguousarray(x.T), targets, axis=0, reduction="none"
        )
        assert_array_equal(columns, losses)


@pytest.mark.parametrize("kind", np.typecodes["AllInteger"])
def test_targets_of_every_integer_dtype_and_layout_name_the_same_classes(kind):
    x = np.arange(12.0).reshape(3, 4) % 5
    expected = csoftmax.cross_entropy(x, [3, 0, 2], reduction="none")
    for order in "<>":
        target = np.array([3, 0, 2], np.dtype(kind).newbyteorder(order))
        assert same_bits(csoftmax.cross_entropy(x, target, reduction="none"), expected)
    target = np.array([2, 9, 0, 9, 3], kind)[::-2]
    assert same_bits(csoftmax.cross_entropy(x, target, reduction="none"), expected)
    target.flags.writeable = False
    assert same_bits(csoftmax.cross_entropy(x, target, reduction="none"), expected)


def test_targets_with_several_axes_may_have_any_layout(rng, dtype):
    x = logits_of(rng, (4, 9, 5), dtype)
    target = targets_of(rng, x.shape, 1)
    expected = csoftmax.cross_entropy(x, target, axis=1, reduction="none")
    for other in (
        np.asfortranarray(target),
        target[::-1, ::-1].copy()[::-1, ::-1],
        target.tolist(),
    ):
        got = csoftmax.cross_entropy(x, other, axis=1, reduction="none")
        assert same_bits(got, expected)
    one = csoftmax.cross_entropy(x, np.broadcast_to(2, (4, 5)), axis=1, reduction="none")
    assert same_bits(one, csoftmax.cross_entropy(x, np.full((4, 5), 2), axis=1, reduction="none"))


def test_the_targets_are_not_modified(rng):
    target = np.array([1, 0, -100, 2])
    csoftmax.cross_entropy(rng.standard_normal((4, 3)), target)
    assert_array_equal(target, [1, 0, -100, 2])


@pytest.mark.parametrize("n_rows", [1, 2, 17, 257, 5000])
def test_sum_and_mean_are_sums_in_float64_of_the_losses_that_count(rng, dtype, n_rows):
    x = logits_of(rng, (n_rows, 7), dtype)
    target = targets_of(rng, x.shape, -1)
    exact = math.fsum(reference.cross_entropy(x, target)[0].astype(float))
    n_counted = int((target != -100).sum())
    # Losses are not negative: their sum is as good as the worst. Pairwise sums of blocks of 128
    # round 19 + log2(n / 128) times at most, in float64; division and the dtype round once.
    bound = 2 * BOUNDS["log_softmax", dtype] + 2
    if dtype == "float64":
        bound += 19 + max(0, math.log2(n_rows / 128))
    total = csoftmax.cross_entropy(x, target, reduction="sum")
    mean = csoftmax.cross_entropy(x, target, reduction="mean")
    assert type(total) is type(mean) is np.dtype(dtype).type
    assert reference.ulps(total, exact) <= bound
    assert reference.ulps(mean, exact / n_counted) <= bound
    assert mean == csoftmax.cross_entropy(x, target)


def test_a_sum_of_many_small_float32_losses_loses_none():
    # In float32, 2**24 + 1 is 2**24: one loss of 2**24 would swallow all others.
    x = np.zeros((4097, 2), np.float32)
    x[0, 1] = 2**24
    exact = 2.0**24 + 4096 * np.log(2)
    assert csoftmax.cross_entropy(x, np.zeros(4097, int), reduction="sum") == np.float32(exact)


@pytest.mark.skipif(not reference.WIDE, reason="needs a float wider than float64")
def test_losses_are_rounded_once_where_the_sum_is_exact(rng):
    # All other classes are equal: what rounds is the logarithm, and its sum with the distance. Without the logarithm's
    # low part this is one unit.
    n_others, distance = np.meshgrid(np.arange(20, 400, 7), rng.uniform(0.3, 4, 50))
    n_others, distance = n_others.reshape(-1), distance.reshape(-1)
    x = np.where(np.arange(400) <= n_others[:, None], 0, -INF)
    x[:, 0] = -distance
    got = csoftmax.cross_entropy(x, np.zeros(len(x), int), reduction="none")
    d = distance.astype(np.longdouble)
    assert reference.ulps(got, d + np.log(n_others + np.exp(-d))) <= 0.75


@pytest.mark.parametrize("ignore_index", [-1, 0, 4, 5, 2**31, 2**63 - 1, -(2**63), np.int8(3)])
def test_ignore_index_may_be_any_integer_that_targets_can_hold(ignore_index):
    x = np.arange(25.0).reshape(5, 5) % 7
    target = np.array([0, int(ignore_index), 3, 4, 2])
    ignored = target == ignore_index
    loss = csoftmax.cross_entropy(x, target, ignore_index=ignore_index, reduction="none")
    classes = np.where(ignored, 0, target)
    plain = csoftmax.cross_entropy(x, classes, ignore_index=None, reduction="none")
    assert same_bits(loss, np.where(ignored, 0.0, plain))
    mean = csoftmax.cross_entropy(x, target, ignore_index=ignore_index)
    assert reference.ulps(mean, plain[~ignored].mean()) <= 4  # another order of at most five terms


@pytest.mark.parametrize("ignore_index", [None, 2**63, 2**64, -(2**70), 10**30])
def test_an_ignore_index_that_no_target_can_equal_ignores_nothing(ignore_index):
    x, target = np.eye(4), np.array([0, 1, 2, 1])
    loss = csoftmax.cross_entropy(x, target, ignore_index=ignore_index, reduction="none")
    assert (loss > 0).all()
    with pytest.raises(IndexError, match="target -100 at position 1 "):
        csoftmax.cross_entropy(x, [0, -100, 2, 1], ignore_index=ignore_index)


@pytest.mark.parametrize("kind", np.typecodes["AllInteger"])
def test_the_smallest_and_the_largest_number_of_a_dtype_may_be_ignored(kind):
    x = np.eye(4)
    for extreme in (np.iinfo(kind).min, np.iinfo(kind).max):
        target = np.array([1, extreme, 2, 1], kind)
        got = csoftmax.cross_entropy(x, target, ignore_index=extreme, reduction="none")
        classes = np.where(target == extreme, -100, target.astype(object)).astype(int)
        assert same_bits(got, csoftmax.cross_entropy(x, classes, reduction="none"))
        assert got[1] == 0


def test_minus_100_is_not_what_an_unsigned_target_wraps_around_to():
    with pytest.raises(IndexError, match="target 156 at position 0 "):
        csoftmax.cross_entropy(np.eye(2), np.array([156, 0], np.uint8))
    with pytest.raises(IndexError, match="target 18446744073709551516 at position 0 "):
        csoftmax.cross_entropy(np.eye(2), np.array([2**64 - 100, 0], np.uint64))


@pytest.mark.parametrize("n_classes", [2, 16, 40, 2100])
def test_ignored_rows_have_the_loss_plus_zero_whatever_they_hold(dtype, n_classes):
    x = np.zeros((6, n_classes), dtype)
    x[1, 0], x[2, 1], x[3], x[4, 1] = NAN, INF, -INF, NAN
    x[4, 0] = INF
    target = np.array([0, -100, -100, -100, -100, 1])
    for a, axis in ((x, 1), (np.ascontiguousarray(x.T), 0)):
        loss = csoftmax.cross_entropy(a, target, axis=axis, reduction="none")
        assert same_bits(loss[1:5], np.zeros(4, dtype))
        mean = csoftmax.cross_entropy(a, target, axis=axis)
        assert reference.ulps(mean, np.log(np.longdouble(n_classes))) <= 2.5


def test_the_mean_of_no_rows_is_nan_and_their_sum_plus_zero(dtype):
    for x, target in ((np.ones((3, 4)), [-100] * 3), (np.ones((0, 4)), []), (np.ones((0, 0)), [])):
        x = x.astype(dtype)
        mean = csoftmax.cross_entropy(x, target)
        assert np.isnan(mean)
        total = csoftmax.cross_entropy(x, target, reduction="sum")
        assert same_bits(total, np.zeros((), dtype))
        none = csoftmax.cross_entropy(x, target, reduction="none")
        assert same_bits(none, np.zeros(len(x), dtype))


def test_rows_of_no_classes_may_only_be_ignored(dtype):
    x = np.empty((2, 0), dtype)
    assert same_bits(csoftmax.cross_entropy(x, [-100] * 2, reduction="none"), np.zeros(2, dtype))
    with pytest.raises(IndexError, match="there are no classes"):
        csoftmax.cross_entropy(x, [-100, 0])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("row", [[-0.0], [5.0], [0.0, -INF], [1e30, -1e30], [800.0, 0.0, -800.0]])
def test_a_loss_is_never_minus_zero(dtype, row, reduction):
    x = np.array([row] * 20, dtype)
    loss = csoftmax.cross_entropy(x, np.zeros(20, int), reduction=reduction)
    assert_array_equal(loss, 0)
    assert not np.signbit(loss).any()


def test_a_single_row_takes_a_scalar_target(dtype):
    x = np.array([1, 2, 3], dtype)
    expected = csoftmax.cross_entropy(x[None], [1])
    for target in (1, np.int8(1), np.array(1, np.uint64)):
        for reduction in ("mean", "sum", "none"):
            assert same_bits(csoftmax.cross_entropy(x, target, reduction=reduction), expected)


def test_integers_float16_and_lists_are_converted_as_the_contract_says():
    rows, target = [[1, 2, 0], [3, 5, 1]], [0, 2]
    expected = csoftmax.cross_entropy(np.array(rows, np.float64), target)
    for logits in (
        rows,
        np.array(rows, np.uint8),
        np.array(rows, np.int64),
        tuple(map(tuple, rows)),
    ):
        assert same_bits(csoftmax.cross_entropy(logits, target), expected)
    half = np.array(rows, np.float16)
    expected = csoftmax.cross_entropy(half.astype(np.float32), target)
    assert same_bits(csoftmax.cross_entropy(half, target), expected)


def test_float64_losses_equal_those_of_torch_to_1e_15(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is an optional peer")
    x = logits_of(rng, (50, 20, 3), "float64")
    target = targets_of(rng, x.shape, 1)
    for reduction in ("mean", "sum", "none"):
        theirs = torch.nn.functional.cross_entropy(
            torch.from_numpy(x), torch.from_numpy(target), reduction=reduction
        ).numpy()
        ours = csoftmax.cross_entropy(x, target, axis=1, reduction=reduction)
        # x - logsumexp(x) loses what the subtraction cancels: the bound is relative to the logits.
        bound = 1e-15 * max(1, np.abs(x).max()) * (target.size if reduction == "sum" else 1)
        np.testing.assert_allclose(ours, theirs, rtol=1e-15, atol=bound)
