# The C functions that other Cython code may cimport from csoftmax; include/csoftmax.h is their manual and their order.

from libc.stdint cimport int64_t, uint16_t

cdef enum:
    CSOFTMAX_ABI = 1            # as in csoftmax.h, and so are these
    CSOFTMAX_OK = 0
    CSOFTMAX_BAD_TARGET = 1
    CSOFTMAX_BAD_ARGUMENT = 2
    CSOFTMAX_NO_MEMORY = 3

ctypedef struct csoftmax_state:
    double maximum
    double sum
    double carry
    double ties

cdef csoftmax_state csoftmax_empty() noexcept nogil
cdef int64_t csoftmax_ignore_none() noexcept nogil

cdef void softmax_row_f32(const float *x, Py_ssize_t n_classes, float *out) noexcept nogil
cdef void softmax_row_f64(const double *x, Py_ssize_t n_classes, double *out) noexcept nogil
cdef void log_softmax_row_f32(const float *x, Py_ssize_t n_classes, float *out) noexcept nogil
cdef void log_softmax_row_f64(const double *x, Py_ssize_t n_classes, double *out) noexcept nogil
cdef float logsumexp_row_f32(const float *x, Py_ssize_t n_classes) noexcept nogil
cdef double logsumexp_row_f64(const double *x, Py_ssize_t n_classes) noexcept nogil
cdef float cross_entropy_row_f32(const float *x, Py_ssize_t n_classes, int64_t target) noexcept nogil
cdef double cross_entropy_row_f64(const double *x, Py_ssize_t n_classes, int64_t target) noexcept nogil
cdef float cross_entropy_with_grad_row_f32(
    const float *x, Py_ssize_t n_classes, int64_t target, double scale, float *grad) noexcept nogil
cdef double cross_entropy_with_grad_row_f64(
    const double *x, Py_ssize_t n_classes, int64_t target, double scale, double *grad) noexcept nogil
cdef float log_prob_row_f32(const float *x, Py_ssize_t n_classes, int64_t index) noexcept nogil
cdef double log_prob_row_f64(const double *x, Py_ssize_t n_classes, int64_t index) noexcept nogil

cdef void partial_f32(csoftmax_state *state, const float *x, Py_ssize_t n_classes) noexcept nogil
cdef void partial_f64(csoftmax_state *state, const double *x, Py_ssize_t n_classes) noexcept nogil
cdef void merge_f32(csoftmax_state *state, const csoftmax_state *other) noexcept nogil
cdef void merge_f64(csoftmax_state *state, const csoftmax_state *other) noexcept nogil
cdef float finish_f32(const csoftmax_state *state) noexcept nogil
cdef double finish_f64(const csoftmax_state *state) noexcept nogil
cdef float finish_loss_f32(const csoftmax_state *state, float target_logit) noexcept nogil
cdef double finish_loss_f64(const csoftmax_state *state, double target_logit) noexcept nogil
cdef void finish_grad_f32(
    const csoftmax_state *state, const float *x, Py_ssize_t n_classes, Py_ssize_t first_class, int64_t target,
    double scale, float *grad) noexcept nogil
cdef void finish_grad_f64(
    const csoftmax_state *state, const double *x, Py_ssize_t n_classes, Py_ssize_t first_class, int64_t target,
    double scale, double *grad) noexcept nogil

cdef int softmax_f32(
    const float *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    float *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads) noexcept nogil
cdef int softmax_f64(
    const double *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    double *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads) noexcept nogil
cdef int log_softmax_f32(
    const float *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    float *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads) noexcept nogil
cdef int log_softmax_f64(
    const double *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    double *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads) noexcept nogil
cdef int logsumexp_f32(
    const float *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    float *out, int n_threads) noexcept nogil
cdef int logsumexp_f64(
    const double *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    double *out, int n_threads) noexcept nogil
cdef int cross_entropy_f32(
    const float *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *target, int target_size, int64_t ignore_index, float *loss, float *logsumexp, float *grad,
    Py_ssize_t grad_row_stride, Py_ssize_t grad_class_stride, double scale, int n_threads,
    Py_ssize_t *bad_row) noexcept nogil
cdef int cross_entropy_f64(
    const double *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *target, int target_size, int64_t ignore_index, double *loss, double *logsumexp, double *grad,
    Py_ssize_t grad_row_stride, Py_ssize_t grad_class_stride, double scale, int n_threads,
    Py_ssize_t *bad_row) noexcept nogil
cdef int log_prob_f32(
    const float *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *index, int index_size, float *out, int n_threads, Py_ssize_t *bad_row) noexcept nogil
cdef int log_prob_f64(
    const double *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *index, int index_size, double *out, int n_threads, Py_ssize_t *bad_row) noexcept nogil

cdef void softmax_row_f16(const uint16_t *x, Py_ssize_t n_classes, uint16_t *out) noexcept nogil
cdef void softmax_row_bf16(const uint16_t *x, Py_ssize_t n_classes, uint16_t *out) noexcept nogil
cdef void log_softmax_row_f16(const uint16_t *x, Py_ssize_t n_classes, uint16_t *out) noexcept nogil
cdef void log_softmax_row_bf16(const uint16_t *x, Py_ssize_t n_classes, uint16_t *out) noexcept nogil
cdef float logsumexp_row_f16(const uint16_t *x, Py_ssize_t n_classes) noexcept nogil
cdef float logsumexp_row_bf16(const uint16_t *x, Py_ssize_t n_classes) noexcept nogil
cdef float cross_entropy_row_f16(const uint16_t *x, Py_ssize_t n_classes, int64_t target) noexcept nogil
cdef float cross_entropy_row_bf16(const uint16_t *x, Py_ssize_t n_classes, int64_t target) noexcept nogil
cdef float cross_entropy_with_grad_row_f16(
    const uint16_t *x, Py_ssize_t n_classes, int64_t target, double scale, uint16_t *grad) noexcept nogil
cdef float cross_entropy_with_grad_row_bf16(
    const uint16_t *x, Py_ssize_t n_classes, int64_t target, double scale, uint16_t *grad) noexcept nogil
cdef float log_prob_row_f16(const uint16_t *x, Py_ssize_t n_classes, int64_t index) noexcept nogil
cdef float log_prob_row_bf16(const uint16_t *x, Py_ssize_t n_classes, int64_t index) noexcept nogil

cdef void partial_f16(csoftmax_state *state, const uint16_t *x, Py_ssize_t n_classes) noexcept nogil
cdef void partial_bf16(csoftmax_state *state, const uint16_t *x, Py_ssize_t n_classes) noexcept nogil
cdef void finish_grad_f16(
    const csoftmax_state *state, const uint16_t *x, Py_ssize_t n_classes, Py_ssize_t first_class, int64_t target,
    double scale, uint16_t *grad) noexcept nogil
cdef void finish_grad_bf16(
    const csoftmax_state *state, const uint16_t *x, Py_ssize_t n_classes, Py_ssize_t first_class, int64_t target,
    double scale, uint16_t *grad) noexcept nogil

cdef int softmax_f16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    uint16_t *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads) noexcept nogil
cdef int softmax_bf16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    uint16_t *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads) noexcept nogil
cdef int log_softmax_f16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    uint16_t *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads) noexcept nogil
cdef int log_softmax_bf16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    uint16_t *out, Py_ssize_t out_row_stride, Py_ssize_t out_class_stride, int n_threads) noexcept nogil
cdef int logsumexp_f16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    float *out, int n_threads) noexcept nogil
cdef int logsumexp_bf16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    float *out, int n_threads) noexcept nogil
cdef int cross_entropy_f16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *target, int target_size, int64_t ignore_index, float *loss, float *logsumexp, uint16_t *grad,
    Py_ssize_t grad_row_stride, Py_ssize_t grad_class_stride, double scale, int n_threads,
    Py_ssize_t *bad_row) noexcept nogil
cdef int cross_entropy_bf16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *target, int target_size, int64_t ignore_index, float *loss, float *logsumexp, uint16_t *grad,
    Py_ssize_t grad_row_stride, Py_ssize_t grad_class_stride, double scale, int n_threads,
    Py_ssize_t *bad_row) noexcept nogil
cdef int log_prob_f16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *index, int index_size, float *out, int n_threads, Py_ssize_t *bad_row) noexcept nogil
cdef int log_prob_bf16(
    const uint16_t *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    const void *index, int index_size, float *out, int n_threads, Py_ssize_t *bad_row) noexcept nogil
