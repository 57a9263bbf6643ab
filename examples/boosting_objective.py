"""A multiclass objective for gradient boosting: gradient and diagonal Hessian of the cross-entropy.

XGBoost keeps its margins row by row, (N, K), LightGBM class by class, which is (K, N): one function
serves both, along either axis and without a copy, with the same bits. A loop of scikit-learn's trees
shows that the loss falls.

The Hessian p (1 - p) decides a leaf's value, sum(-gradient) / sum(Hessian). A leaf of rows that are
all but certain needs the digits of 1 - p, which the subtraction loses: from p = 1 - 6e-8 on, float32
has 0 / 0 there. The gradient of the cross-entropy holds 1 - p as the sum of the other probabilities.
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeRegressor
from tqdm import tqdm

import csoftmax


def gradient_and_hessian(margin, label, axis):
    """Return p - y and p (1 - p), both of the margins' shape."""
    _, gradient = csoftmax.cross_entropy_with_grad(margin, label, axis=axis, reduction="none")
    # To the largest class as target: 1 - p there, else p. Their product is the same either way round.
    _, side = csoftmax.cross_entropy_with_grad(
        margin, margin.argmax(axis), axis=axis, reduction="none"
    )
    np.abs(side, out=side)
    return gradient, side * (1 - side)


def for_xgboost(margin, data):
    """`obj` of xgboost.train: margins (N, K)."""
    return gradient_and_hessian(margin, data.get_label().astype(int), axis=1)


def for_lightgbm(margin, data):
    """`objective` of lightgbm.train: margins class by class, flat or as (N, K) in Fortran order."""
    label = data.get_label().astype(int)
    margin = margin.ravel("F").reshape(-1, len(label))  # a view, (K, N)
    gradient, hessian = gradient_and_hessian(margin, label, axis=0)
    return gradient.ravel(), hessian.ravel()


class Data:
    """What an objective sees of xgboost.DMatrix and lightgbm.Dataset."""

    def __init__(self, label):
        self.label = label.astype(np.float32)

    def get_label(self):
        return self.label


def compare_layouts(n_rows, rng):
    """Return whether both layouts give the same bits, and the Hessian's largest relative errors."""
    margin = rng.normal(0, 8, (n_rows, 10)).astype(np.float32)
    data = Data(rng.integers(0, 10, n_rows))
    by_row = for_xgboost(margin, data)
    by_class = for_lightgbm(margin.T.ravel(), data)
    same = all(a.T.tobytes() == b.tobytes() for a, b in zip(by_row, by_class, strict=True))

    e = np.exp(margin - margin.max(axis=1, keepdims=True), dtype=np.float64)
    exact = e * (e @ (1 - np.eye(10))) / e.sum(axis=1, keepdims=True) ** 2
    p = csoftmax.softmax(margin)
    return same, *(np.abs(h / exact - 1).max() for h in (by_row[1], p * (1 - p)))


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
