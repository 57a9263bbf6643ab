"""cross_entropy_with_grad: the gradient and its agreement with the loss of cross_entropy."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import csoftmax
from support import reference
from support.bits import same_bits
from support.cases import CLASSES, INNER, ROWS, logits_of, targets_of
from support.reference import BOUNDS, INF, NAN, special_rows


def distance(x, target, axis=-1, reduction="none"):
    """Of the gradient from its definition; the loss must be the one of cross_entropy."""
    loss, grad = csoftmax.cross_entropy_with_grad(x, target, axis=axis, reduction=reduction)
    assert same_bits(loss, csoftmax.cross_entropy(x, target, axis=axis, reduction=reduction))
    assert grad.shape == x.shape
    assert grad.dtype == x.dtype
    divisor = max(1, (target != -100).sum()) if reduction == "mean" else 1
    return reference.ulps(grad, reference.cross_entropy(x, target, axis)[1] / divisor)


@pytest.mark.parametrize("n_classes", [1, 2, 5, 9, 26, 100, 3000])
def test_the_gradient_of_a_certain_row_is_zero_without_a_sign(dtype, n_classes):
    x = np.full((20, n_classes), -INF, dtype)
    target = np.arange(20) % n_classes
    x[range(20), target] = 3
    for grad_output in (1.0, -1.0):
        for n_rows in (20, 3):  # a few short rows are computed one by one
            _, grad = csoftmax.cross_entropy_with_grad(
                x[:n_rows], target[:n_rows], reduction="sum", grad_output=grad_output
            )
            assert same_bits(grad[range(n_rows), target[:n_rows]], np.zeros(n_rows, dtype))


@pytest.mark.parametrize("n_classes", CLASSES)
def test_gradients_are_within_their_bound_for_every_number_of_classes(rng, dtype, n_classes):
    for spread in (1, 5, 30):
        x = logits_of(rng, (18, n_classes), dtype, spread)
        assert distance(x, targets_of(rng, x.shape, -1)) <= BOUNDS["gradient", dtype]
        assert distance(x, x.argmax(-1)) <= BOUNDS["gradient", dtype]  # the smallest target entries


@pytest.mark.parametrize("n_rows", ROWS)
@pytest.mark.parametrize("n_classes", [2, 10, 16, 17, 65])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients_are_within_their_bound_for_every_number_of_rows(
    rng, dtype, n_rows, n_classes, reduction
):
    x = logits_of(rng, (n_rows, n_classes), dtype)
    target = targets_of(rng, x.shape, -1)
    assert distance(x, target, reduction=reduction) <= BOUNDS["gradient", dtype]


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("n_classes", [1, 3, 16, 33, 2049])
def test_gradients_are_within_their_bound_along_first_and_middle_axes(rng, dtype, inner, n_classes):
    x = logits_of(rng, (2, n_classes, inner), dtype)
    target = targets_of(rng, x.shape, 1)
    assert distance(x, target, 1) <= BOUNDS["gradient", dtype]
    assert distance(x, target, -2) <= BOUNDS["gradient", dtype]
    assert distance(np.ascontiguousarray(x[0]), target[0], 0) <= BOUNDS["gradient", dtype]


def test_small_losses_and_gradients_keep_their_digits():
    loss, grad = csoftmax.cross_entropy_with_grad(np.float32([[20, 0]]), [0])
    assert loss == np.float32(2.0611537e-09)
    assert_array_equal(grad, np.float32([[-2.0611537e-09, 2.0611537e-09]]))


def test_subnormal_gradients_are_kept():
    _, grad = csoftmax.cross_entropy_with_grad(np.float32([[0, -100]]), [0])
    tiny = np.float32(np.exp(-100.0))
    assert 0 < tiny < np.finfo(np.float32).smallest_normal
    assert_array_equal(grad, np.float32([[-tiny, tiny]]))


@pytest.mark.parametrize("case", range(len(special_rows("float32"))))
def test_gradients_of_special_rows_are_those_of_the_table(dtype, case):
    row, p, _, _ = special_rows(dtype)[case]
    x = np.zeros((20, len(row)), dtype)
    x[7] = row
    for target in range(len(row)):
        expected = np.array(p, dtype)
        expected[target] -= 1  # exact: the table's probabilities are 0, 1/2, 1 or NaN
        targets = np.full(20, target)
        _, grad = csoftmax.cross_entropy_with_grad(x, targets, reduction="sum")
        assert_array_equal(grad[7], expected)
        assert np.isfinite(np.delete(grad, 7, 0)).all()
        _, columns = csoftmax.cross_entropy_with_grad(
            np.ascontiguousarray(x.T), targets, axis=0, reduction="sum"
        )
        assert same_bits(np.nan_to_num(columns.T), np.nan_to_num(grad))


@pytest.mark.parametrize("n_classes", [2, 16, 40, 2100])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ignored_rows_have_a_gradient_of_exactly_zero_whatever_they_hold(
    dtype, n_classes, reduction
):
    x = np.zeros((6, n_classes), dtype)
    x[1, 0], x[2, 1], x[3], x[4, 1] = NAN, INF, -INF, NAN
    x[4, 0] = INF
    target = np.array([0, -100, -100, -100, -100, 1])
    for a, axis in ((x, 1), (np.ascontiguousarray(x.T), 0)):
        loss, grad = csoftmax.cross_entropy_with_grad(a, target, axis=axis, reduction=reduction)
        grad = np.moveaxis(grad, axis, -1)
        assert same_bits(grad[1:5], np.zeros_like(grad[1:5]))
        assert np.isfinite(loss).all()
        assert (grad[[0, 5], [0, 1]] < 0).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_all_rows_ignored_give_no_gradient(dtype, reduction):
    x = np.array([[1, 2], [NAN, INF]], dtype)
    loss, grad = csoftmax.cross_entropy_with_grad(x, [9, 9], ignore_index=9, reduction=reduction)
    assert same_bits(grad, np.zeros_like(x))
    expected = {"mean": NAN, "sum": 0, "none": [0, 0]}[reduction]
    assert_array_equal(loss, expected)


def test_no_rows_and_no_classes_give_gradients_without_elements(dtype):
    for shape, target in (((0, 4), []), ((0, 0), []), ((3, 0), [-100] * 3)):
        for reduction in ("mean", "sum", "none"):
            x = np.empty(shape, dtype)
            _, grad = csoftmax.cross_entropy_with_grad(x, target, reduction=reduction)
            assert same_bits(grad, x)


def test_a_gradient_row_of_one_class_is_zero(dtype):
    _, grad = csoftmax.cross_entropy_with_grad(np.full((20, 1), 3.5, dtype), np.zeros(20, int))
    assert_array_equal(grad, 0)


def test_mean_divides_by_the_rows_that_count(rng):
    x, target = rng.standard_normal((8, 5)), np.array([0, 1, -100, 2, -100, 3, -100, -100])
    _, grad = csoftmax.cross_entropy_with_grad(x, target)
    _, of_sum = csoftmax.cross_entropy_with_grad(x, target, reduction="sum")
    assert same_bits(grad * 4, of_sum)  # four rows count: powers of two are exact


def test_none_gives_the_gradient_of_the_sum(rng, dtype):
    x, target = logits_of(rng, (30, 11), dtype), rng.integers(0, 11, 30)
    _, of_sum = csoftmax.cross_entropy_with_grad(x, target, reduction="sum")
    _, of_none = csoftmax.cross_entropy_with_grad(x, target, reduction="none")
    assert same_bits(of_none, of_sum)


@pytest.mark.parametrize("n_classes", [2, 16, 17, 100, 5000])
def test_out_receives_the_gradient_and_may_be_the_logits(rng, dtype, n_classes):
    x = logits_of(rng, (20, n_classes), dtype)
    target = targets_of(rng, x.shape, -1)
    loss, grad = csoftmax.cross_entropy_with_grad(x, target)
    out = np.full_like(x, 7)
    loss_out, grad_out = csoftmax.cross_entropy_with_grad(x, target, out=out)
    assert grad_out is out
    assert same_bits(loss_out, loss)
    assert same_bits(out, grad)
    loss_in_place, grad_in_place = csoftmax.cross_entropy_with_grad(x, target, out=x)
    assert grad_in_place is x
    assert same_bits(loss_in_place, loss)
    assert same_bits(x, grad)


def test_float16_gives_a_float32_loss_and_a_float16_gradient():
    x = np.float16([[1, 2, 3], [60000, -60000, 0]])
    loss, grad = csoftmax.cross_entropy_with_grad(x, [0, 0])
    loss32, grad32 = csoftmax.cross_entropy_with_grad(x.astype(np.float32), [0, 0])
    assert same_bits(loss, loss32)
    assert same_bits(grad, grad32.astype(np.float16))
    out = np.full_like(x, 7)
    assert csoftmax.cross_entropy_with_grad(x, [0, 0], out=out)[1] is out
    assert same_bits(out, grad)


def test_integers_give_a_float64_gradient():
    x = np.array([[1, 2, 0], [3, 5, 1]], np.uint8)
    for ours, expected in zip(
        csoftmax.cross_entropy_with_grad(x, [0, 2]),
        csoftmax.cross_entropy_with_grad(x.astype(np.float64), [0, 2]),
        strict=True,
    ):
        assert same_bits(ours, expected)


def test_a_single_row_has_a_gradient_of_its_shape(dtype):
    loss, grad = csoftmax.cross_entropy_with_grad(np.zeros(4, dtype), 1)
    assert np.ndim(loss) == 0
    assert_array_equal(grad, np.array([0.25, -0.75, 0.25, 0.25], dtype))


def test_float64_gradients_equal_those_of_torch_to_1e_15(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is an optional peer")
    x = logits_of(rng, (50, 20, 3), "float64")
    target = targets_of(rng, x.shape, 1)
    for reduction in ("mean", "sum"):
        logits = torch.from_numpy(x).requires_grad_()
        torch.nn.functional.cross_entropy(
            logits, torch.from_numpy(target), reduction=reduction
        ).backward()
        _, grad = csoftmax.cross_entropy_with_grad(x, target, axis=1, reduction=reduction)
        np.testing.assert_allclose(grad, logits.grad.numpy(), rtol=0, atol=1e-15)
