"""The caller's floating-point state and signals: neither matters to a result, nor is changed."""

import signal
import sys
import time

import numpy as np
import pytest

import csoftmax
from support import children
from support.bits import different
from support.cases import logits_of
from support.floating_point import flushing, rounding, x86_64_linux
from support.options import arguments_of, results_of, scalars_of


def all_bits(x, target):
    """Results whose every bit is computed: large enough for two threads, and small."""
    values = []
    for rows in (slice(None), slice(3)):
        a, t = x[rows], target[rows]
        p, log_p = csoftmax.softmax(a, n_threads=2), csoftmax.log_softmax(a, n_threads=2)
        options = {"label_smoothing": 0.1, "temperature": 0.7, "n_threads": 2}
        values += csoftmax.cross_entropy_with_grad(a, t, weight=np.arange(60) / 8, **options)
        values += csoftmax.cross_entropy_with_grad(a, p, weight=np.arange(60) / 8, **options)
        values += [csoftmax.softmax_backward(a, p), csoftmax.log_softmax_backward(a, log_p)]
        values += [csoftmax.log_prob(a, t, temperature=0.7, n_threads=2)]
        for reduction in ("none", "sum", "mean"):
            values += csoftmax.cross_entropy_with_grad(a, t, reduction=reduction, n_threads=2)
        values += [csoftmax.softmax(a, n_threads=2), csoftmax.log_softmax(a, n_threads=2)]
        values += [csoftmax.logsumexp(a, n_threads=2), csoftmax.softmax(a, 0)]
    return dict(enumerate(values))


@pytest.fixture
def case(rng, dtype):
    x = logits_of(rng, (1500, 60), dtype, 30)
    x[::5] *= 3 if dtype == "float32" else 25  # subnormal results, and none at all
    return x, rng.integers(0, 60, 1500)


@x86_64_linux
@pytest.mark.parametrize("mode", ["down", "up", "zero"])
def test_the_callers_rounding_mode_neither_matters_nor_changes(case, mode):
    expected = all_bits(*case)
    with rounding(mode):
        got = all_bits(*case)
    assert different(got, expected) == []


@x86_64_linux
@pytest.mark.parametrize("mode", ["down", "up", "zero"])
def test_the_callers_rounding_mode_does_not_matter_with_options_either(case, rng, mode):
    x, _ = case
    given = arguments_of(rng, x.shape, 1, "float64")  # probabilities are converted
    expected, scalars = results_of(x, given, 1), scalars_of(x, given, 1)
    with rounding(mode):
        got, got_scalars = results_of(x, given, 1), scalars_of(x, given, 1)
    assert different(got, expected) == []
    assert different(got_scalars, scalars) == []


@x86_64_linux
def test_the_callers_flushing_of_subnormals_neither_matters_nor_changes(case):
    expected = all_bits(*case)
    results = expected.values()
    assert any(((a != 0) & (np.abs(a) < np.finfo(a.dtype).smallest_normal)).any() for a in results)
    with flushing():
        got = all_bits(*case)
    assert different(got, expected) == []


def test_importing_and_calling_leave_subnormals_alone():
    children.run_well(children.program("kept_subnormals"))


@x86_64_linux
def test_importing_leaves_the_process_as_it_was():
    assert children.run_well(children.program("changed_by_import")) == "12 []\n"


def test_results_raise_no_floating_point_errors(case):
    with np.errstate(all="raise"):
        all_bits(*case)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is POSIX's")
@pytest.mark.parametrize(
    ("shape", "n_threads"),
    [((10_000_000, 4000), 1), ((10_000_000, 4000), 2), ((1, 40_000_000_000), 2)],
)
def test_ctrl_c_stops_a_long_call_within_a_second_and_the_process_goes_on(shape, n_threads):
    process = children.start(children.program("long_call"), *shape, n_threads)
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        output, errors = process.communicate(timeout=30)
        elapsed = time.monotonic() - start
    finally:
        process.kill()
        process.wait()
    assert output == "interrupted\nusable\n", errors
    assert process.returncode == 0
    assert elapsed < 1
