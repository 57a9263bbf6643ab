"""weight, sample_weight, label_smoothing, temperature, probabilities as target, grad_output, out."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import csoftmax
from support import reference
from support.bits import different, same_bits
from support.cases import (
    CLASSES,
    CLASSES_AND_INNER,
    ROWS,
    logits_of,
    probabilities_of,
    targets_of,
    weights_of,
)
from support.options import arguments_of, results_of, scalars_of
from support.reference import BOUNDS, NAN

REDUCTIONS = ["mean", "sum", "none"]


def check(x, target, axis=-1, **options):
    """Losses and gradients against their definition; cross_entropy's losses are the same."""
    options |= {"axis": axis}
    loss, grad = csoftmax.cross_entropy_with_grad(x, target, reduction="none", **options)
    assert same_bits(loss, csoftmax.cross_entropy(x, target, reduction="none", **options))
    assert loss.shape == tuple(np.delete(x.shape, axis))
    assert grad.shape == x.shape
    assert loss.dtype == grad.dtype == x.dtype
    dtype = str(x.dtype)
    exact_loss, exact_grad = reference.cross_entropy(x, target, **options)
    if target.dtype.kind == "f" or options.get("label_smoothing"):
        scale = reference.gradient_scale(x, target, **options)
        bounds = BOUNDS["smoothed loss", dtype], BOUNDS["smoothed gradient", dtype]
    else:
        scale = None
        bounds = weighted_bounds(dtype)
    if options.get("temperature", 1) != 1:
        bounds = bounds[0], bounds[1] + 1
    assert reference.ulps(loss, exact_loss) <= bounds[0]
    assert reference.ulps(grad, exact_grad, scale) <= bounds[1]


def weighted_bounds(dtype):
    """Of the loss and the gradient of class indices: both are multiplied, and the product rounded.

    A product may lie where a unit is up to half as large beside it, so that an error counts twice; of the
    losses, these are the largest that was found and one more than without weights.
    """
    return BOUNDS["weighted loss", dtype], BOUNDS["gradient", dtype] + 1.5


# ---- The definitions ----


@pytest.mark.parametrize("n_classes", CLASSES)
def test_weights_multiply_losses_and_gradients_for_every_number_of_classes(rng, dtype, n_classes):
    for spread in (1, 30):
        x = logits_of(rng, (10, n_classes), dtype, spread)
        target, weights = targets_of(rng, x.shape, -1), weights_of(rng, x.shape, -1)
        check(x, target, **weights)
        check(x, target, sample_weight=weights["sample_weight"])
        check(x, x.argmax(-1), weight=weights["weight"])  # the smallest losses


@pytest.mark.parametrize("n_classes", CLASSES)
def test_smoothed_labels_are_as_defined_for_every_number_of_classes(rng, dtype, n_classes):
    for spread, eps in ((1, 0.1), (30, 0.5), (5, 1.0), (1, 1e-9)):
        x = logits_of(rng, (10, n_classes), dtype, spread)
        check(x, x.argmax(-1), label_smoothing=eps)
        target = targets_of(rng, x.shape, -1)
        check(x, target, label_smoothing=eps, **weights_of(rng, x.shape, -1))


@pytest.mark.parametrize("n_classes", CLASSES)
def test_probabilities_as_target_are_as_defined_for_every_number_of_classes(rng, dtype, n_classes):
    for spread in (1, 30):
        x = logits_of(rng, (10, n_classes), dtype, spread)
        q = probabilities_of(rng, x.shape, -1, dtype)
        q[0] = 0
        q[0, x[0].argmax()] = 1  # the smallest loss
        check(x, q)
        check(x, q, label_smoothing=0.3, **weights_of(rng, x.shape, -1))
        check(x, csoftmax.softmax(x))  # gradients that are nothing but roundings


@pytest.mark.parametrize("n_rows", ROWS)
@pytest.mark.parametrize("n_classes", [2, 10, 16, 17, 65])
def test_each_row_has_its_own_weight_for_every_number_of_rows(rng, dtype, n_rows, n_classes):
    x = logits_of(rng, (n_rows, n_classes), dtype)
    weights = weights_of(rng, x.shape, -1)
    check(x, targets_of(rng, x.shape, -1), **weights)
    check(x, targets_of(rng, x.shape, -1), label_smoothing=0.1, **weights)
    check(x, probabilities_of(rng, x.shape, -1, dtype), **weights)


@pytest.mark.parametrize(("n_classes", "inner"), CLASSES_AND_INNER)
def test_options_along_first_and_middle_axes_are_as_defined(rng, dtype, inner, n_classes):
    x = logits_of(rng, (2, n_classes, inner), dtype)
    weights = weights_of(rng, x.shape, 1)
    q = probabilities_of(rng, x.shape, 1, dtype)
    check(x, targets_of(rng, x.shape, 1), 1, **weights)
    check(x, targets_of(rng, x.shape, 1), 1, label_smoothing=0.1, **weights)
    check(x, q, -2, label_smoothing=0.1, temperature=1.7, **weights)
    weights["sample_weight"] = weights["sample_weight"][0]
    check(np.ascontiguousarray(x[0]), np.ascontiguousarray(q[0]), 0, **weights)


@pytest.mark.parametrize("lead", [5, 20, 80])
@pytest.mark.parametrize("n_classes", [2, 16, 17, 100])
def test_small_losses_of_certain_probabilities_keep_their_digits(rng, dtype, lead, n_classes):
    x = logits_of(rng, (n_classes, n_classes), dtype, 1)
    x[np.arange(n_classes), np.arange(n_classes)] += lead
    check(x, np.eye(n_classes, dtype=dtype))
    check(x, np.eye(n_classes, dtype=dtype), **weights_of(rng, x.shape, -1))
    check(x, np.arange(n_classes), **weights_of(rng, x.shape, -1))


def test_a_small_loss_of_a_certain_probability_is_not_zero():
    loss, grad = csoftmax.cross_entropy_with_grad(np.float32([[20, 0]]), np.float32([[1, 0]]))
    assert loss == grad[0, 1] == np.float32(2.0611537e-09)


def test_probabilities_need_not_sum_to_one(rng, dtype):
    x = logits_of(rng, (20, 40), dtype)
    check(x, rng.uniform(0, 3, x.shape).astype(dtype))
    check(x, np.zeros_like(x))
    check(x, np.zeros_like(x), label_smoothing=0.2)


@pytest.mark.parametrize("n_rows", [1, 2, 17, 257, 3000])
@pytest.mark.parametrize("kind", ["classes", "smoothed", "probabilities"])
def test_sum_and_mean_divide_by_the_weights_that_count(rng, dtype, n_rows, kind):
    x = logits_of(rng, (n_rows, 7), dtype)
    options = weights_of(rng, x.shape, -1)
    target = targets_of(rng, x.shape, -1)
    if kind == "probabilities":
        target = probabilities_of(rng, x.shape, -1, dtype)
    divisor = reference.mean_divisor(target, x.shape, **options)
    if kind == "smoothed":
        options["label_smoothing"] = 0.1
    exact_loss, exact_grad = reference.cross_entropy(x, target, **options)
    exact = math.fsum(exact_loss.astype(float))
    # As in test_cross_entropy: losses within their bound, then sums of blocks in float64, here two.
    plain = kind == "classes"
    bounds = BOUNDS["smoothed loss", dtype], BOUNDS["smoothed gradient", dtype]
    of_loss, of_grad = weighted_bounds(dtype) if plain else bounds
    rounds = 19 + max(0, math.log2(n_rows / 128)) if dtype == "float64" else 0
    scale = None if plain else reference.gradient_scale(x, target, **options)
    total = csoftmax.cross_entropy(x, target, reduction="sum", **options)
    mean, grad = csoftmax.cross_entropy_with_grad(x, target, reduction="mean", **options)
    assert type(total) is type(mean) is np.dtype(dtype).type
    assert reference.ulps(total, exact) <= 2 * of_loss + 2 + rounds
    assert reference.ulps(mean, exact / divisor) <= 2 * of_loss + 2 + 2 * rounds
    assert mean == csoftmax.cross_entropy(x, target, **options)
    scale = None if plain else scale / divisor
    assert reference.ulps(grad, exact_grad / divisor, scale) <= of_grad + rounds


def test_options_of_one_and_zero_change_no_bit(rng, dtype):
    for shape, axis in (((40, 10), 1), ((9, 100), 1), ((3, 2049), 1), ((100, 33), 0)):
        x = logits_of(rng, shape, dtype)
        target, rows = targets_of(rng, shape, axis), tuple(np.delete(shape, axis))
        for options in (
            {"weight": np.ones(shape[axis])},
            {"sample_weight": np.ones(rows)},
            {"label_smoothing": 0.0, "temperature": 1},
            {"weight": np.ones(shape[axis], int), "sample_weight": np.ones(rows, np.float16)},
        ):
            for reduction in REDUCTIONS:
                common = {"axis": axis, "reduction": reduction}
                expected = csoftmax.cross_entropy_with_grad(x, target, **common)
                got = csoftmax.cross_entropy_with_grad(x, target, **common, **options)
                assert same_bits(got[0], expected[0])
                assert same_bits(got[1], expected[1])
        for function in (csoftmax.softmax, csoftmax.log_softmax, csoftmax.logsumexp):
            assert same_bits(function(x, axis, temperature=1), function(x, axis))


def test_weights_that_are_powers_of_two_are_exact(rng, dtype):
    x, target = logits_of(rng, (70, 20), dtype), rng.integers(0, 20, 70)
    powers = 2.0 ** rng.integers(-3, 4, 70)
    plain = csoftmax.cross_entropy_with_grad(x, target, reduction="none")
    got = csoftmax.cross_entropy_with_grad(x, target, sample_weight=powers, reduction="none")
    assert same_bits(got[0], (plain[0] * powers).astype(dtype))
    assert same_bits(got[1], (plain[1] * powers[:, None]).astype(dtype))


def test_a_row_of_weight_two_counts_as_two_rows(rng, dtype):
    x = logits_of(rng, (6, 5), dtype)
    target, times = np.array([0, 4, -100, 2, 1, 1]), np.array([2, 1, 3, 1, 2, 0])
    for reduction in ("mean", "sum"):
        got = csoftmax.cross_entropy(x, target, sample_weight=times, reduction=reduction)
        rows = np.repeat(np.arange(6), times)
        expected = csoftmax.cross_entropy(x[rows], target[rows], reduction=reduction)
        assert (
            reference.ulps(got, expected.astype(np.longdouble)) <= 4
        )  # another order of six terms


@pytest.mark.parametrize("factor", [1e-200, 1e-60, 1e60, 1e200])
@pytest.mark.parametrize("name", ["weight", "sample_weight"])
def test_a_mean_does_not_depend_on_the_magnitude_of_all_weights(rng, dtype, name, factor):
    x, target = logits_of(rng, (30, 20), dtype), targets_of(rng, (30, 20), -1)
    values = np.ldexp(1.0, rng.integers(-2, 3, 20 if name == "weight" else 30))
    loss, grad = csoftmax.cross_entropy_with_grad(x, target, **{name: values})
    got = csoftmax.cross_entropy_with_grad(x, target, **{name: values * factor})
    assert reference.ulps(got[0], loss.astype(np.longdouble)) <= 30  # as many roundings as rows
    bound = 2 * (BOUNDS["gradient", dtype] + 1.5)
    assert reference.ulps(got[1], grad.astype(np.longdouble)) <= bound


# ---- Temperature ----

TEMPERATURES = [0.5, 2, 0.7, 3.3, 1e-3, 1e3, np.float32(0.1), np.float64(0.1), Fraction(1, 3)]
SHAPES = [((40, 10), 1), ((9, 100), 1), ((3, 2049), 1), ((100, 33), 0), ((2, 17, 20), 1)]


def exactly_divided(x, axis, temperature):
    """softmax, log_softmax and logsumexp in longdouble."""
    rest = reference.divided(x, temperature, axis)
    top = np.asarray(x, np.longdouble).max(axis) / np.longdouble(float(temperature))
    others = reference.parts(rest, axis)[2].squeeze(axis)
    return {
        "softmax": reference.softmax(rest, axis),
        "log_softmax": reference.log_softmax(rest, axis),
        "logsumexp": top + np.log1p(others),
    }


@pytest.mark.parametrize("temperature", TEMPERATURES, ids=str)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_results_with_a_temperature_are_within_their_bounds(rng, dtype, shape, axis, temperature):
    x = logits_of(rng, shape, dtype)
    target, q = targets_of(rng, shape, axis), probabilities_of(rng, shape, axis, dtype)
    for name, exact in exactly_divided(x, axis, temperature).items():
        got = getattr(csoftmax, name)(x, axis, temperature=temperature)
        assert reference.ulps(got, exact) <= BOUNDS[name, dtype]
    for y, eps, reduction in itertools.product((target, q), (0, 0.1), REDUCTIONS):
        options = {"axis": axis, "label_smoothing": eps, "reduction": reduction}
        got, _ = csoftmax.cross_entropy_with_grad(x, y, temperature=temperature, **options)
        assert same_bits(got, csoftmax.cross_entropy(x, y, temperature=temperature, **options))
    check(x, target, axis, temperature=temperature)
    check(x, q, axis, temperature=temperature, label_smoothing=0.1)


@pytest.mark.parametrize("factor", [2.0**-20, 2.0**20])
def test_logits_and_temperature_times_a_power_of_two_give_the_same_bits(rng, dtype, factor):
    for shape, axis in SHAPES:
        x = logits_of(rng, shape, dtype)
        scaled = x * np.dtype(dtype).type(factor)
        for name in ("softmax", "log_softmax", "logsumexp"):
            function = getattr(csoftmax, name)
            got = function(scaled, axis, temperature=0.7 * factor)
            assert same_bits(got, function(x, axis, temperature=0.7))


@pytest.mark.parametrize(
    ("row", "temperature", "expected"),
    [
        ([5, 4], 1e-38, [1, 0]),
        ([4, 5, 5], 1e-38, [0, 0.5, 0.5]),
        ([3e38, 2e38], 0.5, [1, 0]),
        ([-2e38, -3e38], 0.25, [1, 0]),
        ([3e38, -3e38], 1e-3, [1, 0]),
        ([5, 4], 1e-310, [1, 0]),
        ([5, 4], 5e-324, [1, 0]),
        ([5, 4], 1e308, [0.5, 0.5]),
        ([-np.inf, 0, 1], 1e-38, [0, 0, 1]),
        ([1000.125, 1000], 0.125, [np.e / (1 + np.e), 1 / (1 + np.e)]),
    ],
)
def test_differences_are_divided_not_logits(dtype, row, temperature, expected):
    n = 2100  # more than a chunk
    padded = np.full(n, -np.inf, dtype)
    padded[: len(row)] = row
    bound = BOUNDS["softmax", dtype]
    loss = -np.log(np.longdouble(np.max(expected)))
    for x, exact in (
        (np.array(row, dtype), expected),
        (padded, np.pad(np.array(expected, float), (0, n - len(row)))),
        (padded[::-1], np.pad(np.array(expected, float), (0, n - len(row)))[::-1]),
    ):
        got = csoftmax.softmax(x, temperature=temperature)
        assert reference.ulps(got, np.asarray(exact, np.longdouble)) <= bound
        columns = np.ascontiguousarray(np.stack([x] * 20, axis=1))
        assert (csoftmax.softmax(columns, 0, temperature=temperature).T == got).all()
        at = int(np.argmax(x))
        got = csoftmax.cross_entropy(x, at, temperature=temperature)
        assert abs(got - loss) <= 4 * np.spacing(np.abs(np.dtype(dtype).type(loss)))
        _, grad = csoftmax.cross_entropy_with_grad(x, at, temperature=temperature)
        assert not np.isnan(grad).any()


def test_infinite_logits_stay_what_they_are_at_any_temperature(dtype):
    infinite = np.array([[np.inf, 0]], dtype)
    for temperature in (0.25, 1e-310, 1e300):
        assert np.isnan(csoftmax.softmax(infinite, temperature=temperature)).all()
        assert csoftmax.logsumexp(infinite, temperature=temperature) == np.inf
        assert csoftmax.logsumexp(-infinite, temperature=temperature) == 0


def test_a_logsumexp_too_large_for_the_dtype_is_infinite(dtype):
    x = np.full(3, np.finfo(dtype).max)
    assert csoftmax.logsumexp(x, temperature=0.25) == np.inf
    assert csoftmax.logsumexp(-x, temperature=0.25) == -np.inf


def test_a_temperature_of_integers_and_float16_applies_to_what_they_are_computed_in():
    for x, wide in (
        (np.arange(12).reshape(3, 4), np.float64),
        (np.arange(12, dtype=np.float16).reshape(3, 4), np.float32),
    ):
        converted = x.astype(wide)
        got = csoftmax.softmax(x, temperature=0.7)
        assert same_bits(got, csoftmax.softmax(converted, temperature=0.7).astype(got.dtype))
        got = csoftmax.logsumexp(x, temperature=0.7, keepdims=True)
        assert same_bits(got, csoftmax.logsumexp(converted, temperature=0.7, keepdims=True))
        got = csoftmax.cross_entropy(x, [0, 1, 3], temperature=0.7)
        assert same_bits(got, csoftmax.cross_entropy(converted, [0, 1, 3], temperature=0.7))


def test_out_and_in_place_take_a_temperature(rng, dtype):
    x = logits_of(rng, (30, 40), dtype)
    for function in (csoftmax.softmax, csoftmax.log_softmax):
        expected, view = function(x, temperature=0.7), x.copy()
        assert function(view, temperature=0.7, out=view) is view
        assert same_bits(view, expected)
    out = np.full(30, 7, dtype)
    assert csoftmax.logsumexp(x, temperature=0.7, out=out) is out
    assert same_bits(out, csoftmax.logsumexp(x, temperature=0.7))


# ---- grad_output ----


@pytest.mark.parametrize("eps", [0, 0.1])
def test_grad_output_multiplies_the_gradient_and_not_the_loss(rng, dtype, eps):
    for shape, axis in SHAPES:
        x, rows = logits_of(rng, shape, dtype), tuple(np.delete(shape, axis))
        for target in (targets_of(rng, shape, axis), probabilities_of(rng, shape, axis, dtype)):
            for reduction in REDUCTIONS:
                options = {"axis": axis, "reduction": reduction, "label_smoothing": eps}
                loss, grad = csoftmax.cross_entropy_with_grad(x, target, **options)
                for factor in (1, 2, -0.5, 0):
                    given = np.full(rows, factor) if reduction == "none" else factor
                    got = csoftmax.cross_entropy_with_grad(x, target, grad_output=given, **options)
                    assert same_bits(got[0], loss)
                    assert_array_equal(got[1], grad * np.dtype(dtype).type(factor))


def test_grad_output_of_rows_is_as_defined_with_every_option(rng, dtype):
    for shape, axis in SHAPES:
        x, given = logits_of(rng, shape, dtype), arguments_of(rng, shape, axis, dtype)
        options = {"weight": given["weight"], "label_smoothing": 0.1, "axis": axis}
        for target in (given["target"], given["probabilities"]):
            _, grad = csoftmax.cross_entropy_with_grad(
                x,
                target,
                sample_weight=given["sample_weight"],
                grad_output=given["grad_output"],
                reduction="none",
                **options,
            )
            # To the gradient both are factors of the row.
            options["sample_weight"] = given["sample_weight"] * given["grad_output"]
            _, exact = reference.cross_entropy(x, target, **options)
            scale = reference.gradient_scale(x, target, **options)
            assert reference.ulps(grad, exact, scale) <= BOUNDS["smoothed gradient", dtype]
            del options["sample_weight"]


def test_grad_output_may_be_any_real_number(rng):
    x, target = rng.standard_normal((3, 4)), [0, 1, 3]
    expected = csoftmax.cross_entropy_with_grad(x, target, grad_output=2.0)[1]
    for number in (2, np.float32(2), np.float16(2), np.array(2), np.array(2, ">f8"), np.uint8(2)):
        got = csoftmax.cross_entropy_with_grad(x, target, grad_output=number)[1]
        assert same_bits(got, expected)
    expected = csoftmax.cross_entropy_with_grad(
        x, target, reduction="none", grad_output=np.array([1.0, 2.0, 3.0])
    )[1]
    for rows in ([1, 2, 3], np.float16([1, 2, 3]), np.array([3.0, 2.0, 1.0])[::-1]):
        got = csoftmax.cross_entropy_with_grad(x, target, reduction="none", grad_output=rows)[1]
        assert same_bits(got, expected)


# ---- What arguments may be ----


def test_weights_of_every_real_dtype_and_layout_count_the_same(rng):
    x, target = rng.standard_normal((4, 3)), [0, 2, 1, 1]
    for name, values in (("weight", [1, 3, 2]), ("sample_weight", [2, 0, 1, 3])):
        expected = csoftmax.cross_entropy_with_grad(x, target, **{name: np.array(values, float)})
        backwards = np.array([*values, 9])[:-1][::-1].copy()[::-1]
        for given in (
            values,
            tuple(values),
            backwards,
            *(
                np.array(values, kind)
                for kind in ("u1", "i8", ">i2", "f2", "f4", ">f8", "longdouble")
            ),
        ):
            got = csoftmax.cross_entropy_with_grad(x, target, **{name: given})
            assert same_bits(got[0], expected[0])
            assert same_bits(got[1], expected[1])
    loss = csoftmax.cross_entropy(x, target, sample_weight=[True, False, True, True])
    assert same_bits(loss, csoftmax.cross_entropy(x, [0, -100, 1, 1]))
    rows = np.broadcast_to(2.5, 4)
    loss = csoftmax.cross_entropy(x, target, sample_weight=rows, reduction="sum")
    expected = csoftmax.cross_entropy(x, target, sample_weight=rows.copy(), reduction="sum")
    assert same_bits(loss, expected)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f2", ">f4", ">f8"])
def test_probabilities_of_every_float_dtype_are_converted_to_the_logits_dtype(rng, dtype, kind):
    x = logits_of(rng, (9, 20), dtype)
    q = probabilities_of(rng, x.shape, -1, "float64").astype(kind)
    got = csoftmax.cross_entropy_with_grad(x, q, label_smoothing=0.1)
    expected = csoftmax.cross_entropy_with_grad(x, q.astype(dtype), label_smoothing=0.1)
    assert same_bits(got[0], expected[0])
    assert same_bits(got[1], expected[1])


def test_probabilities_may_be_lists_and_logits_integers_or_float16(rng):
    q = [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]
    rows = [[1, 2, 0], [3, 5, 1]]
    expected = csoftmax.cross_entropy_with_grad(np.array(rows, float), np.array(q))
    for logits in (rows, np.array(rows, np.uint8)):
        for ours, theirs in zip(csoftmax.cross_entropy_with_grad(logits, q), expected, strict=True):
            assert same_bits(ours, theirs)
    half = np.array(rows, np.float16)
    loss, grad = csoftmax.cross_entropy_with_grad(half, q)
    expected = csoftmax.cross_entropy_with_grad(half.astype(np.float32), np.float32(q))
    assert same_bits(loss, expected[0])
    assert same_bits(grad, expected[1].astype(np.float16))


def test_a_single_row_takes_one_distribution_and_scalar_weights(dtype):
    x = np.array([1, 2, 4], dtype)
    q = np.array([0.25, 0.5, 0.25], dtype)
    options = {"weight": [1.0, 2.0, 0.5], "sample_weight": 3.0, "label_smoothing": 0.1}
    for target, rows in ((1, [1]), (q, q[None])):
        for reduction in REDUCTIONS:
            got = csoftmax.cross_entropy_with_grad(x, target, reduction=reduction, **options)
            expected = csoftmax.cross_entropy_with_grad(
                x[None], rows, reduction=reduction, **(options | {"sample_weight": [3.0]})
            )
            assert np.ndim(got[0]) == 0
            assert got[0] == expected[0]
            assert same_bits(got[1], expected[1][0])
    grads = [
        csoftmax.cross_entropy_with_grad(x, q, reduction="none", grad_output=factor)[1]
        for factor in (1.0, 4.0)
    ]
    assert same_bits(grads[0] * 4, grads[1])


def test_the_arguments_are_not_modified(rng, dtype):
    x = logits_of(rng, (20, 17), dtype)
    given = arguments_of(rng, x.shape, 1, dtype)
    before = {name: array.copy() for name, array in given.items()}
    for array in given.values():
        array.flags.writeable = False
    kept = x.copy()
    results_of(x, given, 1)
    scalars_of(x, given, 1)
    assert same_bits(x, kept)
    assert different(given, before) == []


# ---- out ----


@pytest.mark.parametrize(("shape", "axis"), [*SHAPES, ((20, 5000), 1)])
def test_the_gradient_with_options_may_take_the_place_of_the_logits(rng, dtype, shape, axis):
    x, given = logits_of(rng, shape, dtype), arguments_of(rng, shape, axis, dtype)
    options = {"weight": given["weight"], "sample_weight": given["sample_weight"], "axis": axis}
    for target, eps, reduction in itertools.product(
        (given["target"], given["probabilities"]), (0, 0.1), ("mean", "none")
    ):
        options |= {"label_smoothing": eps, "reduction": reduction, "temperature": 1.7}
        loss, grad = csoftmax.cross_entropy_with_grad(x, target, **options)
        out = np.full_like(x, 7)
        got = csoftmax.cross_entropy_with_grad(x, target, out=out, **options)
        assert got[1] is out
        assert same_bits(got[0], loss)
        assert same_bits(out, grad)
        out = x.copy()
        got = csoftmax.cross_entropy_with_grad(out, target, out=out, **options)
        assert got[1] is out
        assert same_bits(got[0], loss)
        assert same_bits(out, grad)


@pytest.mark.parametrize(("shape", "axis"), [*SHAPES, ((20, 5000), 1)])
def test_the_gradient_may_take_the_place_of_the_probabilities(rng, dtype, shape, axis):
    x, q = logits_of(rng, shape, dtype), probabilities_of(rng, shape, axis, dtype)
    for eps in (0, 0.1):
        options = {"axis": axis, "label_smoothing": eps}
        loss, grad = csoftmax.cross_entropy_with_grad(x, q, **options)
        out = q.copy()
        got = csoftmax.cross_entropy_with_grad(x, out, out=out, **options)
        assert got[1] is out
        assert same_bits(got[0], loss)
        assert same_bits(out, grad)
        memory = np.zeros(q.size + 33, dtype)
        for offset in (1, 16, 33):
            first = memory[: q.size].reshape(shape)
            shifted = memory[offset : offset + q.size].reshape(shape)
            for read, written in ((first, shifted), (shifted, first)):
                read[...] = q
                got = csoftmax.cross_entropy_with_grad(x, read, out=written, **options)
                assert same_bits(got[0], loss)
                assert same_bits(written, grad)


@pytest.mark.parametrize("name", ["weight", "sample_weight", "grad_output"])
def test_the_gradient_may_take_the_place_of_the_weights(rng, name):
    # Of several tiles: what later ones read must not be what earlier ones wrote.
    x, target = rng.standard_normal((300, 40)), rng.integers(0, 40, 300)
    size = 40 if name == "weight" else 300
    for eps, y in itertools.product((0, 0.1), (target, csoftmax.softmax(x[::-1]))):
        options = {"label_smoothing": eps, "reduction": "none"}
        for first in (0, 120, 7000):
            given = x.reshape(-1)[first : first + size].copy()
            expected = csoftmax.cross_entropy_with_grad(x, y, **{name: given}, **options)
            out = x.copy()
            given = out.reshape(-1)[first : first + size]
            got = csoftmax.cross_entropy_with_grad(out, y, out=out, **{name: given}, **options)
            assert same_bits(got[0], expected[0])
            assert same_bits(out, expected[1])


def test_the_gradient_may_take_the_place_of_the_targets(rng):
    x, target = rng.standard_normal((300, 40)), rng.integers(0, 40, 300)
    for options in ({}, {"weight": np.arange(1, 41)}, {"label_smoothing": 0.1}):
        loss, grad = csoftmax.cross_entropy_with_grad(x, target, **options)
        for first in (0, 120, 7000):
            out = np.zeros_like(x)
            view = out.reshape(-1).view(np.int64)[first : first + 300]
            view[:] = target
            got = csoftmax.cross_entropy_with_grad(x, view, out=out, **options)
            assert same_bits(got[0], loss)
            assert same_bits(out, grad)


# ---- The same as others ----


def torchs(x, target, reduction, temperature=1.0, weight=None, **options):
    """Loss and gradient of PyTorch."""
    torch = pytest.importorskip("torch", reason="PyTorch is an optional peer")
    logits = torch.from_numpy(x).requires_grad_()
    if weight is not None:
        options["weight"] = torch.from_numpy(weight)
    loss = torch.nn.functional.cross_entropy(
        logits / temperature, torch.from_numpy(target), reduction=reduction, **options
    )
    loss.sum().backward()
    return loss.detach().numpy(), logits.grad.numpy()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("eps", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["classes", "probabilities"])
def test_float64_losses_and_gradients_equal_those_of_torch(
    rng, kind, weighted, eps, temperature, reduction
):
    x = logits_of(rng, (50, 20, 3), "float64")
    target = targets_of(rng, x.shape, 1)
    if kind == "probabilities":
        target = probabilities_of(rng, x.shape, 1, "float64")
    options = {"weight": rng.uniform(0, 3, 20)} if weighted else {}
    options |= {"label_smoothing": eps, "temperature": temperature, "reduction": reduction}
    loss, grad = torchs(x, target, **options)
    got = csoftmax.cross_entropy_with_grad(x, target, axis=1, **options)
    # PyTorch's x - logsumexp(x) rounds in units of the logits; so does each of the 20 terms of a row.
    unit = 1e-15 * max(1, np.abs(x).max() / temperature) * 3
    n_losses = 150 if reduction == "sum" else 1
    np.testing.assert_allclose(got[0], loss, rtol=1e-15 * 20, atol=unit * n_losses)
    np.testing.assert_allclose(got[1], grad, rtol=0, atol=unit / temperature)


# ---- Arguments that exclude rows or classes ----


@pytest.mark.parametrize("n_classes", [2, 10, 17, 100, 2100])
@pytest.mark.parametrize("eps", [0, 0.1])
def test_ignored_rows_have_no_loss_and_no_gradient_whatever_their_weight(dtype, n_classes, eps):
    x = np.zeros((20, n_classes), dtype)
    x[1, 0], x[2, 1], x[3], x[4] = NAN, np.inf, -np.inf, 1
    target = np.zeros(20, int)
    target[1:5] = -100
    rows = np.ones(20)
    rows[4], rows[3] = NAN, np.inf
    counted = target != -100
    for a, axis in ((x, 1), (np.ascontiguousarray(x.T), 0)):
        for reduction in REDUCTIONS:
            options = {"axis": axis, "reduction": reduction, "label_smoothing": eps}
            if reduction == "none":
                options["grad_output"] = rows
            loss, grad = csoftmax.cross_entropy_with_grad(a, target, sample_weight=rows, **options)
            grad = np.moveaxis(grad, axis, -1)
            assert same_bits(grad[~counted], np.zeros_like(grad[~counted]))
            assert (grad[counted] != 0).all()
            assert np.isfinite(loss).all()
            if reduction == "none":
                assert same_bits(loss[~counted], np.zeros(4, dtype))
                assert (loss[counted] > 0).all()


def test_ignore_index_does_not_apply_to_probabilities(rng, dtype):
    x, q = logits_of(rng, (20, 7), dtype), np.ones((20, 7), dtype)
    for ignore_index in (1, 0, -100, 2**70, None):
        got = csoftmax.cross_entropy(x, q, ignore_index=ignore_index, reduction="none")
        assert same_bits(got, csoftmax.cross_entropy(x, q, reduction="none"))
        assert (got > 0).all()
        # The mean's divisor has a sum of its own.
        mean = csoftmax.cross_entropy(x, q, sample_weight=np.ones(20), ignore_index=ignore_index)
        assert same_bits(mean, csoftmax.cross_entropy(x, q))


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"temperature": 0.7}])
def test_no_rows_that_count_have_a_nan_mean_a_zero_sum_and_no_gradient(dtype, options):
    x = np.ones((3, 4), dtype)
    weights = {"weight": np.arange(4), "sample_weight": np.arange(3)}
    for a, target in (
        (x, [-100] * 3),
        (x[:0], []),
        (x[:0], np.zeros((0, 4), dtype)),
        (x[:, :0], [-100] * 3),
    ):
        given = weights | {"sample_weight": weights["sample_weight"][: len(a)]}
        given["weight"] = given["weight"][: a.shape[1]]
        for some in ({}, given):
            mean, grad = csoftmax.cross_entropy_with_grad(a, target, **options, **some)
            total = csoftmax.cross_entropy(a, target, reduction="sum", **options, **some)
            rows = csoftmax.cross_entropy(a, target, reduction="none", **options, **some)
            assert np.isnan(mean)
            assert same_bits(total, np.zeros((), dtype))
            assert same_bits(rows, np.zeros(len(a), dtype))
            assert same_bits(grad, np.zeros_like(a))


@pytest.mark.parametrize("eps", [0, 0.1])
def test_weights_that_are_all_zero_have_a_nan_mean_a_zero_sum_and_no_gradient(rng, dtype, eps):
    x = logits_of(rng, (20, 7), dtype)
    zeros = {"weight": np.zeros(7), "sample_weight": np.zeros(20)}
    for target in (targets_of(rng, x.shape, -1), probabilities_of(rng, x.shape, -1, dtype)):
        for name in ("weight", "sample_weight"):
            if name == "weight" and target.ndim == 2:
                continue  # the mean over probabilities does not divide by the weights of classes
            options = {name: zeros[name], "label_smoothing": eps}
            mean, grad = csoftmax.cross_entropy_with_grad(x, target, **options)
            assert np.isnan(mean)
            assert_array_equal(grad, 0)
            total, grad = csoftmax.cross_entropy_with_grad(x, target, reduction="sum", **options)
            assert same_bits(total, np.zeros((), dtype))
            assert_array_equal(grad, 0)


def test_rows_of_no_classes_have_no_loss_for_probabilities(dtype):
    x = np.empty((3, 0), dtype)
    for options in ({}, {"label_smoothing": 0.1}, {"weight": [], "sample_weight": [1, 2, 3]}):
        loss, grad = csoftmax.cross_entropy_with_grad(x, x, reduction="none", **options)
        assert same_bits(loss, np.zeros(3, dtype))
        assert same_bits(grad, x)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("row", [[-0.0], [5.0], [0.0, -np.inf], [1e30, -1e30]])
def test_a_loss_with_options_is_never_minus_zero(dtype, row, reduction):
    x = np.array([row] * 20, dtype)
    first, q = np.zeros(20, int), np.zeros_like(x)
    q[:, 0] = 1
    for target in (first, q):
        for options in (
            {},
            {"weight": np.ones(len(row))},
            {"weight": -np.ones(len(row))},
            {"sample_weight": np.full(20, 3.0)},
            {"sample_weight": np.full(20, -3.0)},
            {"temperature": 0.5},
        ):
            loss = csoftmax.cross_entropy(x, target, reduction=reduction, **options)
            assert_array_equal(loss, 0)
            assert not np.signbit(loss).any()
        weightless = {"weight": np.zeros(len(row)), "label_smoothing": 0.1}
        loss = csoftmax.cross_entropy(x, target, reduction="none", **weightless)
        assert same_bits(loss, np.zeros(20, dtype))
        loss = csoftmax.cross_entropy(x, target, reduction="none", sample_weight=np.zeros(20))
        assert same_bits(loss, np.zeros(20, dtype))
