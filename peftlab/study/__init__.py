"""Studies: the figures of the literature, each of them one command, on any base and task.

A study is a named list of variants; their runs are those of a comparison (same budget, seeds,
decoding, records) and are not made twice. Runs → panels of points with intervals → `study.json`,
a figure, a table, a page, and sentences that are computed from the numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftlab.errors import InputError, nearest

if TYPE_CHECKING:
    from peftlab.study.base import Study

LINES = {
    "length": "soft prompts and prefixes of 1 to 200 positions: how long is long enough",
    "rank": "LoRA's rank: where it stops paying",
    "layers": "blocks from the top, from the bottom, with gaps: where adaptation matters",
    "init": "what LoRA, prompts and prefixes start from",
    "alpha": "LoRA's alpha, scaled by the rank and by its root",
    "instruction": "wordings of a hard prompt, its context tokens, and tuned prompts beside it",
    "data": "training examples, from 10 to all",
    "scale": "bases of several sizes: asked in words, prompt-tuned, fine-tuned",
    "forgetting": "what is learnt against what the base loses on general text",
    "spectrum": "singular values of the learnt change, and what is left when it is cut",
    "intrinsic": "training in a random subspace: the dimension that reaches 90 % of full",
    "transfer": "a prompt learnt on one task as the start for another",
}
"""Every study with a line about it; each is the file of its name in `studies`."""


def find(name: str) -> Study:
    """The study of that name.

    Raises:
        InputError: there is none; names the nearest.
    """
    from importlib import import_module

    if name not in LINES:
        raise InputError(
            f"there is no study {name!r}; there are {', '.join(LINES)}.{nearest(name, LINES)}"
        )
    found: Study = import_module(f"peftlab.study.studies.{name}").STUDY
    return found
