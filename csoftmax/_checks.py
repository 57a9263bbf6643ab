"""The only place that raises over an argument: what the function needs, what it got, the cure."""

import math
import operator

import numpy as np

_CURES = {
    "c": "pass its real part",
    "f": "convert it with numpy.asarray({name}, dtype=numpy.float64)",
    "O": "convert it with numpy.asarray({name}, dtype=numpy.float64)",
}
_INT64_MAX = np.iinfo(np.int64).max
_RANGES = {
    info.dtype: (float(info.smallest_subnormal), float(info.max))
    for info in (np.finfo(np.float32), np.finfo(np.float64))
}


def floating_array(x, function, name="x"):
    """Return `x` as a float32 or float64 array, and the dtype that an elementwise result has."""
    try:
        x = np.asarray(x)
    except ValueError as error:
        raise ValueError(
            f"{function}() needs {name} with rows of one length, got a ragged {type(x).__name__}: pad or split it"
        ) from error
    dtype = x.dtype
    if dtype.type in (np.float32, np.float64):
        if not dtype.isnative:
            dtype = dtype.newbyteorder("=")
            x = x.astype(dtype)
        return x, dtype
    if dtype.kind in "iub":
        return x.astype(np.float64), np.dtype(np.float64)
    if dtype.type is np.float16:
        return x.astype(np.float32), np.dtype(np.float16)
    cure = _CURES.get(dtype.kind, "pass an array of numbers as {name}").format(name=name)
    raise TypeError(f"{function}() needs float32 or float64, got {dtype}: {cure}")


def axis_number(axis, n_dims, function):
    """Return `axis` counted from the front; a 0-d array is taken as one class."""
    n_dims = max(n_dims, 1)
    try:
        number = operator.index(axis)
    except TypeError:
        raise TypeError(
            f"{function}() needs an integer axis, got {axis!r}: choose one from {-n_dims} to {n_dims - 1}"
        ) from None
    if not -n_dims <= number < n_dims:
        raise np.exceptions.AxisError(
            f"{function}() needs an axis from {-n_dims} to {n_dims - 1}, got {number}: choose one of these"
        )
    return number % n_dims


def thread_count(n_threads, function):
    """Return `n_threads` as the drivers want it: 0 for None."""
    if n_threads is None:
        return 0
    try:
        number = operator.index(n_threads)
    except TypeError:
        raise TypeError(
            f"{function}() needs an integer or None as n_threads, got {n_threads!r}: None uses as many as pay"
        ) from None
    if number < 1:
        raise ValueError(
            f"{function}() needs n_threads of 1 or more, got {n_threads!r}:"
            " leave it out, or None, to use as many as pay"
        )
    return min(number, 1 << 16)


def output_array(out, shape, dtype, function):
    """Refuse an `out` that cannot take the result as it is."""
    if not isinstance(out, np.ndarray):
        raise TypeError(
            f"{function}() needs a NumPy array as out, got {type(out).__name__}:"
            f" make it with numpy.empty({shape}, numpy.{dtype})"
        )
    if out.dtype != dtype:
        raise TypeError(
            f"{function}() needs out of dtype {dtype}, got {out.dtype}:"
            f" make it with numpy.empty({shape}, numpy.{dtype})"
        )
    if out.shape != shape:
        raise ValueError(
            f"{function}() needs out of shape {shape}, got {out.shape}:"
            f" make it with numpy.empty({shape}, numpy.{dtype})"
        )
    if not out.flags.writeable:
        raise ValueError(
            f"{function}() needs a writable out, got a read-only array: pass out.copy()"
        )
    if _shares_memory_with_itself(out):
        raise ValueError(
            f"{function}() needs an out whose elements lie apart, got strides {out.strides}: pass out.copy()"
        )


def some_classes(logits, function):
    """Refuse a scalar: it has no axis of classes."""
    if logits.ndim == 0:
        raise ValueError(
            f"{function}() needs logits of at least one dimension, got a scalar: pass one logit for each class"
        )


def same_shapes(grad, output, function):
    """Refuse a pair of which one cannot be the gradient with respect to the other."""
    if grad.shape != output.shape:
        raise ValueError(
            f"{function}() needs grad and output of one shape, got {grad.shape} and {output.shape}:"
            " both have that of the forward call's result"
        )


def _shares_memory_with_itself(a):
    """Whether elements of `a` may overlap: each stride must pass all that the smaller ones reach."""
    if a.flags.forc or not a.size:
        return False
    reach = a.itemsize
    for stride, size in sorted(
        (abs(stride), size) for stride, size in zip(a.strides, a.shape, strict=True)
    ):
        if size > 1:
            if stride < reach:
                return True
            reach += stride * (size - 1)
    return False


def reduction_name(reduction, function):
    """Refuse what is not a reduction."""
    if not isinstance(reduction, str) or reduction not in ("mean", "sum", "none"):
        raise ValueError(
            f"{function}() needs a reduction of 'mean', 'sum' or 'none', got {reduction!r}: choose one of these"
        )


def ignore_number(ignore_index, function):
    """Return `ignore_index` as a Python integer or None."""
    if ignore_index is None:
        return None
    try:
        return operator.index(ignore_index)
    except TypeError:
        raise TypeError(
            f"{function}() needs an integer or None as ignore_index, got {ignore_index!r}: None ignores no target"
        ) from None


def positive_number(temperature, dtype, function):
    """Return `temperature` as a float if the logits can be divided by it in `dtype`."""
    if type(temperature) is float and temperature == 1.0:
        return temperature
    number = _real_number(temperature, "temperature", function)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(
            f"{function}() needs a finite temperature above 0, got {temperature!r}:"
            " 1 leaves the logits as they are"
        )
    low, high = _RANGES[dtype]
    if not low <= number <= high:
        raise ValueError(
            f"{function}() needs a temperature within the range of the logits' {dtype}, got {temperature!r}:"
            " pass float64 logits"
        )
    return number


def fraction(label_smoothing, function):
    """Return `label_smoothing` as a float from 0 to 1."""
    if type(label_smoothing) is float and label_smoothing == 0.0:
        return label_smoothing
    number = _real_number(label_smoothing, "label_smoothing", function)
    if not 0 <= number <= 1:
        raise ValueError(
            f"{function}() needs label_smoothing from 0 to 1, got {label_smoothing!r}: 0 leaves the targets as they are"
        )
    return number


def _real_number(value, name, function):
    try:
        if isinstance(value, (str, bytes, complex, np.complexfloating)):
            raise TypeError
        return float(operator.index(value) if isinstance(value, (int, np.integer)) else value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(
            f"{function}() needs a real number as {name}, got {value!r}: pass a float"
        ) from None


def weights(values, name, each, shape, logits_shape, axis, function):
    """Return `values`, one for `each`, as a C-contiguous float64 array; None stays None."""
    if values is None:
        return None
    array = any_array(values, name, "real numbers", function)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{function}() needs real numbers as {name}, got {array.dtype}:"
            f" convert it with numpy.asarray({name}, dtype=numpy.float64)"
        )
    if array.shape != shape:
        raise ValueError(
            f"{function}() needs one {name} per {each}: logits {logits_shape} with"
            f" axis={axis - len(logits_shape)} want {name} of shape {shape}, got {array.shape}"
        )
    return _readable(array, np.float64)


def _readable(array, dtype):
    """Return `array` in `dtype`, C-contiguous and aligned, as the drivers read class indices and weights."""
    array = array.astype(dtype, order="C", copy=False)
    return array if array.flags.aligned else array.copy()


def output_gradient(grad_output, reduction, rows, logits_shape, axis, function):
    """Return `grad_output` as a float64 array, of no dimensions unless reduction is "none"."""
    if reduction == "none":
        return weights(grad_output, "grad_output", "row", rows, logits_shape, axis, function)
    if grad_output is None:
        return None
    array = any_array(grad_output, "grad_output", "a number", function)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{function}() needs a real number as grad_output, got {array.dtype}: pass a float"
        )
    if array.shape != ():
        raise ValueError(
            f"{function}() needs a scalar grad_output with reduction={reduction!r}, got shape {array.shape}:"
            " one per row goes with reduction='none'"
        )
    return array.astype(np.float64)


def any_array(values, name, what, function):
    """Return `values` as an array of whatever dtype."""
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"{function}() needs an array of {what} as {name}, got a ragged {type(values).__name__}:"
            " pass rows of one length"
        ) from error


def target_array(target, logits_shape, axis, function):
    """Return `target` as an array of integers, one per row, or of floats, one per logit."""
    rows = logits_shape[:axis] + logits_shape[axis + 1 :]
    given = any_array(target, "target", "class indices", function)
    is_empty_list = (
        given.size == 0 and not isinstance(target, np.ndarray) and given.shape != logits_shape
    )
    if given.dtype.type not in (np.float16, np.float32, np.float64) or is_empty_list:
        return index_targets(target, rows, logits_shape, axis, function)
    if given.shape != logits_shape:
        raise TypeError(
            f"{function}() needs integer class indices of shape {rows}, or class probabilities of the"
            f" logits' shape {logits_shape}, as target, got {given.dtype} of shape {given.shape}"
        )
    return given


def index_targets(target, rows, logits_shape, axis, function):
    """Return `target` as an array of integers, one per row."""
    target = _integers(target, "target", function)
    if target.shape != rows:
        raise ValueError(
            f"{function}() needs one target per row: logits {logits_shape} with axis={axis - len(logits_shape)}"
            f" want targets of shape {rows}, got {target.shape}"
        )
    return target


def _integers(given, name, function):
    values = any_array(given, name, "class indices", function)
    if values.size == 0 and not isinstance(given, np.ndarray):
        return values.astype(np.int64)  # NumPy takes an empty list for floats
    if values.dtype.kind not in "iu":
        raise TypeError(
            f"{function}() needs integer class indices as {name}, got {values.dtype}:"
            f" convert it with numpy.asarray({name}, dtype=numpy.int64)"
        )
    return values


def index_array(index, logits_shape, axis, function):
    """Return `index` as an array of integers, one per row or with a last axis of several per row."""
    rows = logits_shape[:axis] + logits_shape[axis + 1 :]
    index = _integers(index, "index", function)
    if index.shape != rows and index.shape[:-1] != rows:
        raise ValueError(
            f"{function}() needs one index per row, or several along a last axis: logits {logits_shape} with"
            f" axis={axis - len(logits_shape)} want an index of shape {rows} or {_with_several(rows)},"
            f" got {index.shape}"
        )
    return index


def _with_several(rows):
    return "(" + ", ".join([*map(str, rows), "K"]) + ("," if not rows else "") + ")"


def target_int64(target, n_classes, ignore_index, function, name="target"):
    """Return `target` and `ignore_index` (None if no target can equal it) for a comparison in int64."""
    if target.dtype.type is np.int64 and (ignore_index is None or abs(ignore_index) < _INT64_MAX):
        return _readable(target, np.int64), ignore_index
    info = np.iinfo(target.dtype)
    if ignore_index is not None and not info.min <= ignore_index <= info.max:
        ignore_index = None
    if info.max <= _INT64_MAX or target.size == 0 or target.max() <= _INT64_MAX:
        if ignore_index is not None and ignore_index > _INT64_MAX:
            ignore_index = None
        return _readable(target, np.int64), ignore_index
    # Unsigned targets that int64 cannot hold: each is ignored, or it is an error.
    is_ignored = np.zeros(target.shape, bool) if ignore_index is None else target == ignore_index
    bad = (target > _INT64_MAX) & ~is_ignored
    if bad.any():
        raise bad_target(target, int(np.flatnonzero(bad)[0]), n_classes, function, name)
    classes = target.astype(np.int64, order="C")
    classes[is_ignored] = -1
    return classes, -1


def bad_target(target, position, n_classes, function, name="target"):
    """Return the error for the class index at `position`, counted in C order."""
    value = target.reshape(-1)[position]
    where = tuple(int(i) for i in np.unravel_index(position, target.shape))
    where = where[0] if len(where) == 1 else where
    if n_classes == 0:
        needs = "there are no classes"
    elif n_classes == 1:
        needs = "the only class is 0"
    else:
        needs = f"{n_classes} classes are numbered 0 to {n_classes - 1}"
    at = f" at position {where}" if target.ndim else ""
    return IndexError(f"{function}() {name} {value}{at} is not a class: {needs}")


def c_name(name, names, function):
    """Return `name` if it is one of the C functions' `names`."""
    if not isinstance(name, str):
        raise TypeError(
            f"{function}() needs a C function's name, got {name!r}: pass a string, {names[0]!r} say"
        )
    if name not in names:
        raise ValueError(
            f"{function}() needs the name of a C function, got {name!r}: choose one of {', '.join(names)}"
        )
    return name
