"""Commands from declared options: flags, help and checks come from the dataclasses' own fields."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from peftlab.cli.bases import AdapterBaseDtype as AdapterBaseDtype
from peftlab.cli.bases import BaseDtype as BaseDtype
from peftlab.cli.bases import ShardBase as ShardBase
from peftlab.cli.bases import load_base as load_base
from peftlab.cli.bases import load_base_together as load_base_together
from peftlab.cli.bases import one_format as one_format
from peftlab.cli.bases import open_adapters as open_adapters
from peftlab.cli.bases import refuse_its_own as refuse_its_own
from peftlab.options import DEVICE, MODEL, TASK, Entry
from peftlab.printable import echo

Entries = Mapping[str, Entry]
Model = Annotated[str, typer.Option(help=MODEL)]
TaskName = Annotated[str, typer.Option("--task", help=TASK)]
Device = Annotated[str, typer.Option(help=DEVICE)]
UsageError: Any = typer.BadParameter.__bases__[0]


class Once(TyperCommand):
    """A command that refuses a flag that is given twice; the first would have had no effect."""

    def make_parser(self, ctx: Any) -> Any:
        """The parser of arguments."""
        parser = super().make_parser(ctx)
        parse = parser.parse_args

        def once(args: list[str]) -> Any:
            parsed = parse(args)
            order = [one for one in parsed[2] if not getattr(one, "multiple", False)]
            for one in order:
                if order.count(one) > 1 and one.param_type_name == "option":
                    raise UsageError(f"{one.opts[0]} is given twice; once was expected")
            return parsed

        parser.parse_args = once  # type: ignore[method-assign]
        return parser


def with_options(function: Callable[..., None], options: Callable[[], Entries]) -> Any:
    """A command that has declared options besides its own parameters.

    The function gets what was typed of them as `given`, by name, as text or truth value.
    """
    declared = options()

    def command(**values: Any) -> None:
        typed = {name: values.pop(name) for name in declared}
        given = {name: value for name, value in typed.items() if value not in (None, [])}
        function(**values, given=given)

    own = inspect.signature(function, eval_str=True).parameters.values()
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name != "given"]
    parameters += [_parameter(entry) for entry in declared.values()]
    command.__doc__, command.__name__ = function.__doc__, function.__name__
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def _parameter(entry: Entry) -> inspect.Parameter:
    """An option of the command line; its value is checked by what declares it."""
    kind: Any = (
        bool | None if entry.is_switch else list[str] if entry.option.several else str | None
    )
    flags = [f"{f}/--no-{f[2:]}" for f in entry.flags] if entry.is_switch else entry.flags
    told = "" if entry.default in (MISSING, None, "", (), False) else _shown(entry.default)
    text = f"{entry.option.help}{told and f' [{told}]'}"
    option = typer.Option(
        *flags, help=text, metavar=None if entry.is_switch else entry.metavar, show_default=False
    )
    return inspect.Parameter(
        entry.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=[] if entry.option.several else None,
        annotation=Annotated[kind, option],
    )


def _shown(default: Any) -> str:
    if default is True:
        return "on"
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def typeable(entries: Entries) -> dict[str, Entry]:
    """Those that have a flag."""
    return {name: entry for name, entry in entries.items() if entry.flags}


def flag(entries: Entries) -> Callable[[str], str]:
    """How options are called on the command line."""
    return lambda name: entries[name].flags[0] if name in entries else name


def say(notes: Sequence[str]) -> None:
    """Tell what loading has decided, beside what a command prints."""
    for note in notes:
        echo(note, err=True)


def where() -> Entries:
    """Which base, on which device, and who is told."""
    from peftlab.comparison.settings import ComparisonConfig
    from peftlab.options import entries

    return {name: entries(ComparisonConfig)[name] for name in ("model", "device", "track")}
