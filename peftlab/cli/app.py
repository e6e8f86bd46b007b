"""`peftlab`: its commands, and its exit codes: 2 after one clear line, 130 after Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from peftlab.cli import compare, estimate, learn, listing, report, serve, share, study
from peftlab.errors import InputError, PeftlabError
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


app = typer.Typer(
    cls=_Commands,
    name="peftlab",
    help="Adapt one frozen language model in many ways, compare them fairly, use them together.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_ALONE = ("compare", "estimate", "evaluate", "generate", "serve", "study")

app.command("compare")(compare.compare)
app.command("study", help=study.HELP)(study.study)
app.command("estimate")(estimate.estimate)
app.command("report")(report.report)
app.command("train")(learn.train)
app.command("evaluate")(learn.evaluate)
app.command("generate")(learn.generate)
app.command("serve")(serve.serve)
app.command("export")(share.export)
app.command("inspect")(share.inspect)
app.command("check-method")(share.check_method)
app.command("families")(listing.families)
app.command("methods")(listing.methods)
app.add_typer(listing.tasks_app, name="tasks")


def _version(wanted: bool) -> None:
    if wanted:
        echo(__version__)
        raise typer.Exit


@app.callback()
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
        app(list(arguments))
    except SystemExit as end:  # how typer ends, usage errors included
        return int(end.code or 0)
    except _CtrlC:
        echo("stopped", err=True)
        return 130
    except PeftlabError as error:
        echo(f"Error{_where()}: {error}", err=True)
        return 130 if _stopped(error) else 2
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
    """Whether Ctrl-C is behind it; both classes live in rooms that this file does not import."""
    return type(error).__name__ in ("Stopped", "Interrupted")
