# The C functions of batches, as _batch.pxd declares and include/csoftmax.h documents them: pointers and strides are
# checked, and become tasks.

from libc.math cimport INFINITY
from libc.stdint cimport INT64_MIN, int32_t, int64_t, uint16_t, uintptr_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from csoftmax.kernels.task cimport (
    BFLOAT16, FLOAT16, FLOAT32, FLOAT64, GRADIENT, LOG_PROBABILITY, PROBABILITY, Layout, Output, Task, item_size,
    size_of,
)

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX


cdef struct Batch:              # what the arrays of a call have in common
    int storage                 # their dtype
    Py_ssize_t n_rows
    Py_ssize_t n_classes
    int n_threads

cdef struct Matrix:             # (n_rows, n_classes), or NULL; strides in elements
    const void *data
    Py_ssize_t row_stride
    Py_ssize_t class_stride

cdef struct Indices:            # (n_rows,), of classes
    const void *values
    int size                    # of one of them, in bytes
    bint has_ignore_index
    int64_t ignore_index
    Py_ssize_t *bad_row         # OUT, or NULL


cdef inline bint spans(Py_ssize_t stride, Py_ssize_t n, Py_ssize_t item) noexcept nogil:
    """Whether n elements, `stride` elements apart, can lie in memory; a quarter of it, as two spans are added."""
    cdef Py_ssize_t most = PY_SSIZE_T_MAX // 4 // item // max(n, 1)
    return n <= 1 or -most <= stride <= most


cdef bint lay_out_rows(Layout *layout, const Task *task, const Matrix *of, int storage) noexcept nogil:
    """Describe the task's rows; whether there can be such an array."""
    cdef Py_ssize_t item = size_of(storage)
    set_storage(layout, storage)
    if task.n_rows and task.n_classes and of.data == NULL:
        return False
    if not spans(of.row_stride, task.n_rows, item) or not spans(of.class_stride, task.n_classes, item):
        return False
    layout.data = <char *>of.data
    layout.class_stride = (of.class_stride if task.n_classes > 1 else 1) * item
    layout.n_dims = 1 if task.n_rows > 1 else 0
    layout.shape[0] = task.n_rows
    layout.strides[0] = of.row_stride * item if task.n_rows > 1 else 0
    return True


cdef bint begin_batch(Task *task, const Batch *batch, const Matrix *x) noexcept nogil:
    """Begin a task; whether its size is one: as in NumPy, a side of none counts as one of one."""
    cdef Py_ssize_t most = PY_SSIZE_T_MAX // 4
    begin(task, FLOAT64 if batch.storage == FLOAT64 else FLOAT32)
    task.n_rows = batch.n_rows
    task.n_classes = batch.n_classes
    most = most // item_size(task)
    return (batch.n_threads >= 0 and 0 <= task.n_rows <= most
            and 0 <= task.n_classes <= most // max(task.n_rows, 1) and lay_out_rows(&task.x, task, x, batch.storage))


cdef inline bint can_hold_rows(const Task *task, const void *values) noexcept nogil:
    """Whether a result of rows, of the task's dtype, can be written there."""
    return task.n_rows == 0 or values != NULL and <uintptr_t>values % item_size(task) == 0


cdef void fill_rows(const Task *task, void *values, double value) noexcept nogil:
    """Rows without classes, which no task writes."""
    cdef Py_ssize_t row
    for row in range(task.n_rows):
        if task.dtype == FLOAT64:
            (<double *>values)[row] = value
        else:
            (<float *>values)[row] = <float>value


cdef int write_batch(const Batch *batch, Output output, const Matrix *x, const Matrix *out) noexcept nogil:
    cdef Task task
    if not begin_batch(&task, batch, x) or not lay_out_rows(&task.out, &task, out, batch.storage):
        return CSOFTMAX_BAD_ARGUMENT
    task.output = output
    return run(&task, batch.n_threads, False)


cdef int sum_batch(const Batch *batch, const Matrix *x, void *out) noexcept nogil:
    cdef Task task
    if not begin_batch(&task, batch, x) or not can_hold_rows(&task, out):
        return CSOFTMAX_BAD_ARGUMENT
    if task.n_classes == 0:
        fill_rows(&task, out, -INFINITY)
    task.logsumexp = out
    return run(&task, batch.n_threads, False)


cdef inline int64_t narrow_integer(const void *values, Py_ssize_t i) noexcept nogil:
    cdef int32_t value
    memcpy(&value, <const char *>values + 4 * i, 4)
    return value


cdef int as_int64(const Indices *given, Py_ssize_t n, int64_t **copy) noexcept nogil:
    """Copy indices that are other integers, or do not lie where an int64 does; else copy is NULL."""
    cdef Py_ssize_t row
    copy[0] = NULL
    if given.size != 4 and given.size != 8 or n and given.values == NULL:
        return CSOFTMAX_BAD_ARGUMENT
    if n == 0 or given.size == 8 and <uintptr_t>given.values % sizeof(int64_t) == 0:
        return CSOFTMAX_OK
    copy[0] = <int64_t *>scratch_memory(n * sizeof(int64_t))
    if copy[0] == NULL:
        return CSOFTMAX_NO_MEMORY
    if given.size == 8:
        memcpy(copy[0], given.values, n * sizeof(int64_t))
    else:
        for row in range(n):
            copy[0][row] = narrow_integer(given.values, row)
    return CSOFTMAX_OK


cdef int take_indices(const Indices *given, const Batch *batch, const int64_t **classes, int64_t **copy) noexcept nogil:
    """Check the indices: classes are they as int64, copy is what has to be freed then, or NULL."""
    cdef int status = as_int64(given, batch.n_rows, copy)
    cdef Targets targets
    cdef Py_ssize_t row, n_ignored = 0
    if status != CSOFTMAX_OK:
        return status
    classes[0] = <const int64_t *>given.values
    if copy[0] != NULL:
        classes[0] = copy[0]
    targets = Targets(classes[0], batch.n_rows, batch.n_classes, given.has_ignore_index, given.ignore_index)
    row = first_outside(&targets, &n_ignored, batch.n_threads)
    if row < 0:
        return CSOFTMAX_OK
    if given.bad_row != NULL:
        given.bad_row[0] = row
    free(copy[0])
    copy[0] = NULL
    return CSOFTMAX_BAD_TARGET


cdef int loss_batch(
    const Batch *batch, const Matrix *x, const Indices *target, void *loss, void *logsumexp, const Matrix *grad,
    double scale,
) noexcept nogil:
    cdef Task task
    cdef int64_t *copy
    cdef int status
    if (not begin_batch(&task, batch, x) or loss != NULL and not can_hold_rows(&task, loss)
            or logsumexp != NULL and not can_hold_rows(&task, logsumexp)
            or grad.data != NULL and not lay_out_rows(&task.out, &task, grad, batch.storage)):
        return CSOFTMAX_BAD_ARGUMENT
    status = take_indices(target, batch, &task.loss.target, &copy)
    if status != CSOFTMAX_OK:
        return status
    if task.n_classes == 0:     # then all rows are ignored
        if loss != NULL:
            fill_rows(&task, loss, 0)
        if logsumexp != NULL:
            fill_rows(&task, logsumexp, -INFINITY)
    task.loss.has_ignore_index = target.has_ignore_index
    task.loss.ignore_index = target.ignore_index
    task.logsumexp = logsumexp
    if task.dtype == FLOAT64:
        task.loss.f64 = <double *>loss
    else:
        task.loss.f32 = <float *>loss
    if grad.data != NULL:
        task.output = GRADIENT
        task.gradient.scale = scale
        settle_scale(&task, 1)
    status = run(&task, batch.n_threads, False)
    free(copy)
    return status


cdef int pick_batch(const Batch *batch, const Matrix *x, const Indices *index, void *out) noexcept nogil:
    cdef Task task
    cdef int64_t *copy
    cdef int status
    if not begin_batch(&task, batch, x) or not can_hold_rows(&task, out):
        return CSOFTMAX_BAD_ARGUMENT
    status = take_indices(index, batch, &task.pick.index, &copy)
    if status != CSOFTMAX_OK:
        return status
    task.pick.n_indices = 1
    task.pick.out = out
    status = run(&task, batch.n_threads, False)
    free(copy)
    return status


# ---- What is exported ----

cdef int softmax_f32(
    const float *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    float *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads,
) noexcept nogil:
    cdef Batch batch = Batch(FLOAT32, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride), of_out = Matrix(out, out_row_stride, out_class_stride)
    return write_batch(&batch, PROBABILITY, &of_x, &of_out)


cdef int softmax_f64(
    const double *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    double *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads,
) noexcept nogil:
    cdef Batch batch = Batch(FLOAT64, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride), of_out = Matrix(out, out_row_stride, out_class_stride)
    return write_batch(&batch, PROBABILITY, &of_x, &of_out)


cdef int log_softmax_f32(
    const float *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    float *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads,
) noexcept nogil:
    cdef Batch batch = Batch(FLOAT32, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride), of_out = Matrix(out, out_row_stride, out_class_stride)
    return write_batch(&batch, LOG_PROBABILITY, &of_x, &of_out)


cdef int log_softmax_f64(
    const double *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    double *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads,
) noexcept nogil:
    cdef Batch batch = Batch(FLOAT64, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride), of_out = Matrix(out, out_row_stride, out_class_stride)
    return write_batch(&batch, LOG_PROBABILITY, &of_x, &of_out)


cdef int logsumexp_f32(
    const float *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    float *out, int n_threads,
) noexcept nogil:
    cdef Batch batch = Batch(FLOAT32, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride)
    return sum_batch(&batch, &of_x, out)


cdef int logsumexp_f64(
    const double *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    double *out, int n_threads,
) noexcept nogil:
    cdef Batch batch = Batch(FLOAT64, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride)
    return sum_batch(&batch, &of_x, out)


cdef int cross_entropy_f32(
    const float *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *target, int target_size, int64_t ignore_index, float *loss, float *logsumexp, float *grad,
    Py_ssize_t grad_row_stride, Py_ssize_t grad_class_stride, double scale, int n_threads,
    Py_ssize_t *bad_row,
) noexcept nogil:
    cdef Batch batch = Batch(FLOAT32, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride), of_grad = Matrix(grad, grad_row_stride, grad_class_stride)
    cdef Indices of_target = Indices(target, target_size, ignore_index != INT64_MIN, ignore_index, bad_row)
    return loss_batch(&batch, &of_x, &of_target, loss, logsumexp, &of_grad, scale)


cdef int cross_entropy_f64(
    const double *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *target, int target_size, int64_t ignore_index, double *loss, double *logsumexp, double *grad,
    Py_ssize_t grad_row_stride, Py_ssize_t grad_class_stride, double scale, int n_threads,
    Py_ssize_t *bad_row,
) noexcept nogil:
    cdef Batch batch = Batch(FLOAT64, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride), of_grad = Matrix(grad, grad_row_stride, grad_class_stride)
    cdef Indices of_target = Indices(target, target_size, ignore_index != INT64_MIN, ignore_index, bad_row)
    return loss_batch(&batch, &of_x, &of_target, loss, logsumexp, &of_grad, scale)


cdef int log_prob_f32(
    const float *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *index, int index_size, float *out, int n_threads, Py_ssize_t *bad_row,
) noexcept nogil:
    cdef Batch batch = Batch(FLOAT32, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride)
    cdef Indices of_index = Indices(index, index_size, False, 0, bad_row)
    return pick_batch(&batch, &of_x, &of_index, out)


cdef int log_prob_f64(
    const double *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *index, int index_size, double *out, int n_threads, Py_ssize_t *bad_row,
) noexcept nogil:
    cdef Batch batch = Batch(FLOAT64, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride)
    cdef Indices of_index = Indices(index, index_size, False, 0, bad_row)
    return pick_batch(&batch, &of_x, &of_index, out)


cdef int softmax_f16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    uint16_t *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads,
) noexcept nogil:
    cdef Batch batch = Batch(FLOAT16, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride), of_out = Matrix(out, out_row_stride, out_class_stride)
    return write_batch(&batch, PROBABILITY, &of_x, &of_out)


cdef int softmax_bf16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    uint16_t *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads,
) noexcept nogil:
    cdef Batch batch = Batch(BFLOAT16, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride), of_out = Matrix(out, out_row_stride, out_class_stride)
    return write_batch(&batch, PROBABILITY, &of_x, &of_out)


cdef int log_softmax_f16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    uint16_t *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads,
) noexcept nogil:
    cdef Batch batch = Batch(FLOAT16, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride), of_out = Matrix(out, out_row_stride, out_class_stride)
    return write_batch(&batch, LOG_PROBABILITY, &of_x, &of_out)


cdef int log_softmax_bf16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    uint16_t *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads,
) noexcept nogil:
    cdef Batch batch = Batch(BFLOAT16, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride), of_out = Matrix(out, out_row_stride, out_class_stride)
    return write_batch(&batch, LOG_PROBABILITY, &of_x, &of_out)


cdef int logsumexp_f16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    float *out, int n_threads,
) noexcept nogil:
    cdef Batch batch = Batch(FLOAT16, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride)
    return sum_batch(&batch, &of_x, out)


cdef int logsumexp_bf16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    float *out, int n_threads,
) noexcept nogil:
    cdef Batch batch = Batch(BFLOAT16, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride)
    return sum_batch(&batch, &of_x, out)


cdef int cross_entropy_f16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *target, int target_size, int64_t ignore_index, float *loss, float *logsumexp, uint16_t *grad,
    Py_ssize_t grad_row_stride, Py_ssize_t grad_class_stride, double scale, int n_threads,
    Py_ssize_t *bad_row,
) noexcept nogil:
    cdef Batch batch = Batch(FLOAT16, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride), of_grad = Matrix(grad, grad_row_stride, grad_class_stride)
    cdef Indices of_target = Indices(target, target_size, ignore_index != INT64_MIN, ignore_index, bad_row)
    return loss_batch(&batch, &of_x, &of_target, loss, logsumexp, &of_grad, scale)


cdef int cross_entropy_bf16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *target, int target_size, int64_t ignore_index, float *loss, float *logsumexp, uint16_t *grad,
    Py_ssize_t grad_row_stride, Py_ssize_t grad_class_stride, double scale, int n_threads,
    Py_ssize_t *bad_row,
) noexcept nogil:
    cdef Batch batch = Batch(BFLOAT16, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride), of_grad = Matrix(grad, grad_row_stride, grad_class_stride)
    cdef Indices of_target = Indices(target, target_size, ignore_index != INT64_MIN, ignore_index, bad_row)
    return loss_batch(&batch, &of_x, &of_target, loss, logsumexp, &of_grad, scale)


cdef int log_prob_f16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *index, int index_size, float *out, int n_threads, Py_ssize_t *bad_row,
) noexcept nogil:
    cdef Batch batch = Batch(FLOAT16, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride)
    cdef Indices of_index = Indices(index, index_size, False, 0, bad_row)
    return pick_batch(&batch, &of_x, &of_index, out)


cdef int log_prob_bf16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *index, int index_size, float *out, int n_threads, Py_ssize_t *bad_row,
) noexcept nogil:
    cdef Batch batch = Batch(BFLOAT16, n_rows, n_classes, n_threads)
    cdef Matrix of_x = Matrix(x, row_stride, class_stride)
    cdef Indices of_index = Indices(index, index_size, False, 0, bad_row)
    return pick_batch(&batch, &of_x, &of_index, out)
