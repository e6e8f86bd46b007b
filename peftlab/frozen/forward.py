"""A forward of a batch: how it is run, and what it notes and leaves behind while it runs.

The overridden modules of the frozen model are called by transformers, which knows nothing of
batches. So they read one current object, a `ForwardContext`: the only ambient thing there is. It is
set inside the frozen model's forward, and set again where backward recomputes a block, since that
may happen in another thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch

from peftlab.frozen.bank import Bank
from peftlab.frozen.batch import Batch, Segment, Span
from peftlab.frozen.cache import KeyValueCache
from peftlab.frozen.dot_product import Masks
from peftlab.frozen.placements import Placements
from peftlab.frozen.rotary import Rotary
from peftlab.frozen.steps import StepPlan

# Above this share of kept tokens the last block runs on all of them.
_FEW_KEPT = 0.6

Wanted = TypeVar("Wanted", bound=tuple[int, Any])  # an owner and what it wants at a site
States = tuple[int, torch.Tensor]  # a block and its input [1, N, D]
# Running tokens [start, stop) of a segment, and how many of its own tokens there are up to them.
Query = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class ForwardOptions:
    """How a batch is run; one object serves any number of batches.

    Attributes:
        cache: keys and values of earlier tokens, written and read by the attention site; for rows
            with a past, which need one.
        bank: stacks the edits of owners with few tokens; needs a cache, and brings no gradients.
        checkpoint: recompute every block in backward instead of keeping its activations.
        fast: allow what gives the same numbers sooner: the last block at the kept tokens only, and
            fused activations, norms and rotary embeddings. False shows the difference.
        resume: states that enter a block; the blocks below it are skipped.
        keep_input_of: the block whose input is wanted, see `ForwardContext.kept_input`.
        stop_after_keeping: leave the forward as soon as that is there.
        collect: keep every block's own keys and values, see `ForwardContext.collected`.
        angles_of: the block whose rotary table is wanted, see `ForwardContext.angles`; the forward
            leaves at its attention.
        project: states that a block's attention gets for its input; the forward leaves there with
            their keys and values. The caller has gathered the sharded parameters that it needs.
    """

    cache: KeyValueCache | None = None
    bank: Bank | None = None
    checkpoint: bool = False
    fast: bool = True
    resume: States | None = None
    keep_input_of: int | None = None
    stop_after_keeping: bool = False
    collect: bool = False
    angles_of: int | None = None
    project: States | None = None


PLAIN = ForwardOptions()


class Extent:
    """The tokens that blocks run on: all N of a batch, or the kept ones alone.

    Attributes:
        spans: each owner's slice of them. queries: those of each segment.
        placements: where the tokens of owners lie that the bank takes together.
        step_plan: of the rows that have one new token, once attention has made it.
    """

    def __init__(self, batch: Batch, *, narrowed: bool, stacks: bool) -> None:
        self.narrowed = narrowed
        self.spans: Mapping[int, Span] = batch.kept_spans if narrowed else batch.spans
        self.queries = _kept_queries(batch) if narrowed else _all_queries(batch)
        self.placements = Placements(self.spans, batch.ids.device, stacks)
        self.step_plan: StepPlan | None = None


def _all_queries(batch: Batch) -> list[list[Query]]:
    return [[(s.start, s.start + s.length, s.length)] for s in batch.segments]


def _kept_queries(batch: Batch) -> list[list[Query]]:
    queries, at = list[list[Query]](), 0
    for segment in batch.segments:
        queries.append([])
        for start, stop in segment.spans:
            queries[-1].append((at, at + stop - start, stop - segment.start))
            at += stop - start
    return queries


@dataclass(eq=False)
class ForwardContext:
    """One forward of a batch: what the sites read, and where they leave what they find.

    Attributes:
        running: the tokens that the blocks are running on now: `whole`, or `kept` in the last one.
        to_attention: the block runs for its keys and values alone, and is left at attention.
        captured: keys and values [H_kv, N, hd] of all tokens, while the last block is `narrowed`.
        kept_input: the states [1, N, D] that entered the block of `ForwardOptions.keep_input_of`.
        collected: by block its own keys and values [H_kv, N, hd], where `collect` asks for them.
        angles: cosines and sines [1, N, …] that a block's attention was given, if it is given any.
        masks: of rows that do not see themselves causally alone, shared by all blocks.
        rotary: the model's, which turns prefixes to their positions.
    """

    batch: Batch
    options: ForwardOptions = PLAIN
    running: Extent = field(init=False)
    to_attention: bool = field(init=False)
    captured: tuple[torch.Tensor, torch.Tensor] | None = field(init=False, default=None)
    kept_input: torch.Tensor | None = field(init=False, default=None)
    collected: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(
        init=False, default_factory=dict
    )
    angles: tuple[torch.Tensor, torch.Tensor] | None = field(init=False, default=None)
    masks: Masks = field(init=False, default_factory=Masks)
    rotary: Rotary | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.to_attention = self.options.project is not None
        self.running = self.whole

    @cached_property
    def whole(self) -> Extent:
        """All tokens of the batch."""
        return self._extent(narrowed=False)

    @cached_property
    def kept(self) -> Extent:
        """The tokens whose logits are asked for."""
        return self._extent(narrowed=True)

    def _extent(self, *, narrowed: bool) -> Extent:
        stacks = self.options.bank is not None and self.options.cache is not None
        return Extent(self.batch, narrowed=narrowed, stacks=stacks)

    @property
    def narrowed(self) -> bool:
        """Whether the last block is running on the kept tokens."""
        return self.running.narrowed

    @property
    def narrows(self) -> bool:
        """Whether the last block is worth running on the kept tokens only.

        Where most tokens are kept, picking them out costs more than their neighbours' work.
        """
        keep = len(self.batch.keep)
        few = 0 < keep < _FEW_KEPT * len(self.batch.ids)
        return self.options.fast and few and not self.options.collect

    @property
    def entry(self) -> States | None:
        """The states that the forward begins with, where it skips blocks."""
        return self.options.project or self.options.resume

    @property
    def dropout_keys(self) -> torch.Tensor:
        """The numbers of the running tokens that dropout masks hang on."""
        batch, keys = self.batch, self.batch.dropout_keys
        if keys is None:
            keys = torch.arange(len(batch.ids), device=batch.ids.device)
        return keys[batch.keep] if self.narrowed else keys

    def divide(self, wanted: Sequence[Wanted]) -> tuple[list[Wanted], list[Wanted]]:
        """What owners want at a site: of those that the bank takes together, and of the others."""
        together = self.running.placements.few
        if not together or torch.is_grad_enabled():
            return [], list(wanted)
        few = [pair for pair in wanted if pair[0] in together]
        if len(few) < 2:
            return [], list(wanted)
        return few, [pair for pair in wanted if pair[0] not in together]

    def segment_queries(self) -> Iterator[tuple[Segment, list[Query]]]:
        """Each segment with the running tokens that are its own, span by span."""
        return zip(self.batch.segments, self.running.queries, strict=True)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this what the sites read. Nests, and is restored on the way out."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[ForwardContext | None] = ContextVar("peftlab_forward", default=None)


def current_forward() -> ForwardContext | None:
    """The forward that is running in this thread, if any."""
    return _current.get()
