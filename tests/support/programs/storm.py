"""Calls that a handler's exception ends after a random time: python storm.py CALL ROUNDS.

Odd settings are the caller's: another rounding mode, subnormals flushed, NumPy's errors raised. Prints how many rounds
there were, how many changed the registers and NumPy's settings, and whether enough calls came to their end.
"""

import random
import signal
import sys
import time

import numpy as np

import csoftmax  # noqa: F401
from support.floating_point import FLUSHING, ROUNDINGS, Environment


class Alarm(Exception):  # noqa: N818
    pass


def handler(*_):
    raise Alarm


own, odd = Environment.now(), Environment.now()
odd.mxcsr |= ROUNDINGS["up"] << 3 | FLUSHING
STATES = 0xFFC0  # of MXCSR: what is no flag of past exceptions
x, target = [[1.0, 2.0, 3.0], [1.0, 0.0, 2.0]], [0, 1]  # lists: checked and converted in Python
half = np.ones((2, 3), np.float16)
call, most = eval(f"lambda: {sys.argv[1]}"), int(sys.argv[2])
call()
start = time.perf_counter()
for _ in range(100):
    call()
seconds = (time.perf_counter() - start) / 100  # of a call, by which the times are measured
signal.signal(signal.SIGALRM, handler)
rounds = changed = errors_changed = calls = 0
with np.errstate(over="raise", invalid="call"):
    expected = np.geterr()
    while rounds < most:
        try:
            odd.set()
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.2, 4) * seconds)
            while True:
                call()
                calls += 1
        except Alarm:
            pass
        after = Environment.now()
        own.set()
        rounds += 1
        changed += (after.mxcsr ^ odd.mxcsr) & STATES != 0
        if np.geterr() != expected:
            errors_changed += 1
            np.seterr(**expected)
print(rounds, changed, errors_changed, calls > rounds / 4)
