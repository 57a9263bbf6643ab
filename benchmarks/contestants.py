"""csoftmax and its peers: for a case, each gives a function of no arguments that does the work once, or None.

Where a library can write into an array that is there already, it does so (`out=`), all of them into the same one:
memory is not equally fast everywhere. "fresh" ones return a new one.
"""

import os
from dataclasses import replace
from functools import partial

import numpy as np
from cases import BACKWARD, LABEL_SMOOTHING, OPERATIONS

import csoftmax

WRITES_ARRAY = ("softmax", "log_softmax", "cross_entropy_with_grad", *BACKWARD)  # functions


def ours(case, logits, target, n_threads, out, axis=None):
    """With None, as many threads as pay; bench.py sets the limit of OpenMP."""
    function = getattr(csoftmax, case.function)
    axis = case.axis if axis is None else axis
    options = {} if n_threads is None else {"n_threads": n_threads}
    if out is not None and case.function in WRITES_ARRAY:
        options["out"] = out
    if case.is_smoothed:
        options |= {"weight": case.weight(), "label_smoothing": LABEL_SMOOTHING}
    if case.function.startswith(("cross_entropy", "log_prob")):
        return partial(function, logits, target, axis=axis, **options)
    if case.is_backward:
        return partial(function, target, logits, axis, **options)
    return partial(function, logits, axis, **options)


def mean_loss(xp, case, log_p, target, weight):
    """The formula of the loss, in NumPy or, as `xp`, jax.numpy."""
    axis = case.axis
    if case.has_probabilities:
        return -(target * log_p).sum(axis).mean()
    at_target = xp.take_along_axis(log_p, xp.expand_dims(target, axis), axis)
    if not case.is_smoothed:
        return -at_target.mean()
    weight_of_row = weight[target]
    smooth = (along(weight, case) * log_p).sum(axis) / case.n_classes
    sharp = weight_of_row * at_target.squeeze(axis)
    loss = (1 - LABEL_SMOOTHING) * sharp + LABEL_SMOOTHING * smooth
    return -loss.sum() / weight_of_row.sum()


def backward_formula(xp, case, output, grad):
    """The gradient with respect to the logits, in NumPy or jax.numpy."""
    if case.operation == "softmax_backward":
        return output * (grad - (output * grad).sum(case.axis, keepdims=True))
    return grad - xp.exp(output) * grad.sum(case.axis, keepdims=True)


def along(weight, case):
    """One number per class, so that it is broadcast along the classes of the logits."""
    return weight.reshape([-1 if i == case.axis else 1 for i in range(len(case.shape))])


def numpy_formula(case, logits, target, n_threads, out):
    """What people write."""
    axis, operation, weight = case.axis, case.operation, case.weight()
    rows = logits.size // case.n_classes
    index = None if case.has_probabilities else np.expand_dims(target, axis)
    if case.is_backward:
        return partial(backward_formula, np, case, logits, target)

    def formula():
        shifted = logits - logits.max(axis, keepdims=True)
        if operation == "softmax":
            e = np.exp(shifted)
            return e / e.sum(axis, keepdims=True)
        if operation == "logsumexp":
            return logits.max(axis) + np.log(np.exp(shifted).sum(axis))
        if operation == "cross_entropy_with_grad":
            p = np.exp(shifted)
            p /= p.sum(axis, keepdims=True)
            at_target = np.take_along_axis(p, index, axis)
            loss = -np.log(at_target).mean()
            np.put_along_axis(p, index, at_target - 1, axis)
            return loss, p / rows
        log_p = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
        if operation == "log_softmax":
            return log_p
        if operation == "log_prob":
            return np.take_along_axis(log_p, index, axis)
        loss = mean_loss(np, case, log_p, target, weight)
        if not case.with_grad:
            return loss
        p = np.exp(log_p, out=log_p)
        if case.has_probabilities:
            p -= target
            p /= rows
            return loss, p
        sharp = (1 - LABEL_SMOOTHING) * weight[index]
        smooth = LABEL_SMOOTHING / case.n_classes * weight
        p *= sharp + smooth.sum()
        p -= along(smooth, case)
        np.put_along_axis(p, index, np.take_along_axis(p, index, axis) - sharp, axis)
        p /= weight[index].sum()
        return loss, p

    return formula


def scipy(case, logits, target, n_threads, out):
    from scipy import special

    if case.operation.startswith("cross_entropy") or case.is_backward:
        return None
    if case.operation == "log_prob":
        index = np.expand_dims(target, case.axis)
        return lambda: np.take_along_axis(
            special.log_softmax(logits, axis=case.axis), index, case.axis
        )
    operation = getattr(special, case.operation)
    return lambda: operation(logits, axis=case.axis)


def tensor(array):
    """A tensor of the array's memory, also of bfloat16."""
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def torch(case, logits, target, n_threads, out):
    import torch

    torch.set_num_threads(n_threads)
    x, y, axis = tensor(logits), tensor(target), case.axis
    if case.operation.startswith("cross_entropy"):
        if axis == 0:  # its class axis is 1
            return None
        loss = partial(torch.nn.functional.cross_entropy, x, y)
        if case.is_smoothed:
            weight = torch.from_numpy(case.weight())
            loss = partial(loss, weight=weight, label_smoothing=LABEL_SMOOTHING)
        if not case.with_grad:
            return loss
        x.requires_grad_(True)

        def with_grad():
            x.grad = None
            loss().backward()

        return with_grad
    if case.is_backward:
        backward = getattr(torch.ops.aten, f"_{case.operation}_data")
        arguments = y, x, axis, x.dtype
        if out is None:
            return partial(backward, *arguments)
        name = "grad_input" if case.operation == "softmax_backward" else "out"
        return partial(backward.out, *arguments, **{name: tensor(out)})
    if case.operation == "log_prob":
        index = y.unsqueeze(axis)
        return lambda: torch.log_softmax(x, axis).gather(axis, index)
    if case.operation == "logsumexp":
        return lambda: torch.logsumexp(x, axis)
    operation = getattr(torch, case.operation)
    if out is None:
        return lambda: operation(x, axis)
    out = tensor(out)
    return lambda: operation(x, axis, out=out)


def jax(case, logits, target, n_threads, out):
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    x, y, axis = jnp.asarray(logits), jnp.asarray(target), case.axis
    weight = jnp.asarray(case.weight())

    def log_prob(x, y):
        return jnp.take_along_axis(jax.nn.log_softmax(x, axis), jnp.expand_dims(y, axis), axis)

    def cross_entropy(x, y):
        return mean_loss(jnp, case, jax.nn.log_softmax(x, axis), y, weight)

    if (
        case.is_backward
    ):  # the pullback of a forward pass that was made before, as a training step has it
        forward = getattr(jax.nn, case.operation.removesuffix("_backward"))
        start = x if "log" in case.operation else jnp.log(x)
        _, pullback = jax.vjp(partial(forward, axis=axis), start)
        work = jax.jit(lambda pullback, grad: pullback(grad))
        return lambda: work(pullback, y)[0].block_until_ready()
    if case.with_grad:
        work = jax.jit(jax.value_and_grad(cross_entropy))
        return lambda: work(x, y)[1].block_until_ready()
    if case.operation.startswith(("cross_entropy", "log_prob")):
        work = jax.jit(log_prob if case.operation == "log_prob" else cross_entropy)
        return lambda: work(x, y).block_until_ready()
    operation = {
        "softmax": jax.nn.softmax,
        "log_softmax": jax.nn.log_softmax,
        "logsumexp": jax.nn.logsumexp,
    }[case.operation]
    work = jax.jit(lambda x: operation(x, axis=axis))
    return lambda: work(x).block_until_ready()


def onnxruntime(case, logits, target, n_threads, out):
    import onnxruntime
    from onnx import TensorProto, helper

    operator = {
        "softmax": "Softmax",
        "log_softmax": "LogSoftmax",
        "logsumexp": "ReduceLogSumExp",
        "cross_entropy": "SoftmaxCrossEntropyLoss",
        "log_prob": "LogSoftmax",
    }.get(case.operation)
    if operator is None or (case.operation == "cross_entropy" and case.axis != 1):
        return None
    kind = TensorProto.FLOAT if case.dtype == "float32" else TensorProto.DOUBLE
    inputs = [helper.make_tensor_value_info("x", kind, logits.shape)]
    attributes, names, initializers = {"axis": case.axis}, ["x"], []
    if case.operation == "logsumexp":
        attributes, names = {"keepdims": 0}, ["x", "axes"]
        initializers = [helper.make_tensor("axes", TensorProto.INT64, [1], [case.axis])]
    if case.operation == "cross_entropy":
        attributes, names = {"reduction": "mean"}, ["x", "y"]
    result = {"logsumexp": target.shape, "cross_entropy": ()}.get(case.operation, logits.shape)
    nodes = [helper.make_node(operator, names, ["out"], **attributes)]
    if case.operation == "log_prob":
        target = np.expand_dims(target, case.axis)
        result = target.shape
        nodes[0].output[0] = "log_p"
        nodes.append(helper.make_node("GatherElements", ["log_p", "y"], ["out"], axis=case.axis))
    takes_target = case.operation in ("cross_entropy", "log_prob")
    if takes_target:
        inputs.append(helper.make_tensor_value_info("y", TensorProto.INT64, target.shape))
    graph = helper.make_graph(
        nodes,
        "case",
        inputs,
        [helper.make_tensor_value_info("out", kind, result)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, ["CPUExecutionProvider"]
        )
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return None
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(logits))
    if takes_target:
        binding.bind_ortvalue_input("y", onnxruntime.OrtValue.ortvalue_from_numpy(target))
    if out is None:
        binding.bind_output("out")
    else:
        if result != logits.shape:
            out = np.empty(result, case.dtype)
        binding.bind_ortvalue_output("out", onnxruntime.OrtValue.ortvalue_from_numpy(out))
    return lambda: session.run_with_iobinding(binding)


def sklearn(case, logits, target, n_threads, out):
    from sklearn._loss import HalfMultinomialLoss

    if (
        case.operation not in ("cross_entropy", "cross_entropy_with_grad", "log_prob")
        or len(case.shape) != 2
        or case.axis != 1
        or case.n_classes < 3
    ):
        return None
    if case.bytes > 1 << 26:
        return None  # minutes
    loss = HalfMultinomialLoss(n_classes=case.n_classes)
    y = target.astype(case.dtype)
    loss_out = np.empty(len(y), case.dtype)
    if not case.with_grad:
        losses = partial(loss.loss, y, logits, loss_out=loss_out, n_threads=n_threads)
        return lambda: -losses() if case.operation == "log_prob" else losses().mean()
    return lambda: loss.loss_gradient(
        y, logits, loss_out=loss_out, gradient_out=out, n_threads=n_threads
    )


PEERS = {
    "PyTorch": torch,
    "JAX": jax,
    "ONNX Runtime": onnxruntime,
    "scikit-learn": sklearn,
    "SciPy": scipy,
    "NumPy": numpy_formula,
}
HAS_OUT = {"PyTorch", "ONNX Runtime"}  # for softmax and log_softmax, and the way back


def contestants(case, n_threads, peers=PEERS):
    """Name to function for all who take part in the case; ours is first."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    logits, target = case.arrays()
    out = np.empty_like(logits)
    table = {"csoftmax": ours(case, logits, target, None, out)}
    if case.is_smoothed:  # the same arrays without weights and smoothing
        plain = replace(case, operation=case.function)
        table["csoftmax plain"] = ours(plain, logits, target, None, out)
    if case.function in WRITES_ARRAY:
        table["csoftmax fresh"] = ours(case, logits, target, None, None)
    if case.operation == "logsumexp":
        result = np.empty_like(csoftmax.logsumexp(logits, case.axis))
        table["csoftmax out"] = partial(ours(case, logits, target, None, None), out=result)
    if case.is_half:  # the same numbers in float32
        single = [x.astype(np.float32) if x.dtype == logits.dtype else x for x in (logits, target)]
        table["csoftmax float32"] = ours(case, *single, None, np.empty_like(single[0]))
    if case.group == "one long row":
        table["csoftmax one thread"] = ours(case, logits, target, 1, out)
    if case.group == "other axis" and case.operation in OPERATIONS:  # the same rows, contiguous
        rows = np.ascontiguousarray(np.moveaxis(logits, case.axis, -1))
        table["csoftmax last axis"] = ours(case, rows, target, None, np.empty_like(rows), -1)
    for name, make in PEERS.items():
        if name not in peers or (case.is_half and name != "PyTorch"):
            continue
        table[name] = make(case, logits, target, n_threads, out)
        if name in HAS_OUT and case.operation in ("softmax", "log_softmax", *BACKWARD):
            table[name + " fresh"] = make(case, logits, target, n_threads, None)
    return {name: work for name, work in table.items() if work is not None}
