"""Random sets of options of cross_entropy, with logits and targets that fit: each combination a few times."""

import itertools

import numpy as np

N_SETS = 1000
COMBINATIONS = list(  # of dimensions, reduction, whether weighted, whether smoothed, kind of target
    itertools.product(
        range(1, 6),
        ("mean", "sum", "none"),
        (False, True),
        (False, True),
        ("classes", "classes with an ignored one", "probabilities"),
    )
)


def random_set(seed):
    """Logits, target, options of cross_entropy, and the gradient to start from."""
    n_dims, reduction, weighted, smoothed, kind = COMBINATIONS[seed % len(COMBINATIONS)]
    rng = np.random.default_rng(seed)
    n_classes = rng.choice([1, 2, 3, 10, 17, 65])
    rows = tuple(rng.integers(1, 5, n_dims - 1).tolist())
    shape = (*rows[:1], n_classes, *rows[1:])
    logits = rng.choice([0.1, 1, 10, 100]) * rng.standard_normal(shape)
    options = {"reduction": reduction}
    if weighted:  # some are 0
        options["weight"] = rng.choice([0, 0.1, 1, 2], n_classes) * rng.uniform(0.5, 1, n_classes)
    if smoothed:
        options["label_smoothing"] = float(rng.choice([0.1, rng.random(), 1]))
    if kind == "probabilities":  # some are 0, now and then all of a row
        target = rng.random(shape) ** rng.choice([1, 8]) * (rng.random(shape) < 0.8)
        total = target.sum(class_axis(logits), keepdims=True)
        target = target / np.where(total == 0, 1, total)
    else:
        target = rng.integers(0, n_classes, rows)
    if kind == "classes with an ignored one":
        options["ignore_index"] = int(rng.choice([-100, -1, rng.integers(n_classes), 10**9]))
        target = np.where(rng.random(rows) < 0.3, options["ignore_index"], target)
    return logits, target, options, rng.standard_normal(rows if reduction == "none" else ())


def class_axis(logits):
    return 0 if logits.ndim == 1 else 1
