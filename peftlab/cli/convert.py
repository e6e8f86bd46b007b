"""`peftlab convert`: an adaptation into one of another method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from peftlab.cli import learn
from peftlab.cli import options as shared
from peftlab.errors import InputError
from peftlab.files import make_folder, read_json, write_json
from peftlab.printable import echo
from peftlab.records import folders

if TYPE_CHECKING:
    from peftlab.conversion import Converted
    from peftlab.conversion.distill import Replies
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation
    from peftlab.methods.base import Method
    from peftlab.tasks import Task
    from peftlab.training import TrainConfig

_DEMO = "demo"


def options() -> shared.Entries:
    """Those of a training, but for its base, which is the adapter's."""
    from peftlab.comparison.settings import task_entries

    known = {**learn.train_options(), **shared.typeable(task_entries())}
    return {name: entry for name, entry in known.items() if name not in ("model", "track")}


def convert(
    given: Mapping[str, Any],
    adapter: Annotated[Path, typer.Argument(help="The folder of an adapter or of its run.")],
    to: Annotated[str, typer.Option(help="The method, for example lora:rank=16.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    model: Annotated[str | None, typer.Option(help="By default the adapter's own base.")] = None,
    base_dtype: shared.AdapterBaseDtype = None,
    replies: Annotated[
        Literal["targets", "teacher"],
        typer.Option(help="Learn on the task's targets, or on replies that the adapter samples."),
    ] = "targets",
) -> None:
    """Make an adaptation of another method that does what this one does, and say how close it is.

    The new one learns this one's whole distribution at the replies to --task's training sources, in
    100 steps by default; --steps 0 takes none, where a change of weights becomes a lora.
    """
    from peftlab.methods import parse_one

    shared.refuse_its_own(adapter, out)
    given = {"task": _own_task(adapter), **given} if "task" not in given else given
    method, wanted = parse_one(to), asked(given)
    base, (teacher,) = shared.open_adapters(
        [adapter], model, given.get("device", "auto"), base_dtype
    )
    into(base, teacher, method, wanted, out, replies)
    echo(f"Saved in {out / folders.ADAPTER}; try: peftlab generate --adapter {out} --input TEXT")


class Asked(NamedTuple):
    """How an adaptation is to be converted, and on which task."""

    config: TrainConfig
    task: Task
    fit_only: bool


def asked(given: Mapping[str, Any]) -> Asked:
    """What options come to.

    Raises:
        InputError: an option that cannot be used.
    """
    from peftlab.comparison.resolve import config_of, the_task
    from peftlab.conversion import STEPS

    called, fit_only = shared.flag(options()), given.get("steps") == "0"
    # Beside another budget 1 is as much refused as 0.
    config = config_of({**given, "steps": "1"} if fit_only else given, STEPS, called)
    return Asked(config, the_task(given, called), fit_only)


def into(
    base: FrozenLM,
    teacher: Adaptation,
    method: Method,
    wanted: Asked,
    out: Path,
    replies: Replies = "targets",
) -> Converted:
    """Convert an adaptation as it was asked, write result and fidelity, and tell of both.

    Raises:
        InputError: as of `peftlab.conversion.convert`.
    """
    from peftlab.cli.dashboard import live
    from peftlab.conversion import convert as converted
    from peftlab.conversion import in_its_template

    make_folder(out)
    config, loaded, fit_only = wanted
    if loaded.template.text != teacher.template.text:
        echo(f"Rows stand in the adapter's own template: {teacher.template.text!r}", err=True)
    loaded = in_its_template(loaded, teacher, base)
    shared.say(loaded.notes)
    made = converted(
        base,
        teacher,
        method,
        loaded,
        config,
        fit_only=fit_only,
        replies=replies,
        folder=out,
        display=live(base.device),
    )
    write_json(out / "fidelity.json", made.fidelity.values())
    _tell(made, fit_only)
    return made


def _own_task(adapter: Path) -> str:
    """The task of the adapter's run, where that is one that everybody has.

    Raises:
        InputError: it is another, or not known.
    """
    run = adapter.parent if adapter.name == folders.ADAPTER else adapter
    noted, beside = run / folders.CONFIG, run.parent.parent / folders.COMPARISON
    name = read_json(noted).get("task", {}).get("name") if noted.is_file() else None
    if name == _DEMO:
        return _DEMO
    command = read_json(beside).get("command") if beside.is_file() else None
    raise InputError(
        "say with --task on which task's sources the new adaptation is to learn, as the adapter's "
        f"training was told{f': its comparison was `{command}`' if command else ''}"
    )


def _tell(made: Converted, fit_only: bool) -> None:
    left, name = made.left_out, made.adaptation.method.name
    if left is not None:
        echo(
            f"Of the change {left.beside:.1%} is where {name} does not reach and {left.within:.1%} "
            f"beyond its rank (squared norms){'' if fit_only else ', before training'}"
        )
    if not made.steps and not fit_only:
        echo("No step brought it closer than its start, which is kept: lower --learning-rate")
    if made.truncated:
        echo(f"{made.truncated:,} of the training rows that were used lost source tokens")
    if made.skipped:
        echo(f"{made.skipped:,} training rows were left out: they were too long")
    if made.cut:
        echo(f"{made.cut:,} sources were cut further for the teacher, whose prompt left less room")
    for line in made.fidelity.told():
        echo(line)
