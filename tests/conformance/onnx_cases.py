"""The node cases of ONNX's operators that csoftmax computes, and the operators by csoftmax.functional and .special."""

import warnings

import pytest

from csoftmax import functional, special

loader = pytest.importorskip("onnx.backend.test.loader", reason="ONNX is an optional peer")


def softmax(x, *, axis=-1):
    return [functional.softmax(x, axis)]


def log_softmax(x, *, axis=-1):
    return [functional.log_softmax(x, axis)]


def cross_entropy(scores, labels, weights=None, *, ignore_index=None, reduction=b"mean"):
    loss = functional.cross_entropy(
        scores, labels, weights, ignore_index=ignore_index, reduction=reduction.decode()
    )
    return [loss, functional.log_softmax(scores, 1)]


def negative_log_likelihood(input, target, weight=None, *, ignore_index=None, reduction=b"mean"):
    return [
        functional.nll_loss(
            input, target, weight, ignore_index=ignore_index, reduction=reduction.decode()
        )
    ]


def logsumexp(data, axes=None, *, keepdims=1):
    axes = None if axes is None or not axes.size else tuple(axes.tolist())  # none mean all
    return [special.logsumexp(data, axes, keepdims=bool(keepdims))]


OPERATORS = {
    "Softmax": softmax,
    "LogSoftmax": log_softmax,
    "SoftmaxCrossEntropyLoss": cross_entropy,
    "NegativeLogLikelihoodLoss": negative_log_likelihood,
    "ReduceLogSumExp": logsumexp,
}


def cases():
    """The models of one node; those with "expanded" in the name spell the operator out in others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators of other operators' cases divide by zero
        loaded = loader.load_model_tests(kind="node")
    return [
        case
        for case in loaded
        if len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type in OPERATORS
    ]


CASES = cases()
