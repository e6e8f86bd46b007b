"""Training on every reply of a conversation against its last one, on the same conversations.

    python -m bench.conversations --model FOLDER --exchanges 4 --steps 4 8 16

Conversations are made from the demo's world: each exchange asks one of its sources, and is answered
in its style. Both ways train LoRA on the same rows in the same order; after so many steps the table
shows the tokens read and the loss of last replies that nobody has trained on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from peftlab.demo.world import examples
from peftlab.evaluation import AdaptedLM, split_loss
from peftlab.frozen import named
from peftlab.frozen.model import FrozenLM
from peftlab.methods import parse_one
from peftlab.methods.hard_prompt import unadapted
from peftlab.printable import echo
from peftlab.tasks import Task
from peftlab.tasks.fit import fitted
from peftlab.training import TrainConfig, train

_LOSSES = ("last", "replies")


def conversations(split: str, count: int, exchanges: int) -> Iterator[str]:
    """Lines of a file."""
    pairs = examples(split, count * exchanges)
    for start in range(0, len(pairs), exchanges):
        messages = []
        for pair in pairs[start : start + exchanges]:
            messages.append({"role": "user", "content": pair["source"]})
            messages.append({"role": "assistant", "content": pair["target"]})
        yield json.dumps({"messages": messages}) + "\n"


def measured(
    model: FrozenLM, folder: Path, loss: str, steps: int, batch_size: int, method: str
) -> tuple[int, float]:
    """Tokens that were read, and the loss of last replies."""
    task = fitted(Task.load(folder, loss=loss), model.tokenizer)
    config = TrainConfig(
        steps=steps, batch_size=batch_size, evaluate_every=steps, validation_limit=2
    )
    trained = train(model, parse_one(method), task, config)
    last = fitted(Task.load(folder), model.tokenizer)
    adapted = AdaptedLM(model, trained.adaptation)
    return trained.tokens, split_loss(adapted, last, "test").loss


def main() -> None:
    """Print the table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", required=True)
    parser.add_argument("--exchanges", type=int, default=4)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--method", default="lora")
    given = parser.parse_args()
    model = named.load(given.model, "cpu")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for split, count in (("train", 100), ("validation", 8), ("test", 24)):
            lines = conversations(split, count, given.exchanges)
            (folder / f"{split}.jsonl").write_text("".join(lines))
        task = fitted(Task.load(folder), model.tokenizer)
        bare = replace(unadapted(model), template=task.template)
        before = split_loss(AdaptedLM(model, bare), task, "test").loss
        echo(f"The base's loss of last replies: {before:.3f}")
        echo("| trained on | steps | tokens read | loss of last replies |\n|---|---:|---:|---:|")
        for steps in given.steps:
            for loss in _LOSSES:
                tokens, found = measured(model, folder, loss, steps, given.batch_size, given.method)
                echo(f"| {loss} | {steps} | {tokens:,} | {found:.3f} |")


if __name__ == "__main__":
    main()
