# A task is run: by how many threads, which of them computes which tile or chunk, and in which scratch memory. How large
# these are is plan.pxi's part.

cimport cython
from cython.parallel cimport parallel, prange, threadid
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport free, malloc

from csoftmax.kernels.task cimport (
    CHUNK, COLUMNS, FINISH, FLOAT64, GRADIENT, LOGSUMEXP, LOSS, MEASURE, NOTHING, PROBABILITY, ROWS, SHORT, WRITE,
    Steps, Task, array_size, has_second_input, is_backward, item_size, numbers_size, term_arrays,
)

cdef extern from "Python.h":
    int check_signals "PyErr_CheckSignals" () noexcept

cdef enum:
    INTERRUPTED = -1                # beside the CSOFTMAX_ statuses: an exception is set


def set_quota(int n):
    """Processors that the control group grants this process; for the import alone, before there are other calls."""
    global quota
    quota = n


def set_serial(bint serial):
    """Whether this process must not open parallel regions; for the import alone."""
    global process_is_serial
    process_is_serial = serial


def is_serial():
    return bool(process_is_serial)


cdef int most_threads() noexcept nogil:
    cdef int n
    if process_is_serial or omp_in_parallel():
        return 1
    n = omp_get_max_threads()
    if n > omp_get_num_procs():
        n = omp_get_num_procs()
    if n > omp_get_thread_limit():
        n = omp_get_thread_limit()
    return n if n < quota else quota


def thread_limit():
    """The number of threads that the OpenMP runtime allows the process: OMP_THREAD_LIMIT, or very many."""
    return omp_get_thread_limit()


def max_threads():
    """The number of threads that a large call uses when it is not told."""
    return most_threads()


cdef int threads_for(Py_ssize_t n_elements, Py_ssize_t n_tiles, int n_threads) noexcept nogil:
    cdef Py_ssize_t n = n_elements // ELEMENTS_PER_THREAD
    if n <= 1 or n_tiles <= 1 or n_threads == 1 or process_is_serial or omp_in_parallel():
        return 1
    if n_threads == 0:
        n_threads = most_threads()
    if n > n_threads:
        n = n_threads
    return n if n < n_tiles else n_tiles


cdef inline Py_ssize_t first_row_of(const Task *task, Py_ssize_t tile, Py_ssize_t *n_rows) noexcept nogil:
    """Where a tile begins, and how many rows it has."""
    cdef Py_ssize_t start = tile % task.plan.tiles_per_inner * task.plan.tile_rows - task.plan.first_tile_offset
    cdef Py_ssize_t end = start + task.plan.tile_rows
    start = start if start > 0 else 0
    n_rows[0] = (end if end < task.plan.inner else task.plan.inner) - start
    return tile // task.plan.tiles_per_inner * task.plan.inner + start


cdef inline void chunks_on_this_thread(const Task *task, Steps steps, Py_ssize_t tile, Py_ssize_t chunk,
                                       Py_ssize_t end_chunk, char *states, char *scratch) noexcept nogil:
    """Steps of some chunks of a tile, whose states may be shared."""
    cdef Py_ssize_t n_rows = 0
    cdef Py_ssize_t first_row = first_row_of(task, tile, &n_rows)
    cdef fp_state state = fp_enter()
    kernels.tile[task.dtype](task, steps, first_row, n_rows, chunk, end_chunk, states, scratch)
    fp_leave(state)


cdef inline void one_tile(const Task *task, Py_ssize_t tile, char *memory) noexcept nogil:
    """All steps of a tile; memory holds its states and scratch."""
    chunks_on_this_thread(task, <Steps>(MEASURE | FINISH | WRITE), tile, 0, task.plan.n_chunks, memory,
                          memory + task.plan.states_bytes)


cdef bint interrupted() noexcept with gil:
    """Whether a signal's handler has raised."""
    return check_signals() != 0


cdef int run_tiles(const Task *task, int n_threads, bint for_python, char *memory) noexcept nogil:
    """Tiles are shared out among threads."""
    cdef Py_ssize_t n_tiles = task.n_rows // task.plan.inner * task.plan.tiles_per_inner
    cdef Py_ssize_t size = task.plan.states_bytes + task.plan.scratch_bytes
    cdef Py_ssize_t slice_tiles = ELEMENTS_PER_SLICE // (task.plan.tile_rows * task.n_classes) + 1
    cdef Py_ssize_t first = 0, last, tile
    if n_tiles == 1:
        one_tile(task, 0, memory)
        return CSOFTMAX_OK
    while first < n_tiles:
        last = first + slice_tiles if first + slice_tiles < n_tiles else n_tiles
        if n_threads == 1:
            for tile in range(first, last):
                one_tile(task, tile, memory)
            kernels.fence()
        else:
            with parallel(num_threads=n_threads):
                for tile in prange(first, last, schedule="static"):
                    one_tile(task, tile, memory + threadid() * size)
                kernels.fence()
        first = last
        if first < n_tiles and for_python and interrupted():
            return INTERRUPTED
    return CSOFTMAX_OK


cdef int run_chunks(const Task *task, int n_threads, bint for_python, char *memory) noexcept nogil:
    """Few tiles, or very long rows: the chunks of each tile are shared out, so that all threads work on one row."""
    cdef Py_ssize_t n_tiles = task.n_rows // task.plan.inner * task.plan.tiles_per_inner
    cdef char *scratch = memory + task.plan.states_bytes
    cdef Py_ssize_t tile
    for tile in range(n_tiles):
        if not chunks_between_signals(task, MEASURE, tile, n_threads, for_python, memory, scratch):
            return INTERRUPTED
        chunks_on_this_thread(task, FINISH, tile, 0, 0, memory, scratch)
        if task.output != NOTHING and not chunks_between_signals(
                task, WRITE, tile, n_threads, for_python, memory, scratch):
            return INTERRUPTED
    return CSOFTMAX_OK


cdef bint chunks_between_signals(const Task *task, Steps steps, Py_ssize_t tile, int n_threads, bint for_python,
                                 char *states, char *scratch) noexcept nogil:
    """Whether no signal has interrupted them."""
    cdef Py_ssize_t slice_chunks = ELEMENTS_PER_SLICE // (task.plan.tile_rows * CHUNK) + 1
    cdef Py_ssize_t first = 0, last
    while first < task.plan.n_chunks:
        last = first + slice_chunks if first + slice_chunks < task.plan.n_chunks else task.plan.n_chunks
        chunks_on_all_threads(task, steps, tile, first, last, n_threads, states, scratch)
        first = last
        if for_python and interrupted():
            return False
    return True


cdef void chunks_on_all_threads(const Task *task, Steps steps, Py_ssize_t tile, Py_ssize_t first, Py_ssize_t last,
                                int n_threads, char *states, char *scratch) noexcept nogil:
    cdef Py_ssize_t share, size = task.plan.scratch_bytes
    if n_threads == 1:
        chunks_on_this_thread(task, steps, tile, first, last, states, scratch)
        kernels.fence()
    else:
        with parallel(num_threads=n_threads):
            for share in prange(n_threads, schedule="static"):
                chunks_on_this_thread(
                    task, steps, tile, first + (last - first) * share // n_threads,
                    first + (last - first) * (share + 1) // n_threads, states, scratch + threadid() * size)
            kernels.fence()


cdef inline bint has_few_rows(const Task *task) noexcept nogil:
    """Whether the rows, each of neighbours and one chunk, take less time one by one than as a tile."""
    cdef Py_ssize_t item = item_size(task), row
    if (task.n_rows > (8 if task.n_classes <= SHORT else 4) or task.n_classes > CHUNK or task.temperature != 1
            or has_second_input(task)
            or task.loss.weight != NULL or task.loss.mass != NULL
            or task.loss.sample_weight != NULL or task.gradient.weight != NULL
            or task.pick.index != NULL
            or task.loss.target != NULL and task.logsumexp != NULL
            or task.x.class_stride != item or task.x.n_dims > 1
            or task.output != NOTHING and (task.out.class_stride != item or task.out.n_dims > 1)):
        return False
    for row in range(task.n_rows if task.loss.has_ignore_index else 0):
        if task.loss.target[row] == task.loss.ignore_index:
            return False
    return True


cdef void run_rows(const Task *task) noexcept nogil:
    cdef fp_state state = fp_enter()
    cdef Py_ssize_t row
    cdef int64_t target = 0
    cdef void *out = NULL
    cdef double result
    for row in range(task.n_rows):
        if task.loss.target != NULL:
            target = task.loss.target[row]
        if task.output != NOTHING:
            out = task.out.data + (row * task.out.strides[0] if row else 0)
        result = kernels.row[task.dtype](
            task.output, LOGSUMEXP if task.loss.target == NULL else LOSS,
            task.x.data + (row * task.x.strides[0] if row else 0), task.n_classes, target, task.gradient.scale, out)
        if task.loss.f32 != NULL:
            task.loss.f32[row] = <float>result
        if task.loss.f64 != NULL:
            task.loss.f64[row] = result
        if task.logsumexp != NULL and task.dtype == FLOAT64:
            (<double *>task.logsumexp)[row] = result
        elif task.logsumexp != NULL:
            (<float *>task.logsumexp)[row] = <float>result
    fp_leave(state)


cdef inline bint needs_more_room(const Task *task) noexcept nogil:
    """For a tile's masses, for what is added to its logits, or for the gradient that goes back."""
    return task.loss.mass != NULL or has_second_input(task)


cdef int run(Task *task, int n_threads, bint for_python) noexcept nogil:
    """Compute the task; return a status.

    n_threads is 0 for as many as pay; for_python: signals are looked at.
    """
    cdef fp_state state
    cdef int status = CSOFTMAX_OK
    if task.n_rows == 0 or task.n_classes == 0:
        return CSOFTMAX_OK
    if has_few_rows(task):
        run_rows(task)       # not beside the stack that tiles take
    else:
        status = run_all_tiles(task, n_threads, for_python)
    if status == CSOFTMAX_OK:
        state = fp_enter()
        multiply_output(task)
        fp_leave(state)
    return status


cdef int run_all_tiles(Task *task, int n_threads, bint for_python) noexcept nogil:
    cdef Py_ssize_t item = item_size(task)
    cdef Py_ssize_t n_tiles, width, chunk_bytes, tail_bytes, size
    cdef char[STACK_BYTES + 64] stack
    cdef char *heap = NULL
    cdef char *memory = stack
    cdef bint split
    cdef int status
    plan(task, item, threads_for(task.n_rows * task.n_classes, task.n_rows, n_threads))
    n_tiles = task.n_rows // task.plan.inner * task.plan.tiles_per_inner
    n_threads = threads_for(task.n_rows * task.n_classes, n_tiles * task.plan.n_chunks, n_threads)
    split = task.plan.n_chunks > 1 and not is_backward(task) and (
        n_threads > 1 and n_tiles < 2 * n_threads or task.plan.tile_rows * task.n_classes > ELEMENTS_PER_SLICE)
    if not split and n_threads > n_tiles:
        n_threads = n_tiles
    width = task.plan.tile_rows if task.plan.tile_rows < task.plan.inner else task.plan.inner
    if task.plan.orientation == COLUMNS:
        width = (width + 15) // 16 * 16
    chunk_bytes = array_size(task, task.plan.orientation, width) * item
    tail_bytes = array_size(task, ROWS, task.plan.tail_rows) * item
    if chunk_bytes < tail_bytes:
        chunk_bytes = tail_bytes
    if task.output == PROBABILITY or task.output == GRADIENT:
        task.plan.keep_terms = task.plan.n_chunks == 1 or not split and task.plan.n_chunks * chunk_bytes <= KEPT_BYTES
    task.plan.states_bytes = kernels.states_size(width, task.plan.n_chunks)
    task.plan.scratch_bytes = numbers_size(task, width) + chunk_bytes * (
        1 + term_arrays(task) + (2 if needs_more_room(task) else 0))
    task.plan.scratch_bytes = (task.plan.scratch_bytes + 63) // 64 * 64
    if n_threads > 1:
        # What a processor fetches ahead of what it reads goes on behind the end of its thread's scratch. It would take
        # from the next thread lines that this one is about to write: up to half of its time again, where the pages
        # happen to lie so; 8192 bytes end it.
        task.plan.scratch_bytes += APART_BYTES
    size = task.plan.states_bytes + task.plan.scratch_bytes * n_threads if split else (
        (task.plan.states_bytes + task.plan.scratch_bytes) * n_threads)
    if size > STACK_BYTES:
        heap = <char *>malloc(size + 64)
        if heap == NULL:
            return CSOFTMAX_NO_MEMORY
        memory = heap
    memory += (64 - <uintptr_t>memory % 64) % 64
    if split:
        status = run_chunks(task, n_threads, for_python, memory)
    else:
        status = run_tiles(task, n_threads, for_python, memory)
    free(heap)
    return status
