"""Print a hash of every function's results on fixed inputs, a line for each function and dtype.

Builds that promise the same bits print the same lines. Inputs come from NumPy's generator and arithmetic alone, so that
they are the same wherever NumPy is; NaN counts as NaN, whatever its sign and payload.
"""

import hashlib

import numpy as np

import csoftmax

# (shape, axis): around the lanes, the transposed short rows and the chunks; other axes; one long row; many short ones.
SHAPES = [
    ((37, n), 1) for n in (1, 2, 3, 4, 7, 8, 9, 10, 15, 16, 17, 31, 33, 63, 64, 65, 96, 97, 100)
]
SHAPES += [((3, n), 1) for n in (127, 129, 1000, 2047, 2048, 2049, 2063, 4096, 4100, 10_000)]
SHAPES += [((1, 50_001), 1), ((4001, 3), 1), ((1000, 10), 1), ((70, 1000), 1), ((1, 5), 1)]
SHAPES += [((n, m), 0) for m in (20, 40) for n in (1, 2, 3, 5, 16, 17, 100, 2049)]
SHAPES += [((7, 10, 13), 1), ((3, 1000, 20), 1), ((1001, 3), 0), ((16, 300, 5), 1), ((6, 4, 2), 0)]
SPREADS = {"float16": (1, 8), "float32": (1, 30, 1e30), "float64": (1, 30, 300, 1e300)}
HASHES = {}


def take(name, *results):
    for result in results:
        bits = np.array(result, order="C")
        if bits.dtype.kind == "f":
            bits[np.isnan(bits)] = np.nan
        head = f"{bits.dtype.str} {bits.shape} ".encode()
        HASHES.setdefault(name, hashlib.sha256()).update(head + bits.tobytes())


def logits_of(rng, shape, dtype, spread):
    """Logits of a spread, as they are; and with equal ones, infinities and NaN here and there."""
    x = (rng.integers(-(2**20), 2**20, shape) * 2.0**-19 * spread).astype(dtype)
    yield x
    special = x.copy().reshape(-1)
    special[::11] = -np.inf
    special[::13] = special[0]
    special[5::997] = np.inf
    special[6::1009] = np.nan
    yield special.reshape(shape)


def hash_case(rng, x, axis):
    dtype = x.dtype.name
    rows = tuple(np.delete(x.shape, axis).tolist())
    n_classes = x.shape[axis]
    target = rng.integers(0, n_classes, rows)
    target.reshape(-1)[::7] = -100
    weight, sample_weight = rng.integers(0, 9, n_classes) / 4, rng.integers(1, 9, rows) / 3
    grad_output = rng.integers(-8, 9, rows) / 7
    share = rng.integers(0, 9, x.shape)
    total = np.maximum(share.sum(axis, keepdims=True), 1)
    shares = (share / total).astype(dtype)
    weights = {"weight": weight, "sample_weight": sample_weight, "label_smoothing": 0.1}
    for temperature in (1.0, 0.7):
        options = {"axis": axis, "temperature": temperature}
        p, log_p = csoftmax.softmax(x, **options), csoftmax.log_softmax(x, **options)
        take(f"softmax {dtype}", p)
        take(f"log_softmax {dtype}", log_p)
        take(f"logsumexp {dtype}", csoftmax.logsumexp(x, **options))
        take(f"log_prob {dtype}", csoftmax.log_prob(x, np.maximum(target, 0), **options))
        for reduction in ("mean", "none"):
            given = {**options, "reduction": reduction}
            if reduction == "none":
                given["grad_output"] = grad_output
            both = csoftmax.cross_entropy_with_grad
            take(f"cross_entropy_with_grad {dtype}", *both(x, target, **given))
            take(f"cross_entropy_with_grad of shares {dtype}", *both(x, shares, **given))
            take(f"cross_entropy_with_grad weighted {dtype}", *both(x, target, **given, **weights))
            take(
                f"cross_entropy_with_grad of weighted shares {dtype}",
                *both(x, shares, **given, **weights),
            )
        take(f"cross_entropy {dtype}", csoftmax.cross_entropy(x, target, **options))
        take(f"cross_entropy of shares {dtype}", csoftmax.cross_entropy(x, shares, **options))
        loss = csoftmax.cross_entropy(x, shares, **options, **weights)
        take(f"cross_entropy of weighted shares {dtype}", loss)
    grad = np.where(np.isfinite(x), x, 1).astype(dtype)
    take(f"softmax_backward {dtype}", csoftmax.softmax_backward(grad, p, axis))
    take(f"log_softmax_backward {dtype}", csoftmax.log_softmax_backward(grad, log_p, axis))


def main():
    rng = np.random.default_rng(20261130)
    for dtype, spreads in SPREADS.items():
        for spread in spreads:
            for shape, axis in SHAPES:
                for x in logits_of(rng, shape, dtype, spread):
                    hash_case(rng, x, axis)
                    if shape[axis] > 2048:  # each chunk's maximum above those before it
                        hash_case(rng, np.sort(x, axis), axis)
    for name in sorted(HASHES):
        print(HASHES[name].hexdigest()[:16], name)


if __name__ == "__main__":
    main()
