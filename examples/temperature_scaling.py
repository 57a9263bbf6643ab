"""Temperature scaling of an overconfident classifier (Guo et al. 2017, arXiv:1706.04599).

Logistic regression with hardly any penalty, trained on a few of scikit-learn's handwritten digits, is far
too sure of itself. One number mends that: the temperature by which its logits are divided, the one
with the least loss on images that took no part in the training. csoftmax divides on the way, so that
the search makes no copies of the logits.
"""

import argparse
import math

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import csoftmax


def golden_section(function, low, high, steps=30):
    """Return where a function that falls, then rises, is least."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(steps):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2


def best_temperature(logits, target, least=0.01, largest=100.0):
    """Return the temperature of the least loss; that is convex in its inverse, so there is one valley."""

    def loss(log_temperature):
        return csoftmax.cross_entropy(logits, target, temperature=math.exp(log_temperature))

    return math.exp(golden_section(loss, math.log(least), math.log(largest)))


def calibration_error(logits, target, temperature, n_bins=15):
    """Mean distance of accuracy and confidence, over bins of equal width in the confidence."""
    p = csoftmax.softmax(logits, temperature=temperature)
    confidence = p.max(axis=1)
    excess = (p.argmax(axis=1) == target) - confidence
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    return np.abs(np.bincount(bins, excess)).sum() / len(target)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=150, help="images to train on")
    arguments = parser.parse_args()

    images, digit = load_digits(return_X_y=True)
    images, rest, digit, rest_digit = train_test_split(
        images / 16, digit, train_size=arguments.train, random_state=0, stratify=digit
    )
    model = LogisticRegression(C=1e4, max_iter=5000).fit(images, digit)
    held_out, test, held_out_digit, test_digit = train_test_split(
        model.decision_function(rest), rest_digit, test_size=0.5, random_state=0
    )
    temperature = best_temperature(held_out, held_out_digit)
    accuracy = (test.argmax(axis=1) == test_digit).mean()

    print(f"temperature {temperature:.3f}, chosen on {len(held_out)} images")
    print(f"accuracy {accuracy:.4f} on {len(test)} others, whatever the temperature")
    print("          log-loss, nats    calibration error")
    for name, t in (("before", 1.0), ("after", temperature)):
        log_loss = csoftmax.cross_entropy(test, test_digit, temperature=t)
        print(f"{name:<8} {log_loss:15.4f} {calibration_error(test, test_digit, t):20.4f}")


if __name__ == "__main__":
    main()
