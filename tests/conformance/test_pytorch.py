"""cross_entropy, its gradient and nll_loss beside PyTorch's, on a thousand random sets of options in float64.

The law: a distance of at most 1e-14 times the larger of 1 and the largest magnitude in PyTorch's result. A result
is a sum of at most a thousand terms of one sign, each with an error of a few units of 1.1e-16 of itself or of 1.

Left out by rule, as PyTorch's is NaN by 0 / 0 or 0 * inf: means over targets whose weights sum to 0, and infinite
logits.
"""

import itertools

import numpy as np
import pytest

import csoftmax
from csoftmax import functional

torch = pytest.importorskip("torch", reason="PyTorch is an optional peer")

N_SETS = 1000
COMBINATIONS = list(  # of dimensions, reduction, whether weighted, whether smoothed, kind of target
    itertools.product(
        range(1, 6),
        ("mean", "sum", "none"),
        (False, True),
        (False, True),
        ("classes", "classes with an ignored one", "probabilities"),
    )
)


def random_set(seed):
    """Logits, target, options of cross_entropy, and the gradient to start from."""
    n_dims, reduction, weighted, smoothed, kind = COMBINATIONS[seed % len(COMBINATIONS)]
    rng = np.random.default_rng(seed)
    n_classes = rng.choice([1, 2, 3, 10, 17, 65])
    rows = tuple(rng.integers(1, 5, n_dims - 1).tolist())
    shape = (*rows[:1], n_classes, *rows[1:])
    logits = rng.choice([0.1, 1, 10, 100]) * rng.standard_normal(shape)
    options = {"reduction": reduction}
    if weighted:  # some are 0
        options["weight"] = rng.choice([0, 0.1, 1, 2], n_classes) * rng.uniform(0.5, 1, n_classes)
    if smoothed:
        options["label_smoothing"] = float(rng.choice([0.1, rng.random(), 1]))
    if kind == "probabilities":  # some are 0, now and then all of a row
        target = rng.random(shape) ** rng.choice([1, 8]) * (rng.random(shape) < 0.8)
        total = target.sum(class_axis(logits), keepdims=True)
        target = target / np.where(total == 0, 1, total)
    else:
        target = rng.integers(0, n_classes, rows)
    if kind == "classes with an ignored one":
        options["ignore_index"] = int(rng.choice([-100, -1, rng.integers(n_classes), 10**9]))
        target = np.where(rng.random(rows) < 0.3, options["ignore_index"], target)
    return logits, target, options, rng.standard_normal(rows if reduction == "none" else ())


def class_axis(logits):
    return 0 if logits.ndim == 1 else 1


def in_torch(function, input, target, options):
    tensors = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in options.items()
    }
    return function(input, torch.from_numpy(np.asarray(target)), **tensors)


def close(ours, theirs):
    ours, theirs = np.asarray(ours), theirs.detach().numpy()
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    atol = 1e-14 * max(1, np.abs(theirs).max(initial=0))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


def has_no_mean(target, options):
    """Whether the mean divides by 0: no target counts, or those that do have weights of 0."""
    if options["reduction"] != "mean" or target.dtype.kind == "f":
        return False
    counted = target[target != options.get("ignore_index", -100)]
    return not counted.size or ("weight" in options and not options["weight"][counted].any())


@pytest.mark.parametrize("seed", range(N_SETS))
def test_loss_and_gradient_equal_those_of_pytorch(seed):
    logits, target, options, grad_output = random_set(seed)
    x = torch.from_numpy(logits).requires_grad_()
    theirs = in_torch(torch.nn.functional.cross_entropy, x, target, options)
    theirs.backward(torch.from_numpy(np.asarray(grad_output)))
    loss, grad = csoftmax.cross_entropy_with_grad(
        logits, target, axis=class_axis(logits), grad_output=grad_output, **options
    )
    if has_no_mean(target, options):
        assert theirs.isnan()
        assert not np.isfinite(loss)
        return
    close(loss, theirs)
    close(functional.cross_entropy(logits, target, **options), theirs)
    close(grad, x.grad)
    if target.dtype.kind == "i" and "label_smoothing" not in options:
        log_p = functional.log_softmax(logits, class_axis(logits))
        theirs = in_torch(torch.nn.functional.nll_loss, torch.from_numpy(log_p), target, options)
        close(functional.nll_loss(log_p, target, **options), theirs)
