"""Any call of any public function: it answers, with the bits of the same call on plain arrays, or it raises what the
contract names and leaves its arguments alone. `make fuzz` makes as many calls as an hour allows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import csoftmax
from csoftmax import functional, special
from support.random_calls import (
    arrays,
    axes_of,
    check,
    mostly,
    outputs,
    rows_of,
    targets,
    temperatures,
    threads,
)


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
