"""Which of many rows are alike, by a hash of each; all of it in arrays of a few bytes a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def recurring(hashes: Sequence[int]) -> Array:
    """Return the places of what stands there more than once, ascending."""
    import numpy as np

    _, inverse, counts = np.unique(_numbers(hashes), return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[inverse] > 1)


def distinct(hashes: Sequence[int]) -> Array:
    """Return what stands there, each once, in the order in which they first occur."""
    import numpy as np

    numbers = _numbers(hashes)
    return numbers[np.sort(np.unique(numbers, return_index=True)[1])]


def among(hashes: Sequence[int], chosen: Sequence[int] | Array) -> Array:
    """Say of each whether it is one of those chosen."""
    import numpy as np

    return np.isin(_numbers(hashes), _numbers(chosen))


class Groups(Sequence[Any]):
    """The places of equal hashes, ascending, group by group in the order of their first places."""

    def __init__(self, hashes: Sequence[int]) -> None:
        import numpy as np

        _, first, inverse = np.unique(_numbers(hashes), return_index=True, return_inverse=True)
        rank = np.empty_like(first)
        rank[np.argsort(first)] = np.arange(len(first))
        group = rank[inverse]
        self._places = np.argsort(group, kind="stable")
        self._ends = np.cumsum(np.bincount(group))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        return self._places[self._ends[index - 1] if index else 0 : self._ends[index]]


def _numbers(hashes: Sequence[int] | Array) -> Array:
    import numpy as np

    return np.asarray(hashes, dtype=np.int64)
