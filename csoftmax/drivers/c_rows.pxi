# The C functions of single rows and of states, as _batch.pxd declares and include/csoftmax.h documents them. They go
# straight to the kernels: no task, no threads, nothing checked but the target.

from cython cimport floating
from libc.math cimport INFINITY
from libc.stdint cimport INT64_MIN, int64_t, uint64_t

from csoftmax.kernels.task cimport (
    FLOAT32, FLOAT64, GRADIENT, LOG_PROB, LOG_PROBABILITY, LOGSUMEXP, LOSS, NOTHING, PROBABILITY, Output, RowNumber,
    State,
)


cdef inline int dtype_of_pointer(const floating *x) noexcept nogil:
    return FLOAT32 if floating is float else FLOAT64


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
    cdef Scale of_grad = Scale(scale, 0, 1)
    if output == GRADIENT:
        of_grad = moderated(scale, 1, 0, dtype_of_pointer(x))
    result = <floating>kernels.row[dtype_of_pointer(x)](
        output if out != NULL else NOTHING, number, x, n_classes, target, of_grad.moderate, out)
    if output == GRADIENT and out != NULL and 0 <= target < n_classes:
        multiply_row(out, n_classes, of_grad)
    fp_leave(state)
    return result


cdef inline void multiply_row(floating *out, Py_ssize_t n_classes, Scale scale) noexcept nogil:
    """By what is left of the scale."""
    if scale.exponent != 0 or scale.factor != 1:
        kernels.multiply[dtype_of_pointer(out)](
            <char *>out, n_classes, sizeof(floating), scale.factor, scale.exponent)


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
    cdef Scale of_grad = moderated(scale, 1, 0, dtype_of_pointer(x))
    # A target before the piece is none of its classes, nor is one so far behind it that the difference wraps around.
    target = <int64_t>(<uint64_t>target - <uint64_t>first_class) if target >= 0 and target >= first_class else -1
    if grad != NULL:
        kernels.write[dtype_of_pointer(x)](<const State *>state, x, n_classes, target, of_grad.moderate, grad)
        multiply_row(grad, n_classes, of_grad)
    fp_leave(fp)


cdef void partial_f32(csoftmax_state *state, const float *x, Py_ssize_t n_classes) noexcept nogil:
    add_to(state, x, n_classes)


cdef void partial_f64(csoftmax_state *state, const double *x, Py_ssize_t n_classes) noexcept nogil:
    add_to(state, x, n_classes)


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
    write_grad(state, x, n_classes, first_class, target, scale, grad)


cdef void finish_grad_f64(
    const csoftmax_state *state, const double *x, Py_ssize_t n_classes, Py_ssize_t first_class, int64_t target,
    double scale, double *grad,
) noexcept nogil:
    write_grad(state, x, n_classes, first_class, target, scale, grad)
