"""A guest that is PEFT's aLoRA, which begins at the last place of its invocation tokens in a row
(Greenewald et al. 2025, arXiv:2504.12397), and does nothing in a row without them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftlab.errors import InputError
from peftlab.guests.guest import Guest
from peftlab.tasks.cue import cue_ids
from peftlab.tasks.encode import last_place
from peftlab.tasks.example import BeginsNowhere

if TYPE_CHECKING:
    from peftlab.tasks import Encoded, Template

OPTION = "alora_invocation_tokens"
CUE = "cue"


def with_ids(guest: Guest, template: Template, tokenizer: Any) -> Guest:
    """The guest with token ids where it was asked to begin at the cue: those of the template's.

    Raises:
        InputError: prompts in this template have no tokens in common from their cue on.
    """
    if guest.options.get(OPTION) != CUE:
        return guest
    ids = cue_ids(template.beginning("cue"), tokenizer)
    if not ids:
        raise InputError(
            f"{guest.name}: prompts in {template.text!r:.100} have no tokens in common after their "
            f"source, by which PEFT's aLoRA would know the place; give the template such words, or "
            f"{OPTION}=ID+ID"
        )
    return replace(guest, options={**guest.options, OPTION: list(ids)})


def check_settings(guest: Guest, beams: int, recompute: bool) -> None:
    """Refuse what PEFT cannot do with an aLoRA.

    Raises:
        InputError: beam search, or activations that are computed again.
    """
    if guest.options.get(OPTION) is not None and (beams > 1 or recompute):
        what = "search with beams" if beams > 1 else "compute activations again (--recompute)"
        raise InputError(
            f"{guest.name}: PEFT's aLoRA cannot {what}; lora:begin=cue can, with the same numbers"
        )


def check_rows(guest: Guest, rows: Sequence[Encoded], split: str) -> None:
    """Refuse rows in which PEFT, which looks at targets too, would begin in or after the target.

    Raises:
        InputError: such a row; or none holds the tokens before its target.
    """
    wanted = guest.options.get(OPTION)
    if wanted is None or not len(rows):
        return
    if any(len(row.spans) > 1 for row in rows):
        raise InputError(
            f"{guest.name} begins at the last reply's cue, and these rows train on several: take "
            "-o loss=last; lora:begin=cue begins at the first one"
        )
    absent = 0
    for number, row in enumerate(rows):
        own = last_place(row.ids[: row.target_start], wanted)
        absent += own is None
        if last_place(row.ids, wanted) != own:
            raise InputError(
                f"{guest.name}: the tokens at which it begins come again in the target of pair "
                f"{number} of {split}, and PEFT begins at their last place; give the template "
                "other words after its source, or leave the pair out. lora:begin=cue has no such "
                "limit"
            )
    if absent == len(rows) and split == "train":
        raise InputError(
            f"{guest.name}: no prompt of {split} holds the tokens {wanted!r:.60} at which it "
            f"begins, so it would do nothing; {OPTION}={CUE} takes those after the source"
        )
    if absent:
        warnings.warn(
            f"{guest.name}: {absent} of {len(rows)} prompts of {split} lack the tokens at which it "
            "begins; it does nothing in them",
            BeginsNowhere,
            stacklevel=2,
        )
