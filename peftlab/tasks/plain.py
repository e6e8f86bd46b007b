"""Plain text that belongs to no task, to measure what an adaptation has cost elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from peftlab.errors import InputError
from peftlab.tasks.example import Encoded
from peftlab.tasks.files import text_of
from peftlab.tasks.tokens import Tokenizer, pieces, traits

TEXT_WINDOW, TEXT_TOKENS = 256, 8192
"""Plain text is read in windows of at most so many tokens, and so many tokens of it in all."""

_DEMO_DOCUMENTS = 100
_CHARACTERS = 200_000  # of a file; more than is ever read of it


def general_text(file: str | Path | None = None, *, seed: int = 0) -> tuple[str, ...]:
    """Documents: a text file as one, or without a file a hundred of the demo world's.

    Raises:
        InputError: no such file, not UTF-8, or empty.
    """
    if file is None:
        from peftlab.demo import world

        return tuple(world.general_text(seed, _DEMO_DOCUMENTS))
    text = text_of(Path(file).expanduser(), _CHARACTERS)
    if not text.strip():
        raise InputError(f"{file} is empty; a text was expected")
    return (text,)


def general_documents(name: str) -> tuple[str, ...]:
    """Documents by name: demo (of the demo world), a text file, or none.

    Raises:
        InputError: a file that is missing, empty or not UTF-8.
    """
    if name == "none":
        return ()
    return general_text(None if name == "demo" else name)


def text_rows(
    tokenizer: Tokenizer, documents: Sequence[str], window: int, most: int
) -> list[Encoded]:
    """Rows of at most `window` tokens, `most` in all; each token is trained on but a row's first.

    Every document starts as the tokenizer starts a text, and its windows do not overlap.

    Raises:
        InputError: a window of one token, or documents of no more than one token each.
    """
    if window < 2:
        raise InputError(f"windows of {window} tokens hold nothing to predict; at least 2 expected")
    rows, left = list[Encoded](), most
    for part in _windows(tokenizer, documents, window):
        if left < 2:
            break
        rows.append(Encoded.trained_from(part[:left], 1))
        left -= len(part)
    if not rows:
        raise InputError("the text holds no two tokens in a row: there is no loss to compute")
    return rows


def _windows(
    tokenizer: Tokenizer, documents: Sequence[str], window: int
) -> Iterator[tuple[int, ...]]:
    for text in documents:
        ids = (*traits(tokenizer).bos, *pieces(tokenizer, text, plain=True, begun=False)[0])
        for start in range(0, len(ids) - 1, window):
            part = ids[start : start + window]
            if len(part) > 1:
                yield part
