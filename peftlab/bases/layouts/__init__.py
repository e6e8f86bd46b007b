"""Names and shapes of a model's parameters, from its config.json alone, without torch.

`parameter_shapes(config)` equals `{n: tuple(p.shape) for n, p in model.named_parameters()}` of the
`AutoModelForCausalLM` that transformers makes of the same configuration, in the same order, tied
parameters once. The families are a table of templates (`families.py`); this file reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from peftlab.bases.layouts.families import FAMILIES
from peftlab.bases.layouts.template import Family, LayoutRow
from peftlab.errors import InputError, nearest

__all__ = ["Dimensions", "dimensions", "families", "parameter_count", "parameter_shapes"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Dimensions:
    """The sizes of a decoder under one name each, whatever its family calls them."""

    vocab: int
    d: int  # width of the residual stream
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int  # width between the feed-forward's projections
    positions: int  # longest row the model was made for
    embed: int  # width of the token embeddings; differs from d only in some OPT models
    experts: int = 0  # feed-forwards beside each other in a block; 0 where there is one alone

    @property
    def q(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        """Width of all key (or value) heads together."""
        return self.kv_heads * self.head_dim


def families() -> tuple[str, ...]:
    """The `model_type`s whose layout is known."""
    return tuple(sorted(FAMILIES))


def parameter_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Name and shape of every parameter, as `model.named_parameters()` gives them.

    Raises `InputError` for a family that is not in the table and for sizes that do not fit.
    """
    family = _family(config)
    sizes = dimensions(config)
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
        raise InputError(
            f"this {config['model_type']} has experts in some blocks only (mlp_only_layers, "
            "decoder_sparse_step), for which no parameter layout is known"
        )
    flags = _flags(family, config)
    shapes: dict[str, Shape] = {}
    for prefix, rows in family.sections(sizes.layers):
        for row in rows:
            if all(_holds(term, flags, sizes) for term in row.conditions):
                shapes.update(_parameters(prefix, row, flags, sizes))
    return shapes


def parameter_count(config: Mapping[str, Any]) -> int:
    """Number of scalar parameters, tied ones counted once."""
    total = 0
    for shape in parameter_shapes(config).values():
        size = 1
        for extent in shape:
            size *= extent
        total += size
    return total


def dimensions(config: Mapping[str, Any]) -> Dimensions:
    """The sizes of the model, with what `config` leaves out set to transformers' defaults.

    Raises `InputError` for a family that is not in the table and for sizes that do not fit.
    """
    family = _family(config)
    d = _size(family, config, "d")
    heads = _size(family, config, "heads")
    free = family.head_dim_is_free and _value(family, config, "head_dim") is not None
    if not free and d % heads:
        raise InputError(
            f"hidden size {d} cannot be shared out among {heads} attention heads: "
            f"make {family.keys['d'][0]} a multiple of {family.keys['heads'][0]}"
        )
    return Dimensions(
        vocab=_size(family, config, "vocab"),
        d=d,
        layers=_size(family, config, "layers"),
        heads=heads,
        kv_heads=_size(family, config, "kv_heads", default=heads),
        head_dim=_size(family, config, "head_dim") if free else d // heads,
        ff=_size(family, config, "ff", default=4 * d),
        positions=_size(family, config, "positions"),
        embed=_size(family, config, "embed", default=d),
        experts=_size(family, config, "experts") if "experts" in family.keys else 0,
    )


def _family(config: Mapping[str, Any]) -> Family:
    name = config.get("model_type")
    if isinstance(name, str) and name in FAMILIES:
        return FAMILIES[name]
    if not isinstance(name, str):
        raise InputError(
            "the configuration names no model family: its 'model_type' is "
            f"{name!r}, expected one of {', '.join(families())}"
        )
    raise InputError(
        f"no parameter layout is known for the family {name!r}.{nearest(name, FAMILIES)} Known: "
        f"{', '.join(families())}. For another family, make the model on the meta device "
        "(`with torch.device('meta')`) and read the shapes of its named_parameters()"
    )


def _value(family: Family, config: Mapping[str, Any], dimension: str) -> Any:
    """The configured or default value; None where it follows from the other sizes."""
    for key in family.keys.get(dimension, ()):
        if key in config:
            return config[key]
    return family.sizes.get(dimension)


def _size(
    family: Family, config: Mapping[str, Any], dimension: str, default: int | None = None
) -> int:
    value = _value(family, config, dimension)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        name = " or ".join(family.keys.get(dimension, (dimension,)))
        raise InputError(
            f"the configuration's {name} is {value!r}, expected a positive whole number"
        )
    return value


def _flags(family: Family, config: Mapping[str, Any]) -> dict[str, bool]:
    return {name: bool(config.get(name, default)) for name, default in family.flags.items()}


def _holds(term: str, flags: Mapping[str, bool], sizes: Dimensions) -> bool:
    """A condition of a row: `flag`, `!flag`, or two dimensions that differ, `embed!=d`."""
    left, differs, right = term.partition("!=")
    if differs:
        return bool(getattr(sizes, left) != getattr(sizes, right))
    return flags[term.removeprefix("!")] != term.startswith("!")


def _parameters(
    prefix: str, row: LayoutRow, flags: Mapping[str, bool], sizes: Dimensions
) -> Iterator[tuple[str, Shape]]:
    shape = tuple(_extent(term, sizes) for term in row.shape)
    for name in _repeated(prefix + row.name, sizes):
        if row.itself:
            yield name, shape
            continue
        yield f"{name}.weight", shape
        if row.bias is True or (row.bias and flags[row.bias]):
            # Conv1D of GPT-2 keeps its weight as [in, out], everything else as [out, in].
            yield f"{name}.bias", shape[-1:] if row.input_first else shape[:1]


def _repeated(name: str, sizes: Dimensions) -> list[str]:
    """Spell out `norms.[heads]` as `norms.0`, `norms.1`, …."""
    match = re.search(r"\[(\w+)\]", name)
    if match is None:
        return [name]
    before, after = name[: match.start()], name[match.end() :]
    return [f"{before}{i}{after}" for i in range(getattr(sizes, match[1]))]


def _extent(term: str, sizes: Dimensions) -> int:
    """`q+2kv`, `4ff`, `positions+2` → a number."""
    total = 0
    for part in term.split("+"):
        match = re.fullmatch(r"(\d*)([a-z_]*)", part)
        assert match is not None, f"template term {term!r}"
        total += int(match[1] or 1) * (getattr(sizes, match[2]) if match[2] else 1)
    return total
