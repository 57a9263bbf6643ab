"""Arrays of the same values whose elements lie elsewhere in memory. All are copies."""

import numpy as np
from numpy.lib.stride_tricks import as_strided


def fortran(a):
    return a.copy("F")


def strided(a):
    """Every second element of each axis, of the last every third: strides that differ by more than a factor."""
    steps = (slice(None, None, 2),) * (a.ndim - 1) + (slice(None, None, 3),) * (a.ndim > 0)
    room = np.full([2 * n for n in a.shape[:-1]] + [3 * n for n in a.shape[-1:]], 7, a.dtype)
    view = room[(..., *steps)]
    view[...] = a
    return view


def reversed_along(a, *axes):
    """Backwards along these axes, or along all."""
    return np.flip(np.flip(a, axes or None).copy(), axes or None)


def backwards(a):
    return reversed_along(a)


def padded(a):
    room = np.full((*a.shape[:-1], a.shape[-1] + 3), 7, a.dtype)
    room[..., :-3] = a
    return room[..., :-3]


def misaligned(a, shift=1, margin=64):
    """So many bytes behind an aligned address, with a margin of other bytes before and behind."""
    buffer = np.full(a.nbytes + 2 * margin, 0xA5, np.uint8)
    start = (-buffer.ctypes.data) % margin + shift
    copy = buffer[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy


def packed_fields(a):
    """Fields of a packed record: every stride is odd."""
    room = np.zeros(a.shape, np.dtype([("tag", "u1"), ("a", a.dtype)]))
    room["a"] = a
    assert room["a"].strides[-1] % 2
    return room["a"]


def read_only(a):
    view = a.copy()
    view.flags.writeable = False
    return view


def other_byte_order(a):
    return a.astype(a.dtype.newbyteorder())


def first_axis_last_in_memory(a):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0)


def repeated(values, shape, axis):
    """`values` along one axis, with a stride of 0 along the other; not writable."""
    stride = values.itemsize
    return as_strided(values, shape, (stride, 0) if axis == 0 else (0, stride), writeable=False)


# Those that an output may have too, and those of inputs alone.
WRITABLE = [
    fortran,
    strided,
    backwards,
    padded,
    misaligned,
    packed_fields,
    first_axis_last_in_memory,
]
LAYOUTS = [*WRITABLE, read_only, other_byte_order]
# Of rows and classes, in steps of whole elements: what csoftmax.h takes.
OF_ROWS = {
    "contiguous": lambda a: a.copy(),
    "columns": fortran,
    "padded": padded,
    "strided": strided,
    "rows backwards": lambda a: reversed_along(a, 0),
    "classes backwards": lambda a: reversed_along(a, 1),
    "columns backwards": lambda a: fortran(a[::-1, ::-1])[::-1, ::-1],
    "misaligned": misaligned,
    "misaligned columns": lambda a: misaligned(a.T, 3).T,
    "misaligned backwards": lambda a: misaligned(a[::-1, ::-1], 2)[::-1, ::-1],
}
