# Sixteen lanes: the steps that rows.pxi (classes are lanes) and columns.pxi (rows are lanes) are made of.
# Loops of 16 over small arrays vectorise at every width, and the order of each sum stands in the source.

cdef inline void max_of_group(const floating *x, floating *lanes) noexcept nogil:
    cdef int l
    for l in range(16):
        lanes[l] = x[l] if x[l] > lanes[l] else lanes[l]


cdef inline void max_of_four_groups(const floating *x, Py_ssize_t stride, floating *lanes) noexcept nogil:
    """Two levels of comparisons in registers for each load and store of lanes."""
    cdef int l
    cdef floating a, b
    for l in range(16):
        a = x[l] if x[l] > x[l + stride] else x[l + stride]
        b = x[l + 2 * stride] if x[l + 2 * stride] > x[l + 3 * stride] else x[l + 3 * stride]
        a = a if a > b else b
        lanes[l] = a if a > lanes[l] else lanes[l]


cdef inline void add_group(
    const floating *x,          # IN   (16,)
    const floating *maximum,    # IN   (16,)
    Py_ssize_t skip,            # lanes before this one were counted by the group before
    floating *terms,            # OUT  (16,)
    floating *below,            # INOUT (16,), sums of terms below one
    floating *ties,             # INOUT (16,), counts of terms equal to one
) noexcept nogil:
    cdef int l
    cdef floating top = one(maximum[0])
    for l in range(16):
        terms[l] = scaled_exp(x[l], maximum[l])
    for l in range(16):
        below[l] += terms[l] if terms[l] < top and l >= skip else <floating>0
    for l in range(16):
        ties[l] += <floating>0 if terms[l] < top or l < skip else <floating>1
