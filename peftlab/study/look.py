"""The shape of a base, from its configuration, without its weights."""

from __future__ import annotations

from pathlib import Path

from peftlab.bases import layouts
from peftlab.bases.gguf import is_gguf
from peftlab.bases.known_models import configuration
from peftlab.bases.names import located
from peftlab.bases.pretrained import read_config
from peftlab.bases.shapes import ModelShape
from peftlab.errors import InputError


def shape(name: str) -> ModelShape:
    """Sizes and parameter names of a base, whatever its family.

    Raises:
        InputError: no such model, or none of transformers' decoders.
    """
    where = located(name)
    if Path(where).is_dir() or is_gguf(where):
        config = configuration(where)
        if config.get("model_type") in layouts.families():
            return ModelShape.read(config, layouts.parameter_shapes(config))
    return _built(where)


def _built(where: str) -> ModelShape:
    """Of the hub, or of a family whose layout is not known by heart: built without weights."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        config = read_config(where)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"cannot build a model from the configuration of {where!r}: {reason} Expected demo, a "
            "hub id, a folder with config.json or a GGUF file."
        ) from error
    parameters = {key: tuple(value.shape) for key, value in model.named_parameters()}
    return ModelShape.read(config.to_dict(), parameters)
