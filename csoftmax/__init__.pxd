# from csoftmax cimport logsumexp_row_f32 and the like: plain C functions, noexcept nogil; nothing to link or include.

from csoftmax._batch cimport *
