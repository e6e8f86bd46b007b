"""A decoder of transformers, opened: packed rows run through it, each with its owner's edits.

Whether a family can be opened so is checked in `conformance`.

Legend: N packed tokens, K kept tokens, D hidden size, V vocabulary, P prompt length, H_kv
key/value heads, hd head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.activations import FastGELUActivation, NewGELUActivation

from peftlab.bases.shapes import ModelShape
from peftlab.edits import Edits, KeysValues
from peftlab.errors import InputError
from peftlab.frozen import attention, quantised, sharding, sites
from peftlab.frozen.batch import Batch
from peftlab.frozen.forward import PLAIN, ForwardContext, ForwardOptions
from peftlab.frozen.packing import Row, pack
from peftlab.frozen.rotary import Angles, Rotary
from peftlab.frozen.rows import replace_rows

_LENGTH_DEPENDENT_ROPE = ("longrope", "dynamic")


class EditableLM(torch.nn.Module):
    """A decoder whose modules, once its sites are open, ask for the edits of their rows.

    Attributes:
        model: the plain transformers model, in eval mode, without gradients, weights untouched. In
            eval mode no frozen block drops anything out; methods have a dropout of their own.
        shape: sizes, parameter names and linear roles of the plain model.
        is_sharded: whether its blocks are split over processes, see `sharding`; all of them must
            then run it together.
        sublayer_gaps: by site why its modules were not found, where they were not.
    """

    def __init__(self, model: PreTrainedModel, name: str = "model") -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.name = name
        self.is_sharded = any(sharding.is_sharded(p) for p in model.parameters())
        self.shape = ModelShape.read(model.config.to_dict(), quantised.plain_shapes(model))
        self.sublayer_gaps: dict[str, str] = {}
        self.rotary = Rotary(self._angles, self._attention, self._probed_keys, self._longest)
        quantised.open_linears(model)

    def open_sites(self) -> None:
        """Let the modules ask for edits. Before it, the model computes what the plain one does."""
        attention.register()
        self.model.set_attn_implementation(attention.NAME)
        self.sublayer_gaps = _open_sites(self.model, self.shape)

    @property
    def device(self) -> torch.device:
        """Where the base lies."""
        return self.model.device

    def gather(self, name: str) -> torch.Tensor:
        """A frozen parameter by its name, as the plain model has it.

        Whole even where the base is sharded, dequantised where it is quantised.
        """
        return sharding.whole(quantised.whole(self.model, name))

    def copy_of(self, name: str) -> torch.Tensor:
        """A copy of a frozen parameter in float32, to be trained; sharded where the base is."""
        return quantised.whole(self.model, name).float().clone()

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """The frozen input embeddings of token ids [...] -> [..., D], in float32."""
        return self.model.get_input_embeddings()(ids.to(self.device)).detach().float()

    def forward(self, batch: Batch, options: ForwardOptions = PLAIN) -> torch.Tensor:
        """The logits [K, V] of the batch's kept tokens, in packed order."""
        return self.run(ForwardContext(batch, options))

    def run(self, context: ForwardContext) -> torch.Tensor:
        """The same, of a forward that the caller has made to see what it leaves behind."""
        out = self._run(self.model, context, logits_to_keep=context.batch.keep)
        logits: torch.Tensor = out.logits.squeeze(0)
        return logits

    def hidden(self, batch: Batch, options: ForwardOptions = PLAIN) -> torch.Tensor:
        """What the head would get for the kept tokens, [K, D]."""
        out = self._run(self.model.base_model, ForwardContext(batch, options))
        states: torch.Tensor = out.last_hidden_state.squeeze(0).index_select(0, batch.keep)
        return states

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """The frozen head on [K, D] -> logits [K, V], with the family's scale and soft-cap.

        The conformance check proves `head(hidden(batch))` equal to `forward(batch)`, or says why
        the head cannot be run apart (`conformance.sites["head"]`).
        """
        config = self.model.config.get_text_config()
        # Not as [1, K, D]: the loss overwrites these logits, and were they a view, autograd would
        # copy their gradient.
        logits: torch.Tensor = self.model.get_output_embeddings()(hidden)
        scale, divisor, cap = (
            getattr(config, name, None)
            for name in ("logit_scale", "logits_scaling", "final_logit_softcapping")
        )
        # Not with a scale of one: that would be another pass over all logits.
        logits = logits * scale if scale not in (None, 1) else logits
        logits = logits / divisor if divisor not in (None, 1) else logits
        return cap * torch.tanh(logits / cap) if cap else logits

    def block_input(self, batch: Batch, block: int) -> torch.Tensor:
        """The states [1, N, D] that enter a block; blocks from there on do not run."""
        options = ForwardOptions(keep_input_of=block, stop_after_keeping=True)
        context = ForwardContext(batch, options)
        with suppress(sites.Kept):
            self._run(self.model.base_model, context)
        assert context.kept_input is not None
        return context.kept_input

    def _run(self, module: torch.nn.Module, context: ForwardContext, **arguments: Any) -> Any:
        batch = context.batch
        self._check_positions(batch)
        if batch.is_cached != (context.options.cache is not None):
            raise InputError(
                "rows with a past need the cache that it lies in, and rows without one none; got "
                + ("no cache" if batch.is_cached else "a cache")
            )
        context.rotary = self.rotary
        with context.active():
            return module(
                inputs_embeds=self._inputs(batch),
                position_ids=batch.positions.unsqueeze(0),
                use_cache=False,
                **arguments,
            )

    def keys_values(self, edits: Edits, ids: Sequence[int]) -> dict[int, KeysValues]:
        """Every block's keys and values [H_kv, P', hd] after a prefix and these tokens.

        P' counts the edits' own prefix and the tokens. Differentiable.
        """
        batch = pack([Row(ids)], [edits], device=self.device)
        kept = {}
        for block, (keys, values) in self.collected(batch).items():
            before = [e for e in edits.attention.get(block, ()) if e.gate is None]
            kept[block] = KeysValues(
                torch.cat([*(e.keys.to(keys) for e in before), keys], -2),
                torch.cat([*(e.values.to(values) for e in before), values], -2),
            )
        return kept

    def collected(self, batch: Batch) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """By block the keys and values [H_kv, N, hd] of a batch's tokens; the head does not run."""
        context = ForwardContext(batch, ForwardOptions(collect=True))
        self._run(self.model.base_model, context)
        return context.collected

    def with_lead(self, edits: Edits, lead: Sequence[int]) -> Edits:
        """Edits under which a row without its first tokens `lead` gives what the whole row gave."""
        if not lead:
            return edits
        gated = {b: tuple(e for e in es if e.gate is not None) for b, es in edits.attention.items()}
        plain = self.keys_values(edits, lead)
        return replace(edits, attention={b: (*gated.get(b, ()), kv) for b, kv in plain.items()})

    def project_keys_values(
        self, block: int, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The block's frozen key and value projections of vectors [P, D], at no position.

        Differentiable in `hidden`; returns keys and values [H_kv, P, hd], normed where the family
        norms its keys.
        """
        if self.is_sharded:
            module = self.model.get_submodule(f"{self.shape.block_prefix}{block}")
            keys, values = sharding.project(partial(self._project, block), module, hidden)
            return keys, values
        return self._project(block, hidden)

    def _project(
        self, block: int, hidden: torch.Tensor, position: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        batch = pack([Row([0] * len(hidden))], [Edits()], device=self.device)
        # Rotary embedding at 0 is the identity.
        batch = replace(batch, positions=torch.full_like(batch.positions, position))
        states = hidden.to(self.model.dtype).unsqueeze(0)
        try:
            self(batch, ForwardOptions(project=(block, states)))
        except attention.Captured as captured:
            return captured.keys, captured.values
        raise AssertionError(f"block {block} never called attention")

    @torch.no_grad()
    def _angles(self, block: int, length: int) -> Angles | None:
        """Cosines and sines [length, …] that a block's attention gets; None: it gets none."""
        batch = pack([Row([0] * length)], [Edits()], device=self.device)
        states = self.model.get_input_embeddings().weight.new_zeros(1, length, self.shape.hidden)
        context = ForwardContext(batch, ForwardOptions(resume=(block, states), angles_of=block))
        with suppress(sites.Kept):
            self._run(self.model.base_model, context)
        return None if context.angles is None else tuple(a.squeeze(0) for a in context.angles)  # type: ignore[return-value]

    @torch.no_grad()
    def _probed_keys(self, block: int, position: int) -> torch.Tensor:
        """The keys [H_kv, 1, hd] that a block makes of the same states at any position."""
        states = torch.randn(1, self.shape.hidden, generator=torch.Generator().manual_seed(0))
        keys, _ = self._project(block, states.to(self.device), position)
        return keys

    def _attention(self, block: int) -> torch.nn.Module:
        (module,) = _attending(self.model.get_submodule(f"{self.shape.block_prefix}{block}"))
        return module

    def _inputs(self, batch: Batch) -> torch.Tensor:
        """[1, N, D]: embeddings of the tokens, with the owners' vectors at the pseudo tokens."""
        ids = batch.ids.clamp(min=0) if batch.prompted else batch.ids
        inputs: torch.Tensor = self.model.get_input_embeddings()(ids.unsqueeze(0))
        pieces = []
        for owner in batch.prompted:
            (start, stop), vectors = batch.spans[owner], batch.owners[owner].embeddings
            assert vectors is not None
            own, ids = inputs[:, start:stop], batch.ids[start:stop]
            chosen = vectors.to(own)[(-ids - 1).clamp(min=0)]
            pieces.append((start, stop, torch.where((ids < 0).unsqueeze(-1), chosen, own)))
        return replace_rows(inputs, pieces, 1)

    def _check_positions(self, batch: Batch) -> None:
        longest = max(s.position + s.length for s in batch.segments)
        if longest > self.shape.context:
            raise InputError(
                f"a row reaches position {longest}, but {self.name} has a context of "
                f"{self.shape.context} tokens: shorten the prompt or the source"
            )
        if longest > self._longest:
            # These take the longest position of the pack: a long row would move its neighbours.
            raise InputError(
                f"{self.model.config.rope_parameters['rope_type']} rotary scaling makes rows "
                f"beyond {self._longest} tokens change their neighbours; got a row of {longest}"
            )

    @property
    def _longest(self) -> int:
        """The positions that a row may have."""
        rope = getattr(self.model.config, "rope_parameters", None) or {}
        original = rope.get("original_max_position_embeddings")
        if rope.get("rope_type") in _LENGTH_DEPENDENT_ROPE and original:
            return min(self.shape.context, int(original))
        return self.shape.context


def _open_sites(model: PreTrainedModel, shape: ModelShape) -> dict[str, str]:
    """Override the forwards of blocks, sublayers and leaves; returns what is missing, and why."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    linears = {linear.path: linear for linear in shape.linears}
    head = model.get_output_embeddings()
    gaps: dict[str, str] = {}
    for path, module in list(model.named_modules()):
        own = {key: name_of[id(p)] for key, p in module.named_parameters(recurse=False)}
        if own:
            sites.edit_leaf(module, path, own, linears.get(path), module is head)
    for module in model.modules():
        if isinstance(module, NewGELUActivation | FastGELUActivation):
            sites.edit_activation(module)
    for index in range(shape.layers):
        block = model.get_submodule(f"{shape.block_prefix}{index}")
        gaps |= _open_sublayers(block, index)
        sites.edit_block(block, index, index == shape.layers - 1)
    return gaps


def _attending(block: torch.nn.Module) -> list[torch.nn.Module]:
    """A block's attention modules; one where it can be edited."""
    return [child for child in block.children() if hasattr(child, "layer_idx")]


def _open_sublayers(block: torch.nn.Module, index: int) -> dict[str, str]:
    children = dict(block.named_children())
    attending = _attending(block)
    if len(attending) != 1:
        return {"attention": f"a block has {len(attending)} attention modules, expected one"}
    sites.edit_sublayer(attending[0], attending[0], index, "attention")
    feed_forward = next(
        (children[n] for n in ("mlp", "feed_forward", "block_sparse_moe") if n in children), None
    )
    if feed_forward is not None:
        sites.edit_sublayer(feed_forward, feed_forward, index, "mlp")
        return {}
    if {"fc1", "fc2"} <= children.keys():
        sites.edit_sublayer(children["fc2"], children["fc1"], index, "mlp")
        return {"parallel": "its feed-forward is not one module, so nothing can run beside it"}
    return {"mlp": f"no feed-forward module among {sorted(children)}"}
