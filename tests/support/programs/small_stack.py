"""Every function on a thread of 64 KB; each call is named before it is made."""

import itertools
import os
import threading

import numpy as np

from support import painted


def make_calls(calls):
    for name, call in calls:
        os.write(1, f"{name}\n".encode())
        call()
    print("done")


rng = np.random.default_rng(20261130)
calls = []
for shape, dtype in itertools.product([(9, 10), (1, 1), (40, 65), (3, 5000)], ("f4", "f8")):
    x = rng.normal(size=shape).astype(dtype)
    calls += painted.public_calls(x, 1).items()
    calls += painted.public_calls(x.T, 0).items()
    calls += painted.namespace_calls(x, rng).items()
threading.stack_size(64 << 10)
thread = threading.Thread(target=make_calls, args=(calls,))
thread.start()
thread.join()
