"""Translation edit rate (Snover et al. 2006) as sacrebleu defines it, with a fast edit distance.

sacrebleu follows tercom's greedy search for block shifts. Every candidate shift costs one edit
distance, in Python and with its alignment, which is minutes for a thousand examples. Here
sacrebleu still chooses the shifts, but of a candidate only the distance is computed (rapidfuzz,
C++), and an alignment only once per round. The scores are sacrebleu's, in 0–100, lower is better.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics import lib_ter
from sacrebleu.tokenizers.tokenizer_ter import TercomTokenizer

from peftlab.metrics.registry import Rows

_INFINITE = 1 << 30


class EditDistance:
    """Edit distance to one reference inside tercom's beam around the diagonal.

    Called as sacrebleu's `BeamEditDistance` is, so that its search for shifts can use it.
    """

    def __init__(self, reference: list[str]) -> None:
        self.reference = reference

    def __call__(self, words: list[str]) -> Edits:
        return Edits(self, words)

    def distance(self, words: list[str]) -> int:
        """The distance alone.

        A path of cost d between lengths that differ by δ stays within (d + δ) / 2 cells of the
        beam's diagonal, so the unrestricted distance is the beam's where that is less than the
        beam's width, and where the whole reference is.
        """
        exact = int(Levenshtein.distance(words, self.reference))
        reach = (exact + abs(len(words) - len(self.reference))) / 2
        if min(reach, len(self.reference)) < lib_ter._BEAM_WIDTH - 1:
            return exact
        return self._table(words)[-1][-1]

    def traced(self, words: list[str]) -> tuple[int, str]:
        """Distance and operations: " " keep, "s" substitute, "i" insert, "d" delete.

        Among equal costs, substitution comes before deletion and that before insertion.
        """
        table = self._table(words)
        i, j, operations = len(words), len(self.reference), []
        while i or j:
            if i and j:
                differs = words[i - 1] != self.reference[j - 1]
                if table[i][j] == table[i - 1][j - 1] + differs:
                    operations.append("s" if differs else " ")
                    i, j = i - 1, j - 1
                    continue
            if i and table[i][j] == table[i - 1][j] + 1:
                operations.append("d")
                i -= 1
            else:
                operations.append("i")
                j -= 1
        return table[-1][-1], "".join(reversed(operations))

    def _table(self, words: list[str]) -> list[list[int]]:
        """Costs [words + 1, reference words + 1]; cells outside the beam are infinite."""
        wanted = self.reference
        ratio = len(wanted) / len(words) if words else 1.0
        width = lib_ter._BEAM_WIDTH
        if width < ratio / 2:
            width = math.ceil(ratio / 2 + width)
        previous = list(range(len(wanted) + 1))
        table = [previous]
        for i, word in enumerate(words, start=1):
            diagonal = math.floor(i * ratio)
            start = max(0, diagonal - width)
            stop = min(len(wanted) + 1, diagonal + width) if i < len(words) else len(wanted) + 1
            row = [_INFINITE] * (len(wanted) + 1)
            if start == 0:
                row[0] = previous[0] + 1
            for j in range(max(1, start), stop):
                cost = previous[j - 1] + (word != wanted[j - 1])
                # comparisons, because min() would double the time of the whole metric
                other = (previous[j] if previous[j] < row[j - 1] else row[j - 1]) + 1
                row[j] = cost if cost <= other else other
            table.append(row)
            previous = row
        return table


class Edits:
    """(distance, operations) of one hypothesis, each computed when it is asked for."""

    def __init__(self, beam: EditDistance, words: list[str]) -> None:
        self.beam = beam
        self.words = words

    def __getitem__(self, index: int) -> int | str:
        return self.beam.distance(self.words) if index == 0 else self.beam.traced(self.words)[1]

    def __iter__(self) -> Iterator[int | str]:
        return iter(self.beam.traced(self.words))


def count_edits(hypothesis: list[str], reference: list[str]) -> int:
    """Shifts plus insertions, deletions and substitutions that turn one into the other."""
    if not reference:
        return len(hypothesis)
    beam = EditDistance(reference)
    words, shifts, checked = hypothesis, 0, 0
    while True:
        gain, moved, checked = lib_ter._shift(words, reference, beam, checked)
        if checked >= lib_ter._MAX_SHIFT_CANDIDATES or gain <= 0:
            return shifts + beam.distance(words)
        words, shifts = moved, shifts + 1


class Ter:
    """Corpus TER: edits to the nearest reference over the mean length of the references."""

    def __init__(self) -> None:
        self.tokenizer = TercomTokenizer()

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """Fewest edits and mean reference length, [examples, 2]."""
        rows = np.empty((len(predictions), 2))
        for row, (text, targets) in enumerate(zip(predictions, references, strict=True)):
            words = self._words(text)
            wanted = [self._words(target) for target in targets]
            rows[row, 0] = min(count_edits(words, target) for target in wanted)
            rows[row, 1] = sum(map(len, wanted)) / len(wanted)
        return rows

    def aggregate(self, rows: Rows) -> float:
        """Edits per reference word; without any reference word, 0 or 100 as in sacrebleu."""
        edits, words = rows.sum(axis=0)
        if words > 0:
            return float(100 * edits / words)
        return 100.0 if edits else 0.0

    def _words(self, text: str) -> list[str]:
        return str(self.tokenizer(text.rstrip())).split()
