"""Wrong uses: the whole text of each error, and nothing written."""

import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import csoftmax

X = np.arange(12.0).reshape(3, 4)
AxisError = np.exceptions.AxisError

ELEMENTWISE = [
    (dict(x=X.astype(complex)), TypeError,
     "softmax() needs float32 or float64, got complex128: pass its real part, or use scipy.special"),
    (dict(x=X.astype(np.longdouble)), TypeError,
     f"softmax() needs float32 or float64, got {np.dtype(np.longdouble)}: convert it with x.astype(numpy.float64)"),
    (dict(x=X.astype(object)), TypeError,
     "softmax() needs float32 or float64, got object: convert it with numpy.asarray(x, dtype=numpy.float64)"),
    (dict(x=["a", "b"]), TypeError, "softmax() needs float32 or float64, got <U1: convert it to numbers first"),
    (dict(x=X, axis=2), AxisError, "softmax() needs an axis from -2 to 1, got 2: the array has 2 dimensions"),
    (dict(x=X[0], axis=-2), AxisError, "softmax() needs an axis from -1 to 0, got -2: the array has 1 dimension"),
    (dict(x=X, axis=1.0), TypeError, "softmax() needs an integer axis, got 1.0: choose one from -2 to 1"),
    (dict(x=X, axis=None), TypeError, "softmax() needs an integer axis, got None: choose one from -2 to 1"),
    (dict(x=X, n_threads=0), ValueError,
     "softmax() needs n_threads of 1 or more, got 0: leave it out, or None, to use as many as pay"),
    (dict(x=X, n_threads=1.5), ValueError,
     "softmax() needs n_threads of 1 or more, got 1.5: leave it out, or None, to use as many as pay"),
    (dict(x=X, out=[1]), TypeError,
     "softmax() needs a NumPy array as out, got list: make it with numpy.empty((3, 4), numpy.float64)"),
    (dict(x=X, out=np.full((3, 4), 7, np.float32)), TypeError,
     "softmax() needs out of dtype float64, got float32: make it with numpy.empty((3, 4), numpy.float64)"),
    (dict(x=X, out=np.full((3, 4), 7, ">f8")), TypeError,
     "softmax() needs out of dtype float64, got >f8: make it with numpy.empty((3, 4), numpy.float64)"),
    (dict(x=X, out=np.full((4, 3), 7.0)), ValueError,
     "softmax() needs out of shape (3, 4), got (4, 3): make it with numpy.empty((3, 4), numpy.float64)"),
    (dict(x=X, out=np.broadcast_to(np.full(4, 7.0), (3, 4))), ValueError,
     "softmax() needs a writable out, got a read-only array: pass out.copy()"),
    (dict(x=X, out=np.lib.stride_tricks.as_strided(np.full(4, 7.0), (3, 4), (0, 8))), ValueError,
     "softmax() needs an out whose elements lie apart, got strides (0, 8): pass out.copy()"),
]
LOSSES = [
    (dict(logits=X, target=[0, 1, 4]), IndexError,
     "target 4 at position 2 is not a class: 4 classes are numbered 0 to 3"),
    (dict(logits=X, target=[0, -1, 3]), IndexError,
     "target -1 at position 1 is not a class: 4 classes are numbered 0 to 3"),
    (dict(logits=X, target=[-100, 1, 3], ignore_index=None), IndexError,
     "target -100 at position 0 is not a class: 4 classes are numbered 0 to 3"),
    (dict(logits=X[:, :1], target=[0, 0, 1]), IndexError, "target 1 at position 2 is not a class: the only class is 0"),
    (dict(logits=X[:, :0], target=[0, 0, 0]), IndexError, "target 0 at position 0 is not a class: there are no classes"),
    (dict(logits=X[0], target=9), IndexError, "target 9 is not a class: 4 classes are numbered 0 to 3"),
    (dict(logits=X.reshape(3, 2, 2), target=[[0, 1], [0, 0], [1, 5]], axis=1), IndexError,
     "target 5 at position (2, 1) is not a class: 2 classes are numbered 0 to 1"),
    (dict(logits=X, target=[0, 1]), ValueError,
     "needs one target per row: logits (3, 4) with axis=-1 want targets of shape (3,), got (2,)"),
    (dict(logits=X, target=[0, 1], axis=0), ValueError,
     "needs one target per row: logits (3, 4) with axis=-2 want targets of shape (4,), got (2,)"),
    (dict(logits=X, target=[True, False, True]), TypeError,
     "needs integer class indices as target, got bool: convert it with target.astype(numpy.int64)"),
    (dict(logits=X, target=[0.0, 1.0, 2.0]), TypeError,
     "needs integer class indices as target, got float64: convert it with target.astype(numpy.int64)"),
    (dict(logits=X, target=[0, 1, 2], reduction="average"), ValueError,
     "needs a reduction of 'mean', 'sum' or 'none', got 'average'"),
    (dict(logits=X, target=[0, 1, 2], ignore_index="pad"), TypeError,
     "needs an integer or None as ignore_index, got 'pad'"),
    (dict(logits=3.0, target=0), ValueError, "needs logits of at least one dimension, got a scalar"),
    (dict(logits=X.astype(complex), target=[0, 1, 2]), TypeError,
     "needs float32 or float64, got complex128: pass its real part, or use scipy.special"),
]


def whole(text):
    return "^" + re.escape(text) + "$"


@pytest.mark.parametrize(("arguments", "error", "text"), ELEMENTWISE)
@pytest.mark.parametrize("function", [csoftmax.softmax, csoftmax.log_softmax], ids=lambda f: f.__name__)
def test_elementwise_errors_say_what_is_needed_what_was_given_and_the_cure(function, arguments, error, text):
    out = arguments.get("out")
    before = None if not isinstance(out, np.ndarray) else out.copy()
    with pytest.raises(error, match=whole(text.replace("softmax()", function.__name__ + "()"))):
        function(**arguments)
    if before is not None:
        assert_array_equal(out, before)


def test_logsumexp_refuses_an_out_of_another_shape():
    out = np.full((3, 1), 7.0)
    text = "logsumexp() needs out of shape (3,), got (3, 1): make it with numpy.empty((3,), numpy.float64)"
    with pytest.raises(ValueError, match=whole(text)):
        csoftmax.logsumexp(X, out=out)
    assert_array_equal(out, 7)


@pytest.mark.parametrize(("arguments", "error", "text"), LOSSES)
def test_loss_errors_say_what_is_needed_what_was_given_and_the_cure(arguments, error, text):
    space = " " if text.startswith(("target", "needs")) else ""
    with pytest.raises(error, match=whole("cross_entropy()" + space + text)):
        csoftmax.cross_entropy(**arguments)
    out = np.full(np.shape(arguments["logits"]), 7.0)
    with pytest.raises(error, match=whole("cross_entropy_with_grad()" + space + text)):
        csoftmax.cross_entropy_with_grad(**arguments, out=out)
    assert_array_equal(out, 7)


@pytest.mark.parametrize("kind", "bBhHiIlLqQ")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_hostile_targets_are_refused_before_anything_is_written(kind, reduction):
    info = np.iinfo(kind)
    for value in {-1, 4, info.min, info.max} - {0}:
        if not info.min <= value <= info.max:
            continue
        target = np.array([0, value, 2], kind)
        logits = X.copy()
        text = f"cross_entropy_with_grad() target {value} at position 1 is not a class: 4 classes are numbered 0 to 3"
        with pytest.raises(IndexError, match=whole(text)):
            csoftmax.cross_entropy_with_grad(logits, target, reduction=reduction, out=logits)
        assert_array_equal(logits, X)


def test_a_ragged_list_is_refused():
    with pytest.raises(ValueError, match=r"^softmax\(\) needs x to be an array: "):
        csoftmax.softmax([[1, 2], [3]])
