"""Softmax, log-softmax, log-sum-exp and cross-entropy over NumPy arrays: exact, parallel, and fast."""

from csoftmax._config import __version__, show_config
from csoftmax._functions import (
    cross_entropy,
    cross_entropy_with_grad,
    log_softmax,
    logsumexp,
    softmax,
)

__all__ = [
    "__version__",
    "cross_entropy",
    "cross_entropy_with_grad",
    "log_softmax",
    "logsumexp",
    "show_config",
    "softmax",
]
