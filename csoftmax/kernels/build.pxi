# One build: all kernels, compiled with the flags of the module that includes this.

from cpython.pycapsule cimport PyCapsule_New

from csoftmax.kernels.table cimport Kernels

include "rows.pxi"
include "columns.pxi"
include "costs.pxi"
include "load.pxi"
include "store.pxi"
include "masses.pxi"
include "finish.pxi"
include "write.pxi"
include "backward_rows.pxi"
include "backward.pxi"
include "tile.pxi"
include "single.pxi"
include "states.pxi"

cdef Kernels table
table.tile[0] = tile_f32
table.tile[1] = tile_f64
table.row[0] = row_f32
table.row[1] = row_f64
table.add[0] = add_f32
table.add[1] = add_f64
table.merge[0] = merge_f32
table.merge[1] = merge_f64
table.number[0] = number_f32
table.number[1] = number_f64
table.write[0] = write_f32
table.write[1] = write_f64
table.multiply[0] = multiply_f32
table.multiply[1] = multiply_f64
table.multiply_output[0] = multiply_output_f32
table.multiply_output[1] = multiply_output_f64
table.add_up = add_up
table.count_outside = count_outside
table.count_equal = count_equal
table.states_size = states_size
table.fence = fence

TABLE = PyCapsule_New(&table, "csoftmax.kernels", NULL)
