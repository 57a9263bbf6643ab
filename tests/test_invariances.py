"""What stays when logits are shifted, permuted or computed in place, found by hypothesis."""

import numpy as np
import reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import BOUNDS, same_bits

import csoftmax

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
