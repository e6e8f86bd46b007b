"""What `peftlab tasks show` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from peftlab.tasks import Example, Provenance, Task, Template, describe
from peftlab.tasks.show import histogram, marked, measure


def task_of(sources: list[str], **changes: Any) -> Task:
    rows = [Example(source, ("a cat", "the cat")) for source in sources]
    values: dict[str, Any] = {
        "name": "tiny",
        "template": Template("{source}\nOutput: {target}"),
        "train": rows,
        "validation": rows[:2],
        "test": rows[:3],
        "metrics": ("rouge1",),
        "max_new_tokens": 4,
        "source": Provenance("files", "here", "0"),
        "notes": ("A note.",),
    }
    return Task(**values | changes)


def test_what_is_trained_on_is_marked(bpe: Any) -> None:
    text = describe(task_of(["the cat sat"] * 5), bpe, 100)
    assert text.count("the cat sat\nOutput:⟦ a cat<|endoftext|>⟧") == 3
    assert "train 5 (10 targets), validation 2 (4 targets), test 3 (6 targets)" in text
    assert "A note." in text and "Scored by: rouge1" in text and "greedy" in text


def test_pseudo_tokens_are_shown(bpe: Any) -> None:
    row = Template("{p:2}a {p:1}{source} {target}").encode(bpe, Example("x", ("y",)), "y", 99)
    assert marked(bpe, row) == "<p1><p2>a <p3>x⟦ y<|endoftext|>⟧"


def test_truncated_rows_are_counted(bpe: Any) -> None:
    long = "the cat sat on the mat " * 9
    task = task_of([long, "the cat", "cat"])
    whole = len(task.template.encode(bpe, task.train[0], "the cat", 10_000).ids)
    lengths = measure(task, bpe, whole - 3, "train")
    assert (lengths.rows, lengths.cut, lengths.misfits) == (6, 2, 0)
    assert max(lengths.prompt) + min(lengths.target) == whole
    prompts = measure(task, bpe, whole - 3, "test")
    assert (prompts.rows, prompts.cut) == (3, 1)
    text = describe(task, bpe, whole - 3)
    assert f"2 of 6 rows lose source tokens in a context of {whole - 3} (" in text
    assert "1 of 3 prompts, with room to generate, lose source tokens" in text


def test_rows_that_never_fit_are_counted(bpe: Any) -> None:
    lengths = measure(task_of(["the cat"]), bpe, 3, "train")
    assert lengths.misfits == 2


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=50))
def test_a_histogram_counts_every_value(values: list[int]) -> None:
    lines = histogram(values)
    assert 1 <= len(lines) <= 8
    assert sum(int(line.split()[-1].replace(",", "")) for line in lines) == len(values)


def test_a_class_of_equal_lengths_is_one_line() -> None:
    assert histogram([7, 7]) == ["  7-7  " + "█" * 24 + "  2"]


def test_real_data(bpe: Any, data_folder: Path) -> None:
    text = describe(Task.load(data_folder / "e2e", limit=50), bpe, 512)
    assert "name[" in text and "0 of 50 rows lose source tokens" in text
