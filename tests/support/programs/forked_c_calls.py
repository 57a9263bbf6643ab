"""The batch functions of csoftmax.h in a parent and in a child that was forked after parallel use."""

import os

import numpy as np

from support import c_calls
from support.bits import different

x = (np.arange(1_200_000) * 7919 % 2003 / 100).reshape(600, 2000).astype(np.float32)
expected = c_calls.all_of_batch(x, np.arange(600), n_threads=2)
pid = os.fork()
same = different(c_calls.all_of_batch(x, np.arange(600), n_threads=2), expected) == []
if pid == 0:
    os._exit(0 if same else 1)
assert same
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
