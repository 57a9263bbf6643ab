"""A call of minutes over 4e10 logits in no memory, to be interrupted: python long_call.py ROWS CLASSES THREADS."""

import signal
import sys

import numpy as np

import csoftmax

*shape, n_threads = map(int, sys.argv[1:])
signal.signal(signal.SIGINT, signal.default_int_handler)
x = np.broadcast_to(np.zeros(1, np.float32), shape)
print("ready", flush=True)
try:
    csoftmax.logsumexp(x, n_threads=n_threads)
    print("finished", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
got = csoftmax.softmax(np.zeros((400, 500)), n_threads=2)
assert (got == np.float64(1 / 500)).all()
print("usable", flush=True)
