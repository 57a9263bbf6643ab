# What _general.py and _extremes.py call: one function for each kind of call. Arrays are checked there, and of any dtype
# and byte order that layouts.pxi knows, results of a native one; an axis is not negative. What the public functions try
# before is in fast_path.pxi.
#
# `wide` says that float32 and smaller are computed in float64, as integers and float64 always are. `taken`, None or
# integers of 64 bits and of the rows' shape, is taken off each row's logits, integers of 64 bits, before these are
# rounded.

cimport cython
cimport numpy as cnp
from cpython.contextvars cimport PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit
from libc.stdint cimport int64_t, uint64_t

from csoftmax.kernels.task cimport (
    FLOAT64, GRADIENT, LOG_PROBABILITY, LOG_SOFTMAX_BACKWARD, PROBABILITY, SOFTMAX_BACKWARD, Task,
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


cdef void describe_logits(Task *task, cnp.ndarray x, int axis, bint wide, cnp.ndarray taken) noexcept:
    describe(task, x, axis, FLOAT64 if wide else dtype_of(x))
    if taken is not None:
        task.x.taken = <const uint64_t *>cnp.PyArray_DATA(taken)


cpdef probabilities(cnp.ndarray x, int axis, cnp.ndarray out, bint log, double temperature, int n_threads,
                    bint wide=False, cnp.ndarray taken=None):
    """Write softmax, or log_softmax if `log`, of x / temperature along axis to out, of x's shape and a float dtype."""
    cdef Task task
    describe_logits(&task, x, axis, wide, taken)
    task.temperature = temperature
    lay_out(&task.out, out, axis)
    task.output = LOG_PROBABILITY if log else PROBABILITY
    call(&task, n_threads)


cpdef logsumexp(cnp.ndarray x, int axis, cnp.ndarray out, double temperature, cnp.ndarray added, int n_threads,
                cnp.ndarray taken=None):
    """Write the logsumexp of each row of (x + added) / temperature to out, C-contiguous, of the computation's dtype.

    added is None or of x's shape; where it is -inf x does not count. Rows without classes are left alone.
    """
    cdef Task task
    describe_logits(&task, x, axis, storage_of(out) == FLOAT64, taken)
    task.temperature = temperature
    if added is not None:
        lay_out(&task.second_input, added, axis)
        task.has_added = True
    task.logsumexp = cnp.PyArray_DATA(out)
    call(&task, n_threads)


cdef void ask_for_loss(Task *task, cnp.ndarray target, object ignore_index) except *:
    """Of targets, an int64 array of the rows, C-contiguous and scanned."""
    task.loss.target = <const int64_t *>cnp.PyArray_DATA(target)
    task.loss.has_ignore_index = ignore_index is not None
    task.loss.ignore_index = ignore_index if task.loss.has_ignore_index else 0


cdef void ask_for_loss_of_probabilities(Task *task, cnp.ndarray probabilities, int axis) noexcept:
    """Of the logits' shape."""
    lay_out(&task.second_input, probabilities, axis)
    task.loss.has_probabilities = True


@cython.cdivision(True)
cdef int write_loss(Task *task, cnp.ndarray loss, cnp.ndarray grad, int axis, double label_smoothing, double divisor,
                    int n_threads) except -1:
    """Write the losses that the task asks for to loss, and the gradient over divisor to grad, if it is not None."""
    cdef cnp.ndarray masses, chunk_mass
    cdef fp_state state
    if cnp.PyArray_TYPE(loss) == cnp.NPY_DOUBLE:
        task.loss.f64 = <double *>cnp.PyArray_DATA(loss)
    else:
        task.loss.f32 = <float *>cnp.PyArray_DATA(loss)
    if grad is not None:
        lay_out(&task.out, grad, axis)
        task.output = GRADIENT
    state = fp_enter()
    if task.gradient.row_exponent == NULL:
        settle_scale(task, divisor)
    if label_smoothing != 0 and task.n_classes:
        task.loss.kept = 1 - label_smoothing
        task.loss.smooth = label_smoothing / task.n_classes
    if not task.loss.has_probabilities and task.loss.smooth != 0:
        masses = masses_of_classes(task)
        chunk_mass = sums_of_chunks(masses)
        task.loss.mass = cnp.PyArray_DATA(masses)
        task.loss.chunk_mass = doubles(chunk_mass)
    fp_leave(state)
    return call(task, n_threads)


def cross_entropy(cnp.ndarray logits, int axis, cnp.ndarray loss, cnp.ndarray grad, int n_threads, **options):
    """Write each row's loss to loss, C-contiguous, float32 or float64, and its gradient to grad or None.

    The options: wide and taken. target, int64, C-contiguous and scanned, with ignore_index, an int64 or None; or
    probabilities, of the logits' shape. label_smoothing, temperature, and divisor of the gradient. weight of classes,
    sample_weight of losses and grad_weight of gradients: float64, C-contiguous, and none of those that are added far
    from 1.

    With row_exponent, of C's ints, the gradient is grad_weight * row_factor * 2**row_exponent times the one for a
    divisor of 1, and not divided by the temperature either.
    """
    cdef Task task
    cdef cnp.ndarray target = options.pop("target", None)
    cdef cnp.ndarray weight = options.pop("weight", None)
    cdef cnp.ndarray sample_weight = options.pop("sample_weight", None)
    cdef cnp.ndarray grad_weight = options.pop("grad_weight", None)
    cdef cnp.ndarray row_factor = options.pop("row_factor", None)
    cdef cnp.ndarray row_exponent = options.pop("row_exponent", None)
    cdef cnp.ndarray probabilities = options.pop("probabilities", None)
    cdef cnp.ndarray taken = options.pop("taken", None)
    cdef bint wide = options.pop("wide", False)
    cdef double label_smoothing = options.pop("label_smoothing", 0.0), divisor = options.pop("divisor", 1.0)
    ignore_index, temperature = options.pop("ignore_index", None), options.pop("temperature", 1.0)
    if options:
        raise TypeError(f"cross_entropy() has no {', '.join(options)}")
    describe_logits(&task, logits, axis, wide, taken)
    if probabilities is None:
        ask_for_loss(&task, target, ignore_index)
    else:
        ask_for_loss_of_probabilities(&task, probabilities, axis)
    task.temperature = temperature
    task.loss.weight = doubles(weight)
    task.loss.sample_weight = doubles(sample_weight)
    task.gradient.weight = doubles(grad_weight)
    task.gradient.row_factor = doubles(row_factor)
    task.gradient.row_exponent = NULL if row_exponent is None else <int *>cnp.PyArray_DATA(row_exponent)
    write_loss(&task, loss, grad, axis, label_smoothing, divisor, n_threads)


cpdef log_prob(cnp.ndarray logits, int axis, cnp.ndarray index, cnp.ndarray out, double temperature, int n_threads,
               cnp.ndarray taken=None):
    """Write log_softmax of logits / temperature at index to out.

    index is int64, C-contiguous and scanned, as many numbers for each row; out likewise, of the computation's dtype.
    """
    cdef Task task
    describe_logits(&task, logits, axis, storage_of(out) == FLOAT64, taken)
    if task.n_rows == 0:
        return
    task.temperature = temperature
    task.pick.index = <const int64_t *>cnp.PyArray_DATA(index)
    task.pick.n_indices = cnp.PyArray_SIZE(index) // task.n_rows
    task.pick.out = cnp.PyArray_DATA(out)
    call(&task, n_threads)


def backward(cnp.ndarray grad, cnp.ndarray result, int axis, cnp.ndarray out, bint log, int n_threads):
    """Write the gradient with respect to the logits to out; all arrays are of one shape. The wider dtype of the
    two that are read is computed in."""
    cdef Task task
    describe(&task, result, axis, max(dtype_of(result), dtype_of(grad)))
    lay_out(&task.second_input, grad, axis)
    lay_out(&task.out, out, axis)
    task.output = LOG_SOFTMAX_BACKWARD if log else SOFTMAX_BACKWARD
    call(&task, n_threads)
