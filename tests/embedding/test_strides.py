"""What programs of other languages do with arrays that are not as they need them: an error, and never wrong numbers."""

import building
import pytest
from building import HERE, STRICT, SUFFIX
from test_consumers import blocks_of, run

# Each holds what x holds, but not as neighbours that may be written, of x's dtype.
OTHERS = """
    def read_only(a):
        a.flags.writeable = False
        return a
    others = {
        "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
        "reversed": lambda x: x[..., ::-1].copy()[..., ::-1],
        "broadcast": lambda x: np.broadcast_to(x[..., :1], x.shape),
        "integers": lambda x: x.astype(np.int64),
        "wider or narrower": lambda x: x.astype(np.float64 if x.dtype == np.float32 else np.float32),
        "of two dimensions": lambda x: x[:, None],
        "read-only": lambda x: read_only(x.copy()),
    }
    def refused(error, function, *arguments, **options):
        try:
            function(*arguments, **options)
        except error:
            return True
        return False
"""


def test_numba_refuses_what_is_not_contiguous_and_takes_its_copy():
    pytest.importorskip("numba", exc_type=ImportError)
    body = f"""{OTHERS}
    from numba_consumer import softmax_of_groups
    starts = np.array([0, 10, 11, 500])
    x = logits_of(rng, starts[-1], np.float64)
    expected = softmax_of_groups(x, starts)
    assert same_bits(expected, np.concatenate([csoftmax.softmax(x[a:b]) for a, b in zip(starts, starts[1:])]))
    for name, made in others.items():
        assert refused(TypeError, softmax_of_groups, made(x), starts), name
    for name in ("strided", "reversed"):
        assert refused(TypeError, softmax_of_groups, x, others[name](starts)), name
        assert same_bits(softmax_of_groups(np.ascontiguousarray(others[name](x)), starts), expected)
    print("done")
"""
    run(HERE, body)


def test_ctypes_refuses_shards_that_are_not_contiguous_before_anything_is_written():
    body = f"""{OTHERS}
    from ctypes_consumer import cross_entropy
    x = logits_of(rng, 4096, np.float32)
    for name, made in others.items():
        first = x[:2048].copy()
        assert refused(ctypes.ArgumentError, cross_entropy, [first, made(x[2048:])], 7), name
        assert same_bits(first, x[:2048])
    assert cross_entropy([x[:2048].copy(), x[2048:].copy()], 7) == csoftmax.cross_entropy(x, 7)
    print("done")
"""
    run(HERE, body)


def test_cython_refuses_logits_and_targets_that_are_not_contiguous(tmp_path):
    pytest.importorskip("Cython", reason="the test extra is not installed")
    (tmp_path / "readme.pyx").write_text(*blocks_of("README.md", "cython"))
    for source in (HERE / "consumer.pyx", tmp_path / "readme.pyx"):
        building.shared(building.cython(source, tmp_path), tmp_path / f"{source.stem}{SUFFIX}")
    body = f"""{OTHERS}
    import consumer, readme
    x, target = logits_of(rng, (30, 20), np.float32), np.arange(30) % 20
    for name, made in others.items():
        logits = made(x)
        assert refused(ValueError, consumer.mean_loss, logits, target), name
        if name != "read-only":
            assert refused(ValueError, consumer.mean_loss, x, made(target)) or name == "integers"
            assert refused(ValueError, readme.loss, made(x[0]), 5), name
    before = x.copy()
    assert refused(ValueError, consumer.mean_loss, x.T, target[:20])
    assert same_bits(x, before)
    assert readme.loss(others["read-only"](x[0]), 5) == csoftmax.cross_entropy(x[0], 5)
    print("done")
"""
    run(tmp_path, body)


def test_c_refuses_pieces_that_are_strided_or_end_within_a_number(tmp_path):
    building.shared(HERE / "consumer.c", tmp_path / f"consumer{SUFFIX}", "-std=c99", *STRICT)
    body = f"""{OTHERS}
    from consumer import loss_of_pieces
    x = logits_of(rng, 4096, np.float32)
    for name in ("strided", "reversed", "broadcast"):
        assert refused(ValueError, loss_of_pieces, [x[:2048], others[name](x[2048:])], 7), name
    assert refused(ValueError, loss_of_pieces, [x.tobytes()[:-1]], 7)
    assert loss_of_pieces([x[:2048], x[2048:]], 7) == csoftmax.cross_entropy(x, 7)
    print("done")
"""
    run(tmp_path, body)


def test_cffi_refuses_what_is_not_contiguous():
    pytest.importorskip("cffi", reason="cffi is not installed")
    body = f"""{OTHERS}
    import cffi
    ffi = cffi.FFI()
    logsumexp = ffi.cast("float (*)(const float *, ptrdiff_t)", csoftmax.address("logsumexp_row_f32"))
    x = logits_of(rng, 100, np.float32)
    for name in ("strided", "reversed", "broadcast"):
        assert refused(ValueError, ffi.from_buffer, "float[]", others[name](x)), name
    assert logsumexp(ffi.from_buffer("float[]", x), x.size) == csoftmax.logsumexp(x)
    print("done")
"""
    run(HERE, body)
