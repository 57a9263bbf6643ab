"""csoftmax.functional: PyTorch's arguments, the classes along axis 1."""

import doctest
import inspect
import itertools

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import csoftmax
from csoftmax import functional, special
from support.bits import same_bits
from support.cases import logits_of

ELEMENTWISE = ["softmax", "log_softmax"]
LOSSES = ["cross_entropy", "nll_loss"]
SHAPES = [(5,), (3, 5), (3, 5, 2), (3, 5, 2, 4), (2, 5, 1, 3, 2)]


def class_axis(shape):
    return 0 if len(shape) == 1 else 1


def rows_of(shape):
    return tuple(np.delete(shape, class_axis(shape)).tolist())


def torch_functional():
    return pytest.importorskip("torch", reason="PyTorch is an optional peer").nn.functional


def test_every_example_in_the_docstrings_gives_what_it_shows():
    failed, attempted = doctest.testmod(functional)
    assert attempted > 0
    assert failed == 0


@pytest.mark.parametrize("name", [*ELEMENTWISE, *LOSSES])
def test_names_order_and_defaults_of_the_arguments_are_those_of_pytorch(name):
    theirs = inspect.signature(getattr(torch_functional(), name)).parameters.values()
    ours = inspect.signature(getattr(functional, name)).parameters.values()
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_dim_is_the_axis(rng, dtype, name, shape):
    x = logits_of(rng, shape, dtype)
    for dim in range(-len(shape), len(shape)):
        assert same_bits(getattr(functional, name)(x, dim), getattr(csoftmax, name)(x, dim))


@pytest.mark.parametrize("n_dims", range(6))
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_dim_left_out_follows_pytorchs_rule_and_warns(rng, name, n_dims):
    x = logits_of(rng, (2,) * n_dims, "float32")
    text = f"Implicit dimension choice for {name} has been deprecated"
    with pytest.warns(UserWarning, match=text) as caught:
        got = getattr(functional, name)(x)
    assert caught[0].filename == __file__
    assert same_bits(got, getattr(csoftmax, name)(x, 0 if n_dims in (0, 1, 3) else 1))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_dtype_converts_the_input_first(rng, name):
    function, plain = getattr(functional, name), getattr(csoftmax, name)
    x = logits_of(rng, (3, 4), "float64")
    for dtype in (np.float16, np.float32, np.float64, "float32", ">f4"):
        native = np.dtype(dtype).type
        assert same_bits(function(x, 1, dtype=dtype), plain(x.astype(native), 1))
    assert same_bits(function(np.longdouble(x), 1, dtype=np.float64), plain(x, 1))
    assert function([[1, 2]], 1, dtype=np.float32).dtype == np.float32
    assert np.isnan(function([1e300, 0.0], 0, dtype=np.float32)).all()  # 1e300 becomes +inf
    assert function([1, 2], 0).dtype == np.float64
    assert function(np.float16([1, 2]), 0).dtype == np.float16


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_dtype_converts_numbers_of_ml_dtypes_too(rng, name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for kind in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4):
        x = rng.uniform(-4, 4, (3, 4)).astype(kind)
        for dtype in (np.float32, np.float64):
            got = getattr(functional, name)(x, 1, dtype=dtype)
            assert same_bits(got, getattr(csoftmax, name)(x.astype(dtype), 1))


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("dtype", [np.int64, np.complex128, np.longdouble, "nonsense", 3, str])
def test_dtype_must_be_one_that_has_a_kernel(name, dtype):
    text = rf"functional\.{name}\(\) needs a dtype of numpy\.float16, float32 or float64"
    with pytest.raises(TypeError, match=text):
        getattr(functional, name)([1.0, 2.0], 0, dtype=dtype)


def test_logsumexp_reduces_one_axis_or_several(rng, dtype):
    x = logits_of(rng, (2, 3, 4), dtype)
    for keepdim in (False, True):
        for dim in range(-3, 3):
            expected = csoftmax.logsumexp(x, dim, keepdims=keepdim)
            assert same_bits(functional.logsumexp(x, dim, keepdim), expected)
            assert same_bits(functional.logsumexp(x, (dim,), keepdim), expected)
        for dims in itertools.permutations(range(3), 2):
            expected = special.logsumexp(x, dims, keepdims=keepdim)
            assert same_bits(functional.logsumexp(x, dims, keepdim), expected)
            assert same_bits(functional.logsumexp(x, list(dims), keepdim), expected)
    assert type(functional.logsumexp(x, (0, 1, 2))) is x.dtype.type
    for dim in (0, -1, (0,), ()):  # PyTorch's scalar keeps its no dimensions
        assert same_bits(functional.logsumexp(x[0, 0, 0], dim, keepdim=True), x[0, 0, 0])


def test_logsumexp_of_float16_is_float32():
    assert functional.logsumexp(np.float16([1, 2]), 0).dtype == np.float32


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy_has_its_classes_along_axis_1(rng, dtype, shape, reduction):
    x = logits_of(rng, shape, dtype)
    axis, weight = class_axis(shape), rng.uniform(0, 2, 5)
    target = rng.integers(0, 5, rows_of(shape))
    probabilities = csoftmax.softmax(logits_of(rng, shape, dtype), axis)
    for options in ({}, {"weight": weight, "ignore_index": 2, "label_smoothing": 0.1}):
        for y in (target, probabilities):
            if y is probabilities:
                options = options | {"ignore_index": -2}  # of the others there are none
            got = functional.cross_entropy(x, y, reduction=reduction, **options)
            expected = csoftmax.cross_entropy(x, y, axis=axis, reduction=reduction, **options)
            assert same_bits(got, expected)
    got = functional.cross_entropy(x, target, weight, None, 2, None, reduction, 0.1)
    assert same_bits(
        got,
        csoftmax.cross_entropy(
            x,
            target,
            axis=axis,
            weight=weight,
            ignore_index=2,
            reduction=reduction,
            label_smoothing=0.1,
        ),
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ignore_index", [-100, 2, None])
@pytest.mark.parametrize("weighted", [False, True])
def test_nll_loss_takes_minus_the_log_probability_of_the_target(
    rng, dtype, shape, ignore_index, weighted
):
    """The law: a product or negation rounds once; sums and means of up to 100 losses are float64's, rounded once."""
    axis, rows = class_axis(shape), rows_of(shape)
    log_p = csoftmax.log_softmax(logits_of(rng, shape, dtype), axis)
    target = rng.integers(0, 5, rows)
    weight = rng.uniform(0, 2, 5) if weighted else None
    each = (np.ones(5) if weight is None else weight)[target]
    each = np.where(target == ignore_index, 0, each) if ignore_index is not None else each
    at_target = np.take_along_axis(log_p, np.expand_dims(target, axis), axis).squeeze(axis)
    losses = -at_target.astype(np.float64) * each
    for reduction, expected in [
        ("none", losses),
        ("sum", losses.sum()),
        ("mean", losses.sum() / each.sum() if each.sum() else np.nan),
    ]:
        got = functional.nll_loss(
            log_p, target, weight, ignore_index=ignore_index, reduction=reduction
        )
        assert got.dtype == dtype
        assert np.shape(got) == np.shape(expected)
        np.testing.assert_allclose(got, expected, rtol=2 * np.finfo(dtype).eps, atol=0)
        assert not np.signbit(got).any()


def test_nll_loss_of_log_softmax_is_cross_entropy(rng, dtype):
    """The law: log_softmax rounds each loss as cross_entropy does; two units cover sums in another order."""
    x, target = logits_of(rng, (30, 7), dtype), rng.integers(0, 7, 30)
    for reduction in ("mean", "sum", "none"):
        np.testing.assert_allclose(
            functional.nll_loss(functional.log_softmax(x, 1), target, reduction=reduction),
            functional.cross_entropy(x, target, reduction=reduction),
            rtol=4 * np.finfo(dtype).eps,
        )


def test_nll_loss_takes_any_number_not_only_log_probabilities():
    x = np.float64([[1.5, -2], [np.inf, 3], [np.nan, 4]])
    got = functional.nll_loss(x, [0, 1, 1], reduction="none")
    assert_array_equal(got, [-1.5, -3, -4])
    assert functional.nll_loss(x, [0, 1, 1]) == -8.5 / 3
    got = functional.nll_loss([[-np.inf, 0], [0, -1]], [0, 1], weight=[0, 1], reduction="none")
    assert_array_equal(got, [0, 1])  # 0 * inf is 0 here


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_float16_and_of_integers_are_float32_and_float64(name):
    loss = getattr(functional, name)
    for kind, expected in (("float16", np.float32), ("int8", np.float64), ("bool", np.float64)):
        x = np.array([[1, 0], [0, 1]], kind)
        for reduction in ("mean", "sum", "none"):
            assert loss(x, [0, 1], reduction=reduction).dtype == expected


@pytest.mark.parametrize("name", LOSSES)
def test_no_rows_and_ignored_rows_give_a_mean_of_nan_and_a_sum_of_zero(name):
    loss = getattr(functional, name)
    for x, target in ((np.zeros((0, 3)), []), (np.zeros((2, 3)), [-100, -100])):
        assert np.isnan(loss(x, target))
        assert same_bits(loss(x, target, reduction="sum"), np.float64(0))
        assert_array_equal(loss(x, target, reduction="none"), np.zeros(len(x)))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size_average", [None, True, False])
@pytest.mark.parametrize("reduce", [None, True, False])
def test_the_older_names_override_reduction_and_warn(rng, name, size_average, reduce):
    loss = getattr(functional, name)
    x, target = -rng.random((4, 3)), [0, 1, 2, 1]
    if size_average is None and reduce is None:
        assert loss(x, target, size_average=None, reduce=None) == loss(x, target)
        return
    meant = "none" if reduce is False else "sum" if size_average is False else "mean"
    with pytest.warns(UserWarning, match=f"please use reduction='{meant}' instead") as caught:
        got = loss(x, target, size_average=size_average, reduce=reduce, reduction="sum")
    assert caught[0].filename == __file__
    assert same_bits(got, loss(x, target, reduction=meant))


@pytest.mark.parametrize("name", LOSSES)
def test_targets_that_are_no_classes_are_errors_with_their_position(name):
    with pytest.raises(IndexError, match=r"target 3 at position 1 is not a class: 3 classes"):
        getattr(functional, name)(np.zeros((2, 3)), [0, 3])
    with pytest.raises(IndexError, match=r"target -1 is not a class"):
        getattr(functional, name)(np.zeros(3), -1)


@pytest.mark.parametrize("name", LOSSES)
def test_wrong_arguments_of_the_losses_are_errors(name):
    loss, x = getattr(functional, name), np.zeros((2, 3))
    with pytest.raises(
        ValueError, match=r"needs a reduction of 'mean', 'sum' or 'none', got 'average'"
    ):
        loss(x, [0, 1], reduction="average")
    with pytest.raises(ValueError, match=r"one target per row"):
        loss(x, [0, 1, 2])
    with pytest.raises(ValueError, match=r"one weight per class.*\(3,\), got \(2,\)"):
        loss(x, [0, 1], weight=[1, 2])
    with pytest.raises(TypeError, match=r"integer"):
        loss(x, [0.0, 1.0])
    with pytest.raises(TypeError, match=r"bool"):
        loss(x, [False, True])
    with pytest.raises(TypeError, match=r"needs float32 or float64, got complex128"):
        loss(x.astype(complex), [0, 1])
    with pytest.raises(ValueError, match=r"at least one dimension"):
        loss(1.0, 0)
    with pytest.raises(ValueError, match=rf"functional\.{name}\(\) .*ragged list"):
        loss([[1.0], [1.0, 2.0]], [0, 0])


@pytest.mark.parametrize("rows", [(), (2,), (2, 3), (0,)])
@pytest.mark.parametrize("weight", [None, np.zeros(0)])
@pytest.mark.parametrize("name", LOSSES)
def test_rows_without_classes_are_ignored_or_have_no_target(name, rows, weight):
    loss, x = getattr(functional, name), np.zeros((*rows[:1], 0, *rows[1:]))
    target = np.full(rows, -100)
    assert np.isnan(loss(x, target, weight))
    assert same_bits(loss(x, target, weight, reduction="sum"), np.float64(0))
    assert_array_equal(loss(x, target, weight, reduction="none"), np.zeros(rows))
    if target.size:
        with pytest.raises(IndexError, match=rf"functional\.{name}\(\) target 0.*no classes"):
            loss(x, target * 0, weight)


@pytest.mark.parametrize("n_dims", [31, 32, 33, 63, 64])  # around what NumPy's indexing takes
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_take_every_number_of_dimensions(rng, name, n_dims, order):
    loss = getattr(functional, name)
    shape = (3, 4, *(1,) * (n_dims - 3), 2)
    x = np.asarray(rng.standard_normal(shape), order=order)
    target, weight = rng.integers(0, 4, (*shape[:1], *shape[2:])), rng.uniform(0, 1, 4)
    for reduction in ("mean", "sum", "none"):
        for options in ({}, {"weight": weight}, {"ignore_index": 2}):
            got = loss(x, target, reduction=reduction, **options)
            few = loss(x.reshape(3, 4, 2), target.reshape(3, 2), reduction=reduction, **options)
            assert np.shape(got) == (target.shape if reduction == "none" else ())
            assert same_bits(np.reshape(got, np.shape(few)), few)


def test_nll_loss_takes_no_class_probabilities():
    with pytest.raises(TypeError, match="class indices"):
        functional.nll_loss(np.zeros((2, 3)), np.full((2, 3), 1 / 3))


def test_wrong_axes_are_errors_that_name_the_function():
    x = np.zeros((2, 3))
    with pytest.raises(
        TypeError, match=r"functional\.logsumexp\(\) needs an integer dim, got None"
    ):
        functional.logsumexp(x, None)
    with pytest.raises(ValueError, match=r"functional\.logsumexp\(\) needs axes that differ"):
        functional.logsumexp(x, (0, -2))
    with pytest.raises(
        np.exceptions.AxisError, match=r"functional\.logsumexp\(\) needs a dim from -2 to 1"
    ):
        functional.logsumexp(x, (0, 2))
    with pytest.raises(
        TypeError,
        match=r"functional\.logsumexp\(\) needs real numbers, got complex128: torch\.logsumexp takes complex ones",
    ):
        functional.logsumexp(x.astype(complex), 0)
    for name in ELEMENTWISE:
        with pytest.raises(
            np.exceptions.AxisError, match=rf"{name}\(\) needs a dim from -2 to 1, got 2"
        ):
            getattr(functional, name)(x, 2)
        with pytest.raises(TypeError, match=rf"{name}\(\) needs an integer dim"):
            getattr(functional, name)(x, (0, 1))


@pytest.mark.parametrize("n_dims", range(1, 5))
def test_float64_results_equal_those_of_torch_to_1e_14(rng, n_dims):
    """The law: PyTorch's differences to the maximum err by units of 1.1e-16 of at most 50."""
    torch = pytest.importorskip("torch", reason="PyTorch is an optional peer")
    theirs = torch.nn.functional
    shape = SHAPES[n_dims - 1]
    x, target = logits_of(rng, shape, "float64"), rng.integers(0, 5, rows_of(shape))
    tensor, classes = torch.from_numpy(x), torch.from_numpy(np.asarray(target))
    weight = rng.uniform(0.1, 2, 5)
    near = {"rtol": 1e-14, "atol": 1e-14}
    for dim in range(n_dims):
        np.testing.assert_allclose(functional.softmax(x, dim), theirs.softmax(tensor, dim), **near)
        ours = functional.log_softmax(x, dim)
        np.testing.assert_allclose(ours, theirs.log_softmax(tensor, dim), **near)
        ours = functional.logsumexp(x, dim)
        np.testing.assert_allclose(ours, torch.logsumexp(tensor, dim), **near)
    dims = tuple(range(n_dims))
    np.testing.assert_allclose(functional.logsumexp(x, dims), torch.logsumexp(tensor, dims), **near)
    for name, reduction in itertools.product(LOSSES, ("mean", "sum", "none")):
        options = {"ignore_index": 1, "reduction": reduction}
        ours = getattr(functional, name)(x, target, weight, **options)
        expected = getattr(theirs, name)(tensor, classes, torch.from_numpy(weight), **options)
        np.testing.assert_allclose(ours, expected, **near)
