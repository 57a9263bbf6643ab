"""Targets of int32 that would be converted, in a process that may have 100 MB more; its status, and what it wrote."""

import resource
from pathlib import Path

import numpy as np

from support import c_calls, layouts

n_rows = 30_000_000
x = layouts.repeated(np.zeros(3, np.float32), (n_rows, 3), 1)
target, loss = np.zeros(n_rows, np.int32), np.full(n_rows, 7, np.float32)
used = 1024 * int(Path("/proc/self/status").read_text().split("VmSize:")[1].split()[0])
limits = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000, limits[1]))
status = c_calls.cross_entropy(x, target, loss, n_threads=1)  # 240 MB for int64
resource.setrlimit(resource.RLIMIT_AS, limits)
print(status, (loss == 7).all(), c_calls.cross_entropy(x, target, loss, n_threads=1))
