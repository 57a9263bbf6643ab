# Arrays as rows of classes: tasks begun, and NumPy's arrays described as the kernels read them. Pointers and strides
# that other languages pass are described in c_batches.pxi.

cimport numpy as cnp
from libc.stdint cimport uintptr_t
from libc.string cimport memset

from csoftmax.kernels.task cimport FLOAT32, FLOAT64, NOTHING, Layout, Task, item_size


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


cdef int dtype_of(cnp.ndarray x) noexcept:
    return FLOAT64 if cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE else FLOAT32


cdef inline double *doubles(cnp.ndarray values) noexcept:
    return NULL if values is None else <double *>cnp.PyArray_DATA(values)


cdef void lay_out(Layout *layout, cnp.ndarray x, int axis) noexcept:
    """Describe x as rows along axis; neighbouring row dimensions that continue each other become one."""
    cdef int d, n = 0
    cdef Py_ssize_t size, stride
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
    cdef Py_ssize_t item = item_size(task)
    cdef bint aligned = is_aligned(layout, item)
    layout.rows = aligned and layout.n_dims <= 1 and layout.class_stride == item
    layout.columns = (
        aligned and has_adjacent_rows(layout, item) and inner_size(layout) == task.plan.inner
        and layout.class_stride != item)
    # At multiples of a page all classes share the same few sets of the first-level cache: more than it holds collide.
    layout.collides = layout.columns and task.n_classes > 64 and layout.class_stride % PAGE_BYTES == 0
