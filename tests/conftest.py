import os
import sys

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("suite", derandomize=True, deadline=None, max_examples=150)
settings.register_profile("fuzz", deadline=None, max_examples=5000, database=None)
settings.load_profile(os.environ.get("CSOFTMAX_TEST_PROFILE", "suite"))


def pytest_terminal_summary(terminalreporter):
    if "test_fuzz" in sys.modules:
        counts = sys.modules["test_fuzz"].COUNTS
        terminalreporter.write_line(f"{sum(counts.values())} random calls: {counts}")


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(20261124)


# Around the 16 lanes, blocks of 64, and chunks of 2048 classes.
CLASSES = [
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    9,
    10,
    15,
    16,
    17,
    31,
    32,
    33,
    63,
    64,
    65,
    100,
    127,
    128,
    129,
    1000,
    2047,
    2048,
    2049,
    2063,
    4096,
    4100,
]


@pytest.fixture(params=CLASSES)
def n_classes(request):
    return request.param
