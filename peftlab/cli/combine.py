"""`peftlab combine`: the weight changes of several adapters as one adapter."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Literal

import typer

from peftlab.cli import options as shared
from peftlab.errors import InputError
from peftlab.printable import echo


def combine(
    parts: Annotated[
        list[str], typer.Argument(metavar="ADAPTER=WEIGHT", help="runs/a=0.7 runs/b=0.3 …")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    how: Annotated[
        Literal["linear", "ties", "dare_linear", "dare_ties", "peft_linear"],
        typer.Option(help="The weighted sum, TIES, DARE, or PEFT's sum of LoRA's factors."),
    ] = "linear",
    density: Annotated[
        float | None, typer.Option(help="The share of each change that ties and dare keep.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what dare keeps.")] = 0,
    model: Annotated[str | None, typer.Option(help="By default the first one's own base.")] = None,
    base_dtype: shared.AdapterBaseDtype = None,
    device: shared.Device = "auto",
) -> None:
    """Make one adapter of the weight changes of several; prompts and bottlenecks change none.

    A sum of plain lora stays as small as they are together; all others become whole weights when
    they are loaded, which `peftlab convert --to lora` makes small again.
    """
    from peftlab.conversion import OtherTemplate, Part
    from peftlab.conversion import combine as combined

    named = [_part(text) for text in parts]
    folders = [folder for folder, _ in named]
    for folder in folders:
        shared.refuse_its_own(folder, out)
    base, opened = shared.open_adapters(folders, model, device, base_dtype)
    weighed = [
        Part(str(folder), one, weight) for (folder, weight), one in zip(named, opened, strict=True)
    ]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", OtherTemplate)
        made = combined(base, weighed, how, density=density, seed=seed)
    for one in said:
        echo(f"Warning: {one.message}", err=True)
    made.save(out)
    echo(f"Saved in {out}; try: peftlab generate --adapter {out} --input TEXT")


def _part(text: str) -> tuple[Path, float]:
    folder, _, weight = text.rpartition("=")
    try:
        return Path(folder), float(weight)
    except ValueError:
        raise InputError(
            f"{text!r} names no weight; an adapter's folder with one was expected, as runs/a=0.7"
        ) from None
