"""The caller's floating-point state on x86-64 Linux: rounding modes, and subnormals flushed to zero."""

import ctypes
import platform
import sys
from contextlib import contextmanager
from functools import cache

import pytest

x86_64_linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="rounding modes and MXCSR bits are those of x86-64 Linux",
)
ROUNDINGS = {"nearest": 0, "down": 0x400, "up": 0x800, "zero": 0xC00}
FLUSH_TO_ZERO, DENORMALS_ARE_ZERO = 0x8000, 0x0040
FLUSHING = FLUSH_TO_ZERO | DENORMALS_ARE_ZERO


@cache
def libm():
    return ctypes.CDLL("libm.so.6")


class Environment(ctypes.Structure):
    """glibc's fenv_t on x86-64."""

    _fields_ = (("x87", ctypes.c_uint32 * 7), ("mxcsr", ctypes.c_uint32))

    @classmethod
    def now(cls):
        environment = cls()
        libm().fegetenv(ctypes.byref(environment))
        return environment

    def set(self):
        libm().fesetenv(ctypes.byref(self))

    @property
    def rounding(self):
        """MXCSR's, as one of ROUNDINGS; fegetround() tells that of the x87 unit, which nobody changes."""
        return self.mxcsr >> 3 & 0xC00


@contextmanager
def rounding(mode):
    """Round so in the block, after which the mode must still be this one."""
    assert libm().fesetround(ROUNDINGS[mode]) == 0
    try:
        yield
        after = Environment.now()
    finally:
        libm().fesetround(ROUNDINGS["nearest"])
    assert after.rounding == ROUNDINGS[mode]


@contextmanager
def flushing():
    """Take subnormal numbers for zeros in the block, after which that must still be so."""
    before, environment = Environment.now(), Environment.now()
    environment.mxcsr |= FLUSHING
    environment.set()
    try:
        yield
        after = Environment.now()
    finally:
        before.set()
    assert after.mxcsr & FLUSHING == FLUSHING
