# cython: freethreading_compatible=True
# The forward algorithm of connectionist temporal classification (Graves et al. 2006, doi:10.1145/1143844.1143891) and a
# prefix beam search, on csoftmax's C functions. ctc.py builds this file and runs it.

cimport cython
from libc.math cimport INFINITY, exp, log

import numpy as np

from csoftmax cimport CSOFTMAX_OK, log_softmax_row_f64, logsumexp_f64, logsumexp_row_f64


# ---- The usual formulas, to compare with: the signatures are those of csoftmax's functions ----

cdef int libm_logsumexp(
    const double *x, Py_ssize_t n_rows, Py_ssize_t n_classes, Py_ssize_t row_stride, Py_ssize_t class_stride,
    double *out, int n_threads,
) noexcept nogil:
    cdef Py_ssize_t row, j
    cdef double maximum, sum
    for row in range(n_rows):
        maximum, sum = -INFINITY, 0
        for j in range(n_classes):
            maximum = max(maximum, x[row * row_stride + j * class_stride])
        if maximum > -INFINITY:     # else the differences are NaN
            for j in range(n_classes):
                sum += exp(x[row * row_stride + j * class_stride] - maximum)
        out[row] = maximum + log(sum)
    return CSOFTMAX_OK


cdef void libm_log_softmax_row(const double *x, Py_ssize_t n_classes, double *out) noexcept nogil:
    cdef Py_ssize_t j
    cdef double shift
    libm_logsumexp(x, 1, n_classes, n_classes, 1, &shift, 1)
    for j in range(n_classes):
        out[j] = x[j] - shift


# ---- The probability of a label sequence ----

@cython.boundscheck(False)      # the labels, which are indices, are checked
@cython.wraparound(False)
def log_prob(const double[:, ::1] logits, labels, Py_ssize_t blank=0, bint libm=False):
    """Return the log-probability of `labels` given logits (n_frames, n_classes): all their alignments together.

    An alignment goes through the states start, blank, label, blank, label, ..., blank. With each frame it stays, takes
    a step, or takes two: from the start to the first label, and from a label to the next, if that is another one.
    """
    cdef Py_ssize_t n_classes = logits.shape[1], n_states = 2 * len(labels) + 2, t, s
    if not 0 <= blank < n_classes or not all(0 <= k < n_classes and k != blank for k in labels):
        raise ValueError(
            f"log_prob() needs labels from 0 to {n_classes - 1} other than the blank, got {labels} and blank {blank}")
    classes = np.full(n_states, blank, np.intp)
    classes[2::2] = labels
    cdef const Py_ssize_t[::1] label = classes
    cdef double[::1] log_p = np.empty(n_classes)
    cdef double[::1] alpha = np.full(n_states, -np.inf)     # of being in a state after the frames so far
    cdef double[:, ::1] sources = np.full((3, n_states), -np.inf)   # alpha of what stays, takes a step, takes two
    cdef int status = CSOFTMAX_OK
    log_softmax_row = libm_log_softmax_row if libm else log_softmax_row_f64
    logsumexp = libm_logsumexp if libm else logsumexp_f64
    alpha[0] = 0
    with nogil:
        for t in range(logits.shape[0]):
            log_softmax_row(&logits[t, 0], n_classes, &log_p[0])
            for s in range(1, n_states):
                sources[0, s] = alpha[s]
                sources[1, s] = alpha[s - 1]
            for s in range(2, n_states, 2):
                if label[s] != label[s - 2]:    # of the start it is the blank
                    sources[2, s] = alpha[s - 2]
            # All states at once, a row of three each: rows so short share the kernel's lanes.
            status = logsumexp(&sources[0, 0], n_states, 3, 1, n_states, &alpha[0], 1)
            if status != CSOFTMAX_OK:
                break
            for s in range(1, n_states):
                alpha[s] += log_p[label[s]]
    if status != CSOFTMAX_OK:
        raise MemoryError("csoftmax got no scratch memory")
    return logsumexp_row_f64(&alpha[n_states - 2], 2)       # in the last label, or in the blank behind it


# ---- The likeliest label sequences ----

cdef double add(double a, double b) noexcept nogil:
    cdef double[2] both = [a, b]
    return logsumexp_row_f64(both, 2)


cdef add_to(dict prefixes, tuple prefix, double at_blank, double at_label):
    old_blank, old_label = prefixes.get(prefix, (-INFINITY, -INFINITY))
    prefixes[prefix] = add(old_blank, at_blank), add(old_label, at_label)


def beam_search(const double[:, ::1] logits, Py_ssize_t width, Py_ssize_t blank=0):
    """Return the likeliest label sequences and their log-probabilities, best first; `width` are kept after each frame.

    The alignments of those that are not kept are lost: log-probabilities are lower bounds, exact if all are kept.
    """
    cdef Py_ssize_t n_classes = logits.shape[1], t, k
    cdef double[::1] log_p = np.empty(n_classes)
    cdef double at_blank, at_label, both
    kept = {(): (0.0, -INFINITY)}   # prefix: log-probability with a blank in the last frame, and with its last label
    for t in range(logits.shape[0]):
        log_softmax_row_f64(&logits[t, 0], n_classes, &log_p[0])
        grown = {}
        for prefix, (at_blank, at_label) in kept.items():
            both = add(at_blank, at_label)
            for k in range(n_classes):
                if k == blank:
                    add_to(grown, prefix, both + log_p[k], -INFINITY)
                elif prefix and k == prefix[-1]:    # the same label goes on, or is there again behind a blank
                    add_to(grown, prefix, -INFINITY, at_label + log_p[k])
                    add_to(grown, (*prefix, k), -INFINITY, at_blank + log_p[k])
                else:
                    add_to(grown, (*prefix, k), -INFINITY, both + log_p[k])
        kept = dict(sorted(grown.items(), key=lambda item: -add(item[1][0], item[1][1]))[:width])
    return [(prefix, add(at_blank, at_label)) for prefix, (at_blank, at_label) in kept.items()]
