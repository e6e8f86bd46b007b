"""Changes of weights combined: against PEFT's own combinations, and the formulas."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import peftlab as pl
from peftlab.cli.app import run
from peftlab.conversion import Part, combine
from peftlab.errors import InputError
from peftlab.export import export
from peftlab.frozen.weight_changes import changed_weights
from peftlab.generation import Request, generate
from peftlab.methods import REGISTRY, build, parse_one
from peftlab.methods.adaptation import Adaptation
from peftlab.methods.combination import Combination
from tests.conversion.test_convert import KINDS, taught, trained_runs
from tests.export.made import deprecations_of_peft, equal, gap, in_peft, made, ours, theirs
from tests.laws import world

FIRST, SECOND = "lora:rank=2,alpha=3,targets=q+v+up", "lora:rank=3,targets=q+o"
WEIGHTS = (0.7, -0.4)
FULL_RANK = {"svd_rank": 64, "svd_full_matrices": False}
WEIGHT_CHANGES = ("bitfit", "full", "ia3", "intrinsic", "last_k", "layers", "lora")


def parts(*words: str, family: str = "llama") -> list[Part]:
    return [
        Part(f"{letter}", made(one, family, seed), weight)
        for seed, (letter, one, weight) in enumerate(zip("ab", words, WEIGHTS, strict=True))
    ]


def combined_in_peft(
    given: list[Part], folder: Path, how: str, family: str = "llama", **options: Any
) -> Any:
    """PEFT's model of the same combination."""
    for part in given:
        export("peft", {part.name: part.adaptation}, world.model(family), folder / part.name)
    model = in_peft(folder / "a", family)
    with deprecations_of_peft():
        model.load_adapter(folder / "b", adapter_name="b")
        model.add_weighted_adapter(
            ["default", "b"], [part.weight for part in given], "mix", how, **options
        )
    model.set_adapter("mix")
    return model.eval()


def changes_in_peft(model: Any) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight("mix").detach()
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and "mix" in module.lora_A
    }


def changes(adaptation: Adaptation, family: str = "llama") -> dict[str, torch.Tensor]:
    lm = world.model(family)
    made = changed_weights(lm, adaptation.edits(lm))
    return {n.removesuffix(".weight"): w - lm.gather(n).float() for n, w in made.items()}


def are_alike(own: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert own.keys() == other.keys()
    for name, change in own.items():
        torch.testing.assert_close(change, other[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_linear_is_cat_of_peft(tmp_path: Path, family: str) -> None:
    """Of any ranks, targets and scalings."""
    given = parts(FIRST, SECOND, family=family)
    mine = combine(world.model(family), given)
    theirs_ = combined_in_peft(given, tmp_path, "cat", family)
    assert gap(ours(mine, world.model(family)), theirs(theirs_)) < equal(family)
    edits = mine.edits(world.model(family))
    assert not edits.weights, "a sum of low-rank changes is one"


def test_linear_under_rslora_is_the_sum_of_changes() -> None:
    """PEFT's `cat` is off by a root of the rank there."""
    given = parts("lora:rank=4,targets=q+v,rslora=true", SECOND)
    mine, total = combine(world.model("llama"), given), dict[str, torch.Tensor]()
    for part in given:
        for name, change in changes(part.adaptation).items():
            total[name] = total.get(name, torch.zeros_like(change)) + part.weight * change
    are_alike(changes(mine), total)


def test_ties_is_that_of_peft_module_by_module(tmp_path: Path) -> None:
    given = parts(FIRST, SECOND)
    mine = combine(world.model("llama"), given, "ties", density=0.3)
    other = combined_in_peft(given, tmp_path, "ties_svd", density=0.3, **FULL_RANK)
    are_alike(changes(mine), changes_in_peft(other))


@pytest.mark.parametrize("how", ["dare_linear", "dare_ties"])
def test_dare_is_that_of_peft_under_the_same_masks(
    how: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = parts(FIRST, FIRST)
    mine = combine(world.model("llama"), given, how, density=0.4, seed=5)
    modules = [name for name, _ in world.model("llama").model.named_modules()]
    order = [name for name in modules if name in changes(mine)]
    method = mine.method
    assert isinstance(method, Combination)

    def masks() -> Iterator[tuple[int, str]]:
        for name in order:
            for number in (0, 1):
                yield number, f"{name}.weight"

    drawn = masks()

    def pruned(tensor: torch.Tensor, density: float, rescale: bool) -> torch.Tensor:
        assert rescale
        return tensor * method.drawn(tensor.shape, *next(drawn)) / density

    monkeypatch.setattr("peft.utils.merge_utils.random_pruning", pruned)
    other = combined_in_peft(given, tmp_path, f"{how}_svd", density=0.4, **FULL_RANK)
    assert next(drawn, None) is None
    are_alike(changes(mine), changes_in_peft(other))
    again = combine(world.model("llama"), given, how, density=0.4, seed=6)
    assert any((changes(again)[n] != c).any() for n, c in changes(mine).items())


def test_peft_linear_has_cross_terms_and_is_that_of_peft(tmp_path: Path) -> None:
    given = parts("lora:rank=3,alpha=5,targets=q+o", "lora:rank=3,alpha=2,targets=q+o")
    mine = combine(world.model("llama"), given, "peft_linear")
    other = combined_in_peft(given, tmp_path, "linear")
    assert gap(ours(mine, world.model("llama")), theirs(other)) < equal("llama")
    plain = combine(world.model("llama"), given)
    assert gap(ours(mine, world.model("llama")), ours(plain, world.model("llama"))) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_is_combined_or_refused(kind: str, tmp_path: Path) -> None:
    """All of one and nothing of another is that one; saved and served it is the same."""
    lm, own = world.model("llama"), taught(kind)
    given = [Part("a", own, 1.0), Part("b", taught("lora"), 0.0)]
    if kind.partition(":")[0] not in WEIGHT_CHANGES:
        with pytest.raises(InputError, match=r"a: .*(changes no weights|brings words)"):
            combine(lm, given)
        return
    mine = combine(lm, given)
    assert gap(ours(mine, lm), ours(own, lm)) < equal("llama")
    half = [Part("a", own, 0.5), Part("b", own, 0.5)]
    assert gap(ours(combine(lm, half), lm), ours(own, lm)) < equal("llama")
    mine.save(tmp_path)
    back = Adaptation.load(tmp_path, lm)
    assert back.method == mine.method and gap(ours(back, lm), ours(mine, lm)) == 0
    text = "the cat sings"
    alone = generate(lm, [Request(back, text, 5)])
    mixed = generate(lm, [Request(one, text, 5) for one in (taught("bottleneck"), back, own)])
    assert mixed[1].tokens == alone[0].tokens == mixed[2].tokens


def test_all_that_changes_weights_is_named_above() -> None:
    methods = {name: parse_one(name) for name in REGISTRY}
    found = {n for n, it in methods.items() if it.trains and {*it.sites} <= {"linear", "weights"}}
    assert found == set(WEIGHT_CHANGES)


def test_full_fine_tunings_are_averaged_weight_by_weight() -> None:
    lm, one, other = world.model("llama"), taught("full"), taught("layers")
    mine = combine(lm, [Part("a", one, 0.5), Part("b", other, 0.5)]).edits(lm)
    for name, weight in one.state.tensors.items():
        second = other.state.tensors.get(name, lm.gather(name))
        torch.testing.assert_close(mine.weights[name], (weight + second) / 2)


def test_what_begins_at_the_cue_begins_there_combined() -> None:
    lm = world.model("llama")
    own = taught("lora:begin=cue")
    mine = combine(lm, [Part("a", own, 0.5), Part("b", own, 0.5)])
    assert mine.edits(lm).begin == "cue"
    replies = generate(lm, [Request(one, "the cat sings", 5) for one in (mine, own)])
    assert replies[0].tokens == replies[1].tokens
    with pytest.raises(InputError, match="begin at one place"):
        combine(lm, [Part("a", own, 0.5), Part("b", taught("lora"), 0.5)])


def test_of_adaptations_and_folders_alike(tmp_path: Path) -> None:
    lm, first, second = world.model("llama"), taught("lora"), taught("ia3")
    first.save(tmp_path / "a")
    export("peft", {"b": second}, lm, tmp_path / "b")
    named = pl.combine(lm, {str(tmp_path / "a"): 0.7, str(tmp_path / "b"): 0.3})
    given = pl.combine(lm, [(first, 0.7), (second, 0.3)])
    assert gap(ours(named, lm), ours(given, lm)) < equal("llama")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("of=a,weights=1", "two or more"),
        ("of=a+b,weights=1", "of names 2 adaptations and weights 1"),
        ("of=a+b,weights=1+1,how=ties", "give density"),
        ("of=a+b,weights=1+1,density=0.5", "leave density out"),
        ("of=a+b,weights=1+1,how=ties,density=1.5", "density"),
        ("of=a+b,weights=1+nan", "weights"),
        ("of=a+b,weights=1+1,how=tie,density=.1", "how"),
        ("of=a+b,weights=1+1", "a holds no adaptation"),
    ],
)
def test_bad_settings_are_one_line(settings: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        parse_one(f"combination:{settings}")
    assert "\n" not in str(error.value)


def test_peft_linear_refuses_what_it_cannot_add() -> None:
    with pytest.raises(InputError, match="plain lora of one rank"):
        combine(world.model("llama"), parts(FIRST, SECOND), "peft_linear").edits(
            world.model("llama")
        )


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_runs(tmp_path_factory.mktemp("two"), a="lora:rank=2", b="bitfit")


def test_the_command_and_an_entry_of_compare(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [f"{two / 'a'}=0.7", f"{two / 'b'}=-0.3"]
    assert run(["combine", *asked, "--out", str(tmp_path / "c")]) == 0
    assert run(["generate", "--adapter", str(tmp_path / "c"), "--input", "a text"]) == 0
    entry = f"combination:of={two / 'a'}+{two / 'b'},weights=0.7+-0.3,how=ties,density=0.5"
    small = ["--limit", "8", "--test-limit", "4", "-o", "max_new_tokens=4", "--steps", "2"]
    out = ["--out", str(tmp_path / "runs"), "--general-text", "none"]
    assert run(["compare", "--methods", f"lora:rank=2,{entry}", *small, *out]) == 0
    (folder,) = (tmp_path / "runs").glob("combination*")
    record = json.loads((folder / "seed-0" / "record.json").read_text())
    assert record["status"] == "finished" and record["parameters"]["trainable"] == 0
    capsys.readouterr()
    for asked, said in (
        ([str(two / "a"), f"{two / 'b'}=1"], "names no weight"),
        ([f"{two / 'a'}=1"], "two or more"),
        ([f"{two / 'a'}=1", f"{two / 'none'}=1"], "none"),
    ):
        assert run(["combine", *asked, "--out", str(tmp_path / "d")]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert line.startswith("Error: ") and said in line
    assert run(["combine", f"{two / 'a'}=1", f"{two / 'b'}=1", "--out", str(two / "a")]) == 2
    assert "holds the adapter itself" in capsys.readouterr().err


def test_other_templates_are_said() -> None:
    lm, first = world.model("llama"), taught("lora")
    text = pl.Template("{source} so:{target}")
    other = Adaptation(first.method, first.state, text, first.base)
    with pytest.warns(UserWarning, match=r"b had other templates than a; .* the latter's"):
        made = combine(lm, [Part("a", first, 1), Part("b", other, 1)])
    assert made.template == first.template
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked = combine(lm, [Part("a", first, 1), Part("b", other, 1)], template=text)
    assert asked.template == text


def test_folders_may_hold_the_separator_and_are_held_against_what_was_read(tmp_path: Path) -> None:
    lm, names = world.model("llama"), ("lora-targets=q+v", "b")
    for name in names:
        taught("lora").save(tmp_path / name)
    of = "+".join(str(tmp_path / name) for name in names)
    method = parse_one(f"combination:of={of},weights=0.5+0.5")
    assert isinstance(method, Combination)
    assert method.of == tuple(str(tmp_path / name) for name in names)
    before = method.files()
    method.init(lm, world.task(), torch.Generator())
    taught("ia3").save(tmp_path / "b")
    assert method.files() != before, "other tensors are another run"
    with pytest.raises(InputError, match="b holds ia3 now; it was lora"):
        method.init(lm, world.task(), torch.Generator())
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(InputError, match="cannot be read"):
        method.files()


def test_it_is_no_part_of_a_composition(tmp_path: Path) -> None:
    """Its weights would be trained."""
    for name in "ab":
        taught("lora").save(tmp_path / name)
    of = f"{tmp_path / 'a'}+{tmp_path / 'b'}"
    with pytest.raises(InputError, match="stands alone"):
        parse_one(f"prompt_tuning:length=2+combination:of={of},weights=1+1")


def test_a_stored_one_reads_no_other_folder() -> None:
    for settings in ({"of": ["a", "b"], "weights": [1, 1]}, {"parts": [], "of": ["a", "b"]}):
        with pytest.raises(InputError, match="has no parts: it is damaged"):
            build("combination", settings)
