"""Fine-tuning of chosen blocks, parameters by pattern, or the head alone."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch

from peftlab.bases.shapes import ModelShape
from peftlab.errors import InputError
from peftlab.methods.base import register
from peftlab.methods.chosen_weights import ChosenWeights, final_norm, head


@register("layers")
@dataclass(frozen=True, kw_only=True)
class Layers(ChosenWeights):
    """Trains any part of the base.

    Settings:
        blocks: block numbers (negative ones count from the top) and ranges as `2-5`.
        pattern: shell-style pattern of parameter names, for example `*.mlp.*`.
        head: the output projection. Where it is tied to the embeddings, it trains them too.
        final_norm: the norm before the head.
        With nothing chosen, the middle block.
    """

    blocks: tuple[str, ...] = ()
    pattern: str = ""
    head: bool = False
    final_norm: bool = False

    @property
    def learning_rate(self) -> float:
        return 3e-3

    def check(self, shape: ModelShape) -> None:
        self.names(shape)

    def names(self, shape: ModelShape) -> list[str]:
        wanted = set(self._blocks(shape))
        chosen = [n for n in shape.parameters if shape.block_of(n) in wanted]
        if self.pattern:
            hits = [n for n in shape.parameters if fnmatch(n, self.pattern)]
            if not hits:
                shown = ", ".join(list(shape.parameters)[:6])
                raise InputError(
                    f"layers: pattern={self.pattern!r} matches no parameter; there are {shown}, …"
                )
            chosen += hits
        chosen += final_norm(shape) if self.final_norm else []
        chosen += head(shape) if self.head else []
        return [name for name in shape.parameters if name in set(chosen)]

    def _blocks(self, shape: ModelShape) -> tuple[int, ...]:
        if not (self.blocks or self.pattern or self.head or self.final_norm):
            return (shape.layers // 2,)
        numbers: list[int] = []
        for text in self.blocks:
            first, dash, last = text[1:].partition("-")
            try:
                ends = [int(text[0] + first), *([int(last)] if dash else [])]
            except (ValueError, IndexError) as error:
                raise InputError(
                    f"layers: blocks has {text!r}; a number or a range as 2-5 was expected"
                ) from error
            if ends[-1] < ends[0]:
                raise InputError(f"layers: blocks has {text!r}, a range that ends before it starts")
            shape.blocks(ends, "layers: blocks")  # before a range of any length is written out
            numbers += range(ends[0], ends[-1] + 1)
        return shape.blocks(numbers, "layers: blocks")
