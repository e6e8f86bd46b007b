"""What `peftlab convert` keeps: pairs of methods, beside students that were trained directly.

    python -m bench.conversions --task FOLDER --model FOLDER --teachers full --students lora:rank=16

Teachers are trained on the targets; of each, a student of every method learns for `--steps`, and
one of the same method and steps learns on the targets. Divergences from the teacher and scores are
of the test split. What is finished in `--out` is kept; a line is printed as soon as it is known.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from peftlab import api
from peftlab.conversion import convert
from peftlab.conversion.fidelity import Fidelity, measured
from peftlab.files import make_folder
from peftlab.frozen import named
from peftlab.frozen.model import FrozenLM
from peftlab.methods import Method, parse, parse_one
from peftlab.methods.adaptation import Adaptation
from peftlab.printable import echo
from peftlab.tasks import Task
from peftlab.training import TrainConfig, train
from peftlab.training.teacher import Teacher

HEAD = (
    "| teacher | student | nats a token | directly | score | directly | its teacher |"
    " base | left out |\n|---|---|---:|---:|---:|---:|---:|---:|---:|"
)
BASE = "hard_prompt:instruction=none"


def main() -> None:
    """Train, convert and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--task", default="demo")
    parser.add_argument("--limit", type=int, help="of training and validation rows")
    parser.add_argument("--test-limit", type=int, default=100)
    parser.add_argument("--teachers", required=True, help="methods, as peftlab compare takes them")
    parser.add_argument("--students", required=True)
    parser.add_argument("--teacher-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/conversions"))
    given = parser.parse_args()
    model = named.load(given.model, "cpu")
    options = {n: getattr(given, n) for n in ("limit", "test_limit", "max_new_tokens")}
    task = api.load_task(given.task, **{n: v for n, v in options.items() if v is not None})
    bench = Bench(model, task, given.out, given.batch_size)
    echo(HEAD)
    for taught in parse(given.teachers):
        teacher = bench.trained(taught, given.teacher_steps)
        for method in parse(given.students):
            echo(bench.line(teacher, method, given.steps))


class Bench:
    """A base and a task, and what was trained on them."""

    def __init__(self, model: FrozenLM, task: Task, out: Path, batch_size: int) -> None:
        self.model, self.task, self.out, self.batch_size = model, task, out, batch_size

    def config(self, steps: int) -> TrainConfig:
        """Alike for all but for the steps."""
        every = max(1, steps // 4)
        return TrainConfig(
            steps=steps, batch_size=self.batch_size, validation_limit=64, evaluate_every=every
        )

    def trained(self, method: Method, steps: int) -> Adaptation:
        """On the targets; a hard prompt as it is."""
        folder = self.out / f"{method.label} {steps}".replace("/", "-")
        if not (folder / "adapter").exists():
            make_folder(folder)
            made = train(self.model, method, self.task, self.config(steps), folder=folder)
            made.adaptation.save(folder / "adapter")
        return api.load_adaptation(folder / "adapter", self.model)

    @cached_property
    def base(self) -> Mapping[str, float]:
        """Scores of the bare base."""
        bare = self.trained(parse_one(BASE), 1)
        return api.evaluate(self.model, bare, self.task, batch_size=self.batch_size).scores.corpus

    def line(self, teacher: Adaptation, method: Method, steps: int) -> str:
        """A row of the table."""
        direct = self._fidelity(teacher, self.trained(method, steps))
        made = convert(self.model, teacher, method, self.task, self.config(steps))
        found, left = made.fidelity, made.left_out
        scores = (found.student, direct.student, found.teacher)
        cells = [
            teacher.method.label,
            method.label,
            f"{found.divergence:.4f}",
            f"{direct.divergence:.4f}",
            *(f"{side.scores[found.metric]:.3f}" for side in scores),
            f"{self.base[found.metric]:.3f}",
            "–" if left is None else f"{left.beside:.0%} + {left.within:.0%}",
        ]
        return f"| {' | '.join(cells)} |"

    def _fidelity(self, teacher: Adaptation, student: Adaptation) -> Fidelity:
        taught = Teacher(self.model, teacher)
        return measured(taught, student, self.task, batch_size=self.batch_size)


if __name__ == "__main__":
    main()
