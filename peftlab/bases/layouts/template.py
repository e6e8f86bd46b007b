"""The language in which a family's layout is written.

A row of a template is `module  extents…  [bias[=flag]]  [if=condition,…]`:

- `mlp.up_proj ff d` is the parameter `mlp.up_proj.weight` of shape [ff, d]; extents are sums of
  multiples of the names in `Dimensions` (`2ff`, `q+2kv`, `positions+2`); `d->3d` is a Conv1D, whose
  weight is [in, out];
- `bias` adds `mlp.up_proj.bias`; `bias=attention_bias` does so when the configuration says it;
- a name that already ends in `.weight` or `.bias`, or a row with the word `itself`, is that one
  parameter;
- `if=` keeps the row only where every condition holds: `flag`, `!flag`, `embed!=d`;
- rows that begin with `*.` belong to a block and are repeated for every layer under the prefix of
  the template's line `blocks …`; `[heads]` inside a name repeats the row for every head.

Rows stand in the order in which the modules register their parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Final

COMMON_KEYS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "vocab": ("vocab_size",),
        "d": ("hidden_size",),
        "layers": ("num_hidden_layers",),
        "heads": ("num_attention_heads",),
        "kv_heads": ("num_key_value_heads",),
        "head_dim": ("head_dim",),
        "ff": ("intermediate_size",),
        "positions": ("max_position_embeddings",),
    }
)


@dataclass(frozen=True)
class LayoutRow:
    """One line of a template."""

    name: str
    shape: tuple[str, ...]
    bias: bool | str = False  # a string is the configuration's flag that decides
    conditions: tuple[str, ...] = ()
    input_first: bool = False
    itself: bool = False

    @classmethod
    def parse(cls, line: str) -> LayoutRow:
        """The row of one line of the template language."""
        name, *words = line.split()
        itself = name.endswith((".weight", ".bias")) or "itself" in words
        extents = [w for w in words if not w.startswith(("bias", "if=", "itself"))]
        input_first = any("->" in extent for extent in extents)
        bias: bool | str = False
        conditions: tuple[str, ...] = ()
        for word in words:
            if word == "bias":
                bias = True
            elif word.startswith("bias="):
                bias = word.removeprefix("bias=")
            elif word.startswith("if="):
                conditions = tuple(word.removeprefix("if=").split(","))
        shape = tuple(part for extent in extents for part in extent.split("->"))
        return cls(name, shape, bias, conditions, input_first, itself)


@dataclass(frozen=True)
class Family:
    """A template, and what transformers' configuration class calls and sets its values."""

    template: str
    sizes: Mapping[str, int]  # default of each dimension that has one
    flags: Mapping[str, bool]  # default of each flag that the template may ask for
    keys: Mapping[str, tuple[str, ...]]  # dimension -> its names in the configuration
    head_dim_is_free: bool  # else the family takes hidden size / heads whatever is configured

    @cached_property
    def parts(self) -> tuple[str, list[LayoutRow], list[LayoutRow], list[LayoutRow]]:
        """The blocks' prefix, and the rows before, in and after a block."""
        prefix = ""
        before: list[LayoutRow] = []
        block: list[LayoutRow] = []
        after: list[LayoutRow] = []
        for line in filter(None, map(str.strip, self.template.splitlines())):
            if line.startswith("blocks "):
                prefix = line.split()[1]
            elif line.startswith("*."):
                block.append(LayoutRow.parse(line.removeprefix("*.")))
            else:
                (after if prefix else before).append(LayoutRow.parse(line))
        return prefix, before, block, after

    def sections(self, layers: int) -> Iterator[tuple[str, list[LayoutRow]]]:
        """(prefix, rows) in the model's order, blocks spelt out."""
        prefix, before, block, after = self.parts
        yield "", before
        for layer in range(layers):
            yield f"{prefix}.{layer}.", block
        yield "", after
