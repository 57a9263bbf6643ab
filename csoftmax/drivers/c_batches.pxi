# The C functions of batches, as _batch.pxd declares and include/csoftmax.h documents them: pointers and strides are
# checked, and become tasks.

from cython cimport floating
from libc.math cimport INFINITY
from libc.stdint cimport INT64_MIN, int32_t, int64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from csoftmax.kernels.task cimport GRADIENT, LOG_PROBABILITY, PROBABILITY, Layout, Output, Task

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX


cdef inline bint spans(Py_ssize_t stride, Py_ssize_t n, Py_ssize_t item) noexcept nogil:
    """Whether n elements, `stride` elements apart, can lie in memory; a quarter of it, as two spans are added."""
    cdef Py_ssize_t most = PY_SSIZE_T_MAX // 4 // item // (n if n > 1 else 1)
    return n <= 1 or -most <= stride <= most


cdef bint lay_out_rows(
    Layout *a, const floating *data, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride,
    Py_ssize_t class_stride,
) noexcept nogil:
    """Describe rows by strides in elements; whether there can be such an array."""
    cdef Py_ssize_t item = sizeof(floating)
    if n_rows and n_classes and data == NULL:
        return False
    if not spans(row_stride, n_rows, item) or not spans(class_stride, n_classes, item):
        return False
    a.data = <char *>data
    a.class_stride = (class_stride if n_classes > 1 else 1) * item
    a.n_dims = 1 if n_rows > 1 else 0
    a.shape[0] = n_rows
    a.strides[0] = row_stride * item if n_rows > 1 else 0
    return True


cdef inline bint are_rows(const floating *values, Py_ssize_t n_rows, bint needed) noexcept nogil:
    """Whether a result of rows can be written there, or need not be."""
    return n_rows <= 0 or (not needed if values == NULL else <uintptr_t>values % sizeof(floating) == 0)


cdef int describe_rows(
    Task *task, const floating *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride,
    Py_ssize_t class_stride, int n_threads,
) noexcept nogil:
    """Begin a task; whether its size is one: as in NumPy, a side of none counts as one of one."""
    cdef Py_ssize_t most = PY_SSIZE_T_MAX // 4 // <Py_ssize_t>sizeof(floating)
    begin(task, dtype_of_pointer(x))
    task.n_rows = n_rows
    task.n_classes = n_classes
    return (n_threads >= 0 and 0 <= n_rows <= most and 0 <= n_classes <= most // (n_rows or 1)
            and lay_out_rows(&task.x, x, n_rows, n_classes, row_stride, class_stride))


cdef int write_batch(
    Output output, const floating *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride,
    Py_ssize_t class_stride, floating *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads,
) noexcept nogil:
    cdef Task task
    if (not describe_rows(&task, x, n_rows, n_classes, row_stride, class_stride, n_threads)
            or not lay_out_rows(&task.out, out, n_rows, n_classes, out_row_stride, out_class_stride)):
        return CSOFTMAX_BAD_ARGUMENT
    task.output = output
    return run(&task, n_threads, False)


cdef int sum_batch(
    const floating *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    floating *out, int n_threads,
) noexcept nogil:
    cdef Task task
    cdef Py_ssize_t row
    if (not describe_rows(&task, x, n_rows, n_classes, row_stride, class_stride, n_threads)
            or not are_rows(out, n_rows, True)):
        return CSOFTMAX_BAD_ARGUMENT
    if n_classes == 0:
        for row in range(n_rows):
            out[row] = -<floating>INFINITY
    task.logsumexp = out
    return run(&task, n_threads, False)


cdef int take_targets(
    const void *target, int size, Py_ssize_t n_rows, Py_ssize_t n_classes, bint has_ignore_index, int64_t ignore_index,
    const int64_t **classes, int64_t **copy, Py_ssize_t *bad_row, int n_threads,
) noexcept nogil:
    """Check the targets: classes are they as int64, copy is what has to be freed then, or NULL."""
    cdef Py_ssize_t row, n_ignored
    copy[0] = NULL
    if size != 4 and size != 8 or n_rows and target == NULL:
        return CSOFTMAX_BAD_ARGUMENT
    classes[0] = <const int64_t *>target
    # Other integers, and those that do not lie where an int64 does, are copied.
    if n_rows and (size == 4 or <uintptr_t>target % sizeof(int64_t)):
        copy[0] = <int64_t *>malloc(n_rows * sizeof(int64_t))
        if copy[0] == NULL:
            return CSOFTMAX_NO_MEMORY
        if size == 8:
            memcpy(copy[0], target, n_rows * sizeof(int64_t))
        else:
            for row in range(n_rows):
                copy[0][row] = narrow_integer(target, row)
        classes[0] = copy[0]
    row = first_outside(classes[0], n_rows, n_classes, has_ignore_index, ignore_index, &n_ignored, n_threads)
    if row < 0:
        return CSOFTMAX_OK
    if bad_row != NULL:
        bad_row[0] = row
    free(copy[0])
    copy[0] = NULL
    return CSOFTMAX_BAD_TARGET


cdef inline int64_t narrow_integer(const void *values, Py_ssize_t i) noexcept nogil:
    cdef int32_t value
    memcpy(&value, <const char *>values + 4 * i, 4)
    return value


cdef int loss_batch(
    const floating *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *target, int target_size, int64_t ignore_index, floating *loss, floating *logsumexp, floating *grad,
    Py_ssize_t grad_row_stride, Py_ssize_t grad_class_stride, double scale, int n_threads, Py_ssize_t *bad_row,
) noexcept nogil:
    cdef Task task
    cdef int64_t *copy
    cdef Py_ssize_t row
    cdef int status
    if (not describe_rows(&task, x, n_rows, n_classes, row_stride, class_stride, n_threads)
            or not are_rows(loss, n_rows, False) or not are_rows(logsumexp, n_rows, False)
            or grad != NULL and not lay_out_rows(&task.out, grad, n_rows, n_classes, grad_row_stride,
                                                 grad_class_stride)):
        return CSOFTMAX_BAD_ARGUMENT
    task.loss.has_ignore_index = ignore_index != INT64_MIN
    task.loss.ignore_index = ignore_index
    status = take_targets(target, target_size, n_rows, n_classes, task.loss.has_ignore_index, ignore_index,
                          &task.loss.target, &copy, bad_row, n_threads)
    if status != CSOFTMAX_OK:
        return status
    if n_classes == 0:          # then all rows are ignored
        for row in range(n_rows if loss != NULL else 0):
            loss[row] = 0
        for row in range(n_rows if logsumexp != NULL else 0):
            logsumexp[row] = -<floating>INFINITY
    task.logsumexp = logsumexp
    if floating is float:
        task.loss.f32 = loss
    else:
        task.loss.f64 = loss
    if grad != NULL:
        task.output = GRADIENT
        task.gradient.scale = scale
        settle_scale(&task, 1)
    status = run(&task, n_threads, False)
    free(copy)
    return status


cdef int pick_batch(
    const floating *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *index, int index_size, floating *out, int n_threads, Py_ssize_t *bad_row,
) noexcept nogil:
    cdef Task task
    cdef int64_t *copy
    cdef int status
    if (not describe_rows(&task, x, n_rows, n_classes, row_stride, class_stride, n_threads)
            or not are_rows(out, n_rows, True)):
        return CSOFTMAX_BAD_ARGUMENT
    status = take_targets(index, index_size, n_rows, n_classes, False, 0, &task.pick.index, &copy, bad_row, n_threads)
    if status != CSOFTMAX_OK:
        return status
    task.pick.n_indices = 1
    task.pick.out = out
    status = run(&task, n_threads, False)
    free(copy)
    return status


cdef int softmax_f32(
    const float *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    float *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads,
) noexcept nogil:
    return write_batch(PROBABILITY, x, n_rows, n_classes, row_stride, class_stride, out, out_row_stride,
                       out_class_stride, n_threads)


cdef int softmax_f64(
    const double *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    double *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads,
) noexcept nogil:
    return write_batch(PROBABILITY, x, n_rows, n_classes, row_stride, class_stride, out, out_row_stride,
                       out_class_stride, n_threads)


cdef int log_softmax_f32(
    const float *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    float *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads,
) noexcept nogil:
    return write_batch(LOG_PROBABILITY, x, n_rows, n_classes, row_stride, class_stride, out, out_row_stride,
                       out_class_stride, n_threads)


cdef int log_softmax_f64(
    const double *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    double *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads,
) noexcept nogil:
    return write_batch(LOG_PROBABILITY, x, n_rows, n_classes, row_stride, class_stride, out, out_row_stride,
                       out_class_stride, n_threads)


cdef int logsumexp_f32(
    const float *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    float *out, int n_threads,
) noexcept nogil:
    return sum_batch(x, n_rows, n_classes, row_stride, class_stride, out, n_threads)


cdef int logsumexp_f64(
    const double *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    double *out, int n_threads,
) noexcept nogil:
    return sum_batch(x, n_rows, n_classes, row_stride, class_stride, out, n_threads)


cdef int cross_entropy_f32(
    const float *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *target, int target_size, int64_t ignore_index, float *loss, float *logsumexp, float *grad,
    Py_ssize_t grad_row_stride, Py_ssize_t grad_class_stride, double scale, int n_threads,
    Py_ssize_t *bad_row,
) noexcept nogil:
    return loss_batch(x, n_rows, n_classes, row_stride, class_stride, target, target_size, ignore_index, loss,
                      logsumexp, grad, grad_row_stride, grad_class_stride, scale, n_threads, bad_row)


cdef int cross_entropy_f64(
    const double *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *target, int target_size, int64_t ignore_index, double *loss, double *logsumexp, double *grad,
    Py_ssize_t grad_row_stride, Py_ssize_t grad_class_stride, double scale, int n_threads,
    Py_ssize_t *bad_row,
) noexcept nogil:
    return loss_batch(x, n_rows, n_classes, row_stride, class_stride, target, target_size, ignore_index, loss,
                      logsumexp, grad, grad_row_stride, grad_class_stride, scale, n_threads, bad_row)


cdef int log_prob_f32(
    const float *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *index, int index_size, float *out, int n_threads, Py_ssize_t *bad_row,
) noexcept nogil:
    return pick_batch(x, n_rows, n_classes, row_stride, class_stride, index, index_size, out, n_threads, bad_row)


cdef int log_prob_f64(
    const double *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *index, int index_size, double *out, int n_threads, Py_ssize_t *bad_row,
) noexcept nogil:
    return pick_batch(x, n_rows, n_classes, row_stride, class_stride, index, index_size, out, n_threads, bad_row)
