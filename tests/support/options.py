"""Every option of every function at once: the arguments, and what the functions return for them."""

import numpy as np

import csoftmax
from support.cases import logits_of, probabilities_of, targets_of, weights_of

# What each function takes after x: class indices, or the result of the function that it goes back from.
AFTER_X = {
    **dict.fromkeys(["softmax", "log_softmax", "logsumexp"], lambda x: ()),
    **dict.fromkeys(
        ["cross_entropy", "cross_entropy_with_grad", "log_prob"],
        lambda x: (np.arange(len(x)) % x.shape[1],),
    ),
    "softmax_backward": lambda x: (csoftmax.softmax(x, n_threads=1),),
    "log_softmax_backward": lambda x: (csoftmax.log_softmax(x, n_threads=1),),
}


def called(name, x, **options):
    """What the function returns for x, as a list of arrays."""
    result = getattr(csoftmax, name)(x, *AFTER_X[name](x), **options)
    return list(result) if isinstance(result, tuple) else [result]


def arguments_of(rng, shape, axis, dtype):
    """An array for each argument beside the logits: of their shape, of the rows' shape, of the classes'."""
    rows = tuple(np.delete(shape, axis).tolist())
    output = csoftmax.softmax(logits_of(rng, shape, dtype, 3), axis)
    return {
        "target": targets_of(rng, shape, axis),
        "index": rng.integers(0, shape[axis], (*rows, 3)),
        "grad_output": rng.uniform(-2, 2, rows),
        "probabilities": probabilities_of(rng, shape, axis, dtype),
        "grad": logits_of(rng, shape, dtype, 1),
        "output": output,
        "log_output": np.log(np.maximum(output, np.finfo(dtype).tiny)),
        **weights_of(rng, shape, axis),
    }


def results_of(x, given, axis, n_threads=None):
    """Every option and new function, row by row: arrays of the logits' or of the rows' shape."""
    common = {"axis": axis, "n_threads": n_threads}
    weights = {"weight": given["weight"], "sample_weight": given["sample_weight"]}
    losses = {"reduction": "none", "grad_output": given["grad_output"], **weights, **common}
    loss, grad = csoftmax.cross_entropy_with_grad(x, given["target"], **losses)
    smoothed = csoftmax.cross_entropy_with_grad(
        x, given["target"], label_smoothing=0.1, temperature=1.7, **losses
    )
    plain = csoftmax.cross_entropy_with_grad(x, given["probabilities"], reduction="none", **common)
    soft = csoftmax.cross_entropy_with_grad(
        x, given["probabilities"], label_smoothing=0.1, temperature=0.3, **losses
    )
    return {
        "weighted loss": loss,
        "weighted gradient": grad,
        "smoothed loss": smoothed[0],
        "smoothed gradient": smoothed[1],
        "loss of probabilities": plain[0],
        "gradient of probabilities": plain[1],
        "smoothed loss of probabilities": soft[0],
        "smoothed gradient of probabilities": soft[1],
        "softmax": csoftmax.softmax(x, temperature=1.7, **common),
        "log_softmax": csoftmax.log_softmax(x, temperature=0.3, **common),
        "logsumexp": csoftmax.logsumexp(x, temperature=0.3, **common),
        "log_prob": csoftmax.log_prob(x, given["index"], temperature=1.7, **common),
        "softmax_backward": csoftmax.softmax_backward(given["grad"], given["output"], **common),
        "log_softmax_backward": csoftmax.log_softmax_backward(
            given["grad"], given["log_output"], **common
        ),
    }


def scalars_of(x, given, axis, n_threads=None):
    """Sums and means of all losses with options."""
    common = {"axis": axis, "n_threads": n_threads, "label_smoothing": 0.1}
    common |= {"weight": given["weight"], "sample_weight": given["sample_weight"]}
    return {
        (name, reduction): csoftmax.cross_entropy(x, given[name], reduction=reduction, **common)
        for name in ("target", "probabilities")
        for reduction in ("mean", "sum")
    }
