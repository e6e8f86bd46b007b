"""Which base a command line names, on which device, and in which number format."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peftlab.bases.number_formats import formats
from peftlab.errors import InputError
from peftlab.options import typed
from peftlab.printable import echo

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation
    from peftlab.methods.base import Method
    from peftlab.processes import Processes

_FORMATS = "fp32, bf16, int8 or nf4 (4 bits: QLoRA's)"
BaseDtype = Annotated[
    str,
    typer.Option(
        help=f"How the frozen base's numbers are kept: {_FORMATS}.", rich_help_panel="What to learn"
    ),
]
ShardBase = Annotated[
    str,
    typer.Option(
        "--shard",
        help="Of several processes (torchrun): split the base over them always, never, or where it "
        "does not fit (auto).",
        rich_help_panel="What to learn",
    ),
]
AdapterBaseDtype = Annotated[
    str | None,
    typer.Option(
        "--base-dtype",
        help=f"How the base's numbers are kept: {_FORMATS}; by default as the adapter was made.",
    ),
]


def load_base(name: str, device: str, dtype: str = "fp32") -> FrozenLM:
    """The frozen base of that name, its numbers in a format.

    Raises:
        InputError: no such model, device or format, or no room for it.
    """
    from peftlab.frozen import named as base

    return _noted(base.load(name, base.device_name(device), one_format(dtype)))


def _noted(model: FrozenLM) -> FrozenLM:
    """The model, after its notes have been told."""
    for note in model.notes:
        echo(f"Warning: {note}", err=True)
    return model


def load_base_together(
    name: str, device: str, dtype: str, shard: str, method: Method
) -> tuple[FrozenLM, Processes]:
    """The base to train a method on with all processes that the launcher has started.

    Args:
        shard: `auto`, `never` or `always`: whether its blocks are split over them.

    Raises:
        InputError: as `load_base`; processes that are not alike; another word for shard.
        Lost: one of them is not there.
    """
    from typing import get_args

    from peftlab.bases.names import located
    from peftlab.frozen import named as base
    from peftlab.frozen.sharded_loading import Shard, is_to_be_sharded
    from peftlab.processes import join

    if shard not in get_args(Shard):
        raise InputError(f"--shard {shard!r}: one of {', '.join(get_args(Shard))} was expected")
    where, dtype = base.device_name(device), one_format(dtype)
    together = join(where)
    with together.watched():
        told = {"--model": name, "--base-dtype": dtype, "--shard": shard, "--method": method}
        together.agree({**told, "--device": where.partition(":")[0]})
        split = is_to_be_sharded(shard, located(name), method, together, dtype=dtype, device=where)
        if split and together.count == 1:
            raise InputError("--shard always: there is one process; start several with torchrun")
        return _noted(base.load(name, where, dtype, together if split else None)), together


def open_adapters(
    folders: Sequence[Path], name: str | None, device: str, dtype: str | None = None
) -> tuple[FrozenLM, list[Adaptation]]:
    """The adapters of folders, ours or PEFT's, and their base.

    The base is by default the first one's own, in the format that it was made on. Says where one
    was made on another format, or names another base.

    Raises:
        InputError: as `load_base`; a damaged adapter, or one of another base.
    """
    from peftlab.admission import OtherBase
    from peftlab.export import noted_base, open_adaptation
    from peftlab.methods.adaptation import own_folder

    places = [own_folder(folder) for folder in folders]
    own = noted_base(places[0]) if name is None or dtype is None else {}
    own_format = own.get("dtype") or "fp32"
    model = load_base(
        own["name"] if name is None else name, device, own_format if dtype is None else dtype
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", OtherBase)
        opened = [open_adaptation(place, model) for place in places]
    for one in dict.fromkeys(str(w.message) for w in said):
        echo(f"Warning: {one}", err=True)
    warnings.simplefilter("ignore", OtherBase)
    return model, opened


def refuse_its_own(adapter: Path, out: Path) -> None:
    """Refuse to write what is made of an adapter over it."""
    from peftlab.methods.adaptation import ADAPTER, own_folder

    its_own = {adapter.resolve(), own_folder(adapter).resolve()}
    if {out.resolve(), (out / ADAPTER).resolve()} & its_own:
        raise InputError(f"--out {out} holds the adapter itself; another folder was expected")


def one_format(text: str) -> str:
    """The one number format that an option names.

    Raises:
        InputError: an unknown one, or several.
    """
    names = typed("--base-dtype", text, formats)
    if len(names) > 1:
        raise InputError(f"--base-dtype {text!r}: one was expected; `compare` takes several")
    return names[0]
