"""The same bits for every number of threads and every split of the batch."""

import hashlib
import itertools
import math
import sys

import numpy as np
import pytest

import csoftmax
from csoftmax import _batch, _isa
from support import children
from support.bits import different, same_bits
from support.cases import logits_of, targets_of
from support.options import arguments_of, results_of, scalars_of

# A thread gets at least 32768 elements: each of these is worth two, most are worth more than eight.
LARGE = [
    ((70, 40_000), 1),
    ((40_000, 70), 0),
    ((30_000, 10), 1),
    ((3, 300_000), 1),
    ((60, 90, 64), 1),
]
SMALLER = [((60, 2500), 1), ((2500, 60), 0), ((15_000, 10), 1), ((2, 70_000), 1), ((9, 90, 64), 1)]
SPLIT = [((70, 40_000), 1), ((5000, 10), 1), ((300, 1000), 1), ((1000, 257), 1)]


def results(x, target, axis, n_threads=None):
    loss, grad = csoftmax.cross_entropy_with_grad(
        x, target, axis=axis, reduction="none", n_threads=n_threads
    )
    return {
        "softmax": csoftmax.softmax(x, axis, n_threads=n_threads),
        "log_softmax": csoftmax.log_softmax(x, axis, n_threads=n_threads),
        "logsumexp": csoftmax.logsumexp(x, axis, n_threads=n_threads),
        "losses": loss,
        "gradient": grad,
    }


def case_of(rng, shape, axis, dtype):
    return logits_of(rng, shape, dtype), targets_of(rng, shape, axis)


@pytest.mark.parametrize(("shape", "axis"), LARGE)
def test_same_bits_for_every_number_of_threads(rng, dtype, shape, axis):
    x, target = case_of(rng, shape, axis, dtype)
    expected = results(x, target, axis, 1)
    scalars = csoftmax.cross_entropy(x, target, axis=axis, n_threads=1)
    for n_threads in (2, 3, 8, None, 10**9):
        got = results(x, target, axis, n_threads)
        assert different(got, expected) == []
        loss = csoftmax.cross_entropy(x, target, axis=axis, n_threads=n_threads)
        assert same_bits(loss, scalars)


def test_chunks_far_below_the_maximum_have_the_same_bits_however_they_are_split(rng):
    # One thread keeps their terms, several compute them again. Where probabilities are about 2**-49, the low part of
    # the factor that terms are multiplied by is subnormal then; of some, a lost digit changes the last place.
    x = logits_of(rng, (2, 64, 2048), "float32", 0.3) - np.linspace(27, 33, 64, dtype="f")[:, None]
    x[:, 0] = -100
    x[:, 0, 0] = 0
    x, target = x.reshape(2, -1), np.array([0, 100_000])
    expected = results(x, target, 1, 1)
    for n_threads in (2, 3):
        got = results(x, target, 1, n_threads)
        assert different(got, expected) == []


@pytest.mark.parametrize(("shape", "axis"), SMALLER)
def test_same_bits_for_every_number_of_threads_with_options_too(rng, dtype, shape, axis):
    x, given = logits_of(rng, shape, dtype), arguments_of(rng, shape, axis, dtype)
    expected, scalars = results_of(x, given, axis, 1), scalars_of(x, given, axis, 1)
    for n_threads in (2, 3, None):
        assert different(results_of(x, given, axis, n_threads), expected) == []
        assert different(scalars_of(x, given, axis, n_threads), scalars) == []


def some_rows(given, part):
    """The rows of each argument that has some: the classes' weights have none."""
    return {name: a if name == "weight" else a[part] for name, a in given.items()}


@pytest.mark.parametrize(
    ("shape", "axis"), [((70, 5000), 1), ((500, 10), 1), ((300, 100), 1), ((40, 3, 65), 1)]
)
def test_same_bits_for_every_split_of_the_batch_with_options_too(rng, dtype, shape, axis):
    x, given = logits_of(rng, shape, dtype), arguments_of(rng, shape, axis, dtype)
    whole = results_of(x, given, axis)
    n_rows = len(x)
    for cuts in ([1], [n_rows // 2], [15, 32], [17, 18, n_rows - 1]):
        edges = [0, *cuts, n_rows]
        parts = [slice(a, b) for a, b in itertools.pairwise(edges)]
        results = [results_of(x[part], some_rows(given, part), axis) for part in parts]
        together = {name: np.concatenate([part[name] for part in results]) for name in whole}
        assert different(together, whole) == []


@pytest.mark.parametrize(
    "n_rows", [131_073, 200_001]
)  # so many that threads share targets and losses
def test_targets_and_losses_of_very_many_rows_are_those_of_one_thread(rng, n_rows):
    x, target = logits_of(rng, (n_rows, 3), "float64"), rng.integers(0, 3, n_rows)
    target[::7] = -100
    losses = csoftmax.cross_entropy(x, target, reduction="none", n_threads=1)
    for reduction, divisor in (("sum", 1), ("mean", (target >= 0).sum())):
        one = csoftmax.cross_entropy(x, target, reduction=reduction, n_threads=1)
        # Fewer than n_rows / 1024 + 128 + 7 roundings on the way of each loss.
        assert abs(one * divisor / math.fsum(losses) - 1) < (n_rows / 1024 + 137) * 2**-53
        for n_threads in (2, 3, 8):
            got = csoftmax.cross_entropy(x, target, reduction=reduction, n_threads=n_threads)
            assert same_bits(got, one)
    weight, sample_weight = np.array([0.1, 3, 1 / 3]), rng.uniform(0.5, 2, n_rows)
    options = {"weight": weight, "sample_weight": sample_weight}
    losses = csoftmax.cross_entropy(x, target, reduction="none", n_threads=1, **options)
    divisor = math.fsum((weight[target % 3] * sample_weight)[target >= 0])
    one = csoftmax.cross_entropy(x, target, n_threads=1, **options)
    # At most 1024 roundings in a block of weights, and one for each block; half a unit each.
    assert abs(one * divisor / math.fsum(losses) - 1) < (n_rows / 512 + 1200) * 2**-53
    for n_threads in (2, 3, 8):
        assert same_bits(csoftmax.cross_entropy(x, target, n_threads=n_threads, **options), one)
    for place in (0, 32_767, 32_768, n_rows - 1):
        wrong = target.copy()
        wrong[place] = 3
        for n_threads in (1, 2, 3):
            with pytest.raises(IndexError, match=f"target 3 at position {place} "):
                csoftmax.cross_entropy(x, wrong, n_threads=n_threads)


@pytest.mark.parametrize("shape", [(6, 10, 200, 200), (8, 40, 150, 150), (9, 300, 45, 44)])
def test_columns_that_are_fetched_or_go_past_the_cache_have_the_bits_of_their_parts(
    rng, dtype, shape
):
    x, out = logits_of(rng, shape, dtype), np.empty(shape, dtype)
    for function in (csoftmax.softmax, csoftmax.log_softmax):
        assert function(x, 1, out=out) is out
        for part in (0, -1):
            rows = np.ascontiguousarray(np.moveaxis(x[part], 0, -1))
            assert same_bits(np.moveaxis(function(rows), -1, 0), out[part])


@pytest.mark.parametrize("shape", [(20_000, 100), (60_000, 40), (15_000, 1000)])
def test_outputs_that_are_fetched_or_go_past_the_cache_have_the_bits_of_their_parts(
    rng, dtype, shape
):
    x, out = logits_of(rng, shape, dtype), np.empty(shape, dtype)
    for function in (csoftmax.softmax, csoftmax.log_softmax):
        assert function(x, out=out) is out
        for part in (slice(0, 333), slice(shape[0] // 2, shape[0] // 2 + 500), slice(-777, None)):
            assert same_bits(function(x[part]), out[part])


@pytest.mark.parametrize("axis", [0, 1])
def test_a_gradient_that_does_not_fit_in_the_cache_has_the_bits_of_its_parts(rng, axis):
    shape = (70, 30_001) if axis else (30_001, 70)
    x = logits_of(rng, shape, "float64")
    assert x.nbytes > 16 << 20
    q, y = csoftmax.softmax(x[::-1], axis), rng.integers(0, shape[axis], 70)
    options = {"axis": axis, "label_smoothing": 0.1, "weight": rng.uniform(1, 2, shape[axis])}
    options |= {"temperature": 1.7, "reduction": "none"}
    for target in (q, y):
        loss, grad = csoftmax.cross_entropy_with_grad(x, target, **options)
        for part in (slice(0, 33), slice(33, 70)):
            rows = (part, slice(None)) if axis else (slice(None), part)
            few = target[rows if target.ndim == 2 else part]
            got = csoftmax.cross_entropy_with_grad(x[rows], few, **options)
            assert same_bits(got[0], loss[part])
            assert same_bits(got[1], grad[rows])


@pytest.mark.parametrize(("shape", "axis"), SPLIT)
def test_same_bits_for_every_split_of_the_batch(rng, dtype, shape, axis):
    x, target = case_of(rng, shape, axis, dtype)
    whole = results(x, target, axis)
    n_rows = len(x)
    for cuts in ([1], [n_rows // 2], [15, 32], [17, 18, n_rows - 1]):
        edges = [0, *cuts, n_rows]
        parts = [results(x[a:b], target[a:b], axis) for a, b in itertools.pairwise(edges)]
        together = {name: np.concatenate([part[name] for part in parts]) for name in whole}
        assert different(together, whole) == []


@pytest.mark.parametrize("inner", [40, 300])
def test_same_bits_for_every_split_of_the_rows_beside_each_other(rng, dtype, inner):
    x, target = case_of(rng, (1000, inner), 0, dtype)
    whole = results(x, target, 0)
    for cut in (1, 15, 16, 17, inner - 1):
        left, right = results(x[:, :cut], target[:cut], 0), results(x[:, cut:], target[cut:], 0)
        together = {name: np.concatenate([left[name], right[name]], -1) for name in whole}
        assert different(together, whole) == []


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize("shape", [(70, 40_000), (30_000, 10), (1, 3_000_000)])
def test_a_large_call_uses_the_threads_it_was_given_and_one_thread_uses_none(shape):
    if not _batch.has_openmp():
        pytest.skip("built without OpenMP")
    program = children.program("threads_of_a_call")
    settings = {"OMP_NUM_THREADS": "2", "OMP_DYNAMIC": "false"}
    output = children.run_well(program, "softmax", *shape, 1, 2, **settings)
    assert output.split() == ["0", "1", "1"]


def test_v3_and_v4_give_the_same_bits_on_a_fixed_corpus():
    if "v4" not in _isa.available():
        pytest.skip("this processor runs only " + ", ".join(_isa.available()))
    corpus = children.program("corpus")
    digests = {name: children.run_well(corpus, CSOFTMAX_ISA=name) for name in ("v3", "v4")}
    assert len(digests["v3"].strip()) == 2 * hashlib.sha256().digest_size
    assert digests["v3"] == digests["v4"]
