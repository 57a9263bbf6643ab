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


cdef inline void exp_group(const floating *x, const floating *maximum, floating *terms) noexcept nogil:
    cdef int l
    cdef floating[16] term      # a local array cannot be the same memory as x: no test, no second loop
    for l in range(16):
        term[l] = scaled_exp(x[l], maximum[l])
    for l in range(16):
        terms[l] = term[l]


cdef inline floating below_one(floating term) noexcept nogil:
    """The term, or 0 if it is that of a maximum."""
    return term if term < one(term) else <floating>0


cdef inline void add_below(const floating *terms, int skip, floating *below) noexcept nogil:
    """Add the terms below one; lanes before `skip` were counted by the group before."""
    cdef int l
    for l in range(16):
        below[l] += <floating>0 if l < skip else below_one(terms[l])


cdef inline void add_all(const floating *terms, int skip, floating *all) noexcept nogil:
    cdef int l
    for l in range(16):
        all[l] += <floating>0 if l < skip else terms[l]


cdef inline void add_all_of_four(const floating *terms, Py_ssize_t stride, floating *all) noexcept nogil:
    cdef int l
    for l in range(16):
        all[l] += (terms[l] + terms[l + stride]) + (terms[l + 2 * stride] + terms[l + 3 * stride])


cdef inline void add_to_totals(const floating *sums, double *total, double *carry) noexcept nogil:
    """Add eight sums to eight totals; in float64, which has no wider type, what rounding takes goes to carry."""
    cdef int l
    cdef double sum, back
    for l in range(8):
        if floating is float:
            total[l] += sums[l]
        else:
            sum = total[l] + sums[l]
            back = sum - total[l]
            carry[l] += (total[l] - (sum - back)) + (sums[l] - back)
            total[l] = sum


cdef inline double without_one(double below, floating all) noexcept nogil:
    """The sum of all terms but one of those that are one: all - below is a whole number of ones, but for rounding."""
    cdef double unscale = 1 / <double>one(all)
    cdef double ones = (all - below) * unscale + 6755399441055744.0
    return below * unscale + ((ones - 6755399441055744.0) - 1)
