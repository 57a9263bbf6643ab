"""The C functions give the numbers of the Python functions, bit for bit: batches, rows, and rows in pieces."""

import itertools

import numpy as np
import pytest

import csoftmax
from support import c_calls, reference
from support.bits import different, same_bits
from support.c_calls import OK, all_of_batch, all_of_rows
from support.cases import logits_of, targets_of
from support.floating_point import flushing, rounding, x86_64_linux
from support.header import State
from support.layouts import OF_ROWS, misaligned, repeated
from support.reference import BOUNDS, ulps

INF, NAN = np.inf, np.nan
# Where lanes, transposed rows (up to 384 bytes), blocks and chunks hand over, and every number up to there.
EVERY_CLASSES = [*range(1, 131), 255, 256, 257, 1000, *range(2046, 2052), 2063, 2112, 2113]
EVERY_CLASSES += [*range(4094, 4099), 4100, 6145]
SHAPES = [(1, 1), (3, 2), (5, 7), (40, 10), (33, 100), (300, 31), (3, 2049), (2, 4100), (2100, 17)]
LARGE = [(14, 20_000), (28_000, 10), (2, 140_000), (2800, 100)]  # worth eight threads


def of_python(x, target, ignore_index=-100):
    """What the Python functions say, under the names of all_of_batch."""
    index = np.where(target == ignore_index, 0, target)
    loss, grad = csoftmax.cross_entropy_with_grad(
        x, target, ignore_index=ignore_index, reduction="none"
    )
    sums = csoftmax.logsumexp(x)
    return {
        "softmax": csoftmax.softmax(x),
        "log_softmax": csoftmax.log_softmax(x),
        "gradient": grad,
        "logsumexp": sums,
        "losses": loss,
        "their logsumexp": sums,
        "log_prob": csoftmax.log_prob(x, index),
    }


def hard_rows(rng, n, dtype):
    """Rows with what sums stumble over, each of n classes."""
    big, tiny = (3e38, 1e-45) if dtype == "float32" else (1.7e308, 5e-324)
    far = 80 if dtype == "float32" else 700
    odd = np.uint32([0xFFC007A2]) if dtype == "float32" else np.uint64([0xFFF80000000007A2])
    where = rng.integers(0, n, 12)
    rows = logits_of(rng, (24, n), dtype, 5)
    rows[1] *= 6
    rows[2] = 1.25  # ties of all
    rows[3] = rng.integers(-2, 3, n)  # and of some
    rows[4, rng.random(n) < 0.5] = -INF
    rows[5] = -INF
    rows[6] = -INF
    rows[6, where[0]] = 3
    rows[7, where[1]] = NAN
    rows[8, where[2]] = odd.view(dtype)[0]  # a NaN with a sign and a payload
    rows[9, where[3]] = INF
    rows[10, where[4]], rows[10, where[5]] = INF, NAN
    rows[11], rows[11, where[6]] = -INF, NAN
    rows[12] = np.where(rng.random(n) < 0.5, big, -big)
    rows[13] = big
    rows[14] = -big
    rows[15] = tiny * rng.integers(-3, 4, n)
    rows[16], rows[16, where[7]] = -far, 0  # a confident row
    rows[17], rows[17, where[8]] = 0, far
    rows[18] = np.linspace(-far, 0, n)
    rows[19] = rows[18, ::-1]
    rows[20] = np.float32(0.1) * rng.integers(-900, 900, n)
    for row, gap in zip(rows[21:], (30, 50, 70), strict=True):
        row[2048:] -= gap + row.max()  # the second chunk far below the first
        row[:2048] -= row[:2048].max()
    return np.concatenate([rows, rows[21:, ::-1]])  # and the first below the second


# ---- Batches ----


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", [5, 40])
def test_batches_are_the_python_functions(rng, dtype, shape, spread):
    x, target = logits_of(rng, shape, dtype, spread), targets_of(rng, shape)
    assert different(all_of_batch(x, target), of_python(x, target)) == []


@pytest.mark.parametrize("layout", OF_ROWS)
@pytest.mark.parametrize("shape", [(40, 10), (33, 100), (3, 2049), (1, 20), (20, 1), (300, 31)])
def test_the_layout_of_the_logits_does_not_matter(rng, dtype, shape, layout):
    x, target = logits_of(rng, shape, dtype), targets_of(rng, shape)
    laid_out = OF_ROWS[layout](x)
    assert same_bits(laid_out, x)
    assert different(all_of_batch(laid_out, target, out=np.zeros_like), of_python(x, target)) == []
    assert same_bits(laid_out, x)


@pytest.mark.parametrize("layout", OF_ROWS)
@pytest.mark.parametrize("shape", [(40, 10), (33, 100), (3, 2049), (1, 20), (20, 1), (300, 31)])
def test_the_layout_of_the_outputs_does_not_matter(rng, dtype, shape, layout):
    x, target = logits_of(rng, shape, dtype), targets_of(rng, shape)

    def out(like):
        return OF_ROWS[layout](np.full(like.shape, 3, like.dtype))

    assert different(all_of_batch(x, target, out=out), of_python(x, target)) == []


@pytest.mark.parametrize("layout", OF_ROWS)
@pytest.mark.parametrize("shape", [(40, 10), (33, 100), (3, 2049), (300, 31)])
def test_outputs_may_take_the_logits_place(rng, dtype, shape, layout):
    x, target = logits_of(rng, shape, dtype), targets_of(rng, shape)
    expected = of_python(x, target)
    place = {name: OF_ROWS[layout](x) for name in ("softmax", "log_softmax", "gradient")}
    for name in ("softmax", "log_softmax"):
        assert c_calls.write(name, place[name], place[name]) == OK
    grad, loss = place["gradient"], np.empty(len(x), dtype)
    assert c_calls.cross_entropy(grad, target, loss, grad=grad) == OK
    assert same_bits(loss, expected["losses"])
    assert different(place, {name: expected[name] for name in place}) == []


def test_nothing_beside_a_strided_output_is_written(rng, dtype):
    x, target = logits_of(rng, (30, 20), dtype), targets_of(rng, (30, 20))
    room = np.full((60, 61), 7, dtype)
    for write in (
        lambda out: c_calls.write("softmax", x, out),
        lambda out: c_calls.write("log_softmax", x, out),
        lambda out: c_calls.cross_entropy(x, target, grad=out),
    ):
        assert write(room[::2, :60:3]) == OK
        written = np.zeros(room.shape, bool)
        written[::2, :60:3] = True
        assert (room[~written] == 7).all()
        assert (room[written] != 7).all()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(40, 10), (20, 300), (5, 4100), (3000, 9)])
def test_a_stride_of_zero_repeats_a_row_or_a_class(rng, dtype, shape, axis):
    x = repeated(logits_of(rng, shape[axis], dtype), shape, axis)
    target = targets_of(rng, shape)
    assert (
        different(
            all_of_batch(x, target, out=lambda like: np.empty(like.shape, dtype)),
            of_python(x.copy(), target),
        )
        == []
    )


@pytest.mark.parametrize("shape", LARGE)
@pytest.mark.parametrize("layout", ["contiguous", "columns", "strided"])
def test_same_bits_for_every_number_of_threads(rng, dtype, shape, layout):
    x, target = OF_ROWS[layout](logits_of(rng, shape, dtype)), targets_of(rng, shape)
    expected = all_of_batch(x, target, n_threads=1, out=np.zeros_like)
    for n_threads in (0, 2, 3, 8):
        got = all_of_batch(x, target, n_threads=n_threads, out=np.zeros_like)
        assert different(got, expected) == []
    assert different(of_python(x, target), expected) == []


@pytest.mark.parametrize("wanted", list(itertools.product([False, True], repeat=3)))
def test_each_of_loss_logsumexp_and_gradient_may_be_null(rng, dtype, wanted):
    shape = (30, 100)
    x, target = logits_of(rng, shape, dtype), targets_of(rng, shape)
    expected = of_python(x, target)
    outputs = [np.empty(30, dtype), np.empty(30, dtype), np.empty(shape, dtype)]
    given = [out if is_wanted else None for out, is_wanted in zip(outputs, wanted, strict=True)]
    assert c_calls.cross_entropy(x, target, *given) == OK
    names = ("losses", "their logsumexp", "gradient")
    for name, out in zip(names, given, strict=True):
        assert out is None or same_bits(out, expected[name])


@pytest.mark.parametrize("shape", [(30, 100), (30, 5), (3, 3000)])
def test_the_scale_of_a_mean_gives_the_gradient_of_the_mean(rng, dtype, shape):
    x, target = logits_of(rng, shape, dtype), targets_of(rng, shape)
    grad = np.empty(shape, dtype)
    scale = 1.0 / np.count_nonzero(target != -100)
    assert c_calls.cross_entropy(x, target, grad=grad, scale=scale) == OK
    assert same_bits(grad, csoftmax.cross_entropy_with_grad(x, target)[1])


# ---- Targets ----


@pytest.mark.parametrize("shift", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["int32", "int64"])
def test_targets_of_either_width_and_anywhere_are_the_same(rng, dtype, kind, shift):
    shape = (30, 100)
    x, target = logits_of(rng, shape, dtype), targets_of(rng, shape)
    got = all_of_batch(x, misaligned(target.astype(kind), shift))
    assert different(got, of_python(x, target)) == []


@pytest.mark.parametrize("kind", ["int32", "int64"])
@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 7, 99, 100, 2**31 - 1, -(2**31)])
def test_an_ignored_row_has_loss_and_gradient_of_zero_whether_a_class_or_not(
    rng, dtype, kind, ignore_index
):
    shape = (30, 100)
    x, target = logits_of(rng, shape, dtype), targets_of(rng, shape, ignored=None).astype(kind)
    target[::7] = ignore_index
    x[7] = NAN  # ignored all the same
    ignored = target == ignore_index
    got = all_of_batch(x, target, ignore_index)
    assert different(got, of_python(x, target, ignore_index)) == []
    assert same_bits(got["losses"][ignored], np.zeros(ignored.sum(), dtype))
    assert same_bits(got["gradient"][ignored], np.zeros((ignored.sum(), 100), dtype))
    assert (got["losses"][~ignored] > 0).all()


@pytest.mark.parametrize("ignore_index", [2**31, -(2**31) - 1, 2**63 - 1, -(2**63) + 1])
def test_an_ignore_index_beyond_int32_ignores_no_int32(rng, dtype, ignore_index):
    shape = (30, 100)
    x, target = logits_of(rng, shape, dtype), targets_of(rng, shape, ignored=None)
    got = all_of_batch(x, target.astype(np.int32), ignore_index)
    assert different(got, of_python(x, target, None)) == []
    wide = target.copy()
    wide[3] = ignore_index
    loss = np.empty(30, dtype)
    assert c_calls.cross_entropy(x, wide, loss, ignore_index=ignore_index) == OK
    assert loss[3] == 0
    assert same_bits(np.delete(loss, 3), np.delete(got["losses"], 3))


def test_ignore_none_ignores_nothing(rng, dtype):
    shape = (30, 100)
    x, target = logits_of(rng, shape, dtype), targets_of(rng, shape, ignored=None)
    got = all_of_batch(x, target, c_calls.IGNORE_NONE)
    assert different(got, of_python(x, target, None)) == []


# ---- Rows ----


@pytest.mark.parametrize("n_classes", EVERY_CLASSES)
def test_rows_are_batches(rng, dtype, n_classes):
    x = hard_rows(rng, n_classes, dtype)
    target = rng.integers(0, n_classes, len(x))
    of_rows, of_batch = all_of_rows(x, target), all_of_batch(x, target)
    assert different(of_batch, of_python(x, target)) == []
    of_batch["losses beside gradients"] = of_batch["losses"]
    del of_batch["their logsumexp"]  # rows return one number
    assert different(of_rows, of_batch) == []


@pytest.mark.parametrize("n_classes", [2, 5, 8, 9, 20, 64, 65, 70, 2049, 2100])
def test_a_nan_is_found_wherever_it_is_and_whatever_infinity_is_beside_it(dtype, n_classes):
    places = [*range(min(n_classes, 70)), *range(2040, n_classes)]
    x, target = np.zeros((len(places), n_classes), dtype), np.zeros(len(places), int)
    for infinity, at in ((INF, 0), (INF, 1), (INF, n_classes - 1), (-INF, 0), (0, 0)):
        x[...] = 0
        x[:, at] = infinity
        x[range(len(places)), places] = NAN
        found = [*all_of_batch(x, target).values(), *all_of_rows(x, target).values()]
        found += all_of_batch(np.asfortranarray(x), target, out=np.zeros_like).values()
        found += [np.array([c_calls.finish(c_calls.state_of(row), dtype) for row in x])]
        assert [np.isnan(each).all() for each in found] == [True] * len(found)


@pytest.mark.parametrize("shift", range(1, 8))
@pytest.mark.parametrize("n_classes", [1, 5, 8, 9, 17, 100, 2048, 2049, 4100])
def test_rows_may_lie_anywhere(rng, dtype, n_classes, shift):
    x = hard_rows(rng, n_classes, dtype)
    targets = rng.integers(0, n_classes, len(x))
    expected = all_of_rows(x, targets)
    for i, (row, target) in enumerate(zip(x, targets.tolist(), strict=True)):
        row, out = misaligned(row, shift), misaligned(row, 8 - shift)
        for name in ("softmax", "log_softmax"):
            c_calls.function(f"{name}_row", dtype)(row.ctypes.data, n_classes, out.ctypes.data)
            assert same_bits(out, expected[name][i])
        both = c_calls.function("cross_entropy_with_grad_row", dtype)
        loss = both(row.ctypes.data, n_classes, target, 1.0, out.ctypes.data)
        assert same_bits(out, expected["gradient"][i])
        sums = c_calls.function("logsumexp_row", dtype)(row.ctypes.data, n_classes)
        picked = c_calls.function("log_prob_row", dtype)(row.ctypes.data, n_classes, target)
        got = c_calls.numbers([loss, sums, picked], dtype)
        names = ("losses", "logsumexp", "log_prob")
        assert same_bits(got, np.array([expected[name][i] for name in names]))


@pytest.mark.parametrize("shift", [0, 1, 4])
@pytest.mark.parametrize("n_classes", [1, 5, 8, 9, 17, 100, 2048, 2049, 4100])
def test_rows_may_be_written_where_they_are_read(rng, dtype, n_classes, shift):
    x = hard_rows(rng, n_classes, dtype)
    targets = rng.integers(0, n_classes, len(x))
    expected = all_of_rows(x, targets)
    for i, target in enumerate(targets.tolist()):
        for name in ("softmax", "log_softmax"):
            row = misaligned(x[i], shift)
            c_calls.function(f"{name}_row", dtype)(row.ctypes.data, n_classes, row.ctypes.data)
            assert same_bits(row, expected[name][i])
        row = misaligned(x[i], shift)
        both = c_calls.function("cross_entropy_with_grad_row", dtype)
        loss = both(row.ctypes.data, n_classes, target, 1.0, row.ctypes.data)
        assert same_bits(c_calls.numbers([loss], dtype)[0], expected["losses"][i])
        assert same_bits(row, expected["gradient"][i])


@pytest.mark.parametrize("scale", [0.25, 1 / 3, -2.0, 0.0, 1e-30])
@pytest.mark.parametrize("n_classes", [3, 9, 100, 3000])
def test_the_scale_of_a_row_is_that_of_a_batch(rng, dtype, n_classes, scale):
    x = hard_rows(rng, n_classes, dtype)
    target = rng.integers(0, n_classes, len(x))
    of_batch, of_rows = np.empty_like(x), np.empty_like(x)
    assert c_calls.cross_entropy(x, target, grad=of_batch, scale=scale) == OK
    row_function = c_calls.function("cross_entropy_with_grad_row", dtype)
    for row, t, out in zip(x, target.tolist(), of_rows, strict=True):
        row_function(row.ctypes.data, n_classes, t, scale, out.ctypes.data)
    assert same_bits(of_rows, of_batch)


# ---- States ----


@pytest.mark.parametrize("n_classes", [9, 10, 17, 100, 2047, 2048, 2049, 4096, 4097, 10_000])
def test_pieces_of_2048_classes_in_order_give_the_bits_of_the_whole_row(rng, dtype, n_classes):
    x = hard_rows(rng, n_classes, dtype)
    target = rng.integers(0, n_classes, len(x))
    expected = all_of_rows(x, target)
    for i, row in enumerate(x):
        states = [c_calls.state_of(row), State()]
        for first in range(0, n_classes, 2048):  # each piece a state of its own
            piece = c_calls.partial(State(), row[first : first + 2048])
            c_calls.merge(states[1], piece, dtype)
        states.append(c_calls.partial(State(), row))  # all at once
        assert np.array(states[0]).tobytes() == np.array(states[1]).tobytes()
        assert np.array(states[0]).tobytes() == np.array(states[2]).tobytes()
        t = int(target[i])
        assert same_bits(c_calls.finish(states[0], dtype), expected["logsumexp"][i])
        loss = c_calls.finish_loss(states[0], row[t], dtype)
        assert same_bits(loss, expected["losses"][i])
        grad, p = np.empty_like(row), np.empty_like(row)
        for first in range(0, n_classes, 700):  # the pieces that are written may be others
            piece = slice(first, first + 700)
            c_calls.finish_grad(states[0], row[piece], first, t, out=grad[piece])
            c_calls.finish_grad(states[0], row[piece], first, out=p[piece])
        assert same_bits(grad, expected["gradient"][i])
        assert same_bits(p, expected["softmax"][i])


@pytest.mark.parametrize("n_classes", range(1, 9))
def test_the_state_of_a_short_row_is_within_the_bounds_of_the_whole_row(rng, dtype, n_classes):
    x = logits_of(rng, (300, n_classes), dtype, 20)
    exact = reference.logsumexp(x).astype(np.longdouble)
    got = np.array([c_calls.finish(c_calls.state_of(row), dtype) for row in x])
    assert ulps(got, exact, np.abs(x.max(1))) <= BOUNDS["logsumexp", dtype]
    got = np.array([c_calls.finish_grad(c_calls.state_of(row), row) for row in x])
    assert ulps(got, reference.softmax(x)) <= BOUNDS["softmax", dtype]


def test_states_merged_in_any_order_differ_by_one_unit_at_most(rng, dtype):
    # Each of 5 additions in double rounds by 2**-53 of a sum, which log1p passes on to a logarithm of less than 16: of
    # a logsumexp beyond 32, whose unit is 2**-47 or more, that moves at most the last rounding.
    pieces = [(33 + 3 * rng.standard_normal(n)).astype(dtype) for n in (1, 9, 40, 700, 2048, 3000)]
    found = []
    for order in itertools.permutations(range(6)):
        states = [c_calls.state_of(pieces[i]) for i in order]
        if order[0] > order[5]:  # pairs first, then their sums
            for i in (0, 2, 4):
                c_calls.merge(states[i], states[i + 1], dtype)
            states = states[::2]
        for other in states[1:]:
            c_calls.merge(states[0], other, dtype)
        found.append(c_calls.finish(states[0], dtype))
    assert max(found) <= np.nextafter(min(found), found[0].dtype.type(INF))
    exact = reference.logsumexp(np.concatenate(pieces)[np.newaxis])
    assert ulps(np.array(found), exact) <= BOUNDS["logsumexp", dtype]


def test_the_order_does_not_matter_where_nothing_rounds(rng, dtype):
    pieces = [np.full(n, 2.5, dtype) for n in (1, 2, 40, 2048, 5000)]
    mark = 0.5 if dtype == "float32" else 0  # of states of floats
    expected = State(2.5, 0, 0, 1 + 2 + 40 + 2048 + 5000 - 1 + mark)
    for order in itertools.permutations(pieces):
        state = State()
        for piece in order:
            c_calls.merge(state, c_calls.state_of(piece), dtype)
        assert tuple(state) == tuple(expected)
        assert c_calls.finish(state, dtype) == np.dtype(dtype).type(2.5 + np.log(7091))


@pytest.mark.parametrize("n_classes", [1, 5, 100, 3000])
def test_an_empty_state_is_neutral(rng, dtype, n_classes):
    for row in hard_rows(rng, n_classes, dtype):
        expected = np.array(c_calls.state_of(row)).tobytes()
        state = c_calls.merge(c_calls.state_of(row), State(), dtype)
        assert np.array(state).tobytes() == expected
        state = c_calls.merge(State(), c_calls.state_of(row), dtype)
        assert np.array(state).tobytes() == expected
        for n in (0, -1, -(2**63)):
            c_calls.function("partial", dtype)(state, None, n)
        assert np.array(state).tobytes() == expected


def test_the_empty_state_has_a_logsumexp_of_minus_infinity_and_no_loss(dtype):
    assert c_calls.finish(State(), dtype) == -INF
    assert np.isnan(c_calls.finish_loss(State(), 0, dtype))
    both = c_calls.merge(State(), State(), dtype)
    assert tuple(both) == tuple(State())


@pytest.mark.parametrize("v", [0.0, -0.0, 2.5, -1e30, 3e38, 1e-40, INF, -INF, NAN])
def test_a_saved_logsumexp_is_a_state(dtype, v):
    v = np.dtype(dtype).type(v)
    got = c_calls.finish(State(v, 0, 0, 0), dtype)
    assert got == v or (np.isnan(got) and np.isnan(v))
    loss = c_calls.finish_loss(State(v, 0, 0, 0), v, dtype)
    assert same_bits(loss, np.zeros((), dtype)) if np.isfinite(v) else np.isnan(loss)


@pytest.mark.parametrize("n_classes", [3, 8, 9, 100, 3000])
def test_a_saved_logsumexp_gives_losses_and_gradients_within_their_bounds(rng, dtype, n_classes):
    for spread in (1, 10):
        x = logits_of(rng, (30, n_classes), dtype, spread)
        targets = rng.integers(0, n_classes, 30)
        for row, t, v in zip(x, targets.tolist(), csoftmax.logsumexp(x), strict=True):
            state = State(v, 0, 0, 0)
            # Exact for this v: its own rounding is the caller's.
            exact = np.exp(row.astype(np.longdouble) - v)
            p, grad = c_calls.finish_grad(state, row), c_calls.finish_grad(state, row, 0, t, 0.5)
            assert ulps(p, exact) <= BOUNDS["softmax", dtype]
            loss = c_calls.finish_loss(state, row[t], dtype)
            assert loss == np.dtype(dtype).type(np.longdouble(v) - row[t])
            exact[t] -= 1
            scale = np.where(np.arange(n_classes) == t, 0.5, 0)
            assert ulps(grad, exact / 2, scale) <= BOUNDS["gradient", dtype]


def test_logsumexps_of_pieces_are_merged_as_states(rng, dtype):
    x = logits_of(rng, (500, 2, 40), dtype, 8)
    parts, exact = csoftmax.logsumexp(x), reference.logsumexp(x.reshape(500, 80))
    got = [
        c_calls.finish(c_calls.merge(State(a, 0, 0, 0), State(b, 0, 0, 0), dtype), dtype)
        for a, b in parts
    ]
    exact_of_parts = reference.logsumexp(parts)  # that of what was given
    assert ulps(np.array(got), exact_of_parts, np.abs(parts).max(1)) <= BOUNDS["logsumexp", dtype]
    np.testing.assert_allclose(got, exact.astype(float), rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("first", "target"),
    [
        (0, -1),
        (0, 5),
        (3, 2),
        (3, 8),
        (5, -1),
        (0, 2**63 - 1),
        (0, -(2**63)),
        (2**62, 0),
        (2**62, 2**63 - 1),
        (2**63 - 1, 2**63 - 2),
        (2**63 - 1, -(2**63)),
    ],
)
def test_a_target_outside_of_a_piece_leaves_probabilities(rng, dtype, first, target):
    row = logits_of(rng, 5, dtype)
    state = c_calls.state_of(row)
    p = c_calls.finish_grad(state, row)
    assert same_bits(c_calls.finish_grad(state, row, first, target), p)
    inside = c_calls.finish_grad(state, row, first, first + 2 if first < 2**63 - 2 else first)
    assert np.count_nonzero(inside != p) == 1
    assert (inside < 0).sum() == 1


@pytest.mark.parametrize("shift", [0, 1, 4, 7])
def test_gradients_of_pieces_may_lie_anywhere_and_take_the_logits_place(rng, dtype, shift):
    for n_classes in (5, 100, 2049):
        row = logits_of(rng, n_classes, dtype)
        state = c_calls.state_of(row)
        expected = c_calls.finish_grad(state, row, 0, 3)
        place = misaligned(row, shift)
        assert tuple(c_calls.partial(State(), place)) == tuple(c_calls.partial(State(), row))
        c_calls.finish_grad(state, place, 0, 3, out=place)
        assert same_bits(place, expected)


# ---- The caller's floating-point state ----


def all_bits(x, target):
    """The bits of everything, NumPy's own arithmetic left out."""
    found = [*all_of_batch(x, target).values(), *all_of_rows(x, target).values()]
    for row, t in zip(x, target.tolist(), strict=True):
        state = c_calls.merge(c_calls.state_of(row[:30]), c_calls.state_of(row[30:]), x.dtype)
        found += [np.array(state), c_calls.finish(state, x.dtype)]
        found += [
            c_calls.finish_loss(state, row[t], x.dtype),
            c_calls.finish_grad(state, row, 0, t),
        ]
    return b"".join(each.tobytes() for each in found)


@pytest.fixture
def case(rng, dtype):
    x, target = logits_of(rng, (60, 70), dtype, 30), rng.integers(0, 70, 60)
    x[::5] *= 3 if dtype == "float32" else 25  # subnormal results, and none at all
    x[1::5] = -98 if dtype == "float32" else -740
    x[range(1, 60, 5), target[1::5]] = 0  # subnormal losses
    x[2::10] = -INF
    x[range(2, 60, 10), target[2::10]] = 1e-40 if dtype == "float32" else 1e-310  # logsumexps too
    return x, target


@x86_64_linux
@pytest.mark.parametrize("mode", ["down", "up", "zero"])
def test_the_callers_rounding_mode_neither_matters_nor_changes(case, mode):
    expected = all_bits(*case)
    with rounding(mode):
        got = all_bits(*case)
    assert got == expected


@x86_64_linux
def test_the_callers_flushing_of_subnormals_neither_matters_nor_changes(case):
    expected = all_bits(*case)
    p = csoftmax.softmax(case[0])
    assert ((p != 0) & (p < np.finfo(p.dtype).smallest_normal)).any()
    with flushing():
        got = all_bits(*case)
    assert got == expected


@pytest.mark.parametrize("middle", [0, 5000])
def test_a_thousand_states_of_one_class_are_within_twice_the_bounds(rng, dtype, middle):
    for x in (rng.normal(middle, 1, 1000), middle + np.sort(rng.normal(0, 1, 1000))):
        x = x.astype(dtype)
        exact = reference.logsumexp(x[np.newaxis])
        exact_grad = reference.softmax(x[np.newaxis])[0]
        for order in (x, x[::-1], rng.permutation(x)):
            state = State()
            for i in range(len(order)):
                one = np.ascontiguousarray(order[i : i + 1])
                c_calls.merge(state, c_calls.partial(State(), one), dtype)
            got = np.array([c_calls.finish(state, dtype)])
            assert ulps(got, exact) <= 2 * BOUNDS["logsumexp", dtype]
            grad = c_calls.finish_grad(state, x)
            assert ulps(grad, exact_grad) <= 2 * BOUNDS["softmax", dtype]


@pytest.mark.parametrize("middle", [0, 300, 5000])
def test_states_of_floats_and_of_doubles_may_meet(rng, middle):
    narrow = rng.normal(middle, 2, 40).astype(np.float32)
    wide = rng.normal(middle, 2, 40)
    both = np.concatenate([narrow.astype(np.float64), wide])[np.newaxis]
    exact, p = reference.logsumexp(both), reference.softmax(both)[0]
    ways = [
        c_calls.merge(c_calls.partial(State(), narrow), c_calls.partial(State(), wide), "float32"),
        c_calls.merge(c_calls.partial(State(), narrow), c_calls.partial(State(), wide), "float64"),
        c_calls.merge(c_calls.partial(State(), wide), c_calls.partial(State(), narrow), "float32"),
        c_calls.partial(c_calls.partial(State(), narrow), wide),
        c_calls.partial(c_calls.partial(State(), wide), narrow),
    ]
    for state in ways:
        for dtype in ("float32", "float64"):
            got = np.array([c_calls.finish(state, dtype)])
            assert ulps(got, exact, np.abs(both).max(), dtype="float32") <= 2
        loss = c_calls.finish_loss(state, float(wide[0]), "float64")
        assert abs(loss + np.log(p[40])) <= 1e-5 * loss
        grads = c_calls.finish_grad(state, narrow), c_calls.finish_grad(state, wide)
        np.testing.assert_allclose(grads[0], p[:40], rtol=2e-6)
        np.testing.assert_allclose(grads[1], p[40:], rtol=2e-6)
