"""The examples run; each is started as a reader would, and what it shows is true."""

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from reference import BOUNDS

EXAMPLES = Path(__file__).parent.parent / "examples"
# Threads that spin while they wait for one that has no processor make a busy machine fifty times slower.
NO_SPINNING = {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def printed_by(name, *arguments, needs, seconds=60, launcher=()):
    """What an example prints."""
    for package in needs:
        pytest.importorskip(package, reason="the demo extra is not installed")
    done = subprocess.run(
        [*launcher, sys.executable, EXAMPLES / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=NO_SPINNING | os.environ,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers_after(words, text):
    """The numbers between these words and the end of their line."""
    line = text.split(words, 1)[1].split("\n", 1)[0]
    return [float(number) for number in re.findall(r"\d+\.?\d*(?:e[+-]\d+)?", line)]


def test_digits_trains_to_the_promised_accuracy_and_draws_its_figure(tmp_path):
    figure = tmp_path / "demo.png"
    text = printed_by(
        "digits.py",
        *("--steps", 300, "--figure", figure),
        needs=("sklearn", "matplotlib", "tqdm"),
        seconds=120,
    )
    assert numbers_after("held-out accuracy ", text)[0] >= 0.95
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
    # side (1 - side): the bound for the first, and nine times that for the second, as the largest of ten
    # probabilities is a tenth or more and side nine tenths or less; two roundings.
    assert ours <= (10 * BOUNDS["gradient", "float32"] + 1) * 2**-23
    assert usual >= 1
    losses = numbers_after("loss by round:", text)
    assert losses[0] == pytest.approx(2.3026, abs=5e-5)  # log(10), as printed
    assert all(after < before / 2 for before, after in pairwise(losses))
    assert numbers_after("held-out accuracy ", text)[0] > 0.8


def test_perplexity_in_blocks_is_that_of_the_whole_file():
    text = printed_by(
        "perplexity.py", "--tokens", 600, "--vocabulary", 5000, "--block", 64, needs=("tqdm",)
    )
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
