"""The batch functions of csoftmax.h, whose targets another thread rewrites for two seconds."""

import threading
import time

import numpy as np

from support import c_calls

rng = np.random.default_rng(2)
x = rng.normal(0, 5, (4000, 30)).astype(np.float32)
good = rng.integers(0, 30, 4000)
wild = rng.integers(-(2**63), 2**63 - 1, 4000)
target, stop = good.copy(), threading.Event()
loss, grad = np.empty(4000, np.float32), np.empty_like(x)


def rewrite():
    while not stop.is_set():
        target[:] = wild
        target[:] = good


thread = threading.Thread(target=rewrite)
thread.start()
statuses, end = set(), time.monotonic() + 2
while time.monotonic() < end:
    statuses.add(c_calls.cross_entropy(x, target, loss, grad=grad))
    statuses.add(c_calls.log_prob(x, target, loss))
stop.set()
thread.join()
assert statuses <= {0, 1}, statuses
print("done")
