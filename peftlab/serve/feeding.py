"""One forward of the batch, in which a row that fails ends alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from peftlab.serve.errors import Failed
from peftlab.serve.pick import pick
from peftlab.serve.request import Token
from peftlab.serve.running import Running
from peftlab.serve.slots import Slots

if TYPE_CHECKING:
    import torch

Feeding = tuple[Running, tuple[int, ...] | list[int]]
"""A row, and the tokens that it reads."""

_log = logging.getLogger(__name__)


class Feeder:
    """Lets rows read, and chooses their next tokens.

    Args:
        lose: ends a row that has failed. free: gives up memory that is not needed.

    Attributes:
        read: prompt tokens so far.
        failure: why the base itself cannot run, as far as the last step has shown; None: it can.
    """

    def __init__(
        self, slots: Slots, lose: Callable[[Running, Failed], None], free: Callable[[], None]
    ) -> None:
        self._slots, self._lose, self._free = slots, lose, free
        self.read = 0
        self.failure: str | None = None

    def step(self, feeding: list[Feeding]) -> Iterator[tuple[Running, Token]]:
        """Each row that speaks, with its next token."""
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
            yield from self._pick(speaking, logits)

    def look_at_base(self) -> None:
        """After a failure: is it that nothing can run any more?"""
        try:
            self._slots.check_base()
            self.failure = None
        except Exception as error:
            _log.exception("the base itself fails")
            self.failure = f"{type(error).__name__}: {error}"

    def _feed(self, feeding: list[Feeding]) -> tuple[list[Running], torch.Tensor]:
        """Let rows read; returns those that speak, and their logits [R, V]."""
        logits = self._slots.feed(
            [row.row for row, _ in feeding],
            [ids for _, ids in feeding],
            [row.unread > len(ids) for row, ids in feeding],
        )
        speaking = [row for row, ids in feeding if row.unread <= len(ids)]
        for row, ids in feeding:
            self.read += min(row.unread, len(ids))
            row.unread = max(0, row.unread - len(ids))
        return speaking, logits

    def _feed_alone(self, one: Feeding) -> tuple[list[Running], torch.Tensor] | None:
        """The same for one row, which ends where that fails."""
        try:
            return self._feed([one])
        except Exception as error:
            _log.exception("a row of %s failed", one[0].adapter.name)
            self._lose(one[0], failed("the step failed", error))
            return None

    def _pick(self, rows: list[Running], logits: torch.Tensor) -> Iterator[tuple[Running, Token]]:
        """Each row's next token; a row that has none ends."""
        try:
            tokens = pick(logits, rows) if rows else []
        except Exception as error:
            _log.exception("no token could be chosen")
            if len(rows) == 1:
                self._lose(rows[0], failed("no token could be chosen", error))
                return
            for i, row in enumerate(rows):
                yield from self._pick([row], logits[i : i + 1])
            return
        for row, token in zip(rows, tokens, strict=True):
            if token is None:
                self._lose(row, Failed(f"{row.adapter.name!r} made scores that are not numbers"))
            else:
                yield row, token


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
