"""A call whose targets another thread rewrites: a wrong number is allowed, access outside the arrays is not."""

import sys
import threading

import numpy as np

import csoftmax  # noqa: F401

x, out = np.zeros((4000, 50)), np.full((4002, 50), 7.0)
target, stop, weight = np.zeros(4000, np.int64), threading.Event(), np.ones(50)
call = compile(sys.argv[1], "call", "eval")


def rewrite():
    while not stop.is_set():
        target[:] = 2**62
        target[:] = -(2**62)
        target[:] = 0


thread = threading.Thread(target=rewrite)
thread.start()
done = refused = 0
for _ in range(200):
    try:
        eval(call)
        done += 1
    except IndexError:
        refused += 1
stop.set()
thread.join()
assert (out[0] == 7).all()
assert (out[-1] == 7).all()
assert done + refused == 200
