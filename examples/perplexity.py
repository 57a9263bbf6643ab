"""Perplexity of a text from a language model's logits, which stay in their file.

A (T, 32000) array of float16, bfloat16 or float32 logits is mapped into memory and read in blocks of
rows: log_prob gives each token's log-probability without an array of the logits' size, so what is needed
beside the page cache is one float32 per token, as exact as if the logits were float32. The same call with
several indices per row scores the likeliest tokens.

The script makes the file: random logits, and a text that is drawn from their softmax. .npy files do not
know bfloat16: its bits are stored, as uint16.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

import csoftmax


def blocks(n_rows, size, name):
    """Slices of `size` rows, with a progress bar."""
    for start in tqdm(range(0, n_rows, size), desc=name, unit="block"):
        yield slice(start, min(start + size, n_rows))


def dtype_of(name):
    """The dtype of the logits, and that of the file."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16), np.dtype(np.uint16)
    return np.dtype(name), np.dtype(name)


def write_logits(path, n_tokens, vocabulary, block, dtypes, rng):
    """Write logits (n_tokens, vocabulary); return a token for each row, drawn from its softmax."""
    dtype, stored = dtypes
    file = np.lib.format.open_memmap(path, "w+", stored, (n_tokens, vocabulary))
    logits, tokens = file.view(dtype), np.empty(n_tokens, np.int64)
    for rows in blocks(n_tokens, block, "writing"):
        logits[rows] = 4 * rng.standard_normal(logits[rows].shape, np.float32)
        # The largest of logits plus Gumbel noise is a draw from their softmax.
        noise = -np.log(rng.standard_exponential(logits[rows].shape))
        tokens[rows] = (logits[rows].astype(np.float64) + noise).argmax(axis=1)
    file.flush()
    return tokens


def token_log_probs(logits, tokens, block):
    """Log-probability of each token, (T,)."""
    log_p = np.empty(len(tokens), np.float32)
    for rows in blocks(len(tokens), block, "perplexity"):
        log_p[rows] = csoftmax.log_prob(logits[rows], tokens[rows])
    return log_p


def likeliest(logits, block, top):
    """Tokens with the `top` largest logits of each row, and their log-probabilities, both (T, top)."""
    tokens = np.empty((len(logits), top), np.int64)
    log_p = np.empty(tokens.shape, np.float32)
    for rows in blocks(len(logits), block, "candidates"):
        block_of_logits = logits[rows].astype(np.float32)
        tokens[rows] = np.argpartition(block_of_logits, -top, axis=1)[:, -top:]
        log_p[rows] = csoftmax.log_prob(logits[rows], tokens[rows])
    return tokens, log_p


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument(
        "--dtype",
        choices=["float16", "bfloat16", "float32"],
        default="float16",
        help="of the logits",
    )
    parser.add_argument("--block", type=int, default=128, help="rows at a time")
    parser.add_argument("--top", type=int, default=5, help="candidates for each token")
    arguments = parser.parse_args()
    n_tokens, block = arguments.tokens, arguments.block

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "logits.npy"
        rng = np.random.default_rng(0)
        dtypes = dtype_of(arguments.dtype)
        tokens = write_logits(path, n_tokens, arguments.vocabulary, block, dtypes, rng)
        logits = np.load(path, mmap_mode="r").view(dtypes[0])

        start = time.perf_counter()
        log_p = token_log_probs(logits, tokens, block)
        seconds = time.perf_counter() - start
        perplexity = np.exp(-log_p.mean(dtype=np.float64))
        at_once = np.exp(np.float64(csoftmax.cross_entropy(logits, tokens)))

        candidates, candidate_log_p = likeliest(logits, block, arguments.top)
        mass = np.exp(candidate_log_p, dtype=np.float64).sum(axis=1)
        hits = (candidates == tokens[:, None]).sum()
        last = slice(max(n_tokens - block, 0), n_tokens)
        array = np.empty(logits[last].shape, np.float32)  # results of half-width logits, unrounded
        csoftmax.log_softmax(logits[last], out=array)
        same = np.array_equal(
            candidate_log_p[last], np.take_along_axis(array, candidates[last], axis=1)
        )
        size = path.stat().st_size

    print(f"{n_tokens} tokens, {size / 1e6:.0f} MB of logits, {n_tokens / seconds:.0f} tokens/s")
    print(f"perplexity {perplexity:.6f} in blocks, {at_once:.6f} from one cross_entropy")
    spread = np.sqrt((mass * (1 - mass)).sum())
    print(
        f"the next token is one of the {arguments.top} likeliest {hits} times;"
        f" their probabilities promise {mass.sum():.1f} +- {spread:.1f}"
    )
    print(f"candidates' log-probabilities and log_softmax: {'the same' if same else 'other'} bits")
    if not same or abs(perplexity / at_once - 1) > 1e-6:
        raise SystemExit("the blocks differ from the whole")


if __name__ == "__main__":
    main()
