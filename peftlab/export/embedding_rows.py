"""Soft prompts as rows of the embedding matrix, with a pseudo token of the tokenizer for each.

A plain engine then serves many tasks' prompts: the task is the text that a request begins with,
`<task-0><task-1>…`. Two things need care:

- Logits. A tied head would give the new rows logits of their own, so the head is untied. No engine
  has a mask that every family's head could hold, so in the head each new row repeats the row of one
  known token, the least likely one on random text: a pseudo token is then never more likely than
  that token, and `generation_config.json` suppresses it altogether where the engine reads that.
- Beginning of sequence. It goes after the prompt, as in training, so texts are sent with
  `add_special_tokens=false` and hold it themselves; `prompts.json` has them ready.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.export import plain
from peftlab.export.instead import AS_LORA
from peftlab.export.merging import probes
from peftlab.export.text import plain_text
from peftlab.files import together, write_json
from peftlab.frozen.packing import Row, pack
from peftlab.methods.adaptation import Adaptation
from peftlab.tasks import Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Template

_PROBE = "The cat sat on the mat, 3 times!"


@dataclass(frozen=True)
class EmbeddingRows:
    """The folder, and what a request has to know.

    Attributes:
        tokens, ids: each task's pseudo tokens. stand_in: the token whose head row they repeat.
        defaults: as `Merged.defaults`, of any of the tasks.
    """

    folder: Path
    tokens: Mapping[str, tuple[str, ...]]
    ids: Mapping[str, tuple[int, ...]]
    stand_in: int
    defaults: Mapping[str, Any] = field(default_factory=dict)


def embedding_rows(
    adaptations: Mapping[str, Adaptation], model: FrozenLM, folder: Path | str
) -> EmbeddingRows:
    """Write one transformers checkpoint that holds the prompts of all these tasks.

    Args:
        adaptations: by the name that their pseudo tokens get.

    Raises:
        InputError: an adaptation that is more than a soft prompt, with the nearest alternative; a
            base without tokenizer; a name whose tokens the tokenizer already has.
    """
    folder = Path(folder)
    prompts = {name: soft_prompt(name, a, model) for name, a in adaptations.items()}
    tokens = {n: tuple(f"<{n}-{j}>" for j in range(len(p))) for n, p in prompts.items()}
    tokenizer = _extended(model.tokenizer, [t for own in tokens.values() for t in own])
    ids = {n: tuple(tokenizer.convert_tokens_to_ids(list(own))) for n, own in tokens.items()}
    stand_in = _least_likely(model)
    made = _with_rows(model, prompts, ids, stand_in)
    defaults = _changed_replies(adaptations, model)
    described = {
        "tasks": {
            name: _described(adaptation, model, tokenizer, tokens[name], ids[name])
            for name, adaptation in adaptations.items()
        },
        "stand_in": stand_in,
        "generation_defaults": defaults,
    }
    with together(folder) as place:
        plain.save_plain(made, tokenizer, place)
        write_json(place / "prompts.json", plain.about("embedding-rows", described))
    return EmbeddingRows(folder, tokens, ids, stand_in, defaults)


def _changed_replies(adaptations: Mapping[str, Adaptation], model: FrozenLM) -> dict[str, Any]:
    """What of the base's generation defaults changes replies; its suppressed tokens stay behind."""
    config = copy.deepcopy(model.model.generation_config)
    config.suppress_tokens = None
    changed: dict[str, Any] = {}
    for adaptation in adaptations.values():
        template = adaptation.edits(model).template or adaptation.template
        changed |= plain.changed_replies(config, template.end_ids(model.tokenizer))
    return changed


def soft_prompt(name: str, adaptation: Adaptation, model: FrozenLM) -> torch.Tensor:
    """The vectors [P, D] of an adaptation that is a soft prompt and nothing else.

    Raises:
        InputError: it is something else, with the nearest alternative.
    """
    edits: Edits = adaptation.edits(model)
    method = adaptation.method.name
    if (
        edits.embeddings is None
        or edits.linear
        or edits.weights
        or edits.attention
        or edits.sublayer
    ):
        instead = (
            "use the peft or merged export"
            if edits.linear or edits.weights
            else f"peftlab's own server serves it, and {AS_LORA}"
        )
        raise InputError(
            f"{name}: {method} is no soft prompt alone, and rows of the embedding matrix hold "
            f"nothing else; {instead}."
        )
    if edits.begin == "cue":
        raise InputError(
            f"{name}: its vectors stand at the cue, and engines with plain prompts know none; "
            f"peftlab's own server serves it, and {AS_LORA}."
        )
    return edits.embeddings


def _extended(tokenizer: PreTrainedTokenizerBase, tokens: list[str]) -> PreTrainedTokenizerBase:
    """A copy of the tokenizer that knows these tokens."""
    from transformers import AddedToken

    taken = [token for token in tokens if token in tokenizer.get_vocab()]
    if taken:
        raise InputError(f"the tokenizer already has {taken[0]}: give the task another name")
    extended = copy.deepcopy(tokenizer)
    extended.add_tokens(
        [AddedToken(t, special=True, normalized=False, lstrip=False, rstrip=False) for t in tokens],
        special_tokens=True,
    )
    return extended


@torch.no_grad()
def _least_likely(model: FrozenLM) -> int:
    """The token whose highest probability anywhere on random text is the lowest."""
    batch = pack([Row(ids, 0, 0) for ids in probes(model)], [Edits()], device=model.device)
    return int(model(batch).float().softmax(-1).amax(0).argmin())


def _with_rows(
    model: FrozenLM,
    prompts: Mapping[str, torch.Tensor],
    ids: Mapping[str, tuple[int, ...]],
    stand_in: int,
) -> PreTrainedModel:
    new = [i for own in ids.values() for i in own]
    vectors = torch.cat([prompts[name] for name in ids]).cpu()
    table, head = model.model.get_input_embeddings(), model.model.get_output_embeddings()
    names = {id(p): n for n, p in model.model.named_parameters()}
    rows = max(table.weight.shape[0], max(new) + 1)
    own = {
        names[id(table.weight)]: _grown(table.weight, rows, new, vectors / embedding_scale(model))
    }
    own[_head_name(model)] = _grown(head.weight, rows, new, head.weight[stand_in])
    if getattr(head, "bias", None) is not None:
        own[names[id(head.bias)]] = _grown(head.bias, rows, new, head.bias[stand_in])
    config = plain.plain_config(model)
    config.vocab_size, config.tie_word_embeddings = rows, False
    made = plain.plain_model(model, own, config)
    made.generation_config.suppress_tokens = sorted(new)
    return made


def _head_name(model: FrozenLM) -> str:
    """The head's weight under its own name, also where it is tied and the table's name stands."""
    head = model.model.get_output_embeddings()
    path = next(name for name, module in model.model.named_modules() if module is head)
    return f"{path}.weight"


def _grown(old: torch.Tensor, rows: int, new: list[int], values: torch.Tensor) -> torch.Tensor:
    """`old` with so many rows, `values` at the new ones."""
    grown = old.new_zeros(rows, *old.shape[1:])
    grown[: len(old)] = old
    grown[new] = values.to(grown)
    return grown


def embedding_scale(model: FrozenLM) -> float:
    """What the embedding module multiplies its rows by (Gemma's √D)."""
    return float(getattr(model.model.get_input_embeddings(), "embed_scale", 1.0))


def _described(
    adaptation: Adaptation,
    model: FrozenLM,
    tokenizer: Any,
    tokens: tuple[str, ...],
    ids: tuple[int, ...],
) -> dict[str, Any]:
    template = adaptation.edits(model).template or adaptation.template
    text = plain_text(template, tokens, model.tokenizer)
    return {
        "tokens": list(tokens),
        "ids": list(ids),
        "text": text,
        "add_special_tokens": False,
        "text_is_exact": _same_ids(template, text, ids, tokenizer, model),
        "template": template.to_dict(),
    }


def _same_ids(
    template: Template, text: str | None, ids: tuple[int, ...], tokenizer: Any, model: FrozenLM
) -> bool:
    """Whether an engine's tokenizer makes of the text what training saw, tried on one source."""
    columns = template.markup.columns
    example = Example(_PROBE, ("",), dict.fromkeys(columns, _PROBE))
    if text is None:
        return False
    for name in ("source", *columns):
        text = text.replace(f"{{{name}}}", _PROBE)
    encoded = template.encode(model.tokenizer, example, None, model.shape.context).ids
    expected = [ids[-i - 1] if i < 0 else i for i in encoded]
    return bool(tokenizer(text, add_special_tokens=False)["input_ids"] == expected)
