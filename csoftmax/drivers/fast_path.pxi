# The same for arguments that need no conversion, checked here, within a microsecond: what these functions take is a
# subset of what _checks.py takes. For anything else they return None, and the long way through _general.py is taken.

cimport numpy as cnp
from libc.math cimport INFINITY, fabs

from csoftmax.kernels.task cimport MAX_DIMS

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewLikeArray(cnp.ndarray prototype, cnp.NPY_ORDER order, void *dtype, int subok)


cdef bint is_plain(object x) noexcept:
    """Whether the kernels can read x as it is."""
    if type(x) is not cnp.ndarray:
        return False
    cdef cnp.ndarray a = x
    return (cnp.PyArray_TYPE(a) in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE) and cnp.PyArray_ISBEHAVED_RO(a)
            and cnp.PyArray_NDIM(a) > 0 and cnp.PyArray_SIZE(a) > 0)


cdef int plain_axis(object axis, int n_dims):
    """The axis counted from the front, -1 if it needs a closer look."""
    if type(axis) is not int or not -n_dims <= axis < n_dims:
        return -1
    return axis if axis >= 0 else axis + n_dims


cdef int plain_threads(object n_threads) except -2:
    """The number of threads, 0 for None, -1 if it needs a closer look."""
    if n_threads is None:
        return 0
    if type(n_threads) is not int or not 0 < n_threads < 1 << 16:
        return -1
    return n_threads


cdef bint is_like(cnp.ndarray a, cnp.ndarray x) noexcept:
    """Whether a has the dtype and the shape of x."""
    cdef int d
    if cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(x) or cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(x):
        return False
    for d in range(cnp.PyArray_NDIM(x)):
        if cnp.PyArray_DIM(a, d) != cnp.PyArray_DIM(x, d):
            return False
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


cdef bint is_one(object temperature) noexcept:
    return type(temperature) is float and <double>temperature == 1


def plain_probabilities(object x, object axis, object out, bint log, object temperature, object n_threads):
    cdef int number, threads = plain_threads(n_threads)
    if threads < 0 or not is_one(temperature) or not is_plain(x):
        return None
    number = plain_axis(axis, cnp.PyArray_NDIM(<cnp.ndarray>x))
    if number < 0:
        return None
    if out is None:
        out = PyArray_NewLikeArray(<cnp.ndarray>x, cnp.NPY_KEEPORDER, NULL, 0)
    elif not fits(x, out):
        return None
    probabilities(x, number, out, log, 1, threads)
    return out


cdef cnp.ndarray rows_like(cnp.ndarray x, int axis, int dtype):
    """An empty array of x's shape without axis."""
    cdef cnp.npy_intp[MAX_DIMS] shape
    cdef int d, n = 0
    for d in range(cnp.PyArray_NDIM(x)):
        if d != axis:
            shape[n] = cnp.PyArray_DIM(x, d)
            n += 1
    return cnp.PyArray_EMPTY(n, shape, dtype, 0)


def plain_logsumexp(object x, object axis, object temperature, object n_threads):
    cdef int number, threads = plain_threads(n_threads)
    cdef cnp.ndarray out
    if threads < 0 or not is_one(temperature) or not is_plain(x):
        return None
    number = plain_axis(axis, cnp.PyArray_NDIM(<cnp.ndarray>x))
    if number < 0:
        return None
    out = rows_like(x, number, cnp.PyArray_TYPE(<cnp.ndarray>x))
    logsumexp(x, number, out, 1, None, threads)
    return out[()] if cnp.PyArray_NDIM(out) == 0 else out


cdef bint starts_with_rows(cnp.ndarray y, cnp.ndarray x, int axis) noexcept:
    """Whether the first dimensions of y are those of x without axis; y has at least as many."""
    cdef int d, n = 0
    for d in range(cnp.PyArray_NDIM(x)):
        if d != axis:
            if cnp.PyArray_DIM(y, n) != cnp.PyArray_DIM(x, d):
                return False
            n += 1
    return True


def plain_cross_entropy(object logits, object target, object axis, object weight, object ignore_index,
                        object label_smoothing, object temperature, object reduction, object out, bint with_grad,
                        object n_threads):
    """Loss and gradient, or None if an argument needs a closer look or a target is no class."""
    cdef int number, threads = plain_threads(n_threads)
    cdef cnp.ndarray x, y, loss, total
    cdef object grad = None, given_weight = weight
    cdef Py_ssize_t bad = -1, n_ignored = 0
    cdef double divisor = 1, divisor_carry = 0
    cdef bint has_indices
    if (threads < 0 or not is_plain(logits) or type(target) is not cnp.ndarray or not is_one(temperature)
            or type(label_smoothing) is not float or not 0.0 <= label_smoothing <= 1.0
            or type(ignore_index) is not int):
        return None
    x, y = logits, target
    number = plain_axis(axis, cnp.PyArray_NDIM(x))
    if (number < 0 or not cnp.PyArray_ISCARRAY_RO(y) or not -(1 << 62) < ignore_index < 1 << 62
            or type(reduction) is not str or reduction not in ("mean", "sum", "none")):
        return None
    has_indices = cnp.PyArray_TYPE(y) == cnp.NPY_INT64
    if not (cnp.PyArray_NDIM(y) == cnp.PyArray_NDIM(x) - 1 and starts_with_rows(y, x, number) if has_indices else
            is_like(y, x)):
        return None
    if weight is not None:
        if (not is_plain(weight) or cnp.PyArray_NDIM(weight) != 1 or not cnp.PyArray_ISCARRAY_RO(weight)
                or cnp.PyArray_DIM(weight, 0) != cnp.PyArray_DIM(x, number)):
            return None
        weight = cnp.PyArray_Cast(weight, cnp.NPY_DOUBLE)
        if not are_ordinary(weight, ORDINARY):
            return None
    if 0 < <double>label_smoothing < 1e-12:
        return None
    if has_indices:
        bad, n_ignored = scan_targets(y, cnp.PyArray_DIM(x, number), ignore_index, threads)
    if bad >= 0:
        return None
    if with_grad:
        if out is None:
            grad = PyArray_NewLikeArray(x, cnp.NPY_KEEPORDER, NULL, 0)
        elif (fits(x, out) and lie_apart(out, y) and (given_weight is None or lie_apart(out, given_weight))
                and (has_indices or lie_apart(out, x))):
            grad = out
        else:
            return None
    loss = rows_like(x, number, cnp.PyArray_TYPE(x) if reduction == "none" else cnp.NPY_DOUBLE)
    if reduction == "mean" and (weight is None or not has_indices):
        divisor = cnp.PyArray_SIZE(loss) - n_ignored
    elif reduction == "mean":
        divisor, divisor_carry = total_weight(y, ignore_index, weight, None, threads)
        if divisor == 0:
            return None
    if has_indices:
        cross_entropy(x, number, y, ignore_index, loss, grad, divisor, threads, None, weight, None, None,
                      label_smoothing, 1)
    else:
        cross_entropy(x, number, None, None, loss, grad, divisor, threads, y, weight, None, None, label_smoothing, 1)
        if kinds_of_losses(loss, dtype_of(x)) & FAR_LOSS:
            return None         # of probabilities that may be far from 1
    if reduction == "none":
        return loss[()] if cnp.PyArray_NDIM(loss) == 0 else loss, grad
    total = cnp.PyArray_EMPTY(0, NULL, cnp.PyArray_TYPE(x), 0)
    reduce_losses(loss, divisor, divisor_carry, total, 0, threads)
    if weight is not None and grad is not logits and not fabs(<double>total[()]) < INFINITY:
        return None             # of infinite losses of both signs, which may have been too large for float64
    return total[()], grad


def plain_log_prob(object logits, object index, object axis, object temperature, object n_threads):
    cdef int number, threads = plain_threads(n_threads)
    cdef cnp.ndarray x, y, out
    if threads < 0 or not is_one(temperature) or not is_plain(logits) or type(index) is not cnp.ndarray:
        return None
    x, y = logits, index
    number = plain_axis(axis, cnp.PyArray_NDIM(x))
    if (number < 0 or cnp.PyArray_TYPE(y) != cnp.NPY_INT64 or not cnp.PyArray_ISCARRAY_RO(y)
            or cnp.PyArray_NDIM(y) not in (cnp.PyArray_NDIM(x) - 1, cnp.PyArray_NDIM(x))
            or not starts_with_rows(y, x, number)):
        return None
    if cnp.PyArray_SIZE(y) == 0 or scan_targets(y, cnp.PyArray_DIM(x, number), None, threads)[0] >= 0:
        return None
    out = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(y), cnp.PyArray_DIMS(y), cnp.PyArray_TYPE(x), 0)
    log_prob(x, number, y, out, 1, threads)
    return out[()] if cnp.PyArray_NDIM(out) == 0 else out
