"""A LoRA as llama.cpp loads it: A and B of each matrix, in the order of the base's rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.errors import InputError
from peftlab.export.cue import begins_at_cue, invocation
from peftlab.export.gguf import layout
from peftlab.export.instead import AS_LORA
from peftlab.frozen.weight_changes import changes_weights_alone, is_low_rank

if TYPE_CHECKING:
    from peftlab.edits import Edits
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation


def check(adaptation: Adaptation, model: FrozenLM) -> list[int]:
    """The tokens by which llama.cpp knows its beginning; none where whole rows are changed.

    Raises:
        InputError: it is no plain LoRA, or of a family that is not written.
    """
    layout.architecture(model)
    refuse_other_than_lora(adaptation, adaptation.edits(model))
    if not begins_at_cue(adaptation):
        return []
    # llama.cpp's server begins one token before the sequence that it looks for.
    ids = invocation(adaptation, model)[1:]
    if not ids:
        raise InputError(
            f"{adaptation.method.name} begins at a cue of one token, and llama.cpp's server begins "
            "one before what it looks for; keep peftlab's own format"
        )
    return ids


def write(path: Path, adaptation: Adaptation, model: FrozenLM, begin: Sequence[int]) -> None:
    """Write the file; see `gguf_lora`.

    Args:
        begin: of `check`.
    """
    from gguf import GGUFValueType, Keys

    edits, names = adaptation.edits(model), layout.names(model)
    factors = {
        path: (edit.down, edit.up)
        for path, edit in edits.linear.items()
        if edit.down is not None and edit.up is not None
    }
    most = max(len(down) for down, _ in factors.values())
    writer = layout.writer(path, model)
    writer.add_type("adapter")
    writer.add_string(Keys.Adapter.TYPE, "lora")
    # llama.cpp multiplies by alpha over each matrix's own rank; B has all scaling in it.
    writer.add_float32(Keys.Adapter.LORA_ALPHA, float(most))
    if begin:
        kinds = GGUFValueType.ARRAY, GGUFValueType.UINT32  # as its loader asks
        writer.add_key_value(Keys.Adapter.ALORA_INVOCATION_TOKENS, list(begin), *kinds)
    for module, (down, up) in factors.items():
        name = f"{module}.weight"
        rows = layout.arranged(name, up * (len(down) / most), model.model.config, model)
        layout.add_tensor(writer, f"{names[name]}.lora_a", down)
        layout.add_tensor(writer, f"{names[name]}.lora_b", rows)
    layout.close(writer)


def refuse_other_than_lora(adaptation: Adaptation, edits: Edits) -> None:
    """Refuse what is no sum of low-rank changes."""
    name = adaptation.method.name
    if not changes_weights_alone(edits) or not is_low_rank(edits):
        raise InputError(
            f"{name} is no plain lora, which is all that a GGUF adapter holds; --to gguf merges "
            f"what can be merged, and {AS_LORA}."
        )
    if any(edit.bias is not None for edit in edits.linear.values()):
        raise InputError(
            f"{name} trains biases, which no GGUF adapter holds; --to gguf merges them, and "
            f"{AS_LORA}."
        )
