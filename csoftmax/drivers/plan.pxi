# How a task is cut: the constants of the drivers, the size and place of tiles, and the scratch memory that they need.
# Nothing here changes a result.

from libc.stdint cimport uintptr_t

from csoftmax.kernels.task cimport (
    ALWAYS_LANES, CHUNK, COLUMNS, FLOAT64, GRADIENT, LANES, MAX_TILE_ROWS, NOTHING, PROBABILITY, ROWS, Layout, Task,
    array_size, has_second_input, item_size, numbers_size, padded, term_arrays,
)

cdef enum:
    # ---- Tiles of columns ----
    # Bytes of x in a tile of few classes: with its terms and its output it fits into the first-level cache.
    COLUMN_BYTES = 12288
    # Elements of a tile of more than COLUMN_CLASSES, which would have too few rows there: the second level holds it.
    COLUMN_ELEMENTS = 32768
    COLUMN_CLASSES = 1024
    # Bytes of an output's class that a tile writes side by side, at least: neighbouring tiles would fetch and write the
    # lines at their border twice.
    PIECE_BYTES = 256
    # Bytes of such pieces of all classes, at most: the second level holds them.
    PIECES_BYTES = 393216
    # Rows of a tile whose classes share a few sets of the cache, at least: each line is read once when they are copied
    # out of there.
    COLLIDING_ROWS = 64
    # Adjacent rows from which on rows are better lanes than classes that have to be gathered.
    LANES_WORTH = 16
    # Adjacent rows from which on the first tile is cut short, so that the others begin with a cache line.
    ALIGNED_ROWS = 1024

    # ---- Tiles of rows ----
    # Elements of a tile of short rows, at least: its fixed costs are shared by so many.
    ROW_ELEMENTS = 4096
    # Rows of a tile, whose ends overlap with the beginnings of the next: so many, if all of them fit into ROW_BYTES ...
    LEAST_ROWS = 32
    # ... which the second level holds together with their terms.
    ROW_BYTES = 131072
    # Rows that are computed one by one, without a tile: so few, or so few of up to 64 classes.
    FEW_ROWS = 4
    FEW_SHORT_ROWS = 8

    # ---- Memory ----
    # Bytes of a tile's terms that are kept until they are written: to read them again beats to compute them again.
    KEPT_BYTES = 2 << 20
    # Scratch of small calls, which lies on the stack: the least part of the 32 KB that a call may take of it.
    STACK_BYTES = 12032
    # Bytes between the scratch of two threads. What a processor fetches ahead of what it reads goes on behind the end,
    # and would take from the next thread lines that this one is about to write: up to half of its time again, where the
    # pages happen to lie so. 8192 bytes end it.
    PREFETCH_GAP_BYTES = 16384
    # Bytes of an output that does not stay in the cache, and is written past it.
    STREAM_BYTES = 16 << 20
    # The same for tiles of rows, whose output comes and goes as fast if it is fetched before it is written. Tiles of
    # columns would lose their own place in the cache to it.
    STREAM_ROW_BYTES = 56 << 20
    # Bytes of an output that is far from the second level, and fetched before it is written.
    FETCH_BYTES = 6 << 20
    # Classes of a tile of columns, at most, that stay where they are fetched until they are written.
    FETCH_CLASSES = 128

    # ---- Results ----
    # Bytes of a result that gets memory which is kept (results.pxi). What is smaller glibc keeps by itself, as its
    # threshold of separate mappings grows to this and no further. There the time that keeping takes would be lost:
    # 50 us, or a quarter of a softmax where the system gives no huge pages.
    LARGE_RESULT_BYTES = 32 << 20
    # Blocks that are kept: the results and gradients that a program's loop has at once, of a few shapes.
    KEPT_RESULTS = 4
    # All of them have at most this part of the machine's memory: the system takes it when it needs it, but meanwhile it
    # counts as used.
    KEPT_PART_OF_MEMORY = 8
    # Bytes of a huge page of x86-64, and of aarch64 where pages have 4 KB.
    HUGE_PAGE_BYTES = 2 << 20

    # ---- Threads ----
    # Elements of long float32 rows that are worth a thread of their own: below, waking it costs more than it saves. So
    # many take 6 us on a Zen 5, 12 us on a Zen 4; a thread that still waits for work costs 1 to 2 us, one that sleeps
    # more. Half as many would lose in calls after a pause, twice as many leave (1000, 50) to one thread.
    ELEMENTS_PER_THREAD = 32768
    # What a row costs beside its elements, in these, and how many of them an element of float64 counts as: on a Zen 4 a
    # softmax takes 3.7, 1.1, 0.7, 0.6 and 0.4 ns an element for 2, 10, 50, 100 and 1000 classes, in float64 1.6 and 1.0
    # for 50 and 1000; logsumexp and losses 0.8 of that, gradients and the way back 1.2 to 1.7 times as much.
    ROW_WORK = 16
    WIDE_WORK = 2
    # Tiles for each thread, at least, so that all end at about the same time.
    LEAST_TILES = 4
    # Elements between two looks at pending signals: some milliseconds.
    ELEMENTS_PER_SLICE = 1 << 24
    # Elements of a call that is over before another thread would have taken the GIL: it is not given away.
    SHORT_CALL = 4096
    # Targets that a thread counts at a time: it reads them twice, from its first-level or second-level cache.
    TARGETS = 32768


cdef enum:                      # not for tuning
    LINE_BYTES = 64             # of the cache
    PAGE_BYTES = 4096

cdef struct Crew:               # who computes a task
    int n_threads
    bint share_chunks           # of one tile after the other; else they share the tiles
    bint for_python             # signals are looked at


cdef Py_ssize_t first_tile_offset(const Task *task) noexcept nogil:
    """By how many rows the first tile is shorter, so that others begin with a cache line of columns: large arrays of
    NumPy begin 16 bytes behind one. Else tiles would share lines, and those of an output that goes past the cache would
    be read first."""
    cdef const Layout *written = &task.x if task.output == NOTHING else &task.out
    cdef Py_ssize_t row = <Py_ssize_t>(<uintptr_t>written.data % LINE_BYTES) // written.item       # in its line
    cdef int d
    for d in range(written.n_dims - 1):
        if written.strides[d] % LINE_BYTES:
            return 0
    if written.columns and written.class_stride % LINE_BYTES == 0 and task.plan.inner >= ALIGNED_ROWS:
        return row
    return 0


cdef inline Py_ssize_t rows_of_pieces(const Task *task, Py_ssize_t least_tiles) noexcept nogil:
    """How many rows a tile of columns needs that its output's pieces have PIECE_BYTES; less where that costs more: the
    second level, terms that are kept, or other threads' work."""
    cdef Py_ssize_t item = item_size(task)
    cdef Py_ssize_t chunk = min(task.n_classes, CHUNK)
    cdef Py_ssize_t n = PIECE_BYTES // task.out.item
    if task.plan.inner < 2 * n:
        n = task.plan.inner
    n = min(n, PIECES_BYTES // item // chunk)
    n = min(n, KEPT_BYTES // item // (task.plan.n_chunks * (chunk + 2)))    # arrays of terms are a little larger
    n = min(n, task.n_rows // least_tiles)
    return n // LANES * LANES


cdef inline Py_ssize_t rows_as_columns(const Task *task, bint adjacent, Py_ssize_t least_tiles) noexcept nogil:
    """How many rows a tile of columns has; adjacent: they are neighbours in memory, else they are transposed."""
    cdef Py_ssize_t elements = COLUMN_BYTES // item_size(task)
    cdef Py_ssize_t n
    if task.n_classes > COLUMN_CLASSES:
        elements = COLUMN_ELEMENTS
    n = max(elements // min(task.n_classes, CHUNK) // LANES * LANES, LANES)
    if adjacent and task.output != NOTHING:
        n = max(n, rows_of_pieces(task, least_tiles))
    if task.x.columns and task.x.collides:
        n = max(n, COLLIDING_ROWS)
    return n


cdef inline Py_ssize_t rows_as_rows(const Task *task, Py_ssize_t least_tiles) noexcept nogil:
    """How many rows a tile of rows has."""
    cdef Py_ssize_t n = min(LEAST_ROWS, ROW_BYTES // item_size(task) // task.n_classes)
    n = min(n, (task.n_rows + least_tiles - 1) // least_tiles)
    n = max(n, ROW_ELEMENTS // task.n_classes)
    if task.n_classes >= CHUNK or n < 1:
        n = 1
    if not task.x.rows:
        n = max(n, LANES_WORTH)     # gathered one after the other from the same cache lines
    return n


cdef inline void find_layouts(Task *task, bint as_columns) noexcept nogil:
    """Say of each array whether it can be read or written as it lies."""
    find_lanes(&task.x, task)
    task.x.columns &= as_columns
    if has_second_input(task):
        find_lanes(&task.second_input, task)
    if task.output != NOTHING:
        find_lanes(&task.out, task)
        task.out.rows &= task.out.n_dims == 0 or task.out.strides[0] == task.n_classes * task.out.item


cdef inline void plan_output(Task *task) noexcept nogil:
    """Whether the output goes past the cache, or is fetched before it is written."""
    cdef Py_ssize_t size = task.n_rows * task.n_classes * task.out.item
    cdef bint long_tiles = task.plan.orientation == ROWS and task.plan.n_chunks == 1
    task.plan.stream = (task.out.columns or task.out.rows) and size >= (
        STREAM_ROW_BYTES if long_tiles else STREAM_BYTES)
    task.plan.fetch_output = size >= FETCH_BYTES and task.plan.n_chunks == 1 and (
        task.out.rows or task.out.columns and not task.plan.stream and task.n_classes <= FETCH_CLASSES)


cdef void plan_tiles(Task *task, Py_ssize_t n_threads) noexcept nogil:
    """Choose how tiles lie and how large they are."""
    cdef Py_ssize_t item = item_size(task), n = task.n_classes
    cdef Py_ssize_t least_tiles = LEAST_TILES * n_threads if n_threads > 1 else 1
    cdef bint as_columns = (
        task.x.class_stride != task.x.item and has_adjacent_rows(&task.x, task.x.item)
        and inner_size(&task.x) >= LANES_WORTH)
    task.plan.n_chunks = (n + CHUNK - 1) // CHUNK
    task.plan.inner = inner_size(&task.x) if as_columns else task.n_rows
    find_layouts(task, as_columns)
    # Classes of short rows would not fill the lanes, and each row has a sum to fold: they are transposed.
    if as_columns or n * item <= ALWAYS_LANES:
        task.plan.orientation = COLUMNS
        task.plan.tile_rows = rows_as_columns(task, as_columns, least_tiles)
        if n * item > ALWAYS_LANES:
            task.plan.tail_rows = LANES_WORTH // 2   # gathered in any case, and as columns most lanes would be empty
    else:
        task.plan.orientation = ROWS
        task.plan.tile_rows = rows_as_rows(task, least_tiles)
    task.plan.tile_rows = min(task.plan.tile_rows, MAX_TILE_ROWS)
    if task.output != NOTHING:
        plan_output(task)
    if as_columns:
        task.plan.first_tile_offset = first_tile_offset(task)
    task.plan.tiles_per_inner = (
        task.plan.inner + task.plan.first_tile_offset + task.plan.tile_rows - 1) // task.plan.tile_rows


cdef inline Py_ssize_t work_of(const Task *task) noexcept nogil:
    """In elements of long float32 rows, as ELEMENTS_PER_THREAD counts."""
    return task.n_rows * (task.n_classes * (WIDE_WORK if task.dtype == FLOAT64 else 1) + ROW_WORK)


cdef inline Py_ssize_t tiles_of(const Task *task) noexcept nogil:
    return task.n_rows // task.plan.inner * task.plan.tiles_per_inner


cdef inline bint needs_more_scratch(const Task *task) noexcept nogil:
    """For a tile's masses, for what is added to its logits, or for the gradient that goes back."""
    return task.loss.mass != NULL or has_second_input(task)


cdef Py_ssize_t plan_scratch(Task *task, const Crew *crew) noexcept nogil:
    """Choose whether terms are kept, and return how many bytes the states and the scratch of all threads take."""
    cdef Py_ssize_t width = min(task.plan.tile_rows, task.plan.inner)
    cdef Py_ssize_t array_bytes
    if task.plan.orientation == COLUMNS:
        width = padded(width)
    array_bytes = item_size(task) * max(
        array_size(task, task.plan.orientation, width), array_size(task, ROWS, task.plan.tail_rows))
    if task.output == PROBABILITY or task.output == GRADIENT:
        task.plan.keep_terms = task.plan.n_chunks == 1 or (
            not crew.share_chunks and task.plan.n_chunks * array_bytes <= KEPT_BYTES)
    task.plan.states_bytes = kernels.states_size(width, task.plan.n_chunks)
    task.plan.scratch_bytes = numbers_size(task, width) + array_bytes * (
        1 + term_arrays(task) + (2 if needs_more_scratch(task) else 0))
    task.plan.scratch_bytes = (task.plan.scratch_bytes + LINE_BYTES - 1) // LINE_BYTES * LINE_BYTES
    if crew.n_threads > 1:
        task.plan.scratch_bytes += PREFETCH_GAP_BYTES
    if crew.share_chunks:
        return task.plan.states_bytes + task.plan.scratch_bytes * crew.n_threads
    return (task.plan.states_bytes + task.plan.scratch_bytes) * crew.n_threads
