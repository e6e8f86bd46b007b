"""A plain transformers checkpoint of the base with other weights, free of peftlab's attention."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from peftlab.frozen.model import FrozenLM

# What a family calls the switch that gives its projections a bias.
_BIAS_SWITCHES = ("attention_bias", "mlp_bias")


def plain_model(
    model: FrozenLM, weights: Mapping[str, torch.Tensor], config: PretrainedConfig
) -> PreTrainedModel:
    """The base under a configuration of its family, some weights replaced or added.

    Biases that the configuration adds and `weights` does not name are zero. Of a quantised base the
    weights are dequantised: the adaptation was trained on those.
    """
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with no_init_weights():
        made = AutoModelForCausalLM.from_config(config, dtype=model.model.dtype)
        made.tie_weights()
    given = {**dict(model.model.named_buffers()), **weights}
    with torch.no_grad():
        for name, own in [*made.named_parameters(), *made.named_buffers()]:
            if name in given:
                own.copy_(given[name])
            elif name in model.shape.parameters:
                own.copy_(model.gather(name))
            elif name.endswith(".bias"):
                own.zero_()
            else:
                raise AssertionError(f"{name} has no value")
    made.generation_config = copy.deepcopy(model.model.generation_config)
    return made.eval()


def plain_config(model: FrozenLM) -> PretrainedConfig:
    """The base's configuration, to be changed at will."""
    config = copy.deepcopy(model.model.config)
    config._attn_implementation = None
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def with_biases(config: PretrainedConfig, wanted: set[str]) -> set[str]:
    """Switch on what gives the model these biases; returns those that no switch gives."""
    switches = [s for s in _BIAS_SWITCHES if getattr(config, s, None) is False]
    missing = wanted - _parameters(config)
    for switch in switches:
        if missing:
            setattr(config, switch, True)
            left = wanted - _parameters(config)
            if left == missing:  # this one gave none of them
                setattr(config, switch, False)
            missing = left
    return missing


def _parameters(config: PretrainedConfig) -> set[str]:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(config)
    return {name for name, _ in made.named_parameters()}


def save_plain(made: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write model and tokenizer, as transformers' `from_pretrained` reads them."""
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A place to write files, which get into `folder` when all of them are there."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=folder, prefix=".writing-"))
    try:
        yield place
        for path in sorted(place.iterdir()):
            target = folder / path.name
            if target.is_dir():
                shutil.rmtree(target)
            path.replace(target)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def about(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What `peftlab.json` says of an export."""
    from peftlab.version import __version__

    return {"export": kind, "peftlab": __version__, **values}
