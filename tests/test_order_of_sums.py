"""Every path adds the terms of a row in the order of support/order_of_sums.py, bit for bit."""

from functools import cache

import numpy as np
import pytest

import csoftmax
from support import c_calls, layouts
from support.bits import different, same_bits
from support.cases import logits_of, targets_of
from support.header import State
from support.order_of_sums import state_of_row

# Where lanes, groups of 16, blocks of 64 and transposed rows hand over; then chunks.
WITHIN_A_CHUNK = [*range(1, 131), 192, 1000, 2047, 2048]
OF_CHUNKS = [2049, 4096, 4100, 10_000]


def rows_of(rng, dtype, n_classes, n_rows):
    """Rows with ties and without. Of chunks, the largest comes first in some, last in others."""
    x = logits_of(rng, (n_rows, n_classes), dtype, 3)
    x[1::4] = np.round(x[1::4])
    if n_classes > 2048:
        x[2::4] = np.sort(x[2::4])
        x[3::4] = np.sort(x[3::4])[:, ::-1]
    # Terms of up to 8 classes refer to the maximum itself, as those of states do where it is 0.
    return x - x.max(1, keepdims=True) if n_classes <= 8 else x


def terms_of(row):
    """The term of each class, from a state of it and the maximum: a sum of one. Infinite where it is the maximum's."""
    top = row.max()
    pairs = [c_calls.partial(State(), np.array([top, each])) for each in row]
    return np.array([np.inf if pair.ties >= 1 else pair.sum for pair in pairs], row.dtype)


def expected_state(row):
    maximum, total, carry, ties = state_of_row(row, terms_of(row))
    mark = 0.5 if row.dtype == np.float32 else 0  # of states of float32
    return State(maximum, total, carry, ties + mark)


def expected_results(x, target, states):
    """What csoftmax.h makes of the states of the rows; none of it adds terms."""
    rows = list(zip(states, x, target.tolist(), strict=True))
    losses = [c_calls.finish_loss(state, row[t], x.dtype) for state, row, t in rows]
    return {
        "softmax": np.array([c_calls.finish_grad(state, row) for state, row, _ in rows]),
        "gradient": np.array([c_calls.finish_grad(state, row, 0, t) for state, row, t in rows]),
        "logsumexp": np.array([c_calls.finish(state, x.dtype) for state in states]),
        "losses": np.array(losses),
    }


@cache
def case(dtype, n_classes, n_rows=12):
    """Rows, their targets, the states that they must have, and the results."""
    rng = np.random.default_rng(n_classes)
    x = rows_of(rng, dtype, n_classes, n_rows)
    target = targets_of(rng, x.shape, ignored=None)
    states = [expected_state(row) for row in x]
    return x, target, states, expected_results(x, target, states)


def from_python(x, target, axis=-1, n_threads=None):
    options = {"axis": axis, "n_threads": n_threads}
    loss, grad = csoftmax.cross_entropy_with_grad(x, target, reduction="none", **options)
    return {
        "softmax": np.moveaxis(csoftmax.softmax(x, **options), axis, -1),
        "gradient": np.moveaxis(grad, axis, -1),
        "logsumexp": csoftmax.logsumexp(x, **options),
        "losses": loss,
    }


def from_single_rows(x, target):
    found = [from_python(row, t) for row, t in zip(x, target, strict=True)]
    return {name: np.array([each[name] for each in found]) for name in found[0]}


def from_c(function):
    names = ("softmax", "gradient", "logsumexp", "losses")
    return lambda x, target: {name: function(x, target)[name] for name in names}


PATHS = {
    "rows": from_python,
    "columns": lambda x, target: from_python(np.ascontiguousarray(x.T), target, 0),
    "few columns": lambda x, target: from_python(layouts.fortran(x), target),
    "middle axis": lambda x, target: {
        name: result[0]
        for name, result in from_python(x.T.copy()[np.newaxis], target[np.newaxis], 1).items()
    },
    "strided": lambda x, target: from_python(layouts.strided(x), target),
    "one row at a time": from_single_rows,
    "rows of csoftmax.h": from_c(c_calls.all_of_rows),
    "batches of csoftmax.h": from_c(c_calls.all_of_batch),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("n_classes", [*WITHIN_A_CHUNK, *OF_CHUNKS])
def test_every_path_adds_the_terms_of_a_row_in_one_order(dtype, n_classes, path):
    x, target, _, expected = case(dtype, n_classes)
    assert different(PATHS[path](x, target), expected) == []


@pytest.mark.parametrize("n_classes", [*WITHIN_A_CHUNK, *OF_CHUNKS])
def test_states_hold_the_sum_and_its_carry(dtype, n_classes):
    x, _, states, _ = case(dtype, n_classes)
    for row, expected in zip(x, map(tuple, states), strict=True):
        assert tuple(c_calls.partial(State(), row)) == expected
        assert tuple(c_calls.state_of(row, 2048)) == expected
        merged = State()
        for first in range(0, n_classes, 2048):
            piece = c_calls.partial(State(), row[first : first + 2048])
            c_calls.merge(merged, piece, dtype)
        assert tuple(merged) == expected


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_chunks_that_threads_share_are_merged_in_their_order(dtype, n_threads):
    x, target, _, expected = case(dtype, 70_000, 2)
    assert different(from_python(x, target, n_threads=n_threads), expected) == []


@pytest.mark.parametrize("n_classes", [20, 100, 2048, 10_000])
def test_another_order_has_other_bits(rng, dtype, n_classes):
    # So that the tests above can fail.
    x, target, _, expected = case(dtype, n_classes)
    order = rng.permutation(n_classes)
    shuffled = x[:, order]
    states = [expected_state(row) for row in shuffled]
    got = expected_results(shuffled, target, states)["softmax"]
    assert not same_bits(got, expected["softmax"][:, order])
