"""Forks, other start methods and other libraries' threads: python forks.py FUNCTION [ARGUMENT].

csoftmax is imported by the functions, as some need it not to be there before they fork.
"""

import hashlib
import os
import sys

import numpy as np


def digest():
    """Of every result of calls that are worth several threads."""
    import csoftmax

    x = (np.arange(1_200_000) * 7919 % 2003 / 100).reshape(600, 2000).astype(np.float32)
    target = np.arange(600)
    both = csoftmax.cross_entropy_with_grad
    p, log_p = csoftmax.softmax(x, n_threads=2), csoftmax.log_softmax(x)
    results = [p, log_p, csoftmax.logsumexp(x, 0), *both(x, target, n_threads=8)]
    results += both(x, target, weight=np.arange(2000), label_smoothing=0.1, n_threads=2)
    results += [*both(x, p, temperature=1.7), csoftmax.log_prob(x, target)]
    results += [csoftmax.softmax_backward(x, p, n_threads=2)]
    results += [csoftmax.log_softmax_backward(x, log_p)]
    return hashlib.sha256(b"".join(np.ascontiguousarray(r).tobytes() for r in results)).hexdigest()


def forked(work):
    """Run work in a forked child; True if it returned something true."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def after_parallel_use():
    from csoftmax import _batch

    expected = digest()
    assert not _batch.is_serial()
    assert forked(lambda: digest() == expected)
    assert forked(lambda: _batch.is_serial() and _batch.max_threads() == 1)
    assert not _batch.is_serial()  # the parent stays as it was
    assert digest() == expected


def grandchildren():
    expected = digest()
    assert forked(lambda: forked(lambda: digest() == expected))
    assert forked(lambda: digest() == expected and forked(lambda: digest() == expected))


def by_a_thread_during_calls():
    import threading

    expected, stop = digest(), threading.Event()

    def keep_busy():
        while not stop.is_set():
            digest()

    thread = threading.Thread(target=keep_busy)
    thread.start()
    try:
        for _ in range(5):
            assert forked(lambda: digest() == expected)
    finally:
        stop.set()
        thread.join()


def after_the_import_alone():
    import csoftmax  # noqa: F401

    read, write = os.pipe()

    def work():
        os.write(write, digest().encode())
        return True

    assert forked(work)
    assert os.read(read, 64).decode() == digest()


def after_torchs_parallel_use(used):
    import torch

    torch.set_num_threads(2)
    torch.ones(2000, 2000).softmax(1)
    expected = digest() if used == "csoftmax" else None
    if expected is None:  # csoftmax is imported by the child only
        assert "csoftmax" not in sys.modules
    assert forked(lambda: len(digest()) == 64 and expected in (None, digest()))


def before_the_import_under_openmp():
    import sklearn.cluster  # noqa: F401
    import threadpoolctl

    assert "openmp" in [library["user_api"] for library in threadpoolctl.threadpool_info()]

    def work():
        import csoftmax

        return csoftmax._batch.is_serial() and len(digest()) == 64

    assert "csoftmax" not in sys.modules
    assert forked(work)
    import csoftmax

    assert not csoftmax._batch.is_serial()


def work_of_a_pool(_):
    bits = digest()
    from csoftmax import _batch

    return bits, _batch.is_serial()


def pool(method):
    import multiprocessing

    expected = digest()
    with multiprocessing.get_context(method).Pool(2) as workers:
        results = workers.map(work_of_a_pool, range(4), chunksize=1)
    assert {bits for bits, _ in results} == {expected}
    print(*{serial for _, serial in results})


def joblib_workers():
    import joblib

    expected = digest()
    for backend in ("loky", "threading", "multiprocessing"):
        tasks = [joblib.delayed(digest)() for _ in range(3)]
        assert set(joblib.Parallel(n_jobs=2, backend=backend)(tasks)) == {expected}, backend


def imports_at_once():
    import threading

    start, results = threading.Barrier(8), []

    def work():
        start.wait()
        results.append(digest())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert len(set(results)) == 1


def show_threads():
    import csoftmax

    csoftmax.show_config()
    print(csoftmax._batch.max_threads(), digest())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
