"""Methods that begin at the cue: what comes before is the base's own, kept or not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from peftlab.edits import Edits, KeysValues
from peftlab.frozen.packing import Row, pack
from peftlab.laws.law import law, require, require_close
from peftlab.laws.trial import gradients, leaves
from peftlab.loss import token_losses
from peftlab.pasts import continued
from peftlab.trunk import TrunkStore

if TYPE_CHECKING:
    from peftlab.laws.trial import Trial
    from peftlab.methods import Method

_BYTES = 1 << 30


def _whole_rows(method: Method) -> str:
    """Laws of the cue say nothing of methods that begin before it."""
    parts = getattr(method, "parts", (method,))
    at_cue = any(getattr(part, "begin", "row") == "cue" for part in parts)
    return "" if at_cue else "it changes whole rows"


@law("what comes before the cue is the base's own, and brings no gradient", _whole_rows)
def base_before(it: Trial) -> None:
    require(it.edits(it.moved).begin == "cue", "its edits begin at the row")
    require(all(row.begin > 0 for row in it.rows()), "its template marks no cue")
    pasts = [row.past for row in continued(it.model, it.rows())]
    for row, past in zip(it.rows(), pasts, strict=True):
        text = Row(row.ids[: row.begin])
        collected = it.model.collected(pack([text], [Edits()], device=it.model.device))
        for block, (keys, values) in enumerate(past.keys_values):  # type: ignore[union-attr]
            require(not keys.requires_grad and not values.requires_grad, "they want gradients")
            told = f"keys or values of block {block} before the cue are not the base's"
            require_close([keys, values], list(collected[block]), it.tolerance, told)


@law("what is kept of sources changes no bit of losses and gradients", _whole_rows)
def kept_alike(it: Trial) -> None:
    store, runs = TrunkStore(_BYTES), []
    for given in (store, store, None):
        state = leaves(it.moved)
        rows = continued(it.model, it.rows(), given)
        batch = pack(rows, [it.edits(state, 3)], device=it.model.device)
        losses = token_losses(it.model, batch, it.encoded)
        losses.sum().backward()
        runs.append([losses.detach(), *gradients(state).values()])
    require(len(store) > 0, "nothing was kept")
    for other in runs[1:]:
        require(all(map(torch.equal, runs[0], other)), "a source from the store gives other bits")


@law("a row with nothing before its cue is a row that is changed whole", _whole_rows)
def whole_row(it: Trial) -> None:
    edits = it.edits(it.moved).detach()
    rows = [row._replace(begin=0) for row in it.rows()]
    told = "logits differ from those of the same change of the whole row"
    expected = it.logits(rows, _of_whole_rows(it, edits))
    require_close(it.logits(rows, edits), expected, it.tolerance, told)


def _of_whole_rows(it: Trial, edits: Edits) -> Edits:
    """The same edits from the first token on: a prefix's keys at the positions 0…P−1."""
    attention = {}
    for block, several in edits.attention.items():
        turned, position = list[KeysValues](), 0
        for kv in several:
            if kv.gate is None:
                keys = it.model.rotary.turned(block, kv.keys, position)
                position += kv.keys.shape[-2]
                kv = replace(kv, keys=keys)
            turned.append(kv)
        attention[block] = tuple(turned)
    return replace(edits, begin="row", attention=attention)
