# One build: all kernels, compiled with the flags of the module that includes this.

from cpython.pycapsule cimport PyCapsule_New
from cython cimport floating
from libc.string cimport memcpy, memset

include "exp.pxi"
include "lanes.pxi"
include "rows.pxi"
include "columns.pxi"
include "tile.pxi"
include "backward.pxi"

cdef Kernels table
table.tile[0] = tile_f32
table.tile[1] = tile_f64
table.board_size = board_size
table.fence = fence

TABLE = PyCapsule_New(&table, "csoftmax.kernels", NULL)
