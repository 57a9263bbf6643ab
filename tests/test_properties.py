"""Properties that hold for any shape, dtype and value, found by hypothesis."""

import numpy as np
import reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

import csoftmax

DTYPES = st.sampled_from(["float32", "float64"])


@st.composite
def logits(draw, special=False):
    dtype = draw(DTYPES)
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=20))
    width = 32 if dtype == "float32" else 64
    values = st.floats(width=width, allow_nan=special, allow_infinity=special)
    x = draw(hnp.arrays(dtype, shape, elements=values))
    return x, draw(st.integers(-len(shape), len(shape) - 1))


@given(logits())
def test_finite_logits_never_give_nan(case):
    x, axis = case
    with np.errstate(all="raise"):
        p, log_p, lse = csoftmax.softmax(x, axis), csoftmax.log_softmax(x, axis), csoftmax.logsumexp(x, axis)
    assert not np.isnan(p).any()
    assert not np.isnan(log_p).any()
    assert not np.isnan(lse).any()
    assert (p >= 0).all()
    assert (log_p <= 0).all()
    if x.shape[axis]:
        # n terms within 3.5 units each, of which the sum is one
        bound = (3.5 + 1) * np.finfo(x.dtype).eps * x.shape[axis]
        assert np.abs(p.sum(axis, dtype=np.longdouble) - 1).max(initial=0) <= bound


@given(logits(special=True))
def test_special_values_give_no_warnings_and_rows_do_not_touch_each_other(case):
    x, axis = case
    with np.errstate(all="raise"):
        got = csoftmax.softmax(x, axis)
        csoftmax.log_softmax(x, axis)
        csoftmax.logsumexp(x, axis)
    rows, results = np.moveaxis(x, axis, -1), np.moveaxis(got, axis, -1)
    for index in np.ndindex(rows.shape[:-1]):
        assert_array_equal(results[index], csoftmax.softmax(rows[index].copy()))


@given(logits(special=True))
def test_in_place_is_out_of_place(case):
    x, axis = case
    for function in (csoftmax.softmax, csoftmax.log_softmax):
        expected, out = function(x, axis), x.copy()
        function(out, axis, out=out)
        assert_array_equal(out, expected)


@given(logits(), st.integers(0, 2**32 - 1))
def test_permuted_classes_have_permuted_probabilities(case, seed):
    x, axis = case
    order = np.random.default_rng(seed).permutation(x.shape[axis])
    got = csoftmax.softmax(np.take(x, order, axis), axis)
    want = np.take(csoftmax.softmax(x, axis), order, axis)
    assert reference.ulps(got, want.astype(np.longdouble)) <= 2 * 3.5


@given(logits(special=True), st.data())
def test_loss_is_minus_the_log_probability_and_gradients_sum_to_zero(case, data):
    x, axis = case
    rows = tuple(np.delete(x.shape, axis).tolist())
    if not x.shape[axis]:
        return
    target = data.draw(hnp.arrays(np.int64, rows, elements=st.integers(0, x.shape[axis] - 1)))
    with np.errstate(all="raise"):
        loss, grad = csoftmax.cross_entropy_with_grad(x, target, axis=axis, reduction="none")
    log_p = csoftmax.log_softmax(x, axis)
    index = np.expand_dims(target, axis)
    want = -np.take_along_axis(log_p, index, axis).squeeze(axis)
    assert reference.ulps(loss, want.astype(np.longdouble)) <= 2 * 3
    assert not np.signbit(loss[~np.isnan(loss)]).any()
    sums = np.abs(grad.sum(axis, dtype=np.longdouble))
    assert (sums[~np.isnan(sums)] <= 5 * np.finfo(x.dtype).eps * x.shape[axis]).all()
