"""One way to open an adaptation's folder, whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.errors import InputError
from peftlab.export import peft
from peftlab.export.cue import with_invocation
from peftlab.export.files import read_json
from peftlab.methods.adaptation import DESCRIPTION, TENSORS, Adaptation, checked_base

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Template

MARKS = (DESCRIPTION, peft.CONFIG)
FILES = (DESCRIPTION, TENSORS, peft.CONFIG, peft.TENSORS, peft.BESIDE)
"""All that is read of a folder."""


def open_adaptation(
    folder: Path | str, model: FrozenLM, template: Template | None = None
) -> Adaptation:
    """Read peftlab's own format or a PEFT adapter, whichever the folder holds.

    Args:
        template: taken instead of the stored one.

    Raises:
        InputError: neither, a damaged one, or one that does not fit the model, see both formats.
    """
    folder = Path(folder)
    try:
        if not _is_own(folder):
            return peft.load(folder, model, template)
        adaptation = Adaptation.load(folder, model)
        if template is None:
            return adaptation
        ids, given = adaptation.template.invocation, replace(adaptation, template=template)
        return with_invocation(given, model, list(ids)) if ids else given
    except InputError as error:
        if str(folder) in str(error):
            raise
        raise InputError(f"{folder}: {error}") from error


def noted_base(folder: Path | str) -> Mapping[str, Any]:
    """What an adaptation's folder notes of its base: its `name`, and its `dtype` where it is known.

    Raises:
        InputError: no adaptation, a damaged description, or no base in it.
    """
    folder = Path(folder)
    if _is_own(folder):
        return checked_base(read_json(folder / DESCRIPTION).get("base"))
    beside = folder / peft.BESIDE
    if beside.exists() and (noted := read_json(beside).get("base")):
        return checked_base(noted)
    name = read_json(folder / peft.CONFIG).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise InputError(f"{folder / peft.CONFIG} names no base; give it with --model")
    return {"name": name}


def _is_own(folder: Path) -> bool:
    """Whether it is in peftlab's own format, else in PEFT's.

    Raises:
        InputError: neither.
    """
    if (folder / DESCRIPTION).exists() or (folder / TENSORS).exists():
        return True
    if (folder / peft.CONFIG).exists():
        return False
    raise InputError(
        f"{folder} holds no adaptation: neither {DESCRIPTION} (peftlab's own format) nor "
        f"{peft.CONFIG} (PEFT's)"
    )
