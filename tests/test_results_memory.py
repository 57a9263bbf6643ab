"""The memory of large results: kept for the next one, the system's to take, and NumPy's rules hold for the arrays."""

import ctypes
import mmap
import os
import re
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import csoftmax
from csoftmax import _batch, functional, special
from support import building, children, handlers
from support.bits import same_bits

pytestmark = pytest.mark.skipif(
    _batch.kept_memory() is None, reason="keeps no memory: not Linux, or CSOFTMAX_KEEP_MEMORY=0"
)
LARGE = 32 << 20  # bytes from which on memory is kept
SHAPE = (8400, 1000)  # of float32: 33.6 MB
MOST_BLOCKS, HUGE_PAGE = 4, 2 << 20
SMAPS = Path("/proc/self/smaps")


@pytest.fixture(autouse=True)
def nothing_kept():
    csoftmax.release_memory()
    yield
    csoftmax.release_memory()


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(20261124).standard_normal(SHAPE, np.float32)


def n_kept():
    return _batch.kept_memory()[0]


def kept_bytes():
    return _batch.kept_memory()[1]


def room(shape, dtype=np.float32):
    """An array of this shape that takes no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def owner(a):
    return a if a.base is None else a.base


TARGET = np.arange(SHAPE[0]) % SHAPE[1]
RESULTS = {
    "softmax": csoftmax.softmax,
    "log_softmax": csoftmax.log_softmax,
    "softmax along the first axis": lambda x: csoftmax.softmax(x, 0),
    "softmax of float64": lambda x: csoftmax.softmax(x.astype(np.float64)),
    "softmax of integers": lambda x: csoftmax.softmax(x.astype(np.int8)),
    "softmax of float16": lambda x: csoftmax.softmax(np.tile(x, 2).astype(np.float16)),
    "softmax of Fortran order": lambda x: csoftmax.softmax(np.asfortranarray(x)),
    "softmax with a temperature": lambda x: csoftmax.softmax(x, temperature=2.0),
    "log_softmax of a broadcast array": lambda x: csoftmax.log_softmax(room(SHAPE)),
    "gradient": lambda x: csoftmax.cross_entropy_with_grad(x, TARGET)[1],
    "gradient, all": lambda x: csoftmax.cross_entropy_with_grad(
        x, TARGET, sample_weight=np.ones(SHAPE[0]), label_smoothing=0.1
    )[1],
    "extreme gradient": lambda x: csoftmax.cross_entropy_with_grad(
        x, TARGET, grad_output=1e200, temperature=1e-3
    )[1],
    "softmax_backward": lambda x: csoftmax.softmax_backward(x, x),
    "log_softmax_backward": lambda x: csoftmax.log_softmax_backward(x, x),
    "special.softmax": lambda x: special.softmax(x, 1),
    "special.softmax of all axes": special.softmax,
    "special.log_softmax": lambda x: special.log_softmax(x, 0),
    "functional.softmax": lambda x: functional.softmax(x, 1),
    "functional.log_softmax": lambda x: functional.log_softmax(x, 1, dtype=np.float64),
}


@pytest.mark.parametrize("name", RESULTS)
def test_large_results_get_the_memory_of_former_ones(x, name):
    result = RESULTS[name](x)
    assert result.nbytes >= LARGE
    assert handlers.name_of(owner(result)) == "csoftmax"
    first, address = result.copy("K"), result.ctypes.data
    csoftmax.release_memory()  # what the call needed for itself
    del result
    assert n_kept() == 1
    result = RESULTS[name](x)
    assert same_bits(result, first)
    assert result.strides == first.strides
    if name not in ("softmax of float16", "extreme gradient"):  # which take it for their own needs
        assert result.ctypes.data == address
        assert n_kept() == 0


def test_results_of_less_than_32_mib_are_numpys():
    for shape, name in (((LARGE // 4 - 1,), "default_allocator"), ((LARGE // 4,), "csoftmax")):
        result = csoftmax.softmax(room(shape))
        assert handlers.name_of(result) == name
        del result
    assert n_kept() == 1


def test_what_a_former_result_held_is_not_seen(x):
    expected = csoftmax.softmax(x, out=np.empty_like(x))
    for value in (np.nan, np.inf, 7):
        p = csoftmax.softmax(x)
        address = p.ctypes.data
        p[:] = value
        del p
        p = csoftmax.softmax(x)
        assert p.ctypes.data == address
        assert same_bits(p, expected)
        del p


@pytest.mark.parametrize("name", [name for name in RESULTS if "of all axes" not in name])
def test_a_result_owns_its_memory_and_is_of_no_other_array(x, name):
    result = RESULTS[name](x)
    assert result.base is None
    assert result.flags.owndata
    assert result.flags.writeable
    assert result.flags.aligned


@pytest.mark.parametrize("n_rows", [0, 1, 2000, 8000, 8399, 8401, 8500, 9000, 20_000])
def test_resize_keeps_the_content_and_zeros_are_behind_it(x, n_rows):
    other = csoftmax.softmax(x)  # in whose memory there is something else
    result = csoftmax.log_softmax(x)
    expected = result.copy()
    del other
    for rows in (n_rows, SHAPE[0]):  # and back again
        result.resize((rows, SHAPE[1]), refcheck=False)
        expected.resize((rows, SHAPE[1]), refcheck=False)
        assert same_bits(result, expected)
        assert handlers.name_of(result) == "csoftmax"
    assert n_kept() <= 2


def test_an_array_that_was_made_small_holds_little_memory():
    result = csoftmax.softmax(room(SHAPE))
    start = result.ctypes.data
    result.resize(10, refcheck=False)
    assert mapped_bytes(start, SHAPE[0] * SHAPE[1] * 4) <= 2 * mmap.PAGESIZE
    del result
    assert n_kept() == 0


def test_views_outlive_the_name_of_their_array(x):
    expected = csoftmax.softmax(x[5:8])
    view = csoftmax.softmax(x)[5:8]
    others = [csoftmax.log_softmax(x) for _ in range(3)]
    assert len({a.ctypes.data for a in (view.base, *others)}) == 4
    assert n_kept() == 0
    assert same_bits(view, expected)
    del view
    assert n_kept() == 1


def test_tracemalloc_counts_results_while_they_live(x):
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        result = csoftmax.softmax(x)
        during, _ = tracemalloc.get_traced_memory()
        assert x.nbytes <= during - before < x.nbytes + 100_000
        result.resize((20_000, 1000))
        assert 80_000_000 <= tracemalloc.get_traced_memory()[0] - before < 80_100_000
        del result
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()
    assert n_kept() > 0


# ---- How much is kept ----


def test_few_blocks_are_kept_whatever_the_sizes():
    results = [_batch.empty_result(room((n, 1000))) for n in range(8400, 40_000, 1000)]
    last = [4 * result.size for result in results[-MOST_BLOCKS:]]
    while results:
        results.pop(0)
        assert n_kept() <= MOST_BLOCKS
    assert n_kept() == MOST_BLOCKS
    assert sum(last) <= kept_bytes() < sum(last) + MOST_BLOCKS * HUGE_PAGE  # those of late


def test_a_part_of_the_machines_memory_is_kept_at_most():
    most = _batch.kept_memory()[2]
    assert (
        0 < most <= int(re.search(r"MemTotal: +(\d+)", Path("/proc/meminfo").read_text())[1]) * 128
    )
    sizes = [most * 2 // 5, most * 2 // 5, most * 2 // 5, most + HUGE_PAGE]  # none is written to
    results = [_batch.empty_result(room((size,), np.float16)[: size // 2]) for size in sizes]
    for n_expected in (1, 2, 2, 2):
        results.pop(0)
        assert n_kept() == n_expected
        assert kept_bytes() <= most


def test_a_block_serves_results_of_four_fifths_of_its_size_and_none_that_are_smaller():
    for n_rows, n_left in ((10_000, 0), (8600, 0), (8400, 0), (16_000, 1), (10_001 + 600, 1)):
        _batch.empty_result(room((10_100, 1000)))
        result = _batch.empty_result(room((n_rows, 1000)))
        assert n_kept() == n_left
        del result
        csoftmax.release_memory()
    _batch.empty_result(room((20_000, 1000)))
    result = _batch.empty_result(room((15_000, 1000)))
    assert n_kept() == 1
    del result


def test_the_smallest_block_that_is_large_enough_is_taken():
    results = {n: _batch.empty_result(room((n, 1000))) for n in (10_000, 9000, 9500)}
    addresses = {n: result.ctypes.data for n, result in results.items()}
    results.clear()
    for n in (8900, 9400, 9900):
        results[n] = _batch.empty_result(room((n, 1000)))
    assert [results[n].ctypes.data for n in (8900, 9400, 9900)] == [
        addresses[n] for n in (9000, 9500, 10_000)
    ]


def mappings(start, size):
    """The lines of smaps of each mapping in a piece of memory, by their names, in bytes."""
    found, here = [], False
    for line in SMAPS.read_text().splitlines():
        if ends := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            first, last = (int(end, 16) for end in ends.groups())
            here = first < start + size and start < last
            if here:
                overlap = min(last, start + size) - max(first, start)
                found.append({"overlap": overlap})
        elif here and (amount := re.match(r"(\w+): +(\d+) kB", line)):
            found[-1][amount[1]] = 1024 * int(amount[2])
    return found


def mapped_bytes(start, size):
    return sum(each["overlap"] for each in mappings(start, size))


def sum_of(name, start, size):
    return sum(each.get(name, 0) for each in mappings(start, size))


def test_kept_memory_is_offered_to_the_system_until_it_is_used_again(x):
    p = csoftmax.softmax(x)
    place = p.ctypes.data, p.nbytes
    if "LazyFree" not in mappings(*place)[0]:
        pytest.skip("this system does not tell what was offered to it")
    assert sum_of("LazyFree", *place) == 0
    del p
    assert sum_of("LazyFree", *place) >= x.nbytes
    p = csoftmax.softmax(x)
    assert (p.ctypes.data, p.nbytes) == place
    assert sum_of("LazyFree", *place) < HUGE_PAGE  # but for the end, which no element lies in


def test_the_system_takes_what_is_kept_and_the_next_result_is_right(x):
    expected = csoftmax.softmax(x, out=np.empty_like(x))
    p = csoftmax.softmax(x)
    place = p.ctypes.data, p.nbytes
    resident = sum_of("Rss", *place)
    assert resident >= x.nbytes
    del p
    reclaim(*place)
    if sum_of("Rss", *place) > resident // 2:
        pytest.skip("this system takes nothing on demand")
    assert kept_bytes() >= x.nbytes
    p = csoftmax.softmax(x)
    assert (p.ctypes.data, p.nbytes) == place
    assert same_bits(p, expected)


def reclaim(start, size):
    """Let the system take what it may of this memory, as if it needed it."""
    pageout = 21  # MADV_PAGEOUT
    ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), pageout)


def test_release_memory_gives_back_what_is_kept_and_nothing_else(x):
    used, unused = csoftmax.softmax(x), csoftmax.log_softmax(x)
    expected, place = used.copy(), (unused.ctypes.data, unused.nbytes)
    del unused
    assert mapped_bytes(*place) == x.nbytes
    assert csoftmax.release_memory() is None
    assert n_kept() == kept_bytes() == 0
    assert mapped_bytes(*place) == 0
    assert same_bits(used, expected)
    csoftmax.release_memory()


def run(function, *arguments, **environment):
    program = children.program("results_memory")
    output = children.run_well(program, function, *arguments, timeout=120, **environment)
    *lines, last = output.splitlines()
    assert last == "done"
    return lines


@pytest.mark.parametrize(
    "what",
    [
        "large_result",
        "small_result",
        "rows",
        "rows_of_the_long_way",
        "losses",
        "resized",
        "scratch",
    ],
)
def test_an_allocation_that_fails_is_tried_again_without_what_is_kept(what):
    assert run("under_limit", what, "kept", OMP_NUM_THREADS="1") == ["True"]


@pytest.mark.parametrize("what", ["large_result", "small_result", "rows", "resized"])
def test_an_allocation_that_fails_where_nothing_is_kept_is_a_memory_error(what):
    assert run("under_limit", what, "nothing", OMP_NUM_THREADS="1") == ["MemoryError"]


def test_the_environment_leaves_all_memory_to_numpy():
    program = (
        "import csoftmax, numpy as np; from support import handlers;"
        f"p = csoftmax.softmax(np.zeros({SHAPE}, np.float32));"
        "print(handlers.name_of(p), csoftmax._batch.kept_memory());"
        "csoftmax.release_memory(); csoftmax.show_config()"
    )
    for value, name in (("0", "default_allocator"), ("1", "csoftmax"), ("", "csoftmax")):
        output = children.run_well("-c", program, CSOFTMAX_KEEP_MEMORY=value)
        assert output.startswith(f"{name} ")
        off = "none kept of former results (CSOFTMAX_KEEP_MEMORY=0)"
        assert (off in output) == (value == "0")


def test_show_config_tells_how_much_is_kept(x, capsys):
    csoftmax.softmax(x)
    csoftmax.show_config()
    most = round(_batch.kept_memory()[2] / 1e6)
    line = f"  memory    36 MB kept of former results, at most {most} MB (CSOFTMAX_KEEP_MEMORY=0 keeps none)"
    assert line in capsys.readouterr().out.splitlines()


# ---- NumPy's interface ----


def test_the_handler_is_in_use_for_no_other_array(x):
    p = csoftmax.softmax(x)
    assert handlers.name_of() == "default_allocator"
    for array in (np.empty_like(x), p.copy(), p + 1, np.zeros(SHAPE)):
        assert handlers.name_of(array) == "default_allocator"
    with pytest.raises(MemoryError):
        csoftmax.softmax(room((1 << 20, 1 << 30)))
    assert handlers.name_of() == "default_allocator"


def test_a_handler_of_the_programs_own_is_respected(x):
    capsule, _handler = handlers.of_a_program()
    former = handlers.set_handler(capsule)
    try:
        p = csoftmax.softmax(x)
        q = csoftmax.softmax(x, temperature=2.0)
        assert handlers.name_of() == "of the program"
        assert handlers.name_of(p) == handlers.name_of(q) == "of the program"
        del p, q
    finally:
        handlers.set_handler(former)
    assert n_kept() == 0


SIZES = [0, 1, 4095, 4096, 4097, LARGE - 1, LARGE, LARGE + 1, LARGE + HUGE_PAGE, 2 * LARGE]


def bytes_at(address, n):
    return (ctypes.c_ubyte * n).from_address(address)


@pytest.mark.parametrize("size", SIZES)
def test_the_handler_gives_memory_of_any_size(size):
    memory = handlers.of_results()
    old = memory.malloc(None, size)
    ctypes.memset(old, 255, size)
    memory.free(None, old, size)
    zeros = memory.calloc(None, size, 1)
    assert not np.frombuffer(bytes_at(zeros, size), np.uint8).any() if size else zeros
    for other in SIZES:
        pattern = np.arange(size, dtype=np.uint8)
        first = memory.realloc(None, None, size)
        ctypes.memmove(first, pattern.ctypes.data, size)
        moved = memory.realloc(None, first, other)
        n = min(size, other)
        assert bytes(bytes_at(moved, n)) == pattern[:n].tobytes()
        ctypes.memset(moved, 1, other)
        memory.free(None, moved, other)
    memory.free(None, zeros, size)
    memory.free(None, None, 0)


def test_nothing_of_a_block_stays_behind():
    def use():
        results = [_batch.empty_result(room((n, 1000))) for n in (8400, 9000)]
        for result, n in zip(results, (20_000, 10), strict=True):
            result.resize((n, 1000), refcheck=False)
        csoftmax.release_memory()

    use()
    before = mapped_bytes(0, 1 << 62)
    for _ in range(20):
        use()
    # A sanitizer's own notes grow by 4 MB; what a block that is cut to size left behind, by 30 MB.
    assert mapped_bytes(0, 1 << 62) - before < 8 * HUGE_PAGE


def test_the_handler_refuses_what_no_memory_has():
    memory = handlers.of_results()
    piece = memory.malloc(None, 10)
    bytes_at(piece, 10)[:] = [7] * 10
    for size in (1 << 62, (1 << 64) - 1, (1 << 64) - HUGE_PAGE):
        assert memory.malloc(None, size) is None
        assert memory.calloc(None, size, 1) is None
        assert memory.realloc(None, piece, size) is None
    assert memory.calloc(None, 1 << 32, 1 << 32) is None
    assert memory.calloc(None, (1 << 61) + 1, 8) is None
    assert list(bytes_at(piece, 10)) == [7] * 10
    memory.free(None, piece, 10)


# ---- Threads, forks, the end ----


def in_threads(n, work):
    failures = []

    def guarded(i):
        try:
            work(i)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(i,), daemon=True) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert failures == []


def test_results_of_many_threads_are_their_own(x):
    pieces = [x[i:] for i in range(4)]
    expected = [csoftmax.softmax(piece[:3]) for piece in pieces]

    def work(i):
        for n in range(6):
            p = csoftmax.softmax(pieces[i], n_threads=1)
            assert same_bits(p[:3], expected[i])
            if n % 2:
                p.resize((10_000, 1000), refcheck=False)
            p[:] = i
            assert (p == i).all()

    in_threads(4, work)
    assert n_kept() <= MOST_BLOCKS


def test_no_block_is_given_to_two_threads_that_ask_at_once(tmp_path):
    # As in a free-threaded Python: asked from C, where no lock but the handler's own keeps them apart. Without it this
    # fails now and then; ThreadSanitizer sees it at once.
    library = tmp_path / "libask.so"
    building.shared(building.ROOT / "tests" / "support" / "ask_at_once.c", library, "-pthread")
    assert run("ask_at_once", library) == ["0 0"]


def test_a_forked_child_leaves_what_is_kept_to_its_parent():
    run("fork")


def test_a_fork_while_other_threads_allocate_does_not_hang():
    run("fork_during_calls")


def test_results_may_live_until_the_interpreter_ends_and_longer():
    assert run("shutdown") == []


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="it takes pages too")
def test_a_result_in_kept_memory_takes_no_new_pages(x):
    resource = pytest.importorskip("resource")
    csoftmax.softmax(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        csoftmax.softmax(x)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 20 * 8  # of 16 huge pages or 8000 small ones each
