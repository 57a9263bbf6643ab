"""What csoftmax.h declares, read with regular expressions, and callable through ctypes."""

import ctypes
import re
from pathlib import Path

import csoftmax
from csoftmax import _batch

PATH = Path(csoftmax.get_include()) / "csoftmax.h"
TEXT = PATH.read_text()
PXD = (Path(csoftmax.__file__).parent / "_batch.pxd").read_text()


class State(ctypes.Structure):
    """csoftmax_state, empty unless told otherwise."""

    _fields_ = tuple((name, ctypes.c_double) for name in ("maximum", "sum", "carry", "ties"))

    def __init__(self, maximum=-float("inf"), sum=0, carry=0, ties=-1):
        super().__init__(maximum, sum, carry, ties)

    @property
    def _as_parameter_(self):
        return ctypes.byref(self)

    def __iter__(self):
        return iter((self.maximum, self.sum, self.carry, self.ties))


def functions_in(text, pattern):
    """(name, result, [(type, argument)]) of each declaration, in their order; ptrdiff_t is Py_ssize_t."""
    found = []
    for result, name, arguments in re.findall(pattern, text, re.MULTILINE):
        words = " ".join(arguments.replace("ptrdiff_t", "Py_ssize_t").split())
        pairs = [re.fullmatch(r"(.*?)(\w+)", each.strip()).groups() for each in words.split(",")]
        found.append((name, result, [(kind.strip(), argument) for kind, argument in pairs]))
    return found


def declared():
    """The table's functions in the header."""
    return functions_in(TEXT, r"^    (\w+) \(\*(\w+)\)\(([^)]+)\);")


def declared_for_cython():
    """Those in the pxd; the two without arguments are no functions of the table."""
    return functions_in(PXD, r"^cdef (\w+) (\w+)\(([^)]+)\) noexcept nogil$")


class Float(ctypes.c_float):
    """A float that ctypes hands over as it is: its own conversion would depend on the floating-point state."""


class Double(ctypes.c_double):
    """Likewise."""


TYPES = {
    "void": None,
    "int": ctypes.c_int,
    "float": Float,
    "double": Double,
    "int64_t": ctypes.c_int64,
    "Py_ssize_t": ctypes.c_ssize_t,
}


def callable_at_its_address(name, result, arguments, use_errno=False):
    """A function that takes addresses (integers, states, None) for pointers, and checks nothing."""
    by_value = TYPES | {"double": ctypes.c_double}  # a scale
    kinds = [by_value.get(kind, ctypes.c_void_p) for kind, _ in arguments]
    signature = ctypes.CFUNCTYPE(TYPES[result], *kinds, use_errno=use_errno)
    return signature(_batch.address(name))


C = {each[0]: callable_at_its_address(*each) for each in declared()}
