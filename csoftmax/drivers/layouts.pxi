# Arrays as rows of classes: tasks begun, and NumPy's arrays described as the kernels read them. Pointers and strides
# that other languages pass are described in c_batches.pxi.

cimport numpy as cnp
from libc.stdint cimport uintptr_t
from libc.string cimport memset, strcmp, strrchr

from csoftmax.kernels.task cimport (
    BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64, INT8, INT16, INT32, INT64, NOTHING, UINT8, UINT16, UINT32, UINT64,
    Layout, Task, size_of,
)


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


cdef void describe(Task *task, cnp.ndarray x, int axis, int dtype) noexcept:
    """Begin a task that computes in float32 or float64."""
    cdef Py_ssize_t size = cnp.PyArray_SIZE(x)
    begin(task, dtype)
    lay_out(&task.x, x, axis)
    task.n_classes = cnp.PyArray_DIM(x, axis)
    task.n_rows = size // task.n_classes if task.n_classes else 0


cdef int storage_of(cnp.ndarray x) noexcept:
    """The dtype of its elements, -1 if it is none of the kernels'."""
    cdef int number = cnp.PyArray_TYPE(x)
    cdef Py_ssize_t item = cnp.PyArray_ITEMSIZE(x)
    if number == cnp.NPY_FLOAT:
        return FLOAT32
    if number == cnp.NPY_DOUBLE:
        return FLOAT64
    if number == cnp.NPY_FLOAT16:
        return FLOAT16
    if number == cnp.NPY_BOOL:
        return BOOL
    if cnp.PyTypeNum_ISUNSIGNED(number):
        return UINT8 if item == 1 else UINT16 if item == 2 else UINT32 if item == 4 else UINT64
    if cnp.PyTypeNum_ISSIGNED(number):
        return INT8 if item == 1 else INT16 if item == 2 else INT32 if item == 4 else INT64
    return BFLOAT16 if is_bfloat16(x) else -1


cdef bint is_bfloat16(cnp.ndarray x) noexcept:
    """Whether its dtype is one that a package has registered by this name: it need not be imported here."""
    cdef const char *name
    cdef const char *point
    if not cnp.PyArray_ISUSERDEF(x) or cnp.PyArray_ITEMSIZE(x) != 2:
        return False
    name = (<cnp.dtype><void *>cnp.PyArray_DESCR(x)).typeobj.tp_name
    if strcmp(name, b"ml_dtypes.bfloat16") == 0:
        return True
    point = strrchr(name, 46)           # behind a package's name
    return strcmp(name if point == NULL else point + 1, b"bfloat16") == 0


cdef int dtype_of(cnp.ndarray x) noexcept:
    """That in which it is computed."""
    cdef int storage = storage_of(x)
    return FLOAT32 if storage == FLOAT32 or storage == FLOAT16 or storage == BFLOAT16 else FLOAT64


cdef inline double *doubles(cnp.ndarray values) noexcept:
    return NULL if values is None else <double *>cnp.PyArray_DATA(values)


cdef void lay_out(Layout *layout, cnp.ndarray x, int axis) noexcept:
    """Describe x as rows along axis; neighbouring row dimensions that continue each other become one."""
    cdef int d, n = 0
    cdef Py_ssize_t size, stride
    set_storage(layout, storage_of(x))
    layout.swapped = cnp.PyArray_ISBYTESWAPPED(x)
    layout.data = <char *>cnp.PyArray_DATA(x)
    layout.class_stride = cnp.PyArray_STRIDE(x, axis)
    for d in range(cnp.PyArray_NDIM(x)):
        size = cnp.PyArray_DIM(x, d)
        stride = cnp.PyArray_STRIDE(x, d)
        if d == axis or size == 1:
            continue
        if n and layout.strides[n - 1] == size * stride:
            layout.shape[n - 1] *= size
            layout.strides[n - 1] = stride
        else:
            layout.shape[n] = size
            layout.strides[n] = stride
            n += 1
    layout.n_dims = n


cdef inline void set_storage(Layout *layout, int storage) noexcept nogil:
    layout.storage = storage
    layout.item = size_of(storage)
    layout.swapped = False
    layout.taken = NULL


cdef bint is_aligned(const Layout *layout, Py_ssize_t item) noexcept nogil:
    cdef int d
    if <uintptr_t>layout.data % item or layout.class_stride % item:
        return False
    for d in range(layout.n_dims):
        if layout.strides[d] % item:
            return False
    return True


cdef inline Py_ssize_t inner_size(const Layout *layout) noexcept nogil:
    return layout.shape[layout.n_dims - 1] if layout.n_dims else 1


cdef inline bint has_adjacent_rows(const Layout *layout, Py_ssize_t item) noexcept nogil:
    """Rows follow each other element by element: they can be lanes."""
    return layout.n_dims > 0 and layout.strides[layout.n_dims - 1] == item


cdef inline void find_lanes(Layout *layout, const Task *task) noexcept nogil:
    """Whether rows or neighbouring rows, as many as there are of x, can be read or written as they lie."""
    cdef Py_ssize_t item = layout.item
    cdef bint aligned = is_aligned(layout, item) and not layout.swapped and layout.taken == NULL
    layout.converts = layout.storage != task.dtype or layout.swapped
    layout.rows = aligned and layout.n_dims <= 1 and layout.class_stride == item
    layout.columns = (
        aligned and has_adjacent_rows(layout, item) and inner_size(layout) == task.plan.inner
        and layout.class_stride != item)
    # At multiples of a page all classes share the same few sets of the first-level cache: more than it holds collide.
    layout.collides = layout.columns and task.n_classes > 64 and layout.class_stride % PAGE_BYTES == 0
