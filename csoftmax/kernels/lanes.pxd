# cython: cdivision=True
# Sixteen lanes: the steps that rows.pxi (classes are lanes) and columns.pxi (rows are lanes) are made of. Loops of 16
# over small arrays vectorise at every width, and the order of each sum stands in the source, here:
#
# A row is cut into chunks of CHUNK classes, whose states merge() adds one after the other. In a chunk class j belongs
# to lane j % 16. Of a block of 64 classes lane l adds t[l] + t[l + 16] and t[l + 32] + t[l + 48] in the dtype, then
# these two; lanes l and l + 8 go on as one of eight totals in double. float64, which has no wider type, carries what
# rounding takes, from 5 classes on. In the end neighbours are added, 0 and 1, 2 and 3, ..., then neighbours of those,
# and once more; last the carry. A class behind the end counts as 0, and so does the maximum, which is counted apart.
# (The sum of all terms, the maximum's too, has no order: only a whole number is found from it, by ties_of().)

from cython cimport floating
from libc.math cimport isnan

from csoftmax.kernels.exp cimport mul_add
from csoftmax.kernels.task cimport LANES

cdef extern from "lanes.h" nogil:
    void copy_lanes_f32(float *to, const float *start)
    void copy_lanes_f64(double *to, const double *start)
    void load_f32(float *to, const float *start, Py_ssize_t n)
    void load_f64(double *to, const double *start, Py_ssize_t n)
    void store_f32(float *to, const float *start, Py_ssize_t n)
    void store_f64(double *to, const double *start, Py_ssize_t n)
    void add_eight_f32(double *total, const float *sums)
    void add_values_f32(double *total, const float *values, Py_ssize_t n)
    void add_values_f64(double *total, const double *values, Py_ssize_t n)
    void add_products_f32(double *total, double *total_of_a, const float *a, const float *b, double b_from,
                          Py_ssize_t n)
    void add_products_f64(double *total, double *total_of_a, const double *a, const double *b, double b_from,
                          Py_ssize_t n)
    double ties_f32(const float *terms, float top)
    double ties_f64(const double *terms, double top)


cdef enum:
    FOLD = 8                    # rows whose lanes are folded together


cdef struct LaneSums:           # sums of lanes, and in float64 what rounding took from them
    double *total
    double *carry


cdef inline void copy_lanes(const floating *start, floating *to) noexcept nogil:
    if floating is float:
        copy_lanes_f32(to, start)
    else:
        copy_lanes_f64(to, start)


cdef inline void load_lanes(const floating *start, Py_ssize_t n, floating *to) noexcept nogil:
    """The first n of 16 lanes; the others are like the first."""
    if floating is float:
        load_f32(to, start, n)
    else:
        load_f64(to, start, n)


cdef inline void store_lanes(const floating *start, Py_ssize_t n, floating *to) noexcept nogil:
    if floating is float:
        store_f32(to, start, n)
    else:
        store_f64(to, start, n)


cdef inline double tops_in_lanes(const floating *terms, floating top) noexcept nogil:
    """How many of 16 terms are the maximum's, which is `top`; NaN if one is a NaN."""
    if floating is float:
        return ties_f32(terms, top)
    else:
        return ties_f64(terms, top)


cdef inline bint has_nan(const floating *x, Py_ssize_t n, Py_ssize_t stride) noexcept nogil:
    """Whether one of n classes is NaN. Found in an integer: of `if isnan(x): result = NAN` GCC 12 makes a maximum over
    vectors, which NaN does not survive."""
    cdef Py_ssize_t j
    cdef int found = 0
    for j in range(n):
        found |= isnan(x[j * stride])
    return found


cdef inline void max_of_group(const floating *x, floating *lanes) noexcept nogil:
    cdef int l
    for l in range(LANES):
        lanes[l] = x[l] if x[l] > lanes[l] else lanes[l]


cdef inline void max_of_four_groups(const floating *x, Py_ssize_t stride, floating *lanes) noexcept nogil:
    """Two levels of comparisons in registers for each load and store of lanes."""
    cdef int l
    cdef floating first, last
    for l in range(LANES):
        first = x[l] if x[l] > x[l + stride] else x[l + stride]
        last = x[l + 2 * stride] if x[l + 2 * stride] > x[l + 3 * stride] else x[l + 3 * stride]
        first = first if first > last else last
        lanes[l] = first if first > lanes[l] else lanes[l]


cdef inline floating below(floating value, floating top) noexcept nogil:
    """The term, or 0 if it is the maximum's, which is `top`."""
    return value if value < top else <floating>0


cdef inline void add_to_totals(const floating *sums, double *total, double *carry) noexcept nogil:
    """Add eight sums to eight totals; in float64 what rounding takes goes to carry."""
    cdef int l
    cdef double sum, back
    if floating is float:
        add_eight_f32(total, sums)
    else:
        for l in range(8):
            sum = total[l] + sums[l]
            back = sum - total[l]
            carry[l] += (total[l] - (sum - back)) + (sums[l] - back)
            total[l] = sum


cdef inline void add_values(const floating *values, Py_ssize_t n_groups, double *total) noexcept nogil:
    """Add groups of sixteen numbers to sixteen totals."""
    if floating is float:
        add_values_f32(total, values, n_groups)
    else:
        add_values_f64(total, values, n_groups)


cdef inline void add_products(
    const floating *a, const floating *b, Py_ssize_t n_groups, double b_from, double *total, double *total_of_a,
) noexcept nogil:
    """Add a * (b - b_from) to sixteen totals, and a to others."""
    if floating is float:
        add_products_f32(total, total_of_a, a, b, b_from, n_groups)
    else:
        add_products_f64(total, total_of_a, a, b, b_from, n_groups)


cdef inline double exact_sum(
    double left, double left_carry, double right, double right_carry, double *carry,
) noexcept nogil:
    """left + right, and what rounding takes and has taken (Knuth's two-sum)."""
    cdef double sum = left + right
    cdef double back = sum - left
    carry[0] = (left_carry + right_carry) + ((left - (sum - back)) + (right - back))
    return sum


cdef inline LaneSums sums_at(const double *total, const double *carry) noexcept nogil:
    cdef LaneSums sums
    sums.total, sums.carry = <double *>total, <double *>carry
    return sums


cdef inline void add_exactly(
    LaneSums left, LaneSums right, Py_ssize_t step, int n,
    LaneSums sums,              # OUT  n neighbours; may be left
    floating dtype_tag,
) noexcept nogil:
    """n sums of two, a constant of at most 8; in float64 with what rounding takes. `step` is that between summands."""
    cdef double[8] total, carry
    cdef int l
    for l in range(n):
        if floating is float:
            total[l] = left.total[l * step] + right.total[l * step]
        else:
            total[l] = exact_sum(
                left.total[l * step], left.carry[l * step], right.total[l * step], right.carry[l * step], &carry[l])
    for l in range(n):
        sums.total[l] = total[l]
    if floating is double:
        for l in range(n):
            sums.carry[l] = carry[l]


cdef inline double ties_of(double sum, floating all, floating top) noexcept nogil:
    """How many terms beside one are the maximum's: all - sum is a whole number of these, but for rounding."""
    return ((all - sum) / top + 6755399441055744.0) - 6755399441055745.0


cdef inline floating cost_of_four(
    const floating *x, Py_ssize_t stride, const floating *mass, Py_ssize_t mass_stride, floating top,
) noexcept nogil:
    """Sum of mass * (top - x) over four classes of a lane, one from each group of 16."""
    cdef floating cost = mass[0] * (top - x[0])
    cost = mul_add(mass[mass_stride], top - x[stride], cost)
    cost = mul_add(mass[2 * mass_stride], top - x[2 * stride], cost)
    return mul_add(mass[3 * mass_stride], top - x[3 * stride], cost)
