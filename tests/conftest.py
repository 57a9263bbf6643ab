import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from support.random_calls import COUNTS

# How long an example takes is the machine's affair: a busy one must not turn the suite red.
SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("suite", derandomize=True, max_examples=150, **SLOW)
settings.register_profile("fuzz", max_examples=5000, database=None, **SLOW)
settings.load_profile(os.environ.get("CSOFTMAX_TEST_PROFILE", "suite"))


def pytest_terminal_summary(terminalreporter):
    if any(COUNTS.values()):
        terminalreporter.write_line(f"{sum(COUNTS.values())} random calls: {COUNTS}")


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(20261124)
