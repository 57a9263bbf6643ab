"""A consumer that meets another table of C functions than it was compiled with.

python replaced_table.py FOLDER FUNCTION [SIZE ABI MORE]

The folder has the consumer. The numbers that follow say by how much the table differs: bytes of the size that it
states, number of the ABI, and fields behind the known ones.
"""

import ctypes
import sys

import numpy as np

import csoftmax
from csoftmax import _batch

N_FIELDS = 34  # the two numbers, and the functions
NAME = ctypes.c_char_p(b"csoftmax._batch.C_FUNCTIONS")
KEPT = []  # a capsule holds but the address of its table and name


def replace_table(size=0, abi=0, more=0):
    pointer_of, new = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_New
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    new.restype = ctypes.py_object
    new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    address = pointer_of(_batch.C_FUNCTIONS, NAME)
    old = (ctypes.c_size_t * N_FIELDS).from_address(address)
    table = (ctypes.c_size_t * (N_FIELDS + more))(*old)
    table[0], table[1] = table[0] + size, table[1] + abi
    KEPT.append(table)
    _batch.C_FUNCTIONS = new(ctypes.addressof(table), NAME, None)


def import_error():
    try:
        import consumer  # noqa: F401
    except ImportError as error:
        return error
    return ImportError("none")


def runs(*differences):
    replace_table(*map(int, differences))
    import consumer

    x = np.arange(100, dtype=np.float32) / 7
    assert consumer.loss_of_pieces([x], 30) == csoftmax.cross_entropy(x, 30)
    print("done")


def fails(*differences):
    replace_table(*map(int, differences))
    print(import_error())


def has_none():
    del _batch.C_FUNCTIONS
    print(import_error())


def has_no_package():
    for name in [each for each in sys.modules if each.partition(".")[0] == "csoftmax"]:
        del sys.modules[name]
    sys.modules["csoftmax"] = None
    print(import_error().name)


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    globals()[sys.argv[2]](*sys.argv[3:])
