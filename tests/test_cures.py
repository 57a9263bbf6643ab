"""Errors whose cure is code: each is followed to the letter, and must give what was meant."""

import itertools
import re
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided
from numpy.testing import assert_array_equal

import csoftmax
from csoftmax import functional, special
from support import children

X = np.float64([[1, 3, 2, 0], [0, 2, -1, 1], [2, 2, 1, 3]])
TARGET = np.array([1, 0, 3])
Q = csoftmax.softmax(X[:, ::-1])
ONE_HOT = np.eye(4, dtype=int)[TARGET]
ABSENT = np.array([[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
AXES = {"softmax", "log_softmax"}
LOSSES = ["cross_entropy", "cross_entropy_with_grad"]
BACKWARD = ["softmax_backward", "log_softmax_backward"]

# Every argument that is an array: what is called, with which arguments, and which of them it is.
PLACES = [
    *((name, {"x": X}, "x") for name in ("softmax", "log_softmax", "logsumexp")),
    *((f"special.{name}", {"x": X}, "x") for name in ("softmax", "log_softmax")),
    *((f"functional.{name}", {"input": X, "dim": 1}, "input") for name in sorted(AXES)),
    ("functional.logsumexp", {"input": X, "dim": 1}, "input"),
    ("functional.logsumexp", {"input": X, "dim": (0, 1)}, "input"),
    ("special.logsumexp", {"a": X, "axis": 1}, "a"),
    ("special.logsumexp", {"a": X, "b": Q, "axis": 1}, "a"),
    ("special.logsumexp", {"a": X, "b": Q, "axis": 1}, "b"),
    *((name, {"logits": X, "target": TARGET}, "logits") for name in LOSSES),
    *((name, {"logits": X, "target": Q}, "logits") for name in LOSSES),
    ("log_prob", {"logits": X, "index": TARGET}, "logits"),
    *((f"functional.{name}", {"input": X, "target": TARGET}, "input") for name in ("cross_entropy", "nll_loss")),
    *((name, {"grad": X, "output": Q}, argument) for name in BACKWARD for argument in ("grad", "output")),
    *(
        (name, {"logits": X, "target": TARGET, "reduction": "none", argument: values}, argument)
        for name in LOSSES
        for argument, values in (("weight", Q[0]), ("sample_weight", Q[:, 0]), ("grad_output", Q[:, 1]))
        if name == LOSSES[1] or argument != "grad_output"
    ),
    *(
        (f"functional.{name}", {"input": X, "target": TARGET, "weight": Q[0]}, "weight")
        for name in ("cross_entropy", "nll_loss")
    ),
]  # fmt: skip
TARGETS = [
    *((name, {"logits": X, "target": TARGET}, "target") for name in LOSSES),
    ("functional.cross_entropy", {"input": X, "target": TARGET}, "target"),
    ("functional.nll_loss", {"input": X, "target": TARGET}, "target"),
    ("log_prob", {"logits": X, "index": TARGET}, "index"),
]
PROBABILITIES = TARGETS[:3]
EVERY = [*PLACES, *TARGETS]


def call(name, arguments):
    function = csoftmax
    for part in name.split("."):
        function = getattr(function, part)
    return function(**arguments)


def error_of(name, arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((TypeError, ValueError)) as caught:
            call(name, arguments)
    assert str(caught.value).startswith(f"{name}() needs ")
    return caught.value


def expression_at(text):
    """The longest beginning of `text` that is an expression, if it is more than a word."""
    for end in reversed([m.start() for m in re.finditer(r"[ ,]|$", text)]):
        try:
            code = compile(text[:end], "cure", "eval").co_names and text[:end]
        except SyntaxError:
            continue
        return code if code and not code.isidentifier() else None


def cures(text):
    """The cures that a message ends with: for each, the code of arguments by name, or of a whole call."""
    end = text.rpartition(": ")[2] if ": pass " not in text else text.rpartition(": pass ")[2]
    found = []
    for verb, rest in re.findall(
        r"(pass|call|make it with) (.*?)(?= or pass |$)",
        f"pass {end}" if ": pass " in text else end,
    ):
        more = dict(re.findall(r" with (\w+)=(\S+)$", rest))
        if keyword := re.match(r"(\w+)=(?!=)(.+)$", rest):
            found.append(("pass", {keyword[1]: keyword[2]}))
        elif code := expression_at(rest):
            found.append((verb, {None: code, **more}))
    return found


def results(error, name, arguments, **known):
    """What each cure gives: the whole call again, with the code's value instead of the argument it names."""
    given = cures(str(error))
    assert given, str(error)
    space = {"numpy": np, "csoftmax": csoftmax, **arguments, **known}
    values = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for verb, codes in given:
            changed = dict(arguments)
            for argument, code in codes.items():
                value = eval(code, space)
                if verb == "call":
                    values.append(value)
                    break
                if argument is None:
                    names = [word for word in arguments if re.search(rf"\b{word}\b", code)]
                    argument = "out" if verb == "make it with" else names[0]
                changed[argument] = value
            else:
                values.append(call(name, changed))
    return values


def same(got, expected):
    if isinstance(expected, tuple):
        return all(same(*pair) for pair in zip(got, expected, strict=True))
    assert np.asarray(got).dtype == np.asarray(expected).dtype
    assert_array_equal(got, expected)
    return True


def followed(name, arguments, argument, given, expected, **known):
    """Follow the cures of the call with `given` as `argument`; each is to give what the call with `expected` does."""
    before = {
        key: np.array(value) for key, value in arguments.items() if isinstance(value, np.ndarray)
    }
    changed = {**arguments, argument: given}
    error = error_of(name, changed)
    wanted = call(name, {**arguments, argument: expected})
    for got in results(error, name, changed, **known):
        assert same(got, wanted), str(error)
    for key, value in before.items():
        assert_array_equal(arguments[key], value)
    return error


def each(places):
    return pytest.mark.parametrize(("name", "arguments", "argument"), places)


def is_logits(argument):
    return argument in ("x", "logits", "input", "a")


def is_log(name, argument):
    return is_logits(argument) or (name == "log_softmax_backward" and argument == "output")


# ---- Dtypes ----


@each(PLACES)
@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2", "int4", "uint4"])
def test_numbers_of_ml_dtypes_are_to_be_converted_to_float32(name, arguments, argument, kind):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = arguments[argument]
    given = (np.round(values) if "int" in kind else values).clip(0 if kind == "uint4" else -8, 7)
    given = given.astype(getattr(ml_dtypes, kind))
    error = followed(name, arguments, argument, given, given.astype(np.float32))
    assert kind in str(error)
    assert str(error).endswith(f": pass {argument}.astype(numpy.float32)")


@each(PLACES)
def test_numbers_that_numpy_can_convert_are_to_be_converted(name, arguments, argument):
    values = arguments[argument]
    text = np.array([repr(float(x)) for x in values.flat]).reshape(values.shape)
    objects = np.array([Fraction(x) for x in values.flat]).reshape(values.shape)
    decimals = [Decimal(x) for x in values.ravel().tolist()]
    assert text.dtype.kind == "U"
    for given in (
        text,
        text.astype("S"),
        text.tolist(),
        objects,
        objects.tolist(),
        np.array(decimals).reshape(values.shape),
    ):
        followed(name, arguments, argument, given, values)
    if values.ndim == 1 and argument in ("weight", "sample_weight", "grad_output"):
        return  # longdouble is converted there
    if np.dtype("longdouble") != np.float64:
        followed(name, arguments, argument, np.longdouble(values), values)


@each(PLACES)
def test_complex_numbers_lose_their_imaginary_part_by_the_cure_alone(name, arguments, argument):
    values = arguments[argument]
    for given in (values + 1j, (values + 1j).tolist(), np.clongdouble(values + 1j)):
        followed(name, arguments, argument, given, values)
    narrow = values.astype(np.float32)
    followed(name, arguments, argument, narrow.astype(np.complex64), narrow)


@each(PLACES)
def test_fields_become_a_last_axis_times_become_seconds_and_rows_of_objects_an_array(
    name, arguments, argument
):
    values = arguments[argument]
    records = np.empty(values.shape[:-1], [(f"field{i}", float) for i in range(values.shape[-1])])
    for i in range(values.shape[-1]):
        records[f"field{i}"] = values[..., i]
    followed(name, arguments, argument, records, values)
    seconds = np.round(values * 8).astype(int)
    followed(name, arguments, argument, seconds.astype("m8[s]"), seconds.astype(float))
    followed(name, arguments, argument, seconds.astype("M8[s]"), seconds)
    if values.ndim == 2:
        rows = np.empty(len(values), object)
        rows[:] = list(values)
        followed(name, arguments, argument, rows, values)


@each([place for place in PLACES if is_logits(place[2])])
def test_what_is_no_number_is_not_said_to_become_one(name, arguments, argument):
    for given in (
        np.array(["a", "b"]),
        "text",
        [None, 1.0],
        None,
        object(),
        np.array([object()]),
        [10**400],
        {"a": "b"},
        {"a", "b"},
        np.zeros(2, "V8"),
        np.zeros(2, [("a", "U3")]),
        [Decimal(1), "a"],
        lambda: 1,
    ):
        error = error_of(name, {**arguments, argument: given})
        assert type(error) is TypeError
        assert str(error).endswith(f": pass an array of numbers as {argument}")
        assert not cures(str(error))


# ---- Collections and arrays of other packages ----


@each([place for place in PLACES if place[1][place[2]].ndim == 1])
def test_collections_are_to_be_made_lists(name, arguments, argument):
    values = arguments[argument]
    assert len(set(values.tolist())) == len(values)
    followed(name, arguments, argument, set(values.tolist()), np.array(list(set(values.tolist()))))
    followed(name, arguments, argument, dict(enumerate(values.tolist())), values)
    followed(name, arguments, argument, dict(enumerate(values.tolist())).values(), values)
    followed(name, arguments, argument, (x for x in values.tolist()), values)
    followed(name, arguments, argument, map(float, values), values)
    error = error_of(name, {**arguments, argument: itertools.count()})  # not read: it has no end
    assert str(error).endswith(f": pass list({argument})")


@each([place for place in PLACES if is_logits(place[2])])
def test_sets_of_logits_are_to_be_made_lists(name, arguments, argument):
    if name in ("softmax", "log_softmax", "logsumexp", "special.softmax", "special.log_softmax"):
        followed(name, arguments, argument, {3.0, 1.0}, np.array(list({3.0, 1.0})))
        followed(name, arguments, argument, {"a": 3.0, "b": 1.0}, np.array([3.0, 1.0]))
        followed(name, arguments, argument, (x for x in (3.0, 1.0)), np.array([3.0, 1.0]))


@each([place for place in PLACES if place[1][place[2]].ndim == 2])
def test_sparse_matrices_are_to_be_made_dense(name, arguments, argument):
    sparse = pytest.importorskip("scipy.sparse")
    values = np.where(ABSENT, 0, arguments[argument])
    for kind in (sparse.csr_matrix, sparse.csr_array, sparse.coo_array, sparse.lil_matrix):
        followed(name, arguments, argument, kind(values), values)


class Lazy:
    """What dask's arrays are to us: of its package, and with a method that computes."""

    __module__ = "dask.array.core"

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        pytest.fail("computed without being asked for")

    def compute(self):
        return self.values


class Recording:
    """What tensors that require grad are to us."""

    requires_grad = True

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")

    def detach(self):
        return self.values


@each([*PLACES, *TARGETS])
@pytest.mark.parametrize("wrapper", [Lazy, Recording])
def test_lazy_arrays_are_to_be_computed_and_tensors_detached(name, arguments, argument, wrapper):
    values = arguments[argument]
    method = {Lazy: "compute", Recording: "detach"}[wrapper]
    error = followed(name, arguments, argument, wrapper(values), values)
    assert type(error) is TypeError
    assert str(error).endswith(f": pass {argument}.{method}()")
    assert {Lazy: "a lazy Lazy of dask", Recording: "that requires grad"}[wrapper] in str(error)
    followed(name, arguments, argument, [wrapper(row) for row in values], values)
    if name in AXES:
        rows = [[wrapper(row)] for row in values]
        followed(name, arguments, argument, rows, values[:, None])


class Half:
    """What tensors of bfloat16 are to us: readable as floats alone."""

    def __init__(self, values, requires_grad=False, is_float=False):
        self.values, self.requires_grad, self.is_float = values, requires_grad, is_float

    def __array__(self, dtype=None, copy=None):
        if self.requires_grad or not self.is_float:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.values

    def detach(self):
        return Half(self.values, False, self.is_float)

    def float(self):
        return Half(self.values, self.requires_grad, True)


@each(EVERY)
def test_tensors_that_numpy_cannot_read_are_to_be_made_such_that_it_can(name, arguments, argument):
    values = arguments[argument]
    error = followed(name, arguments, argument, Half(values), values)
    assert str(error).endswith(f"BFloat16): pass {argument}.float()")
    error = followed(name, arguments, argument, Half(values, True), values)
    assert str(error).endswith(f"requires grad: pass {argument}.detach().float()")


def test_arrays_of_dask_and_of_xarray_on_it_are_to_be_computed():
    dask = pytest.importorskip("dask.array")
    xarray = pytest.importorskip("xarray")
    lazy = dask.from_array(X, chunks=(2, 2))
    for given in (lazy, xarray.DataArray(lazy)):
        followed("softmax", {"x": X}, "x", given, X)
        followed("softmax_backward", {"grad": X, "output": Q}, "output", given, X)
    same(csoftmax.softmax(xarray.DataArray(X)), csoftmax.softmax(X))
    followed(
        "cross_entropy", {"logits": X, "target": TARGET}, "target", dask.from_array(TARGET), TARGET
    )


def test_tensors_of_pytorch_are_arrays_or_are_to_be_made_such():
    torch = pytest.importorskip("torch", reason="PyTorch is an optional peer")
    same(csoftmax.softmax(torch.from_numpy(X)), csoftmax.softmax(X))
    followed("softmax", {"x": X}, "x", torch.from_numpy(X).requires_grad_(), X)
    half = torch.from_numpy(X).bfloat16()
    followed("softmax", {"x": X}, "x", half, half.float().numpy())
    followed("softmax", {"x": X}, "x", half.requires_grad_(), half.detach().float().numpy())
    followed("softmax", {"x": X}, "x", torch.from_numpy(X).to_sparse(), X)


def test_what_numpy_reads_as_an_array_is_one():
    expected = csoftmax.softmax(X)
    others = [
        memoryview(X),
        X.view(np.matrix),
        X.tolist(),
        tuple(map(tuple, X)),
        [*X],
        np.asfortranarray(X),
    ]
    for module in ("pandas", "polars", "xarray"):
        try:
            package = __import__(module)
        except ImportError:
            continue
        kind = getattr(package, "DataFrame", None) or package.DataArray
        others.append(kind(X))
    for given in others:
        got = csoftmax.softmax(given)
        assert type(got) is np.ndarray
        assert_array_equal(got, expected)
    out = np.empty_like(X).view(np.matrix)
    assert csoftmax.softmax(X, out=out) is out
    assert_array_equal(out, expected)


# ---- Masks ----


def masked(values, absent):
    return np.ma.array(values, mask=absent)


def absent_from(values):
    return ABSENT if values.ndim == 2 else ABSENT[0, : len(values)]


@each(PLACES)
def test_masked_arrays_are_refused_wherever_they_stand_and_filled_with_what_counts_for_nothing(
    name, arguments, argument
):
    values = arguments[argument]
    absent = absent_from(values)
    fill = -np.inf if is_log(name, argument) else 0
    expected = np.where(absent, fill, values)
    error = followed(name, arguments, argument, masked(values, absent), expected)
    assert type(error) is TypeError
    hint = " (-inf leaves a class out)" if is_log(name, argument) else ""
    assert f"needs {argument} without a mask{hint}, got a masked array: pass " in str(error)
    for kind in ("float32", "float16"):
        narrow = values.astype(kind)
        followed(
            name,
            arguments,
            argument,
            masked(narrow, absent),
            np.where(absent, narrow.dtype.type(fill), narrow),
        )
    whole = np.round(values).astype(int)
    followed(name, arguments, argument, masked(whole, absent), np.where(absent, fill, whole))
    for kind in (np.longdouble, object):
        followed(name, arguments, argument, masked(values.astype(kind), absent), expected)
    followed(name, arguments, argument, masked(values + 1j, absent), expected)
    followed(name, arguments, argument, masked(values, False), values)
    # In lists: NumPy would warn of a masked element, and drop the mask of an array.
    rows = [masked(row, hidden) for row, hidden in zip(values, absent, strict=True)]
    followed(name, arguments, argument, rows, expected)
    followed(name, arguments, argument, tuple(rows), expected)
    if values.ndim == 2:
        rows = [
            [np.ma.masked if hidden else x for x, hidden in zip(*pair, strict=True)]
            for pair in zip(values, absent, strict=True)
        ]
        followed(name, arguments, argument, rows, expected)
        whole = [
            masked(np.round(row).astype(int), hidden)
            for row, hidden in zip(values, absent, strict=True)
        ]
        followed(name, arguments, argument, whole, np.where(absent, fill, np.round(values)))


@each(TARGETS)
def test_masked_class_indices_are_to_be_filled_with_what_is_ignored(name, arguments, argument):
    hidden = np.array([False, True, False])
    for number in (-100, -1, 3) if argument == "target" else (0,):
        if argument == "target":
            arguments = {**arguments, "ignore_index": number}
        expected = np.where(hidden, number, TARGET)
        for kind in (
            "int64",
            "int8",
            "uint8",
            "uint64",
            "float64",
            "float16",
            "complex128",
            "object",
        ):
            followed(name, arguments, argument, masked(TARGET.astype(kind), hidden), expected)
        followed(
            name,
            arguments,
            argument,
            masked(TARGET > 0, hidden),
            np.where(hidden, number, TARGET > 0),
        )
        followed(
            name,
            arguments,
            argument,
            [np.ma.masked if h else t for t, h in zip(TARGET.tolist(), hidden, strict=True)],
            expected,
        )
    if argument == "target":
        followed(name, arguments, argument, masked(TARGET, hidden)[:, None], expected)
        for number in (None, 2**70):
            changed = {**arguments, "ignore_index": number, "target": masked(TARGET, hidden)}
            error = error_of(name, changed)
            assert "with ignore_index=-100" in str(error)
            (got,) = results(error, name, changed)
            same(
                got,
                call(
                    name,
                    {**arguments, "ignore_index": -100, "target": np.where(hidden, -100, TARGET)},
                ),
            )


@each(PROBABILITIES)
def test_masked_class_probabilities_are_to_be_filled_with_zeros(name, arguments, argument):
    followed(name, arguments, argument, masked(Q, ABSENT), np.where(ABSENT, 0, Q))
    expected = np.where(ABSENT, 0, ONE_HOT).astype(float)
    followed(name, arguments, argument, masked(ONE_HOT, ABSENT), expected)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", *BACKWARD, LOSSES[1]])
def test_a_masked_out_is_refused_and_its_data_taken(name):
    second = {"grad": X, "output": Q} if name in BACKWARD else {"x": X}
    arguments = {"logits": X, "target": TARGET} if name in LOSSES else second
    out = np.ma.array(np.full((3,) if name == "logsumexp" else (3, 4), 7.0), mask=False)
    error = error_of(name, {**arguments, "out": out})
    assert str(error) == f"{name}() needs out without a mask, got a MaskedArray: pass out.data"
    assert (out.data == 7).all()
    (got,) = results(error, name, {**arguments, "out": out})
    same(got, call(name, arguments))


def test_masks_are_found_in_long_lists_too():
    rows = [masked(np.zeros(3), [0, 0, 1])] * 10_000
    error = error_of("softmax", {"x": rows})
    assert str(error).endswith(": pass [numpy.ma.filled(each, -numpy.inf) for each in x]")
    for place in (0, 4000, 9999):  # of so many, the first 4096 and the last are looked at
        rows = [[1.0] * 3 for _ in range(10_000)]
        rows[place] = [np.ma.masked, 1.0, 1.0]
        assert "got a list with a masked array" in str(error_of("softmax", {"x": rows}))


def test_lists_without_masks_are_searched_but_not_refused():
    row = [1.0, 2]
    assert_array_equal(csoftmax.softmax([row] * 3), csoftmax.softmax(np.array([row] * 3)))
    endless = []
    endless.append(endless)
    for given in (endless, [endless, endless]):
        with pytest.raises(
            ValueError, match=r"needs x of at most 64 dimensions, got a list of more"
        ):
            csoftmax.softmax(given)
    wide = [1.0]
    for _ in range(70):
        wide = [wide, wide]  # 2**70 paths
    with pytest.raises(ValueError, match=r"at most 64 dimensions"):
        csoftmax.softmax(wide)


# ---- Targets ----


@each(TARGETS)
def test_class_indices_of_other_dtypes_are_to_be_made_integers(name, arguments, argument):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kinds = [
        "float16",
        "float32",
        "float64",
        "longdouble",
        "complex64",
        "complex128",
        "object",
        "U",
        "S",
        ">f8",
    ]
    kinds += [ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.int4]
    for kind in kinds:
        given = TARGET.astype(kind)
        followed(name, arguments, argument, given, TARGET)
        if kind not in (ml_dtypes.int4, "object"):  # whose members are integers
            followed(name, arguments, argument, given.tolist(), TARGET)
    followed(name, arguments, argument, TARGET.astype(float).astype("U"), TARGET)  # "1.0"
    followed(name, arguments, argument, TARGET > 0, (TARGET > 0).astype(int))
    followed(name, arguments, argument, [Decimal(int(t)) for t in TARGET], TARGET)


@each(TARGETS[:4])
def test_missing_class_indices_are_to_be_ignored(name, arguments, argument):
    for given in ([1, np.nan, 3], [1, None, 3], np.array([1, None, 3])):
        followed(name, arguments, argument, given, np.array([1, -100, 3]))
    followed(
        name,
        {**arguments, "ignore_index": -1},
        argument,
        np.float32([1, np.nan, 3]),
        np.array([1, -1, 3]),
    )
    error = error_of(
        name, {**arguments, "ignore_index": None, argument: np.float64([1, np.nan, 3])}
    )
    assert not cures(str(error))


@each(TARGETS[:4])
def test_values_that_pandas_misses_are_to_be_ignored(name, arguments, argument):
    pandas = pytest.importorskip("pandas")
    for values, dtype in (([1, None, 3], "Int64"), ([1, None, 3], object), ([1.0, None, 3], None)):
        given = pandas.Series(values, dtype=dtype)
        error = followed(name, arguments, argument, given, np.array([1, -100, 3]))
        assert str(error).endswith(f"{argument}.fillna(-100).astype(numpy.int64)")
    same(call(name, {**arguments, argument: pandas.Series(TARGET)}), call(name, arguments))
    whole = pandas.Series(TARGET, dtype="Int64")
    same(call(name, {**arguments, argument: whole}), call(name, arguments))
    halves = pandas.Series([0.5, None, 1])
    assert not cures(str(error_of(name, {**arguments, argument: halves})))


@each(TARGETS)
@pytest.mark.parametrize("given", [[0.5, 1, 2], [1e300, 0, 0], [1j, 0, 0], [np.inf, 0, 0]])
def test_fractions_are_not_said_to_be_class_indices(name, arguments, argument, given):
    given = np.array(given) + 0.25
    assert not cures(str(error_of(name, {**arguments, argument: given})))


@each(TARGETS)
@pytest.mark.parametrize("kind", ["U", "object", "S"])
def test_labels_are_to_be_numbered(name, arguments, argument, kind):
    classes = np.array(["ant", "bee", "cat", "dog"]).astype(kind)
    error = followed(name, arguments, argument, classes[TARGET], TARGET, classes=classes)
    assert str(error).endswith(
        f"numpy.searchsorted(classes, {argument}) with the sorted labels as classes"
    )
    followed(name, arguments, argument, classes[TARGET].tolist(), TARGET, classes=classes)
    days = np.datetime64("2026-11-30") + np.arange(4)
    followed(name, arguments, argument, days[TARGET], TARGET, classes=days)


@each(TARGETS)
def test_categories_are_to_be_numbered(name, arguments, argument):
    pandas = pytest.importorskip("pandas")
    names = ["dog", "ant", "cat", "bee"]
    given = pandas.Categorical([names[t] for t in TARGET], categories=names)
    for kind in (given, pandas.Series(given), pandas.CategoricalIndex(given)):
        error = followed(name, arguments, argument, kind, TARGET)
        assert "codes" in str(error)


@each(TARGETS[:4])
def test_axes_of_size_one_are_to_be_squeezed(name, arguments, argument):
    for given in (TARGET[:, None], TARGET[None], TARGET[:, None, None], TARGET[None, :, None]):
        for kind in (int, np.uint8, float, bool):
            expected = TARGET.astype(kind).astype(int)
            followed(name, arguments, argument, given.astype(kind), expected)
        followed(name, arguments, argument, given.tolist(), TARGET)
    logits = next(iter(arguments))
    one = {**arguments, logits: X[:1]}
    followed(name, one, argument, np.array(1), np.array([1]))
    followed(name, one, argument, 1, np.array([1]))


@each(TARGETS[:4])
def test_a_matrix_is_to_be_made_an_array_before_it_is_squeezed(name, arguments, argument):
    followed(name, arguments, argument, TARGET[:, None].view(np.matrix), TARGET)
    followed(name, arguments, argument, TARGET.astype(float).view(np.matrix), TARGET)
    arguments = {**arguments, argument: ONE_HOT.view(np.matrix)}
    got = results(error_of(name, arguments), name, arguments)
    same(got[0], call(name, {**arguments, argument: TARGET}))


@each(TARGETS)
def test_one_hot_rows_are_to_be_class_indices_or_probabilities(name, arguments, argument):
    for kind in (bool, int, np.int8, np.uint64):
        given = ONE_HOT.astype(kind)
        if name == "log_prob" and kind is not bool:
            continue  # several indices for each row
        arguments = {**arguments, argument: given}
        error = error_of(name, arguments)
        got = results(error, name, arguments)
        probabilities = name in (
            "cross_entropy",
            "cross_entropy_with_grad",
            "functional.cross_entropy",
        )
        assert len(got) == 1 + probabilities
        same(got[0], call(name, {**arguments, argument: TARGET}))
        if probabilities:
            assert f"{argument}.astype(numpy.float64)" in str(error)
            same(got[1], call(name, {**arguments, argument: ONE_HOT.astype(float)}))
    if name in LOSSES:
        logits = np.moveaxis(np.stack([X, X + 1, X - 1]), -1, 0).copy()
        target = np.stack([TARGET, TARGET, TARGET[::-1]])
        for axis in (0, -3):
            arguments = {
                "logits": logits,
                "target": np.moveaxis(np.eye(4, dtype=int)[target], -1, 0),
                "axis": axis,
            }
            error = error_of(name, arguments)
            assert f"axis={axis}" in str(error)
            for got in results(error, name, arguments):
                loss = got[0] if isinstance(got, tuple) else got
                np.testing.assert_allclose(
                    loss, csoftmax.cross_entropy(logits, target, axis=axis), rtol=1e-14
                )


@each(PROBABILITIES)
def test_class_probabilities_of_other_dtypes_are_to_be_made_floats_not_integers(
    name, arguments, argument
):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for kind in (ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn):
        given = Q.astype(kind)
        error = followed(name, arguments, argument, given, given.astype(np.float32))
        assert str(error).endswith("target.astype(numpy.float32)")
    for given in (Q.astype(object), Q + 0j, Q.astype("U32"), Q.astype("S32")):
        error = followed(name, arguments, argument, given, Q)
        assert "int64" not in str(error)
        if given.dtype != object:  # whose members are floats
            followed(name, arguments, argument, given.tolist(), Q)
    if np.dtype("longdouble") != np.float64:
        followed(name, arguments, argument, np.longdouble(Q), Q)
    for given in (
        ONE_HOT * 2,
        ONE_HOT + ONE_HOT[::-1],
        np.zeros((3, 4), bool),
    ):  # counts, several labels, none
        followed(name, arguments, argument, given, given.astype(float))
    for given in (ONE_HOT.astype(object), ONE_HOT.astype("U")):
        followed(name, arguments, argument, given, ONE_HOT.astype(float))


@pytest.mark.parametrize("name", ["cross_entropy", "functional.cross_entropy"])
def test_probabilities_with_the_classes_last_are_to_be_moved_to_the_logits_axis(name):
    x = np.stack([X, X + np.arange(4), X * 2], -1)[:, :, :2]  # 3 rows, 4 classes, 2 places
    q = csoftmax.softmax(x * 2, 1)
    arguments = {"input": x, "target": q} if "." in name else {"logits": x, "target": q, "axis": 1}
    followed(name, arguments, "target", np.moveaxis(q, 1, -1), q)
    followed(name, arguments, "target", np.moveaxis(q, 1, -1).astype(object), q)


def test_float_targets_of_no_shape_that_fits_get_both_shapes_and_no_advice():
    for shape in ((4, 3), (2,), (3, 5), (3, 4, 2)):
        error = error_of("cross_entropy", {"logits": X, "target": np.ones(shape)})
        assert "indices of shape (3,), or class probabilities of the logits' shape (3, 4)" in str(
            error
        )
        assert str(error).endswith(f"got float64 of shape {shape}")


@each([*TARGETS])
def test_collections_of_class_indices_are_to_be_made_lists(name, arguments, argument):
    followed(name, arguments, argument, {0: 1, 1: 0, 2: 3}, TARGET)
    followed(name, arguments, argument, (int(t) for t in TARGET), TARGET)
    followed(name, arguments, argument, {0, 1, 3}, np.array(list({0, 1, 3})))
    followed(name, arguments, argument, {0: 1, 1: 0, 2: 3}.values(), TARGET)
    error = error_of(name, {**arguments, argument: None})
    assert "got None" in str(error)


# ---- Shapes of weights ----


@each([place for place in PLACES if place[2] in ("weight", "sample_weight", "grad_output")])
def test_weights_are_to_be_squeezed_or_broadcast(name, arguments, argument):
    values = arguments[argument]
    for given in (values[:, None], values[None], values[:, None].tolist()):
        followed(name, arguments, argument, given, values)
    for given in (2.0, [2.0], np.float32([[2]])):
        followed(name, arguments, argument, given, np.full(values.shape, 2.0))
    for shape in ((len(values) + 1,), (0,), (9, 9)):
        assert not cures(str(error_of(name, {**arguments, argument: np.ones(shape)})))


def test_a_grad_output_of_one_element_is_to_be_a_scalar():
    for reduction in ("mean", "sum"):
        arguments = {"logits": X, "target": TARGET, "reduction": reduction}
        for given in (np.ones(1) / 3, [[0.25]]):
            followed("cross_entropy_with_grad", arguments, "grad_output", given, np.squeeze(given))
        for given in ("0.25", Fraction(1, 4), 0.25 + 0j):
            followed("cross_entropy_with_grad", arguments, "grad_output", given, 0.25)


# ---- Axes and numbers ----


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_several_axes_are_what_special_takes(name, temperature):
    x = np.stack([X, X + 1])
    theirs = getattr(special, name)
    for axis in (None, (0, 1), [0, 1], (-1, 0), (1,), (0, 1, 2), ()):
        for keepdims in (False, True) if name == "logsumexp" else (False,):
            arguments = {"x": x, "axis": axis, "temperature": temperature}
            options = {"keepdims": True} if keepdims else {}
            error = error_of(name, arguments | options)
            assert f"call csoftmax.special.{name}(" in str(error)
            axis = tuple(axis) if isinstance(axis, list) else axis
            for got in results(error, name, arguments):
                same(got, theirs(x / temperature, axis=axis, **options))
    for axis in ((0, 0), (0, 3), ("a",), (0, 1.5)):
        assert "special" not in str(error_of(name, {"x": x, "axis": axis}))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_functional_names_special_too(name):
    arguments = {"input": X, "dim": (0, 1)}
    error = error_of(f"functional.{name}", arguments)
    (got,) = results(error, f"functional.{name}", arguments)
    same(got, getattr(special, name)(X))
    arguments["dtype"] = np.float32
    (got,) = results(
        error_of(f"functional.{name}", arguments),
        f"functional.{name}",
        {**arguments, "dtype": np.float32},
    )
    same(got, getattr(special, name)(X.astype(np.float32)))
    for keepdim in (False, True):
        arguments = {"input": X, "dim": None, "keepdim": keepdim}
        error = error_of("functional.logsumexp", arguments)
        (got,) = results(error, "functional.logsumexp", arguments)
        same(got, special.logsumexp(X, keepdims=keepdim))


@pytest.mark.parametrize(
    ("name", "arguments"), sorted({place[0]: place[1] for place in PLACES}.items())
)
@pytest.mark.parametrize("axis", [1.0, np.float32(-1), True, np.True_, Decimal(1), Fraction(-1)])
def test_an_axis_that_equals_an_integer_is_to_be_one(name, arguments, axis):
    key = "dim" if "functional" in name else "axis"
    if name in ("functional.cross_entropy", "functional.nll_loss"):
        return  # they have none
    arguments = {**arguments, key: axis}
    error = error_of(name, arguments)
    assert type(error) is TypeError
    assert str(error).endswith(f"got {axis!r}: pass {key}={int(axis)}")
    (got,) = results(error, name, arguments)
    same(got, call(name, {**arguments, key: int(axis)}))


def test_axes_of_special_that_equal_integers_are_to_be_such():
    for name, key, axis in itertools.product(
        special.__all__, ["axis"], [[0, 1], (0, 1.0), (True,), [1]]
    ):
        first = "a" if name == "logsumexp" else "x"
        arguments = {first: X, key: axis}
        error = error_of(f"special.{name}", arguments)
        (got,) = results(error, f"special.{name}", arguments)
        same(got, call(f"special.{name}", {first: X, key: tuple(int(i) for i in axis)}))
        arguments[key] = (0, -2)
        (got,) = results(error_of(f"special.{name}", arguments), f"special.{name}", arguments)
        same(got, call(f"special.{name}", {first: X, key: (0,)}))


@pytest.mark.parametrize("axis", [0, -2, 1, -1, np.int64(0), np.int8(-1)])
def test_an_error_names_the_axis_that_the_user_wrote(axis):
    wanted = f"logits (3, 4) with axis={axis} want"
    target = np.zeros(4 if axis in (0, -2) else 3, int)
    for name in LOSSES:
        arguments = {"logits": X, "target": target, "axis": axis}
        for argument in ("target", "weight", "sample_weight"):
            assert wanted in str(error_of(name, {**arguments, argument: np.zeros(9, int)}))
    arguments = {"logits": X, "index": np.zeros((9, 9), int), "axis": axis}
    assert wanted in str(error_of("log_prob", arguments))


@pytest.mark.parametrize("name", ["functional.cross_entropy", "functional.nll_loss"])
def test_an_error_of_functional_names_its_input_and_the_axis_of_its_classes(name):
    text = str(error_of(name, {"input": X, "target": np.zeros(9, int)}))
    assert "input (3, 4) with axis=1 want" in text
    text = str(error_of(name, {"input": X[0], "target": [0, 1, 2]}))
    assert "input (4,) with axis=0 want" in text


@pytest.mark.parametrize(("option", "value"), [("temperature", 2.0), ("label_smoothing", 0.25)])
def test_numbers_in_disguise_are_to_be_made_floats(option, value):
    arguments = {"logits": X, "target": TARGET}
    for given in (str(value), str(value).encode(), np.array([value]), np.array([[value]])):
        error = followed("cross_entropy", arguments, option, given, value)
        assert "a real number" in str(error)
    for given in ("high", np.ones(2), None, np.ma.masked, [1.0], 1j):
        error = error_of("cross_entropy", {**arguments, option: given})
        assert str(error).endswith(": pass a float")


def test_an_ignore_index_that_equals_an_integer_is_to_be_one():
    arguments = {"logits": X, "target": TARGET}
    for given in (3.0, np.float32(3), Decimal(3)):
        followed("cross_entropy", arguments, "ignore_index", given, 3)


@pytest.mark.parametrize("name", ["softmax", "logsumexp"])
def test_an_out_that_does_not_fit_is_to_be_made(name):
    expected = call(name, {"x": X})
    read_only = np.empty_like(expected)
    read_only.flags.writeable = False
    shared = as_strided(np.zeros(1), expected.shape, (0,) * expected.ndim)
    for out in ([1.0], np.empty(9), expected.astype("float32"), read_only, shared):
        arguments = {"x": X, "out": out}
        (got,) = results(error_of(name, arguments), name, arguments)
        same(got, expected)


# ---- Foreign errors ----


def raising(error):
    def fail(*arguments, **options):
        raise error

    names = ("__array__", "__float__", "__index__", "__len__", "__int__")
    return type("Faulty", (), {**dict.fromkeys(names, fail), "__getitem__": fail})()


@each(EVERY)
@pytest.mark.parametrize(
    "error", [ValueError("disk on fire"), TypeError("disk on fire"), RuntimeError("disk on fire")]
)
def test_an_error_raised_by_a_foreign_array_is_told_as_such(name, arguments, argument, error):
    faulty = raising(error)
    for given in (faulty, [faulty, faulty]):
        got = error_of(name, {**arguments, argument: given})
        assert type(got) is (ValueError if type(error) is ValueError else TypeError)
        assert "disk on fire" in str(got)
        assert "ragged" not in str(got)
        assert got.__cause__ is error


def test_rows_of_several_lengths_are_called_ragged():
    for given in ([[1.0], [1.0, 2.0]], ([1, 2], [3]), [np.zeros((2, 3)), np.zeros((2, 4))]):
        error = error_of("softmax", {"x": given})
        assert f"got a ragged {type(given).__name__}: pad or split it" in str(error)


@pytest.mark.parametrize("error", [ZeroDivisionError("a"), OverflowError("b"), RuntimeError("c")])
def test_numbers_that_raise_are_refused_by_name(error):
    faulty = raising(error)
    for option in (
        *("temperature", "label_smoothing", "axis", "n_threads", "ignore_index", "reduction"),
    ):
        arguments = {"logits": X, "target": TARGET, option: faulty}
        assert "Faulty object" in str(error_of("cross_entropy", arguments))
    error_of("logsumexp", {"x": X, "keepdims": faulty})
    error_of("special.logsumexp", {"a": X, "return_sign": faulty})
    error_of("functional.logsumexp", {"input": X, "dim": 0, "keepdim": np.ones(2)})
    for option in ("size_average", "reduce"):
        error_of("functional.cross_entropy", {"input": X, "target": TARGET, option: faulty})
    error_of("functional.softmax", {"input": X, "_stacklevel": faulty})
    error_of("functional.softmax", {"input": X, "dim": 0, "dtype": faulty})


def test_a_value_that_cannot_be_shown_or_is_too_long_does_not_hide_the_error():
    unshown = type("Unshown", (), {"__repr__": lambda self: 1 / 0})()
    for value in (unshown, 10**5000, "x" * 10**6, np.zeros(10**5)):
        for option in ("axis", "temperature", "reduction"):
            error = error_of("cross_entropy", {"logits": X, "target": TARGET, option: value})
            assert len(str(error)) < 500


def test_no_package_is_imported_to_know_its_arrays():
    assert children.run_well(children.program("without_other_packages")) == "set()\n"


# ---- ignore_index with probabilities ----


@pytest.mark.parametrize("ignore_index", [0, 2, 10**30, np.int8(1)])
def test_probabilities_with_an_index_to_ignore_are_refused_as_in_pytorch(ignore_index):
    for target in (Q, Q.astype(np.float32), Q.astype(np.float16), Q.tolist()):
        arguments = {"input": X, "target": target, "ignore_index": ignore_index}
        error = error_of("functional.cross_entropy", arguments)
        assert type(error) is ValueError
        (got,) = results(error, "functional.cross_entropy", arguments)
        same(got, functional.cross_entropy(X, target))
    for other in (-1, -100, None, -(10**30)):
        same(functional.cross_entropy(X, Q, ignore_index=other), functional.cross_entropy(X, Q))
    functional.cross_entropy(X, TARGET, ignore_index=2)
