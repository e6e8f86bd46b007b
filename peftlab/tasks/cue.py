"""The cue by its tokens, for whoever knows a place in a prompt by nothing else."""

from __future__ import annotations

from itertools import takewhile

from peftlab.tasks.example import Example
from peftlab.tasks.template import Template
from peftlab.tasks.tokens import Tokenizer

# Texts that begin and end alike in nothing: a letter, a mark, a digit, a closing bracket.
_PROBES = ("a", "7 Zebras?", "It cost 30", "(so it is)", "état")
_ANY_LENGTH = 1 << 30


def cue_ids(template: Template, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids that the part of every prompt after the cue begins with; none where prompts differ.

    They are what PEFT's aLoRA calls its invocation tokens.
    """
    if template.invocation:
        return template.invocation
    after = []
    for source in _PROBES:
        columns = dict.fromkeys(template.markup.columns, source)
        row = template.encode(tokenizer, Example(source, (), columns), None, _ANY_LENGTH)
        after.append(row.ids[(row.begin or 0) + template.infix :])
    same = takewhile(lambda column: len(set(column)) == 1, zip(*after, strict=False))
    return tuple(column[0] for column in same)
