/* csoftmax.h: softmax and its kin for C99 and C++, over float (_f32), double (_f64), and half-width floats, whose bits
 * are a uint16_t: IEEE's (_f16) and bfloat16 (_bf16). This file is the manual.
 *
 * A program that runs Python calls csoftmax_import() once, with the GIL, and keeps the table of functions that it
 * returns. No function needs the GIL, touches errno, changes the floating-point state or depends on it; all may be
 * called from any number of threads, and need at most 32 KB of stack. Numbers are those of the Python package, bit for
 * bit, whatever n_threads is.
 *
 *     const csoftmax_functions *cs = csoftmax_import();
 *     if (cs == NULL) return NULL;                         // an ImportError is set
 *     float loss = cs->cross_entropy_row_f32(logits, 32, target);
 *
 * Compile with the folder that `python -c "import csoftmax; print(csoftmax.get_include())"` prints; there is nothing to
 * link. A library that knows no Python includes this with CSOFTMAX_NO_PYTHON defined, and is handed the table.
 *
 * Half-width logits are computed as floats: results for each class are the float's, rounded once to nearest even, and
 * those for a row are floats. Their states are those of float logits: merge_f32(), finish_f32() and finish_loss_f32()
 * go on with them.
 *
 * Special values: -inf is a class that is absent. A row with a NaN is NaN; so is one with +inf or of -inf alone, but
 * for its logsumexp, which is that infinity. Errors of results: see the docstrings of the Python functions. */
#ifndef CSOFTMAX_H
#define CSOFTMAX_H

#ifndef CSOFTMAX_NO_PYTHON
#include <Python.h>
#endif
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CSOFTMAX_ABI 1                  /* changes if a field changes or moves; new fields come at the end */

/* What batch functions return. Anything but CSOFTMAX_OK: no output has been written. */
enum {
    CSOFTMAX_OK = 0,
    CSOFTMAX_BAD_TARGET = 1,            /* a target is no class, nor ignored: *bad_row is its row */
    CSOFTMAX_BAD_ARGUMENT = 2,          /* a NULL that must not be, a negative size or n_threads, a target_size that is
                                           neither 4 nor 8, a shape whose bytes a ptrdiff_t cannot count, a (n_rows,)
                                           result that does not lie at a multiple of its element's size */
    CSOFTMAX_NO_MEMORY = 3
};

#define CSOFTMAX_IGNORE_NONE INT64_MIN  /* an ignore_index that ignores nothing */

/* What is known of some classes of a row: enough to go on with others, in any order and anywhere. Plain numbers, to be
 * stored and sent. {v, 0, 0, 0} is the state of a row whose logsumexp is v. States of float and of double logits may
 * meet: the result is one of double. */
typedef struct {
    double maximum;                     /* of the logits */
    double sum;                         /* of the terms below the maximum, by a scale that maximum and type fix */
    double carry;                       /* what rounding took from the sum */
    double ties;                        /* how many other logits are the maximum, and a half more for float, which tells
                                           the scale of the sum; NaN if one is a NaN */
} csoftmax_state;

#define CSOFTMAX_EMPTY {-INFINITY, 0, 0, -1}    /* the state of no classes, to begin with */

/* ROWS: one row of n_classes neighbours. No allocation, no threads; nothing is checked but the target.
 *   x, out, grad    n_classes numbers; out and grad may be x, and must not overlap it otherwise. Any alignment.
 *   n_classes       0 or less is an empty row: logsumexp is -inf, nothing is written.
 *   target, index   if not in [0, n_classes), the result is NaN and grad is not written.
 *   scale           by which the gradient is multiplied: 1, or 1 / n_rows for a mean.
 *
 * STATES: a row in pieces. partial() adds n_classes logits to a state, merge() one state to another; then
 *   finish()        returns the row's logsumexp,
 *   finish_loss()   the loss of the target whose logit is given: minus its log-probability, up to rounding,
 *   finish_grad()   writes the gradient of a piece of the row, whose classes are numbered from first_class on:
 *                   scale * (probability - (class == target)). A target elsewhere, -1 say, leaves probabilities.
 * The same pieces in the same order give the same bits. partial() over 2048 classes at a time, in order, gives those of
 * the whole row, if it has more than 8.
 *
 * BATCHES: n_rows rows in any layout, shared out among at most n_threads (0: as many as pay). All strides are in
 * elements and may be negative, or 0 for x. Rows of results are contiguous (n_rows,). They return a status.
 *   out, grad       may be x with x's strides; must not overlap it otherwise. Strides of different elements differ.
 *   target, index   (n_rows,), int32_t or int64_t: target_size is its size, 4 or 8. All are checked first; bad_row may
 *                   be NULL.
 *   ignore_index    rows with this target have loss 0 and gradient 0; it need not be a class.
 *   loss, logsumexp, grad   each may be NULL. grad of a mean: scale = 1.0 / (rows that are not ignored).
 * NULL is allowed for everything that has no elements. A child forked from a process that has used threads computes
 * with one. */
typedef struct csoftmax_functions {
    size_t size;                        /* of the table that is installed */
    ptrdiff_t abi;

    void (*softmax_row_f32)(const float *x, ptrdiff_t n_classes, float *out);
    void (*softmax_row_f64)(const double *x, ptrdiff_t n_classes, double *out);
    void (*log_softmax_row_f32)(const float *x, ptrdiff_t n_classes, float *out);
    void (*log_softmax_row_f64)(const double *x, ptrdiff_t n_classes, double *out);
    float (*logsumexp_row_f32)(const float *x, ptrdiff_t n_classes);
    double (*logsumexp_row_f64)(const double *x, ptrdiff_t n_classes);
    float (*cross_entropy_row_f32)(const float *x, ptrdiff_t n_classes, int64_t target);
    double (*cross_entropy_row_f64)(const double *x, ptrdiff_t n_classes, int64_t target);
    float (*cross_entropy_with_grad_row_f32)(const float *x, ptrdiff_t n_classes, int64_t target, double scale,
                                             float *grad);
    double (*cross_entropy_with_grad_row_f64)(const double *x, ptrdiff_t n_classes, int64_t target, double scale,
                                              double *grad);
    float (*log_prob_row_f32)(const float *x, ptrdiff_t n_classes, int64_t index);
    double (*log_prob_row_f64)(const double *x, ptrdiff_t n_classes, int64_t index);

    void (*partial_f32)(csoftmax_state *state, const float *x, ptrdiff_t n_classes);
    void (*partial_f64)(csoftmax_state *state, const double *x, ptrdiff_t n_classes);
    void (*merge_f32)(csoftmax_state *state, const csoftmax_state *other);
    void (*merge_f64)(csoftmax_state *state, const csoftmax_state *other);
    float (*finish_f32)(const csoftmax_state *state);
    double (*finish_f64)(const csoftmax_state *state);
    float (*finish_loss_f32)(const csoftmax_state *state, float target_logit);
    double (*finish_loss_f64)(const csoftmax_state *state, double target_logit);
    void (*finish_grad_f32)(const csoftmax_state *state, const float *x, ptrdiff_t n_classes, ptrdiff_t first_class,
                            int64_t target, double scale, float *grad);
    void (*finish_grad_f64)(const csoftmax_state *state, const double *x, ptrdiff_t n_classes, ptrdiff_t first_class,
                            int64_t target, double scale, double *grad);

    int (*softmax_f32)(const float *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                       ptrdiff_t class_stride, float *out, ptrdiff_t out_row_stride, ptrdiff_t out_class_stride,
                       int n_threads);
    int (*softmax_f64)(const double *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                       ptrdiff_t class_stride, double *out, ptrdiff_t out_row_stride, ptrdiff_t out_class_stride,
                       int n_threads);
    int (*log_softmax_f32)(const float *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                           ptrdiff_t class_stride, float *out, ptrdiff_t out_row_stride, ptrdiff_t out_class_stride,
                           int n_threads);
    int (*log_softmax_f64)(const double *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                           ptrdiff_t class_stride, double *out, ptrdiff_t out_row_stride, ptrdiff_t out_class_stride,
                           int n_threads);
    int (*logsumexp_f32)(const float *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                         ptrdiff_t class_stride, float *out, int n_threads);
    int (*logsumexp_f64)(const double *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                         ptrdiff_t class_stride, double *out, int n_threads);
    int (*cross_entropy_f32)(const float *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                             ptrdiff_t class_stride, const void *target, int target_size, int64_t ignore_index,
                             float *loss, float *logsumexp, float *grad, ptrdiff_t grad_row_stride,
                             ptrdiff_t grad_class_stride, double scale, int n_threads, ptrdiff_t *bad_row);
    int (*cross_entropy_f64)(const double *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                             ptrdiff_t class_stride, const void *target, int target_size, int64_t ignore_index,
                             double *loss, double *logsumexp, double *grad, ptrdiff_t grad_row_stride,
                             ptrdiff_t grad_class_stride, double scale, int n_threads, ptrdiff_t *bad_row);
    int (*log_prob_f32)(const float *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                        ptrdiff_t class_stride, const void *index, int index_size, float *out, int n_threads,
                        ptrdiff_t *bad_row);
    int (*log_prob_f64)(const double *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                        ptrdiff_t class_stride, const void *index, int index_size, double *out, int n_threads,
                        ptrdiff_t *bad_row);

    void (*softmax_row_f16)(const uint16_t *x, ptrdiff_t n_classes, uint16_t *out);
    void (*softmax_row_bf16)(const uint16_t *x, ptrdiff_t n_classes, uint16_t *out);
    void (*log_softmax_row_f16)(const uint16_t *x, ptrdiff_t n_classes, uint16_t *out);
    void (*log_softmax_row_bf16)(const uint16_t *x, ptrdiff_t n_classes, uint16_t *out);
    float (*logsumexp_row_f16)(const uint16_t *x, ptrdiff_t n_classes);
    float (*logsumexp_row_bf16)(const uint16_t *x, ptrdiff_t n_classes);
    float (*cross_entropy_row_f16)(const uint16_t *x, ptrdiff_t n_classes, int64_t target);
    float (*cross_entropy_row_bf16)(const uint16_t *x, ptrdiff_t n_classes, int64_t target);
    float (*cross_entropy_with_grad_row_f16)(const uint16_t *x, ptrdiff_t n_classes, int64_t target, double scale,
                                             uint16_t *grad);
    float (*cross_entropy_with_grad_row_bf16)(const uint16_t *x, ptrdiff_t n_classes, int64_t target, double scale,
                                              uint16_t *grad);
    float (*log_prob_row_f16)(const uint16_t *x, ptrdiff_t n_classes, int64_t index);
    float (*log_prob_row_bf16)(const uint16_t *x, ptrdiff_t n_classes, int64_t index);

    void (*partial_f16)(csoftmax_state *state, const uint16_t *x, ptrdiff_t n_classes);
    void (*partial_bf16)(csoftmax_state *state, const uint16_t *x, ptrdiff_t n_classes);
    void (*finish_grad_f16)(const csoftmax_state *state, const uint16_t *x, ptrdiff_t n_classes, ptrdiff_t first_class,
                            int64_t target, double scale, uint16_t *grad);
    void (*finish_grad_bf16)(const csoftmax_state *state, const uint16_t *x, ptrdiff_t n_classes, ptrdiff_t first_class,
                             int64_t target, double scale, uint16_t *grad);

    int (*softmax_f16)(const uint16_t *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                       ptrdiff_t class_stride, uint16_t *out, ptrdiff_t out_row_stride, ptrdiff_t out_class_stride,
                       int n_threads);
    int (*softmax_bf16)(const uint16_t *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                        ptrdiff_t class_stride, uint16_t *out, ptrdiff_t out_row_stride, ptrdiff_t out_class_stride,
                        int n_threads);
    int (*log_softmax_f16)(const uint16_t *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                           ptrdiff_t class_stride, uint16_t *out, ptrdiff_t out_row_stride, ptrdiff_t out_class_stride,
                           int n_threads);
    int (*log_softmax_bf16)(const uint16_t *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                            ptrdiff_t class_stride, uint16_t *out, ptrdiff_t out_row_stride, ptrdiff_t out_class_stride,
                            int n_threads);
    int (*logsumexp_f16)(const uint16_t *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                         ptrdiff_t class_stride, float *out, int n_threads);
    int (*logsumexp_bf16)(const uint16_t *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                          ptrdiff_t class_stride, float *out, int n_threads);
    int (*cross_entropy_f16)(const uint16_t *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                             ptrdiff_t class_stride, const void *target, int target_size, int64_t ignore_index,
                             float *loss, float *logsumexp, uint16_t *grad, ptrdiff_t grad_row_stride,
                             ptrdiff_t grad_class_stride, double scale, int n_threads, ptrdiff_t *bad_row);
    int (*cross_entropy_bf16)(const uint16_t *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                              ptrdiff_t class_stride, const void *target, int target_size, int64_t ignore_index,
                              float *loss, float *logsumexp, uint16_t *grad, ptrdiff_t grad_row_stride,
                              ptrdiff_t grad_class_stride, double scale, int n_threads, ptrdiff_t *bad_row);
    int (*log_prob_f16)(const uint16_t *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                        ptrdiff_t class_stride, const void *index, int index_size, float *out, int n_threads,
                        ptrdiff_t *bad_row);
    int (*log_prob_bf16)(const uint16_t *x, ptrdiff_t n_rows, ptrdiff_t n_classes, ptrdiff_t row_stride,
                         ptrdiff_t class_stride, const void *index, int index_size, float *out, int n_threads,
                         ptrdiff_t *bad_row);
} csoftmax_functions;

#ifndef CSOFTMAX_NO_PYTHON
/* The installed package's table, or NULL with an exception set: an ImportError if csoftmax is not installed, or is
 * older or other than this header asks for. A newer one, whose table has grown, is fine. */
static inline const csoftmax_functions *csoftmax_import(void)
{
    const csoftmax_functions *table = NULL;
    PyObject *module = PyImport_ImportModule("csoftmax._batch");
    PyObject *capsule = module == NULL ? NULL : PyObject_GetAttrString(module, "C_FUNCTIONS");
    if (module != NULL && capsule == NULL)
        PyErr_SetString(PyExc_ImportError, "csoftmax.h needs a csoftmax with a C interface: upgrade csoftmax");
    if (capsule != NULL)
        table = (const csoftmax_functions *)PyCapsule_GetPointer(capsule, "csoftmax._batch.C_FUNCTIONS");
    Py_XDECREF(capsule);
    Py_XDECREF(module);
    if (table == NULL) return NULL;
    if (table->abi != CSOFTMAX_ABI)
        PyErr_Format(PyExc_ImportError, "csoftmax.h needs the C interface %d, got %zd from the installed csoftmax: "
                     "compile with the header that csoftmax.get_include() names", CSOFTMAX_ABI, (Py_ssize_t)table->abi);
    else if (table->size < sizeof(csoftmax_functions))
        PyErr_Format(PyExc_ImportError, "csoftmax.h needs a table of %zu bytes, got %zu from the installed "
                     "csoftmax, which is older: upgrade csoftmax", sizeof(csoftmax_functions), table->size);
    else
        return table;
    return NULL;
}
#endif

#ifdef __cplusplus
}
#endif

#endif
