"""What is read where it lies: float32 and float64 of the machine's byte order, in any layout."""

import tracemalloc

import numpy as np
import pytest

import csoftmax
from csoftmax import functional, special
from support import layouts
from support.bits import same_bits
from support.cases import logits_of

SHAPE = (1000, 600)

LAYOUTS = {
    "C": lambda x: x,
    "Fortran": layouts.fortran,
    "reversed": layouts.backwards,
    "strided": layouts.strided,
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "misaligned": layouts.misaligned,
}
# Each of x and targets along its last axis; what they write of x's size is out.
FUNCTIONS = {
    "softmax": lambda x, y, out: csoftmax.softmax(x, out=out),
    "log_softmax": lambda x, y, out: csoftmax.log_softmax(x, temperature=2.0, out=out),
    "logsumexp": lambda x, y, out: csoftmax.logsumexp(x),
    "cross_entropy": lambda x, y, out: csoftmax.cross_entropy(x, y, label_smoothing=0.1),
    "cross_entropy, probabilities": lambda x, y, out: csoftmax.cross_entropy(x, x),
    "cross_entropy_with_grad": lambda x, y, out: csoftmax.cross_entropy_with_grad(x, y, out=out),
    "log_prob": lambda x, y, out: csoftmax.log_prob(x, y),
    "softmax_backward": lambda x, y, out: csoftmax.softmax_backward(x, x, out=out),
    "log_softmax_backward": lambda x, y, out: csoftmax.log_softmax_backward(x, x, out=out),
    "special.logsumexp": lambda x, y, out: special.logsumexp(x, 1),
    "special.logsumexp, b": lambda x, y, out: special.logsumexp(x, 1, b=2.0),
    "functional.logsumexp": lambda x, y, out: functional.logsumexp(x, 1),
    "functional.cross_entropy": lambda x, y, out: functional.cross_entropy(x, y),
    "functional.nll_loss": lambda x, y, out: functional.nll_loss(x, y),
}


def allocated(call):
    """The largest number of bytes that NumPy held at once for a call."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_of_the_inputs_size_is_allocated_whatever_the_layout(rng, dtype, name, layout):
    x = LAYOUTS[layout](logits_of(rng, SHAPE, dtype))
    y, out = np.arange(len(x)) % x.shape[1], np.empty(x.shape, dtype)
    assert allocated(lambda: FUNCTIONS[name](x, y, out)) < x.size * x.itemsize / 10


@pytest.mark.parametrize("function", [special.softmax, special.log_softmax, special.logsumexp])
def test_neighbouring_axes_of_a_c_contiguous_array_are_read_where_they_lie(rng, function):
    x = logits_of(rng, (40, 50, 60), np.float32)
    n_results = 0 if function is special.logsumexp else 1
    for axis in (None, (0, 1), (1, 2), (2, 1), 0, 1):
        assert allocated(lambda axis=axis: function(x, axis)) < (n_results + 0.1) * x.nbytes


@pytest.mark.parametrize("least", [0.0, 1e-38])  # which could be too small for the kernels
@pytest.mark.parametrize("layout", ["C", "Fortran", "strided"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_gradient_with_probabilities_takes_the_logits_place_without_a_copy(
    rng, dtype, layout, least
):
    x = LAYOUTS[layout](logits_of(rng, SHAPE, dtype))
    q = csoftmax.softmax(logits_of(rng, SHAPE, dtype))
    q[::7, 3] = least
    loss, grad = csoftmax.cross_entropy_with_grad(x, q)
    results = []
    peak = allocated(lambda: results.extend(csoftmax.cross_entropy_with_grad(x, q, out=x)))
    assert peak < x.size * x.itemsize / 10
    assert results[1] is x
    assert same_bits(results[0], loss)
    assert same_bits(x, grad)
