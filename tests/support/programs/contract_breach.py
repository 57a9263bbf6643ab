"""A statement that breaks the contract, for a sanitizer to report: python contract_breach.py STATEMENT."""

import sys
from concurrent.futures import ThreadPoolExecutor  # noqa: F401

import numpy as np

import csoftmax  # noqa: F401
from csoftmax import _batch  # noqa: F401
from support import c_calls, guarded

c, at = guarded.c_functions("float64"), c_calls.address
x, y = np.zeros(1000), np.zeros(0, np.int64)
logits, out = np.zeros((2, 500, 1000))
print("before", flush=True)
exec(sys.argv[1])
print("after")
