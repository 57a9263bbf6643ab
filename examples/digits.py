"""Multinomial logistic regression on scikit-learn's handwritten digits, trained three times.

The loss and its gradient come from csoftmax, from the usual NumPy formula, and from PyTorch where it
is installed. Everything else is the same, so the loss curves must be the same.
"""

import argparse
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


def with_csoftmax(logits, target):
    return csoftmax.cross_entropy_with_grad(logits, target, out=logits)


def with_numpy(logits, target):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    rows = np.arange(len(target))
    loss = -np.log(p[rows, target]).mean()
    p[rows, target] -= 1
    return loss, p / len(target)


def make_with_torch():
    import torch

    def with_torch(logits, target):
        x = torch.from_numpy(logits).requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(x, torch.from_numpy(target))
        loss.backward()
        return loss.item(), x.grad.numpy()

    return with_torch


def train(loss_and_grad, images, target, steps, name):
    """Return weights, the loss at each step, and seconds per step for all and for the loss."""
    weights = np.zeros((images.shape[1], 10), np.float32)
    velocity = np.zeros_like(weights)
    losses, in_loss = np.empty(steps), 0.0
    start = time.perf_counter()
    for step in tqdm(range(steps), desc=name):
        logits = images @ weights
        before = time.perf_counter()
        losses[step], grad = loss_and_grad(logits, target)
        in_loss += time.perf_counter() - before
        velocity = MOMENTUM * velocity - LEARNING_RATE * (images.T @ grad)
        weights += velocity
    return weights, losses, (time.perf_counter() - start) / steps, in_loss / steps


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--figure", default="demo.png")
    arguments = parser.parse_args()

    pixels, digit = load_digits(return_X_y=True)
    images = np.hstack([pixels / 16, np.ones((len(pixels), 1))]).astype(np.float32)
    images, held_out, digit, held_out_digit = train_test_split(
        images, digit, test_size=0.3, random_state=0, stratify=digit
    )
    ways = {"csoftmax": with_csoftmax, "NumPy": with_numpy}
    try:
        ways["PyTorch"] = make_with_torch()
    except ImportError:
        print("PyTorch is not installed: two trainings instead of three")
    curves, timings = {}, {}
    for name, way in ways.items():
        weights, curves[name], *timings[name] = train(way, images, digit, arguments.steps, name)
        if name == "csoftmax":
            logits = held_out @ weights
            accuracy = (logits.argmax(axis=1) == held_out_digit).mean()
            log_loss = csoftmax.cross_entropy(logits, held_out_digit)

    print(f"\nheld-out accuracy {accuracy:.4f}, log-loss {log_loss:.4f} ({len(held_out)} images)")
    print("microseconds    whole step    loss and gradient")
    for name, (step, loss) in timings.items():
        print(f"{name:<12} {step * 1e6:13.1f} {loss * 1e6:20.1f}")
    difference = np.abs(curves["csoftmax"] - curves["NumPy"])
    print(f"largest difference of the losses, csoftmax and NumPy: {difference.max():.1e}")

    figure, (top, bottom) = plt.subplots(
        2, 1, sharex=True, height_ratios=[3, 1], layout="constrained"
    )
    for (name, curve), style in zip(curves.items(), ("-", "--", ":"), strict=False):
        top.plot(curve, style, label=name, linewidth=2)
    top.set(
        ylabel="training loss, nats", yscale="log", title="Handwritten digits: the same training"
    )
    top.legend()
    bottom.plot(difference, ".", color="black", markersize=2)
    bottom.set(xlabel="step", ylabel="difference to\nNumPy, nats")
    figure.savefig(arguments.figure, dpi=120)
    print(f"loss curves: {arguments.figure}")
    if difference.max() > 1e-5:
        raise SystemExit("the two trainings differ by more than 1e-5")


if __name__ == "__main__":
    main()
