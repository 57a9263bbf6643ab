"""Random calls: functions, dtypes, shapes, layouts, values over the whole range of each dtype, options, outputs."""

import functools
from dataclasses import dataclass, field

import judge
import numpy as np
from judge import ResultError

import csoftmax
from csoftmax import functional, special
from support import layouts

SIGMAS = (0.1, 1, 1, 10, 30, 1000)
AROUND_LANES = [n + d for n in (16, 32, 64, 96, 128, 256) for d in (-1, 0, 1)]
INTEGERS = "?bBhHiIlLqQ"


@dataclass
class Call:
    """A call of a public function, and what judges its result from copies of its arguments."""

    name: str
    function: object
    arguments: dict  # in the order of the call; the first `n_positional` by position
    n_positional: int
    judge: object  # of the copies and the result
    may_refuse: bool = False  # where an output overlaps what is read
    base: object = None  # the array that `out` is a view of, and which of its bytes it has
    inside: object = None
    notes: list = field(default_factory=list)

    def run(self):
        """Call and judge; return whether it was answered, False if refused."""
        copies = {key: copied(value) for key, value in self.arguments.items()}
        out = self.arguments.get("out")
        before = None if self.base is None else self.base.copy()
        values = list(self.arguments.values())
        named = dict(list(self.arguments.items())[self.n_positional :])
        try:
            with np.errstate(all="raise"):
                result = self.function(*values[: self.n_positional], **named)
        except (TypeError, ValueError) as error:
            if self.may_refuse:
                return False
            raise ResultError(f"{self.name}: {type(error).__name__}: {error}") from error
        except Exception as error:
            raise ResultError(f"{self.name}: {type(error).__name__}: {error}") from error
        if out is not None:
            answer = result[1] if isinstance(result, tuple) else result
            if answer is not out:
                raise ResultError(f"{self.name}: the result is not the out that was given")
        with np.errstate(all="ignore"):
            self.judge(copies, result)
        for key, value in self.arguments.items():
            if isinstance(value, np.ndarray) and value is not out:
                if out is not None and np.may_share_memory(value, out):
                    continue
                if not same_bytes(value, copies[key]):
                    raise ResultError(f"{self.name}: the argument {key} has changed")
        if before is not None:
            after = np.where(self.inside, before, self.base)
            if not same_bytes(after, before):
                raise ResultError(f"{self.name}: bytes beside out have changed")
        return True

    def shown(self):
        """The arguments, to be read by a person."""
        lines = [self.name, *self.notes]
        with np.printoptions(threshold=40, edgeitems=4, linewidth=110):
            for key, value in self.arguments.items():
                if isinstance(value, np.ndarray):
                    lines.append(
                        f"  {key}: {value.dtype.str} {value.shape}, strides {value.strides}"
                    )
                    lines.append(f"    {value!s}" if key != "out" else "    its values are written")
                else:
                    lines.append(f"  {key} = {value!r}")
        return "\n".join(lines)


def copied(value):
    return (
        np.array(value, value.dtype.newbyteorder("=")) if isinstance(value, np.ndarray) else value
    )


def same_bytes(a, b):
    if a.dtype.isnative:
        return a.tobytes() == b.tobytes()
    return a.astype(b.dtype).tobytes() == b.tobytes()


# Shapes


def n_classes_of(rng):
    kind = rng.random()
    if kind < 0.02:
        return 0
    if kind < 0.07:
        return 1
    if kind < 0.48:
        return int(rng.integers(2, 9))
    if kind < 0.74:
        return int(rng.choice(AROUND_LANES))
    if kind < 0.94:
        return int(rng.integers(9, 130))
    if kind < 0.965:
        return int(rng.choice([1000, 1023, 1024]))
    if kind < 0.985:
        return int(rng.choice([2047, 2048, 2049]))
    if kind < 0.998:
        return int(rng.choice([4096, 4100, 4097]))
    if kind < 0.9999:
        return int(rng.integers(20_000, 24_000))
    return int(rng.integers(2**17, 2**18 + 100))


def n_rows_of(rng, n_classes):
    kind = rng.random()
    if kind < 0.02:
        return 0
    if kind < 0.2:
        n = 1
    elif kind < 0.7:
        n = int(rng.integers(1, 9))
    elif kind < 0.98:
        n = int(rng.integers(1, 41))
    elif kind < 0.999:
        n = 300
    else:
        n = int(rng.choice([3000, 3000, 3000, 50_000]))
    room = max(8000, 2 * n) if kind >= 0.98 else 2500
    return max(1, min(n, room // max(n_classes, 1)))


def shape_of(rng, at_least=1, class_axis=None):
    """A shape and its axis of classes; `class_axis` is PyTorch's rule."""
    n_classes = n_classes_of(rng)
    n_rows = n_rows_of(rng, n_classes)
    n_dims = int(rng.choice([1, 2, 2, 2, 3])) if at_least == 1 else 2
    if n_dims == 1:
        if rng.random() < 0.03:
            n_classes = int(rng.integers(2049, 10_000))
        return (n_classes,), 0
    if n_dims == 2:
        rows = (n_rows,)
    else:
        second = int(rng.integers(1, 5)) if rng.random() < 0.9 else n_rows
        rows = (max(n_rows // max(second, 1), min(n_rows, 1)), second)
        if rng.random() < 0.5:
            rows = rows[::-1]
    axis = int(rng.integers(0, len(rows) + 1)) if class_axis is None else class_axis
    if class_axis is None and rng.random() < 0.5:
        axis = len(rows)
    return (*rows[:axis], n_classes, *rows[axis:]), axis


# Values


def powers(rng, shape, low, high):
    return np.ldexp(1 + rng.random(shape), rng.integers(low, high, shape))


def signed(rng, values):
    return np.where(rng.random(np.shape(values)) < 0.5, -values, values)


def float_values(rng, shape, dtype, axis):
    """Numbers of one regime in float64, within `dtype`'s range."""
    info = np.finfo(dtype)
    low = info.minexp - info.nmant
    regime = rng.choice(
        ["normal", "ties", "equal", "confident", "range", "far", "max", "cancel", "steps", "tiny"],
        p=[0.3, 0.08, 0.04, 0.12, 0.1, 0.06, 0.06, 0.08, 0.12, 0.04],
    )
    if regime == "normal":
        return rng.normal(0, rng.choice(SIGMAS), shape)
    if regime == "ties":
        return rng.integers(-3, 4, shape) * float(rng.choice([1.0, 0.5, 100.0, 1e-3]))
    if regime == "equal":
        return np.full(shape, rng.choice([0.0, -0.0, 1.0, rng.normal(0, 30), float(info.max)]))
    if regime == "confident":
        values = rng.normal(0, rng.choice([0.01, 1, 3]), shape)
        top = np.expand_dims(rng.integers(0, max(shape[axis], 1), np.delete(shape, axis)), axis)
        if values.size:
            raised = np.take_along_axis(values, top, axis) + rng.choice([10, 20, 40, 90, 200, 740])
            np.put_along_axis(values, top, raised, axis)
        return values
    if regime == "range":
        return signed(rng, powers(rng, shape, low, info.maxexp))
    if regime == "far":  # beside each other and far from 0
        base = powers(rng, (), -5, info.maxexp - 2)
        return signed(rng, base) + base * float(info.eps) * rng.integers(-20, 20, shape)
    if regime == "max":
        most = float(info.max)
        return rng.choice([most, -most, most / 2, -most / 2, most * 0.9999, 0.0, 1.0], shape)
    if regime == "cancel":  # log-sum-exp near 0
        n = max(shape[axis], 1)
        return rng.normal(0, rng.choice([1e-9, 1e-3, 0.3]), shape) - np.log(n)
    if regime == "steps":  # probabilities around the smallest numbers
        edge = {2: 90.0, 4: 96.0, 8: 727.0}[np.dtype(dtype).itemsize]
        width = float(rng.choice([20, 60]))
        values = -rng.uniform(edge - width, edge + width, shape)
        if values.size:
            index = [slice(None)] * len(shape)
            index[axis] = slice(0, int(rng.integers(1, 3)))
            values[tuple(index)] = rng.choice([0.0, 0.0, -1.0, 5.0])
            order = rng.permutation(shape[axis])
            values = np.take(values, order, axis)
        return values
    return signed(rng, powers(rng, shape, low, low + 30))


def logits_of(rng, shape, axis, dtype=None, temperature=1.0, specials=True):
    """Logits of some dtype (native, C-contiguous)."""
    if dtype is None:
        dtype = rng.choice(["f4", "f8", "f2", "i"], p=[0.46, 0.42, 0.05, 0.07])
    if dtype == "i":
        return integers_of(rng, shape)
    dtype = np.dtype(dtype)
    values = np.asarray(float_values(rng, shape, dtype, axis), np.float64)
    if rng.random() < 0.15 and len(shape) > 1:
        other = np.asarray(float_values(rng, shape, dtype, axis), np.float64)
        rows = np.delete(shape, axis)
        values = np.where(np.expand_dims(rng.random(rows) < 0.5, axis), values, other)
    if temperature != 1.0 and rng.random() < 0.6:
        values = values * temperature
    if specials and values.size and rng.random() < 0.2:
        kind = rng.choice(["-", "-", "-", "+", "nan", "all"])
        part = rng.random(shape) < rng.choice([0.02, 0.2, 0.7])
        if kind == "-":
            values = np.where(part, -np.inf, values)
        elif kind == "+":
            values = np.where(part & (rng.random(shape) < 0.3), np.inf, values)
        elif kind == "nan":
            values = np.where(part & (rng.random(shape) < 0.3), np.nan, values)
        else:
            values = np.where(part, rng.choice([-np.inf, -np.inf, np.inf, np.nan], shape), values)
    finite = np.isfinite(values)
    most = float(np.finfo(dtype).max)
    values = np.where(finite, np.clip(values, -most, most), values)
    return values.astype(dtype)


def integers_of(rng, shape):
    dtype = np.dtype(rng.choice(list(INTEGERS)))
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    info = np.iinfo(dtype)
    kind = rng.random()
    if kind < 0.4:
        return rng.integers(max(info.min, -50), min(info.max, 50), shape).astype(dtype)
    if kind < 0.6:
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    edge = int(rng.choice([info.max, info.min, info.max // 2, info.max // 1000]))
    low = min(max(edge - 40, info.min), info.max - 60)
    return rng.integers(low, low + 60, shape, dtype, endpoint=True)


def temperature_of(rng):
    kind = rng.random()
    if kind < 0.6:
        return 1.0
    if kind < 0.75:
        return float(rng.uniform(0.05, 20))
    if kind < 0.82:
        return float(rng.choice([0.5, 2.0, 1e-3, 0.1, 1e3]))
    if kind < 0.9:
        return float(powers(rng, (), -120, 120))
    return float(powers(rng, (), -1074, 1023))


def factors_of(rng, shape, may_be_infinite=True):
    """Weights, gradients, factors: mostly float64, over its whole range."""
    dtype = rng.choice(["f8", "f4", "i4", "f2"], p=[0.78, 0.14, 0.05, 0.03])
    if dtype == "i4":
        return rng.integers(-3, 4, shape).astype(dtype)
    info = np.finfo(dtype)
    low = info.minexp - info.nmant
    kind = rng.choice(
        ["uniform", "constant", "signed", "range", "wide", "subnormal", "max", "cancel", "small"],
        p=[0.3, 0.1, 0.1, 0.12, 0.1, 0.06, 0.06, 0.08, 0.08],
    )
    if kind == "uniform":
        values = rng.uniform(0, 2, shape)
    elif kind == "constant":
        constants = [0.3, 0.1, 1.0, 1e-310, 1e-46, 1e-39, 1e39, 1e300, 1e20, 1e35]
        values = np.full(shape, rng.choice(constants))
    elif kind == "signed":
        values = rng.normal(0, 1, shape)
    elif kind == "range":
        values = powers(rng, shape, low, info.maxexp)
    elif kind == "wide":
        values = signed(rng, powers(rng, shape, low, info.maxexp))
    elif kind == "subnormal":
        values = powers(rng, shape, low, low + 60)
    elif kind == "max":
        values = rng.choice([1.0, 0.5, 0.99, 1e-3], shape) * float(info.max)
    elif kind == "cancel":
        values = rng.choice([1.0, -1.0, 2.0, -2.0, 0.5], shape)
    else:
        values = powers(rng, shape, -160, -100)
    values = np.asarray(values)
    if rng.random() < 0.2:
        values = np.where(rng.random(shape) < 0.4, 0.0, values)
    if may_be_infinite and rng.random() < 0.04:
        values = np.where(rng.random(shape) < 0.3, rng.choice([np.inf, -np.inf, np.nan]), values)
    with np.errstate(all="ignore"):
        return values.astype(dtype)


# Layouts


def laid_out(rng, a, plain=0.45):
    """The same values in another layout or byte order; a broadcast one repeats some of them."""
    if rng.random() < plain or a.ndim == 0:
        return a
    kind = rng.choice(
        ["fortran", "strided", "negative", "broadcast", "misaligned", "read-only", "swapped"]
    )
    if kind == "fortran":
        return layouts.fortran(a)
    if kind == "strided":
        return layouts.strided(a)
    if kind == "negative":
        return layouts.reversed_along(a, int(rng.integers(a.ndim)))
    if kind == "broadcast" and a.size:
        axis = int(rng.integers(a.ndim))
        return np.broadcast_to(np.take(a, [0], axis), a.shape)
    if kind == "misaligned":
        return layouts.misaligned(a)
    if kind == "swapped":
        return a.astype(a.dtype.newbyteorder(">"))
    return layouts.read_only(a) if kind == "read-only" else a


def array_out(rng, shape, dtype):
    """An output of some layout, the array whose part it is, and which elements of that it has."""
    kind = rng.choice(["plain", "strided", "fortran", "transposed", "misaligned"])
    dtype = np.dtype(dtype)
    if kind == "strided" and shape:
        step = int(rng.choice([2, -1, 3]))
        base = np.full((*shape[:-1], 3 * shape[-1]), 7, dtype)
        cut = (..., slice(None, shape[-1] * abs(step), step))
        if step < 0:
            cut = (..., slice(shape[-1] - 1 if shape[-1] else 0, None, -1))
        inside = np.zeros(base.shape, bool)
        inside[cut] = True
        return (base[cut], base, inside) if base[cut].shape == tuple(shape) else (None, None, None)
    if kind == "fortran":
        return np.full(shape, 7, dtype, order="F"), None, None
    if kind == "transposed":
        return np.full(shape[::-1], 7, dtype).T, None, None
    if kind == "misaligned":
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        base = np.full(size + 8, 7, np.uint8)
        inside = np.zeros(base.shape, bool)
        inside[3 : 3 + size] = True
        return base[3 : 3 + size].view(dtype).reshape(shape), base, inside
    return np.full(shape, 7, dtype), None, None


def may_be_out(value, shape, dtype):
    fits = isinstance(value, np.ndarray) and value.dtype == dtype and value.shape == tuple(shape)
    return fits and value.flags.writeable and 0 not in value.strides


def with_output(rng, call, readers, shape, dtype):
    """Give `call` an `out`: of its own, one of its arguments, or one that overlaps an argument's memory."""
    kind = rng.random()
    if kind < 0.55:
        return call
    arguments = call.arguments
    dtype = np.dtype(dtype)
    if kind < 0.75:
        fitting = [key for key in readers if may_be_out(arguments.get(key), shape, dtype)]
        if fitting:
            key = fitting[int(rng.integers(len(fitting)))]
            arguments["out"] = arguments[key]
            call.notes.append(f"  out is {key}")
            return call
    elif kind < 0.85:
        key = readers[int(rng.integers(len(readers)))]
        value = arguments.get(key)
        if isinstance(value, np.ndarray) and value.size and value.dtype.kind != "b":
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            shift = int(rng.integers(0, 12)) * int(rng.choice([4, 8]))
            base = np.zeros(value.nbytes + size + 128, np.uint8)
            first, second = (0, shift) if rng.random() < 0.5 else (shift, 0)
            view = base[first : first + value.nbytes].view(value.dtype).reshape(value.shape)
            view[...] = value
            arguments[key] = view
            arguments["out"] = base[second : second + size].view(dtype).reshape(shape)
            call.may_refuse = True
            call.notes.append(f"  out overlaps {key} by {shift} bytes")
            return call
    arguments["out"], call.base, call.inside = array_out(rng, shape, dtype)
    if arguments["out"] is None:
        del arguments["out"]
    return call


def written(axis, n_dims, rng):
    return axis - n_dims if rng.random() < 0.5 else axis


def threads(rng):
    return [None, 1, 2][int(rng.integers(3))]


# Functions


def draw_elementwise(rng, name):
    log = name == "log_softmax"
    shape, axis = shape_of(rng)
    temperature = temperature_of(rng)
    x = laid_out(rng, logits_of(rng, shape, axis, temperature=temperature))
    if rng.random() < 0.01:
        x, axis = x.reshape(-1)[:1].reshape(()) if x.size else x, 0 if x.size else axis
    arguments = {
        "x": x,
        "axis": written(axis, max(x.ndim, 1), rng),
        "temperature": temperature,
        "n_threads": threads(rng),
    }

    def check(copies, result):
        judge.softmax(name, copies["x"], copies["axis"], temperature, result, log)

    call = Call(name, getattr(csoftmax, name), arguments, 2, check)
    return with_output(rng, call, ["x"], x.shape, judge.elementwise(x.dtype))


def draw_logsumexp(rng, name):
    shape, axis = shape_of(rng)
    temperature = temperature_of(rng)
    x = laid_out(rng, logits_of(rng, shape, axis, temperature=temperature))
    keepdims = bool(rng.random() < 0.3)
    arguments = {
        "x": x,
        "axis": written(axis, x.ndim, rng),
        "keepdims": keepdims,
        "temperature": temperature,
        "n_threads": threads(rng),
    }

    def check(copies, result):
        judge.logsumexp(name, copies["x"], axis, temperature, result, keepdims)

    call = Call(name, csoftmax.logsumexp, arguments, 1, check)
    out_shape = shape[:axis] + (1,) * keepdims + shape[axis + 1 :]
    return with_output(rng, call, ["x"], out_shape, judge.computed(x.dtype))


def draw_index_targets(rng, rows, n_classes, ignore_index):
    """Class indices of some dtype, some of them ignored."""
    dtypes = [each for each in "bBhHiIlLqQ" if np.iinfo(each).max >= n_classes - 1]
    dtype = np.dtype("l" if rng.random() < 0.5 else rng.choice(dtypes))
    target = rng.integers(0, max(n_classes, 1), rows).astype(dtype)
    info = np.iinfo(dtype)
    if ignore_index is not None and info.min <= ignore_index <= info.max:
        part = rng.choice([0.0, 0.2, 0.5, 1.0], p=[0.4, 0.3, 0.2, 0.1])
        target = np.where(rng.random(rows) < part, dtype.type(ignore_index), target)
        if n_classes == 0:
            target = np.full(rows, ignore_index, dtype)
    return np.asarray(target, dtype)


def ignore_index_of(rng, n_classes):
    return [
        -100,
        -100,
        -100,
        None,
        -1,
        int(rng.integers(0, max(n_classes, 1))),
        n_classes + 3,
        2**64 - 1,
        -(2**63),
    ][int(rng.integers(9))]


def draw_probabilities(rng, shape, axis, x):
    """Probability targets: proper ones, one-hot ones, or numbers over the whole range."""
    dtype = x.dtype.str if x.dtype.kind == "f" and rng.random() < 0.8 else "f8"
    dtype = dtype.replace(">", "=")
    kind = rng.random()
    if kind < 0.6 and shape[axis]:
        q = rng.random(shape) ** rng.choice([1, 4, 40])
        if rng.random() < 0.3:
            q *= rng.random(shape) < 0.3
        with np.errstate(all="ignore"):
            q = np.nan_to_num(q / q.sum(axis, keepdims=True))
        return q.astype(dtype)
    if kind < 0.75:
        q = np.zeros(shape)
        if q.size:
            index = rng.integers(0, shape[axis], np.delete(shape, axis))
            np.put_along_axis(q, np.expand_dims(index, axis), 1.0, axis)
        return q.astype(dtype)
    q = factors_of(rng, shape)
    with np.errstate(all="ignore"):
        return q.astype(dtype)


def draw_cross_entropy(rng, name):
    with_grad = name == "cross_entropy_with_grad"
    shape, axis = shape_of(rng)
    # One row: its weights and probabilities have the gradient's shape, which may be written there.
    is_shared = with_grad and rng.random() < 0.015
    if is_shared:
        shape, axis = (int(rng.integers(1, 9000)),), 0
    rows = shape[:axis] + shape[axis + 1 :]
    n_classes = shape[axis]
    temperature = temperature_of(rng)
    dtype = rng.choice(["f4", "f8"]) if is_shared else None
    logits = laid_out(rng, logits_of(rng, shape, axis, dtype, temperature))
    options = {"axis": written(axis, len(shape), rng)}
    is_index = rng.random() < (0.3 if is_shared else 0.62)
    if is_index:
        ignore_index = ignore_index_of(rng, n_classes)
        target = draw_index_targets(rng, rows, n_classes, ignore_index)
        if n_classes == 0 and ignore_index is None and target.size:
            ignore_index, target = 0, np.zeros(rows, np.int64)
        if n_classes == 0 and target.size:
            target = np.zeros(rows, np.int64)
            ignore_index = 0
        options["ignore_index"] = ignore_index
    else:
        target = draw_probabilities(rng, shape, axis, logits)
    target = laid_out(rng, target, 0.6)
    if is_shared:
        options["weight"] = rng.uniform(0, 2, n_classes).astype(dtype)
    elif rng.random() < 0.35:
        options["weight"] = laid_out(rng, factors_of(rng, (n_classes,)), 0.7)
    if rng.random() < 0.35:
        options["sample_weight"] = laid_out(rng, factors_of(rng, rows), 0.7)
    if rng.random() < 0.3:
        options["label_smoothing"] = float(rng.choice([0.1, 1.0, 0.5, 1e-10, 1e-310, rng.random()]))
    options["temperature"] = temperature
    options["reduction"] = reduction = ["mean", "sum", "none"][int(rng.integers(3))]
    options["n_threads"] = threads(rng)
    if with_grad and rng.random() < 0.35:
        shape_of_output = rows if reduction == "none" else ()
        grad_output = factors_of(rng, shape_of_output)
        options["grad_output"] = (
            laid_out(rng, grad_output, 0.7) if reduction == "none" else float(grad_output)
        )

    def check(copies, result):
        loss, grad = result if with_grad else (result, None)
        judge.cross_entropy(name, copies["logits"], copies["target"], copies, loss, grad, with_grad)

    function = getattr(csoftmax, name)
    call = Call(name, function, {"logits": logits, "target": target, **options}, 2, check)
    if not with_grad:
        return call
    if is_shared:
        call.arguments["out"] = options["weight"]
        call.notes.append("  out is weight")
        return call
    readers = ["logits", "target", "weight", "sample_weight", "grad_output"]
    readers = [key for key in readers if isinstance(call.arguments.get(key), np.ndarray)]
    return with_output(rng, call, readers, shape, judge.elementwise(logits.dtype))


def draw_log_prob(rng, name):
    shape, axis = shape_of(rng)
    rows = shape[:axis] + shape[axis + 1 :]
    temperature = temperature_of(rng)
    logits = laid_out(rng, logits_of(rng, shape, axis, temperature=temperature))
    several = (int(rng.integers(0, 4)),) if rng.random() < 0.4 else ()
    if shape[axis] == 0 and np.prod((*rows, *several)):
        several = (0,)
    index = laid_out(rng, draw_index_targets(rng, (*rows, *several), shape[axis], None), 0.6)
    arguments = {
        "logits": logits,
        "index": index,
        "axis": written(axis, len(shape), rng),
        "temperature": temperature,
        "n_threads": threads(rng),
    }

    def check(copies, result):
        judge.log_prob(name, copies["logits"], copies["index"], axis, temperature, result)

    return Call(name, csoftmax.log_prob, arguments, 2, check)


def draw_backward(rng, name):
    log = name == "log_softmax_backward"
    shape, axis = shape_of(rng)
    dtype = np.dtype(rng.choice(["f4", "f8", "f2"], p=[0.48, 0.48, 0.04]))
    is_softmax = rng.random() < 0.6
    x = logits_of(rng, shape, axis, dtype, specials=rng.random() < 0.3)
    x = np.where(np.isposinf(x) | np.isnan(x), 0, x).astype(dtype)
    y = softmax_of(x, axis, log).astype(dtype)
    if not is_softmax:
        if log:
            y = -np.abs(logits_of(rng, shape, axis, dtype, specials=False))
        elif rng.random() < 0.5:  # dropout, top-k masks
            y = np.where(rng.random(shape) < 0.5, y * dtype.type(rng.choice([1, 2])), 0)
        else:
            y = np.abs(rng.normal(0, 1, shape))
        y = y.astype(dtype)
    if rng.random() < 0.4:
        grad = logits_of(rng, shape, axis, dtype, specials=rng.random() < 0.1)
    else:
        with np.errstate(all="ignore"):
            grad = factors_of(rng, shape, False).astype(dtype)
        grad = np.where(np.isfinite(grad), grad, np.finfo(dtype).max).astype(dtype)
    if rng.random() < 0.08:
        grad = grad.astype(rng.choice(["f4", "f8"]))
    if rng.random() < 0.03:
        grad = rng.integers(-5, 6, shape)
    grad, y = laid_out(rng, grad), laid_out(rng, y)
    is_softmax = is_softmax and 0 not in y.strides and not (y.dtype.itemsize == 2)
    is_softmax = is_softmax and np.result_type(grad, y) == y.dtype.newbyteorder("=")
    arguments = {
        "grad": grad,
        "output": y,
        "axis": written(axis, len(shape), rng),
        "n_threads": threads(rng),
    }

    def check(copies, result):
        judge.backward(name, copies["grad"], copies["output"], axis, result, log, is_softmax)

    call = Call(name, getattr(csoftmax, name), arguments, 3, check)
    dtype = np.result_type(judge.elementwise(grad.dtype), judge.elementwise(y.dtype))
    return with_output(rng, call, ["grad", "output"], shape, dtype)


def softmax_of(x, axis, log):
    """A softmax, each number rounded once, as whoever made it would have it."""
    if not x.size:
        return x
    x = x.astype(np.longdouble)
    with np.errstate(all="ignore"):
        m = x.max(axis, keepdims=True)
        d = np.where(m == -np.inf, 0, x - m)
        e = np.exp(d)
        total = e.sum(axis, keepdims=True)
        return d - np.log(total) if log else e / total


def axes_drawn(rng, n_dims, axis):
    """SciPy's axis: None, one or several."""
    kind = rng.random()
    if kind < 0.3:
        return None
    if kind < 0.7 or n_dims < 2:
        return written(axis, n_dims, rng)
    n = int(rng.integers(1, n_dims + 1))
    return tuple(int(i) for i in rng.permutation(n_dims)[:n])


def draw_special_elementwise(rng, name):
    short = name.removeprefix("special.")
    shape, axis = shape_of(rng)
    x = laid_out(rng, logits_of(rng, shape, axis))
    axes = axes_drawn(rng, x.ndim, axis)

    def check(copies, result):
        judge.softmax(name, copies["x"], axes, 1.0, result, short == "log_softmax")

    return Call(name, getattr(special, short), {"x": x, "axis": axes}, 2, check)


def draw_special_logsumexp(rng, name):
    shape, axis = shape_of(rng)
    x = laid_out(rng, logits_of(rng, shape, axis))
    axes = axes_drawn(rng, x.ndim, axis)
    keepdims, return_sign = bool(rng.random() < 0.3), bool(rng.random() < 0.6)
    arguments = {"a": x, "axis": axes, "b": None, "keepdims": keepdims, "return_sign": return_sign}
    if rng.random() < 0.75:
        shape_b = (
            shape if rng.random() < 0.8 else tuple(n if rng.random() < 0.5 else 1 for n in shape)
        )
        kind = rng.random()
        if kind < 0.5:
            b = rng.choice([1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.0], shape_b)
            b = b.astype(x.dtype if x.dtype.kind == "f" else "f8")
        elif kind < 0.6:
            b = rng.integers(-3, 4, shape_b)
        else:
            b = factors_of(rng, shape_b)
            if rng.random() < 0.5 and b.dtype.kind == "f":
                b = np.abs(b)
        arguments["b"] = laid_out(rng, b.astype(b.dtype.newbyteorder("=")), 0.7)
    b_given = arguments["b"]
    # Cancelling pairs are frequent where exponents are few.
    if b_given is not None and rng.random() < 0.3 and x.dtype.kind == "f":
        values = rng.choice([40.0, 0.0, 100.0, 30.0, -5.0], shape).astype(x.dtype.newbyteorder("="))
        arguments["a"] = laid_out(rng, values)

    def check(copies, result):
        if copies["b"] is None and not return_sign:
            judge.logsumexp(name, copies["a"], axes, 1.0, result, keepdims)
        else:
            judge.weighted_logsumexp(
                name, copies["a"], copies["b"], axes, keepdims, return_sign, result
            )

    return Call(name, special.logsumexp, arguments, 1, check)


def draw_functional_elementwise(rng, name):
    short = name.removeprefix("functional.")
    shape, axis = shape_of(rng)
    x = laid_out(rng, logits_of(rng, shape, axis))
    dtype = None if rng.random() < 0.7 else rng.choice(["float16", "float32", "float64"])

    def check(copies, result):
        given = copies["input"]
        if dtype is not None and not (dtype == "float64" and given.dtype.kind in "iu"):
            given = given.astype(dtype)  # differences of large integers stay exact
        judge.softmax(name, given, axis, 1.0, result, short == "log_softmax")

    arguments = {"input": x, "dim": written(axis, x.ndim, rng), "dtype": dtype}
    return Call(name, getattr(functional, short), arguments, 2, check)


def draw_functional_logsumexp(rng, name):
    shape, axis = shape_of(rng)
    x = laid_out(rng, logits_of(rng, shape, axis))
    axes = axes_drawn(rng, x.ndim, axis)
    axes = written(axis, x.ndim, rng) if axes is None else axes
    keepdim = bool(rng.random() < 0.3)

    def check(copies, result):
        judge.logsumexp(name, copies["input"], axes, 1.0, result, keepdim)

    return Call(name, functional.logsumexp, {"input": x, "dim": axes, "keepdim": keepdim}, 2, check)


def draw_functional_loss(rng, name):
    shape, _ = shape_of(rng, class_axis=1)
    axis = 1 if len(shape) > 1 else 0
    rows, n_classes = shape[:axis] + shape[axis + 1 :], shape[axis]
    is_nll = name == "functional.nll_loss"
    logits = logits_of(rng, shape, axis)
    if is_nll and logits.dtype.kind == "f":
        logits = -np.abs(logits)
    logits = laid_out(rng, logits)
    options = {"reduction": ["mean", "sum", "none"][int(rng.integers(3))]}
    if is_nll or rng.random() < 0.65:
        ignore_index = ignore_index_of(rng, n_classes)
        if n_classes == 0:
            ignore_index, target = 0, np.zeros(rows, np.int64)
        else:
            target = draw_index_targets(rng, rows, n_classes, ignore_index)
        options["ignore_index"] = ignore_index
    else:
        target = draw_probabilities(rng, shape, axis, logits)
    target = laid_out(rng, target, 0.6)
    if rng.random() < 0.4:
        options["weight"] = laid_out(rng, factors_of(rng, (n_classes,)), 0.7)
    if not is_nll and rng.random() < 0.3:
        options["label_smoothing"] = float(rng.choice([0.1, 1.0, 1e-10, rng.random()]))
    short = name.removeprefix("functional.")

    def check(copies, result):
        if is_nll:
            judge.nll_loss(
                name,
                copies["input"],
                copies["target"],
                copies.get("weight"),
                copies["ignore_index"],
                copies["reduction"],
                result,
            )
        else:
            copies["axis"] = axis
            judge.cross_entropy(name, copies["input"], copies["target"], copies, result)

    return Call(
        name, getattr(functional, short), {"input": logits, "target": target, **options}, 2, check
    )


DRAWS = {
    "softmax": (draw_elementwise, 5),
    "log_softmax": (draw_elementwise, 5),
    "logsumexp": (draw_logsumexp, 5),
    "cross_entropy": (draw_cross_entropy, 8),
    "cross_entropy_with_grad": (draw_cross_entropy, 14),
    "log_prob": (draw_log_prob, 3),
    "softmax_backward": (draw_backward, 6),
    "log_softmax_backward": (draw_backward, 6),
    "special.softmax": (draw_special_elementwise, 2),
    "special.log_softmax": (draw_special_elementwise, 2),
    "special.logsumexp": (draw_special_logsumexp, 6),
    "functional.softmax": (draw_functional_elementwise, 1),
    "functional.log_softmax": (draw_functional_elementwise, 1),
    "functional.logsumexp": (draw_functional_logsumexp, 1),
    "functional.cross_entropy": (draw_functional_loss, 3),
    "functional.nll_loss": (draw_functional_loss, 3),
}


@functools.cache
def _names(only):
    names = [name for name in DRAWS if only is None or name in only]
    chances = np.array([DRAWS[name][1] for name in names], float)
    return names, np.cumsum(chances / chances.sum())


def draw(seed, number, only=None):
    """Call number `number` of the sequence that `seed` begins: the same whatever was called before."""
    rng = np.random.default_rng([seed, number])
    names, chances = _names(only)
    name = names[int(np.searchsorted(chances, rng.random(), "right"))]
    with np.errstate(all="ignore"):
        return DRAWS[name][0](rng, name)
