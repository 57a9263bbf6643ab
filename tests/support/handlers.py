"""NumPy's interface to the memory of arrays (NEP 49), by ctypes, which lets its lock go during a call."""

import ctypes

import numpy as np

from csoftmax import _batch

MALLOC = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
CALLOC = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
REALLOC = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
SET_HANDLER = 304  # its place in NumPy's table of functions

of_python = ctypes.pythonapi
of_python.PyCapsule_GetPointer.restype = ctypes.c_void_p
of_python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
of_python.PyCapsule_New.restype = ctypes.py_object
of_python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Handler(ctypes.Structure):
    """PyDataMem_Handler."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", ctypes.c_void_p),
        ("malloc", MALLOC),
        ("calloc", CALLOC),
        ("realloc", REALLOC),
        ("free", FREE),
    )


def of_results():
    """The handler of csoftmax's large results."""
    address = of_python.PyCapsule_GetPointer(_batch.RESULTS_HANDLER, b"mem_handler")
    return Handler.from_address(address)


def name_of(*array):
    """Name of the handler of an array, or of the one in use."""
    return np._core.multiarray.get_handler_name(*array)


def set_handler(capsule):
    """Make NumPy use a handler; return the one before."""
    table = of_python.PyCapsule_GetPointer(np._core._multiarray_umath._ARRAY_API, None)
    function = ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))[SET_HANDLER]
    return ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(function)(capsule)


def of_a_program():
    """A capsule and its handler, which has the C library's functions."""
    c = ctypes.CDLL(None)
    for name in ("malloc", "calloc", "realloc"):
        getattr(c, name).restype = ctypes.c_void_p
    size, address = ctypes.c_size_t, ctypes.c_void_p
    handler = Handler(
        b"of the program",
        1,
        None,
        MALLOC(lambda _, n: c.malloc(size(n))),
        CALLOC(lambda _, n, each: c.calloc(size(n), size(each))),
        REALLOC(lambda _, old, n: c.realloc(address(old), size(n))),
        FREE(lambda _, old, n: c.free(address(old))),
    )
    return of_python.PyCapsule_New(ctypes.addressof(handler), b"mem_handler", None), handler
