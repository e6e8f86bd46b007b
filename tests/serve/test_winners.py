"""Which adaptation of a comparison is served, and under which name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftlab.errors import InputError
from peftlab.records.reading import StoredRun
from peftlab.serve.winners import for_base, winners
from tests.laws import world as laws
from tests.verdict.test_outcome import kept


def run(out: Path, label: str, score: float, **changes: Any) -> StoredRun:
    made = kept(out, label, score, **changes)
    (made.folder / "adapter").mkdir()
    return made


def task(name: str, rows: str = "f") -> dict[str, Any]:
    return {"task": {
        "name": name, "fingerprint": rows, "train_rows": 9, "test_rows": 5, "metrics": ["rougeL"],
    }}  # fmt: skip


def test_the_best_method_of_each_task(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "one", "lora", 0.5, **task("news/long")),
        run(tmp_path / "one", "full", 0.6, **task("news/long")),
        run(tmp_path / "two", "ia3", 0.2, **task("e2e_nlg")),
        run(tmp_path / "two", "lora", 0.1, **task("e2e_nlg")),
    ]
    winning = winners(runs)
    assert [(it.name, it.label) for it in winning] == [("long", "full"), ("e2e_nlg", "ia3")]
    assert winning[0].folder == tmp_path / "one" / "full" / "seed-0" / "adapter"


def test_validation_chooses_among_seeds(tmp_path: Path) -> None:
    losses = {0: 1.5, 1: 1.2, 2: 1.9}
    runs = [
        run(tmp_path, label, quality + seed / 50, seed=seed, loss={"validation": losses[seed]})
        for label, quality in (("lora", 0.6), ("full", 0.3))
        for seed in losses
    ]
    (winner,) = winners(runs)
    assert (winner.label, winner.seed) == ("lora", 1), "seed 2 scores best on the test split"


def test_one_method_alone_wins(tmp_path: Path) -> None:
    (winner,) = winners([run(tmp_path, "lora", 0.5)])
    assert (winner.name, winner.label) == ("t", "lora")


def test_what_cannot_be_served_takes_no_part(tmp_path: Path) -> None:
    runs = [
        run(tmp_path, "peft:oft", 0.9, guest=True), run(tmp_path, "full", 0.8, status="failed"),
        kept(tmp_path, "last_k", 0.7), run(tmp_path, "lora", 0.6),
    ]  # fmt: skip
    assert [it.label for it in winners(runs)] == ["lora"]


def test_one_task_compared_twice_has_two_names(tmp_path: Path) -> None:
    runs = [run(tmp_path / out, "lora", 0.5, **task("demo", out)) for out in ("short", "long")]
    assert [it.name for it in winners(runs)] == ["demo.short", "demo.long"]


def test_one_comparison_has_a_winner_for_each_format_of_its_base(tmp_path: Path) -> None:
    model = laws.model("gpt2")
    formats = (("fp32", model.fingerprint), ("nf4", "4"))
    runs = [
        run(tmp_path, f"{label}@{dtype}", score, model={
            "name": "gpt2", "fingerprint": fingerprint, "parameters": 1, "dtype": dtype,
        })
        for dtype, fingerprint in formats
        for label, score in (("lora", 0.6), ("full", 0.5))
    ]  # fmt: skip
    winning = winners(runs)
    assert [(it.name, it.base[2]) for it in winning] == [("t", "fp32"), ("t", "nf4")]
    fitting, (said,) = for_base(winning, model)
    assert fitting == winning[:1]
    assert "in nf4, not for" in said and "in fp32 (see --base-dtype)" in said


def test_winners_of_another_base_are_left_out_and_named(tmp_path: Path) -> None:
    model = laws.model("gpt2")
    winning = winners([run(tmp_path, "lora", 0.5)])
    with pytest.raises(
        InputError, match=r"t .lora. was made for m, whose weights are not those of"
    ):
        for_base(winning, model)
    own = replace(winning[0], name="own", base=("gpt2", model.fingerprint, "fp32"))
    fitting, said = for_base([*winning, own], model)
    assert fitting == [own] and len(said) == 1
    with pytest.raises(InputError, match="no finished run with an adapter"):
        for_base([], model)


def test_a_damaged_run_keeps_no_other_from_being_served(tmp_path: Path) -> None:
    runs = [
        *(run(tmp_path / "one", label, 0.5) for label in ("lora", "full")),
        *(run(tmp_path / "two", label, 0.5, **task("other", "g")) for label in ("lora", "full")),
        run(tmp_path / "two", "ia3", 0.4, **task("other", "g")),
    ]
    for broken in (*runs[:2], runs[4]):
        (broken.folder / "predictions.jsonl").write_text("{half")
    problems: list[str] = []
    assert [it.name for it in winners(runs, problems)] == ["other"]
    assert sum("predictions.jsonl is damaged" in said for said in problems) == 3
    with pytest.raises(InputError, match="is damaged"):
        winners(runs)
