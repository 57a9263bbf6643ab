"""The compiled fast path takes a subset of the arguments that the long way takes, with the same bits."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import csoftmax
from csoftmax import _batch, _general
from support.bits import same_bits

REFUSALS = (TypeError, ValueError, IndexError)

# Values: ordinary, far apart, and of which losses or weights leave a dtype's range.
SPREADS = [0.0, 1.0, 10.0, 200.0]
SPECIALS = [0.0, -0.0, np.inf, -np.inf, np.nan, 3e38, -3e38, 1.7e308, -1.7e308, 1e-45, 1e-310]
WEIGHTS = [0.0, 1.0, 1.5, -1.0, -0.5, 1e-3, 2.0**20, 1e7, 1e-300, 1e300, np.inf, np.nan]
TEMPERATURES = [1.0, 1.0, 1, 0.5, 3, np.float32(2), np.float64(0.7)]
SCALES = [*WEIGHTS, 2.0**41, 2.0**-41]
ODD = [None, True, 2.5, "mean", -1, 1 << 70, np.int64(1), np.float32(1), (0,), [0], np.ones(2)]

ARGUMENTS = ["x", "y", "axis", "temperature", "n_threads", "weight", "ignore_index"]
ARGUMENTS += ["label_smoothing", "reduction"]
# What is odd in a call: mostly one argument or none, else the long way would be taken in nearly all of them.
oddities = st.sampled_from([set()] * 3 + [{name} for name in ARGUMENTS] + [set(ARGUMENTS)])


def laid_out(a, layout):
    """The same values, contiguous or not, writable or not, of this byte order or the other one."""
    if layout == "Fortran":
        return np.asfortranarray(a)
    if layout == "strided":
        return np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a
    if layout == "reversed":
        return np.flip(np.flip(a).copy())
    if layout == "misaligned":
        memory = np.zeros(a.nbytes + 1, np.uint8)[1:]
        view = memory.view(a.dtype).reshape(a.shape)
        view[...] = a
        return view
    if layout == "swapped":
        return a.astype(a.dtype.newbyteorder())
    if layout == "read-only":
        a = a.copy()
        a.flags.writeable = False
    return a.tolist() if layout == "list" else a


LAYOUTS = ["Fortran", "strided", "reversed", "misaligned", "swapped", "read-only", "list"]


def shapes(is_odd):
    sizes = st.sampled_from([1, 2, 3, 5, 17, 70] + [0] * is_odd)
    sizes = st.lists(sizes, min_size=not is_odd, max_size=3).map(tuple)
    return sizes.filter(lambda shape: math.prod(shape) <= 6000)


def arrays_of(draw, values, is_odd, dtypes, odd_dtypes):
    with np.errstate(all="ignore"):
        a = values.astype(draw(st.sampled_from([*dtypes] + [*odd_dtypes] * is_odd)))
    return laid_out(a, draw(st.sampled_from(LAYOUTS)) if is_odd else "C")


@st.composite
def floats(draw, shape, is_odd, dtypes=("f4", "f8")):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = np.asarray(rng.normal(0, draw(st.sampled_from(SPREADS)), shape))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2])) if values.size else 0):
        values.reshape(-1)[rng.integers(values.size)] = draw(st.sampled_from(SPECIALS))
    return arrays_of(draw, values, is_odd, dtypes, ["f2", "longdouble", "c8", "i8"])


@st.composite
def masses(draw, shape, is_odd, dtype):
    """Mostly positive and near 1, of which losses are not far."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = np.asarray(rng.uniform(0.1, 1, shape))
    if values.size and draw(st.booleans()):
        odd = [0.0, 1e-20, -0.5, 1e-31, 1e31, np.inf, np.nan]
        values.reshape(-1)[rng.integers(values.size)] = draw(st.sampled_from(odd))
    return arrays_of(draw, values, is_odd, [dtype], ["f2", "f4", "f8"])


@st.composite
def indices(draw, shape, n_classes, is_odd):
    """Classes, some ignored, and some of them odd: wrong, or of another dtype."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = np.asarray(rng.integers(0, max(n_classes, 1), shape))
    if values.size and draw(st.booleans()):
        wrong = draw(st.sampled_from([-100] + [-1, n_classes] * is_odd))
        values.reshape(-1)[rng.integers(values.size, size=2)] = wrong
    return arrays_of(draw, values, is_odd, ["i8", "i8", "i4", "i2"], ["u8", "u4", "?", "f8"])


def with_out(draw, x):
    """`x`, and None, another array, `x` itself, a view of all or a part of its memory, or what fits nothing."""
    kind = draw(st.sampled_from(["itself", "view", "none", "new", "itself", "shifted", "wrong"]))
    if kind == "none" or not isinstance(x, np.ndarray):
        return x, None
    if kind == "shifted":
        memory = np.zeros(x.size + 3, x.dtype)
        inner = memory[: x.size].reshape(x.shape)
        inner[...] = x
        return inner, memory[3:].reshape(x.shape)
    wrong = np.zeros((*x.shape, 2), x.dtype)
    return x, {"new": np.zeros(x.shape, x.dtype), "itself": x, "view": x[...], "wrong": wrong}[kind]


def parts(result):
    result = result if isinstance(result, tuple) else (result,)
    return [np.asarray(each) for each in result if each is not None]


def assert_same_where_taken(fast, general, read, out=None):
    """`read` are the arguments that `fast` and `general` have in common, but for `out`."""
    read = [each for each in read if isinstance(each, np.ndarray)]
    arrays = [*read, out] if isinstance(out, np.ndarray) else read
    before = [each.copy() for each in arrays]
    result = fast()
    found = None if result is None else [each.copy() for each in parts(result)]
    if result is None:  # they are still to be read
        assert all(map(same_bits, read, before))
    for each, old in zip(arrays, before, strict=True):
        if each.flags.writeable:
            each[...] = old
    try:
        expected = general()
    except REFUSALS:
        assert result is None
        return
    if result is None:
        return
    for got, each in zip(found, parts(expected), strict=True):
        is_nan = np.isnan(each)
        assert np.array_equal(np.isnan(got), is_nan)
        assert same_bits(np.where(is_nan, 0, got), np.where(is_nan, 0, each))
    if isinstance(result, tuple) and result[-1] is None:
        return
    last = result[-1] if isinstance(result, tuple) else result
    assert (last is out) == (out is not None)


@st.composite
def calls(draw, has_out):
    odd = draw(oddities)
    shape = draw(shapes("x" in odd))
    x, out = draw(floats(shape, "x" in odd)), None
    if has_out:
        x, out = with_out(draw, x)
    axis = st.integers(-len(shape), max(len(shape) - 1, 0))
    axis = axis.flatmap(lambda number: st.sampled_from([number, np.int64(number), np.int8(number)]))
    options = {
        "axis": draw(st.sampled_from([4, -4, *ODD]) if "axis" in odd else axis),
        "temperature": draw(
            st.sampled_from(
                TEMPERATURES + [0.0, -1.0, 1e-40, 1e300, np.nan, *ODD] * ("temperature" in odd)
            )
        ),
        "n_threads": draw(
            st.sampled_from([None, 1, 2, 65_536] + [1 << 31, -1, 0] * ("n_threads" in odd))
        ),
    }
    return x, out, options, (odd, *rows_of(shape, options["axis"]))


def rows_of(shape, axis):
    """The shape of the rows, and the number of classes; of any axis if `axis` is none."""
    axis = int(axis) % len(shape) if shape and isinstance(axis, (int, np.integer)) else 0
    return shape[:axis] + shape[axis + 1 :], shape[axis] if shape else 0


@given(st.booleans(), calls(True))
def test_softmax_and_log_softmax_have_the_same_bits_on_both_ways(log, call):
    x, out, options, _ = call
    assert_same_where_taken(
        lambda: _batch.fast_probabilities(x, out=out, log=log, **options),
        lambda: _general.probabilities(x, out=out, log=log, function="softmax", **options),
        [x],
        out,
    )


@given(st.data(), calls(False))
def test_logsumexp_has_the_same_bits_on_both_ways(data, call):
    x, _, options, (odd, rows, _) = call
    keepdims = data.draw(st.sampled_from([False, True] + [1, None, np.True_] * ("axis" in odd)))
    shape = rows
    if keepdims and isinstance(x, np.ndarray) and isinstance(options["axis"], (int, np.integer)):
        shape = np.ones(x.shape).sum(int(options["axis"]) % max(x.ndim, 1), keepdims=True).shape
    out = data.draw(st.sampled_from([None, "new", "wrong", "overlap"]))
    if not isinstance(x, np.ndarray):
        out = None
    elif out == "overlap":
        out = x.reshape(-1)[: math.prod(shape)].reshape(shape) if x.flags.c_contiguous else None
    elif out is not None:
        out = np.zeros(shape if out == "new" else (*shape, 1), x.dtype)
    assert_same_where_taken(
        lambda: _batch.fast_logsumexp(x, keepdims=keepdims, out=out, **options),
        lambda: _general.logsumexp(x, keepdims=keepdims, out=out, **options),
        [x],
        out,
    )


@given(st.data(), st.booleans(), calls(True), st.booleans())
def test_backward_has_the_same_bits_on_both_ways(data, log, call, is_softmax):
    grad, out, options, (odd, *_) = call
    del options["temperature"]
    shape = np.shape(grad)
    output = data.draw(
        floats(shape, "y" in odd, [grad.dtype] if isinstance(grad, np.ndarray) else ["f4"])
    )
    if (
        is_softmax
        and isinstance(output, np.ndarray)
        and output.size
        and output.dtype.kind == "f"
        and output.ndim
    ):
        forward = csoftmax.log_softmax if log else csoftmax.softmax
        output = forward(output.astype("f4" if output.itemsize < 8 else "f8")).astype(output.dtype)
    assert_same_where_taken(
        lambda: _batch.fast_backward(grad, output, out=out, log=log, **options),
        lambda: _general.backward(grad, output, out=out, log=log, function="backward", **options),
        [grad, output],
        out,
    )


@given(st.data(), calls(False))
def test_log_prob_has_the_same_bits_on_both_ways(data, call):
    x, _, options, (odd, rows, n_classes) = call
    several = data.draw(st.sampled_from([(), (), (2,), (0,)]))
    y = data.draw(indices(rows + several, n_classes, "y" in odd))
    assert_same_where_taken(
        lambda: _batch.fast_log_prob(x, y, **options),
        lambda: _general.log_prob(x, y, **options),
        [x, y],
    )


@st.composite
def loss_options(draw, shape, n_classes, odd):
    weight = None
    if draw(st.booleans()):
        some = st.sampled_from(WEIGHTS if "weight" in odd else [0.5, 1.0, 1.5, 0.0, -1.0])
        values = draw(st.lists(some, min_size=n_classes, max_size=n_classes))
        weight = arrays_of(draw, np.array(values, float), "weight" in odd, ["f4", "f8"], ["i8"])
    smoothing = [0.0, 0.0, 0.1, 1.0] + [1e-12, 1e-13, 1.0000001, -0.1, np.nan, *ODD] * (
        "label_smoothing" in odd
    )
    reductions = ["mean", "sum", "none"] + ["Mean", "", *ODD] * ("reduction" in odd)
    rows = {}
    for name in ("sample_weight", "grad_output"):
        if draw(st.sampled_from([False, False, True])):
            some = st.sampled_from(SCALES if "weight" in odd else [0.5, 1.0, 1.5, 0.0, -1.0, 2.0])
            n = math.prod(shape)
            values = np.array(draw(st.lists(some, min_size=n, max_size=n)), float).reshape(shape)
            rows[name] = arrays_of(draw, values, "weight" in odd, ["f4", "f8"], ["i8"])
    if draw(st.booleans()):
        rows["grad_output"] = draw(st.sampled_from([1.0, 2, 0.5, -3.0, np.float32(0.25), *SCALES]))
    ignored = [-100, -100, 0] + [1 << 62, None, *ODD] * ("ignore_index" in odd)
    return {
        "weight": weight,
        "sample_weight": rows.get("sample_weight"),
        "grad_output": rows.get("grad_output"),
        "ignore_index": draw(st.sampled_from(ignored)),
        "label_smoothing": draw(st.sampled_from(smoothing)),
        "reduction": draw(st.sampled_from(reductions)),
    }


@settings(max_examples=600)
@given(st.data(), calls(True), st.booleans())
def test_losses_and_their_gradients_have_the_same_bits_on_both_ways(data, call, with_grad):
    x, out, options, (odd, rows, n_classes) = call
    options |= data.draw(loss_options(rows, n_classes, odd))
    out = out if with_grad else None
    has_probabilities = data.draw(st.booleans()) and isinstance(x, np.ndarray)
    if has_probabilities:
        y = data.draw(masses(x.shape, "y" in odd, x.dtype))
    else:
        y = data.draw(indices(rows, n_classes, "y" in odd))
    if out is not None and "y" in odd and isinstance(y, np.ndarray) and has_probabilities:
        y = out
    elif out is not None and "weight" in odd and out.size >= n_classes:
        options["weight"] = out.reshape(-1)[:n_classes]
        if out.flags.c_contiguous and data.draw(st.booleans()):
            options["sample_weight"] = out.reshape(-1)[: math.prod(rows)].reshape(rows)
    elif out is not None and out.flags.c_contiguous and data.draw(st.booleans()):
        bytes_of_out = out.reshape(-1).view(np.int8)
        if isinstance(y, np.ndarray) and y.shape == rows and y.dtype.kind == "i":
            y = bytes_of_out[: y.size].reshape(rows)
            y[...] = np.arange(y.size).reshape(rows) % max(n_classes, 1)
    assert_same_where_taken(
        lambda: _batch.fast_cross_entropy(x, y, out=out, with_grad=with_grad, **options),
        lambda: _general.cross_entropy(
            x,
            y,
            _general.LossOptions(out=out, **options),
            "cross_entropy_with_grad",
            with_grad,
        ),
        [x, y, options["weight"], options["sample_weight"], options["grad_output"]],
        out,
    )


def test_the_fast_path_takes_everyday_calls():
    x, y = np.ones((2, 3), np.float32), np.zeros(2, np.int64)
    for axis, temperature in ((-1, 1.0), (np.int64(1), 2), (1, np.float32(0.5))):
        assert _batch.fast_probabilities(x, axis, None, False, temperature, None) is not None
        for keepdims, out in ((False, None), (True, None), (False, np.empty(2, np.float32))):
            assert _batch.fast_logsumexp(x, axis, keepdims, temperature, out, None) is not None
        assert _batch.fast_log_prob(x, y.astype(np.int32), axis, temperature, None) is not None
        assert _batch.fast_backward(x, x, axis, None, False, None) is not None
    plain = {
        "axis": -1,
        "weight": None,
        "sample_weight": None,
        "ignore_index": -100,
        "label_smoothing": 0.0,
        "temperature": 1.0,
        "reduction": "mean",
        "grad_output": None,
        "out": None,
        "with_grad": True,
        "n_threads": None,
    }
    assert _batch.fast_cross_entropy(x, np.full_like(x, 0.5), **plain | {"out": x}) is not None
    x = np.ones((2, 3), np.float32)
    for option in (
        {},
        {"out": x},
        {"temperature": 2.0},
        {"sample_weight": np.ones(2)},
        {"grad_output": 2.0},
        {"grad_output": np.ones(2), "reduction": "none"},
        {"weight": np.ones(3, np.float32), "label_smoothing": 0.1},
    ):
        assert _batch.fast_cross_entropy(x, y, **plain | option) is not None
