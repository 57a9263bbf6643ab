"""The only place that raises over an argument: what the function needs, what it got, the cure.

Where the cure is code, the message ends with it: after the last ": pass " (or "call ", "make it with "), and after
" or pass " once more. It is an expression in which the arguments go by their names, or `name=expression`.
"""

import math
import operator

import numpy as np

from csoftmax import _cures
from csoftmax._cures import shown

_INT64_MAX = np.iinfo(np.int64).max
_LOGITS = ("x", "logits", "input", "a")


def any_array(given, name, function, fill=None, mend=None):
    """Return `given` as an array of whatever dtype, unless that would lose or cost what nobody asked for.

    `fill` and `mend` are what _cures.unreadable() makes of a mask.
    """
    if type(given) is np.ndarray:
        return given
    if fill is None:  # logits become absent, all else weighs nothing
        is_log = name in _LOGITS or (name == "output" and function == "log_softmax_backward")
        fill = "-numpy.inf" if is_log else "0"
    if found := _cures.unreadable(given, name, fill, mend):
        error, need, got, code = found
        raise error(f"{function}() needs {need}, got {got}{_pass(code, name)}")
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_array(given, name, function, error) from error
    except Exception as error:
        error.add_note(f"{function}() was reading {name}")
        raise


def _pass(code, name):
    return f": pass {code}" if code else f": pass an array of numbers as {name}"


def _no_array(given, name, function, error):
    """Return the error for what NumPy cannot read, because of `error`."""
    if isinstance(given, (list, tuple)) and "inhomogeneous" in str(error):
        return ValueError(
            f"{function}() needs {name} with rows of one length, got a ragged {type(given).__name__}: pad or split it"
        )
    kind = ValueError if isinstance(error, ValueError) else TypeError
    code = _cures.of_failure(given, name)
    return kind(
        f"{function}() needs {name} that NumPy can read, got {type(given).__name__}, which raises"
        f" {type(error).__name__}({error}){_pass(code, name)}"
    )


def floating_array(x, function, name="x"):
    """Return `x` as an array that the kernels read, and the dtype that an elementwise result has."""
    given = x
    x = any_array(given, name, function)
    if x is not given:
        no_rounded_integers(given, x, function, name)
    has_kernel(x, given, function, name)
    if x.dtype.kind in "iub":
        return x, np.dtype(np.float64)
    return x, x.dtype if x.dtype.isnative else x.dtype.newbyteorder("=")


def computation_dtype(dtype):
    """Return the dtype in which the kernels compute what they read as `dtype`."""
    is_float32 = dtype.type in (np.float16, np.float32) or _cures.is_bfloat16(dtype)
    return np.dtype(np.float32 if is_float32 else np.float64)


def no_rounded_integers(given, array, function, name):
    """Refuse a list of integers for which NumPy found no integer dtype, and rounded them to float64."""
    if array.dtype != np.float64 or not isinstance(given, (list, tuple)) or not array.size:
        return
    if not array.max() >= 2.0**63:  # only beside such does NumPy make floats of integers
        return
    values = np.array(given, object).ravel()
    if not all(isinstance(value, (int, np.integer)) for value in values):
        return
    for value, rounded in zip(values, array.ravel(), strict=True):
        if int(value) != int(rounded):
            raise TypeError(
                f"{function}() needs {name} of one integer dtype or of floats, got {value} in a list that neither"
                f" int64 nor uint64 holds: pass numpy.asarray({name}, dtype=numpy.float64) to have it rounded"
            )


def has_float_kernel(dtype):
    """Whether the kernels read floats of this dtype."""
    return _cures.has_kernel(dtype)


def has_kernel(x, given, function, name):
    """Refuse `x`, which NumPy made of `given`, if floating_array() would."""
    if x.dtype.kind not in "iub" and not _cures.has_kernel(x.dtype):
        raise _no_kernel(x, given, function, name)


def _no_kernel(x, given, function, name):
    """Return the error for an array `x` that has no numbers that can be computed with."""
    if _is_one_object(x, given):
        return _not_numbers(x, given, function, name, "an array of numbers")
    code = _cures.of_numbers(given, x, name)
    return TypeError(f"{function}() needs float32 or float64, got {x.dtype}{_pass(code, name)}")


def _not_numbers(x, given, function, name, what):
    """Return the error for an object of which NumPy made an array of no dimensions."""
    code = _cures.of_collection(given, name) or _cures.of_numbers(given, x, name)
    return TypeError(
        f"{function}() needs {what} as {name}, got {_name_of(given)}{_pass(code, name)}"
    )


def is_real(x):
    """Whether `x` is an array of real numbers, of whatever dtype."""
    return x.dtype.kind in "fiub" or _cures.is_of_another_package(x.dtype)


def _is_one_object(array, given):
    """Whether `given` is no array: all that NumPy could do was to point to it."""
    return array.dtype.kind == "O" and array.ndim == 0 and not isinstance(given, np.ndarray)


def _name_of(given):
    return "None" if given is None else type(given).__name__


def axis_number(axis, n_dims, function, name="axis", several=None):
    """Return `axis` counted from the front; a 0-d array is taken as one class.

    `several` gives the cure for None and tuples, with a place for them.
    """
    n_dims = max(n_dims, 1)
    if not is_integer(axis):
        raise TypeError(
            f"{function}() needs an integer {name}, got {shown(axis)}: {_axis_cure(axis, n_dims, name, several)}"
        )
    number = operator.index(axis)
    if not -n_dims <= number < n_dims:
        raise np.exceptions.AxisError(
            f"{function}() needs {'an axis' if name == 'axis' else f'a {name}'} from {-n_dims} to {n_dims - 1},"
            f" got {shown(number)}: choose one of these"
        )
    return number % n_dims


def is_integer(axis):
    """Whether `axis` counts as an integer. A bool does not: it was meant for another argument."""
    return _index(axis) is not None and not isinstance(axis, (bool, np.bool_))


def _index(value):
    """Return the integer that `value` is, None if it is none."""
    if (
        type(value) is int
    ):  # where nothing is tried, no exception of a signal's handler is taken for an answer
        return value
    try:
        return operator.index(value)
    except Exception:
        return None


def _axis_cure(axis, n_dims, name, several):
    if axis is None and several:
        return several().format(None)
    numbers = [_whole(each) for each in (axis if isinstance(axis, (tuple, list)) else (axis,))]
    if all(number is not None and -n_dims <= number < n_dims for number in numbers):
        if not isinstance(axis, (tuple, list)):
            return f"pass {name}={numbers[0]}"
        if several and len({number % n_dims for number in numbers}) == len(numbers):
            return several().format(tuple(numbers))
    return f"choose one from {-n_dims} to {n_dims - 1}"


def _whole(value):
    """Return the integer that `value` equals, None if it is none or text."""
    try:
        return int(value) if not isinstance(value, (str, bytes)) and int(value) == value else None
    except Exception:
        return None


def thread_count(n_threads, function):
    """Return `n_threads` as the drivers want it: 0 for None, and for -1, which means all to joblib."""
    if n_threads is None:
        return 0
    number = _index(n_threads)
    if number is None:
        raise TypeError(
            f"{function}() needs an integer or None as n_threads, got {shown(n_threads)}: None uses as many as pay"
        )
    if number == -1:
        return 0
    if number < 1:
        raise ValueError(
            f"{function}() needs n_threads of 1 or more, got {shown(n_threads)}:"
            " leave it out, or None, to use as many as pay"
        )
    return min(number, 1 << 16)


def output_array(out, shape, dtype, function):
    """Refuse an `out` that cannot take the result as it is: of `dtype`, or float32 for half-width floats."""
    if not isinstance(out, np.ndarray):
        raise TypeError(
            f"{function}() needs a NumPy array as out, got {type(out).__name__}:"
            f" make it with numpy.empty({shape}, numpy.{dtype})"
        )
    if _cures.is_masked(out):
        raise TypeError(
            f"{function}() needs out without a mask, got a {type(out).__name__}: pass out.data"
        )
    if out.dtype != dtype and not (dtype.itemsize == 2 and out.dtype == np.float32):
        both = f"{dtype} or float32" if dtype.itemsize == 2 else dtype
        raise TypeError(
            f"{function}() needs out of dtype {both}, got {out.dtype}:"
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
            f"{function}() needs {_logits(function)} of at least one dimension, got a scalar:"
            " pass one logit for each class"
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
    """Return `reduction`, if it is one."""
    if not isinstance(reduction, str) or reduction not in ("mean", "sum", "none"):
        raise ValueError(
            f"{function}() needs a reduction of 'mean', 'sum' or 'none', got {shown(reduction)}: choose one of these"
        )
    return reduction


def ignore_number(ignore_index, function):
    """Return `ignore_index` as a Python integer or None."""
    if ignore_index is None or (number := _index(ignore_index)) is not None:
        return None if ignore_index is None else number
    number = _whole(ignore_index)
    cure = "None ignores no target" if number is None else f"pass ignore_index={shown(number)}"
    raise TypeError(
        f"{function}() needs an integer or None as ignore_index, got {shown(ignore_index)}: {cure}"
    )


def no_index_to_ignore(ignore_index, function):
    """Refuse an `ignore_index` that class probabilities could be taken to mind, as PyTorch does."""
    if ignore_index is not None and ignore_index >= 0:
        raise ValueError(
            f"{function}() needs a negative ignore_index with class probabilities, which have no index to ignore,"
            f" got {shown(ignore_index)}: pass ignore_index=-100"
        )


def positive_number(temperature, function):
    """Return `temperature` as a float if logits can be divided by it."""
    if type(temperature) is float and temperature == 1.0:
        return temperature
    number = _real_number(temperature, "temperature", function)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(
            f"{function}() needs a finite temperature above 0, got {shown(temperature)}:"
            " 1 leaves the logits as they are"
        )
    return number


def fraction(label_smoothing, function):
    """Return `label_smoothing` as a float from 0 to 1."""
    if type(label_smoothing) is float and label_smoothing == 0.0:
        return label_smoothing
    number = _real_number(label_smoothing, "label_smoothing", function)
    if not 0 <= number <= 1:
        raise ValueError(
            f"{function}() needs label_smoothing from 0 to 1, got {shown(label_smoothing)}:"
            " 0 leaves the targets as they are"
        )
    return number


def _real_number(value, name, function):
    if type(value) is float:
        return value
    if type(value) is int and abs(value) < 1 << 1000:
        return float(value)
    try:
        if isinstance(value, (str, bytes, complex, np.complexfloating)) or np.ndim(value):
            raise TypeError
        if _cures.unreadable(value, name, "0"):
            raise TypeError
        return float(operator.index(value) if isinstance(value, (int, np.integer)) else value)
    except Exception:
        raise TypeError(
            f"{function}() needs a real number as {name}, got {shown(value)}: pass {_cures.of_number(value, name)}"
        ) from None


def flag(value, name, function):
    """Return `value` as a bool; None is False."""
    if value is None or isinstance(value, (bool, np.bool_)):
        return bool(value)
    if (number := _index(value)) is None:
        raise TypeError(
            f"{function}() needs True or False as {name}, got {shown(value)}: choose one of these"
        )
    return bool(number)


def weights(values, name, each, shape, logits_shape, axis, function):
    """Return `values`, one for `each`, as a C-contiguous float64 array; None stays None."""
    if values is None:
        return None
    array = any_array(values, name, function)
    if array.dtype.kind not in "iub" and not _is_float(array.dtype):
        raise _no_weights(array, values, name, "real numbers", function)
    if array.shape != shape:
        code = _cures.of_shape(values, array, name, shape)
        raise ValueError(
            f"{function}() needs one {name} per {each}: {_logits(function)} {logits_shape} with axis={axis}"
            f" want {name} of shape {shape}, got {array.shape}{_pass(code, name) if code else ''}"
        )
    return _readable(array, np.float64)


def _is_float(dtype):
    """Whether numbers of this dtype become float64 ones."""
    is_numpys = dtype.kind == "f" and not _cures.is_of_another_package(dtype)
    return is_numpys or _cures.is_bfloat16(dtype)


def _no_weights(array, given, name, what, function):
    if _is_one_object(array, given):
        return _not_numbers(array, given, function, name, what)
    code = _cures.of_numbers(given, array, name)
    return TypeError(f"{function}() needs {what} as {name}, got {array.dtype}{_pass(code, name)}")


def _logits(function):
    return "input" if function.startswith("functional.") else "logits"


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
    array = any_array(grad_output, "grad_output", function)
    if array.dtype.kind not in "iub" and not _is_float(array.dtype):
        raise _no_weights(array, grad_output, "grad_output", "a real number", function)
    if array.shape != ():
        code = _cures.of_shape(grad_output, array, "grad_output", ())
        raise ValueError(
            f"{function}() needs a scalar grad_output with reduction={reduction!r}, got shape {array.shape}:"
            f" {'pass ' + code if code else 'one per row goes with reduction=' + repr('none')}"
        )
    return array.astype(np.float64)


def target_array(target, rows, logits_shape, axis, ignore_index, function):
    """Return `target` as an array of integers, one per row, or of floats, one per logit."""
    place = rows, logits_shape, axis, ignore_index
    given = _read_target(target, *place, function, _cures.of_target)
    if given.shape == logits_shape and _cures.has_kernel(given.dtype):
        return given
    is_empty_list = (
        given.size == 0 and not isinstance(target, np.ndarray) and given.shape != logits_shape
    )
    if given.dtype.kind in "iu" or is_empty_list:
        return _one_per_row(given, target, *place, function, _cures.of_target)
    code = _cures.of_target(target, given, "target", *place)
    if _is_one_object(given, target):
        got, code = _name_of(target), _cures.of_collection(target, "target") or code
    else:
        got = f"{given.dtype} of shape {given.shape}"
    raise TypeError(
        f"{function}() needs integer class indices of shape {rows}, or class probabilities of the"
        f" {_logits(function)}' shape {logits_shape}, as target, got {got}{f': pass {code}' if code else ''}"
    )


def is_probabilities(target, logits_shape):
    """Whether `target` is taken for class probabilities: floats of the logits' shape."""
    if isinstance(target, (list, tuple)):
        try:
            target = any_array(target, "target", "")
        except (TypeError, ValueError):
            return False  # target_array() says what is wrong with it
    shape, dtype = _cures.attribute(target, "shape"), _cures.attribute(target, "dtype")
    if not isinstance(shape, tuple) or shape != logits_shape:
        return False
    return _cures.attribute(dtype, "kind") == "f" or _cures.is_bfloat16(dtype)


def index_targets(target, rows, logits_shape, axis, ignore_index, function):
    """Return `target` as an array of integers, one per row."""
    place = rows, logits_shape, axis, ignore_index
    given = _read_target(target, *place, function, _cures.of_indices)
    return _one_per_row(given, target, *place, function, _cures.of_indices)


def _read_target(target, rows, logits_shape, axis, ignore_index, function, cure):
    """Return class indices or probabilities as an array of whatever dtype."""
    if type(target) is np.ndarray:
        return target
    is_known = ignore_index is not None and abs(ignore_index) <= _INT64_MAX
    number = ignore_index if is_known else -100
    shape = _cures.attribute(target, "shape")
    of_logits = isinstance(shape, tuple) and shape == logits_shape

    def mend(filled, code):
        code = cure(filled, np.asarray(filled), code, rows, logits_shape, axis, number) or code
        return code if of_logits or is_known else f"{code} with ignore_index=-100"

    return any_array(target, "target", function, "0" if of_logits else number, mend)


def _one_per_row(values, target, rows, logits_shape, axis, ignore_index, function, cure):
    """Return `values`, which NumPy made of `target`, if they are integers and one per row."""
    place = rows, logits_shape, axis, ignore_index
    values = _integers(values, target, "target", *place, function)
    if values.shape != rows:
        code = cure(target, values, "target", *place)
        raise ValueError(
            f"{function}() needs one target per row: {_logits(function)} {logits_shape} with axis={axis}"
            f" want targets of shape {rows}, got {values.shape}{f': pass {code}' if code else ''}"
        )
    return values


def _integers(values, given, name, rows, logits_shape, axis, ignore_index, function):
    """Return `values`, which NumPy made of `given`, if they are integers."""
    if values.dtype.kind in "iu":
        return values
    if values.size == 0 and not isinstance(given, np.ndarray):
        return values.astype(np.int64)  # NumPy takes an empty list for floats
    if _is_one_object(values, given):
        raise _not_numbers(values, given, function, name, "integer class indices")
    code = _cures.of_indices(given, values, name, rows, logits_shape, axis, ignore_index)
    raise TypeError(
        f"{function}() needs integer class indices of shape {rows} as {name}, got {values.dtype}"
        f" of shape {values.shape}{f': pass {code}' if code else ''}"
    )


def index_array(index, rows, logits_shape, axis, function):
    """Return `index` as an array of integers, one per row or with a last axis of several per row."""

    def mend(filled, code):
        y = np.asarray(filled)
        if y.dtype.kind in "iu":
            return code
        return _cures.of_indices(filled, y, code, y.shape, logits_shape, axis, None) or code

    given = any_array(index, "index", function, 0, mend)
    wanted = given.shape if given.shape[:-1] == rows else rows
    values = _integers(given, index, "index", wanted, logits_shape, axis, None, function)
    if values.shape != rows and values.shape[:-1] != rows:
        raise ValueError(
            f"{function}() needs one index per row, or several along a last axis: logits {logits_shape} with"
            f" axis={axis} want an index of shape {rows} or {_with_several(rows)},"
            f" got {values.shape}"
        )
    return values


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


def stack_level(level, function):
    """Return `level` as warnings.warn() takes it."""
    try:
        return max(min(operator.index(level), 1 << 30), 0)
    except Exception:
        raise TypeError(
            f"{function}() needs an integer as _stacklevel, got {shown(level)}: leave it out"
        ) from None


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
