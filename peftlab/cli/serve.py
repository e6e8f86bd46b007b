"""`peftlab serve`: a base and its adaptations over HTTP, as OpenAI's API."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peftlab.cli import options as shared
from peftlab.errors import InputError
from peftlab.options import byte_size, duration, typed
from peftlab.printable import echo

if TYPE_CHECKING:
    from peftlab.serve import Library

_BATCH, _LIMITS, _WHO = "The batch", "Limits", "Who is served"
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_MOST = 2**31 - 1  # of anything that is counted
_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")


def serve(
    model: shared.Model = "demo",
    base_dtype: shared.BaseDtype = "fp32",
    adapters: Annotated[
        Path | None, typer.Option(help="Each subfolder is an adapter, ours or PEFT's.")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(help="Serve the winners of the comparisons in this folder.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one.")] = 8000,
    base_name: Annotated[
        str | None, typer.Option(help="The base's own model name; by default its folder's.")
    ] = None,
    api_key: Annotated[
        list[str],
        typer.Option(envvar="PEFTLAB_API_KEY", help="Whom to serve.", rich_help_panel=_WHO),
    ] = [],  # noqa: B006 - typer copies it
    admin_key: Annotated[
        list[str],
        typer.Option(
            envvar="PEFTLAB_ADMIN_KEY", help="Who manages adapters.", rich_help_panel=_WHO
        ),
    ] = [],  # noqa: B006
    share_prompt_cache: Annotated[
        bool,
        typer.Option(
            "--share-prompt-cache",
            help="Let keys go on from what others' requests have read, and see that in the time.",
            rich_help_panel=_WHO,
        ),
    ] = False,
    allow_host: Annotated[
        list[str],
        typer.Option(
            help="A name that the server may be called by; on loopback only its own.",
            rich_help_panel=_WHO,
        ),
    ] = [],  # noqa: B006
    slots: Annotated[int, typer.Option(help="Rows.", rich_help_panel=_BATCH)] = 16,
    capacity: Annotated[
        int | None,
        typer.Option(help="Positions of a row; by default the context.", rich_help_panel=_BATCH),
    ] = None,
    prefill_tokens: Annotated[
        int, typer.Option(help="Prompt tokens read in a step.", rich_help_panel=_BATCH)
    ] = 256,
    cache_memory: Annotated[
        str, typer.Option(help="Of keys and values.", rich_help_panel=_BATCH)
    ] = "8GB",
    prompt_cache: Annotated[
        str,
        typer.Option(help="Of what prompts begin with, kept. 0: none.", rich_help_panel=_BATCH),
    ] = "1GB",
    adapter_memory: Annotated[
        str, typer.Option(help="Of adapters.", rich_help_panel=_BATCH)
    ] = "4GB",
    max_tokens: Annotated[
        int, typer.Option(help="Tokens of a reply.", rich_help_panel=_LIMITS)
    ] = 1024,
    max_prompt: Annotated[
        int | None, typer.Option(help="Tokens of a prompt.", rich_help_panel=_LIMITS)
    ] = None,
    max_queue: Annotated[
        int, typer.Option(help="Requests that wait.", rich_help_panel=_LIMITS)
    ] = 256,
    max_requests: Annotated[
        int, typer.Option(help="Requests under way.", rich_help_panel=_LIMITS)
    ] = 1024,
    max_replies: Annotated[
        int, typer.Option(help="Of one request: prompts times n.", rich_help_panel=_LIMITS)
    ] = 64,
    max_body: Annotated[str, typer.Option(help="Of a request.", rich_help_panel=_LIMITS)] = "1MB",
    max_time: Annotated[
        str, typer.Option(help="Until a request is answered.", rich_help_panel=_LIMITS)
    ] = "5m",
    shutdown_time: Annotated[
        str, typer.Option(help="To finish what was begun.", rich_help_panel=_LIMITS)
    ] = "60s",
    device: shared.Device = "auto",
    log: Annotated[str, typer.Option(help=f"{', '.join(_LEVELS)}.")] = "warning",
) -> None:
    """Serve a base and its adaptations as OpenAI's API, with a page to try them.

    Keys are better given as PEFTLAB_API_KEY and PEFTLAB_ADMIN_KEY: others see a command line.
    """
    if log not in _LEVELS:
        raise InputError(f"--log {log!r}: one of {', '.join(_LEVELS)} was expected")
    counts = {
        "--slots": slots, "--capacity": capacity, "--prefill-tokens": prefill_tokens,
        "--max-tokens": max_tokens, "--max-prompt": max_prompt, "--max-queue": max_queue,
        "--max-requests": max_requests, "--max-replies": max_replies,
    }  # fmt: skip
    _check_counts(counts)
    from peftlab.serve import Engine, Library, Limits
    from peftlab.serve.http import Settings, create_app
    from peftlab.serve.http.run import check_port, is_loopback, run

    check_port(port)
    local = is_loopback(host)
    settings = Settings.of(
        base=base_name,
        api_keys=_keys("--api-key", "PEFTLAB_API_KEY", api_key),
        admin_keys=_keys("--admin-key", "PEFTLAB_ADMIN_KEY", admin_key),
        share_prompt_cache=share_prompt_cache,
        hosts=(*(_LOCAL if local else ()), *_names(allow_host)) or ("*",),
        body_bytes=_bytes("--max-body", max_body),
        requests=max_requests,
        replies=max_replies,
        seconds=_seconds("--max-time", max_time),
        shutdown_seconds=_seconds("--shutdown-time", shutdown_time),
    )
    limits = Limits(
        slots=slots,
        capacity=capacity,
        cache_bytes=_bytes("--cache-memory", cache_memory),
        prompt_cache_bytes=int(typed("--prompt-cache", prompt_cache, byte_size)),
        prefill_tokens=prefill_tokens,
        prompt_tokens=max_prompt,
        max_new_tokens=max_tokens,
        queue=max_queue,
    )
    adapter_bytes = _bytes("--adapter-memory", adapter_memory)
    base = shared.load_base(model, device, base_dtype)
    library = Library(base, adapters, memory=adapter_bytes)
    if runs is not None:
        _enter_winners(library, runs)
    app = create_app(Engine(base, library, limits), settings)
    names = len(library.adapters()) - 1  # the base stands among them

    def ready(address: str) -> None:
        echo(f"Serving {model} and {names} adapters at {address}")
        if not local and not api_key:
            echo("Everybody who reaches it is served: no API key is set", err=True)

    with _other_bases_told_once():
        run(app, host, port, ready, log)


@contextmanager
def _other_bases_told_once() -> Iterator[None]:
    """Of adapters of another base, or of another format of it, as `generate` says it."""
    from peftlab.admission import OtherBase

    told: set[str] = set()

    def tell(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in told:
            echo(f"Warning: {message}", err=True)
        told.add(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", OtherBase)
        warnings.showwarning = tell
        yield


def _enter_winners(library: Library, runs: Path) -> None:
    from peftlab.records.reading import read
    from peftlab.serve.winners import for_base, winners

    stored = read(runs)
    problems = stored.problems
    fitting, left_out = for_base(winners(stored.runs, problems), library.model, problems)
    for said in (*problems, *left_out):
        echo(said, err=True)
    known = {it.name for it in library.adapters()}
    for winner in fitting:
        if winner.name in known:
            raise InputError(
                f"{winner.name!r} is the winner of a comparison in {runs} and an adapter in "
                f"{library.folder}; rename the adapter's folder"
            )
        asked = library.load(winner.name, winner.folder)
        library.load_one()
        asked.result(0)
        echo(f"{winner.name}: {winner.label} (seed {winner.seed})")


def _keys(option: str, variable: str, given: list[str]) -> tuple[str, ...]:
    """Keys of a command line, or of the environment, where an empty one must not open the server.

    Raises:
        InputError: one that is none; it is not shown.
    """
    from peftlab.serve.http.settings import check_key

    if not given and variable in os.environ:  # typer takes a blank variable for none
        check_key(f"{variable} in the environment", os.environ[variable])
    for key in given:
        check_key(f"a key of {option} ({variable})", key)
    return tuple(given)


def _names(hosts: list[str]) -> list[str]:
    if not all(host.strip() for host in hosts):
        raise InputError("--allow-host '': a name that the server may be called by was expected")
    return hosts


def _check_counts(counts: dict[str, int | None]) -> None:
    for option, value in counts.items():
        if value is not None and not 1 <= value <= _MOST:
            raise InputError(f"{option} {value}: 1 to {_MOST:,} was expected")


def _bytes(option: str, text: str) -> int:
    return int(_amount(option, text, byte_size))


def _seconds(option: str, text: str) -> float:
    from peftlab.serve.http.settings import LONGEST

    seconds = _amount(option, text, duration)
    if seconds > LONGEST:
        raise InputError(f"{option} {text!r}: at most {LONGEST:,.0f} s was expected")
    return seconds


def _amount(option: str, text: str, read: Callable[[str], float]) -> float:
    amount = typed(option, text, read)
    if not amount > 0:
        raise InputError(f"{option} is {text!r}; more than 0 was expected")
    return amount
