"""What a GGUF file says of its model and tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftlab.bases import gguf as bases
from peftlab.errors import InputError
from peftlab.export.gguf.vocabulary import add_vocabulary

if TYPE_CHECKING:
    from gguf import GGUFReader, GGUFWriter

    from peftlab.frozen.model import FrozenLM

_FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16"}
_SET_ANEW = {
    f"general.{name}" for name in ("architecture", "alignment", "file_type", "quantization_version")
}


def add(writer: GGUFWriter, model: FrozenLM, config: Any, numbers: str) -> None:
    """All metadata: a GGUF base's own, or what the configuration and the tokenizer come to.

    Raises:
        InputError: a scaling of positions, or a tokenizer, that is not written.
    """
    from gguf import LlamaFileType

    if (base := _reader(model)) is not None:
        _copy(base, writer)
    else:
        _add_sizes(writer, model, config)
        add_vocabulary(writer, model)
    writer.add_file_type(LlamaFileType[_FILE_TYPES[numbers]])


def add_kept_tensors(writer: GGUFWriter, model: FrozenLM, written: set[str]) -> None:
    """What a GGUF base has and no parameter stands for: factors of its rotary frequencies."""
    base = _reader(model)
    for tensor in [] if base is None else base.tensors:
        if tensor.name not in written:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)


def _reader(model: FrozenLM) -> GGUFReader | None:
    """The base's file, where it is one."""
    if not bases.is_gguf(model.name):
        return None
    from gguf import GGUFReader

    return GGUFReader(bases.file_of(model.name))


def _copy(base: GGUFReader, writer: GGUFWriter) -> None:
    from gguf import GGUFValueType

    for field in base.fields.values():
        value = field.contents()
        if field.name.startswith("GGUF.") or field.name in _SET_ANEW or value == []:
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, kind, sub_type=inner)


def _add_sizes(writer: GGUFWriter, model: FrozenLM, config: Any) -> None:
    shape, rope = model.shape, dict(config.rope_parameters)
    if rope.get("rope_type", "default") != "default":
        raise InputError(
            f"{model.name} scales its rotary positions ({rope['rope_type']}), which is not written "
            "as GGUF from a folder; take the base as a GGUF file, or --to merged and llama.cpp's "
            "convert_hf_to_gguf.py"
        )
    writer.add_name(model.name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(shape.layers)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(shape.vocab)
