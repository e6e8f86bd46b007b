"""A guest's losses and texts: the same rows, decoding and scores as of our own methods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import torch

from peftlab.errors import InputError
from peftlab.evaluation import Evaluation, SplitLoss, examples_of, scored
from peftlab.generation import Reply
from peftlab.generation.choose import Chooser, banned_tokens
from peftlab.guests.model import GuestModel, quiet
from peftlab.tasks import Decoding, Encoded, Task
from peftlab.tasks.fit import fitted, shortened
from peftlab.tasks.plain import TEXT_TOKENS, text_rows
from peftlab.token_limits import max_row_tokens


def split_loss(
    model: GuestModel,
    task: Task,
    split: str,
    *,
    limit: int | None = None,
    max_length: int | None = None,
) -> SplitLoss:
    """The loss over every (example, target) pair of a split, or the first `limit` of them.

    Raises:
        InputError: the split is empty.
    """
    most, tokenizer = _row_tokens(model, max_length), model.base.tokenizer
    task = _taken(model, task, most, split)
    pairs = task.pairs(split)[:limit]
    if not pairs:
        raise InputError(f"the {split} split of {task.name} is empty: there is no loss to compute")
    encoded = [task.template.encode(tokenizer, example, target, most) for example, target in pairs]
    sums, counts = model.row_losses(encoded)
    return SplitLoss(sum(sums) / sum(counts), sums, counts, sum(e.dropped > 0 for e in encoded))


def text_loss(
    model: GuestModel, documents: Sequence[str], window: int, most: int = TEXT_TOKENS
) -> float:
    """The loss in nats per token of plain text, see `peftlab.evaluation.text_loss`."""
    sums, counts = model.row_losses(text_rows(model.base.tokenizer, documents, window, most))
    return sum(sums) / sum(counts)


def evaluate(
    model: GuestModel,
    task: Task,
    split: str = "test",
    *,
    metrics: Sequence[str] | None = None,
    decoding: Decoding | None = None,
    limit: int | None = None,
    batch_size: int = 16,
    max_length: int | None = None,
    seed: int = 0,
    done: Callable[[int], None] | None = None,
) -> Evaluation:
    """Generate by transformers' `generate` for every example of a split, and score the texts.

    Raises:
        InputError: the split is empty, or a metric is unknown.
    """
    task = _taken(model, task, _row_tokens(model, max_length), split)
    examples = examples_of(task, split, limit)
    tokenizer, most = model.base.tokenizer, _row_tokens(model, max_length) - task.max_new_tokens
    prompts = [task.template.encode(tokenizer, example, None, most) for example in examples]
    replies = generate(
        model, task, prompts, decoding or task.decoding, batch_size=batch_size, seed=seed, done=done
    )
    sources = [len(tokenizer.encode(e.source, add_special_tokens=False)) for e in examples]
    pairs = zip(replies, sources, strict=True)
    context = fmean(reply.prompt_tokens - (source - reply.dropped) for reply, source in pairs)
    return scored(task, split, metrics, examples, replies, context)


def _taken(model: GuestModel, task: Task, max_tokens: int, split: str) -> Task:
    tokenizer = model.base.tokenizer
    own = fitted(task, tokenizer, (split,))
    return shortened(own, own.template, tokenizer, max_tokens, (split,))


def _row_tokens(model: GuestModel, max_length: int | None) -> int:
    return max_row_tokens(model.base.shape.context, max_length, model.virtual_tokens)


def generate(
    model: GuestModel,
    task: Task,
    prompts: Sequence[Encoded],
    decoding: Decoding,
    *,
    batch_size: int = 16,
    seed: int = 0,
    done: Callable[[int], None] | None = None,
) -> list[Reply]:
    """Answer every prompt. Only prompts of one length share a batch: padding on the left, between a
    soft prompt and its text, would move positions (peft #1093).
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, prompt in enumerate(prompts):
        by_length[len(prompt.ids)].append(i)
    replies: dict[int, Reply] = {}
    rows = max(1, batch_size // decoding.beams)
    with torch.no_grad(), torch.random.fork_rng(), model.evaluating():
        torch.manual_seed(seed)
        for indices in by_length.values():
            for start in range(0, len(indices), rows):
                chunk = indices[start : start + rows]
                outputs = _outputs(model, task, [prompts[i] for i in chunk], decoding)
                for i, tokens in zip(chunk, outputs, strict=True):
                    replies[i] = _reply(model, task, prompts[i], tokens)
                if done is not None:
                    done(len(replies))
    return [replies[i] for i in range(len(prompts))]


def _outputs(
    model: GuestModel, task: Task, prompts: Sequence[Encoded], decoding: Decoding
) -> list[list[int]]:
    from transformers import GenerationConfig, LogitsProcessorList

    ids = torch.tensor([prompt.ids for prompt in prompts], device=model.base.device)
    end = task.template.end_id(model.base.tokenizer)
    chooser = Chooser(decoding, banned_tokens(decoding, model.base.tokenizer))
    settings = GenerationConfig(
        max_new_tokens=task.max_new_tokens,
        num_beams=decoding.beams,
        length_penalty=decoding.length_penalty,
        do_sample=decoding.sample,
        temperature=decoding.temperature if decoding.sample else None,
        top_k=decoding.top_k if decoding.sample else None,
        top_p=decoding.top_p if decoding.sample else None,
        eos_token_id=end,
        pad_token_id=end,
    )
    with quiet():
        made = model.peft.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=settings,
            logits_processor=LogitsProcessorList([_Restricted(chooser, ids.shape[1], end)]),
        )
    return [row[ids.shape[1] :].tolist() for row in made]


class _Restricted:
    """Our own rules for repeated n-grams and early ends, which look at the output alone."""

    def __init__(self, chooser: Chooser, prompt: int, end: int) -> None:
        self.chooser, self.prompt, self.end = chooser, prompt, end

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        made: Any = ids[:, self.prompt :].tolist()
        least = [self.chooser.decoding.min_new_tokens] * len(made)
        return self.chooser.restrict(scores, made, [self.end] * len(made), least)


def _reply(model: GuestModel, task: Task, prompt: Encoded, tokens: list[int]) -> Reply:
    tokenizer, end = model.base.tokenizer, task.template.end_id(model.base.tokenizer)
    ended = end in tokens
    kept = tuple(tokens[: tokens.index(end)] if ended else tokens)
    text = tokenizer.decode(kept, skip_special_tokens=True).strip()
    positions = len(prompt.ids) + model.virtual_tokens
    return Reply(text, kept, "end" if ended else "length", positions, prompt.dropped)
