"""A call needs at most 32 KB of stack: threads of musl have 128, those of an OpenMP runtime may be given 64.

painted.py makes the calls, in a process of its own, on a thread whose stack painted.c has painted, as it has those of
the OpenMP runtime. All that lies below the caller counts: NumPy's and the interpreter's part of a Python function too.
"""

import json
import os
import re
import sys
from functools import cache
from pathlib import Path

import pytest

import csoftmax
from csoftmax import _batch
from support import building, children, guarded, header, painted

LIMIT = 32 << 10
IDLE = 4096  # a thread without work shows no more, as in painted.c
PASSIVE = {"OMP_WAIT_POLICY": "passive"}
SUFFIX = re.compile("_b?f(16|32|64)$")

linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="stacks are painted by a library that is preloaded"
)
pytestmark = pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", "")
    or "libarcher" in os.environ.get("OMP_TOOL_LIBRARIES", ""),
    reason="sanitizers put more between variables than those take",
)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    target = tmp_path_factory.mktemp("painted") / "libpainted.so"
    options = ("-std=gnu99", "-O1", *building.STRICT)
    building.shared(Path(painted.__file__).with_suffix(".c"), target, *options)
    return str(target)


def python(library, *arguments):
    """Output of Python with painted stacks; one that dies fails by the call that it has named."""
    code, output, errors = children.run(*arguments, timeout=600, LD_PRELOAD=library, **PASSIVE)
    last = (output.splitlines() or [""])[-1]
    assert code == 0, f"exit code {code} in {last}\n{errors}"
    assert errors == ""
    return last


@cache
def needs_of(library, group, dtype):
    """{call: (bytes of the caller's stack, by which array, bytes of a worker's)}, the most of each."""
    return json.loads(python(library, painted.__file__, library, group, dtype))


@linux
@pytest.mark.parametrize("group", painted.GROUPS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_a_call_needs_at_most_32_kb_of_stack(library, group, dtype):
    needs = needs_of(library, group, dtype)
    above = {name: need for name, need in needs.items() if need[0] > LIMIT}
    assert needs
    assert not above, f"more than {LIMIT} bytes (and on an OpenMP thread): {above}"


@linux
@pytest.mark.skipif(not _batch.has_openmp(), reason="built without OpenMP: there are no threads")
@pytest.mark.parametrize("group", ["large", "streamed", "c_layouts", "public_layouts"])
def test_a_call_needs_at_most_32_kb_of_an_openmp_thread(library, group, dtype):
    by_worker = {name: need[2] for name, need in needs_of(library, group, dtype).items()}
    assert max(by_worker.values()) > IDLE  # some have worked
    assert max(by_worker.values()) <= LIMIT, by_worker


@linux
def test_the_stack_of_every_function_is_measured(library):
    rows_and_batches = needs_of(library, "c_rows", "float32") | needs_of(
        library, "c_batches", "float32"
    )
    measured = {re.match(r"\w+", name)[0] for name in rows_and_batches}
    assert measured == {SUFFIX.sub("", each[0]) for each in header.declared()}

    public = needs_of(library, "public_layouts", "float32")
    public |= needs_of(library, "namespaces", "float32")
    measured = {re.match(r"[\w.]+", name)[0] for name in public}
    assert measured == functions_of(csoftmax) | {
        f"{space.__name__.removeprefix('csoftmax.')}.{name}"
        for space in (csoftmax.special, csoftmax.functional)
        for name in functions_of(space)
    }


def functions_of(space):
    """Names of those that compute."""
    names = {name for name in space.__all__ if callable(getattr(space, name))}
    return names - {"address", "get_include", "release_memory", "show_config"}


@linux
@pytest.mark.parametrize("n_bytes", [2000, LIMIT, 100_000])
def test_stack_that_is_needed_is_seen(library, n_bytes):
    # The measure itself: so that the tests above can fail.
    program = (children.program("stack_needed"), library, n_bytes)
    code, output, errors = children.run(*program, LD_PRELOAD=library, **PASSIVE)
    assert code == 0, errors
    of_this, of_other, of_nothing, of_other_then = map(int, output.split())
    assert n_bytes <= of_this <= n_bytes + 1000
    assert n_bytes <= of_other <= n_bytes + 10_000  # what Python takes for a thread too
    assert of_nothing <= 0
    assert of_other_then <= IDLE


def test_every_function_runs_on_a_thread_of_64_kb():
    code, output, errors = children.run(children.program("small_stack"))
    last = (output.splitlines() or [""])[-1]
    assert code == 0, f"exit code {code} in {last}\n{errors}"
    assert last == "done"


@pytest.mark.skipif(not _batch.has_openmp(), reason="built without OpenMP: there are no threads")
@pytest.mark.parametrize("group", guarded.SHAPES)
def test_every_function_runs_on_openmp_threads_of_64_kb(group, dtype):
    arguments = (guarded.__file__, group, dtype)
    code, output, errors = children.run(*arguments, timeout=600, OMP_STACKSIZE="64K", **PASSIVE)
    assert code == 0, f"exit code {code} in {output.splitlines()[-1:]}\n{errors}"


def test_the_header_states_how_much_stack_a_call_needs():
    text = re.sub(r"\n \*", "", header.TEXT)
    assert "at most 32 KB of stack" in " ".join(text.split())
