"""Every component against the definitions at 200 bits (mpmath), in units of the last place."""

import csv
from pathlib import Path

import mpmath
import numpy as np
import pytest
from mpmath import mp

import csoftmax
from support import reference
from support.reference import BOUNDS

WORST = (Path(__file__).parent / "worst_cases.csv").read_text().splitlines()
DISTANCES = ("softmax", "log_softmax", "logsumexp", "loss", "gradient")


def exact_row(row, target):
    """softmax, log_softmax, logsumexp, loss and gradient of a row, as lists of mpf."""
    x = [mp.mpf(float(v)) for v in row]
    k = max(range(len(x)), key=x.__getitem__)
    # Beyond -100000 a term is less than 2**-144000: nothing beside 1, and 0 in either dtype.
    e = [mp.exp(v - x[k]) if v - x[k] > -100_000 else mp.zero for v in x]
    others = mp.fsum(e[:k] + e[k + 1 :])
    total = 1 + others
    # log1p's series starts s - s**2 / 2: below 2**-110, its second term is no part of 110 bits.
    log = mp.log(total) if others > mp.mpf(2) ** -110 else others
    log_p = [(v - x[k]) - log for v in x]
    gradient = [v / total for v in e]
    gradient[target] = -mp.fsum(e[:target] + e[target + 1 :]) / total
    return [v / total for v in e], log_p, [x[k] + log], [-log_p[target]], gradient, abs(x[k])


def worst(got, exact, dtype, scale=0):
    """Largest distance in units of the last place of the exact value rounded to the dtype."""
    largest = 0.0
    for value, want in zip(np.ravel(got), exact, strict=True):
        size = max(abs(want), scale)
        with np.errstate(over="ignore"):
            rounded = np.dtype(dtype).type(float(want))
            unit = float(np.spacing(np.dtype(dtype).type(float(size))))
        if np.isinf(rounded):  # the exact value overflows the dtype
            distance = 0.0 if value == rounded else np.inf
        elif not np.isfinite(value):
            distance = np.inf
        else:
            distance = float(abs(mp.mpf(float(value)) - want) / unit)
        largest = max(largest, distance)
    return largest


def distances(x):
    """Worst distance of each result over the rows of x; targets run through the classes."""
    target = np.arange(len(x)) * 7 % x.shape[1]
    target[::3] = x[::3].argmax(1)  # the smallest losses
    loss, grad = csoftmax.cross_entropy_with_grad(x, target, reduction="none")
    p, log_p, lse = csoftmax.softmax(x), csoftmax.log_softmax(x), csoftmax.logsumexp(x)
    result = dict.fromkeys(DISTANCES, 0.0)
    with mpmath.workprec(200):
        for i, row in enumerate(x):
            *exact, scale = exact_row(row, target[i])
            values = (p[i], log_p[i], lse[i], loss[i], grad[i])
            for name, got, want in zip(DISTANCES, values, exact, strict=True):
                of = worst(got, want, x.dtype, scale if name == "logsumexp" else 0)
                result[name] = max(result[name], of)
    return result


def check(x):
    dtype = str(x.dtype)
    found = distances(x)
    bounds = {name: BOUNDS["log_softmax" if name == "loss" else name, dtype] for name in DISTANCES}
    assert {name: found[name] for name in found if not found[name] <= bounds[name]} == {}


@pytest.mark.parametrize("n_classes", [1, 2, 3, 16, 17, 64, 100, 129, 300])
@pytest.mark.parametrize("sigma", [1, 10, 30])
def test_normal_logits_are_within_the_bounds(rng, dtype, sigma, n_classes):
    check((sigma * rng.standard_normal((3, n_classes))).astype(dtype))


@pytest.mark.parametrize("n_classes", [2, 3, 16, 17, 100])
@pytest.mark.parametrize("lead", [5, 20, 40, 80])
def test_confident_rows_are_within_the_bounds(rng, dtype, lead, n_classes):
    x = rng.standard_normal((4, n_classes)).astype(dtype)
    x[np.arange(4), np.arange(4) % n_classes] += lead
    check(x)


@pytest.mark.parametrize("n_classes", [2, 3, 15, 40])
def test_subnormal_results_are_within_the_bounds(rng, dtype, n_classes):
    low, high = (87, 105) if dtype == "float32" else (708, 748)
    x = -rng.uniform(low, high, (6, n_classes)).astype(dtype)
    x[:, n_classes // 2] = 0
    check(x)


@pytest.mark.parametrize("n_classes", [1, 2, 3, 16, 17, 64])
def test_the_largest_numbers_are_within_the_bounds(rng, dtype, n_classes):
    largest = np.finfo(dtype).max
    x = rng.choice(np.array([largest, -largest, 1, 0], dtype), (6, n_classes))
    check(x)
    check(np.full((2, n_classes), largest))
    check(np.full((2, n_classes), -largest))


def test_rows_around_3e38_are_within_the_bounds():
    check(np.float32([[3e38, -3e38], [-3e38, 3e38], [3e38, 3e38], [-3e38, -3e38], [3e38, 0]]))


@pytest.mark.parametrize("n_classes", [1, 2, 3, 7, 16, 17, 33, 100, 255])
@pytest.mark.parametrize("value", [0.0, 0.3, -77.7, 1e30])
def test_rows_of_equal_logits_are_within_the_bounds(dtype, value, n_classes):
    check(np.full((1, n_classes), value, dtype))


def test_tiny_logits_are_within_the_bounds(dtype):
    check(np.array([[1e-40, -1e-40, 0], [1e-20, 1e-30, -1e-7], [1e-45, 0, 0]], dtype))


def test_two_classes_are_within_the_bounds_for_every_difference(dtype):
    difference = np.concatenate([np.logspace(-10, 2, 120), np.linspace(0.1, 2, 40)])
    zero = np.zeros_like(difference)
    for pair in ((zero, -difference), (difference, zero), (-difference, zero)):
        check(np.stack(pair, 1).astype(dtype))


def test_where_maximum_and_logarithm_cancel_the_error_is_one_of_the_maximum(dtype):
    # exp(-log(n) + d) n times sums to exp(d): logsumexp is almost zero.
    for n_classes in (2, 10, 100):
        value = -np.log(n_classes) + np.array([-1e-3, -1e-6, 0, 1e-6, 1e-3])
        check(np.repeat(value[:, None], n_classes, 1).astype(dtype))


@pytest.mark.parametrize("case", list(csv.DictReader(WORST)), ids=lambda case: case["function"])
def test_the_worst_cases_that_were_found_stay_within_the_bounds(case):
    check(np.array([[float.fromhex(v) for v in case["logits"].split()]], case["dtype"]))


@pytest.mark.parametrize("n_classes", [2, 8, 9, 16, 17, 40])
@pytest.mark.parametrize("top", [0.0, 0.7, -3.3, 260.0, -270.0, 2100.0, -2300.0])
def test_exp_is_within_its_bound_over_its_whole_range(dtype, top, n_classes):
    """Differences from 0 to where probabilities vanish; around the origins of the terms' references."""
    difference = np.linspace(0, 105 if dtype == "float32" else 746, 20_001)
    x = np.full((len(difference), n_classes), -np.inf, dtype)
    x[:, 0], x[:, -1] = top, top - difference
    bound = BOUNDS["softmax", dtype]
    assert reference.ulps(csoftmax.softmax(x), reference.softmax(x)) <= bound


@pytest.mark.parametrize("n_classes", [2, 9, 40])
def test_log_is_within_its_bound_over_its_whole_range(dtype, n_classes):
    """Sums of the other terms from the smallest subnormal up to the number of classes."""
    smallest = 103 if dtype == "float32" else 744
    low = np.concatenate([np.linspace(-smallest, 0, 20_001), np.linspace(-1, 0, 2001)])
    x = np.repeat(low[:, None], n_classes, 1).astype(dtype)
    x[:, 0] = 0
    got, exact = csoftmax.log_softmax(x)[:, 0], reference.log_softmax(x)[:, 0]
    assert reference.ulps(got, exact) <= BOUNDS["log_softmax", dtype]


@pytest.mark.parametrize("n_classes", [2, 3, 8, 33, 100, 1000, 4097])
@pytest.mark.parametrize("sigma", [1, 10])
def test_many_rows_are_within_the_bounds(rng, dtype, sigma, n_classes):
    """Where the bounds come from: a fifth of a million components against longdouble."""
    x = (sigma * rng.standard_normal((200_000 // n_classes + 5, n_classes))).astype(dtype)
    target = x.argmax(1)  # the smallest losses
    loss, grad = csoftmax.cross_entropy_with_grad(x, target, reduction="none")
    exact_loss, exact_grad = reference.cross_entropy(x, target)
    found = {
        "softmax": reference.ulps(csoftmax.softmax(x), reference.softmax(x)),
        "log_softmax": max(
            reference.ulps(csoftmax.log_softmax(x), reference.log_softmax(x)),
            reference.ulps(loss, exact_loss),
        ),
        "logsumexp": reference.ulps(
            csoftmax.logsumexp(x), reference.logsumexp(x), np.abs(x).max(1)
        ),
        "gradient": reference.ulps(grad, exact_grad),
    }
    assert {name: found[name] for name in found if found[name] > BOUNDS[name, dtype]} == {}
