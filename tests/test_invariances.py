"""What stays when logits are shifted, permuted or computed in place, found by hypothesis."""

import numpy as np
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import csoftmax
from support import reference
from support.bits import same_bits
from support.reference import BOUNDS

settings.register_profile("invariances", derandomize=True, deadline=None, max_examples=100)
INVARIANCES = settings.get_profile("invariances")
DTYPES = st.sampled_from(["float32", "float64"])
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=18)


@st.composite
def cases(draw, values=None):
    """An array, an axis, and targets of which some are ignored."""
    dtype, shape = draw(DTYPES), draw(SHAPES)
    if values is None:
        values = st.floats(width=32 if dtype == "float32" else 64)
    x = draw(hnp.arrays(dtype, shape, elements=values))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    rows = tuple(np.delete(shape, axis).tolist())
    classes = st.integers(0, max(0, shape[axis] - 1)) if shape[axis] else st.just(-100)
    target = draw(hnp.arrays(np.int64, rows, elements=st.one_of(classes, st.just(-100))))
    return x, axis, target


@st.composite
def cases_with_options(draw, values=None, weights=None):
    """A case, and some options of the losses; targets are classes or probabilities."""
    x, axis, target = draw(cases(values))
    if weights is None:
        weights = st.floats(0, 8, width=32)
    options = {"axis": axis, "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0]))}
    options["temperature"] = draw(st.sampled_from([1.0, 0.5, 3.3]))
    if draw(st.booleans()):
        options["weight"] = draw(hnp.arrays(np.float64, x.shape[axis], elements=weights))
    if draw(st.booleans()):
        options["sample_weight"] = draw(hnp.arrays(np.float64, target.shape, elements=weights))
    if draw(st.booleans()):
        target = draw(hnp.arrays(x.dtype, x.shape, elements=st.floats(0, 1, width=32)))
    return x, target, options


INTEGERS = st.integers(-500, 500)
MODERATE = st.floats(-60, 60, width=32)  # no result is subnormal


@INVARIANCES
@given(cases(INTEGERS), st.integers(-(2**20), 2**20))
def test_adding_an_exact_constant_changes_nothing_but_roundings(case, constant):
    x, axis, target = case
    shifted = x + x.dtype.type(constant)
    assume((shifted - x.dtype.type(constant) == x).all())
    pairs = {
        "softmax": [csoftmax.softmax(a, axis) for a in (shifted, x)],
        "log_softmax": [csoftmax.log_softmax(a, axis) for a in (shifted, x)],
        "gradient": [
            csoftmax.cross_entropy_with_grad(a, target, axis=axis, reduction="sum")[1]
            for a in (shifted, x)
        ],
    }
    for name, (got, expected) in pairs.items():
        if name != "log_softmax" and x.shape[axis] <= 8:  # terms refer to the maximum itself
            assert same_bits(got, expected)
        # Both are within the bound of one exact value: at most twice it, and a change of binade.
        bound = 2 * 2 * BOUNDS[name, str(x.dtype)]
        assert reference.ulps(got, expected.astype(np.longdouble)) <= bound


@INVARIANCES
@given(cases(MODERATE))
def test_probabilities_sum_to_one(case):
    x, axis, _ = case
    assume(x.shape[axis])
    total = csoftmax.softmax(x, axis).astype(np.longdouble).sum(axis)
    # Each is within its bound, relative to itself; so is their sum, relative to one.
    bound = BOUNDS["softmax", str(x.dtype)] * np.finfo(x.dtype).eps
    assert (np.abs(total - 1) <= bound).all()


@INVARIANCES
@given(cases(MODERATE))
def test_gradients_of_a_row_sum_to_zero(case):
    x, axis, target = case
    _, grad = csoftmax.cross_entropy_with_grad(x, target, axis=axis, reduction="sum")
    grad = grad.astype(np.longdouble)
    # Each entry is within its bound; so is the sum, in units of the sum of magnitudes.
    info = np.finfo(x.dtype)
    bound = BOUNDS["gradient", str(x.dtype)] * (
        info.eps * np.abs(grad).sum(axis) + x.shape[axis] * info.smallest_subnormal
    )
    assert (np.abs(grad.sum(axis)) <= bound).all()


@INVARIANCES
@given(cases(MODERATE), st.integers(0, 2**32 - 1))
def test_permuted_classes_have_permuted_results(case, seed):
    x, axis, _ = case
    order = np.random.default_rng(seed).permutation(x.shape[axis])
    for function in (csoftmax.softmax, csoftmax.log_softmax):
        got = function(np.take(x, order, axis), axis)
        want = np.take(function(x, axis), order, axis)
        # Both are within the bound of one exact value: at most twice it, and a change of binade.
        bound = 2 * 2 * BOUNDS[function.__name__, str(x.dtype)]
        assert reference.ulps(got, want.astype(np.longdouble)) <= bound


@INVARIANCES
@given(cases())
def test_in_place_is_out_of_place_bit_for_bit(case):
    x, axis, target = case
    for write in (
        lambda a, out: csoftmax.softmax(a, axis, out=out),
        lambda a, out: csoftmax.log_softmax(a, axis, out=out),
        lambda a, out: csoftmax.cross_entropy_with_grad(a, target, axis=axis, out=out)[1],
    ):
        expected, view = write(x, None), x.copy()
        assert write(view, view) is view
        assert same_bits(np.nan_to_num(view), np.nan_to_num(expected))
        assert (np.isnan(view) == np.isnan(expected)).all()


@INVARIANCES
@given(cases_with_options())
def test_in_place_is_out_of_place_with_options_too(case):
    x, target, options = case
    view, options = x.copy(), options | {"reduction": "none"}
    loss, grad = csoftmax.cross_entropy_with_grad(x, target, **options)
    got = csoftmax.cross_entropy_with_grad(view, target, out=view, **options)
    assert got[1] is view
    for ours, expected in ((got[0], loss), (view, grad)):
        assert same_bits(np.nan_to_num(ours), np.nan_to_num(expected))
        assert (np.isnan(ours) == np.isnan(expected)).all()


@INVARIANCES
@given(cases_with_options(MODERATE))
def test_losses_and_gradients_with_options_are_as_defined(case):
    x, target, options = case
    assume(x.shape[options["axis"]])
    dtype = str(x.dtype)
    loss, grad = csoftmax.cross_entropy_with_grad(x, target, reduction="none", **options)
    exact_loss, exact_grad = reference.cross_entropy(x, target, **options)
    scale = reference.gradient_scale(x, target, **options)
    assert reference.ulps(loss, exact_loss) <= BOUNDS["smoothed loss", dtype]
    assert reference.ulps(grad, exact_grad, scale) <= BOUNDS["smoothed gradient", dtype] + 1


@INVARIANCES
@given(cases_with_options(MODERATE))
def test_gradients_with_options_sum_to_zero_in_a_row(case):
    x, target, options = case
    axis = options["axis"]
    assume(x.shape[axis])
    _, grad = csoftmax.cross_entropy_with_grad(x, target, reduction="sum", **options)
    # Each entry is within its bound, in units of its larger part; so is the sum, of their sum.
    info = np.finfo(x.dtype)
    size = reference.gradient_scale(x, target, **options).sum(axis)
    bound = (BOUNDS["smoothed gradient", str(x.dtype)] + 1) * (
        info.eps * size + x.shape[axis] * info.smallest_subnormal
    )
    assert (np.abs(grad.astype(np.longdouble).sum(axis)) <= bound).all()


@INVARIANCES
@given(cases(MODERATE), st.integers(0, 2**32 - 1), st.integers(-(2**10), 2**10))
def test_what_all_gradients_of_probabilities_have_in_common_changes_no_more_than_the_bound(
    case, seed, constant
):
    x, axis, _ = case
    assume(x.size)
    grad = np.random.default_rng(seed).integers(-500, 500, x.shape).astype(x.dtype)
    y = csoftmax.softmax(x, axis)
    _, size = reference.softmax_backward(grad, y, axis)
    got = csoftmax.softmax_backward(grad + x.dtype.type(constant), y, axis)
    expected = csoftmax.softmax_backward(grad, y, axis)
    bound = 2 * BOUNDS["softmax_backward", x.dtype.name]
    assert reference.ulps(got, expected.astype(np.longdouble), size) <= bound


@INVARIANCES
@given(cases(MODERATE), st.integers(0, 2**32 - 1))
def test_backward_gradients_sum_to_zero_in_a_row(case, seed):
    x, axis, _ = case
    assume(x.shape[axis])
    grad = np.random.default_rng(seed).standard_normal(x.shape).astype(x.dtype)
    info = np.finfo(x.dtype)
    for name in ("softmax", "log_softmax"):
        output = getattr(csoftmax, name)(x, axis)
        got = getattr(csoftmax, name + "_backward")(grad, output, axis).astype(np.longdouble)
        _, size = getattr(reference, name + "_backward")(grad, output, axis)
        # The output's own error, relative to itself or to at most 120 (log p), is one of the sum too.
        bound = BOUNDS[name + "_backward", str(x.dtype)] + BOUNDS[name, str(x.dtype)]
        bound *= 1 if name == "softmax" else 120
        bound *= info.eps * size.sum(axis) + x.shape[axis] * info.smallest_subnormal
        assert (np.abs(got.sum(axis)) <= bound).all()


@INVARIANCES
@given(cases_with_options(weights=st.floats(0, allow_infinity=False)))
@example(  # 1e39 is no float32
    (
        np.zeros(1, np.float32),
        np.array(0),
        {"axis": 0, "weight": np.array([1e40]), "label_smoothing": 0.1, "temperature": 1.0},
    )
)
def test_no_option_raises_a_warning_or_a_floating_point_error(case):
    x, target, options = case
    axis = options["axis"]
    given = options.get("sample_weight")
    with np.errstate(all="raise"):
        for dtype in (x.dtype, np.float16):
            with np.errstate(all="ignore"):
                a = x.astype(dtype)
                wide = target.astype(np.float64) if target.dtype.kind == "f" else target
            for reduction in ("mean", "sum", "none"):
                factor = given if reduction == "none" else 1e-300
                csoftmax.cross_entropy(a, target, reduction=reduction, **options)
                csoftmax.cross_entropy_with_grad(
                    a, wide, reduction=reduction, grad_output=factor, **options
                )
            for function in (csoftmax.softmax, csoftmax.log_softmax, csoftmax.logsumexp):
                function(a, axis, temperature=options["temperature"])
            csoftmax.softmax_backward(a, a, axis)
            csoftmax.log_softmax_backward(a, a, axis)
            rows = np.delete(a.shape, axis)
            if a.shape[axis]:
                csoftmax.log_prob(a, np.zeros(rows, int), axis=axis)


def test_conversions_raise_no_floating_point_error_either():
    x, tiny = np.zeros((3, 2), np.float32), np.finfo(np.longdouble).tiny
    with np.errstate(all="raise"):
        for q in (np.full((3, 2), 1e-50), np.full((3, 2), 1e300)):
            csoftmax.cross_entropy_with_grad(x, q)
        for value in (tiny, np.finfo(np.longdouble).max):
            csoftmax.cross_entropy(x, [0, 1, 0], weight=[value, 1])
            csoftmax.cross_entropy(x, [0, 1, 0], sample_weight=[value, 1, 1])
        for value in (1e-200, 1e200):
            for reduction, factor in (("none", np.full(3, value)), ("sum", value)):
                csoftmax.cross_entropy_with_grad(
                    x,
                    [0, 1, 0],
                    sample_weight=np.full(3, value),
                    grad_output=factor,
                    reduction=reduction,
                )
        csoftmax.softmax_backward(np.full((3, 2), 1e300), np.float16([[0.5, 0.5]] * 3))


@INVARIANCES
@given(cases())
def test_no_value_raises_a_warning_or_a_floating_point_error(case):
    x, axis, target = case
    with np.errstate(all="raise"):
        for dtype in (x.dtype, np.float16):
            with np.errstate(all="ignore"):
                a = x.astype(dtype)
            csoftmax.softmax(a, axis)
            csoftmax.log_softmax(a, axis)
            csoftmax.logsumexp(a, axis)
            for reduction in ("mean", "sum", "none"):
                csoftmax.cross_entropy(a, target, axis=axis, reduction=reduction)
                csoftmax.cross_entropy_with_grad(a, target, axis=axis, reduction=reduction)


@INVARIANCES
@given(cases(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_finite_logits_never_give_nan_in_a_loss_or_a_gradient(case):
    x, axis, target = case
    loss, grad = csoftmax.cross_entropy_with_grad(x, target, axis=axis, reduction="none")
    assert not np.isnan(loss).any()
    assert not np.isnan(grad).any()
    assert not np.signbit(loss).any()
    assert (np.abs(grad) <= 1).all()


@INVARIANCES
@given(cases_with_options(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_finite_logits_never_give_nan_with_options_either(case):
    x, target, options = case
    loss, grad = csoftmax.cross_entropy_with_grad(x, target, reduction="none", **options)
    assert not np.isnan(loss).any()
    assert not np.isnan(grad).any()
    assert not np.signbit(loss).any()
