"""The frozen language model: loaded once, never changed, edited row by row.

Legend: N packed tokens, K kept tokens, D hidden size, V vocabulary, P prompt length, H_kv
key/value heads, hd head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import FastGELUActivation, NewGELUActivation

from peftlab.edits import Edits, KeysValues
from peftlab.errors import InputError
from peftlab.frozen import attention, conformance, quantised, sharding, sites
from peftlab.frozen.batch import Batch
from peftlab.frozen.loading import checkpoint_of, load_plain
from peftlab.frozen.packing import Row, pack
from peftlab.frozen.rows import replace_rows
from peftlab.frozen.sharded_loading import load_sharded
from peftlab.measure import fingerprint
from peftlab.processes import ALONE, Processes
from peftlab.shapes import ModelShape

_LENGTH_DEPENDENT_ROPE = ("longrope", "dynamic")


class FrozenLM(torch.nn.Module):
    """A decoder of transformers whose rows each bring their own edits.

    Attributes:
        model: the plain transformers model, in eval mode, without gradients, weights untouched. In
            eval mode no frozen block drops anything out; methods have a dropout of their own.
        shape: sizes, parameter names and linear roles of the plain model.
        base_dtype: the format its numbers are kept in, see `number_formats`.
        is_sharded: whether its blocks are split over processes, see `sharding`; all of them must
            then run it together.
        notes: what its user should know, see `checkpoint.BaseNote`; set by who tells them.
        conformance: which sites work on this family, and why one does not.

    Raises:
        UnsupportedModel: the family gives wrong logits for packed rows, or bypasses our attention.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        name: str = "model",
    ) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self._tokenizer, self.name = tokenizer, name
        self.is_sharded = any(sharding.is_sharded(p) for p in model.parameters())
        self._path: str | None = None
        self.notes: tuple[str, ...] = ()
        self.base_dtype = quantised.format_of(model)
        self.shape = ModelShape.read(model.config.to_dict(), quantised.plain_shapes(model))
        quantised.open_linears(model)
        expected = conformance.reference(model)
        attention.register()
        model.set_attn_implementation(attention.NAME)
        self.sublayer_gaps = _open_sites(model, self.shape)
        self.conformance = conformance.check(self, expected)

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        dtype: str = "fp32",
        device: torch.device | str = "cpu",
        over: Processes = ALONE,
    ) -> FrozenLM:
        """Load a decoder from the hub or a local folder and check which sites work on it.

        Args:
            dtype: the format its numbers are kept in: fp32, bf16, int8 or nf4.
            over: processes to split its blocks over; each of them calls this.

        Raises:
            InputError: no such model, or no room for it; see `load_plain`.
            UnsupportedModel: the family cannot be edited exactly; says why.
        """
        if over.count > 1:
            model, tokenizer, fingerprint = load_sharded(name, dtype, device, over)
            made = cls(model, tokenizer, str(name))
            made.fingerprint = fingerprint
        else:
            model, tokenizer = load_plain(name, dtype, device)
            made = cls(model, tokenizer, str(name))
        made._path = str(name)
        return made

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer.

        Raises:
            InputError: it came without one.
        """
        if self._tokenizer is None:
            raise InputError(
                f"{self.name} has no tokenizer: put its tokenizer.json into the model's folder"
            )
        return self._tokenizer

    @property
    def device(self) -> torch.device:
        """Where the base lies."""
        return self.model.device

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the base's weights as they are kept; nothing that peftlab does changes it."""
        return fingerprint(quantised.stored_tensors(self.model))

    @cached_property
    def checkpoint(self) -> str | None:
        """The checkpoint that it was loaded from, the same for every format; None: from memory."""
        return None if self._path is None else checkpoint_of(self._path, self.model.config)

    @property
    def base_bytes(self) -> int:
        """What the weights take in memory, as they are kept, the scales of quantised ones too."""
        return sum(tensor.nbytes for _, tensor in quantised.stored_tensors(self.model))

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

    def forward(self, batch: Batch) -> torch.Tensor:
        """The logits [K, V] of the batch's kept tokens, in packed order."""
        out = self._run(self.model, batch, logits_to_keep=batch.keep)
        logits: torch.Tensor = out.logits.squeeze(0)
        return logits

    def hidden(self, batch: Batch) -> torch.Tensor:
        """What the head would get for the kept tokens, [K, D]."""
        out = self._run(self.model.base_model, batch)
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

    def head_runs_apart(self, batch: Batch) -> bool:
        """Whether no owner edits the head, and it may be run piece by piece."""
        if not batch.fast or self.conformance.sites.get("head") is not None:
            return False
        edited = {*batch.linear, *batch.weights}
        return not edited & self._head_names

    @cached_property
    def _head_names(self) -> set[str]:
        head = self.model.get_output_embeddings()
        own = {id(parameter) for parameter in head.parameters()}
        names = {name for name, p in self.model.named_parameters() if id(p) in own}
        return names | {path for path, module in self.model.named_modules() if module is head}

    def block_input(self, batch: Batch, block: int) -> torch.Tensor:
        """The states [1, N, D] that enter a block; blocks from there on do not run."""
        batch.keep_input_of, batch.stop_after_keeping = block, True
        with suppress(sites.Kept):
            self._run(self.model.base_model, batch)
        assert batch.kept_input is not None
        return batch.kept_input

    def _run(self, module: torch.nn.Module, batch: Batch, **options: Any) -> Any:
        self._check_positions(batch)
        with batch.active():
            return module(
                inputs_embeds=self._inputs(batch),
                position_ids=batch.positions.unsqueeze(0),
                use_cache=False,
                **options,
            )

    def keys_values(self, edits: Edits, ids: Sequence[int]) -> dict[int, KeysValues]:
        """Every block's keys and values [H_kv, P', hd] after a prefix and these tokens.

        P' counts the edits' own prefix and the tokens. Differentiable.
        """
        batch = pack([Row(ids)], [edits], device=self.device)
        batch.collected = {}
        self(batch)
        found = {}
        for block, (keys, values) in batch.collected.items():
            before = [e for e in edits.attention.get(block, ()) if e.gate is None]
            found[block] = KeysValues(
                torch.cat([*(e.keys.to(keys) for e in before), keys], -2),
                torch.cat([*(e.values.to(values) for e in before), values], -2),
            )
        return found

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

    def _project(self, block: int, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch = pack([Row([0] * len(hidden))], [Edits()], device=self.device)
        batch.by_hand = True
        batch.positions = torch.zeros_like(batch.positions)  # rotary embedding at 0 is the identity
        states = hidden.to(self.model.dtype).unsqueeze(0)
        batch.resume, batch.attention_input = (block, states), (block, states)
        batch.stop_at_attention = True
        try:
            self(batch)
        except attention.Captured as captured:
            return captured.keys, captured.values
        raise AssertionError(f"block {block} never called attention")

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
        rope = getattr(self.model.config, "rope_parameters", None) or {}
        original = rope.get("original_max_position_embeddings")
        if rope.get("rope_type") in _LENGTH_DEPENDENT_ROPE and original and longest > original:
            # These take the longest position of the pack: a long row would move its neighbours.
            raise InputError(
                f"{rope['rope_type']} rotary scaling makes rows beyond {original} tokens change "
                f"their neighbours; got a row of {longest}"
            )


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


def _open_sublayers(block: torch.nn.Module, index: int) -> dict[str, str]:
    children = dict(block.named_children())
    attending = [child for child in children.values() if hasattr(child, "layer_idx")]
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


def config_of(name: str | Path) -> dict[str, Any]:
    """The configuration of a model on the hub or in a folder, as a dict."""
    found: dict[str, Any] = AutoConfig.from_pretrained(str(name)).to_dict()
    return found
