"""What requests have used goes back: pages of slots, malloc's memory, and prompts far too long."""

from __future__ import annotations

import ctypes
import time
from dataclasses import replace
from typing import Any

import pytest

from peftlab.measure import allocator
from peftlab.measure.gauges import linux_pages
from peftlab.serve import Engine, Limits, ServeRequest, memory
from peftlab.serve.errors import PromptTooLong
from peftlab.serve.loaded import LoadedAdapter, RowLimits
from peftlab.serve.memory import EVERY, Trimmer
from peftlab.serve.prompt import Chat
from peftlab.tasks import Example
from tests.laws import world as laws
from tests.serve import world

MB = 1 << 20


def test_it_trims_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now, done = [0.0], []
    monkeypatch.setattr("peftlab.serve.memory.time.monotonic", lambda: now[0])
    monkeypatch.setattr(memory, "trim", lambda: done.append("trim"))
    trimmer = Trimmer(lambda: done.append("release"))
    for now[0] in (0.0, 0.9 * EVERY, 1.1 * EVERY, 1.2 * EVERY, 2.0 * EVERY, 2.2 * EVERY):
        trimmer.look()
    assert done == ["release", "trim"] * 2


def test_slots_that_rows_have_left_are_released(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(laws.model("gpt2"), world.library(), Limits(slots=3, capacity=world.CAPACITY))
    released: list[int] = []
    monkeypatch.setattr(engine._slots.cache, "release", released.append)
    tickets = [engine.submit(ServeRequest("a9", text, 8)) for text in world.sources()[:2]]
    engine.step()
    engine._slots.release()
    assert not released, "rows are in them"
    world.run(engine)
    engine._slots.release()
    engine._slots.release()
    assert released == [0, 1], "each once, and none that was never used"
    assert all(ticket.result(0).tokens for ticket in tickets)


@pytest.mark.skipif(not allocator._is_glibc_malloc(), reason="needs glibc's malloc")
def test_an_engine_that_runs_gives_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "EVERY", 0.05)
    monkeypatch.setattr("peftlab.serve.engine.EVERY", 0.05)
    engine = Engine(laws.model("gpt2"), world.library(), Limits(slots=2, capacity=world.CAPACITY))
    engine.start()
    try:
        library = ctypes.CDLL(None)
        library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        blocks = [library.malloc(ctypes.c_size_t(60_000)) for _ in range(4000)]  # below mmap's
        for block in blocks:
            ctypes.memset(block, 1, 60_000)
        high = linux_pages().own
        keep = blocks.pop()  # so that what is freed does not lie at the top
        for block in blocks:
            library.free(block)
        world_until(lambda: high - linux_pages().own > 150 * MB)
        library.free(keep)
    finally:
        engine.stop()


def world_until(true: Any) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "the memory did not go back"
        time.sleep(0.02)


LONG = "cat sat on a mat, 7 of them; " * 3000


@pytest.mark.parametrize("cut", ["start", "end"])
def test_of_a_prompt_far_too_long_what_decides_nothing_is_not_encoded(
    cut: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, limits, seen = laws.model("gpt2"), RowLimits(1, world.CAPACITY), []
    loaded = LoadedAdapter.make("a9", 1, world.adaptation("a9", 0), model)
    template = replace(loaded.template, truncate=cut)
    loaded.template = template
    asked = ServeRequest("a9", LONG, 8, truncate=True)
    whole = template.encode(model.tokenizer, Example(LONG, ()), None, world.CAPACITY - 8)
    encode = type(template).encode

    def watched(self: Any, tokenizer: Any, example: Example, *rest: Any) -> Any:
        seen.append(len(example.source))
        return encode(self, tokenizer, example, *rest)

    monkeypatch.setattr(type(template), "encode", watched)
    assert loaded.encode(model, asked, limits).ids == whole.ids
    assert len(seen) == 1 and seen[0] <= 16 * world.CAPACITY
    limited = replace(template, source_tokens=20)
    loaded.template = limited
    expected = encode(limited, model.tokenizer, Example(LONG, ()), None, 1 << 30)
    assert loaded.encode(model, replace(asked, truncate=False), limits).ids == expected.ids
    loaded.template = template
    seen.clear()
    for source in (LONG, Chat((("user", LONG),))):
        with pytest.raises(PromptTooLong, match=r"over \d+ tokens, and there is room for \d+"):
            loaded.encode(model, replace(asked, source=source, truncate=False), limits)
    assert not seen
