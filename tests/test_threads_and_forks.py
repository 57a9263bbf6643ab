"""Threads, forks, signals and the floating-point state. What could hang runs in a child with a timeout."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import csoftmax
from csoftmax import _batch

posix = pytest.mark.skipif(os.name != "posix", reason="needs fork")
PRELUDE = """
import os, sys, numpy as np
def large(csoftmax):
    return csoftmax.softmax(np.arange(3e6).reshape(1000, 3000) % 7, n_threads=2)
def in_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(error, flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"
"""


def run(program, path=None, **environment):
    """Run a program in a new interpreter; fail if it fails or hangs."""
    program = PRELUDE + textwrap.dedent(program)
    arguments = ["-c", program]
    if path:
        path.write_text(program)
        arguments = [str(path)]
    done = subprocess.run([sys.executable, *arguments], env={**os.environ, **environment}, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@posix
def test_a_forked_child_computes_serially_and_does_not_hang():
    run("""
        import csoftmax
        from csoftmax import _batch
        expected = large(csoftmax)
        assert not _batch.is_serial()
        def work():
            assert _batch.is_serial() and _batch.max_threads() == 1
            assert (large(csoftmax) == expected).all()
            in_child(lambda: (large(csoftmax) == expected).all() or os._exit(3))
        in_child(work)
        assert not _batch.is_serial()
    """)


@posix
def test_an_import_in_a_child_forked_under_another_openmp_does_not_hang():
    pytest.importorskip("torch", reason="PyTorch brings the other OpenMP runtime")
    run("""
        import torch
        torch.set_num_threads(2)
        torch.randn(3000, 3000).softmax(1)
        def work():
            import csoftmax
            assert csoftmax._batch.is_serial()
            large(csoftmax)
        in_child(work)
    """)


@posix
@pytest.mark.parametrize(("method", "serial"), [("fork", True), ("spawn", False), ("forkserver", False)])
def test_multiprocessing_works_with_every_start_method(tmp_path, method, serial):
    run(f"""
        import multiprocessing
        def work(_):
            import csoftmax
            return csoftmax._batch.is_serial(), large(csoftmax).sum()
        if __name__ == "__main__":
            import csoftmax
            expected = large(csoftmax).sum()
            with multiprocessing.get_context("{method}").Pool(2) as pool:
                for is_serial, total in pool.map(work, range(4)):
                    assert is_serial == {serial}
                    assert total == expected
    """, tmp_path / "program.py")


def test_many_python_threads_at_once_get_the_right_results(rng):
    x = rng.standard_normal((400, 500)).astype(np.float32)
    expected, wrong = csoftmax.softmax(x, n_threads=1), []

    def work():
        for _ in range(20):
            if not np.array_equal(csoftmax.softmax(x), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_the_number_of_threads_respects_the_environment():
    program = "from csoftmax import _batch; print(_batch.max_threads())"
    assert run(program, OMP_NUM_THREADS="1").strip() == "1"
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(1):
        assert _batch.max_threads() == 1


@posix
def test_ctrl_c_stops_a_long_call_and_the_process_goes_on():
    x = np.zeros((1 << 12, 1 << 14))
    out = np.empty_like(x)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            for _ in range(200):
                start = time.perf_counter()
                csoftmax.softmax(x, out=out, n_threads=1)
    finally:
        timer.join()
    assert csoftmax.softmax(x[:1, :2]).tolist() == [[0.5, 0.5]]
    assert time.perf_counter() - start < 5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="fesetround's values are the platform's")
def test_the_callers_rounding_mode_neither_matters_nor_changes(rng, dtype):
    import ctypes
    import platform

    if platform.machine() != "x86_64":
        pytest.skip("fesetround's values are the platform's")
    libm = ctypes.CDLL("libm.so.6")
    x = rng.standard_normal((300, 40)).astype(dtype)
    expected = csoftmax.log_softmax(x)
    for mode in (0x400, 0x800, 0xC00):  # down, up, to zero
        try:
            libm.fesetround(mode)
            got = csoftmax.log_softmax(x)
            after = libm.fegetround()
        finally:
            libm.fesetround(0)
        assert after == mode
        assert_array_equal(got, expected)


def test_importing_does_not_flush_subnormals_to_zero():
    assert run("import csoftmax; csoftmax.softmax([1.0, 2.0]); print(5e-324 * 1.0 != 0)").strip() == "True"
