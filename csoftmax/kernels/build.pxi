# One build: all kernels, compiled with the flags of the module that includes this. Each file calls those above it and
# none below; what it takes from .pxd files stands at its top, so that the order is for readers alone.

from cpython.pycapsule cimport PyCapsule_New

from csoftmax.kernels.table cimport Kernels

include "convert.pxi"       # storage dtypes
include "rows.pxi"          # maxima, terms and sums: classes are lanes
include "columns.pxi"       # the same: rows are lanes
include "costs.pxi"         # costs and sums of masses, either way
include "load.pxi"          # elements in
include "store.pxi"         # elements out
include "masses.pxi"        # masses of classes, and what they are for a row
include "finish.pxi"        # the numbers of rows
include "write.pxi"         # the values of classes
include "backward_rows.pxi"     # gradients that go back through softmax and log_softmax: the steps of rows
include "backward.pxi"      # and of tiles
include "tile.pxi"          # a tile from the arrays and back
include "single.pxi"        # single rows
include "states.pxi"        # states that are the caller's

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
table.multiply_output[0] = multiply_output_f32
table.multiply_output[1] = multiply_output_f64
table.add_up = add_up
table.count_outside = count_outside
table.count_equal = count_equal
table.states_size = states_size
table.fence = fence

TABLE = PyCapsule_New(&table, "csoftmax.kernels", NULL)
