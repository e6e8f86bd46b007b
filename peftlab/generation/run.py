"""Requests in, replies out: rows of different adaptations, methods and lengths in one batch."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from peftlab.frozen.model import FrozenLM
from peftlab.generation.beam import Beams
from peftlab.generation.choose import Chooser, banned_tokens
from peftlab.generation.kept import KeptPrompts
from peftlab.generation.owner import bare, prepare
from peftlab.generation.session import Session
from peftlab.generation.state import DecodingState
from peftlab.generation.targets import Target, target_losses
from peftlab.methods.adaptation import Adaptation
from peftlab.tasks import Decoding, Example
from peftlab.tasks.example import BeginsNowhere, nowhere_begun
from peftlab.token_limits import max_row_tokens
from peftlab.trunk import TrunkStore


@dataclass(frozen=True)
class Request:
    """One text for one adaptation. `min_new_tokens` forbids the end before so many tokens.

    targets: ids, ends included, whose losses are wanted too, while the prompt is at hand.
    """

    adaptation: Adaptation
    source: str | Example
    max_new_tokens: int = 64
    min_new_tokens: int = 0
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True)
class Reply:
    """What came back; `tokens` without the end. `dropped`: source tokens that were cut.

    target_losses: summed, in nats, of the request's targets.
    """

    text: str
    tokens: tuple[int, ...]
    finished: Literal["end", "length"]
    prompt_tokens: int
    dropped: int
    target_losses: tuple[float, ...] = ()


@dataclass(eq=False)
class _Job:
    """A request on its way: its place, its row, its end tokens, its random draws."""

    index: int
    request: Request
    row: DecodingState
    ends: tuple[int, ...]
    prompt_tokens: int
    dropped: int
    generator: torch.Generator
    target_losses: tuple[float, ...] = ()

    @property
    def room(self) -> int:
        """Positions that it may take, prefix included."""
        after = max(self.request.max_new_tokens, *map(len, self.request.targets), 0)
        return self.row.length + after

    @property
    def least(self) -> int:
        return self.request.min_new_tokens

    @property
    def over(self) -> bool:
        made = self.row.tokens
        return made[-1] in self.ends or len(made) >= self.request.max_new_tokens


def generate(
    model: FrozenLM,
    requests: Sequence[Request],
    decoding: Decoding | None = None,
    *,
    batch_size: int = 16,
    seed: int = 0,
    max_length: int | None = None,
    store: TrunkStore | None = None,
    done: Callable[[int], None] | None = None,
) -> list[Reply]:
    """Answer every request, in the order given; finished rows leave and waiting ones join.

    Args:
        decoding: greedy where None.
        max_length: tokens of a row, prompt and output; None takes the model's context.
        store: keeps prompts for adaptations that leave the lower blocks alone, so that reading one
            again starts where they begin, see `generate.kept`.
        done: told how many replies are finished, for a progress bar.

    Raises:
        InputError: a prompt that does not fit, an adaptation of another base, no tokenizer.
    """
    decoding, done = decoding or Decoding(), done or (lambda _: None)
    jobs = _jobs(model, requests, decoding, seed, max_length)
    if not jobs:
        return []
    capacity = max(job.room for job in jobs)
    kept = None if store is None else KeptPrompts(model, store)
    if decoding.beams > 1:
        return _beam_search(model, jobs, decoding, batch_size, capacity, kept, done)
    session = Session(model, batch_size, capacity, kept)
    chooser = Chooser(decoding, banned_tokens(decoding, model.tokenizer))
    return _decode(model, session, jobs, chooser, done)


def _jobs(
    model: FrozenLM,
    requests: Sequence[Request],
    decoding: Decoding,
    seed: int,
    max_length: int | None,
) -> list[_Job]:
    """Encode every request and prepare every adaptation once; rows with long prompts come first."""
    by_adaptation: dict[int, list[int]] = defaultdict(list)
    for i, request in enumerate(requests):
        by_adaptation[id(request.adaptation)].append(i)
    jobs = []
    for indices in by_adaptation.values():
        adaptation = requests[indices[0]].adaptation
        edits = adaptation.edits(model)
        template = edits.template or adaptation.template
        limit = max_row_tokens(model.shape.context, max_length, edits.prefix_length)
        encoded = [
            template.encode(
                model.tokenizer,
                _example(requests[i].source),
                None,
                limit - requests[i].max_new_tokens,
            )
            for i in indices
        ]
        owner = prepare(model, edits, [e.ids for e in encoded])
        if nowhere := sum(e.begin is None for e in encoded):
            warnings.warn(nowhere_begun(nowhere, len(encoded)), BeginsNowhere, stacklevel=3)
        for i, e in zip(indices, encoded, strict=True):
            rng = torch.Generator().manual_seed(seed * 1_000_003 + i)
            row = DecodingState.of(owner if e.begin is not None else bare(model), e)
            ends = template.end_ids(model.tokenizer)
            least = max(requests[i].min_new_tokens, decoding.min_new_tokens)
            request = replace(requests[i], min_new_tokens=least)
            jobs.append(_Job(i, request, row, ends, len(e.ids), e.dropped, rng))
    return sorted(jobs, key=lambda job: -len(job.row.prompt))


def read_targets(
    model: FrozenLM,
    requests: Sequence[Request],
    *,
    batch_size: int = 16,
    max_length: int | None = None,
    store: TrunkStore | None = None,
    done: Callable[[int], None] | None = None,
) -> list[Reply]:
    """Losses of the requests' targets, each prompt read once; nothing is written.

    Raises:
        InputError: see `generate`.
    """
    jobs = _jobs(model, requests, Decoding(), 0, max_length)
    kept = None if store is None else KeptPrompts(model, store)
    session = Session(model, batch_size, max(job.room for job in jobs), kept)
    replies: dict[int, Reply] = {}
    for start in range(0, len(jobs), batch_size):
        chunk = jobs[start : start + batch_size]
        _joined(session, chunk)
        for job in chunk:
            session.leave(job.row)
            replies[job.index] = Reply(
                "", (), "length", job.prompt_tokens, job.dropped, job.target_losses
            )
        if done is not None:
            done(len(replies))
    return [replies[i] for i in range(len(jobs))]


def _example(source: str | Example) -> Example:
    return source if isinstance(source, Example) else Example(source, ())


def _decode(
    model: FrozenLM,
    session: Session,
    jobs: list[_Job],
    chooser: Chooser,
    done: Callable[[int], None],
) -> list[Reply]:
    waiting, running, replies = list(reversed(jobs)), list[_Job](), dict[int, Reply]()
    while waiting or running:
        joining = [waiting.pop() for _ in range(min(session.free, len(waiting)))]
        parts = [session.step([job.row for job in running])] if running else []
        parts += [_joined(session, joining)] if joining else []
        running += joining
        logits = chooser.restrict(
            torch.cat(parts) if len(parts) > 1 else parts[0],
            [job.row.tokens for job in running],
            [job.ends for job in running],
            [job.least for job in running],
        )
        tokens = chooser.next(logits, [job.generator for job in running])
        for job, token in zip(running, tokens, strict=True):
            job.row.tokens.append(token)
        for job in [job for job in running if job.over]:
            session.leave(job.row)
            replies[job.index] = _reply(model, job, job.row.tokens)
        running = [job for job in running if not job.over]
        done(len(replies))
    return [replies[i] for i in range(len(jobs))]


def _joined(session: Session, jobs: Sequence[_Job]) -> torch.Tensor:
    """The logits [R, V] after the prompts; losses of targets are taken on the way."""
    rows = [job.row for job in jobs]
    logits = session.join(rows)
    targets = [job.request.targets for job in jobs]
    if any(targets):
        for job, losses in zip(jobs, target_losses(session, rows, logits, targets), strict=True):
            job.target_losses = tuple(losses)
    return logits


def _reply(model: FrozenLM, job: _Job, tokens: Sequence[int]) -> Reply:
    ended = tokens[-1] in job.ends
    kept = tuple(tokens[:-1] if ended else tokens)
    text = model.tokenizer.decode(kept, skip_special_tokens=True).strip()
    how: Literal["end", "length"] = "end" if ended else "length"
    return Reply(text, kept, how, job.prompt_tokens, job.dropped, job.target_losses)


def _beam_search(
    model: FrozenLM,
    jobs: list[_Job],
    decoding: Decoding,
    batch_size: int,
    capacity: int,
    kept: KeptPrompts | None,
    done: Callable[[int], None],
) -> list[Reply]:
    """A few prompts at a time, each with its beams as rows of one session."""
    replies: dict[int, Reply] = {}
    prompts = max(1, batch_size // decoding.beams)
    for start in range(0, len(jobs), prompts):
        group = jobs[start : start + prompts]
        session = Session(model, len(group) * decoding.beams, capacity, kept)
        for job, tokens in zip(group, _beams_of(session, group, decoding), strict=True):
            replies[job.index] = _reply(model, job, tokens)
        done(len(replies))
    return [replies[i] for i in range(len(jobs))]


def _beams_of(session: Session, jobs: list[_Job], decoding: Decoding) -> list[list[int]]:
    width = decoding.beams
    chooser = Chooser(decoding, banned_tokens(decoding, session.model.tokenizer))
    searches = [
        Beams(width, job.ends, job.request.max_new_tokens, decoding.length_penalty) for job in jobs
    ]
    logits = _joined(session, jobs)
    alive = list(range(len(jobs)))
    while True:
        chances = logits.float().log_softmax(-1)
        sources, rows, at = list[int](), list[DecodingState](), 0
        for i in alive:
            search, before = searches[i], len(searches[i].running)
            made = [tokens for _, tokens in search.running]
            own = chooser.restrict(
                chances[at : at + before], made, [jobs[i].ends] * before, [jobs[i].least] * before
            )
            parents = search.advance(own)
            if not search.done:
                sources += [session.live[at + parent].slot for parent in parents]
                rows += [_extended(jobs[i].row, tokens) for _, tokens in search.running]
            at += before
        alive = [i for i in alive if not searches[i].done]
        if not alive:
            return [search.best() for search in searches]
        past = {
            id(row): session.live[source].past for row, source in zip(rows, sources, strict=True)
        }
        for slot, row in enumerate(rows):
            row.slot, row.past = slot, past[id(row)]
        session.reorder(rows, sources)
        logits = session.step(rows)


def _extended(row: DecodingState, tokens: list[int]) -> DecodingState:
    return DecodingState(row.owner, row.prompt, tokens, begin=row.begin)
