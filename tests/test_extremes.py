"""The far ends: very many classes and rows, and weights, temperatures and gradients from the whole range of a dtype."""

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import csoftmax
from support import reference
from support.bits import same_bits
from support.cases import logits_of
from support.reference import BOUNDS, INF

# ---- Long rows: bounds hold for any number of classes ----

LONG = [4100, 2**14 + 1, 2**18, 2**20]


def long_rows(rng, dtype, n_classes, kind):
    if kind == "normal":
        return rng.normal(0, 1, n_classes).astype(dtype)
    if kind == "equal":
        return np.full(n_classes, 1.3, dtype)
    if kind == "rising":  # each chunk has a larger maximum than those before
        return np.linspace(0, 30, n_classes).astype(dtype)
    # beyond where terms refer to multiples of ln 2: each maximum is a reference of its own
    return (5000 + np.sort(rng.normal(0, 1, n_classes))).astype(dtype)


@pytest.mark.parametrize("kind", ["normal", "equal", "rising", "far"])
@pytest.mark.parametrize("n_classes", LONG)
def test_long_rows_are_within_the_bounds_of_short_ones(rng, dtype, n_classes, kind):
    x = long_rows(rng, dtype, n_classes, kind)[np.newaxis]
    target = np.array([n_classes // 3])
    for name in ("softmax", "log_softmax", "logsumexp"):
        got, exact = getattr(csoftmax, name)(x), getattr(reference, name)(x)
        scale = np.abs(x.astype(np.longdouble)).max() if name == "logsumexp" else None
        assert reference.ulps(got, exact, scale) <= BOUNDS[name, dtype]
    exact_loss, exact_grad = reference.cross_entropy(x, target)
    loss, grad = csoftmax.cross_entropy_with_grad(x, target)
    assert reference.ulps(loss, exact_loss[0]) <= BOUNDS["log_softmax", dtype]
    assert reference.ulps(grad, exact_grad) <= BOUNDS["gradient", dtype]


@pytest.mark.parametrize("n_classes", [4100, 2**18, 2**20])
def test_long_rows_with_masses_are_within_their_bounds(rng, dtype, n_classes):
    x = rng.normal(0, 1, (1, n_classes)).astype(dtype)
    q = rng.random((1, n_classes)).astype(dtype)
    q /= q.sum()
    for target, options in ((np.array([5]), {"label_smoothing": 0.1}), (q, {})):
        loss, grad = csoftmax.cross_entropy_with_grad(x, target, **options)
        exact_loss, exact_grad = reference.cross_entropy(x, target, **options)
        scale = reference.gradient_scale(x, target, **options)
        assert reference.ulps(loss, exact_loss[0]) <= BOUNDS["smoothed loss", dtype]
        assert reference.ulps(grad, exact_grad, scale) <= BOUNDS["smoothed gradient", dtype]


def test_sixteen_million_classes_are_within_the_bounds(rng, dtype):
    x = rng.normal(0, 1, (1, 2**24)).astype(dtype)
    for name in ("softmax", "logsumexp"):
        got, exact = getattr(csoftmax, name)(x), getattr(reference, name)(x)
        assert reference.ulps(got, exact) <= BOUNDS[name, dtype]
    x[:] = 0.7
    assert reference.ulps(csoftmax.softmax(x), np.full(x.shape, 2.0**-24, np.longdouble)) <= 1


def test_what_is_far_below_the_maximum_is_kept_when_chunks_are_merged():
    x = np.zeros(4096)
    x[3000] = 740
    exact = -4095 * np.exp(np.longdouble(-740))
    assert abs(csoftmax.log_softmax(x)[3000] - exact) <= 2 * 5e-324
    assert abs(csoftmax.logsumexp(x - 740) + exact) <= 2 * 5e-324


# ---- Outputs that share memory with arguments ----


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("name", ["weight", "sample_weight", "grad_output", "probabilities"])
def test_an_out_that_is_another_argument_or_overlaps_it_is_right(rng, dtype, name, shift):
    n = 5000
    x = logits_of(rng, (n,) if name == "weight" else (n, 1), dtype)
    axis = 0 if name in ("weight", "probabilities") else 1
    q = rng.random(x.shape).astype(dtype)
    shared = np.zeros(2 * n, dtype)
    given = shared[:n]
    given[:] = rng.random(n)
    arguments = {"logits": x, "target": q, "axis": axis, "reduction": "none"}
    if name == "probabilities":
        arguments["target"] = given.reshape(x.shape)
    else:
        arguments[name] = given
    arguments |= {} if name in ("weight", "probabilities") else {"target": np.zeros(n, int)}
    expected = csoftmax.cross_entropy_with_grad(**arguments)
    out = shared[shift : shift + n].reshape(x.shape)
    loss, grad = csoftmax.cross_entropy_with_grad(**arguments, out=out)
    assert grad is out
    assert same_bits(loss, expected[0])
    assert same_bits(grad, expected[1])


@pytest.mark.parametrize("name", ["weight", "sample_weight", "probabilities"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_infinite_losses_of_both_signs_are_summed_in_place_as_elsewhere(dtype, reduction, name):
    largest = np.finfo(dtype).max
    x = np.array([[largest, -largest, -largest], [largest, -largest, -largest], [0, 1, 2]], dtype)
    signed = np.array([1, 1, -0.5], dtype)
    arguments = {"target": np.array([1, 2, 0]), "reduction": reduction}
    if name == "weight":
        arguments["weight"] = signed
    elif name == "sample_weight":
        arguments |= {"target": np.array([1, 1, 0]), "sample_weight": signed[[0, 2, 1]]}
    else:
        arguments["target"] = np.array([[0, 1, 0], [0, 0, -0.5], [1, 0, 0]], dtype)
    loss, grad = csoftmax.cross_entropy_with_grad(x, **arguments)
    assert not np.isnan(loss).any()
    for view in (lambda out: out, lambda out: out[:], lambda out: out.reshape(1, *out.shape)[0]):
        out = x.copy()
        in_place = csoftmax.cross_entropy_with_grad(out, out=view(out), **arguments)
        assert same_bits(in_place[0], loss)
        assert same_bits(out, grad)


# ---- Sums and means ----


@pytest.mark.parametrize("n_rows", [10, 1000, 10**6])
@pytest.mark.parametrize("constant", [True, False])
def test_means_over_weights_are_within_a_unit_of_the_exact_ones(rng, n_rows, constant):
    x = rng.normal(0, 2, (n_rows, 3))
    y = rng.integers(0, 3, n_rows)
    weight = np.full(3, 0.3) if constant else rng.uniform(0.1, 1, 3)
    sample_weight = np.full(n_rows, 0.7) if constant else rng.uniform(0.1, 1, n_rows)
    for options in ({"weight": weight}, {"sample_weight": sample_weight}, {}):
        losses = csoftmax.cross_entropy(x, y, reduction="none", **options)
        of_rows = np.ones(n_rows)
        if "weight" in options:
            of_rows = weight[y]
        elif "sample_weight" in options:
            of_rows = sample_weight
        total, divisor = math.fsum(losses), math.fsum(of_rows)
        unit = np.spacing(total)
        assert abs(csoftmax.cross_entropy(x, y, reduction="sum", **options) - total) <= unit
        mean, grad = csoftmax.cross_entropy_with_grad(x, y, **options)
        assert abs(mean - total / divisor) <= 1.5 * np.spacing(total / divisor)
        _, of_sum = csoftmax.cross_entropy_with_grad(x, y, reduction="sum", **options)
        exact = of_sum.astype(np.longdouble) / np.longdouble(divisor)
        assert reference.ulps(grad, exact) <= 2 * (BOUNDS["gradient", "float64"] + 1.5)
    log_p = csoftmax.log_softmax(x)
    got = csoftmax.functional.nll_loss(log_p, y, weight=weight)
    exact = math.fsum(-log_p[np.arange(n_rows), y] * weight[y]) / math.fsum(weight[y])
    assert abs(got - exact) <= 2 * np.spacing(exact)


def test_means_of_probabilities_over_sample_weights_are_within_a_unit(rng):
    x, q = rng.normal(size=(100_000, 3)), rng.random((100_000, 3))
    weights = np.full(100_000, 0.3)
    losses = csoftmax.cross_entropy(x, q, sample_weight=weights, reduction="none")
    exact = math.fsum(losses) / math.fsum(weights)
    got = csoftmax.cross_entropy(x, q, sample_weight=weights)
    assert abs(got - exact) <= 1.5 * np.spacing(exact)


# ---- Weights, scales and temperatures of any size ----

TINY_AND_HUGE = [5e-324, 1e-310, 1e-200, 1e-46, 1e-39, 1e39, 1e200, 1e300, 1.7e308]


@pytest.mark.parametrize("size", TINY_AND_HUGE)
def test_a_mean_does_not_depend_on_the_size_of_all_weights(dtype, size):
    x, y = np.array([[1, 0], [0.5, 2]], dtype), [0, 0]
    for eps in (0.0, 0.1):
        expected = csoftmax.cross_entropy_with_grad(x, y, label_smoothing=eps)
        for options in ({"weight": [size, size]}, {"sample_weight": [size, size]}):
            loss, grad = csoftmax.cross_entropy_with_grad(x, y, label_smoothing=eps, **options)
            for got, exact in ((loss, expected[0]), (grad, expected[1])):
                assert reference.ulps(got, np.asarray(exact, np.longdouble)) <= 16


def exact_gradient(x, size):
    """Of the first class of two, times size, in more than float64's range."""
    d = np.longdouble(x[0]) - np.longdouble(x[1])
    return np.longdouble(size) / (1 + np.exp(d))


@pytest.mark.parametrize("size", [*TINY_AND_HUGE, INF])
def test_a_gradient_times_any_number_is_that_number_an_infinity_or_zero(dtype, size):
    for row in ([1, 0], [20, 0], [200, 0], [700, 0]):
        x = np.array([row], dtype)
        _, grad = csoftmax.cross_entropy_with_grad(x, [0], grad_output=size)
        exact = exact_gradient(np.asarray(row, np.longdouble), size)
        with np.errstate(all="ignore"):
            rounded = exact.astype(dtype)
        p = exact_gradient(np.asarray(row, np.longdouble), 1)
        assert not np.isnan(grad[0]).any() or size == INF
        if p < np.finfo(dtype).smallest_subnormal:  # counts as itself or as 0, never as more
            assert 0 <= grad[0, 1] <= rounded * (1 + 1e-6) or size == INF
        elif np.isinf(rounded):
            assert_array_equal(grad[0], [-INF, INF])
        else:
            bound = BOUNDS["gradient", dtype] + 1.5
            assert reference.ulps(grad[0], np.array([-exact, exact])) <= bound


@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-200, 1e-30, 1e30, 1e200, 1.7e308])
def test_finite_logits_at_any_temperature_give_no_nan(rng, dtype, temperature):
    x = np.concatenate([logits_of(rng, (3, 20), dtype), [[1, 0] * 10]]).astype(dtype)
    for target in ([0, 1, 2, 0], np.full(x.shape, 0.05, dtype)):
        for reduction in ("mean", "sum", "none"):
            loss, grad = csoftmax.cross_entropy_with_grad(
                x, target, temperature=temperature, reduction=reduction
            )
            assert not np.isnan(loss).any()
            assert not np.isnan(grad).any()
    assert not np.isnan(csoftmax.softmax(x, temperature=temperature)).any()


def test_tiny_probabilities_never_count_as_more():
    x = np.float32([[200, 0]])
    _, grad = csoftmax.cross_entropy_with_grad(x, [0], grad_output=1e20)
    assert 0 <= grad[0, 1] <= np.float32(1.4e-67)
    loss = csoftmax.cross_entropy(
        np.float32([[150, 0]]), [0], sample_weight=[1e35], reduction="sum"
    )
    assert 0 <= loss <= np.float32(7.2e-31)
    _, grad = csoftmax.cross_entropy_with_grad([[1500.0, 0]], [0], grad_output=1e300)
    assert 0 <= grad[0, 1] <= 1e-300
    assert csoftmax.log_softmax_backward(np.float32([0, 1e20]), np.float32([-300, 0]))[0] == 0


def test_a_loss_may_be_finite_where_a_log_probability_is_not(dtype):
    big = np.dtype(dtype).type(3e38 if dtype == "float32" else 1.7e308)
    x = np.array([[big, -big]])
    target = np.array([[0.75, 0.25]], dtype)
    got = csoftmax.cross_entropy(x, target, reduction="none")
    assert reference.ulps(got, np.longdouble(big) * np.longdouble(0.5)[np.newaxis]) <= 4
    got = csoftmax.cross_entropy(x, [1], sample_weight=[0.25], reduction="none")
    assert reference.ulps(got, np.longdouble(big) * np.longdouble(0.5)[np.newaxis]) <= 4


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_a_loss_is_finite_where_only_its_summands_leave_the_range(rng, reduction):
    big = np.finfo(np.float64).max
    x = np.array([[big / 2, -big / 2, 1, big / 2, 0.9999 * big, -big / 2, -big]])
    q = np.array([[1.5, 1.25, 1, 1.5, 0.125, 1.125, 0.75]])
    loss = csoftmax.cross_entropy(x, q, temperature=14.0, reduction=reduction)
    expected = (q * (x.max() - x.astype(np.longdouble))).sum(1) / 14
    assert reference.ulps(np.ravel(loss), expected) <= 7
    masked = np.array([[-big, 0, 1, big], [0, -np.inf, 0, 0]])  # the other row is not finite
    options = {"weight": [1.5, 0.5, 1, 0.75], "sample_weight": [0.04, 1]}
    loss = csoftmax.cross_entropy(masked, [0, -100], reduction=reduction, **options)
    expected = np.longdouble([0.04]) * 3 * np.longdouble(big)
    assert reference.ulps(np.ravel(loss)[:1], expected) <= 4
    x = rng.choice([big, -big, big / 2, -big / 2, 0, 1], (300, 5))
    options = {"weight": [-2, -2, 2, -3, -1], "label_smoothing": 0.5, "temperature": 1.37e-3}
    losses = csoftmax.cross_entropy(x, rng.integers(0, 5, 300), reduction="none", **options)
    assert not np.isnan(losses).any()


@pytest.mark.parametrize("temperature", [1e-10, 1e-7, 1.0])
def test_gradients_of_subnormal_targets_keep_their_digits(rng, temperature):
    x = rng.normal(0, 1, (3, 60)).astype(np.float32)
    q = (10.0 ** rng.uniform(-44, -37, x.shape)).astype(np.float32)
    options = {"temperature": temperature, "reduction": "sum", "weight": rng.uniform(0.5, 2, 60)}
    _, grad = csoftmax.cross_entropy_with_grad(x, q, grad_output=1e6, **options)
    mass = q.astype(np.longdouble) * options["weight"]
    wide = x.astype(np.longdouble) / temperature
    p = np.exp(wide - wide.max(1, keepdims=True))
    p *= mass.sum(1, keepdims=True) / p.sum(1, keepdims=True)
    size = (np.maximum(p, mass) * 1e6 / temperature).astype(np.float32)
    off = np.abs(grad - (p - mass) * 1e6 / temperature) / np.spacing(size)
    assert off.max() <= 8


def test_a_row_of_no_weight_has_no_gradient_however_large_its_targets(rng):
    q = 10.0 ** rng.uniform(250, 308, (2, 300))
    x = rng.normal(0, 1, q.shape)
    loss, grad = csoftmax.cross_entropy_with_grad(x, q, sample_weight=[0, 0], reduction="none")
    assert_array_equal(loss, 0)
    assert_array_equal(grad, 0)


def test_an_infinite_gradient_keeps_the_signs_of_subnormal_probabilities():
    _, grad = csoftmax.cross_entropy_with_grad(
        np.array([[0.0, -740, -750]]), [0], grad_output=[INF], reduction="none"
    )
    assert_array_equal(grad, [[-INF, INF, INF]])


def test_gradients_of_extreme_factors_are_within_their_bound(rng):
    x = rng.normal(0, 20, (4, 257))
    weight = rng.uniform(50, 70000, 257)
    target = rng.integers(0, 257, 4)
    options = {"weight": weight, "label_smoothing": 1e-10, "reduction": "none"}
    _, grad = csoftmax.cross_entropy_with_grad(x, target, grad_output=[2e219] * 4, **options)
    wide = x.astype(np.longdouble)
    p = np.exp(wide - wide.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    mass = np.longdouble(1e-10) / 257 * weight + np.zeros((4, 1))
    mass[np.arange(4), target] += (1 - np.longdouble(1e-10)) * weight[target]
    spread = p * mass.sum(1, keepdims=True)
    size = np.maximum(spread, mass).astype(np.float64)
    off = np.abs(grad / np.longdouble(2e219) - (spread - mass)) / np.spacing(size)
    others = np.arange(257) != target[:, None]  # at the target 1 - p has lost its digits here
    assert off[others].max() <= 8


def test_weights_that_cancel_give_what_the_formula_says():
    x = np.array([[1.0, 0], [2.0, 0]])
    loss, grad = csoftmax.cross_entropy_with_grad(x, [0, 0], sample_weight=[1, -1])
    assert loss == INF
    assert_array_equal(grad, [[-INF, INF], [INF, -INF]])
    loss, grad = csoftmax.cross_entropy_with_grad(x[[0, 0]], [0, 0], sample_weight=[1, -1])
    assert np.isnan(loss)
    assert_array_equal(np.abs(grad), INF)
    loss, grad = csoftmax.cross_entropy_with_grad(x, [0, 0], sample_weight=[0, 0])
    assert np.isnan(loss)
    assert_array_equal(grad, 0)  # a row that weighs nothing has none, whatever the divisor


# ---- The way back ----


@pytest.mark.parametrize("name", ["grad_output", "sample_weight", "weight", "target"])
def test_a_gradient_over_an_argument_is_right_where_losses_are_found_once_more(name):
    logits = np.float32([[3e38, -3e38, 1, 0]] * 4)  # weighted losses leave float32
    given = {"weight": np.array([2, 2, 3, 2.0]), "sample_weight": np.array([2, 3, 2, 2.0])}
    given |= {"grad_output": np.array([1, 2, 3, 4.0]), "target": np.array([1, 0, 2, 3])}
    expected = csoftmax.cross_entropy_with_grad(logits, **given, reduction="none")
    out = np.zeros((4, 4), np.float32)
    shared = out.reshape(-1).view(given[name].dtype)[1:5]
    shared[...] = given[name]
    got = csoftmax.cross_entropy_with_grad(
        logits, **given | {name: shared}, reduction="none", out=out
    )
    assert same_bits(got[0], expected[0])
    assert same_bits(got[1], expected[1])


@pytest.mark.parametrize("n_classes", [100, 2049, 4097])
def test_gradients_below_the_range_never_grow_by_a_large_factor(rng, dtype, n_classes):
    x = rng.uniform(-165 if dtype == "float32" else -1100, -30, (3, n_classes)).astype(dtype)
    x[:, 0] = 0  # of whose chunk others' terms are no part, but near enough to be kept
    scale = 1e39 if dtype == "float32" else 1e300
    _, grad = csoftmax.cross_entropy_with_grad(
        x, [0, 1, 2], grad_output=np.full(3, scale), reduction="none"
    )
    exact = np.exp(np.log(np.longdouble(scale)) + reference.log_softmax(x))
    others = np.arange(n_classes) > 2
    got, most = (
        grad[:, others].astype(np.longdouble),
        exact[:, others] * (1 + np.finfo(dtype).eps * 8),
    )
    finite = most < np.finfo(dtype).max
    assert (got <= most)[finite].all()
    assert (got == 0).any()


def test_backward_of_large_gradients_does_not_overflow_on_the_way():
    got = csoftmax.softmax_backward([1.5e308, -1.5e308], [0.5, 0.5])
    assert_array_equal(got, [7.5e307, -7.5e307])
    got = csoftmax.log_softmax_backward([1.5e308, 1.5e308], np.log([0.5, 0.5]))
    assert np.abs(got).max() <= 2e292
    many = np.full((20, 40), 1.2e308)
    y = np.full((20, 40), 1 / 40)
    assert np.abs(csoftmax.softmax_backward(many, y)).max() <= 1e292
    assert np.abs(csoftmax.softmax_backward(many.T.copy(), y.T.copy(), 0)).max() <= 1e292


def test_backward_keeps_the_digits_of_subnormal_probabilities():
    got = csoftmax.log_softmax_backward(np.float32([0, 0, 1e5]), np.float32([-102.87, -50, 0]))
    exact = -np.exp(np.float32([-102.87, -50]).astype(np.longdouble)) * 1e5
    assert reference.ulps(got[:2], exact) <= 2
    got = csoftmax.log_softmax_backward(np.float32([0, 1e20]), np.float32([-95, 0]))
    assert reference.ulps(got[:1], -np.exp(np.longdouble(-95))[np.newaxis] * 1e20) <= 2
    got = csoftmax.log_softmax_backward([0, 1e200], [-730.0, 0])
    assert reference.ulps(got[:1], -np.exp(np.longdouble(-730))[np.newaxis] * 1e200) <= 6


@pytest.mark.parametrize("shape", [(30, 2), (30, 17), (5, 300), (3, 5000)])
def test_backward_of_outputs_that_do_not_add_up_to_one_is_the_formula(rng, dtype, shape):
    y = csoftmax.softmax(logits_of(rng, shape, dtype))
    y[rng.random(shape) < 0.3] = 0  # dropout, without what it would be divided by
    y[:, 0] = 0.25
    grad = logits_of(rng, shape, dtype)
    wide, g = y.astype(np.longdouble), grad.astype(np.longdouble)
    exact = wide * (g - (wide * g).sum(1, keepdims=True))
    size = wide * (np.abs(g) + (wide * np.abs(g)).sum(1, keepdims=True))
    bound = BOUNDS["softmax_backward", dtype] + 1
    assert reference.ulps(csoftmax.softmax_backward(grad, y), exact, size) <= bound
    columns = csoftmax.softmax_backward(grad.T.copy(), y.T.copy(), 0).T
    assert same_bits(np.ascontiguousarray(columns), csoftmax.softmax_backward(grad, y))


def test_backward_of_logarithms_above_zero_is_the_formula(dtype):
    grad, log_p = np.array([0.5, 2, -1], dtype), np.array([3, -1, 40], dtype)
    exact = grad - np.exp(log_p.astype(np.longdouble)) * np.longdouble(1.5)
    size = np.abs(grad) + np.exp(log_p.astype(np.longdouble)) * 3.5
    assert reference.ulps(csoftmax.log_softmax_backward(grad, log_p), exact, size) <= 6
