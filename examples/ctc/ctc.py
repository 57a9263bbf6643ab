"""Connectionist temporal classification in Cython: the forward algorithm and a beam search on csoftmax's C functions.

forward.pyx says `from csoftmax cimport ...` and calls them in a loop without the GIL. pyximport, a part of Cython,
builds it with the C compiler into a temporary folder; in a project of your own, `cythonize -i forward.pyx` or a
setup.py with cythonize() does, as there is nothing to link or to include.

A label sequence's log-probability is printed beside its definition, the sum over all alignments of a few frames, and
the time for a frame beside the same loop with libm's exp and log. All data come from a seed.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyximport

import csoftmax

# Cython looks for csoftmax's .pxd files on sys.path, where an editable install is not.
sys.path.append(str(Path(csoftmax.__file__).parent.parent))
# Windows does not let go of a module that is in use.
with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    pyximport.install(build_dir=folder)
    import forward


def labels_of(alignment, blank=0):
    """The label sequence of an alignment, a class for each frame: repetitions are one, blanks none."""
    return tuple(int(k) for k, _ in itertools.groupby(alignment) if k != blank)


def by_definition(logits):
    """Log-probability of each possible label sequence, in longdouble: the sum over all its alignments."""
    e = np.exp(logits.astype(np.longdouble) - logits.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    frames, sums = np.arange(len(p)), defaultdict(np.longdouble)
    for alignment in itertools.product(range(p.shape[1]), repeat=len(p)):
        sums[labels_of(alignment)] += p[frames, alignment].prod()
    # Where one sequence is all but certain, the others know the digits of its logarithm.
    likeliest = max(sums, key=sums.get)
    others = sum(p for labels, p in sums.items() if labels != likeliest)
    return {k: np.log1p(-others) if k == likeliest else np.log(p) for k, p in sums.items()}


def utterance(n_frames, n_classes, n_labels, strength, rng):
    """Labels, and logits (n_frames, n_classes) in which one of their alignments is larger by `strength`."""
    labels = rng.integers(1, n_classes, n_labels)
    alignment = np.zeros(n_frames, int)  # each label in a frame of its own, and a blank behind it
    alignment[2 * np.sort(rng.choice(n_frames // 2, n_labels, replace=False))] = labels
    logits = rng.standard_normal((n_frames, n_classes))
    logits[np.arange(n_frames), alignment] += strength
    return tuple(labels.tolist()), logits


def microseconds_per_frame(logits, labels, libm):
    """The best of several runs."""
    times = []
    for _ in range(7):
        start = time.perf_counter()
        forward.log_prob(logits, labels, libm=libm)
        times.append(time.perf_counter() - start)
    return min(times) / len(logits) * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--classes", type=int, nargs="+", default=[32, 1024], help="to be timed")
    parser.add_argument("--beam", type=int, default=16)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)

    for name, strength in ("unsure", 2), ("sure", 40):
        labels, logits = utterance(6, 4, 3, strength, rng)
        exact = by_definition(logits)[labels]
        print(f"{name}, 6 frames of 4 classes: log-probability of {labels}")
        print(f"  definition {exact:.17g}")
        for way, libm in ("csoftmax", False), ("libm", True):
            got = forward.log_prob(logits, labels, libm=libm)
            error = abs(got - exact) / np.spacing(abs(float(exact)))
            print(f"  {way:<10} {got:.17g}, error {error:.2g} units in the last place")

    print(f"{arguments.frames} frames, {arguments.labels} labels: microseconds for each frame")
    for n_classes in arguments.classes:
        labels, logits = utterance(arguments.frames, n_classes, arguments.labels, 4, rng)
        ours, usual = (microseconds_per_frame(logits, labels, libm) for libm in (False, True))
        print(f"  {n_classes} classes: csoftmax {ours:.2f}, libm {usual:.2f}")

    labels, logits = utterance(40, 6, 12, 3, rng)
    greedy = labels_of(logits.argmax(axis=1))
    best, lower_bound = forward.beam_search(logits, arguments.beam)[0]
    print("decoding 40 frames of 6 classes: log-probability and labels")
    for name, decoded in ("said", labels), ("greedy", greedy), ("beam", best):
        print(f"  {name:<7} {forward.log_prob(logits, decoded):.6f}  {' '.join(map(str, decoded))}")
    kept = np.exp(lower_bound - forward.log_prob(logits, best))
    print(f"  a beam of {arguments.beam} kept {kept:.4f} of the probability of its labels")


if __name__ == "__main__":
    main()
