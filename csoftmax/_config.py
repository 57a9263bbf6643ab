"""What this build is and what this process may use; read before the drivers map an OpenMP runtime."""

import math
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

PF_FORKNOEXEC = 0x40  # Linux, include/linux/sched.h: forked, and no exec since


def _forked_under_openmp():
    """Whether this process was forked, without exec, from one that had an OpenMP runtime mapped.

    Its runtime may hang at the first parallel region, even one that another library opened before.
    """
    try:
        flags = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[6])
        if not flags & PF_FORKNOEXEC:
            return False
        maps = Path("/proc/self/maps").read_text()
    except (OSError, ValueError, IndexError):  # not Linux: pthread_atfork alone has to do
        return False
    return any(name in maps for name in ("/libgomp", "/libiomp", "/libomp"))


def _processor_quota():
    """Processors that the control group grants, rounded up; none set is infinity."""
    try:
        amount, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, math.ceil(int(amount) / int(period)))
    except (OSError, ValueError):
        return math.inf


_starts_serial = _forked_under_openmp()

from csoftmax import _batch, _isa  # noqa: E402  (maps the OpenMP runtime: only now)

if _starts_serial:
    _batch.set_serial(True)
if _processor_quota() < math.inf:
    _batch.set_quota(_processor_quota())

try:
    __version__ = version("csoftmax")
except PackageNotFoundError:  # a source tree that was built in place
    __version__ = "unknown"


def show_config():
    """Print the version, the instruction set in use, the threads and the compiler.

    Examples
    --------
    >>> import csoftmax
    >>> csoftmax.show_config()  # doctest: +ELLIPSIS
    csoftmax ...
    """
    if not _batch.has_openmp():
        threads = "1 (built without OpenMP)"
    elif _batch.is_serial():
        threads = "1 (forked from a process that had used OpenMP)"
    else:
        threads = str(_batch.max_threads())
    print(f"csoftmax {__version__}")
    print(
        f"  kernels   {_isa.NAME} (this processor runs {', '.join(_isa.available())}; CSOFTMAX_ISA chooses)"
    )
    print(f"  threads   {threads}")
    print(f"  compiler  {_batch.compiler()}")
    print(f"  python    {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}")
