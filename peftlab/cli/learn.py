"""`peftlab train`, `evaluate` and `generate`: one adaptation, step by step."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftlab.cli import options as shared
from peftlab.errors import InputError
from peftlab.files import lines_of
from peftlab.printable import echo, json_text

if TYPE_CHECKING:
    from peftlab.methods.adaptation import Adaptation
    from peftlab.training import Trained

Adapters = Annotated[
    list[Path], typer.Option("--adapter", help="An adapter's folder; several: one batch.")
]


def train(
    method: Annotated[str, typer.Option(help="For example lora:rank=8.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    model: shared.Model = "demo",
    base_dtype: shared.BaseDtype = "fp32",
    shard: shared.ShardBase = "auto",
    task: shared.TaskName = "demo",
    steps: shared.Steps = None,
    epochs: shared.Epochs = None,
    batch_size: shared.BatchSize = 16,
    accumulation: shared.Accumulation = 1,
    learning_rate: shared.LearningRate = None,
    optimizer: shared.Optimizer = "adamw",
    precision: shared.Precision = "fp32",
    max_length: shared.MaxLength = None,
    evaluate_every: shared.EvaluateEvery = 50,
    patience: shared.Patience = 0,
    validation_limit: shared.ValidationLimit = None,
    recompute: shared.Recompute = False,
    offload: shared.Offload = False,
    seed: Annotated[int, typer.Option(help="Of data order and initialisation.")] = 0,
    limit: shared.Limit = None,
    task_option: shared.TaskOptions = [],  # noqa: B006 - typer copies it
    track: shared.Track = "",
    device: shared.Device = "auto",
) -> None:
    """Train one adaptation and save it. A training that was cut off continues.

    Started by torchrun, several processes share each step's rows: see docs/large.md.
    """
    from peftlab.cli.dashboard import live
    from peftlab.methods import parse_one
    from peftlab.processes import leave
    from peftlab.tasks.fit import fitted
    from peftlab.training import train as train_one
    from peftlab.training.tracking import trackers, tracking

    reported = trackers(track)
    loaded = shared.load_task(task, task_option, limit=limit)
    config = shared.train_config(
        300,
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        accumulation=accumulation,
        learning_rate=learning_rate,
        optimizer=optimizer,
        precision=precision,
        max_length=max_length,
        evaluate_every=evaluate_every,
        patience=patience,
        validation_limit=validation_limit,
        recompute=recompute,
        offload=offload,
        seed=seed,
    )
    made = parse_one(method)
    base, together = shared.load_base_together(model, device, base_dtype, shard, made)
    out.mkdir(parents=True, exist_ok=True)
    loaded = fitted(loaded, base.tokenizer)
    if together.is_first:
        shared.say(loaded.notes)
    if together.count > 1 and together.is_first:
        echo(_told(together.count, base.is_sharded))
    settings = {"method": method, "model": model, "task": task, "train": asdict(config)}
    reported = reported if together.is_first else ()
    display = live(base.device)
    with tracking(reported, out, "peftlab", out.name, settings) as listen:
        trained = train_one(base, made, loaded, config, folder=out, display=display, listen=listen)
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
    loss = (
        ""
        if trained.validation_loss is None
        else f", validation loss {trained.validation_loss:.4f}"
    )
    echo(f"{trained.steps} steps in {trained.seconds:.1f} s, best at {trained.best_step}{loss}")
    if trained.truncated:
        echo(f"{trained.truncated} training rows lost source tokens: they were too long")
    if trained.skipped:
        echo(f"{trained.skipped} training rows were left out: they were too long")
    echo(f"Saved in {out / 'adapter'}; try: peftlab generate --adapter {out} --input TEXT")


def evaluate(
    adapter: Annotated[Path, typer.Option(help="The folder of an adapter or of its run.")],
    task: shared.TaskName = "demo",
    model: Annotated[str | None, typer.Option(help="By default the adapter's own base.")] = None,
    base_dtype: shared.AdapterBaseDtype = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    metrics: shared.Metrics = None,
    limit: shared.Limit = None,
    batch_size: Annotated[int, typer.Option(help="Rows that decode together.")] = 16,
    max_length: shared.MaxLength = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Write every prediction here, as jsonl.")
    ] = None,
    task_option: shared.TaskOptions = [],  # noqa: B006 - typer copies it
    device: shared.Device = "auto",
    format: Annotated[str, typer.Option(help="table or json.")] = "table",
) -> None:
    """Give the loss of a split, and the scores of what the adapted model generates for it."""
    from peftlab import evaluation as room

    loaded = shared.load_task(task, task_option, limit=limit, metrics=metrics)
    base, (adaptation,) = shared.open_adapters([adapter], model, device, base_dtype)
    loaded = room.taken(base, adaptation, loaded, split, max_length=max_length)
    shared.say(loaded.notes)
    loss = room.split_loss(base, adaptation, loaded, split, max_length=max_length)
    found = room.evaluate(
        base, adaptation, loaded, split, batch_size=batch_size, max_length=max_length
    )
    if predictions is not None:
        rows = zip(loaded.split(split), found.replies, strict=True)
        lines = [
            json.dumps(
                {"source": e.source, "references": list(e.targets), "prediction": r.text},
                ensure_ascii=False,
            )
            for e, r in rows
        ]
        predictions.write_text("\n".join(lines) + "\n", encoding="utf-8")
    values = {"split": split, "examples": len(found.replies), "loss": loss.loss}
    values |= {**found.scores.corpus, "truncated": found.truncated}
    if loaded.skipped:
        values["skipped"] = found.skipped
    if format == "json":
        echo(json_text(values))
    else:
        for name, value in values.items():
            echo(f"{name:<12} {value:.4f}" if isinstance(value, float) else f"{name:<12} {value}")


def generate(
    adapter: Adapters,
    input: Annotated[str, typer.Option(help="A text, a .txt file (a line each) or a .jsonl file.")],
    model: Annotated[str | None, typer.Option(help="By default the adapter's own base.")] = None,
    base_dtype: shared.AdapterBaseDtype = None,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.")] = 64,
    beams: Annotated[int, typer.Option(help="1 is greedy search.")] = 1,
    sample: Annotated[bool, typer.Option("--sample", help="Draw tokens by chance.")] = False,
    temperature: Annotated[float, typer.Option(help="With --sample.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="With --sample; 0: all tokens.")] = 0,
    top_p: Annotated[float, typer.Option(help="With --sample.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Rows that decode together.")] = 16,
    device: shared.Device = "auto",
    format: Annotated[str, typer.Option(help="text or json (a line each).")] = "text",
) -> None:
    """Answer texts with one adaptation, or with several in one batch."""
    from peftlab.generation import Request
    from peftlab.generation import generate as answer
    from peftlab.tasks import Decoding

    sources = _sources(input)
    base, adaptations = shared.open_adapters(adapter, model, device, base_dtype)
    decoding = Decoding(
        beams=beams, sample=sample, temperature=temperature, top_k=top_k, top_p=top_p
    )
    asked = [
        (s, folder, a) for s in sources for folder, a in zip(adapter, adaptations, strict=True)
    ]
    requests = [Request(adaptation, source, max_new_tokens) for source, _, adaptation in asked]
    replies = answer(base, requests, decoding, batch_size=batch_size, seed=seed)
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
