"""The node cases of ONNX: its operators' arrays and attributes, by csoftmax.functional and csoftmax.special.

No runtime takes part: a case holds the inputs, the expected outputs and the tolerances.
"""

import numpy as np
import pytest
from onnx_cases import CASES, OPERATORS

helper = pytest.importorskip("onnx.helper")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.removeprefix("test_"))
def test_every_output_of_a_node_is_within_the_tolerance_of_its_case(case):
    (node,) = case.model.graph.node
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    for inputs, outputs in case.data_sets:
        got = OPERATORS[node.op_type](*inputs, **attributes)
        for ours, expected in zip(got, outputs, strict=False):  # log_prob is optional
            assert ours.dtype == expected.dtype
            assert ours.shape == expected.shape
            np.testing.assert_allclose(ours, expected, rtol=case.rtol, atol=case.atol)
