"""The table of cases: which operations, shapes and dtypes are measured, and their arrays."""

from dataclasses import dataclass

import numpy as np

import csoftmax

OPERATIONS = ["softmax", "log_softmax", "logsumexp", "cross_entropy", "cross_entropy_with_grad"]
# On some shapes: class weights with LABEL_SMOOTHING, targets that are probabilities, one index per row.
FURTHER_OPERATIONS = [
    "cross_entropy_smoothed",
    "cross_entropy_smoothed_with_grad",
    "cross_entropy_probabilities",
    "cross_entropy_probabilities_with_grad",
    "log_prob",
]
BACKWARD = ["softmax_backward", "log_softmax_backward"]  # on all shapes
LABEL_SMOOTHING = 0.1

# (group, shape, axis)
SHAPES = [
    ("tiny call", (1, 10), 1),
    ("tiny call", (32, 10), 1),
    ("tiny call", (1, 1000), 1),
    ("middle call", (5000, 5), 1),
    ("middle call", (1000, 50), 1),
    ("middle call", (500, 1000), 1),
    ("tiny rows", (1_000_000, 2), 1),
    ("tiny rows", (1_000_000, 3), 1),
    ("tiny rows", (1_000_000, 10), 1),
    ("tiny rows", (300_000, 16), 1),
    ("middle rows", (200_000, 32), 1),
    ("middle rows", (65_536, 100), 1),
    ("middle rows", (65_536, 128), 1),
    ("middle rows", (8192, 1000), 1),
    ("middle rows", (16_384, 1000), 1),
    ("middle rows", (4096, 4096), 1),
    ("vocabulary", (1024, 32_000), 1),
    ("vocabulary", (256, 128_256), 1),
    ("few long rows", (7, 262_144), 1),
    ("one long row", (1, 4_000_000), 1),
    ("other axis", (8, 21, 256, 256), 1),
    ("other axis", (64, 1000, 7, 7), 1),
    ("other axis", (1000, 8192), 0),
]
FURTHER_SHAPES = {  # float64 on the smaller ones: a quarter more time for all, not half
    "float32": {
        (1, 10),
        (1_000_000, 10),
        (65_536, 100),
        (8192, 1000),
        (1024, 32_000),
        (8, 21, 256, 256),
    },
    "float64": {(1, 10), (65_536, 100), (8192, 1000)},
}
# float16 and bfloat16, beside PyTorch's and our own float32.
HALF_SHAPES = {
    (1, 10),
    (8192, 1000),
    (65_536, 100),
    (1024, 32_000),
    (256, 128_256),
    (8, 21, 256, 256),
}
HALVES = ("float16", "bfloat16")
QUICK_SHAPES = {(1, 10), (300_000, 16), (65_536, 128), (8192, 1000)}  # float32 alone


def dtype_of(name):
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


@dataclass(frozen=True)
class Case:
    operation: str
    group: str
    shape: tuple[int, ...]
    axis: int
    dtype: str

    @property
    def n_classes(self):
        return self.shape[self.axis]

    @property
    def is_half(self):
        return self.dtype in HALVES

    @property
    def is_smoothed(self):
        return "smoothed" in self.operation

    @property
    def has_probabilities(self):
        return "probabilities" in self.operation

    @property
    def is_backward(self):
        return self.operation in BACKWARD

    @property
    def with_grad(self):
        return self.operation.endswith("with_grad")

    @property
    def function(self):
        """Name of the function of csoftmax, which the kind of target and the weights are no part of."""
        return self.operation.replace("_smoothed", "").replace("_probabilities", "")

    @property
    def bytes(self):
        """Of the logits, or of the gradient and the result that goes back; of the targets where they are as large."""
        size = int(np.prod(self.shape)) * dtype_of(self.dtype).itemsize
        return 2 * size if self.has_probabilities or self.is_backward else size

    @property
    def name(self):
        return f"{self.operation} {' x '.join(map(str, self.shape))} axis {self.axis} {self.dtype}"

    def arrays(self):
        """Logits with a spread of 3; targets of the remaining shape, or probabilities; always the same.

        On the way back, the output of the forward function and a gradient.
        """
        rng = np.random.default_rng(0)
        dtype = dtype_of(self.dtype)
        logits = rng.standard_normal(self.shape, dtype=np.float32).astype(dtype) * dtype.type(3)
        if self.is_backward:
            forward = getattr(csoftmax, self.operation.removesuffix("_backward"))
            grad = rng.standard_normal(self.shape, dtype=np.float32).astype(dtype)
            return forward(logits, self.axis, out=logits), grad
        if self.has_probabilities:
            q = np.exp(rng.standard_normal(self.shape, dtype=np.float32)).astype(self.dtype)
            return logits, q / q.sum(self.axis, keepdims=True)
        rows = self.shape[: self.axis] + self.shape[self.axis + 1 :]
        return logits, rng.integers(0, self.n_classes, rows)

    def weight(self):
        """One number per class, around 1."""
        return np.linspace(0.5, 1.5, self.n_classes).astype(dtype_of(self.dtype))


def cases(quick=False, only=""):
    """All cases, or those of the quick run; `only` is a part of group and name."""
    table = [
        Case(operation, group, shape, axis, dtype)
        for operations in (OPERATIONS, FURTHER_OPERATIONS, BACKWARD)
        for group, shape, axis in SHAPES
        for dtype in ("float32", "float64")
        if operations is not FURTHER_OPERATIONS or shape in FURTHER_SHAPES[dtype]
        for operation in operations
        if not quick or (shape in QUICK_SHAPES and dtype == "float32")
    ]
    table += [
        Case(operation, group, shape, axis, dtype)
        for operations in (OPERATIONS, ["log_prob"], BACKWARD)
        for group, shape, axis in SHAPES
        for dtype in HALVES
        if shape in HALF_SHAPES and not quick
        for operation in operations
    ]
    return [case for case in table if only in f"{case.group} {case.name}"]
