"""The order in which the terms of a row are added, whatever computes them: it is part of the contract.

A term is exp(x - M) of a class, in the dtype of the row. The sum is of the terms below the maximum's: those that are
the maximum's, the ties, are counted. What rounding takes from a sum is carried beside it, and added in the end.
"""

import numpy as np

CHUNK = 2048


def add(a, b):
    """The sum of two (sum, carry): what rounding takes from it is exact (Knuth's two-sum)."""
    total = a[0] + b[0]
    back = total - a[0]
    return total, (a[1] + b[1]) + ((a[0] - (total - back)) + (b[0] - back))


def sum_of_chunk(terms):
    """Of at most 2048 terms: class j is in lane j % 16; of 64 classes a lane adds two and two in the dtype, then those.

    That goes to eight totals in double, in which lanes l and l + 8 are one. In the end neighbours are added, then
    neighbours of those. float64, which has no wider type, carries, from 5 classes on.
    """
    blocks = np.zeros((-(-len(terms) // 64), 4, 16), terms.dtype)
    blocks.reshape(-1)[: len(terms)] = terms
    lanes = (blocks[:, 0] + blocks[:, 1]) + (blocks[:, 2] + blocks[:, 3])
    total = np.zeros(8), np.zeros(8)
    for eight in lanes.reshape(-1, 8).astype(np.float64):
        total = add(total, (eight, 0))
    while len(total[0]) > 1:
        total = add([each[0::2] for each in total], [each[1::2] for each in total])
    (total,), (carry,) = total
    return total + carry if terms.dtype == np.float64 and len(terms) > 4 else total


def state_of_chunk(x, terms):
    """maximum, term of the maximum, how many classes share it, (sum of the others, carry)."""
    top = terms[x.argmax()]
    others = np.where(terms < top, terms, terms.dtype.type(0))
    return x.max(), float(top), np.count_nonzero(terms == top), (sum_of_chunk(others), 0.0)


def merged(state, other):
    """The larger maximum stays; the terms of the other, which is not one any more, join their own sum first."""
    high, low = (state, other) if state[0] >= other[0] else (other, state)
    ties, low_sum = high[2], low[3]
    if low[0] < high[0]:
        low_sum = add(low_sum, (low[2] * low[1], 0.0))
    else:
        ties += low[2]
    return high[0], high[1], ties, add(high[3], low_sum)


def state_of_row(x, terms):
    """maximum, sum, carry, ties beside the maximum: chunks of 2048 classes, merged in their order."""
    state = state_of_chunk(x[:CHUNK], terms[:CHUNK])
    for first in range(CHUNK, len(x), CHUNK):
        chunk = slice(first, first + CHUNK)
        state = merged(state, state_of_chunk(x[chunk], terms[chunk]))
    maximum, _, count, (total, carry) = state
    return maximum, total, carry, count - 1
