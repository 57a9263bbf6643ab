# The table of the C functions that csoftmax.h finds in a capsule, and their addresses for who calls them without it.

from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport uintptr_t


# In the order of csoftmax_functions: each for float32 and float64, then those that read logits for half-width ones.
C_NAMES = tuple(f"{name}_{dtype}" for name in (
    "softmax_row", "log_softmax_row", "logsumexp_row", "cross_entropy_row", "cross_entropy_with_grad_row",
    "log_prob_row", "partial", "merge", "finish", "finish_loss", "finish_grad", "softmax", "log_softmax", "logsumexp",
    "cross_entropy", "log_prob") for dtype in ("f32", "f64"))
C_NAMES += tuple(f"{name}_{dtype}" for name in (
    "softmax_row", "log_softmax_row", "logsumexp_row", "cross_entropy_row", "cross_entropy_with_grad_row",
    "log_prob_row", "partial", "finish_grad", "softmax", "log_softmax", "logsumexp", "cross_entropy", "log_prob",
) for dtype in ("f16", "bf16"))

cdef struct Functions:              # csoftmax_functions, whose fields are pointers
    size_t size
    Py_ssize_t abi
    uintptr_t[58] functions

cdef Functions c_functions


def address(name):
    """Where the machine code of one of the C_NAMES begins."""
    capsule = globals()["__pyx_capi__"][name]
    return <uintptr_t>PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule))


def fill_table():
    c_functions.size = sizeof(c_functions)
    c_functions.abi = CSOFTMAX_ABI
    for i, name in enumerate(C_NAMES):
        c_functions.functions[i] = address(name)
    return PyCapsule_New(&c_functions, "csoftmax._batch.C_FUNCTIONS", NULL)


C_FUNCTIONS = fill_table()
