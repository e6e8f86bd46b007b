"""Starting values of soft prompts and prefixes: real tokens, because random vectors learn badly."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from peftlab.errors import InputError
from peftlab.lazy import torch

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Task

Start = Literal["text", "vocabulary", "labels", "random"]


def start_ids(
    start: Start, length: int, text: str, model: FrozenLM, task: Task, rng: torch.Generator
) -> list[int]:
    """The `length` token ids whose embeddings or activations a prompt starts from.

    text: the given text, else the task's instruction, else its first training example; repeated
    or cut to length. vocabulary: sampled tokens. labels: the class labels' tokens, the rest sampled
    (Lester et al. 2021, section 3.2).

    Raises:
        InputError: labels are asked of a task that has none; a model without tokenizer.
    """
    if start == "vocabulary":
        return _sampled(length, model, rng)
    if start == "labels":
        if not task.labels:
            raise InputError(
                f"initialisation=labels needs class labels, and the task {task.name} has none"
            )
        ids = [i for label in task.labels for i in _tokens(model, " " + label)]
        return (ids + _sampled(max(0, length - len(ids)), model, rng))[:length]
    first = task.train[0]
    words = text or task.instruction or f"{first.source} {first.targets[0]}"
    ids = _tokens(model, words)
    return (ids * (length // len(ids) + 1))[:length]


def start_vectors(
    start: Start, length: int, text: str, model: FrozenLM, task: Task, rng: torch.Generator
) -> torch.Tensor:
    """Vectors [length, D] on the scale of the embedding table, whatever they start from."""
    if start == "random":
        table = model.gather(_embedding_name(model)).float()
        noise = torch.randn(length, model.shape.hidden, generator=rng)
        return noise * float(table.std())
    ids = start_ids(start, length, text, model, task, rng)
    return model.embed(torch.tensor(ids)).cpu().clone()


def saved_prompt(folder: Path, length: int, model: FrozenLM) -> torch.Tensor:
    """The vectors [length, D] of a soft prompt that was saved.

    Raises:
        InputError: no adaptation, one without a soft prompt, or one of another length or base.
    """
    from peftlab.methods.adaptation import Adaptation

    saved = Adaptation.load(folder, model)
    vectors = saved.state.tensors.get("prompt")
    if vectors is None:
        raise InputError(
            f"{folder} holds {saved.method.name}, which is no soft prompt; one of prompt_tuning or "
            "p_tuning was expected"
        )
    if len(vectors) != length:
        raise InputError(
            f"length={length}, but the prompt in {folder} has {len(vectors)} vectors: give "
            f"length={len(vectors)}"
        )
    return vectors


def saved_digest(folder: Path) -> str:
    """A hash of a saved adaptation's tensors.

    Raises:
        InputError: they are missing.
    """
    path = folder / "adaptation.safetensors"
    if not path.is_file():
        raise InputError(f"{folder} holds no adaptation: {path.name} is missing")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _tokens(model: FrozenLM, text: str) -> list[int]:
    ids: list[int] = model.tokenizer.encode(text, add_special_tokens=False)
    if not ids:
        raise InputError(f"the text {text!r} has no tokens to start a prompt from")
    return ids


def _sampled(length: int, model: FrozenLM, rng: torch.Generator) -> list[int]:
    ids: list[int] = torch.randint(model.shape.vocab, (length,), generator=rng).tolist()
    return ids


def _embedding_name(model: FrozenLM) -> str:
    weight = model.model.get_input_embeddings().weight
    return next(name for name, p in model.model.named_parameters() if p is weight)
