"""Exchanging one token at a time, where the gradient says that it helps.

The loss as a function of one-hot token choices has the gradient ∂loss/∂embedding · Eᵀ [L, V]; its
most negative entries are the tokens that promise most. The true loss decides among them.
"""

from __future__ import annotations

from peftlab.lazy import torch
from peftlab.methods.base import Examples
from peftlab.methods.search.prompt import (
    Frame,
    Prompt,
    asked,
    embedding_table,
    not_text,
    token_gradient,
)


def gcg(
    examples: Examples, frame: Frame, prompt: Prompt, width: int, top_k: int
) -> tuple[Prompt, float, dict[str, int]]:
    """Greedy coordinate gradient (Zou et al. 2023, arXiv:2307.15043, algorithm 1).

    Every candidate exchanges a random slot's token for one of that slot's `top_k` best. The paper
    takes the best candidate even where it is worse; since our examples change with every step, the
    present prompt is among the candidates.
    """
    promise = _promise(examples, frame, prompt)
    best = promise.topk(min(top_k, _choices(promise))).indices.cpu()  # [L, k]
    slots = torch.randint(len(prompt.ids), (width,), generator=examples.rng)
    ranks = torch.randint(best.shape[1], (width,), generator=examples.rng)
    swaps = [(int(slot), int(best[slot, rank])) for slot, rank in zip(slots, ranks, strict=True)]
    return _best_of(examples, frame, prompt, swaps)


def autoprompt(
    examples: Examples, frame: Frame, prompt: Prompt, width: int
) -> tuple[Prompt, float, dict[str, int]]:
    """One random slot and its `width` most promising tokens.

    Shin et al. 2020, arXiv:2010.15980, section 2.2; `create_trigger.py`. The prompt changes only
    where the step's examples have a lower loss.
    """
    promise = _promise(examples, frame, prompt)
    slot = int(torch.randint(len(prompt.ids), (1,), generator=examples.rng))
    best = promise[slot].topk(min(width, _choices(promise))).indices
    return _best_of(examples, frame, prompt, [(slot, int(token)) for token in best])


def _promise(examples: Examples, frame: Frame, prompt: Prompt) -> torch.Tensor:
    """How far each exchange lowers the loss, to first order and up to a constant [L, V]."""
    gradient = token_gradient(examples, frame, prompt.ids)
    table = embedding_table(examples.model)
    promise = -(gradient @ table.float().T)
    promise[:, list(not_text(examples.model.tokenizer, len(table)))] = -torch.inf
    promise[torch.arange(len(prompt.ids)), list(prompt.ids)] = -torch.inf
    return promise


def _choices(promise: torch.Tensor) -> int:
    """How many tokens every slot can be exchanged for."""
    return int(promise.isfinite().sum(1).min())


def _best_of(
    examples: Examples, frame: Frame, prompt: Prompt, swaps: list[tuple[int, int]]
) -> tuple[Prompt, float, dict[str, int]]:
    """The best of the exchanges that survive, or the prompt itself; with the numbers of both."""
    tried = [prompt]
    for slot, token in dict.fromkeys(swaps):
        survivor = frame.survivor((*prompt.ids[:slot], token, *prompt.ids[slot + 1 :]))
        if survivor is not None:
            tried.append(survivor)
    losses = examples.losses([asked(examples, candidate.text) for candidate in tried])
    best = min(range(len(tried)), key=losses.__getitem__)
    return tried[best], losses[best], {"candidates": len(swaps), "survived": len(tried) - 1}
