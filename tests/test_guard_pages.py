"""Nothing is read or written beside the arrays of a call: they lie flush against pages that end the process.

guarded.py makes the calls, in a process of its own, and names each before: what is left of one that died is its name.
"""

import json
import sys

import pytest

from csoftmax import _batch
from support import children, guarded

pytestmark = pytest.mark.skipif(
    sys.platform not in ("linux", "darwin"), reason="pages are protected with POSIX's mprotect"
)

# How often each call is made. 136 lengths of rows (1 to 130, 3 around one chunk, 3 around two), along either axis, at
# both ends: of 7 numbers of rows, and of 2 with special values; of 2 one byte off, where any address will do.
PLAIN, SPECIAL, ONE_BYTE_OFF = 136 * 2 * 2 * 7, 136 * 2 * 2 * 2, 136 * 2 * 2 * 2
COUNTS = {
    "public": (30, PLAIN + SPECIAL + ONE_BYTE_OFF),
    "drivers": (11, PLAIN + SPECIAL),
    "c_rows": (17, 136 * 2 * 3),  # single rows have one axis
    "c_batches": (20, PLAIN + SPECIAL + ONE_BYTE_OFF),
    "large": (78, 3 * 2 * 2),
    "streamed": (4, 3 * 2 * 2),
}


def guarded_calls(*arguments):
    """How often each call was made; one that dies fails by its name."""
    code, output, errors = children.run(
        guarded.__file__, *arguments, timeout=600, OMP_WAIT_POLICY="passive"
    )
    *names, last = output.splitlines() or [""]
    assert code == 0, f"exit code {code} in {last}\n{errors}"
    counts = json.loads(last)
    assert sum(counts.values()) == len(names)
    return counts


@pytest.mark.parametrize("group", COUNTS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_nothing_beside_the_arrays_is_read_or_written(dtype, group):
    counts = guarded_calls(group, dtype)
    n_names, each = COUNTS[group]
    assert len(counts) == n_names
    assert set(counts.values()) == {each}


def test_every_c_function_is_among_the_guarded_calls(dtype):
    functions = guarded.c_functions(dtype)
    suffix = "_f32" if dtype == "float32" else "_f64"
    assert {name + suffix for name in functions} == {
        name for name in _batch.C_NAMES if name.endswith(suffix)
    }
    arrays = guarded.Arrays(dtype, 8)
    arrays.lay_out("end", 2, 4, 1, False)
    called = {name.split(": ")[1] for name, _ in guarded.calls_of("large", arrays)}
    for name in functions:
        assert any(call.replace(",", " ").split()[0] == name for call in called), name


@pytest.mark.parametrize("family", ["public", "drivers", "c_batches"])
def test_targets_that_another_thread_rewrites_lead_nowhere_beside_the_arrays(family):
    # Values just outside the classes lead to what lies beside the arrays. A wrong number is allowed.
    program = children.program("rewritten_guarded_targets")
    code, output, errors = children.run(program, family)
    assert code == 0, f"exit code {code} in {output.splitlines()[-1:]}\n{errors}"


@pytest.mark.parametrize("place", [*guarded.FLUSH, *guarded.MISALIGNED])
@pytest.mark.parametrize("way", ["read", "write"])
def test_one_element_beside_a_guarded_array_ends_the_process(place, way):
    # The guard itself: so that the tests above can fail.
    code, output, _ = children.run(children.program("beside_a_guard"), place, way)
    assert output == "before 7750.0\n"
    assert code < 0  # a signal
