"""Handlers that raise at any moment of a call leave the floating-point state as the caller had set it."""

import os
import platform
import signal
import sys

import children
import numpy as np
import pytest

import csoftmax
from csoftmax import _batch

needs_timer = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="needs a timer that sends signals"
)
# Each round is a call, or several, that a handler's exception ends after a random time. Odd settings are the caller's:
# another rounding mode, subnormals flushed, NumPy's errors raised.
STORM = """if True:
    import ctypes, random, signal, sys
    sys.path.insert(0, {folder!r})
    import numpy as np
    import csoftmax
    from test_state import FLUSH_TO_ZERO, DENORMALS_ARE_ZERO, ROUNDINGS, Environment

    class Alarm(Exception):
        pass

    def handler(*_):
        raise Alarm

    libm, own, odd, after = ctypes.CDLL("libm.so.6"), Environment(), Environment(), Environment()
    libm.fegetenv(ctypes.byref(own))
    libm.fegetenv(ctypes.byref(odd))
    odd.mxcsr |= ROUNDINGS["up"] << 3 | FLUSH_TO_ZERO | DENORMALS_ARE_ZERO
    states = 0xFFC0  # of MXCSR: what is no flag of past exceptions
    x, target = [[1.0, 2.0, 3.0], [1.0, 0.0, 2.0]], [0, 1]  # lists: checked and converted in Python
    half = np.ones((2, 3), np.float16)
    call = lambda: {call}
    call()
    signal.signal(signal.SIGALRM, handler)
    rounds = changed = errors_changed = calls = 0
    with np.errstate(over="raise", invalid="call"):
        expected = np.geterr()
        while rounds < {rounds}:
            try:
                libm.fesetenv(ctypes.byref(odd))
                signal.setitimer(signal.ITIMER_REAL, random.randint(10, 200) / 1e6)
                while True:
                    call()
                    calls += 1
            except Alarm:
                pass
            libm.fegetenv(ctypes.byref(after))
            libm.fesetenv(ctypes.byref(own))
            rounds += 1
            changed += (after.mxcsr ^ odd.mxcsr) & states != 0
            if np.geterr() != expected:
                errors_changed += 1
                np.seterr(**expected)
    print(rounds, changed, errors_changed, calls > rounds / 4)
"""


@needs_timer
@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="MXCSR is that of x86-64"
)
@pytest.mark.parametrize(
    "call",
    [
        "csoftmax.softmax(x)",
        "csoftmax.cross_entropy_with_grad(x, target, weight=[1, 2, 3], label_smoothing=0.1)",
        "csoftmax.special.logsumexp(x, b=[1, 1, 2], return_sign=True)",
        "csoftmax.log_softmax_backward(half, half)",
        "csoftmax.functional.nll_loss(np.array(x), np.array(target))",
        "csoftmax.functional.softmax(np.array(x), 1, dtype=np.float16)",
    ],
)
def test_an_exception_of_a_handler_leaves_the_floating_point_state_as_it_was(call):
    folder = os.path.dirname(__file__)
    program = STORM.format(folder=folder, call=call, rounds=4000)
    assert children.run_well("-c", program) == "4000 0 0 True\n"


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
