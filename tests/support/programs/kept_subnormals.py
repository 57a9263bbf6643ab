"""Whether subnormal numbers stay what they are after the import, and after calls."""

import numpy as np

import csoftmax


def kept():
    tiny, one = float("5e-324"), float("1")  # not constants that the compiler folds
    return tiny * one != 0 and (np.full(40, 5e-324) * one).all()


assert kept(), "import"
x = np.zeros((600, 500))
csoftmax.softmax(x, n_threads=2)
csoftmax.cross_entropy_with_grad(x, np.zeros(600, int), n_threads=2)
assert kept(), "calls"
