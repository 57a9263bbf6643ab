"""The examples that call the C functions build against the installed package, and compute what they say."""

import importlib
import os
import re
import shutil
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from support import reference
from support.cases import CLASSES
from support.examples import EXAMPLES, numbers_after, printed_by
from support.reference import BOUNDS

MPI_SETTINGS = {
    # Open MPI refuses root, and more ranks than processors, unless it is told so.
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "MPIEXEC_TIMEOUT": "100",  # any MPI ends a job that hangs
    "CFLAGS": "-O0",  # all ranks compile at once, and the time goes elsewhere
}


@pytest.fixture(scope="module", autouse=True)
def compiler():
    pytest.importorskip("pyximport", reason="Cython, which builds the examples, is not installed")
    command = os.environ.get("CC") or sysconfig.get_config_var("CC")  # None on Windows
    if command and shutil.which(command.split()[0]) is None:
        pytest.skip(f"{command}, which builds the examples, is not installed")


# ---- Connectionist temporal classification ----


@pytest.fixture(scope="module")
def ctc(compiler):
    """The example as a module, built."""
    path, importers = sys.path.copy(), sys.meta_path.copy()
    sys.path.insert(0, str(EXAMPLES / "ctc"))
    try:
        yield importlib.import_module("ctc")
    finally:
        sys.path[:], sys.meta_path[:] = path, importers


def units(value):
    """A unit in the last place of float64; of the next binade's numbers if rounding may lead there."""
    return float(np.spacing(np.float64(abs(value) * (1 + 1e-12))))


def log_prob_and_bound(logits, labels):
    """The forward algorithm in longdouble, and how far roundings in float64 may lead away from it.

    Each logsumexp hands the errors of its terms on in the shares that these have in the sum, and adds its own, as do
    the log-softmax and one addition: in units in the last place, those that csoftmax promises.
    """

    def summed(indices):
        values, errors = alpha[indices], error[indices]
        if (values == -np.inf).all():
            return np.longdouble(-np.inf), 0.0
        total = reference.logsumexp(values)
        shares = np.exp(values - total)
        own = BOUNDS["logsumexp", "float64"] * units(max(abs(total), abs(values.max())))
        return total, float(shares @ errors) + own

    label = [0, 0] + [k for one in labels for k in (one, 0)]
    alpha, error = np.full(len(label), -np.inf, np.longdouble), np.zeros(len(label))
    alpha[0] = 0
    for log_p in reference.log_softmax(logits):
        new, new_error = np.full_like(alpha, -np.inf), np.zeros_like(error)
        for s in range(1, len(label)):
            sources = [s - 1, s] + [s - 2] * (s % 2 == 0 and label[s] != label[s - 2])
            total, handed_on = summed(sources)
            if total > -np.inf and log_p[label[s]] > -np.inf:
                new[s] = total + log_p[label[s]]
                own = BOUNDS["log_softmax", "float64"] * units(log_p[label[s]]) + units(new[s])
                new_error[s] = handed_on + own
        alpha, error = new, new_error
    return summed([-2, -1])


SHAPES = [(1, 2), (2, 3), (4, 3), (6, 4), (5, 5), (9, 2)]


@pytest.mark.parametrize(
    "strength", [0, 2, 8, 40]
)  # from any alignment to one that is all but certain
@pytest.mark.parametrize("shape", SHAPES)
def test_log_prob_of_every_label_sequence_is_its_definition(ctc, rng, shape, strength):
    _, logits = ctc.utterance(*shape, shape[0] // 2, strength, rng)
    exact = ctc.by_definition(logits)
    for labels, expected in exact.items():
        forward, bound = log_prob_and_bound(logits, labels)
        assert abs(forward - expected) <= bound / 100  # the bound is about the same numbers
        assert abs(ctc.forward.log_prob(logits, labels) - expected) <= bound


def test_classes_that_are_absent_leave_the_other_alignments(ctc, rng):
    logits = rng.standard_normal((5, 4))
    logits[1, 0] = logits[2, 2] = logits[4, 1:] = -np.inf
    with np.errstate(divide="ignore"):  # log(0)
        exact = ctc.by_definition(logits)
    assert any(np.isneginf(expected) for expected in exact.values())
    for labels, expected in exact.items():
        got = ctc.forward.log_prob(logits, labels)
        assert got == expected or abs(got - expected) <= log_prob_and_bound(logits, labels)[1]


@pytest.mark.parametrize("n_classes", [n for n in CLASSES if n > 2])
def test_log_prob_of_many_frames_keeps_its_bound(ctc, rng, n_classes):
    labels, logits = ctc.utterance(40, n_classes, 15, 3, rng)
    expected, bound = log_prob_and_bound(logits, labels)
    assert abs(ctc.forward.log_prob(logits, labels) - expected) <= bound


def test_sequences_that_do_not_fit_are_impossible(ctc, rng):
    logits = rng.standard_normal((4, 3))
    assert ctc.forward.log_prob(logits, (1, 2, 1, 2, 1)) == -np.inf
    assert ctc.forward.log_prob(logits, (1, 1, 1)) == -np.inf  # blanks between them make five
    assert ctc.forward.log_prob(logits[:0], (1,)) == -np.inf
    assert ctc.forward.log_prob(logits[:0], ()) == 0


@pytest.mark.parametrize("labels", [(1, 3), (-1,), (0,), (2, 0, 1)])
def test_labels_that_are_no_classes_or_blank_are_errors(ctc, labels):
    with pytest.raises(ValueError, match=r"log_prob\(\) needs labels from 0 to 2 other than"):
        ctc.forward.log_prob(np.zeros((9, 3)), labels)


def test_logits_that_are_not_contiguous_rows_of_float64_are_errors(ctc, rng):
    logits = rng.standard_normal((6, 4))
    strided = np.repeat(logits, 2, axis=1)[:, ::2]
    for given in (strided, logits[::-1], np.asfortranarray(logits), logits.astype(np.float32)):
        for function, second in ((ctc.forward.log_prob, (1, 2)), (ctc.forward.beam_search, 9)):
            with pytest.raises(ValueError, match=r"contiguous|dtype mismatch"):
                function(given, second)
            assert function(np.ascontiguousarray(given, np.float64), second) is not None


@pytest.mark.parametrize(("shape", "n_labels"), [((1, 2), 1), ((30, 5), 10), ((50, 100), 20)])
def test_log_prob_equals_the_ctc_loss_of_torch(ctc, rng, shape, n_labels):
    torch = pytest.importorskip("torch", reason="PyTorch is an optional peer")
    if n_labels > shape[0] // 2:
        labels, logits = (1,), rng.standard_normal(shape)
    else:
        labels, logits = ctc.utterance(*shape, n_labels, 2, rng)
    lengths = torch.tensor(shape[0]), torch.tensor(len(labels))
    theirs = torch.nn.functional.ctc_loss(
        torch.from_numpy(logits).log_softmax(1), torch.tensor(labels), *lengths, reduction="sum"
    ).item()
    # No number is larger than the least of the alignments' log-probabilities; with each frame PyTorch rounds a
    # log-softmax, three exponentials, their sum, its logarithm and two additions, the exponentials twice.
    bound = log_prob_and_bound(logits, labels)[1]
    bound += 12 * len(logits) * units(reference.log_softmax(logits).min(axis=1).sum())
    assert abs(ctc.forward.log_prob(logits, labels) + theirs) <= bound


@pytest.mark.parametrize("shape", SHAPES)
def test_a_beam_that_keeps_everything_knows_every_label_sequence(ctc, rng, shape):
    logits = 2 * rng.standard_normal(shape)
    exact = ctc.by_definition(logits)
    found = dict(ctc.forward.beam_search(logits, len(exact)))
    # With each frame a log-softmax, two logsumexps of two numbers and an addition, none larger than the least of the
    # alignments' log-probabilities; at last one logsumexp.
    steps = 2 * BOUNDS["logsumexp", "float64"] + BOUNDS["log_softmax", "float64"] + 1
    least = reference.log_softmax(logits).min(axis=1).sum()
    assert found.keys() == exact.keys()
    for labels, expected in exact.items():
        assert abs(found[labels] - expected) <= (len(logits) + 1) * steps * units(least)
    assert next(iter(found)) == max(exact, key=exact.get)


def test_the_ctc_example_shows_what_it_says():
    arguments = ("--frames", 60, "--labels", 20, "--classes", 10, 100)
    text = printed_by("ctc/ctc.py", *arguments, needs=("pyximport",), seconds=120)
    unsure, sure = (part.split("\n\n")[0] for part in text.split("log-probability of (")[1:3])
    for part in (unsure, sure):
        (exact,), (got, error) = (
            numbers_after("definition -", part),
            numbers_after("csoftmax   -", part),
        )
        assert got == pytest.approx(exact, rel=1e-15)
        assert error < 10
    assert numbers_after("libm ", sure)[1] > 1e6
    for n_classes in (10, 100):
        assert min(numbers_after(f"{n_classes} classes: ", text)) > 0
    said, greedy, beam = (
        -numbers_after(f"{name} -", re.sub(" +", " ", text))[0]
        for name in ("said", "greedy", "beam")
    )
    assert said <= greedy <= beam
    assert numbers_after("a beam of ", text)[1] <= 1


# ---- Sharded cross-entropy ----


@pytest.fixture
def mpiexec():
    pytest.importorskip("mpi4py", reason="the mpi extra is not installed")
    beside = str(Path(sys.executable).parent)  # an environment need not be active
    found = shutil.which("mpiexec", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip("there is no mpiexec: the mpi extra brings one")
    return found


@pytest.mark.parametrize(
    ("n_classes", "multiple"),
    [(4000, 2048), (20_000, 2048), (3000, 100)],  # a chunk in each shard; several; other chunks
)
def test_two_shards_give_the_loss_and_gradient_of_the_whole(
    mpiexec, monkeypatch, n_classes, multiple
):
    for name, value in MPI_SETTINGS.items():
        monkeypatch.setenv(name, value)
    text = printed_by(
        "sharded_cross_entropy/sharded_cross_entropy.py",
        *("--classes", n_classes, "--multiple", multiple, "--rows", 100),
        needs=("pyximport",),
        seconds=120,
        launcher=(mpiexec, "-n", "2"),
    )
    assert text.startswith("2 ranks, 100 rows")
    by_shard, by_chunk = (
        part.split("one state")[0] for part in text.split("one state for each ")[1:]
    )
    # The same sums; or with a rounding of float64 elsewhere, which moves a float32 by a unit at most; or other sums:
    # each side is within its bound of the exact value. The loss is a negative log-softmax.
    loss, gradient = (2 * BOUNDS[name, "float32"] for name in ("log_softmax", "gradient"))
    if multiple == 2048:
        by_shard_bounds = (0, 0) if n_classes == 4000 else (1, 1)
        by_chunk_bounds = (0, 0)
    else:
        by_shard_bounds = by_chunk_bounds = loss, gradient
    for part, bounds in (by_shard, by_shard_bounds), (by_chunk, by_chunk_bounds):
        for what, bound, size in zip(
            ("losses", "gradient"), bounds, (100, 100 * n_classes), strict=True
        ):
            n_other, n, furthest = numbers_after(f"{what}: ", part)
            assert n == size
            assert (n_other == 0) == (furthest == 0)
            assert furthest <= bound
