"""What careless and hostile callers do is refused as csoftmax.h says, and nothing is written; or it is done right."""

import ctypes
import itertools
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import calls
import children
import numpy as np
import pytest
from calls import BAD_ARGUMENT, BAD_TARGET, IGNORE_NONE, OK, all_of_batch, misaligned, repeated
from header import C, State, callable_at_its_address, declared
from reference import logits_of, same_bits
from test_numbers import different, targets_of

import csoftmax

INF, NAN = np.inf, np.nan
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
ARGUMENTS = {name: [argument for _, argument in kinds] for name, _, kinds in declared()}
BATCHES = ["softmax", "log_softmax", "logsumexp", "cross_entropy", "log_prob"]
POINTERS = {"x", "out", "target", "index", "loss", "logsumexp", "grad", "bad_row"}
ROWS, CLASSES = 3, 4


class Call:
    """A batch function of a small array; any argument may be replaced, by its name in csoftmax.h."""

    def __init__(self, name, dtype):
        self.name = f"{name}_{calls.SUFFIX[dtype]}"
        self.arguments = ARGUMENTS[self.name]
        self.x = np.arange(ROWS * CLASSES).reshape(ROWS, CLASSES).astype(dtype) / 3
        self.target = np.array([0, 3, -100] if name == "cross_entropy" else [0, 3, 2])
        self.shape = (ROWS, CLASSES) if "out_row_stride" in self.arguments else (ROWS,)
        self.outputs = {
            "out": np.full(self.shape, 7, dtype),
            "loss": np.full(ROWS, 7, dtype),
            "logsumexp": np.full(ROWS, 7, dtype),
            "grad": np.full((ROWS, CLASSES), 7, dtype),
            "bad_row": np.full(1, 7, np.intp),
        }

    def __call__(self, **given):
        values = {"x": self.x, "target": self.target, "index": self.target} | self.outputs
        values = {name: value.ctypes.data for name, value in values.items()}
        values |= {"n_rows": ROWS, "n_classes": CLASSES, "ignore_index": -100, "scale": 1.0}
        values |= {"target_size": 8, "index_size": 8, "n_threads": 0}
        for prefix in ("", "out_", "grad_"):
            values |= {f"{prefix}row_stride": CLASSES, f"{prefix}class_stride": 1}
        assert set(given) <= set(values)
        values |= given
        return C[self.name](*(values[argument] for argument in self.arguments))

    def has_written(self, *names):
        """Whether these outputs of the function have changed as a whole, and the others not at all."""
        for name in set(self.outputs) & set(self.arguments):
            changed = self.outputs[name] != 7
            if not (changed.all() if name in names else not changed.any()):
                return False
        return True


def with_argument(names):
    """(function, argument, value) for each batch function that has such an argument."""
    return [
        (name, argument, value)
        for name in BATCHES
        for argument, values in names.items()
        if argument in ARGUMENTS[f"{name}_f32"]
        for value in values
    ]


# ---- Arguments that are refused ----

SIZES = [-1, INT64_MIN, 2**59, 2**60, 2**61, 2**62, INT64_MAX]
STRIDES = [2**60, 2**61, 2**62, INT64_MAX, -(2**60), -(2**62), INT64_MIN]
WIDTHS = [0, 1, 2, 3, 5, 7, 16, 32, 64, -4, -8, INT32_MIN, INT32_MAX]
NO_ARGUMENTS = {
    "n_rows": SIZES,
    "n_classes": SIZES,
    "row_stride": STRIDES,
    "class_stride": STRIDES,
    "out_row_stride": STRIDES,
    "out_class_stride": STRIDES,
    "grad_row_stride": STRIDES,
    "grad_class_stride": STRIDES,
    "target_size": WIDTHS,
    "index_size": WIDTHS,
    "n_threads": [-1, INT32_MIN],
    "x": [None],
    "target": [None],
    "index": [None],
}


@pytest.mark.parametrize(("name", "argument", "value"), with_argument(NO_ARGUMENTS))
def test_a_bad_argument_is_refused_and_nothing_is_written(dtype, name, argument, value):
    call = Call(name, dtype)
    assert call(**{argument: value}) == BAD_ARGUMENT
    assert call.has_written()


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "log_prob"])
def test_a_null_output_is_refused(dtype, name):
    call = Call(name, dtype)
    assert call(out=None) == BAD_ARGUMENT


def test_no_output_at_all_is_no_error_but_the_targets_are_checked(dtype):
    call = Call("cross_entropy", dtype)
    nothing = {"loss": None, "logsumexp": None, "grad": None}
    assert call(**nothing) == OK
    call.target[2] = CLASSES
    assert call(**nothing) == BAD_TARGET
    assert call.has_written("bad_row")


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize(
    ("n_rows", "n_classes"),
    [
        (2**31, 2**31),
        (2**31, 2**62),
        (2**62, 2**31),
        (2**62, 2**62),
        (2**32, 2**32),  # 2**64 elements: 0 of them in 64 bits
        (2**33, 2**31),
        (2**62, 2),
        (2, 2**62),
        (INT64_MAX, INT64_MAX),
        (2**62, 0),  # though there are no elements, rows have results
        (INT64_MAX, 0),
        (0, 2**62),
        (0, -1),
        (-1, 0),
        (-1, -1),
    ],
)
def test_a_shape_whose_bytes_cannot_be_counted_is_refused(dtype, name, n_rows, n_classes):
    call = Call(name, dtype)
    assert call(n_rows=n_rows, n_classes=n_classes) == BAD_ARGUMENT
    strides = [each for each in call.arguments if each.endswith("stride")]
    zero = dict.fromkeys(strides, 0)
    assert call(n_rows=n_rows, n_classes=n_classes, **zero) == BAD_ARGUMENT
    assert call.has_written()


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("logsumexp", "out"),
        ("log_prob", "out"),
        ("cross_entropy", "loss"),
        ("cross_entropy", "logsumexp"),
    ],
)
@pytest.mark.parametrize("shift", [1, 2, 3, 5, 7])
def test_a_misaligned_result_of_rows_is_refused(dtype, name, output, shift):
    call = Call(name, dtype)
    results = misaligned(np.full(ROWS, 7, dtype), shift)
    assert call(**{output: results.ctypes.data}) == BAD_ARGUMENT
    assert call.has_written()
    assert (results == 7).all()


# ---- Arrays of nothing, or of one ----


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("n_classes", [0, 1, CLASSES, 2**40])
def test_no_rows_are_no_error_and_need_no_memory(dtype, name, n_classes):
    call = Call(name, dtype)
    assert call(n_rows=0, n_classes=n_classes) == OK
    nowhere = dict.fromkeys(POINTERS & set(call.arguments), None)
    assert call(n_rows=0, n_classes=n_classes, **nowhere) == OK
    assert call.has_written()


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_no_classes_write_nothing(dtype, name):
    call = Call(name, dtype)
    assert call(n_classes=0) == OK
    assert call(n_classes=0, x=None, out=None) == OK
    assert call.has_written()


def test_no_classes_have_a_logsumexp_of_minus_infinity(dtype):
    call = Call("logsumexp", dtype)
    assert call(n_classes=0, out=None) == BAD_ARGUMENT
    assert call(n_classes=0, x=None) == OK
    assert (call.outputs["out"] == -INF).all()


def test_no_classes_have_no_target_but_an_ignored_one(dtype):
    call = Call("cross_entropy", dtype)
    assert call(n_classes=0) == BAD_TARGET
    assert call.outputs["bad_row"] == 0
    assert call.has_written("bad_row")
    call = Call("cross_entropy", dtype)
    call.target[:] = -100
    assert call(n_classes=0, x=None, grad=None) == OK
    assert call.has_written("loss", "logsumexp")
    assert same_bits(call.outputs["loss"], np.zeros(ROWS, dtype))
    assert (call.outputs["logsumexp"] == -INF).all()
    call = Call("log_prob", dtype)
    assert call(n_classes=0) == BAD_TARGET
    assert call.has_written("bad_row")


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("stride", [0, 1, -5, INT64_MIN, INT64_MAX])
def test_the_stride_of_one_row_or_one_class_does_not_matter(dtype, name, stride):
    for side, argument in (("n_rows", "row_stride"), ("n_classes", "class_stride")):
        usual, call = Call(name, dtype), Call(name, dtype)
        usual.target[:], call.target[:] = 0, 0
        assert usual(**{side: 1}) == OK
        prefixes = [each for each in call.arguments if each.endswith(argument)]
        assert call(**{side: 1}, **dict.fromkeys(prefixes, stride)) == OK
        for output in usual.outputs:
            assert same_bits(call.outputs[output], usual.outputs[output])


@pytest.mark.parametrize("n_classes", [0, -1, INT64_MIN])
def test_a_row_of_no_classes_is_empty_whatever_the_pointers(dtype, n_classes):
    for name in ("softmax_row", "log_softmax_row"):
        calls.function(name, dtype)(None, n_classes, None)
    results = [calls.function("logsumexp_row", dtype)(None, n_classes)]
    for target in (0, -1, INT64_MIN, INT64_MAX):
        results += [calls.function("cross_entropy_row", dtype)(None, n_classes, target)]
        results += [calls.function("log_prob_row", dtype)(None, n_classes, target)]
        both = calls.function("cross_entropy_with_grad_row", dtype)
        results += [both(None, n_classes, target, 1.0, None)]
        calls.function("finish_grad", dtype)(State(), None, n_classes, 0, target, 1.0, None)
    first, *others = calls.numbers(results, dtype)
    assert first == -INF
    assert np.isnan(others).all()


@pytest.mark.parametrize("n_classes", [1, 8, 9, 64, 65, 2049])
def test_a_row_function_without_an_output_returns_its_number(rng, dtype, n_classes):
    row = logits_of(rng, n_classes, dtype)
    for name in ("softmax_row", "log_softmax_row"):
        calls.function(name, dtype)(row.ctypes.data, n_classes, None)
    both = calls.function("cross_entropy_with_grad_row", dtype)
    loss = both(row.ctypes.data, n_classes, 0, 1.0, None)
    expected = csoftmax.cross_entropy(row[np.newaxis], [0], reduction="none")
    assert same_bits(calls.numbers([loss], dtype), expected)
    state = calls.state_of(row)
    arguments = (row.ctypes.data, n_classes, 0, 0, 1.0, None)
    calls.function("finish_grad", dtype)(state, *arguments)


# ---- Targets that are no classes ----

BAD_TARGETS = [-1, -2, -101, CLASSES, CLASSES + 1, INT32_MIN, INT32_MAX]
BAD_WIDE_TARGETS = [2**31, 2**32, 2**32 + 1, -(2**32), INT64_MIN, INT64_MIN + 1, INT64_MAX]


@pytest.mark.parametrize("name", ["cross_entropy", "log_prob"])
@pytest.mark.parametrize(
    ("kind", "bad"),
    [("int32", bad) for bad in BAD_TARGETS]
    + [("int64", bad) for bad in BAD_TARGETS + BAD_WIDE_TARGETS],
)
def test_a_bad_target_is_found_before_anything_is_written(dtype, name, kind, bad):
    for place, shift in itertools.product(range(ROWS), (0, 1)):
        call = Call(name, dtype)
        target = call.target.astype(kind)
        target[place:] = bad  # the first one is named
        target = misaligned(target, shift)
        word = "target" if name == "cross_entropy" else "index"
        given = {word: target.ctypes.data, f"{word}_size": target.itemsize}
        assert call(**given, bad_row=None) == BAD_TARGET
        assert call.has_written()
        assert call(**given) == BAD_TARGET
        assert call.outputs["bad_row"] == place
        assert call.has_written("bad_row")


@pytest.mark.parametrize("bad", [-100, -1, CLASSES, INT64_MIN, INT64_MAX])
def test_ignore_none_makes_every_target_that_is_no_class_bad(dtype, bad):
    call = Call("cross_entropy", dtype)
    call.target[:] = [0, bad, 1]
    assert call(ignore_index=IGNORE_NONE) == BAD_TARGET
    assert call.outputs["bad_row"] == 1
    assert call.has_written("bad_row")


def test_an_ignored_class_does_not_hide_a_bad_target(dtype):
    call = Call("cross_entropy", dtype)
    for target, place in (([2, 2, 4], 2), ([4, 2, 2], 0), ([2, -1, 4], 1)):
        call.target[:] = target
        for ignore_index in (2, 5, -100):
            assert call(ignore_index=ignore_index) == BAD_TARGET
            assert call.outputs["bad_row"] == place
    assert call.has_written("bad_row")


@pytest.mark.parametrize("n_rows", [1000, 100_000])
def test_the_first_bad_target_of_many_rows_is_found(rng, dtype, n_rows):
    x, target = repeated(logits_of(rng, 5, dtype), (n_rows, 5), 1), rng.integers(0, 5, n_rows)
    loss, bad_row = np.full(n_rows, 7, dtype), ctypes.c_ssize_t(7)
    for place in (0, n_rows // 2, n_rows - 1):
        target[place] = 5
        target[-1] = -1
        given = {"n_threads": 2, "bad_row": ctypes.addressof(bad_row)}
        assert calls.cross_entropy(x, target, loss, **given) == BAD_TARGET
        assert bad_row.value == place
        target[place] = 0
    assert (loss == 7).all()


@pytest.mark.parametrize("n_classes", [1, 4, 8, 9, 17, 64, 65, 100, 2048, 2049, 5000])
def test_a_row_with_a_bad_target_is_nan_and_its_gradient_is_not_written(rng, dtype, n_classes):
    row, grad = logits_of(rng, n_classes, dtype), np.full(n_classes, 7, dtype)
    for target in (-1, -100, n_classes, n_classes + 1, 2**32, INT64_MIN, INT64_MAX):
        results = [
            calls.function(f"{name}_row", dtype)(row.ctypes.data, n_classes, target)
            for name in ("cross_entropy", "log_prob")
        ]
        both = calls.function("cross_entropy_with_grad_row", dtype)
        results += [both(row.ctypes.data, n_classes, target, 1.0, grad.ctypes.data)]
        assert np.isnan(calls.numbers(results, dtype)).all()
        assert (grad == 7).all()


# ---- Sizes beyond 32 bits ----


def test_a_row_of_more_than_2_to_the_31_classes():
    # All of them one number, at a stride of 0: ties alone, exact before the logarithm.
    n_classes, value, out = 2**31 + 5, np.float32([1.5]), np.zeros(1, np.float32)
    status = C["logsumexp_f32"](value.ctypes.data, 1, n_classes, 0, 0, out.ctypes.data, 0)
    assert status == OK
    assert out[0] == np.float32(1.5 + np.log(float(n_classes)))


def test_more_than_2_to_the_31_elements_in_rows(rng, dtype):
    n_classes, n_rows = 2048, 2**20 + 3
    row = logits_of(rng, n_classes, dtype)
    out = np.zeros(n_rows, dtype)
    assert calls.logsumexp(repeated(row, (n_rows, n_classes), 1), out) == OK
    assert same_bits(out, np.full(n_rows, csoftmax.logsumexp(row)))


# ---- Memory beside the arrays ----

GUARDED = """if True:
    import ctypes, itertools, mmap, sys
    sys.path[:0] = {paths!r}
    import numpy as np
    import calls
    from calls import function

    PAGE = mmap.PAGESIZE
    libc = ctypes.CDLL(None, use_errno=True)

    def between_guards(n_pages):
        # Memory with a page before and one behind that nobody may touch.
        whole = mmap.mmap(-1, (n_pages + 2) * PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(whole))
        for guard in (address, address + (n_pages + 1) * PAGE):
            assert libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(PAGE), 0) == 0
        return np.frombuffer(whole, np.uint8)[PAGE : (n_pages + 1) * PAGE]

    dtype = np.dtype({dtype!r})
    n_pages = 5000 * dtype.itemsize // PAGE + 1
    rooms = [between_guards(n_pages) for _ in range(2)]
    ends = (lambda room, n: room[-n:]), (lambda room, n: room[:n])
    rng = np.random.default_rng(1)
    for n in (*range(1, 131), 1000, 2047, 2048, 2049, 2050, 2111, 4097):
        for end, in_place in itertools.product(ends, (False, True)):
            x, out = [end(room, n * dtype.itemsize).view(dtype) for room in rooms]
            x[:] = rng.normal(0, 5, n)
            out = x if in_place else out
            at, n_out, target = x.ctypes.data, out.ctypes.data, n - 1
            function("softmax_row", dtype)(at, n, n_out)
            function("log_softmax_row", dtype)(at, n, n_out)
            function("logsumexp_row", dtype)(at, n)
            for target in (0, n - 1):
                function("cross_entropy_row", dtype)(at, n, target)
                function("log_prob_row", dtype)(at, n, target)
                function("cross_entropy_with_grad_row", dtype)(at, n, target, 1.0, n_out)
            state = calls.partial(calls.State(), x)
            calls.finish_grad(state, x, 0, n - 1, out=out)
            calls.finish_grad(state, x, out=out)
            for shape in ((1, n), (n, 1), (n // 2, 2), (2, n // 2), (n // 17, 17), (17, n // 17)):
                a, b = x[: np.prod(shape)].reshape(shape), out[: np.prod(shape)].reshape(shape)
                if end is ends[0]:
                    a, b = x[-a.size or n :].reshape(shape), out[-a.size or n :].reshape(shape)
                for a, b in ((a, b), (a.T, b.T)):
                    calls.write("softmax", a, b)
                    calls.write("log_softmax", a[::-1, ::-1], b[::-1, ::-1])
                    calls.cross_entropy(a, np.full(len(a), a.shape[1] - 1, np.int32), grad=b)
            if not in_place:
                calls.logsumexp(x.reshape(n, 1), out)
    print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
def test_nothing_is_read_or_written_outside_of_the_arrays(dtype):
    here = Path(__file__).parent
    program = GUARDED.format(paths=[str(here), str(here.parent)], dtype=dtype)
    assert children.run_well("-c", program) == "done\n"


MEMORYLESS = """if True:
    import resource, sys
    sys.path[:0] = {paths!r}
    import numpy as np
    import calls

    n_rows = 30_000_000
    x = calls.repeated(np.zeros(3, np.float32), (n_rows, 3), 1)
    target, loss = np.zeros(n_rows, np.int32), np.full(n_rows, 7, np.float32)
    used = 1024 * int(open("/proc/self/status").read().split("VmSize:")[1].split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000, limits[1]))
    status = calls.cross_entropy(x, target, loss, n_threads=1)  # 240 MB for int64
    resource.setrlimit(resource.RLIMIT_AS, limits)
    print(status, (loss == 7).all(), calls.cross_entropy(x, target, loss, n_threads=1))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and RLIMIT_AS")
def test_no_memory_is_a_status_and_nothing_is_written():
    here = Path(__file__).parent
    program = MEMORYLESS.format(paths=[str(here), str(here.parent)])
    assert children.run_well("-c", program) == "3 True 0\n"


# ---- Threads and processes ----


def test_many_threads_at_once_give_the_same_bits(rng, dtype):
    x, target = logits_of(rng, (300, 1000), dtype), targets_of(rng, (300, 1000))
    expected = all_of_batch(x, target)
    with ThreadPoolExecutor(8) as pool:  # ctypes releases the GIL
        found = list(pool.map(lambda n: all_of_batch(x, target, n_threads=n % 3), range(24)))
    assert [different(got, expected) for got in found] == [[]] * 24


FORKED = """if True:
    import os, sys
    sys.path[:0] = {paths!r}
    import numpy as np
    import calls

    x = (np.arange(1_200_000) * 7919 % 2003 / 100).reshape(600, 2000).astype(np.float32)
    expected = calls.all_of_batch(x, np.arange(600), n_threads=2)
    pid = os.fork()
    got = calls.all_of_batch(x, np.arange(600), n_threads=2)
    same = all(got[name].tobytes() == expected[name].tobytes() for name in expected)
    if pid == 0:
        os._exit(0 if same else 1)
    assert same
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_gives_the_parents_bits():
    here = Path(__file__).parent
    program = FORKED.format(paths=[str(here), str(here.parent)])
    assert children.run_well("-c", program) == "0\n"


CHANGING = """if True:
    import ctypes, sys, threading, time
    sys.path[:0] = {paths!r}
    import numpy as np
    import calls

    rng = np.random.default_rng(2)
    x = rng.normal(0, 5, (4000, 30)).astype(np.float32)
    good = rng.integers(0, 30, 4000)
    wild = rng.integers(-(2**63), 2**63 - 1, 4000)
    target, stop = good.copy(), threading.Event()
    loss, grad = np.empty(4000, np.float32), np.empty_like(x)

    def rewrite():
        while not stop.is_set():
            target[:] = wild
            target[:] = good

    thread = threading.Thread(target=rewrite)
    thread.start()
    statuses, end = set(), time.monotonic() + 2
    while time.monotonic() < end:
        statuses.add(calls.cross_entropy(x, target, loss, grad=grad))
        statuses.add(calls.log_prob(x, target, loss))
    stop.set()
    thread.join()
    assert statuses <= {{0, 1}}, statuses
    print("done")
"""


def test_targets_that_change_during_the_call_lead_to_no_access_outside_of_the_arrays():
    here = Path(__file__).parent
    program = CHANGING.format(paths=[str(here), str(here.parent)])
    assert children.run_well("-c", program) == "done\n"


def test_no_function_touches_errno(rng, dtype):
    x, target = logits_of(rng, (300, 1000), dtype), targets_of(rng, (300, 1000))
    x[::3] *= 100  # exponentials underflow
    x[1], x[2] = -INF, NAN
    before = dict(C)
    ctypes.set_errno(77)
    try:
        C.update({each[0]: callable_at_its_address(*each, use_errno=True) for each in declared()})
        all_of_batch(x, target, n_threads=2)
        calls.all_of_rows(x, target)
        for row in x:
            state = calls.merge(calls.state_of(row), State(), dtype)
            calls.finish(state, dtype), calls.finish_loss(state, 0, dtype)
            calls.finish_grad(state, row)
        assert ctypes.get_errno() == 77
    finally:
        C.update(before)
        ctypes.set_errno(0)
