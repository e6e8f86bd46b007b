"""A batch: rows packed end to end, sorted by owner, each with its owner's edits.

Every owner's rows are one contiguous slice [start, stop) of the N packed tokens, so an edit is a
slice and no padding enters a matmul. What the rows of an owner have in common at their start (a
soft prompt, an instruction) is packed once as a shared segment that those rows attend to: it does
not depend on what follows it, so this is exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from peftlab.edits import Bottleneck, Edits, LinearEdit, Sublayer

if TYPE_CHECKING:
    from peftlab.frozen.bank import Bank
    from peftlab.frozen.cache import KeyValueCache

# Above this share of kept tokens the last block runs on all of them.
_FEW_KEPT = 0.6
# Owners with at most so many tokens are worth padding to the same number.
_FEW_TOKENS = 8

Given = TypeVar("Given")
Wanted = TypeVar("Wanted", bound=tuple[int, Any])  # an owner and what it wants at a site

_current: ContextVar[Batch | None] = ContextVar("peftlab_batch", default=None)


@dataclass(frozen=True)
class Segment:
    """A run of packed tokens that attends to itself, to its owner's prefix and to `shared`.

    Its last `kept` tokens are those whose logits are asked for.
    """

    start: int
    length: int
    owner: int
    position: int
    shared: tuple[int, int] | None = None
    kept: int = 0
    slot: int = 0
    past: int = 0


@dataclass
class Batch:
    """Packed rows with their owners' edits: what `FrozenLM` takes and what the sites read.

    Attributes:
        ids: [N], negative for pseudo tokens. positions: [N].
        keep: [K], the packed tokens whose logits are asked for, in packed order.
        order: `order[i]` is the index, among the rows given to `pack`, of the i-th packed row.
        kept: how many logits each packed row keeps.
        spans, kept_spans: each owner's slice of the N tokens and of the K kept ones.
        prompted: the owners whose rows have pseudo tokens.
        cache: keys and values of earlier tokens, written and read by the attention site.
        checkpoint: recompute every block in backward instead of keeping its activations.
        fast: allow what gives the same numbers sooner: the last block at the kept tokens only, and
            fused activations. False shows the difference.
        narrowed: the last block is running on the kept tokens; `captured` then holds the keys and
            values [H_kv, N, hd] of all tokens.
        resume: (block k, its input [1, N, D]); the blocks below k are skipped.
        keep_input_of: the block whose input is wanted; it is put into `kept_input`.
        collected: where not None, every block's own keys and values [H_kv, N, hd] are put here.
        stop_at_attention: the first attention call leaves the forward with its keys and values.
        stop_after_keeping: leave the forward as soon as `kept_input` is there.
        by_hand: the caller has gathered the sharded parameters that this batch needs.
        attention_input: (block, [1, N, D]) that the block's attention module gets for its input.
        bank: stacks the edits of owners with few tokens; needs a cache, and brings no gradients.
        few, few_kept: those owners, by their tokens and by their kept tokens.
        placements, step_plans: notes of the bank and of the attention site, made once a batch.
        tokens: [N], a number for each token that dropout masks hang on; by default its place here.
        masks: masks of rows that do not see themselves causally alone, shared by all blocks.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    segments: list[Segment]
    keep: torch.Tensor
    order: list[int]
    kept: list[int]
    owners: Sequence[Edits]
    spans: dict[int, tuple[int, int]]
    kept_spans: dict[int, tuple[int, int]]
    prompted: set[int] = field(default_factory=set)
    cache: KeyValueCache | None = None
    checkpoint: bool = False
    fast: bool = True
    narrowed: bool = False
    captured: tuple[torch.Tensor, torch.Tensor] | None = None
    resume: tuple[int, torch.Tensor] | None = None
    keep_input_of: int | None = None
    kept_input: torch.Tensor | None = None
    collected: dict[int, tuple[torch.Tensor, torch.Tensor]] | None = None
    stop_at_attention: bool = False
    stop_after_keeping: bool = False
    by_hand: bool = False
    attention_input: tuple[int, torch.Tensor] | None = None
    bank: Bank | None = None
    few: frozenset[int] = field(init=False, default=frozenset())
    few_kept: frozenset[int] = field(init=False, default=frozenset())
    placements: dict[Any, Any] = field(default_factory=dict)
    step_plans: dict[bool, Any] = field(default_factory=dict)
    tokens: torch.Tensor | None = None
    masks: dict[tuple[int, int, int | None], torch.Tensor] = field(default_factory=dict)
    linear: dict[str, list[tuple[int, LinearEdit]]] = field(init=False)
    sublayer: dict[tuple[int, Sublayer], list[tuple[int, Bottleneck]]] = field(init=False)
    weights: dict[str, list[tuple[int, torch.Tensor]]] = field(init=False)

    @property
    def lengths(self) -> list[int]:
        """How many packed tokens each segment has."""
        return [segment.length for segment in self.segments]

    @property
    def running_tokens(self) -> torch.Tensor:
        """The numbers of the tokens that the blocks are running on."""
        tokens = self.tokens
        if tokens is None:
            tokens = torch.arange(len(self.ids), device=self.ids.device)
        return tokens[self.keep] if self.narrowed else tokens

    @property
    def running_spans(self) -> dict[int, tuple[int, int]]:
        """Each owner's slice of the tokens that the blocks are running on."""
        return self.kept_spans if self.narrowed else self.spans

    @property
    def narrows(self) -> bool:
        """Whether the last block is worth running on the kept tokens only.

        Where most tokens are kept, picking them out costs more than their neighbours' work.
        """
        few = len(self.keep) < _FEW_KEPT * len(self.ids)
        return self.fast and few and len(self.keep) > 0 and self.collected is None

    def __post_init__(self) -> None:
        self.linear, self.sublayer, self.weights = (
            defaultdict(list),
            defaultdict(list),
            defaultdict(list),
        )
        for owner in self.spans:
            edits = self.owners[owner]
            for path, linear in edits.linear.items():
                self.linear[path].append((owner, linear))
            for place, bottleneck in edits.sublayer.items():
                self.sublayer[place].append((owner, bottleneck))
            for name, tensor in edits.weights.items():
                self.weights[name].append((owner, tensor))
        if self.bank is not None and self.cache is not None:
            self.few, self.few_kept = _few(self.spans), _few(self.kept_spans)

    def divide(self, wanted: Sequence[Wanted]) -> tuple[list[Wanted], list[Wanted]]:
        """What owners want at a site: of those that the bank takes together, and of the others."""
        together = self.few_kept if self.narrowed else self.few
        if not together or torch.is_grad_enabled():
            return [], list(wanted)
        few = [pair for pair in wanted if pair[0] in together]
        if len(few) < 2:
            return [], list(wanted)
        return few, [pair for pair in wanted if pair[0] not in together]

    def query_spans(self) -> Iterator[tuple[Segment, int, int]]:
        """Each segment with the slice of the running tokens that are its own."""
        at = 0
        for segment in self.segments:
            count = segment.kept if self.narrowed else segment.length
            yield segment, at, at + count
            at += count

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this the batch that the sites read. Nests, and is restored on the way out."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def split_kept(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Cut [K, …] into one tensor a row, in the order in which the rows were given to `pack`."""
        return self._as_given(list(values.split(self.kept)))

    def given_segments(self) -> list[Segment]:
        """Each row's segment, in the order given to `pack`; with a cache, so none is shared."""
        assert self.cache is not None
        return self._as_given(self.segments)

    def _as_given(self, pieces: list[Given]) -> list[Given]:
        given = list(pieces)
        for row, piece in zip(self.order, pieces, strict=True):
            given[row] = piece
        return given


def current_batch() -> Batch | None:
    """The batch of the forward that is running in this thread, if any."""
    return _current.get()


def _few(spans: dict[int, tuple[int, int]]) -> frozenset[int]:
    """The owners with some tokens, but so few that padding them costs less than a loop."""
    return frozenset(o for o, (start, stop) in spans.items() if 0 < stop - start <= _FEW_TOKENS)
