"""Memory stays flat over a hundred thousand calls, refused ones among them. This file is the program that calls."""

import ctypes
import json
import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

import csoftmax
from csoftmax import functional, special
from support import c_calls, children, guarded

STATM = Path("/proc/self/statm")
CALLS = 2500  # of each kind
# What they may leave behind: 64 KB of resident memory, malloc's smallest piece (32 bytes) or an object of Python's from
# one call in a hundred.
MOST = {"resident": 65_536, "malloc": 32 * CALLS // 100, "objects": CALLS // 100}


def python_calls(dtype):
    """Calls that succeed: short and long ways, room on the stack and on the heap, every conversion and copy."""
    rng = np.random.default_rng(20261124)
    x, y = rng.standard_normal((5, 10)).astype(dtype), np.arange(5)
    large, targets = rng.standard_normal((100, 300)).astype(dtype), np.arange(100)
    long = rng.standard_normal((2, 9000)).astype(dtype)
    q, out, p = csoftmax.softmax(x), np.empty_like(x), csoftmax.softmax(large)
    options = {"weight": np.ones(10), "sample_weight": np.ones(5), "label_smoothing": 0.1}
    both = csoftmax.cross_entropy_with_grad
    return {
        "softmax": lambda: csoftmax.softmax(x),
        "softmax of a scalar": lambda: csoftmax.softmax(3.0),
        "softmax of a list": lambda: csoftmax.softmax([[1, 2], [3, 4]], 0),
        "softmax of float16": lambda: csoftmax.softmax(x.astype(np.float16)),
        "softmax on the heap": lambda: csoftmax.softmax(large),
        "softmax in chunks": lambda: csoftmax.softmax(long, out=long.copy()),
        "softmax over itself": lambda: csoftmax.softmax(out[::-1], out=out),
        "log_softmax": lambda: csoftmax.log_softmax(large, 0),
        "log_softmax of columns": lambda: csoftmax.log_softmax(x.T[:, ::2], temperature=2),
        "logsumexp": lambda: csoftmax.logsumexp(x),
        "logsumexp with out": lambda: csoftmax.logsumexp(x, keepdims=True, out=out[:, :1]),
        "cross_entropy": lambda: csoftmax.cross_entropy(x, y),
        "cross_entropy of int8": lambda: csoftmax.cross_entropy(
            x, y.astype("i1"), reduction="none"
        ),
        "cross_entropy, all": lambda: csoftmax.cross_entropy(x, y, **options),
        "cross_entropy of probabilities": lambda: csoftmax.cross_entropy(x, q, **options),
        "gradient": lambda: both(x, y, reduction="sum"),
        "gradient in place": lambda: both(out, y, out=out),
        "gradient on the heap": lambda: both(large, targets, label_smoothing=0.1),
        "gradient, all": lambda: both(x, y, grad_output=2.0, **options),
        "gradient of probabilities": lambda: both(large, p, temperature=2),
        "log_prob": lambda: csoftmax.log_prob(x, y),
        "log_prob, several": lambda: csoftmax.log_prob(x, np.zeros((5, 3), int)),
        "softmax_backward": lambda: csoftmax.softmax_backward(x, q),
        "log_softmax_backward": lambda: csoftmax.log_softmax_backward(
            large, large, 0, out=p.copy()
        ),
        "special": lambda: special.logsumexp(x, b=q - 0.1, return_sign=True),
        "functional": lambda: functional.cross_entropy(x, y, ignore_index=2),
        "nll_loss": lambda: functional.nll_loss(x, y),
    }


def refused_calls(dtype):
    """Calls that raise: kind and arguments."""
    x, y = np.zeros((5, 10), dtype), np.arange(5)
    bad, long = np.full(5, 10), np.zeros((300, 200), dtype)
    both = csoftmax.cross_entropy_with_grad
    calls = {
        "dtype": (TypeError, lambda: csoftmax.softmax(x.astype(complex))),
        "ragged": (ValueError, lambda: csoftmax.log_softmax([[1], [1, 2]])),
        "axis": (ValueError, lambda: csoftmax.logsumexp(x, 2)),
        "out": (ValueError, lambda: csoftmax.softmax(x, out=x[:, 1:])),
        "temperature": (ValueError, lambda: csoftmax.softmax(x, temperature=0)),
        "n_threads": (ValueError, lambda: csoftmax.softmax(x, n_threads=0)),
        "target": (IndexError, lambda: csoftmax.cross_entropy(x, bad)),
        "target of int32": (IndexError, lambda: both(x, bad.astype("i4"), out=x)),
        "late target": (IndexError, lambda: both(long, np.arange(300), weight=np.ones(200))),
        "index": (IndexError, lambda: csoftmax.log_prob(x, bad)),
        "weight": (ValueError, lambda: csoftmax.cross_entropy(x, y, weight=np.ones(9))),
        "reduction": (ValueError, lambda: csoftmax.cross_entropy(x, y, reduction="all")),
        "shapes": (ValueError, lambda: csoftmax.softmax_backward(x, x.T)),
    }
    return {f"refused: {name}": refused(*call) for name, call in calls.items()}


def refused(kind, function):
    def call():
        try:
            function()
        except kind:
            return
        raise AssertionError("nothing was raised")

    return call


def calls_from_c(dtype):
    """The batch functions of csoftmax.h, and what they refuse: status and arguments."""
    c, at = guarded.c_functions(dtype), c_calls.address
    x, out, rows = np.zeros((300, 40), dtype), np.empty((300, 40), dtype), np.empty(300, dtype)
    y, y32 = np.zeros(301, np.int64), np.zeros(300, np.int32)
    bad, bad32 = np.full(300, 40), np.full(300, 40, np.int32)
    given, to = (at(x), 300, 40, 40, 1), (at(out), 40, 1)
    grad = (at(rows), None, *to, 1.0, 1, None)
    calls = {
        "softmax": (0, "softmax", *given, *to, 1),
        "log_softmax": (0, "log_softmax", *given, *to, 1),
        "logsumexp": (0, "logsumexp", *given, at(rows), 1),
        "cross_entropy": (0, "cross_entropy", *given, at(y), 8, -100, *grad),
        "of int32": (0, "cross_entropy", *given, at(y32), 4, -100, *grad),
        "of misaligned targets": (0, "cross_entropy", *given, at(y) + 1, 8, -100, *grad),
        "log_prob": (0, "log_prob", *given, at(y32), 4, at(rows), 1, None),
        "refused int32": (1, "cross_entropy", *given, at(bad32), 4, -100, *grad),
        "refused int64": (1, "cross_entropy", *given, at(bad), 8, -100, *grad),
        "refused index": (1, "log_prob", *given, at(bad32), 4, at(rows), 1, None),
        "refused size": (2, "log_prob", *given, at(y), 2, at(rows), 1, None),
        "refused threads": (2, "softmax", *given, *to, -1),
    }

    arrays = (x, out, rows, y, y32, bad, bad32)  # kept: only their addresses are passed

    def of(status, name, *arguments):
        def call():
            assert c[name](*arguments) == status, arrays

        return call

    return {f"C: {name}": of(*call) for name, call in calls.items()}


class Mallinfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    NAMES = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = tuple((name, ctypes.c_size_t) for name in NAMES.split())


mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None
if mallinfo is not None:
    mallinfo.restype = Mallinfo


def in_use():
    """Bytes of resident memory, bytes that malloc has given and not got back (where glibc tells), Python's objects."""
    info = Mallinfo() if mallinfo is None else mallinfo()
    return {
        "resident": int(STATM.read_text().split()[1]) * mmap.PAGESIZE,
        "malloc": info.uordblks + info.hblkhd,
        "objects": sys.getallocatedblocks(),
    }


def too_much(left):
    return [name for name, size in left.items() if size > MOST[name]]


def left_by(call, n_calls=CALLS):
    """What so many calls leave behind; measured three times, as what is kept once is no leak."""
    for _ in range(n_calls // 10):
        call()
    for _ in range(3):
        before = in_use()
        for _ in range(n_calls):
            call()
        left = {name: size - before[name] for name, size in in_use().items()}
        if not too_much(left):
            break
    return left


flat = pytest.mark.skipif(not STATM.exists(), reason="resident memory is read in /proc")


@flat
def test_memory_is_flat_over_a_hundred_thousand_calls(dtype):
    left = json.loads(children.run_well(__file__, dtype))
    assert len(left) * CALLS > 100_000
    assert {name: sizes for name, sizes in left.items() if too_much(sizes)} == {}


@flat
def test_memory_is_flat_over_calls_of_several_threads():
    left = json.loads(children.run_well(__file__, "threads", OMP_WAIT_POLICY="passive"))
    assert too_much(left["softmax"]) == []


@flat
@pytest.mark.parametrize("keep", [lambda: bytes(100), lambda: np.empty(100), object])
def test_one_object_a_call_is_seen(keep):
    kept = []
    assert "objects" in too_much(left_by(lambda: kept.append(keep())))


@flat
@pytest.mark.skipif(mallinfo is None, reason="needs glibc's mallinfo2")
def test_the_smallest_piece_of_c_memory_a_call_is_seen():
    malloc = ctypes.CDLL(None).malloc
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    assert "malloc" in too_much(left_by(lambda: malloc(1)))


@flat
def test_a_page_a_call_is_seen():
    kept = []

    def keep():
        page = mmap.mmap(-1, mmap.PAGESIZE)  # of its own, whatever the heap has free
        page[0] = 1
        kept.append(page)

    assert "resident" in too_much(left_by(keep))


def measure(what):
    if what == "threads":  # one thread's scratch, kept by each call, would be 300 times 16 KB
        x = np.zeros((70, 3000))
        return {"softmax": left_by(lambda: csoftmax.softmax(x, n_threads=2), 300)}
    calls = python_calls(what) | refused_calls(what) | calls_from_c(what)
    return {name: left_by(call) for name, call in calls.items()}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
