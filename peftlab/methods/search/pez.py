"""PEZ: a continuous prompt whose nearest tokens go forward.  Wen et al. 2023, arXiv:2302.03668.

Algorithm 1: the gradient is taken at the nearest tokens (by cosine) and applied to the continuous
prompt. Adafactor at 0.3 as in the paper's text experiments, but relative to the prompt's size and
falling (Shazeer & Stern 2018, arXiv:1804.04235, section 8): embedding tables differ in scale.
"""

from __future__ import annotations

from peftlab.lazy import torch
from peftlab.methods.base import Examples, Params
from peftlab.methods.search.prompt import (
    Frame,
    Prompt,
    asked,
    embedding_table,
    not_text,
    token_gradient,
)

_MOMENT = "adafactor."


def pez(
    examples: Examples, frame: Frame, prompt: Prompt, memory: Params, rate: float
) -> tuple[Prompt, float, Params, dict[str, int]]:
    """One gradient step; the projection replaces `prompt` if it survives and has a lower loss.

    Args:
        memory: the continuous prompt [L, D] and its optimiser's moments; empty at the first step.

    Returns:
        the better prompt, its loss, the memory for the next step, and numbers for the trace.
    """
    continuous = memory.get("prompt", examples.model.embed(torch.tensor(prompt.ids)))
    ids = _nearest(examples, continuous)
    memory = _descended(continuous, token_gradient(examples, frame, ids), memory, rate)
    projected = frame.survivor(ids)
    pair = [prompt] if projected is None else [prompt, projected]
    losses = examples.losses([asked(examples, candidate.text) for candidate in pair])
    best = min(range(len(pair)), key=losses.__getitem__)
    return pair[best], losses[best], memory, {"candidates": 1, "survived": len(pair) - 1}


def _nearest(examples: Examples, vectors: torch.Tensor) -> tuple[int, ...]:
    """The tokens of text whose embeddings point most in the directions of `vectors` [L, D]."""
    table = embedding_table(examples.model).float()
    normalise = torch.nn.functional.normalize
    cosine = normalise(vectors, dim=-1) @ normalise(table, dim=-1).T
    cosine[:, list(not_text(examples.model.tokenizer, len(table)))] = -torch.inf
    return tuple(cosine.argmax(1).tolist())


def _descended(
    continuous: torch.Tensor, gradient: torch.Tensor, memory: Params, rate: float
) -> Params:
    """The continuous prompt after a step, with the moments."""
    prompt = torch.nn.Parameter(continuous.detach().clone())
    optimizer = torch.optim.Adafactor([prompt], lr=rate)
    moments = {n.removeprefix(_MOMENT): t for n, t in memory.items() if n.startswith(_MOMENT)}
    if moments:
        optimizer.state[prompt] = {name: tensor.clone() for name, tensor in moments.items()}
    prompt.grad = gradient
    optimizer.step()
    kept = {f"{_MOMENT}{name}": tensor for name, tensor in optimizer.state[prompt].items()}
    return {"prompt": prompt.detach(), **kept}
