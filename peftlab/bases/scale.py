"""How wide a base is and how large its embeddings are: what a good learning rate depends on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """The defaults are those of the base that methods' rates were searched on (docs/methods.md).

    Attributes:
        hidden: the width D of its states.
        embedding: the standard deviation of its input embeddings' numbers.
    """

    hidden: int = 256
    embedding: float = 0.15

    @property
    def narrower(self) -> float:
        """What a rate is multiplied by: changes sum over D, so a wide base takes smaller ones.

        Schulman and Thinking Machines Lab 2025, "LoRA Without Regret", found D^-0.781 for LoRA on
        Llama (D^-0.08 on Qwen); docs/methods.md has what was measured of each method here.
        """
        return (SEARCHED.hidden / self.hidden) ** 0.78

    @property
    def spread(self) -> float:
        """What the rate of embedding vectors is multiplied by: Adam moves a number by the rate."""
        return self.embedding / SEARCHED.embedding


SEARCHED = Scale()
