"""What this build is and what this process may use; read before the drivers map an OpenMP runtime.

Modules that NumPy does not import either are imported where they are needed: the import is short.
"""

import math
import os
import re

import numpy as np

PF_FORKNOEXEC = 0x40  # Linux, include/linux/sched.h: forked, and no exec since


def _text_of(*path):
    with open(os.path.join(*path), encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _forked_under_openmp():
    """Whether this process was forked, without exec, from one that had an OpenMP runtime mapped.

    Its runtime may hang at the first parallel region, even one that another library opened before.
    """
    try:
        flags = int(_text_of("/proc/self/stat").rpartition(")")[2].split()[6])
        if not flags & PF_FORKNOEXEC:
            return False
        maps = _text_of("/proc/self/maps")
    except (OSError, ValueError, IndexError):  # not Linux: pthread_atfork alone has to do
        return False
    return any(name in maps for name in ("/libgomp", "/libiomp", "/libomp"))


def _processor_quota(proc="/proc/self", root="/"):
    """Processors that this process's control groups grant, rounded up; none set is infinity.

    Each group is bound by its parents' quotas too: the smallest counts. `root` is where the mount points begin.
    """
    try:
        groups = _text_of(proc, "cgroup").splitlines()
        mounts = _text_of(proc, "mountinfo").splitlines()
    except OSError:  # not Linux
        return math.inf
    path_of = {}  # of the group that limits processors, by the version of the control groups
    for line in groups:
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not controllers:
            path_of["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            path_of["cgroup"] = path
    quota = math.inf
    for line in mounts:
        mount, _, kind = line.partition(" - ")
        mount, kind = mount.split(), kind.split()
        if len(mount) < 5 or len(kind) < 3 or kind[0] not in path_of:
            continue
        if kind[0] == "cgroup" and "cpu" not in kind[2].split(","):
            continue
        group, top = (re.sub(r"\\([0-7]{3})", lambda o: chr(int(o[1], 8)), m) for m in mount[3:5])
        path = path_of[kind[0]]
        below = os.path.relpath(path, group)
        # A path that the mount does not show is outside of a namespace: what it shows is what there is.
        parts = [] if path.startswith("/..") or below.startswith("..") else below.split("/")
        for n in range(len(parts) + 1):
            folder = os.path.join(root, top.lstrip("/"), *parts[:n])
            quota = min(quota, _quota_of(folder, kind[0]))
    return max(1, math.ceil(quota)) if quota < math.inf else quota


def _quota_of(folder, kind):
    """Processors that one control group grants, a fraction, or infinity."""
    try:
        if kind == "cgroup2":
            amount, period = map(int, _text_of(folder, "cpu.max").split())
        else:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            amount, period = (int(_text_of(folder, name)) for name in names)
    except (OSError, ValueError):  # a group without the file, or "max"
        return math.inf
    return amount / period if amount > 0 and period > 0 else math.inf  # version 1 says -1


_starts_serial = _forked_under_openmp()

try:
    from csoftmax import _batch, _isa  # maps the OpenMP runtime: only now
except ImportError as error:
    from importlib.util import find_spec

    _folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    _missing = isinstance(error, ModuleNotFoundError) or not find_spec("csoftmax._batch")
    if not (_missing and os.path.exists(os.path.join(_folder, "setup.py"))):
        raise
    raise ImportError(
        f"csoftmax is imported from its source folder, {_folder}, which has no compiled modules for this Python:"
        " start Python in another folder to import what is installed, or compile them here by"
        " `python -m pip install --editable .`"
    ) from None

if _starts_serial:
    _batch.set_serial(True)
_quota = _processor_quota()
if _quota < math.inf:
    _batch.set_quota(_quota)


def show_config():
    """Print the version, the instruction set in use, the threads and the compiler.

    Examples
    --------
    >>> import csoftmax
    >>> csoftmax.show_config()  # doctest: +ELLIPSIS
    csoftmax ...
    """
    import platform

    from csoftmax import __version__

    if not _batch.has_openmp():
        threads = "1 (built without OpenMP)"
    elif _batch.is_serial():
        threads = "1 (forked from a process that had used OpenMP)"
    else:
        threads = str(_batch.max_threads())
        if _batch.max_threads() == _batch.thread_limit():
            threads += " (OMP_THREAD_LIMIT allows no more)"
    print(f"csoftmax {__version__}")
    print(
        f"  kernels   {_isa.NAME} (this processor runs {', '.join(_isa.available())}; CSOFTMAX_ISA chooses)"
    )
    print(f"  threads   {threads}")
    print(f"  compiler  {_batch.compiler()}")
    print(f"  python    {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}")
