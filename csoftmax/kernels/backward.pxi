# The way back through softmax and log_softmax for a tile: three passes over its chunks, for the largest class, the sum,
# and the values. What is computed for a row, and why so, is in backward_rows.pxi.

from cython cimport floating
from libc.math cimport INFINITY, fabs
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from csoftmax.kernels.backward cimport Backward
from csoftmax.kernels.exp cimport NEXT_TO_MAXIMUM, multiple_of, refer, term_scale, two_to_the
from csoftmax.kernels.fetch cimport fetch_row
from csoftmax.kernels.task cimport LANES, MAX_TILE_ROWS, ROWS, Layout, Task
from csoftmax.kernels.tile cimport Part, Scratch, TwoInputs, two_inputs


cdef inline void add_part_as_rows(
    const Task *task, const Part *part, Backward *rows, bint scaled, bint log, const TwoInputs *inputs,
    floating dtype_tag,
) noexcept nogil:
    cdef Py_ssize_t row, n = part.n_classes, lanes_step = 48 if task.plan.n_chunks > 1 else 0   # one place will do
    cdef bint is_first = part.first_class == 0, is_last = part.first_class + n == task.n_classes
    cdef const floating *y = <const floating *>inputs.x
    cdef const floating *g = <const floating *>inputs.second
    cdef double *lanes
    cdef double left
    for row in range(part.n_rows):
        lanes = rows.lanes + lanes_step * row
        fetch_row(<const char *>(g + (part.n_rows + row) * inputs.second_stride), n * <Py_ssize_t>sizeof(floating))
        if part.output.start != NULL:
            fetch_row(part.output.start + row * part.output.row_step, n * <Py_ssize_t>sizeof(floating))
        if is_first:
            memset(lanes, 0, 48 * sizeof(double))
        add_row(y + row * inputs.x_stride, g + row * inputs.second_stride, n, backward_row(rows, row), scaled, log,
                rows.top[row] - part.first_class, lanes)
        if is_last:
            fold_backward_row(<const double *>lanes, &rows.sum[row])
            if floating is double:
                fold_backward_row(<const double *>lanes + 32, &left)
                rows.sum[row] += left if fabs(left) < INFINITY else 0
            if not log:
                fold_backward_row(<const double *>lanes + 16, &rows.high[row])


cdef inline void add_part_as_columns(
    const Task *task, const Part *part, Backward *rows, bint scaled, bint log, const TwoInputs *inputs,
    floating dtype_tag,
) noexcept nogil:
    cdef Py_ssize_t row, n = part.n_classes, lanes_step = 48 if task.plan.n_chunks > 1 else 0
    cdef bint is_first = part.first_class == 0, is_last = part.first_class + n == task.n_classes
    cdef TwoInputs group = inputs[0]
    cdef floating[LANES] top
    cdef double *lanes
    cdef double[LANES] left
    cdef int l
    for row in range(0, part.width, 16):
        fetch_lanes(&part.ahead, row, n, dtype_tag)
        fetch_lanes(&part.output, row, n, dtype_tag)
        lanes = rows.lanes + lanes_step * row
        if is_first:
            memset(lanes, 0, 768 * sizeof(double))
        for l in range(LANES):
            top[l] = <floating>(rows.top[row + l] - part.first_class)
        group.x, group.second = <const floating *>inputs.x + row, <const floating *>inputs.second + row
        add_group(&group, n, rows.g_from + row, rows.down + row, scaled, log, <const floating *>&top[0], lanes)
        if is_last:
            fold_backward_group(lanes, &rows.sum[row])
            if floating is double:
                fold_backward_group(lanes + 512, &left[0])
                for l in range(LANES):
                    rows.sum[row + l] += left[l] if fabs(left[l]) < INFINITY else 0
            if not log:
                fold_backward_group(lanes + 256, &rows.high[row])


cdef inline void add_part(
    const Task *task, const Part *part, Backward *rows, bint scaled, bint log, const TwoInputs *inputs,
    floating dtype_tag,
) noexcept nogil:
    """Add up a part's rows; with the last chunk their sums are known."""
    if part.orientation == ROWS:
        add_part_as_rows(task, part, rows, scaled, log, inputs, dtype_tag)
    else:
        add_part_as_columns(task, part, rows, scaled, log, inputs, dtype_tag)


cdef inline void write_part(
    const Part *part, const Backward *rows, bint scaled, bint log, const TwoInputs *inputs, floating *to,
    Py_ssize_t to_stride,
) noexcept nogil:
    cdef const floating *y = <const floating *>inputs.x
    cdef const floating *g = <const floating *>inputs.second
    cdef TwoInputs group = inputs[0]
    cdef Py_ssize_t row, n = part.n_classes, target
    if part.orientation == ROWS:
        for row in range(part.n_rows):
            write_back_row(y + row * inputs.x_stride, g + row * inputs.second_stride, n, rows, row, scaled, log,
                           to + row * to_stride)
    else:
        for row in range(0, part.width, 16):
            group.x, group.second = y + row, g + row
            write_back_group(&group, n, rows, row, scaled, log, to + row, to_stride)
    for row in range(part.n_rows if log else 0):
        target = rows.top[row] - part.first_class
        if 0 <= target < n and -1 <= rows.y_top[row] <= 1:      # else nothing cancels
            to[row * to_stride + target if part.orientation == ROWS else target * to_stride + row] = (
                <floating>rows.at_top[row])


cdef inline void pick_tops(
    const Layout *source, Py_ssize_t first_row, Py_ssize_t n_rows, const int64_t *top, double *values,
    floating dtype_tag,
) noexcept nogil:
    """The elements at the top of each row."""
    cdef Py_ssize_t[MAX_TILE_ROWS] offsets
    cdef Py_ssize_t row
    cdef floating value
    row_offsets(source, first_row, n_rows, offsets)
    for row in range(n_rows):
        memcpy(&value, source.data + offsets[row] + top[row] * source.class_stride, sizeof(floating))
        values[row] = value


cdef inline void find_tops(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, Backward *rows, floating *scratch,
) noexcept nogil:
    cdef Part part = part_of(task, first_row, n_rows, 0)
    cdef const floating *y
    cdef Py_ssize_t chunk, row, y_stride = 0
    cdef double *largest = rows.largest
    for row in range(part.width):
        largest[row] = -INFINITY
        rows.top[row] = 0
        rows.y_top[row] = rows.g_top[row] = 0
    for chunk in range(task.plan.n_chunks):
        part = part_of(task, first_row, n_rows, chunk)
        y = load(task, &task.x, &part, scratch, False, &y_stride)
        if part.orientation == ROWS:
            for row in range(n_rows):           # what comes next is fetched: the next tile's y, with the sums its g
                fetch_row(<const char *>(y + (n_rows + row) * y_stride), part.n_classes * <Py_ssize_t>sizeof(floating))
                top_of_row(y + row * y_stride, part.n_classes, part.first_class, &largest[row], &rows.top[row])
        else:
            for row in range(0, part.width, 16):
                fetch_lanes(&part.ahead, row, part.n_classes, y[0])
                tops_of_group(y + row, y_stride, part.n_classes, part.first_class, &largest[row], &rows.top[row])
    pick_tops(&task.x, first_row, n_rows, <const int64_t *>rows.top, rows.y_top, y[0])
    pick_tops(&task.second_input, first_row, n_rows, <const int64_t *>rows.top, rows.g_top, y[0])


cdef inline void find_backward_sums(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, bint scaled, bint log, Backward *rows,
    const Scratch *scratch, floating dtype_tag,
) noexcept nogil:
    cdef Part part, part_of_y
    cdef TwoInputs inputs
    cdef const floating *y
    cdef const floating *g
    cdef Py_ssize_t chunk, y_stride = 0, g_stride = 0
    cdef bint is_loaded = task.plan.n_chunks == 1
    for chunk in range(task.plan.n_chunks):
        part = part_of(task, first_row, n_rows, chunk)
        g = load(task, &task.second_input, &part, <floating *>scratch.masses, False, &g_stride)
        if log:                 # whose sum is of g alone
            y, y_stride = g, g_stride
        else:
            part_of_y = part
            y = load(task, &task.x, &part_of_y, <floating *>scratch.logits, is_loaded, &y_stride)
        find_output(task, &part, <Py_ssize_t>sizeof(floating))
        inputs = two_inputs(y, y_stride, g, g_stride)
        add_part(task, &part, rows, scaled, log, &inputs, dtype_tag)


cdef inline bint find_exceptions(
    const Task *task, Backward *rows, Py_ssize_t n_rows, bint log, floating dtype_tag,
) noexcept nogil:
    """Whether there are rows whose sums are to be found once more: whose y do not add up to 1, or whose sums leave the
    range of float64; and how."""
    # A softmax has three units in the last place, and its sum here what so many summands add.
    cdef double rounding = (4.76837158203125e-07 if floating is float else 8.881784197001252e-16) * (
        1 + task.plan.n_chunks // 16)
    cdef Py_ssize_t row
    cdef double size
    cdef bint found = False
    for row in range(n_rows):
        size = fabs(rows.sum[row]) + fabs(rows.g_from[row])
        # (g_j - r) - sum must not overflow where y_j times that need not; a g_j of log_softmax is nearly its own value.
        if floating is double and not size < (INFINITY if log else 1e290):
            rows.down[row] = 5.421010862427522e-20              # 2**-64
            rows.g_top[row] *= rows.down[row]
            rows.g_from[row] *= rows.down[row]
            found = True
        if not log and not fabs(1 - rows.high[row]) <= rounding:
            rows.g_from[row] = 0
            found = True
    return found


cdef inline void finish_logs(Backward *rows, Py_ssize_t width, floating dtype_tag) noexcept nogil:
    """What the values of the classes are made with, for log_softmax."""
    cdef double sum, n
    cdef Py_ssize_t row
    for row in range(width):
        rows.at_top[row] = value_at_top(
            rows.y_top[row] if -1 <= rows.y_top[row] <= 1 else 0, rows.g_top[row], rows.sum[row]) / rows.down[row]
        sum = rows.sum[row] + rows.g_top[row]
        n = multiple_of(refer(reference_of_logs(rows.y_top[row], dtype_tag), NEXT_TO_MAXIMUM), dtype_tag)
        # The scale of terms goes where no digit is lost: to a sum that is not small, or to the term.
        rows.low[row] = 1 if fabs(sum) >= 1 else 1 / term_scale(dtype_tag)
        rows.high[row] = sum * two_to_the(n) * (1 / term_scale(dtype_tag) if fabs(sum) >= 1 else 1)


cdef void softmax_backward_tile(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, const Scratch *scratch, floating dtype_tag,
) noexcept nogil:
    backward_tile(task, first_row, n_rows, False, scratch, dtype_tag)


cdef void log_softmax_backward_tile(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, const Scratch *scratch, floating dtype_tag,
) noexcept nogil:
    backward_tile(task, first_row, n_rows, True, scratch, dtype_tag)


cdef inline void backward_tile(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, bint log, const Scratch *scratch, floating dtype_tag,
) noexcept nogil:
    """Three passes over the chunks: where the largest is, the sum, the values."""
    cdef Py_ssize_t width = part_of(task, first_row, n_rows, 0).width, row
    cdef Backward rows = backward_at(<char *>scratch.numbers, width)
    cdef bint scaled = False
    find_tops(task, first_row, n_rows, &rows, <floating *>scratch.logits)
    for row in range(width):
        rows.down[row] = 1
        rows.g_from[row] = rows.g_top[row]
        rows.low[row] = rows.high[row] = 0
    find_backward_sums(task, first_row, n_rows, False, log, &rows, scratch, dtype_tag)
    if find_exceptions(task, &rows, n_rows, log, dtype_tag):
        if floating is double:
            scaled = True
            find_backward_sums(task, first_row, n_rows, True, log, &rows, scratch, dtype_tag)
        else:
            find_backward_sums(task, first_row, n_rows, False, log, &rows, scratch, dtype_tag)
    if log:
        finish_logs(&rows, width, dtype_tag)
    if floating is double and scaled:
        write_back(task, first_row, n_rows, True, log, &rows, scratch, dtype_tag)
    else:
        write_back(task, first_row, n_rows, False, log, &rows, scratch, dtype_tag)


cdef inline void write_back(
    const Task *task, Py_ssize_t first_row, Py_ssize_t n_rows, bint scaled, bint log, const Backward *rows,
    const Scratch *scratch, floating dtype_tag,
) noexcept nogil:
    cdef Part part
    cdef TwoInputs inputs
    cdef const floating *y
    cdef const floating *g
    cdef floating *values = <floating *>scratch.terms
    cdef floating *to
    cdef Py_ssize_t chunk, y_stride = 0, g_stride = 0, to_stride = 0
    cdef bint is_loaded = task.plan.n_chunks == 1
    for chunk in range(task.plan.n_chunks):
        part = part_of(task, first_row, n_rows, chunk)
        y = load(task, &task.x, &part, <floating *>scratch.logits, is_loaded, &y_stride)
        g = load(task, &task.second_input, &part, <floating *>scratch.masses, is_loaded, &g_stride)
        to = destination(task, &part, values, &to_stride)
        inputs = two_inputs(y, y_stride, g, g_stride)
        write_part(&part, rows, scaled, log, &inputs, to, to_stride)
        if to == values:
            store(task, &part, values, <floating *>scratch.spare)
