"""A program: calls on a thread whose stack is painted, and what each has needed of it. test_stack.py runs it.

painted.c is loaded before everything else, and paints. Each call is named before it is made, so that the last line
names the one that crashed; the end tells how much stack the calls of each name needed at most.
"""

import ctypes
import gc
import itertools
import json
import os
import sys

import numpy as np

import csoftmax
from support import c_calls, guarded, layouts
from support.cases import logits_of

# Around lanes, transposed rows, blocks and chunks; every length up to two chunks is for the rows of csoftmax.h.
LENGTHS = {
    1,
    2,
    3,
    4,
    7,
    8,
    9,
    10,
    15,
    16,
    17,
    24,
    33,
    48,
    63,
    64,
    65,
    96,
    97,
    130,
    2047,
    2048,
    2049,
    4097,
}
ROWS = {1, 5, 17, 257}
MOST_ELEMENTS = 140_000
LONG_ROW = ("end", 1, 5000, 1, False)
# Few rows and one; rows as lanes and classes as lanes; many chunks; the last two are worth two threads.
SHAPES = [(1, 1), (9, 10), (300, 10), (40, 65), (17, 300), (3, 5000), (600, 300), (2, 70_000)]


class Painted:
    """The thread, and the OpenMP runtime's."""

    def __init__(self, library):
        self.library = ctypes.CDLL(library)
        for name in ("stack_of", "stack_of_worker", "stack_at_mark"):
            getattr(self.library, name).restype = ctypes.c_ssize_t
        self.library.need.argtypes = (ctypes.c_ssize_t,)
        for _ in range(2):  # the first call loads what is loaded once
            self.of_python = self.stack_of(lambda: None)
            self.stack_of(lambda: self.library.mark())
            self.of_ctypes = self.library.stack_at_mark()

    def stack_of(self, call):
        """Bytes that a call of Python needs, those to get there included."""
        raised = []

        def call_now():
            try:
                call()
            except BaseException as error:
                raised.append(error)

        used = self.library.stack_of(ctypes.CFUNCTYPE(None)(call_now))
        if raised:
            raise raised[0]
        assert used > 0, "no memory for a stack"
        return used

    def stacks_of_workers(self):
        return [self.library.stack_of_worker(i) for i in range(self.library.count_workers())]


# ---- Calls: (name, where, call, whether a C function's). Names begin with that of the function ----


def guarded_calls(group, dtype):
    """Those of test_guard_pages.py: at both ends of a page, or a byte off, in place and not, special values too."""
    chosen = list(guarded.layouts(group))
    if group == "c_rows":
        chosen.append(LONG_ROW)
    elif group not in guarded.SHAPES:
        chosen = [each for each in chosen if each[1] in ROWS and each[2] in LENGTHS]
        chosen = [each for each in chosen if each[1] * each[2] <= MOST_ELEMENTS]
    arrays = guarded.Arrays(dtype, max(each[1] * each[2] for each in chosen))
    for layout in chosen:
        arrays.lay_out(*layout)
        for name, call in guarded.calls_of(group, arrays):
            family, name = name.split(": ")
            yield name, layout, call, family.startswith("c_")
            if " in place" in name or " over " in name:
                arrays.fill()


def c_layouts(dtype):
    """The C functions on every layout: strides of any sign and size, elements that are not aligned."""
    rng = np.random.default_rng(20261130)
    for shape, n_threads in itertools.product(SHAPES, (1, 2)):
        logits = logits_of(rng, shape, dtype)
        for width, (layout, laid_out) in itertools.product((4, 8), layouts.OF_ROWS.items()):
            x = laid_out(logits)
            target = rng.integers(0, shape[1], shape[0], f"i{width}")
            target[1::3] = -100
            where = (*shape, layout, f"int{8 * width}", n_threads)

            def batches(x=x, target=target, n_threads=n_threads, out=laid_out):
                c_calls.all_of_batch(x, target, n_threads=n_threads, out=out)

            yield "batches", where, batches, True
        yield "rows", shape, lambda x=logits: c_calls.all_of_rows(x, [len(x[0]) - 1] * len(x)), True
        for piece in (1, 100, 2048):
            x = logits[-1][: 100 * piece]

            def states(x=x, piece=piece):
                state = c_calls.state_of(x, piece)
                c_calls.merge(state, c_calls.state_of(x, piece), x.dtype)
                c_calls.finish_grad(state, x)
                c_calls.finish(state, x.dtype), c_calls.finish_loss(state, x[0], x.dtype)

            yield "states", (x.size, piece), states, True


def arrays_of_numpy(dtype):
    """(layout, x, axis) of whatever the Python functions take."""
    rng = np.random.default_rng(20261130)
    for shape in SHAPES:
        logits = logits_of(rng, shape, dtype)
        for layout, laid_out in layouts.OF_ROWS.items():
            yield f"{layout} {shape}", laid_out(logits), 1
        yield f"big-endian {shape}", logits.astype(logits.dtype.newbyteorder()), 1
        yield f"float16 {shape}", logits.astype(np.float16), 1
        yield f"int64 {shape}", logits.astype(np.int64), 1
        yield f"one row for all {shape}", np.broadcast_to(logits[0], shape), 1
    many = rng.normal(size=(2, 3, 1, 2) * 4).astype(dtype)
    yield "16 dimensions", many.transpose(rng.permutation(16)), 5
    yield "class axis in the middle", many.reshape(16, 81, 16), 1
    yield "a list", many[0, 0, 0].reshape(-1, 9)[:9].tolist(), -1


def public_layouts(dtype):
    """The Python functions with every option on every layout."""
    for where, x, axis in arrays_of_numpy(dtype):
        for name, call in public_calls(x, axis).items():
            yield name, where, call, False


def public_calls(x, axis):
    rng = np.random.default_rng(20261130)
    shape = np.shape(x)
    axis %= len(shape)
    n, rows = shape[axis], shape[:axis] + shape[axis + 1 :]
    y, several = rng.integers(0, n, rows), rng.integers(0, n, (*rows, 3))
    q = rng.uniform(0.1, 2, shape).astype(np.float32 if np.asarray(x).itemsize < 8 else np.float64)
    w, s = rng.uniform(0.1, 2, n), rng.uniform(0.1, 2, rows)
    given = {"axis": axis, "n_threads": 2}
    warm = {"temperature": 1.7, **given}
    weights = {"weight": w, "sample_weight": s, **given}
    all_options = {"label_smoothing": 0.1, "temperature": 1.7, "reduction": "none", **weights}
    loss, both = csoftmax.cross_entropy, csoftmax.cross_entropy_with_grad

    def refused():
        bad = y.copy()
        bad[...] = n
        try:
            loss(x, bad, **given)
        except IndexError:
            return
        raise AssertionError

    return {
        "softmax": lambda: csoftmax.softmax(x, **given),
        "softmax, warm": lambda: csoftmax.softmax(x, **warm),
        "log_softmax": lambda: csoftmax.log_softmax(x, **given),
        "log_softmax, warm": lambda: csoftmax.log_softmax(x, **warm),
        "logsumexp": lambda: csoftmax.logsumexp(x, keepdims=True, **given),
        "logsumexp, warm": lambda: csoftmax.logsumexp(x, **warm),
        "log_prob": lambda: csoftmax.log_prob(x, y, **given),
        "log_prob, several": lambda: csoftmax.log_prob(x, several, **warm),
        "cross_entropy": lambda: loss(x, y, **given),
        "cross_entropy, weights": lambda: loss(x, y, **weights),
        "cross_entropy, probabilities": lambda: loss(x, q, **weights),
        "cross_entropy, all": lambda: loss(x, y, ignore_index=0, **all_options),
        "cross_entropy, a bad target": refused,
        "cross_entropy_with_grad": lambda: both(x, y, **given),
        "cross_entropy_with_grad, probabilities": lambda: both(x, q, **given),
        "cross_entropy_with_grad, weights": lambda: both(x, y, grad_output=2, **weights),
        "cross_entropy_with_grad, all": lambda: both(x, y, grad_output=s, **all_options),
        "cross_entropy_with_grad, all probabilities": lambda: both(x, q, **all_options),
        "softmax_backward": lambda: csoftmax.softmax_backward(q, x, **given),
        "log_softmax_backward": lambda: csoftmax.log_softmax_backward(q, x, **given),
    }


def namespaces(dtype):
    """csoftmax.special and csoftmax.functional."""
    rng = np.random.default_rng(20261130)
    for shape in [(9, 10), (3, 5000), (600, 300), (7, 33, 9)]:
        x = logits_of(rng, shape, dtype)
        for name, call in namespace_calls(x, rng).items():
            yield name, shape, call, False


def namespace_calls(x, rng):
    n = x.shape[1]
    y, w = rng.integers(0, n, x.shape[:1] + x.shape[2:]), rng.uniform(0.1, 2, n).astype(x.dtype)
    q, signs = rng.uniform(0.1, 2, x.shape).astype(x.dtype), rng.normal(size=x.shape[-1])
    special, functional = csoftmax.special, csoftmax.functional
    options = {"weight": w, "label_smoothing": 0.1}
    return {
        "special.softmax": lambda: special.softmax(x),
        "special.softmax, axes": lambda: special.softmax(x, axis=(0, 1)),
        "special.log_softmax": lambda: special.log_softmax(x, axis=0),
        "special.logsumexp": lambda: special.logsumexp(x),
        "special.logsumexp, signs": lambda: special.logsumexp(x, 1, signs, return_sign=True),
        "functional.softmax": lambda: functional.softmax(x, 0),
        "functional.log_softmax": lambda: functional.log_softmax(x, 1),
        "functional.logsumexp": lambda: functional.logsumexp(x, (0, 1)),
        "functional.cross_entropy": lambda: functional.cross_entropy(x, y, **options),
        "functional.cross_entropy, probabilities": lambda: functional.cross_entropy(x, q),
        "functional.nll_loss": lambda: functional.nll_loss(x, y, weight=w),
    }


GROUPS = {
    **{name: None for name in (*guarded.FAMILIES, *guarded.SHAPES)},
    "c_layouts": c_layouts,
    "public_layouts": public_layouts,
    "namespaces": namespaces,
}


# ---- What they need ----


def run(library, group, dtype):
    """Print {name: [bytes of the caller's stack, where, bytes of a worker's]}, the most of each."""
    gc.disable()  # it may destroy what lies deep, and is not the call's
    painted = Painted(library)
    most = {}
    found = GROUPS[group](dtype) if GROUPS[group] else guarded_calls(group, dtype)
    for name, where, call, is_c in found:
        os.write(1, f"{dtype} {name} {where}\n".encode())
        used = painted.stack_of(call) - (painted.of_ctypes if is_c else painted.of_python)
        by_worker = max(painted.stacks_of_workers(), default=0)
        before = most.get(name, (0, "", 0))
        most[name] = (*max(before[:2], (used, str(where))), max(before[2], by_worker))
    print(json.dumps(most))


if __name__ == "__main__":
    run(*sys.argv[1:])
