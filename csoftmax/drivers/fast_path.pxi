# What the public functions try first, a microsecond for a small call. It takes a subset of what _checks.py takes, by
# looking at types alone, returns None for everything else, and raises over no argument; then _general.py is asked.
# tests/test_fast_path.py shows that both give the same bits.

cimport cython
cimport numpy as cnp
from cython cimport floating
from libc.limits cimport INT_MAX
from libc.math cimport INFINITY, NAN, fabs

from csoftmax.kernels.task cimport FLOAT64, MAX_DIMS, Task

cdef extern from *:
    """
    #define is_numpy_integer(x) PyArray_IsScalar(x, Integer)
    #define is_numpy_floating(x) PyArray_IsScalar(x, Floating)
    """
    bint is_numpy_integer(object)
    bint is_numpy_floating(object)
    Py_ssize_t PyNumber_AsSsize_t(object, void *) except? -1


# The subset, each of exactly the type that is named:
#   x, logits           ndarray of float32, float64, float16 or bfloat16, aligned, of native byte order, with elements
#                       and dimensions;
#   grad, output        two of these, of one shape and dtype
#   axis                int or NumPy integer in range
#   keepdims            bool
#   temperature         int or float, NumPy's too, far from the ends of float32's range; for losses near 1
#   n_threads           None, or an int from 1 that C's int holds
#   out                 None, or C-contiguous as x is, of its shape and dtype: x itself, or apart from all that is read
#   target, index       C-contiguous ndarray of integers but uint64, all of them classes or ignored; targets also
#                       probabilities of the logits' dtype and shape, but only those without which losses keep their
#                       digits, and without weights of rows or a temperature
#   weight, sample_weight, grad_output  None, or C-contiguous ndarrays of float32 or float64 near 1 in size, with sums
#                       that are; grad_output of a mean or a sum a float near 1 in size
#   ignore_index        int of less than 63 bits
#   label_smoothing     float: 0, or from 1e-12 to 1
#   reduction           str

@cython.final
@cython.no_gc
cdef class FastLoss:                # a loss whose arguments were taken
    cdef int axis
    cdef int n_threads
    cdef bint has_indices
    cdef bint in_place              # the gradient takes the logits' place
    cdef bint to_mean
    cdef bint to_rows               # not reduced
    cdef double label_smoothing
    cdef double temperature
    cdef object ignore_index
    cdef Py_ssize_t n_ignored
    cdef cnp.ndarray target         # int64, or probabilities
    cdef cnp.ndarray weight         # float64, as those that follow, or None
    cdef cnp.ndarray sample_weight
    cdef cnp.ndarray grad_weight    # what the rows' gradients are multiplied by


# ---- Arguments ----

cdef bint is_fast(object x) noexcept:
    """Whether the kernels can read x as it is."""
    if type(x) is not cnp.ndarray:
        return False
    cdef cnp.ndarray a = x
    return ((cnp.PyArray_TYPE(a) in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE, cnp.NPY_FLOAT16) or is_bfloat16(a))
            and cnp.PyArray_ISBEHAVED_RO(a) and cnp.PyArray_NDIM(a) > 0 and cnp.PyArray_SIZE(a) > 0)


cdef inline bint is_single_or_double(cnp.ndarray a) noexcept:
    return cnp.PyArray_TYPE(a) in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE)


cdef int number_of_rows_dtype(cnp.ndarray x) noexcept:
    """NumPy's number of the dtype that results of x's rows have."""
    return cnp.NPY_DOUBLE if dtype_of(x) == FLOAT64 else cnp.NPY_FLOAT


cdef int fast_axis(object axis, int n_dims) except -2:
    """The axis counted from the front, -1 if it is refused."""
    cdef Py_ssize_t number
    if type(axis) is not int and not is_numpy_integer(axis):
        return -1
    number = PyNumber_AsSsize_t(axis, NULL)         # one that is too large becomes the largest
    if not -n_dims <= number < n_dims:
        return -1
    return <int>(number if number >= 0 else number + n_dims)


cdef int fast_threads(object n_threads) except -2:
    """The number of threads, 0 for None, -1 if it is refused."""
    if n_threads is None:
        return 0
    if type(n_threads) is not int or not 0 < n_threads <= INT_MAX:
        return -1
    return n_threads


cdef double fast_number(object number) except? -1:
    """A temperature or a factor as a double, NaN if it is refused."""
    if type(number) is float or is_numpy_floating(number):
        return number
    if type(number) is int and -(1 << 62) < number < 1 << 62:
        return number
    return NAN


cdef double fast_temperature(object temperature) except? -1:
    """The temperature, 0 if it is refused."""
    cdef double number = fast_number(temperature)
    return number if 1e-30 < number < 1e30 else 0


cdef cnp.ndarray fast_integers(object target):
    """In int64, or None."""
    if type(target) is not cnp.ndarray:
        return None
    cdef cnp.ndarray y = target
    if not cnp.PyArray_ISCARRAY_RO(y):
        return None
    if cnp.PyArray_TYPE(y) == cnp.NPY_INT64:
        return y
    if cnp.PyArray_ISINTEGER(y) and (cnp.PyArray_ITEMSIZE(y) < 8 or cnp.PyArray_ISSIGNED(y)):
        return cnp.PyArray_Cast(y, cnp.NPY_INT64)
    return None


cdef bint is_like(cnp.ndarray a, cnp.ndarray x) noexcept:
    """Whether a has the dtype and the shape of x."""
    cdef int d
    if cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(x) or cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(x):
        return False
    for d in range(cnp.PyArray_NDIM(x)):
        if cnp.PyArray_DIM(a, d) != cnp.PyArray_DIM(x, d):
            return False
    return True


cdef bint starts_with_rows(cnp.ndarray y, cnp.ndarray x, int axis) noexcept:
    """Whether the first dimensions of y are those of x without axis; y has at least as many."""
    cdef int d, n = 0
    for d in range(cnp.PyArray_NDIM(x)):
        if d != axis:
            if cnp.PyArray_DIM(y, n) != cnp.PyArray_DIM(x, d):
                return False
            n += 1
    return True


cdef bint lie_apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two C-contiguous arrays share no memory."""
    cdef Py_ssize_t distance = <char *>cnp.PyArray_DATA(a) - <char *>cnp.PyArray_DATA(b)
    return distance >= cnp.PyArray_NBYTES(b) or -distance >= cnp.PyArray_NBYTES(a)


cdef bint fits(cnp.ndarray x, object out) noexcept:
    """Whether out is x itself, or as C-contiguous as x and elsewhere."""
    cdef cnp.ndarray a
    if type(out) is not cnp.ndarray:
        return False
    a = out
    if not cnp.PyArray_ISCARRAY(a) or not cnp.PyArray_ISCARRAY_RO(x) or not is_like(a, x):
        return False
    return cnp.PyArray_DATA(a) == cnp.PyArray_DATA(x) or lie_apart(a, x)


cdef bint is_room_for_rows(cnp.ndarray x, int axis, bint keepdims, object out) except -1:
    """Whether logsumexp can be written to out, apart from x."""
    cdef cnp.ndarray a
    cdef int d, n = 0
    if type(out) is not cnp.ndarray:
        return False
    a = out
    if (not cnp.PyArray_ISCARRAY(a) or not cnp.PyArray_ISCARRAY_RO(x) or cnp.PyArray_TYPE(a) != number_of_rows_dtype(x)
            or cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(x) - (not keepdims) or not lie_apart(a, x)):
        return False
    for d in range(cnp.PyArray_NDIM(x)):
        if d == axis and not keepdims:
            continue
        if cnp.PyArray_DIM(a, n) != (cnp.PyArray_DIM(x, d) if d != axis else 1):
            return False
        n += 1
    return True


cdef cnp.ndarray rows_like(cnp.ndarray x, int axis, int dtype, bint keepdims=False):
    """An empty array of x's shape without axis, or with one class there."""
    cdef cnp.npy_intp[MAX_DIMS] shape
    cdef int d, n = 0
    for d in range(cnp.PyArray_NDIM(x)):
        if d != axis or keepdims:
            shape[n] = cnp.PyArray_DIM(x, d) if d != axis else 1
            n += 1
    return empty_array(n, shape, dtype)


cdef object scalar_or_array(cnp.ndarray result):
    return result[()] if cnp.PyArray_NDIM(result) == 0 else result


# ---- One result per logit, or one per row ----

def fast_probabilities(object x, object axis, object out, bint log, object temperature, object n_threads):
    cdef int number, threads = fast_threads(n_threads)
    cdef double divisor = fast_temperature(temperature)
    if threads < 0 or divisor == 0 or not is_fast(x):
        return None
    number = fast_axis(axis, cnp.PyArray_NDIM(<cnp.ndarray>x))
    if number < 0:
        return None
    if out is None:
        out = empty_result(<cnp.ndarray>x)
    elif not fits(x, out):
        return None
    probabilities(x, number, out, log, divisor, threads)
    return out


def fast_logsumexp(object x, object axis, object keepdims, object temperature, object out, object n_threads):
    cdef int number, threads = fast_threads(n_threads)
    cdef double divisor = fast_temperature(temperature)
    cdef cnp.ndarray result
    if threads < 0 or divisor == 0 or type(keepdims) is not bool or not is_fast(x):
        return None
    number = fast_axis(axis, cnp.PyArray_NDIM(<cnp.ndarray>x))
    if number < 0:
        return None
    if out is None:
        result = rows_like(x, number, number_of_rows_dtype(x), keepdims)
    elif is_room_for_rows(x, number, keepdims, out):
        result = out
    else:
        return None
    logsumexp(x, number, result, divisor, None, threads)
    return out if out is not None else scalar_or_array(result)


def fast_log_prob(object logits, object index, object axis, object temperature, object n_threads):
    cdef int number, threads = fast_threads(n_threads)
    cdef double divisor = fast_temperature(temperature)
    cdef cnp.ndarray x, y, out
    if threads < 0 or divisor == 0 or not is_fast(logits):
        return None
    x, y = logits, fast_integers(index)
    number = fast_axis(axis, cnp.PyArray_NDIM(x))
    if (y is None or number < 0 or cnp.PyArray_NDIM(y) not in (cnp.PyArray_NDIM(x) - 1, cnp.PyArray_NDIM(x))
            or not starts_with_rows(y, x, number)):
        return None
    if cnp.PyArray_SIZE(y) == 0 or scan_targets(y, cnp.PyArray_DIM(x, number), None, threads)[0] >= 0:
        return None
    out = empty_array(cnp.PyArray_NDIM(y), cnp.PyArray_DIMS(y), number_of_rows_dtype(x))
    log_prob(x, number, y, out, divisor, threads)
    return scalar_or_array(out)


def fast_backward(object grad, object output, object axis, object out, bint log, object n_threads):
    cdef int number, threads = fast_threads(n_threads)
    if threads < 0 or not is_fast(grad) or not is_fast(output) or not is_like(grad, output):
        return None
    number = fast_axis(axis, cnp.PyArray_NDIM(<cnp.ndarray>grad))
    if number < 0:
        return None
    if out is None:
        out = empty_result(<cnp.ndarray>output)
    elif not fits(grad, out) or not fits(output, out):
        return None
    backward(grad, output, number, out, log, threads)
    return out


# ---- Losses ----

# As many parameters as there are arguments: packed, they would cost what the fast path saves.
def fast_cross_entropy(object logits, object target, object axis, object weight, object sample_weight,
                       object ignore_index, object label_smoothing, object temperature, object reduction,
                       object grad_output, object out, bint with_grad, object n_threads):
    """Loss and gradient, which is None unless with_grad; or None."""
    cdef FastLoss given
    if type(reduction) is not str or not is_fast(logits):
        return None
    given = FastLoss.__new__(FastLoss)
    given.to_mean, given.to_rows = reduction == "mean", reduction == "none"
    if not (given.to_mean or given.to_rows or reduction == "sum"):
        return None
    if not takes_options(given, logits, axis, label_smoothing, temperature, n_threads):
        return None
    if not takes_weights(given, logits, weight, sample_weight, grad_output):
        return None
    if not takes_target(given, logits, target, ignore_index):
        return None
    if with_grad:
        if out is None:
            out = empty_result(<cnp.ndarray>logits)
        elif (not takes_out(given, logits, out)
              or not lies_apart_from_all(out, target, weight, sample_weight, grad_output)):
            return None
    else:
        out = None
    return loss_and_grad(given, logits, out)


cdef bint takes_options(FastLoss given, cnp.ndarray x, object axis, object label_smoothing, object temperature,
                        object n_threads) except -1:
    given.n_threads = fast_threads(n_threads)
    if given.n_threads < 0 or type(label_smoothing) is not float:
        return False
    given.axis = fast_axis(axis, cnp.PyArray_NDIM(x))
    given.label_smoothing = label_smoothing
    given.temperature = fast_temperature(temperature)
    return (given.axis >= 0 and given.label_smoothing <= 1 and is_ordinary_smoothing(given.label_smoothing)
            and is_ordinary_number(given.temperature))


cdef bint takes_weights(FastLoss given, cnp.ndarray x, object weight, object sample_weight,
                        object grad_output) except -1:
    cdef double factor
    if weight is not None:
        given.weight = weights_near_one(weight)
        if (given.weight is None or cnp.PyArray_NDIM(given.weight) != 1
                or cnp.PyArray_DIM(given.weight, 0) != cnp.PyArray_DIM(x, given.axis)
                or not are_ordinary_weights(given.weight)):
            return False
    if sample_weight is not None:
        given.sample_weight = weights_near_one(sample_weight)
        if given.sample_weight is None or not is_one_per_row(given.sample_weight, x, given.axis):
            return False
    given.grad_weight = given.sample_weight
    if grad_output is None:
        return True
    if given.to_rows:
        given.grad_weight = weights_near_one(grad_output)
        if given.grad_weight is None or not is_one_per_row(given.grad_weight, x, given.axis):
            return False
        multiply_numbers(given.grad_weight, given.sample_weight)
        return True
    factor = fast_number(grad_output)
    if not (factor == 0 or 1e-12 < fabs(factor) < 1e12):
        return False
    given.grad_weight = factors_of_rows(rows_like(x, given.axis, cnp.NPY_DOUBLE), given.sample_weight, factor)
    return True


cdef bint takes_target(FastLoss given, cnp.ndarray x, object target, object ignore_index) except -1:
    cdef cnp.ndarray y
    cdef Py_ssize_t bad
    if type(target) is not cnp.ndarray or type(ignore_index) is not int or not -(1 << 62) < ignore_index < 1 << 62:
        return False
    given.ignore_index = ignore_index
    given.target = y = fast_integers(target)
    given.has_indices = y is not None
    if not given.has_indices:
        given.target = y = target
        return (cnp.PyArray_ISCARRAY_RO(y) and is_like(y, x) and given.temperature == 1
                and given.grad_weight is None and given.sample_weight is None)
    if cnp.PyArray_NDIM(y) != cnp.PyArray_NDIM(x) - 1 or not starts_with_rows(y, x, given.axis):
        return False
    bad, given.n_ignored = scan_targets(y, cnp.PyArray_DIM(x, given.axis), ignore_index, given.n_threads)
    return bad < 0


cdef cnp.ndarray weights_near_one(object weight):
    """In float64, a copy; or None."""
    if not is_fast(weight) or not is_single_or_double(weight) or not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>weight):
        return None
    return cnp.PyArray_Cast(<cnp.ndarray>weight, cnp.NPY_DOUBLE)


cdef bint is_one_per_row(cnp.ndarray values, cnp.ndarray x, int axis):
    """Whether they are, and no product with them leaves the range."""
    return (cnp.PyArray_NDIM(values) == cnp.PyArray_NDIM(x) - 1 and starts_with_rows(values, x, axis)
            and are_ordinary_scales(values))


cdef cnp.ndarray factors_of_rows(cnp.ndarray rows, cnp.ndarray sample_weight, double factor):
    """In `rows`, whose numbers are overwritten."""
    cdef double *p = <double *>doubles(rows)
    cdef Py_ssize_t i
    for i in range(cnp.PyArray_SIZE(rows)):
        p[i] = factor
    multiply_numbers(rows, sample_weight)
    return rows


cdef void multiply_numbers(cnp.ndarray values, cnp.ndarray others) noexcept:
    """By others, unless these are None."""
    cdef double *p = <double *>doubles(values)
    cdef const double *q = doubles(others)
    cdef Py_ssize_t i
    cdef fp_state state = fp_enter()
    for i in range(cnp.PyArray_SIZE(values) if q != NULL else 0):
        p[i] *= q[i]
    fp_leave(state)


cdef bint lies_apart_from_all(cnp.ndarray out, object target, object weight, object sample_weight,
                              object grad_output) noexcept:
    """From the arguments themselves, of which there may be copies: the long way may have to read them again."""
    for each in (target, weight, sample_weight, grad_output):
        if type(each) is cnp.ndarray and not lie_apart(out, each):
            return False
    return True


cdef bint has_negative(cnp.ndarray values) noexcept:
    return values is not None and not are_zero_or_within(
        doubles(values), cnp.PyArray_SIZE(values), 0, INFINITY)


cdef bint takes_out(FastLoss given, cnp.ndarray x, object out) except -1:
    cdef cnp.ndarray y = given.target
    if not fits(x, out):
        return False
    given.in_place = not lie_apart(out, x)
    if not given.in_place:
        return True
    if not is_single_or_double(x) and not (
            given.weight is None and given.label_smoothing == 0 and given.has_indices):
        return False            # what comes next looks at numbers
    # Then the logits cannot be read again: no loss may turn out to have left the range, nor two with signs that differ.
    if has_negative(given.weight) or has_negative(given.sample_weight):
        return False
    if (given.weight is not None or given.label_smoothing != 0 or not given.has_indices) and has_far_logits(x):
        return False
    if given.has_indices:
        return True
    if cnp.PyArray_TYPE(y) == cnp.NPY_DOUBLE:
        return are_zero_or_within(<const double *>cnp.PyArray_DATA(y), cnp.PyArray_SIZE(y), 1e-29, 1e29)
    return are_zero_or_within(<const float *>cnp.PyArray_DATA(y), cnp.PyArray_SIZE(y), 1e-29, 1e29)


cdef bint has_far_logits(cnp.ndarray x) noexcept:
    """Whether there are finite logits so large that masses times their differences may not be finite."""
    cdef const double *d = <const double *>cnp.PyArray_DATA(x)
    cdef const float *f = <const float *>cnp.PyArray_DATA(x)
    cdef Py_ssize_t i
    cdef int found = 0
    if cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE:
        for i in range(cnp.PyArray_SIZE(x)):
            found |= 1e280 < fabs(d[i]) < INFINITY
    else:
        for i in range(cnp.PyArray_SIZE(x)):
            found |= 1e30 < fabs(f[i]) < INFINITY
    return found


cdef bint are_zero_or_within(const floating *values, Py_ssize_t n, double least, double most) noexcept:
    cdef floating low = <floating>least, high = <floating>most
    cdef Py_ssize_t i
    cdef int found = 0
    for i in range(n):
        found |= not (low <= values[i] <= high or values[i] == 0)
    return not found


cdef tuple loss_and_grad(FastLoss given, cnp.ndarray x, cnp.ndarray grad):
    """The result; None if only the losses tell that the long way has to be taken."""
    cdef cnp.ndarray total, losses = rows_like(
        x, given.axis, number_of_rows_dtype(x) if given.to_rows else cnp.NPY_DOUBLE)
    cdef double divisor = 1, divisor_carry = 0
    cdef bint far, not_finite
    cdef Task task
    if given.to_mean and (given.weight is None or not given.has_indices) and given.sample_weight is None:
        divisor = cnp.PyArray_SIZE(losses) - given.n_ignored
    elif given.to_mean:
        divisor, divisor_carry = total_weight(
            given.target, given.ignore_index, given.weight, given.sample_weight, given.n_threads)
        if not is_ordinary_number(divisor):
            return None
    if given.temperature != 1 and not is_ordinary_number(divisor * given.temperature):
        return None
    describe(&task, x, given.axis, dtype_of(x))
    task.temperature = given.temperature
    task.loss.weight = doubles(given.weight)
    task.loss.sample_weight = doubles(given.sample_weight)
    task.gradient.weight = doubles(given.grad_weight)
    if given.has_indices:
        ask_for_loss(&task, given.target, given.ignore_index)
    else:
        ask_for_loss_of_probabilities(&task, given.target, given.axis)
    write_loss(&task, losses, grad, given.axis, given.label_smoothing, divisor, given.n_threads)
    if not given.in_place and (given.weight is not None or given.sample_weight is not None
                               or given.label_smoothing != 0 or not given.has_indices):
        far, not_finite = look_at_losses(losses, task.dtype == FLOAT64)
        if not_finite or far and not given.has_indices:
            return None         # a summand may have left the range, or probabilities are far from 1
    if given.to_rows:
        return scalar_or_array(losses), grad
    total = cnp.PyArray_EMPTY(0, NULL, number_of_rows_dtype(x), 0)
    reduce_losses(losses, divisor, divisor_carry, total, 0, given.n_threads)
    return total[()], grad
