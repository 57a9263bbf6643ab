"""Any call of any public function: it answers, with the bits of the same call on plain arrays, or it raises what the
contract names and leaves its arguments alone. `make fuzz` makes as many calls as an hour allows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import csoftmax
from csoftmax import functional, special

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


def strided(a):
    wide = np.zeros([2 * n for n in a.shape], a.dtype)
    view = wide[(..., *(slice(None, None, 2),) * a.ndim)]
    view[...] = a
    return view


def misaligned(a):
    buffer = np.zeros(a.nbytes + 1, np.uint8)[1:]
    view = buffer.view(a.dtype).reshape(a.shape) if a.dtype.kind != "O" else a
    view[...] = a
    return view


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
        return strided(a)
    if layout == "reversed" and a.ndim:
        axis %= a.ndim
        return np.flip(np.flip(a, axis).copy(), axis)
    if layout == "transposed":
        return a.T.copy().T
    if layout == "misaligned":
        return misaligned(a)
    if layout == "read-only":
        a.flags.writeable = False
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
    """One call: see the head of this file."""
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


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@given(data=st.data())
def test_any_call_of_elementwise_functions_answers_or_refuses(name, data):
    x = data.draw(arrays())
    options = {
        "axis": data.draw(axes_of(x)),
        "temperature": data.draw(temperatures),
        "n_threads": data.draw(threads),
        "out": data.draw(outputs(x)),
    }
    check(name, getattr(csoftmax, name), (x,), options)


@given(data=st.data())
def test_any_call_of_logsumexp_answers_or_refuses(data):
    x = data.draw(arrays())
    axis = data.draw(axes_of(x))
    options = {
        "axis": axis,
        "keepdims": data.draw(st.booleans()),
        "temperature": data.draw(temperatures),
        "n_threads": data.draw(threads),
    }
    check("logsumexp", csoftmax.logsumexp, (x,), options)


@pytest.mark.parametrize("name", ["cross_entropy", "cross_entropy_with_grad"])
@given(data=st.data())
def test_any_call_of_losses_answers_or_refuses(name, data):
    x = data.draw(arrays())
    axis = data.draw(axes_of(x))
    rows, n_classes = rows_of(x, axis)
    options = {
        "axis": axis,
        "reduction": data.draw(mostly(["mean", "sum", "none"], "all", None)),
        "ignore_index": data.draw(mostly([-100, 0, 2, None, 2**70], 1.5)),
        "label_smoothing": data.draw(mostly([0.0, 0.1, 1.0], 1.5, np.nan, "0")),
        "temperature": data.draw(temperatures),
        "n_threads": data.draw(threads),
    }
    if data.draw(st.booleans()):
        options["weight"] = data.draw(arrays(shape=(n_classes,)))
    if data.draw(st.booleans()):
        options["sample_weight"] = data.draw(arrays(shape=rows))
    if name == "cross_entropy_with_grad" and data.draw(st.booleans()):
        options["grad_output"] = data.draw(arrays(shape=()) | arrays(shape=rows))
    check(name, getattr(csoftmax, name), (x, data.draw(targets(x, axis))), options)


@given(data=st.data())
def test_any_call_of_log_prob_answers_or_refuses(data):
    x = data.draw(arrays())
    axis = data.draw(axes_of(x))
    index = data.draw(targets(x, axis))
    options = {
        "axis": axis,
        "temperature": data.draw(temperatures),
        "n_threads": data.draw(threads),
    }
    check("log_prob", csoftmax.log_prob, (x, index), options)


@pytest.mark.parametrize("name", ["softmax_backward", "log_softmax_backward"])
@given(data=st.data())
def test_any_call_of_backward_passes_answers_or_refuses(name, data):
    output = data.draw(arrays())
    grad = data.draw(arrays(shape=np.shape(output)))
    options = {
        "axis": data.draw(axes_of(output)),
        "n_threads": data.draw(threads),
        "out": data.draw(outputs(grad)),
    }
    check(name, getattr(csoftmax, name), (grad, output), options)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@given(data=st.data())
def test_any_call_of_scipys_names_answers_or_refuses(name, data):
    x = data.draw(arrays())
    options = {"axis": data.draw(axes_of(x) | st.none() | st.tuples(axes_of(x), axes_of(x)))}
    if name == "logsumexp":
        options["keepdims"] = data.draw(st.booleans())
        options["return_sign"] = data.draw(st.booleans())
        if data.draw(st.booleans()):
            options["b"] = data.draw(arrays(shape=np.shape(x)) | arrays(shape=()))
    check(f"special.{name}", getattr(special, name), (x,), options)


@given(data=st.data())
def test_any_call_of_pytorchs_cross_entropy_answers_or_refuses(data):
    x = data.draw(arrays())
    axis = 0 if np.ndim(x) == 1 else 1
    options = {
        "reduction": data.draw(st.sampled_from(["mean", "sum", "none"])),
        "label_smoothing": data.draw(st.sampled_from([0.0, 0.2])),
        "ignore_index": data.draw(st.sampled_from([-100, 1])),
    }
    target = data.draw(targets(x, axis))
    check("functional.cross_entropy", functional.cross_entropy, (x, target), options)
