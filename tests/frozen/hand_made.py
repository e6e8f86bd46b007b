"""Hand-made edits, one owner a site, with random values."""

from __future__ import annotations

import torch

from peftlab.bases.shapes import ModelShape
from peftlab.edits import Bottleneck, Edits, KeysValues, LinearEdit


class Maker:
    """Random tensors, all of them leaves that want gradients, in `tensors`."""

    def __init__(self, shape: ModelShape, seed: int = 0) -> None:
        self.shape, self.generator = shape, torch.Generator().manual_seed(seed)
        self.tensors: list[torch.Tensor] = []

    def new(
        self, *size: int, scale: float = 0.3, around: torch.Tensor | None = None
    ) -> torch.Tensor:
        value = torch.randn(size, generator=self.generator) * scale
        if around is not None:
            value = value + around
        self.tensors.append(value.requires_grad_())
        return self.tensors[-1]

    def embeddings(self) -> Edits:
        return Edits(embeddings=self.new(6, self.shape.hidden))

    def prefix(self) -> Edits:
        size = (self.shape.kv_heads, 5, self.shape.head_dim)
        return Edits(
            attention={
                b: (KeysValues(self.new(*size), self.new(*size)),) for b in range(self.shape.layers)
            }
        )

    def gated(self) -> Edits:
        size = (self.shape.kv_heads, 4, self.shape.head_dim)
        blocks = range(1, self.shape.layers)
        return Edits(
            attention={
                b: (KeysValues(self.new(*size), self.new(*size), self.new(self.shape.heads)),)
                for b in blocks
            }
        )

    def linear(self) -> Edits:
        def edit(inner: int, outer: int) -> LinearEdit:
            return LinearEdit(
                down=self.new(3, inner),
                up=self.new(outer, 3),
                in_scale=self.new(inner, around=torch.ones(inner)),
                out_scale=self.new(outer, around=torch.ones(outer)),
                bias=self.new(outer),
            )

        return Edits(
            linear={x.path: edit(x.in_features, x.out_features) for x in self.shape.linears}
        )

    def sublayer(self) -> Edits:
        d = self.shape.hidden

        def edit(parallel: bool) -> Bottleneck:
            return Bottleneck(
                down=self.new(3, d),
                up=self.new(d, 3),
                down_bias=self.new(3),
                up_bias=self.new(d),
                norm=(self.new(d, around=torch.ones(d)), self.new(d)),
                activation="gelu",
                parallel=parallel,
            )

        places = {(b, "attention"): edit(False) for b in range(self.shape.layers)}
        return Edits(
            sublayer={**places, **{(b, "mlp"): edit(True) for b in range(self.shape.layers)}}
        )

    def weights(self, base: dict[str, torch.Tensor]) -> Edits:
        return Edits(
            weights={n: self.new(*w.shape, scale=0.05, around=w.detach()) for n, w in base.items()}
        )
