"""Handlers that raise at any moment of a call leave the floating-point state as the caller had set it."""

import signal

import numpy as np
import pytest

import csoftmax
from csoftmax import _batch
from support import children
from support.floating_point import x86_64_linux

needs_timer = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="needs a timer that sends signals"
)


@needs_timer
@x86_64_linux
@pytest.mark.parametrize(
    "call",
    [
        "csoftmax.softmax(x)",
        "csoftmax.cross_entropy_with_grad(x, target, weight=[1, 2, 3], label_smoothing=0.1)",
        "csoftmax.special.logsumexp(x, b=[1, 1, 2], return_sign=True)",
        "csoftmax.log_softmax_backward(half.tolist(), half)",
        "csoftmax.functional.nll_loss(np.array(x), np.array(target))",
        "csoftmax.functional.softmax(np.array(x), 1, dtype=np.float16)",
    ],
)
def test_an_exception_of_a_handler_leaves_the_floating_point_state_as_it_was(call):
    assert children.run_well(children.program("storm"), call, 4000) == "4000 0 0 True\n"


def test_an_error_leaves_the_floating_point_state_and_numpys_as_they_were():
    def fail():
        np.seterr(all="ignore")
        raise KeyError("a")

    with np.errstate(all="raise"):
        before = np.geterr()
        with pytest.raises(KeyError, match="a"):
            _batch.in_default_state(fail, (), {})
        with pytest.raises(TypeError):
            csoftmax.softmax(["a", "b"])
        assert np.geterr() == before
    assert _batch.in_default_state(divmod, (7, 2), {}) == (3, 1)
    assert _batch.in_default_state(dict, (), {"a": 1}) == {"a": 1}
