"""Multinomial logistic regression on scikit-learn's handwritten digits: what csoftmax gains over the NumPy formula.

The same training runs twice, with the loss and its gradient from csoftmax and from the usual NumPy formula. The loss
curves coincide; what differs is the time, and what is left of the losses of images whose digit is almost certain.
"""

import argparse
import decimal
import time

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import csoftmax

LEARNING_RATE, MOMENTUM = 0.5, 0.9
BLUE, ORANGE = "tab:blue", "tab:orange"


def with_csoftmax(logits, target):
    return csoftmax.cross_entropy_with_grad(logits, target, out=logits)


def with_numpy(logits, target):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    rows = np.arange(len(target))
    loss = -np.log(p[rows, target]).mean()
    p[rows, target] -= 1
    return loss, p / len(target)


def losses_with_numpy(logits, target):
    """The loss of each row by the formula above; 0 is written as 0, not -0."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return -np.log(p[np.arange(len(target)), target]) + 0


def exact_losses(logits, target):
    """The loss of each row from the same logits, computed with 50 decimal digits and rounded once, to float64."""
    decimal.getcontext().prec = 50
    losses = np.empty(len(target))
    for i, (row, k) in enumerate(zip(logits.tolist(), target.tolist(), strict=True)):
        terms = [(decimal.Decimal(x) - decimal.Decimal(row[k])).exp() for x in row]
        losses[i] = sum(terms).ln()
    return losses


def train(loss_and_grad, images, target, steps, name):
    """Return the weights, and for each step its loss and the seconds that loss and gradient took."""
    weights = np.zeros((images.shape[1], 10), np.float32)
    velocity = np.zeros_like(weights)
    losses, seconds = np.empty(steps), np.empty(steps)
    for step in tqdm(range(steps), desc=f"training with {name}", unit=" steps"):
        logits = images @ weights
        before = time.perf_counter()
        losses[step], grad = loss_and_grad(logits, target)
        seconds[step] = time.perf_counter() - before
        velocity = MOMENTUM * velocity - LEARNING_RATE * (images.T @ grad)
        weights += velocity
    return weights, losses, seconds


def draw(curves, microseconds, exact, errors, path):
    """Three panels: the loss curves, the times, and the errors of single losses."""
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(13, 4.2), width_ratios=[4, 2.4, 4], layout="constrained"
    )
    left.plot(curves["csoftmax"], color=BLUE, linewidth=5, alpha=0.5, label="csoftmax")
    left.plot(curves["NumPy"], "--", color=ORANGE, linewidth=1.8, label="NumPy formula")
    left.set(
        title="The same training...", xlabel="step", ylabel="training loss, nats", yscale="log"
    )
    left.legend()

    bars = middle.bar(list(microseconds), list(microseconds.values()), color=[BLUE, ORANGE])
    middle.bar_label(bars, fmt="%.0f µs", padding=2)
    ratio = microseconds["NumPy"] / microseconds["csoftmax"]
    middle.set(title=f"...{ratio:.1f} times as fast", ylabel="loss and gradient, µs per step")
    middle.margins(y=0.12)

    floor = 1e-9  # where errors of exactly 0 are drawn
    for name, label, color, marker in (
        ("NumPy", "NumPy formula", ORANGE, "x"),
        ("csoftmax", "csoftmax", BLUE, "o"),
    ):
        height = np.maximum(errors[name], floor)
        right.plot(exact, height, marker, color=color, markersize=3, label=label)
    right.set(
        title="...and small losses keep their digits",
        xlabel="exact loss of a held-out image, nats",
        ylabel="relative error (1: no digit is right)",
        xscale="log",
        yscale="log",
    )
    right.legend(loc="upper right")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--figure", default="demo.png")
    arguments = parser.parse_args()

    pixels, digit = load_digits(return_X_y=True)
    images = np.hstack([pixels / 16, np.ones((len(pixels), 1))]).astype(np.float32)
    images, held_out, digit, held_out_digit = train_test_split(
        images, digit, test_size=0.3, random_state=0, stratify=digit
    )
    print(f"{len(images)} images to train on, {len(held_out)} held out; {arguments.steps} steps")
    curves, microseconds = {}, {}
    for name, way in {"csoftmax": with_csoftmax, "NumPy": with_numpy}.items():
        weights, curves[name], seconds = train(way, images, digit, arguments.steps, name)
        microseconds[name] = np.median(seconds) * 1e6
        if name == "csoftmax":
            logits = held_out @ weights

    print("computing the exact losses of the held-out images")
    exact = exact_losses(logits, held_out_digit)
    losses = {
        "csoftmax": csoftmax.cross_entropy(logits, held_out_digit, reduction="none"),
        "NumPy": losses_with_numpy(logits, held_out_digit),
    }
    errors = {name: np.abs(each - exact) / exact for name, each in losses.items()}

    accuracy = (logits.argmax(axis=1) == held_out_digit).mean()
    print(f"held-out accuracy {accuracy:.4f}, log-loss {losses['csoftmax'].mean():.4f}\n")
    surest = exact.argmin()
    print(f"{'':32} {'csoftmax':>12} {'NumPy':>12} {'exact':>12}")
    for what, number in {
        "loss and gradient, us per step": lambda name: f"{microseconds[name]:.1f}",
        "largest error of a loss": lambda name: f"{errors[name].max():.1e}",
        "losses that are 0": lambda name: f"{np.sum(losses[name] == 0)}",
        "loss of the surest image": lambda name: f"{losses[name][surest]:.6e}",
    }.items():
        last = f"{exact[surest]:.6e}" if what.startswith("loss of") else ""
        print(f"{what:32} {number('csoftmax'):>12} {number('NumPy'):>12} {last:>12}")

    draw(curves, microseconds, exact, errors, arguments.figure)
    print(f"\nfigure: {arguments.figure}")
    difference = np.abs(curves["csoftmax"] - curves["NumPy"]).max()
    if difference > 1e-5:
        raise SystemExit(f"the two trainings differ by {difference:.1e}, which is more than 1e-5")


if __name__ == "__main__":
    main()
