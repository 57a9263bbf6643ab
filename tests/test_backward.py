"""softmax_backward and log_softmax_backward: gradients with respect to the logits, from the results."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import csoftmax
from support import reference
from support.bits import same_bits
from support.cases import CLASSES, CLASSES_AND_INNER, ROWS, logits_of
from support.reference import BOUNDS, INF, NAN

BACKWARD = ["softmax_backward", "log_softmax_backward"]


@pytest.fixture(params=BACKWARD)
def name(request):
    return request.param


def output_of(name, x, axis=-1):
    """What the forward function gives for the logits."""
    return getattr(csoftmax, name.removesuffix("_backward"))(x, axis)


def check(name, grad, output, axis=-1):
    """Each entry against its definition, in units of the sum of its terms' magnitudes."""
    got = getattr(csoftmax, name)(grad, output, axis)
    assert got.shape == output.shape
    assert got.dtype == output.dtype
    exact, size = getattr(reference, name)(grad, output, axis)
    assert reference.ulps(got, exact, size) <= BOUNDS[name, str(output.dtype)]


@pytest.mark.parametrize("n_classes", CLASSES)
def test_gradients_are_as_defined_for_every_number_of_classes(rng, dtype, name, n_classes):
    for spread in (1, 5, 30):
        x = logits_of(rng, (10, n_classes), dtype, spread)
        check(name, logits_of(rng, x.shape, dtype), output_of(name, x))
        check(name, np.abs(logits_of(rng, x.shape, dtype)), output_of(name, x))


@pytest.mark.parametrize("n_rows", ROWS)
@pytest.mark.parametrize("n_classes", [2, 10, 16, 17, 65])
def test_gradients_are_as_defined_for_every_number_of_rows(rng, dtype, name, n_rows, n_classes):
    x = logits_of(rng, (n_rows, n_classes), dtype)
    check(name, logits_of(rng, x.shape, dtype), output_of(name, x))


@pytest.mark.parametrize(("n_classes", "inner"), CLASSES_AND_INNER)
def test_gradients_are_as_defined_along_first_and_middle_axes(rng, dtype, name, inner, n_classes):
    x = logits_of(rng, (2, n_classes, inner), dtype)
    grad, output = logits_of(rng, x.shape, dtype), output_of(name, x, 1)
    check(name, grad, output, 1)
    check(name, grad, output, -2)
    check(name, np.ascontiguousarray(grad[0]), np.ascontiguousarray(output[0]), 0)


@pytest.mark.parametrize("lead", [5, 20, 40, 80])
@pytest.mark.parametrize("n_classes", [2, 16, 17, 100])
def test_gradients_of_confident_rows_keep_their_digits(rng, dtype, name, lead, n_classes):
    x = logits_of(rng, (20, n_classes), dtype, 1)
    x[np.arange(20), np.arange(20) % n_classes] += lead
    check(name, logits_of(rng, x.shape, dtype), output_of(name, x))
    check(name, np.ones_like(x), output_of(name, x))


@pytest.mark.parametrize("n_classes", [2049, 2**15 + 5, 2**20])
def test_gradients_of_long_rows_are_as_defined(rng, dtype, name, n_classes):
    x = logits_of(rng, (2, n_classes), dtype)
    x[0] = 0  # equal ones too
    check(name, logits_of(rng, x.shape, dtype), output_of(name, x))
    x[0, 7] = 60  # one class has it all
    check(name, logits_of(rng, x.shape, dtype), output_of(name, x))


def test_gradients_of_the_longest_rows_are_as_defined(rng, name):
    x = logits_of(rng, (1, 2**24), "float32")
    check(name, logits_of(rng, x.shape, "float32"), output_of(name, x))


@pytest.mark.parametrize("n_classes", [2048, 2049, 70_000])
def test_threads_that_share_a_row_give_its_bits(rng, dtype, name, n_classes):
    function = getattr(csoftmax, name)
    x = logits_of(rng, (2, n_classes), dtype)
    grad, output = logits_of(rng, x.shape, dtype), output_of(name, x)
    if name == "softmax_backward":
        output[1] *= 0.5  # whose sums are added twice
    expected = function(grad, output, n_threads=1)
    for n_threads in (2, 3, 8):
        assert same_bits(function(grad, output, n_threads=n_threads), expected)
    columns = np.ascontiguousarray(grad.T), np.ascontiguousarray(output.T)
    assert same_bits(np.ascontiguousarray(function(*columns, 0).T), expected)


@pytest.mark.parametrize("n_classes", [2, 17, 100, 5000])
def test_gradients_near_the_end_of_the_range_are_as_defined(rng, dtype, name, n_classes):
    most = float(np.finfo(dtype).max)
    most /= 2 if name == "softmax_backward" else 2 * n_classes  # so that no sum leaves it
    x = logits_of(rng, (40, n_classes), dtype, 5)
    output = output_of(name, x)
    grad = (rng.uniform(-1, 1, x.shape) * most).astype(dtype)
    check(name, grad, output)
    rows = np.arange(40)
    for layout in (
        np.ascontiguousarray,
        np.asfortranarray,
    ):  # of neighbours all are not out of the ordinary
        grad[rows % 3 > 0] = logits_of(rng, x.shape, dtype)[rows % 3 > 0]
        by_rows = getattr(csoftmax, name)(layout(grad), layout(output))
        for row in (0, 1, 2, 3):
            assert same_bits(by_rows[row], getattr(csoftmax, name)(grad[row], output[row]))


def test_the_largest_entry_keeps_the_digits_that_one_minus_p_loses():
    x, grad = np.float32([[20, 0]]), np.float32([[1, 0]])
    tiny = np.float32(np.exp(-20.0))
    got = csoftmax.softmax_backward(grad, csoftmax.softmax(x))
    assert reference.ulps(got, np.longdouble([[tiny, -tiny]])) <= 3
    got = csoftmax.log_softmax_backward(grad, csoftmax.log_softmax(x))
    assert reference.ulps(got, np.longdouble([[tiny, -tiny]])) <= 3


def test_the_gradient_of_cross_entropy_is_that_of_minus_the_targets_log_probability(rng, dtype):
    for n_classes in (2, 10, 17, 100, 2049):
        x = logits_of(rng, (20, n_classes), dtype)
        target = rng.integers(0, n_classes, 20)
        grad = np.zeros_like(x)
        grad[np.arange(20), target] = -1
        got = csoftmax.log_softmax_backward(grad, csoftmax.log_softmax(x))
        _, exact = reference.cross_entropy(x, target)
        # exp(log p) takes over the error of log p, which is relative to log p: at most 30 here.
        scale = reference.gradient_scale(x, target) * np.maximum(
            1, np.abs(reference.log_softmax(x))
        )
        bound = BOUNDS["log_softmax", dtype] + BOUNDS["log_softmax_backward", dtype]
        assert reference.ulps(got, exact, scale) <= bound


def test_float64_gradients_equal_those_of_torch(rng, name):
    torch = pytest.importorskip("torch", reason="PyTorch is an optional peer")
    for axis in (0, 1, 2):
        x = logits_of(rng, (5, 20, 7), "float64")
        grad = logits_of(rng, x.shape, "float64", 1)
        logits = torch.from_numpy(x).requires_grad_()
        getattr(torch, name.removesuffix("_backward"))(logits, axis).backward(
            torch.from_numpy(grad)
        )
        got = getattr(csoftmax, name)(grad, output_of(name, x, axis), axis)
        # Each probability is within units of its logit's rounding; sums of at most 20 terms.
        bound = 20 * np.finfo(float).eps * np.abs(x).max()
        np.testing.assert_allclose(got, logits.grad.numpy(), rtol=0, atol=bound)


def test_a_constant_gradient_of_probabilities_is_none(rng, dtype):
    for n_classes in (1, 2, 16, 17, 100, 2049):
        y = csoftmax.softmax(logits_of(rng, (20, n_classes), dtype))
        got = csoftmax.softmax_backward(np.full_like(y, 3.25), y)
        assert_array_equal(got, 0)  # sum to one: what all have in common changes nothing


def test_one_class_has_no_gradient(dtype, name):
    x = np.full((20, 1), 3.5, dtype)
    assert_array_equal(getattr(csoftmax, name)(x, output_of(name, x)), 0)


def test_a_gradient_of_zero_stays_zero(rng, dtype, name):
    x = logits_of(rng, (20, 30), dtype)
    assert_array_equal(getattr(csoftmax, name)(np.zeros_like(x), output_of(name, x)), 0)


@pytest.mark.parametrize("n_classes", [2, 9, 17, 100, 2100])
def test_classes_that_are_absent_have_no_part(rng, dtype, name, n_classes):
    x = logits_of(rng, (9, n_classes), dtype)
    absent = np.arange(n_classes) % 3 == 1
    x[:, absent] = -INF
    grad = logits_of(rng, x.shape, dtype)
    output = output_of(name, x)
    for a, g, axis in ((output, grad, 1), (output.T.copy(), grad.T.copy(), 0)):
        got = getattr(csoftmax, name)(g, a, axis)
        got = got if axis else got.T
        assert_array_equal(got[:, absent], 0 if name == "softmax_backward" else grad[:, absent])
    check(name, grad, output)


@pytest.mark.parametrize("n_classes", [2, 9, 17, 100, 2100])
def test_a_nan_makes_nan_what_depends_on_it_and_no_other_row(rng, dtype, name, n_classes):
    x = logits_of(rng, (20, n_classes), dtype)
    grad, output = logits_of(rng, x.shape, dtype), output_of(name, x)
    expected = getattr(csoftmax, name)(grad, output)
    for position in (0, n_classes // 2, n_classes - 1):
        bad_grad, bad_output = grad.copy(), output.copy()
        bad_grad[3, position] = bad_output[3, position] = NAN
        for g, y in ((bad_grad, output), (grad, bad_output), (bad_grad, bad_output)):
            for axis in (1, 0):
                a, b = (g, y) if axis else (g.T.copy(), y.T.copy())
                got = np.moveaxis(getattr(csoftmax, name)(a, b, axis), axis, 1)
                assert np.isnan(got[3, position])
                if name == "softmax_backward" or g is bad_grad:  # they are in the sum
                    assert np.isnan(got[3]).all()
                assert same_bits(np.delete(got, 3, 0), np.delete(expected, 3, 0))


def test_a_row_that_is_not_a_number_has_a_gradient_that_is_none(dtype, name):
    x = np.array([[0, 1], [NAN, 0], [INF, 0], [-INF, -INF]], dtype)
    got = getattr(csoftmax, name)(np.ones_like(x), output_of(name, x))
    assert np.isfinite(got[0]).all()
    assert np.isnan(got[1:]).all()


def test_subnormal_gradients_are_kept(name):
    x = np.float32([[0, -100], [0, -103]])
    tiny = np.exp([-100.0, -103.0])
    assert (tiny < np.finfo(np.float32).smallest_normal).all()
    got = getattr(csoftmax, name)(np.float32([[1, 0], [1, 0]]), output_of(name, x))
    want = np.stack([tiny, -tiny], 1)
    assert (np.abs(got - want) <= 2 * np.spacing(np.float32(1e-45))).all()


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0,), (0, 0), (2, 0, 3), (0, 5, 0)])
def test_arrays_without_elements_give_arrays_without_elements(dtype, name, shape):
    for axis in range(len(shape)):
        x, out = np.empty(shape, dtype), np.empty(shape, dtype)
        assert same_bits(getattr(csoftmax, name)(x, x, axis), x)
        assert getattr(csoftmax, name)(x, x, axis, out=out) is out


def test_a_scalar_is_one_class(name):
    for scalar, kind in ((1.0, np.float64), (np.float32(1), np.float32)):
        got = getattr(csoftmax, name)(scalar, kind(1 if name == "softmax_backward" else 0))
        assert type(got) is kind
        assert got == 0


@pytest.mark.parametrize("n_classes", [2, 16, 17, 100, 5000])
def test_out_receives_the_gradient_and_may_be_either_argument(rng, dtype, name, n_classes):
    function = getattr(csoftmax, name)
    for axis in (0, 1):
        shape = (20, n_classes) if axis else (n_classes, 20)
        grad, output = (
            logits_of(rng, shape, dtype),
            output_of(name, logits_of(rng, shape, dtype), axis),
        )
        expected, before = function(grad, output, axis), (grad.copy(), output.copy())
        out = np.full_like(grad, 7)
        assert function(grad, output, axis, out=out) is out
        assert same_bits(out, expected)
        assert same_bits(grad, before[0])
        assert same_bits(output, before[1])
        out = grad.copy()
        assert function(out, output, axis, out=out) is out
        assert same_bits(out, expected)
        out = output.copy()
        assert function(grad, out, axis, out=out) is out
        assert same_bits(out, expected)
        both = output.copy()
        expected = function(both.copy(), both.copy(), axis)
        assert function(both, both, axis, out=both) is both
        assert same_bits(both, expected)


@pytest.mark.parametrize("shift", [1, 16, 17, 70, 71])
def test_an_out_that_partly_overlaps_an_argument_is_right(rng, dtype, name, shift):
    function = getattr(csoftmax, name)
    grad, output = logits_of(rng, (70, 70), dtype), output_of(name, logits_of(rng, (70, 70), dtype))
    expected = function(grad, output)
    memory = np.zeros(4900 + shift, dtype)
    windows = memory[:4900].reshape(70, 70), memory[shift:].reshape(70, 70)
    for given, out in (windows, windows[::-1]):
        given[...] = grad
        assert function(given, output, out=out) is out
        assert same_bits(out, expected)
        given[...] = output
        assert function(grad, given, out=out) is out
        assert same_bits(out, expected)


def test_an_out_that_is_an_argument_in_another_order_is_right(rng, dtype, name):
    function = getattr(csoftmax, name)
    grad, output = logits_of(rng, (50, 50), dtype), output_of(name, logits_of(rng, (50, 50), dtype))
    expected = function(grad, output)
    for view in (np.transpose, np.flipud, np.fliplr):
        memory = grad.copy()
        function(memory, output, out=view(memory))
        assert same_bits(view(memory), expected)
        memory = output.copy()
        function(grad, memory, out=view(memory))
        assert same_bits(view(memory), expected)


def test_integers_lists_and_float16_are_converted_as_the_contract_says(name):
    function = getattr(csoftmax, name)
    grad, output = [[1, 2, 0], [3, 5, 1]], [[0, 1, 0], [1, 0, 0]]
    expected = function(np.array(grad, float), np.array(output, float))
    for kind in (np.int64, np.uint8, float):
        assert same_bits(function(np.array(grad, kind), np.array(output, kind)), expected)
    assert same_bits(function(grad, output), expected)
    halves = np.float16(grad), np.float16([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]])
    singles = [half.astype(np.float32) for half in halves]
    assert same_bits(function(*halves), function(*singles).astype(np.float16))


@pytest.mark.parametrize("n_classes", [2, 10, 17, 100, 2049])
def test_of_equal_largest_entries_the_first_counts_in_every_layout(rng, dtype, name, n_classes):
    x = rng.integers(0, 3, (40, n_classes)).astype(dtype)
    grad, output = logits_of(rng, x.shape, dtype), output_of(name, x)
    by_rows = getattr(csoftmax, name)(grad, output)
    for row in range(len(x)):
        assert same_bits(getattr(csoftmax, name)(grad[row], output[row]), by_rows[row])
    columns = np.ascontiguousarray(grad.T), np.ascontiguousarray(output.T)
    assert same_bits(getattr(csoftmax, name)(*columns, 0).T, by_rows)
