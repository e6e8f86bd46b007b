"""`peftlab init`: from one's own file to a comparison's settings, with what was found in it."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftlab.cli import options as shared
from peftlab.errors import InputError
from peftlab.printable import echo, printable

if TYPE_CHECKING:
    from peftlab.tasks import Task
    from peftlab.tasks.overview import Held

_FIRST = 20_000  # rows of a file that are looked at
_EPOCHS, _BATCH, _FEWEST, _MOST = 3, 8, 50, 2000  # what is suggested for a first comparison
_METHODS = (
    ("hard_prompt", "the base itself, asked in words: what the others have to beat"),
    ("prompt_tuning", "vectors before the input: kilobytes"),
    ("lora", "low-rank changes of weights; what most engines take"),
    ("bottleneck", "small layers between the base's"),
    ("last_k", "the last blocks alone"),
)
_MORE = (
    ("lora:begin=cue", "sources are read once for all such methods, seeds and epochs"),
    ("hard_prompt:optimise=propose", "instructions that the base writes, by the metric"),
    ("full", "every weight: the most memory"),
)


def init(
    task: Annotated[Path, typer.Argument(help="Your file or folder of rows.")],
    model: shared.Model = "demo",
    out: Annotated[
        Path | None, typer.Option(help="The file to write; by default named after the task, .yaml.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Look at your own rows, and write a commented file for `peftlab compare --config`."""
    from peftlab.cli.listing import shape_of, tokenizer_of
    from peftlab.files import write_text
    from peftlab.tasks import Task
    from peftlab.tasks.fit import fitted
    from peftlab.tasks.overview import check_own, held, overview

    check_own(task.expanduser())
    place = out or Path(f"{task.stem if task.is_file() else task.resolve().name}.yaml")
    if place.exists() and not force:
        raise InputError(f"{place} exists: choose another --out, or replace it with --force")
    known = held(task.expanduser(), _FIRST)
    loaded = Task.load(task, preview=_FIRST)
    tokenizer = tokenizer_of(model)
    found = overview(fitted(loaded, tokenizer), tokenizer, shape_of(model).context)
    write_text(place, written(task, model, known, loaded, found))
    for line in found:
        echo(printable(line))
    echo(f"\nWritten to {place}. Read it, change what you know better, and run:")
    echo(f"  peftlab tasks show {task} --model {model}     # rows as the model gets them")
    echo(f"  peftlab compare --config {place}")


def written(task: Path, model: str, known: Held, loaded: Task, found: list[str]) -> str:
    """The text of the file."""
    from peftlab.metrics import main_metric

    steps = min(_MOST, max(_FEWEST, -(-_EPOCHS * len(loaded.pairs("train")) // _BATCH)))
    lines = [
        f"# Written by `peftlab init` on {date.today()}; `compare --config FILE` runs it.",
        "# Flags go before what stands here; every option: peftlab compare --help",
        "#",
        "# What was found:",
        *(f"#   {printable(line)}" for line in found),
        "",
        f"task: {_value(str(task))}",
        f"model: {_value(model)}  # demo, a folder of transformers, a hub id, or a GGUF file",
    ]
    if known.source is not None:
        lines += [
            "task_option:",
            f"  # The columns are {', '.join(map(_value, known.columns))}.",
            f"  source: {_value(known.source)}  # several are joined: title+text",
            f"  target: {_value(known.target)}",
            "  # cue: 'Summary:'  # words before the answer, of a base that knows no chats",
            "  # instruction: …   # the request in words, for hard prompts",
        ]
    lines += [
        f"metrics: {_value(list(loaded.metrics))}  # ranked by {main_metric(loaded.metrics)}",
        "methods:",
        *(f"  - {name}  # {said}" for name, said in _METHODS),
        *(f"  # - {_value(name)}  # {said}" for name, said in _MORE),
        f"steps: {steps}  # {_EPOCHS} epochs of batches, but {_FEWEST} to {_MOST:,}",
        f"batch_size: {_BATCH}",
        "seeds: 1  # three let differences be told from chance",
        "# within: 1h  # in the place of steps and seeds: the best verdict that fits",
        "",
    ]
    return "\n".join(lines)


def _value(value: Any) -> str:
    """A value on one line of YAML."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1 << 20)
    return str(text).removesuffix("\n").removesuffix("...").strip()
