# The arithmetic of the drivers, all of it about losses: targets scanned, weights and losses summed in an order that
# does not depend on the threads, masses of classes, and the scale of gradients kept in range. What is computed from the
# logits is in kernels/.

cimport cython
cimport numpy as cnp
from cython.parallel cimport prange
from libc.math cimport INFINITY, fabs, fma, frexp, ldexp
from libc.stdint cimport int64_t

from csoftmax.kernels.task cimport CHUNK, GRADIENT, MAX_TILE_ROWS, Task

cdef enum:
    # The order of every sum over rows follows from this: so many are added to one sum, and these in order.
    LOSSES = 1024
    # Weights that are brought together at a time, on the stack: a whole part of LOSSES.
    WEIGHTS = 256
    # A power of two: between it and its inverse weights need no scaling.
    ORDINARY = 20


cdef Py_ssize_t first_outside(const int64_t *target, Py_ssize_t n, Py_ssize_t n_classes, bint has_ignore_index,
                              int64_t ignore_index, Py_ssize_t *n_ignored, int n_threads) noexcept nogil:
    """The position of the first target that is no class, -1 if there is none; and how many are ignored."""
    cdef Py_ssize_t n_shares = (n + TARGETS - 1) // TARGETS, share, i, n_outside = 0, n_equal = 0
    n_threads = threads_for(n, n_shares // 2, n_threads)
    if n_threads == 1:
        for share in range(n_shares):
            n_outside += kernels.count_outside(target + share * TARGETS, targets_of(share, n), n_classes)
            if has_ignore_index:
                n_equal += kernels.count_equal(target + share * TARGETS, targets_of(share, n), ignore_index)
    else:   # sums of integers: the same in any order
        for share in prange(n_shares, schedule="static", num_threads=n_threads):
            n_outside += kernels.count_outside(target + share * TARGETS, targets_of(share, n), n_classes)
            if has_ignore_index:
                n_equal += kernels.count_equal(target + share * TARGETS, targets_of(share, n), ignore_index)
    n_ignored[0] = n_equal
    if n_outside > (0 if 0 <= ignore_index < n_classes else n_ignored[0]):
        for i in range(n):
            if not (has_ignore_index and target[i] == ignore_index) and not 0 <= target[i] < n_classes:
                return i
    return -1


cdef inline Py_ssize_t targets_of(Py_ssize_t share, Py_ssize_t n) noexcept nogil:
    return TARGETS if n - share * TARGETS > TARGETS else n - share * TARGETS


cpdef (Py_ssize_t, Py_ssize_t) scan_targets(cnp.ndarray target, Py_ssize_t n_classes, object ignore_index,
                                            int n_threads):
    """Return the position of the first target that is no class (-1: none), and how many are ignored.

    target is int64 and C-contiguous; ignore_index is an int64 or None.
    """
    cdef const int64_t *classes = <const int64_t *>cnp.PyArray_DATA(target)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(target), position, n_ignored
    cdef bint has_ignore_index = ignore_index is not None
    cdef int64_t ignored = ignore_index if has_ignore_index else 0
    with nogil:
        position = first_outside(classes, n, n_classes, has_ignore_index, ignored, &n_ignored, n_threads)
    return position, n_ignored


cdef void add_losses(const double *losses, Py_ssize_t n, Py_ssize_t block, double scale, double *sums) noexcept nogil:
    """Write the sum of a block of n losses, and what rounding took from it, to its place in `sums`."""
    cdef fp_state state = fp_enter()
    cdef Py_ssize_t first = block * LOSSES
    kernels.add_up(losses + first, LOSSES if n - first > LOSSES else n - first, scale, sums + 2 * block,
                   sums + 2 * block + 1)
    fp_leave(state)


cdef void add_blocks(const double *sums, Py_ssize_t n_blocks, double *sum, double *carry) noexcept nogil:
    """In order, with what rounding takes. An infinite sum has lost nothing."""
    cdef double total, back
    cdef Py_ssize_t block
    cdef fp_state state = fp_enter()
    sum[0] = carry[0] = 0
    for block in range(n_blocks):
        total = sum[0] + sums[2 * block]
        back = total - sum[0]
        carry[0] += ((sum[0] - (total - back)) + (sums[2 * block] - back)) + sums[2 * block + 1]
        sum[0] = total
    if fabs(sum[0]) < INFINITY:
        total = sum[0] + carry[0]       # the sum rounded, and how far that is from it
        carry[0] -= total - sum[0]
        sum[0] = total
    else:
        carry[0] = 0
    fp_leave(state)


cdef void sum_losses(const double *losses, Py_ssize_t n, double scale, double *sums, int n_threads, double *sum,
                     double *carry) noexcept nogil:
    cdef Py_ssize_t n_blocks = (n + LOSSES - 1) // LOSSES, block
    if n_threads == 1:
        for block in range(n_blocks):
            add_losses(losses, n, block, scale, sums)
    else:
        for block in prange(n_blocks, schedule="static", num_threads=n_threads):
            add_losses(losses, n, block, scale, sums)
    add_blocks(sums, n_blocks, sum, carry)


@cython.cdivision(True)  # over zero rows: NaN
cdef double quotient(double sum, double carry, double divisor, double divisor_carry) noexcept nogil:
    """(sum + carry) / (divisor + divisor_carry), to half a unit in the last place and little more."""
    cdef double q = sum / divisor
    cdef double rest = fma(-q, divisor, sum) + (carry - q * divisor_carry)
    return q + rest / divisor if fabs(rest) < INFINITY and divisor != 0 else q


cpdef reduce_losses(cnp.ndarray losses, double divisor, double divisor_carry, cnp.ndarray out, int exponent,
                    int n_threads):
    """Write the sum of losses, float64 and C-contiguous, over divisor + divisor_carry, times 2**exponent, to out, a
    float32 or float64 of no dimensions.

    In a fixed order, to less than a unit in the last place.
    """
    cdef const double *p = <const double *>cnp.PyArray_DATA(losses)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(losses), i
    cdef cnp.npy_intp size = 2 * ((n + LOSSES - 1) // LOSSES)
    cdef double[2] of_one_block
    cdef cnp.ndarray sums = None if size <= 2 else cnp.PyArray_EMPTY(1, &size, cnp.NPY_DOUBLE, 0)
    cdef double *of_blocks = &of_one_block[0] if size <= 2 else doubles(sums)
    cdef double total, carry
    cdef bint finite
    cdef fp_state state
    n_threads = threads_for(n, size // 2, n_threads)
    with nogil:
        sum_losses(p, n, 1, of_blocks, n_threads, &total, &carry)
        if not fabs(total) < INFINITY:      # also of finite losses, whose mean need not be infinite
            finite = True
            for i in range(n):
                finite = finite and fabs(p[i]) < INFINITY
            if finite:
                exponent += 64
                sum_losses(p, n, 5.421010862427522e-20, of_blocks, n_threads, &total, &carry)
    state = fp_enter()
    total = quotient(total, carry, divisor, divisor_carry)
    if exponent:
        total = ldexp(total, exponent)
    if dtype_of(out):           # never -0.0
        (<double *>cnp.PyArray_DATA(out))[0] = total + 0.0
    else:
        (<float *>cnp.PyArray_DATA(out))[0] = <float>total + <float>0
    fp_leave(state)


cdef void weight_of_block(
    Py_ssize_t block,
    Py_ssize_t n,               # rows, of which LOSSES are a block
    const int64_t *target,      # (n,), or NULL for a weight of one
    bint has_ignore_index, int64_t ignore_index,
    const double *weight,       # (n_classes,), or NULL for ones
    Py_ssize_t n_classes,
    const double *sample_weight,        # (n,), or NULL for ones
    double *sums,               # OUT  the block's sum, and what rounding took from it, at its place
) noexcept nogil:
    cdef double[WEIGHTS] some
    cdef Py_ssize_t first, i, m, end = (block + 1) * LOSSES if (block + 1) * LOSSES < n else n
    cdef double sum, carry, one
    cdef double[8] of_pieces    # (LOSSES / WEIGHTS, 2)
    cdef fp_state state = fp_enter()
    for first in range(block * LOSSES, end, 256):       # by WEIGHTS
        m = WEIGHTS if end - first > WEIGHTS else end - first
        for i in range(m):
            one = 1 if sample_weight == NULL else sample_weight[first + i]
            if weight != NULL:      # scanned, but another thread may have changed it since
                one = one * weight[target[first + i]] if 0 <= target[first + i] < n_classes else one
            some[i] = 0 if target != NULL and has_ignore_index and target[first + i] == ignore_index else one
        i = (first - block * LOSSES) // WEIGHTS
        kernels.add_up(some, m, 1, &of_pieces[2 * i], &of_pieces[2 * i + 1])
    add_blocks(of_pieces, (end - block * LOSSES + WEIGHTS - 1) // WEIGHTS, &sum, &carry)
    sums[2 * block], sums[2 * block + 1] = sum, carry
    fp_leave(state)


cpdef (double, double) total_weight(cnp.ndarray target, object ignore_index, cnp.ndarray weight,
                                    cnp.ndarray sample_weight, int n_threads):
    """Return the sum over the rows that are not ignored of the target's weight times the sample's, and what rounding
    took from it.

    target is int64, C-contiguous and scanned, or None for a weight of one; weights are float64 and C-contiguous.
    """
    cdef const int64_t *classes = NULL if target is None else <int64_t *>cnp.PyArray_DATA(target)
    cdef const double *of_class = doubles(weight)
    cdef const double *of_sample = doubles(sample_weight)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(sample_weight if target is None else target)
    cdef Py_ssize_t n_classes = 0 if weight is None else cnp.PyArray_SIZE(weight)
    cdef Py_ssize_t n_blocks = (n + LOSSES - 1) // LOSSES
    cdef cnp.npy_intp size = 2 * n_blocks
    cdef double[2] of_one_block
    cdef cnp.ndarray sums = None if n_blocks <= 1 else cnp.PyArray_EMPTY(1, &size, cnp.NPY_DOUBLE, 0)
    cdef double *p = &of_one_block[0] if n_blocks <= 1 else doubles(sums)
    cdef bint has_ignore_index = ignore_index is not None
    cdef int64_t ignored = ignore_index if has_ignore_index else 0
    cdef Py_ssize_t block
    cdef double sum, carry
    n_threads = threads_for(n, n_blocks, n_threads)
    with nogil:
        if n_threads == 1:
            for block in range(n_blocks):
                weight_of_block(block, n, classes, has_ignore_index, ignored, of_class, n_classes, of_sample, p)
        else:
            for block in prange(n_blocks, schedule="static", num_threads=n_threads):
                weight_of_block(block, n, classes, has_ignore_index, ignored, of_class, n_classes, of_sample, p)
        add_blocks(p, n_blocks, &sum, &carry)
    return sum, carry


cdef enum:
    NAN_LOSS = 1
    PLUS_LOSS = 2                   # infinite
    MINUS_LOSS = 4
    FAR_LOSS = 8                    # so small or large that its summands may have left the logits' dtype


def kinds_of_losses(cnp.ndarray losses, bint wide_logits):
    """Return what there is among float32 or float64 losses, as a sum of numbers."""
    cdef double least = 1e-100 if wide_logits else 1e-25
    cdef bint wide = dtype_of(losses)
    cdef const double *d = <const double *>cnp.PyArray_DATA(losses)
    cdef const float *f = <const float *>cnp.PyArray_DATA(losses)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(losses), i
    cdef int found = 0
    cdef double value
    for i in range(n):
        value = d[i] if wide else f[i]
        found |= (value != value) * NAN_LOSS | (value == INFINITY) * PLUS_LOSS | (value == -INFINITY) * MINUS_LOSS
        found |= (not least < fabs(value) < 1e30 and value != 0) * FAR_LOSS
    return found


cpdef bint are_ordinary(cnp.ndarray values, int exponent):
    """Whether each of the float64 values is 0 or between 2**-exponent and 2**exponent in size."""
    cdef const double *p = doubles(values)
    cdef double most = ldexp(1, exponent), least = ldexp(1, -exponent)
    cdef Py_ssize_t n = 0 if values is None else cnp.PyArray_SIZE(values), i
    cdef int found = 0
    for i in range(n):
        found |= not (least <= fabs(p[i]) <= most or p[i] == 0)
    return not found


cdef cnp.ndarray masses_of_classes(double smooth, cnp.ndarray weight, Py_ssize_t n_classes, int dtype):
    """(n_classes,), of dtype: smooth * weight."""
    cdef cnp.npy_intp size = n_classes
    cdef cnp.ndarray masses = cnp.PyArray_EMPTY(1, &size, dtype, 0)
    cdef void *to = cnp.PyArray_DATA(masses)
    cdef const double *weights = doubles(weight)
    cdef double mass
    cdef Py_ssize_t j
    for j in range(n_classes):
        mass = smooth if weights == NULL else smooth * weights[j]
        if dtype == cnp.NPY_DOUBLE:
            (<double *>to)[j] = mass
        else:
            (<float *>to)[j] = <float>mass      # NumPy would warn of an overflow
    return masses


cdef cnp.ndarray sums_of_chunks(cnp.ndarray masses):
    """(n_chunks,), in double, with what rounding takes: many equal masses would lose the same each time."""
    cdef cnp.ndarray exact = cnp.PyArray_Cast(masses, cnp.NPY_DOUBLE)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(masses), chunk, j
    cdef cnp.npy_intp n_chunks = (n + CHUNK - 1) // CHUNK
    cdef cnp.ndarray sums = cnp.PyArray_ZEROS(1, &n_chunks, cnp.NPY_DOUBLE, 0)
    cdef double *to = doubles(sums)
    cdef const double *p = doubles(exact)
    cdef double sum, back, carry
    for chunk in range(n_chunks):
        carry = 0
        for j in range(chunk * CHUNK, n if n < (chunk + 1) * CHUNK else (chunk + 1) * CHUNK):
            sum = to[chunk] + p[j]
            back = sum - to[chunk]
            carry += (to[chunk] - (sum - back)) + (p[j] - back)
            to[chunk] = sum
        to[chunk] += carry
    return sums


@cython.cdivision(True)
cdef void moderate(double scale, double divisor, int dtype, double *moderate_scale, int *exponent,
                   double *factor) noexcept nogil:
    """scale / divisor * 2**exponent as moderate_scale * 2**exponent * factor, the first a number that neither takes a
    probability out of the dtype's range nor adds one to it."""
    cdef int most = 560 if dtype else 80, e = 0, of_divisor = 0
    cdef double m
    factor[0] = 1
    if 1e-18 < fabs(scale) < 1e18 and divisor == 1 and exponent[0] == 0:
        moderate_scale[0] = scale
        return
    m = frexp(scale, &e) / frexp(divisor, &of_divisor)
    e += exponent[0] - of_divisor
    exponent[0] = 0
    if scale == 0 and divisor != 0 and divisor == divisor:
        moderate_scale[0] = scale
    elif not fabs(m) < INFINITY or m == 0:  # not finite, or divided by what is not
        moderate_scale[0] = 1
        factor[0] = scale / divisor
    elif -most <= e <= most:
        moderate_scale[0] = ldexp(m, e)
    else:
        moderate_scale[0] = ldexp(m, most if e > 0 else -most)
        exponent[0] = e - (most if e > 0 else -most)


@cython.cdivision(True)
cdef void settle_scale(Task *task, double divisor) noexcept nogil:
    """Divide the gradient's scale by the divisor and the temperature, however large or small they are."""
    cdef int of_temperature = 0, of_scale = 0
    cdef double temperature = frexp(task.temperature, &of_temperature)
    cdef double scale = frexp(task.gradient.scale, &of_scale)
    task.gradient.exponent = of_scale - of_temperature
    moderate(scale / temperature, divisor, task.dtype, &task.gradient.scale, &task.gradient.exponent,
             &task.gradient.factor)


cdef void multiply_output(const Task *task) noexcept nogil:
    """By what is left of the scale: seldom anything."""
    cdef Py_ssize_t first = 0
    if task.output != GRADIENT or task.gradient.exponent == 0 and task.gradient.factor == 1 and (
            task.gradient.row_factor == NULL and task.gradient.row_exponent == NULL):
        return
    while first < task.n_rows:
        kernels.multiply_output[task.dtype](task, first, min(task.n_rows - first, MAX_TILE_ROWS))
        first += MAX_TILE_ROWS
