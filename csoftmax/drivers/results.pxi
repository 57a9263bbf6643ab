# The memory of large results. NumPy asks the functions here for it, by the interface of NEP 49: of the arrays that
# empty_result() makes, as long as they live. What comes back is kept for the next result, whose pages need not be
# cleared then, and offered to the system meanwhile. How much is kept is in plan.pxi.

cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport Py_INCREF
from libc.stdlib cimport malloc
from libc.string cimport memcpy, strcpy

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewLikeArray(cnp.ndarray prototype, cnp.NPY_ORDER order, void *dtype, int subok)
    PyObject *PyDataMem_DefaultHandler

cdef extern from "_memory.h" nogil:
    const bint can_keep_memory
    void lock_memory()
    void unlock_memory()
    size_t page_bytes()
    size_t memory_bytes()
    char *map_memory(size_t size)
    bint unmap_memory(char *start, size_t size)
    void ask_for_huge_pages(char *start, size_t size)
    bint offer_memory(char *start, size_t size)
    int watch_forks_of_memory(void (*before)() noexcept, void (*in_parent)() noexcept, void (*in_child)() noexcept)

cdef struct Block:                  # what stands in the page before an array's memory
    size_t size                     # bytes of that memory: whole pages
    int fork                        # the number of forks when it was given to the array
    Block *next                     # of those that are kept, the one that was kept before

cdef size_t MOST_BYTES = <size_t>1 << (8 * sizeof(size_t) - 2)     # that may be asked for: no sum of sizes overflows

cdef bint keeps_memory = can_keep_memory
cdef size_t page_size = page_bytes()
cdef size_t most_kept_bytes = memory_bytes() // KEPT_PART_OF_MEMORY
# Under the lock, which is never held during a call of the system:
cdef Block *kept = NULL             # the newest first
cdef int n_forks = 0                # of this process and its parents


# ---- Blocks ----

cdef inline char *memory_of(Block *block) noexcept nogil:
    return <char *>block + page_size


cdef inline Block *block_of(void *memory) noexcept nogil:
    return <Block *>(<char *>memory - page_size)


cdef inline size_t whole_pages(size_t size) noexcept nogil:
    """So many bytes and the rest of the last page; large ones end with a huge page."""
    cdef size_t unit = HUGE_PAGE_BYTES if size >= LARGE_RESULT_BYTES else page_size
    return (size + unit - 1) & ~(unit - 1)


cdef size_t unmap(Block *block) noexcept nogil:
    """Give a block and those that are linked to it back to the system; their bytes."""
    cdef size_t freed = 0
    cdef Block *next
    while block != NULL:
        next = block.next
        freed += block.size
        unmap_memory(<char *>block, page_size + block.size)
        block = next
    return freed


cdef Block *map_block(size_t size) noexcept nogil:
    """A block of so many bytes, whole pages: they are zero, and begin where a huge page may. NULL if there is none."""
    cdef size_t room = size + page_size + HUGE_PAGE_BYTES
    cdef char *start = map_memory(room)
    cdef char *memory
    cdef Block *block
    if start == NULL:
        return NULL
    memory = start + page_size
    memory += -<size_t>memory & (HUGE_PAGE_BYTES - 1)
    block = block_of(memory)
    unmap_memory(start, <char *>block - start)
    unmap_memory(memory + size, start + room - (memory + size))
    ask_for_huge_pages(<char *>block, page_size + size)
    block.size = size
    block.next = NULL
    lock_memory()
    block.fork = n_forks
    unlock_memory()
    return block


cdef Block *new_block(size_t size) noexcept nogil:
    """As map_block, if need be in the place of what is kept."""
    cdef Block *block = map_block(size)
    return map_block(size) if block == NULL and release_kept() else block


# ---- What is kept ----

cdef Block *cut_surplus() noexcept nogil:
    """Take those that are too many or too large off the end, the oldest; under the lock."""
    cdef Block **link = &kept
    cdef Block *surplus
    cdef size_t size = 0
    cdef int n = 0
    while link[0] != NULL:
        n += 1
        size += link[0].size
        if n > KEPT_RESULTS or size > most_kept_bytes:
            surplus = link[0]
            link[0] = NULL
            return surplus
        link = &link[0].next
    return NULL


cdef void keep(Block *block) noexcept nogil:
    """Keep a block that nobody uses. It was offered to the system before: now another thread may take it."""
    global kept
    cdef Block *surplus = block
    lock_memory()
    # Of what parent and child share, the system takes nothing, and who writes to it gets copies.
    if block.fork == n_forks:
        block.next = kept
        kept = block
        surplus = cut_surplus()
    unlock_memory()
    unmap(surplus)


cdef Block *take_kept(size_t size) noexcept nogil:
    """The smallest that is large enough, and not by more than a quarter; or NULL."""
    cdef Block **link = &kept
    cdef Block **best = NULL
    cdef Block *block = NULL
    lock_memory()
    while link[0] != NULL:
        if size <= link[0].size <= size + size // 4 and (best == NULL or link[0].size < best[0].size):
            best = link
        link = &link[0].next
    if best != NULL:
        block = best[0]
        best[0] = block.next
        block.next = NULL
        block.fork = n_forks
    unlock_memory()
    return block


cdef size_t release_kept() noexcept nogil:
    """Give all that is kept back to the system; its bytes."""
    global kept
    cdef Block *blocks
    lock_memory()
    blocks = kept
    kept = NULL
    unlock_memory()
    return unmap(blocks)


cdef void after_fork_in_parent() noexcept nogil:
    global n_forks
    n_forks += 1
    unlock_memory()


cdef void after_fork_in_child() noexcept nogil:
    """Leave what is kept to the parent: here it would be copied page by page."""
    global n_forks
    n_forks += 1
    unlock_memory()
    release_kept()


# ---- What NumPy calls, for arrays of any size: some are resized ----

cdef void *allocate(void *context, size_t size) noexcept nogil:
    cdef Block *block = NULL
    if size > MOST_BYTES:
        return NULL
    size = whole_pages(size if size else 1)
    if size >= LARGE_RESULT_BYTES:
        block = take_kept(size)
    if block == NULL:
        block = new_block(size)
    return NULL if block == NULL else memory_of(block)


cdef void *allocate_zeros(void *context, size_t n, size_t size) noexcept nogil:
    cdef Block *block
    if <double>n * <double>size > MOST_BYTES:       # their product may not be a size_t
        return NULL
    block = new_block(whole_pages(n * size if n and size else 1))
    return NULL if block == NULL else memory_of(block)


cdef void *reallocate(void *context, void *memory, size_t size) noexcept nogil:
    cdef Block *block
    cdef void *other
    cdef size_t room
    if memory == NULL or size > MOST_BYTES:
        return allocate(context, size)
    block = block_of(memory)
    room = whole_pages(size if size else 1)
    if room <= block.size:
        if unmap_memory(<char *>memory + room, block.size - room):
            block.size = room
        return memory
    other = allocate(context, size)
    if other != NULL:
        memcpy(other, memory, block.size)
        deallocate(context, memory, block.size)
    return other


cdef void deallocate(void *context, void *memory, size_t size) noexcept nogil:
    cdef Block *block
    if memory == NULL:
        return
    block = block_of(memory)
    if LARGE_RESULT_BYTES <= block.size <= most_kept_bytes and offer_memory(<char *>memory, block.size):
        keep(block)
    else:
        unmap(block)


cdef cnp.PyDataMem_Handler handler      # static, like these functions: arrays may live longer than the module
strcpy(handler.name, b"csoftmax")
handler.version = 1
handler.allocator.ctx = NULL
handler.allocator.malloc = allocate
handler.allocator.calloc = allocate_zeros
handler.allocator.realloc = reallocate
handler.allocator.free = deallocate
cdef object results_handler = PyCapsule_New(&handler, "mem_handler", NULL)
RESULTS_HANDLER = results_handler       # for tests
watch_forks_of_memory(lock_memory, after_fork_in_parent, after_fork_in_child)


# ---- Allocations of csoftmax itself: tried again without what is kept ----

cdef void *scratch_memory(size_t size) noexcept nogil:
    """malloc, if need be in the place of what is kept."""
    cdef void *memory = malloc(size)
    return malloc(size) if memory == NULL and release_kept() else memory


def allocated(make, *arguments):
    """make(*arguments), which allocates."""
    try:
        return make(*arguments)
    except MemoryError:
        if not release_kept():
            raise
    return make(*arguments)


cdef cnp.ndarray empty_array(int n_dims, cnp.npy_intp *shape, int dtype):
    try:
        return cnp.PyArray_EMPTY(n_dims, shape, dtype, 0)
    except MemoryError:
        if not release_kept():
            raise
    return cnp.PyArray_EMPTY(n_dims, shape, dtype, 0)


cdef inline cnp.ndarray array_like(cnp.ndarray x, cnp.dtype dtype):
    """numpy.empty_like(x, dtype, subok=False)."""
    if dtype is None:
        return PyArray_NewLikeArray(x, cnp.NPY_KEEPORDER, NULL, 0)
    Py_INCREF(dtype)            # for NumPy, which takes it
    return PyArray_NewLikeArray(x, cnp.NPY_KEEPORDER, <void *>dtype, 0)


cdef cnp.ndarray large_result(cnp.ndarray x, cnp.dtype dtype):
    """array_like(x, dtype) with memory from here, unless the program has a handler of its own."""
    cdef object former = cnp.PyDataMem_GetHandler()
    if <PyObject *>former != PyDataMem_DefaultHandler:
        return array_like(x, dtype)
    cnp.PyDataMem_SetHandler(results_handler)
    try:
        return array_like(x, dtype)
    finally:
        cnp.PyDataMem_SetHandler(former)


cpdef cnp.ndarray empty_result(cnp.ndarray x, cnp.dtype dtype=None):
    """An array for one result per logit, of x's shape and order, and of dtype or x's."""
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    if n <= SHORT_CALL:         # where a few nanoseconds count, and no memory is missing
        return array_like(x, dtype)
    cdef Py_ssize_t item = cnp.PyArray_ITEMSIZE(x) if dtype is None else dtype.itemsize
    cdef bint large = keeps_memory and n * item >= LARGE_RESULT_BYTES
    try:
        return large_result(x, dtype) if large else array_like(x, dtype)
    except MemoryError:
        if not release_kept():
            raise
    return large_result(x, dtype) if large else array_like(x, dtype)


# ---- What show_config and release_memory ask ----

def set_keeping(bint keeping):
    """Whether large results get memory that is kept; for the import alone."""
    global keeps_memory
    keeps_memory = keeping and can_keep_memory


def kept_memory():
    """Blocks and bytes that are kept, and the most bytes that may be; None if none ever are."""
    cdef Block *block
    cdef size_t size = 0
    cdef int n = 0
    if not keeps_memory:
        return None
    lock_memory()
    block = kept
    while block != NULL:
        n += 1
        size += block.size
        block = block.next
    unlock_memory()
    return n, size, most_kept_bytes


def release_memory():
    """Give what is kept back to the system; its bytes."""
    return release_kept()
