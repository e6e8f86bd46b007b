# SPDX-License-Identifier: LGPL-2.1-only
# Ported in 2026 from METEOR 1.5, Copyright (C) 2004, 2010 Carnegie Mellon University: see NOTICE.
"""Matches between a hypothesis and a reference, and the alignment that METEOR's beam search picks.

Terms as in the jar: line 1 is the hypothesis, line 2 the reference. A match joins a span of line 2
with a span of line 1 by one of four modules. The search goes through line 2 from left to right;
of all partial alignments it keeps the 40 best by (words matched, fewest chunks, least distance).

Three of the jar's habits decide ties and are kept: an inexact match counts half its words *rounded
down* (so a single word counts nothing) while searching; the distance of a chosen match is charged
to the paths that come after it, not to its own; matches of the same place are tried module by
module, in the order in which they were found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import NamedTuple

EXACT, STEM, SYNONYM, PARAPHRASE = range(4)
BEAM = 40
LONGEST_PHRASE = 7
_CHUNK = 1 << 32
_MATCH = 1 << 52


class Match(NamedTuple):
    """Words start … start + length of line 2 are words start1 … start1 + length1 of line 1."""

    module: int
    start: int
    length: int
    start1: int
    length1: int


@dataclass(frozen=True)
class Lexicon:
    """What the inexact modules know.

    paraphrases: phrase → its paraphrases; targets: all of those.
    """

    stem: Callable[[str], str]
    meanings: Callable[[str], frozenset[str]]
    paraphrases: Mapping[str, Sequence[str]]

    @cached_property
    def targets(self) -> frozenset[str]:
        """Every phrase that is a paraphrase of another."""
        return frozenset(chain.from_iterable(self.paraphrases.values()))


class Line:
    """A tokenised text with what matching it takes, so that this is found once per text.

    sources: (start, length, paraphrases) of its phrases that have any, by start, then length.
    phrases: places, (start, length), of its phrases that paraphrase something.
    """

    def __init__(self, words: list[str], lexicon: Lexicon) -> None:
        self.words = words
        self.stems = [lexicon.stem(word) for word in words]
        self.meanings = [lexicon.meanings(word) for word in words]
        self.sources: list[tuple[int, int, Sequence[str]]] = []
        self.phrases: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for start, length, text in phrases_of(words):
            if text in lexicon.paraphrases:
                self.sources.append((start, length, lexicon.paraphrases[text]))
            if text in lexicon.targets:
                self.phrases[text].append((start, length))


Chain = tuple[Match, "Chain"] | None
Path = tuple[int, int, int, int, int, Chain]
"""A partial alignment: its rank (less is better: matched words, chunks and distance in one number),
the next word of line 2, the end of the last match in line 1 (−1: no open chunk), the used words of
line 1 and of line 2 as bits, and the matches chosen."""
Step = tuple[int, int, int, int, int, int, int, Match]
"""What taking a match needs: its words in line 1 and line 2 as bits, what it adds to the rank, its
start in line 1, its ends in line 2 and line 1, its distance from the diagonal, itself."""


def align(line1: Line, line2: Line) -> list[Match]:
    """The chosen matches, in the order of line 2."""
    matches = list(_exact(line1, line2))
    if line1.words != line2.words:
        matches += _inexact(line1, line2)
    places: list[list[Match]] = [[] for _ in line2.words]
    for match in matches:
        places[match.start].append(match)
    fixed = _fixed(matches, places, len(line1.words), len(line2.words))
    chosen = _search(places, fixed, len(line2.words))
    return sorted([*fixed.values(), *chosen], key=lambda match: match.start)


def count_chunks(matches: Sequence[Match]) -> int:
    """Runs of matches that follow each other in both lines; `matches` in the order of line 2."""
    ends = [(match.start + match.length, match.start1 + match.length1) for match in matches]
    starts = [(match.start, match.start1) for match in matches]
    return len(starts) - sum(map(tuple.__eq__, starts[1:], ends))


def _exact(line1: Line, line2: Line) -> Iterator[Match]:
    where = _positions(line1.words)
    for j, word in enumerate(line2.words):
        for i in where.get(word, ()):
            yield Match(EXACT, j, 1, i, 1)


def _inexact(line1: Line, line2: Line) -> Iterator[Match]:
    stems = _positions(line1.stems)
    for j, stem in enumerate(line2.stems):
        for i in stems.get(stem, ()):
            if line1.words[i] != line2.words[j]:
                yield Match(STEM, j, 1, i, 1)
    for j, ours in enumerate(line2.meanings):
        if ours:
            for i, theirs in enumerate(line1.meanings):
                if not ours.isdisjoint(theirs) and line1.words[i] != line2.words[j]:
                    yield Match(SYNONYM, j, 1, i, 1)
    for j, length, i, length1 in _paraphrased(line2, line1):
        yield Match(PARAPHRASE, j, length, i, length1)
    for i, length1, j, length in _paraphrased(line1, line2):
        yield Match(PARAPHRASE, j, length, i, length1)


def _positions(words: Sequence[str]) -> dict[str, list[int]]:
    where: dict[str, list[int]] = defaultdict(list)
    for position, word in enumerate(words):
        where[word].append(position)
    return where


def phrases_of(words: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """(start, length, text) of every run of up to seven words, by start, then length."""
    for start in range(len(words)):
        text = ""
        for length in range(1, min(LONGEST_PHRASE, len(words) - start) + 1):
            text = f"{text} {words[start + length - 1]}" if text else words[start]
            yield start, length, text


def _paraphrased(source: Line, target: Line) -> Iterator[tuple[int, int, int, int]]:
    """(start, length) of a phrase of `source` and of a paraphrase of it in `target`."""
    for start, length, paraphrases in source.sources:
        for other in paraphrases:
            if other in target.phrases:
                for place, size in target.phrases[other]:
                    yield start, length, place, size


def _fixed(
    aligned: Sequence[Match], places: Sequence[Sequence[Match]], words1: int, words2: int
) -> dict[int, Match]:
    """Matches without any rival for their words, by their start; the search must take them."""
    cover1, cover2 = [0] * words1, [0] * words2
    for match in aligned:
        for i in range(match.start1, match.start1 + match.length1):
            cover1[i] += 1
        for j in range(match.start, match.start + match.length):
            cover2[j] += 1
    fixed = {}
    for start, matches in enumerate(places):
        if len(matches) == 1:
            (match,) = matches
            span1 = cover1[match.start1 : match.start1 + match.length1]
            span2 = cover2[start : start + match.length]
            if max(span1) == max(span2) == 1:
                fixed[start] = match
    return fixed


def _search(
    places: Sequence[Sequence[Match]], fixed: Mapping[int, Match], words2: int
) -> Iterator[Match]:
    """The matches that the best path adds to the fixed ones."""
    used1 = used2 = 0
    for match in fixed.values():
        mask1, mask2, *_ = _step(match)
        used1 |= mask1
        used2 |= mask2
    forced = {start: _step(match) for start, match in fixed.items()}
    paths: list[Path] = [(0, 0, -1, used1, used2, None)]
    rank = itemgetter(0)
    for current in range(words2):
        paths.sort(key=rank)
        del paths[BEAM:]
        steps = [_step(match) for match in places[current]]
        # all paths may have run into a fixed match: the jar then waits with the best of them
        paths = _advance(paths, current, steps, forced) or paths[:1]
    paths.sort(key=rank)
    closed = [(path[0] + _CHUNK * (path[2] != -1), path[5]) for path in paths[:BEAM]]
    last = min(closed, key=rank)[1]
    while last is not None:
        match, last = last
        yield match


def _step(match: Match) -> Step:
    module, start, length, start1, length1 = match
    gain = length + length1 if module == EXACT else length // 2 + length1 // 2
    mask1, mask2 = ((1 << length1) - 1) << start1, ((1 << length) - 1) << start
    ends = start + length, start1 + length1
    return mask1, mask2, -_MATCH * gain, start1, *ends, abs(start - start1), match


def _advance(
    paths: list[Path], current: int, steps: list[Step], forced: Mapping[int, Step]
) -> list[Path]:
    """What becomes of the paths at word `current` of line 2: the hot loop of the search."""
    following: list[Path] = []
    append = following.append
    for path in paths:
        rank, index, end, used1, used2, last = path
        if used2 >> current & 1:
            if current < index:
                append(path)
            elif index in forced:
                _, _, gain, start1, after2, after1, distance, _ = forced[index]
                rank += gain + distance + _CHUNK * (end not in {-1, start1})
                append((rank, after2, after1, used1, used2, last))
            continue
        for mask1, mask2, gain, start1, after2, after1, distance, match in steps:
            if not (used1 & mask1 or used2 & mask2):
                better = rank + gain
                if end != -1 and end != start1:
                    better += _CHUNK
                taken = used1 | mask1, used2 | mask2, (match, last)
                append((better, after2, after1, *taken))
                rank += distance
        if end != -1:
            rank += _CHUNK
        append((rank, index + 1, -1, used1, used2, last))
    return following
