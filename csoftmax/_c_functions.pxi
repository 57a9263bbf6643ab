# The C surface of the drivers: what _batch.pxd declares and include/csoftmax.h documents. Pointers and strides become
# tasks, as arrays do in _batch.pyx; single rows and states go straight to the kernels.

cdef inline int dtype_of_pointer(const floating *x) noexcept nogil:
    return 0 if floating is float else 1


cdef csoftmax_state csoftmax_empty() noexcept nogil:
    return csoftmax_state(-INFINITY, 0, 0, -1)


cdef int64_t csoftmax_ignore_none() noexcept nogil:
    return INT64_MIN


# ---- Rows ----

# Numbers are rounded to the dtype, and floats made doubles, while the state is the kernels': what is volatile does not
# move out of it. The caller's might flush a subnormal number or round another way.

cdef inline floating one_row(
    Output output, RowNumber number, const floating *x, Py_ssize_t n_classes, int64_t target, double scale,
    floating *out,
) noexcept nogil:
    cdef fp_state state = fp_enter()
    cdef volatile floating result
    cdef double factor = 1
    cdef int exponent = 0
    if output == GRADIENT:
        moderate(scale, 1, dtype_of_pointer(x), &scale, &exponent, &factor)
    result = <floating>kernels.row[dtype_of_pointer(x)](
        output if out != NULL else NOTHING, number, x, n_classes, target, scale, out)
    if output == GRADIENT and out != NULL and 0 <= target < n_classes:
        multiply_row(out, n_classes, factor, exponent)
    fp_leave(state)
    return result


cdef inline void multiply_row(floating *out, Py_ssize_t n_classes, double factor, int exponent) noexcept nogil:
    """By what moderate() has left of the scale."""
    if exponent != 0 or factor != 1:
        kernels.multiply[dtype_of_pointer(out)](<char *>out, n_classes, sizeof(floating), factor, exponent)


cdef void softmax_row_f32(const float *x, Py_ssize_t n_classes, float *out) noexcept nogil:
    one_row(PROBABILITY, LOGSUMEXP, x, n_classes, 0, 1, out)


cdef void softmax_row_f64(const double *x, Py_ssize_t n_classes, double *out) noexcept nogil:
    one_row(PROBABILITY, LOGSUMEXP, x, n_classes, 0, 1, out)


cdef void log_softmax_row_f32(const float *x, Py_ssize_t n_classes, float *out) noexcept nogil:
    one_row(LOG_PROBABILITY, LOGSUMEXP, x, n_classes, 0, 1, out)


cdef void log_softmax_row_f64(const double *x, Py_ssize_t n_classes, double *out) noexcept nogil:
    one_row(LOG_PROBABILITY, LOGSUMEXP, x, n_classes, 0, 1, out)


cdef float logsumexp_row_f32(const float *x, Py_ssize_t n_classes) noexcept nogil:
    return one_row(NOTHING, LOGSUMEXP, x, n_classes, 0, 1, <float *>NULL)


cdef double logsumexp_row_f64(const double *x, Py_ssize_t n_classes) noexcept nogil:
    return one_row(NOTHING, LOGSUMEXP, x, n_classes, 0, 1, <double *>NULL)


cdef float cross_entropy_row_f32(const float *x, Py_ssize_t n_classes, int64_t target) noexcept nogil:
    return one_row(NOTHING, LOSS, x, n_classes, target, 1, <float *>NULL)


cdef double cross_entropy_row_f64(const double *x, Py_ssize_t n_classes, int64_t target) noexcept nogil:
    return one_row(NOTHING, LOSS, x, n_classes, target, 1, <double *>NULL)


cdef float cross_entropy_with_grad_row_f32(
    const float *x, Py_ssize_t n_classes, int64_t target, double scale, float *grad,
) noexcept nogil:
    return one_row(GRADIENT, LOSS, x, n_classes, target, scale, grad)


cdef double cross_entropy_with_grad_row_f64(
    const double *x, Py_ssize_t n_classes, int64_t target, double scale, double *grad,
) noexcept nogil:
    return one_row(GRADIENT, LOSS, x, n_classes, target, scale, grad)


cdef float log_prob_row_f32(const float *x, Py_ssize_t n_classes, int64_t index) noexcept nogil:
    return one_row(NOTHING, LOG_PROB, x, n_classes, index, 1, <float *>NULL)


cdef double log_prob_row_f64(const double *x, Py_ssize_t n_classes, int64_t index) noexcept nogil:
    return one_row(NOTHING, LOG_PROB, x, n_classes, index, 1, <double *>NULL)


# ---- States: csoftmax_state is the kernels' State ----

cdef inline void add_to(csoftmax_state *state, const floating *x, Py_ssize_t n_classes) noexcept nogil:
    cdef fp_state fp = fp_enter()
    kernels.add[dtype_of_pointer(x)](<State *>state, x, n_classes)
    fp_leave(fp)


cdef inline void merge_with(csoftmax_state *state, const csoftmax_state *other, int dtype) noexcept nogil:
    cdef fp_state fp = fp_enter()
    kernels.merge[dtype](<State *>state, <const State *>other)
    fp_leave(fp)


cdef inline floating number_of(RowNumber number, const csoftmax_state *state, floating at_target) noexcept nogil:
    cdef volatile floating logit = at_target, result
    cdef fp_state fp = fp_enter()
    result = <floating>kernels.number[dtype_of_pointer(&at_target)](number, <const State *>state, logit)
    fp_leave(fp)
    return result


cdef inline void write_grad(
    const csoftmax_state *state, const floating *x, Py_ssize_t n_classes, Py_ssize_t first_class, int64_t target,
    double scale, floating *grad,
) noexcept nogil:
    cdef fp_state fp = fp_enter()
    cdef double factor
    cdef int exponent = 0
    # A target before the piece is none of its classes, nor is one so far behind it that the difference wraps around.
    target = <int64_t>(<uint64_t>target - <uint64_t>first_class) if target >= 0 and target >= first_class else -1
    moderate(scale, 1, dtype_of_pointer(x), &scale, &exponent, &factor)
    if grad != NULL:
        kernels.write[dtype_of_pointer(x)](<const State *>state, x, n_classes, target, scale, grad)
        multiply_row(grad, n_classes, factor, exponent)
    fp_leave(fp)


cdef void partial_f32(csoftmax_state *state, const float *x, Py_ssize_t n_classes) noexcept nogil:
    add_to(state, x, n_classes)


cdef void partial_f64(csoftmax_state *state, const double *x, Py_ssize_t n_classes) noexcept nogil:
    add_to(state, x, n_classes)


cdef void merge_f32(csoftmax_state *state, const csoftmax_state *other) noexcept nogil:
    merge_with(state, other, 0)


cdef void merge_f64(csoftmax_state *state, const csoftmax_state *other) noexcept nogil:
    merge_with(state, other, 1)


cdef float finish_f32(const csoftmax_state *state) noexcept nogil:
    return number_of(LOGSUMEXP, state, <float>0)


cdef double finish_f64(const csoftmax_state *state) noexcept nogil:
    return number_of(LOGSUMEXP, state, <double>0)


cdef float finish_loss_f32(const csoftmax_state *state, float target_logit) noexcept nogil:
    return number_of(LOSS, state, target_logit)


cdef double finish_loss_f64(const csoftmax_state *state, double target_logit) noexcept nogil:
    return number_of(LOSS, state, target_logit)


cdef void finish_grad_f32(
    const csoftmax_state *state, const float *x, Py_ssize_t n_classes, Py_ssize_t first_class, int64_t target,
    double scale, float *grad,
) noexcept nogil:
    write_grad(state, x, n_classes, first_class, target, scale, grad)


cdef void finish_grad_f64(
    const csoftmax_state *state, const double *x, Py_ssize_t n_classes, Py_ssize_t first_class, int64_t target,
    double scale, double *grad,
) noexcept nogil:
    write_grad(state, x, n_classes, first_class, target, scale, grad)


# ---- Batches ----

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
