"""What programs of other languages do with arrays that are not as they need them: an error, and never wrong numbers."""

import pytest

from support import building
from support.building import CONSUMERS, STRICT, SUFFIX, blocks_of
from support.children import run_consumer as run


def test_numba_refuses_what_is_not_contiguous_and_takes_its_copy():
    pytest.importorskip("numba", exc_type=ImportError)
    run(CONSUMERS, "numba_refuses")


def test_ctypes_refuses_shards_that_are_not_contiguous_before_anything_is_written():
    run(CONSUMERS, "ctypes_refuses")


def test_cython_refuses_logits_and_targets_that_are_not_contiguous(tmp_path):
    pytest.importorskip("Cython", reason="the test extra is not installed")
    (tmp_path / "readme.pyx").write_text(*blocks_of("README.md", "cython"))
    for source in (CONSUMERS / "consumer.pyx", tmp_path / "readme.pyx"):
        building.shared(building.cython(source, tmp_path), tmp_path / f"{source.stem}{SUFFIX}")
    run(tmp_path, "cython_refuses")


def test_c_refuses_pieces_that_are_strided_or_end_within_a_number(tmp_path):
    building.shared(CONSUMERS / "consumer.c", tmp_path / f"consumer{SUFFIX}", "-std=c99", *STRICT)
    run(tmp_path, "c_refuses")


def test_cffi_refuses_what_is_not_contiguous():
    pytest.importorskip("cffi", reason="cffi is not installed")
    run(CONSUMERS, "cffi_refuses")
