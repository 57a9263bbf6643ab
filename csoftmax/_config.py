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
if os.environ.get("CSOFTMAX_KEEP_MEMORY") == "0":
    _batch.set_keeping(False)


def release_memory():
    """Give the memory of former results back to the system.

    Results of 32 MiB or more (probabilities, their logarithms, gradients; not losses) have memory of their own. When
    such an array is deleted, its memory is kept for the next one, which then comes without the time that the
    system takes for clearing new pages: about half of the call's. At most four blocks are kept, and at most an eighth
    of the machine's memory.

    Notes
    -----
    To call this is seldom needed. What is kept counts as used by this process, but the system takes it as soon
    as it needs memory (Linux's ``MADV_FREE``), and so does csoftmax when an allocation of its own fails. It may help
    other parts of the process that run into a limit of its address space (``ulimit -v``), and a measurement of
    memory. Arrays in use are not touched.

    `show_config` prints what is kept. The environment variable ``CSOFTMAX_KEEP_MEMORY=0``, read by the import, leaves
    all memory to NumPy; so does csoftmax on other systems than Linux, and where the program has told NumPy to
    allocate in another way (NEP 49).

    Examples
    --------
    >>> import csoftmax
    >>> import numpy as np
    >>> p = csoftmax.softmax(np.zeros((1000, 10_000), np.float32))
    >>> del p
    >>> csoftmax.release_memory()
    """
    _batch.release_memory()


def _kept_memory():
    """What show_config tells of the memory of results."""
    if (kept := _batch.kept_memory()) is None:
        off = os.environ.get("CSOFTMAX_KEEP_MEMORY") == "0"
        return "none kept of former results " + (
            "(CSOFTMAX_KEEP_MEMORY=0)" if off else "(not Linux)"
        )
    _, size, most = kept
    return (
        f"{size / 1e6:.0f} MB kept of former results, at most {most / 1e6:.0f} MB"
        " (CSOFTMAX_KEEP_MEMORY=0 keeps none)"
    )


def show_config():
    """Print the version, the instruction set in use, the threads, the memory that is kept, and the compiler.

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
    print(f"  memory    {_kept_memory()}")
    print(f"  compiler  {_batch.compiler()}")
    print(f"  python    {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}")
