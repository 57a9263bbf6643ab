"""What functions are given: numbers of classes and rows, logits, targets, probabilities, weights."""

import numpy as np

# Around the 16 lanes, blocks of 64 and chunks of 2048 classes; around tiles and lanes of rows.
CLASSES = [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 129, 1000]
CLASSES += [2047, 2048, 2049, 4097]
ROWS = [1, 2, 15, 16, 17, 63, 64, 65, 257]
INNER = [1, 3, 15, 16, 17, 49, 64, 100]
CLASSES_AND_INNER = [(n, inner) for n in (1, 3, 16, 33) for inner in INNER] + [
    (2049, 3),
    (2049, 17),
]


def logits_of(rng, shape, dtype, spread=5):
    return (spread * rng.standard_normal(shape)).astype(dtype)


def targets_of(rng, shape, axis=-1, ignored=-100):
    """Class indices of which every fifth is ignored; none is if `ignored` is None."""
    target = rng.integers(0, shape[axis], tuple(np.delete(shape, axis)))
    if ignored is not None:
        target.reshape(-1)[1::5] = ignored
    return target


def probabilities_of(rng, shape, axis, dtype, spread=2):
    """Class probabilities along an axis, rounded to the dtype; every fifth is zero."""
    q = np.exp(spread * rng.standard_normal(shape))
    if shape[axis] > 1:
        q.reshape(-1)[::5] = 0
    total = q.sum(axis, keepdims=True)
    return np.divide(q, total, out=q, where=total > 0).astype(dtype)


def weights_of(rng, shape, axis):
    return {
        "weight": rng.uniform(0.25, 4, shape[axis]),
        "sample_weight": rng.uniform(0.25, 4, tuple(np.delete(shape, axis))),
    }
