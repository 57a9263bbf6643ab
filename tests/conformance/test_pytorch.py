"""cross_entropy, its gradient and nll_loss beside PyTorch's, on a thousand random sets of options in float64.

The law: a distance of at most 1e-14 times the larger of 1 and the largest magnitude in PyTorch's result. A result
is a sum of at most a thousand terms of one sign, each with an error of a few units of 1.1e-16 of itself or of 1.

Left out by rule, as PyTorch's is NaN by 0 / 0 or 0 * inf: means over targets whose weights sum to 0, and infinite
logits.
"""

import numpy as np
import pytest
from option_sets import N_SETS, class_axis, random_set

import csoftmax
from csoftmax import functional

torch = pytest.importorskip("torch", reason="PyTorch is an optional peer")


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
