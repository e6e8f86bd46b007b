"""Where the tokens of owners with few of them lie, and where in a padded layout of table slots.

Legend: N packed tokens, S slots that a call spans, k most tokens of one owner, n tokens of all of
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from peftlab.frozen.batch import Span

# Owners with at most so many tokens are worth padding to the same number.
_FEW_TOKENS = 8


@dataclass(frozen=True)
class Placement:
    """Where the owners' tokens lie in the pack, and where in a padded [S, k] layout.

    Attributes:
        first, count: the table's slots from the first to the last one in use.
        run: the owners' rows in the pack, where they lie side by side; a slice costs a tenth of
            what gathering and scattering does.
        gather: [S·k], the pack's row of each cell; cells without a token repeat some row.
        rows, cells, slots: [n], of each token its row in the pack, its cell, and its slot.
    """

    first: int
    count: int
    width: int
    run: slice | None
    gather: torch.Tensor
    rows: torch.Tensor
    cells: torch.Tensor
    slots: torch.Tensor

    @classmethod
    def make(cls, spans: Sequence[Span], slots: Sequence[int], device: torch.device) -> Placement:
        """Of each owner's slice of the tokens, and its slot."""
        width = max(stop - start for start, stop in spans)
        first, count = min(slots), max(slots) - min(slots) + 1
        gather, columns = [spans[0][0]] * (count * width), list[tuple[int, int, int]]()
        for (start, stop), slot in zip(spans, slots, strict=True):
            cell = (slot - first) * width
            gather[cell : cell + stop - start] = range(start, stop)
            columns += [(row, cell + row - start, slot) for row in range(start, stop)]
        begin, end = columns[0][0], columns[-1][0] + 1
        side_by_side = all(start == stop for (_, stop), (start, _) in pairwise(spans))
        rows, cells, of_slot = torch.tensor(columns, device=device).T.contiguous()
        return cls(
            first, count, width, slice(begin, end) if side_by_side else None,
            torch.tensor(gather, device=device), rows, cells, of_slot,
        )  # fmt: skip

    def own(self, x: torch.Tensor) -> torch.Tensor:
        """[N, D] -> [n, D]; maybe a view."""
        return x.index_select(0, self.rows) if self.run is None else x[self.run]

    def put(self, x: torch.Tensor, values: torch.Tensor) -> None:
        """Overwrite the owners' rows of x [N, D] with values [n, D]."""
        if self.run is None:
            x.index_copy_(0, self.rows, values)
        else:
            x[self.run] = values

    def add(self, x: torch.Tensor, values: torch.Tensor) -> None:
        """Add values [n, D] to the owners' rows of x [N, D]."""
        if self.run is None:
            x.index_add_(0, self.rows, values)
        else:
            x[self.run].add_(values)

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """[N, D] -> [S, k, D]."""
        return x.index_select(0, self.gather).view(self.count, self.width, x.shape[-1])

    def take(self, padded: torch.Tensor) -> torch.Tensor:
        """[S, k, D] -> [n, D]."""
        return padded.flatten(0, 1).index_select(0, self.cells)


class Placements:
    """Where the owners' tokens lie among those that blocks run on; each placement is made once.

    Attributes:
        few: the owners with some tokens, but so few that padding them costs less than a loop.

    Args:
        stacks: whether there is a bank to take them together; else there are no few.
    """

    def __init__(self, spans: Mapping[int, Span], device: torch.device, stacks: bool) -> None:
        self._spans, self._device = spans, device
        self._made: dict[tuple[tuple[int, ...], tuple[int, ...]], Placement] = {}
        self.few = _few(spans) if stacks else frozenset[int]()

    def __len__(self) -> int:
        """How many have been made."""
        return len(self._made)

    def of(self, owners: Sequence[int], slots: Sequence[int]) -> Placement:
        """The placement of these owners in these slots, for all sites that have it."""
        key = (tuple(owners), tuple(slots))
        if key not in self._made:
            spans = [self._spans[owner] for owner in owners]
            self._made[key] = Placement.make(spans, slots, self._device)
        return self._made[key]


def _few(spans: Mapping[int, Span]) -> frozenset[int]:
    return frozenset(o for o, (start, stop) in spans.items() if 0 < stop - start <= _FEW_TOKENS)
