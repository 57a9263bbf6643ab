"""The number of threads where control groups are mounted as the argument says.

What the import opens is the system's, but the text that tells where the groups are. NumPy is there before.
"""

import builtins
import io
import sys

import numpy as np  # noqa: F401

opened = builtins.open
texts = {"/proc/self/cgroup": "0::/", "/proc/self/mountinfo": sys.argv[1]}
builtins.open = lambda path, *given, **options: (
    io.StringIO(texts[path]) if path in texts else opened(path, *given, **options)
)

from csoftmax import _batch  # noqa: E402

print(_batch.max_threads())
