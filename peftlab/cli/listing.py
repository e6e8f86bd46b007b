"""`peftlab methods` and `peftlab tasks`: what there is. Only `tasks show` loads anything slow."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftlab.bases.scale import SEARCHED, Scale
from peftlab.cli import options as shared
from peftlab.errors import InputError, nearest
from peftlab.printable import echo, json_text, terminal

if TYPE_CHECKING:
    from peftlab.bases.shapes import ModelShape
    from peftlab.methods import Method

_PREVIEWED = 2000  # rows of a large file that are shown while somebody waits

Format = Annotated[str, typer.Option(help="table or json.")]


def methods(
    names: Annotated[
        str, typer.Argument(help="Methods with settings (lora:rank=4); all of them by default.")
    ] = "",
    model: Annotated[
        str | None,
        typer.Option(
            help="Count parameters for: demo, a folder with config.json, a hub id, a GGUF file."
        ),
    ] = None,
    share: Annotated[
        float | None, typer.Option(help="Size every method to this share of the base: 0.001.")
    ] = None,
    format: Format = "table",
) -> None:
    """List the methods with their settings, and what they train on a given model."""
    from peftlab.methods import REGISTRY, parse

    check_format(format)
    if share is not None and model is None:
        raise InputError("--share needs --model: a share of which base?")
    chosen = parse(names) if names else [REGISTRY[name]() for name in sorted(REGISTRY)]
    shape = shape_of(model) if model else None
    rows = [_described(method, shape, share) for method in chosen]
    if format == "json":
        echo(json_text(rows))
    else:
        _print_methods(rows, shape, model)


def shape_of(name: str) -> ModelShape:
    """The shape of a model from its configuration alone.

    Raises:
        InputError: no folder with config.json, GGUF file or model whose configuration is known.
    """
    from peftlab.bases import layouts
    from peftlab.bases.known_models import configuration
    from peftlab.bases.names import located
    from peftlab.bases.shapes import ModelShape

    config = configuration(located(name))
    return ModelShape.read(config, layouts.parameter_shapes(config))


def _described(method: Method, shape: ModelShape | None, share: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "method": method.name,
        "about": (inspect.getdoc(type(method)) or "").splitlines()[0],
        "settings": method.settings(),
        "learning_rate": method.rate_on(_scale(shape)) if method.trains else None,
    }
    if shape is None:
        return row
    try:
        if share is not None and method.size is not None:
            method = method.with_share(shape, share)
            row["settings"] = method.settings()
        method.check(shape)
        count = method.count(shape)
    except InputError as error:
        return {**row, "trainable": None, "stored": None, "share": None, "reason": str(error)}
    stored = count.stored / shape.size
    return {**row, "trainable": count.trainable, "stored": count.stored, "share": stored}


def _scale(shape: ModelShape | None) -> Scale:
    """The base's as far as its configuration tells: the embeddings' spread is in its weights."""
    return SEARCHED if shape is None else replace(SEARCHED, hidden=shape.hidden)


def _print_methods(rows: list[dict[str, Any]], shape: ModelShape | None, model: str | None) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("method", no_wrap=True)
    if shape is not None:
        echo(f"{model}: {shape.size:,} parameters, {shape.layers} blocks of {shape.hidden}")
        for title in ("trainable", "stored", "stored %"):
            table.add_column(title, justify="right", no_wrap=True)
    table.add_column("settings", overflow="fold")
    if shape is None:
        table.add_column("what it is")
    for row in rows:
        settings = ", ".join(f"{key}={_typed(value)}" for key, value in row["settings"].items())
        table.add_row(row["method"], *_counts(row, shape), row.get("reason") or settings, *(
            [] if shape else [row["about"]]
        ))  # fmt: skip
    terminal().print(table)


def _counts(row: dict[str, Any], shape: ModelShape | None) -> list[str]:
    if shape is None:
        return []
    if row["trainable"] is None:
        return ["–", "–", "–"]
    return [f"{row['trainable']:,}", f"{row['stored']:,}", f"{100 * row['share']:.3g}%"]


def _typed(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def tasks(context: typer.Context, format: Format = "table") -> None:
    """List the tasks that have a name."""
    if context.invoked_subcommand is not None:
        return
    from dataclasses import asdict

    from peftlab.tasks import catalogue

    check_format(format)
    entries = catalogue()
    if format == "json":
        echo(json_text([asdict(entry) for entry in entries]))
        return
    width = max(len(entry.name) for entry in entries)
    for entry in entries:
        echo(f"{entry.name:<{width}}  {entry.kind:<6}  {entry.title}")
    echo("\nOwn data: --task FILE or FOLDER (train, validation, test); hub: --task owner/name")


def show_options() -> shared.Entries:
    """How the task is loaded."""
    from peftlab.comparison.settings import task_entries

    return {name: task_entries()[name] for name in ("limit", "task_option")}


def show(
    task: Annotated[str, typer.Argument(help="A task's name, a file, a folder, or a hub id.")],
    given: Mapping[str, Any],
    model: shared.Model = "demo",
    whole: Annotated[
        bool, typer.Option(help="Read all rows of a large file, not just the first 2,000.")
    ] = False,
) -> None:
    """Show a task: facts, rows as the model gets them, lengths, and what would be cut."""
    from peftlab.comparison.resolve import the_task
    from peftlab.tasks import describe
    from peftlab.tasks.files import are_large

    if not whole and are_large(Path(task).expanduser()):
        typed = list(given.get("task_option") or ())
        if not any(one.partition("=")[0] == "preview" for one in typed):
            given = {**given, "task_option": [f"preview={_PREVIEWED}", *typed]}
    loaded = the_task({**given, "task": task}, shared.flag(show_options()))
    echo(describe(loaded, tokenizer_of(model), shape_of(model).context), nl=False)


def tokenizer_of(name: str) -> Any:
    """The tokenizer of a base, which knows where its replies end.

    Raises:
        InputError: there is none.
    """
    from peftlab.bases.names import located
    from peftlab.bases.pretrained import read_tokenizer, reply_ends
    from peftlab.tasks.tokens import let_end

    path = located(name)
    try:
        tokenizer = read_tokenizer(path)
        let_end(tokenizer, reply_ends(path))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"cannot load a tokenizer from {path!r}: {reason}") from error
    return tokenizer


def check_format(format: str) -> None:
    known = ("table", "json")
    if format not in known:
        raise InputError(
            f"there is no format {format!r}; there are {', '.join(known)}.{nearest(format, known)}"
        )


def families() -> None:
    """Check which decoder families of transformers can be edited, on tiny random models."""
    from peftlab.frozen.families import compatibilities

    for verdict in compatibilities():
        if verdict.refused is not None:
            echo(f"{verdict.family:<14} refused: {verdict.refused}")
        else:
            gaps = "; ".join(f"not {site}: {why}" for site, why in verdict.gaps.items())
            echo(f"{verdict.family:<14} {gaps or 'every site works'}")
