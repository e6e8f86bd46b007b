"""Records made by hand."""

from __future__ import annotations

from typing import Any

from peftlab.records.record import Record


def record(label: str = "lora", **changes: Any) -> Record:
    """A finished run with round numbers; `changes` replace fields."""
    values: dict[str, Any] = {
        "method": label.partition(":")[0],
        "label": label,
        "settings": {},
        "seed": 0,
        "status": "finished",
        "config_hash": "0" * 64,
        "task": {
            "name": "t", "fingerprint": "f", "train_rows": 9, "test_rows": 5, "metrics": ["rougeL"],
        },
        "model": {"name": "m", "fingerprint": "x", "parameters": 1_000_000},
        "train": {"steps": 10, "epochs": None, "batch_size": 4, "accumulation": 1},
        "parameters": {"trainable": 5000, "stored": 5000, "base": 1_000_000},
        "seconds": {"train": 12.5, "step": 0.5, "evaluate": 1.0, "generate": 2.0},
        "peak_memory": {"train": 300 * 2**20, "evaluate": 1, "generate": 1, "gauge": "sampled"},
        "loss": {"train": 1.0, "validation": 1.5, "test": 2.0},
        "scores": {"rougeL": 0.5},
        "context_tokens": 3.0,
    }  # fmt: skip
    return Record.model_validate({**values, **changes})
