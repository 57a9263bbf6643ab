# The C functions of single rows and of states, as _batch.pxd declares and include/csoftmax.h documents them. They go
# straight to the kernels: no task, no threads, nothing checked but the target.

from cython cimport floating
from libc.math cimport INFINITY
from libc.stdint cimport INT64_MIN, int64_t, uint16_t, uint64_t

from csoftmax.kernels.single cimport SingleRow, single_row
from csoftmax.kernels.task cimport (
    BFLOAT16, FLOAT16, FLOAT32, FLOAT64, GRADIENT, LOG_PROB, LOG_PROBABILITY, LOGSUMEXP, LOSS, NOTHING, PROBABILITY,
    RowNumber, State,
)


cdef inline int dtype_of_tag(floating dtype_tag) noexcept nogil:
    return FLOAT32 if floating is float else FLOAT64


cdef csoftmax_state csoftmax_empty() noexcept nogil:
    return csoftmax_state(-INFINITY, 0, 0, -1)


cdef int64_t csoftmax_ignore_none() noexcept nogil:
    return INT64_MIN


# ---- Rows ----

# Numbers are rounded to the dtype, and floats made doubles, while the state is the kernels': what is volatile does not
# move out of it. The caller's might flush a subnormal number or round another way.

cdef inline floating one_row(SingleRow row, floating dtype_tag) noexcept nogil:
    cdef fp_state state = fp_enter()
    cdef volatile floating result
    set_scale(&row, row.scale, dtype_tag)
    if row.out == NULL:
        row.output = NOTHING
    result = <floating>kernels.row[dtype_of_tag(dtype_tag)](&row)
    fp_leave(state)
    return result


cdef inline void set_scale(SingleRow *row, double scale, floating dtype_tag) noexcept nogil:
    """Whatever its size."""
    cdef Scale of_grad = moderated(scale, 1, 0, dtype_of_tag(dtype_tag))
    row.scale, row.exponent, row.factor = of_grad.moderate, of_grad.exponent, of_grad.factor


cdef inline floating loss_and_grad_of_row(
    int storage, const void *x, Py_ssize_t n_classes, int64_t target, double scale, void *grad, floating dtype_tag,
) noexcept nogil:
    cdef SingleRow row = single_row(GRADIENT, LOSS, storage, x, n_classes, target, grad)
    row.scale = scale
    return one_row(row, dtype_tag)


cdef void softmax_row_f32(const float *x, Py_ssize_t n_classes, float *out) noexcept nogil:
    one_row(single_row(PROBABILITY, LOGSUMEXP, FLOAT32, x, n_classes, 0, out), <float>0)


cdef void softmax_row_f64(const double *x, Py_ssize_t n_classes, double *out) noexcept nogil:
    one_row(single_row(PROBABILITY, LOGSUMEXP, FLOAT64, x, n_classes, 0, out), <double>0)


cdef void log_softmax_row_f32(const float *x, Py_ssize_t n_classes, float *out) noexcept nogil:
    one_row(single_row(LOG_PROBABILITY, LOGSUMEXP, FLOAT32, x, n_classes, 0, out), <float>0)


cdef void log_softmax_row_f64(const double *x, Py_ssize_t n_classes, double *out) noexcept nogil:
    one_row(single_row(LOG_PROBABILITY, LOGSUMEXP, FLOAT64, x, n_classes, 0, out), <double>0)


cdef float logsumexp_row_f32(const float *x, Py_ssize_t n_classes) noexcept nogil:
    return one_row(single_row(NOTHING, LOGSUMEXP, FLOAT32, x, n_classes, 0, NULL), <float>0)


cdef double logsumexp_row_f64(const double *x, Py_ssize_t n_classes) noexcept nogil:
    return one_row(single_row(NOTHING, LOGSUMEXP, FLOAT64, x, n_classes, 0, NULL), <double>0)


cdef float cross_entropy_row_f32(const float *x, Py_ssize_t n_classes, int64_t target) noexcept nogil:
    return one_row(single_row(NOTHING, LOSS, FLOAT32, x, n_classes, target, NULL), <float>0)


cdef double cross_entropy_row_f64(const double *x, Py_ssize_t n_classes, int64_t target) noexcept nogil:
    return one_row(single_row(NOTHING, LOSS, FLOAT64, x, n_classes, target, NULL), <double>0)


cdef float cross_entropy_with_grad_row_f32(
    const float *x, Py_ssize_t n_classes, int64_t target, double scale, float *grad,
) noexcept nogil:
    return loss_and_grad_of_row(FLOAT32, x, n_classes, target, scale, grad, <float>0)


cdef double cross_entropy_with_grad_row_f64(
    const double *x, Py_ssize_t n_classes, int64_t target, double scale, double *grad,
) noexcept nogil:
    return loss_and_grad_of_row(FLOAT64, x, n_classes, target, scale, grad, <double>0)


cdef float log_prob_row_f32(const float *x, Py_ssize_t n_classes, int64_t index) noexcept nogil:
    return one_row(single_row(NOTHING, LOG_PROB, FLOAT32, x, n_classes, index, NULL), <float>0)


cdef double log_prob_row_f64(const double *x, Py_ssize_t n_classes, int64_t index) noexcept nogil:
    return one_row(single_row(NOTHING, LOG_PROB, FLOAT64, x, n_classes, index, NULL), <double>0)


cdef void softmax_row_f16(const uint16_t *x, Py_ssize_t n_classes, uint16_t *out) noexcept nogil:
    one_row(single_row(PROBABILITY, LOGSUMEXP, FLOAT16, x, n_classes, 0, out), <float>0)


cdef void softmax_row_bf16(const uint16_t *x, Py_ssize_t n_classes, uint16_t *out) noexcept nogil:
    one_row(single_row(PROBABILITY, LOGSUMEXP, BFLOAT16, x, n_classes, 0, out), <float>0)


cdef void log_softmax_row_f16(const uint16_t *x, Py_ssize_t n_classes, uint16_t *out) noexcept nogil:
    one_row(single_row(LOG_PROBABILITY, LOGSUMEXP, FLOAT16, x, n_classes, 0, out), <float>0)


cdef void log_softmax_row_bf16(const uint16_t *x, Py_ssize_t n_classes, uint16_t *out) noexcept nogil:
    one_row(single_row(LOG_PROBABILITY, LOGSUMEXP, BFLOAT16, x, n_classes, 0, out), <float>0)


cdef float logsumexp_row_f16(const uint16_t *x, Py_ssize_t n_classes) noexcept nogil:
    return one_row(single_row(NOTHING, LOGSUMEXP, FLOAT16, x, n_classes, 0, NULL), <float>0)


cdef float logsumexp_row_bf16(const uint16_t *x, Py_ssize_t n_classes) noexcept nogil:
    return one_row(single_row(NOTHING, LOGSUMEXP, BFLOAT16, x, n_classes, 0, NULL), <float>0)


cdef float cross_entropy_row_f16(const uint16_t *x, Py_ssize_t n_classes, int64_t target) noexcept nogil:
    return one_row(single_row(NOTHING, LOSS, FLOAT16, x, n_classes, target, NULL), <float>0)


cdef float cross_entropy_row_bf16(const uint16_t *x, Py_ssize_t n_classes, int64_t target) noexcept nogil:
    return one_row(single_row(NOTHING, LOSS, BFLOAT16, x, n_classes, target, NULL), <float>0)


cdef float cross_entropy_with_grad_row_f16(
    const uint16_t *x, Py_ssize_t n_classes, int64_t target, double scale, uint16_t *grad,
) noexcept nogil:
    return loss_and_grad_of_row(FLOAT16, x, n_classes, target, scale, grad, <float>0)


cdef float cross_entropy_with_grad_row_bf16(
    const uint16_t *x, Py_ssize_t n_classes, int64_t target, double scale, uint16_t *grad,
) noexcept nogil:
    return loss_and_grad_of_row(BFLOAT16, x, n_classes, target, scale, grad, <float>0)


cdef float log_prob_row_f16(const uint16_t *x, Py_ssize_t n_classes, int64_t index) noexcept nogil:
    return one_row(single_row(NOTHING, LOG_PROB, FLOAT16, x, n_classes, index, NULL), <float>0)


cdef float log_prob_row_bf16(const uint16_t *x, Py_ssize_t n_classes, int64_t index) noexcept nogil:
    return one_row(single_row(NOTHING, LOG_PROB, BFLOAT16, x, n_classes, index, NULL), <float>0)


# ---- States: csoftmax_state is the kernels' State ----

cdef inline void add_to(
    csoftmax_state *state, int storage, const void *x, Py_ssize_t n_classes, floating dtype_tag,
) noexcept nogil:
    cdef fp_state fp = fp_enter()
    kernels.add[dtype_of_tag(dtype_tag)](<State *>state, storage, <const char *>x, n_classes)
    fp_leave(fp)


cdef inline void merge_with(csoftmax_state *state, const csoftmax_state *other, int dtype) noexcept nogil:
    cdef fp_state fp = fp_enter()
    kernels.merge[dtype](<State *>state, <const State *>other)
    fp_leave(fp)


cdef inline floating number_of(RowNumber number, const csoftmax_state *state, floating at_target) noexcept nogil:
    cdef volatile floating logit = at_target, result
    cdef fp_state fp = fp_enter()
    result = <floating>kernels.number[dtype_of_tag(at_target)](number, <const State *>state, logit)
    fp_leave(fp)
    return result


cdef inline void write_grad(
    const csoftmax_state *state, SingleRow row, Py_ssize_t first_class, double scale, floating dtype_tag,
) noexcept nogil:
    """The row's classes are numbered from first_class on, as its target is."""
    cdef fp_state fp = fp_enter()
    set_scale(&row, scale, dtype_tag)
    # A target before the piece is none of its classes, nor is one so far behind it that the difference wraps around.
    if row.target >= 0 and row.target >= first_class:
        row.target = <int64_t>(<uint64_t>row.target - <uint64_t>first_class)
    else:
        row.target = -1
    if row.out != NULL:
        kernels.write[dtype_of_tag(dtype_tag)](<const State *>state, &row)
    fp_leave(fp)


cdef void partial_f32(csoftmax_state *state, const float *x, Py_ssize_t n_classes) noexcept nogil:
    add_to(state, FLOAT32, x, n_classes, <float>0)


cdef void partial_f64(csoftmax_state *state, const double *x, Py_ssize_t n_classes) noexcept nogil:
    add_to(state, FLOAT64, x, n_classes, <double>0)


cdef void merge_f32(csoftmax_state *state, const csoftmax_state *other) noexcept nogil:
    merge_with(state, other, FLOAT32)


cdef void merge_f64(csoftmax_state *state, const csoftmax_state *other) noexcept nogil:
    merge_with(state, other, FLOAT64)


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
    write_grad(state, single_row(GRADIENT, LOGSUMEXP, FLOAT32, x, n_classes, target, grad), first_class, scale,
               <float>0)


cdef void finish_grad_f64(
    const csoftmax_state *state, const double *x, Py_ssize_t n_classes, Py_ssize_t first_class, int64_t target,
    double scale, double *grad,
) noexcept nogil:
    write_grad(state, single_row(GRADIENT, LOGSUMEXP, FLOAT64, x, n_classes, target, grad), first_class, scale,
               <double>0)


cdef void partial_f16(csoftmax_state *state, const uint16_t *x, Py_ssize_t n_classes) noexcept nogil:
    add_to(state, FLOAT16, x, n_classes, <float>0)


cdef void partial_bf16(csoftmax_state *state, const uint16_t *x, Py_ssize_t n_classes) noexcept nogil:
    add_to(state, BFLOAT16, x, n_classes, <float>0)


cdef void finish_grad_f16(
    const csoftmax_state *state, const uint16_t *x, Py_ssize_t n_classes, Py_ssize_t first_class, int64_t target,
    double scale, uint16_t *grad,
) noexcept nogil:
    write_grad(state, single_row(GRADIENT, LOGSUMEXP, FLOAT16, x, n_classes, target, grad), first_class, scale,
               <float>0)


cdef void finish_grad_bf16(
    const csoftmax_state *state, const uint16_t *x, Py_ssize_t n_classes, Py_ssize_t first_class, int64_t target,
    double scale, uint16_t *grad,
) noexcept nogil:
    write_grad(state, single_row(GRADIENT, LOGSUMEXP, BFLOAT16, x, n_classes, target, grad), first_class, scale,
               <float>0)
