"""Folders of runs made by hand, as a comparison leaves them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peftlab.records.record import Record
from tests.report.made import record

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'
SENTENCE = "the old mill by the river serves warm bread every morning"
WORDS = SENTENCE.split()


def keep(
    out: Path,
    label: str,
    seed: int = 0,
    *,
    right: Sequence[int] = (5,) * 8,
    source: str = "a {}",
    **changes: Any,
) -> Record:
    """Write a run: of example i, the first `right[i]` words are those of the reference."""
    scores = [count / len(WORDS) for count in right]
    made = record(
        label,
        seed=seed,
        scores={"rougeL": sum(scores) / len(scores)},
        **{"task": {**record().task.model_dump(), "test_rows": len(right)}, **changes},
    )
    folder = out / label.replace(":", "-") / f"seed-{seed}"
    made.write(folder)
    rows = [
        {
            "index": i,
            "source": source.format(i),
            "references": [" ".join(WORDS)],
            "prediction": " ".join([*WORDS[:count], "odd"]),
            "scores": {"rougeL": scores[i]},
        }
        for i, count in enumerate(right)
    ]
    lines(folder / "predictions.jsonl", rows)
    log: list[dict[str, Any]] = [
        {"step": step, "loss": 3 / step, "lr": 0.01 / step} for step in range(1, 11)
    ]
    log += [{"step": step, "validation_loss": 2.5 / step} for step in (5, 10)]
    lines(folder / "metrics.jsonl", log)
    return made


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def comparison(out: Path) -> list[Record]:
    """Three methods with two seeds, one that failed, and texts that would like to be tags."""
    (out / "comparison.json").write_text(json.dumps({"command": "peftlab compare --seeds 0,1"}))
    made = []
    for seed in (0, 1):
        for i, (label, right) in enumerate(
            {
                "lora": (9, 8, 9, 10, 8, 9, 7, 9),
                "hard_prompt:instruction=task": (5, 6, 4, 5, 6, 4, 5, 3),
                "full": (9, 9, 9, 10, 8, 8, 7, 7),
            }.items()
        ):
            shifted = [count + (seed if j % 3 == 0 else 0) for j, count in enumerate(right)]
            parameters = {"trainable": (24_576, 0, 1_000_000)[i], "stored": 1, "base": 1_000_000}
            made.append(
                keep(
                    out, label, seed, right=shifted, source=f"{EVIL} place {{}}",
                    parameters=parameters, bytes=400 * (i + 1),
                    latency={"first_token": 0.01, "token": 0.002 * (i + 1)},
                )
            )  # fmt: skip
    task = made[0].task.model_dump()
    error = f"no memory {EVIL}"
    failed = record("ia3", status="failed", error=error, scores={}, loss={}, task=task)
    failed.write(out / "ia3" / "seed-0")
    return [*made, failed]
