"""The suites are as large as they claim: nothing has dropped out of them unseen."""

from collections import Counter

from onnx_cases import CASES
from option_sets import COMBINATIONS, N_SETS


def test_onnx_has_75_cases():
    assert Counter(case.model.graph.node[0].op_type for case in CASES) == {
        "Softmax": 7,
        "LogSoftmax": 7,
        "SoftmaxCrossEntropyLoss": 34,
        "NegativeLogLikelihoodLoss": 18,
        "ReduceLogSumExp": 9,
    }


def test_each_combination_of_options_comes_five_times():
    assert len(COMBINATIONS) == len(set(COMBINATIONS)) == 180
    assert N_SETS >= 5 * len(COMBINATIONS)
