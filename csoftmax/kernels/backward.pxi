# The way back through softmax and log_softmax for a tile: its chunks are measured (the largest class, and sums), its
# rows finished, its classes written. What is computed for a row, and why so, is in backward_rows.pxi.

from cython cimport floating
from libc.math cimport INFINITY, fabs

from csoftmax.kernels.backward cimport Backward, BackwardLanes, BackwardRow
from csoftmax.kernels.exp cimport NEXT_TO_MAXIMUM, multiple_of, refer, term_scale, two_to_the
from csoftmax.kernels.fetch cimport fetch_row
from csoftmax.kernels.lanes cimport FOLD, exact_sum
from csoftmax.kernels.task cimport ADD, FINISH, LANES, MEASURE, ROWS, WRITE, Steps, Task
from csoftmax.kernels.tile cimport Part, Scratch, Span, TwoInputs, two_inputs


# ---- Chunks ----

cdef inline bint begin_lanes(
    const Part *part, const floating *g, Py_ssize_t row_step, Py_ssize_t class_step, Py_ssize_t first, Py_ssize_t n,
    Steps steps, bint log, Backward *rows,
    BackwardLanes *lanes,       # OUT  of n rows from the first on
) noexcept nogil:
    """What sums are added with; whether any is scaled down."""
    cdef Py_ssize_t i = part.chunk * rows.width + first, l
    cdef bint scaled = False
    for l in range(n):
        lanes.top[l] = <double>rows.chunk_top[i + l]
        if steps & MEASURE:             # within the chunk yet
            rows.chunk_g_top[i + l] = g[l * row_step + rows.chunk_top[i + l] * class_step]
            rows.chunk_top[i + l] += part.first_class
            lanes.g_from[l], lanes.down[l] = rows.chunk_g_top[i + l], 1
            continue
        lanes.top[l] -= part.first_class
        lanes.g_from[l], lanes.down[l] = rows.g_from[first + l], rows.down[first + l]
        scaled |= lanes.down[l] != 1
        if floating is float and not log:
            rows.chunk_g_top[i + l] = lanes.g_from[l]
    return scaled


cdef inline double reference_of_sums(double y_top, double g_top, double mean) noexcept nogil:
    """The r of a row of float64: g at the top, unless it is so much larger than the others that what is left of them in
    the differences loses digits, and the top is not most of the row. (It is not 0, which says something else.)"""
    if not y_top < 0.5 or not 0 < fabs(mean) < INFINITY or fabs(g_top) <= 1.25 * fabs(mean):
        return g_top
    return mean


cdef inline void measure_rows_back(
    const Part *part, const TwoInputs *inputs, Py_ssize_t first, Steps steps, bint log, Backward *rows,
    floating dtype_tag,
) noexcept nogil:
    """FOLD rows, or as many as there are."""
    cdef Py_ssize_t n = part.n_rows - first if part.n_rows - first < FOLD else FOLD
    cdef Py_ssize_t i = part.chunk * rows.width + first, l
    cdef const floating *y = <const floating *>inputs.x + first * inputs.x_stride
    cdef const floating *g = <const floating *>inputs.second + first * inputs.second_stride
    cdef TwoInputs few = two_inputs(y, inputs.x_stride, g, inputs.second_stride)
    cdef BackwardLanes lanes
    cdef double[FOLD] sum, sum_of_y
    cdef bint scaled
    if steps & MEASURE:
        tops_of_rows(y, inputs.x_stride, n, part.n_classes, &rows.chunk_y_top[i], &rows.chunk_top[i])
    scaled = begin_lanes(part, g, inputs.second_stride, 1, first, n, steps, log, rows, &lanes)
    if floating is double and not log and steps & MEASURE:
        for l in range(n):
            lanes.g_from[l] = 0
        add_rows(&few, n, part.n_classes, &lanes, False, False, log, &sum[0], &sum_of_y[0], dtype_tag)
        for l in range(n):
            rows.chunk_sum[i + l] = sum[l]
            lanes.g_from[l] = reference_of_sums(rows.chunk_y_top[i + l], rows.chunk_g_top[i + l], sum[l])
            if rows.n_chunks == 1:
                rows.g_from[first + l] = lanes.g_from[l]
    if not steps & ADD:
        return
    if floating is double and scaled:
        add_rows(&few, n, part.n_classes, &lanes, True, True, log, &sum[0], &sum_of_y[0], dtype_tag)
    else:
        add_rows(&few, n, part.n_classes, &lanes, floating is double, False, log, &sum[0], &sum_of_y[0], dtype_tag)
    for l in range(n):
        rows.chunk_sum[i + l], rows.chunk_y[i + l] = sum[l], 0 if log else sum_of_y[l]


cdef inline void measure_group_back(
    const Part *part, const TwoInputs *inputs, Py_ssize_t first, Steps steps, bint log, Backward *rows,
    floating dtype_tag,
) noexcept nogil:
    """Sixteen rows that are lanes."""
    cdef Py_ssize_t i = part.chunk * rows.width + first
    cdef const floating *y = <const floating *>inputs.x + first
    cdef const floating *g = <const floating *>inputs.second + first
    cdef TwoInputs group = two_inputs(y, inputs.x_stride, g, inputs.second_stride)
    cdef BackwardLanes lanes
    cdef bint scaled
    cdef int l
    if steps & MEASURE:
        tops_of_group(y, inputs.x_stride, part.n_classes, &rows.chunk_y_top[i], &rows.chunk_top[i])
    scaled = begin_lanes(part, g, 1, inputs.second_stride, first, LANES, steps, log, rows, &lanes)
    if floating is double and not log and steps & MEASURE:
        for l in range(LANES):
            lanes.g_from[l] = 0
        add_group(&group, part.n_classes, &lanes, False, False, log, &rows.chunk_sum[i], &rows.chunk_y[i], dtype_tag)
        for l in range(LANES):
            lanes.g_from[l] = reference_of_sums(
                rows.chunk_y_top[i + l], rows.chunk_g_top[i + l], rows.chunk_sum[i + l])
            if rows.n_chunks == 1:
                rows.g_from[first + l] = lanes.g_from[l]
    if not steps & ADD:
        return
    if floating is double and scaled:
        add_group(&group, part.n_classes, &lanes, True, True, log, &rows.chunk_sum[i], &rows.chunk_y[i], dtype_tag)
    else:
        add_group(&group, part.n_classes, &lanes, floating is double, False, log, &rows.chunk_sum[i], &rows.chunk_y[i],
                  dtype_tag)


# Of each kind a function of its own, whose stack is not that of all.

cdef void measure_softmax_rows(
    const Part *part, const TwoInputs *inputs, Py_ssize_t first, Steps steps, Backward *rows, floating dtype_tag,
) noexcept nogil:
    measure_rows_back(part, inputs, first, steps, False, rows, dtype_tag)


cdef void measure_log_softmax_rows(
    const Part *part, const TwoInputs *inputs, Py_ssize_t first, Steps steps, Backward *rows, floating dtype_tag,
) noexcept nogil:
    measure_rows_back(part, inputs, first, steps, True, rows, dtype_tag)


cdef void measure_softmax_group(
    const Part *part, const TwoInputs *inputs, Py_ssize_t first, Steps steps, Backward *rows, floating dtype_tag,
) noexcept nogil:
    measure_group_back(part, inputs, first, steps, False, rows, dtype_tag)


cdef void measure_log_softmax_group(
    const Part *part, const TwoInputs *inputs, Py_ssize_t first, Steps steps, Backward *rows, floating dtype_tag,
) noexcept nogil:
    measure_group_back(part, inputs, first, steps, True, rows, dtype_tag)


cdef inline void measure_back(
    const Task *task, const Span *span, Py_ssize_t chunk, Steps steps, bint log, Backward *rows, const Scratch *scratch,
    floating dtype_tag,
) noexcept nogil:
    """MEASURE: where the largest class of each row is, in this chunk. ADD: sums, from there or from what is known."""
    cdef Part part = part_of(task, span.first_row, span.n_rows, chunk), part_of_y = part
    cdef Py_ssize_t row, y_stride = 0, g_stride = 0
    cdef bint is_loaded = task.plan.n_chunks == 1 and not steps & MEASURE
    cdef const floating *y = load(task, &task.x, &part_of_y, <floating *>scratch.logits, is_loaded, &y_stride)
    cdef const floating *g = load(task, &task.second_input, &part, <floating *>scratch.masses, is_loaded, &g_stride)
    cdef TwoInputs inputs = two_inputs(y, y_stride, g, g_stride)
    cdef Py_ssize_t row_bytes = part.n_classes * task.out.item
    find_output(task, &part)
    if part.orientation == ROWS:
        for row in range(part.n_rows if part.output.start != NULL else 0):
            fetch_row(part.output.start + row * part.output.row_step, row_bytes)
        for row in range(0, part.n_rows, 8):        # by FOLD
            if log:
                measure_log_softmax_rows(&part, &inputs, row, steps, rows, dtype_tag)
            else:
                measure_softmax_rows(&part, &inputs, row, steps, rows, dtype_tag)
    else:
        for row in range(0, part.width, 16):
            fetch_lanes(&part_of_y.ahead, row, part.n_classes, dtype_tag)
            fetch_lanes(&part.ahead, row, part.n_classes, dtype_tag)
            fetch_lanes(&part.output, row, part.n_classes, dtype_tag)
            if log:
                measure_log_softmax_group(&part, &inputs, row, steps, rows, dtype_tag)
            else:
                measure_softmax_group(&part, &inputs, row, steps, rows, dtype_tag)


# ---- Rows ----

cdef inline void merge_tops(Backward *rows) noexcept nogil:
    """The first chunk with the largest y has the row's."""
    cdef Py_ssize_t row, chunk, i, best
    for row in range(rows.width if rows.n_chunks > 1 else 0):
        best = row
        for chunk in range(1, rows.n_chunks):
            i = chunk * rows.width + row
            best = i if rows.chunk_y_top[i] > rows.chunk_y_top[best] else best
        rows.top[row], rows.y_top[row], rows.g_top[row] = (
            rows.chunk_top[best], rows.chunk_y_top[best], rows.chunk_g_top[best])


cdef inline void merge_back_sums(Backward *rows, bint log, floating dtype_tag) noexcept nogil:
    """In order, float64 with what rounding takes. Without `log`, sums of float32 refer to the g of the chunk's top, and
    are brought to the row's; of float64, whose digits that would cost, they do already."""
    cdef Py_ssize_t row, chunk, i
    cdef double sum, carry, sum_of_y, value, own
    for row in range(rows.width if rows.n_chunks > 1 else 0):
        sum = carry = sum_of_y = 0
        for chunk in range(rows.n_chunks):
            i = chunk * rows.width + row
            value, own = rows.chunk_sum[i], 0
            if log and rows.chunk_top[i] != rows.top[row]:
                own = rows.chunk_g_top[i] * rows.down[row]
            elif not log:
                sum_of_y += rows.chunk_y[i]
                if floating is float and rows.chunk_g_top[i] != rows.g_from[row]:
                    own = (rows.chunk_g_top[i] - rows.g_from[row]) * rows.chunk_y[i]
            sum = exact_sum(sum, carry, value, 0, &carry)
            sum = exact_sum(sum, carry, own, 0, &carry)
        rows.sum[row] = sum + carry if fabs(carry) < INFINITY else sum
        rows.high[row] = sum_of_y


cdef inline bint find_exceptions(Backward *rows, Py_ssize_t n_rows, bint log, floating dtype_tag) noexcept nogil:
    """Whether there are rows whose sums are to be found once more: whose y do not add up to 1, or whose sums leave the
    range of float64; and how."""
    # A softmax has three units in the last place, and its sum here what so many summands add.
    cdef double rounding = (4.76837158203125e-07 if floating is float else 8.881784197001252e-16) * (
        1 + rows.n_chunks // 16)
    cdef Py_ssize_t row
    cdef bint found = False
    for row in range(n_rows):
        # (g_j - r) - sum must not overflow where y_j times that need not; a g_j of log_softmax is nearly its own value.
        if floating is double and rows.down[row] == 1 and not (
                fabs(rows.sum[row]) + fabs(rows.g_from[row]) < (INFINITY if log else 1e290)):
            rows.down[row] = 5.421010862427522e-20              # 2**-64
            rows.g_top[row] *= rows.down[row]
            rows.g_from[row] *= rows.down[row]
            found = True
        if not log and rows.g_from[row] != 0 and not fabs(1 - rows.high[row]) <= rounding:
            rows.g_from[row] = 0
            found = True
    return found


cdef inline void finish_logs(Backward *rows, floating dtype_tag) noexcept nogil:
    """What the values of the classes are made with, for log_softmax."""
    cdef double sum, n
    cdef Py_ssize_t row
    for row in range(rows.width):
        rows.at_top[row] = value_at_top(
            rows.y_top[row] if -1 <= rows.y_top[row] <= 1 else 0, rows.g_top[row], rows.sum[row]) / rows.down[row]
        sum = rows.sum[row] + rows.g_top[row]
        n = multiple_of(refer(reference_of_logs(rows.y_top[row], dtype_tag), NEXT_TO_MAXIMUM), dtype_tag)
        # The scale of terms goes where no digit is lost: to a sum that is not small, or to the term.
        rows.low[row] = 1 if fabs(sum) >= 1 else 1 / term_scale(dtype_tag)
        rows.high[row] = sum * two_to_the(n) * (1 / term_scale(dtype_tag) if fabs(sum) >= 1 else 1)
        rows.high_low[row] = rows.high[row] - <floating>rows.high[row]


cdef inline void finish_softmaxes(Backward *rows, floating dtype_tag) noexcept nogil:
    """S of each row, as center and rest."""
    cdef double r, sum
    cdef Py_ssize_t row
    for row in range(rows.width):
        r = rows.g_from[row]
        if floating is double and r != 0:
            rows.sum[row] -= (rows.g_top[row] - r) * (rows.high[row] - 1)
        sum = rows.sum[row]
        if floating is double:
            rows.center[row] = exact_sum(r, 0, sum, 0, &rows.rest[row])
        else:
            rows.center[row] = <floating>(r + sum)
            rows.rest[row] = (r - rows.center[row]) + sum


cdef inline void choose_references(Backward *rows, bint log, floating dtype_tag) noexcept nogil:
    """The r of each row, once its top is known. Of a single chunk of float64 the sums refer to it already."""
    cdef Py_ssize_t row, chunk
    cdef double mean
    for row in range(rows.width):
        rows.down[row] = 1
        if floating is float or log:
            rows.g_from[row] = rows.g_top[row]
        elif rows.n_chunks > 1:
            mean = 0
            for chunk in range(rows.n_chunks):
                mean += rows.chunk_sum[chunk * rows.width + row]
            rows.g_from[row] = reference_of_sums(rows.y_top[row], rows.g_top[row], mean)


cdef inline bint finish_back(
    Backward *rows, Py_ssize_t n_rows, Steps steps, bint log, floating dtype_tag,
) noexcept nogil:
    """Merge the chunks; whether sums have to be added, or added once more."""
    if steps & MEASURE:
        merge_tops(rows)
        choose_references(rows, log, dtype_tag)
    if not steps & ADD:
        return True
    merge_back_sums(rows, log, dtype_tag)
    if find_exceptions(rows, n_rows, log, dtype_tag):
        return True
    if log:
        finish_logs(rows, dtype_tag)
    else:
        finish_softmaxes(rows, dtype_tag)
    return False


# ---- Classes ----

cdef inline void write_rows_back(
    const Part *part, const Backward *rows, bint log, const TwoInputs *inputs, floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    cdef const floating *y = <const floating *>inputs.x
    cdef const floating *g = <const floating *>inputs.second
    cdef Py_ssize_t row, n = part.n_classes
    cdef BackwardRow numbers
    for row in range(part.n_rows):
        numbers = backward_row(rows, row, to[0])
        if is_usual(rows, row, log, to[0]):
            write_back_row(y + row * inputs.x_stride, g + row * inputs.second_stride, n, numbers, True, log,
                           to + row * to_stride)
        else:
            write_back_row(y + row * inputs.x_stride, g + row * inputs.second_stride, n, numbers, False, log,
                           to + row * to_stride)


cdef inline void write_groups_back(
    const Part *part, const Backward *rows, bint log, const TwoInputs *inputs, floating *to, Py_ssize_t to_stride,
) noexcept nogil:
    cdef TwoInputs group = inputs[0]
    cdef Py_ssize_t row
    cdef bint all_usual
    cdef int l
    for row in range(0, part.width, 16):
        group.x, group.second = <const floating *>inputs.x + row, <const floating *>inputs.second + row
        all_usual = True
        for l in range(LANES):
            all_usual &= is_usual(rows, row + l, log, to[0])
        if all_usual:
            write_back_group(&group, part.n_classes, rows, row, True, log, to + row, to_stride)
        else:
            write_back_group(&group, part.n_classes, rows, row, False, log, to + row, to_stride)


cdef inline void write_back(
    const Task *task, const Span *span, Py_ssize_t chunk, bint log, const Backward *rows, const Scratch *scratch,
    floating dtype_tag,
) noexcept nogil:
    cdef Part part = part_of(task, span.first_row, span.n_rows, chunk)
    cdef Py_ssize_t row, target, y_stride = 0, g_stride = 0, to_stride = 0
    cdef bint is_loaded = task.plan.n_chunks == 1
    cdef const floating *y = load(task, &task.x, &part, <floating *>scratch.logits, is_loaded, &y_stride)
    cdef const floating *g = load(task, &task.second_input, &part, <floating *>scratch.masses, is_loaded, &g_stride)
    cdef floating *values = <floating *>scratch.terms
    cdef floating *to = destination(task, &part, values, &to_stride)
    cdef TwoInputs inputs = two_inputs(y, y_stride, g, g_stride)
    if part.orientation == ROWS:
        write_rows_back(&part, rows, log, &inputs, to, to_stride)
    else:
        write_groups_back(&part, rows, log, &inputs, to, to_stride)
    for row in range(part.n_rows if log else 0):
        target = rows.top[row] - part.first_class
        if 0 <= target < part.n_classes and -1 <= rows.y_top[row] <= 1:      # else nothing cancels
            to[row * to_stride + target if part.orientation == ROWS else target * to_stride + row] = (
                <floating>rows.at_top[row])
    if to == values:
        store(task, &part, values, <floating *>scratch.spare)


# ---- Tiles ----

cdef inline bint steps_back(
    const Task *task, Steps steps, const Span *span, bint log, char *states, const Scratch *scratch, floating dtype_tag,
) noexcept nogil:
    """Whether ADD and FINISH have to be taken, or once more; a tile that is written has done so."""
    cdef Backward rows = backward_at(
        states, part_of(task, span.first_row, span.n_rows, 0).width, task.plan.n_chunks)
    # In float64 what the sums refer to has to be known before: see merge_back_sums().
    cdef bint tops_first = floating is double and not log and task.plan.n_chunks > 1
    cdef Steps taken = ADD
    cdef Py_ssize_t chunk
    cdef bint again
    if steps & MEASURE:
        taken = MEASURE if tops_first else <Steps>(MEASURE | ADD)
    while True:
        for chunk in range(span.first_chunk, span.end_chunk if steps & (MEASURE | ADD) else span.first_chunk):
            measure_back(task, span, chunk, taken, log, &rows, scratch, dtype_tag)
        again = steps & FINISH and finish_back(&rows, span.n_rows, taken, log, dtype_tag)
        if not (again and steps & WRITE):
            break
        taken = ADD
    for chunk in range(span.first_chunk, span.end_chunk if steps & WRITE else span.first_chunk):
        write_back(task, span, chunk, log, &rows, scratch, dtype_tag)
    return again


cdef bint softmax_backward_steps(
    const Task *task, Steps steps, const Span *span, char *states, const Scratch *scratch, floating dtype_tag,
) noexcept nogil:
    return steps_back(task, steps, span, False, states, scratch, dtype_tag)


cdef bint log_softmax_backward_steps(
    const Task *task, Steps steps, const Span *span, char *states, const Scratch *scratch, floating dtype_tag,
) noexcept nogil:
    return steps_back(task, steps, span, True, states, scratch, dtype_tag)
