"""What every function refuses: the whole text of the error, no byte of any output changed."""

import functools
import inspect
import re
import warnings
from collections import UserList, deque
from decimal import Decimal

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import csoftmax
from csoftmax import _batch

X = np.arange(12.0).reshape(3, 4)
TARGET = np.array([0, 1, 3])
LOSSES = ["cross_entropy", "cross_entropy_with_grad"]
WITH_TARGET = [*LOSSES, "log_prob"]
FORWARD = ["softmax", "log_softmax", "logsumexp", *WITH_TARGET]
BACKWARD = ["softmax_backward", "log_softmax_backward"]
FUNCTIONS = [*FORWARD, *BACKWARD]
WITH_OUT = ["softmax", "log_softmax", "logsumexp", "cross_entropy_with_grad", *BACKWARD]
NOUN = dict.fromkeys(WITH_TARGET, "logits") | dict.fromkeys(BACKWARD, "grad")
SECOND = dict.fromkeys(WITH_TARGET, TARGET) | dict.fromkeys(BACKWARD, X)
AxisError = np.exceptions.AxisError


def call(name, x, *second, **options):
    """The function of x, and of targets, an index or an output, which fit a 3 x 4 array if none is given."""
    if not second and name in SECOND:
        second = (SECOND[name],)
    return getattr(csoftmax, name)(x, *second, **options)


def error_of(name, *arguments, **options):
    """The error of a call that has none but its own: kind and text."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            call(name, *arguments, **options)
        except Exception as error:
            return type(error), str(error)
    pytest.fail("nothing was raised")


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("complex64", "got complex64: pass numpy.real({name})"),
        ("complex128", "got complex128: pass numpy.real({name})"),
        (
            "longdouble",
            f"got {np.dtype('longdouble')}: pass numpy.asarray({{name}}, dtype=numpy.float64)",
        ),
        ("object", "got object: pass numpy.asarray({name}, dtype=numpy.float64)"),
        ("U", "got <U32: pass numpy.asarray({name}, dtype=numpy.float64)"),
        ("S", "got |S32: pass numpy.asarray({name}, dtype=numpy.float64)"),
        ("M8[s]", "got datetime64[s]: pass {name}.astype(numpy.int64)"),
        ("m8[s]", "got timedelta64[s]: pass {name} / numpy.timedelta64(1, 's')"),
        ("V8", "got |V8: pass an array of numbers as {name}"),
    ],
)
def test_a_dtype_without_kernels_is_refused_by_name_and_with_a_cure(name, given, text):
    x = X.astype("int64").astype(given) if given[0] in "Mm" else X.astype(given)
    if np.dtype("longdouble") == np.float64 and given == "longdouble":
        pytest.skip("longdouble is float64 here")
    wanted = f"{name}() needs float32 or float64, {text}"
    assert error_of(name, x) == (TypeError, wanted.format(name=NOUN.get(name, "x")))
    if name in BACKWARD:
        assert error_of(name, X, x) == (TypeError, wanted.format(name="output"))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("axis", [2, -3, 10**30])
def test_an_axis_that_the_array_has_not_is_refused(name, axis):
    text = f"{name}() needs an axis from -2 to 1, got {axis}: choose one of these"
    assert error_of(name, X, axis=axis) == (AxisError, text)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("axis", [1.0, "0", None, (0, 1), np.float64(1)])
def test_an_axis_that_is_no_integer_is_refused(name, axis):
    if (axis is None or isinstance(axis, tuple)) and name in FORWARD[:3]:
        cure = f"call csoftmax.special.{name}(x, axis={axis})"
    else:
        cure = "pass axis=1" if isinstance(axis, float) else "choose one from -2 to 1"
    text = f"{name}() needs an integer axis, got {axis!r}: {cure}"
    assert error_of(name, X, axis=axis) == (TypeError, text)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("n_threads", [1.5, "2", float("nan")])
def test_a_number_of_threads_that_is_no_integer_is_refused(name, n_threads):
    text = f"{name}() needs an integer or None as n_threads, got {n_threads!r}: None uses as many"
    assert error_of(name, X, n_threads=n_threads) == (TypeError, text + " as pay")


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("n_threads", [0, -2, -(10**30)])
def test_a_number_of_threads_that_is_not_positive_is_refused(name, n_threads):
    text = (
        f"{name}() needs n_threads of 1 or more, got {n_threads!r}: leave it out, or None, to use"
    )
    assert error_of(name, X, n_threads=n_threads) == (ValueError, text + " as many as pay")


def shape_of_out(name):
    return (3,) if name == "logsumexp" else (3, 4)


def refused(name, out, kind, text):
    """The error's text, and that whatever memory `out` has keeps its bytes."""
    memory = out.base if isinstance(out, np.ndarray) and out.base is not None else out
    before = memory.tobytes() if isinstance(memory, np.ndarray) else repr(memory)
    assert error_of(name, X, out=out) == (kind, f"{name}() needs {text}")
    after = memory.tobytes() if isinstance(memory, np.ndarray) else repr(memory)
    assert after == before


@pytest.mark.parametrize("name", WITH_OUT)
@pytest.mark.parametrize("out", [[1.0, 2.0], "out", 7.0, np.float64(7)])
def test_an_out_that_is_no_array_is_refused(name, out):
    shape = shape_of_out(name)
    text = f"a NumPy array as out, got {type(out).__name__}: make it with numpy.empty({shape},"
    refused(name, out, TypeError, text + " numpy.float64)")


@pytest.mark.parametrize("name", WITH_OUT)
@pytest.mark.parametrize("dtype", ["float32", "int64", ">f8", "complex128", "float16", "object"])
def test_an_out_of_another_dtype_is_refused(name, dtype):
    shape = shape_of_out(name)
    text = f"out of dtype float64, got {np.dtype(dtype)}: make it with numpy.empty({shape},"
    refused(name, np.full(shape, 7, dtype), TypeError, text + " numpy.float64)")


@pytest.mark.parametrize("name", WITH_OUT)
@pytest.mark.parametrize("shape", [(4, 3), (12,), (1, 3, 4), (3, 1), (), (3, 5), (0,)])
def test_an_out_of_another_shape_is_refused(name, shape):
    needed = shape_of_out(name)
    text = f"out of shape {needed}, got {shape}: make it with numpy.empty({needed}, numpy.float64)"
    refused(name, np.full(shape, 7.0), ValueError, text)


@pytest.mark.parametrize("name", WITH_OUT)
def test_an_out_that_is_read_only_is_refused(name):
    out = np.full(shape_of_out(name), 7.0)
    out.flags.writeable = False
    text = "a writable out, got a read-only array: pass out.copy()"
    refused(name, out, ValueError, text)


@pytest.mark.parametrize("name", WITH_OUT)
def test_an_out_whose_elements_are_one_is_refused(name):
    memory, shape = np.full(1, 7.0), shape_of_out(name)
    out = as_strided(memory, shape, (0,) * len(shape))
    text = f"needs an out whose elements lie apart, got strides {out.strides}: pass out.copy()"
    assert error_of(name, X, out=out) == (ValueError, f"{name}() {text}")
    assert memory[0] == 7


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_ragged_list_is_refused_by_the_functions_name(name):
    text = "with rows of one length, got a ragged list: pad or split it"
    wanted = f"{name}() needs {NOUN.get(name, 'x')} {text}"
    assert error_of(name, [[1, 2], [3]]) == (ValueError, wanted)
    if name in BACKWARD:
        assert error_of(name, X, [[1, 2], [3]]) == (ValueError, f"{name}() needs output {text}")


@pytest.mark.parametrize("name", WITH_TARGET)
def test_a_ragged_list_of_targets_is_refused(name):
    noun = "index" if name == "log_prob" else "target"
    text = f"{name}() needs {noun} with rows of one length, got a ragged list: pad or split it"
    assert error_of(name, X, [[0], [1, 2]]) == (ValueError, text)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["average", "", None, "Mean", 0, np.ones(2)])
def test_a_reduction_that_is_none_of_the_three_is_refused(name, reduction):
    text = f"{name}() needs a reduction of 'mean', 'sum' or 'none', got {reduction!r}:"
    assert error_of(name, X, reduction=reduction) == (ValueError, text + " choose one of these")


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("ignore_index", ["pad", 1.0, [1], np.float32(2)])
def test_an_ignore_index_that_is_no_integer_is_refused(name, ignore_index):
    text = f"{name}() needs an integer or None as ignore_index, got {ignore_index!r}: "
    if isinstance(ignore_index, (float, np.floating)):
        text += f"pass ignore_index={int(ignore_index)}"
    else:
        text += "None ignores no target"
    assert error_of(name, X, ignore_index=ignore_index) == (TypeError, text)


NEITHER = "integer class indices of shape (3,), or class probabilities of the logits' shape (3, 4),"


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("dtype", "of_indices", "of_probabilities"),
    [
        ("bool", ".astype(numpy.int64)", ".astype(numpy.float64)"),
        ("longdouble", ".astype(numpy.int64)", ".astype(numpy.float64)"),
        ("object", ".astype(numpy.float64).astype(numpy.int64)", ".astype(numpy.float64)"),
        ("U", ".astype(numpy.float64).astype(numpy.int64)", ".astype(numpy.float64)"),
        ("V8", None, None),
    ],
)
def test_targets_of_a_dtype_that_is_neither_integer_nor_float_are_refused(
    name, dtype, of_indices, of_probabilities
):
    if np.dtype(dtype) == np.float64:
        pytest.skip("longdouble is float64 here")
    for values, cure in (([0, 1, 1], of_indices), (np.ones((3, 4), int), of_probabilities)):
        target = np.array(values).astype(dtype)
        text = f"{name}() needs {NEITHER} as target, got {target.dtype} of shape {target.shape}"
        text += f": pass target{cure}" if cure else ""
        refused_by_loss(name, target, TypeError, text)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f8"])
@pytest.mark.parametrize("shape", [(3,), (), (0,), (4,), (3, 3), (4, 3), (1, 4), (3, 4, 1)])
def test_floats_that_are_no_probabilities_of_the_logits_shape_are_refused(name, dtype, shape):
    target = np.ones(shape, dtype)
    text = f"{name}() needs {NEITHER} as target, got {target.dtype} of shape {shape}"
    text += ": pass target.astype(numpy.int64)" if shape == (3,) else ""
    refused_by_loss(name, target, TypeError, text)


def refused_by_loss(name, target, kind, text, x=X, **options):
    """The error, and that neither the logits nor the memory for the gradient were written to."""
    logits, out = x.copy(), np.full_like(x, 7)
    assert error_of(name, logits, target, **options) == (kind, text)
    if name == "cross_entropy_with_grad":
        assert error_of(name, logits, target, out=out, **options) == (kind, text)
        assert error_of(name, logits, target, out=logits, **options) == (kind, text)
    assert logits.tobytes() == x.tobytes()
    assert (out == 7).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(), (2,), (4,), (3, 1), (1, 3), (3, 4), (0,)])
@pytest.mark.parametrize("axis", [1, -1])
def test_targets_of_another_shape_are_refused(name, shape, axis):
    text = (
        f"{name}() needs one target per row: logits (3, 4) with axis=-1 want targets of shape (3,)"
    )
    text = text.replace("axis=-1", f"axis={axis}") + f", got {shape}"
    text += {
        (3, 1): ": pass target.squeeze(axis=1)",
        (1, 3): ": pass target.squeeze(axis=0)",
        (3, 4): ": pass target.astype(numpy.float64)",
    }.get(shape, "")
    refused_by_loss(name, np.zeros(shape, int), ValueError, text, axis=axis)


HOSTILE = [-1, 4, -(2**63), 2**63 - 1, 2**64 - 1, 127, 128, 255, 2**31]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("kind", np.typecodes["AllInteger"])
@pytest.mark.parametrize("name", LOSSES)
def test_targets_that_are_no_class_are_refused_before_anything_is_written(name, kind, reduction):
    info = np.iinfo(kind)
    values = {v for v in (*HOSTILE, info.min, info.max) if info.min <= v <= info.max} - {0}
    assert {4, info.max} <= values
    for value in values:
        for position in (0, 1, 2):
            target = np.array([1, 2, 3], kind)
            target[position] = value
            logits, out = X.copy(), np.full((3, 4), 7.0)
            text = f"{name}() target {value} at position {position} is not a class: 4 classes are"
            expected = (IndexError, text + " numbered 0 to 3")
            assert error_of(name, logits, target, reduction=reduction) == expected
            if name == "cross_entropy_with_grad":
                for memory in (logits, out):
                    before = memory.tobytes()
                    assert (
                        error_of(name, logits, target, reduction=reduction, out=memory) == expected
                    )
                    assert memory.tobytes() == before


@pytest.mark.parametrize("name", LOSSES)
def test_the_first_bad_target_in_c_order_is_named_by_its_position_in_the_users_array(name):
    x = np.zeros((4, 3, 5))
    target = np.zeros((4, 5), int)
    target[2, 3], target[3, 0] = 3, -7
    text = f"{name}() target 3 at position (2, 3) is not a class: 3 classes are numbered 0 to 2"
    for layout in (target, np.asfortranarray(target), target[::-1].copy()[::-1]):
        assert error_of(name, x, layout, axis=1) == (IndexError, text)


@pytest.mark.parametrize("name", LOSSES)
def test_a_scalar_has_no_classes_to_choose_from(name):
    text = f"{name}() needs logits of at least one dimension, got a scalar: pass one"
    assert error_of(name, 3.0, 0) == (ValueError, text + " logit for each class")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_passed_by_position_but_has_a_name_is_refused(name):
    with pytest.raises(TypeError, match="positional"):
        getattr(csoftmax, name)(X, 1, 1, None)


# ---- Options of the losses, and temperature ----

NO_NUMBERS = ["0.1", b"1", None, 1j, np.complex64(1), [0.1], np.ones(2), object, 10**400]
WITH_TEMPERATURE = FORWARD


def shown(value):
    return repr(value) if len(repr(value)) <= 200 else repr(value)[:100] + "..."


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("target", [TARGET, X / X.sum(1, keepdims=True)], ids=["index", "floats"])
@pytest.mark.parametrize(
    "value", [-0.1, 1.1, -1, 2, np.nan, np.inf, -np.inf, -1e-300, np.float32(1.5), 10**30]
)
def test_a_label_smoothing_that_is_no_fraction_is_refused(name, value, target):
    text = (
        f"{name}() needs label_smoothing from 0 to 1, got {value!r}: 0 leaves the targets as they"
    )
    refused_by_loss(name, target, ValueError, text + " are", label_smoothing=value)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value)[:20])
def test_a_label_smoothing_that_is_no_number_is_refused(name, value):
    text = f"{name}() needs a real number as label_smoothing, got {shown(value)}: pass "
    text += "float(label_smoothing)" if isinstance(value, (str, bytes)) else "a float"
    refused_by_loss(name, TARGET, TypeError, text, label_smoothing=value)


def refused_by_all(name, kind, text, x=X, **options):
    """The error, and that neither x nor any output was written to."""
    if name in LOSSES:
        refused_by_loss(name, TARGET, kind, text, x, **options)
        refused_by_loss(name, np.ones_like(x), kind, text, x, **options)
        return
    before = x.tobytes()
    assert error_of(name, x, **options) == (kind, text)
    if name in WITH_OUT:
        out = np.full(shape_of_out(name), 7, x.dtype)
        assert error_of(name, x, out=out, **options) == (kind, text)
        assert (out == 7).all()
    assert x.tobytes() == before


@pytest.mark.parametrize("name", WITH_TEMPERATURE)
@pytest.mark.parametrize("value", [0, 0.0, -0.0, -1, -1e-300, np.nan, np.inf, -np.inf, False])
def test_a_temperature_that_is_not_positive_and_finite_is_refused(name, value):
    text = (
        f"{name}() needs a finite temperature above 0, got {value!r}: 1 leaves the logits as they"
    )
    refused_by_all(name, ValueError, text + " are", temperature=value)


@pytest.mark.parametrize("name", WITH_TEMPERATURE)
@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value)[:20])
def test_a_temperature_that_is_no_number_is_refused(name, value):
    text = f"{name}() needs a real number as temperature, got {shown(value)}: pass "
    text += "float(temperature)" if isinstance(value, (str, bytes)) else "a float"
    refused_by_all(name, TypeError, text, temperature=value)


@pytest.mark.parametrize("name", WITH_TEMPERATURE)
@pytest.mark.parametrize("value", [1e-50, 1e39, 1e300, 5e-324])
def test_a_temperature_beyond_the_range_of_float32_is_taken_with_float32_logits(name, value):
    got = call(name, X.astype(np.float32), temperature=value)
    assert not np.isnan(np.asarray(got[0] if isinstance(got, tuple) else got)).any()


WEIGHTS = [("weight", "class", 4), ("sample_weight", "row", 3), ("grad_output", "row", 3)]
LOSSES_AND_WEIGHTS = [
    (name, *weight)
    for name in LOSSES
    for weight in WEIGHTS
    if name == "cross_entropy_with_grad" or weight[0] != "grad_output"
]


@pytest.mark.parametrize(("name", "argument", "each", "size"), LOSSES_AND_WEIGHTS)
@pytest.mark.parametrize(
    ("dtype", "cure"),
    [
        ("complex64", "numpy.real({})"),
        ("object", "numpy.asarray({}, dtype=numpy.float64)"),
        ("U1", "numpy.asarray({}, dtype=numpy.float64)"),
        ("S1", "numpy.asarray({}, dtype=numpy.float64)"),
        ("M8[s]", "{}.astype(numpy.int64)"),
        ("m8[s]", "{} / numpy.timedelta64(1, 's')"),
        ("V8", "an array of numbers as {}"),
    ],
)
def test_weights_that_are_no_real_numbers_are_refused(name, argument, each, size, dtype, cure):
    values = np.ones(size, int).astype(dtype)
    text = f"{name}() needs real numbers as {argument}, got {values.dtype}: pass "
    text += cure.format(argument)
    refused_by_loss(name, TARGET, TypeError, text, reduction="none", **{argument: values})


@pytest.mark.parametrize(("name", "argument", "each", "size"), LOSSES_AND_WEIGHTS)
def test_weights_of_another_shape_are_refused(name, argument, each, size):
    shapes = [(), (0,), (size + 1,), (size - 1,), (1,), (size, 1), (1, size), (3, 4)]
    for shape in shapes:
        for axis in (1, -1):
            text = f"{name}() needs one {argument} per {each}: logits (3, 4) with axis={axis} want"
            text += f" {argument} of shape ({size},), got {shape}"
            text += {
                (): f": pass numpy.full(({size},), {argument}.item())",
                (1,): f": pass numpy.full(({size},), {argument}.item())",
                (size, 1): f": pass {argument}.squeeze(axis=1)",
                (1, size): f": pass {argument}.squeeze(axis=0)",
            }.get(shape, "")
            options = {argument: np.ones(shape), "axis": axis, "reduction": "none"}
            refused_by_loss(name, TARGET, ValueError, text, **options)
            refused_by_loss(name, np.ones_like(X), ValueError, text, **options)
    needed = {4: (3,), 3: (4,)}[size]
    text = f"{name}() needs one {argument} per {each}: logits (3, 4) with axis=0 want {argument} of"
    options = {argument: np.ones((9, 9)), "axis": 0, "reduction": "none"}
    text += f" shape {needed}, got (9, 9)"
    refused_by_loss(name, np.array([0, 1, 2, 0]), ValueError, text, **options)


@pytest.mark.parametrize(("name", "argument", "each", "size"), LOSSES_AND_WEIGHTS)
def test_ragged_weights_are_refused(name, argument, each, size):
    text = f"{name}() needs {argument} with rows of one length, got a ragged list: pad or split it"
    options = {argument: [[1.0], [1.0, 2.0]], "reduction": "none"}
    refused_by_loss(name, TARGET, ValueError, text, **options)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_grad_output_that_is_no_real_scalar_is_refused(reduction):
    name = "cross_entropy_with_grad"
    for value, cure in (
        ("1", "numpy.asarray(grad_output, dtype=numpy.float64)"),
        (1j, "numpy.real(grad_output)"),
        (b"1", "numpy.asarray(grad_output, dtype=numpy.float64)"),
        (np.array(None), "an array of numbers as grad_output"),
        (np.datetime64(1, "s"), "numpy.asarray(grad_output).astype(numpy.int64)"),
    ):
        text = f"{name}() needs a real number as grad_output, got {np.asarray(value).dtype}: pass "
        options = {"grad_output": value, "reduction": reduction}
        refused_by_loss(name, TARGET, TypeError, text + cure, **options)
    for shape in ((3,), (1,), (0,), (3, 4)):
        text = (
            f"{name}() needs a scalar grad_output with reduction={reduction!r}, got shape {shape}: "
        )
        options = {"grad_output": np.ones(shape), "reduction": reduction}
        one = "pass grad_output.squeeze(axis=0)"
        text += one if shape == (1,) else "one per row goes with reduction='none'"
        refused_by_loss(name, TARGET, ValueError, text, **options)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_targets_that_are_no_class_are_refused_with_options_too(name, reduction):
    for value, ignore_index in ((4, -100), (-1, 2), (-100, None), (2**62, -(2**62))):
        target = np.array([1, 2, value])
        text = (
            f"{name}() target {value} at position 2 is not a class: 4 classes are numbered 0 to 3"
        )
        for options in (
            {"weight": np.ones(4)},
            {"weight": np.ones(4), "sample_weight": np.array([1, 1, 0])},
            {"label_smoothing": 0.1, "temperature": 0.5},
        ):
            options |= {"reduction": reduction, "ignore_index": ignore_index}
            refused_by_loss(name, target, IndexError, text, **options)


# ---- The index of log_prob ----


@pytest.mark.parametrize(
    ("dtype", "cure"),
    [
        ("bool", "index.astype(numpy.int64)"),
        ("float32", "index.astype(numpy.int64)"),
        ("float64", "index.astype(numpy.int64)"),
        ("complex128", "numpy.real(index).astype(numpy.int64)"),
        ("object", "index.astype(numpy.float64).astype(numpy.int64)"),
        ("U", "index.astype(numpy.float64).astype(numpy.int64)"),
    ],
)
def test_an_index_of_a_dtype_that_is_no_integer_is_refused(dtype, cure):
    index = np.array([0, 1, 1]).astype(dtype)
    text = f"log_prob() needs integer class indices of shape (3,) as index, got {index.dtype} of"
    assert error_of("log_prob", X, index) == (TypeError, f"{text} shape (3,): pass {cure}")


def test_an_index_of_another_shape_is_refused():
    for shape in ((), (2,), (4,), (1, 3), (3, 4, 1), (4, 2), (0,), (1, 3, 4)):
        text = (
            "log_prob() needs one index per row, or several along a last axis: logits (3, 4) with"
        )
        for axis in (1, -1):
            got = error_of("log_prob", X, np.zeros(shape, int), axis=axis)
            rest = f" axis={axis} want an index of shape (3,) or (3, K), got {shape}"
            assert got == (ValueError, text + rest)
    text = "log_prob() needs one index per row, or several along a last axis: logits (3, 4, 5) with"
    text += " axis=1 want an index of shape (3, 5) or (3, 5, K), got (3, 4)"
    got = error_of("log_prob", np.zeros((3, 4, 5)), np.zeros((3, 4), int), axis=1)
    assert got == (ValueError, text)
    text = "log_prob() needs one index per row, or several along a last axis: logits (4,) with"
    text += " axis=-1 want an index of shape () or (K,), got (2, 2)"
    assert error_of("log_prob", np.zeros(4), np.zeros((2, 2), int)) == (ValueError, text)


@pytest.mark.parametrize("kind", np.typecodes["AllInteger"])
def test_an_index_that_is_no_class_is_refused(kind):
    info = np.iinfo(kind)
    values = {v for v in (*HOSTILE, -100, info.min, info.max) if info.min <= v <= info.max} - {0}
    assert {4, info.max} <= values
    for value in values:
        for position in (0, 1, 2):
            index = np.array([1, 2, 3], kind)
            index[position] = value
            text = f"log_prob() index {value} at position {position} is not a class: 4 classes are"
            assert error_of("log_prob", X, index) == (IndexError, text + " numbered 0 to 3")
            several = np.array([[1, 2], [0, 3], [3, 3]], kind)
            several[position, 1] = value
            text = f"log_prob() index {value} at position ({position}, 1) is not a class: 4 classes"
            wanted = (IndexError, text + " are numbered 0 to 3")
            for layout in (several, np.asfortranarray(several), several[::-1].copy()[::-1]):
                assert error_of("log_prob", X, layout) == wanted


def test_an_index_of_rows_without_classes_is_refused():
    text = "log_prob() index 0 at position 0 is not a class: there are no classes"
    assert error_of("log_prob", np.empty((2, 0)), [0, 0]) == (IndexError, text)
    text = "log_prob() index 7 is not a class: the only class is 0"
    assert error_of("log_prob", np.zeros(1), 7) == (IndexError, text)


# ---- The backward functions ----


@pytest.mark.parametrize("name", BACKWARD)
def test_a_gradient_of_another_shape_than_the_output_is_refused(name):
    for shape in ((4, 3), (3, 5), (3, 1), (1, 3, 4), (12,), (), (0, 4)):
        grad, out = np.full(shape, 7.0), np.full((3, 4), 7.0)
        text = (
            f"{name}() needs grad and output of one shape, got {shape} and (3, 4): both have that"
        )
        wanted = (ValueError, text + " of the forward call's result")
        assert error_of(name, grad, X) == wanted
        assert error_of(name, grad, X, out=out) == wanted
        assert (out == 7).all()
        assert (grad == 7).all()


@pytest.mark.parametrize("name", BACKWARD)
@pytest.mark.parametrize(
    "options", [{"axis": 2}, {"axis": "0"}, {"n_threads": 0}, {"n_threads": 1.5}]
)
def test_a_refused_backward_call_writes_nothing(name, options):
    out = np.full((3, 4), 7.0)
    assert error_of(name, X, X, out=out, **options)[1].startswith(f"{name}() needs ")
    assert (out == 7).all()


@pytest.mark.parametrize(
    "name", ["softmax", "softmax_row", "SOFTMAX_F32", "csoftmax_empty", "", "é\0"]
)
def test_an_address_of_no_c_function_is_refused_and_those_that_there_are_are_listed(name):
    names = ", ".join(_batch.C_NAMES)
    text = f"address() needs the name of a C function, got {name!r}: choose one of {names}"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        csoftmax.address(name)


@pytest.mark.parametrize("name", [None, 0, b"softmax_f32", ["softmax_f32"], np.float32])
def test_a_name_that_is_no_string_is_refused(name):
    text = (
        f"address() needs a C function's name, got {name!r}: pass a string, 'softmax_row_f32' say"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        csoftmax.address(name)


# ---- Odd arguments, wherever they stand ----


def nested(depth):
    x = 1.0
    for _ in range(depth):
        x = [x]
    return x


def raising(error):
    def fail(*arguments):
        raise error

    names = ("array", "float", "index", "len", "bool", "iter", "int", "eq", "repr", "getattr")
    return type("Raising", (), {f"__{name}__": fail for name in names} | {"__hash__": None})()


def odd():
    endless, itself = [], {}
    endless.append(endless)
    itself["a"] = itself
    return [
        *(None, "", "abc", "1", b"1", float("nan"), float("inf"), 10**30, 10**5000, -1, 2**64, 1j),
        *(nested(64), nested(65), endless, [endless] * 2, itself, [], [[]], {}, set(), {1, 2}, ()),
        *(object(), object, len, slice(None), Ellipsis, NotImplemented, csoftmax, lambda: 1),
        *map(raising, (ValueError("bad"), TypeError("bad"), RuntimeError("bad"), RecursionError())),
        *(np.array(None), np.array("a"), np.zeros((1,) * 64), np.zeros((1,) * 33)),
        *(np.zeros(shape) for shape in ((0, 3), (3, 0), (0,), (3, 4, 1), (3, 1), (1, 3), (4, 3))),
        *(X.astype(kind) for kind in ("complex", "object", "longdouble", "float16", ">f8", "M8[s]")),
        *(np.zeros(3, kind) for kind in ("V3", "m8", "U5", "S2", "m8[D]", [("a", float)], "T")),
        *(np.ma.masked, [np.ma.masked], np.ma.array(X, mask=X > 3), np.ma.array(TARGET, mask=True)),
        *(np.array([[1], [1, 2]], object), [[1], [1, 2]], ["a", 1], [None], [1, "a", [2]]),
        *(np.array([10**30, 1], object), np.full(3, np.nan), np.array([2**64 - 1] * 3, np.uint64)),
        *(np.int8(1), np.float64(1), np.str_("mean"), np.bool_(True), Decimal(1), Decimal("NaN")),
        *(range(3), memoryview(b"abc"), bytearray(b"abc"), deque([1, 2]), UserList([1, 2])),
        *(np.datetime64("2020"), np.dtype("f8"), "float32", X.view(np.matrix), [[raising(KeyError())]]),
    ]  # fmt: skip


ARGUMENTS = {
    "softmax": {"x": X},
    "log_softmax": {"x": X},
    "logsumexp": {"x": X},
    "log_prob": {"logits": X, "index": TARGET},
    "softmax_backward": {"grad": X, "output": X},
    "log_softmax_backward": {"grad": X, "output": X},
    "cross_entropy": {"logits": X, "target": TARGET},
    "cross_entropy_with_grad": {"logits": X, "target": TARGET, "reduction": "none"},
    "special.softmax": {"x": X},
    "special.log_softmax": {"x": X},
    "special.logsumexp": {"a": X, "b": X[0] - 1},
    "functional.softmax": {"input": X, "dim": 1},
    "functional.log_softmax": {"input": X, "dim": 1},
    "functional.logsumexp": {"input": X, "dim": 1},
    "functional.cross_entropy": {"input": X, "target": TARGET},
    "functional.nll_loss": {"input": X, "target": TARGET},
}


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("second", ["as it is", "probabilities", "weighted"])
def test_an_odd_argument_is_taken_or_refused_in_the_functions_name(name, second):
    function = functools.reduce(getattr, name.split("."), csoftmax)
    arguments = ARGUMENTS[name]
    if second != "as it is" and "target" not in arguments:
        pytest.skip("takes no targets")
    if second == "probabilities":
        arguments = arguments | {"target": X / 66}
    elif second == "weighted":
        arguments = arguments | {"weight": np.ones(4)}
    errors, owns, fresh = [], [], X.copy()
    for argument in inspect.signature(function).parameters:
        for given in odd():
            X[...] = fresh  # a view of it may have been out
            if argument == "n_threads" and isinstance(given, int):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.filterwarnings("ignore", "Implicit dimension|size_average and reduce")
                try:
                    function(**{**arguments, argument: given})
                except (TypeError, ValueError, IndexError) as error:
                    errors.append(str(error))
                except KeyError as error:  # a user's own
                    owns.append((error.__notes__, argument))
    X[...] = fresh
    assert len(errors) > 50
    assert [text for text in errors if not text.startswith(f"{name}() ")] == []
    assert owns
    assert all(notes == [f"{name}() was reading {argument}"] for notes, argument in owns)
