"""Tasks whose replies are one of several options, which is told by their likelihoods.

The rules and names are lm-evaluation-harness's: `acc`, `acc_norm` (a character), `acc_bytes`,
`acc_mutual_info`; `acc_token` is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from peftlab.errors import InputError
from peftlab.tasks.encode import without_end
from peftlab.tasks.example import Example

ChoiceScore = Literal["sum", "char", "byte", "token", "mutual"]
"""What of an option's log-likelihood decides: all of it, its part a character, a byte of UTF-8 or a
token, or what it gains over the option alone."""

ChoiceLoss = Literal["right", "contrast"]

METRICS: dict[ChoiceScore, str] = {
    "sum": "acc", "char": "acc_norm", "byte": "acc_bytes", "token": "acc_token",
    "mutual": "acc_mutual_info",
}  # fmt: skip
USUAL = ("accuracy", "macro_f1", "calibration_error")
FEWEST = 2


@dataclass(frozen=True)
class Choices:
    """options: of every example; none where each brings its own. score: which one is chosen by.
    loss: of training, of the right option alone, or of its probability among all of them.
    """

    options: tuple[str, ...] = ()
    score: ChoiceScore = "sum"
    loss: ChoiceLoss = "right"

    def without(self, ends: Sequence[str]) -> Choices:
        """The same where options end in none of these texts, as targets do not."""
        return replace(self, options=tuple(without_end(one, ends) for one in self.options))

    def of(self, example: Example) -> tuple[str, ...]:
        """The options of an example."""
        return example.options or self.options


def checked(options: Sequence[str], place: str) -> tuple[str, ...]:
    """Options that can be chosen from.

    Raises:
        InputError: fewer than two, one twice, or one of nothing but white space.
    """
    if len(options) < FEWEST or not all(option.strip() for option in options):
        raise InputError(
            f"{place}: the options are {list(options)!r:.80}; two texts at least were expected, "
            "none of them empty"
        )
    twice = next((one for one in options if list(options).count(one) > 1), None)
    if twice is not None:
        raise InputError(f"{place}: the option {twice!r:.60} stands twice; take one out")
    return tuple(options)


def begun(options: Sequence[str]) -> str:
    """What is to be said of options that begin others; nothing where none does."""
    pairs = [(a, b) for a in options for b in options if a != b and b.startswith(a)]
    if not pairs:
        return ""
    short, long = pairs[0]
    return (
        f"The option {short!r:.40} begins {long!r:.40}, so the sum of log-likelihoods never takes "
        "the longer one: -o choice_score=token, char or byte may."
    )
