"""How one adaptation is trained. The same settings serve every method; only rates differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from peftlab.errors import InputError, nearest
from peftlab.options import (
    LARGEST_SEED,
    SMALLEST_SEED,
    Called,
    Checked,
    NotTheResult,
    Option,
    byte_size,
    entries,
    made,
    parsed,
    plainly,
    whole_number,
)

DECAYS_LATE: Literal["warmup_stable_decay"] = "warmup_stable_decay"
DECAY = 0.2
"""Share of the budget over which the rate of that schedule falls to nothing."""
OF_SECONDS = 10
"""Validations of a budget of seconds, whatever `evaluate_every` says."""
_KEPT = "Most bytes of kept activations of the frozen trunk, "
_Share = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Checked):
    """Settings of the training loop; each is declared here, with its help, for every way in.

    Where one of `epochs`, `tokens` and `seconds` is given, it replaces `steps`, see `budget`.
    Without `share` or `fast` the difference shows that these make. `trunk_memory` and `trunk_disk`:
    see `trunk`.
    """

    steps: Annotated[int, Ge(1), Le(10**9), Option("Optimiser steps.")] = 300
    epochs: Annotated[float | None, Gt(0), Le(10**6), Option("Instead of --steps.")] = None
    tokens: Annotated[
        int | None,
        Gt(0),
        Le(10**18),
        Option("Tokens through the base, instead of steps.", flags=(), parse=whole_number),
    ] = None
    seconds: Annotated[
        float | None,
        Gt(0),
        Le(10**9),
        Option("Seconds of training steps, instead of steps.", flags=()),
    ] = None
    batch_size: Annotated[int, Ge(1), Le(10**6), Option("Rows of a micro-batch.")] = 16
    accumulation: Annotated[int, Ge(1), Le(10**6), Option("Micro-batches of a step.")] = 1
    learning_rate: Annotated[
        float | None, Gt(0), Option("Peak rate; by default each method's own.")
    ] = None
    optimizer: Annotated[Literal["adamw", "adafactor"], Option("The optimiser.")] = "adamw"
    weight_decay: Annotated[float, Ge(0), Option("AdamW's, of all that is trained.")] = 0.0
    schedule: Annotated[
        Literal["linear", "cosine", "constant_with_warmup", "warmup_stable_decay"],
        Option("Of the rate, after warm-up."),
    ] = "linear"
    warmup: Annotated[_Share, Option("Share of the budget over which the rate rises.")] = 0.06
    clip: Annotated[
        float, Ge(0), Option("Largest norm of all gradients together; 0: they are not clipped.")
    ] = 1.0
    label_smoothing: Annotated[float, Ge(0), Lt(1), Option("In training only.")] = 0.0
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        Option("Of the products; auto takes bf16 only where it pays on this device."),
    ] = "fp32"
    max_length: Annotated[
        int | None,
        Ge(1),
        Option("Tokens of a row, prompt and target included; by default the context."),
    ] = None
    evaluate_every: Annotated[
        int,
        Ge(0),
        Option(
            "Steps between validation losses (of a budget of tokens: steps of usual size; of "
            "seconds there are ten validations); 0: at the end alone."
        ),
    ] = 50
    patience: Annotated[
        int,
        Ge(0),
        Option("Validation losses without improvement before training stops; 0: never."),
    ] = 0
    validation_limit: Annotated[
        int | None,
        Ge(1),
        Option("Rows of the validation split that steer training; by default all."),
    ] = None
    checkpoint_seconds: Annotated[
        float, Ge(0), Option("Between checkpoints of the run's folder."), NotTheResult
    ] = 30.0
    recompute: Annotated[
        bool,
        Option(
            "Compute each block again in backward: less memory, more time.",
            flags=("--gradient-checkpointing", "--recompute"),
        ),
    ] = False
    offload: Annotated[
        bool,
        Option(
            "What backward needs waits in the CPU's memory: longer inputs fit on a GPU.",
            flags=("--offload-activations",),
        ),
        NotTheResult,
    ] = False
    share: Annotated[bool, Option("Pack what rows have in common at their start once.")] = True
    fast: Annotated[
        bool,
        Option(
            "What gives the same numbers sooner: kept trunk activations, the head in pieces, the "
            "last block at target tokens only."
        ),
    ] = True
    trunk_memory: Annotated[
        int, Ge(0), Option(_KEPT + "in memory.", parse=byte_size), NotTheResult
    ] = 2 << 30
    trunk_disk: Annotated[
        int, Ge(0), Option(_KEPT + "on the disk.", parse=byte_size), NotTheResult
    ] = 8 << 30
    seed: Annotated[
        int, Ge(SMALLEST_SEED), Le(LARGEST_SEED), Option("Of data order and initialisation.")
    ] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [n for n in ("epochs", "tokens", "seconds") if getattr(self, n) is not None]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} are given; one budget was expected")
        if self.patience and not self.evaluate_every and self.seconds is None:
            raise InputError(
                f"patience is {self.patience} and evaluate_every is 0: there is no validation "
                "before the end, so patience would never stop training. Set evaluate_every"
            )

    @property
    def rows_a_step(self) -> int:
        """Rows of the whole accumulated batch."""
        return self.batch_size * self.accumulation

    def rate(self, own: float) -> float:
        """The peak rate, where a method's own would be that."""
        return own if self.learning_rate is None else self.learning_rate

    def total_steps(self, rows: int) -> int:
        """Optimiser steps over a training split of so many rows."""
        if self.epochs is None:
            return self.steps
        return max(1, ceil(self.epochs * rows / self.rows_a_step))


BUDGETS = ("steps", "epochs", "tokens", "seconds")


def _one_budget(value: Any) -> dict[str, Any]:
    """`tokens=2e6` as a field and its value.

    Raises:
        ValueError: anything else than steps, tokens or seconds with an amount.
    """
    kinds = ("steps", "tokens", "seconds")
    kind, _, amount = str(value).partition("=")
    number = whole_number(amount) if kind != "seconds" else amount
    try:
        if kind in kinds and 0 < float(number) < float("inf"):
            return {kind: number if kind == "seconds" else max(1, round(float(number)))}
    except ValueError:
        pass
    near = nearest(kind, kinds) if kind not in kinds else ""
    raise ValueError("steps=300, tokens=2e6 or seconds=60", near)


@dataclass(frozen=True, kw_only=True)
class OneBudget:
    """What one training may use, of any kind."""

    budget: Annotated[
        str | None,
        Option(
            "steps=300, tokens=2e6 (all through the base, a backward pass counting once more) or "
            "seconds=60 (of training; not repeatable): the same for every method.",
            metavar="KIND=AMOUNT",
            parse=_one_budget,
        ),
    ] = None


def train_config(
    given: Mapping[str, Any], steps: int = TrainConfig.steps, called: Called = plainly
) -> TrainConfig:
    """Settings of training from options by name, `budget` among them.

    Args:
        steps: where no budget is given.

    Raises:
        InputError: two budgets, or a value that cannot be used.
    """
    named = [n for n in ("budget", *BUDGETS) if given.get(n) is not None]
    if len(named) > 1:
        told = " and ".join(called(name) for name in named)
        raise InputError(f"both {told} are given; one of them was expected")
    values = {k: v for k, v in given.items() if k not in ("budget", "steps")}
    values["steps"] = steps if given.get("steps") is None else given["steps"]
    if named == ["budget"]:
        values |= parsed(entries(OneBudget)["budget"], given["budget"], called)
    return made(TrainConfig, values, called)


def decaying_steps(steps: int) -> int:
    """How many of so many steps the decay takes."""
    return max(1, round(DECAY * steps))


def stable_steps(steps: int) -> int:
    """How many come before it."""
    return steps - decaying_steps(steps)
