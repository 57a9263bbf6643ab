# Elements of every storage dtype made numbers of the computation's, and results made elements: neighbours, or one at a
# time. Where they lie and where they go is in load.pxi and store.pxi, the bits of half-width floats in convert.h.

from cython cimport floating
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from csoftmax.kernels.task cimport (
    BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, Layout,
)

cdef extern from "convert.h" nogil:
    void floats_of_f16(const char *start, Py_ssize_t n, float *to)
    void floats_of_bf16(const char *start, Py_ssize_t n, float *to)
    void f16_of_floats(const float *start, Py_ssize_t n, char *to)
    void bf16_of_floats(const float *start, Py_ssize_t n, char *to)

ctypedef fused stored:
    float
    double
    int8_t
    int16_t
    int32_t
    int64_t
    uint8_t
    uint16_t
    uint32_t
    uint64_t

cdef enum:
    AT_ONCE = 64            # elements that are converted in two steps


cdef inline void widen(const char *start, Py_ssize_t n, floating *to, stored storage_tag) noexcept nogil:
    cdef Py_ssize_t i
    cdef stored value
    for i in range(n):
        memcpy(&value, start + i * <Py_ssize_t>sizeof(stored), sizeof(stored))
        to[i] = <floating>value


cdef inline void read_halves(int storage, const char *start, Py_ssize_t n, float *to) noexcept nogil:
    if storage == FLOAT16:
        floats_of_f16(start, n, to)
    else:
        floats_of_bf16(start, n, to)


cdef inline void read_wide_halves(int storage, const char *start, Py_ssize_t n, double *to) noexcept nogil:
    cdef float[AT_ONCE] some
    cdef Py_ssize_t first, m
    for first in range(0, n, 64):       # by AT_ONCE
        m = n - first if n - first < AT_ONCE else AT_ONCE
        read_halves(storage, start + 2 * first, m, &some[0])
        widen(<const char *>&some[0], m, to + first, <float>0)


cdef inline void read_integers(int storage, const char *start, Py_ssize_t n, double *to) noexcept nogil:
    cdef Py_ssize_t i
    if storage == INT64:
        widen(start, n, to, <int64_t>0)
    elif storage == UINT64:
        widen(start, n, to, <uint64_t>0)
    elif storage == INT32:
        widen(start, n, to, <int32_t>0)
    elif storage == UINT32:
        widen(start, n, to, <uint32_t>0)
    elif storage == INT16:
        widen(start, n, to, <int16_t>0)
    elif storage == UINT16:
        widen(start, n, to, <uint16_t>0)
    elif storage == INT8:
        widen(start, n, to, <int8_t>0)
    elif storage == UINT8:
        widen(start, n, to, <uint8_t>0)
    else:
        for i in range(n):
            to[i] = start[i] != 0


cdef void read_numbers(int storage, const char *start, Py_ssize_t n, floating *to) noexcept nogil:
    """n neighbours, of native byte order, that may lie anywhere."""
    if storage == FLOAT16 or storage == BFLOAT16:
        if floating is float:
            read_halves(storage, start, n, to)
        else:
            read_wide_halves(storage, start, n, to)
    elif storage == FLOAT32:
        widen(start, n, to, <float>0)
    elif storage == FLOAT64:
        widen(start, n, to, <double>0)
    elif floating is double:            # integers are computed in float64
        read_integers(storage, start, n, to)


cdef void write_numbers(int storage, const floating *start, Py_ssize_t n, char *to) noexcept nogil:
    """The way back, to floats. A double becomes a half by way of a float: it is the result of float32, rounded once."""
    cdef float[AT_ONCE] some
    cdef double wide
    cdef Py_ssize_t first, i, m
    if floating is float:
        if storage == FLOAT16:
            f16_of_floats(start, n, to)
        elif storage == BFLOAT16:
            bf16_of_floats(start, n, to)
        elif storage == FLOAT32:
            memcpy(to, start, n * sizeof(float))
        else:
            for i in range(n):
                wide = start[i]
                memcpy(to + 8 * i, &wide, sizeof(double))
    else:
        if storage == FLOAT64:
            memcpy(to, start, n * sizeof(double))
            return
        for first in range(0, n, 64):   # by AT_ONCE
            m = n - first if n - first < AT_ONCE else AT_ONCE
            for i in range(m):
                some[i] = <float>start[first + i]
            if storage == FLOAT16:
                f16_of_floats(&some[0], m, to + 2 * first)
            elif storage == BFLOAT16:
                bf16_of_floats(&some[0], m, to + 2 * first)
            else:
                memcpy(to + 4 * first, some, m * sizeof(float))


cdef inline void copy_element(const char *start, Py_ssize_t item, bint swapped, char *to) noexcept nogil:
    cdef Py_ssize_t i
    if swapped:
        for i in range(item):
            to[i] = start[item - 1 - i]
    elif item == 2:
        memcpy(to, start, 2)
    elif item == 4:
        memcpy(to, start, 4)
    elif item == 8:
        memcpy(to, start, 8)
    else:
        to[0] = start[0]


cdef inline void read_differences(
    const Layout *layout, const char *raw, Py_ssize_t n,
    const uint64_t *taken, Py_ssize_t taken_step,   # 0 along the classes of a row
    double *to,
) noexcept nogil:
    """Integers of 64 bits less what is taken off their rows. Modulo 2**64 the difference is right also where it
    overflows int64; a row of which nothing is taken is read as it is."""
    cdef uint64_t value
    cdef Py_ssize_t i
    for i in range(n):
        memcpy(&value, raw + 8 * i, 8)
        if taken[i * taken_step] != 0:
            to[i] = 0.0 - <double>(taken[i * taken_step] - value)
        else:
            to[i] = <double><int64_t>value if layout.storage == INT64 else <double>value


cdef void read_strided(
    const Layout *layout, Py_ssize_t row, const char *start, Py_ssize_t step, Py_ssize_t n, floating *to,
) noexcept nogil:
    """n classes of a row, step bytes apart, in any byte order."""
    cdef char[512] raw          # AT_ONCE of 8 bytes
    cdef Py_ssize_t first, i, m, item = layout.item
    if step == item and not layout.swapped and layout.taken == NULL:
        read_numbers(layout.storage, start, n, to)
        return
    for first in range(0, n, 64):       # by AT_ONCE
        m = n - first if n - first < AT_ONCE else AT_ONCE
        for i in range(m):
            copy_element(start + (first + i) * step, item, layout.swapped, &raw[i * item])
        if floating is double and layout.taken != NULL:
            read_differences(layout, &raw[0], m, layout.taken + row, 0, to + first)
        else:
            read_numbers(layout.storage, &raw[0], m, to + first)


cdef void read_scattered(
    const Layout *layout, Py_ssize_t first_row, const char *start, const Py_ssize_t *offsets, Py_ssize_t n,
    floating *to, Py_ssize_t to_step,
) noexcept nogil:
    """One class of n rows from first_row on, which lie at offsets, in any byte order."""
    cdef char[512] raw
    cdef floating[AT_ONCE] some
    cdef Py_ssize_t first, i, m, item = layout.item
    for first in range(0, n, 64):       # by AT_ONCE
        m = n - first if n - first < AT_ONCE else AT_ONCE
        for i in range(m):
            copy_element(start + offsets[first + i], item, layout.swapped, &raw[i * item])
        if floating is double and layout.taken != NULL:
            read_differences(layout, &raw[0], m, layout.taken + first_row + first, 1, &some[0])
        else:
            read_numbers(layout.storage, &raw[0], m, &some[0])
        for i in range(m):
            to[(first + i) * to_step] = some[i]


cdef inline floating element_of(
    const Layout *layout, Py_ssize_t row, const char *place, floating dtype_tag,
) noexcept nogil:
    """The element at a place in a row."""
    cdef floating value
    read_strided(layout, row, place, 0, 1, &value)
    return value
