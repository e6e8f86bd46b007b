"""One forward of the batch, in which a row that fails ends alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import torch

from peftlab.errors import PeftlabError
from peftlab.serve.errors import Failed
from peftlab.serve.pick import pick
from peftlab.serve.request import Token
from peftlab.serve.running import Running, RunningRow
from peftlab.serve.slots import Slots

Feeding = tuple[RunningRow, tuple[int, ...] | list[int]]
"""A row, and the tokens that it reads."""
Fed = tuple[list[RunningRow], torch.Tensor]
"""Rows that have read all that they had to, and what follows each of them, [R, V]."""

_log = logging.getLogger(__name__)


class Feeder:
    """Lets rows read, and chooses their next tokens.

    Args:
        lose: ends a request that has failed. free: gives up memory that is not needed.

    Attributes:
        read: prompt tokens so far.
        failure: why the base itself cannot run, as far as the last step has shown; None: it can.
    """

    def __init__(
        self, slots: Slots, lose: Callable[[Running, PeftlabError], None], free: Callable[[], None]
    ) -> None:
        self._slots, self._lose, self._free = slots, lose, free
        self.read = 0
        self.failure: str | None = None

    def step(self, feeding: list[Feeding]) -> Iterator[tuple[Running, Token]]:
        """Each request whose rows have all said what may follow, with its next token."""
        # As they are packed, so that logits come in this order; kinds side by side are cheaper.
        feeding.sort(key=lambda pair: (pair[0].row.kind, id(pair[0].row.edits)))
        try:
            fed = [self._feed(feeding)]
            self.failure = None
        except Exception:  # a defect, or no memory: each row alone, so that the others go on
            _log.exception("a step failed; its rows are tried one by one")
            self._free()
            fed = [it for one in feeding if (it := self._feed_alone(one)) is not None]
            self.look_at_base()
        for speaking, logits in fed:
            yield from self._pick(*_heard(*_present(speaking, logits)))

    def look_at_base(self) -> None:
        """After a failure: is it that nothing can run any more?"""
        try:
            self._slots.check_base()
            self.failure = None
        except Exception as error:
            _log.exception("the base itself fails")
            self.failure = f"{type(error).__name__}: {error}"

    def _feed(self, feeding: list[Feeding]) -> Fed:
        """Let rows read; returns those that speak, and their logits [R, V]."""
        wanted = [row.wanted(ids) for row, ids in feeding]
        logits = self._slots.feed(
            [row.row for row, _ in feeding], [ids for _, ids in feeding], wanted
        )
        speaking = [row for row, ids in feeding if row.unread <= len(ids)]
        echoing = [row.echoes and row.unread > 0 for row, _ in feeding]
        for row, ids in feeding:
            self.read += min(row.unread, len(ids))
            row.unread = max(0, row.unread - len(ids))
        if not any(echoing):
            return speaking, logits
        each = list(zip(feeding, echoing, logits.split(wanted), strict=True))
        for (row, ids), echoes, own in each:
            if echoes:
                self._hear_prompt(row, len(ids), own)
        last = [own[-1:] for (row, _), _, own in each if not row.unread]
        return speaking, torch.cat(last) if last else logits[:0]

    def _hear_prompt(self, row: RunningRow, count: int, logits: torch.Tensor) -> None:
        """What a row has read is read, so whatever happens here ends that request alone."""
        try:
            row.hear_prompt(count, logits)
        except Exception as error:
            _log.exception("a prompt of %s could not be told", row.running.adapter.name)
            self._lose(row.running, failed("the prompt could not be told", error))

    def _feed_alone(self, one: Feeding) -> Fed | None:
        """The same for one row, whose request ends where that fails."""
        running = one[0].running
        if running.has_left:
            return None
        try:
            return self._feed([one])
        except Exception as error:
            _log.exception("a row of %s failed", running.adapter.name)
            self._lose(running, failed("the step failed", error))
            return None

    def _pick(self, rows: list[Running], logits: torch.Tensor) -> Iterator[tuple[Running, Token]]:
        """Each row's next token; a row that has none ends."""
        try:
            tokens = pick(logits, rows) if rows else []
        except Exception as error:
            own = error if isinstance(error, PeftlabError) else None  # a structure's dead end
            if own is None:
                _log.exception("no token could be chosen")
            if len(rows) == 1:
                self._lose(rows[0], own or failed("no token could be chosen", error))
                return
            for i, row in enumerate(rows):
                yield from self._pick([row], logits[i : i + 1])
            return
        for row, token in zip(rows, tokens, strict=True):
            if token is None:
                self._lose(row, Failed(f"{row.adapter.name!r} made scores that are not numbers"))
            else:
                yield row, token


def _present(rows: list[RunningRow], logits: torch.Tensor) -> Fed:
    """Those whose requests have not ended on the way."""
    kept = [i for i, row in enumerate(rows) if not row.running.has_left]
    return (rows, logits) if len(kept) == len(rows) else ([rows[i] for i in kept], logits[kept])


def _heard(rows: list[RunningRow], logits: torch.Tensor) -> tuple[list[Running], torch.Tensor]:
    """The requests whose rows have all said what may follow, and logits [R, V] of these."""
    if all(len(row.running.rows) == 1 for row in rows):
        return [row.running for row in rows], logits
    whole, scores = list[Running](), list[torch.Tensor]()
    for row, own in zip(rows, logits, strict=True):
        found = row.running.hear(row, own)
        if found is not None:
            whole.append(row.running)
            scores.append(found)
    return whole, torch.stack(scores) if scores else logits[:0]


def failed(words: str, error: Exception) -> Failed:
    """What the one is told whose request came to nothing by a defect."""
    return Failed(f"{words}: {type(error).__name__}: {error}")


def shared_out(unread: list[int], budget: int) -> list[int]:
    """How many prompt tokens each row reads in a step, its oldest row first.

    The oldest gets half of the budget, so that it comes to its end; the rest goes to the shortest,
    so that a short prompt does not wait for a long one; what is left goes to the oldest again.
    """
    shares = [0] * len(unread)
    going = [i for i, left in enumerate(unread) if left]
    if not going:
        return shares
    shares[going[0]] = min(unread[going[0]], (budget + 1) // 2)
    budget -= shares[going[0]]
    for i in sorted(going, key=lambda i: unread[i] - shares[i]):
        more = min(unread[i] - shares[i], budget)
        shares[i] += more
        budget -= more
    return shares
