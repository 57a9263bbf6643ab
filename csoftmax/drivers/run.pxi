# Who computes a task: how many threads, and which tile or chunk each of them, in which part of the scratch memory. How
# large tiles and memory are is plan.pxi's part, what is computed the kernels'.

from cython.parallel cimport parallel, prange, threadid
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport free

from csoftmax.kernels.single cimport SingleRow, single_row
from csoftmax.kernels.task cimport (
    ADD, CHUNK, FINISH, FLOAT64, LOGSUMEXP, LOSS, MEASURE, NOTHING, SHORT, WRITE, Steps, Task, has_factors,
    has_second_input,
)
from csoftmax.kernels.tile cimport Span

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


cdef int threads_for(Py_ssize_t work, Py_ssize_t n_shares, int n_threads) noexcept nogil:
    """How many threads pay for so much work, or so many numbers that are scanned; n_threads is at most so many, 0 for
    as many as there may be."""
    cdef Py_ssize_t n = work // ELEMENTS_PER_THREAD
    if n <= 1 or n_shares <= 1 or n_threads == 1 or process_is_serial or omp_in_parallel():
        return 1
    n = min(n, n_shares)
    return <int>min(n, most_threads() if n_threads == 0 else n_threads)


cdef Crew crew_for(const Task *task, int n_threads, bint for_python) noexcept nogil:
    """Who computes a task whose tiles are planned."""
    cdef Py_ssize_t n_tiles = tiles_of(task)
    cdef Crew crew
    crew.for_python = for_python
    crew.n_threads = threads_for(work_of(task), n_tiles * task.plan.n_chunks, n_threads)
    crew.share_chunks = task.plan.n_chunks > 1 and (
        crew.n_threads > 1 and n_tiles < 2 * crew.n_threads
        or task.plan.tile_rows * task.n_classes > ELEMENTS_PER_SLICE)
    if not crew.share_chunks and crew.n_threads > n_tiles:
        crew.n_threads = <int>n_tiles
    return crew


cdef inline Py_ssize_t first_row_of(const Task *task, Py_ssize_t tile, Py_ssize_t *n_rows) noexcept nogil:
    """Where a tile begins, and how many rows it has."""
    cdef Py_ssize_t start = tile % task.plan.tiles_per_inner * task.plan.tile_rows - task.plan.first_tile_offset
    cdef Py_ssize_t end = start + task.plan.tile_rows
    start = start if start > 0 else 0
    n_rows[0] = (end if end < task.plan.inner else task.plan.inner) - start
    return tile // task.plan.tiles_per_inner * task.plan.inner + start


cdef bint interrupted() noexcept with gil:
    """Whether a signal's handler has raised."""
    return check_signals() != 0


# ---- Tiles, and the chunks of a tile: scratch lies behind states ----

cdef inline bint chunks_on_this_thread(
    const Task *task, Steps steps, Py_ssize_t tile, Py_ssize_t chunk, Py_ssize_t end_chunk, char *states, char *scratch,
) noexcept nogil:
    """Whether ADD and FINISH have to be taken next."""
    cdef Span span
    cdef fp_state state = fp_enter()
    cdef bint again
    span.first_row = first_row_of(task, tile, &span.n_rows)
    span.first_chunk, span.end_chunk = chunk, end_chunk
    again = kernels.tile[task.dtype](task, steps, &span, states, scratch)
    fp_leave(state)
    return again


cdef inline void one_tile(const Task *task, Py_ssize_t tile, char *states) noexcept nogil:
    """All steps of a tile."""
    chunks_on_this_thread(task, <Steps>(MEASURE | FINISH | WRITE), tile, 0, task.plan.n_chunks, states,
                          states + task.plan.states_bytes)


cdef int run_tiles(const Task *task, const Crew *crew, char *states) noexcept nogil:
    """The threads share the tiles; each has states of its own."""
    cdef Py_ssize_t n_tiles = tiles_of(task)
    cdef Py_ssize_t size = task.plan.states_bytes + task.plan.scratch_bytes
    cdef Py_ssize_t slice_tiles = ELEMENTS_PER_SLICE // (task.plan.tile_rows * task.n_classes) + 1
    cdef Py_ssize_t first = 0, last, tile
    if n_tiles == 1:
        one_tile(task, 0, states)
        return CSOFTMAX_OK
    while first < n_tiles:
        last = min(first + slice_tiles, n_tiles)
        if crew.n_threads == 1:
            for tile in range(first, last):
                one_tile(task, tile, states)
            kernels.fence()
        else:
            with parallel(num_threads=crew.n_threads):
                for tile in prange(first, last, schedule="static"):
                    one_tile(task, tile, states + threadid() * size)
                kernels.fence()
        first = last
        if first < n_tiles and crew.for_python and interrupted():
            return INTERRUPTED
    return CSOFTMAX_OK


cdef void chunks_on_all_threads(
    const Task *task, Steps steps, Py_ssize_t tile, Py_ssize_t first, Py_ssize_t last, int n_threads, char *states,
) noexcept nogil:
    cdef char *scratch = states + task.plan.states_bytes
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


cdef bint chunks_between_signals(
    const Task *task, Steps steps, Py_ssize_t tile, const Crew *crew, char *states,
) noexcept nogil:
    """All chunks, on all threads; whether no signal has interrupted them."""
    cdef Py_ssize_t slice_chunks = ELEMENTS_PER_SLICE // (task.plan.tile_rows * CHUNK) + 1
    cdef Py_ssize_t first = 0, last
    while first < task.plan.n_chunks:
        last = min(first + slice_chunks, task.plan.n_chunks)
        chunks_on_all_threads(task, steps, tile, first, last, crew.n_threads, states)
        first = last
        if crew.for_python and interrupted():
            return False
    return True


cdef int run_chunks(const Task *task, const Crew *crew, char *states) noexcept nogil:
    """Few tiles, or very long rows: the threads share the chunks of each tile, and its states."""
    cdef char *scratch = states + task.plan.states_bytes
    cdef Py_ssize_t tile
    cdef Steps step
    for tile in range(tiles_of(task)):
        step = MEASURE
        while True:
            if not chunks_between_signals(task, step, tile, crew, states):
                return INTERRUPTED
            if not chunks_on_this_thread(task, <Steps>(step | FINISH), tile, 0, 0, states, scratch):
                break
            step = ADD
        if task.output != NOTHING and not chunks_between_signals(task, WRITE, tile, crew, states):
            return INTERRUPTED
    return CSOFTMAX_OK


# ---- Few rows, without tiles ----

cdef inline bint has_few_rows(const Task *task) noexcept nogil:
    """Whether the rows, each of neighbours and one chunk, take less time one by one than as a tile."""
    cdef Py_ssize_t row
    if (task.n_rows > (FEW_SHORT_ROWS if task.n_classes <= SHORT else FEW_ROWS) or task.n_classes > CHUNK
            or task.temperature != 1 or has_second_input(task)
            or task.loss.weight != NULL or task.loss.mass != NULL
            or task.loss.sample_weight != NULL or task.gradient.weight != NULL
            or task.pick.index != NULL
            or task.loss.target != NULL and task.logsumexp != NULL
            or task.x.class_stride != task.x.item or task.x.n_dims > 1 or task.x.swapped or task.x.taken != NULL
            or task.output != NOTHING and (task.out.class_stride != task.out.item or task.out.n_dims > 1)
            or has_factors(task)):
        return False
    for row in range(task.n_rows if task.loss.has_ignore_index else 0):
        if task.loss.target[row] == task.loss.ignore_index:
            return False
    return True


cdef void run_rows(const Task *task) noexcept nogil:
    cdef fp_state state = fp_enter()
    cdef Py_ssize_t row
    cdef SingleRow single = single_row(
        task.output, LOGSUMEXP if task.loss.target == NULL else LOSS, task.x.storage, NULL, task.n_classes, 0, NULL)
    cdef double result
    single.scale = task.gradient.scale
    if task.output != NOTHING:
        single.out_storage = task.out.storage
    for row in range(task.n_rows):
        if task.loss.target != NULL:
            single.target = task.loss.target[row]
        if task.output != NOTHING:
            single.out = task.out.data + (row * task.out.strides[0] if row else 0)
        single.x = task.x.data + (row * task.x.strides[0] if row else 0)
        result = kernels.row[task.dtype](&single)
        if task.loss.f32 != NULL:
            task.loss.f32[row] = <float>result
        if task.loss.f64 != NULL:
            task.loss.f64[row] = result
        if task.logsumexp != NULL and task.dtype == FLOAT64:
            (<double *>task.logsumexp)[row] = result
        elif task.logsumexp != NULL:
            (<float *>task.logsumexp)[row] = <float>result
    fp_leave(state)


# ---- Tasks ----

cdef int run_in_tiles(Task *task, int n_threads, bint for_python) noexcept nogil:
    cdef char[STACK_BYTES + LINE_BYTES] stack
    cdef char *heap = NULL
    cdef char *scratch = stack
    cdef Py_ssize_t size
    cdef Crew crew
    cdef int status
    plan_tiles(task, threads_for(work_of(task), task.n_rows, n_threads))
    crew = crew_for(task, n_threads, for_python)
    size = plan_scratch(task, &crew)
    if size > STACK_BYTES:
        heap = <char *>scratch_memory(size + LINE_BYTES)
        if heap == NULL:
            return CSOFTMAX_NO_MEMORY
        scratch = heap
    scratch += (LINE_BYTES - <uintptr_t>scratch % LINE_BYTES) % LINE_BYTES
    if crew.share_chunks:
        status = run_chunks(task, &crew, scratch)
    else:
        status = run_tiles(task, &crew, scratch)
    free(heap)
    return status


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
        status = run_in_tiles(task, n_threads, for_python)
    if status == CSOFTMAX_OK:
        state = fp_enter()
        multiply_output(task)
        fp_leave(state)
    return status
