"""What sanitizers look for is seen: reads beside an array on the heap, what C leaves undefined, races of threads."""

import os
import sys

import pytest

from support import children

sanitize = pytest.mark.skipif(
    "libasan" not in os.environ.get("LD_PRELOAD", ""), reason="`make sanitize` runs this"
)
thread_sanitize = pytest.mark.skipif(
    "libarcher" not in os.environ.get("OMP_TOOL_LIBRARIES", ""),
    reason="`make thread-sanitize` runs this",
)


@sanitize
@pytest.mark.parametrize(
    ("call", "report"),
    [
        # A row that is said to be longer than its array, in the kernels and in the drivers.
        ("c['softmax_row'](at(x), 1100, at(np.empty(1100)))", "heap-buffer-overflow"),
        ("c['log_prob'](at(x), 1, 9, 0, 1, at(y), 8, at(x), 1, None)", "heap-buffer-overflow"),
        # A state, and class indices, where no double or int64 can lie.
        ("c['partial'](at(x) + 4, at(x), 1000)", "misaligned address"),
        (
            "_batch.scan_targets(np.frombuffer(bytes(81), np.int64, 9, 1), 9, 0, 1)",
            "misaligned address",
        ),
    ],
)
def test_a_call_that_breaks_the_contract_is_reported(call, report):
    assert_reported(call, report)


@thread_sanitize
@pytest.mark.parametrize(
    "call",
    [
        # Two threads of one call, whose rows are written to one place; and two calls.
        "c['softmax'](at(x), 500, 1000, 0, 1, at(out), 0, 1, 2)",
        "with ThreadPoolExecutor(2) as pool:"
        " list(pool.map(lambda _: csoftmax.softmax(logits, out=out, n_threads=1), range(40)))",
    ],
)
def test_a_race_is_reported(call):
    assert_reported(call, "data race")


def assert_reported(call, report):
    code, output, errors = children.run(children.program("contract_breach"), call)
    assert output == "before\n"
    assert code != 0
    assert report in errors
    assert "csoftmax" in errors.split(report)[1]  # where it happened


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param((b"__asan_report", b"__ubsan_handle"), marks=sanitize),
        pytest.param((b"__tsan_read", b"__tsan_write"), marks=thread_sanitize),
    ],
)
def test_the_modules_under_test_are_the_sanitized_ones(calls):
    from csoftmax import _batch, _isa

    for module in (_batch, sys.modules[f"csoftmax.kernels._{_isa.NAME}"]):
        with open(module.__file__, "rb") as file:
            code = file.read()
        assert all(call in code for call in calls)
