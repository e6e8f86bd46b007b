"""What carries out a run: our own frozen model, or for a guest a plain model with PEFT's modules.

Both take the same rows, order, budget, decoding and measurements.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from peftlab.bases.names import located
from peftlab.comparison.latency import latency
from peftlab.comparison.plan import GeneralText, Run
from peftlab.errors import InputError
from peftlab.estimate import probe
from peftlab.evaluation import (
    Adapted,
    AdaptedLM,
    Evaluation,
    SplitLoss,
    evaluate_once,
    split_loss,
    text_loss,
)
from peftlab.frozen import named as base
from peftlab.methods import Method
from peftlab.methods.adaptation import Adaptation
from peftlab.records.record import Latency, Parameters
from peftlab.tasks.sample import sampled
from peftlab.training import TrainConfig, Trained, train
from peftlab.training.display import Display
from peftlab.training.loop import stem_of

if TYPE_CHECKING:
    import torch

    from peftlab.guests import AdaptedGuest, GuestModel, PlainBase
    from peftlab.training.loop import Validated
    from peftlab.training.tracking import Listen
    from peftlab.trunk import TrunkStore

_AGAIN = 20  # steps that tell how long others take


class Watched(TypedDict, total=False):
    """Who is told of a training and by what, see `peftlab.training.train`."""

    display: Display
    validated: Validated | None
    listen: Listen | None


class Host(ABC):
    """A loaded base that trains a run's method and then uses the result."""

    run: Run
    device: torch.device

    @abstractmethod
    def train(
        self,
        run: Run,
        folder: Path | None,
        store: TrunkStore | None = None,
        stems: Path | None = None,
        **watched: Unpack[Watched],
    ) -> Trained[Any]:
        """Train the method; what follows speaks of its best state.

        Args:
            stems: where trainings that differ in length alone leave what they share; guests and
                searches share nothing.
        """

    @property
    @abstractmethod
    def adapted(self) -> Adapted:
        """The base with the adaptation of the training."""

    @abstractmethod
    def parameters(self) -> Parameters:
        """How many numbers were trained, are stored, and are the base's."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the adapter's files."""

    def loss(self, split: str, limit: int | None = None) -> SplitLoss:
        """The loss of a split, or of so many of its pairs: the first, or those that are drawn."""
        task, most = self.run.task, self.run.config.max_length
        if split == "train" and self.run.samples.drawn:
            task = sampled(task, train=limit)
        return split_loss(self.adapted, task, split, limit=limit, max_length=most)

    def evaluate(self, done: Callable[[int], None]) -> tuple[Evaluation, SplitLoss]:
        """Generate for the test split, and score; and its loss."""
        run = self.run
        return evaluate_once(
            self.adapted,
            run.task,
            batch_size=run.evaluation.batch_size,
            max_length=run.config.max_length,
            seed=run.seed,
            done=done,
        )

    @abstractmethod
    def text_loss(self, text: GeneralText) -> float:
        """The loss of text that belongs to no task."""

    def latency(self) -> Latency | None:
        """Time to the first token and between tokens; None where it is not measured."""
        return None

    @abstractmethod
    def take_up(self, folder: Path) -> None:
        """Use the adapter that `save` wrote, in the place of a training."""

    @abstractmethod
    def pace(self, run: Run, steps: int) -> tuple[float, float]:
        """Seconds of a usual step, and of so many, from twenty steps taken anew."""


def host(run: Run) -> Host:
    """Load the base of a run.

    Raises:
        InputError: there is none, or its weights have changed since the comparison began.
    """
    return _HOSTS[run.method.library](run)


def _check(run: Run, fingerprint: str) -> None:
    if fingerprint != run.base.fingerprint:
        raise InputError(f"the weights of {run.base.name} have changed since this comparison began")


class _OwnHost(Host):
    def __init__(self, run: Run) -> None:
        self.run = run
        self.model = base.load(run.base.name, run.base.device, run.base.dtype)
        self.device = self.model.device
        self.store: TrunkStore | None = None
        _check(run, self.model.fingerprint)

    def train(
        self,
        run: Run,
        folder: Path | None,
        store: TrunkStore | None = None,
        stems: Path | None = None,
        **watched: Unpack[Watched],
    ) -> Trained[Adaptation]:
        assert isinstance(run.method, Method)
        given = self.model, run.method, run.task, run.config
        stem = None
        if stems is not None and not run.method.searches:
            stem = stem_of(stems, *given[1:], self.model.fingerprint)
        trained = train(*given, folder=folder, store=store, stem=stem, **watched)
        self.run, self.adaptation, self.store = run, trained.adaptation, store
        return trained

    @property
    def adapted(self) -> AdaptedLM:
        own = self.adaptation
        text = own.row_template
        if (
            self.run.beside_cue
            and not own.method.trains
            and text == own.template
            and own.edits(self.model).changes_nothing
        ):
            # The bare base: what it reads before the cue is what the others go on from.
            own = replace(own, template=own.template.beginning("cue"))
        return AdaptedLM(self.model, own, self.store)

    def parameters(self) -> Parameters:
        count = self.adaptation.method.count(self.model.shape)
        return Parameters(
            trainable=count.trainable, stored=count.stored, base=self.model.shape.size
        )

    def save(self, folder: Path) -> None:
        self.adaptation.save(folder)

    def text_loss(self, text: GeneralText) -> float:
        return text_loss(
            self.model, self.adaptation, text.documents, window=text.window, most=text.tokens
        )

    def latency(self) -> Latency | None:
        run, tokens = self.run, self.run.evaluation.latency_tokens
        if not tokens or not run.times_tokens:
            return None
        return latency(self.model, self.adaptation, run.task, tokens, run.config.max_length)

    def take_up(self, folder: Path) -> None:
        self.adaptation = Adaptation.load(folder, self.model)

    def pace(self, run: Run, steps: int) -> tuple[float, float]:
        assert isinstance(run.method, Method)
        config = _only(run, steps)
        probed = probe(self.model, run.method, run.task, config, steps=_AGAIN, patience=math.inf)
        assert probed.step_seconds is not None and probed.train_seconds is not None
        return probed.step_seconds, probed.train_seconds


class _GuestHost(Host):
    """PEFT's modules stay in the base, so every training takes a fresh one."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.base: PlainBase | None = self._load()
        self.device = self.base.device
        _check(run, self.base.fingerprint)

    def _load(self) -> PlainBase:
        from peftlab.guests import PlainBase

        about = self.run.base
        return PlainBase.load(located(about.name), about.name, about.device, about.dtype)

    def train(
        self,
        run: Run,
        folder: Path | None,
        store: TrunkStore | None = None,
        stems: Path | None = None,
        **watched: Unpack[Watched],
    ) -> Trained[GuestModel]:
        from peftlab import guests

        assert guests.is_guest(run.method)
        plain, self.base = self.base or self._load(), None
        trained = guests.train(plain, run.method, run.task, run.config, folder=folder, **watched)
        self.run, self.guest = run, trained.adaptation
        return trained

    @property
    def adapted(self) -> AdaptedGuest:
        from peftlab.guests import AdaptedGuest

        return AdaptedGuest(self.guest)

    def parameters(self) -> Parameters:
        return Parameters(
            trainable=self.guest.trainable,
            stored=self.guest.stored,
            base=self.run.base.parameters,
        )

    def save(self, folder: Path) -> None:
        self.guest.save(folder)

    def text_loss(self, text: GeneralText) -> float:
        from peftlab import guests

        return guests.text_loss(self.guest, text.documents, text.window, text.tokens)

    def take_up(self, folder: Path) -> None:
        """Nothing that is measured again needs it."""

    def pace(self, run: Run, steps: int) -> tuple[float, float]:
        config = replace(_only(run, min(steps, _AGAIN)), evaluate_every=0, patience=0)
        trained = self.train(replace(run, config=config), None)
        return trained.step_seconds, trained.seconds / trained.steps * steps


def _only(run: Run, steps: int) -> TrainConfig:
    """The run's settings for so many steps, whatever kind its budget is of."""
    return replace(run.config, steps=steps, epochs=None, tokens=None, seconds=None)


_HOSTS: dict[str, Callable[[Run], Host]] = {"peftlab": _OwnHost, "peft": _GuestHost}
