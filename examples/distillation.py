"""Knowledge distillation on scikit-learn's handwritten digits (Hinton et al. 2015, arXiv:1503.02531).

A teacher has learned from every label; the student, with fewer units, has few labels. It also learns
from the probabilities that the teacher gives to all images, softened by a temperature: they tell which
digits look alike. One function does all three trainings, as cross_entropy_with_grad takes classes and
probabilities alike.
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import csoftmax

LEARNING_RATE, MOMENTUM = 0.1, 0.9


def logits_of(weights, images):
    return np.maximum(images @ weights[0], 0) @ weights[1]


def train(images, target, units, steps, name, temperature=1.0):
    """Return the weights of one hidden layer; targets are classes, (N,), or probabilities, (N, 10)."""
    rng = np.random.default_rng(0)
    shapes = (images.shape[1], units), (units, 10)
    weights = [rng.normal(0, np.sqrt(2 / n), (n, m)).astype(np.float32) for n, m in shapes]
    velocity = [np.zeros_like(w) for w in weights]
    for _ in tqdm(range(steps), desc=name):
        hidden = np.maximum(images @ weights[0], 0)
        logits = hidden @ weights[1]
        # A temperature makes the gradient smaller by its square; grad_output undoes that.
        _, grad = csoftmax.cross_entropy_with_grad(
            logits, target, temperature=temperature, grad_output=temperature**2, out=logits
        )
        at_hidden = (grad @ weights[1].T) * (hidden > 0)
        for w, v, g in zip(weights, velocity, (images.T @ at_hidden, hidden.T @ grad), strict=True):
            v *= MOMENTUM
            v -= LEARNING_RATE * g
            w += v
    return weights


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=60, help="labels that the student has")
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    steps, temperature = arguments.steps, arguments.temperature

    pixels, digit = load_digits(return_X_y=True)
    images = np.hstack([pixels / 16, np.ones((len(pixels), 1))]).astype(np.float32)
    images, held_out, digit, held_out_digit = train_test_split(
        images, digit, test_size=0.3, random_state=0, stratify=digit
    )
    few, few_digit = images[: arguments.labels], digit[: arguments.labels]

    teacher = train(images, digit, 128, steps, "teacher")
    softened = csoftmax.softmax(logits_of(teacher, images), temperature=temperature)
    ways = {
        "teacher": teacher,
        "student, labels alone": train(few, few_digit, 16, steps, "labels alone"),
        "student, distilled": train(images, softened, 16, steps, "distilled", temperature),
    }
    print(f"{len(images)} images; the student has {len(few)} labels, or the teacher's word")
    for name, weights in ways.items():
        logits = logits_of(weights, held_out)
        accuracy = (logits.argmax(axis=1) == held_out_digit).mean()
        log_loss = csoftmax.cross_entropy(logits, held_out_digit)
        print(f"{name:<22} held-out accuracy {accuracy:.4f}, log-loss {log_loss:.4f}")


if __name__ == "__main__":
    main()
