"""What `make sanitize` looks for is seen: reads beside an array on the heap, and what C leaves undefined."""

import os
import sys

import children
import pytest

pytestmark = pytest.mark.skipif(
    "libasan" not in os.environ.get("LD_PRELOAD", ""), reason="`make sanitize` runs this file"
)


@pytest.mark.parametrize(
    ("call", "report"),
    [
        # A row that is said to be longer than its array, in the kernels and in the drivers.
        ("c['softmax_row'](at(x), 1100, at(np.empty(1100)))", "heap-buffer-overflow"),
        ("c['log_prob'](at(x), 1, 9, 0, 1, at(y), 8, at(x), 1, None)", "heap-buffer-overflow"),
        # A state, and class indices, where no double or int64 can lie.
        ("c['partial'](at(x) + 4, at(x), 1000)", "misaligned address"),
        (
            "_batch.scan_targets(np.frombuffer(bytes(81), np.int64, 9, 1), 9, 0)",
            "misaligned address",
        ),
    ],
)
def test_a_call_that_breaks_the_contract_is_reported(call, report):
    program = f"""if True:
        import sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import numpy as np, guarded
        from csoftmax import _batch
        c, at = guarded.c_functions("float64"), guarded.address_of
        x, y = np.zeros(1000), np.zeros(0, np.int64)
        print("before", flush=True)
        {call}
        print("after")
    """
    code, output, errors = children.run("-c", program)
    assert output == "before\n"
    assert code != 0
    assert report in errors
    assert "csoftmax" in errors.split(report)[1]  # where it happened


def test_the_modules_under_test_are_the_sanitized_ones():
    from csoftmax import _batch, _isa

    for module in (_batch, sys.modules[f"csoftmax.kernels._{_isa.NAME}"]):
        with open(module.__file__, "rb") as file:
            code = file.read()
        assert b"__asan_report" in code
        assert b"__ubsan_handle" in code
