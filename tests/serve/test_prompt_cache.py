"""The radix tree by itself: what it knows, in how many bytes, and what goes first."""

from __future__ import annotations

import gc
import random
import weakref
import zlib

import pytest
import torch

from peftlab.frozen.cache import KeyValueCache
from peftlab.serve.prompt_cache import Holder, Ids, PromptCache, Stacks

TOKEN_BYTES = 4 * 8  # two stacks of two numbers a token, in float64
BASE = Holder()
AMPLE = 10**9


def numbers(holder: Holder, tokens: Ids, first: int, stop: int) -> Stacks:
    """Keys and values as a model makes them: each token's hang on all that come before it."""
    each = [zlib.crc32(f"{holder} {tokens[: i + 1]}".encode()) for i in range(first, stop)]
    one = torch.tensor(each, dtype=torch.float64)
    return [
        torch.stack([one, -one])[:, None, :, None],
        torch.stack([one, one + 1])[None, ..., None],
    ]


def put(cache: PromptCache, tokens: Ids, holder: Holder = BASE) -> None:
    cache.put(holder, tokens, lambda first, stop: numbers(holder, tokens, first, stop))


def known(cache: PromptCache, tokens: Ids, holder: Holder = BASE, first: int = 0) -> int:
    """How many tokens are known, beyond the first ones; those are right."""
    pieces = cache.match(holder, tokens, first)
    if not pieces:
        return 0
    joined = [torch.cat(parts, -2) for parts in zip(*pieces, strict=True)]
    count = joined[0].shape[-2]
    for ours, right in zip(joined, numbers(holder, tokens, first, first + count), strict=True):
        assert torch.equal(ours, right)
    return count


def held(cache: PromptCache) -> int:
    """Bytes of the storages that all its tensors keep alive."""
    stores = {
        stack.untyped_storage().data_ptr(): stack.untyped_storage().nbytes()
        for node in cache._order
        for stack in node.stacks
    }
    return sum(stores.values())


def test_it_knows_the_longest_start_token_by_token() -> None:
    cache = PromptCache(AMPLE, TOKEN_BYTES)
    put(cache, (1, 2, 3, 4, 5))
    assert known(cache, (1, 2, 3, 4, 5)) == known(cache, (1, 2, 3, 4, 5, 6)) == 5
    assert known(cache, (1, 2, 3, 9)) == 3 and known(cache, (1, 2)) == 2
    assert known(cache, (2, 3)) == known(cache, ()) == 0
    assert known(cache, (1, 2, 3, 4, 5), first=3) == 2
    assert known(cache, (1, 2, 3, 4, 5), first=5) == 0
    assert known(cache, (1, 2), Holder("another")) == known(cache, (1, 2), Holder("", "it")) == 0


def test_a_start_in_common_is_held_once() -> None:
    cache = PromptCache(AMPLE, TOKEN_BYTES)
    put(cache, (1, 2, 3, 4))
    put(cache, (1, 2, 5))
    put(cache, (1, 2, 3, 4))
    put(cache, (1, 2))
    assert cache.bytes == held(cache) == 5 * TOKEN_BYTES
    assert known(cache, (1, 2, 3, 4)) == 4 and known(cache, (1, 2, 5)) == 3


def test_the_least_recently_used_end_goes_first() -> None:
    cache = PromptCache(6 * TOKEN_BYTES, TOKEN_BYTES)
    put(cache, (1, 2, 3))
    put(cache, (1, 2, 4))
    put(cache, (7, 8))
    known(cache, (1, 2, 3))
    put(cache, (9,))
    assert known(cache, (1, 2, 4)) == 2, "it was used before all others"
    assert known(cache, (1, 2, 3)) == 3 and known(cache, (7, 8)) == 2 and known(cache, (9,)) == 1
    put(cache, (5, 5, 5, 5, 5, 5))
    assert known(cache, (5, 5, 5, 5, 5, 5)) == 6 and cache.bytes == cache.limit
    assert known(cache, (1, 2, 3)) == 0


def test_of_what_is_too_long_the_start_is_held() -> None:
    cache = PromptCache(4 * TOKEN_BYTES + 1, TOKEN_BYTES)
    put(cache, (1, 2))
    put(cache, (1, 2, 3, 4, 5, 6))
    assert known(cache, (1, 2, 3, 4, 5, 6)) == 4 and cache.bytes == 4 * TOKEN_BYTES
    none = PromptCache(TOKEN_BYTES - 1, TOKEN_BYTES)
    put(none, (1, 2))
    assert known(none, (1, 2)) == none.bytes == 0 and not none._roots


def test_what_cannot_be_copied_is_not_held() -> None:
    cache = PromptCache(AMPLE, TOKEN_BYTES)
    cache.put(BASE, (1, 2), lambda *_: None)
    assert cache.bytes == 0 and not cache._roots


def test_adapters_that_are_gone_are_dropped_for_every_tenant_and_the_base_stays() -> None:
    cache = PromptCache(AMPLE, TOKEN_BYTES)
    holders = [Holder(name, tenant) for name in ("", "old", "new") for tenant in ("", "x")]
    for holder in holders:
        put(cache, (1, 2, 3), holder)
        put(cache, (1, 4), holder)
    cache.retain({"new"})
    for holder in holders:
        assert known(cache, (1, 2, 3), holder) == (0 if holder.fingerprint == "old" else 3)
    assert cache.bytes == held(cache) == 4 * 4 * TOKEN_BYTES
    cache.clear()
    assert known(cache, (1, 2, 3)) == cache.bytes == 0


@pytest.mark.parametrize("seed", range(12))
def test_random_prompts_against_a_plain_set_of_starts(seed: int) -> None:
    """Without evictions all that was put is known, and nothing else; with them, a part of it."""
    rng = random.Random(seed)
    ample = PromptCache(AMPLE, TOKEN_BYTES)
    tight = PromptCache(rng.randrange(1, 40) * TOKEN_BYTES, TOKEN_BYTES)
    holders = [Holder(), Holder("", "x"), Holder("f")]
    starts: set[tuple[Holder, Ids]] = set()
    for _ in range(300):
        holder = rng.choice(holders)
        tokens = tuple(rng.choices(range(2), k=rng.randrange(12)))
        longest = next(
            n for n in range(len(tokens), -1, -1) if not n or (holder, tokens[:n]) in starts
        )
        if rng.random() < 0.5:
            assert known(ample, tokens, holder) == longest
            assert known(tight, tokens, holder) <= longest
            first = rng.randrange(4)
            assert known(ample, tokens, holder, first) == max(0, longest - first)
        elif rng.random() < 0.02:
            for cache in (ample, tight):
                cache.retain(())
            starts = {(whose, ids) for whose, ids in starts if not whose.fingerprint}
        else:
            for cache in (ample, tight):
                put(cache, tokens, holder)
            starts |= {(holder, tokens[: n + 1]) for n in range(len(tokens))}
            fits = min(len(tokens), tight.limit // TOKEN_BYTES)
            assert known(tight, tokens, holder) >= fits, "what came last stays"
        assert ample.bytes == held(ample) == len(starts) * TOKEN_BYTES
        assert tight.bytes == held(tight) <= tight.limit


def test_positions_are_copied_and_restored_where_blocks_differ_in_shape() -> None:
    caches = [KeyValueCache(slots=2, capacity=6) for _ in range(2)]
    made = torch.Generator().manual_seed(0)
    for block, (heads, size) in enumerate([(2, 4), (1, 8), (2, 4)]):
        keys, values = torch.randn(2, heads, 5, size, generator=made)
        for cache in caches:
            cache.write(block, 0, 0, keys, values)
    source, target = caches
    assert source.position_bytes == 2 * 4 * (8 + 8 + 8)
    stacks = source.copied(0, 1, 4)
    source.clear(0)
    target.restore(1, 2, stacks)
    for block in range(3):
        for ours, copy in zip(
            target.read(block, 0, 1, 5), target.read(block, 1, 1, 5), strict=True
        ):
            assert torch.equal(copy[0, :, 2:5], ours[0, :, 1:4]) and not copy[0, :, :2].any()


def test_what_is_dropped_is_freed_at_once() -> None:
    cache = PromptCache(4 * TOKEN_BYTES, TOKEN_BYTES)
    drops = (
        lambda: put(cache, (5, 6, 7, 8)),
        lambda: cache.retain(()),
        cache.clear,
    )
    for drop in drops:
        put(cache, (1, 2, 3), Holder("f"))
        stacks = [weakref.ref(stack) for node in cache._order for stack in node.stacks]
        gc.disable()
        try:
            drop()
            assert stacks and all(stack() is None for stack in stacks)
        finally:
            gc.enable()
