"""What every function refuses: the whole text of the error, no byte of any output changed."""

import warnings

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import csoftmax

X = np.arange(12.0).reshape(3, 4)
TARGET = np.array([0, 1, 3])
FUNCTIONS = ["softmax", "log_softmax", "logsumexp", "cross_entropy", "cross_entropy_with_grad"]
LOSSES = ["cross_entropy", "cross_entropy_with_grad"]
WITH_OUT = ["softmax", "log_softmax", "logsumexp", "cross_entropy_with_grad"]
AxisError = np.exceptions.AxisError


def call(name, x, target=TARGET, **options):
    function = getattr(csoftmax, name)
    return function(x, target, **options) if name in LOSSES else function(x, **options)


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
        ("complex64", "got complex64: pass its real part"),
        ("complex128", "got complex128: pass its real part"),
        (
            "longdouble",
            f"got {np.dtype('longdouble')}: convert it with numpy.asarray({{name}}, dtype=numpy.float64)",
        ),
        ("object", "got object: convert it with numpy.asarray({name}, dtype=numpy.float64)"),
        ("U", "got <U32: pass an array of numbers as {name}"),
        ("S", "got |S32: pass an array of numbers as {name}"),
        ("M8[s]", "got datetime64[s]: pass an array of numbers as {name}"),
        ("m8[s]", "got timedelta64[s]: pass an array of numbers as {name}"),
    ],
)
def test_a_dtype_without_kernels_is_refused_by_name_and_with_a_cure(name, given, text):
    x = X.astype("int64").astype(given) if given[0] in "Mm" else X.astype(given)
    if np.dtype("longdouble") == np.float64 and given == "longdouble":
        pytest.skip("longdouble is float64 here")
    text = text.format(name="logits" if name in LOSSES else "x")
    assert error_of(name, x) == (TypeError, f"{name}() needs float32 or float64, {text}")


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("axis", [2, -3, 10**30])
def test_an_axis_that_the_array_has_not_is_refused(name, axis):
    text = f"{name}() needs an axis from -2 to 1, got {axis}: choose one of these"
    assert error_of(name, X, axis=axis) == (AxisError, text)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("axis", [1.0, "0", None, (0, 1), np.float64(1)])
def test_an_axis_that_is_no_integer_is_refused(name, axis):
    text = f"{name}() needs an integer axis, got {axis!r}: choose one from -2 to 1"
    assert error_of(name, X, axis=axis) == (TypeError, text)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("n_threads", [1.5, "2", float("nan")])
def test_a_number_of_threads_that_is_no_integer_is_refused(name, n_threads):
    text = f"{name}() needs an integer or None as n_threads, got {n_threads!r}: None uses as many"
    assert error_of(name, X, n_threads=n_threads) == (TypeError, text + " as pay")


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("n_threads", [0, -1, -(10**30)])
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
    kind, text = error_of(name, [[1, 2], [3]])
    assert kind is ValueError
    noun = "logits" if name in LOSSES else "x"
    wanted = f"{name}() needs {noun} with rows of one length, got a ragged list: pad or split it"
    assert text == wanted


@pytest.mark.parametrize("name", LOSSES)
def test_a_ragged_list_of_targets_is_refused(name):
    text = "needs an array of class indices as target, got a ragged list: pass one index per row"
    assert error_of(name, X, [[0], [1, 2]]) == (ValueError, f"{name}() {text}")


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["average", "", None, "Mean", 0, np.ones(2)])
def test_a_reduction_that_is_none_of_the_three_is_refused(name, reduction):
    text = f"{name}() needs a reduction of 'mean', 'sum' or 'none', got {reduction!r}:"
    assert error_of(name, X, reduction=reduction) == (ValueError, text + " choose one of these")


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("ignore_index", ["pad", 1.0, [1], np.float32(2)])
def test_an_ignore_index_that_is_no_integer_is_refused(name, ignore_index):
    text = f"{name}() needs an integer or None as ignore_index, got {ignore_index!r}: None"
    assert error_of(name, X, ignore_index=ignore_index) == (TypeError, text + " ignores no target")


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", ["bool", "float16", "float32", "complex128", "object", "U"])
def test_targets_of_a_dtype_that_is_no_integer_are_refused(name, dtype):
    target = np.array([0, 1, 1]).astype(dtype)
    text = f"{name}() needs integer class indices as target, got {target.dtype}: convert it with"
    assert error_of(name, X, target) == (
        TypeError,
        text + " numpy.asarray(target, dtype=numpy.int64)",
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(), (2,), (4,), (3, 1), (1, 3), (3, 4), (0,)])
@pytest.mark.parametrize("axis", [1, -1])
def test_targets_of_another_shape_are_refused(name, shape, axis):
    text = (
        f"{name}() needs one target per row: logits (3, 4) with axis=-1 want targets of shape (3,)"
    )
    assert error_of(name, X, np.zeros(shape, int), axis=axis) == (
        ValueError,
        f"{text}, got {shape}",
    )


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
