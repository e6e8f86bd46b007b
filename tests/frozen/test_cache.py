"""Keys and values: a slot's pages go back to the system when nobody has it."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

from peftlab.errors import InputError
from peftlab.frozen.cache import KeyValueCache
from peftlab.measure.gauges import linux_pages

NEEDS_LINUX = pytest.mark.skipif(
    not Path("/proc/self/statm").exists() or not hasattr(mmap, "MADV_DONTNEED"), reason="Linux"
)


def filled(slots: int, capacity: int, heads: int = 2, width: int = 8) -> KeyValueCache:
    cache = KeyValueCache(slots, capacity)
    for block in range(2):
        for slot in range(slots):
            ones = torch.full((heads, capacity, width), slot + 1.0)
            cache.write(block, slot, 0, ones, -ones)
    return cache


@NEEDS_LINUX
@pytest.mark.parametrize("capacity", [3, 100, 640, 1000])
def test_a_released_slot_is_zeros_and_the_others_stay(capacity: int) -> None:
    """Capacities of less than a page, of no whole pages, and of whole pages a slot."""
    cache = filled(4, capacity)
    cache.release(1)
    for block in range(2):
        for slot in (0, 2, 3):
            keys, values = cache.read(block, slot, 1, capacity)
            assert keys.eq(slot + 1).all() and values.eq(-slot - 1).all()
        kept = cache.keys[block][1].ne(0).sum() * 4
        assert kept < 2 * mmap.PAGESIZE, "at most a part of the page at either end"
        if capacity == 640:  # 10 pages of 4 KiB
            assert not kept or mmap.PAGESIZE != 4096
    again = torch.full((2, capacity, 8), 9.0)
    cache.write(0, 1, 0, again, again)
    assert cache.read(0, 1, 1, capacity)[0].eq(9).all()


@NEEDS_LINUX
def test_the_system_has_the_pages_back() -> None:
    size = 64 << 20  # bytes of each of the four tensors, in two slots
    cache = filled(2, size // (2 * 2 * 64 * 4), width=64)
    before = linux_pages().own
    cache.release(0)
    assert before - linux_pages().own > 0.9 * 4 * size / 2


def test_slots_for_which_there_is_no_room_are_one_clear_line() -> None:
    cache = KeyValueCache(1 << 40, 1 << 20)
    one = torch.ones(2, 1, 8)
    with pytest.raises(InputError, match=r"need [\d,]+ bytes .* take fewer rows"):
        cache.write(0, 0, 0, one, one)
