"""Rows in the chat template of an instruction model against the bare ones, the rest the same.

    python -m bench.framings --model FOLDER --data FOLDER --steps 8

`--data` holds a folder for each recipe (dialogsum, scitldr), its rows in columns source and
targets. For each recipe and framing: the base asked as it is by default (`hard_prompt`), then LoRA
after a few steps on the same rows; the loss per target token and ROUGE-L, on the first test rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from peftlab import evaluation
from peftlab.frozen import named
from peftlab.frozen.model import FrozenLM
from peftlab.methods import parse_one
from peftlab.printable import echo
from peftlab.tasks import Task
from peftlab.tasks.fit import fitted
from peftlab.training import TrainConfig, train

TASKS = ("dialogsum", "scitldr")
COLUMNS = {"source": "source", "target": "targets"}
HEAD = "| task | rows | method | loss | ROUGE-L | tokens of a reply |\n|---|---|---|---:|---:|---:|"


def main() -> None:
    """Print the table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rows", type=int, default=16, help="of test")
    parser.add_argument("--replies", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=400)
    given = parser.parse_args()
    config = TrainConfig(
        steps=given.steps,
        batch_size=given.batch_size,
        max_length=given.max_length,
        validation_limit=2,
        evaluate_every=given.steps,
    )
    model = named.load(given.model, "cpu")
    echo(HEAD)
    for name in TASKS:
        for chat in (False, True):
            options = {"data": given.data / name, "columns": COLUMNS, "test_limit": given.rows}
            task = fitted(Task.load(name, chat=chat, **options), model.tokenizer)
            for line in measured(model, task, config, given.replies):
                echo(f"| {name} | {'chat' if chat else 'bare'} | {line} |")


def measured(model: FrozenLM, task: Task, config: TrainConfig, replies: int) -> Iterator[str]:
    """A method, its loss on test, ROUGE-L of its replies and their mean length, each in a cell."""
    few = replace(task, max_new_tokens=48)
    for spec in ("hard_prompt", "lora"):
        made = train(model, parse_one(spec), task, config).adaptation
        length = config.max_length
        adapted = evaluation.AdaptedLM(model, made)
        loss = evaluation.split_loss(adapted, task, "test", max_length=length).loss
        found = evaluation.evaluate(
            adapted, few, metrics=("rougeL",), limit=replies, max_length=length
        )
        tokens = sum(len(reply.tokens) for reply in found.replies) / len(found.replies)
        yield f"{spec} | {loss:.3f} | {found.scores.corpus['rougeL']:.3f} | {tokens:.0f}"


if __name__ == "__main__":
    main()
