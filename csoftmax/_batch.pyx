# cython: freethreading_compatible=True
# Drivers: which thread computes which tile of which array. They validate nothing (see _checks.py; C callers have
# _c_functions.pxi) and hold no arithmetic (see kernels/): they describe arrays as rows of classes, cut tiles, and share
# them out. What the module remembers (kernels, quota, process_is_serial, c_functions) is written while it is imported,
# and in a child that was just forked, where one thread runs: threads only read it.

cimport cython
cimport numpy as cnp
from cpython.contextvars cimport PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit
from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer, PyCapsule_New
from cython cimport floating
from cython.parallel cimport parallel, prange, threadid
from libc.math cimport INFINITY, fabs, fma, frexp, ldexp
from libc.stdint cimport INT64_MIN, int32_t, int64_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from csoftmax import _isa
from csoftmax.kernels.table cimport Kernels
from csoftmax.kernels.task cimport (
    ALWAYS_LANES, CHUNK, COLUMNS, FINISH, FLOAT64, GRADIENT, LOG_PROB, LOG_PROBABILITY, LOG_SOFTMAX_BACKWARD, LOGSUMEXP,
    LOSS, MAX_DIMS, MAX_TILE_ROWS, MEASURE, NOTHING, PROBABILITY, ROWS, SHORT, SOFTMAX_BACKWARD, WRITE, Layout,
    Output, RowNumber, State, Steps, Task, array_size, has_second_input, is_backward, item_size, numbers_size,
    term_arrays,
)

cdef extern from "_platform.h" nogil:
    ctypedef int fp_state
    fp_state fp_enter()
    void fp_leave(fp_state)
    int omp_get_max_threads()
    int omp_get_num_procs()
    int omp_get_thread_limit()
    int omp_in_parallel()
    int process_is_serial
    int watch_forks()
    int built_with_openmp
    const char *compiler_name

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX
    int check_signals "PyErr_CheckSignals" () noexcept

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewLikeArray(cnp.ndarray prototype, cnp.NPY_ORDER order, void *dtype, int subok)

cnp.import_array()

cdef enum:
    COLUMN_BYTES = 12288            # of a tile of columns: in the first-level cache, with its terms and its output
    COLUMN_ELEMENTS = 32768         # of one with many classes: in the second level
    PIECE_BYTES = 256               # at least, of an output's columns that are written at once, or neighbouring tiles
    PIECES_BYTES = 393216           # fetch and write its lines twice; if all classes' pieces fit into the second level
    ROW_ELEMENTS = 4096             # of a tile of rows; but it has
    LEAST_ROWS = 32                 # so many rows, whose beginnings and ends overlap, if they fit into
    ROW_BYTES = 131072              # which is in the second level with their terms, and if
    LEAST_TILES = 4                 # so many tiles are left to each thread
    ELEMENTS_PER_THREAD = 32768     # below, a second thread costs more than it brings
    ELEMENTS_PER_SLICE = 1 << 24    # between two looks at pending signals
    COLLIDING_ROWS = 64             # at least, of a tile that is copied out of colliding lines: each is read once
    SHORT_CALL = 4096               # elements of a call that takes less than letting others have the interpreter
    STACK_BYTES = 12288             # scratch of small calls
    APART_BYTES = 16384             # between two threads' scratch: see run()
    KEPT_BYTES = 2 << 20            # terms of a row that are kept until they are written: reading them beats exp

# An output of this size does not stay in the cache. Tiles of rows may have a larger one: fetched before it is written,
# it comes and goes as fast. Tiles of columns would lose their own place in the cache to it.
cdef Py_ssize_t STREAM_BYTES = 16 << 20, STREAM_ROW_BYTES = 56 << 20
cdef Py_ssize_t FETCH_BYTES = 6 << 20       # one of this size is far from the second level
cdef Py_ssize_t FETCH_CLASSES = 128         # more columns than of so many classes would not stay where they are fetched

cdef enum:
    INTERRUPTED = -1                # beside the CSOFTMAX_ statuses: an exception is set

cdef const Kernels *kernels = <const Kernels *>PyCapsule_GetPointer(_isa.KERNELS, "csoftmax.kernels")
cdef int quota = 1 << 30            # processors that the control group grants


# ---- Arrays as rows of classes ----

cdef void lay_out(Layout *a, cnp.ndarray x, int axis) noexcept:
    """Describe x as rows along axis; neighbouring row dimensions that continue each other become one."""
    cdef int d, n = 0
    cdef Py_ssize_t size, stride
    a.data = <char *>cnp.PyArray_DATA(x)
    a.class_stride = cnp.PyArray_STRIDE(x, axis)
    for d in range(cnp.PyArray_NDIM(x)):
        size = cnp.PyArray_DIM(x, d)
        stride = cnp.PyArray_STRIDE(x, d)
        if d == axis or size == 1:
            continue
        if n and a.strides[n - 1] == size * stride:
            a.shape[n - 1] *= size
            a.strides[n - 1] = stride
        else:
            a.shape[n] = size
            a.strides[n] = stride
            n += 1
    a.n_dims = n


cdef bint is_aligned(const Layout *a, Py_ssize_t item) noexcept nogil:
    cdef int d
    if <uintptr_t>a.data % item or a.class_stride % item:
        return False
    for d in range(a.n_dims):
        if a.strides[d] % item:
            return False
    return True


cdef inline Py_ssize_t inner_size(const Layout *a) noexcept nogil:
    return a.shape[a.n_dims - 1] if a.n_dims else 1


cdef inline bint has_adjacent_rows(const Layout *a, Py_ssize_t item) noexcept nogil:
    """Rows follow each other element by element: they can be lanes."""
    return a.n_dims > 0 and a.strides[a.n_dims - 1] == item


cdef inline void find_lanes(Layout *a, const Task *task, Py_ssize_t item) noexcept nogil:
    """Whether rows or neighbouring rows, as many as there are of x, can be read or written as they lie."""
    cdef bint aligned = is_aligned(a, item)
    a.rows = aligned and a.n_dims <= 1 and a.class_stride == item
    a.columns = (
        aligned and has_adjacent_rows(a, item) and inner_size(a) == task.plan.inner and a.class_stride != item)
    a.collides = a.columns and task.n_classes > 64 and a.class_stride % 4096 == 0


cdef Py_ssize_t first_tile_offset(const Layout *a, const Task *task, Py_ssize_t item) noexcept nogil:
    """By how many rows the first tile is shorter, so that others begin with a cache line of columns: large arrays of
    NumPy begin 16 bytes behind one. Else tiles would share lines, and those of an output that goes past the cache would
    be read first."""
    cdef Py_ssize_t row = <Py_ssize_t>(<uintptr_t>a.data % 64) // item  # of the line in which the first row lies
    cdef int d
    for d in range(a.n_dims - 1):
        if a.strides[d] % 64:
            return 0
    return row if row and a.columns and a.class_stride % 64 == 0 and task.plan.inner >= ALIGNED_ROWS else 0


cdef inline Py_ssize_t rows_of_pieces(const Task *task, Py_ssize_t item, Py_ssize_t least_tiles) noexcept nogil:
    """How many rows a tile of columns needs that its output's pieces have PIECE_BYTES; less where that costs more: the
    second level, terms that are kept, or other threads' work."""
    cdef Py_ssize_t chunk = task.n_classes if task.n_classes < CHUNK else CHUNK
    cdef Py_ssize_t n = PIECE_BYTES // item
    if task.plan.inner < 2 * n:
        n = task.plan.inner
    if n > PIECES_BYTES // item // chunk:
        n = PIECES_BYTES // item // chunk
    if n > KEPT_BYTES // item // (task.plan.n_chunks * (chunk + 2)):     # rooms are a little larger
        n = KEPT_BYTES // item // (task.plan.n_chunks * (chunk + 2))
    if n > task.n_rows // least_tiles:
        n = task.n_rows // least_tiles
    return n // 16 * 16


cdef void plan(Task *task, Py_ssize_t item, Py_ssize_t n_threads) noexcept nogil:
    """Choose how tiles lie and how large they are. Nothing here changes a result."""
    cdef Py_ssize_t n = task.n_classes
    cdef Py_ssize_t chunk = n if n < CHUNK else CHUNK
    cdef Py_ssize_t least_tiles = LEAST_TILES * n_threads if n_threads > 1 else 1
    cdef Py_ssize_t least_rows, size
    cdef bint as_columns = (
        task.x.class_stride != item and has_adjacent_rows(&task.x, item) and inner_size(&task.x) >= LANES_WORTH)
    task.plan.n_chunks = (n + CHUNK - 1) // CHUNK
    task.plan.inner = inner_size(&task.x) if as_columns else task.n_rows
    find_lanes(&task.x, task, item)
    task.x.columns &= as_columns
    if has_second_input(task):
        find_lanes(&task.second_input, task, item)
    if task.output != NOTHING:
        find_lanes(&task.out, task, item)
        task.out.rows &= task.out.n_dims == 0 or task.out.strides[0] == n * item
    # Classes of short rows would not fill the lanes, and each row has a sum to fold: they are transposed.
    if as_columns or n * item <= ALWAYS_LANES:
        task.plan.orientation = COLUMNS
        task.plan.tile_rows = (COLUMN_BYTES // item if n <= 1024 else COLUMN_ELEMENTS) // chunk // 16 * 16
        if task.plan.tile_rows < 16:
            task.plan.tile_rows = 16
        if as_columns and task.output != NOTHING:
            least_rows = rows_of_pieces(task, item, least_tiles)
            if task.plan.tile_rows < least_rows:
                task.plan.tile_rows = least_rows
        if task.x.columns and task.x.collides and task.plan.tile_rows < COLLIDING_ROWS:
            task.plan.tile_rows = COLLIDING_ROWS
        if n * item > ALWAYS_LANES:
            task.plan.tail_rows = LANES_WORTH // 2   # gathered in any case, and as columns most lanes would be empty
    else:
        task.plan.orientation = ROWS
        task.plan.tile_rows = LEAST_ROWS if LEAST_ROWS < ROW_BYTES // item // n else ROW_BYTES // item // n
        if task.plan.tile_rows > (task.n_rows + least_tiles - 1) // least_tiles:
            task.plan.tile_rows = (task.n_rows + least_tiles - 1) // least_tiles
        if task.plan.tile_rows < ROW_ELEMENTS // n:
            task.plan.tile_rows = ROW_ELEMENTS // n
        if n >= CHUNK or task.plan.tile_rows < 1:
            task.plan.tile_rows = 1
        if is_backward(task) and not task.x.rows and task.plan.tile_rows < LANES_WORTH:
            task.plan.tile_rows = LANES_WORTH    # gathered one after the other from the same cache lines
    if task.plan.tile_rows > MAX_TILE_ROWS:
        task.plan.tile_rows = MAX_TILE_ROWS
    if task.output != NOTHING:
        size = task.n_rows * n * item
        task.plan.stream = (task.out.columns or task.out.rows) and size >= (
            STREAM_ROW_BYTES if task.plan.orientation == ROWS and task.plan.n_chunks == 1 else STREAM_BYTES)
        task.plan.fetch_output = size >= FETCH_BYTES and task.plan.n_chunks == 1 and (
            task.out.rows or task.out.columns and not task.plan.stream and n <= FETCH_CLASSES)
    if as_columns:
        task.plan.first_tile_offset = first_tile_offset(&task.x if task.output == NOTHING else &task.out, task, item)
    task.plan.tiles_per_inner = (
        task.plan.inner + task.plan.first_tile_offset + task.plan.tile_rows - 1) // task.plan.tile_rows


cdef enum:
    ALIGNED_ROWS = 1024             # at least, to cut off a first tile so that the others are aligned
    LANES_WORTH = 16                # adjacent rows from which they make better lanes than gathered classes


# ---- Threads ----

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


@cython.cdivision(True)
cdef void moderate(double scale, double divisor, int dtype, double *moderate_scale, int *exponent,
                   double *factor) noexcept nogil:
    """scale / divisor * 2**exponent as moderate_scale * 2**exponent * factor, the first a number that neither takes a
    probability out of the dtype's range nor adds one to it."""
    cdef int most = 560 if dtype else 80, e = 0, of_divisor = 0
    cdef double m
    factor[0] = 1
    if 1e-18 < fabs(scale) < 1e18 and divisor == 1 and exponent[0] == 0:
        moderate_scale[0] = scale
        return
    m = frexp(scale, &e) / frexp(divisor, &of_divisor)
    e += exponent[0] - of_divisor
    exponent[0] = 0
    if scale == 0 and divisor != 0 and divisor == divisor:
        moderate_scale[0] = scale
    elif not fabs(m) < INFINITY or m == 0:  # not finite, or divided by what is not
        moderate_scale[0] = 1
        factor[0] = scale / divisor
    elif -most <= e <= most:
        moderate_scale[0] = ldexp(m, e)
    else:
        moderate_scale[0] = ldexp(m, most if e > 0 else -most)
        exponent[0] = e - (most if e > 0 else -most)


@cython.cdivision(True)
cdef void settle_scale(Task *task, double divisor) noexcept nogil:
    """Divide the gradient's scale by the divisor and the temperature, however large or small they are."""
    cdef int of_temperature = 0, of_scale = 0
    cdef double temperature = frexp(task.temperature, &of_temperature)
    cdef double scale = frexp(task.gradient.scale, &of_scale)
    task.gradient.exponent = of_scale - of_temperature
    moderate(scale / temperature, divisor, task.dtype, &task.gradient.scale, &task.gradient.exponent,
             &task.gradient.factor)


cdef void multiply_output(const Task *task) noexcept nogil:
    """By what is left of the scale: seldom anything."""
    cdef Py_ssize_t first
    if task.output != GRADIENT or task.gradient.exponent == 0 and task.gradient.factor == 1 and (
            task.gradient.row_factor == NULL and task.gradient.row_exponent == NULL):
        return
    for first in range(0, task.n_rows, 256):    # by MAX_TILE_ROWS
        kernels.multiply_output[task.dtype](task, first, 256 if task.n_rows - first > 256 else task.n_rows - first)


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


# ---- What _functions calls: arrays are float32 or float64 of native byte order, axis is not negative ----

cdef int dtype_of(cnp.ndarray x) noexcept:
    return 1 if cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE else 0


cdef inline void begin(Task *task, int dtype) noexcept nogil:
    """A task that asks for nothing yet. The layouts, 3 KB, are set by whoever needs them."""
    task.dtype = dtype
    task.output = NOTHING
    task.temperature = 1
    task.has_added = False
    task.logsumexp = NULL
    memset(&task.loss, 0, sizeof(task.loss))
    memset(&task.gradient, 0, sizeof(task.gradient))
    memset(&task.pick, 0, sizeof(task.pick))
    memset(&task.plan, 0, sizeof(task.plan))
    task.loss.kept = task.gradient.scale = task.gradient.factor = 1


cdef void describe(Task *task, cnp.ndarray x, int axis) noexcept:
    cdef Py_ssize_t size = cnp.PyArray_SIZE(x)
    begin(task, dtype_of(x))
    lay_out(&task.x, x, axis)
    task.n_classes = cnp.PyArray_DIM(x, axis)
    task.n_rows = size // task.n_classes if task.n_classes else 0


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


cdef enum:
    TARGETS = 32768                 # that a thread counts at a time, twice: they stay in its cache


cdef Py_ssize_t first_outside(const int64_t *target, Py_ssize_t n, Py_ssize_t n_classes, bint has_ignore_index,
                              int64_t ignore_index, Py_ssize_t *n_ignored, int n_threads) noexcept nogil:
    """The position of the first target that is no class, -1 if there is none; and how many are ignored."""
    cdef Py_ssize_t n_shares = (n + TARGETS - 1) // TARGETS, share, i, n_outside = 0, n_equal = 0
    n_threads = threads_for(n, n_shares // 2, n_threads)
    if n_threads == 1:
        for share in range(n_shares):
            n_outside += kernels.count_outside(target + share * TARGETS, targets_of(share, n), n_classes)
            if has_ignore_index:
                n_equal += kernels.count_equal(target + share * TARGETS, targets_of(share, n), ignore_index)
    else:   # sums of integers: the same in any order
        for share in prange(n_shares, schedule="static", num_threads=n_threads):
            n_outside += kernels.count_outside(target + share * TARGETS, targets_of(share, n), n_classes)
            if has_ignore_index:
                n_equal += kernels.count_equal(target + share * TARGETS, targets_of(share, n), ignore_index)
    n_ignored[0] = n_equal
    if n_outside > (0 if 0 <= ignore_index < n_classes else n_ignored[0]):
        for i in range(n):
            if not (has_ignore_index and target[i] == ignore_index) and not 0 <= target[i] < n_classes:
                return i
    return -1


cdef inline Py_ssize_t targets_of(Py_ssize_t share, Py_ssize_t n) noexcept nogil:
    return TARGETS if n - share * TARGETS > TARGETS else n - share * TARGETS


cpdef (Py_ssize_t, Py_ssize_t) scan_targets(cnp.ndarray target, Py_ssize_t n_classes, object ignore_index,
                                            int n_threads):
    """Return the position of the first target that is no class (-1: none), and how many are ignored.

    target is int64 and C-contiguous; ignore_index is an int64 or None.
    """
    cdef const int64_t *classes = <const int64_t *>cnp.PyArray_DATA(target)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(target), position, n_ignored
    cdef bint has_ignore_index = ignore_index is not None
    cdef int64_t ignored = ignore_index if has_ignore_index else 0
    with nogil:
        position = first_outside(classes, n, n_classes, has_ignore_index, ignored, &n_ignored, n_threads)
    return position, n_ignored


cdef enum:
    LOSSES = 1024                   # or weights that are added to one sum, and these in order
    WEIGHTS = 256                   # that are brought together at a time


cdef void add_losses(const double *losses, Py_ssize_t n, Py_ssize_t block, double scale, double *sums) noexcept nogil:
    """Write the sum of a block of n losses, and what rounding took from it, to its place in `sums`."""
    cdef fp_state state = fp_enter()
    cdef Py_ssize_t first = block * LOSSES
    kernels.add_up(losses + first, LOSSES if n - first > LOSSES else n - first, scale, sums + 2 * block,
                   sums + 2 * block + 1)
    fp_leave(state)


cdef void add_blocks(const double *sums, Py_ssize_t n_blocks, double *sum, double *carry) noexcept nogil:
    """In order, with what rounding takes. An infinite sum has lost nothing."""
    cdef double total, back
    cdef Py_ssize_t block
    cdef fp_state state = fp_enter()
    sum[0] = carry[0] = 0
    for block in range(n_blocks):
        total = sum[0] + sums[2 * block]
        back = total - sum[0]
        carry[0] += ((sum[0] - (total - back)) + (sums[2 * block] - back)) + sums[2 * block + 1]
        sum[0] = total
    if fabs(sum[0]) < INFINITY:
        total = sum[0] + carry[0]       # the sum rounded, and how far that is from it
        carry[0] -= total - sum[0]
        sum[0] = total
    else:
        carry[0] = 0
    fp_leave(state)


cdef void sum_losses(const double *losses, Py_ssize_t n, double scale, double *sums, int n_threads, double *sum,
                     double *carry) noexcept nogil:
    cdef Py_ssize_t n_blocks = (n + LOSSES - 1) // LOSSES, block
    if n_threads == 1:
        for block in range(n_blocks):
            add_losses(losses, n, block, scale, sums)
    else:
        for block in prange(n_blocks, schedule="static", num_threads=n_threads):
            add_losses(losses, n, block, scale, sums)
    add_blocks(sums, n_blocks, sum, carry)


@cython.cdivision(True)  # over zero rows: NaN
cdef double quotient(double sum, double carry, double divisor, double divisor_carry) noexcept nogil:
    """(sum + carry) / (divisor + divisor_carry), to half a unit in the last place and little more."""
    cdef double q = sum / divisor
    cdef double rest = fma(-q, divisor, sum) + (carry - q * divisor_carry)
    return q + rest / divisor if fabs(rest) < INFINITY and divisor != 0 else q


cpdef reduce_losses(cnp.ndarray losses, double divisor, double divisor_carry, cnp.ndarray out, int exponent,
                    int n_threads):
    """Write the sum of losses, float64 and C-contiguous, over divisor + divisor_carry, times 2**exponent, to out, a
    float32 or float64 of no dimensions.

    In a fixed order, to less than a unit in the last place.
    """
    cdef const double *p = <const double *>cnp.PyArray_DATA(losses)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(losses), i
    cdef cnp.npy_intp size = 2 * ((n + LOSSES - 1) // LOSSES)
    cdef double[2] of_one_block
    cdef cnp.ndarray sums = None if size <= 2 else cnp.PyArray_EMPTY(1, &size, cnp.NPY_DOUBLE, 0)
    cdef double *of_blocks = &of_one_block[0] if size <= 2 else doubles(sums)
    cdef double total, carry
    cdef bint finite
    cdef fp_state state
    n_threads = threads_for(n, size // 2, n_threads)
    with nogil:
        sum_losses(p, n, 1, of_blocks, n_threads, &total, &carry)
        if not fabs(total) < INFINITY:      # also of finite losses, whose mean need not be infinite
            finite = True
            for i in range(n):
                finite = finite and fabs(p[i]) < INFINITY
            if finite:
                exponent += 64
                sum_losses(p, n, 5.421010862427522e-20, of_blocks, n_threads, &total, &carry)
    state = fp_enter()
    total = quotient(total, carry, divisor, divisor_carry)
    if exponent:
        total = ldexp(total, exponent)
    if dtype_of(out):           # never -0.0
        (<double *>cnp.PyArray_DATA(out))[0] = total + 0.0
    else:
        (<float *>cnp.PyArray_DATA(out))[0] = <float>total + <float>0
    fp_leave(state)


cdef double *doubles(cnp.ndarray values) noexcept:
    return NULL if values is None else <double *>cnp.PyArray_DATA(values)


cdef void weight_of_block(
    Py_ssize_t block,
    Py_ssize_t n,               # rows, of which LOSSES are a block
    const int64_t *target,      # (n,), or NULL for a weight of one
    bint has_ignore_index, int64_t ignore_index,
    const double *weight,       # (n_classes,), or NULL for ones
    Py_ssize_t n_classes,
    const double *sample_weight,        # (n,), or NULL for ones
    double *sums,               # OUT  the block's sum, and what rounding took from it, at its place
) noexcept nogil:
    cdef double[WEIGHTS] some
    cdef Py_ssize_t first, i, m, end = (block + 1) * LOSSES if (block + 1) * LOSSES < n else n
    cdef double sum, carry, one
    cdef double[8] of_pieces    # (LOSSES / WEIGHTS, 2)
    cdef fp_state state = fp_enter()
    for first in range(block * LOSSES, end, 256):       # by WEIGHTS
        m = WEIGHTS if end - first > WEIGHTS else end - first
        for i in range(m):
            one = 1 if sample_weight == NULL else sample_weight[first + i]
            if weight != NULL:      # scanned, but another thread may have changed it since
                one = one * weight[target[first + i]] if 0 <= target[first + i] < n_classes else one
            some[i] = 0 if target != NULL and has_ignore_index and target[first + i] == ignore_index else one
        i = (first - block * LOSSES) // WEIGHTS
        kernels.add_up(some, m, 1, &of_pieces[2 * i], &of_pieces[2 * i + 1])
    add_blocks(of_pieces, (end - block * LOSSES + WEIGHTS - 1) // WEIGHTS, &sum, &carry)
    sums[2 * block], sums[2 * block + 1] = sum, carry
    fp_leave(state)


cpdef (double, double) total_weight(cnp.ndarray target, object ignore_index, cnp.ndarray weight,
                                    cnp.ndarray sample_weight, int n_threads):
    """Return the sum over the rows that are not ignored of the target's weight times the sample's, and what rounding
    took from it.

    target is int64, C-contiguous and scanned, or None for a weight of one; weights are float64 and C-contiguous.
    """
    cdef const int64_t *classes = NULL if target is None else <int64_t *>cnp.PyArray_DATA(target)
    cdef const double *of_class = doubles(weight)
    cdef const double *of_sample = doubles(sample_weight)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(sample_weight if target is None else target)
    cdef Py_ssize_t n_classes = 0 if weight is None else cnp.PyArray_SIZE(weight)
    cdef Py_ssize_t n_blocks = (n + LOSSES - 1) // LOSSES
    cdef cnp.npy_intp size = 2 * n_blocks
    cdef double[2] of_one_block
    cdef cnp.ndarray sums = None if n_blocks <= 1 else cnp.PyArray_EMPTY(1, &size, cnp.NPY_DOUBLE, 0)
    cdef double *p = &of_one_block[0] if n_blocks <= 1 else doubles(sums)
    cdef bint has_ignore_index = ignore_index is not None
    cdef int64_t ignored = ignore_index if has_ignore_index else 0
    cdef Py_ssize_t block
    cdef double sum, carry
    n_threads = threads_for(n, n_blocks, n_threads)
    with nogil:
        if n_threads == 1:
            for block in range(n_blocks):
                weight_of_block(block, n, classes, has_ignore_index, ignored, of_class, n_classes, of_sample, p)
        else:
            for block in prange(n_blocks, schedule="static", num_threads=n_threads):
                weight_of_block(block, n, classes, has_ignore_index, ignored, of_class, n_classes, of_sample, p)
        add_blocks(p, n_blocks, &sum, &carry)
    return sum, carry


cdef enum:
    NAN_LOSS = 1
    PLUS_LOSS = 2                   # infinite
    MINUS_LOSS = 4
    FAR_LOSS = 8                    # so small or large that its summands may have left the logits' dtype


def kinds_of_losses(cnp.ndarray losses, bint wide_logits):
    """Return what there is among float32 or float64 losses, as a sum of numbers."""
    cdef double least = 1e-100 if wide_logits else 1e-25
    cdef bint wide = dtype_of(losses)
    cdef const double *d = <const double *>cnp.PyArray_DATA(losses)
    cdef const float *f = <const float *>cnp.PyArray_DATA(losses)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(losses), i
    cdef int found = 0
    cdef double value
    for i in range(n):
        value = d[i] if wide else f[i]
        found |= (value != value) * NAN_LOSS | (value == INFINITY) * PLUS_LOSS | (value == -INFINITY) * MINUS_LOSS
        found |= (not least < fabs(value) < 1e30 and value != 0) * FAR_LOSS
    return found


cpdef bint are_ordinary(cnp.ndarray values, int exponent):
    """Whether each of the float64 values is 0 or between 2**-exponent and 2**exponent in size."""
    cdef const double *p = doubles(values)
    cdef double most = ldexp(1, exponent), least = ldexp(1, -exponent)
    cdef Py_ssize_t n = 0 if values is None else cnp.PyArray_SIZE(values), i
    cdef int found = 0
    for i in range(n):
        found |= not (least <= fabs(p[i]) <= most or p[i] == 0)
    return not found


cdef cnp.ndarray masses_of_classes(double smooth, cnp.ndarray weight, Py_ssize_t n_classes, int dtype):
    """(n_classes,), of dtype: smooth * weight."""
    cdef cnp.npy_intp size = n_classes
    cdef cnp.ndarray masses = cnp.PyArray_EMPTY(1, &size, dtype, 0)
    cdef void *to = cnp.PyArray_DATA(masses)
    cdef const double *weights = doubles(weight)
    cdef double mass
    cdef Py_ssize_t j
    for j in range(n_classes):
        mass = smooth if weights == NULL else smooth * weights[j]
        if dtype == cnp.NPY_DOUBLE:
            (<double *>to)[j] = mass
        else:
            (<float *>to)[j] = <float>mass      # NumPy would warn of an overflow
    return masses


cdef cnp.ndarray sums_of_chunks(cnp.ndarray masses):
    """(n_chunks,), in double, with what rounding takes: many equal masses would lose the same each time."""
    cdef cnp.ndarray exact = cnp.PyArray_Cast(masses, cnp.NPY_DOUBLE)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(masses), chunk, j
    cdef cnp.npy_intp n_chunks = (n + CHUNK - 1) // CHUNK
    cdef cnp.ndarray sums = cnp.PyArray_ZEROS(1, &n_chunks, cnp.NPY_DOUBLE, 0)
    cdef double *to = doubles(sums)
    cdef const double *p = doubles(exact)
    cdef double sum, back, carry
    for chunk in range(n_chunks):
        carry = 0
        for j in range(chunk * CHUNK, n if n < (chunk + 1) * CHUNK else (chunk + 1) * CHUNK):
            sum = to[chunk] + p[j]
            back = sum - to[chunk]
            carry += (to[chunk] - (sum - back)) + (p[j] - back)
            to[chunk] = sum
        to[chunk] += carry
    return sums


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


cdef enum:
    ORDINARY = 20                   # a power of two; weights between it and its inverse need no scaling


# ---- The same for arguments that need no conversion: anything else returns None, and the long way is taken ----

cdef bint is_plain(object x) noexcept:
    """Whether the kernels can read x as it is."""
    if type(x) is not cnp.ndarray:
        return False
    cdef cnp.ndarray a = x
    return (cnp.PyArray_TYPE(a) in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE) and cnp.PyArray_ISBEHAVED_RO(a)
            and cnp.PyArray_NDIM(a) > 0 and cnp.PyArray_SIZE(a) > 0)


cdef int plain_axis(object axis, int n_dims):
    """The axis counted from the front, -1 if it needs a closer look."""
    if type(axis) is not int or not -n_dims <= axis < n_dims:
        return -1
    return axis if axis >= 0 else axis + n_dims


cdef int plain_threads(object n_threads) except -2:
    """The number of threads, 0 for None, -1 if it needs a closer look."""
    if n_threads is None:
        return 0
    if type(n_threads) is not int or not 0 < n_threads < 1 << 16:
        return -1
    return n_threads


cdef bint is_like(cnp.ndarray a, cnp.ndarray x) noexcept:
    """Whether a has the dtype and the shape of x."""
    cdef int d
    if cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(x) or cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(x):
        return False
    for d in range(cnp.PyArray_NDIM(x)):
        if cnp.PyArray_DIM(a, d) != cnp.PyArray_DIM(x, d):
            return False
    return True


cdef bint lie_apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two C-contiguous arrays share no memory."""
    cdef Py_ssize_t distance = <char *>cnp.PyArray_DATA(a) - <char *>cnp.PyArray_DATA(b)
    return distance >= cnp.PyArray_NBYTES(b) or -distance >= cnp.PyArray_NBYTES(a)


cdef bint fits(cnp.ndarray x, object out) noexcept:
    """Whether out is x itself, or as C-contiguous as x and elsewhere."""
    cdef cnp.ndarray a
    if type(out) is not cnp.ndarray:
        return False
    a = out
    if not cnp.PyArray_ISCARRAY(a) or not cnp.PyArray_ISCARRAY_RO(x) or not is_like(a, x):
        return False
    return cnp.PyArray_DATA(a) == cnp.PyArray_DATA(x) or lie_apart(a, x)


cdef bint is_one(object temperature) noexcept:
    return type(temperature) is float and <double>temperature == 1


def plain_probabilities(object x, object axis, object out, bint log, object temperature, object n_threads):
    cdef int number, threads = plain_threads(n_threads)
    if threads < 0 or not is_one(temperature) or not is_plain(x):
        return None
    number = plain_axis(axis, cnp.PyArray_NDIM(<cnp.ndarray>x))
    if number < 0:
        return None
    if out is None:
        out = PyArray_NewLikeArray(<cnp.ndarray>x, cnp.NPY_KEEPORDER, NULL, 0)
    elif not fits(x, out):
        return None
    probabilities(x, number, out, log, 1, threads)
    return out


cdef cnp.ndarray rows_like(cnp.ndarray x, int axis, int dtype):
    """An empty array of x's shape without axis."""
    cdef cnp.npy_intp[MAX_DIMS] shape
    cdef int d, n = 0
    for d in range(cnp.PyArray_NDIM(x)):
        if d != axis:
            shape[n] = cnp.PyArray_DIM(x, d)
            n += 1
    return cnp.PyArray_EMPTY(n, shape, dtype, 0)


def plain_logsumexp(object x, object axis, object temperature, object n_threads):
    cdef int number, threads = plain_threads(n_threads)
    cdef cnp.ndarray out
    if threads < 0 or not is_one(temperature) or not is_plain(x):
        return None
    number = plain_axis(axis, cnp.PyArray_NDIM(<cnp.ndarray>x))
    if number < 0:
        return None
    out = rows_like(x, number, cnp.PyArray_TYPE(<cnp.ndarray>x))
    logsumexp(x, number, out, 1, None, threads)
    return out[()] if cnp.PyArray_NDIM(out) == 0 else out


cdef bint starts_with_rows(cnp.ndarray y, cnp.ndarray x, int axis) noexcept:
    """Whether the first dimensions of y are those of x without axis; y has at least as many."""
    cdef int d, n = 0
    for d in range(cnp.PyArray_NDIM(x)):
        if d != axis:
            if cnp.PyArray_DIM(y, n) != cnp.PyArray_DIM(x, d):
                return False
            n += 1
    return True


def plain_cross_entropy(object logits, object target, object axis, object weight, object ignore_index,
                        object label_smoothing, object temperature, object reduction, object out, bint with_grad,
                        object n_threads):
    """Loss and gradient, or None if an argument needs a closer look or a target is no class."""
    cdef int number, threads = plain_threads(n_threads)
    cdef cnp.ndarray x, y, loss, total
    cdef object grad = None, given_weight = weight
    cdef Py_ssize_t bad = -1, n_ignored = 0
    cdef double divisor = 1, divisor_carry = 0
    cdef bint has_indices
    if (threads < 0 or not is_plain(logits) or type(target) is not cnp.ndarray or not is_one(temperature)
            or type(label_smoothing) is not float or not 0.0 <= label_smoothing <= 1.0
            or type(ignore_index) is not int):
        return None
    x, y = logits, target
    number = plain_axis(axis, cnp.PyArray_NDIM(x))
    if (number < 0 or not cnp.PyArray_ISCARRAY_RO(y) or not -(1 << 62) < ignore_index < 1 << 62
            or type(reduction) is not str or reduction not in ("mean", "sum", "none")):
        return None
    has_indices = cnp.PyArray_TYPE(y) == cnp.NPY_INT64
    if not (cnp.PyArray_NDIM(y) == cnp.PyArray_NDIM(x) - 1 and starts_with_rows(y, x, number) if has_indices else
            is_like(y, x)):
        return None
    if weight is not None:
        if (not is_plain(weight) or cnp.PyArray_NDIM(weight) != 1 or not cnp.PyArray_ISCARRAY_RO(weight)
                or cnp.PyArray_DIM(weight, 0) != cnp.PyArray_DIM(x, number)):
            return None
        weight = cnp.PyArray_Cast(weight, cnp.NPY_DOUBLE)
        if not are_ordinary(weight, ORDINARY):
            return None
    if 0 < <double>label_smoothing < 1e-12:
        return None
    if has_indices:
        bad, n_ignored = scan_targets(y, cnp.PyArray_DIM(x, number), ignore_index, threads)
    if bad >= 0:
        return None
    if with_grad:
        if out is None:
            grad = PyArray_NewLikeArray(x, cnp.NPY_KEEPORDER, NULL, 0)
        elif (fits(x, out) and lie_apart(out, y) and (given_weight is None or lie_apart(out, given_weight))
                and (has_indices or lie_apart(out, x))):
            grad = out
        else:
            return None
    loss = rows_like(x, number, cnp.PyArray_TYPE(x) if reduction == "none" else cnp.NPY_DOUBLE)
    if reduction == "mean" and (weight is None or not has_indices):
        divisor = cnp.PyArray_SIZE(loss) - n_ignored
    elif reduction == "mean":
        divisor, divisor_carry = total_weight(y, ignore_index, weight, None, threads)
        if divisor == 0:
            return None
    if has_indices:
        cross_entropy(x, number, y, ignore_index, loss, grad, divisor, threads, None, weight, None, None,
                      label_smoothing, 1)
    else:
        cross_entropy(x, number, None, None, loss, grad, divisor, threads, y, weight, None, None, label_smoothing, 1)
        if kinds_of_losses(loss, dtype_of(x)) & FAR_LOSS:
            return None         # of probabilities that may be far from 1
    if reduction == "none":
        return loss[()] if cnp.PyArray_NDIM(loss) == 0 else loss, grad
    total = cnp.PyArray_EMPTY(0, NULL, cnp.PyArray_TYPE(x), 0)
    reduce_losses(loss, divisor, divisor_carry, total, 0, threads)
    if weight is not None and grad is not logits and not fabs(<double>total[()]) < INFINITY:
        return None             # of infinite losses of both signs, which may have been too large for float64
    return total[()], grad


def plain_log_prob(object logits, object index, object axis, object temperature, object n_threads):
    cdef int number, threads = plain_threads(n_threads)
    cdef cnp.ndarray x, y, out
    if threads < 0 or not is_one(temperature) or not is_plain(logits) or type(index) is not cnp.ndarray:
        return None
    x, y = logits, index
    number = plain_axis(axis, cnp.PyArray_NDIM(x))
    if (number < 0 or cnp.PyArray_TYPE(y) != cnp.NPY_INT64 or not cnp.PyArray_ISCARRAY_RO(y)
            or cnp.PyArray_NDIM(y) not in (cnp.PyArray_NDIM(x) - 1, cnp.PyArray_NDIM(x))
            or not starts_with_rows(y, x, number)):
        return None
    if cnp.PyArray_SIZE(y) == 0 or scan_targets(y, cnp.PyArray_DIM(x, number), None, threads)[0] >= 0:
        return None
    out = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(y), cnp.PyArray_DIMS(y), cnp.PyArray_TYPE(x), 0)
    log_prob(x, number, y, out, 1, threads)
    return out[()] if cnp.PyArray_NDIM(out) == 0 else out


# ---- What other languages call ----

include "_c_functions.pxi"

# In the order of csoftmax_functions, each for float32 and float64.
C_NAMES = tuple(f"{name}_{dtype}" for name in (
    "softmax_row", "log_softmax_row", "logsumexp_row", "cross_entropy_row", "cross_entropy_with_grad_row",
    "log_prob_row", "partial", "merge", "finish", "finish_loss", "finish_grad", "softmax", "log_softmax", "logsumexp",
    "cross_entropy", "log_prob") for dtype in ("f32", "f64"))

cdef struct Functions:              # csoftmax_functions, whose fields are pointers
    size_t size
    Py_ssize_t abi
    uintptr_t[32] functions

cdef Functions c_functions


def address(name):
    """Where the machine code of one of the C_NAMES begins."""
    capsule = globals()["__pyx_capi__"][name]
    return <uintptr_t>PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule))


def fill_table():
    c_functions.size = sizeof(c_functions)
    c_functions.abi = CSOFTMAX_ABI
    for i, name in enumerate(C_NAMES):
        c_functions.functions[i] = address(name)
    return PyCapsule_New(&c_functions, "csoftmax._batch.C_FUNCTIONS", NULL)


C_FUNCTIONS = fill_table()


def has_openmp():
    return bool(built_with_openmp)


def compiler():
    """Name and version of the compiler that built the drivers."""
    return compiler_name.decode()


watch_forks()
