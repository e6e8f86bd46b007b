"""The weights of a GGUF file, dequantised by transformers, in any of the base's number formats.

Each tensor is dequantised in fp32 and then rounded to the format; int8 and nf4 are made of the fp32
numbers, which have to fit into the CPU's memory for that moment.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from peftlab.bases import gguf, pretrained
from peftlab.bases.number_formats import QUANTISED
from peftlab.frozen import gguf_rotary
from peftlab.frozen.checkpoint import BaseNote


def load(
    path: str, config: PretrainedConfig, dtype: str, options: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A plain model of the file's weights, and the loading info of `from_pretrained`.

    Args:
        config: of `pretrained.read_config`.
        dtype: of `FORMATS`.
        options: of `from_pretrained`, for that format.

    Raises:
        InputError: the file cannot be read, or transformers leaves out what it needs.
    """
    header = gguf.read_header(gguf.file_of(path))
    config = gguf_rotary.completed(header, config)
    with pretrained.source(path) as given, _quick_and_quiet():
        model, told = AutoModelForCausalLM.from_pretrained(
            **given,
            config=config,
            dtype=torch.float32 if dtype in QUANTISED else options["dtype"],
            quantization_config=_unpacked(),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    model.config._name_or_path = path
    left_out = {*told["unexpected_keys"], *_left_out(header, model)}
    _note_tokenizer(header)
    if dtype not in QUANTISED:
        return model, {**told, "unexpected_keys": left_out}
    quantised, found = type(model).from_pretrained(
        None,
        config=model.config,
        state_dict=model.state_dict(),
        output_loading_info=True,
        **options,
    )
    return quantised, {**found, "unexpected_keys": left_out}


@contextmanager
def _quick_and_quiet() -> Iterator[None]:
    """transformers makes the table of tensors' names anew for every module, which is most of the
    time that reading takes, and draws a progress bar whatever its settings are.
    """
    import gguf as library
    from transformers import modeling_gguf_pytorch_utils as reader

    names, bar = library.get_tensor_name_map, reader.tqdm
    library.get_tensor_name_map, reader.tqdm = cache(names), lambda tensors, **_: tensors
    try:
        yield
    finally:
        library.get_tensor_name_map, reader.tqdm = names, bar


def _unpacked() -> Any:
    """Where the package `kernels` is installed, transformers would keep the file's blocks."""
    from transformers import GgufConfig

    return GgufConfig(dequantize=True)


def _left_out(header: gguf.Header, model: PreTrainedModel) -> Iterable[str]:
    """The tensors of a file that transformers passes over without a word."""
    from transformers.integrations.gguf import is_gguf_arch_supported
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    if is_gguf_arch_supported(header.architecture):
        return ()  # its newer reader says so itself
    kind = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)
    with _quick_and_quiet():
        placed = get_gguf_hf_weights_map(model, kind(config=model.config.to_dict()))
    return {
        name
        for name in header.tensors
        if name not in placed and name.removesuffix(".weight") not in placed
    } - {gguf_rotary.FACTORS}


# How llama.cpp names what splits text as GPT-2 does, which is what transformers falls back to.
_AS_GPT2 = {None, "gpt-2", "default", "mpt", "olmo", "jais", "trillion"}


def _note_tokenizer(header: gguf.Header) -> None:
    """Say where transformers does not know how the file's tokenizer splits text into words."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    if header.values.get("tokenizer.ggml.model") != "gpt2":
        return
    split = header.values.get("tokenizer.ggml.pre")
    if split not in GGUF_PRE_TOKENIZER_SPLITS and split not in _AS_GPT2:
        warnings.warn(
            f"{header.path}: transformers does not know how {split!r} splits text before it is "
            "encoded, and splits it as GPT-2 does: digits may become other tokens than the base "
            "was trained on",
            BaseNote,
            stacklevel=4,
        )
