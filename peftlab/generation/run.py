"""Requests in, replies out: rows of different adaptations, methods and lengths in one batch."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from peftlab.errors import InputError
from peftlab.frozen.mixing import mixed_each
from peftlab.frozen.model import FrozenLM
from peftlab.generation.beam import Beams
from peftlab.generation.choose import Chooser, Written, banned_tokens
from peftlab.generation.kept import KeptPrompts
from peftlab.generation.owner import prepare_each
from peftlab.generation.session import Session
from peftlab.generation.state import DecodingState, rows_of
from peftlab.generation.targets import Target, target_losses
from peftlab.methods.adaptation import Adaptation
from peftlab.structured import Guide, Structure, grammars_of
from peftlab.tasks import Decoding, Encoded, Example
from peftlab.tasks.example import BeginsNowhere, nowhere_begun
from peftlab.tasks.task import check_structured
from peftlab.token_limits import max_row_tokens, token_chunks
from peftlab.trunk import TrunkStore


@dataclass(frozen=True)
class Request:
    """One text for one adaptation. `min_new_tokens` forbids the end before so many tokens.

    targets: ids, ends included, whose losses are wanted too, while the prompt is at hand.
    structure: that the reply follows; by default the decoding's `schema`, where it has one.
    """

    adaptation: Adaptation
    source: str | Example
    max_new_tokens: int = 64
    min_new_tokens: int = 0
    targets: tuple[Target, ...] = ()
    structure: Structure | None = None


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
    """A request on its way: its place, its rows, its end tokens, its random draws.

    rows: one, or of a mixture one an expert, which share what they have produced; shares: what
    the logits of each count.
    """

    index: int
    request: Request
    rows: tuple[DecodingState, ...]
    shares: tuple[float, ...]
    ends: tuple[int, ...]
    prompt: Encoded
    generator: torch.Generator
    guide: Guide | None = None
    target_losses: tuple[float, ...] = ()

    @property
    def row(self) -> DecodingState:
        """The first of its rows."""
        return self.rows[0]

    @property
    def room(self) -> int:
        """Positions that its longest row may take, prefix included."""
        after = max(self.request.max_new_tokens, *map(len, self.request.targets), 0)
        return max(row.length for row in self.rows) + after

    def written(self, made: Sequence[int]) -> Written:
        """It, with these tokens of its reply."""
        least = self.request.min_new_tokens
        return Written(made, self.ends, least, self.prompt.ids, self.guide)

    @property
    def prompt_tokens(self) -> int:
        """What all of its rows read before the reply."""
        return sum(len(row.ids) for row in self.prompt.rows)

    @property
    def over(self) -> bool:
        return self.is_whole or len(self.row.tokens) >= self.request.max_new_tokens

    @property
    def is_whole(self) -> bool:
        """Whether it has come to its end, and not to that of its tokens."""
        made = self.row.tokens
        if made[-1] in self.ends:
            return True
        return self.guide is not None and self.guide.is_complete(made)


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
    session = Session(model, max(batch_size, *_experts(jobs)), capacity, kept)
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
    asked = Structure.of_schema(decoding.json_schema) if decoding.json_schema else None
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
        owners = prepare_each(model, edits, encoded)
        if nowhere := sum(e.begins_nowhere for e in encoded):
            warnings.warn(nowhere_begun(nowhere, len(encoded)), BeginsNowhere, stacklevel=3)
        for i, e in zip(indices, encoded, strict=True):
            rng = torch.Generator().manual_seed(seed * 1_000_003 + i)
            rows = rows_of(model, owners, e)
            ends = template.end_ids(model.tokenizer)
            least = max(requests[i].min_new_tokens, decoding.min_new_tokens)
            request = replace(requests[i], min_new_tokens=least)
            guide = _guide(model, request.structure or asked, decoding, least)
            jobs.append(_Job(i, request, rows, edits.shares, ends, e, rng, guide))
    return sorted(jobs, key=lambda job: -max(len(row.prompt) for row in job.rows))


def _experts(jobs: Sequence[_Job]) -> list[int]:
    return [len(job.rows) for job in jobs]


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
    most = max(batch_size, *_experts(jobs))
    session = Session(model, most, max(job.room for job in jobs), kept)
    replies: dict[int, Reply] = {}
    for chunk in token_chunks(jobs, _experts(jobs), most):
        _joined(session, chunk)
        for job in chunk:
            _leave(session, job)
            replies[job.index] = Reply(
                "", (), "length", job.prompt_tokens, job.prompt.dropped, job.target_losses
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
        joining = _joining(session, waiting)
        parts = [_stepped(session, running)] if running else []
        parts += [_joined(session, joining)] if joining else []
        running += joining
        logits = chooser.restrict(
            torch.cat(parts) if len(parts) > 1 else parts[0],
            [job.written(job.row.tokens) for job in running],
        )
        tokens = chooser.next(logits, [job.generator for job in running])
        for job, token in zip(running, tokens, strict=True):
            job.row.tokens.append(token)
        for job in [job for job in running if job.over]:
            _leave(session, job)
            replies[job.index] = _reply(model, job, job.row.tokens, job.is_whole)
        running = [job for job in running if not job.over]
        done(len(replies))
    return [replies[i] for i in range(len(jobs))]


def _guide(
    model: FrozenLM, structure: Structure | None, decoding: Decoding, least: int
) -> Guide | None:
    if structure is None:
        return None
    check_structured(decoding, least)
    return grammars_of(model.tokenizer, model.shape.vocab).guide(structure)


def _joining(session: Session, waiting: list[_Job]) -> list[_Job]:
    """Those of the waiting jobs whose turn it is, as far as there are slots."""
    joining, free = list[_Job](), session.free
    while waiting and len(waiting[-1].rows) <= free:
        free -= len(waiting[-1].rows)
        joining.append(waiting.pop())
    return joining


def _flat(jobs: Sequence[_Job]) -> list[DecodingState]:
    return [row for job in jobs for row in job.rows]


def _stepped(session: Session, jobs: Sequence[_Job]) -> torch.Tensor:
    """The logits [J, V] of the jobs' next tokens."""
    return mixed_each(session.step(_flat(jobs)), [job.shares for job in jobs])


def _joined(session: Session, jobs: Sequence[_Job]) -> torch.Tensor:
    """The logits [J, V] after the prompts; losses of targets are taken on the way."""
    shares = [job.shares for job in jobs]
    logits = mixed_each(session.join(_flat(jobs)), shares)
    targets = [job.request.targets for job in jobs]
    if any(targets):
        found = target_losses(session, [job.rows for job in jobs], shares, logits, targets)
        for job, losses in zip(jobs, found, strict=True):
            job.target_losses = tuple(losses)
    return logits


def _leave(session: Session, job: _Job) -> None:
    for row in job.rows:
        session.leave(row)


def _reply(model: FrozenLM, job: _Job, tokens: Sequence[int], whole: bool = False) -> Reply:
    ended = tokens[-1] in job.ends
    kept = tuple(tokens[:-1] if ended else tokens)
    text = model.tokenizer.decode(kept, skip_special_tokens=True).strip()
    how: Literal["end", "length"] = "end" if ended or whole else "length"
    return Reply(text, kept, how, job.prompt_tokens, job.prompt.dropped, job.target_losses)


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
    if max(_experts(jobs)) > 1:
        raise InputError(
            "a mixture decodes greedily or by sampling, and beams were asked for: leave beams out"
        )
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
            rows_so_far = [jobs[i].written(tokens) for tokens in made]
            own = chooser.restrict(chances[at : at + before], rows_so_far)
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
