"""The examples run; each is started as a reader would."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_digits_trains_to_the_promised_accuracy_and_draws_its_figure(tmp_path):
    for package in ("sklearn", "matplotlib", "tqdm"):
        pytest.importorskip(package, reason="the demo extra is not installed")
    figure = tmp_path / "demo.png"
    done = subprocess.run(
        [sys.executable, EXAMPLES / "digits.py", "--figure", figure],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    accuracy = float(done.stdout.split("held-out accuracy ")[1].split(",")[0])
    assert accuracy >= 0.95
    assert figure.stat().st_size > 10_000
