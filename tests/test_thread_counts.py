"""What n_threads takes: None and -1, joblib's word for all, use as many threads as pay."""

import inspect
from pathlib import Path

import numpy as np
import pytest

import csoftmax
from csoftmax import _batch, functional, special
from support import children, layouts
from support.bits import same_bits
from support.cases import logits_of
from support.options import AFTER_X, called

FUNCTIONS = list(AFTER_X)
TASKS = Path("/proc/self/task")
KINDS = {
    "plain": lambda x: x,  # which takes the shortest way
    "strided": layouts.strided,
    "half": lambda x: x.astype(np.float16),
    "integers": lambda x: x.astype(np.int32),
}


def test_every_function_with_a_number_of_threads_is_tested_here():
    found = []
    for module in (csoftmax, special, functional):
        for name in module.__all__:
            given = getattr(module, name)
            if inspect.isfunction(given) and "n_threads" in inspect.signature(given).parameters:
                found.append(name)
    assert sorted(found) == sorted(FUNCTIONS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_minus_one_is_taken_as_none(rng, name, kind):
    x = KINDS[kind](logits_of(rng, (300, 700), np.float32))
    expected = called(name, x)
    for n_threads in (-1, np.int64(-1), np.int8(-1)):
        got = called(name, x, n_threads=n_threads)
        assert all(same_bits(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.skipif(not TASKS.exists(), reason="threads are counted in /proc")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_minus_one_uses_more_threads_than_one(name):
    if _batch.max_threads() < 2:
        pytest.skip("one processor, or no OpenMP")
    numbers = children.run_well(children.program("threads_of_a_call"), name, 2000, 1000, 1, -1)
    by_one, by_minus_one, _ = map(int, numbers.split())
    assert by_one == 0
    assert by_minus_one > 0
