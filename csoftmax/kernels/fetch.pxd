# Cache lines that are asked for before they are needed: what is read or written next. Nothing here changes a result.

cdef extern from "stream.h" nogil:
    void prefetch(const void *)


cdef inline void fetch_block(const char *start, int size) noexcept nogil:
    """Ask for `size` bytes, a constant, that are needed soon; any address will do."""
    cdef int i
    for i in range(0, size, 64):
        prefetch(start + i)


cdef inline void fetch_row(const char *start, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(0, size, 64):
        prefetch(start + i)
