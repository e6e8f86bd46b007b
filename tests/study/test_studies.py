"""Every study's variants suit the model and the task, and bad input is one clear error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from peftlab.errors import InputError
from peftlab.methods import parse
from peftlab.study import find, lines
from peftlab.study.base import Made
from peftlab.study.studies.instruction import wordings
from peftlab.tasks import Task
from tests.study.conftest import Make

# Those that take what a bare task has not: an instruction, another task, several bases.
_ASK_MORE = {"instruction", "transfer", "scale"}


def asking(task: Task) -> Task:
    return replace(task, instruction="Say it in a sentence.\n")


@pytest.mark.parametrize("name", lines())
def test_each_is_found_under_its_name(name: str) -> None:
    study = find(name)
    assert study.name == name
    assert study.title.endswith("?") and study.source
    assert study.takes <= {"values", "methods", "words", "general_text", "models"}


def test_an_unknown_study_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no study 'lenght'.*Did you mean \"length\""):
        find("lenght")


@pytest.mark.parametrize("name", sorted(lines().keys() - _ASK_MORE))
def test_variants_suit_the_model(name: str, setting: Make, task: Task) -> None:
    made = setting(general_text=("some text",))
    variants = find(name).variants(made, task)
    assert len({(v.series, v.x, v.rows, v.share, v.name, v.method.label) for v in variants}) == len(
        variants
    ), "no point is there twice"
    for variant in variants:
        variant.method.check(made.shape)
        assert variant.rows is None or 1 <= variant.rows <= len(task.train)
    assert any(variant.x is not None for variant in variants)


def test_lengths_leave_half_of_the_context_to_the_text(setting: Make, task: Task) -> None:
    made = setting()
    longest = max(v.x or 0 for v in find("length").variants(made, task))
    assert longest == 20 and made.shape.context == 96, "of 1, 2, 5, 10, 20, 50 … 20 is the last"


def test_the_users_places_must_be_allowed(setting: Make, task: Task) -> None:
    with pytest.raises(InputError, match=r"--values has 64, but a length can be from 1 to 48"):
        find("length").variants(setting(values=(1.0, 64.0)), task)
    with pytest.raises(InputError, match=r"--values has 1.5, but a rank is a whole number"):
        find("rank").variants(setting(values=(1.5,)), task)
    with pytest.raises(InputError, match=r"a number of examples can be from 1 to 24"):
        find("data").variants(setting(values=(25.0,)), task)


def test_methods_without_the_setting_are_refused(setting: Make, task: Task) -> None:
    lora = tuple(parse("lora"))
    with pytest.raises(InputError, match=r"--methods lora: this study varies the setting length"):
        find("length").variants(setting(methods=lora), task)
    with pytest.raises(InputError, match=r"no setting that names blocks; lora and layers have one"):
        find("layers").variants(setting(methods=tuple(parse("bitfit"))), task)
    with pytest.raises(InputError, match=r"no setting initialisation"):
        find("init").variants(setting(methods=tuple(parse("bitfit"))), task)


def test_alpha_follows_the_rank(setting: Make, task: Task) -> None:
    variants = find("rank").variants(setting(values=(2.0, 8.0)), task)
    chosen = [v.method for v in variants if v.x is not None]
    assert {m.alpha / m.rank for m in chosen} == {2.0}  # type: ignore[attr-defined]


def test_blocks_from_the_top_the_bottom_and_all_but_a_span(setting: Make, task: Task) -> None:
    """Three blocks: 0, 1, 2."""
    variants = find("layers").variants(setting(), task)
    layers = {(v.series, v.x): v.method.layers for v in variants if v.x}  # type: ignore[attr-defined]
    assert layers["top blocks", 1] == (2,) and layers["bottom blocks", 1] == (0,)
    assert layers["top blocks", 2] == (1, 2) and layers["bottom blocks", 2] == (0, 1)
    assert layers["top blocks", 3] == layers["bottom blocks", 3] == (), "all is the default"
    assert layers["all but a span", 2] == (0, 2)
    whole = find("layers").variants(setting(methods=tuple(parse("layers"))), task)
    assert {v.method.blocks for v in whole if v.x == 1} == {("0",), ("2",)}  # type: ignore[attr-defined]


def test_spans_of_a_deep_model() -> None:
    from peftlab.study.studies.layers import _spans

    assert _spans(4) == [(1, 2), (2, 3), (1, 3)]
    assert _spans(12) == [(3, 6), (6, 9), (3, 9)]
    assert _spans(2) == [] and _spans(1) == []
    for count in range(1, 40):
        assert all(0 < start < end < count for start, end in _spans(count))


def test_starts_are_those_of_the_methods(setting: Make, task: Task) -> None:
    variants = [v for v in find("init").variants(setting(), task) if v.x is not None]
    names = {v.name for v in variants}
    assert names == {"kaiming", "gaussian", "text", "vocabulary", "random"}, "there are no labels"
    labelled = replace(task, labels=("yes", "no"))
    again = find("init").variants(setting(), labelled)
    assert "labels" in {v.name for v in again}
    assert len({(v.name, v.x) for v in variants}) == len(names), "a name has one place"


def test_wordings_differ_and_keep_their_names() -> None:
    worded = wordings("Write a line\n", ("Say it <b>well</b>", "Write a line"))
    assert list(worded)[:2] == ["no words", "its own"]
    assert sorted(worded["shuffled"].split()) == sorted(["Write", "a", "line"])
    assert worded["first half"] == "Write\n"
    assert worded["“Say it <b>well</b>”"] == "Say it <b>well</b>\n"
    assert len(set(worded.values())) == len(worded), "the same words are not tried twice"
    assert "“Write a line”" not in worded


def test_instruction_needs_words(setting: Make, task: Task) -> None:
    with pytest.raises(InputError, match=r"brings no instruction: give wordings with --wording"):
        find("instruction").variants(setting(), task)
    own = find("instruction").variants(setting(words=("Say it",)), task)
    assert "hard_prompt:instruction=Say it\n" in {v.method.label for v in own}
    assert any("+prompt_tuning" in v.method.label for v in own)


def test_transfer_needs_a_source(setting: Make, task: Task) -> None:
    study = find("transfer")
    with pytest.raises(InputError, match="a target and a source: give --task more than once"):
        study.targets(setting())
    two = setting(tasks=(task, replace(task, name="other")))
    assert list(study.targets(two)) == [task]
    sources = [v for v in study.variants(two, task) if v.task is not None]
    assert [v.task.name for v in sources if v.task] == ["other"]
    assert study.then(two, task, [Made(sources[0], ())]) == [], "its source has failed"


def test_scale_needs_several_bases(setting: Make, task: Task) -> None:
    with pytest.raises(InputError, match="several bases: give --model more than once"):
        find("scale").variants(setting(), task)
    two = setting(models=("a", "b"))
    variants = find("scale").variants(two, task)
    assert {v.base for v in variants} == {"a", "b"}
    assert find("scale").note(two) == ""
    assert "analogue" in find("scale").note(setting(models=("demo-0.1m", "demo-5.3m")))


def test_forgetting_needs_a_text(setting: Make, task: Task) -> None:
    with pytest.raises(InputError, match="needs a text: give --general-text FILE"):
        find("forgetting").variants(setting(), task)


def test_the_demos_sizes_span_fifty_times() -> None:
    from peftlab.demo import sizes
    from peftlab.demo.recipe import Recipe

    def blocks(recipe: Recipe) -> int:
        return 12 * recipe.layers * recipe.width**2 + recipe.vocabulary * recipe.width

    counts = sorted(blocks(recipe) for recipe in sizes.SIZES.values())
    assert len(counts) >= 4 and counts[-1] >= 50 * counts[0]


def test_a_base_that_is_not_there(tmp_path: Path) -> None:
    from peftlab.study.look import shape

    with pytest.raises(InputError, match=r"config\.json"):
        shape(str(tmp_path))
