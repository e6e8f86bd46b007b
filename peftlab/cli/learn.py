"""`peftlab train`, `evaluate` and `generate`: one adaptation, step by step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from annotated_types import Ge, Le

from peftlab.cli import options as shared
from peftlab.errors import InputError
from peftlab.files import lines_of, make_folder, write_text
from peftlab.options import LARGEST_SEED, SMALLEST_SEED, Checked, Option, entries, made
from peftlab.printable import echo, json_text

if TYPE_CHECKING:
    from peftlab.methods.adaptation import Adaptation
    from peftlab.training import Trained

Adapters = Annotated[
    list[Path], typer.Option("--adapter", help="An adapter's folder; several: one batch.")
]


def train_options() -> shared.Entries:
    """Those of one training, its task and where it runs."""
    from peftlab.comparison.settings import task_entries, training_entries
    from peftlab.training import TrainConfig

    known = {**shared.where(), **task_entries(), **training_entries()}
    known["seed"] = entries(TrainConfig)["seed"]
    return shared.typeable({n: e for n, e in known.items() if n not in ("test_limit", "metrics")})


def train(
    given: Mapping[str, Any],
    method: Annotated[str, typer.Option(help="For example lora:rank=8.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    base_dtype: shared.BaseDtype = "fp32",
    shard: shared.ShardBase = "auto",
) -> None:
    """Train one adaptation and save it. A training that was cut off continues.

    Started by torchrun, several processes share each step's rows: see docs/large.md.
    """
    from peftlab.cli.dashboard import live
    from peftlab.comparison.resolve import config_of, the_task
    from peftlab.comparison.settings import ComparisonConfig
    from peftlab.methods import parse_one
    from peftlab.processes import leave
    from peftlab.tasks.fit import fitted
    from peftlab.training import train as train_one
    from peftlab.training.tracking import trackers, tracking

    called = shared.flag(train_options())
    what = made(ComparisonConfig, given, called)
    reported = trackers(what.track)
    loaded = the_task(given, called)
    config = config_of(given, called=called)
    made_method = parse_one(method)
    make_folder(out)
    base, together = shared.load_base_together(
        what.model, what.device, base_dtype, shard, made_method
    )
    loaded = fitted(loaded, base.tokenizer)
    if together.is_first:
        shared.say(loaded.notes)
    if together.count > 1 and together.is_first:
        echo(_told(together.count, base.is_sharded))
    settings = {"method": method, "model": what.model, "task": what.task, "train": asdict(config)}
    reported = reported if together.is_first else ()
    display = live(base.device)
    with tracking(reported, out, "peftlab", out.name, settings) as listen:
        trained = train_one(
            base, made_method, loaded, config, folder=out, display=display, listen=listen
        )
    if together.is_first:
        trained.adaptation.save(out / "adapter")
        _tell(trained, out)
    leave()


def _told(processes: int, is_sharded: bool) -> str:
    if not is_sharded:
        return f"{processes} processes share each step's rows; each has the whole base"
    return (
        f"{processes} processes share each step's rows and hold 1/{processes} of every block; "
        "embeddings and head are whole in each, and activations of the frozen trunk are not kept"
    )


def _tell(trained: Trained[Adaptation], out: Path) -> None:
    error = trained.validation_error
    loss = (
        ""
        if trained.validation_loss is None
        else f", validation loss {trained.validation_loss:.4f}"
        + ("" if error is None else f" (standard error {error:.4f})")
    )
    echo(f"{trained.steps} steps in {trained.seconds:.1f} s, best at {trained.best_step}{loss}")
    if trained.truncated:
        lost = trained.lost_replies
        more = f", and {lost} replies that would have been trained on" if lost else ""
        echo(
            f"{trained.truncated} of the training rows that were used lost source tokens{more}: "
            "they were too long"
        )
    if trained.skipped:
        echo(f"{trained.skipped} training rows were left out: they were too long")
    echo(f"Saved in {out / 'adapter'}; try: peftlab generate --adapter {out} --input TEXT")


def evaluate_options() -> shared.Entries:
    """Those of the task, and of how it is evaluated."""
    from peftlab.comparison.settings import task_entries
    from peftlab.training import TrainConfig

    known = {**task_entries(), **entries(Decoded), "device": shared.where()["device"]}
    known["max_length"] = entries(TrainConfig)["max_length"]
    return {name: entry for name, entry in known.items() if name != "test_limit"}


def evaluate(
    given: Mapping[str, Any],
    adapter: Annotated[Path, typer.Option(help="The folder of an adapter or of its run.")],
    model: Annotated[str | None, typer.Option(help="By default the adapter's own base.")] = None,
    base_dtype: shared.AdapterBaseDtype = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    predictions: Annotated[
        Path | None, typer.Option(help="Write every prediction here, as jsonl.")
    ] = None,
    format: Annotated[str, typer.Option(help="table or json.")] = "table",
) -> None:
    """Give the loss of a split, and the scores of what the adapted model generates for it."""
    from peftlab import evaluation
    from peftlab.comparison.resolve import config_of, the_task

    called = shared.flag(evaluate_options())
    loaded = the_task(given, called)
    size = made(Decoded, given, called).batch_size
    max_length = config_of(given, called=called).max_length
    device = given.get("device", "auto")
    if predictions is not None and (predictions.is_dir() or not predictions.parent.is_dir()):
        raise InputError(
            f"--predictions {predictions}: a file in a folder that exists was expected"
        )
    base, (adaptation,) = shared.open_adapters([adapter], model, device, base_dtype)
    adapted = evaluation.AdaptedLM(base, adaptation)
    loaded = evaluation.taken(adapted, loaded, split, max_length=max_length)
    shared.say(loaded.notes)
    loss = evaluation.split_loss(adapted, loaded, split, max_length=max_length)
    evaluated = evaluation.evaluate(adapted, loaded, split, batch_size=size, max_length=max_length)
    if predictions is not None:
        rows = zip(loaded.split(split), evaluated.replies, strict=True)
        lines = [
            json.dumps(
                {"source": e.told(), "references": list(e.targets), "prediction": r.text},
                ensure_ascii=False,
            )
            for e, r in rows
        ]
        write_text(predictions, "\n".join(lines) + "\n")
    values = {"split": split, "examples": len(evaluated.replies), "loss": loss.loss}
    values |= {**evaluated.scores.corpus, "truncated": evaluated.truncated}
    if loaded.skipped:
        values["skipped"] = evaluated.skipped
    if format == "json":
        echo(json_text(values))
    else:
        for name, value in values.items():
            echo(f"{name:<12} {value:.4f}" if isinstance(value, float) else f"{name:<12} {value}")


@dataclass(frozen=True, kw_only=True)
class Decoded(Checked):
    """How rows are decoded together."""

    batch_size: Annotated[int, Ge(1), Le(10**6), Option("Rows that decode together.")] = 16


@dataclass(frozen=True, kw_only=True)
class Answered(Decoded):
    """How texts are answered."""

    max_new_tokens: Annotated[int, Ge(1), Le(2**31 - 1), Option("Most tokens of an answer.")] = 64
    seed: Annotated[int, Ge(SMALLEST_SEED), Le(LARGEST_SEED), Option("Of sampling.")] = 0


def generate_options() -> shared.Entries:
    """Those of decoding."""
    from peftlab.tasks import Decoding

    return {**entries(Decoding), **entries(Answered), "device": shared.where()["device"]}


def generate(
    given: Mapping[str, Any],
    adapter: Adapters,
    input: Annotated[str, typer.Option(help="A text, a .txt file (a line each) or a .jsonl file.")],
    model: Annotated[str | None, typer.Option(help="By default the adapter's own base.")] = None,
    base_dtype: shared.AdapterBaseDtype = None,
    format: Annotated[str, typer.Option(help="text or json (a line each).")] = "text",
) -> None:
    """Answer texts with one adaptation, or with several in one batch."""
    from peftlab.generation import Request
    from peftlab.generation import generate as answer
    from peftlab.tasks import Decoding
    from peftlab.tasks.framing import kept

    called = shared.flag(generate_options())
    decoding, how = made(Decoding, given, called), made(Answered, given, called)
    sources = _sources(input)
    base, adaptations = shared.open_adapters(
        adapter, model, given.get("device", "auto"), base_dtype
    )
    frames = [a.template.frame for a in adaptations if a.template.frame is not None]
    shared.say(list(dict.fromkeys(map(kept, frames))))
    asked = [
        (s, folder, a) for s in sources for folder, a in zip(adapter, adaptations, strict=True)
    ]
    requests = [Request(adaptation, source, how.max_new_tokens) for source, _, adaptation in asked]
    replies = answer(base, requests, decoding, batch_size=how.batch_size, seed=how.seed)
    for (source, folder, _), reply in zip(asked, replies, strict=True):
        if format == "json":
            row: dict[str, Any] = {"adapter": str(folder), "source": source, "text": reply.text}
            echo(json_text({**row, "finished": reply.finished}, None))
        else:
            echo(reply.text if len(adapter) == 1 else f"{folder}: {reply.text}")


def _sources(given: str) -> list[str]:
    """The texts that `--input` stands for.

    Raises:
        InputError: a broken line (with its number), a row without a source, or no text at all.
    """
    from peftlab.tasks.files import text_of

    if not given.strip():
        raise InputError("--input is empty; a text or a file was expected")
    path = Path(given)
    try:
        is_file = path.is_file()
    except OSError:  # a text longer than a file name can be
        is_file = False
    if not is_file:
        if path.suffix in (".txt", ".jsonl") and " " not in given:
            raise InputError(f"--input {given}: there is no such file")
        return [given]
    lines = [line for line in lines_of(text_of(path)) if line.strip()]
    if not lines:
        raise InputError(f"--input {given}: the file is empty")
    if path.suffix != ".jsonl":
        return lines
    return [_source(path, number, line) for number, line in enumerate(lines, start=1)]


def _source(path: Path, number: int, line: str) -> str:
    try:
        return str(json.loads(line)["source"])
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise InputError(
            f'--input {path}, line {number}: an object with "source" was expected, got {line[:50]}'
        ) from error
