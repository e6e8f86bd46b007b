"""What a search over instructions has asked and seen: plain values, which a checkpoint holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from peftlab.errors import InputError
from peftlab.methods.base import Answer, Examples, State
from peftlab.metrics import main_metric, metric_spec
from peftlab.tasks.sample import drawn

if TYPE_CHECKING:
    from peftlab.tasks import Example, Task

OPENAI = "openai/"
"""Before the name of an author behind an endpoint."""
UNFIT = -1e9
"""The score of an instruction that leaves too little room for sources."""
_SILENT = 6  # replies after which an author that has written nothing is not asked again
_LONGEST = 0.25  # of the room for a prompt


@dataclass
class Transcript:
    """Instructions and the answers under them, so that nothing is asked twice.

    places: of train's and validation's examples that take part. seed: of whatever is drawn.
    answers: by instruction, by split and place, the text and its score. replies: of the author, by
    what it was asked. calls, tokens: what the author has cost.
    """

    places: Mapping[str, Sequence[int]]
    seed: int
    answers: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    replies: dict[str, str] = field(default_factory=dict)
    calls: int = 0
    tokens: int = 0

    @classmethod
    def begun(cls, task: Task, train: int, validation: int, seed: int) -> Transcript:
        """Before the first step: so many examples of each split, the same for every method."""
        counts = {"train": train, "validation": validation}
        return cls({n: drawn(len(task.split(n)), count) for n, count in counts.items()}, seed)


@dataclass(frozen=True)
class Asking:
    """A step's examples, and the transcript of what was asked before.

    Args:
        state: what an instruction makes of the method.
        start: the instruction that the search began with; it fits.
        author: who writes, see `Examples.written`.
    """

    examples: Examples
    transcript: Transcript
    state: Callable[[str], State]
    start: str
    author: str

    @property
    def validation(self) -> list[str]:
        """The keys of the examples that instructions are chosen by."""
        return self._keys("validation")

    @property
    def train(self) -> list[str]:
        """The keys of those that an author may see."""
        return self._keys("train")

    @property
    def metric(self) -> str:
        """What scores are of: what methods are ranked by."""
        return main_metric(self.examples.task.metrics)

    def _keys(self, split: str) -> list[str]:
        return [f"{split} {place}" for place in self.transcript.places[split]]

    def example(self, key: str) -> Example:
        """Whose key it is."""
        split, _, place = key.partition(" ")
        return self.examples.task.split(split)[int(place)]

    def answers(self, text: str, keys: Sequence[str]) -> list[Answer]:
        """What comes of these examples under an instruction.

        Raises:
            InputError: rows have no room beside the one that the search began with.
        """
        known = self.transcript.answers.setdefault(text, {})
        new = [key for key in dict.fromkeys(keys) if key not in known]
        if new:
            found = self._answered(text, [self.example(key) for key in new])
            known.update((k, [a.text, a.score]) for k, a in zip(new, found, strict=True))
        return [Answer(*known[key]) for key in keys]

    def _answered(self, text: str, examples: Sequence[Example]) -> list[Answer]:
        unfit = [Answer("", UNFIT)] * len(examples)
        if not self._fits(text):
            return unfit
        try:
            return self.examples.answers(self.state(text), examples)
        except InputError:
            if text in (self.start, ""):
                raise
            return unfit

    def _fits(self, text: str) -> bool:
        """Whether an instruction leaves room for sources."""
        count = len(self.examples.model.tokenizer.encode(text, add_special_tokens=False))
        return text == self.start or count <= _LONGEST * self.examples.room

    def mean(self, text: str, keys: Sequence[str]) -> float:
        """The mean score of an instruction on these examples; more is better."""
        return fmean(answer.score for answer in self.answers(text, keys))

    def scored(self) -> dict[str, float]:
        """The means of all instructions that have answered the whole of validation, in order."""
        whole = set(self.validation)
        known = [text for text, own in self.transcript.answers.items() if whole <= own.keys()]
        return {text: self.mean(text, self.validation) for text in known}

    def best(self) -> str:
        """The first of the highest mean."""
        scored = self.scored()
        return max(scored, key=scored.__getitem__)

    def own(self, score: float) -> float:
        """A score as the metric has it, where less may be better."""
        return score if metric_spec(self.metric).higher_is_better else -score

    def told(self, score: float) -> str:
        """The same in words."""
        if score == UNFIT:
            return "none, for want of room: the instruction is too long"
        better = "" if metric_spec(self.metric).higher_is_better else " (less is better)"
        return f"{self.own(score):.3f}{better}"

    def written(self, asked: Sequence[str], beside: str = "") -> list[str]:
        """What the author writes to each.

        Args:
            beside: with another text beside it a request is another one, and gets a reply of its
                own.

        Raises:
            InputError: the author does not answer.
        """
        transcript, times = self.transcript, dict[str, int]()
        keys = []
        for text in asked:
            times[text] = times.get(text, 0) + 1
            told = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
            keys.append(f"{told} {beside} {times[text]}")
        new = [i for i, key in enumerate(keys) if key not in transcript.replies]
        if new:
            written = self.examples.written([asked[i] for i in new], self.author)
            transcript.calls += len(new)
            transcript.tokens += sum(tokens for _, tokens in written)
            transcript.replies |= {keys[i]: text for i, (text, _) in zip(new, written, strict=True)}
            if transcript.calls >= _SILENT and not any(transcript.replies.values()):
                raise InputError(
                    f"reflection_lm={self.author} has written nothing in {transcript.calls} "
                    "replies: choose another author"
                )
        return [transcript.replies[key] for key in keys]
