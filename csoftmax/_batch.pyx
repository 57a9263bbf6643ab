# cython: freethreading_compatible=True
# Drivers: which thread computes which tile of which array. They validate nothing (see _checks.py; C callers have
# _c_functions.pxi) and hold no arithmetic (see kernels/): they describe arrays as rows of classes, cut tiles, and share
# them out. What the module remembers (kernels, quota, process_is_serial, c_functions) is written while it is imported,
# and in a child that was just forked, where one thread runs: threads only read it.

cimport cython
cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer, PyCapsule_New
from cython cimport floating
from cython.parallel cimport parallel, prange, threadid
from libc.math cimport INFINITY
from libc.stdint cimport INT64_MIN, int32_t, int64_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from csoftmax import _isa
from csoftmax.kernels.table cimport (
    ALWAYS_LANES, CHUNK, COLUMNS, FINISH, GRADIENT, LOG_PROB, LOG_PROBABILITY, LOG_SOFTMAX_BACKWARD, LOGSUMEXP, LOSS,
    MAX_DIMS, MAX_TILE_ROWS, MEASURE, NOTHING, PROBABILITY, ROWS, SHORT, SOFTMAX_BACKWARD, WRITE, Kernels, Layout,
    Output, RowNumber, State, Steps, Task, room_size, term_rooms,
)

cdef extern from "_platform.h" nogil:
    ctypedef int fp_state
    fp_state fp_enter()
    void fp_leave(fp_state)
    int omp_get_max_threads()
    int omp_get_num_procs()
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
    STACK_BYTES = 16384             # scratch of small calls
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


cdef inline bint is_backward(const Task *task) noexcept nogil:
    return task.output == SOFTMAX_BACKWARD or task.output == LOG_SOFTMAX_BACKWARD


cdef inline bint has_other(const Task *task) noexcept nogil:
    return task.has_added or task.has_probabilities or is_backward(task)


cdef inline void find_lanes(Layout *a, const Task *task, Py_ssize_t item) noexcept nogil:
    """Whether rows or neighbouring rows, as many as there are of x, can be read or written as they lie."""
    cdef bint aligned = is_aligned(a, item)
    a.rows = aligned and a.n_dims <= 1 and a.class_stride == item
    a.columns = (
        aligned and has_adjacent_rows(a, item) and inner_size(a) == task.inner and a.class_stride != item)
    a.collides = a.columns and task.n_classes > 64 and a.class_stride % 4096 == 0


cdef Py_ssize_t skew_of(const Layout *a, const Task *task, Py_ssize_t item) noexcept nogil:
    """By how many rows the first tile is shorter, so that others begin with a cache line of columns: large arrays of
    NumPy begin 16 bytes behind one. Else tiles would share lines, and those of an output that goes past the cache would
    be read first."""
    cdef Py_ssize_t row = <Py_ssize_t>(<uintptr_t>a.data % 64) // item  # of the line in which the first row lies
    cdef int d
    for d in range(a.n_dims - 1):
        if a.strides[d] % 64:
            return 0
    return row if row and a.columns and a.class_stride % 64 == 0 and task.inner >= ALIGNED_ROWS else 0


cdef inline Py_ssize_t rows_of_pieces(const Task *task, Py_ssize_t item, Py_ssize_t least_tiles) noexcept nogil:
    """How many rows a tile of columns needs that its output's pieces have PIECE_BYTES; less where that costs more: the
    second level, terms that are kept, or other threads' work."""
    cdef Py_ssize_t chunk = task.n_classes if task.n_classes < CHUNK else CHUNK
    cdef Py_ssize_t n = PIECE_BYTES // item
    if task.inner < 2 * n:
        n = task.inner
    if n > PIECES_BYTES // item // chunk:
        n = PIECES_BYTES // item // chunk
    if n > KEPT_BYTES // item // (task.n_chunks * (chunk + 2)):     # rooms are a little larger
        n = KEPT_BYTES // item // (task.n_chunks * (chunk + 2))
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
    task.n_chunks = (n + CHUNK - 1) // CHUNK
    task.inner = inner_size(&task.x) if as_columns else task.n_rows
    find_lanes(&task.x, task, item)
    task.x.columns &= as_columns
    if has_other(task):
        find_lanes(&task.other, task, item)
    if task.output != NOTHING:
        find_lanes(&task.out, task, item)
        task.out.rows &= task.out.n_dims == 0 or task.out.strides[0] == n * item
    # Classes of short rows would not fill the lanes, and each row has a sum to fold: they are transposed.
    if as_columns or n * item <= ALWAYS_LANES:
        task.orientation = COLUMNS
        task.tile_rows = (COLUMN_BYTES // item if n <= 1024 else COLUMN_ELEMENTS) // chunk // 16 * 16
        if task.tile_rows < 16:
            task.tile_rows = 16
        if as_columns and task.output != NOTHING:
            least_rows = rows_of_pieces(task, item, least_tiles)
            if task.tile_rows < least_rows:
                task.tile_rows = least_rows
        if task.x.columns and task.x.collides and task.tile_rows < COLLIDING_ROWS:
            task.tile_rows = COLLIDING_ROWS
        if n * item > ALWAYS_LANES:
            task.tail_rows = LANES_WORTH // 2   # gathered in any case, and as columns most lanes would be empty
    else:
        task.orientation = ROWS
        task.tile_rows = LEAST_ROWS if LEAST_ROWS < ROW_BYTES // item // n else ROW_BYTES // item // n
        if task.tile_rows > (task.n_rows + least_tiles - 1) // least_tiles:
            task.tile_rows = (task.n_rows + least_tiles - 1) // least_tiles
        if task.tile_rows < ROW_ELEMENTS // n:
            task.tile_rows = ROW_ELEMENTS // n
        if n >= CHUNK or task.tile_rows < 1:
            task.tile_rows = 1
        if is_backward(task) and not task.x.rows and task.tile_rows < LANES_WORTH:
            task.tile_rows = LANES_WORTH    # gathered one after the other from the same cache lines
    if task.tile_rows > MAX_TILE_ROWS:
        task.tile_rows = MAX_TILE_ROWS
    if task.output != NOTHING:
        size = task.n_rows * n * item
        task.stream = (task.out.columns or task.out.rows) and size >= (
            STREAM_ROW_BYTES if task.orientation == ROWS and task.n_chunks == 1 else STREAM_BYTES)
        task.fetch_output = size >= FETCH_BYTES and task.n_chunks == 1 and (
            task.out.rows or task.out.columns and not task.stream and n <= FETCH_CLASSES)
    if as_columns:
        task.skew = skew_of(&task.x if task.output == NOTHING else &task.out, task, item)
    task.tiles_per_inner = (task.inner + task.skew + task.tile_rows - 1) // task.tile_rows


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
    return n if n < quota else quota


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
    cdef Py_ssize_t start = tile % task.tiles_per_inner * task.tile_rows - task.skew
    cdef Py_ssize_t end = start + task.tile_rows
    start = start if start > 0 else 0
    n_rows[0] = (end if end < task.inner else task.inner) - start
    return tile // task.tiles_per_inner * task.inner + start


cdef inline void few_chunks(const Task *task, int dtype, Steps steps, Py_ssize_t tile, Py_ssize_t chunk,
                            Py_ssize_t end_chunk, char *board, char *scratch) noexcept nogil:
    """Steps of some chunks of a tile, whose board may be shared."""
    cdef Py_ssize_t n_rows = 0
    cdef Py_ssize_t first_row = first_row_of(task, tile, &n_rows)
    cdef fp_state state = fp_enter()
    kernels.tile[dtype](task, steps, first_row, n_rows, chunk, end_chunk, board, scratch)
    fp_leave(state)


cdef inline void one_tile(const Task *task, int dtype, Py_ssize_t tile, char *memory) noexcept nogil:
    """All steps of a tile; memory holds its board and scratch."""
    few_chunks(task, dtype, <Steps>(MEASURE | FINISH | WRITE), tile, 0, task.n_chunks, memory,
               memory + task.board_bytes)


cdef bint interrupted() noexcept with gil:
    """Whether a signal's handler has raised."""
    return check_signals() != 0


cdef int run_tiles(const Task *task, int dtype, int n_threads, bint for_python, char *memory) noexcept nogil:
    """Tiles are shared out among threads."""
    cdef Py_ssize_t n_tiles = task.n_rows // task.inner * task.tiles_per_inner
    cdef Py_ssize_t size = task.board_bytes + task.scratch_bytes
    cdef Py_ssize_t slice_tiles = ELEMENTS_PER_SLICE // (task.tile_rows * task.n_classes) + 1
    cdef Py_ssize_t first = 0, last, tile
    if n_tiles == 1:
        one_tile(task, dtype, 0, memory)
        return CSOFTMAX_OK
    while first < n_tiles:
        last = first + slice_tiles if first + slice_tiles < n_tiles else n_tiles
        if n_threads == 1:
            for tile in range(first, last):
                one_tile(task, dtype, tile, memory)
            kernels.fence()
        else:
            with parallel(num_threads=n_threads):
                for tile in prange(first, last, schedule="static"):
                    one_tile(task, dtype, tile, memory + threadid() * size)
                kernels.fence()
        first = last
        if first < n_tiles and for_python and interrupted():
            return INTERRUPTED
    return CSOFTMAX_OK


cdef int run_chunks(const Task *task, int dtype, int n_threads, bint for_python, char *memory) noexcept nogil:
    """Few tiles, or very long rows: the chunks of each tile are shared out, so that all threads work on one row."""
    cdef Py_ssize_t n_tiles = task.n_rows // task.inner * task.tiles_per_inner
    cdef char *scratch = memory + task.board_bytes
    cdef Py_ssize_t tile
    for tile in range(n_tiles):
        if not all_chunks(task, dtype, MEASURE, tile, n_threads, for_python, memory, scratch):
            return INTERRUPTED
        few_chunks(task, dtype, FINISH, tile, 0, 0, memory, scratch)
        if task.output != NOTHING and not all_chunks(task, dtype, WRITE, tile, n_threads, for_python, memory, scratch):
            return INTERRUPTED
    return CSOFTMAX_OK


cdef bint all_chunks(const Task *task, int dtype, Steps steps, Py_ssize_t tile, int n_threads, bint for_python,
                     char *board, char *scratch) noexcept nogil:
    """Whether no signal has interrupted them."""
    cdef Py_ssize_t slice_chunks = ELEMENTS_PER_SLICE // (task.tile_rows * CHUNK) + 1
    cdef Py_ssize_t first = 0, last
    while first < task.n_chunks:
        last = first + slice_chunks if first + slice_chunks < task.n_chunks else task.n_chunks
        some_chunks(task, dtype, steps, tile, first, last, n_threads, board, scratch)
        first = last
        if for_python and interrupted():
            return False
    return True


cdef void some_chunks(const Task *task, int dtype, Steps steps, Py_ssize_t tile, Py_ssize_t first, Py_ssize_t last,
                      int n_threads, char *board, char *scratch) noexcept nogil:
    cdef Py_ssize_t share, size = task.scratch_bytes
    if n_threads == 1:
        few_chunks(task, dtype, steps, tile, first, last, board, scratch)
        kernels.fence()
    else:
        with parallel(num_threads=n_threads):
            for share in prange(n_threads, schedule="static"):
                few_chunks(task, dtype, steps, tile, first + (last - first) * share // n_threads,
                           first + (last - first) * (share + 1) // n_threads, board, scratch + threadid() * size)
            kernels.fence()


cdef inline bint has_few_rows(const Task *task, Py_ssize_t item) noexcept nogil:
    """Whether the rows, each of neighbours and one chunk, take less time one by one than as a tile."""
    cdef Py_ssize_t row
    if (task.n_rows > (8 if task.n_classes <= SHORT else 4) or task.n_classes > CHUNK or task.temperature != 1
            or has_other(task)
            or task.weight != NULL or task.sample_weight != NULL or task.grad_weight != NULL or task.mass != NULL
            or task.index != NULL
            or task.target != NULL and task.logsumexp != NULL
            or task.x.class_stride != item or task.x.n_dims > 1
            or task.output != NOTHING and (task.out.class_stride != item or task.out.n_dims > 1)):
        return False
    for row in range(task.n_rows if task.has_ignore_index else 0):
        if task.target[row] == task.ignore_index:
            return False
    return True


cdef void run_rows(const Task *task, int dtype) noexcept nogil:
    cdef fp_state state = fp_enter()
    cdef Py_ssize_t row
    cdef int64_t target = 0
    cdef void *out = NULL
    cdef double result
    for row in range(task.n_rows):
        if task.target != NULL:
            target = task.target[row]
        if task.output != NOTHING:
            out = task.out.data + (row * task.out.strides[0] if row else 0)
        result = kernels.row[dtype](
            task.output, LOGSUMEXP if task.target == NULL else LOSS,
            task.x.data + (row * task.x.strides[0] if row else 0), task.n_classes, target, task.scale, out)
        if task.loss_f32 != NULL:
            task.loss_f32[row] = <float>result
        if task.loss_f64 != NULL:
            task.loss_f64[row] = result
        if task.logsumexp != NULL and dtype:
            (<double *>task.logsumexp)[row] = result
        elif task.logsumexp != NULL:
            (<float *>task.logsumexp)[row] = <float>result
    fp_leave(state)


cdef inline bint needs_more_room(const Task *task) noexcept nogil:
    """For a tile's masses, for what is added to its logits, or for the gradient that goes back."""
    return task.mass != NULL or has_other(task)


cdef int run(Task *task, int dtype, int n_threads, bint for_python) noexcept nogil:
    """Compute all tiles; return a status.

    dtype is 0 for float32, 1 for float64; n_threads is 0 for as many as pay; for_python: signals are looked at.
    """
    cdef Py_ssize_t item = 8 if dtype else 4
    cdef Py_ssize_t n_tiles, width, chunk_bytes, tail_bytes, size
    cdef char[STACK_BYTES + 64] stack
    cdef char *heap = NULL
    cdef char *memory = stack
    cdef bint split
    cdef int status
    if task.n_rows == 0 or task.n_classes == 0:
        return CSOFTMAX_OK
    if has_few_rows(task, item):
        run_rows(task, dtype)
        return CSOFTMAX_OK
    plan(task, item, threads_for(task.n_rows * task.n_classes, task.n_rows, n_threads))
    n_tiles = task.n_rows // task.inner * task.tiles_per_inner
    n_threads = threads_for(task.n_rows * task.n_classes, n_tiles * task.n_chunks, n_threads)
    split = task.n_chunks > 1 and not is_backward(task) and (
        n_threads > 1 and n_tiles < 2 * n_threads or task.tile_rows * task.n_classes > ELEMENTS_PER_SLICE)
    if not split and n_threads > n_tiles:
        n_threads = n_tiles
    width = task.tile_rows if task.tile_rows < task.inner else task.inner
    if task.orientation == COLUMNS:
        width = (width + 15) // 16 * 16
    chunk_bytes = room_size(task, task.orientation, width) * item
    tail_bytes = room_size(task, ROWS, task.tail_rows) * item
    if chunk_bytes < tail_bytes:
        chunk_bytes = tail_bytes
    if task.output == PROBABILITY or task.output == GRADIENT:
        task.keep_terms = task.n_chunks == 1 or not split and task.n_chunks * chunk_bytes <= KEPT_BYTES
    task.board_bytes = kernels.board_size(width, task.n_chunks)
    task.scratch_bytes = chunk_bytes * (
        1 + term_rooms(task) + (2 if needs_more_room(task) else 0))
    task.scratch_bytes = (task.scratch_bytes + 63) // 64 * 64
    if n_threads > 1:
        # What a processor fetches ahead of what it reads goes on behind the end of its thread's scratch. It would take
        # from the next thread lines that this one is about to write: up to half of its time again, where the pages
        # happen to lie so; 8192 bytes end it.
        task.scratch_bytes += APART_BYTES
    size = task.board_bytes + task.scratch_bytes * n_threads if split else (
        (task.board_bytes + task.scratch_bytes) * n_threads)
    if size > STACK_BYTES:
        heap = <char *>malloc(size + 64)
        if heap == NULL:
            return CSOFTMAX_NO_MEMORY
        memory = heap
    memory += (64 - <uintptr_t>memory % 64) % 64
    if split:
        status = run_chunks(task, dtype, n_threads, for_python, memory)
    else:
        status = run_tiles(task, dtype, n_threads, for_python, memory)
    free(heap)
    return status


cdef int call(Task *task, int dtype, int n_threads) except -1:
    """run() for Python: without the GIL, unless the task is as short as that takes."""
    cdef int status
    if task.n_rows * task.n_classes <= SHORT_CALL:
        status = run(task, dtype, n_threads, False)
    else:
        with nogil:
            status = run(task, dtype, n_threads, True)
    if status == CSOFTMAX_NO_MEMORY:
        raise MemoryError("csoftmax got no scratch memory")
    return -1 if status == INTERRUPTED else 0


def enter_default_state():
    """Round to nearest and keep subnormals, as the kernels do; return what leave_default_state() restores."""
    return fp_enter()


def leave_default_state(state):
    fp_leave(state)


# ---- What _functions calls: arrays are float32 or float64 of native byte order, axis is not negative ----

cdef int dtype_of(cnp.ndarray x) noexcept:
    return 1 if cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE else 0


cdef void begin(Task *task) noexcept nogil:
    memset(task, 0, <char *>&task.x - <char *>task)
    task.scale = task.temperature = task.kept = 1


cdef void describe(Task *task, cnp.ndarray x, int axis) noexcept:
    cdef Py_ssize_t size = cnp.PyArray_SIZE(x)
    begin(task)
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
    call(&task, dtype_of(x), n_threads)


cpdef logsumexp(cnp.ndarray x, int axis, cnp.ndarray out, double temperature, cnp.ndarray added, int n_threads):
    """Write the logsumexp of each row of (x + added) / temperature to out, C-contiguous, of x's dtype.

    added is None or of x's shape and dtype; where it is -inf x does not count. Rows without classes are left alone.
    """
    cdef Task task
    describe(&task, x, axis)
    task.temperature = temperature
    if added is not None:
        lay_out(&task.other, added, axis)
        task.has_added = True
    task.logsumexp = cnp.PyArray_DATA(out)
    call(&task, dtype_of(x), n_threads)


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


cdef void add_losses(double *losses, Py_ssize_t n, Py_ssize_t block) noexcept nogil:
    """Leave the sum of a block of n losses, in eight lanes, in the place of its first."""
    cdef double *loss = losses + block * LOSSES
    cdef double[8] lanes
    cdef Py_ssize_t i = 0
    cdef int l
    cdef fp_state state = fp_enter()
    n = LOSSES if n - block * LOSSES > LOSSES else n - block * LOSSES
    for l in range(8):
        lanes[l] = 0
    while i + 8 <= n:
        for l in range(8):
            lanes[l] += loss[i + l]
        i += 8
    while i < n:
        lanes[0] += loss[i]
        i += 1
    loss[0] = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]))
    fp_leave(state)


cdef double sum_of_blocks(const double *sums, Py_ssize_t n_blocks, Py_ssize_t step) noexcept nogil:
    """In order."""
    cdef double total = 0
    cdef Py_ssize_t block
    cdef fp_state state = fp_enter()
    for block in range(n_blocks):
        total += sums[block * step]
    fp_leave(state)
    return total


@cython.cdivision(True)  # over zero rows: NaN
cpdef reduce_losses(cnp.ndarray losses, double divisor, cnp.ndarray out, int n_threads):
    """Write the sum of losses, float64 and C-contiguous, over divisor to out, a float32 or float64 of no dimensions.

    In a fixed order of small error. The losses are used up.
    """
    cdef double *p = <double *>cnp.PyArray_DATA(losses)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(losses), n_blocks = (n + LOSSES - 1) // LOSSES, block
    cdef double total
    cdef fp_state state
    n_threads = threads_for(n, n_blocks, n_threads)
    with nogil:
        if n_threads == 1:
            for block in range(n_blocks):
                add_losses(p, n, block)
        else:
            for block in prange(n_blocks, schedule="static", num_threads=n_threads):
                add_losses(p, n, block)
    total = sum_of_blocks(p, n_blocks, LOSSES)
    state = fp_enter()
    total /= divisor
    if dtype_of(out):           # never -0.0
        (<double *>cnp.PyArray_DATA(out))[0] = total + 0.0
    else:
        (<float *>cnp.PyArray_DATA(out))[0] = <float>total + <float>0
    fp_leave(state)


cdef double *doubles(cnp.ndarray values) noexcept:
    return NULL if values is None else <double *>cnp.PyArray_DATA(values)


cdef double weight_of_block(
    Py_ssize_t block,
    Py_ssize_t n,               # rows, of which LOSSES are a block
    const int64_t *target,      # (n,), or NULL for a weight of one
    bint has_ignore_index, int64_t ignore_index,
    const double *weight,       # (n_classes,), or NULL for ones
    Py_ssize_t n_classes,
    const double *sample_weight,        # (n,), or NULL for ones
) noexcept nogil:
    cdef Py_ssize_t i, end = (block + 1) * LOSSES
    cdef double total = 0, one
    cdef fp_state state = fp_enter()
    for i in range(block * LOSSES, end if end < n else n):
        if target != NULL and has_ignore_index and target[i] == ignore_index:
            continue
        one = 1 if sample_weight == NULL else sample_weight[i]
        if weight != NULL:      # scanned, but another thread may have changed it since
            one = one * weight[target[i]] if 0 <= target[i] < n_classes else one
        total += one
    fp_leave(state)
    return total


def total_weight(cnp.ndarray target, object ignore_index, cnp.ndarray weight, cnp.ndarray sample_weight, int n_threads):
    """Return the sum over the rows that are not ignored of the target's weight times the sample's.

    target is int64, C-contiguous and scanned, or None for a weight of one; weights are float64 and C-contiguous.
    """
    cdef const int64_t *classes = NULL if target is None else <int64_t *>cnp.PyArray_DATA(target)
    cdef const double *of_class = doubles(weight)
    cdef const double *of_sample = doubles(sample_weight)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(sample_weight if target is None else target)
    cdef Py_ssize_t n_classes = 0 if weight is None else cnp.PyArray_SIZE(weight)
    cdef cnp.npy_intp n_blocks = (n + LOSSES - 1) // LOSSES
    cdef double of_one_block
    cdef cnp.ndarray sums = None if n_blocks <= 1 else cnp.PyArray_EMPTY(1, &n_blocks, cnp.NPY_DOUBLE, 0)
    cdef double *p = &of_one_block if n_blocks <= 1 else doubles(sums)
    cdef bint has_ignore_index = ignore_index is not None
    cdef int64_t ignored = ignore_index if has_ignore_index else 0
    cdef Py_ssize_t block
    n_threads = threads_for(n, n_blocks, n_threads)
    with nogil:
        if n_threads == 1:
            for block in range(n_blocks):
                p[block] = weight_of_block(block, n, classes, has_ignore_index, ignored, of_class, n_classes, of_sample)
        else:
            for block in prange(n_blocks, schedule="static", num_threads=n_threads):
                p[block] = weight_of_block(block, n, classes, has_ignore_index, ignored, of_class, n_classes, of_sample)
    return sum_of_blocks(p, n_blocks, 1)


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
                    double label_smoothing=0, double temperature=1):
    """Write each row's loss to loss, of the logits' dtype or float64, and its gradient over divisor to grad or None.

    target is int64, C-contiguous, and scanned, or None with probabilities of the logits' shape and dtype; loss is
    C-contiguous, the weights float64 and C-contiguous.
    """
    cdef Task task
    cdef fp_state state
    cdef cnp.ndarray masses, chunk_mass
    describe(&task, logits, axis)
    if probabilities is not None:
        lay_out(&task.other, probabilities, axis)
        task.has_probabilities = True
    else:
        task.target = <const int64_t *>cnp.PyArray_DATA(target)
        if ignore_index is not None:
            task.has_ignore_index = True
            task.ignore_index = ignore_index
    task.weight = doubles(weight)
    task.sample_weight = doubles(sample_weight)
    task.grad_weight = doubles(grad_weight)
    task.temperature = temperature
    if cnp.PyArray_TYPE(loss) == cnp.NPY_DOUBLE:
        task.loss_f64 = <double *>cnp.PyArray_DATA(loss)
    else:
        task.loss_f32 = <float *>cnp.PyArray_DATA(loss)
    if grad is not None:
        lay_out(&task.out, grad, axis)
        task.output = GRADIENT
    state = fp_enter()
    task.scale = 1 / (divisor * (temperature if dtype_of(logits) else <double><float>temperature))
    if label_smoothing != 0 and task.n_classes:
        task.kept = 1 - label_smoothing
        task.smooth = label_smoothing / task.n_classes
    if probabilities is None and task.smooth != 0:
        masses = masses_of_classes(task.smooth, weight, task.n_classes, cnp.PyArray_TYPE(logits))
        chunk_mass = sums_of_chunks(masses)
        task.mass = cnp.PyArray_DATA(masses)
        task.chunk_mass = doubles(chunk_mass)
    fp_leave(state)
    call(&task, dtype_of(logits), n_threads)


cpdef log_prob(cnp.ndarray logits, int axis, cnp.ndarray index, cnp.ndarray out, double temperature, int n_threads):
    """Write log_softmax of logits / temperature at index to out.

    index is int64, C-contiguous and scanned, as many numbers for each row; out likewise, of the logits' dtype.
    """
    cdef Task task
    describe(&task, logits, axis)
    if task.n_rows == 0:
        return
    task.temperature = temperature
    task.index = <const int64_t *>cnp.PyArray_DATA(index)
    task.n_indices = cnp.PyArray_SIZE(index) // task.n_rows
    task.picked = cnp.PyArray_DATA(out)
    call(&task, dtype_of(logits), n_threads)


def backward(cnp.ndarray grad, cnp.ndarray result, int axis, cnp.ndarray out, bint log, int n_threads):
    """Write the gradient with respect to the logits to out; all arrays are of one shape and dtype."""
    cdef Task task
    describe(&task, result, axis)
    lay_out(&task.other, grad, axis)
    lay_out(&task.out, out, axis)
    task.output = LOG_SOFTMAX_BACKWARD if log else SOFTMAX_BACKWARD
    call(&task, dtype_of(result), n_threads)


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


cdef bint lie_apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two C-contiguous arrays share no memory."""
    cdef Py_ssize_t distance = <char *>cnp.PyArray_DATA(a) - <char *>cnp.PyArray_DATA(b)
    return distance >= cnp.PyArray_NBYTES(b) or -distance >= cnp.PyArray_NBYTES(a)


cdef bint fits(cnp.ndarray x, object out) noexcept:
    """Whether out is x itself, or as C-contiguous as x and elsewhere."""
    cdef cnp.ndarray a
    cdef int d
    if type(out) is not cnp.ndarray:
        return False
    a = out
    if (cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(x) or cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(x)
            or not cnp.PyArray_ISCARRAY(a) or not cnp.PyArray_ISCARRAY_RO(x)):
        return False
    for d in range(cnp.PyArray_NDIM(x)):
        if cnp.PyArray_DIM(a, d) != cnp.PyArray_DIM(x, d):
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
    cdef object grad = None
    cdef Py_ssize_t bad, n_ignored
    if (threads < 0 or not is_plain(logits) or type(target) is not cnp.ndarray or not is_one(temperature)
            or type(label_smoothing) is not float or not 0.0 <= label_smoothing <= 1.0
            or type(ignore_index) is not int):
        return None
    x, y = logits, target
    number = plain_axis(axis, cnp.PyArray_NDIM(x))
    if (number < 0 or cnp.PyArray_TYPE(y) != cnp.NPY_INT64 or not cnp.PyArray_ISCARRAY_RO(y)
            or cnp.PyArray_NDIM(y) != cnp.PyArray_NDIM(x) - 1 or not -(1 << 62) < ignore_index < 1 << 62
            or type(reduction) is not str or reduction not in ("mean", "sum", "none")
            or not starts_with_rows(y, x, number)):
        return None
    if weight is not None:
        if (not is_plain(weight) or cnp.PyArray_NDIM(weight) != 1 or not cnp.PyArray_ISCARRAY_RO(weight)
                or cnp.PyArray_DIM(weight, 0) != cnp.PyArray_DIM(x, number)):
            return None
        weight = cnp.PyArray_Cast(weight, cnp.NPY_DOUBLE)
    bad, n_ignored = scan_targets(y, cnp.PyArray_DIM(x, number), ignore_index, threads)
    if bad >= 0:
        return None
    if with_grad:
        if out is None:
            grad = PyArray_NewLikeArray(x, cnp.NPY_KEEPORDER, NULL, 0)
        elif fits(x, out) and lie_apart(out, y):
            grad = out
        else:
            return None
    loss = rows_like(x, number, cnp.PyArray_TYPE(x) if reduction == "none" else cnp.NPY_DOUBLE)
    divisor = 1
    if reduction == "mean":
        divisor = cnp.PyArray_SIZE(y) - n_ignored if weight is None else (
            total_weight(y, ignore_index, weight, None, threads))
    cross_entropy(x, number, y, ignore_index, loss, grad, divisor or 1, threads, None, weight, None, None,
                  label_smoothing, 1)
    if reduction == "none":
        return loss[()] if cnp.PyArray_NDIM(loss) == 0 else loss, grad
    total = cnp.PyArray_EMPTY(0, NULL, cnp.PyArray_TYPE(x), 0)
    reduce_losses(loss, divisor, total, threads)
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
