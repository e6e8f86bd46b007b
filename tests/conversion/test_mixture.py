"""Mixtures at the logits: against the formula, transformers with PEFT, and each part alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import peftlab as pl
from peftlab.cli.app import run
from peftlab.conversion import Part, combine, mixture
from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.evaluation import AdaptedLM, evaluate, evaluate_once, split_loss, text_loss
from peftlab.export import export
from peftlab.frozen.packing import pack
from peftlab.generation import Request, generate
from peftlab.inspection import inspect
from peftlab.loss import training_row
from peftlab.methods import build, parse_one
from peftlab.methods.adaptation import Adaptation
from peftlab.pasts import continued
from peftlab.tasks import Decoding, Template
from peftlab.tasks.choices import Choices
from peftlab.tasks.framing import as_trained
from peftlab.training.teacher import Teacher
from peftlab.trunk import TrunkStore
from tests.conversion.test_convert import AT_CUE, KINDS, bare, converted, kl, taught, trained_runs
from tests.export.made import in_peft, made
from tests.laws import world
from tests.laws.world import slack

LM = world.model("llama")
WEIGHTS = (0.8, -0.3, 0.5)


def of(*words: str, weights: tuple[float, ...] = WEIGHTS, base: bool = False) -> Adaptation:
    named = [Part(one, taught(one), weight) for one, weight in zip(words, weights, strict=False)]
    more = [Part("base", None, weights[len(named)])] if base else []
    return mixture(LM, [*named, *more])


def distribution(adaptation: Adaptation, example: Any, ids: tuple[int, ...]) -> torch.Tensor:
    """Logits [T, V] at the tokens of a target, of one adaptation alone."""
    edits = adaptation.edits(LM)
    assert edits.template is not None
    room = 90 - edits.prefix_length
    row = edits.template.encode(LM.tokenizer, example, None, room).followed_by(ids)
    with torch.no_grad():
        given = training_row(row)
        return LM(pack(continued(LM, [given], None), [edits]))


def formula(
    parts: list[tuple[Adaptation, float]], example: Any, ids: tuple[int, ...]
) -> torch.Tensor:
    """Log-probabilities [T, V] of the weighted sum of logits."""
    scores = [w * distribution(one, example, ids) for one, w in parts]
    return torch.stack(scores).sum(0).log_softmax(-1)


def target(example: Any) -> tuple[int, ...]:
    return tuple(world.task().template.target_ids(LM.tokenizer, example.targets[0]))


def surprise(parts: list[tuple[Adaptation, float]], example: Any) -> float:
    ids = target(example)
    chances = formula(parts, example, ids)
    return -float(chances[range(len(ids)), ids].double().sum())


@pytest.mark.parametrize("kind", (*KINDS, *AT_CUE))
def test_losses_of_any_method_are_the_formula(kind: str, tmp_path: Path) -> None:
    """Beside LoRA and the bare base; saved and loaded they are the same."""
    mine = of(kind, "lora", base=True)
    told = [(taught(kind), WEIGHTS[0]), (taught("lora"), WEIGHTS[1]), (bare(), WEIGHTS[2])]
    mine.save(tmp_path)
    for one in (mine, Adaptation.load(tmp_path, LM)):
        found = split_loss(AdaptedLM(LM, one), world.task(), "test")
        expected = [surprise(told, example) for example in world.task().test]
        assert found.sums == pytest.approx(expected, rel=1e-5 * slack("llama"))


@pytest.mark.parametrize("kind", (*KINDS, *AT_CUE))
def test_replies_are_greedy_under_the_formula(kind: str) -> None:
    """In a batch with others, with fewer slots than rows, and each alone."""
    mine, example = of(kind, "lora", base=True), world.task().test[0]
    told = [(taught(kind), WEIGHTS[0]), (taught("lora"), WEIGHTS[1]), (bare(), WEIGHTS[2])]
    asked = [Request(one, example, 5) for one in (taught("ia3"), mine, bare(), mine, taught(kind))]
    replies = generate(LM, asked, batch_size=4)
    alone = [generate(LM, [one], batch_size=1)[0] for one in asked]
    assert [r.tokens for r in replies] == [r.tokens for r in alone]
    tokens = replies[1].tokens
    chances = formula(told, example, tokens)
    assert (chances.max(-1).values - chances[range(len(tokens)), list(tokens)] < 1e-4).all()


def test_it_decodes_as_transformers_with_peft_do(tmp_path: Path) -> None:
    """DExperts: a LoRA held against the bare base, token by token, by a plain loop."""
    own = made("lora:rank=3,targets=q+v+up", "llama", 3)
    mine = mixture(LM, [Part("a", own, 1.5), Part("base", None, -0.5)])
    export("peft", {"a": own}, LM, tmp_path)
    expert, base = in_peft(tmp_path, "llama"), in_peft(tmp_path, "llama")
    ids = list(own.template.encode(LM.tokenizer, world.task().test[1], None, 90).ids)
    expected: list[int] = []
    for _ in range(8):
        row = torch.tensor([[*ids, *expected]])
        with torch.no_grad(), base.disable_adapter():
            plain = base(row).logits[0, -1]
        with torch.no_grad():
            scores = 1.5 * expert(row).logits[0, -1] - 0.5 * plain
        expected.append(int(scores.argmax()))
        if expected[-1] == LM.tokenizer.eos_token_id:
            break
    (reply,) = generate(LM, [Request(mine, world.task().test[1], 8)])
    assert list(reply.tokens) == [one for one in expected if one != LM.tokenizer.eos_token_id]


def test_all_of_one_is_that_one() -> None:
    own, text = taught("bottleneck"), "the cat sings"
    mine = of("bottleneck", "prompt_tuning:length=3", weights=(1.0, 0.0))
    replies = generate(LM, [Request(one, text, 6) for one in (own, mine)])
    assert replies[0].tokens == replies[1].tokens
    assert replies[1].prompt_tokens == 2 * replies[0].prompt_tokens + 3, "each reads the row"
    sampled = Decoding(sample=True, temperature=1.3)
    asked = [Request(one, text, 6) for one in (mine, own)]
    first, second = (generate(LM, [one], sampled, seed=3)[0] for one in asked)
    assert first.tokens == second.tokens


def test_losses_beside_replies_are_those_of_rows() -> None:
    """Sources are read once for both; and so it is with sources kept in a store."""
    task = world.task()
    for mine in (of("lora", "prefix_tuning:length=3"), of(*AT_CUE[:2], base=True)):
        adapted = AdaptedLM(LM, mine, TrunkStore(1 << 26, 0, None))
        found, losses = evaluate_once(adapted, task)
        assert losses.sums == pytest.approx(split_loss(adapted, task, "test").sums, rel=1e-5)
        alone = evaluate(AdaptedLM(LM, mine), task)
        assert [r.tokens for r in found.replies] == [r.tokens for r in alone.replies]
    assert of(*AT_CUE[:2], base=True).edits(LM).begin == "cue", "the base reads nothing again"
    assert of("lora", AT_CUE[0]).edits(LM).begin == "row"


def test_choices_are_weighed_under_it() -> None:
    options = tuple(dict.fromkeys(e.targets[0] for e in world.task().test))
    task = replace(world.task(), choices=Choices(options), metrics=("acc",))
    mine = of("lora", "prompt_tuning:length=3")
    told = [(taught("lora"), WEIGHTS[0]), (taught("prompt_tuning:length=3"), WEIGHTS[1])]
    found = evaluate(AdaptedLM(LM, mine), task, metrics=["acc_mutual_info"])
    example = task.test[0]
    for option, chance in found.options[0].items():
        ids = tuple(task.template.target_ids(LM.tokenizer, option)[:-1])
        expected = formula(told, example, ids)[range(len(ids)), ids].sum()
        assert chance == pytest.approx(float(expected), rel=1e-4)


def test_plain_text_is_read_after_each_ones_own_prompt() -> None:
    text = ["the cat sings under the old tree near the river"]
    mine = of("prompt_tuning:length=3", "lora", weights=(1.0, 0.0))
    assert text_loss(LM, mine, text, window=16) == pytest.approx(
        text_loss(LM, taught("prompt_tuning:length=3"), text, window=16), rel=1e-5
    )


def test_a_lora_learns_what_a_mixture_does() -> None:
    teacher = of("bottleneck", "prompt_tuning:length=3", base=True)
    learnt = converted(teacher, "lora:rank=4")
    assert kl(teacher, learnt.adaptation) < kl(teacher, bare())
    parts = [(taught("bottleneck"), WEIGHTS[0]), (taught("prompt_tuning:length=3"), WEIGHTS[1])]
    example = world.task().train[0]
    ids = target(example)
    taught_ = formula([*parts, (bare(), WEIGHTS[2])], example, ids)
    other = formula([(bare(), 1.0)], example, ids)
    expected = (taught_.exp() * (taught_ - other)).sum()
    row = world.task().template.encode(LM.tokenizer, example, example.targets[0], 90)
    (found,), _ = Teacher(LM, teacher).divergences(Edits(), [row], [example])
    assert found == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("to", ["peft", "merged", "vllm", "embedding-rows", "gguf", "gguf-lora"])
def test_exports_refuse_it_in_a_line(to: Any, tmp_path: Path) -> None:
    for mine in (of("lora", base=True), of("lora", "prompt_tuning:length=3"), of(*AT_CUE[:2])):
        with pytest.raises(InputError) as error:
            export(to, {"mine": mine}, LM, tmp_path / "out")
        assert "\n" not in str(error.value) and "convert" in str(error.value)


def test_what_needs_one_adaptation_refuses_it() -> None:
    mine = of("lora", "ia3")
    with pytest.raises(InputError, match="look at each of its parts"):
        inspect(LM, mine)
    with pytest.raises(InputError, match="beams were asked for"):
        generate(LM, [Request(mine, "a", 3)], Decoding(beams=2))
    with pytest.raises(InputError, match="one of its parts is a mixture"):
        mixture(LM, [Part("a", mine, 1.0), Part("b", taught("lora"), 1.0)])
    with pytest.raises(InputError, match="changes no weights"):
        combine(LM, [Part("a", mine, 1.0), Part("b", taught("lora"), 1.0)])
    with pytest.raises(InputError, match="each with rows of its own"):
        row = world.task().template.encode(LM.tokenizer, world.task().test[0], "x", 90)
        pack([training_row(row)], [mine.edits(LM)])


def test_experts_score_the_same_tokens_or_are_refused() -> None:
    other = replace(taught("ia3"), template=Template("{source}\nsay it:\n{target}"))
    given = [Part("a", taught("lora"), 1.0), Part("b", other, 1.0)]
    with pytest.raises(InputError, match="b and a begin or end a target in other tokens"):
        mixture(LM, given)
    alike = replace(taught("ia3"), template=Template("Now {source}\nsay: {target}"))
    told = mixture(LM, [given[0], Part("b", alike, 1.0)]).edits(LM)
    assert [own.template and own.template.text for own in told.each] == [
        "{source}\nsay it: {target}", "Now {source}\nsay: {target}"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("of=base,weights=1", "two or more"),
        ("of=base+base,weights=1+1", "the bare base alone"),
        ("of=none+base,weights=1+1", "none holds no adaptation"),
        ("of=none+base,weights=1+inf", "weights"),
    ],
)
def test_bad_settings_are_one_line(settings: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        parse_one(f"mixture:{settings}")
    assert "\n" not in str(error.value)


def test_a_damaged_one_says_so(tmp_path: Path) -> None:
    mine = of("lora", base=True)
    with pytest.raises(InputError, match="has no parts: it is damaged"):
        build("mixture", {"of": ["a", "b"], "weights": [1, 1]})
    mine.save(tmp_path)
    file = tmp_path / "adaptation.json"
    told = json.loads(file.read_text())
    for broken in ([], told["text"]["templates"][:1], [5, 6], 7):
        told["text"]["templates"] = broken
        file.write_text(json.dumps(told))
        with pytest.raises(InputError, match="damaged"):
            Adaptation.load(tmp_path, LM).edits(LM)


def test_a_template_keeps_those_beside_it() -> None:
    template = of("lora", "prompt_tuning:length=3").row_template
    assert (
        template.beside
        and Template.from_dict(json.loads(json.dumps(template.to_dict()))) == template
    )
    assert "beside" not in world.task().template.to_dict()
    assert as_trained(world.task(), template)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_runs(tmp_path_factory.mktemp("two"), a="lora:rank=2", b="prompt_tuning:length=3")


def test_the_command_and_an_entry_of_compare(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [f"{two / 'a'}=1.5", f"{two / 'b'}=0.5", "base=-1"]
    made_ = ["combine", *asked, "--how", "mixture", "--out", str(tmp_path / "m")]
    assert run(made_) == 0
    assert run(["generate", "--adapter", str(tmp_path / "m"), "--input", "a text"]) == 0
    entry = f"mixture:of={two / 'a'}+base,weights=1.5+-0.5"
    small = ["--limit", "8", "--test-limit", "4", "-o", "max_new_tokens=4", "--steps", "2"]
    out = ["--out", str(tmp_path / "runs"), "--general-text", "demo"]
    assert run(["compare", "--methods", f"lora:rank=2,{entry}", *small, *out]) == 0
    (folder,) = (tmp_path / "runs").glob("mixture*")
    record = json.loads((folder / "seed-0" / "record.json").read_text())
    assert record["status"] == "finished" and record["parameters"]["trainable"] == 0
    own = pl.mixture(pl.load("demo"), {str(two / "a"): 1.5, "base": -0.5})
    assert own.method == parse_one(entry)
    capsys.readouterr()
    for asked, said in (
        (["base=1", "base=2"], "beside the bare base"),
        ([f"{two / 'a'}=1", "base=1", "--density", "0.5"], "leave it out"),
    ):
        assert run(["combine", *asked, "--how", "mixture", "--out", str(tmp_path / "d")]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert line.startswith("Error: ") and said in line
    assert run(["combine", f"{two / 'a'}=1", "base=1", "--out", str(tmp_path / "d")]) == 2
    assert "base holds no adaptation" in capsys.readouterr().err
