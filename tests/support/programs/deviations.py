"""What libraries of probe.c compute otherwise than IEEE 754's arithmetic: python deviations.py LIBRARY ...

A process of its own loads them, so that nothing is flushed to zero in another.
"""

import ctypes
import json
import math
import sys


def deviations(path):
    """The names of what is not as it should be."""
    library, double = ctypes.CDLL(path), ctypes.c_double
    number = float("5e-324"), float("1")

    def call(name, *arguments, kind=double):
        function = getattr(library, name)
        function.restype = kind
        return function(*map(kind, arguments))

    quotients = (double * 64)(*range(64))
    library.divided(quotients, double(49))
    right = {
        "flushes": number[0] * number[1] != 0,
        "fast_math": not library.fast_math(),
        "reassociated": call("reassociated", 1e16, 1) == 0,
        "is_nan": library.is_nan(double(math.nan)) == 1,
        "unsigned_zero": math.copysign(1, call("unsigned_zero", -0.0)) == 1,
        "contracted": call("contracted", 1 + 2**-30, 1 + 2**-30, -1 - 2**-29) == 0,
        "wide": call("wide", 1e308, 10) == math.inf,
        "single_constant": call("single_constant", 3, kind=ctypes.c_float)
        == ctypes.c_float(3 * 0.1).value,
        "tiny": call("tiny") != 0,
        "divided": list(quotients) == [k / 49 for k in range(64)],
    }
    return [name for name, value in right.items() if not value]


print(json.dumps({path: deviations(path) for path in sys.argv[1:]}))
