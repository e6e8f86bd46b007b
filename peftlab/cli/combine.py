"""`peftlab combine`: the weight changes of several adapters as one adapter, or their logits."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from peftlab.cli import options as shared
from peftlab.errors import InputError
from peftlab.printable import echo

if TYPE_CHECKING:
    from peftlab.methods.adaptation import Adaptation


def combine(
    parts: Annotated[
        list[str], typer.Argument(metavar="ADAPTER=WEIGHT", help="runs/a=0.7 runs/b=0.3 …")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    how: Annotated[
        Literal["linear", "ties", "dare_linear", "dare_ties", "peft_linear", "mixture"],
        typer.Option(
            help="Of weights: the weighted sum, TIES, DARE, or PEFT's sum of LoRA's factors. "
            "mixture: of logits, of any methods; `base` names the bare base."
        ),
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

    `--how mixture` adds the logits of any methods: each adapter reads every row for itself. With
    runs/a=1.5 base=-0.5 one is held against the bare base.
    """
    from peftlab.conversion import OtherTemplate, Part, mixture
    from peftlab.conversion import combine as combined
    from peftlab.methods.mixture import BASE

    named = [_part(text) for text in parts]
    bare = {BASE} if how == "mixture" else set()
    folders = [Path(name) for name, _ in named if name not in bare]
    for folder in folders:
        shared.refuse_its_own(folder, out)
    if not folders:
        raise InputError("name an adapter's folder beside the bare base")
    base, opened = shared.open_adapters(folders, model, device, base_dtype)
    adaptations = dict(zip(map(str, folders), opened, strict=True))
    weighed = [
        Part(name, None if name in bare else adaptations[str(Path(name))], weight)
        for name, weight in named
    ]
    if how == "mixture":
        if seed:
            raise InputError("--seed is of dare; --how mixture draws nothing: leave it out")
        if density is not None:
            raise InputError("--density is of ties and dare; --how mixture keeps all: leave it out")
        _save(mixture(base, weighed), out)
        return
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", OtherTemplate)
        made = combined(base, weighed, how, density=density, seed=seed)
    for one in said:
        echo(f"Warning: {one.message}", err=True)
    _save(made, out)


def _save(made: Adaptation, out: Path) -> None:
    made.save(out)
    echo(f"Saved in {out}; try: peftlab generate --adapter {out} --input TEXT")


def _part(text: str) -> tuple[str, float]:
    name, _, weight = text.rpartition("=")
    try:
        return name, float(weight)
    except ValueError:
        raise InputError(
            f"{text!r} names no weight; an adapter's folder with one was expected, as runs/a=0.7"
        ) from None
