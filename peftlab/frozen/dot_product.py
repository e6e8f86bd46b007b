"""One row's queries against its keys and values: the arithmetic of attention.

Legend: H heads, Hkv key/value heads, hd head size, T tokens of one row, S keys that the row sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class Rule:
    """How one layer scores: scale, sliding window, soft-cap and attention sinks [H]."""

    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: torch.Tensor | None = None


class Masks:
    """Which keys the queries of rows see that do not see themselves causally alone.

    All rows and blocks of a forward share those that are alike.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[int, int, int | None], torch.Tensor] = {}

    def get(
        self, queries: int, seen: int, window: int | None, device: torch.device
    ) -> torch.Tensor:
        """[T, S] bool: query i stands at key S−T+i, sees what is not after it, `window` back."""
        key = (queries, seen, window)
        if key not in self._made:
            mask = torch.ones(queries, seen, dtype=torch.bool, device=device).tril(seen - queries)
            if window is not None:
                mask = mask.triu(seen - queries - window + 1)
            self._made[key] = mask
        return self._made[key]


def attend_row(
    masks: Masks, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rule: Rule
) -> torch.Tensor:
    """One row's T queries at the end of its S keys: q [H, T, hd], k and v [Hkv, S, hd]."""
    queries, seen = q.shape[-2], k.shape[-2]
    window = rule.window if rule.window is not None and rule.window < seen else None
    if queries == 1 and window is not None:
        k, v, seen, window = k[:, -window:], v[:, -window:], window, None
    causal = queries == seen and window is None
    mask = None if causal or queries == 1 else masks.get(queries, seen, window, q.device)
    return dot_product_attention(q[None], k[None], v[None], mask, causal, rule).squeeze(0)


def dot_product_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    rule: Rule,
) -> torch.Tensor:
    """q [B, H, T, hd], k and v [B, Hkv, S, hd] -> [B, H, T, hd]."""
    if _compiles(q):
        with torch.autocast(q.device.type, enabled=False):
            logits = dot_product_attention(q.float(), k.float(), v.float(), mask, causal, rule)
            return logits.to(q.dtype)
    if rule.softcap is None and rule.sinks is None:
        return scaled_dot_product_attention(
            q, k, v, mask, is_causal=causal and q.shape[-2] > 1, scale=rule.scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )  # fmt: skip
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    logits = (q @ k.transpose(-1, -2)) * rule.scale
    if rule.softcap is not None:
        logits = rule.softcap * torch.tanh(logits / rule.softcap)
    if causal:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    if rule.sinks is not None:
        sinks = rule.sinks.to(logits).view(1, -1, 1, 1).expand(*logits.shape[:-1], 1)
        logits = torch.cat([logits, sinks], -1)
    weights = logits.softmax(-1, dtype=torch.float32).to(q.dtype)
    return weights[..., : k.shape[-2]] @ v


def _compiles(q: torch.Tensor) -> bool:
    """Whether a backward would have to compile its kernels for this very length of a row.

    So it is in bf16 on a CPU, where that has been seen to take half of a training step; in float32
    nothing is compiled.
    """
    if q.device.type != "cpu" or not torch.is_grad_enabled():
        return False
    return q.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
