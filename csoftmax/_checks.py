"""The only place that raises over an argument: what the function needs, what it got, the cure."""

import operator

import numpy as np

_CURES = {
    "c": "pass its real part",
    "f": "convert it with numpy.asarray({name}, dtype=numpy.float64)",
    "O": "convert it with numpy.asarray({name}, dtype=numpy.float64)",
}
_INT64_MAX = np.iinfo(np.int64).max


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
        return (x if dtype.isnative else x.astype(dtype.newbyteorder("="))), x.dtype.newbyteorder(
            "="
        )
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


def target_array(target, logits_shape, axis, function):
    """Return `target` as an integer array if its dtype and shape fit the logits."""
    needed = logits_shape[:axis] + logits_shape[axis + 1 :]
    is_array = isinstance(target, np.ndarray)
    try:
        target = np.asarray(target)
    except ValueError as error:
        raise ValueError(
            f"{function}() needs an array of class indices as target, got a ragged {type(target).__name__}:"
            " pass one index per row"
        ) from error
    if target.size == 0 and not is_array:
        target = target.astype(np.int64)  # NumPy takes an empty list for floats
    if target.dtype.kind not in "iu":
        raise TypeError(
            f"{function}() needs integer class indices as target, got {target.dtype}:"
            " convert it with numpy.asarray(target, dtype=numpy.int64)"
        )
    if target.shape != needed:
        raise ValueError(
            f"{function}() needs one target per row: logits {logits_shape} with axis={axis - len(logits_shape)}"
            f" want targets of shape {needed}, got {target.shape}"
        )
    return target


def target_int64(target, n_classes, ignore_index, function):
    """Return `target` and `ignore_index` (None if no target can equal it) for a comparison in int64."""
    info = np.iinfo(target.dtype)
    if ignore_index is not None and not info.min <= ignore_index <= info.max:
        ignore_index = None
    if info.max <= _INT64_MAX or target.size == 0 or target.max() <= _INT64_MAX:
        if ignore_index is not None and ignore_index > _INT64_MAX:
            ignore_index = None
        return target.astype(np.int64, order="C", copy=False), ignore_index
    # Unsigned targets that int64 cannot hold: each is ignored, or it is an error.
    is_ignored = np.zeros(target.shape, bool) if ignore_index is None else target == ignore_index
    bad = (target > _INT64_MAX) & ~is_ignored
    if bad.any():
        raise bad_target(target, int(np.flatnonzero(bad)[0]), n_classes, function)
    classes = target.astype(np.int64, order="C")
    classes[is_ignored] = -1
    return classes, -1


def bad_target(target, position, n_classes, function):
    """Return the error for the target at `position`, counted in C order."""
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
    return IndexError(f"{function}() target {value}{at} is not a class: {needs}")
