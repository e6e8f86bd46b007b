"""The shape of a base, from its configuration, without its weights."""

from __future__ import annotations

from peftlab.compare.base import located
from peftlab.errors import InputError
from peftlab.shapes import ModelShape


def shape(name: str) -> ModelShape:
    """Sizes and parameter names of a base, whatever its family.

    Raises:
        InputError: no such model, or none of transformers' decoders.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    where = located(name)
    try:
        config = AutoConfig.from_pretrained(where)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"cannot read a model's configuration from {name!r}: {reason} Expected demo, a hub id "
            "or a folder with config.json."
        ) from error
    parameters = {key: tuple(value.shape) for key, value in model.named_parameters()}
    return ModelShape.read(config.to_dict(), parameters)
