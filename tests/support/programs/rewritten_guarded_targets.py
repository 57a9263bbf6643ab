"""Calls of a family whose targets another thread rewrites, to lead to what lies beside the arrays: guarded pages."""

import itertools
import sys
import threading
import time

from support import guarded

VALUES = (40, 41, -1, 5000, -5000, 2**30, -(2**31))  # just outside the 40 classes, and far
family = sys.argv[1]
arrays = guarded.Arrays("float64", 2000 * 40)


def rewrite(targets, good, stop):
    while not stop.is_set():
        for value in VALUES:
            for array in targets:
                array[...] = value
        for array, classes in zip(targets, good, strict=True):
            array[...] = classes


for place, axis in itertools.product(guarded.FLUSH, (0, 1)):
    arrays.lay_out(place, 2000, 40, axis, False)
    targets = [arrays.target, arrays.narrow, arrays.index, arrays.several]
    good = [array.copy() for array in targets]
    stop, done, refused = threading.Event(), 0, 0
    thread = threading.Thread(target=rewrite, args=(targets, good, stop))
    thread.start()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        for name, call in guarded.calls_of(family, arrays):
            print(name, place, axis, flush=True)
            try:
                call()
                done += 1
            except (IndexError, AssertionError):  # that of a C function's status
                refused += 1
    stop.set()
    thread.join()
    assert done
    assert refused or family == "drivers"  # which are handed checked targets
