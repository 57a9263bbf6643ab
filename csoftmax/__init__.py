"""Softmax, log-softmax, log-sum-exp and cross-entropy over NumPy arrays: exact, parallel, and fast."""

# First: it looks whether an OpenMP runtime was there before ours.
from csoftmax._config import __version__, show_config

# isort: split
from csoftmax import functional, special
from csoftmax._embedding import address, get_include
from csoftmax._functions import (
    cross_entropy,
    cross_entropy_with_grad,
    log_prob,
    log_softmax,
    log_softmax_backward,
    logsumexp,
    softmax,
    softmax_backward,
)

__all__ = [
    "__version__",
    "address",
    "cross_entropy",
    "cross_entropy_with_grad",
    "functional",
    "get_include",
    "log_prob",
    "log_softmax",
    "log_softmax_backward",
    "logsumexp",
    "show_config",
    "softmax",
    "softmax_backward",
    "special",
]
