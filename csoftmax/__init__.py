"""Softmax, log-softmax, log-sum-exp and cross-entropy over NumPy arrays.

Fast, and probabilities are within 3 units in the last place; the docstrings give each function's bound.
"""

__version__ = "0.1.0"  # here alone: pyproject.toml reads it

# First: it looks whether an OpenMP runtime was there before ours.
from csoftmax._config import release_memory, show_config

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
    "release_memory",
    "show_config",
    "softmax",
    "softmax_backward",
    "special",
]
