"""The C functions called with NumPy arrays, wherever their elements lie: strides and addresses, no checks."""

import numpy as np

from support.header import C, Double, Float, State

OK, BAD_TARGET, BAD_ARGUMENT = 0, 1, 2
IGNORE_NONE = -(2**63)
SUFFIX = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16"}


def function(name, dtype):
    return C[f"{name}_{SUFFIX[np.dtype(dtype).name]}"]


def of_rows(dtype):
    """The dtype of a row's results."""
    return np.dtype(np.float64 if np.dtype(dtype) == np.float64 else np.float32)


def address(a):
    return None if a is None else a.ctypes.data


def strides(a):
    """Those of rows and of classes, in elements."""
    return tuple(stride // a.itemsize for stride in a.strides)


def rows(x):
    return address(x), *x.shape, *strides(x)


def numbers(results, dtype):
    """What functions have returned, as an array, bit for bit."""
    return np.concatenate([np.frombuffer(each, dtype) for each in results])


# ---- Batches: x and outputs of classes are (n_rows, n_classes), all else (n_rows,); each returns a status ----


def write(name, x, out, n_threads=0):
    """softmax or log_softmax."""
    return function(name, x.dtype)(*rows(x), address(out), *strides(out), n_threads)


def logsumexp(x, out, n_threads=0):
    return function("logsumexp", x.dtype)(*rows(x), address(out), n_threads)


def cross_entropy(
    x,
    target,
    loss=None,
    logsumexp=None,
    grad=None,
    *,
    ignore_index=-100,
    scale=1.0,
    n_threads=0,
    bad_row=None,
):
    grad_at = (address(grad), *((0, 0) if grad is None else strides(grad)))
    targets = (address(target), target.itemsize, ignore_index)
    return function("cross_entropy", x.dtype)(
        *rows(x), *targets, address(loss), address(logsumexp), *grad_at, scale, n_threads, bad_row
    )


def log_prob(x, index, out, n_threads=0, bad_row=None):
    return function("log_prob", x.dtype)(
        *rows(x), address(index), index.itemsize, address(out), n_threads, bad_row
    )


def all_of_batch(x, target, ignore_index=-100, n_threads=0, out=None):
    """Every result of the batch functions; `out` makes an output like an array."""
    out = out or np.empty_like
    found = {name: out(x) for name in ("softmax", "log_softmax", "gradient")}
    columns = ("logsumexp", "losses", "their logsumexp", "log_prob")
    found |= {name: np.empty(len(x), of_rows(x.dtype)) for name in columns}
    index = np.where(target == ignore_index, 0, target).astype(target.dtype)
    statuses = [
        write("softmax", x, found["softmax"], n_threads),
        write("log_softmax", x, found["log_softmax"], n_threads),
        logsumexp(x, found["logsumexp"], n_threads),
        cross_entropy(
            x,
            target,
            found["losses"],
            found["their logsumexp"],
            found["gradient"],
            ignore_index=ignore_index,
            n_threads=n_threads,
        ),
        log_prob(x, index, found["log_prob"], n_threads),
    ]
    assert statuses == [OK] * 5
    return found


def all_of_rows(x, target):
    """The same from the row functions, one row after the other; rows are contiguous."""
    n = x.shape[1]
    found = {name: np.full(x.shape, 7, x.dtype) for name in ("softmax", "log_softmax", "gradient")}
    for name in ("softmax", "log_softmax"):
        for row, out in zip(x, found[name], strict=True):
            function(f"{name}_row", x.dtype)(address(row), n, address(out))

    def each_row(name, *more):
        call = function(f"{name}_row", x.dtype)
        results = [call(address(x[i]), n, *(each[i] for each in more)) for i in range(len(x))]
        return numbers(results, of_rows(x.dtype))

    target = [int(each) for each in target]
    found["logsumexp"] = each_row("logsumexp")
    found["losses"] = each_row("cross_entropy", target)
    grads = [address(row) for row in found["gradient"]]
    found["losses beside gradients"] = each_row(
        "cross_entropy_with_grad", target, [1.0] * len(x), grads
    )
    found["log_prob"] = each_row("log_prob", target)
    return found


# ---- States ----


def partial(state, x):
    """Add contiguous logits to a state, and return it."""
    function("partial", x.dtype)(state, address(x), x.size)
    return state


def merge(state, other, dtype):
    function("merge", of_rows(dtype))(state, other)
    return state


def finish(state, dtype):
    dtype = of_rows(dtype)
    return numbers([function("finish", dtype)(state)], dtype)[0]


def finish_loss(state, target_logit, dtype):
    dtype = of_rows(dtype)
    kind = {"float32": Float, "float64": Double}[np.dtype(dtype).name]
    logit = kind.from_buffer_copy(np.dtype(dtype).type(target_logit))
    return numbers([function("finish_loss", dtype)(state, logit)], dtype)[0]


def finish_grad(state, x, first_class=0, target=-1, scale=1.0, out=None):
    """The gradient of contiguous classes; probabilities without a target."""
    out = np.empty_like(x) if out is None else out
    arguments = (address(x), x.size, first_class, target, scale, address(out))
    function("finish_grad", x.dtype)(state, *arguments)
    return out


def state_of(x, piece=2048):
    """The state of contiguous logits, which come in pieces."""
    state = State()
    for first in range(0, x.size, piece):
        partial(state, x[first : first + piece])
    return state
