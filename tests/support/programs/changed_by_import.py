"""How many parts of the process's state are looked at, and which of them the import changes."""

import ctypes
import locale
import os
import signal
import sys
import threading
import warnings

import numpy as np  # brings threads, and a setting of its own

from support.floating_point import Environment

libc, libm = ctypes.CDLL(None), ctypes.CDLL("libm.so.6")
libc.setlocale.restype = ctypes.c_char_p


def environment_of_c():
    found, i = (ctypes.POINTER(ctypes.c_char_p)).in_dll(libc, "environ"), 0
    while found[i]:
        yield found[i]
        i += 1


def state():
    registers = Environment.now()
    return {
        "threads": (sorted(os.listdir("/proc/self/task")), threading.active_count()),
        "environment": (dict(os.environ), sorted(environment_of_c())),
        "floating point": (registers.mxcsr & 0xFFC0, registers.x87[0], libm.fegetround()),
        "subnormals": float("5e-324") * float("1") != 0,
        "NumPy": (np.geterr(), np.geterrcall(), np.get_printoptions()),
        "signals": [signal.getsignal(s) for s in signal.valid_signals()],
        "warnings": list(warnings.filters),
        "locale": libc.setlocale(locale.LC_ALL, None),
        "processors": os.sched_getaffinity(0),
        "folder": os.getcwd(),
        "hooks": (sys.excepthook, list(sys.meta_path), list(sys.path), sys.getswitchinterval()),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


assert "csoftmax" not in sys.modules
before = state()
import csoftmax  # noqa: E402, F401

after = state()
print(len(before), [name for name in before if before[name] != after[name]])
