"""A guest's losses and texts, for the same evaluation as of our own methods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from peftlab.generation import Reply
from peftlab.generation.choose import Chooser, Written, banned_tokens
from peftlab.guests.model import GuestModel, quiet
from peftlab.structured import Guide, Structure, grammars_of
from peftlab.tasks import Decoding, Encoded, Example, Task, Template
from peftlab.tasks.plain import TEXT_TOKENS, text_rows
from peftlab.token_limits import max_row_tokens


class AdaptedGuest:
    """A guest for `peftlab.evaluation`: its rows have the task's own template."""

    prefix = 0  # a reply's prompt tokens have PEFT's virtual tokens among them

    def __init__(self, model: GuestModel) -> None:
        self.model, self.tokenizer = model, model.base.tokenizer

    def template(self, task: Task) -> Template:
        """PEFT's methods change no text."""
        return task.template

    def max_row_tokens(self, max_length: int | None) -> int:
        """What PEFT's virtual tokens leave of the context."""
        model = self.model
        return max_row_tokens(model.base.shape.context, max_length, model.virtual_tokens)

    def row_losses(self, encoded: Sequence[Encoded]) -> tuple[list[float], list[int]]:
        """By PEFT's own forward, padded."""
        return self.model.row_losses(encoded)

    def replies(
        self,
        task: Task,
        examples: Sequence[Example],
        decoding: Decoding,
        *,
        targets: object = (),
        max_length: int | None,
        **how: Any,
    ) -> list[Reply]:
        """By transformers' `generate`, beside which no losses are taken."""
        most = self.max_row_tokens(max_length) - task.max_new_tokens
        prompts = [task.template.encode(self.tokenizer, e, None, most) for e in examples]
        return generate(self.model, task, prompts, decoding, **how)

    def target_losses(
        self,
        task: Task,
        examples: Sequence[Example],
        targets: Sequence[Sequence[tuple[int, ...]]],
        *,
        max_length: int | None,
        **how: object,
    ) -> list[Reply]:
        """By PEFT's own forward, a row a target."""
        longest = max(len(ids) for own in targets for ids in own)
        most = self.max_row_tokens(max_length) - longest
        prompts = [task.template.encode(self.tokenizer, e, None, most) for e in examples]
        rows = [
            Encoded.trained_from((*prompt.ids, *ids), len(prompt.ids))
            for prompt, own in zip(prompts, targets, strict=True)
            for ids in own
        ]
        sums = iter(self.row_losses(rows)[0])
        virtual = self.model.virtual_tokens
        return [
            Reply(
                "",
                (),
                "length",
                virtual + len(prompt.ids),
                prompt.dropped,
                tuple(next(sums) for _ in own),
            )
            for prompt, own in zip(prompts, targets, strict=True)
        ]


def text_loss(
    model: GuestModel, documents: Sequence[str], window: int, most: int = TEXT_TOKENS
) -> float:
    """The loss in nats per token of plain text, see `peftlab.evaluation.text_loss`."""
    sums, counts = model.row_losses(text_rows(model.base.tokenizer, documents, window, most))
    return sum(sums) / sum(counts)


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
    ends = task.template.end_ids(model.base.tokenizer)
    chooser = Chooser(decoding, banned_tokens(decoding, model.base.tokenizer))
    restricted = _Restricted(chooser, ids.shape[1], ends, _guides(model, decoding, len(ids)))
    settings = GenerationConfig(
        max_new_tokens=task.max_new_tokens,
        num_beams=decoding.beams,
        length_penalty=decoding.length_penalty,
        do_sample=decoding.sample,
        temperature=decoding.temperature if decoding.sample else None,
        top_k=decoding.top_k if decoding.sample else None,
        top_p=decoding.top_p if decoding.sample else None,
        min_p=(decoding.min_p or None) if decoding.sample else None,
        eos_token_id=list(ends),
        pad_token_id=ends[0],
    )
    with quiet():
        made = model.peft.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=settings,
            logits_processor=LogitsProcessorList([restricted]),
        )
    return [row[ids.shape[1] :].tolist() for row in made]


def _guides(model: GuestModel, decoding: Decoding, rows: int) -> list[Guide]:
    """One a row, where a schema is asked for."""
    if not decoding.json_schema:
        return []
    grammars = grammars_of(model.base.tokenizer, model.base.shape.vocab)
    structure = Structure.of_schema(decoding.json_schema)
    return [grammars.guide(structure) for _ in range(rows)]


class _Restricted:
    """Our own rules, of structures, penalties, repetitions and early ends."""

    def __init__(
        self, chooser: Chooser, prompt: int, ends: tuple[int, ...], guides: Sequence[Guide]
    ) -> None:
        self.chooser, self.prompt, self.ends, self.guides = chooser, prompt, ends, guides

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        least = self.chooser.decoding.min_new_tokens
        rows = []
        for number, whole in enumerate(ids.tolist()):
            prompt, made = whole[: self.prompt], whole[self.prompt :]
            over = bool(made) and made[-1] in self.ends  # and padded until all are
            guide = self.guides[number] if self.guides and not over else None
            rows.append(Written(made, self.ends, least, prompt, guide))
        return self.chooser.restrict(scores, rows)


def _reply(model: GuestModel, task: Task, prompt: Encoded, tokens: list[int]) -> Reply:
    tokenizer, ends = model.base.tokenizer, task.template.end_ids(model.base.tokenizer)
    length = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    ended, kept = length < len(tokens), tuple(tokens[:length])
    text = tokenizer.decode(kept, skip_special_tokens=True).strip()
    positions = len(prompt.ids) + model.virtual_tokens
    return Reply(text, kept, "end" if ended else "length", positions, prompt.dropped)
