"""float16 and bfloat16 logits: the results of float32, rounded once, and nothing of their size allocated beside."""

import ctypes
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import csoftmax
from csoftmax import _checks, _isa, functional, special
from support import building, c_calls, layouts
from support.half_width import BFLOAT16, HALVES, PATTERNS, once, rounded, same, ties, widened

ELEMENTWISE = [csoftmax.softmax, csoftmax.log_softmax]
BACKWARD = [csoftmax.softmax_backward, csoftmax.log_softmax_backward]
KERNELS = building.ROOT / "csoftmax" / "kernels"
# Around lanes, blocks, transposed short rows and chunks; other axes; few rows, many rows, tails of tiles.
SHAPES = [((1, n), 1) for n in (1, 2, 8, 9, 17, 33, 64, 65, 1000, 2048, 2049, 5000)]
SHAPES += [((40, n), 1) for n in (3, 16, 31, 95, 96, 97, 300)] + [((9, 2048), 1), ((3, 4100), 1)]
SHAPES += [((7, 70), 0), ((2049, 21), 0), ((5000, 22), 0), ((5, 40, 33), 1), ((2, 3, 5), 0)]
LAYOUTS = [lambda a: a.copy(), *layouts.LAYOUTS]


@pytest.fixture(params=HALVES)
def name(request):
    return request.param


@pytest.fixture
def half(name):
    return HALVES[name]


def same_as_rounded(got, expected, dtype):
    assert same(got, once(expected, dtype))


# ---- Conversion ----


@pytest.fixture(scope="module", params=_isa.available())
def conversions(request, tmp_path_factory):
    """convert.h, compiled with the flags of a build."""
    if not KERNELS.is_dir() or sys.platform == "win32":
        pytest.skip("needs the sources and a compiler that takes GCC's flags")
    folder = tmp_path_factory.mktemp("convert")
    source = folder / "convert.c"
    functions = [
        f"void {kind}_in(const char *a, ptrdiff_t n, float *b) {{ floats_of_{kind}(a, n, b); }}\n"
        f"void {kind}_out(const float *a, ptrdiff_t n, char *b) {{ {kind}_of_floats(a, n, b); }}"
        for kind in ("f16", "bf16")
    ]
    source.write_text('#include "convert.h"\n' + "\n".join(functions))
    flags = [] if request.param == "baseline" else [f"-march=x86-64-{request.param}"]
    building.shared(source, folder / "convert.so", "-O3", *flags, "-I", KERNELS)
    return ctypes.CDLL(str(folder / "convert.so"))


def convert(conversions, name, direction, values, to):
    kind = {"float16": "f16", "bfloat16": "bf16"}[name]
    function = conversions[f"{kind}_{direction}"]
    function.restype, function.argtypes = (
        None,
        (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_void_p),
    )
    function(values.ctypes.data, values.size, to.ctypes.data)
    return to


def test_each_pattern_becomes_the_number_that_it_is_with_the_same_bits_on_every_build(
    conversions, name
):
    got = convert(conversions, name, "in", PATTERNS, np.empty(1 << 16, np.float32))
    assert same(got, widened(PATTERNS, name))


def test_each_pattern_comes_back_as_it_was_but_that_a_nan_is_quiet(conversions, name):
    numbers = widened(PATTERNS, name)
    got = convert(conversions, name, "out", numbers, np.empty(1 << 16, np.uint16))
    quiet = np.uint16(0x200 if name == "float16" else 0x40)
    np.testing.assert_array_equal(got, np.where(np.isnan(numbers), PATTERNS | quiet, PATTERNS))


def test_ties_and_their_neighbours_in_each_exponent_are_rounded_to_even(conversions, name):
    numbers = ties(name)
    assert numbers.size > 10_000
    got = convert(conversions, name, "out", numbers, np.empty(numbers.size, np.uint16))
    np.testing.assert_array_equal(got, rounded(numbers, name))


@pytest.mark.parametrize("n", range(1, 70))
def test_any_number_of_halves_is_converted_and_nothing_beside_them(conversions, name, n):
    numbers = ties(name)[:n].copy()
    room = np.full(n + 32, 0xA5A5, np.uint16)
    convert(conversions, name, "out", numbers, room[16 : 16 + n])
    np.testing.assert_array_equal(room[16 : 16 + n], rounded(numbers, name))
    assert (room[:16] == 0xA5A5).all()
    assert (room[16 + n :] == 0xA5A5).all()
    wide = np.full(n + 32, 7, np.float32)
    convert(conversions, name, "in", PATTERNS[:n], wide[16 : 16 + n])
    assert same(wide[16 : 16 + n], widened(PATTERNS[:n], name))
    assert (wide[:16] == 7).all()
    assert (wide[16 + n :] == 7).all()


def test_the_reference_rounds_as_other_packages_do(name, half):
    numbers = ties(name)
    numbers = numbers[~np.isnan(numbers)]
    with np.errstate(over="ignore"):
        expected = numbers.astype(half).view(np.uint16)
    np.testing.assert_array_equal(rounded(numbers, name), expected)


def test_the_functions_read_each_pattern_as_the_number_that_it_is(name, half):
    x = PATTERNS.view(half).reshape(-1, 1)
    for logits in (x, layouts.strided(x), layouts.misaligned(x)):
        assert same(
            csoftmax.logsumexp(logits), csoftmax.logsumexp(widened(PATTERNS, name)[:, None])
        )


def test_gradients_are_rounded_once_at_every_tie(name, half):
    numbers = ties(name)
    numbers = numbers[(numbers != 0) & (np.abs(numbers) < 2.0**100)]  # a gradient is never -0.0
    x = np.zeros((numbers.size, 2), half)
    target = np.ones(numbers.size, int)
    # Each gradient is half of its row's grad_output: exact in float64.
    _, grad = csoftmax.cross_entropy_with_grad(
        x, target, reduction="none", grad_output=2 * numbers.astype(np.float64)
    )
    np.testing.assert_array_equal(grad[:, 0].view(np.uint16), rounded(numbers, name))


# ---- Results ----


def logits_of(rng, shape, dtype, special=True):
    x = rng.normal(0, 4, shape).astype(dtype)
    if special:
        flat = x.reshape(-1)
        flat[::11] = -np.inf
        flat[5::997], flat[6::1009] = np.inf, np.nan
    return x


@pytest.mark.parametrize("layout", LAYOUTS)
def test_elementwise_results_are_those_of_float32_rounded_once(rng, name, half, layout):
    if layout is layouts.other_byte_order and name == "bfloat16":
        pytest.skip("ml_dtypes has no such arrays")
    for shape, axis in SHAPES:
        x = logits_of(rng, shape, half)
        y = x.astype(np.float32)
        for function in ELEMENTWISE:
            for temperature in (1.0, 0.7, 1e-35):
                options = {"axis": axis, "temperature": temperature}
                expected = function(y, **options)
                same_as_rounded(function(layout(x), **options), expected, half)
                single = np.empty(shape, np.float32)
                assert same(function(layout(x), out=single, **options), expected)
                if layout in layouts.WRITABLE:
                    out = layout(np.zeros_like(x))
                    same_as_rounded(function(x, out=out, **options), expected, half)
                    out = layout(x.copy())
                    assert function(out, out=out, **options) is out
                    same_as_rounded(out, expected, half)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_of_rows_are_those_of_float32(rng, name, half, layout):
    if layout is layouts.other_byte_order and name == "bfloat16":
        pytest.skip("ml_dtypes has no such arrays")
    for shape, axis in SHAPES:
        x = logits_of(rng, shape, half)
        y = x.astype(np.float32)
        rows = np.delete(shape, axis)
        index = rng.integers(0, shape[axis], rows)
        for temperature in (1.0, 0.7, 1e-35):
            options = {"axis": axis, "temperature": temperature}
            assert same(csoftmax.logsumexp(layout(x), **options), csoftmax.logsumexp(y, **options))
            assert same(
                csoftmax.log_prob(layout(x), index, **options),
                csoftmax.log_prob(y, index, **options),
            )


OPTIONS = [
    {},
    {"reduction": "sum", "label_smoothing": 0.1},
    {"reduction": "none", "temperature": 0.7},
    {"weight": True, "sample_weight": True, "ignore_index": 0},
    {"reduction": "sum", "grad_output": 1e-30},
    {"reduction": "sum", "grad_output": 1e30},
    {"reduction": "sum", "grad_output": np.inf},
    {"ignore_index": None, "temperature": 1e20},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(
    "layout", [LAYOUTS[0], layouts.fortran, layouts.strided, layouts.misaligned]
)
def test_losses_and_gradients_are_those_of_float32_rounded_once(rng, half, layout, options):
    for shape, axis in SHAPES:
        x = logits_of(rng, shape, half, special="weight" not in options)
        y = x.astype(np.float32)
        rows = tuple(np.delete(shape, axis))
        given = {**options, "axis": axis}
        if "weight" in options:
            given |= {"weight": rng.random(shape[axis]), "sample_weight": rng.random(rows)}
        shares = csoftmax.softmax(rng.normal(size=shape).astype(np.float32), axis)
        for target in (rng.integers(0, shape[axis], rows), shares.astype(half)):
            of_single = target if target.dtype.kind == "i" else target.astype(np.float32)
            loss, grad = csoftmax.cross_entropy_with_grad(y, of_single, **given)
            got = csoftmax.cross_entropy_with_grad(layout(x), target, **given)
            assert same(got[0], loss)
            same_as_rounded(got[1], grad, half)
            options_of_loss = {k: v for k, v in given.items() if k != "grad_output"}
            assert same(csoftmax.cross_entropy(layout(x), target, **options_of_loss), loss)
            out = layout(x)
            assert csoftmax.cross_entropy_with_grad(out, target, out=out, **given)[1] is out
            same_as_rounded(out, grad, half)
            out = np.empty(shape, np.float32)
            csoftmax.cross_entropy_with_grad(layout(x), target, out=out, **given)
            assert same(out, grad)


def test_gradients_of_ignored_rows_alone_are_zeros(half):
    x = np.ones((3, 4), half)
    loss, grad = csoftmax.cross_entropy_with_grad(x, [-100] * 3)
    assert np.isnan(loss)
    assert same(grad, np.zeros((3, 4), half))


@pytest.mark.parametrize("function", BACKWARD)
def test_gradients_that_go_back_are_those_of_float32_rounded_once(rng, half, function):
    for shape, axis in SHAPES:
        output = logits_of(rng, shape, half, special=False)
        output = (csoftmax.softmax if function is BACKWARD[0] else csoftmax.log_softmax)(
            output, axis
        )
        grad = rng.normal(size=shape).astype(half)
        expected = function(grad.astype(np.float32), output.astype(np.float32), axis)
        for layout in (LAYOUTS[0], layouts.fortran, layouts.strided, layouts.misaligned):
            same_as_rounded(function(layout(grad), layout(output), axis), expected, half)
            for which in (0, 1):
                given = [layout(grad), layout(output)]
                assert function(*given, axis, out=given[which]) is given[which]
                same_as_rounded(given[which], expected, half)
            out = np.empty(shape, np.float32)
            assert same(function(layout(grad), output, axis, out=out), expected)


def test_a_gradient_of_two_dtypes_has_the_wider_computation(half):
    p = np.array([[0.25, 0.75]], half)
    for grad in (
        np.float32([[1, 2]]),
        np.float64([[1, 2]]),
        np.int8([[1, 2]]),
        np.float16([[1, 2]]),
    ):
        got = csoftmax.softmax_backward(grad, p)
        wider = np.float64 if grad.dtype in ("int8", "float64") else np.float32
        if grad.dtype == half:
            wider = half
        assert got.dtype == wider
        wide = p.astype(np.float32 if wider is half else wider)
        same_as_rounded(got, csoftmax.softmax_backward(grad.astype(wide.dtype), wide), wider)


@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
def test_the_number_of_threads_does_not_matter(rng, half, n_threads):
    for shape, axis in (((700, 300), 1), ((2, 70_000), 1), ((300, 700), 0), ((5000, 70), 0)):
        x = logits_of(rng, shape, half)
        y = x.astype(np.float32)
        for function in ELEMENTWISE:
            same_as_rounded(function(x, axis, n_threads=n_threads), function(y, axis), half)
        target = np.zeros(np.delete(shape, axis), int)
        got = csoftmax.cross_entropy_with_grad(x, target, axis=axis, n_threads=n_threads)
        loss, grad = csoftmax.cross_entropy_with_grad(y, target, axis=axis)
        assert same(got[0], loss)
        same_as_rounded(got[1], grad, half)


def test_outputs_that_go_past_the_cache_are_the_same(half):
    for shape, axis in (((30_000, 1000), 1), ((31, 300_000), 0)):
        x = (np.arange(257) / 8).astype(half)[np.arange(np.prod(shape)) % 257].reshape(shape)
        expected = csoftmax.softmax(x.astype(np.float32), axis).astype(half)
        assert np.array_equal(csoftmax.softmax(x, axis).view(np.uint16), expected.view(np.uint16))


def test_subnormal_results_are_kept_and_large_ones_are_infinite():
    p = csoftmax.softmax(np.float16([0, -16.5]))
    assert 0 < p[1] < np.finfo(np.float16).tiny
    assert csoftmax.log_softmax(np.float16([60000, -60000]))[1] == -np.inf
    assert csoftmax.log_softmax(np.array([60000, -60000], BFLOAT16))[1] == -119808
    x = np.array([[3e38, -3e38]], BFLOAT16)
    assert csoftmax.log_softmax(x)[0].tolist() == [0, -np.inf]


def test_scalars_stay_of_their_dtype(half):
    scalar = half.type(3)
    assert type(csoftmax.softmax(scalar)) is half.type
    assert type(csoftmax.logsumexp(scalar)) is np.float32


# ---- Namespaces, options ----


def test_special_has_the_results_of_float32(rng, half):
    x = logits_of(rng, (3, 4, 50), half, special=False)
    y = x.astype(np.float32)
    for axis in (None, 1, (0, 2), (1, 2)):
        same_as_rounded(special.softmax(x, axis), special.softmax(y, axis), half)
        same_as_rounded(special.log_softmax(x, axis), special.log_softmax(y, axis), half)
        assert same(special.logsumexp(x, axis), special.logsumexp(y, axis))
        for b in (rng.random((4, 1)), rng.normal(size=50).astype(half)):
            of_single = b.astype(np.float32) if b.dtype == half else b
            value, sign = special.logsumexp(x, axis, b=b, return_sign=True)
            expected = special.logsumexp(y, axis, b=of_single, return_sign=True)
            assert same(value, expected[0])
            assert same(sign, expected[1])


def test_functional_has_the_results_of_float32(rng, half):
    x = logits_of(rng, (6, 5), half, special=False)
    y = x.astype(np.float32)
    target, weight = rng.integers(0, 5, 6), rng.random(5)
    same_as_rounded(functional.softmax(x, 1), functional.softmax(y, 1), half)
    same_as_rounded(functional.log_softmax(x, 1), functional.log_softmax(y, 1), half)
    assert same(functional.logsumexp(x, (0, 1)), functional.logsumexp(y, (0, 1)))
    for function in (functional.cross_entropy, functional.nll_loss):
        for reduction in ("mean", "sum", "none"):
            got = function(x, target, weight.astype(half), reduction=reduction)
            assert same(got, function(y, target, weight.astype(half), reduction=reduction))
    q = csoftmax.softmax(x, 1)
    assert same(functional.cross_entropy(x, q), functional.cross_entropy(y, q.astype(np.float32)))


@pytest.mark.parametrize("function", [functional.softmax, functional.log_softmax])
def test_dtype_converts_first(rng, half, function):
    x = logits_of(rng, (6, 5), half, special=False)
    for wide in (np.float32, np.float64):
        assert same(function(x, 1, dtype=wide), function(x.astype(wide), 1))
        y = rng.normal(size=(6, 5)).astype(wide)
        assert same(function(y, 1, dtype=half), function(y.astype(half), 1))
        assert same(function(y, 1, dtype=half.type), function(y.astype(half), 1))
    assert same(function(x, 1, dtype=half), function(x, 1))


def test_targets_and_weights_may_be_of_any_float_dtype(rng, half):
    y = rng.normal(size=(6, 5)).astype(np.float32)
    q, weight, rows = csoftmax.softmax(y, 1), rng.random(5), rng.random(6)
    for x in (y, y.astype(np.float64), y.astype(half)):
        wide = np.float64 if x.dtype == np.float64 else np.float32
        for target in (q.astype(half), layouts.strided(q.astype(half)), layouts.misaligned(q)):
            options = {"weight": weight.astype(half), "sample_weight": rows.astype(half)}
            got = csoftmax.cross_entropy_with_grad(x, target, **options)
            loss, grad = csoftmax.cross_entropy_with_grad(
                x.astype(wide),
                target.astype(wide),
                weight=options["weight"].astype(float),
                sample_weight=options["sample_weight"].astype(float),
            )
            assert same(got[0], loss)
            same_as_rounded(got[1], grad, x.dtype)


def test_out_is_of_the_own_dtype_or_float32(half):
    x = np.zeros((2, 3), half)
    for out in (np.empty((2, 3)), np.empty((2, 3), np.int16), np.empty((2, 3), np.uint16)):
        with pytest.raises(TypeError, match=f"out of dtype {half} or float32, got {out.dtype}"):
            csoftmax.softmax(x, out=out)
    other = HALVES["float16" if half == BFLOAT16 else "bfloat16"]
    with pytest.raises(TypeError, match="or float32"):
        csoftmax.cross_entropy_with_grad(x, [0, 1], out=np.empty((2, 3), other))
    with pytest.raises(TypeError, match="needs out of dtype float32, got float16"):
        csoftmax.softmax(np.zeros(3, np.float32), out=np.empty(3, np.float16))


def test_an_out_that_overlaps_the_logits_gives_the_same(rng, half):
    room = rng.normal(size=66).astype(half)
    x = room[:32].copy()
    expected = csoftmax.softmax(x.astype(np.float32))
    for start in (0, 1, 2):
        room[:32] = x
        got = csoftmax.softmax(room[:32], out=room[start : 32 + start])
        same_as_rounded(got, expected, half)
    room[:32] = x
    out = room[:64].view(np.float32)
    assert csoftmax.softmax(room[:32], out=out) is out
    assert same(out, expected)


def test_bfloat16_needs_no_import_of_its_package():
    program = (
        "import csoftmax, sys; csoftmax.softmax([1.0, 2.0]); print('ml_dtypes' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


# ---- Memory ----

MEGABYTE = 1 << 20
CALLS = {
    "logsumexp": lambda x, y: csoftmax.logsumexp(x),
    "cross_entropy": lambda x, y: csoftmax.cross_entropy(x, y),
    "losses": lambda x, y: csoftmax.cross_entropy(x, y, reduction="none", label_smoothing=0.1),
    "weighted": lambda x, y: csoftmax.cross_entropy(x, y, weight=np.ones(x.shape[1])),
    "log_prob": lambda x, y: csoftmax.log_prob(x, y),
    "functional": lambda x, y: functional.cross_entropy(x, y),
    "nll_loss": lambda x, y: functional.nll_loss(x, y),
    "special": lambda x, y: special.logsumexp(x, 1),
    "hot": lambda x, y: csoftmax.logsumexp(x, temperature=1e-35),
}
DTYPES = ["float16", "bfloat16", "float32", "float64", ">f2", ">f4", ">f8", "?", ">i8", *"bBhHiIqQ"]


def kept_beside(call):
    """The most bytes that were allocated at a time, beside the result."""
    tracemalloc.start()
    try:
        result = call()
        return tracemalloc.get_traced_memory()[1] - getattr(result, "nbytes", 0)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("call", CALLS)
def test_results_of_rows_take_less_than_a_megabyte_beside_them(kind, call):
    dtype = HALVES[kind] if kind in HALVES else np.dtype(kind)
    x = np.zeros((400, 4000), dtype)
    x[:, ::7] = 1
    y = np.arange(400)
    for given in (x, layouts.misaligned(x), x[:, ::2]):
        assert kept_beside(lambda x=given: CALLS[call](x, y)) < MEGABYTE


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_large_integers_are_not_copied_either(kind):
    x = np.zeros((400, 4000), kind)
    x[::2] = 2**62 + np.arange(4000)
    for call in CALLS.values():
        if call is not CALLS["nll_loss"]:
            assert kept_beside(lambda call=call: call(x, np.arange(400))) < MEGABYTE


@pytest.mark.parametrize("kind", DTYPES)
def test_elementwise_results_are_all_that_is_allocated(kind):
    dtype = HALVES[kind] if kind in HALVES else np.dtype(kind)
    x = np.ones((400, 4000), dtype)
    for function in ELEMENTWISE:
        assert kept_beside(lambda f=function: f(x)) < MEGABYTE
        out = np.empty(x.shape, _checks.floating_array(x, "")[1])
        assert kept_beside(lambda f=function, out=out: f(x, out=out)) < MEGABYTE + out.nbytes
        if x.dtype == out.dtype:
            again = x.copy()
            tracemalloc.start()
            function(again, out=again)
            assert tracemalloc.get_traced_memory()[1] < MEGABYTE
            tracemalloc.stop()


def test_a_memory_mapped_file_is_read_as_it_is_needed(tmp_path, half):
    path = tmp_path / "logits.bin"
    x = np.arange(300 * 20_000, dtype=np.int16).reshape(300, 20_000).astype(np.float32) / 4096
    x.astype(half).tofile(path)
    mapped = np.memmap(path, half, "r", shape=x.shape)
    y = np.arange(300)
    assert kept_beside(lambda: csoftmax.cross_entropy(mapped, y)) < MEGABYTE
    single = x.astype(half).astype(np.float32)
    assert same(csoftmax.cross_entropy(mapped, y), csoftmax.cross_entropy(single, y))


# ---- From C ----


def test_batches_and_rows_from_c_have_the_bits_of_the_python_functions(rng, half):
    for n_rows, n_classes in ((1, 5), (3, 64), (5, 65), (2, 2049), (40, 33), (40, 300), (2, 5000)):
        x = logits_of(rng, (n_rows, n_classes), half)
        target = rng.integers(0, n_classes, n_rows)
        expected = {
            "softmax": csoftmax.softmax(x),
            "log_softmax": csoftmax.log_softmax(x),
            "logsumexp": csoftmax.logsumexp(x),
            "losses": csoftmax.cross_entropy(x, target, reduction="none"),
            "gradient": csoftmax.cross_entropy_with_grad(x, target, reduction="sum")[1],
            "log_prob": csoftmax.log_prob(x, target),
        }
        for layout in layouts.OF_ROWS.values():
            found = c_calls.all_of_batch(
                layout(x), target, out=lambda a, lay=layout: lay(np.zeros_like(a))
            )
            for key, value in expected.items():
                assert same(found[key], value), key
        found = c_calls.all_of_rows(x, target)
        for key, value in expected.items():
            assert same(found[key], value), key
        found = c_calls.all_of_rows(layouts.misaligned(x), target)
        for key, value in expected.items():
            assert same(found[key], value), key


def test_states_of_halves_are_those_of_floats(rng, half):
    x = logits_of(rng, (5000,), half, special=False)
    state, single = c_calls.state_of(x), c_calls.state_of(x.astype(np.float32))
    assert tuple(state) == tuple(single)
    assert same(c_calls.finish(state, np.float32), csoftmax.logsumexp(x))
    for first in (0, 2048):
        piece = x[first : first + 2048]
        grad = c_calls.finish_grad(state, piece, first, 2500)
        same_as_rounded(
            grad, c_calls.finish_grad(single, piece.astype(np.float32), first, 2500), half
        )
    wide = c_calls.state_of(x.astype(np.float64))
    grad = c_calls.finish_grad(wide, x[:100])
    same_as_rounded(grad, c_calls.finish_grad(wide, x[:100].astype(np.float32)), half)


@pytest.mark.parametrize("scale", [0.5, 1e-30, 1e30, 1e200, np.inf, 0.0])
def test_gradients_from_c_are_rounded_once_whatever_their_scale(rng, half, scale):
    for n_classes in (10, 64, 300, 3000):
        x = logits_of(rng, (6, n_classes), half, special=False)
        y = x.astype(np.float32)
        target = np.zeros(6, int)
        grads = np.empty_like(x), np.empty_like(y)
        for logits, grad in zip((x, y), grads, strict=True):
            assert c_calls.cross_entropy(logits, target, grad=grad, scale=scale) == c_calls.OK
        same_as_rounded(*grads, half)
        for logits, grad in zip((x, y), grads, strict=True):
            call = c_calls.function("cross_entropy_with_grad_row", logits.dtype)
            for row, out in zip(logits, grad, strict=True):
                call(c_calls.address(row), n_classes, 0, scale, c_calls.address(out))
        same_as_rounded(*grads, half)
        state = c_calls.state_of(x[0])
        got = c_calls.finish_grad(state, x[0], 0, 3, scale)
        same_as_rounded(got, c_calls.finish_grad(state, y[0], 0, 3, scale), half)
