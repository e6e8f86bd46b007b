"""Instructions that a language model writes, chosen by the task's metric.

A step asks for some, given what was tried with its scores and a few examples (OPRO: Yang et al.
2024, arXiv:2309.03409, section 4.2), scores them on validation examples, and keeps the best. One
that is behind on the first of these is not scored on the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from peftlab.methods.search.transcript import Asking

_TRIED, _SHOWN = 8, 3  # earlier instructions and examples in a request
_SCREENED = 8  # validation examples that an instruction has to prove itself on first
_EXCERPT = 300  # characters of a text in a request
_QUOTED = re.compile(r"```(?:\w*\n)?(.*?)```", re.DOTALL)
_LABEL = re.compile(r"^\W*(?:new |revised |improved )?instructions?\W*[:\n]\s*", re.IGNORECASE)

_REQUEST = """\
An assistant is given an instruction and an input, and its answer is scored by {metric}.

Instructions that were tried, each after its score, the better ones last:
{tried}

Inputs, and the answers that are wanted:
{examples}

Write one new instruction, different from those above, that will score higher. Write the \
instruction alone, between ``` and ```."""


def proposed(asking: Asking, width: int, step: int) -> None:
    """Ask for `width` instructions and score them; `asking.best` then knows the best of all so far.

    Raises:
        InputError: the author does not answer.
    """
    request = _request(asking, step)
    texts = [instruction_in(text) for text in asking.written([request] * width, str(step))]
    new = [text for text in dict.fromkeys(texts) if text not in asking.transcript.answers]
    first = asking.validation[:_SCREENED]
    bar = asking.mean(asking.best(), first)
    for text in new:
        if asking.mean(text, first) >= bar:
            asking.mean(text, asking.validation)


def instruction_in(text: str) -> str:
    """The instruction in what an author wrote: what it set off, or else all, without a label."""
    found = _QUOTED.search(text)
    inside = found[1] if found and found[1].strip() else text.replace("```", "")
    bare = _LABEL.sub("", inside.strip()).strip()
    quoted = len(bare) > 1 and bare[0] == bare[-1] == '"' and '"' not in bare[1:-1]
    return bare[1:-1].strip() if quoted else bare


def _request(asking: Asking, step: int) -> str:
    tried = sorted(asking.scored().items(), key=lambda one: one[1])[-_TRIED:]
    # Others in each step, so that not all instructions are written for the same few.
    keys, at = asking.train, _SHOWN * step
    shown = [asking.example(keys[(at + i) % len(keys)]) for i in range(min(_SHOWN, len(keys)))]
    return _REQUEST.format(
        metric=asking.metric,
        tried=_lines(f"{asking.told(score)}  {_excerpt(text) or '–'}" for text, score in tried),
        examples=_lines(
            f"Input: {_excerpt(one.told())}\nAnswer: {_excerpt(one.targets[0])}" for one in shown
        ),
    )


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(texts)


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _EXCERPT else f"{line[: _EXCERPT - 1]}…"
