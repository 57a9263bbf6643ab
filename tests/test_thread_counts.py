"""What n_threads takes: None and -1, joblib's word for all, use as many threads as pay."""

import inspect
from pathlib import Path

import children
import numpy as np
import pytest
from reference import logits_of, same_bits

import csoftmax
from csoftmax import _batch, functional, special

# What a function takes after x: the targets, or the result of another one.
SECOND = {
    **dict.fromkeys(["softmax", "log_softmax", "logsumexp"], lambda x: ()),
    **dict.fromkeys(
        ["cross_entropy", "cross_entropy_with_grad", "log_prob"],
        lambda x: (np.arange(len(x)) % x.shape[1],),
    ),
    "softmax_backward": lambda x: (csoftmax.softmax(x, n_threads=1),),
    "log_softmax_backward": lambda x: (csoftmax.log_softmax(x, n_threads=1),),
}
FUNCTIONS = list(SECOND)
TASKS = Path("/proc/self/task")
LAYOUTS = {
    "plain": lambda x: x,  # which takes the shortest way
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "half": lambda x: x.astype(np.float16),
    "integers": lambda x: x.astype(np.int32),
}


def called(name, x, **options):
    """What the function returns, as a list of arrays."""
    result = getattr(csoftmax, name)(x, *SECOND[name](x), **options)
    return list(result) if isinstance(result, tuple) else [result]


def test_every_function_with_a_number_of_threads_is_tested_here():
    found = []
    for module in (csoftmax, special, functional):
        for name in module.__all__:
            given = getattr(module, name)
            if inspect.isfunction(given) and "n_threads" in inspect.signature(given).parameters:
                found.append(name)
    assert sorted(found) == sorted(FUNCTIONS)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_minus_one_is_taken_as_none(rng, name, layout):
    x = LAYOUTS[layout](logits_of(rng, (300, 700), np.float32))
    expected = called(name, x)
    for n_threads in (-1, np.int64(-1), np.int8(-1)):
        got = called(name, x, n_threads=n_threads)
        assert all(same_bits(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.skipif(not TASKS.exists(), reason="threads are counted in /proc")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_minus_one_uses_more_threads_than_one(name):
    if _batch.max_threads() < 2:
        pytest.skip("one processor, or no OpenMP")
    body = f"""if True:
    import numpy as np
    from test_thread_counts import TASKS, called
    def started(n_threads):
        before = len(list(TASKS.iterdir()))
        called({name!r}, x, n_threads=n_threads)
        return len(list(TASKS.iterdir())) - before
    x = np.ones((2000, 1000), np.float32)
    print(started(1), started(-1) > 0)
"""
    here = str(Path(__file__).parent)
    assert children.run_well("-c", body, PYTHONPATH=here) == "0 True\n"
