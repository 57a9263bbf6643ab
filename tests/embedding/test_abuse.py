"""What careless and hostile callers do is refused as csoftmax.h says, and nothing is written; or it is done right."""

import ctypes
import itertools
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import csoftmax
from support import c_calls, children
from support.bits import different, same_bits
from support.c_calls import BAD_ARGUMENT, BAD_TARGET, IGNORE_NONE, OK, all_of_batch
from support.cases import logits_of, targets_of
from support.header import C, State, callable_at_its_address, declared
from support.layouts import misaligned, repeated

INF, NAN = np.inf, np.nan
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
ARGUMENTS = {name: [argument for _, argument in kinds] for name, _, kinds in declared()}
BATCHES = ["softmax", "log_softmax", "logsumexp", "cross_entropy", "log_prob"]
POINTERS = {"x", "out", "target", "index", "loss", "logsumexp", "grad", "bad_row"}
N_ROWS, N_CLASSES = 3, 4


class Call:
    """A batch function of a small array; any argument may be replaced, by its name in csoftmax.h."""

    def __init__(self, name, dtype):
        self.name = f"{name}_{c_calls.SUFFIX[dtype]}"
        self.arguments = ARGUMENTS[self.name]
        self.x = np.arange(N_ROWS * N_CLASSES).reshape(N_ROWS, N_CLASSES).astype(dtype) / 3
        self.target = np.array([0, 3, -100] if name == "cross_entropy" else [0, 3, 2])
        self.shape = (N_ROWS, N_CLASSES) if "out_row_stride" in self.arguments else (N_ROWS,)
        self.outputs = {
            "out": np.full(self.shape, 7, dtype),
            "loss": np.full(N_ROWS, 7, dtype),
            "logsumexp": np.full(N_ROWS, 7, dtype),
            "grad": np.full((N_ROWS, N_CLASSES), 7, dtype),
            "bad_row": np.full(1, 7, np.intp),
        }

    def __call__(self, **given):
        values = {"x": self.x, "target": self.target, "index": self.target} | self.outputs
        values = {name: value.ctypes.data for name, value in values.items()}
        values |= {"n_rows": N_ROWS, "n_classes": N_CLASSES, "ignore_index": -100, "scale": 1.0}
        values |= {"target_size": 8, "index_size": 8, "n_threads": 0}
        for prefix in ("", "out_", "grad_"):
            values |= {f"{prefix}row_stride": N_CLASSES, f"{prefix}class_stride": 1}
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
    call.target[2] = N_CLASSES
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
    results = misaligned(np.full(N_ROWS, 7, dtype), shift)
    assert call(**{output: results.ctypes.data}) == BAD_ARGUMENT
    assert call.has_written()
    assert (results == 7).all()


# ---- Arrays of nothing, or of one ----


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("n_classes", [0, 1, N_CLASSES, 2**40])
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
    assert same_bits(call.outputs["loss"], np.zeros(N_ROWS, dtype))
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
        c_calls.function(name, dtype)(None, n_classes, None)
    results = [c_calls.function("logsumexp_row", dtype)(None, n_classes)]
    for target in (0, -1, INT64_MIN, INT64_MAX):
        results += [c_calls.function("cross_entropy_row", dtype)(None, n_classes, target)]
        results += [c_calls.function("log_prob_row", dtype)(None, n_classes, target)]
        both = c_calls.function("cross_entropy_with_grad_row", dtype)
        results += [both(None, n_classes, target, 1.0, None)]
        c_calls.function("finish_grad", dtype)(State(), None, n_classes, 0, target, 1.0, None)
    first, *others = c_calls.numbers(results, dtype)
    assert first == -INF
    assert np.isnan(others).all()


@pytest.mark.parametrize("n_classes", [1, 8, 9, 64, 65, 2049])
def test_a_row_function_without_an_output_returns_its_number(rng, dtype, n_classes):
    row = logits_of(rng, n_classes, dtype)
    for name in ("softmax_row", "log_softmax_row"):
        c_calls.function(name, dtype)(row.ctypes.data, n_classes, None)
    both = c_calls.function("cross_entropy_with_grad_row", dtype)
    loss = both(row.ctypes.data, n_classes, 0, 1.0, None)
    expected = csoftmax.cross_entropy(row[np.newaxis], [0], reduction="none")
    assert same_bits(c_calls.numbers([loss], dtype), expected)
    state = c_calls.state_of(row)
    arguments = (row.ctypes.data, n_classes, 0, 0, 1.0, None)
    c_calls.function("finish_grad", dtype)(state, *arguments)


# ---- Targets that are no classes ----

BAD_TARGETS = [-1, -2, -101, N_CLASSES, N_CLASSES + 1, INT32_MIN, INT32_MAX]
BAD_WIDE_TARGETS = [2**31, 2**32, 2**32 + 1, -(2**32), INT64_MIN, INT64_MIN + 1, INT64_MAX]


@pytest.mark.parametrize("name", ["cross_entropy", "log_prob"])
@pytest.mark.parametrize(
    ("kind", "bad"),
    [("int32", bad) for bad in BAD_TARGETS]
    + [("int64", bad) for bad in BAD_TARGETS + BAD_WIDE_TARGETS],
)
def test_a_bad_target_is_found_before_anything_is_written(dtype, name, kind, bad):
    for place, shift in itertools.product(range(N_ROWS), (0, 1)):
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


@pytest.mark.parametrize("bad", [-100, -1, N_CLASSES, INT64_MIN, INT64_MAX])
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
        assert c_calls.cross_entropy(x, target, loss, **given) == BAD_TARGET
        assert bad_row.value == place
        target[place] = 0
    assert (loss == 7).all()


@pytest.mark.parametrize("n_classes", [1, 4, 8, 9, 17, 64, 65, 100, 2048, 2049, 5000])
def test_a_row_with_a_bad_target_is_nan_and_its_gradient_is_not_written(rng, dtype, n_classes):
    row, grad = logits_of(rng, n_classes, dtype), np.full(n_classes, 7, dtype)
    for target in (-1, -100, n_classes, n_classes + 1, 2**32, INT64_MIN, INT64_MAX):
        results = [
            c_calls.function(f"{name}_row", dtype)(row.ctypes.data, n_classes, target)
            for name in ("cross_entropy", "log_prob")
        ]
        both = c_calls.function("cross_entropy_with_grad_row", dtype)
        results += [both(row.ctypes.data, n_classes, target, 1.0, grad.ctypes.data)]
        assert np.isnan(c_calls.numbers(results, dtype)).all()
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
    assert c_calls.logsumexp(repeated(row, (n_rows, n_classes), 1), out) == OK
    assert same_bits(out, np.full(n_rows, csoftmax.logsumexp(row)))


# ---- Memory beside the arrays ----


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
def test_nothing_is_read_or_written_outside_of_the_arrays(dtype):
    assert children.run_well(children.program("guarded_rows"), dtype) == "done\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and RLIMIT_AS")
def test_no_memory_is_a_status_and_nothing_is_written():
    assert children.run_well(children.program("without_memory")) == "3 True 0\n"


# ---- Threads and processes ----


def test_many_threads_at_once_give_the_same_bits(rng, dtype):
    x, target = logits_of(rng, (300, 1000), dtype), targets_of(rng, (300, 1000))
    expected = all_of_batch(x, target)
    with ThreadPoolExecutor(8) as pool:  # ctypes releases the GIL
        found = list(pool.map(lambda n: all_of_batch(x, target, n_threads=n % 3), range(24)))
    assert [different(got, expected) for got in found] == [[]] * 24


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_gives_the_parents_bits():
    assert children.run_well(children.program("forked_c_calls")) == "0\n"


def test_targets_that_change_during_the_call_lead_to_no_access_outside_of_the_arrays():
    assert children.run_well(children.program("rewritten_c_targets")) == "done\n"


def test_no_function_touches_errno(rng, dtype):
    x, target = logits_of(rng, (300, 1000), dtype), targets_of(rng, (300, 1000))
    x[::3] *= 100  # exponentials underflow
    x[1], x[2] = -INF, NAN
    before = dict(C)
    ctypes.set_errno(77)
    try:
        C.update({each[0]: callable_at_its_address(*each, use_errno=True) for each in declared()})
        all_of_batch(x, target, n_threads=2)
        c_calls.all_of_rows(x, target)
        for row in x:
            state = c_calls.merge(c_calls.state_of(row), State(), dtype)
            c_calls.finish(state, dtype), c_calls.finish_loss(state, 0, dtype)
            c_calls.finish_grad(state, row)
        assert ctypes.get_errno() == 77
    finally:
        C.update(before)
        ctypes.set_errno(0)
