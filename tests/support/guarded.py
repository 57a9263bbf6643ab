"""A program: calls whose arrays lie flush against pages that cannot be touched. test_guard_pages.py runs it.

Each call is named before it is made, so that the last line names the one that crashed; the end counts them.
"""

import ctypes
import itertools
import json
import mmap
import os
import sys
from collections import Counter
from functools import partial

import numpy as np

import csoftmax
from csoftmax import _batch
from support import c_calls
from support.c_calls import address
from support.header import C

# Every number of lanes, blocks and halves of blocks, then around one and two chunks.
LENGTHS = [*range(1, 131), 2047, 2048, 2049, 4095, 4096, 4097]
ROWS = [1, 2, 5, 9, 17, 40, 257]
FEW_ROWS = [5, 17]
# (rows, classes) for which threads share out tiles or the chunks of a row, or whose classes are 4096 bytes apart.
LARGE = [(1, 70_001), (3, 33_000), (1024, 65)]
# More than stays in the cache, in either dtype: 16 MB of columns or of rows of several chunks, 56 of other rows.
STREAMED = [(135_301, 31), (600, 7001), (14_700, 1000)]
FLUSH = ["end", "start"]
MISALIGNED = ["a byte before the end", "a byte behind the start"]
GUARD = 64 * mmap.PAGESIZE


def dtype_of(name):
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


class Room:
    """Memory between pages of which a read or write ends the process."""

    def __init__(self, size):
        self.size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self.memory = mmap.mmap(-1, self.size + 2 * GUARD)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        for guard in (0, GUARD + self.size):
            start, length = ctypes.c_void_p(self.address + guard), ctypes.c_size_t(GUARD)
            if ctypes.CDLL(None, use_errno=True).mprotect(start, length, 0):  # PROT_NONE
                raise OSError(ctypes.get_errno(), "mprotect")

    def offset(self, place, size):
        """Where so many bytes begin that lie at this place of the room."""
        apart = 1 if place.startswith("a byte") else 0
        return GUARD + (self.size - size - apart if place.endswith("end") else apart)

    def array(self, place, shape, dtype, values=None):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        array = np.ndarray(shape, dtype, self.memory, self.offset(place, size))
        if values is not None:
            array.reshape(-1)[...] = values[: array.size]
        return array


class Arrays:
    """Everything that a call may be given, each array in a room of its own."""

    def __init__(self, dtype, most):
        rng = np.random.default_rng(20261124)
        self.dtype, self.c = dtype_of(dtype), c_functions(dtype)
        self.of_rows = c_calls.of_rows(self.dtype)
        self.logits = (3 * rng.standard_normal(most)).astype(self.dtype)
        self.positive = rng.uniform(0.1, 2, most)
        self.classes = rng.integers(0, 1 << 30, most)
        self.rooms, self.room_size = {}, 8 * most

    def lay_out(self, place, n_rows, n_classes, axis, special):
        def new(name, shape, dtype, values=None, place=place):
            if name not in self.rooms:
                self.rooms[name] = Room(self.room_size)
            setattr(self, name, self.rooms[name].array(place, shape, dtype, values))

        shape = (n_rows, n_classes) if axis else (n_classes, n_rows)
        self.n_rows, self.n_classes, self.axis, self.special = n_rows, n_classes, axis, special
        for name in ("x", "out", "other"):
            new(name, shape, self.dtype)
        classes = self.classes[: 3 * n_rows] % n_classes
        new("target", (n_rows,), np.int64, classes)
        new("narrow", (n_rows,), np.int32, classes)
        new("index", (n_rows,), np.int64, classes)
        new("several", (n_rows, 3), np.int64, classes)
        new("weight", (n_classes,), np.float64, self.positive)
        new("sample_weight", (n_rows,), np.float64, self.positive)
        new("grad_output", (n_rows,), np.float64, self.positive)
        flush = place.split()[-1]  # results of rows and states must be aligned
        for name in ("loss", "sums"):
            new(name, (n_rows,), self.of_rows, place=flush)
        new("total", (n_rows,), np.float64)
        new("picked", (n_rows, 3), self.of_rows)
        new("state", (4,), np.float64, place=flush)
        new("piece", (4,), np.float64, self.positive, place=flush)
        if special:
            self.target[1::4] = self.narrow[1::4] = -100
        self.fill()

    def fill(self):
        """Make x and other what they were before a call wrote over them."""
        self.x.reshape(-1)[...] = self.logits[: self.x.size]
        self.other.reshape(-1)[...] = self.positive[: self.x.size]
        if self.special:  # rows that are not finite beside some that are
            rows = self.x if self.axis else self.x.T
            rows[0::5, -1], rows[1::5, 0], rows[2::5] = np.nan, np.inf, -np.inf
            rows[4::5, self.n_classes // 2] = -np.inf


# ---- The calls by name. Those with "in place" or "over" in it write to what they read ----


def public(a, n_threads):
    """Every public function; what it allocates itself lies elsewhere."""
    given = {"axis": a.axis, "n_threads": n_threads}
    warm = {"temperature": 1.7, **given}
    weights = {"weight": a.weight, "sample_weight": a.sample_weight, "reduction": "none", **given}
    losses = {"grad_output": a.grad_output, **weights}
    smooth = {"weight": a.weight, "label_smoothing": 0.1, **given}
    loss, both = csoftmax.cross_entropy, csoftmax.cross_entropy_with_grad
    softmax, log_softmax = csoftmax.softmax, csoftmax.log_softmax
    back, log_back = csoftmax.softmax_backward, csoftmax.log_softmax_backward
    x, out, q, y = a.x, a.out, a.other, a.target
    return {
        "softmax": lambda: softmax(x, out=out, **given),
        "softmax, warm": lambda: softmax(x, out=out, **warm),
        "softmax in place": lambda: softmax(x, out=x, **given),
        "log_softmax": lambda: log_softmax(x, out=out, **given),
        "log_softmax, warm": lambda: log_softmax(x, out=out, **warm),
        "log_softmax in place": lambda: log_softmax(x, out=x, **given),
        "logsumexp": lambda: csoftmax.logsumexp(x, **given),
        "logsumexp, warm": lambda: csoftmax.logsumexp(x, out=a.loss, **warm),
        "log_prob": lambda: csoftmax.log_prob(x, a.index, **given),
        "log_prob, several": lambda: csoftmax.log_prob(x, a.several, **given),
        "cross_entropy": lambda: loss(x, y, **given),
        "cross_entropy, weights": lambda: loss(x, y, **weights),
        "cross_entropy, smooth": lambda: loss(x, y, **smooth),
        "cross_entropy, probabilities": lambda: loss(x, q, **given),
        "cross_entropy, all": lambda: loss(x, q, label_smoothing=0.1, **weights),
        "gradient": lambda: both(x, y, out=out, **given),
        "gradient, weights": lambda: both(x, y, out=out, **losses),
        "gradient, smooth": lambda: both(x, y, out=out, **smooth),
        "gradient, probabilities": lambda: both(x, q, out=out, **given),
        "gradient, all": lambda: both(x, q, out=out, label_smoothing=0.1, **losses),
        "gradient in place": lambda: both(x, y, out=x, **given),
        "gradient in place, weights": lambda: both(x, y, out=x, **losses),
        "gradient in place, smooth": lambda: both(x, y, out=x, **smooth),
        "gradient in place, all": lambda: both(x, q, out=x, label_smoothing=0.1, **losses),
        "softmax_backward": lambda: back(q, x, out=out, **given),
        "softmax_backward over grad": lambda: back(q, x, out=q, **given),
        "softmax_backward over output": lambda: back(q, x, out=x, **given),
        "log_softmax_backward": lambda: log_back(q, x, out=out, **given),
        "log_softmax_backward over grad": lambda: log_back(q, x, out=q, **given),
        "log_softmax_backward over output": lambda: log_back(q, x, out=x, **given),
    }


def drivers(a, n_threads):
    """What the public functions call: these are handed the results of rows that those allocate."""
    loss, x, y, out, q, axis = _batch.cross_entropy, a.x, a.target, a.out, a.other, a.axis
    index = {"target": y, "ignore_index": -100}
    weights = {"weight": a.weight, "sample_weight": a.sample_weight, "grad_weight": a.grad_output}
    smooth = {"label_smoothing": 0.1, "temperature": 1.7, **weights}
    return {
        "logsumexp": lambda: _batch.logsumexp(x, axis, a.loss, 1.0, None, n_threads),
        "logsumexp, added": lambda: _batch.logsumexp(x, axis, a.loss, 1.7, q, n_threads),
        "log_prob": lambda: _batch.log_prob(x, axis, a.several, a.picked, 1.0, n_threads),
        "losses": lambda: loss(x, axis, a.loss, None, n_threads, **index),
        "losses in double": lambda: loss(x, axis, a.total, out, n_threads, **index),
        "losses, weights": lambda: loss(x, axis, a.loss, out, n_threads, **index, **weights),
        "losses, smooth": lambda: loss(x, axis, a.total, out, n_threads, **index, **smooth),
        "losses, all": lambda: loss(x, axis, a.loss, out, n_threads, probabilities=q, **smooth),
        "reduce_losses": lambda: _batch.reduce_losses(
            a.total, 1.0, 0.0, a.loss[-1:].reshape(()), 0, 0
        ),
        "scan_targets": lambda: _batch.scan_targets(y, a.n_classes, -100, 0),
        "total_weight": lambda: _batch.total_weight(y, -100, a.weight, a.sample_weight, 1),
    }


def c_functions(dtype):
    """The functions of csoftmax.h for a dtype, by their names without it; pointers are integers."""
    suffix = f"_{c_calls.SUFFIX[str(dtype)]}"
    of_floats = {f"{name}_f32" for name in ("merge", "finish", "finish_loss")}
    wanted = [name for name in C if name.endswith(suffix)]
    if suffix not in ("_f32", "_f64"):  # halves have none of their own
        wanted += of_floats
    return {name.rpartition("_")[0]: C[name] for name in wanted}


def c_rows(a, n_threads):
    """Single rows, and states of one piece; the target is the first class or the last, and there may be none."""
    c, n = a.c, a.x.size
    x, out, state, piece = map(address, (a.x, a.out, a.state, a.piece))
    at_target = float(a.x.reshape(-1)[-1])

    def filled():
        a.state[:] = -np.inf, 0, 0, -1  # CSOFTMAX_EMPTY
        c["partial"](state, x, n)
        return state

    return {
        "softmax_row": lambda: c["softmax_row"](x, n, out),
        "softmax_row in place": lambda: c["softmax_row"](x, n, x),
        "log_softmax_row": lambda: c["log_softmax_row"](x, n, out),
        "log_softmax_row in place": lambda: c["log_softmax_row"](x, n, x),
        "logsumexp_row": lambda: c["logsumexp_row"](x, n),
        "cross_entropy_row": lambda: c["cross_entropy_row"](x, n, n - 1),
        "cross_entropy_with_grad_row": lambda: c["cross_entropy_with_grad_row"](x, n, 0, 0.5, out),
        "cross_entropy_with_grad_row in place": lambda: c["cross_entropy_with_grad_row"](
            x, n, n - 1, 0.5, x
        ),
        "log_prob_row": lambda: c["log_prob_row"](x, n, n - 1),
        "partial": filled,
        "merge": lambda: c["merge"](filled(), piece),
        "finish": lambda: c["finish"](filled()),
        "finish_loss": lambda: c["finish_loss"](filled(), at_target),
        "finish_grad": lambda: c["finish_grad"](filled(), x, n, 7, n + 6, 0.5, out),
        "finish_grad, no target": lambda: c["finish_grad"](filled(), x, n, 7, -1, 1.0, out),
        "finish_grad, far": lambda: c["finish_grad"](filled(), x, n, -(2**63), 2**62, 1.0, out),
        "finish_grad in place": lambda: c["finish_grad"](filled(), x, n, 0, 0, 0.5, x),
    }


def c_batches(a, n_threads):
    """Batches as they lie, and from the last element back, which no kernel reads as it lies."""
    c, n_rows, n = a.c, a.n_rows, a.n_classes
    wide, narrow, loss, sums = map(address, (a.target, a.narrow, a.loss, a.sums))
    strides = (n, 1) if a.axis else (1, n_rows)

    def from_start(array):
        return address(array), strides

    def from_end(array):
        return address(array) + (array.size - 1) * array.itemsize, (-strides[0], -strides[1])

    def call(name, *arguments):
        status = c[name](*arguments)
        assert status == 0, status

    calls = {}
    for way in (from_start, from_end):
        x, steps = way(a.x)
        out, _ = way(a.out)
        given = (x, n_rows, n, *steps)
        to_out, to_x = (out, *steps, n_threads), (x, *steps, n_threads)
        grad, over = (out, *steps, 0.5, n_threads, None), (x, *steps, 0.5, n_threads, None)
        alone = (None, 0, 0, 1.0, n_threads, None)
        y, y32 = (wide, 8, -100), (narrow, 4, -100)
        one_way = {
            "softmax": ("softmax", *given, *to_out),
            "softmax in place": ("softmax", *given, *to_x),
            "log_softmax": ("log_softmax", *given, *to_out),
            "log_softmax in place": ("log_softmax", *given, *to_x),
            "logsumexp": ("logsumexp", *given, loss, n_threads),
            "log_prob": ("log_prob", *given, address(a.index), 8, loss, n_threads, None),
            "cross_entropy": ("cross_entropy", *given, *y, loss, sums, *grad),
            "cross_entropy of int32": ("cross_entropy", *given, *y32, loss, None, *grad),
            "cross_entropy without gradient": ("cross_entropy", *given, *y, loss, sums, *alone),
            "cross_entropy in place": ("cross_entropy", *given, *y32, loss, None, *over),
        }
        for name, arguments in one_way.items():
            calls[f"{name}, {way.__name__}"] = partial(call, *arguments)
    return calls


# ---- What is called with what ----


def layouts(group):
    """place, rows, classes, axis, whether some rows are special."""
    if group in SHAPES:
        for place, (n_rows, n_classes), axis in itertools.product(FLUSH, SHAPES[group], (1, 0)):
            yield place, n_rows, n_classes, axis, False
        return
    single = group == "c_rows"
    places = [(place, ROWS, False) for place in FLUSH]
    places += [(place, FEW_ROWS, True) for place in FLUSH]
    if group != "drivers":  # these are given aligned arrays
        places += [(place, FEW_ROWS, False) for place in MISALIGNED]
    for place, rows, special in places:
        shapes = itertools.product([1] if single else rows, LENGTHS, [1] if single else [1, 0])
        for n_rows, n_classes, axis in shapes:
            yield place, n_rows, n_classes, axis, special


FAMILIES = {"public": public, "drivers": drivers, "c_rows": c_rows, "c_batches": c_batches}
SHAPES = {"large": LARGE, "streamed": STREAMED}
WRITING = ["softmax", "log_softmax", "gradient", "gradient, all"]  # what is streamed


def calls_of(group, arrays):
    """Names and calls: of one family, or of all; each name starts with its family's."""
    n_threads = 2 if group in SHAPES else 1
    for family, calls in FAMILIES.items():
        if group in (family, "large") or (group, family) == ("streamed", "public"):
            for name, call in calls(arrays, n_threads).items():
                if group != "streamed" or name in WRITING:
                    yield f"{family}: {name}", call


def run(group, dtype):
    shapes = SHAPES.get(group, [(max(ROWS), max(LENGTHS))])
    arrays = Arrays(dtype, max(n_rows * n_classes for n_rows, n_classes in shapes))
    counts = Counter()
    for layout in layouts(group):
        arrays.lay_out(*layout)
        for name, call in calls_of(group, arrays):
            os.write(1, f"{dtype} {name} {layout}\n".encode())
            call()
            counts[name] += 1
            if " in place" in name or " over " in name:
                arrays.fill()
    print(json.dumps(counts))


if __name__ == "__main__":
    run(*sys.argv[1:])
