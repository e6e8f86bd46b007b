"""Random schedules: requests, cancellations, replaced and unloaded adapters, no reply mixed up."""

from __future__ import annotations

import random
from concurrent.futures import Future
from dataclasses import dataclass

import pytest

from peftlab.serve import Engine, Limits, QueueFull, ServeRequest, Ticket, UnknownAdapter
from tests.laws import world as laws
from tests.serve import world
from tests.serve.world import NAMES, adaptation, alone, compare, sources


@dataclass
class Schedule:
    """A run of an engine in which anything may happen at any step."""

    seed: int
    requests: int

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.library = world.library()
        limits = Limits(slots=7, capacity=world.CAPACITY, prefill_tokens=12, queue=30)
        self.engine = Engine(laws.model("gpt2"), self.library, limits)
        self.variants = {(name, 1): 0 for name in NAMES}
        self.gone: set[str] = set()
        self.asked: list[Ticket] = []

    def run(self) -> None:
        """All requests, to their ends."""
        while len(self.asked) < self.requests:
            happening = self.rng.random()
            if happening < 0.6:
                self._submit()
            elif happening < 0.65 and self.asked:
                self.rng.choice(self.asked[-40:]).cancel()
            elif happening < 0.67:
                self._replace()
            elif happening < 0.675:
                self._unload()
            else:
                self.engine.step()
        world.run(self.engine)

    def _submit(self) -> None:
        request = ServeRequest(
            self.rng.choice(NAMES), self.rng.choice(sources()), self.rng.randint(1, world.LONGEST)
        )
        try:
            self.asked.append(self.engine.submit(request))
        except QueueFull:
            self.engine.step()
        except UnknownAdapter:
            assert request.adapter in self.gone

    def _replace(self) -> None:
        name, variant = self.rng.choice(NAMES), self.rng.randrange(2)

        def done(future: Future[object]) -> None:
            self.variants[name, future.result().version] = variant  # type: ignore[attr-defined]
            self.gone.discard(name)

        self.library.load(name, adaptation(name, variant)).add_done_callback(done)

    def _unload(self) -> None:
        name = self.rng.choice(NAMES)
        if name not in self.gone:
            self.gone.add(name)
            self.library.unload(name)

    def check(self) -> float:
        """Every reply is its adapter's, in the version that it names; the share of exact ones."""
        exact = answered = 0
        for ticket in self.asked:
            assert ticket.done
            try:
                reply = ticket.result(0)
            except UnknownAdapter:
                continue
            assert "".join(piece.text for piece in ticket) == reply.text
            request = ticket.request
            if reply.version == 0:
                assert reply.finished == "cancelled" and not reply.tokens
                continue
            variant = self.variants[request.adapter, reply.version]
            assert isinstance(request.source, str)
            exact += compare(reply, alone(request.adapter, variant, request.source))
            answered += 1
            if reply.finished == "length":
                assert len(reply.tokens) == request.max_new_tokens
        assert answered > 0.7 * len(self.asked)
        return exact / answered


@pytest.mark.parametrize("seed", range(2))
def test_no_reply_is_mixed_up(seed: int) -> None:
    schedule = Schedule(seed, 500)
    schedule.run()
    assert schedule.check() > 0.98
    stats = schedule.engine.stats()
    assert stats.running == stats.waiting == 0
    assert schedule.engine._slots.free == 7


@pytest.mark.slow
def test_no_reply_of_ten_thousand_is_mixed_up() -> None:
    schedule = Schedule(100, 10_000)
    schedule.run()
    assert schedule.check() > 0.98


def test_the_check_would_see_a_reply_of_another_adapter() -> None:
    """A negative control: different adapters, and both versions of one, answer differently."""
    texts = {alone(name, variant, sources()[0]).text for name in NAMES for variant in range(2)}
    assert len(texts) > len(NAMES) / 2
    with pytest.raises(AssertionError):
        compare(alone("a9", 0, sources()[0]), alone("a13", 0, sources()[0]))
