# cython: freethreading_compatible=True
# The drivers, one module: how arrays and pointers become tasks, which thread computes which tile, and sums over rows.
# The functions are in drivers/; a file there names structs of those before it alone. What the module remembers is
# written while it is imported, and in a child that was just forked, where one thread runs: threads only read it. But
# for the memory that results.pxi keeps: that has a lock.

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer

from csoftmax import _isa
from csoftmax.kernels.table cimport Kernels

cdef extern from "_platform.h" nogil:
    ctypedef int fp_state
    fp_state fp_enter()
    void fp_leave(fp_state)
    int omp_get_max_threads()
    int omp_get_num_procs()
    int omp_get_thread_limit()
    int omp_in_parallel()
    int process_is_serial
    int watch_forks()
    int built_with_openmp
    const char *compiler_name

cnp.import_array()

cdef const Kernels *kernels = <const Kernels *>PyCapsule_GetPointer(_isa.KERNELS, "csoftmax.kernels")
cdef int quota = 1 << 30            # processors that the control group grants

include "drivers/layouts.pxi"
include "drivers/plan.pxi"
include "drivers/run.pxi"
include "drivers/losses.pxi"
include "drivers/results.pxi"
include "drivers/arrays.pxi"
include "drivers/fast_path.pxi"
include "drivers/c_rows.pxi"
include "drivers/c_batches.pxi"
include "drivers/c_table.pxi"


def has_openmp():
    return bool(built_with_openmp)


def compiler():
    """Name and version of the compiler that built the drivers."""
    return compiler_name.decode()


watch_forks()
