"""For llama.cpp and Ollama: GGUF files of merged models, and of LoRA beside its base.

Of the families that llama.cpp knows as `llama` (SmolLM among them), `qwen2` and `qwen3`; a
base may be a folder of transformers or a GGUF file, whose metadata then comes along as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from peftlab.bases import gguf as bases
from peftlab.errors import InputError
from peftlab.export import plain
from peftlab.export.gguf import adapter, layout, metadata
from peftlab.export.gguf.modelfile import base_file, modelfile
from peftlab.export.merging import merged_plainly
from peftlab.files import together, write_json, write_text

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation

Numbers = Literal["f32", "f16", "bf16"]
MODEL, ADAPTER, MODELFILE = "model.gguf", "adapter.gguf", "Modelfile"


@dataclass(frozen=True)
class ForLlamaCpp:
    """The file that was written, and the commands that serve it."""

    file: Path
    commands: tuple[str, ...]


def gguf(
    adaptation: Adaptation, model: FrozenLM, folder: Path | str, numbers: Numbers = "f16"
) -> ForLlamaCpp:
    """Write the merged model as a GGUF file, with a Modelfile for Ollama.

    Args:
        numbers: the format of its matrices; vectors are kept in fp32.

    Raises:
        InputError: what cannot be part of the weights, see `merging.merged`; a family, a tokenizer
            or a scaling of positions that cannot be written.
    """
    if numbers not in get_args(Numbers):
        raise InputError(f"numbers is {numbers!r}; one of {', '.join(get_args(Numbers))} expected")
    folder, names = Path(folder), layout.names(model)
    layout.check(model)
    made = merged_plainly(adaptation, model)
    if new := [name for name, _ in made.named_parameters() if name not in model.shape.parameters]:
        raise InputError(
            f"{adaptation.method.name} adds biases ({min(new)}, …) that readers of {model.name}'s "
            "architecture in GGUF do not look for; train lora, which goes everywhere"
        )
    with together(folder) as place:
        writer = layout.writer(place / MODEL, model)
        metadata.add(writer, model, made.config, numbers)
        for name, tensor in made.named_parameters():
            own = layout.arranged(name, tensor, made.config, model)
            layout.add_tensor(writer, names[name], own, numbers)
        metadata.add_kept_tensors(writer, model, set(names.values()))
        layout.close(writer)
        write_text(place / MODELFILE, modelfile(f"./{MODEL}", adaptation, model))
        write_json(place / "peftlab.json", plain.about("gguf", _told(adaptation)))
    file = folder / MODEL
    serve = f"llama-server --model {file}"
    return ForLlamaCpp(file, (serve, f"ollama create my-task --file {folder / MODELFILE}"))


def gguf_lora(adaptation: Adaptation, model: FrozenLM, folder: Path | str) -> ForLlamaCpp:
    """Write a LoRA as a GGUF adapter, which llama.cpp loads beside its base.

    One that begins at the cue becomes an aLoRA (`adapter.alora.invocation_tokens`), which
    llama.cpp's server alone knows, so it gets no Modelfile.

    Raises:
        InputError: another change than of plain LoRA; a family that cannot be written.
    """
    folder, begin = Path(folder), adapter.check(adaptation, model)
    with together(folder) as place:
        adapter.write(place / ADAPTER, adaptation, model, begin)
        if not begin:
            base = base_file(model) or "./BASE.gguf"
            text = modelfile(base, adaptation, model, f"./{ADAPTER}")
            write_text(place / MODELFILE, text)
        write_json(place / "peftlab.json", plain.about("gguf-lora", _told(adaptation)))
    file = folder / ADAPTER
    named = base_file(model) if bases.is_gguf(model.name) else None
    serve = f"llama-server --model {named or 'BASE.gguf'} --lora {file}"
    if begin:  # only llama-server looks where an aLoRA begins; Ollama changes the whole prompt
        return ForLlamaCpp(file, (serve,))
    return ForLlamaCpp(file, (serve, f"ollama create my-task --file {folder / MODELFILE}"))


def _told(adaptation: Adaptation) -> dict[str, object]:
    return {"template": adaptation.row_template.to_dict(), "base": dict(adaptation.base)}
