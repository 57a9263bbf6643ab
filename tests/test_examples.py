"""The examples run; each is started as a reader would, and what it shows is true."""

import importlib
import re
from itertools import pairwise

import numpy as np
import pytest

from support import reference
from support.bits import same_bits
from support.cases import logits_of
from support.examples import EXAMPLES, numbers_after, printed_by
from support.reference import BOUNDS, ulps


def test_digits_trains_to_the_promised_accuracy_and_shows_the_digits_that_are_kept(tmp_path):
    figure = tmp_path / "demo.png"
    text = printed_by(
        "digits.py",
        *("--steps", 2000, "--figure", figure),
        needs=("sklearn", "matplotlib", "tqdm"),
        seconds=120,
    )
    assert numbers_after("held-out accuracy ", text)[0] >= 0.95
    ours, usual = numbers_after("largest error of a loss", text)
    # A unit in the last place is at most 2**-23 of a number; what is printed has two digits.
    assert ours <= 1.05 * BOUNDS["log_softmax", "float32"] * 2**-23
    assert usual >= 0.1
    ours, usual, exact = numbers_after("loss of the surest image", text)
    assert ours == pytest.approx(exact, rel=1e-6)
    assert usual != pytest.approx(exact, rel=0.01)
    assert figure.stat().st_size > 10_000


def test_a_temperature_mends_an_overconfident_classifier():
    text = printed_by("temperature_scaling.py", needs=("sklearn",))
    assert numbers_after("temperature ", text)[0] > 1
    loss_before, error_before = numbers_after("before", text)
    loss_after, error_after = numbers_after("after", text)
    assert loss_after < loss_before
    assert error_after < error_before / 2


def test_the_boosting_objective_has_the_same_bits_in_both_layouts_and_its_loss_falls():
    text = printed_by(
        "boosting_objective.py", "--rounds", 10, "--rows", 20_000, needs=("sklearn", "tqdm")
    )
    assert "20000 rows: the same bits" in text
    ours, usual = numbers_after("error of the Hessian: ", text)
    # w side (1 - side): the bound for the first, and nine times that for the second, as the largest of ten
    # probabilities is a tenth or more and side nine tenths or less; three roundings.
    assert ours <= (10 * BOUNDS["gradient", "float32"] + 1.5) * 2**-23
    assert usual >= 1
    losses = numbers_after("loss by round:", text)
    assert losses[0] == pytest.approx(2.3026, abs=5e-5)  # log(10), as printed
    assert all(after < before / 2 for before, after in pairwise(losses))
    assert numbers_after("held-out accuracy ", text)[0] > 0.8


@pytest.fixture
def boosting(monkeypatch):
    """The boosting example as a module."""
    for package in ("sklearn", "tqdm"):
        pytest.importorskip(package, reason="the demo extra is not installed")
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("boosting_objective")


class DMatrix:
    """What an objective sees of xgboost.DMatrix, or of lightgbm.Dataset, whose weights may be None."""

    def __init__(self, label, weight):
        self.get_label = lambda: label.astype(np.float32)
        self.get_weight = lambda: weight


def both_layouts(boosting, margin, data, **options):
    """Gradient and Hessian, (N, K), which are the same for margins (N, K), class by class, and flat."""
    by_row = boosting.for_xgboost(margin, data, **options)
    for given in (np.asfortranarray(margin), margin.T.ravel()):
        by_class = boosting.for_lightgbm(given, data, **options)
        for a, b in zip(by_row, by_class, strict=True):
            assert same_bits(np.ascontiguousarray(a.T).ravel(), b)
    return by_row


@pytest.mark.parametrize("factor", [1, 2, 10 / 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_boosting_objective_multiplies_both_parts_by_the_rows_weights(
    boosting, rng, dtype, factor
):
    margin = logits_of(rng, (500, 10), np.float32)
    label, weight = rng.integers(0, 10, 500), rng.uniform(0, 5, 500).astype(dtype)
    weight[:3] = 0
    gradient, hessian = both_layouts(boosting, margin, DMatrix(label, weight), factor=factor)
    assert gradient.dtype == hessian.dtype == np.float32
    exact = reference.softmax(margin) - np.eye(10)[label]
    w = weight[:, None].astype(np.longdouble)
    scale = w * np.maximum(reference.softmax(margin), np.eye(10)[label])
    assert ulps(gradient, w * exact, scale) <= BOUNDS["smoothed gradient", "float32"]
    # Of the largest probability 1 - p is the sum of the others.
    p = reference.softmax(margin)
    others = np.array([np.delete(p, k, axis=1).sum(1) for k in range(10)]).T
    # Ten bounds of the first part, as above, and four roundings: 1 - side, the product, the weight's factor, and by it.
    # What is so many units of a number of one size may be twice as many of one of another.
    bound = 2 * (10 * BOUNDS["gradient", "float32"] + 2)
    assert ulps(hessian, factor * w * p * others) <= bound
    assert not gradient[:3].any()
    assert not hessian[:3].any()


@pytest.mark.parametrize("none", [None, np.empty(0, np.float32)], ids=["LightGBM", "XGBoost"])
def test_the_boosting_objective_without_weights_is_that_of_weights_of_one(boosting, rng, none):
    margin, label = logits_of(rng, (200, 7), np.float32), rng.integers(0, 7, 200)
    got = both_layouts(boosting, margin, DMatrix(label, none))
    expected = both_layouts(boosting, margin, DMatrix(label, np.ones(200, np.float32)))
    assert all(same_bits(a, b) for a, b in zip(got, expected, strict=True))


def test_the_boosting_objective_with_factor_two_is_that_of_xgboost(boosting, rng):
    margin, label = logits_of(rng, (500, 10), np.float32, spread=2), rng.integers(0, 10, 500)
    weight = rng.uniform(0.1, 5, 500).astype(np.float32)
    gradient, hessian = both_layouts(boosting, margin, DMatrix(label, weight), factor=2)
    # As src/objective/multiclass_obj.cu has it, in float32.
    p = np.exp(margin - margin.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    w, one = weight[:, None], np.float32(1)
    theirs = np.maximum(2 * p * (one - p) * w, np.float32(1e-16))
    assert theirs.dtype == np.float32
    # Their 1 - p has the rounding of p, 2**-24, and of what p is made of: a few times that.
    assert np.abs(hessian - theirs).max() <= 2 * weight.max() * 16 * 2**-24
    assert np.abs(gradient - w * (p - np.eye(10)[label])).max() <= weight.max() * 16 * 2**-24


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_perplexity_in_blocks_is_that_of_the_whole_file(dtype):
    size = ("--tokens", 600, "--vocabulary", 5000, "--block", 64, "--dtype", dtype)
    text = printed_by("perplexity.py", *size, needs=("tqdm", "ml_dtypes"))
    assert "and log_softmax: the same bits" in text
    in_blocks, at_once = numbers_after("perplexity ", text)
    assert in_blocks == pytest.approx(at_once, rel=1e-6)
    hits, promised, spread = numbers_after("5 likeliest ", text)
    assert abs(hits - promised) < 4 * spread  # four standard deviations


def test_a_distilled_student_is_better_than_one_that_has_few_labels():
    text = printed_by("distillation.py", "--steps", 150, needs=("sklearn", "tqdm"))
    teacher, labels_alone, distilled = (
        numbers_after(f"{name} held-out accuracy ", re.sub(" +", " ", text))
        for name in ("teacher", "labels alone", "distilled")
    )
    assert labels_alone[0] + 0.03 < distilled[0] <= teacher[0] + 0.02
    assert distilled[1] < labels_alone[1]
