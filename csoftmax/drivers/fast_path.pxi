# What the public functions try first, a microsecond for a small call. It takes a subset of what _checks.py takes, by
# looking at types alone, returns None for everything else, and raises over no argument; then _general.py is asked.
# tests/test_fast_path.py shows that both give the same bits.

cimport numpy as cnp
from cython cimport floating
from libc.limits cimport INT_MAX
from libc.math cimport INFINITY, fabs

from csoftmax.kernels.task cimport FLOAT64, MAX_DIMS, Task

# The subset, each of exactly the type that is named:
#   x, logits           ndarray of float32 or float64, aligned, of native byte order, with elements and dimensions
#   axis                int in range
#   temperature         float 1
#   n_threads           None, or an int from 1 that C's int holds
#   out                 None, or C-contiguous as x is, of its shape and dtype: x itself, or apart from all that is read
#   target, index       C-contiguous ndarray of int64, all of them classes or ignored; targets also probabilities of the
#                       logits' dtype and shape, but only those without which losses keep their digits
#   weight              None, or a C-contiguous ndarray of float32 or float64 near 1 in size, with a sum that is
#   ignore_index        int of less than 63 bits
#   label_smoothing     float: 0, or from 1e-12 to 1
#   reduction           str
# No sample_weight and no grad_output: who has these does not ask here.

cdef struct FastLoss:               # a loss whose arguments were taken
    int axis
    int n_threads
    bint has_indices
    bint in_place                   # the gradient takes the logits' place
    bint to_mean
    bint to_rows                    # not reduced
    double label_smoothing
    Py_ssize_t n_ignored


# ---- Arguments ----

cdef bint is_fast(object x) noexcept:
    """Whether the kernels can read x as it is."""
    if type(x) is not cnp.ndarray:
        return False
    cdef cnp.ndarray a = x
    return (cnp.PyArray_TYPE(a) in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE) and cnp.PyArray_ISBEHAVED_RO(a)
            and cnp.PyArray_NDIM(a) > 0 and cnp.PyArray_SIZE(a) > 0)


cdef int fast_axis(object axis, int n_dims):
    """The axis counted from the front, -1 if it is refused."""
    if type(axis) is not int or not -n_dims <= axis < n_dims:
        return -1
    return axis if axis >= 0 else axis + n_dims


cdef int fast_threads(object n_threads) except -2:
    """The number of threads, 0 for None, -1 if it is refused."""
    if n_threads is None:
        return 0
    if type(n_threads) is not int or not 0 < n_threads <= INT_MAX:
        return -1
    return n_threads


cdef bint is_one(object temperature) noexcept:
    return type(temperature) is float and <double>temperature == 1


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


cdef cnp.ndarray rows_like(cnp.ndarray x, int axis, int dtype):
    """An empty array of x's shape without axis."""
    cdef cnp.npy_intp[MAX_DIMS] shape
    cdef int d, n = 0
    for d in range(cnp.PyArray_NDIM(x)):
        if d != axis:
            shape[n] = cnp.PyArray_DIM(x, d)
            n += 1
    return empty_array(n, shape, dtype)


# ---- One result per logit, or one per row ----

def fast_probabilities(object x, object axis, object out, bint log, object temperature, object n_threads):
    cdef int number, threads = fast_threads(n_threads)
    if threads < 0 or not is_one(temperature) or not is_fast(x):
        return None
    number = fast_axis(axis, cnp.PyArray_NDIM(<cnp.ndarray>x))
    if number < 0:
        return None
    if out is None:
        out = empty_result(<cnp.ndarray>x)
    elif not fits(x, out):
        return None
    probabilities(x, number, out, log, 1, threads)
    return out


def fast_logsumexp(object x, object axis, object temperature, object n_threads):
    cdef int number, threads = fast_threads(n_threads)
    cdef cnp.ndarray out
    if threads < 0 or not is_one(temperature) or not is_fast(x):
        return None
    number = fast_axis(axis, cnp.PyArray_NDIM(<cnp.ndarray>x))
    if number < 0:
        return None
    out = rows_like(x, number, cnp.PyArray_TYPE(<cnp.ndarray>x))
    logsumexp(x, number, out, 1, None, threads)
    return out[()] if cnp.PyArray_NDIM(out) == 0 else out


def fast_log_prob(object logits, object index, object axis, object temperature, object n_threads):
    cdef int number, threads = fast_threads(n_threads)
    cdef cnp.ndarray x, y, out
    if threads < 0 or not is_one(temperature) or not is_fast(logits) or type(index) is not cnp.ndarray:
        return None
    x, y = logits, index
    number = fast_axis(axis, cnp.PyArray_NDIM(x))
    if (number < 0 or cnp.PyArray_TYPE(y) != cnp.NPY_INT64 or not cnp.PyArray_ISCARRAY_RO(y)
            or cnp.PyArray_NDIM(y) not in (cnp.PyArray_NDIM(x) - 1, cnp.PyArray_NDIM(x))
            or not starts_with_rows(y, x, number)):
        return None
    if cnp.PyArray_SIZE(y) == 0 or scan_targets(y, cnp.PyArray_DIM(x, number), None, threads)[0] >= 0:
        return None
    out = empty_array(cnp.PyArray_NDIM(y), cnp.PyArray_DIMS(y), cnp.PyArray_TYPE(x))
    log_prob(x, number, y, out, 1, threads)
    return out[()] if cnp.PyArray_NDIM(out) == 0 else out


# ---- Losses ----

# As many parameters as there are arguments: packed, they would cost what the fast path saves.
def fast_cross_entropy(object logits, object target, object axis, object weight, object ignore_index,
                       object label_smoothing, object temperature, object reduction, object out, bint with_grad,
                       object n_threads):
    """Loss and gradient, which is None unless with_grad; or None."""
    cdef FastLoss given
    cdef cnp.ndarray near_one = None
    if (type(reduction) is not str or not is_one(temperature) or not is_fast(logits)
            or not takes_options(&given, logits, axis, label_smoothing, n_threads)):
        return None
    given.to_mean, given.to_rows = reduction == "mean", reduction == "none"
    if not (given.to_mean or given.to_rows or reduction == "sum"):
        return None
    if weight is not None:
        near_one = weights_near_one(weight, cnp.PyArray_DIM(<cnp.ndarray>logits, given.axis))
        if near_one is None:
            return None
    if not takes_target(&given, logits, target, ignore_index):
        return None
    if with_grad:
        if out is None:
            out = empty_result(<cnp.ndarray>logits)
        elif not takes_out(&given, logits, target, weight, near_one, out):
            return None
    else:
        out = None
    return loss_and_grad(&given, logits, target, ignore_index, near_one, out)


cdef bint takes_options(FastLoss *given, cnp.ndarray x, object axis, object label_smoothing,
                        object n_threads) except -1:
    given.n_threads = fast_threads(n_threads)
    if given.n_threads < 0 or type(label_smoothing) is not float:
        return False
    given.axis = fast_axis(axis, cnp.PyArray_NDIM(x))
    given.label_smoothing = label_smoothing
    return given.axis >= 0 and given.label_smoothing <= 1 and is_ordinary_smoothing(given.label_smoothing)


cdef bint takes_target(FastLoss *given, cnp.ndarray x, object target, object ignore_index) except -1:
    cdef cnp.ndarray y
    cdef Py_ssize_t bad
    given.in_place = False
    given.n_ignored = 0
    if type(target) is not cnp.ndarray or type(ignore_index) is not int or not -(1 << 62) < ignore_index < 1 << 62:
        return False
    y = target
    if not cnp.PyArray_ISCARRAY_RO(y):
        return False
    given.has_indices = cnp.PyArray_TYPE(y) == cnp.NPY_INT64
    if not given.has_indices:
        return is_like(y, x)
    if cnp.PyArray_NDIM(y) != cnp.PyArray_NDIM(x) - 1 or not starts_with_rows(y, x, given.axis):
        return False
    bad, given.n_ignored = scan_targets(y, cnp.PyArray_DIM(x, given.axis), ignore_index, given.n_threads)
    return bad < 0


cdef cnp.ndarray weights_near_one(object weight, Py_ssize_t n_classes):
    """In float64, or None."""
    if (not is_fast(weight) or cnp.PyArray_NDIM(<cnp.ndarray>weight) != 1
            or not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>weight)
            or cnp.PyArray_DIM(<cnp.ndarray>weight, 0) != n_classes):
        return None
    weight = cnp.PyArray_Cast(<cnp.ndarray>weight, cnp.NPY_DOUBLE)
    return weight if are_ordinary_weights(weight) else None


cdef bint takes_out(FastLoss *given, cnp.ndarray x, cnp.ndarray y, object weight, cnp.ndarray near_one,
                    object out) except -1:
    if not fits(x, out) or not lie_apart(out, y) or weight is not None and not lie_apart(out, weight):
        return False
    given.in_place = not lie_apart(out, x)
    # Then the logits cannot be read again: no loss may turn out to have left the range, nor two with signs that differ.
    if given.in_place and near_one is not None and not are_zero_or_within(
            doubles(near_one), cnp.PyArray_SIZE(near_one), 0, INFINITY):
        return False
    if given.in_place and (near_one is not None or given.label_smoothing != 0 or not given.has_indices):
        if has_far_logits(x):
            return False
    if given.in_place and not given.has_indices:
        if cnp.PyArray_TYPE(y) == cnp.NPY_DOUBLE:
            return are_zero_or_within(<const double *>cnp.PyArray_DATA(y), cnp.PyArray_SIZE(y), 1e-29, 1e29)
        return are_zero_or_within(<const float *>cnp.PyArray_DATA(y), cnp.PyArray_SIZE(y), 1e-29, 1e29)
    return True


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


cdef tuple loss_and_grad(FastLoss *given, cnp.ndarray x, cnp.ndarray y, object ignore_index, cnp.ndarray weight,
                         cnp.ndarray grad):
    """The result; None if only the losses tell that the long way has to be taken."""
    cdef cnp.ndarray total, losses = rows_like(
        x, given.axis, cnp.PyArray_TYPE(x) if given.to_rows else cnp.NPY_DOUBLE)
    cdef double divisor = 1, divisor_carry = 0
    cdef bint far, not_finite
    cdef Task task
    if given.to_mean and (weight is None or not given.has_indices):
        divisor = cnp.PyArray_SIZE(losses) - given.n_ignored
    elif given.to_mean:
        divisor, divisor_carry = total_weight(y, ignore_index, weight, None, given.n_threads)
        if not is_ordinary_number(divisor):
            return None
    describe(&task, x, given.axis)
    task.loss.weight = doubles(weight)
    if given.has_indices:
        ask_for_loss(&task, y, ignore_index)
    else:
        ask_for_loss_of_probabilities(&task, y, given.axis)
    write_loss(&task, losses, grad, given.axis, given.label_smoothing, divisor, given.n_threads)
    if not given.in_place and (weight is not None or given.label_smoothing != 0 or not given.has_indices):
        far, not_finite = look_at_losses(losses, task.dtype == FLOAT64)
        if not_finite or far and not given.has_indices:
            return None         # a summand may have left the range, or probabilities are far from 1
    if given.to_rows:
        return losses[()] if cnp.PyArray_NDIM(losses) == 0 else losses, grad
    total = cnp.PyArray_EMPTY(0, NULL, cnp.PyArray_TYPE(x), 0)
    reduce_losses(losses, divisor, divisor_carry, total, 0, given.n_threads)
    return total[()], grad
