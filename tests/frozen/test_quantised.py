"""A base in 8 or 4 bits against a plain model of bitsandbytes' dequantised weights, and PEFT."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from peftlab.bases.number_formats import base_bytes
from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.frozen import quantised
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.packing import Row, pack
from peftlab.generation import Request, generate
from peftlab.guests.model import quiet
from peftlab.laws.law import require_close_gradients
from peftlab.laws.trial import leaves
from peftlab.loss import token_losses, training_row
from peftlab.methods import parse_one
from peftlab.methods.adaptation import Adaptation, OtherFormat, base_of
from tests.laws import world
from tests.laws.cases import TRAINED
from tests.quantised import base, folder, plain_twin

pytest.importorskip("bitsandbytes")

FAMILIES = ("gpt2", "llama")
FORMATS = ("int8", "nf4")
each = pytest.mark.parametrize(
    ("family", "dtype"), [(family, dtype) for family in FAMILIES for dtype in FORMATS]
)


@pytest.fixture
def row() -> list[int]:
    return torch.randint(3, 120, (23,), generator=torch.Generator().manual_seed(0)).tolist()


def _logits(lm: FrozenLM, row: list[int], edits: Edits | None = None) -> torch.Tensor:
    return lm(pack([Row(row, 0, 0)], [edits or Edits()]))


@each
def test_logits_are_those_of_the_dequantised_weights(
    family: str, dtype: str, row: list[int]
) -> None:
    lm = base(family, dtype)
    with torch.no_grad():
        expected = plain_twin(lm, family)(torch.tensor([row])).logits[0]
        torch.testing.assert_close(_logits(lm, row), expected, atol=1e-5, rtol=1e-5)
        unquantised = _logits(base(family, "fp32"), row)
    assert float((expected - unquantised).abs().max()) > 1e-3, "and it is quantised at all"


@each
def test_every_site_works_and_shapes_are_the_plain_model_s(family: str, dtype: str) -> None:
    lm = base(family, dtype)
    assert not {site: why for site, why in lm.conformance.sites.items() if why}
    assert lm.base_dtype == dtype
    assert lm.shape.parameters == base(family, "fp32").shape.parameters
    for name, own in plain_twin(lm, family).named_parameters():
        assert torch.equal(lm.gather(name).float(), own), name


@each
@pytest.mark.parametrize("case", TRAINED)
def test_losses_and_gradients_of_every_method_are_those_on_the_dequantised_base(
    case: str, family: str, dtype: str
) -> None:
    """Through the frozen maps to every trained tensor, those below others included."""
    results = []
    for lm in (base(family, dtype), _dequantised(family, dtype)):
        method = parse_one(case)
        first = method.init(lm, world.task(), torch.Generator().manual_seed(3))
        state = leaves(first)
        template = method.template(world.task().template, first)
        pairs = world.task().pairs("test")[:2]
        encoded = [template.encode(lm.tokenizer, e, t, 80) for e, t in pairs]
        edits = method.edits(method.materialise(state, lm), lm, 7)
        batch = pack([training_row(one) for one in encoded], [edits])
        losses = token_losses(lm, batch, encoded)
        losses.sum().backward()
        gradients = {n: t.grad for n, t in state.tensors.items() if t.grad is not None}
        results.append((losses.detach(), gradients))
    (losses, gradients), (expected, plain) = results
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-5)
    assert gradients.keys() == plain.keys()
    require_close_gradients(gradients, plain, 1e-5)


_TWINS: dict[tuple[str, str], FrozenLM] = {}


def _dequantised(family: str, dtype: str) -> FrozenLM:
    if (family, dtype) not in _TWINS:
        twin = plain_twin(base(family, dtype), family)
        _TWINS[family, dtype] = FrozenLM(twin, world.tokenizer(), family)
    return _TWINS[family, dtype]


def test_gradients_come_after_a_forward_without(row: list[int]) -> None:
    """bitsandbytes' own 4-bit forward loses them there, on CPUs with bf16 instructions."""
    lm = base("llama", "nf4")
    vectors = lm.embed(torch.tensor(row[:4]))
    with torch.no_grad():
        _logits(lm, row)
    vectors.requires_grad_()
    _logits(lm, [-1, -2, -3, -4, *row], Edits(embeddings=vectors)).sum().backward()
    assert vectors.grad is not None and float(vectors.grad.abs().max()) > 0


def test_the_dequantised_weights_are_not_kept_for_backward(row: list[int]) -> None:
    lm = base("llama", "nf4")
    kept: list[torch.Size] = []
    vectors = lm.embed(torch.tensor(row[:4])).requires_grad_()

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        _logits(lm, [-1, -2, -3, -4, *row], Edits(embeddings=vectors))
    assert kept
    weights = {lm.shape.parameters[f"{linear.path}.weight"] for linear in lm.shape.linears}
    assert not weights & {tuple(size) for size in kept}


def _peft_lora(
    plain: PreTrainedModel, tensors: dict[str, torch.Tensor]
) -> Iterator[tuple[str, torch.nn.Parameter, torch.nn.Module]]:
    """PEFT's LoRA with our tensors in it: our name, its parameter, the model."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    with quiet():
        made = get_peft_model(plain, config)
    for name, parameter in made.named_parameters():
        if "lora_" not in name:
            continue
        path, which = name.removeprefix("base_model.model.").split(".lora_")
        parameter.data.copy_(tensors[f"{path}.lora_{which[0]}"])
        yield f"{path}.lora_{which[0]}", parameter, made


@pytest.mark.parametrize("dtype", FORMATS)
def test_qlora_gives_the_loss_and_gradients_of_peft_on_the_same_base(
    dtype: str, row: list[int]
) -> None:
    """PEFT on a second model that transformers and bitsandbytes load the same way."""
    from peftlab.frozen.loading import load_plain

    lm, method = base("llama", dtype), parse_one("lora:rank=2,alpha=8,targets=q+v")
    state = leaves(method.init(lm, world.task(), torch.Generator().manual_seed(1)))
    with torch.no_grad():
        for name, tensor in state.tensors.items():
            if name.endswith("lora_B"):
                tensor.normal_(std=0.1, generator=torch.Generator().manual_seed(2))
    logits = _logits(lm, row, method.edits(state, lm))
    ours = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(row[1:]))
    ours.backward()
    plain, _ = load_plain(folder("llama"), dtype)
    quantised.open_linears(plain)  # else int8 would round the activations as well
    named = list(_peft_lora(plain, state.tensors))
    ids = torch.tensor([row])
    theirs = named[0][2].eval()(input_ids=ids, labels=ids).loss
    theirs.backward()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    expected = {name: parameter.grad for name, parameter, _ in named}
    got = {n: state.tensors[n].grad for n in expected}
    require_close_gradients(got, expected, 1e-5)


def test_memory_is_what_was_said_before_loading() -> None:
    """Of the matrices in the blocks; bitsandbytes adds a codebook to each that is larger here."""
    plain = base("llama", "fp32")
    config, shapes = plain.model.config.to_dict(), plain.shape.parameters
    assert base_bytes(config, shapes, "fp32") == plain.base_bytes
    config = {**config, "dtype": "float32"}
    for dtype, codebooks in (("int8", 0), ("nf4", 16 * 4 + 256 * 4)):
        lm = base("llama", dtype)
        held = lm.base_bytes - codebooks * len(lm.shape.linears)
        assert held == pytest.approx(base_bytes(config, shapes, dtype), rel=0.1)
        assert lm.base_bytes < plain.base_bytes


def _adaptation(lm: FrozenLM, case: str = "lora:rank=2") -> Adaptation:
    method = parse_one(case)
    state = method.init(lm, world.task(), torch.Generator().manual_seed(0))
    return Adaptation(method, state, world.task().template, base_of(lm))


def _moved(lm: FrozenLM, case: str) -> Adaptation:
    made, rng = _adaptation(lm, case), torch.Generator().manual_seed(1)
    for tensor in made.state.tensors.values():
        tensor += 0.1 * torch.randn(tensor.shape, generator=rng)
    return made


def test_an_adaptation_knows_the_format_of_its_base(tmp_path: Path) -> None:
    lm = base("llama", "nf4")
    _adaptation(lm).save(tmp_path)
    loaded = Adaptation.load(tmp_path)
    assert loaded.base["dtype"] == "nf4"
    loaded.edits(lm)
    with pytest.warns(OtherFormat, match="made on .* in nf4 and is used on it in fp32"):
        loaded.edits(base("llama", "fp32"))


def test_another_format_of_an_unknown_checkpoint_is_refused() -> None:
    made = _adaptation(base("llama", "nf4"))
    with pytest.raises(InputError, match=r"in nf4 .* in fp32 .*--base-dtype nf4"):
        made.edits(world.model("llama"))


def test_a_quantised_base_is_merged_into_dequantised_weights(tmp_path: Path) -> None:
    """The export is a plain checkpoint that gives what the adaptation gave."""
    from transformers import AutoModelForCausalLM

    from peftlab.export import export

    lm = base("llama", "int8")
    made = _moved(lm, "lora:rank=2")
    with torch.no_grad():
        export("merged", {"lora": made}, lm, tmp_path / "out")
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
        row = list(range(5, 30))
        expected = _logits(lm, row, made.edits(lm))
        got = plain(torch.tensor([row])).logits[0]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_a_checkpoint_that_is_quantised_already_is_loaded_as_it_is(tmp_path: Path) -> None:
    lm = base("llama", "nf4")
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    again = FrozenLM.load(tmp_path)
    assert (again.base_dtype, again.fingerprint) == ("nf4", lm.fingerprint)
    with pytest.raises(InputError, match="in nf4 already and cannot be loaded in int8"):
        FrozenLM.load(tmp_path, dtype="int8")


@each
def test_one_batch_of_many_owners_decodes_what_each_decodes_alone(family: str, dtype: str) -> None:
    """From the cache, their edits stacked."""
    lm = base(family, dtype)
    requests = [
        Request(_moved(lm, case), "the cat sings", 5)
        for case in (
            "lora:rank=2",
            "bitfit",
            "ia3",
            "prefix_tuning:length=3,reparametrisation=none",
            "last_k",
        )
    ]
    together = generate(lm, requests)
    alone = [generate(lm, [request])[0] for request in requests]
    assert [reply.tokens for reply in together] == [reply.tokens for reply in alone]
    assert len({reply.tokens for reply in alone}) > 1


def test_without_bitsandbytes_it_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(InputError, match=r"pip install 'peftlab\[quantised\]'"):
        FrozenLM.load(folder("llama"), dtype="nf4")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match=r"int9.*fp32, bf16, int8, nf4"):
        FrozenLM.load(folder("llama"), dtype="int9")
