"""The answer never depends on where the elements lie, bit for bit; inputs are never modified."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import csoftmax
from support.bits import different, same_bits
from support.cases import logits_of
from support.layouts import LAYOUTS, WRITABLE
from support.options import arguments_of, results_of, scalars_of

# Few, some and many classes; first, middle and last axes with few and many inner elements.
SHAPES = [
    ((40, 10), 1),
    ((40, 10), 0),
    ((33, 100), 1),
    ((5, 2049), 1),
    ((2100, 17), 0),
    ((3, 40, 20), 1),
    ((3, 17, 3), 1),
    ((2, 3, 4, 16), -2),
    ((9,), 0),
    ((100, 1024), 0),  # classes at multiples of 4096 bytes: they share sets of the cache
    ((2100, 512), 0),
]

# The same handovers, in fewer elements.
SMALL = [
    ((40, 10), 1),
    ((40, 10), 0),
    ((33, 100), 1),
    ((3, 2049), 1),
    ((2100, 17), 0),
    ((3, 17, 3), 1),
    ((2, 3, 4, 16), -2),
    ((9,), 0),
]


def results(x, axis):
    """All that the package computes from x: bytes of what depends on every logit."""
    n_classes = x.shape[axis]
    rows = tuple(np.delete(x.shape, axis))
    target = (np.arange(np.prod(rows, dtype=int)) * 5 % n_classes).reshape(rows)
    target.reshape(-1)[4::9] = -100
    loss, grad = csoftmax.cross_entropy_with_grad(x, target, axis=axis)
    return {
        "softmax": csoftmax.softmax(x, axis),
        "log_softmax": csoftmax.log_softmax(x, axis),
        "logsumexp": csoftmax.logsumexp(x, axis),
        "losses": csoftmax.cross_entropy(x, target, axis=axis, reduction="none"),
        "loss": loss,
        "gradient": grad,
    }


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_the_bits_do_not_depend_on_the_layout_and_the_input_stays(rng, dtype, shape, axis, layout):
    x = logits_of(rng, shape, dtype)
    x.reshape(-1)[::11] = -np.inf
    x.reshape(-1)[0] = 1
    expected = results(x, axis)
    view = layout(x)
    bits = view.tobytes()
    got = results(view, axis)
    assert different(got, expected) == []
    assert view.tobytes() == bits


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize(("shape", "axis"), SMALL)
def test_the_layout_of_no_argument_matters_and_all_stay_as_they_are(
    rng, dtype, shape, axis, layout
):
    x, given = logits_of(rng, shape, dtype), arguments_of(rng, shape, axis, dtype)
    expected, scalars = results_of(x, given, axis), scalars_of(x, given, axis)
    for changed in ({"logits"}, {"probabilities", "grad"}, {"output", "log_output"}, {*given}):
        views = {
            name: layout(a) if name in changed and a.ndim else a
            for name, a in {"logits": x, **given}.items()
        }
        kept = {name: view.copy() for name, view in views.items()}
        assert different(results_of(views["logits"], views, axis), expected) == []
        assert different(scalars_of(views["logits"], views, axis), scalars) == []
        assert [name for name in views if views[name].tobytes() != kept[name].tobytes()] == []


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((300, 20), 1), ((40, 100), 1), ((5, 2100), 1), ((20, 300), 0), ((3, 210, 17), 1)],
)
def test_broadcast_arguments_give_the_bits_of_their_copies(rng, dtype, shape, axis):
    for repeated in range(len(shape)):
        one = list(shape)
        one[repeated] = 1
        given = arguments_of(rng, shape, axis, dtype)
        for name in ("probabilities", "grad", "output", "log_output"):
            given[name] = np.broadcast_to(given[name][tuple(map(slice, one))], shape)
        for name in ("target", "sample_weight", "grad_output", "weight"):
            given[name] = np.broadcast_to(given[name].reshape(-1)[0], given[name].shape)
        x = np.broadcast_to(logits_of(rng, tuple(one), dtype), shape)
        copies = {name: np.ascontiguousarray(array) for name, array in given.items()}
        expected = results_of(x.copy(), copies, axis)
        assert different(results_of(x, given, axis), expected) == []


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_an_axis_that_is_moved_to_the_end_gives_the_same_bits(rng, dtype, shape, axis):
    x = logits_of(rng, shape, dtype)
    last = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    got, expected = results(x, axis), results(last, -1)
    for name in ("softmax", "log_softmax", "gradient"):
        got[name] = np.moveaxis(got[name], axis, -1)
    assert different(got, expected) == []


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_an_axis_that_is_moved_to_the_end_gives_the_same_bits_with_options_too(
    rng, dtype, shape, axis
):
    x, given = logits_of(rng, shape, dtype), arguments_of(rng, shape, axis, dtype)
    last = {
        name: np.ascontiguousarray(np.moveaxis(a, axis, -1)) if a.shape == shape else a
        for name, a in {"logits": x, **given}.items()
    }
    got, expected = results_of(x, given, axis), results_of(last["logits"], last, -1)
    for name in got:
        if got[name].shape == shape:
            got[name] = np.moveaxis(got[name], axis, -1)
    assert different(got, expected) == []
    assert different(scalars_of(x, given, axis), scalars_of(last["logits"], last, -1)) == []


@pytest.mark.parametrize(("shape", "axis"), [((300, 20), 1), ((20, 300), 0), ((3, 2100, 17), 1)])
def test_broadcast_views_give_the_bits_of_their_copies(rng, dtype, shape, axis):
    for repeated in range(len(shape)):
        one = list(shape)
        one[repeated] = 1
        view = np.broadcast_to(logits_of(rng, tuple(one), dtype), shape)
        assert view.strides[repeated] == 0
        got, expected = results(view, axis), results(view.copy(), axis)
        assert different(got, expected) == []


def test_overlapping_windows_are_read_as_they_are(rng, dtype):
    memory = logits_of(rng, 500, dtype)
    windows = np.lib.stride_tricks.sliding_window_view(memory, 40)
    got, expected = results(windows, 1), results(windows.copy(), 1)
    assert different(got, expected) == []


def writers(x, axis):
    """Functions that write as many elements as they read: of input and out."""
    rows = tuple(np.delete(x.shape, axis))
    target = np.zeros(rows, int)
    yield lambda a, out: csoftmax.softmax(a, axis, out=out)
    yield lambda a, out: csoftmax.log_softmax(a, axis, out=out)
    yield lambda a, out: csoftmax.cross_entropy_with_grad(a, target, axis=axis, out=out)[1]


@pytest.mark.parametrize("layout", [None, *WRITABLE])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_out_of_any_layout_receives_the_same_bits(rng, dtype, shape, axis, layout):
    x = logits_of(rng, shape, dtype)
    for write in writers(x, axis):
        expected = write(x, None)
        out = np.full_like(x, 7) if layout is None else layout(np.full_like(x, 7))
        assert write(x, out) is out
        assert same_bits(out, expected)


@pytest.mark.parametrize("layout", [None, *WRITABLE])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_in_place_gives_the_bits_of_out_of_place(rng, dtype, shape, axis, layout):
    x = logits_of(rng, shape, dtype)
    for write in writers(x, axis):
        expected = write(x, None)
        view = x.copy() if layout is None else layout(x.copy())
        write(view, view)
        assert same_bits(view, expected)


# (2049, 1024) has two chunks; tiles of (200, 1040) have 16 rows, so that a first one may have 8 or fewer.
@pytest.mark.parametrize(
    "shape", [(9, 2048), (2, 70, 1024), (3, 5, 1040), (200, 1040), (2049, 1024)]
)
def test_columns_give_the_same_bits_wherever_they_begin_in_a_cache_line(rng, dtype, shape):
    axis = len(shape) - 2
    x = logits_of(rng, shape, dtype)
    target = rng.integers(0, shape[axis], shape[:-2] + shape[-1:])
    rows = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    loss, grad = csoftmax.cross_entropy_with_grad(rows, target, reduction="none")
    size, line = x.size, 64 // x.itemsize

    def begun_at(shift):
        """An array that begins so many elements behind the start of a line, and what lies before and behind it."""
        buffer = np.full(size + 4 * line, np.nan, dtype)
        start = line + -buffer.ctypes.data % 64 // x.itemsize + shift
        return buffer[start:][:size].reshape(shape), (buffer[:start], buffer[start + size :])

    for shift in (0, 1, line // 2, line - 1):
        (begun, around), (out, around_out) = begun_at(shift), begun_at(line - 1 - shift)
        begun[...] = x
        assert same_bits(csoftmax.logsumexp(begun, axis), csoftmax.logsumexp(rows))
        got = np.moveaxis(csoftmax.softmax(begun, axis, out=out), axis, -1)
        assert same_bits(got, csoftmax.softmax(rows))
        got = csoftmax.cross_entropy_with_grad(
            begun, target, axis=axis, reduction="none", out=begun
        )
        assert same_bits(got[0], loss)
        assert same_bits(np.moveaxis(begun, axis, -1), grad)
        assert np.isnan(np.concatenate([*around, *around_out])).all()


@pytest.mark.parametrize("n_rows", [17, 20, 24, 25])
def test_streamed_rows_of_several_chunks_have_the_same_bits_from_columns(rng, n_rows):
    x = logits_of(rng, (n_rows, 5_000_000 // n_rows), "float32")  # beyond what stays in the cache
    columns = np.asfortranarray(x)
    target = rng.integers(0, x.shape[1], n_rows)
    for n_threads in (1, 2):
        for write in (
            lambda a, out, n: csoftmax.softmax(a, out=out, n_threads=n),
            lambda a, out, n: csoftmax.log_softmax(a, out=out, n_threads=n),
            lambda a, out, n: csoftmax.cross_entropy_with_grad(a, target, out=out, n_threads=n)[1],
        ):
            got = write(columns, np.full_like(x, 7, order="C"), n_threads)
            assert same_bits(got, write(x, np.full_like(x, 7), n_threads))


def writers_with_options(x, axis, rng):
    """Functions that write as many elements as they read: of what they read, and out."""
    given = arguments_of(rng, x.shape, axis, str(x.dtype))
    options = {"weight": given["weight"], "label_smoothing": 0.1, "axis": axis}

    def gradient(a, target, out):
        return csoftmax.cross_entropy_with_grad(a, target, out=out, **options)[1]

    yield lambda a, out: gradient(a, given["target"], out)
    yield lambda a, out: gradient(a, given["probabilities"], out)
    yield lambda a, out: gradient(given["grad"], a, out)
    for number, function in enumerate((csoftmax.softmax_backward, csoftmax.log_softmax_backward)):
        output = given["log_output" if number else "output"]
        yield lambda a, out, f=function, y=output: f(a, y, axis, out=out)
        yield lambda a, out, f=function: f(given["grad"], a, axis, out=out)


@pytest.mark.parametrize("layout", [None, *WRITABLE])
@pytest.mark.parametrize(("shape", "axis"), SMALL)
def test_out_of_any_layout_and_in_place_give_the_bits_with_options_too(
    rng, dtype, shape, axis, layout
):
    x = -np.abs(logits_of(rng, shape, dtype))  # a log-probability too
    for write in writers_with_options(x, axis, rng):
        expected = write(x, None)
        out = np.full_like(x, 7) if layout is None else layout(np.full_like(x, 7))
        assert write(x, out) is out
        assert same_bits(out, expected)
        view = x.copy() if layout is None else layout(x.copy())
        write(view, view)
        assert same_bits(view, expected)


def test_out_writes_nothing_between_its_elements(rng, dtype):
    x = logits_of(rng, (30, 20), dtype)
    for write in (*writers(x, 1), *writers_with_options(x, 1, rng)):
        room = np.full((60, 40), 7, dtype)
        write(x, room[::2, ::2])
        assert (room[1::2] == 7).all()
        assert (room[:, 1::2] == 7).all()


@pytest.mark.parametrize("shift", [1, 15, 16, 17, 70, 71])
@pytest.mark.parametrize("backwards", [False, True])
def test_an_out_that_partly_overlaps_the_input_is_right(rng, dtype, shift, backwards):
    for number in range(3):
        memory = logits_of(rng, 6000, dtype)
        first, second = memory[:4900].reshape(70, 70), memory[shift : shift + 4900].reshape(70, 70)
        x, out = (second, first) if backwards else (first, second)
        write = list(writers(x, 1))[number]
        expected = write(x.copy(), None)
        assert write(x, out) is out
        assert same_bits(out, expected)


def test_an_out_that_is_the_transposed_input_is_right(rng, dtype):
    for number in range(3):
        x = logits_of(rng, (50, 50), dtype)
        write = list(writers(x, 1))[number]
        expected = write(x.copy(), None)
        write(x, x.T)
        assert same_bits(x.T, expected)


def test_an_out_that_holds_the_input_backwards_is_right(rng, dtype):
    for number in range(3):
        x = logits_of(rng, (50, 30), dtype)
        write = list(writers(x, 1))[number]
        expected = write(x.copy(), None)
        write(x, x[::-1])
        assert same_bits(x[::-1], expected)


def test_an_out_whose_elements_share_memory_is_refused(rng, dtype):
    # Windows that overlap: no order of writing gives every element its value.
    memory = np.full(60, 7, dtype)
    out = as_strided(memory, (20, 10), (memory.itemsize, memory.itemsize))
    for write in writers(out, 1):
        with pytest.raises(ValueError, match="out"):
            write(logits_of(rng, (20, 10), dtype), out)
        assert (memory == 7).all()
