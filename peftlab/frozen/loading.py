"""From a name to a plain transformers model in a number format, if there is room for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from peftlab.bases import gguf, layouts
from peftlab.bases.fingerprint import fingerprint_of_files
from peftlab.bases.number_formats import FORMATS, QUANTISED, base_bytes, rest_format
from peftlab.bases.pretrained import read_config, read_tokenizer
from peftlab.errors import InputError, PeftlabError, reason
from peftlab.frozen import checkpoint, gguf_loading, quantised
from peftlab.measure import free_memory

_TORCH = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_plain(
    name: str | Path, dtype: str = "fp32", device: torch.device | str = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and its tokenizer from the hub, a local folder or a GGUF file.

    Args:
        dtype: of `FORMATS`.

    Raises:
        InputError: no such model; a folder without configuration, weights or tokenizer; weights
            that are not wholly the configuration's, see `checkpoint`; less memory than they take;
            or no bitsandbytes.
    """
    path = str(name)
    if dtype not in FORMATS:
        raise InputError(f"the base's format is {dtype!r}; one of {', '.join(FORMATS)} expected")
    try:
        config = read_config(path)
        _check_format(path, config, dtype)
        _check_blocks(path, config)
        check_memory(path, config, dtype, device)
        tokenizer = read_tokenizer(path)
        model, told = _read_weights(path, config, dtype, device)
    except PeftlabError:
        raise
    except Exception as error:  # whatever transformers makes of files that it does not expect
        raise InputError(
            f"cannot load a model from {path!r}: {reason(error)} Expected a hub id, a folder "
            "with config.json, model.safetensors and tokenizer.json, or a GGUF file."
        ) from error
    checkpoint.check_loaded(path, model, told)
    checkpoint.check_vocabulary(path, model, tokenizer)
    placed = dtype in QUANTISED or _is_quantised(config)
    return model if placed else model.to(device), tokenizer


def _read_weights(
    path: str, config: PretrainedConfig, dtype: str, device: torch.device | str
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model, and the loading info of `from_pretrained`."""
    options = _options(config, dtype, device)
    if gguf.is_gguf(path):
        if dtype in QUANTISED:
            _check_unpacked(path, config, dtype)
        return gguf_loading.load(path, config, dtype, options)
    model, told = AutoModelForCausalLM.from_pretrained(
        path,
        config=config,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are refused by name
        **options,
    )
    checkpoint.check_formats(path, model, config)
    return model, told


def _check_blocks(path: str, config: PretrainedConfig) -> None:
    values = config.get_text_config().to_dict()
    counts = [values[n] for n in ("num_hidden_layers", "n_layer", "num_layers") if n in values]
    if any(not isinstance(n, int) or n < 1 for n in counts):
        raise InputError(
            f"the configuration of {path!r} has {counts[0]!r} blocks; 1 or more expected"
        )


def _options(config: PretrainedConfig, dtype: str, device: torch.device | str) -> dict[str, Any]:
    rest = _TORCH[rest_format(config.to_dict())]
    if _is_quantised(config):
        quantised.library()
        return {"dtype": rest, "device_map": {"": str(device)}}
    if dtype not in QUANTISED:
        return {"dtype": _TORCH[dtype]}
    return quantised.loading_options(dtype, rest, device)


def _is_quantised(config: PretrainedConfig) -> bool:
    """Whether the checkpoint itself is."""
    return getattr(config, "quantization_config", None) is not None


def _check_format(path: str, config: PretrainedConfig, dtype: str) -> None:
    """Refuse what a checkpoint that came quantised cannot be: it is loaded as it is.

    Raises:
        InputError: another library's, or another format was asked for.
    """
    if not _is_quantised(config):
        return
    quantisation = config.quantization_config
    quantisation = quantisation if isinstance(quantisation, dict) else quantisation.to_dict()
    if quantisation.get("quant_method") != "bitsandbytes":
        raise InputError(
            f"{path} is quantised by {quantisation.get('quant_method')}; bitsandbytes, "
            "or a checkpoint that is not quantised, was expected"
        )
    own = (
        "int8" if quantisation.get("load_in_8bit") else str(quantisation.get("bnb_4bit_quant_type"))
    )
    if dtype not in ("fp32", own):
        raise InputError(f"{path} is quantised in {own} already and cannot be loaded in {dtype}")


def check_memory(
    name: str, config: PretrainedConfig, dtype: str, device: torch.device | str = "cpu"
) -> None:
    """Refuse a base whose weights alone are more than the device has free.

    Raises:
        InputError: says what it takes in every format, and what is free.
    """
    values = config.to_dict()
    if _is_quantised(config):
        dtype = "int8" if values["quantization_config"].get("load_in_8bit") else "nf4"
    shapes = parameter_shapes(config)
    free, needed = free_memory(device), base_bytes(values, shapes, dtype)
    if needed <= free:
        return
    sizes = {known: base_bytes(values, shapes, known) for known in FORMATS}
    fitting = [known for known, size in sizes.items() if size <= free]
    mend = (
        f"choose --base-dtype {' or '.join(fitting)}"
        if fitting
        else "take a larger device, or share it out among several processes"
    )
    takes = ", ".join(f"{size / 2**30:,.1f} GiB in {known}" for known, size in sizes.items())
    raise InputError(
        f"{name} does not fit: its weights take {needed / 2**30:,.1f} GiB in {dtype}, and "
        f"{free / 2**30:,.1f} GiB are free on {device} ({takes}). Nothing was loaded; {mend}"
    )


def _check_unpacked(path: str, config: PretrainedConfig, dtype: str) -> None:
    """Refuse what does not fit into memory while it is quantised anew."""
    needed = base_bytes(config.to_dict(), parameter_shapes(config), "fp32")
    if needed > (free := free_memory("cpu")):
        raise InputError(
            f"{path} is unpacked before it is kept in {dtype}: that takes {needed / 2**30:,.1f} "
            f"GiB of the CPU's memory, and {free / 2**30:,.1f} GiB are free. Choose --base-dtype "
            "bf16, or the model's folder or hub id with safetensors"
        )


def parameter_shapes(config: PretrainedConfig) -> Mapping[str, tuple[int, ...]]:
    """The parameters of a configuration's model, without making it where the layout is known."""
    try:
        return layouts.parameter_shapes(config.to_dict())
    except InputError:
        with torch.device("meta"):
            made = AutoModelForCausalLM.from_config(config)
        return {name: tuple(p.shape) for name, p in made.named_parameters()}


def checkpoint_of(path: str, config: PretrainedConfig) -> str | None:
    """Which checkpoint a model came from, whatever format its numbers were then loaded in.

    The hub's commit, or a hash of a folder's weights or of a GGUF file; None where none is known.
    """
    if gguf.is_gguf(path):
        return fingerprint_of_files([gguf.file_of(path)])
    folder = Path(path)
    if folder.is_dir():
        files = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
        return fingerprint_of_files(files) if files else None
    commit = getattr(config, "_commit_hash", None)
    return f"{path}@{commit}" if commit else None
