"""Row functions, states and batches of csoftmax.h on arrays that end or begin at a guarded page."""

import itertools
import sys

import numpy as np

from support import c_calls
from support.c_calls import function
from support.guarded import Room
from support.header import State

dtype = np.dtype(sys.argv[1])
rooms = [Room(5000 * dtype.itemsize) for _ in range(2)]
rng = np.random.default_rng(1)


def of_rows(x, out):
    at, n, n_out = x.ctypes.data, len(x), out.ctypes.data
    function("softmax_row", dtype)(at, n, n_out)
    function("log_softmax_row", dtype)(at, n, n_out)
    function("logsumexp_row", dtype)(at, n)
    for target in (0, n - 1):
        function("cross_entropy_row", dtype)(at, n, target)
        function("log_prob_row", dtype)(at, n, target)
        function("cross_entropy_with_grad_row", dtype)(at, n, target, 1.0, n_out)
    state = c_calls.partial(State(), x)
    c_calls.finish_grad(state, x, 0, n - 1, out=out)
    c_calls.finish_grad(state, x, out=out)


def of_batches(x, out, place):
    n = len(x)
    for shape in ((1, n), (n, 1), (n // 2, 2), (2, n // 2), (n // 17, 17), (17, n // 17)):
        size = shape[0] * shape[1]
        part = slice(n - size, n) if place == "end" else slice(size)
        a, b = x[part].reshape(shape), out[part].reshape(shape)
        for rows, results in ((a, b), (a.T, b.T)):
            last = np.full(len(rows), rows.shape[1] - 1, np.int32)
            c_calls.write("softmax", rows, results)
            c_calls.write("log_softmax", rows[::-1, ::-1], results[::-1, ::-1])
            c_calls.cross_entropy(rows, last, grad=results)


for n in (*range(1, 131), 1000, 2047, 2048, 2049, 2050, 2111, 4097):
    for place, in_place in itertools.product(("end", "start"), (False, True)):
        x, out = [room.array(place, n, dtype) for room in rooms]
        x[:] = rng.normal(0, 5, n)
        out = x if in_place else out
        of_rows(x, out)
        of_batches(x, out, place)
        if not in_place:
            c_calls.logsumexp(x.reshape(n, 1), out)
print("done")
