"""What a comparison within a given time says, before and after all is decided."""

from __future__ import annotations

from typing import Any

from peftlab.verdict.statistics import Outcome, Pair
from peftlab.verdict.timed import Shown, Timed, TimedPair, sentences


def pair(first: str, second: str, outcome: Outcome, leader: str) -> TimedPair:
    own = Pair(
        first=first, second=second, difference=0.02, low=0.01, high=0.03, p_different=0.001,
        p_equivalent=0.5, scope="methods", outcome=outcome, among_models=None, leader=leader,
        winner=leader if outcome == "better" else None,
    )  # fmt: skip
    return TimedPair(pair=own, level=0.95, seeds=3, examples=60, seconds=90.0)


def timed(finalists: list[str], pairs: list[TimedPair], **about: Any) -> Timed:
    shown = {name: Shown(mean=0.4, seeds=3, examples=60) for name in finalists}
    return Timed(
        metric="rougeL", margin=0.01, steps=40, most=100, first=60, examples=60, leader="lora",
        finalists=finalists, pairs=pairs, shown=shown, **about,
    )  # fmt: skip


def test_the_best_is_called_so_once_every_finalist_is_decided_against_it() -> None:
    both = [pair("lora", "ia3", "better", "lora"), pair("full", "lora", "tied", "lora")]
    lines = sentences(timed(["lora", "full", "ia3"], both), [])
    assert lines[0].startswith("lora is best: ROUGE-L 0.400 (3 seeds that chose nothing, 60 test")
    assert lines[1] == "lora is better than ia3; tied with full (within 0.010)."


def test_a_finalist_that_no_look_has_met_leaves_it_leading() -> None:
    """Its time ran out before its last seed: nothing is known of the pair."""
    met = [pair("lora", "ia3", "better", "lora")]
    lines = sentences(timed(["lora", "full", "ia3"], met), [])
    assert lines[0].startswith("lora leads: ")
    assert lines[1] == "lora is better than ia3; not decided against full."
    assert lines[2] == "lora and full were not brought to a look that decides between them."


def test_a_finalist_that_was_better_at_an_earlier_look_leaves_it_leading() -> None:
    met = [pair("lora", "ia3", "better", "lora"), pair("lora", "full", "better", "full")]
    lines = sentences(timed(["lora", "full", "ia3"], met), [])
    assert lines[0].startswith("lora leads: ") and lines[1].endswith("not decided against full.")


def test_an_open_pair_says_how_much_longer_would_decide_it() -> None:
    lines = sentences(timed(["lora", "ia3"], [pair("lora", "ia3", "undecided", "lora")]), [])
    assert lines[0].startswith("lora leads: ")
    assert lines[2].endswith("3 seeds, 60 test examples); about 1 min 30 s more would decide it.")


def test_it_comes_back_from_its_file_as_it_was(tmp_path: Any) -> None:
    one = timed(
        ["lora", "ia3"], [pair("lora", "ia3", "undecided", "lora")], path=[(0, 0, ["lora"])]
    )
    one.write(tmp_path)
    assert Timed.read(tmp_path) == one
