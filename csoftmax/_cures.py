"""What to pass instead of a refused argument: code in which the argument goes by its name.

Nothing here raises. Where the values decide whether code works, it was tried on them. Foreign array-likes are known
by their attributes, so that no package of theirs is imported.
"""

import itertools
import math

import numpy as np

_KERNELS = frozenset((np.float16, np.float32, np.float64))
_PLAIN = frozenset((bool, int, float, complex, str, bytes, np.ndarray, type(None)))
_MAX_DIMS = 64  # as in NumPy
_LOOKED_THROUGH = 4096  # elements of lists
_SHOWN = 200  # characters of a value in a message


def shown(value):
    """Return how a message shows `value`, whatever its length, and also if it cannot be shown."""
    try:
        text = repr(value)
    except Exception:  # an integer of more than 4300 digits, a faulty __repr__
        return f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}..."


# ---- Array-likes that NumPy would read, but wrongly, at great cost, or not at all ----


def unreadable(given, name, fill, mend=None):
    """Return an error, what `given` ought to be, what it is, and the cure, if it must not be read; else None.

    `fill` stands for masked elements: an integer where class indices are wanted, else code. Lists are looked through,
    as NumPy reads them. `mend` returns the cure for what is left once a mask is filled.
    """
    kind = type(given)
    if kind is list and len(given) <= _LOOKED_THROUGH and _PLAIN.issuperset(map(type, given)):
        return None
    if kind in _PLAIN or issubclass(kind, np.generic):
        return None
    leaf, depth = _first_unreadable(given) if isinstance(given, (list, tuple)) else (given, 0)
    if leaf is None and depth == 0:
        return None
    if depth == _MAX_DIMS:  # NumPy would follow each path through lists that hold each other
        need, got = f"{name} of at most {_MAX_DIMS} dimensions", f"a {kind.__name__} of more"
        return ValueError, need, got, None
    what = _kind_of(leaf)
    if what is None:
        return None
    if what == "mask":
        need, got = f"{name} without a mask", "a masked array"
        if fill == "-numpy.inf":
            need += " (-inf leaves a class out)"
        code = f"numpy.ma.filled({_fillable(leaf.dtype, fill)}, {fill})"
    elif what == "lazy":
        package = type(leaf).__module__.partition(".")[0]
        need, got = f"{name} in memory", f"a lazy {type(leaf).__name__} of {package}"
        code = "{}.compute()"
    else:
        need, got = f"{name} that records no gradient", "a tensor that requires grad"
        code = "{}.detach()" + (_readable_after(leaf.detach()) or "")
    code = _of_each(code, name, depth)
    if depth:
        got = f"a {kind.__name__} with {got}"
        if what == "mask" and isinstance(fill, int):
            code = f"numpy.asarray({code}, dtype=numpy.int64)"
    elif what == "mask":
        try:
            filled = eval(code, {"numpy": np, name: given})
        except Exception:
            return TypeError, need, got, None  # a mask over what are no numbers
        code = mend(filled, code) if mend else code
    return TypeError, need, got, code


def is_masked(given):
    """Whether `given` is a masked array, of numpy.ma or made like those."""
    return hasattr(type(given), "mask") and hasattr(type(given), "filled")


def _kind_of(given):
    kind = type(given)
    if is_masked(given):
        return "mask"
    if str(kind.__module__).partition(".")[0] in ("dask", "dask_expr"):
        return "lazy"
    if attribute(given, "requires_grad") is True and attribute(given, "detach"):
        return "gradient"
    if hasattr(kind, "__dask_graph__"):
        try:
            return None if given.__dask_graph__() is None else "lazy"
        except Exception:
            pass  # it builds on dask, but not now
    return None


def attribute(given, name):
    """Return an attribute of a foreign object, None if there is none or it fails."""
    if type(given).__module__.partition(".")[0] in ("builtins", "numpy"):
        return getattr(given, name, None)  # what is raised here is a signal's handler's
    try:
        return getattr(given, name, None)
    except Exception:
        return None


def _first_unreadable(given):
    """Return the first element that must not be read, None if there is none, and in how many lists it lies.

    Of many elements the first and the last ones speak for all: a look at each would take as long as to read them, and
    NumPy itself warns of a masked number.
    """
    level, seen, n_seen = [given], set(), 0
    for depth in range(1, _MAX_DIMS + 1):
        inner = []
        for each in level:
            n_seen += len(each)
            if n_seen > _LOOKED_THROUGH:
                each = [*each[: max(1, _LOOKED_THROUGH // len(level))], *each[-1:]]
            if _PLAIN.issuperset(map(type, each)):
                continue
            kinds = set(map(type, each)) - _PLAIN
            if all(issubclass(kind, np.generic) for kind in kinds):
                continue
            for element in each:
                if isinstance(element, (list, tuple)):
                    if id(element) not in seen:
                        seen.add(id(element))
                        inner.append(element)
                elif type(element) in kinds and _kind_of(element):
                    return element, depth
        if not inner:
            return None, 0
        level, seen = inner, set()
    return None, _MAX_DIMS


def _of_each(code, name, depth):
    """Return `code` for each element that lies in `depth` lists."""
    names = [name, *(f"part{i}" for i in range(1, depth)), *["each"] * bool(depth)]
    text = code.replace("{}", names[-1])
    for inner, outer in itertools.pairwise(names[::-1]):
        text = f"[{text} for {inner} in {outer}]"
    return text


def _fillable(dtype, fill):
    """Return the code of a masked array of `dtype` made to hold `fill`."""
    if isinstance(fill, int):
        outside = dtype.kind in "iu" and not np.iinfo(dtype).min <= fill <= np.iinfo(dtype).max
        return "numpy.ma.asarray({}, numpy.int64)" if dtype.kind == "b" or outside else "{}"
    if has_kernel(dtype) or (dtype.kind in "iub" and fill == "0"):
        return "{}"
    return "numpy.real({})" if dtype.kind == "c" else "numpy.ma.asarray({}, numpy.float64)"


# ---- Array-likes that NumPy cannot read ----


def of_failure(given, name):
    """Return the cure for what has no array, but a method that gives one; None if there is none."""
    after = _readable_after(given)
    return name + after if after else None


def _readable_after(given):
    """Return the methods, as code, after which NumPy reads `given`: those of tensors and of sparse arrays."""
    chains = ((), ("cpu",), ("float",), ("cpu", "float"), ("to_dense",), ("todense",), ("get",))
    for names in chains:
        try:
            value = given
            for name in names:
                value = getattr(value, name)()
            if np.asarray(value).dtype.kind in "fiub":
                return "".join(f".{name}()" for name in names)
        except Exception:
            continue
    return None


def of_collection(given, name):
    """Return the cure for what NumPy takes for one object, though it holds many; None if it holds none."""
    for method in ("toarray", "collect"):  # scipy.sparse; polars
        if hasattr(type(given), method):
            return f"{name}.{method}()"
    if hasattr(type(given), "keys") and hasattr(type(given), "values"):
        code, members = f"list({name}.values())", given.values
    elif hasattr(type(given), "__iter__"):
        code, members = f"list({name})", lambda: given
    else:
        return None
    if not hasattr(type(given), "__len__"):
        return code  # it may be read once, or without end
    return code if _is_numeric(lambda: np.asarray(list(members()))) else None


# ---- Numbers of a dtype without kernels ----


def of_numbers(given, array, name):
    """Return the code that makes real numbers of `given`, which NumPy reads as `array`; None if they are none."""
    kind, code = array.dtype.kind, expression(given, name)
    if kind == "c":
        code = f"numpy.real({name})"
        wide = array.dtype.itemsize > 16
        return f"{code}.astype(numpy.float64)" if wide else code
    if kind == "m":
        return f"{code} / numpy.timedelta64(1, 's')"
    if kind == "M":
        return f"{code}.astype(numpy.int64)"
    if array.dtype.names:
        if all(
            part.kind in "fiub" and part.char != "g"
            for part, *_ in (array.dtype.fields[each] for each in array.dtype.names)
        ):
            return f"numpy.stack([{code}[each] for each in {code}.dtype.names], axis=-1)"
        return None
    if kind == "O" and array.ndim and not _are_numbers(array):
        return f"numpy.stack({name})" if _is_numeric(lambda: np.stack(given)) else None
    if is_of_another_package(array.dtype):
        return f"{code}.astype(numpy.{_float_for(array.dtype)})"
    if array.dtype.char == "g" or (kind in "OUST" and _are_numbers(array)):
        return f"numpy.asarray({name}, dtype=numpy.float64)"
    return None


def of_number(value, name):
    """Return what to pass instead of `value`, which is no real number: code, if it is one in disguise."""
    try:
        if isinstance(value, (str, bytes)) and math.isfinite(float(value)):
            return f"float({name})"
        if not is_masked(value) and np.size(value) == 1 and math.isfinite(float(value.item())):
            return f"{name}.item()"
    except Exception:
        pass  # it is none
    return "a float"


def expression(given, name):
    """Return code for `given` as an array: a matrix would keep its two dimensions."""
    return name if type(given) is np.ndarray else f"numpy.asarray({name})"


def is_bfloat16(dtype):
    """Whether `dtype` is bfloat16, which a package that need not be imported here has registered with NumPy."""
    if not isinstance(dtype, np.dtype) or dtype.itemsize != 2 or dtype.kind != "V":
        return False
    return dtype.type.__name__ == "bfloat16"


def has_kernel(dtype):
    """Whether the kernels read floats of this dtype."""
    return dtype.type in _KERNELS or is_bfloat16(dtype)


def is_of_another_package(dtype):
    """Whether `dtype` is of real numbers that NumPy knows from elsewhere, as bfloat16, float8 and int4."""
    if dtype.kind in "fiubcmMOUST" and dtype.type.__module__.partition(".")[0] == "numpy":
        return False
    return dtype.type is not np.void and _is_numeric(lambda: np.zeros(1, dtype).astype(np.float64))


def _float_for(dtype):
    return "float32" if dtype.itemsize <= 2 else "float64"


def _is_numeric(make):
    try:
        with np.errstate(all="ignore"):
            return make().dtype.kind in "fiub"
    except Exception:
        return False


def _are_numbers(array):
    """Whether the objects or strings in `array` are numbers. None is none, though NumPy makes it NaN."""
    if array.dtype.kind == "O" and any(each is None for each in array.flat):
        return False
    return _is_numeric(lambda: np.asarray(array, dtype=np.float64))


# ---- Targets ----


def of_indices(given, array, name, rows, shape, axis, ignore_index):
    """Return the code that makes class indices of `given`, which NumPy reads as `array`; None if nothing does.

    They are of the shape `rows`; `axis` is that of the classes as the user wrote it, `shape` the logits'.
    """
    if (code := _codes(given, name)) is not None:
        return code
    if array.shape == rows and (code := _without_missing(given, name, ignore_index)) is not None:
        return code
    code = expression(given, name)
    if array.shape == shape and _is_one_hot(array, axis):
        return f"{code}.argmax(axis={axis})"
    if (code := _with_shape(code, array.shape, rows)) is None:
        return None
    return _as_integers(array, code, ignore_index)


def of_target(given, array, name, rows, shape, axis, ignore_index):
    """Return the code that makes class indices or probabilities of `given`; None if nothing does."""
    if indices := of_indices(given, array, name, rows, shape, axis, ignore_index):
        if array.dtype.kind in "iub" and ".argmax(" in indices:
            indices += f" or pass {expression(given, name)}.astype(numpy.float64)"
        return indices
    code, kind = expression(given, name), array.dtype.kind
    if array.shape != shape:
        if array.ndim < 2 or array.shape != _moved(shape, axis):
            return None
        code = f"numpy.moveaxis({code}, -1, {axis})"
    if has_kernel(array.dtype):
        return code
    if is_of_another_package(array.dtype):
        return f"{code}.astype(numpy.{_float_for(array.dtype)})"
    if kind == "c":
        return f"numpy.real({code}).astype(numpy.float64)"
    if kind in "fiub" or (kind in "OUST" and _are_numbers(array)):
        return f"{code}.astype(numpy.float64)"
    return None


def _moved(shape, axis):
    """Return `shape` with the axis of the classes last."""
    axis %= len(shape)
    return (*shape[:axis], *shape[axis + 1 :], shape[axis])


def _codes(given, name):
    """Return the code for the categories' numbers, if `given` is of pandas' categories."""
    if type(attribute(given, "dtype")).__name__ != "CategoricalDtype":
        return None
    return f"{name}.cat.codes" if attribute(given, "cat") else f"{name}.codes"


def _without_missing(given, name, ignore_index):
    """Return the code that has missing values of pandas ignored; None if `given` has or takes none."""
    if not hasattr(type(given), "fillna") or ignore_index is None:
        return None
    try:
        filled = given.fillna(ignore_index)
        if given.isna().any() and (filled.astype(np.int64) == filled).all():
            return f"{name}.fillna({ignore_index}).astype(numpy.int64)"
    except Exception:
        pass  # they are no integers
    return None


def _is_one_hot(array, axis):
    if array.dtype.kind not in "iubf" or not array.size:
        return False
    return bool(((array == 0) | (array == 1)).all() and (array.sum(axis) == 1).all())


def _with_shape(code, shape, wanted):
    """Return `code` without the axes of size one that `wanted` has not; None if the shapes differ otherwise."""
    if shape == wanted:
        return code
    if [size for size in shape if size != 1] != [size for size in wanted if size != 1]:
        return None
    axes, left = [], list(wanted)
    for axis, size in enumerate(shape):
        if left and left[0] == size:
            left.pop(0)
        elif size == 1:
            axes.append(axis)
        else:
            return f"{code}.reshape({wanted})"
    if left:
        return f"{code}.reshape({wanted})"
    return f"{code}.squeeze(axis={axes[0] if len(axes) == 1 else tuple(axes)})"


def _as_integers(array, code, ignore_index):
    """Return `code` made integers, if the values of `array` are; else, if they are labels, their numbers."""
    kind = array.dtype.kind
    if kind in "iu":
        return code
    if kind == "b":
        return f"{code}.astype(numpy.int64)"
    try:
        if kind in "mM":
            raise TypeError
        with np.errstate(all="ignore"):
            numbers = np.real(array) if kind == "c" else array
            numbers = np.asarray(numbers, dtype=np.float64)
            missing = np.isnan(numbers)
            is_whole = (numbers == np.floor(numbers)) & (abs(numbers) < 2.0**63)
    except Exception:
        return _as_labels(array, code)
    if not (missing | is_whole).all():
        return None
    if kind == "c":
        code = f"numpy.real({code})"
    if kind in "OUST":
        code = f"{code}.astype(numpy.float64)"
    if not missing.any():
        return f"{code}.astype(numpy.int64)"
    if ignore_index is None or abs(ignore_index) >= 2**62:
        return None
    return f"numpy.where(numpy.isnan({code}), {ignore_index}, {code}).astype(numpy.int64)"


def _as_labels(array, code):
    try:
        if array.dtype.kind not in "OUSTMm":
            return None
        np.unique(array)
    except Exception:
        return None
    return f"numpy.searchsorted(classes, {code}) with the sorted labels as classes"


# ---- Weights ----


def of_shape(given, array, name, wanted):
    """Return the code that gives the numbers of `given` the shape `wanted`; None if they are too many or too few."""
    code = expression(given, name)
    if array.size == math.prod(wanted) and (shaped := _with_shape(code, array.shape, wanted)):
        return shaped
    if array.size == 1:
        return f"numpy.full({wanted}, {code}.item())"
    try:
        np.broadcast_to(array, wanted)
    except ValueError:
        return None
    return f"numpy.broadcast_to({code}, {wanted})"
