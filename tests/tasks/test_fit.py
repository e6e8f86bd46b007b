"""What a base makes of a task: one end, room for replies in its tokens, rows that are too long."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftlab.errors import InputError
from peftlab.tasks import Example, Task, Template
from peftlab.tasks.encode import without_end
from peftlab.tasks.fit import Fit, fitted, look, shortened, too_long
from tests.tasks.test_show import task_of

EOS = "<|endoftext|>"
SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("a", "a"), (f"a{EOS}", "a"), (f"a {EOS}\n{EOS} ", "a"), (f"{EOS}a", f"{EOS}a"),
        (f"a{EOS}b ", f"a{EOS}b "), (EOS, ""), ("", ""), ("a</s>", "a</s>"),
    ],
)  # fmt: skip
def test_an_end_that_text_brings_along(text: str, bare: str) -> None:
    assert without_end(text, (EOS,)) == bare and without_end(text, ()) == text


def test_a_row_has_one_end(bpe: Any) -> None:
    template = Template("{source}\nOutput: {target}")
    row = template.encode(bpe, Example("the cat", ()), f"the mat{EOS}\n{EOS}", 99)
    assert row == template.encode(bpe, Example("the cat", ()), "the mat", 99)
    assert row.ids.count(bpe.eos_token_id) == 1
    inside = template.encode(bpe, Example("the cat", ()), f"the {EOS}mat", 99)
    assert inside.ids.count(bpe.eos_token_id) == 1 and len(inside.ids) > len(row.ids) + 3


def test_exemplars_do_not_end_a_row_in_the_middle(bpe: Any) -> None:
    template = Template("{source}\nOutput: {target}")
    pairs = [("the cat", "a cat"), ("the mat", "a mat")]
    plain, ended = (
        template.with_exemplars([Example(source, (f"{target}{end}",)) for source, target in pairs])
        for end in ("", f" {EOS}")
    )
    row = ended.encode(bpe, Example("on", ()), "x", 99)
    assert row == plain.encode(bpe, Example("on", ()), "x", 99)


def test_a_chats_end_is_one_too(chat_bpe: Any) -> None:
    template = Template("{source}{target}", chat=True)
    end = chat_bpe.convert_ids_to_tokens(template.end_id(chat_bpe))
    assert end in template.ends(chat_bpe)
    plain = template.encode(chat_bpe, Example("a", ()), "b", 99)
    assert template.encode(chat_bpe, Example("a", ()), f"b{end}", 99) == plain


def with_ends(task: Task) -> Task:
    rows = [Example(e.source, (f"a cat{EOS}", "the cat")) for e in task.test]
    return replace(task, test=rows)


def test_references_lose_the_end_and_it_is_said(bpe: Any) -> None:
    task = with_ends(task_of(["the cat", "a cat", "cat"]))
    own = fitted(task, bpe)
    assert [e.targets for e in own.test] == [("a cat", "the cat")] * 3
    assert own.notes[-1].startswith(f"3 targets of test end in {EOS}, which ends every row")
    assert own.source.fingerprint != task.source.fingerprint
    assert fitted(own, bpe) is own
    clean = task_of(["the cat"])
    assert fitted(clean, bpe).source == clean.source and fitted(clean, bpe).train is clean.train


def guessing(path: Path, target: str, rows: int = 30) -> Task:
    lines = (json.dumps({"source": f"s{i}", "target": target}) + "\n" for i in range(rows))
    path.write_text("".join(lines), encoding="utf-8")
    return Task.load(path)


def test_the_guess_counts_tokens_of_this_base(bpe: Any, tmp_path: Path) -> None:
    for target, least, most in (
        ("x", 16, 16), ("猫" * 20, 61, 96), ("แมวนั่ง" * 9, 190, 256), ("the cat " * 40, 81, 160),
        ("猫" * 200, 601, 608),
    ):  # fmt: skip
        task = guessing(tmp_path / "a.jsonl", target)
        own = fitted(task, bpe)
        long = len(task.template.target_ids(bpe, target))
        assert task.guesses_length and not own.guesses_length
        assert max(long, least) <= own.max_new_tokens <= most
        said = f"{own.max_new_tokens} tokens (guessed: a long target of train has {long})."
        assert own.notes[-1] == f"Replies end after {said}"
    given = Task.load(tmp_path / "a.jsonl", max_new_tokens=7)
    assert fitted(given, bpe).max_new_tokens == 7


def long_task(**changes: Any) -> Task:
    task = task_of(["the cat", "the cat sat on the mat " * 9, "a cat"], **changes)
    rows = [replace(e, targets=("a cat", "the cat " * (1 + 40 * (i == 0)))) for i, e in
            enumerate(task.train)]  # fmt: skip
    return replace(task, train=rows, validation=rows[1:], test=rows, subsets={"odd": (1, 2)})


def test_long_rows_leave_and_are_counted(bpe: Any) -> None:
    task = replace(long_task(), long="skip")
    own = shortened(task, task.template, bpe, 60, SPLITS)
    assert [(e.source, e.targets) for e in own.train] == [
        ("the cat", ("a cat",)), ("a cat", ("a cat", "the cat ")),
    ]  # fmt: skip
    assert [e.source for e in own.validation] == ["a cat"] == [e.source for e in own.test]
    assert own.skipped == {"train": 3, "validation": 1, "test": 2}
    assert own.subsets == {"odd": (0,)} and own.long == "cut"
    assert own.notes[-1] == (
        "3 rows of train and 1 examples of validation and 2 examples of test are longer than the "
        "60 tokens that fit, and left out (-o long=skip)."
    )
    for split in SPLITS:
        for example, target in own.pairs(split):
            row = task.template.encode(bpe, example, target, 60)
            assert row.dropped == 0 and len(row.ids) <= 60


def test_a_prompt_needs_room_for_its_reply(bpe: Any) -> None:
    task = replace(task_of(["the cat"]), long="refuse")
    row = task.template.encode(bpe, task.test[0], "the cat", sys.maxsize)
    limit = len(row.ids) + 2
    assert too_long(task, task.template, bpe, limit).too_long == dict.fromkeys(SPLITS, ())
    with pytest.raises(InputError, match=r"1 of 1 rows of test are longer than the"):
        too_long(replace(task, max_new_tokens=limit), task.template, bpe, limit)


def test_long_rows_are_cut_or_refused(bpe: Any) -> None:
    task = long_task()
    assert shortened(task, task.template, bpe, 60, SPLITS) is task
    refused = replace(task, long="refuse")
    with pytest.raises(InputError, match=r"3 of 6 rows of train .*takes \d+\).*-o long=skip"):
        shortened(refused, task.template, bpe, 60, SPLITS)
    kept = shortened(refused, task.template, bpe, 900, SPLITS)
    assert kept.train == task.train and kept.source == task.source
    with pytest.raises(InputError, match=r"6 of 6 rows of train .*-o long=cut to cut their"):
        shortened(replace(task, long="skip"), task.template, bpe, 3, SPLITS)
    asked = replace(refused, template=replace(task.template, source_tokens=5))
    assert too_long(asked, asked.template, bpe, 60, ("validation",)).too_long == {"validation": ()}


def test_fits_travel_and_join(bpe: Any) -> None:
    one = Fit(ends=(EOS,), too_long={"train": (1, 3), "test": ()}, notes=("a",))
    other = Fit(max_new_tokens=24, too_long={"train": (0, 3), "test": (2,)}, notes=("a", "b"))
    both = pickle.loads(pickle.dumps(one.joined(other)))
    assert both.too_long == {"train": (0, 1, 3), "test": (2,)} and both.max_new_tokens == 24
    assert both.notes == ("a", "b") and both.ends == (EOS,)
    task = with_ends(task_of(["the cat", "a cat", "cat"]))
    fit = look(task, bpe)
    assert fit.apply(task) == fitted(task, bpe)


def test_long_is_an_option(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    guessing(path, "x")
    assert Task.load(path, long="skip").long == "skip"
    with pytest.raises(InputError, match=r"long is 'drop'; .cut., .skip. or .refuse. was expected"):
        Task.load(path, long="drop")
