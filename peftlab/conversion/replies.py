"""Replies that a teacher gives to its sources, for a student to learn on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from peftlab.errors import InputError
from peftlab.files import append, read_jsonl
from peftlab.generation import Request, generate
from peftlab.tasks import Decoding, Example, Task
from peftlab.tasks.task import fingerprint
from peftlab.training import TrainConfig
from peftlab.training.teacher import Teacher

REPLIES = "replies-{split}.jsonl"
_AT_ONCE = 64  # sources between two writes: what is lost where it is cut off


def answered(
    teacher: Teacher, task: Task, config: TrainConfig, folder: Path | None, batch_size: int
) -> Task:
    """The task with one reply a source, sampled once at temperature 1, as its target.

    Of the training split as many sources as the steps will see, of validation those that are read.

    Args:
        folder: where replies are kept; what another teacher, or another seed, said is sampled anew.

    Raises:
        InputError: all replies are empty.
    """
    most = {"train": _seen(config), "validation": config.validation_limit}
    splits: dict[str, Any] = {}
    for split, count in most.items():
        examples = _drawn(task.split(split), count, config.seed)
        path = None if folder is None else folder / REPLIES.format(split=split)
        texts = _sampled(teacher, task, examples, path, config.seed, batch_size)
        pairs = zip(examples, texts, strict=True)
        splits[split] = [replace(one, targets=(text,)) for one, text in pairs if text.strip()]
    if not splits["train"]:
        raise InputError("the teacher's replies are all empty: there is nothing to learn on")
    told = fingerprint(splits["train"], splits["validation"], task.test)
    return replace(task, **splits, source=replace(task.source, fingerprint=told))


def _drawn(examples: Sequence[Example], count: int | None, seed: int) -> list[Example]:
    """So many at random; all, in their order, where there are no more."""
    if count is None or count >= len(examples):
        return list(examples)
    rng = torch.Generator().manual_seed(seed)
    return [examples[i] for i in torch.randperm(len(examples), generator=rng)[:count].tolist()]


def _seen(config: TrainConfig) -> int | None:
    steps_decide = config.epochs is None and config.tokens is None and config.seconds is None
    return config.steps * config.rows_a_step if steps_decide else None


def _sampled(
    teacher: Teacher,
    task: Task,
    examples: Sequence[Example],
    path: Path | None,
    seed: int,
    batch_size: int,
) -> list[str]:
    """A reply to every example; those that were sampled before are kept."""
    by = f"{teacher.identity[:16]} {seed} {task.max_new_tokens}"
    texts = _kept(path, by, examples)
    while len(texts) < len(examples):
        some = examples[len(texts) : len(texts) + _AT_ONCE]
        asked = [Request(teacher.adaptation, one, task.max_new_tokens, 1) for one in some]
        replies = generate(
            teacher.model,
            asked,
            Decoding(sample=True),
            batch_size=batch_size,
            seed=seed + len(texts),
            max_length=teacher.max_length,
        )
        made = [reply.text for reply in replies]
        if path is not None:
            lines = [
                json.dumps({"by": by, **_asked(one), "reply": text}, ensure_ascii=False)
                for one, text in zip(some, made, strict=True)
            ]
            append(path, "".join(f"{line}\n" for line in lines))
        texts += made
    return texts


def _kept(path: Path | None, by: str, examples: Sequence[Example]) -> list[str]:
    """The replies to the first of these sources; a file of others' is removed."""
    if path is None or not path.is_file():
        return []
    lines = read_jsonl(path)[: len(examples)]
    told = [{n: v for n, v in line.items() if n != "reply"} for line in lines]
    if told != [{"by": by, **_asked(example)} for example in examples[: len(told)]]:
        path.unlink()
        return []
    return [str(line["reply"]) for line in lines]


def _asked(example: Example) -> dict[str, Any]:
    """All that a reply hangs on."""
    return {name: value for name, value in example.to_dict().items() if name != "targets"}
