"""Values against the definitions, over sizes where loops hand over."""

import numpy as np
import pytest
import reference
from numpy.testing import assert_array_equal

import csoftmax

SHAPES = [  # rows around tiles, a class axis with other axes inside
    ((0, 5), 1), ((1, 300), 1), ((17, 9), 1), ((63, 40), 1), ((257, 3), 1), ((1000, 16), 1), ((33, 500), 1),
    ((5, 3, 2), 1), ((4, 30, 3), 1), ((2, 40, 15), 1), ((2, 40, 16), 1), ((3, 20, 17), 1), ((3, 100, 49), 1),
    ((2, 2100, 20), 1), ((300, 64), 0), ((7, 100), 0), ((5, 1), 0), ((5,), 0), ((2, 3, 4, 5), -2),
]


def logits_of(rng, shape, dtype, spread=5):
    return (spread * rng.standard_normal(shape)).astype(dtype)


def check(x, axis):
    dtype = str(x.dtype)
    before = x.copy()
    assert reference.ulps(csoftmax.softmax(x, axis), reference.softmax(x, axis)) <= reference.BOUNDS["softmax", dtype]
    exact = reference.log_softmax(x, axis)
    assert reference.ulps(csoftmax.log_softmax(x, axis), exact) <= reference.BOUNDS["log_softmax", dtype]
    scale = np.abs(x).max(axis, initial=0)
    got = csoftmax.logsumexp(x, axis)
    assert reference.ulps(got, reference.logsumexp(x, axis), scale) <= reference.BOUNDS["logsumexp", dtype]
    assert_array_equal(x, before)


def test_results_are_within_the_bounds_for_every_number_of_classes(rng, dtype, n_classes):
    for spread in (0.1, 5, 40):
        check(logits_of(rng, (19, n_classes), dtype, spread), -1)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_results_are_within_the_bounds_for_every_shape_and_axis(rng, dtype, shape, axis):
    check(logits_of(rng, shape, dtype), axis)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_loss_and_gradient_are_within_the_bounds(rng, dtype, shape, axis):
    x = logits_of(rng, shape, dtype)
    rows = np.delete(shape, axis)
    target = rng.integers(0, shape[axis], rows)
    if target.size > 2:
        target.flat[1] = -100
    exact, exact_grad = reference.cross_entropy(x, target, axis)
    loss, grad = csoftmax.cross_entropy_with_grad(x, target, axis=axis, reduction="none")
    assert loss.shape == target.shape
    assert loss.dtype == grad.dtype == dtype
    assert_array_equal(loss, csoftmax.cross_entropy(x, target, axis=axis, reduction="none"))
    assert reference.ulps(loss, exact) <= reference.BOUNDS["log_softmax", dtype]
    assert reference.ulps(grad, exact_grad) <= reference.BOUNDS["gradient", dtype]


def test_loss_and_gradient_are_within_the_bounds_for_every_number_of_classes(rng, dtype, n_classes):
    x = logits_of(rng, (40, n_classes), dtype)
    target = rng.integers(0, n_classes, 40)
    target[:20] = x[:20].argmax(1)  # small losses
    exact, exact_grad = reference.cross_entropy(x, target)
    loss, grad = csoftmax.cross_entropy_with_grad(x, target, reduction="none")
    assert reference.ulps(loss, exact) <= reference.BOUNDS["log_softmax", dtype]
    assert reference.ulps(grad, exact_grad) <= reference.BOUNDS["gradient", dtype]


def test_mean_and_sum_accumulate_in_float64(rng, dtype):
    x = logits_of(rng, (1000, 7), dtype)
    target = rng.integers(0, 7, 1000)
    target[::3] = 6
    losses = np.asarray(reference.cross_entropy(x, target, ignore_index=6)[0], np.float64)
    counted = (target != 6).sum()
    # Each loss and the sum of 1000 are within some 1e-13 relative in float64; then one rounding to the dtype.
    tolerance = 1e-6 if dtype == "float32" else 1e-13
    total = csoftmax.cross_entropy(x, target, ignore_index=6, reduction="sum")
    mean = csoftmax.cross_entropy(x, target, ignore_index=6)
    assert type(total) is type(mean) is np.dtype(dtype).type
    np.testing.assert_allclose(total, losses.sum(), rtol=tolerance)
    np.testing.assert_allclose(mean, losses.sum() / counted, rtol=tolerance)
    for reduction, divisor in (("mean", counted), ("sum", 1)):
        loss, grad = csoftmax.cross_entropy_with_grad(x, target, ignore_index=6, reduction=reduction)
        assert loss == csoftmax.cross_entropy(x, target, ignore_index=6, reduction=reduction)
        exact = reference.cross_entropy(x, target, ignore_index=6)[1] / divisor
        assert reference.ulps(grad, exact) <= reference.BOUNDS["gradient", dtype] + 0.5  # the divisor rounds once


def test_small_losses_keep_their_digits():
    x = np.float32([[20, 0]])
    assert csoftmax.cross_entropy(x, [0]) == np.float32(2.0611537e-09)
    loss, grad = csoftmax.cross_entropy_with_grad(x, [0])
    assert loss == np.float32(2.0611537e-09)
    assert_array_equal(grad, np.float32([[-2.0611537e-09, 2.0611537e-09]]))
    assert_array_equal(csoftmax.log_softmax(x), np.float32([[-2.0611537e-09, -20]]))
    assert csoftmax.logsumexp([-40.0, 0.0]) == 4.248354255291589e-18


def test_softmax_and_torch_agree(rng, dtype):
    torch = pytest.importorskip("torch", reason="PyTorch is an optional peer")
    x = logits_of(rng, (6, 20, 5), "float64")
    target = rng.integers(0, 20, (6, 5))
    target[0, 0] = -100
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(x), torch.from_numpy(target)).item()
    np.testing.assert_allclose(csoftmax.cross_entropy(x, target, axis=1), expected, rtol=1e-15 * 4)


@pytest.mark.parametrize("n_classes", [1, 2, 15, 16, 17, 1000, 5000])
def test_adding_a_constant_to_a_row_changes_nothing(rng, dtype, n_classes):
    x = rng.integers(-8, 8, (5, n_classes)).astype(dtype)
    for constant in (-1024, 100, 1024, 2.0**19):
        assert_array_equal(csoftmax.softmax(x + np.dtype(dtype).type(constant)), csoftmax.softmax(x))


@pytest.mark.parametrize("n_classes", [1, 2, 3, 10, 16, 17, 64, 1000, 4096])
def test_equal_logits_have_equal_probabilities(dtype, n_classes):
    for value in (0, 0.3, -77.7, 1e30):
        x = np.full((3, n_classes), value, dtype)
        assert_array_equal(csoftmax.softmax(x), np.full_like(x, np.dtype(dtype).type(1 / n_classes)))
