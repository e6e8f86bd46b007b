"""One way to open an adaptation's folder, whoever wrote it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.errors import InputError
from peftlab.export import peft
from peftlab.methods.adaptation import Adaptation

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Template


def open_adaptation(
    folder: Path | str, model: FrozenLM, template: Template | None = None
) -> Adaptation:
    """Read peftlab's own format or a PEFT adapter, whichever the folder holds.

    Args:
        template: taken instead of the stored one.

    Raises:
        InputError: neither, or an adaptation that does not fit the model, see both formats.
    """
    folder = Path(folder)
    if (folder / "adaptation.json").exists():
        adaptation = Adaptation.load(folder)
        adaptation.check(model)
        return replace(adaptation, template=template) if template else adaptation
    if (folder / peft.CONFIG).exists():
        return peft.load(folder, model, template)
    raise InputError(
        f"{folder} holds no adaptation: neither adaptation.json (peftlab's own format) nor "
        f"{peft.CONFIG} (PEFT's)"
    )
