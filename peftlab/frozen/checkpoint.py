"""A checkpoint is whole, or it is refused: what its files hold against what the model has.

transformers draws at random whatever a checkpoint lacks, and converts integers to floats without a
word; a base of that kind trains, and every number measured on it is worthless.
"""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

from peftlab.bases.pretrained import reply_ends
from peftlab.errors import InputError, listed
from peftlab.tasks import tokens

_INTEGERS = re.compile(r"[IU]\d+|BOOL")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


class BaseNote(UserWarning):
    """Something about a base that can be used, and that its user should know."""


def check_loaded(path: str, model: PreTrainedModel, told: Mapping[str, Any]) -> None:
    """Refuse a model that is not wholly what the checkpoint says; warn of what is left over.

    Args:
        told: the loading info of `from_pretrained`. Tied and recomputed tensors are not among its
            missing ones, nor what a family's `_keys_to_ignore_on_load_unexpected` covers among its
            surplus ones.

    Raises:
        InputError: tensors that are missing or of another shape, by name.
    """
    missing, surplus = (_patterns(told[kind]) for kind in ("missing_keys", "unexpected_keys"))
    wrong = [
        f"{name} {list(shape)}, expected {list(expected)}"
        for name, shape, expected in sorted(told["mismatched_keys"])
    ]
    kinds = {"missing": missing, "wrong shape": wrong, "not converted": told.get("error_msgs", ())}
    problems = [listed(words, list(them)) for words, them in kinds.items() if them]
    if problems:
        # Beside what is missing, surplus ones tell of another family or of other names.
        also = [listed("surplus", surplus)] if surplus else []
        raise InputError(
            f"the weights in {path!r} are not those of its configuration "
            f"({type(model).__name__}): {'; '.join(problems + also)}. Nothing is drawn at random: "
            "take the whole checkpoint, or the config.json that belongs to it"
        )
    if surplus:
        said = listed("the checkpoint has tensors that this model has no place for", surplus)
        warnings.warn(f"{path}: {said}; they are left out", BaseNote, stacklevel=3)


def check_formats(path: str, model: PreTrainedModel, config: PretrainedConfig) -> None:
    """Refuse integers where the model has floats, unless the checkpoint says that it is quantised.

    Raises:
        InputError: names the tensors.
    """
    if getattr(config, "quantization_config", None) is not None:
        return
    own = {name for name, _ in model.named_parameters()}
    ends = own | {name.partition(".")[2] for name in own}  # some checkpoints lack the first part
    wrong = sorted(
        f"{name} {dtype}"
        for name, dtype in _stored(path)
        if _INTEGERS.fullmatch(dtype) and (name in ends or name.partition(".")[2] in own)
    )
    if wrong:
        raise InputError(
            f"the weights in {path!r} are whole numbers where floats belong, and its config.json "
            f"has no quantization_config that says what they mean: {listed('', wrong)}"
        )


def check_vocabulary(path: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let no row hold an id that the base does not embed; warn where the tokenizer has such."""
    rows = model.get_input_embeddings().weight.shape[0]
    embedded = getattr(model.get_input_embeddings(), "num_embeddings", rows)
    know(path, tokenizer, embedded)
    beyond = sorted(i for i in tokenizer.get_vocab().values() if i >= embedded)
    if beyond:
        warnings.warn(
            f"{path}: the tokenizer has ids up to {beyond[-1]:,}, the base embeds {embedded:,} "
            f"tokens: {len(beyond):,} of them cannot be used, and a row that holds one is refused",
            BaseNote,
            stacklevel=3,
        )


def know(path: str, tokenizer: PreTrainedTokenizerBase, embedded: int) -> None:
    """Let rows know of the base what its tokenizer does not say.

    Args:
        embedded: how many ids the base embeds.
    """
    tokens.embed_below(tokenizer, embedded)
    if tokenizer.chat_template:
        tokens.let_end(tokenizer, reply_ends(path))


def _stored(path: str) -> Iterator[tuple[str, str]]:
    """Name and number format of every tensor, from the headers of the safetensors files."""
    for file in _files(path):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no dict
                yield name, opened.get_slice(name).get_dtype()


def _files(path: str) -> list[Path]:
    """The safetensors files of a folder, or of the hub's cache, that has been loaded."""
    single, index = (
        cached_file(
            path,
            name,
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        for name in _WEIGHTS
    )
    if single is not None:
        return [Path(single)]
    if index is None:
        return []
    parts = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()
    return [Path(index).parent / part for part in sorted(set(parts))]


def _patterns(names: Iterable[str]) -> list[str]:
    """Names that differ in a block's number alone, as one each with their number."""
    counts = Counter(re.sub(r"\.\d+\.", ".*.", name, count=1) for name in sorted(names))
    return [name if count == 1 else f"{name} ({count})" for name, count in counts.items()]
