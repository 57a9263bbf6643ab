"""The examples, started as a reader would, and what they print."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
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
