import os
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's affair: a busy one must not turn the suite red.
SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("suite", derandomize=True, max_examples=150, **SLOW)
settings.register_profile("fuzz", max_examples=5000, database=None, **SLOW)
settings.load_profile(os.environ.get("CSOFTMAX_TEST_PROFILE", "suite"))


def pytest_terminal_summary(terminalreporter):
    if "test_fuzz" in sys.modules:
        counts = sys.modules["test_fuzz"].COUNTS
        if any(counts.values()):
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
