"""Errors in units of the last place against 200-bit arithmetic, component by component.

    python benchmarks/accuracy.py [--quick] [--worst tests/worst_cases.csv] [--readme README.md]

Prints the README's error table: csoftmax on every build that this processor runs, beside SciPy, PyTorch and JAX where
they are installed. Inputs: normal logits of spread 1, 10 and 30, confident rows, two classes over a sweep of
differences, equal logits, results that are subnormal, the largest numbers of the dtype, the rows on which csoftmax is
worst among millions by extended precision, and rows of up to 2**20 classes, which extended precision judges too.
"""

import argparse
import csv
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import report
from tqdm import tqdm

import csoftmax

mpmath.mp.prec = 200
LONG = 4100  # classes, from which on rows are judged in extended precision: 200 bits would take minutes a row
FUNCTIONS = ["softmax", "log_softmax", "logsumexp", "cross_entropy", "gradient"]


def inputs(dtype, quick):
    """Name and row of logits; the target of a row is its largest class, but for the sweep of two classes."""
    rng = np.random.default_rng(0)
    many = 1 if quick else 6
    for n_classes, rows in ((2, 60), (3, 40), (10, 40), (17, 30), (100, 12), (1000, 4), (4099, 1)):
        for spread in (1, 10, 30):
            for _ in range(rows * (many if n_classes <= 100 else 1)):
                yield f"normal({spread})", rng.normal(0, spread, n_classes).astype(dtype)
        for _ in range(rows * (many if n_classes <= 100 else 1)):
            row = rng.normal(0, 1, n_classes)
            row[rng.integers(n_classes)] += rng.uniform(5, 40)
            yield "confident", row.astype(dtype)
    for n_classes in (2, 3, 16, 100, 3000):
        yield "equal", np.full(n_classes, 0.1, dtype)
    for difference in np.geomspace(1e-8, 700 if dtype == "float64" else 100, 300 * many):
        yield "two classes", np.array([0.3, 0.3 - difference], dtype)
    tiny = (85, 104) if dtype == "float32" else (700, 745)
    for difference in rng.uniform(*tiny, 60 * many):
        yield "subnormal", np.array([1, 1 - difference, 1 - difference - 0.3], dtype)
    big = np.finfo(dtype).max
    yield "largest", np.array([big, -big], dtype)
    yield "largest", np.array([big, big, 0], dtype)


def searched(dtype, quick):
    """Rows on which csoftmax is worst among very many, by extended precision: few rows would flatter it."""
    rng = np.random.default_rng(1)
    for n_classes in (2, 3, 10, 30, 60, 100, 1000):
        for spread in (1, 3, 10):
            n_rows = (40_000 if quick else 2_000_000) // n_classes
            x = rng.normal(0, spread, (n_rows, n_classes)).astype(dtype)
            rows = np.arange(n_rows)
            target = x.argmax(1)
            distance = x.astype(np.longdouble) - x[rows, target, None]
            p = np.exp(distance)
            p[rows, target] = 0
            others = p.sum(1)
            p /= 1 + others[:, None]
            log_p = distance - np.log1p(others)[:, None]
            p[rows, target] = -others / (1 + others)
            _, grad = csoftmax.cross_entropy_with_grad(x, target, reduction="sum")
            for got, want in (grad, p), (csoftmax.log_softmax(x), log_p):
                ulps = np.abs(got - want) / np.spacing(np.abs(want).astype(dtype))
                yield f"worst of normal({spread})", x[ulps.max(1).argmax()]


def long_rows(dtype):
    rng = np.random.default_rng(2)
    for n_classes in (4_100, 2**14, 2**18, 2**20):
        for spread in (1, 10, 30):
            yield f"normal({spread})", rng.normal(0, spread, n_classes).astype(dtype)
        row = rng.normal(0, 1, n_classes)
        row[rng.integers(n_classes)] += rng.uniform(15, 40)
        yield "confident", row.astype(dtype)
        yield "equal", np.full(n_classes, 0.1, dtype)
        yield "rising", np.linspace(-30, 30, n_classes).astype(dtype)


def extended(row):
    """All results of a row in extended precision, NumPy's sums in pairs: right to 0.01 units of a float64."""
    x = row.astype(np.longdouble)
    target = int(np.argmax(row))
    e = np.exp(x - x[target])
    e[target] = 0
    others = e.sum()
    e[target] = 1
    p = e / (1 + others)
    log_sum = np.log1p(others)
    gradient = p.copy()
    gradient[target] = -others / (1 + others)
    return {
        "softmax": p,
        "log_softmax": x - x[target] - log_sum,
        "logsumexp": x[target] + log_sum,
        "cross_entropy": log_sum,
        "gradient": gradient,
    }


def extended_distance(got, want, dtype, scale=0):
    size = np.maximum(np.abs(want), scale).astype(dtype)
    distances = np.abs(np.ravel(got) - want) / np.spacing(size)
    return float(distances.max()) if np.isfinite(distances).all() else np.inf


def check_extended():
    """Extended precision must be as good as it claims to be, by the same row at 200 bits."""
    row = np.random.default_rng(3).normal(0, 10, 3000)
    want = exact(row)
    for function, values in extended(row).items():
        for value, right in zip(np.ravel(values), want[function], strict=True):
            high = float(value)
            exactly = mpmath.mpf(high) + mpmath.mpf(float(value - high))
            if abs(exactly - right) > 0.01 * unit(right, "float64"):
                raise ArithmeticError(f"longdouble is too narrow to judge {function} by")


def exact(row):
    """All results of a row, as 200-bit numbers; those beyond the dtype's range stay what they are."""
    x = [mpmath.mpf(float(v)) for v in row]
    target = int(np.argmax(row))
    m = x[target]
    e = [mpmath.exp(v - m) for v in x]
    others = sum(e[:target], mpmath.mpf(0)) + sum(e[target + 1 :], mpmath.mpf(0))
    total, log_sum = 1 + others, mpmath.log1p(others)
    p = [v / total for v in e]
    return {
        "softmax": p,
        "log_softmax": [v - m - log_sum for v in x],
        "logsumexp": [m + log_sum],
        "cross_entropy": [log_sum],
        "gradient": [-others / total if j == target else v for j, v in enumerate(p)],
    }


def unit(value, dtype):
    """One unit of the last place at a value, that of the subnormals at the least."""
    value = abs(value)
    info = np.finfo(dtype)
    if value < info.tiny:
        return mpmath.mpf(float(info.smallest_subnormal))
    return mpmath.mpf(2) ** (int(mpmath.floor(mpmath.log(value, 2))) - info.nmant)


def distance(got, want, dtype, scale=0):
    info = np.finfo(dtype)
    limit = mpmath.mpf(float(info.max)) * (
        1 + mpmath.mpf(float(info.eps)) / 4
    )  # from here on it rounds to inf
    worst = 0.0
    for g, w in zip(np.ravel(got), want, strict=True):
        if abs(w) >= limit:
            worst = worst if np.isinf(g) else np.inf
        elif not np.isfinite(g):
            worst = np.inf
        else:
            worst = max(
                worst, float(abs(mpmath.mpf(float(g)) - w) / unit(max(abs(w), scale), dtype))
            )
    return worst


def libraries():
    """Name and a function from a row to its results."""

    def ours(row):
        target = [int(np.argmax(row))]
        loss, grad = csoftmax.cross_entropy_with_grad(row[None], target, reduction="none")
        return {
            "softmax": csoftmax.softmax(row),
            "log_softmax": csoftmax.log_softmax(row),
            "logsumexp": csoftmax.logsumexp(row),
            "cross_entropy": loss,
            "gradient": grad,
        }

    yield "csoftmax", ours
    if os.environ.get("CSOFTMAX_ACCURACY") == "ours":
        return
    try:
        from scipy import special

        yield (
            "SciPy",
            lambda row: {name: getattr(special, name)(row) for name in FUNCTIONS[:3]},
        )
    except ImportError:
        pass
    try:
        import torch

        def with_torch(row):
            x = torch.from_numpy(row[None]).requires_grad_(True)
            loss = torch.nn.functional.cross_entropy(x, x.argmax(1))
            loss.backward()
            x, grad = x.detach(), x.grad
            return {
                "softmax": torch.softmax(x, 1).numpy(),
                "log_softmax": torch.log_softmax(x, 1).numpy(),
                "logsumexp": torch.logsumexp(x, 1).numpy(),
                "cross_entropy": loss.detach().numpy(),
                "gradient": grad.numpy(),
            }

        yield "PyTorch", with_torch
    except ImportError:
        pass
    try:
        import jax

        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_enable_x64", True)

        def loss_of(x, target):
            return -jax.nn.log_softmax(x)[target]

        with_grad = jax.value_and_grad(loss_of)

        def with_jax(row):
            loss, grad = with_grad(row, int(np.argmax(row)))
            return {
                "softmax": np.asarray(jax.nn.softmax(row)),
                "log_softmax": np.asarray(jax.nn.log_softmax(row)),
                "logsumexp": np.asarray(jax.nn.logsumexp(row)),
                "cross_entropy": np.asarray(loss),
                "gradient": np.asarray(grad),
            }

        yield "JAX", with_jax
    except ImportError:
        pass


def _written(row):
    return [float(v).hex() for v in row] if len(row) <= 100 else f"{len(row)} classes"


def measure(quick):
    """(library, function, dtype) to the worst distance, and to the row where it was found."""
    worst, found = {}, {}
    rows = [
        (dtype, name, row)
        for dtype in ("float32", "float64")
        for name, row in itertools.chain(inputs(dtype, quick), searched(dtype, quick))
    ]
    rows += [(dtype, *each) for dtype in ("float32", "float64") for each in long_rows(dtype)]
    check_extended()
    contestants = list(libraries())
    for dtype, kind, row in tqdm(rows, file=sys.stderr, mininterval=1):
        is_long = len(row) >= LONG
        reference, compare = (extended, extended_distance) if is_long else (exact, distance)
        want = reference(row)
        for library, work in contestants:
            if library == "JAX" and len(row) not in (2, 10, 100, 1000, 2**18, 2**20):
                continue  # compiles anew for each size
            with np.errstate(all="ignore"):
                results = work(row)
            for function, got in results.items():
                # logsumexp: of the maximum, where it and the logarithm of the sum nearly cancel
                scale = abs(float(row.max())) if function == "logsumexp" else 0
                d = compare(got, want[function], dtype, scale)
                key = f"{library}|{function}|{dtype}"
                if d > worst.get(key, -1):
                    worst[key], found[key] = d, (kind, _written(row))
    return worst, found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a sixth of the inputs")
    parser.add_argument("--worst", help="CSV for our worst cases of up to 100 classes")
    parser.add_argument("--readme", type=Path, help="file whose table between marks is replaced")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.quick)))
        return

    from csoftmax import _isa

    tables, cases = {}, []
    for isa in _isa.available():
        is_last = isa == _isa.available()[-1]
        done = subprocess.run(
            [sys.executable, __file__, "--child", *["--quick"] * arguments.quick],
            env={
                **os.environ,
                "CSOFTMAX_ISA": isa,
                "CSOFTMAX_ACCURACY": "all" if is_last else "ours",
            },
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        worst, found = json.loads(done.stdout.splitlines()[-1])
        for key, distance_found in worst.items():
            library, function, dtype = key.split("|")
            column = f"csoftmax {isa}" if library == "csoftmax" else library
            tables.setdefault((function, dtype), {})[column] = distance_found
            if library == "csoftmax":
                print(
                    f"{isa} {function} {dtype}: {distance_found:.2f} on {found[key][0]}",
                    file=sys.stderr,
                )
                if isinstance(found[key][1], list):
                    cases.append((function, dtype, *found[key]))
    columns = list(dict.fromkeys(column for row in tables.values() for column in row))
    lines = ["| function | dtype |" + "".join(f" {c} |" for c in columns)]
    lines += ["|---|---|" + "---|" * len(columns)]
    for (function, dtype), row in sorted(
        tables.items(), key=lambda t: (t[0][1], FUNCTIONS.index(t[0][0]))
    ):
        cells = [row.get(c) for c in columns]
        text = ["" if c is None else f"{c:.2f}" if c < 100 else f"{c:.1e}" for c in cells]
        lines.append(f"| {function} | {dtype} |" + "".join(f" {t} |" for t in text))
    print("\nLargest error found, in units of the last place\n", *lines, sep="\n")
    if arguments.readme:
        report.write_between_marks(arguments.readme, "accuracy", "\n".join(lines))
    if arguments.worst:
        with open(arguments.worst, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["function", "dtype", "kind", "logits"])
            for function, dtype, kind, row in cases:
                writer.writerow([function, dtype, kind, " ".join(row)])


if __name__ == "__main__":
    main()
