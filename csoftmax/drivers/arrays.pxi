# What _general.py and _extremes.py call: one function for each kind of call. Arrays are checked there, float32 or
# float64 of native byte order; an axis is not negative.

cimport cython
cimport numpy as cnp
from cpython.contextvars cimport PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit
from libc.stdint cimport int64_t

from csoftmax.kernels.task cimport (
    GRADIENT, LOG_PROBABILITY, LOG_SOFTMAX_BACKWARD, PROBABILITY, SOFTMAX_BACKWARD, Task,
)


cdef int call(Task *task, int n_threads) except -1:
    """run() for Python: without the GIL, unless the task is as short as that takes."""
    cdef int status
    if task.n_rows * task.n_classes <= SHORT_CALL:
        status = run(task, n_threads, False)
    else:
        with nogil:
            status = run(task, n_threads, True)
    if status == CSOFTMAX_NO_MEMORY:
        raise MemoryError("csoftmax got no scratch memory")
    return -1 if status == INTERRUPTED else 0


def in_default_state(function, tuple arguments, dict options):
    """function(*arguments, **options), which rounds to nearest and keeps subnormals, as the kernels do.

    No signal's handler runs between the change of the state and function, nor before the way back: an exception of its
    own finds the state in order. A context of its own forgets what function has set, np.errstate above all, whose
    methods a handler may interrupt.
    """
    context = PyContext_CopyCurrent()
    PyContext_Enter(context)
    cdef fp_state state = fp_enter()
    try:
        return function(*arguments, **options)
    finally:
        fp_leave(state)
        PyContext_Exit(context)


cdef double *doubles(cnp.ndarray values) noexcept:
    return NULL if values is None else <double *>cnp.PyArray_DATA(values)


cpdef probabilities(cnp.ndarray x, int axis, cnp.ndarray out, bint log, double temperature, int n_threads):
    """Write softmax, or log_softmax if `log`, of x / temperature along axis to out, of x's shape and dtype."""
    cdef Task task
    describe(&task, x, axis)
    task.temperature = temperature
    lay_out(&task.out, out, axis)
    task.output = LOG_PROBABILITY if log else PROBABILITY
    call(&task, n_threads)


cpdef logsumexp(cnp.ndarray x, int axis, cnp.ndarray out, double temperature, cnp.ndarray added, int n_threads):
    """Write the logsumexp of each row of (x + added) / temperature to out, C-contiguous, of x's dtype.

    added is None or of x's shape and dtype; where it is -inf x does not count. Rows without classes are left alone.
    """
    cdef Task task
    describe(&task, x, axis)
    task.temperature = temperature
    if added is not None:
        lay_out(&task.second_input, added, axis)
        task.has_added = True
    task.logsumexp = cnp.PyArray_DATA(out)
    call(&task, n_threads)


@cython.cdivision(True)
cpdef cross_entropy(cnp.ndarray logits, int axis, cnp.ndarray target, object ignore_index, cnp.ndarray loss,
                    cnp.ndarray grad, double divisor, int n_threads, cnp.ndarray probabilities=None,
                    cnp.ndarray weight=None, cnp.ndarray sample_weight=None, cnp.ndarray grad_weight=None,
                    double label_smoothing=0, double temperature=1, cnp.ndarray row_factor=None,
                    cnp.ndarray row_exponent=None):
    """Write each row's loss to loss, of the logits' dtype or float64, and its gradient over divisor to grad or None.

    With row_exponent it is grad_weight * row_factor * 2**row_exponent times the gradient for a divisor of 1, and not
    divided by the temperature either.

    target is int64, C-contiguous, and scanned, or None with probabilities of the logits' shape and dtype; loss is
    C-contiguous, the weights float64, C-contiguous, and none of those that are added far from 1.
    """
    cdef Task task
    cdef fp_state state
    cdef cnp.ndarray masses, chunk_mass
    describe(&task, logits, axis)
    if probabilities is not None:
        lay_out(&task.second_input, probabilities, axis)
        task.loss.has_probabilities = True
    else:
        task.loss.target = <const int64_t *>cnp.PyArray_DATA(target)
        if ignore_index is not None:
            task.loss.has_ignore_index = True
            task.loss.ignore_index = ignore_index
    task.loss.weight = doubles(weight)
    task.loss.sample_weight = doubles(sample_weight)
    task.gradient.weight = doubles(grad_weight)
    task.temperature = temperature
    if cnp.PyArray_TYPE(loss) == cnp.NPY_DOUBLE:
        task.loss.f64 = <double *>cnp.PyArray_DATA(loss)
    else:
        task.loss.f32 = <float *>cnp.PyArray_DATA(loss)
    if grad is not None:
        lay_out(&task.out, grad, axis)
        task.output = GRADIENT
    task.gradient.row_factor = doubles(row_factor)
    task.gradient.row_exponent = NULL if row_exponent is None else <int *>cnp.PyArray_DATA(row_exponent)
    state = fp_enter()
    if row_exponent is None:
        settle_scale(&task, divisor)
    if label_smoothing != 0 and task.n_classes:
        task.loss.kept = 1 - label_smoothing
        task.loss.smooth = label_smoothing / task.n_classes
    if probabilities is None and task.loss.smooth != 0:
        masses = masses_of_classes(task.loss.smooth, weight, task.n_classes, cnp.PyArray_TYPE(logits))
        chunk_mass = sums_of_chunks(masses)
        task.loss.mass = cnp.PyArray_DATA(masses)
        task.loss.chunk_mass = doubles(chunk_mass)
    fp_leave(state)
    call(&task, n_threads)


cpdef log_prob(cnp.ndarray logits, int axis, cnp.ndarray index, cnp.ndarray out, double temperature, int n_threads):
    """Write log_softmax of logits / temperature at index to out.

    index is int64, C-contiguous and scanned, as many numbers for each row; out likewise, of the logits' dtype.
    """
    cdef Task task
    describe(&task, logits, axis)
    if task.n_rows == 0:
        return
    task.temperature = temperature
    task.pick.index = <const int64_t *>cnp.PyArray_DATA(index)
    task.pick.n_indices = cnp.PyArray_SIZE(index) // task.n_rows
    task.pick.out = cnp.PyArray_DATA(out)
    call(&task, n_threads)


def backward(cnp.ndarray grad, cnp.ndarray result, int axis, cnp.ndarray out, bint log, int n_threads):
    """Write the gradient with respect to the logits to out; all arrays are of one shape and dtype."""
    cdef Task task
    describe(&task, result, axis)
    lay_out(&task.second_input, grad, axis)
    lay_out(&task.out, out, axis)
    task.output = LOG_SOFTMAX_BACKWARD if log else SOFTMAX_BACKWARD
    call(&task, n_threads)
