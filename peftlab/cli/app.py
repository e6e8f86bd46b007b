"""`peftlab`: its commands, and its exit codes: 2 after one clear line, 130 after Ctrl-C."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from peftlab.cli import (
    combine,
    compare,
    convert,
    doctor,
    estimate,
    init,
    learn,
    listing,
    report,
    serve,
    share,
    study,
)
from peftlab.cli import options as shared
from peftlab.errors import InputError, PeftlabError
from peftlab.files import what_is_full
from peftlab.printable import echo
from peftlab.processes import expected, leave
from peftlab.version import __version__


class _CtrlC(Exception):
    """Ctrl-C, under a name that typer does not turn into its own exit code."""


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as pressed:
            raise _CtrlC from pressed


_HELP = "Adapt one frozen language model in many ways, compare them fairly, use them together."
_ALONE = ("combine", "compare", "convert", "estimate", "evaluate", "generate", "serve", "study")

Command = Callable[..., None]
_COMMANDS: dict[str, tuple[Command, Callable[[], shared.Entries]]] = {
    "compare": (compare.compare, compare.options),
    "study": (study.study, study.options),
    "estimate": (estimate.estimate, estimate.options),
    "report": (report.report, dict),
    "train": (learn.train, learn.train_options),
    "evaluate": (learn.evaluate, learn.evaluate_options),
    "generate": (learn.generate, learn.generate_options),
    "serve": (serve.serve, dict),
    "convert": (convert.convert, convert.options),
    "combine": (combine.combine, dict),
    "export": (share.export, convert.options),
    "inspect": (share.inspect, dict),
    "check-method": (share.check_method, dict),
    "families": (listing.families, dict),
    "methods": (listing.methods, dict),
    "init": (init.init, dict),
    "doctor": (doctor.doctor, dict),
}


def app(wanted: str | None = None) -> typer.Typer:
    """The command line.

    Args:
        wanted: the one command whose options are read from where they are declared, which takes
            longer than all else that `--help` needs; None reads all.
    """
    made = typer.Typer(
        cls=_Commands,
        name="peftlab",
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    made.callback()(_root)
    for name, (function, options) in _COMMANDS.items():
        text = study.HELP if name == "study" else None
        add = made.command(name, cls=shared.Once, help=text)
        add(_command(function, options) if wanted in (None, name) else _unread(function))
    tasks = typer.Typer(
        help="The tasks that have a name; `tasks show NAME` looks into one.",
        invoke_without_command=True,
        rich_markup_mode=None,
    )
    tasks.callback()(listing.tasks)
    tasks.command("show", cls=shared.Once)(
        _command(listing.show, listing.show_options)
        if wanted in (None, "tasks")
        else _unread(listing.show)
    )
    made.add_typer(tasks, name="tasks")
    return made


def _command(function: Command, options: Callable[[], shared.Entries]) -> Command:
    return function if options is dict else shared.with_options(function, options)


def _unread(function: Command) -> Command:
    def command() -> None: ...

    command.__doc__ = function.__doc__
    return command


def _version(wanted: bool) -> None:
    if wanted:
        echo(__version__)
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Adapt one frozen language model in many ways, compare them fairly, use them together."""


def main() -> None:
    """The installed command."""
    code = run(sys.argv[1:])
    if expected() > 1:
        leave()
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Carry out a command line; returns the exit code."""
    try:
        _refuse_many(arguments)
        arguments = arguments or ["--help"]
        wanted = next((one for one in arguments if not one.startswith("-")), "")
        code = app(wanted)(list(arguments), standalone_mode=False)
        return code if isinstance(code, int) else 0
    except shared.UsageError as error:
        echo(f"Error: {error.format_message()}", err=True)
        return 2
    except SystemExit as end:
        return int(end.code or 0)
    except _CtrlC:
        echo("stopped", err=True)
        return 130
    except PeftlabError as error:
        echo(f"Error{_where()}: {error}", err=True)
        return 130 if _stopped(error) else 2
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            said = f"a name is longer than a file's can be: {error.filename:.60}…"
        elif not (said := what_is_full(error)):  # while a library of others wrote
            raise
        echo(f"Error{_where()}: {said}", err=True)
        return 2
    return 0


def _refuse_many(arguments: Sequence[str]) -> None:
    if expected() > 1 and arguments and arguments[0] in _ALONE:
        raise InputError(
            f"peftlab {arguments[0]} was started {expected()} times at once; torchrun and "
            "accelerate launch are for peftlab train alone"
        )


def _where() -> str:
    return f" in process {os.environ['RANK']}" if expected() > 1 else ""


def _stopped(error: PeftlabError) -> bool:
    """Whether Ctrl-C is behind it; both classes live in packages that this file does not import."""
    return type(error).__name__ in ("Stopped", "Interrupted")
