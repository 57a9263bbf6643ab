# Elements out: values are written where they belong at once, or brought there from scratch, converted if the output is
# of another dtype, past the cache if it is large; and what is left of a gradient's scale multiplies them.

from cython cimport floating
from libc.math cimport ldexp
from libc.string cimport memcpy

from csoftmax.kernels.fetch cimport prefetch
from csoftmax.kernels.task cimport (
    LANES, MAX_TILE_ROWS, ROWS, Gradient, Layout, Task, has_factors, is_ignored, place_of,
)
from csoftmax.kernels.tile cimport Part

cdef extern from "stream.h" nogil:
    void stream_bytes(char *out, const char *start, size_t size)


cdef void scatter(
    const Layout *layout, Py_ssize_t first_row, Py_ssize_t n_rows, Py_ssize_t first_class, Py_ssize_t n_classes,
    const floating *start, Py_ssize_t row_step, Py_ssize_t class_step,
) noexcept nogil:
    """The way back of gather."""
    cdef Py_ssize_t[MAX_TILE_ROWS] offsets
    cdef Py_ssize_t row, j, n
    cdef char *to = layout.data + first_class * layout.class_stride
    row_offsets(layout, first_row, n_rows, offsets)
    if layout.converts:
        scatter_converted(layout, n_rows, n_classes, start, row_step, class_step, to, offsets)
    elif layout.class_stride == sizeof(floating) and class_step == 1:
        for row in range(n_rows):
            memcpy(to + offsets[row], start + row * row_step, n_classes * sizeof(floating))
    elif class_step == 1 and not has_close_rows(layout):
        for row in range(n_rows):
            for j in range(n_classes):
                memcpy(to + offsets[row] + j * layout.class_stride, start + row * row_step + j, sizeof(floating))
    elif class_step == 1:
        row = 0
        while row < n_rows:
            n = side_by_side_from(to, offsets, row, n_rows, layout.class_stride, sizeof(floating))
            if n > 1:
                transpose(start + row * row_step, n, n_classes, row_step, <floating *>(to + offsets[row]),
                          layout.class_stride // <Py_ssize_t>sizeof(floating))
            for j in range(n_classes if n == 1 else 0):
                memcpy(to + offsets[row] + j * layout.class_stride, start + row * row_step + j, sizeof(floating))
            row += n
    else:
        for j in range(n_classes):
            for row in range(n_rows):
                memcpy(to + offsets[row] + j * layout.class_stride, start + row * row_step + j * class_step,
                       sizeof(floating))


cdef void scatter_converted(
    const Layout *layout, Py_ssize_t n_rows, Py_ssize_t n_classes, const floating *start, Py_ssize_t row_step,
    Py_ssize_t class_step, char *to, const Py_ssize_t *offsets,
) noexcept nogil:
    cdef Py_ssize_t row, j
    if class_step == 1 and layout.class_stride == layout.item:
        for row in range(n_rows):
            write_numbers(layout.storage, start + row * row_step, n_classes, to + offsets[row])
    elif class_step == 1 and not has_close_rows(layout):
        for row in range(n_rows):
            for j in range(n_classes):
                write_numbers(layout.storage, start + row * row_step + j, 1,
                              to + offsets[row] + j * layout.class_stride)
    else:
        for j in range(n_classes):
            for row in range(n_rows):
                write_numbers(layout.storage, start + row * row_step + j * class_step, 1,
                              to + offsets[row] + j * layout.class_stride)


cdef inline bint is_one_block(const Task *task, const Part *part) noexcept nogil:
    """Whether a part's place in an output of rows has no gaps."""
    return task.out.rows and (part.n_rows == 1 or part.n_classes == task.n_classes)


cdef inline void store_block(void *to, const void *start, size_t size, bint stream) noexcept nogil:
    if stream:
        stream_bytes(<char *>to, <const char *>start, size)
    else:
        memcpy(to, start, size)


cdef inline void store_numbers(
    const Layout *layout, const floating *start, Py_ssize_t n, char *to, floating *scratch, bint stream,
) noexcept nogil:
    """n neighbours of an output that converts; scratch has room for them, and is no input."""
    if stream:
        write_numbers(layout.storage, start, n, <char *>scratch)
        stream_bytes(to, <const char *>scratch, n * layout.item)
    else:
        write_numbers(layout.storage, start, n, to)


cdef void find_output(const Task *task, Part *part) noexcept nogil:
    """Where the part's output lies, if it is to be fetched while the part is measured: then writing need not wait. Of
    one that goes past the cache come the lines at the ends, which it shares with its neighbours."""
    cdef Py_ssize_t offset, item = task.out.item
    if not task.plan.fetch_output or not task.out.rows and part.orientation == ROWS:
        return
    row_offsets(&task.out, part.first_row, 1, &offset)
    if task.plan.stream:
        prefetch(task.out.data + offset)
        prefetch(task.out.data + offset + part.n_rows * task.n_classes * item - 1)
        return
    part.output.start = task.out.data + offset
    part.output.row_step = item if task.out.columns else task.n_classes * item
    part.output.class_step = task.out.class_stride if task.out.columns else LANES * item
    if task.out.converts and part.orientation == ROWS:
        part.output.row_bytes = task.n_classes * item


cdef floating *destination(const Task *task, const Part *part, floating *values, Py_ssize_t *stride) noexcept nogil:
    """Where values are written as they come: the output itself if they may lie there at once, else `values`."""
    cdef Py_ssize_t offset
    cdef bint at_once = task.out.rows if part.orientation == ROWS else task.out.columns
    if task.out.converts or task.plan.stream or part.n_rows != part.width or not at_once:
        stride[0] = part.n_classes if part.orientation == ROWS else part.width
        return values
    stride[0] = task.n_classes if part.orientation == ROWS else task.out.class_stride // <Py_ssize_t>sizeof(floating)
    row_offsets(&task.out, part.first_row, 1, &offset)
    return <floating *>(task.out.data + offset + part.first_class * task.out.class_stride)


cdef void store(const Task *task, const Part *part, floating *values, floating *scratch) noexcept nogil:
    """Bring values to the output; scratch is free, for a part."""
    cdef Py_ssize_t offset, j
    cdef Py_ssize_t item = sizeof(floating)
    cdef Py_ssize_t size = part.n_rows * part.n_classes * item
    cdef char *to
    row_offsets(&task.out, part.first_row, 1, &offset)
    to = task.out.data + offset + part.first_class * task.out.class_stride
    if task.out.converts:
        store_converted(task, part, values, scratch, to)
    elif part.orientation == ROWS and is_one_block(task, part):
        store_block(to, values, size, task.plan.stream)
    elif part.orientation == ROWS:
        scatter(&task.out, part.first_row, part.n_rows, part.first_class, part.n_classes, values, part.n_classes, 1)
    elif task.out.columns:
        for j in range(part.n_classes):
            store_block(to + j * task.out.class_stride, values + j * part.width, part.n_rows * item, task.plan.stream)
    elif task.out.rows and part.n_classes == task.n_classes:
        if task.plan.stream:
            transpose(values, part.n_classes, part.n_rows, part.width, scratch, part.n_classes)
            store_block(to, scratch, size, True)
        else:
            transpose(values, part.n_classes, part.n_rows, part.width, <floating *>to, part.n_classes)
    else:
        scatter(&task.out, part.first_row, part.n_rows, part.first_class, part.n_classes, values, 1, part.width)


cdef void store_converted(
    const Task *task, const Part *part, floating *values, floating *scratch, char *to,
) noexcept nogil:
    """store() to an output of another dtype, where the part begins at `to`. Each value is rounded once: what is left
    of a gradient's scale multiplies it before."""
    cdef Py_ssize_t j, n = part.n_rows * part.n_classes
    if has_factors(task):
        multiply_part(task, part, values)
    if part.orientation == ROWS and is_one_block(task, part):
        store_numbers(&task.out, <const floating *>values, n, to, scratch, task.plan.stream)
    elif part.orientation == ROWS:
        scatter(&task.out, part.first_row, part.n_rows, part.first_class, part.n_classes, <const floating *>values,
                part.n_classes, 1)
    elif task.out.columns:
        for j in range(part.n_classes):
            store_numbers(&task.out, <const floating *>values + j * part.width, part.n_rows,
                          to + j * task.out.class_stride, scratch, task.plan.stream)
    elif task.out.rows and part.n_classes == task.n_classes:
        transpose(<const floating *>values, part.n_classes, part.n_rows, part.width, scratch, part.n_classes)
        store_numbers(&task.out, <const floating *>scratch, n, to, values, task.plan.stream)
    else:
        scatter(&task.out, part.first_row, part.n_rows, part.first_class, part.n_classes, <const floating *>values, 1,
                part.width)


cdef inline void multiply_classes(
    floating *out, Py_ssize_t n_classes, Py_ssize_t class_stride, double factor, int exponent,
) noexcept nogil:
    cdef Py_ssize_t j
    cdef floating value
    for j in range(n_classes):
        memcpy(&value, <char *>out + j * class_stride, sizeof(floating))
        value = <floating>(ldexp(value, exponent) * factor)
        memcpy(<char *>out + j * class_stride, &value, sizeof(floating))


cdef inline bint weighs_nothing(const Task *task, Py_ssize_t row) noexcept nogil:
    """Whether the row's gradient is 0 whatever multiplies it."""
    return is_ignored(task, row) or task.gradient.weight != NULL and task.gradient.weight[row] == 0 or (
        task.loss.target != NULL and task.loss.mass == NULL and task.loss.weight != NULL
        and task.loss.weight[place_of(task.loss.target[row], task.n_classes)] == 0)


cdef inline void find_factor(const Task *task, Py_ssize_t row, double *factor, int *exponent) noexcept nogil:
    """What is left of the scale of a row's gradient."""
    cdef const Gradient *gradient = &task.gradient
    factor[0], exponent[0] = gradient.factor, gradient.exponent
    if gradient.row_factor != NULL:
        factor[0] *= gradient.row_factor[row]
    if gradient.row_exponent != NULL:
        exponent[0] += gradient.row_exponent[row]


cdef inline void multiply_part(const Task *task, const Part *part, floating *values) noexcept nogil:
    cdef Py_ssize_t row, row_step = part.n_classes if part.orientation == ROWS else 1
    cdef Py_ssize_t class_stride = <Py_ssize_t>sizeof(floating) * (1 if part.orientation == ROWS else part.width)
    cdef double factor
    cdef int exponent
    for row in range(part.n_rows):
        if not weighs_nothing(task, part.first_row + row):
            find_factor(task, part.first_row + row, &factor, &exponent)
            multiply_classes(values + row * row_step, part.n_classes, class_stride, factor, exponent)


cdef inline void multiply_rows(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, floating dtype_tag,
) noexcept nogil:
    """At most MAX_TILE_ROWS."""
    cdef Py_ssize_t[MAX_TILE_ROWS] offsets
    cdef Py_ssize_t row
    cdef double factor
    cdef int exponent
    row_offsets(&task.out, first_row, n_rows, offsets)
    for row in range(n_rows):
        if weighs_nothing(task, first_row + row):
            continue
        find_factor(task, first_row + row, &factor, &exponent)
        multiply_classes(<floating *>(task.out.data + offsets[row]), task.n_classes, task.out.class_stride, factor,
                         exponent)
