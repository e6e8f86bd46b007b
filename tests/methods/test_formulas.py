"""Methods against independent oracles: changed plain models, torch's own modules, hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from transformers import DynamicCache

from peftlab.frozen.packing import pack
from peftlab.laws import Trial
from peftlab.methods import parse_one
from peftlab.methods.fastfood import fastfood
from tests.laws.cases import made
from tests.models import REQUIRED, tiny

FAMILIES = ("gpt2", "llama", "gemma3_text", "gpt_neox")
each_family = pytest.mark.parametrize("family", FAMILIES)


def _ours(it: Trial) -> torch.Tensor:
    with torch.no_grad():
        return it.model(pack(it.rows(0, 1), [it.edits(it.moved)]))


def _theirs(it: Trial, change: Callable[[Any], None]) -> torch.Tensor:
    """The plain model, after `change`, on the same row."""
    plain = tiny(it.model.name).eval()
    row = it.rows(0, 1)[0]
    with torch.no_grad():
        change(plain)
        out = plain(torch.tensor([row.ids]), use_cache=False)
    return out.logits[0, row.keep_from :]  # type: ignore[no-any-return]


def _agree(it: Trial, change: Callable[[Any], None]) -> None:
    torch.testing.assert_close(_ours(it), _theirs(it, change), atol=5e-5, rtol=1e-4)


@each_family
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("targets", ["q+v", "all-linear", "k+o+up"])
def test_lora_is_a_change_of_weights(family: str, dora: bool, targets: str) -> None:
    """W + α/r·BA; DoRA: m ⊙ (W + BA) / ‖W + BA‖ by row."""
    it = made(f"lora:rank=4,alpha=6,dora={dora},targets={targets}", family)

    def merge(plain: Any) -> None:
        for target in it.method.chosen(it.model.shape):  # type: ignore[attr-defined]
            weight = plain.get_parameter(f"{target.linear.path}.weight")
            rows = weight.T if family == "gpt2" else weight
            down = it.moved.tensors[f"{target.name}.lora_A"]
            up = it.moved.tensors[f"{target.name}.lora_B"]
            new = rows[target.row_indices] + 6 / 4 * up @ down
            if dora:
                magnitude = it.moved.tensors[f"{target.name}.magnitude"]
                new = new * (magnitude / new.norm(dim=1))[:, None]
            rows[target.row_indices] = new

    _agree(it, merge)


@each_family
def test_ia3_rescales_keys_values_and_the_inner_activations(family: str) -> None:
    it = made("ia3", family)

    def merge(plain: Any) -> None:
        for target in it.model.shape.targets(["k", "v"]):
            scale = it.moved.tensors[f"{target.name}.out"]
            weight = plain.get_parameter(f"{target.linear.path}.weight")
            rows = weight.T if family == "gpt2" else weight
            rows[target.row_indices] *= scale[:, None]
            if target.linear.bias:
                bias = plain.get_parameter(f"{target.linear.path}.bias")
                bias[target.row_indices] *= scale
        for target in it.model.shape.targets(["down"]):
            scale = it.moved.tensors[f"{target.name}.in"]
            weight = plain.get_parameter(f"{target.linear.path}.weight")
            weight *= scale[:, None] if family == "gpt2" else scale

    _agree(it, merge)


@each_family
@pytest.mark.parametrize("case", ["full", "last_k:k=2,final_norm=true", "layers:blocks=0+-1"])
def test_chosen_weights_are_the_plain_models(family: str, case: str) -> None:
    it = made(case, family)
    _agree(it, lambda plain: plain.load_state_dict(it.moved.tensors, strict=False))


def test_bitfit_changes_the_biases() -> None:
    it = made("bitfit", "gpt2")

    def merge(plain: Any) -> None:
        for name, tensor in it.moved.tensors.items():
            if name.endswith(".change"):
                plain.get_parameter(name.replace(".change", ".bias")).add_(tensor)
            else:
                plain.get_parameter(name).copy_(tensor)

    _agree(it, merge)


@each_family
@pytest.mark.parametrize("kind", ["houlsby", "pfeiffer", "lin", "parallel"])
def test_bottlenecks_stand_where_the_papers_put_them(family: str, kind: str) -> None:
    it = made(f"bottleneck:kind={kind},bottleneck=4", family)
    functional, t = torch.nn.functional, it.moved.tensors

    def hook(key: str) -> Callable[..., Any]:
        def run(_: Any, given: Any, named: Any, out: Any) -> Any:
            hidden = out[0] if isinstance(out, tuple) else out
            x = (given[0] if given else named["hidden_states"]) if kind == "parallel" else hidden
            if kind == "lin":
                norm = (t[f"{key}.norm.weight"], t[f"{key}.norm.bias"])
                x = functional.layer_norm(x, x.shape[-1:], *norm)
            inner = functional.linear(x, t[f"{key}.down.weight"], t[f"{key}.down.bias"])
            inner = functional.gelu(inner) if kind == "houlsby" else functional.relu(inner)
            change = functional.linear(inner, t[f"{key}.up.weight"], t[f"{key}.up.bias"])
            hidden = hidden + (4 if kind == "parallel" else 1) * change
            return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

        return run

    def attach(plain: Any) -> None:
        names = {n: tensor for n, tensor in t.items() if n in it.model.shape.parameters}
        plain.load_state_dict(names, strict=False)
        for index in range(it.model.shape.layers):
            block = plain.get_submodule(f"{it.model.shape.block_prefix}{index}")
            block.mlp.register_forward_hook(hook(f"{index}.mlp"), with_kwargs=True)
            if kind == "houlsby":
                attention = next(m for m in block.children() if hasattr(m, "layer_idx"))
                attention.register_forward_hook(hook(f"{index}.attention"), with_kwargs=True)

    _agree(it, attach)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_prefix_is_a_cache_of_earlier_keys_and_values(family: str) -> None:
    it = made("prefix_tuning:length=4,reparametrisation=none", family)
    row, prefix = it.rows(0, 1)[0], it.moved.tensors["prefix"]
    cache = DynamicCache()
    for block in range(it.model.shape.layers):
        cache.update(prefix[block, 0][None], prefix[block, 1][None], block)
    with torch.no_grad():
        out = tiny(family).eval()(torch.tensor([row.ids]), past_key_values=cache)
    torch.testing.assert_close(_ours(it), out.logits[0, row.keep_from :], atol=5e-5, rtol=1e-4)


@each_family
def test_a_soft_prompt_is_embeddings_before_the_text(family: str) -> None:
    it = made("prompt_tuning:length=4", family)
    row, plain = it.rows(0, 1)[0], tiny(family).eval()
    vectors = it.moved.tensors["prompt"]
    with torch.no_grad():
        text = plain.get_input_embeddings()(torch.tensor(row.ids[4:]))
        whole = torch.cat([vectors, text])[None]
        logits = plain(inputs_embeds=whole, use_cache=False).logits[0, row.keep_from :]
    torch.testing.assert_close(_ours(it), logits, atol=5e-5, rtol=1e-4)


def test_p_tunings_encoder_is_torchs_lstm_and_mlp() -> None:
    it = made("p_tuning:length=4,encoder=lstm", "llama")
    d, t = it.model.shape.hidden, it.moved.tensors
    lstm = torch.nn.LSTM(d, d // 2, num_layers=2, bidirectional=True)
    mlp = torch.nn.Sequential(torch.nn.Linear(d, d), torch.nn.ReLU(), torch.nn.Linear(d, d))
    lstm.load_state_dict({n[5:]: x for n, x in t.items() if n.startswith("lstm.")})
    mlp.load_state_dict(
        {f"{2 * i}.{p}": t[f"mlp.{i}.{p}"] for i in (0, 1) for p in ("weight", "bias")}
    )
    with torch.no_grad():
        expected = mlp(lstm(t["embedding"])[0])
        got = it.method.materialise(it.moved, it.model).tensors["prompt"]
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("structure", [False, True])
def test_a_random_subspace_is_a_stack_of_hadamard_blocks(structure: bool) -> None:
    """W = W₀ + λ P θ, with P = H G Π H B written out as a matrix from the stored seed."""
    it = made(f"intrinsic:dimension=40,structure={structure}", "llama")
    theta, shape = it.moved.tensors["directions"].double().numpy(), it.model.shape
    scales = it.moved.tensors["scales"].tolist() if structure else [1.0] * (shape.layers + 1)
    rng, n = np.random.RandomState(it.moved.text["projection"]), 64
    blocks = -(-shape.size // n)
    signs = rng.randint(0, 2, (blocks, n), dtype=np.int8) * 2 - 1
    orders = np.argsort(rng.random_sample((blocks, n)), axis=1)
    gains, h = rng.standard_normal((blocks, n)), scipy.linalg.hadamard(n)
    moved = []
    for b in range(blocks):
        g = np.diag(gains[b] / np.linalg.norm(gains[b]))
        block = h @ g @ np.eye(n)[orders[b]] @ h @ np.diag(signs[b])
        np.testing.assert_allclose(np.linalg.norm(block, axis=1), n**0.5)
        moved.append(block[:, : len(theta)] / len(theta) ** 0.5 @ theta)
    change = np.concatenate(moved)[: shape.size]

    def move(plain: Any) -> None:
        at = 0
        for name in shape.parameters:
            weight, block = plain.get_parameter(name), shape.block_of(name)
            own = torch.from_numpy(change[at : at + weight.numel()]).float().view_as(weight)
            weight += scales[shape.layers if block is None else block] * own
            at += weight.numel()

    _agree(it, move)


@pytest.mark.parametrize("d", [1, 2, 33, 100])
def test_a_random_projection_keeps_lengths_and_angles(d: int) -> None:
    """Its columns are nearly orthogonal and of one length, as the papers want them."""
    rows = 6000
    columns = torch.stack([fastfood(5, d, rows, torch.device("cpu"))(e) for e in torch.eye(d)])
    products = columns @ columns.T * d / rows
    torch.testing.assert_close(products, torch.eye(d), atol=0.12, rtol=0)
    assert int(torch.linalg.matrix_rank(columns)) == d
    other = fastfood(6, d, rows, torch.device("cpu"))(torch.eye(d)[0])
    assert abs(float(other @ columns[0]) * d / rows) < 0.12


@pytest.mark.parametrize("family", REQUIRED)
def test_the_final_norm_and_the_head_are_found_in_every_family(family: str) -> None:
    shape = made("full", family).model.shape
    norm = parse_one("layers:final_norm=true").names(shape)  # type: ignore[attr-defined]
    assert len({name.rsplit(".", 1)[0] for name in norm}) == 1
    assert all(shape.block_of(name) is None for name in norm)
    head = parse_one("layers:head=true").names(shape)  # type: ignore[attr-defined]
    assert [shape.parameters[n] for n in head if n.endswith("weight")] == [(120, 32)]
    it = made("layers:final_norm=true", family)
    assert it.edits(it.first).lowest_block(shape) == shape.layers
