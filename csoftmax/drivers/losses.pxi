# The arithmetic of the drivers, over rows: targets scanned, weights and losses summed, masses of classes, gradients'
# scales brought into range. What is computed from logits is in kernels/. The order of a sum over rows stands here and
# depends on nothing but their number: blocks of LOSSES, each added up by the kernels, then these in order (add_blocks).

cimport cython
cimport numpy as cnp
from cython.parallel cimport prange
from libc.math cimport INFINITY, fabs, fma, frexp, ldexp
from libc.stdint cimport int64_t

from csoftmax.kernels.task cimport CHUNK, FLOAT64, MAX_TILE_ROWS, Task, has_factors

cdef enum:
    LOSSES = 1024               # or weights that are added to one sum
    WEIGHTS = 256               # that are brought together at a time: LOSSES are a multiple of it

cdef struct Targets:
    const int64_t *classes      # (n,), or NULL
    Py_ssize_t n
    Py_ssize_t n_classes
    bint has_ignore_index
    int64_t ignore_index

cdef struct Weights:            # of rows: their target's weight times their own
    Targets targets             # each 1 if there are none
    const double *of_class      # (n_classes,), or NULL for ones
    const double *of_row        # (n,), or NULL for ones

cdef struct Sum:
    double sum
    double carry                # what rounding took from it

cdef struct Scale:              # moderate * 2**exponent * factor
    double moderate
    int exponent
    double factor               # 1, or not finite


# ---- Targets ----

cdef inline Py_ssize_t targets_of(Py_ssize_t share, Py_ssize_t n) noexcept nogil:
    return min(n - share * TARGETS, TARGETS)


cdef Py_ssize_t first_outside(const Targets *of, Py_ssize_t *n_ignored, int n_threads) noexcept nogil:
    """The position of the first target that is no class, -1 if there is none; and how many are ignored."""
    cdef Py_ssize_t n = of.n, n_shares = (of.n + TARGETS - 1) // TARGETS, share, i, n_outside = 0, n_equal = 0
    n_threads = threads_for(n, n_shares // 2, n_threads)
    if n_threads == 1:
        for share in range(n_shares):
            n_outside += kernels.count_outside(of.classes + share * TARGETS, targets_of(share, n), of.n_classes)
            if of.has_ignore_index:
                n_equal += kernels.count_equal(of.classes + share * TARGETS, targets_of(share, n), of.ignore_index)
    else:   # sums of integers: the same in any order
        for share in prange(n_shares, schedule="static", num_threads=n_threads):
            n_outside += kernels.count_outside(of.classes + share * TARGETS, targets_of(share, n), of.n_classes)
            if of.has_ignore_index:
                n_equal += kernels.count_equal(of.classes + share * TARGETS, targets_of(share, n), of.ignore_index)
    n_ignored[0] = n_equal
    if n_outside > (0 if 0 <= of.ignore_index < of.n_classes else n_equal):
        for i in range(n):
            if not 0 <= of.classes[i] < of.n_classes and not is_ignored_class(of, of.classes[i]):
                return i
    return -1


cdef inline bint is_ignored_class(const Targets *of, int64_t target) noexcept nogil:
    return of.has_ignore_index and target == of.ignore_index


cdef Targets targets_in(cnp.ndarray target, Py_ssize_t n_classes, object ignore_index) except *:
    """Of an int64 array, C-contiguous; ignore_index is an int64 or None."""
    cdef Targets of
    of.classes = <const int64_t *>cnp.PyArray_DATA(target)
    of.n = cnp.PyArray_SIZE(target)
    of.n_classes = n_classes
    of.has_ignore_index = ignore_index is not None
    of.ignore_index = ignore_index if of.has_ignore_index else 0
    return of


cpdef (Py_ssize_t, Py_ssize_t) scan_targets(cnp.ndarray target, Py_ssize_t n_classes, object ignore_index,
                                            int n_threads):
    """Return the position of the first target that is no class (-1: none), and how many are ignored.

    target is int64 and C-contiguous; ignore_index is an int64 or None.
    """
    cdef Targets of = targets_in(target, n_classes, ignore_index)
    cdef Py_ssize_t position, n_ignored = 0
    with nogil:
        position = first_outside(&of, &n_ignored, n_threads)
    return position, n_ignored


# ---- Sums over rows ----

cdef inline double add_with_rest(double *sum, double value) noexcept nogil:
    """Add value to sum; return what rounding took from that."""
    cdef double total = sum[0] + value
    cdef double back = total - sum[0]
    cdef double lost = (sum[0] - (total - back)) + (value - back)
    sum[0] = total
    return lost


cdef Sum add_blocks(const Sum *blocks, Py_ssize_t n_blocks) noexcept nogil:
    """In order. An infinite sum has lost nothing."""
    cdef Sum all = Sum(0, 0)
    cdef double rounded
    cdef Py_ssize_t block
    cdef fp_state state = fp_enter()
    for block in range(n_blocks):
        all.carry += add_with_rest(&all.sum, blocks[block].sum) + blocks[block].carry
    if fabs(all.sum) < INFINITY:
        rounded = all.sum + all.carry
        all.carry -= rounded - all.sum
        all.sum = rounded
    else:
        all.carry = 0
    fp_leave(state)
    return all


cdef void add_losses(const double *losses, Py_ssize_t n, Py_ssize_t block, double scale, Sum *blocks) noexcept nogil:
    """Sum up a block of n losses times scale, a power of two."""
    cdef fp_state state = fp_enter()
    cdef Py_ssize_t first = block * LOSSES
    kernels.add_up(losses + first, min(n - first, LOSSES), scale, &blocks[block].sum, &blocks[block].carry)
    fp_leave(state)


cdef Sum sum_losses(const double *losses, Py_ssize_t n, double scale, Sum *blocks, int n_threads) noexcept nogil:
    cdef Py_ssize_t n_blocks = (n + LOSSES - 1) // LOSSES, block
    if n_threads == 1:
        for block in range(n_blocks):
            add_losses(losses, n, block, scale, blocks)
    else:
        for block in prange(n_blocks, schedule="static", num_threads=n_threads):
            add_losses(losses, n, block, scale, blocks)
    return add_blocks(blocks, n_blocks)


@cython.cdivision(True)  # over zero rows: NaN
cdef double quotient(Sum sum, Sum divisor) noexcept nogil:
    """sum / divisor, to half a unit in the last place and little more."""
    cdef double q = sum.sum / divisor.sum
    cdef double rest = fma(-q, divisor.sum, sum.sum) + (sum.carry - q * divisor.carry)
    return q + rest / divisor.sum if fabs(rest) < INFINITY and divisor.sum != 0 else q


cdef bint are_finite(const double *values, Py_ssize_t n) noexcept nogil:
    cdef bint finite = True
    cdef Py_ssize_t i
    for i in range(n):
        finite = finite and fabs(values[i]) < INFINITY
    return finite


cdef cnp.ndarray sums_of(Py_ssize_t n_blocks):
    """Memory for Sums of blocks, or None for a single one, which lies on the stack."""
    cdef cnp.npy_intp size = 2 * n_blocks
    return None if n_blocks <= 1 else cnp.PyArray_EMPTY(1, &size, cnp.NPY_DOUBLE, 0)


cpdef reduce_losses(cnp.ndarray losses, double divisor, double divisor_carry, cnp.ndarray out, int exponent,
                    int n_threads):
    """Write the sum of losses, float64 and C-contiguous, over divisor + divisor_carry, times 2**exponent, to out, a
    float32 or float64 of no dimensions.

    In a fixed order, to less than a unit in the last place.
    """
    cdef const double *p = doubles(losses)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(losses), n_blocks = (n + LOSSES - 1) // LOSSES
    cdef Sum one, total
    cdef cnp.ndarray several = sums_of(n_blocks)
    cdef Sum *blocks = &one if several is None else <Sum *>cnp.PyArray_DATA(several)
    cdef fp_state state
    cdef double result
    n_threads = threads_for(n, n_blocks, n_threads)
    with nogil:
        total = sum_losses(p, n, 1, blocks, n_threads)
        if not fabs(total.sum) < INFINITY and are_finite(p, n):     # whose mean need not be infinite
            exponent += 64
            total = sum_losses(p, n, 5.421010862427522e-20, blocks, n_threads)      # 2**-64
    state = fp_enter()
    result = quotient(total, Sum(divisor, divisor_carry))
    if exponent:
        result = ldexp(result, exponent)
    if storage_of(out) == FLOAT64:      # never -0.0
        (<double *>cnp.PyArray_DATA(out))[0] = result + 0.0
    else:
        (<float *>cnp.PyArray_DATA(out))[0] = <float>result + <float>0
    fp_leave(state)


cdef inline double weight_of(const Weights *of, Py_ssize_t i) noexcept nogil:
    cdef double weight = 1 if of.of_row == NULL else of.of_row[i]
    cdef int64_t target
    if of.targets.classes == NULL:
        return weight
    target = of.targets.classes[i]
    if is_ignored_class(&of.targets, target):
        return 0
    if of.of_class != NULL and 0 <= target < of.targets.n_classes:  # scanned, but another thread may have changed it
        weight = weight * of.of_class[target]
    return weight


cdef void add_weights(const Weights *of, Py_ssize_t block, Sum *blocks) noexcept nogil:
    """Sum up a block of weights, in pieces of WEIGHTS."""
    cdef double[WEIGHTS] piece
    cdef Sum[4] of_pieces       # LOSSES / WEIGHTS
    cdef Py_ssize_t first = block * LOSSES, end = min(first + LOSSES, of.targets.n), n, i
    cdef int n_pieces = 0
    cdef fp_state state = fp_enter()
    while first < end:
        n = min(end - first, WEIGHTS)
        for i in range(n):
            piece[i] = weight_of(of, first + i)
        kernels.add_up(piece, n, 1, &of_pieces[n_pieces].sum, &of_pieces[n_pieces].carry)
        n_pieces += 1
        first += WEIGHTS
    blocks[block] = add_blocks(of_pieces, n_pieces)
    fp_leave(state)


cpdef (double, double) total_weight(cnp.ndarray target, object ignore_index, cnp.ndarray weight,
                                    cnp.ndarray sample_weight, int n_threads):
    """Return the sum over the rows that are not ignored of the target's weight times the sample's, and what rounding
    took from it.

    target is int64, C-contiguous and scanned, or None for a weight of one; weights are float64 and C-contiguous.
    """
    cdef Weights of
    cdef Py_ssize_t n = cnp.PyArray_SIZE(sample_weight if target is None else target), block
    cdef Py_ssize_t n_blocks = (n + LOSSES - 1) // LOSSES
    cdef Sum one, total
    cdef cnp.ndarray several = sums_of(n_blocks)
    cdef Sum *blocks = &one if several is None else <Sum *>cnp.PyArray_DATA(several)
    if target is None:
        of.targets.classes = NULL
        of.targets.n = n
    else:
        of.targets = targets_in(target, 0 if weight is None else cnp.PyArray_SIZE(weight), ignore_index)
    of.of_class = doubles(weight)
    of.of_row = doubles(sample_weight)
    n_threads = threads_for(n, n_blocks, n_threads)
    with nogil:
        if n_threads == 1:
            for block in range(n_blocks):
                add_weights(&of, block, blocks)
        else:
            for block in prange(n_blocks, schedule="static", num_threads=n_threads):
                add_weights(&of, block, blocks)
        total = add_blocks(blocks, n_blocks)
    return total.sum, total.carry


# ---- Numbers so far from 1 that products with them could leave the range of the computation: see _extremes.py ----

cdef enum:                      # powers of two: what is ordinary is 0 or between them and their inverses
    MOST_WEIGHT = 20            # of a class
    MOST_SCALE = 40             # of a row: its weight, or the gradient of its loss


cdef bint are_within(cnp.ndarray values, int exponent) noexcept:
    """Whether each of the float64 values is 0 or between 2**-exponent and 2**exponent in size."""
    cdef const double *p = doubles(values)
    cdef double most = ldexp(1, exponent), least = ldexp(1, -exponent)
    cdef Py_ssize_t n = 0 if values is None else cnp.PyArray_SIZE(values), i
    cdef int found = 0
    for i in range(n):
        found |= not (least <= fabs(p[i]) <= most or p[i] == 0)
    return not found


cpdef bint are_ordinary_weights(cnp.ndarray values):
    """Whether float64 weights of classes, or None for ones, are."""
    return are_within(values, MOST_WEIGHT)


cpdef bint are_ordinary_scales(cnp.ndarray values):
    """Whether float64 weights of rows or gradients of their losses, or None for ones, are."""
    return are_within(values, MOST_SCALE)


cpdef bint is_ordinary_number(double number):
    """Whether a temperature, a divisor or both together are."""
    return 1e-12 < fabs(number) < 1e12


cpdef bint is_ordinary_smoothing(double smoothing):
    """Whether a label smoothing that is no NaN is: it may also be 0."""
    return smoothing == 0 or smoothing >= 1e-12


cpdef (bint, bint) look_at_losses(cnp.ndarray losses, bint wide_logits):
    """Return whether some float32 or float64 losses are so small or large that their summands may have left the logits'
    dtype, and whether some are infinite or NaN."""
    cdef double least = 1e-100 if wide_logits else 1e-25
    cdef bint wide = storage_of(losses) == FLOAT64
    cdef const double *d = <const double *>cnp.PyArray_DATA(losses)
    cdef const float *f = <const float *>cnp.PyArray_DATA(losses)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(losses), i
    cdef int far = 0, not_finite = 0
    cdef double value
    for i in range(n):
        value = d[i] if wide else f[i]
        far |= not least < fabs(value) < 1e30 and value != 0
        not_finite |= not fabs(value) < INFINITY
    return far, not_finite


# ---- Masses of classes ----

cdef cnp.ndarray masses_of_classes(const Task *task):
    """(n_classes,), of the task's dtype: smooth * weight."""
    cdef cnp.npy_intp size = task.n_classes
    cdef bint wide = task.dtype == FLOAT64
    cdef cnp.ndarray masses = cnp.PyArray_EMPTY(1, &size, cnp.NPY_DOUBLE if wide else cnp.NPY_FLOAT, 0)
    cdef void *to = cnp.PyArray_DATA(masses)
    cdef double mass
    cdef Py_ssize_t j
    for j in range(task.n_classes):
        mass = task.loss.smooth if task.loss.weight == NULL else task.loss.smooth * task.loss.weight[j]
        if wide:
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
    cdef double carry
    for chunk in range(n_chunks):
        carry = 0
        for j in range(chunk * CHUNK, min((chunk + 1) * CHUNK, n)):
            carry += add_with_rest(&to[chunk], p[j])
        to[chunk] += carry
    return sums


# ---- The scale of gradients ----

@cython.cdivision(True)
cdef Scale moderated(double scale, double divisor, int exponent, int dtype) noexcept nogil:
    """scale / divisor * 2**exponent, whose moderate part neither takes a probability out of the dtype's range nor adds
    one to it."""
    cdef int most = 560 if dtype == FLOAT64 else 80, of_scale = 0, of_divisor = 0
    cdef double m
    if 1e-18 < fabs(scale) < 1e18 and divisor == 1 and exponent == 0:
        return Scale(scale, 0, 1)
    m = frexp(scale, &of_scale) / frexp(divisor, &of_divisor)
    exponent += of_scale - of_divisor
    if scale == 0 and divisor != 0 and divisor == divisor:
        return Scale(scale, 0, 1)
    if not fabs(m) < INFINITY or m == 0:    # not finite, or divided by what is not
        return Scale(1, 0, scale / divisor)
    if -most <= exponent <= most:
        return Scale(ldexp(m, exponent), 0, 1)
    if exponent < 0:
        most = -most
    return Scale(ldexp(m, most), exponent - most, 1)


@cython.cdivision(True)
cdef void settle_scale(Task *task, double divisor) noexcept nogil:
    """Divide the gradient's scale by the divisor and the temperature, however large or small they are."""
    cdef int of_temperature = 0, of_scale = 0
    cdef double temperature = frexp(task.temperature, &of_temperature)
    cdef double mantissa = frexp(task.gradient.scale, &of_scale)
    cdef Scale scale = moderated(mantissa / temperature, divisor, of_scale - of_temperature, task.dtype)
    task.gradient.scale = scale.moderate
    task.gradient.exponent = scale.exponent
    task.gradient.factor = scale.factor


cdef void multiply_output(const Task *task) noexcept nogil:
    """By what is left of the scale: seldom anything. What was converted has been multiplied before."""
    cdef Py_ssize_t first = 0
    if not has_factors(task) or task.out.converts:
        return
    while first < task.n_rows:
        kernels.multiply_output[task.dtype](task, first, min(task.n_rows - first, MAX_TILE_ROWS))
        first += MAX_TILE_ROWS
