"""Where other libraries broke: one test or more for each way, named after its number in the list.

The issue of the other project stands with each. What belongs to metrics, measuring, comparing and
serving (12, 15 to 19, 22) is tested beside them too; here is what concerns methods.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from peftlab.frozen.batch import Past
from peftlab.frozen.cache import KeyValueCache
from peftlab.frozen.forward import ForwardOptions
from peftlab.frozen.packing import Row, pack
from peftlab.generation import Request, generate
from peftlab.laws.trial import leaves
from peftlab.loss import Mean, labels, mean_loss, row_losses, token_losses, training_row
from peftlab.methods import REGISTRY, parse_one
from peftlab.methods.adaptation import Adaptation
from peftlab.tasks import Example, Template
from peftlab.training import TrainConfig, Trained, train, trainee
from tests.laws.cases import made
from tests.laws.world import model, task, tokenizer

SOFT = ("prompt_tuning:length=4", "p_tuning:length=4", "prefix_tuning:length=4")
PREFIXES = ("prefix_tuning:length=4", "prefix_tuning:length=4,reparametrisation=mlp,hidden=16")
GROUPED = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "phi3", "smollm3")

QUICK = TrainConfig(steps=2, batch_size=3, validation_limit=2)
each_soft = pytest.mark.parametrize("case", SOFT)
each_prefix = pytest.mark.parametrize("case", PREFIXES)


def _trained(case: str, family: str = "llama", config: TrainConfig = QUICK) -> Trained:
    return train(model(family), parse_one(case), task(), config)


def _greedy(adaptation: Adaptation, family: str, source: str, count: int) -> list[int]:
    """Token by token through the uncached forward of the row alone."""
    lm = model(family)
    edits = adaptation.edits(lm)
    assert edits.template is not None
    ids = list(edits.template.encode(tokenizer(), Example(source, ()), None, 80).ids)
    ids_chosen: list[int] = []
    with torch.no_grad():
        for _ in range(count):
            batch = pack([Row([*ids, *ids_chosen])], [edits])
            ids_chosen.append(int(lm(batch, ForwardOptions(fast=False))[-1].argmax()))
            if ids_chosen[-1] == tokenizer().eos_token_id:
                return ids_chosen[:-1]
    return ids_chosen


@each_prefix
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_pitfall_01_prefix_needs_no_cache_class_of_transformers(case: str, family: str) -> None:
    """peft #2821: `'DynamicCache' has no attribute 'key_cache'`. The cache is our own."""
    trained = _trained(case, family).adaptation
    reply = generate(model(family), [Request(trained, "the cat sings", 6)])[0]
    assert list(reply.tokens) == _greedy(trained, family, "the cat sings", 6)


@each_prefix
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_pitfall_02_prefix_trains_and_decodes_on_llama_and_mistral(case: str, family: str) -> None:
    """peft #869, #374."""
    trained = _trained(case, family).adaptation
    reply = generate(model(family), [Request(trained, "old dog under the tree", 5)])[0]
    assert list(reply.tokens) == _greedy(trained, family, "old dog under the tree", 5)


@each_prefix
@pytest.mark.parametrize("family", GROUPED)
def test_pitfall_03_prefix_is_sized_by_the_key_value_heads(case: str, family: str) -> None:
    """peft #2881, #3478; adapters #819: grouped queries, and head sizes that are not D / heads."""
    it = made(case, family)
    shape = it.model.shape
    assert shape.kv_heads < shape.heads
    for block in it.edits(it.first).attention.values():
        assert block[0].keys.shape == (
            shape.kv_heads,
            it.method.settings()["length"],
            shape.head_dim,
        )
    assert it.model(pack(it.rows(), [it.edits(it.moved)])).isfinite().all()


def test_pitfall_03_a_head_size_of_its_own() -> None:
    from peftlab.frozen.model import FrozenLM
    from tests.models import tiny

    lm = FrozenLM(tiny("qwen3", head_dim=16), tokenizer(), "wide heads")
    for case in (*PREFIXES, "llama_adapter", "lora:targets=q+k+v+o"):
        trained = train(lm, parse_one(case), task(), QUICK)
        assert trained.adaptation.method.count(lm.shape).stored == sum(
            t.numel() for t in trained.adaptation.state.tensors.values()
        )


@each_prefix
def test_pitfall_04_prefix_trains_with_recomputed_blocks(case: str) -> None:
    """peft #2191, transformers #42489: unsupported there. The gradients are in the laws."""
    plain = _trained(case, config=QUICK).adaptation.state.tensors
    config = replace(QUICK, recompute=True)
    for name, tensor in _trained(case, config=config).adaptation.state.tensors.items():
        torch.testing.assert_close(tensor, plain[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", [*SOFT, PREFIXES[1], "p_tuning:length=4,encoder=mlp"])
def test_pitfall_05_early_stopping_returns_the_best_prefix_or_prompt(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """peft #2256: loading the best checkpoint fails there."""
    real, seen = trainee.mean_of, list[float]()

    def scripted(*found: Any) -> Mean:
        seen.append(real(*found).loss)
        return Mean([5.0, 1.0, 4.0, 4.0][len(seen) - 1], None)

    monkeypatch.setattr(trainee, "mean_of", scripted)
    config = replace(QUICK, steps=9, evaluate_every=1, patience=2)
    trained = _trained(case, config=config)
    assert (trained.best_step, trained.steps) == (2, 4)
    lm, template = model("llama"), trained.adaptation.edits(model("llama")).template
    assert template is not None
    edits = trained.adaptation.edits(lm)
    rows = [
        template.encode(tokenizer(), e, t, 96 - edits.prefix_length)
        for e, t in task().pairs("validation")[:2]
    ]
    assert mean_loss(lm, edits, rows) == pytest.approx(seen[1], abs=1e-6)
    assert abs(seen[3] - seen[1]) > 1e-4


@pytest.mark.parametrize("encoder", ["lstm", "mlp"])
def test_pitfall_06_p_tunings_encoder_is_kept_for_resuming(encoder: str, tmp_path: Path) -> None:
    """peft #1247, #1607: dropped on saving there, so that training cannot go on."""
    from safetensors import safe_open

    case = f"p_tuning:length=4,encoder={encoder}"
    config = replace(QUICK, checkpoint_seconds=0)
    trained = train(model("llama"), parse_one(case), task(), config, folder=tmp_path)
    it = made(case, "llama")
    with safe_open(tmp_path / "checkpoint.safetensors", "pt") as file:
        kept = {n.removeprefix("parameter.") for n in file.keys() if n.startswith("parameter.")}  # noqa: SIM118
    assert kept == it.first.tensors.keys()
    assert list(trained.adaptation.state.tensors) == ["prompt"]


@each_soft
def test_pitfall_07_no_pad_stands_between_prompt_and_text(case: str) -> None:
    """peft #1093, #1212: pads there, and positions that are dropped. Rows here have no pads."""
    it = made(case, "gpt2")  # absolute positions: a shifted one would be seen
    rows = it.rows()
    assert len({len(row.ids) for row in rows}) > 1
    edits = it.edits(it.moved)
    batch = pack(rows, [edits], share=False)
    first = edits.prefix_length
    expected = [p for row in rows for p in range(first, first + len(row.ids))]
    assert batch.positions.tolist() == expected
    assert tokenizer().pad_token_id not in batch.ids.tolist()
    with torch.no_grad():
        together = batch.split_kept(it.model(batch))
        for row, logits in zip(rows, together, strict=True):
            torch.testing.assert_close(it.model(pack([row], [edits])), logits, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("case", ["prompt_tuning", "p_tuning:encoder=none"])
def test_pitfall_08_prompts_start_on_the_embedding_table(case: str) -> None:
    """peft #2816, #2824: N(0, 1) there, far outside the table."""
    it = made(case, "llama")
    table = it.model.gather("model.embed_tokens.weight")
    for vector in it.edits(it.first).embeddings:  # type: ignore[union-attr]
        assert float((table - vector).norm(dim=1).min()) == 0.0


def test_pitfall_08_random_prompts_have_the_scale_of_the_table() -> None:
    it = made("prompt_tuning:length=40,initialisation=random", "llama")
    table = it.model.gather("model.embed_tokens.weight")
    ratio = float(it.first.tensors["prompt"].std() / table.std())
    assert 0.9 < ratio < 1.1


def test_pitfall_08_a_prefix_starts_from_real_keys_and_values() -> None:
    """Text after such a prefix gets what it would get after the real tokens."""
    text = "the cat sings under the old"
    ids = tokenizer().encode(text)
    it = made(f"prefix_tuning:length={len(ids)},text={text}", "gemma3_text")
    rows = it.rows()
    whole = [Row([*ids, *row.ids], 0, len(ids) + row.keep_from) for row in rows]
    with torch.no_grad():
        got = it.model(pack(rows, [it.edits(it.first)]))
        from peftlab.edits import Edits

        expected = it.model(pack(whole, [Edits()]))
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("case", ["prompt_tuning", "prefix_tuning", "p_tuning:encoder=lstm"])
def test_pitfall_09_the_default_rate_trains_and_the_notebooks_does_not(case: str) -> None:
    """peft #2642, #710: rates for whole models, at which a prompt barely moves."""
    few = replace(task(), train=task().train[:4])
    config = TrainConfig(steps=30, batch_size=4, evaluate_every=0)
    fallen = {}
    for rate in (None, 5e-5):
        run = train(
            model("llama"), parse_one(case), few, replace(config, learning_rate=rate)
        )  # the default, then the classroom's
        fallen[rate] = run.losses[0] - run.losses[-1]
    assert fallen[None] > 0.3
    assert fallen[5e-5] < 0.1 * fallen[None]


@pytest.mark.parametrize("case", [*PREFIXES, "prompt_tuning:length=4", "llama_adapter:length=3"])
def test_pitfall_10_prefixes_in_bf16_meet_no_dtype_error(case: str) -> None:
    """adapters #559; peft #688, #2035: training, storing and decoding on a base in bf16."""
    lm = model("llama", torch.bfloat16)
    for precision in ("fp32", "bf16"):
        config = replace(QUICK, precision=precision)  # type: ignore[arg-type]
        trained = train(lm, parse_one(case), task(), config).adaptation
        assert all(t.dtype == torch.float32 for t in trained.state.tensors.values())
        reply = generate(lm, [Request(trained, "the cat sings", 4)])[0]
        assert 0 <= len(reply.tokens) <= 4


@pytest.mark.parametrize("beams", [1, 3])
def test_pitfall_11_one_batch_for_prompts_prefixes_and_lora(beams: int) -> None:
    """peft #759, #1558, #2283: asked for prompts too, given for LoRA only, beams failing."""
    lm = model("llama")
    cases = (*SOFT, "lora:rank=4", "hard_prompt:instruction=say it now", "bottleneck", "last_k")
    owners = [made(case, "llama") for case in cases]
    requests = [Request(it.adaptation(it.moved), s, 5) for s in ("old dog", "a") for it in owners]
    decoding = replace(task().decoding, beams=beams)
    mixed = generate(lm, requests, decoding, batch_size=9)
    alone = [generate(lm, [request], decoding)[0] for request in requests]
    assert [r.tokens for r in mixed] == [r.tokens for r in alone]
    assert len({r.tokens for r in mixed}) > len(cases) // 2


@each_soft
def test_pitfall_12_soft_prompts_are_chosen_by_request(case: str) -> None:
    """vllm #13981, #20588, #16351, #660, #2538: two of one method, beside the bare model."""
    lm, bare = model("gpt2"), made("hard_prompt", "gpt2")
    it = made(case, "gpt2")
    first, second = it.adaptation(it.first), it.adaptation(it.moved)
    plain = bare.adaptation(bare.first)
    requests = [Request(a, "the moon shines", 6) for a in (first, second, plain, second, first)]
    replies = generate(lm, requests, batch_size=5)
    for request, reply in zip(requests, replies, strict=True):
        expected = _greedy(request.adaptation, "gpt2", "the moon shines", 6)
        assert list(reply.tokens) == expected


def test_pitfall_13_and_14_the_methods_that_were_asked_for_are_here() -> None:
    """peft #244, #2654 (bottlenecks); LLaMA-Factory #737, #1634, #2042, #5076, #5741 (prompts)."""
    asked = {"bottleneck", "prompt_tuning", "p_tuning", "prefix_tuning", "last_k", "hard_prompt"}
    assert asked <= REGISTRY.keys()


@pytest.mark.parametrize("case", ["lora", "prompt_tuning:length=4"])
def test_pitfall_19_every_row_gets_its_end_and_only_targets_count(case: str) -> None:
    """PEFT's suite: the longest row of a batch lacks its end; loss on prompt and answer."""
    it = made(case, "llama")
    encoded = [it.encode(example, target) for example, target in task().pairs("test")]
    end = tokenizer().eos_token_id
    batch = pack([training_row(e) for e in encoded], [it.edits(it.first)])
    wanted = batch.split_kept(labels(encoded, batch))
    for row, ids, (_, target) in zip(encoded, wanted, task().pairs("test"), strict=True):
        assert int(ids[-1]) == end
        assert row.ids.count(end) == 1
        assert tokenizer().decode(ids[:-1]).strip() == target
    tight = Template("{source}\nsay it: {target}", truncate="start")
    example = Example("the old cat sings under the tall tree near the river", ("red",))
    cut = tight.encode(tokenizer(), example, "red", 15)
    assert cut.dropped and cut.ids[-1] == end


def test_pitfall_20_lora_resumes(tmp_path: Path) -> None:
    """litgpt #2021. That merged is not unmerged in bf16 (peft #2502) is reported by the export."""
    config = TrainConfig(steps=4, batch_size=2, checkpoint_seconds=0, validation_limit=1)
    whole = train(model("gpt2"), parse_one("lora"), task(), config)
    with pytest.raises(ZeroDivisionError):
        train(
            model("gpt2"), parse_one("lora"), task(), config,
            folder=tmp_path, display=_dividing_by_zero_at_step_3,
        )  # fmt: skip
    resumed = train(model("gpt2"), parse_one("lora"), task(), config, folder=tmp_path)
    for name, tensor in whole.adaptation.state.tensors.items():
        assert torch.equal(resumed.adaptation.state.tensors[name], tensor)


def _dividing_by_zero_at_step_3(*_: object) -> Any:
    from contextlib import nullcontext

    return nullcontext(lambda step, *_: 1 / (3 - step))


@pytest.mark.parametrize("case", ["llama_adapter", "lora:dora=true", *SOFT])
def test_pitfall_21_nothing_made_without_gradients_is_reused(case: str) -> None:
    """litgpt #1287: prompts' keys cached on the module under no_grad were reused in training."""
    it = made(case, "llama")
    state = leaves(it.moved)
    with torch.no_grad():
        row_losses(it.model, it.edits(state), it.encoded)
        generate(it.model, [Request(it.adaptation(state), "the cat", 3)])
    encoded = it.encoded[:2]
    batch = pack([training_row(e) for e in encoded], [it.edits(state)])
    token_losses(it.model, batch, encoded).sum().backward()
    for name, tensor in state.tensors.items():
        assert tensor.grad is not None and float(tensor.grad.abs().max()) > 0, name


def test_pitfall_21_contexts_survive_recomputation() -> None:
    """adapters #732. See peftlab/laws/gradients.py for every method, in another thread too."""
    it = made("bottleneck:kind=parallel,bottleneck=4", "llama")
    state, gradients = leaves(it.moved), []
    encoded = it.encoded[:2]
    for checkpoint in (False, True):
        batch = pack([training_row(e) for e in encoded], [it.edits(state)])
        options = ForwardOptions(checkpoint=checkpoint)
        loss = token_losses(it.model, batch, encoded, options=options).sum()
        with torch.no_grad():
            cached = pack([Row([5, 6, 7], past=Past(0, 0))], [it.edits(it.first)])
            it.model(cached, ForwardOptions(cache=KeyValueCache(1, 8)))
        gradients.append(torch.autograd.grad(loss, list(state.tensors.values())))
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain, atol=1e-5, rtol=1e-4)
