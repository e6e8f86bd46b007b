"""A template as one text with a place for the source, for engines that know no templates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftlab.tasks import Example, Template
from peftlab.tasks.encode import Chunk, Part
from peftlab.tasks.markup import Pseudo
from peftlab.tasks.tokens import traits


def plain_text(
    template: Template, tokens: Sequence[str], tokenizer: Any, source: str = "{source}"
) -> str | None:
    """The text before the target: `{source}` and other columns left open, pseudo tokens spelt out.

    The tokenizer's own beginning of sequence stands after leading pseudo tokens, as in training.
    `source` stands where a request's text goes. None where exemplars are chosen for each source, so
    that no one text serves all.
    """
    if template.shots is not None:
        return None
    columns = {name: f"{{{name}}}" for name in template.markup.columns}
    parts = template.parts(tokenizer, Example(source, ("",), columns))
    begin = [] if template.chat else list(traits(tokenizer).bos)
    return _joined(parts, tokens, tokenizer.decode(begin))


def _joined(parts: Sequence[Part], tokens: Sequence[str], begin: str) -> str:
    texts: list[str] = []
    begun = False
    for part in parts:
        if isinstance(part, Pseudo):
            texts += tokens[part.first : part.first + part.count]
            continue
        assert isinstance(part, Chunk)  # an example without turns has no earlier replies
        texts.append(part.text if begun else begin + part.text)
        begun = True
    return "".join(texts)
