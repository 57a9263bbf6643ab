"""A multiclass objective for gradient boosting: gradient and diagonal Hessian of the cross-entropy.

XGBoost keeps its margins row by row, (N, K), LightGBM class by class, which is (K, N): one function
serves both, along either axis and without a copy, with the same bits. A loop of scikit-learn's trees
shows that the loss falls.

The Hessian p (1 - p) decides a leaf's value, sum(-gradient) / sum(Hessian). A leaf of rows that are
all but certain needs the digits of 1 - p, which the subtraction loses: from p = 1 - 6e-8 on, float32
has 0 / 0 there. The gradient of the cross-entropy holds 1 - p as the sum of the other probabilities.

The rows' weights, of DMatrix(weight=) or Dataset(weight=), count as they do in the libraries' own
objectives: both parts are multiplied by them here, as neither library does that for an objective
that it is handed.

The libraries' own Hessians are larger than the second derivative, as it stands here: XGBoost's
multi:softprob has max(2 p (1 - p) w, 1e-16), LightGBM's multiclass K / (K - 1) p (1 - p) w. Their
steps are that much shorter: the same trees come from `factor=2`, by functools.partial, or by halving
the learning rate, lambda and min_child_weight and doubling gamma. The floor of 1e-16 keeps XGBoost's
sums above 0 where float32 has no digits of 1 - p left, and is not needed here.
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeRegressor
from tqdm import tqdm

import csoftmax


def gradient_and_hessian(margin, label, weight, axis, factor):
    """Return w (p - y) and factor w p (1 - p), both of the margins' shape; w is 1 if weight is None."""
    _, gradient = csoftmax.cross_entropy_with_grad(
        margin, label, axis=axis, sample_weight=weight, reduction="none"
    )
    # To the largest class as target: 1 - p there, else p. Their product is the same either way round.
    _, side = csoftmax.cross_entropy_with_grad(
        margin, margin.argmax(axis), axis=axis, reduction="none"
    )
    np.abs(side, out=side)
    hessian = side * (1 - side)
    scale = factor if weight is None else factor * np.expand_dims(weight, axis)
    return gradient, np.multiply(hessian, scale, out=hessian)


def weight_of(data):
    """The rows' weights, or None: XGBoost has an empty array where there are none, LightGBM None."""
    weight = data.get_weight()
    return None if weight is None or len(weight) == 0 else np.asarray(weight)


def for_xgboost(margin, data, factor=1):
    """`obj` of xgboost.train: margins (N, K)."""
    label = data.get_label().astype(int)
    return gradient_and_hessian(margin, label, weight_of(data), 1, factor)


def for_lightgbm(margin, data, factor=1):
    """`objective` of lightgbm.train: margins class by class, flat or as (N, K) in Fortran order."""
    label = data.get_label().astype(int)
    margin = margin.ravel("F").reshape(-1, len(label))  # a view, (K, N)
    gradient, hessian = gradient_and_hessian(margin, label, weight_of(data), 0, factor)
    return gradient.ravel(), hessian.ravel()


class Data:
    """What an objective sees of xgboost.DMatrix and lightgbm.Dataset."""

    def __init__(self, label, weight=None):
        self.label = label.astype(np.float32)
        self.weight = weight

    def get_label(self):
        return self.label

    def get_weight(self):
        return self.weight


def compare_layouts(n_rows, rng):
    """Return whether both layouts give the same bits, and the Hessian's largest relative errors."""
    margin = rng.normal(0, 8, (n_rows, 10)).astype(np.float32)
    weight = rng.uniform(0.1, 10, n_rows).astype(np.float32)
    data = Data(rng.integers(0, 10, n_rows), weight)
    by_row = for_xgboost(margin, data)
    by_class = for_lightgbm(margin.T.ravel(), data)
    same = all(a.T.tobytes() == b.tobytes() for a, b in zip(by_row, by_class, strict=True))

    e = np.exp(margin - margin.max(axis=1, keepdims=True), dtype=np.float64)
    exact = e * (e @ (1 - np.eye(10))) / e.sum(axis=1, keepdims=True) ** 2 * weight[:, None]
    p = csoftmax.softmax(margin)
    usual = p * (1 - p) * weight[:, None]
    return same, *(np.abs(h / exact - 1).max() for h in (by_row[1], usual))


def boost(images, label, held_out, rounds, rate=0.3, depth=3):
    """Return the losses before each round and after the last, and the margins of held-out images, (K, N)."""
    data, n_classes = Data(label), label.max() + 1
    margin = np.zeros((n_classes, len(images)), np.float32)
    held_out_margin = np.zeros((n_classes, len(held_out)), np.float32)
    losses = [csoftmax.cross_entropy(margin, label, axis=0)]
    for _ in tqdm(range(rounds), desc="boosting"):
        gradient, hessian = (a.reshape(margin.shape) for a in for_lightgbm(margin.ravel(), data))
        for k in range(n_classes):
            # A leaf predicts the mean of -g / h weighted by h: Newton's step for its rows.
            tree = DecisionTreeRegressor(max_depth=depth, random_state=0)
            tree.fit(images, -gradient[k] / hessian[k], sample_weight=hessian[k])
            margin[k] += rate * tree.predict(images)
            held_out_margin[k] += rate * tree.predict(held_out)
        losses.append(csoftmax.cross_entropy(margin, label, axis=0))
    return losses, held_out_margin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--rows", type=int, default=200_000, help="to compare the layouts")
    arguments = parser.parse_args()

    same, ours, usual = compare_layouts(arguments.rows, np.random.default_rng(0))
    print(f"(N, K) and (K, N), {arguments.rows} rows: {'the same' if same else 'other'} bits")
    print(f"largest relative error of the Hessian: {ours:.1e}; by subtraction from one {usual:.1e}")

    images, held_out, label, held_out_label = train_test_split(
        *load_digits(return_X_y=True), test_size=0.3, random_state=0
    )
    losses, margin = boost(images.astype(np.float32), label, held_out, arguments.rounds)
    accuracy = (margin.argmax(axis=0) == held_out_label).mean()
    print("training loss by round:", *(f"{loss:.4f}" for loss in losses[::5]))
    print(f"held-out accuracy {accuracy:.4f} ({len(held_out)} images)")
    if not same:
        raise SystemExit("the layouts differ")


if __name__ == "__main__":
    main()
