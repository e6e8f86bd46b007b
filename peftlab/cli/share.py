"""`peftlab export`, `inspect` and `check-method`: what an adaptation is, and where it can go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftlab.cli import convert
from peftlab.cli import options as shared
from peftlab.errors import InputError
from peftlab.printable import echo, json_text

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation

_TAKE_LORA = ("peft", "vllm", "gguf-lora")
Run = Annotated[Path, typer.Argument(help="The folder of an adapter or of its run.")]


def export(
    given: Mapping[str, Any],
    run: Annotated[list[Path], typer.Argument(help="Folders of adapters or of their runs.")],
    to: Annotated[str, typer.Option(help="peft, merged, embedding-rows, vllm, gguf or gguf-lora.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    model: Annotated[str | None, typer.Option(help="By default the adapter's own base.")] = None,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload it, with a model card.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    through: Annotated[
        str,
        typer.Option("--as", help="What becomes of what it cannot take, where --task is given."),
    ] = "lora:rank=16",
) -> None:
    """Write adaptations for another engine; what it cannot serve is refused with the reason.

    With --task, peft, vllm and gguf-lora take every method: what is no LoRA is first converted into
    one, which learns on that task what the adaptation does, as `peftlab convert` does.
    """
    from peftlab import export as exporting
    from peftlab.methods import parse_one

    names = [p.resolve().parent.name if p.name.startswith("seed-") else p.name for p in run]
    if len(set(names)) < len(names):
        raise InputError(f"two adapters are called {sorted(names)}; export them one by one")
    if push_to_hub is not None and to.startswith("gguf"):
        raise InputError("--push-to-hub knows no GGUF files yet; upload the folder by hand")
    asked, as_lora = convert.asked(given) if "task" in given else None, parse_one(through)
    if as_lora.name != "lora":
        raise InputError(f"--as {through}: lora was expected, as lora:rank=32")
    if asked is not None and to not in _TAKE_LORA:
        raise InputError(
            f"--task belongs to {', '.join(_TAKE_LORA)}, which take LoRA; leave it out"
        )
    base, opened = shared.open_adapters(run, model, given.get("device", "auto"))
    named = dict(zip(names, opened, strict=True))
    for name, one in named.items():
        why = exporting.refusal(to, name, one, base)
        if why is None or asked is None:
            continue
        if push_to_hub is not None:
            raise InputError(f"{why} What it becomes by --task has no record to publish")
        echo(f"{why} It becomes {through}:")
        into = Path(f"{out}-converted") / name
        named[name] = convert.into(base, one, as_lora, asked, into).adaptation
    written = exporting.export(to, named, base, out)
    echo(f"Written to {out}")
    if to == "peft":
        for folder, adaptation in zip(run, named.values(), strict=True):
            if said := _begun_again(folder, adaptation, base):
                echo(said, err=True)
    if isinstance(written, exporting.Merged):
        echo(f"logits differ by {written.fp32:.1e} in fp32, {written.bf16:.1e} in bf16")
    if isinstance(written, exporting.Merged | exporting.EmbeddingRows) and written.defaults:
        echo(_changed(written.defaults), err=True)
    if isinstance(written, exporting.ForLlamaCpp):
        echo(f"Serve it: {' or: '.join(written.commands)}")
    if push_to_hub is not None:
        echo(exporting.push(out, push_to_hub, _card(run, to), private=not public))


def _begun_again(folder: Path, adaptation: Adaptation, base: FrozenLM) -> str:
    """A warning where PEFT's aLoRA begins again in replies of the run that the adapter is of."""
    from peftlab.export.cue import begins_at_cue, begun_again
    from peftlab.records.reading import predictions

    rows = predictions(folder.parent if folder.name == "adapter" else folder)
    if not rows or not begins_at_cue(adaptation):
        return ""
    texts = [(row["prediction"], *row["references"]) for row in rows]
    count = sum(begun_again(adaptation, base, each) > 0 for each in texts)
    if not count:
        return ""
    return (
        f"Warning: {count} of {len(rows)} replies or references of this run's test rows hold the "
        "tokens at which PEFT's aLoRA begins: where it reads a whole row (a loss, training on) it "
        "begins there, at the last place; generate is not concerned"
    )


def _changed(defaults: Mapping[str, object]) -> str:
    told = ", ".join(f"{name} {value}" for name, value in defaults.items())
    return (
        f"Warning: generation_config.json, the base's own, changes replies ({told}): engines that "
        "read it (transformers, vLLM) do not reply as peftlab does unless each request sets these, "
        "or they are taken out of the file"
    )


def _card(runs: list[Path], kind: str) -> str:
    """The model card, with the numbers of the comparison that the first run belongs to."""
    from peftlab.records.record import Record
    from peftlab.report.model_card import model_card

    first = runs[0].parent if runs[0].name == "adapter" else runs[0]
    own = first / "record.json"
    if not own.exists():
        raise InputError(f"{own} is missing: a model card shows the numbers of a comparison's run")
    record = Record.read(own)
    records = {own: record}
    for path in sorted(first.parent.parent.glob("*/seed-*/record.json")):
        try:
            records[path] = Record.read(path)
        except InputError as error:
            echo(f"left out: {error}", err=True)
    return model_card([one for _, one in sorted(records.items())], record.label, kind=kind)


def inspect(
    run: Run,
    model: Annotated[str | None, typer.Option(help="By default the adapter's own base.")] = None,
    neighbours: Annotated[int, typer.Option(help="Nearest tokens of each pseudo token.")] = 5,
    format: Annotated[str, typer.Option(help="text or json.")] = "text",
    device: shared.Device = "auto",
) -> None:
    """Show what an adaptation has learnt: nearest tokens of soft prompts, gates, norms by block."""
    from peftlab.inspection import inspect as look

    base, (adaptation,) = shared.open_adapters([run], model, device)
    findings = asdict(look(base, adaptation, neighbours))
    if format == "json":
        echo(json_text(findings))
        return
    echo(f"{adaptation.method.name} on {adaptation.base['name']}")
    for title, values in findings.items():
        if values:
            echo(f"\n{title}")
            rows = values.items() if isinstance(values, dict) else enumerate(values)
            for key, value in rows:
                echo(f"  {key!s:<12} {_short(value)}")


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "  ".join(f"{key} {_short(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return "  ".join(
            f"{item[0]!r} {item[1]:.2f}" if isinstance(item, tuple) else _short(item)
            for item in value
        )
    return str(value)


def check_method(
    method: Annotated[str, typer.Argument(help="A method, as --methods takes it.")],
    model: shared.Model = "demo",
    task: shared.TaskName = "demo",
    device: shared.Device = "auto",
) -> None:
    """Hold a method, your own package's too, to the laws that every method obeys."""
    from peftlab.laws import check_method as hold
    from peftlab.methods import parse_one, plugins
    from peftlab.tasks import Task
    from peftlab.tasks.fit import fitted

    plugins.load()
    base, broken = shared.load_base(model, device), False
    loaded = fitted(Task.load(task, limit=64), base.tokenizer)
    for finding in hold(parse_one(method), base, loaded):
        broken |= finding.problem is not None
        why = finding.problem or finding.not_applicable
        how = "BROKEN" if finding.problem is not None else "not applicable" if why else "ok"
        echo(f"{how:<14}  {finding.name}")
        if why:
            echo(f"{'':<14}  {why}")
    if broken:
        raise typer.Exit(1)
