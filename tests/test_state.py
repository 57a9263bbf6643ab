"""The caller's floating-point state and signals: neither matters to a result, nor is changed."""

import ctypes
import os
import platform
import signal
import sys
import time

import children
import numpy as np
import pytest
from reference import logits_of, same_bits
from test_options import arguments_of, different, results_of, scalars_of

import csoftmax

x86_64_linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="rounding modes and MXCSR bits are those of x86-64 Linux",
)
ROUNDINGS = {"nearest": 0, "down": 0x400, "up": 0x800, "zero": 0xC00}
FLUSH_TO_ZERO, DENORMALS_ARE_ZERO = 0x8000, 0x0040


class Environment(ctypes.Structure):
    """glibc's fenv_t on x86-64."""

    _fields_ = (("x87", ctypes.c_uint32 * 7), ("mxcsr", ctypes.c_uint32))


def rounding_of(libm):
    """MXCSR's rounding mode, as one of ROUNDINGS; fegetround() tells that of the x87 unit, which nobody changes."""
    environment = Environment()
    libm.fegetenv(ctypes.byref(environment))
    return environment.mxcsr >> 3 & 0xC00


def all_bits(x, target):
    """Results whose every bit is computed: large enough for two threads, and small."""
    values = []
    for rows in (slice(None), slice(3)):
        a, t = x[rows], target[rows]
        p, log_p = csoftmax.softmax(a, n_threads=2), csoftmax.log_softmax(a, n_threads=2)
        options = {"label_smoothing": 0.1, "temperature": 0.7, "n_threads": 2}
        values += csoftmax.cross_entropy_with_grad(a, t, weight=np.arange(60) / 8, **options)
        values += csoftmax.cross_entropy_with_grad(a, p, weight=np.arange(60) / 8, **options)
        values += [csoftmax.softmax_backward(a, p), csoftmax.log_softmax_backward(a, log_p)]
        values += [csoftmax.log_prob(a, t, temperature=0.7, n_threads=2)]
        for reduction in ("none", "sum", "mean"):
            values += csoftmax.cross_entropy_with_grad(a, t, reduction=reduction, n_threads=2)
        values += [csoftmax.softmax(a, n_threads=2), csoftmax.log_softmax(a, n_threads=2)]
        values += [csoftmax.logsumexp(a, n_threads=2), csoftmax.softmax(a, 0)]
    return values


@pytest.fixture
def case(rng, dtype):
    x = logits_of(rng, (1500, 60), dtype, 30)
    x[::5] *= 3 if dtype == "float32" else 25  # subnormal results, and none at all
    return x, rng.integers(0, 60, 1500)


@x86_64_linux
@pytest.mark.parametrize("rounding", ["down", "up", "zero"])
def test_the_callers_rounding_mode_neither_matters_nor_changes(case, rounding):
    libm = ctypes.CDLL("libm.so.6")
    expected = all_bits(*case)
    assert libm.fesetround(ROUNDINGS[rounding]) == 0
    try:
        got = all_bits(*case)
        after = rounding_of(libm)
    finally:
        libm.fesetround(ROUNDINGS["nearest"])
    assert after == ROUNDINGS[rounding]
    assert [
        i for i, (a, b) in enumerate(zip(got, expected, strict=True)) if not same_bits(a, b)
    ] == []


@x86_64_linux
@pytest.mark.parametrize("rounding", ["down", "up", "zero"])
def test_the_callers_rounding_mode_does_not_matter_with_options_either(case, rng, rounding):
    libm, (x, _) = ctypes.CDLL("libm.so.6"), case
    given = arguments_of(rng, x.shape, 1, "float64")  # probabilities are converted
    expected, scalars = results_of(x, given, 1), scalars_of(x, given, 1)
    assert libm.fesetround(ROUNDINGS[rounding]) == 0
    try:
        got, got_scalars = results_of(x, given, 1), scalars_of(x, given, 1)
        after = rounding_of(libm)
    finally:
        libm.fesetround(ROUNDINGS["nearest"])
    assert after == ROUNDINGS[rounding]
    assert different(got, expected) == []
    assert different(got_scalars, scalars) == []


@x86_64_linux
def test_the_callers_flushing_of_subnormals_neither_matters_nor_changes(case):
    libm = ctypes.CDLL("libm.so.6")
    expected = all_bits(*case)
    assert any(((a != 0) & (np.abs(a) < np.finfo(a.dtype).smallest_normal)).any() for a in expected)
    before, flushing, after = Environment(), Environment(), Environment()
    libm.fegetenv(ctypes.byref(before))
    libm.fegetenv(ctypes.byref(flushing))
    flushing.mxcsr |= FLUSH_TO_ZERO | DENORMALS_ARE_ZERO
    libm.fesetenv(ctypes.byref(flushing))
    try:
        got = all_bits(*case)
        libm.fegetenv(ctypes.byref(after))
    finally:
        libm.fesetenv(ctypes.byref(before))
    mask = FLUSH_TO_ZERO | DENORMALS_ARE_ZERO
    assert after.mxcsr & mask == mask
    assert [
        i for i, (a, b) in enumerate(zip(got, expected, strict=True)) if not same_bits(a, b)
    ] == []


def test_importing_and_calling_leave_subnormals_alone():
    program = """if True:
        import csoftmax, numpy as np
        def kept():
            tiny, one = float("5e-324"), float("1")  # not constants that the compiler folds
            return tiny * one != 0 and (np.full(40, 5e-324) * one).all()
        assert kept(), "import"
        x = np.zeros((600, 500))
        csoftmax.softmax(x, n_threads=2)
        csoftmax.cross_entropy_with_grad(x, np.zeros(600, int), n_threads=2)
        assert kept(), "calls"
    """
    children.run_well("-c", program)


IMPORT = """if True:
    import ctypes, locale, os, signal, sys, threading, warnings
    import numpy as np  # brings threads, and a setting of its own
    sys.path.insert(0, {folder!r})
    from test_state import Environment

    libc, libm = ctypes.CDLL(None), ctypes.CDLL("libm.so.6")
    libc.setlocale.restype = ctypes.c_char_p

    def environment_of_c():
        found, i = (ctypes.POINTER(ctypes.c_char_p)).in_dll(libc, "environ"), 0
        while found[i]:
            yield found[i]
            i += 1

    def state():
        registers = Environment()
        libm.fegetenv(ctypes.byref(registers))
        return {{
            "threads": (sorted(os.listdir("/proc/self/task")), threading.active_count()),
            "environment": (dict(os.environ), sorted(environment_of_c())),
            "floating point": (registers.mxcsr & 0xFFC0, registers.x87[0], libm.fegetround()),
            "subnormals": float("5e-324") * float("1") != 0,
            "NumPy": (np.geterr(), np.geterrcall(), np.get_printoptions()),
            "signals": [signal.getsignal(s) for s in signal.valid_signals()],
            "warnings": list(warnings.filters),
            "locale": libc.setlocale(locale.LC_ALL, None),
            "processors": os.sched_getaffinity(0),
            "folder": os.getcwd(),
            "hooks": (sys.excepthook, list(sys.meta_path), list(sys.path), sys.getswitchinterval()),
            "descriptors": len(os.listdir("/proc/self/fd")),
        }}

    before = state()
    import csoftmax
    after = state()
    print(len(before), [name for name in before if before[name] != after[name]])
"""


@x86_64_linux
def test_importing_leaves_the_process_as_it_was():
    program = IMPORT.format(folder=os.path.dirname(__file__))
    assert children.run_well("-c", program) == "12 []\n"


def test_results_raise_no_floating_point_errors(case):
    with np.errstate(all="raise"):
        all_bits(*case)


LONG_CALL = """if True:
    import signal, sys
    import numpy as np
    import csoftmax
    signal.signal(signal.SIGINT, signal.default_int_handler)
    x = np.broadcast_to(np.zeros({row}, np.float32), {shape})  # 4e10 logits in no memory
    print("ready", flush=True)
    try:
        csoftmax.logsumexp(x, n_threads={n_threads})
        print("finished", flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    got = csoftmax.softmax(np.zeros((400, 500)), n_threads=2)
    assert (got == np.float64(1 / 500)).all()
    print("usable", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is POSIX's")
@pytest.mark.parametrize(
    ("shape", "n_threads"),
    [((10_000_000, 4000), 1), ((10_000_000, 4000), 2), ((1, 40_000_000_000), 2)],
)
def test_ctrl_c_stops_a_long_call_within_a_second_and_the_process_goes_on(shape, n_threads):
    program = LONG_CALL.format(row=(1,), shape=shape, n_threads=n_threads)
    process = children.start("-c", program)
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        output, errors = process.communicate(timeout=30)
        elapsed = time.monotonic() - start
    finally:
        process.kill()
        process.wait()
    assert output == "interrupted\nusable\n", errors
    assert process.returncode == 0
    assert elapsed < 1
