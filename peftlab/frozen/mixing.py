"""Mixtures at the logits: a weighted sum of several experts' scores of one next token.

What is sampled from is the product of the experts' distributions, each to the power of its weight:
Hinton 2002 (products of experts); with a negative weight Liu et al. 2021, arXiv:2105.03023,
equation 1 (DExperts), and Li et al. 2023, arXiv:2210.15097 (contrastive decoding).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def mixed(logits: torch.Tensor, shares: Sequence[float]) -> torch.Tensor:
    """The weighted sum of experts' logits […, E, V] over E: […, V] in float32."""
    scores = logits.float()
    return torch.einsum("...ev,e->...v", scores, scores.new_tensor(shares))


def mixed_each(logits: torch.Tensor, shares: Sequence[Sequence[float]]) -> torch.Tensor:
    """The same of rows [R, V] that lie expert by expert, for as many mixtures as `shares`: [M, V].

    Where none has more than one expert, the logits as they are.
    """
    if all(len(own) == 1 for own in shares):
        return logits
    parts = zip(logits.split([len(own) for own in shares]), shares, strict=True)
    return torch.stack(
        [mixed(part, own) if len(own) > 1 else part[0].float() for part, own in parts]
    )
