"""The engine with its cache of prompts: the same replies, and no token read that is known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from peftlab.edits import fingerprint
from peftlab.errors import InputError
from peftlab.methods.hard_prompt import unadapted
from peftlab.serve import Engine, Failed, Limits, Reply, ServeRequest, prompt_reuse
from peftlab.serve.feeding import shared_out
from peftlab.serve.prompt_cache import Holder
from tests.laws import world as laws
from tests.serve import world
from tests.serve.world import CASES, NAMES, adaptation, alone, compare, run, sources

FAMILIES = ("gpt2", "llama", "gemma3_text")
SINGLE = NAMES[: len(CASES)]
AT_CUE = tuple(name for name, case in zip(SINGLE, CASES, strict=True) if "begin=cue" in case)
DOCUMENT = " ".join(sources()[:5])  # of over 32 tokens


def engine(family: str = "gpt2", names: tuple[str, ...] = NAMES, **limits: int) -> Engine:
    settings = {"slots": 6, "capacity": world.CAPACITY, "prefill_tokens": 16, **limits}
    library = world.library(family, names)
    library.load("base", unadapted(laws.model(family)))
    library.load_one()
    return Engine(laws.model(family), library, Limits(**settings))


def ask(served: Engine, name: str, source: Any = DOCUMENT, **more: Any) -> Reply:
    ticket = served.submit(ServeRequest(name, source, world.LONGEST, logprobs=2, **more))
    run(served)
    return ticket.result(0)


def encoded(served: Engine, name: str, source: Any = DOCUMENT) -> Any:
    adapter = served.library.get(name)
    assert adapter is not None
    request = ServeRequest(name, source, world.LONGEST)
    return adapter.encode(served.model, request, served._row_limits)


def lead(served: Engine, name: str) -> int:
    """How many tokens of a prompt are prepared, and never read."""
    adapter = served.library.get(name)
    assert adapter is not None
    (owner,) = adapter.owners(encoded(served, name), served.model)
    return len(owner.lead)


def ids(tokens: int, seed: int) -> tuple[int, ...]:
    made = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(10, 100, (tokens,), generator=made).tolist())


def read(served: Engine) -> int:
    return served.stats().prompt_tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_with_it_every_kind_of_adapter_replies_as_without(family: str) -> None:
    served, exact = engine(family), list[bool]()
    for source in (DOCUMENT, sources()[0]):
        for _ in range(2):  # the second time from what the first has left
            for name in NAMES:
                reply, expected = ask(served, name, source), alone(name, 0, source, family)
                exact.append(compare(reply, expected))
                if exact[-1]:
                    ours = [token.logprob for token in reply.tokens]
                    theirs = [token.logprob for token in expected.tokens]
                    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5), name
    assert sum(exact) >= 0.9 * len(exact)
    assert served.stats().reused.hits > len(NAMES)


@pytest.mark.parametrize("family", FAMILIES)
def test_asked_again_one_token_is_read(family: str) -> None:
    served = engine(family)
    for name in SINGLE:
        ask(served, name)
        before = read(served)
        again, whole = ask(served, name), encoded(served, name)
        own = len(whole.ids) - whole.begin if name in AT_CUE else 1
        assert read(served) - before == own, CASES[NAMES.index(name)]
        assert again.cached_tokens == len(whole.ids) - own - lead(served, name)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_adapter_at_the_cue_reads_its_own_few_tokens(family: str) -> None:
    served = engine(family)
    ask(served, AT_CUE[0])
    for name in AT_CUE[1:]:
        whole, before = encoded(served, name), read(served)
        reply = ask(served, name)
        assert read(served) - before == len(whole.ids) - whole.begin < 10 < whole.begin
        assert reply.cached_tokens == whole.begin
        assert compare(reply, alone(name, 0, DOCUMENT, family))


def test_the_base_and_texts_alone_share_with_those_at_the_cue() -> None:
    served = engine()
    prompt = encoded(served, AT_CUE[0]).ids
    ask(served, "base", prompt)
    assert ask(served, AT_CUE[0]).cached_tokens == encoded(served, AT_CUE[0]).begin
    instructed = encoded(served, "a1").ids  # a hard prompt changes the text alone
    ask(served, "base", instructed)
    assert ask(served, "a1").cached_tokens == len(instructed) - 1 - lead(served, "a1")


def test_asked_together_one_reads_the_document_and_the_others_go_on_from_it() -> None:
    served = engine()
    asked = [ServeRequest(name, DOCUMENT, world.LONGEST) for name in AT_CUE]
    tickets = [served.submit(one) for one in asked]
    run(served)
    for name, ticket in zip(AT_CUE, tickets, strict=True):
        assert compare(ticket.result(0), alone(name, 0, DOCUMENT))
    rows = [encoded(served, name) for name in AT_CUE]
    assert read(served) == rows[0].begin + sum(len(row.ids) - row.begin for row in rows)


def test_where_the_one_that_reads_is_called_off_another_reads_on() -> None:
    for steps in range(1, 5):
        served = engine(prefill_tokens=8)
        tickets = [served.submit(ServeRequest(name, DOCUMENT, 8)) for name in AT_CUE]
        for _ in range(steps):
            served.step()
        tickets[0].cancel()
        run(served)
        for name, ticket in list(zip(AT_CUE, tickets, strict=True))[1:]:
            assert compare(ticket.result(0), alone(name, 0, DOCUMENT))


def test_nothing_from_the_cue_on_is_shared() -> None:
    served = engine()
    for name in AT_CUE:
        ask(served, name)
        whole = encoded(served, name)
        pieces = served._reuse._cache.match(Holder(), tuple(whole.ids))
        assert sum(stacks[0].shape[-2] for stacks in pieces) == whole.begin
    assert set(served._reuse._cache._roots) == {Holder()}
    prompt = encoded(served, "a15").ids
    assert ask(served, "base", prompt).cached_tokens == encoded(served, "a15").begin


def test_adapters_of_whole_rows_never_share_but_under_two_names() -> None:
    served = engine()
    prompt, asked = ids(30, 0), list[str]()
    for name, case in zip(SINGLE, CASES, strict=True):
        adapter = served.library.get(name)
        assert adapter is not None
        if name not in AT_CUE and not adapter.edits.changes_nothing and "pattern" not in case:
            assert ask(served, name, prompt).cached_tokens == 0, case
            asked.append(name)
    assert ask(served, "base", prompt).cached_tokens == 0 and len(asked) > 10
    served.library.load("twin", adaptation("a9", 0))
    served.library.load_one()
    assert ask(served, "twin", prompt).cached_tokens == 29


def test_fingerprints_tell_adapters_apart_by_what_they_change_alone() -> None:
    model, told = laws.model("gpt2"), list[str]()
    for name, case in zip(SINGLE, CASES, strict=True):
        several = [adaptation(name, variant).edits(model) for variant in (0, 1)]
        ours = [fingerprint(edits) for edits in several]
        assert fingerprint(replace(several[0], template=None)) == ours[0]
        if several[0].changes_nothing:
            assert ours == ["", ""], case
        else:
            told += ours[:1] if ours[0] == ours[1] else ours
    assert len(told) > 2 * len(SINGLE) - 8 and len({*told}) == len(told)
    edits = adaptation("a6", 0).edits(model)
    place, bottleneck = next(iter(edits.sublayer.items()))
    for change in ({"scale": 2.0}, {"parallel": True}, {"activation": "silu"}):
        other = replace(edits, sublayer={**edits.sublayer, place: replace(bottleneck, **change)})
        assert fingerprint(other) != fingerprint(edits)


def test_a_mixtures_experts_go_on_from_what_these_adapters_have_read() -> None:
    served = engine(names=("a2", "a9", "a15", "m0", "m1"))
    for mixture, parts in (("m0", ("a2", "a9")), ("m1", ("a15", "base"))):
        for name in parts:
            ask(served, name)
        before, again = read(served), ask(served, mixture)
        adapter = served.library.get(mixture)
        assert adapter is not None and again.cached_tokens > 0
        prompt = encoded(served, mixture)
        owners = adapter.owners(prompt, served.model)
        own = len(prompt.ids) - prompt.begin if mixture == "m1" else 1
        leads = sum(len(owner.lead) for owner in owners)
        rest = 1 if mixture == "m0" else len(prompt.rows[1].ids) - prompt.rows[1].begin
        if mixture == "m0":
            assert read(served) - before == own + rest
            assert again.cached_tokens == again.prompt_tokens - own - rest - leads
        else:
            assert read(served) - before <= own + rest


def test_a_replaced_adapter_never_reads_what_the_old_one_left() -> None:
    served = engine(names=("a9",))
    ask(served, "a9")
    held = served.stats().reused.bytes
    running = served.submit(ServeRequest("a9", DOCUMENT, world.LONGEST))
    served.step()
    served.library.load("a9", adaptation("a9", 1))
    reply = ask(served, "a9")
    assert running.result(0).version == 1 and compare(running.result(0), alone("a9", 0, DOCUMENT))
    assert reply.version == 2 and reply.cached_tokens == 0
    assert compare(reply, alone("a9", 1, DOCUMENT))
    assert len(served._reuse._cache._roots) == 1, "the old one's are dropped"
    assert 0 < served.stats().reused.bytes <= 1.5 * held
    served.library.unload("a9")
    served.step()
    assert served.stats().reused.bytes == 0


def test_it_stays_within_its_bytes_and_right_while_it_evicts() -> None:
    token = engine()._slots.cache.position_bytes
    for limit in (token - 1, 7 * token, 100 * token):
        served = engine(prompt_cache_bytes=limit)
        asked = [(name, source) for source in sources() for name in ("a9", "a15", "base")]
        tickets = [served.submit(ServeRequest(name, s, world.LONGEST)) for name, s in asked]
        while served.step():
            assert served.stats().reused.bytes <= limit
        for ticket, (name, source) in zip(tickets, asked, strict=True):
            if name != "base":
                compare(ticket.result(0), alone(name, 0, source))
        assert served.stats().reused.bytes > limit - 40 * token


@pytest.mark.parametrize(("name", "again"), [("base", "base"), ("a9", "a9"), ("a15", "a16")])
def test_tenants_do_not_notice_each_other(name: str, again: str) -> None:
    served = engine()
    ask(served, name, tenant="x")
    before = read(served)
    assert ask(served, again, tenant="y").cached_tokens == 0
    assert read(served) - before == len(encoded(served, again).ids) - lead(served, again)
    assert ask(served, again, tenant="x").cached_tokens > 10


@pytest.mark.parametrize("name", ["base", "a4", "a9"])
def test_a_conversation_goes_on_from_its_last_reply(name: str) -> None:
    served, opening = engine(), ids(20, 0)
    first = ask(served, name, opening)
    made = tuple(token.id for token in first.tokens)
    fed = len(made) - (first.finished == "length")
    second = ask(served, name, (*opening, *made, *ids(5, 1)))
    assert second.cached_tokens == len(opening) + fed
    plain = engine(prompt_cache_bytes=0)
    assert compare(second, ask(plain, name, (*opening, *made, *ids(5, 1))))


def test_what_failed_leaves_nothing() -> None:
    served = engine(names=("a9",))
    sick = served.library.get("a9")
    assert sick is not None
    served.library.prepare_one()
    ticket = served.submit(ServeRequest("a9", DOCUMENT, 8))
    served.step()
    edit = next(iter(sick.edits.linear.values()))
    kept = edit.up.clone()  # type: ignore[union-attr]
    edit.up.fill_(float("nan"))  # type: ignore[union-attr]
    run(served)
    edit.up.copy_(kept)  # type: ignore[union-attr]
    with pytest.raises(Failed, match="not numbers"):
        ticket.result(0)
    assert served.stats().reused.bytes == 0
    assert compare(ask(served, "a9"), alone("a9", 0, DOCUMENT))


def test_what_is_not_a_number_is_never_kept() -> None:
    served = engine(prefill_tokens=8)
    ticket = served.submit(ServeRequest("a9", DOCUMENT, 8))
    served.step()
    served.step()
    served._slots.cache.values[0][served._rows[0].rows[0].row.slot, :, 1] = float("nan")
    ticket.cancel()
    run(served)
    assert ticket.result(0).finished == "cancelled" and served.stats().reused.bytes == 0


def test_where_keeping_fails_replies_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served = engine()
    ask(served, "a9")
    with monkeypatch.context() as patch:
        patch.setattr(served._slots.cache, "copied", lambda *_: 1 / 0)
        assert compare(ask(served, "a10"), alone("a10", 0, DOCUMENT))
    assert "begins anew" in caplog.text and served.stats().reused.bytes == 0
    assert ask(served, "a9").cached_tokens == 0 and ask(served, "a9").cached_tokens > 0


def test_it_counts_and_can_be_turned_off() -> None:
    served = engine()
    ask(served, "a9")
    known = ask(served, "a9").cached_tokens
    told = served.stats().reused
    assert (told.queries, told.hits, told.tokens) == (2, 1, known)
    assert told.bytes % served._slots.cache.position_bytes == 0 < told.bytes
    without = engine(prompt_cache_bytes=0)
    ask(without, "a9")
    assert ask(without, "a9").cached_tokens == 0
    assert without.stats().reused == replace(told, queries=0, hits=0, tokens=0, bytes=0)
    with pytest.raises(InputError, match="prompt_cache_bytes is -1; at least 0"):
        Limits(prompt_cache_bytes=-1)


@dataclass(eq=False)
class _Reading:
    """What `_waiting` looks at."""

    ids: tuple[int, ...]
    holder: Holder = field(default_factory=Holder)
    read: int = 0
    entered: int = 0

    @property
    def unread(self) -> int:
        return len(self.ids) - self.read

    @property
    def shareable(self) -> int:
        return len(self.ids) - 1


def test_a_short_prompt_does_not_wait_for_a_long_one_that_begins_alike() -> None:
    common = tuple(range(30))
    other = _Reading(tuple(range(900, 1500)), Holder("other"))
    long, short = _Reading((*common, *range(100, 800))), _Reading((*common, *range(50, 90)))
    rows: list[Any] = [other, long, short]
    assert prompt_reuse._waiting(rows) == {long}
    shares = shared_out([row.unread if row is not long else 0 for row in rows], 256)
    assert shares[2] == short.unread
    short.read = short.entered = 64  # what the long one then goes on from
    long.read = long.entered = len(common)
    assert not prompt_reuse._waiting(rows)
