"""The sentences follow from the numbers."""

from __future__ import annotations

from peftlab.compare.sentences import main_metric, sentences
from tests.report.made import record, scored


def test_best_balance_and_frugal_differ() -> None:
    best, balance, frugal, seeds = sentences(
        [
            scored("hard_prompt", 0.10, 0),
            scored("prompt_tuning", 0.60, 100),
            scored("lora", 0.88, 1_000),
            scored("full", 0.90, 1_000_000),
        ]
    )
    assert best.startswith("Best: full, with ROUGE-L 0.900")
    # 95 % of the gain .10 → .90 is .86: LoRA reaches it, prompt tuning does not.
    assert balance.startswith("Best balance: lora, ROUGE-L 0.880: 98% of full's gain")
    assert "1,000 stored parameters instead of 1,000,000" in balance
    assert frugal.startswith("Most frugal: prompt_tuning stores 100")
    assert "One seed proves no difference" in seeds


def test_the_best_can_be_the_balance() -> None:
    _, balance, *_ = sentences([scored("lora", 0.9, 10), scored("full", 0.5, 1000)])
    assert balance.startswith("Best balance: lora too")


def test_where_less_is_better() -> None:
    def run(label: str, ter: float, stored: int) -> object:
        return scored(label, 0, stored).model_copy(update={"scores": {"ter": ter}})

    runs = [run("hard_prompt", 90.0, 0), run("lora", 21.0, 10), run("full", 20.0, 1000)]
    best, balance, *_ = sentences(runs)  # type: ignore[arg-type]
    assert best.startswith("Best: full, with ter 20.0")
    assert balance.startswith("Best balance: lora, ter 21.0: 99%")


def test_means_over_seeds_decide_and_no_warning_is_left() -> None:
    runs = [
        scored("lora", 0.9, 10, seed=0),
        scored("lora", 0.1, 10, seed=1),
        scored("full", 0.6, 1000, seed=0),
        scored("full", 0.6, 1000, seed=1),
    ]
    said = sentences(runs)
    assert said[0].startswith("Best: full") and len(said) == 3


def test_failed_runs_are_not_compared() -> None:
    bad = record("full", status="failed", error="x", scores={})
    assert "nothing to compare" in sentences([bad])[0]
    assert "needs two methods" in sentences([bad, scored("lora", 0.5, 1)])[0]


def test_the_metric_that_decides() -> None:
    assert main_metric({"rouge1": 1, "rougeL": 1}) == "rougeL"
    assert main_metric({"accuracy": 1, "macro_f1": 1}) == "accuracy"
