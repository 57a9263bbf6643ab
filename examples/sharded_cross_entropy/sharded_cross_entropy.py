"""Cross-entropy over a vocabulary that is sharded: each MPI rank holds some of the classes of every row.

    mpiexec -n 2 python sharded_cross_entropy.py

So are the logits of large language models in tensor-parallel training. No rank sees the others' logits: each sends
what csoftmax knows of its own, states of 24 bytes, merges those of all ranks in the order of the classes, and writes
the gradient for its own classes. shards.pyx calls csoftmax's C functions; pyximport, a part of Cython, builds it with
the C compiler into a temporary folder. `pip install mpi4py mpich` brings an MPI.

csoftmax itself measures a row in chunks of 2048 classes and merges these in order. If shards begin at multiples of
2048, a state for each chunk gives the bits of the unsharded loss and gradient; so does one for each shard, if only the
first has more than a chunk, and else one rounding of float64 or another is elsewhere. Shards that begin anywhere cut
other chunks, within which sums begin in float32: they are as exact, but have other bits. The first rank counts them.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyximport

import csoftmax

# Cython looks for csoftmax's .pxd files on sys.path, where an editable install is not.
sys.path.append(str(Path(csoftmax.__file__).parent.parent))
# Windows does not let go of a module that is in use.
with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    pyximport.install(build_dir=folder)
    import shards

    # Only now: this starts MPI, and a process with MPI had better not fork a compiler.
    from mpi4py import MPI

CHUNK = 2048


def sharded_cross_entropy(logits, first_class, target, piece, comm):
    """Losses (n_rows,), and the gradient of their mean with respect to this rank's logits (n_rows, width).

    The targets (n_rows,) are the same on all ranks. A state covers `piece` classes.
    """
    states = np.concatenate(comm.allgather(shards.measure(logits, piece)))
    target_logit = np.zeros(len(target), np.float32)
    own = np.flatnonzero((first_class <= target) & (target < first_class + logits.shape[1]))
    target_logit[own] = logits[own, target[own] - first_class]
    comm.Allreduce(MPI.IN_PLACE, target_logit)  # the sum of one logit and zeros is exact
    state = shards.merge(states)
    return shards.finish(state, logits, first_class, target, target_logit, 1 / len(target))


def units_apart(a, b):
    """Distances of float32 numbers in units of the last place: if of one sign, they lie as their bits do."""
    return np.abs(np.subtract(a.view(np.int32), b.view(np.int32), dtype=np.int64))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--classes", type=int, default=32_000)
    parser.add_argument("--multiple", type=int, default=CHUNK, help="of which shards begin")
    arguments = parser.parse_args()
    n_rows, n_classes, multiple = arguments.rows, arguments.classes, arguments.multiple

    comm = MPI.COMM_WORLD
    n_multiples = -(-n_classes // multiple)
    if n_multiples < comm.size:
        raise SystemExit(
            f"{comm.size} ranks need as many shards, {n_classes} classes make {n_multiples}"
        )
    bounds = [min(n_multiples * r // comm.size * multiple, n_classes) for r in range(comm.size + 1)]
    first_class, end = bounds[comm.rank], bounds[comm.rank + 1]
    target = np.random.default_rng(0).integers(0, n_classes, n_rows)
    rng = np.random.default_rng([1, comm.rank])
    logits = 4 * rng.standard_normal((n_rows, end - first_class), np.float32)

    whole = comm.gather(logits)
    if comm.rank == 0:
        whole = np.concatenate(whole, axis=1)
        _, gradient = csoftmax.cross_entropy_with_grad(whole, target)
        expected = csoftmax.cross_entropy(whole, target, reduction="none"), gradient
        print(f"{comm.size} ranks, {n_rows} rows of {n_classes} classes; shards from {bounds[:-1]}")
        print(f"mean loss {expected[0].mean():.6f}; beside the unsharded results:")

    for name, piece in ("shard", end - first_class), (f"{CHUNK} classes", CHUNK):
        losses, grad = sharded_cross_entropy(logits, first_class, target, piece, comm)
        grads = comm.gather(grad)
        if comm.rank == 0:
            got = losses, np.concatenate(grads, axis=1)
            apart = [units_apart(*pair) for pair in zip(got, expected, strict=True)]
            print(f"one state for each {name}")
            for what, units in zip(("losses", "gradient"), apart, strict=True):
                other = f"{np.count_nonzero(units)} of {units.size} with other bits"
                print(f"  {what}: {other}, furthest {units.max()} units in the last place")
    # The last results are those of chunks.
    if comm.rank == 0 and multiple % CHUNK == 0 and any(units.any() for units in apart):
        raise SystemExit("the sharded results differ from the unsharded ones")


if __name__ == "__main__":
    main()
