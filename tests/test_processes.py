"""Forks after parallel use, other start methods, other libraries' threads. Each ends, or fails."""

import hashlib
import math
import os
import sys
import sysconfig
import threading

import numpy as np
import pytest

import csoftmax
from csoftmax import _batch, _config
from support import children
from support.bits import different, same_bits
from support.cases import logits_of
from support.options import arguments_of, results_of, scalars_of

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def forks(function, *arguments):
    """Output of a function of forks.py, which must end well."""
    return children.run_well(children.program("forks"), function, *arguments)


@posix
def test_a_child_forked_after_parallel_use_gives_the_parents_bits():
    forks("after_parallel_use")


@posix
def test_a_grandchild_gives_the_same_bits_and_may_outlive_its_parent():
    forks("grandchildren")


@posix
def test_a_child_forked_by_a_thread_during_parallel_calls_does_not_hang():
    forks("by_a_thread_during_calls")


@posix
def test_a_child_of_a_process_that_only_imported_gives_the_same_bits():
    forks("after_the_import_alone")


@posix
@pytest.mark.parametrize("used", ["csoftmax", "torch"])
def test_a_child_forked_after_torchs_parallel_use_ends(used):
    pytest.importorskip("torch", reason="PyTorch brings an OpenMP runtime of its own")
    forks("after_torchs_parallel_use", used)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which libraries are mapped")
def test_a_child_that_imports_after_a_fork_under_openmp_is_serial():
    pytest.importorskip("sklearn", reason="scikit-learn brings an OpenMP runtime")
    forks("before_the_import_under_openmp")


@posix
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_of_every_start_method_give_the_parents_bits(method):
    assert forks("pool", method).split() == [str(method == "fork")]  # the others stay parallel


def test_joblib_workers_give_the_parents_bits():
    pytest.importorskip("joblib", reason="joblib comes with scikit-learn")
    forks("joblib_workers")


def in_threads(n, work):
    """work(0) to work(n - 1), all at once; to hang is to fail."""
    start = threading.Barrier(n)

    def work_from_the_start(i):
        start.wait()
        work(i)

    threads = [
        threading.Thread(target=work_from_the_start, args=(i,), daemon=True) for i in range(n)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def test_sixteen_python_threads_at_once_get_the_right_bits(rng):
    arrays = [logits_of(rng, (300, 100 + i), "float32") for i in range(16)]
    targets = [rng.integers(0, 100, 300) for _ in arrays]
    expected = [csoftmax.softmax(x, n_threads=1) for x in arrays]
    losses = [csoftmax.cross_entropy(x, t) for x, t in zip(arrays, targets, strict=True)]
    right = []

    def work(i):
        for _ in range(5):
            good = same_bits(csoftmax.softmax(arrays[i], n_threads=2), expected[i])
            loss, _ = csoftmax.cross_entropy_with_grad(arrays[i], targets[i], n_threads=2)
            right.append(good and loss == losses[i])

    in_threads(16, work)
    assert right == [True] * 80


def test_sixteen_threads_that_compute_different_things_get_what_one_alone_gets(rng):
    cases = []
    for i in range(16):
        shape, axis = ((40 + i, 700), 1) if i % 2 else ((300, 60 + i), 0)
        dtype = "float32" if i % 4 < 2 else "float64"
        x = logits_of(rng, shape, dtype)
        cases.append((x, arguments_of(rng, shape, axis, dtype), axis))
    expected = [results_of(*case, 1) for case in cases]
    scalars = [scalars_of(*case, 1) for case in cases]
    wrong = []

    def work(i):
        for n_threads in (1, 2, None):
            wrong.append(different(results_of(*cases[i], n_threads), expected[i]))
            wrong.append(different(scalars_of(*cases[i], n_threads), scalars[i]))

    in_threads(16, work)
    assert wrong == [[]] * 96


@pytest.mark.parametrize("shape", [(1, 10), (30, 10), (60, 100), (2, 50_000)])
def test_threads_that_share_their_arrays_get_the_right_bits_and_errors(rng, shape):
    x = logits_of(rng, shape, "float32")
    target, weight = rng.integers(0, shape[1], shape[0]), rng.random(shape[1])
    bad = target.copy()
    bad[-1] = shape[1]
    out = np.empty((8, *shape), x.dtype)  # each thread has its part
    calls = [
        lambda i: csoftmax.softmax(x),
        lambda i: csoftmax.softmax(x, 0, out=out[i]),
        lambda i: csoftmax.log_softmax(x, temperature=1.7),
        lambda i: csoftmax.logsumexp(x, 0),
        lambda i: csoftmax.cross_entropy(x, target),
        lambda i: csoftmax.cross_entropy_with_grad(x, target, out=out[i])[1],
        lambda i: csoftmax.cross_entropy(x, target, weight=weight, label_smoothing=0.1),
        lambda i: csoftmax.log_prob(x, target),
        lambda i: csoftmax.softmax_backward(x, x, out=out[i]),
        lambda i: csoftmax.softmax(x.tolist()),
    ]
    expected = [np.copy(call(0)) for call in calls]
    with pytest.raises(IndexError) as expected_error:
        csoftmax.cross_entropy(x, bad)
    rounds, right = 2 if shape[1] > 1000 else 20, []

    def work(i):
        for first in range(rounds):
            for k in range(len(calls)):
                k = (i + first + k) % len(calls)
                right.append(same_bits(np.asarray(calls[k](i)), expected[k]))
            try:
                csoftmax.cross_entropy(x, bad)
            except IndexError as error:
                right.append(str(error) == str(expected_error.value))

    in_threads(8, work)
    assert right == [True] * (8 * rounds * (len(calls) + 1))


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="needs a free-threaded Python"
)
def test_the_import_leaves_the_global_lock_off():
    program = (
        "import sys, csoftmax, csoftmax.functional, csoftmax.special; print(sys._is_gil_enabled())"
    )
    assert children.run_well("-W", "error", "-c", program) == "False\n"


def test_threads_that_import_at_once_get_the_same_module():
    forks("imports_at_once")


@pytest.mark.parametrize(
    "call",
    [
        "csoftmax.cross_entropy_with_grad(x, target, out=out[1:-1])",
        "csoftmax.cross_entropy_with_grad(x, target, weight=weight, out=out[1:-1])",
        "csoftmax.cross_entropy_with_grad(x, target, weight=weight, reduction='none', out=out[1:-1])",
        "csoftmax.cross_entropy_with_grad(x, target, label_smoothing=0.1, out=out[1:-1])",
        "csoftmax.log_prob(x, target)",
        "csoftmax.log_prob(x, target.reshape(4000, 1))",
    ],
)
def test_targets_that_another_thread_rewrites_crash_nothing(call):
    children.run_well(children.program("rewritten_targets"), call)


def test_the_number_of_threads_respects_omp_num_threads():
    program = "from csoftmax import _batch; print(_batch.max_threads())"
    free = int(children.run_well("-c", program))
    for wanted in (1, 2):
        got = int(children.run_well("-c", program, OMP_NUM_THREADS=str(wanted)))
        assert got == min(wanted, max(free, 1))


def test_the_number_of_threads_respects_threadpoolctl():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    if not _batch.has_openmp():
        pytest.skip("built without OpenMP")
    before = _batch.max_threads()
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        assert _batch.max_threads() == 1
    assert _batch.max_threads() == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no processor affinity here")
def test_the_number_of_threads_respects_the_affinity():
    assert children.run_well(children.program("one_processor")) == "1\n"


# What /proc/self shows, with the files of the control groups: the mounts' lines are those of real systems.
VERSION_2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
VERSION_1 = (
    "34 25 0:30 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory\n"
    "33 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "35 25 0:31 / /sys/fs/cgroup/cpuset rw shared:11 - cgroup cgroup rw,cpuset\n"
)
ROOT_MOUNT = "23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"


def cpu_max(quota, period=100_000):
    return {"cpu.max": f"{quota} {period}\n"}


def cfs(quota, period=100_000):
    return {"cpu.cfs_quota_us": f"{quota}\n", "cpu.cfs_period_us": f"{period}\n"}


@pytest.fixture
def quota_of(tmp_path):
    """The quota that _config finds on a system of these files: groups and mounts are texts of /proc/self."""

    def quota(groups, mounts, files):
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cgroup").write_text(groups)
        (tmp_path / "proc/mountinfo").write_text(mounts)
        for folder, texts in files.items():
            (tmp_path / "root" / folder).mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                (tmp_path / "root" / folder / name).write_text(text)
        return _config._processor_quota(tmp_path / "proc", tmp_path / "root")

    return quota


@pytest.mark.parametrize(
    ("granted", "processors"),
    [
        (cpu_max(100_000), 1),
        (cpu_max(20_000), 1),
        (cpu_max(150_000), 2),
        (cpu_max(200_000), 2),
        (cpu_max(25_000, 10_000), 3),
        (cpu_max("max"), math.inf),
        ({"cpu.max": "?"}, math.inf),
        ({"cpu.max": ""}, math.inf),
        ({"cpu.max": "1 0"}, math.inf),
        ({}, math.inf),
    ],
)
@pytest.mark.parametrize("group", ["/", "/a.slice/b.scope"])
def test_the_quota_is_that_of_the_processs_own_group(quota_of, group, granted, processors):
    other = {"sys/fs/cgroup/other": cpu_max(1000)}
    files = {f"sys/fs/cgroup{group}": granted, **other}
    assert quota_of(f"0::{group}\n", ROOT_MOUNT + VERSION_2, files) == processors


@pytest.mark.parametrize(
    ("granted", "processors"),
    [
        (cfs(100_000), 1),
        (cfs(350_000), 4),
        (cfs(30_000, 10_000), 3),
        (cfs(-1), math.inf),
        ({"cpu.cfs_quota_us": "200000\n"}, math.inf),
        ({}, math.inf),
    ],
)
@pytest.mark.parametrize("group", ["/", "/docker/0a1b"])
def test_the_quota_of_control_groups_of_version_1_counts(quota_of, group, granted, processors):
    groups = (
        f"12:memory:/elsewhere\n4:cpu,cpuacct:{group}\n1:name=systemd:/init.scope\n0::/init.scope\n"
    )
    files = {f"sys/fs/cgroup/cpu,cpuacct{group}": granted, "sys/fs/cgroup/memory": cfs(1000)}
    assert quota_of(groups, ROOT_MOUNT + VERSION_1, files) == processors


@pytest.mark.parametrize("least", ["", "/a", "/a/b", "/a/b/c"])
@pytest.mark.parametrize("version", [1, 2])
def test_the_smallest_quota_of_a_group_and_its_parents_counts(quota_of, version, least):
    granted = cpu_max if version == 2 else cfs
    mount = "sys/fs/cgroup" if version == 2 else "sys/fs/cgroup/cpu,cpuacct"
    files = {mount + group: granted(800_000) for group in ("", "/a", "/a/b", "/a/b/c")}
    files[mount + least] = granted(300_000)
    files[mount + "/a/b/c/below"] = files[mount + "/a/beside"] = granted(100_000)
    groups = "0::/a/b/c\n" if version == 2 else "3:cpuacct,cpu:/a/b/c\n"
    assert quota_of(groups, ROOT_MOUNT + (VERSION_2 if version == 2 else VERSION_1), files) == 3


@pytest.mark.parametrize(
    ("group", "mounted", "folder"),
    [
        (
            "/docker/0a1b",
            "/docker/0a1b",
            "",
        ),  # a container sees its group alone, by the host's name
        ("/docker/0a1b/inner", "/docker/0a1b", "/inner"),
        ("/", "/../..", ""),  # a namespace of control groups
        ("/../beside", "/", ""),  # joined from outside of it: nothing but the mount is known
        ("/a\\b c", "/a\\134b\\040c", ""),  # mountinfo's way to write a backslash and a space
    ],
)
def test_the_mount_may_begin_below_the_top_of_the_groups(quota_of, group, mounted, folder):
    mounts = ROOT_MOUNT + VERSION_2.replace(" / /sys", f" {mounted} /sys")
    files = {f"sys/fs/cgroup{folder}": cpu_max(200_000)}
    assert quota_of(f"0::{group}\n", mounts, files) == 2


def test_mount_points_may_hold_spaces_and_lie_elsewhere(quota_of):
    mounts = ROOT_MOUNT + VERSION_2.replace("/sys/fs/cgroup", "/mnt/control\\040groups")
    assert quota_of("0::/a\n", mounts, {"mnt/control groups/a": cpu_max(500_000)}) == 5


def test_both_versions_at_once_give_the_smaller_quota(quota_of):
    unified = VERSION_2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    files = {"sys/fs/cgroup/unified/u": {}, "sys/fs/cgroup/cpu,cpuacct/v": cfs(400_000)}
    groups = "4:cpu,cpuacct:/v\n0::/u\n"
    assert quota_of(groups, ROOT_MOUNT + VERSION_1 + unified, files) == 4


@pytest.mark.parametrize(
    ("groups", "mounts"),
    [("", ""), ("nonsense\n", "nonsense\n - \n"), ("0::/\n", ROOT_MOUNT), ("4:cpu:/\n", VERSION_2)],
)
def test_without_groups_that_limit_processors_there_is_no_quota(quota_of, groups, mounts):
    assert quota_of(groups, mounts, {"sys/fs/cgroup": cpu_max(100_000)}) == math.inf


def test_without_proc_there_is_no_quota(tmp_path):
    assert _config._processor_quota(tmp_path, tmp_path) == math.inf


@pytest.mark.parametrize(("granted", "expected"), [("100000", 1), ("max", None)])
def test_the_number_of_threads_respects_the_control_groups_quota(tmp_path, granted, expected):
    (tmp_path / "cpu.max").write_text(f"{granted} 100000")
    program = children.program("threads_of_a_quota")
    mounts = VERSION_2.replace("/sys/fs/cgroup", str(tmp_path))
    free = int(children.run_well(program, VERSION_2.replace("/sys/fs/cgroup", "/nowhere")))
    assert int(children.run_well(program, mounts)) == min(expected or free, free)


@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_the_number_of_threads_respects_omp_thread_limit_and_show_config_says_so(limit):
    program = children.program("forks")
    free = children.run_well(program, "show_threads").splitlines()
    got = children.run_well(program, "show_threads", OMP_THREAD_LIMIT=str(limit)).splitlines()
    allowed = min(limit, int(free[-1].split()[0]))
    assert got[-1] == f"{allowed} {free[-1].split()[1]}"  # the same bits
    (threads,) = [line for line in got if line.startswith("  threads ")]
    assert threads.split()[1] == str(allowed)
    assert ("OMP_THREAD_LIMIT" in threads) == (limit == allowed and _batch.has_openmp())


def test_the_programs_of_this_file_compare_bits_that_can_differ():
    assert len({hashlib.sha256(csoftmax.softmax([0.0, x]).tobytes()).digest() for x in (1, 2)}) == 2
