# How a task is cut: the constants of the drivers, and what follows from them for the tiles of a task. Nothing here
# changes a result.

from libc.stdint cimport uintptr_t

from csoftmax.kernels.task cimport (
    ALWAYS_LANES, CHUNK, COLUMNS, MAX_TILE_ROWS, NOTHING, ROWS, Layout, Task, has_second_input, is_backward,
)


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
    ALIGNED_ROWS = 1024             # at least, to cut off a first tile so that the others are aligned
    LANES_WORTH = 16                # adjacent rows from which they make better lanes than gathered classes


cdef enum:
    TARGETS = 32768                 # that a thread counts at a time, twice: they stay in its cache


cdef enum:
    LOSSES = 1024                   # or weights that are added to one sum, and these in order
    WEIGHTS = 256                   # that are brought together at a time


cdef enum:
    ORDINARY = 20                   # a power of two; weights between it and its inverse need no scaling


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
