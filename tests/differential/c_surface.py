"""Random calls of the C functions, through ctypes: rows, rows in pieces, batches with any strides."""

import ctypes
import functools
import itertools
import re
from pathlib import Path

import draws
import judge
import numpy as np
from draws import Call
from judge import ResultError

import csoftmax
from support import layouts

POINTER, SIZE, INT = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
TARGET, DOUBLE = ctypes.c_int64, ctypes.c_double
# Arguments and result; "real" is float or double.
SIGNATURES = {
    "softmax_row": (None, POINTER, SIZE, POINTER),
    "log_softmax_row": (None, POINTER, SIZE, POINTER),
    "logsumexp_row": ("real", POINTER, SIZE),
    "cross_entropy_row": ("real", POINTER, SIZE, TARGET),
    "cross_entropy_with_grad_row": ("real", POINTER, SIZE, TARGET, DOUBLE, POINTER),
    "log_prob_row": ("real", POINTER, SIZE, TARGET),
    "partial": (None, POINTER, POINTER, SIZE),
    "merge": (None, POINTER, POINTER),
    "finish": ("real", POINTER),
    "finish_loss": ("real", POINTER, "real"),
    "finish_grad": (None, POINTER, POINTER, SIZE, SIZE, TARGET, DOUBLE, POINTER),
    "softmax": (INT, POINTER, SIZE, SIZE, SIZE, SIZE, POINTER, SIZE, SIZE, INT),
    "log_softmax": (INT, POINTER, SIZE, SIZE, SIZE, SIZE, POINTER, SIZE, SIZE, INT),
    "logsumexp": (INT, POINTER, SIZE, SIZE, SIZE, SIZE, POINTER, INT),
    "cross_entropy": (
        *(INT, POINTER, SIZE, SIZE, SIZE, SIZE, POINTER, INT, TARGET, POINTER, POINTER, POINTER),
        *(SIZE, SIZE, DOUBLE, INT, POINTER),
    ),
    "log_prob": (*(INT, POINTER, SIZE, SIZE, SIZE, SIZE, POINTER, INT, POINTER, INT, POINTER),),
}
# A caller's stack as the header's macro fills it: as many doubles as a state has.
EMPTY = [
    float(value.strip().replace("INFINITY", "inf").replace("NAN", "nan"))
    for value in re.search(
        r"#define CSOFTMAX_EMPTY \{(.*?)\}",
        (Path(csoftmax.get_include()) / "csoftmax.h").read_text(),
    )
    .group(1)
    .split(",")
]
assert len(EMPTY) in (3, 4)


@functools.cache
def function(name, dtype):
    real = {4: ctypes.c_float, 8: ctypes.c_double}[dtype.itemsize]
    types = [real if each == "real" else each for each in SIGNATURES[name]]
    return ctypes.CFUNCTYPE(*types)(csoftmax.address(f"{name}_f{8 * dtype.itemsize}"))


def state():
    return np.array(EMPTY)


def at(a):
    return a.ctypes.data


def anywhere(rng, x):
    """A row that begins at any byte."""
    return x if rng.random() < 0.7 else layouts.misaligned(x, int(rng.integers(0, 8)))


def draw_row(rng, name):
    dtype = np.dtype(rng.choice(["f4", "f8"]))
    n = max(1, draws.n_classes_of(rng))
    x = anywhere(rng, draws.logits_of(rng, (n,), 0, dtype))
    target = int(rng.integers(n))
    scale = 1.0 if rng.random() < 0.5 else float(draws.factors_of(rng, (), False))
    in_place = bool(rng.random() < 0.2)

    def call(x, target, scale, in_place):
        results = {}
        for each in ("logsumexp", "cross_entropy", "log_prob"):
            extra = () if each == "logsumexp" else (target,)
            results[each] = dtype.type(function(f"{each}_row", dtype)(at(x), n, *extra))
        for each in ("softmax", "log_softmax"):
            out = x.copy() if in_place else np.empty_like(x)
            function(f"{each}_row", dtype)(at(out if in_place else x), n, at(out))
            results[each] = out
        grad = x.copy() if in_place else np.empty_like(x)
        loss = function("cross_entropy_with_grad_row", dtype)(
            at(grad if in_place else x), n, target, scale, at(grad)
        )
        results["loss"], results["grad"] = dtype.type(loss), grad
        return results

    def check(copies, results):
        x, row = copies["x"], np.int64(target).reshape(())
        judge.softmax("softmax_row", x, 0, 1.0, results["softmax"], False)
        judge.softmax("log_softmax_row", x, 0, 1.0, results["log_softmax"], True)
        judge.logsumexp("logsumexp_row", x, 0, 1.0, results["logsumexp"], False)
        judge.log_prob("log_prob_row", x, row, 0, 1.0, results["log_prob"])
        options = {"reduction": "none", "ignore_index": None, "grad_output": np.float64(scale)}
        judge.cross_entropy("cross_entropy_row", x, row, options, results["cross_entropy"])
        judge.cross_entropy(
            "cross_entropy_with_grad_row", x, row, options, results["loss"], results["grad"], True
        )
        python = csoftmax.cross_entropy_with_grad(
            x, row, reduction="none", grad_output=scale, ignore_index=None
        )
        if 2.0**-40 <= abs(scale) <= 2.0**40:  # else Python's subnormal results are rounded twice
            are_same("cross_entropy_with_grad_row", python, (results["loss"], results["grad"]))

    arguments = {"x": x, "target": target, "scale": scale, "in_place": in_place}
    return Call(name, call, arguments, 4, check)


def are_same(name, python, c):
    """Numbers are those of the Python package, bit for bit."""
    for one, other in zip(python, c, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        if not np.array_equal(one, other, equal_nan=True):
            raise ResultError(f"{name}: other bits than the Python function's: {one} and {other}")


def draw_states(rng, name):
    dtype = np.dtype(rng.choice(["f4", "f8"]))
    n = max(1, draws.n_classes_of(rng))
    x = draws.logits_of(rng, (n,), 0, dtype)
    target = int(rng.integers(n))
    scale = 1.0 if rng.random() < 0.5 else float(draws.factors_of(rng, (), False))
    kind = rng.random()
    if kind < 0.2:
        cuts = [*range(min(n, 1000)), n]  # a thousand pieces of one class
    elif kind < 0.4:
        cuts = [*range(0, n, 2048), n]
    else:
        cuts = sorted({0, n, *rng.integers(0, n + 1, int(rng.integers(0, 9))).tolist()})
    pieces = list(itertools.pairwise(cuts))
    order = rng.permutation(len(pieces)) if rng.random() < 0.5 else np.arange(len(pieces))
    is_streamed = bool(rng.random() < 0.4)
    is_tree = bool(rng.random() < 0.5)

    def call(x, target, scale, cuts, order):
        partial, merge = function("partial", dtype), function("merge", dtype)
        if is_streamed:
            whole = state()
            for i in order:
                start, stop = pieces[i]
                partial(at(whole), at(x[start:stop]), stop - start)
        else:
            states = []
            for i in order:
                start, stop = pieces[i]
                states.append(state())
                partial(at(states[-1]), at(x[start:stop]), stop - start)
            while is_tree and len(states) > 1:
                for i in range(0, len(states) - 1, 2):
                    merge(at(states[i]), at(states[i + 1]))
                states = states[::2]
            whole = state()
            for each in states:
                merge(at(whole), at(each))
        grad = np.empty_like(x)
        for start, stop in pieces:
            function("finish_grad", dtype)(
                *(at(whole), at(x[start:stop]), stop - start, start, target, scale),
                at(grad[start:stop]),
            )
        return {
            "logsumexp": dtype.type(function("finish", dtype)(at(whole))),
            "loss": dtype.type(function("finish_loss", dtype)(at(whole), x[target])),
            "grad": grad,
        }

    def check(copies, results):
        x, row = copies["x"], np.int64(target).reshape(())
        in_order = (order == np.arange(len(pieces))).all() and all(c % 2048 == 0 for c in cuts[:-1])
        is_whole = in_order and n > 8 and (is_streamed or not is_tree)
        times = 1 if is_whole else 2
        judge.logsumexp("finish", x, 0, 1.0, results["logsumexp"], False, times)
        options = {"reduction": "none", "ignore_index": None, "grad_output": np.float64(scale)}
        judge.cross_entropy(
            "finish_loss, finish_grad",
            *(x, row, options, results["loss"], results["grad"], True),
            times=times,
        )
        if is_whole:
            are_same("finish", [csoftmax.logsumexp(x)], [results["logsumexp"]])

    arguments = {"x": x, "target": target, "scale": scale, "cuts": cuts, "order": order}
    call = Call(name, call, arguments, 5, check)
    call.notes.append(f"  streamed: {is_streamed}, merged in pairs: {is_tree}")
    return call


def draw_batch(rng, name):
    dtype = np.dtype(rng.choice(["f4", "f8"]))
    n_classes = n = max(1, draws.n_classes_of(rng))
    n_rows = draws.n_rows_of(rng, n_classes)
    x = two_strides(rng, draws.logits_of(rng, (n_rows, n_classes), 1, dtype))
    target = rng.integers(0, n_classes, n_rows).astype(rng.choice(["i4", "i8"]))
    ignore_index = int(rng.choice([-(2**63), -100, 0, n_classes]))
    target = np.where(rng.random(n_rows) < 0.1, max(ignore_index, -100), target).astype(
        target.dtype
    )
    target = np.where((target >= 0) & (target < n) | (target == ignore_index), target, 0).astype(
        target.dtype
    )
    scale = 1.0 if rng.random() < 0.5 else float(draws.factors_of(rng, (), False))
    n_threads = int(rng.integers(0, 3))
    index = rng.integers(0, n_classes, n_rows).astype(target.dtype)

    def strides(a):
        return [each // dtype.itemsize for each in a.strides]

    def call(x, target, index, ignore_index, scale, n_threads):
        shape = (n_rows, n_classes, *strides(x))
        results = {}
        for each in ("softmax", "log_softmax"):
            out = two_strides(None, np.empty((n_rows, n_classes), dtype), x)
            status = function(each, dtype)(at(x), *shape, at(out), *strides(out), n_threads)
            results[each] = answered(each, status, out)
        out = np.empty(n_rows, dtype)
        status = function("logsumexp", dtype)(at(x), *shape, at(out), n_threads)
        results["logsumexp"] = answered("logsumexp", status, out)
        out = np.empty(n_rows, dtype)
        integers = (at(index), index.itemsize)
        status = function("log_prob", dtype)(at(x), *shape, *integers, at(out), n_threads, None)
        results["log_prob"] = answered("log_prob", status, out)
        loss, total = np.empty(n_rows, dtype), np.empty(n_rows, dtype)
        grad = two_strides(None, np.empty((n_rows, n_classes), dtype), x)
        status = function("cross_entropy", dtype)(
            *(at(x), *shape, at(target), target.itemsize, ignore_index, at(loss), at(total)),
            *(at(grad), *strides(grad), scale, n_threads, None),
        )
        results["loss"] = answered("cross_entropy", status, loss)
        results["total"], results["grad"] = total, grad
        return results

    def check(copies, results):
        x, target = copies["x"], copies["target"]
        judge.softmax("C softmax", x, 1, 1.0, results["softmax"], False)
        judge.softmax("C log_softmax", x, 1, 1.0, results["log_softmax"], True)
        for each in ("logsumexp", "total"):
            judge.logsumexp(f"C {each}", x, 1, 1.0, results[each], False)
        judge.log_prob("C log_prob", x, copies["index"], 1, 1.0, results["log_prob"])
        ignored = None if ignore_index == -(2**63) else ignore_index
        options = {
            "reduction": "none",
            "ignore_index": ignored,
            "grad_output": np.full(n_rows, scale),
        }
        judge.cross_entropy(
            "C cross_entropy", x, target, options, results["loss"], results["grad"], True
        )

    arguments = {
        "x": x,
        "target": target,
        "index": index,
        "ignore_index": ignore_index,
        "scale": scale,
        "n_threads": n_threads,
    }
    return Call(name, call, arguments, 6, check)


def answered(name, status, out):
    if status != 0:
        raise ResultError(f"C {name}: returned {status}")
    return out


def two_strides(rng, a, like=None):
    """A two-dimensional array with other strides; `like` decides which for an output."""
    kind = (
        "plain"
        if like is None
        else ("columns" if abs(like.strides[0]) < abs(like.strides[1]) else "plain")
    )
    if rng is not None:
        kind = rng.choice(["plain", "plain", "columns", "wide", "negative", "repeated"])
    if kind == "columns":
        return np.asfortranarray(a)
    if kind == "wide":
        base = np.zeros((2 * a.shape[0], 3 * a.shape[1]), a.dtype)
        base[::2, ::3] = a
        return base[::2, ::3]
    if kind == "negative":
        return np.flip(np.flip(a, 1).copy(), 1)
    if kind == "repeated" and a.size:
        return np.broadcast_to(a[:1].copy(), a.shape)
    return a


DRAWS = {"C rows": (draw_row, 3), "C states": (draw_states, 4), "C batches": (draw_batch, 3)}
