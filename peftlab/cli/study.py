"""`peftlab study NAME`: a figure of the literature on the user's own base and task."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftlab.cli import options as shared
from peftlab.cli.compare import DEMO_STEPS, DEMO_TEST, STEPS, seeds_of
from peftlab.errors import InputError
from peftlab.printable import echo
from peftlab.study import LINES, find

if TYPE_CHECKING:
    from peftlab.comparison.plan import Run
    from peftlab.comparison.profile import Survey
    from peftlab.records.record import Record
    from peftlab.study.base import Study
    from peftlab.study.result import Result
    from peftlab.tasks import Task

HELP = "Make one figure of the literature, on the demo or on your own base and tasks.\n\n" + (
    "\b\n" + "\n".join(f"{name:<12} {line}" for name, line in LINES.items())
)
OUT = Path("runs/studies")


def study(
    name: Annotated[str, typer.Argument(help="One of those above.", show_default=False)],
    model: Annotated[
        list[str] | None,
        typer.Option(help="The frozen base: demo, a folder or a hub id; several for scale."),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="As of compare; give it again for more tasks.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="Two to draw: rougeL,bleu; `loss` is the test loss, drawn by default."),
    ] = None,
    values: Annotated[
        str | None, typer.Option(help="Other places: 1,4,16 (lengths, ranks, examples …).")
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Other methods, for studies that compare some.")
    ] = "",
    wording: Annotated[
        list[str] | None, typer.Option(help="For instruction: a wording; give it again for more.")
    ] = None,
    general_text: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="For forgetting: a text file, instead of the demo's."),
    ] = None,
    search: Annotated[int, typer.Option(help="Learning rates tried for each variant.")] = 0,
    budget: shared.Budget = None,
    steps: shared.Steps = None,
    epochs: shared.Epochs = None,
    batch_size: shared.BatchSize = 16,
    max_length: shared.MaxLength = None,
    seeds: Annotated[str, typer.Option(help="With commas: 0,1,2.")] = "0",
    limit: shared.Limit = None,
    test_limit: shared.TestLimit = None,
    task_option: shared.TaskOptions = [],  # noqa: B006 - typer copies it
    out: Annotated[
        Path,
        typer.Option(help="Folder of all studies that may share runs; each has its own in it."),
    ] = OUT,
    device: shared.Device = "auto",
) -> None:
    """Make a study; what it is called and does stands in `HELP`."""
    from peftlab.comparison import run as comparison
    from peftlab.demo.world import demo_tasks
    from peftlab.methods import parse
    from peftlab.study import look
    from peftlab.study.base import Setting
    from peftlab.study.page import write
    from peftlab.study.run import carry_out

    found = find(name)
    comparison.warm_up()
    names = tuple(task) if task else found.tasks
    demo = set(names) <= demo_tasks().keys()
    if demo and limit is None and test_limit is None:
        test_limit = DEMO_TEST
    drawn = _drawn(metrics)
    tasks = tuple(_task(one, task_option, limit, test_limit, drawn) for one in names)
    bases = tuple(model) if model else found.bases(echo)
    setting = Setting(
        models=bases,
        shape=look.shape(bases[0]),
        tasks=tasks,
        config=shared.train_config(
            DEMO_STEPS if demo else STEPS,
            budget=budget,
            steps=steps,
            epochs=epochs,
            batch_size=batch_size,
            max_length=max_length,
        ),
        seeds=seeds_of(seeds),
        metrics=drawn or _usual(tasks),
        out=out,
        device=shared.device_name(device),
        search=search,
        values=_numbers(values),
        methods=tuple(parse(methods)) if methods else (),
        words=tuple(wording or ()),
        general_text=_general_text(found, general_text),
    )
    command = shlex.join(["peftlab", *sys.argv[1:]])
    result = carry_out(found, setting, Told(), command)
    _tell(result, write(out / found.name, result))


def _task(
    name: str,
    options: list[str],
    limit: int | None,
    test_limit: int | None,
    drawn: tuple[str, ...],
) -> Task:
    """The task, scored with its own metrics and with those that are drawn."""
    from dataclasses import replace

    from peftlab.metrics import metric_spec
    from peftlab.study.words import LOSS

    task = shared.load_task(name, options, limit=limit, test_limit=test_limit)
    wanted = [metric for metric in drawn if metric != LOSS]
    for metric in wanted:
        metric_spec(metric)
    return replace(task, metrics=tuple(dict.fromkeys((*task.metrics, *wanted))))


def _drawn(text: str | None) -> tuple[str, ...]:
    from peftlab.metrics import split_names

    return tuple(dict.fromkeys(split_names(text))) if text else ()


def _usual(tasks: tuple[Task, ...]) -> tuple[str, ...]:
    """The main metric of the first task, and the test loss."""
    from peftlab.study.words import LOSS
    from peftlab.verdict.outcome import main_metric

    return (main_metric(dict.fromkeys(tasks[0].metrics, 0.0)), LOSS)


def _general_text(study: Study, given: str | None) -> tuple[str, ...]:
    if given is None and "general_text" not in study.takes:
        return ()
    return shared.general_documents(given or "demo")


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise InputError(f"--values {text!r}: numbers with commas were expected: 1,4,16") from error


class Told:
    """Prints a line for each comparison that a study makes, and for each run that ends."""

    def __init__(self) -> None:
        self.left = 0

    def planned(self, runs: list[Run], survey: Survey, finished: int) -> None:
        """How much there is to do."""
        first = runs[0]
        kept = f", {finished} of them finished already" if finished else ""
        seeds = "s" * (len(runs) != 1)
        echo(
            f"{first.task.name} ({len(first.task.train):,} training examples) with "
            f"{survey.base.name}: {len(runs)} run{seeds}{kept}"
        )
        self.left = len(runs) - finished

    def started(self, run: Run) -> None: ...
    def heard(self, word: str, *values: Any) -> None: ...

    def ended(self, run: Run, record: Record) -> None:
        """What came out."""
        self.left -= 1
        if record.status == "finished":
            scores = ", ".join(f"{key} {value:.3f}" for key, value in record.scores.items())
            said = f"test loss {record.loss.test:.3f}, {scores} ({record.seconds.train:.0f} s)"
        else:
            said = f"{record.status}: {record.error}"
        label = " ".join(run.label.split())
        echo(f"  {label}, seed {run.seed}: {said}; {self.left} to go")

    def again(self, runs: list[Run]) -> None: ...

    def measuring(self, label: str) -> None:
        """Something besides the record."""
        echo(f"  {label}: measuring")


def _tell(result: Result, files: list[Path]) -> None:
    echo()
    for sentence in [*result.words, *filter(None, (result.note, result.caution))]:
        echo(sentence)
    for problem in result.problems:
        echo(f"note: {problem}", err=True)
    echo("Written: " + ", ".join(map(str, files)))
