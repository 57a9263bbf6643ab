"""The table of cases: which operations, shapes and dtypes are measured."""

from dataclasses import dataclass

import numpy as np

OPERATIONS = ["softmax", "log_softmax", "logsumexp", "cross_entropy", "cross_entropy_with_grad"]

# (group, shape, axis)
SHAPES = [
    ("tiny call", (1, 10), 1),
    ("tiny call", (32, 10), 1),
    ("tiny call", (1, 1000), 1),
    ("tiny rows", (1_000_000, 2), 1),
    ("tiny rows", (1_000_000, 3), 1),
    ("tiny rows", (1_000_000, 10), 1),
    ("tiny rows", (300_000, 16), 1),
    ("middle rows", (200_000, 32), 1),
    ("middle rows", (65_536, 100), 1),
    ("middle rows", (65_536, 128), 1),
    ("middle rows", (8192, 1000), 1),
    ("middle rows", (16_384, 1000), 1),
    ("vocabulary", (1024, 32_000), 1),
    ("vocabulary", (256, 128_256), 1),
    ("one long row", (1, 4_000_000), 1),
    ("other axis", (8, 21, 256, 256), 1),
    ("other axis", (64, 1000, 7, 7), 1),
    ("other axis", (1000, 8192), 0),
]
QUICK_SHAPES = {(1, 10), (300_000, 16), (65_536, 128), (8192, 1000)}  # float32 alone


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
    def bytes(self):
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def name(self):
        return f"{self.operation} {' x '.join(map(str, self.shape))} axis {self.axis} {self.dtype}"

    def arrays(self):
        """Logits with a spread of 3, targets of the remaining shape; always the same."""
        rng = np.random.default_rng(0)
        logits = rng.standard_normal(self.shape, dtype=np.float32).astype(self.dtype) * 3
        rows = self.shape[: self.axis] + self.shape[self.axis + 1 :]
        return logits, rng.integers(0, self.n_classes, rows)


def cases(quick=False, only=""):
    """All cases, or those of the quick run; `only` is a part of group and name."""
    table = [
        Case(operation, group, shape, axis, dtype)
        for group, shape, axis in SHAPES
        for dtype in ("float32", "float64")
        for operation in OPERATIONS
        if not quick or (shape in QUICK_SHAPES and dtype == "float32")
    ]
    return [case for case in table if only in f"{case.group} {case.name}"]
