"""Large results under a limit, forked, and at the end: python results_memory.py FUNCTION [ARGUMENT]."""

import ctypes
import os
import resource
import sys
import threading
from pathlib import Path

import numpy as np

import csoftmax
from csoftmax import _batch
from support import c_calls, handlers

SHAPE = (8400, 1000)  # 33.6 MB of float32
KEPT = (60_000, 1000)  # 240 MB
FREE_BYTES = 10_000_000  # of address space, behind what is used


def room(shape, value=0):
    """An array of this shape that takes no memory."""
    return np.broadcast_to(np.float32(value), shape)


def address_space():
    return 1024 * int(Path("/proc/self/status").read_text().split("VmSize:")[1].split()[0])


def limit_memory():
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + FREE_BYTES, hard))


def large_result():
    return csoftmax.softmax(room((16_400, 1000)), n_threads=1).shape == (16_400, 1000)


def small_result():
    # 24 MB, which is NumPy's part; larger than what malloc may have left.
    return csoftmax.log_softmax(room((6000, 1000)), n_threads=1).shape == (6000, 1000)


def rows():
    return csoftmax.logsumexp(room((12_000_000, 1)), n_threads=1).shape == (12_000_000,)


def rows_of_the_long_way():
    result = csoftmax.logsumexp(room((12_000_000, 1)), temperature=2.0, n_threads=1)
    return result.shape == (12_000_000,)


def losses():
    loss = csoftmax.cross_entropy(room((*CLASSES.shape, 1)), CLASSES, temperature=2.0, n_threads=1)
    return loss == 0


def resized():
    GROWING.resize((18_000, 1000), refcheck=False)
    return GROWING[:8400].min() == 7 and not GROWING[8400:].any()


GROWING = _batch.empty_result(room(SHAPE))
GROWING[:] = 7
CLASSES = np.zeros(8_000_000, np.int64)
TARGETS = np.zeros(12_000_000, np.int32)  # 96 MB as int64
LOSSES = np.empty(TARGETS.shape, np.float32)


def scratch():
    return c_calls.cross_entropy(room((*TARGETS.shape, 1)), TARGETS, LOSSES, n_threads=1) == 0


def under_limit(what, keep):
    """Whether memory is found where only what is kept can be given back, or nothing is."""
    work = globals()[what]
    if keep == "kept":
        _batch.empty_result(room(KEPT))
        assert _batch.kept_memory()[0] == 1
    limit_memory()
    try:
        print(bool(work()))
    except MemoryError:
        print("MemoryError")
    assert _batch.kept_memory()[1] < 4 * np.prod(KEPT)  # what was kept is given back


def forked(work):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def fork():
    x = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    expected = csoftmax.softmax(x, out=np.empty_like(x))
    alive, other = csoftmax.softmax(x), csoftmax.softmax(x)
    del other
    (n_blocks, size, _) = _batch.kept_memory()
    assert n_blocks == 1

    def work():
        assert _batch.kept_memory()[:2] == (0, 0)
        again = csoftmax.softmax(x)
        assert (again == expected).all()
        assert (alive == expected).all()
        address = again.ctypes.data
        again = None
        assert _batch.kept_memory()[0] == 1  # its own is kept
        again = csoftmax.softmax(x)
        assert again.ctypes.data == address
        alive[:] = 7
        return forked(lambda: _batch.kept_memory()[0] == 0)

    assert forked(work)
    assert (alive == expected).all()
    assert _batch.kept_memory()[:2] == (1, size)
    alive = None  # the child may share its memory: it is not kept
    assert _batch.kept_memory()[:2] == (1, size)
    assert (csoftmax.softmax(x) == expected).all()
    assert _batch.kept_memory()[:2] == (1, size)


def fork_during_calls():
    """The lock is held for very short: forks are many."""
    memory, stop = handlers.of_results(), threading.Event()
    size = 34_000_000

    def work():
        while not stop.is_set():
            pieces = [memory.malloc(None, size) for _ in range(3)]
            for piece in pieces:
                memory.free(None, piece, size)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            assert forked(lambda: _batch.empty_result(room(SHAPE)).shape == SHAPE)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def ask_at_once(library):
    """How often a block was another thread's too, and how many were lost."""
    memory = handlers.of_results()
    ask = ctypes.CDLL(library).ask_at_once
    ask.argtypes = [handlers.MALLOC, handlers.FREE, ctypes.c_size_t, ctypes.c_int, ctypes.c_int]
    size = 34_000_000
    ask(memory.malloc, memory.free, size, 4, 100)  # the threads' own memory
    csoftmax.release_memory()
    before = address_space()
    n_wrong = ask(memory.malloc, memory.free, size, 4, 100_000)
    csoftmax.release_memory()
    print(n_wrong, round((address_space() - before) / size))


def shutdown():
    """Arrays that live longer than the module's names, and than the module."""
    x = room(SHAPE)

    class Last:
        def __del__(self):
            self.p[:3] = 1
            self.p.resize(10, refcheck=False)

    last = Last()
    last.p, last.itself = csoftmax.softmax(x), last
    sys.last_result = csoftmax.log_softmax(x)  # sys is cleared very late
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(csoftmax.softmax(x)))  # never deleted
    globals()["kept_by_this_module"] = csoftmax.softmax(x)
    for name in [name for name in sys.modules if name.startswith("csoftmax")]:
        del sys.modules[name]


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
    print("done")
