"""Random arguments of any public function, fit or not, and what a call with them must do: answer or refuse.

An answer has the bits of the same call on plain arrays; a refusal is an error that the contract names, and leaves the
arguments alone.
"""

import numpy as np
from hypothesis import strategies as st

from support import layouts

COUNTS = {"answered": 0, "refused": 0}
REFUSALS = (TypeError, ValueError, IndexError)  # AxisError is both of the last
FLOATS = ["f2", "f4", "f8", ">f4", ">f8"]
INTEGERS = ["?", "i1", "u1", "i2", "i4", ">i4", "i8", "u8"]
OTHERS = ["longdouble", "c8", "O", "U3", "M8[s]"]
SPECIALS = [0.0, -0.0, np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-45, 700.0, -746.0, 89.0]

shapes = st.lists(st.integers(0, 5) | st.sampled_from([1, 8, 17, 33, 70]), max_size=4).filter(
    lambda shape: np.prod(shape, dtype=object) <= 5000
)


@st.composite
def arrays(draw, shape=None, dtypes=FLOATS * 16 + INTEGERS * 4 + OTHERS):
    """An array of some dtype, layout and values, some of them special."""
    shape = draw(shapes) if shape is None else shape
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.normal(0, draw(st.sampled_from([0.1, 1, 10, 300])), shape)
    if values.size and draw(st.booleans()):
        n = draw(st.integers(1, 3))
        values.reshape(-1)[rng.integers(values.size, size=n)] = draw(st.sampled_from(SPECIALS))
    with np.errstate(all="ignore"):
        if dtype.kind in "fcOU" or dtype.kind == "M":
            a = values.astype("i8").astype(dtype) if dtype.kind == "M" else values.astype(dtype)
        else:
            a = rng.integers(0, 2 if dtype.kind == "b" else 100, shape).astype(dtype)
    return laid_out(a, draw(st.sampled_from(LAYOUTS)), draw(st.integers(0, 3)))


LAYOUTS = [
    "plain",
    "plain",
    "fortran",
    "strided",
    "reversed",
    "transposed",
    "misaligned",
    "read-only",
    "list",
]


def laid_out(a, layout, axis):
    """The same values in another layout; broadcast and zero strides come in by slices of size one."""
    if layout == "fortran":
        return np.asfortranarray(a)
    if layout == "strided":
        return layouts.strided(a)
    if layout == "reversed" and a.ndim:
        return layouts.reversed_along(a, axis % a.ndim)
    if layout == "transposed":
        return a.T.copy().T
    if layout == "misaligned" and a.dtype.kind != "O":
        return layouts.misaligned(a)
    if layout == "read-only":
        return layouts.read_only(a)
    if layout == "list" and a.dtype.kind in "fiub":
        return a.tolist()
    return a


def plain(value):
    """The same argument as a C-contiguous array of native byte order."""
    if isinstance(value, np.ndarray):
        return np.array(value, value.dtype.newbyteorder("="), order="C")
    return value


def copy_of(value):
    return value.copy() if isinstance(value, np.ndarray) else value


def bits(result):
    """What tells two results apart; NaN are alike."""
    if isinstance(result, tuple):
        return tuple(bits(one) for one in result)
    if result is None:
        return None
    result = np.asarray(result)
    return (
        str(result.dtype),
        result.shape,
        np.where(np.isnan(result), 0, result).tobytes(),
        (np.isnan(result).tobytes()),
    )


def refusal(name, function, positional, options):
    """The result and no error, or the error and no result; then no argument has changed."""
    arguments = (*positional, *options.values())
    before = [copy_of(value) for value in arguments]
    try:
        result = function(*positional, **options)
    except REFUSALS as caught:
        error = caught
    else:
        COUNTS["answered"] += 1
        return result, None
    COUNTS["refused"] += 1
    assert str(error).startswith(f"{name}()"), error
    for value, was in zip(arguments, before, strict=True):
        if isinstance(value, np.ndarray) and value.dtype.kind != "O":
            assert bits_or_bytes(value) == bits_or_bytes(was)
    return None, error


def check(name, function, positional, options):
    """One call, which must do as the head of this file says."""
    given_first = tuple(copy_of(value) for value in positional)  # an out may be one of them
    result, error = refusal(name, function, positional, options)
    if error is not None:
        return
    again = {key: plain(value) for key, value in options.items()}
    again |= {key: value for key, value in {"out": None, "n_threads": 1}.items() if key in again}
    assert bits(result) == bits(function(*(plain(value) for value in given_first), **again))


def bits_or_bytes(value):
    return value.dtype, value.shape, np.ascontiguousarray(value).tobytes()


def mostly(good, *bad):
    """One of the good values, or seldom a bad one."""
    return st.sampled_from(list(good) * (1 + 16 * len(bad) // len(good)) + list(bad))


def axes_of(x):
    n = max(np.ndim(x), 1)
    return mostly(range(-n, n), n, -n - 1, None, 1.5, "0")


threads = mostly([None, 1, 2, 3], 0, -1, 2.5)
temperatures = mostly([1.0, 1.0, 0.5, 3, 1e-3], 0, -1, np.nan, np.inf, "1")


def rows_of(x, axis):
    """The shape of one result for each row, if the axis is one of x's."""
    shape = np.shape(x)
    if isinstance(axis, int) and -len(shape) <= axis < len(shape):
        axis %= len(shape)
        return shape[:axis] + shape[axis + 1 :], shape[axis]
    return shape[:-1], shape[-1] if shape else 1


@st.composite
def targets(draw, x, axis):
    """Class indices that mostly fit, or class probabilities, or anything."""
    rows, n_classes = rows_of(x, axis)
    kind = draw(st.sampled_from(["fit"] * 6 + ["probabilities"] * 3 + ["outside", "any"]))
    if kind == "any":
        return draw(arrays())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "probabilities":
        a = rng.random(np.shape(x)).astype(draw(st.sampled_from(FLOATS)))
    else:
        low, high = (0, max(n_classes, 1)) if kind == "fit" else (-3, n_classes + 3)
        dtype = draw(st.sampled_from(["i8", "i8", "i4", "u1", "i2", ">i8", "u8"]))
        a = rng.integers(low, high, rows).astype(dtype)
    return laid_out(np.asarray(a), draw(st.sampled_from(LAYOUTS)), draw(st.integers(0, 3)))


@st.composite
def outputs(draw, x):
    """No out, one that fits, x itself, or anything."""
    kind = draw(mostly(["none", "fit", "itself"], "any"))
    if kind == "fit" and isinstance(x, np.ndarray):
        return np.full(x.shape, 7, x.dtype if x.dtype.kind == "f" else "f8")
    if kind == "itself":
        return x
    return draw(arrays()) if kind == "any" else None
