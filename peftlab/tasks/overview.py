"""A user's own file at a first look: what it holds, in sentences, and which columns are read."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

from peftlab.errors import InputError
from peftlab.tasks import columns, files, sources
from peftlab.tasks.conversation_files import layout
from peftlab.tasks.example import Example
from peftlab.tasks.hashes import recurring
from peftlab.tasks.rows import source_hashes
from peftlab.tasks.show import measure
from peftlab.tasks.task import SPLITS, Task
from peftlab.tasks.tokens import Tokenizer

_LOOKED_AT = 500  # examples whose letters are counted
_WIDE = 0.05  # of all letters, from which a script is named


@dataclass(frozen=True)
class Held:
    """Which columns a file has, and which are read; neither source nor target of conversations."""

    columns: tuple[str, ...]
    source: str | None
    target: str | None


def held(path: Path, first: int) -> Held:
    """Look at the first rows of a file, or of a folder's training file.

    Raises:
        InputError: it cannot be read, or no column is called as sources or targets are.
    """
    tables = sources.from_folder(path, None, first) if path.is_dir() else None
    table = files.read(path, first) if tables is None else next(iter(tables.values()))
    names = tuple(table.columns)
    if layout(table, {}, None) is not None:
        return Held(names, None, None)
    chosen = columns.choose(table, {})
    return Held(names, "+".join(chosen.source), chosen.target)


def overview(task: Task, tokenizer: Tokenizer, context: int) -> list[str]:
    """What a task holds, a sentence each: sizes, letters, lengths, what recurs and what is cut.

    Args:
        context: tokens that the model takes.
    """
    sizes = ", ".join(f"{split} {len(task.split(split)):,}" for split in SPLITS)
    found = [f"Examples: {sizes}.", *task.notes, *_letters(task.train)]
    again = len(recurring(source_hashes(task.train)))
    if again:
        found.append(f"{again:,} examples of train have a source that stands there more than once.")
    for split in ("train", "test"):
        lengths = measure(task, tokenizer, context, split)
        cut = f"{lengths.cut:,} of {len(lengths.prompt):,} lose source tokens"
        found.append(
            f"Tokens of {split}: prompts {median(lengths.prompt):,.0f} (up to "
            f"{max(lengths.prompt):,}), targets {median(lengths.target):,.0f} (up to "
            f"{max(lengths.target):,}); in a context of {context:,}, {cut}."
        )
    return found


def _letters(rows: Sequence[Example]) -> list[str]:
    """Which scripts the sources are written in, and the language where one can tell."""
    texts = [row.told() for row in islice(rows, _LOOKED_AT)]
    counts = Counter(script for text in texts for script in _scripts(text))
    whole = counts.total()
    if not whole:
        return []
    shares = [(name, count / whole) for name, count in counts.most_common()]
    named = ", ".join(f"{name.title()} {share:.0%}" for name, share in shares if share >= _WIDE)
    return [f"Letters: {named}{_language(texts)}."]


def _scripts(text: str) -> Iterable[str]:
    letters = (letter for letter in text[:1000] if letter.isalpha())
    return (unicodedata.name(letter, "other").partition(" ")[0] for letter in letters)


def _language(texts: Sequence[str]) -> str:
    try:
        import py3langid
    except ImportError:
        return " (which language: pip install 'peftlab[language]')"
    counts = Counter(py3langid.classify(text)[0] for text in texts)
    name, count = counts.most_common(1)[0]
    return f"; the language of {count / len(texts):.0%} seems to be {name!r}"


def check_own(path: Path) -> None:
    """Refuse what is no file or folder of rows. Raises `InputError`."""
    if not path.exists():
        raise InputError(f"There is no file or folder {path}: your own rows were expected.")
