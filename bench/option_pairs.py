"""Every option of seven commands with every odd value: each works, or ends with one clear line.

    python -m bench.option_pairs                    # all pairs: minutes of one core
    python -m bench.option_pairs --every 20         # some of them

Commands run in this process, up to where a base would be loaded, so that a pair costs what reading
its options costs. Printed is a table of how they ended, and each pair that ended otherwise.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from peftlab.errors import InputError
from peftlab.printable import echo

VALUES = (
    "", " ", "0", "-1", "nan", "inf", "-inf", "1e999", "1e-320", "0.5", "9" * 40, "x", "é", "\0",
    "None", "true", "[]", "{}", "a,b", ",", "=", "a=b", "1.", "1_000", "０", "\u2028", "../..",
    "/dev/null", "-", "--", "$(x)", "[red]x", "auto", "fp32", "0,0", "2GB", "5m", "\x1b[31m",
)  # fmt: skip
# What would begin something, or name a place in this machine's file system.
UNTRIED = {
    "help", "config", "print_config", "experiment", "address", "engine", "out", "data",
    "predictions", "adapters", "runs", "into", "push_to_hub",
}  # fmt: skip
BEGUN = {
    "compare": ["--print-config", "--device", "cpu"],
    "train": ["--method", "lora", "--out", "OUT", "--limit", "4"],
    "evaluate": ["--adapter", "none"],
    "generate": ["--adapter", "none", "--input", "text"],
    "serve": [],
    "methods": ["lora"],
    "tasks show": ["demo"],
}
NO_BASE = "here a base would be loaded"
NO_ADAPTER = "none holds no adaptation"  # as far as `evaluate` and `generate` come
GOOD = ("works", "refused")
ENDS = (*GOOD, "traceback", "several lines", "silent", "slow")
_LONGEST = 60  # seconds of one pair


@dataclass(frozen=True)
class Pair:
    """An option of a command, and the value that it gets; a flag has none."""

    command: str
    option: str
    value: str | None


@dataclass(frozen=True)
class Outcome:
    """How a pair ended, one of `ENDS`, and what was said."""

    pair: Pair
    how: str
    said: str = ""


@cache
def commands() -> dict[str, Any]:
    """Every command of the command line, with all of its options read."""
    from typer.main import get_command

    from peftlab.cli.app import app

    root: Any = get_command(app())
    return {**root.commands, "tasks show": root.commands["tasks"].commands["show"]}


def options(command: str) -> list[Any]:
    """The options of a command that are tried."""
    named = [p for p in commands()[command].params if p.opts[-1].startswith("-")]
    return [p for p in named if p.name not in UNTRIED and not {*p.opts} & {*BEGUN[command]}]


def pairs() -> list[Pair]:
    """All of them, in the commands' order."""
    return [
        Pair(command, parameter.opts[-1], value)
        for command in BEGUN
        for parameter in options(command)
        for value in ((None,) if parameter.is_flag else VALUES)
    ]


@contextmanager
def without_bases(folder: Path) -> Iterator[None]:
    """Commands end where they would load a base, reach no network, and find an empty folder."""
    import huggingface_hub.constants as hub

    from peftlab.frozen import named

    before = named.load, hub.HF_HUB_OFFLINE, Path.cwd()
    inside = folder / "a" / "b"  # which `../..` leads out of
    inside.mkdir(parents=True, exist_ok=True)
    named.load, hub.HF_HUB_OFFLINE = _no_base, True
    os.chdir(inside)
    try:
        yield
    finally:
        named.load, hub.HF_HUB_OFFLINE = before[:2]
        os.chdir(before[2])


def _no_base(*_: object) -> Any:
    raise InputError(NO_BASE)


def attempt(pair: Pair) -> Outcome:
    """Run the command with this option."""
    from peftlab.cli.app import run

    line = [word.replace("OUT", str(Path.cwd() / "out")) for word in BEGUN[pair.command]]
    line += [pair.option] + ([] if pair.value is None else [pair.value])
    err = io.StringIO()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(err), _no_longer_than(_LONGEST):
            code = run([*pair.command.split(), *line])
    except _TooSlow:
        return Outcome(pair, "slow")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return Outcome(pair, "traceback", f"{type(error).__name__}: {error}")
    return Outcome(pair, judged(code, err.getvalue()), err.getvalue().strip())


def judged(code: int, said: str) -> str:
    """Which of `ENDS` an exit code and an error output are."""
    if code not in (0, 2) or "Traceback" in said:
        return "traceback"
    if code == 0 or NO_BASE in said or NO_ADAPTER in said:
        return "works"
    lines = said.split("\n")[:-1]
    return "silent" if not said.strip() else "refused" if len(lines) == 1 else "several lines"


class _TooSlow(BaseException):
    """Nobody waits for so long to be told that an option is wrong."""


@contextmanager
def _no_longer_than(seconds: int) -> Iterator[None]:
    def end(*_: object) -> None:
        raise _TooSlow

    signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def all_of(wanted: Sequence[Pair], workers: int) -> Iterator[Outcome]:
    """Every pair's outcome, as soon as it is known; a worker runs many one after the other."""
    with (
        tempfile.TemporaryDirectory() as folder,
        without_bases(Path(folder)),
        multiprocessing.get_context("fork").Pool(workers) as pool,
    ):
        yield from pool.imap_unordered(attempt, wanted, chunksize=16)


def table(outcomes: Sequence[Outcome]) -> str:
    """A line a command, and one for all."""
    heads = ["command", "inputs", *(f"{how}s" if how == "traceback" else how for how in ENDS)]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for command in [*BEGUN, "all"]:
        own = [one for one in outcomes if command in (one.pair.command, "all")]
        counts = Counter(one.how for one in own)
        numbers = (f"{n:,}" for n in (len(own), *(counts[how] for how in ENDS)))
        lines.append(f"| {command} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and what ended badly; the exit code says whether anything did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--every", type=int, default=1, help="try one pair of so many")
    given = parser.parse_args(arguments)
    begun, outcomes = time.perf_counter(), list[Outcome]()
    for outcome in all_of(pairs()[:: given.every], given.workers):
        outcomes.append(outcome)
        if outcome.how not in GOOD:
            pair = outcome.pair
            echo(f"{outcome.how}: {pair.command} {pair.option} {pair.value!r}: {outcome.said}")
        if len(outcomes) % 500 == 0:
            echo(f"{len(outcomes):,} tried", err=True)
    echo(table(outcomes))
    echo(f"{time.perf_counter() - begun:,.0f} s", err=True)
    return int(any(outcome.how not in GOOD for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
