"""SciPy's own tests of softmax, log_softmax and logsumexp, run on csoftmax.special's.

SciPy's test module stays as it is: while a test runs, its names for the three functions stand for ours. conftest.py
has the rules for what is left out.
"""

import pytest

from csoftmax import special

reason = "SciPy is an optional peer"
theirs = pytest.importorskip("scipy.special.tests.test_logsumexp", reason=reason)
array_api = pytest.importorskip("scipy._lib._array_api", reason=reason)

globals().update(
    (name, value) for name, value in vars(theirs).items() if name.startswith(("Test", "test"))
)


@pytest.fixture(autouse=True)
def _ours_for_theirs(monkeypatch):
    for name in special.__all__:
        monkeypatch.setattr(theirs, name, getattr(special, name))


@pytest.fixture
def xp():
    """The array library that a test is for; SciPy's conftest.py may add others."""
    return array_api.np_compat


@pytest.fixture
def devices(xp):
    return [*xp.__array_namespace_info__().devices(), None]
