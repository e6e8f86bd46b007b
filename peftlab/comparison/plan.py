"""What a comparison will do: one run for every method and seed, all under the same settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from peftlab.bases.scale import SEARCHED, Scale
from peftlab.comparison.label import folder_name, label_on
from peftlab.comparison.settings import (
    WHOLE,
    EvaluationConfig,
    Limits,
    SamplingConfig,
    SearchConfig,
)
from peftlab.errors import InputError
from peftlab.guests import Guest, is_guest
from peftlab.methods import Method
from peftlab.options import identity, seeds
from peftlab.records.record import (
    BudgetFacts,
    ModelFacts,
    Parameters,
    Record,
    Sampled,
    Search,
    TaskFacts,
)
from peftlab.tasks import Task
from peftlab.tasks.plain import TEXT_TOKENS
from peftlab.training import Budget, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A comparison.

    Attributes:
        model: demo, or the hub id, folder or GGUF file of a base.
        config: of training, for every method; a rate of None takes each method's own.
        sampling: how much of each split may be read; by default all of it.
        search: of the methods' rates.
        predict: whether a few steps of every method are taken first, to say what it will cost.
        limits: what is predicted to exceed them is left out.
        general_text: documents of no task, whose loss says what an adaptation has forgotten; none:
            it is not measured.
        seeds: of data order, initialisation and drawn exemplars; each makes a run of every method
            in which something is random. A number of them may be given instead.
        device: cpu, cuda, cuda:1, …
        track: experiment trackers that every run reports to, see `train.tracking`.
        base_dtypes: number formats of the base; every method runs on each.
        within: seconds for the best verdict that fits into them, see `comparison.within`; None:
            every run is made. margin: the difference that does not matter to it, in the metric's
            units; None: a hundredth of the metric's range.
    """

    model: str
    task: Task
    methods: tuple[Method | Guest, ...]
    config: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    sampling: SamplingConfig = WHOLE
    search: SearchConfig = field(default_factory=SearchConfig)
    predict: bool = False
    limits: Limits = field(default_factory=Limits)
    general_text: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    device: str = "cpu"
    base_dtypes: tuple[str, ...] = ("fp32",)
    track: tuple[str, ...] = ()
    within: float | None = None
    margin: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", seeds(self.seeds))
        if not self.methods:
            raise InputError("a comparison needs at least one method; got none")
        if self.search.trials and self.config.learning_rate is not None:
            raise InputError(
                "a learning rate and a search for one are given; one of them was expected"
            )
        for what, values in (("seeds", self.seeds), ("methods", self.methods)):
            if len(set(map(repr, values))) < len(values):
                raise InputError(f"{what} holds something twice: {', '.join(map(str, values))}")


@dataclass(frozen=True, kw_only=True)
class Base:
    """What a look at the loaded base says, see `profile`.

    Attributes:
        parameters: how many it has. dtype: the format of its numbers. bytes: what they take.
        checkpoint: where they come from, the same for every format. file: what kind of file they
        were read from, in words, where it is a GGUF file. scale: what learning rates depend on.
    """

    name: str
    fingerprint: str
    parameters: int
    device: str
    dtype: str = "fp32"
    bytes: int | None = None
    checkpoint: str | None = None
    file: str | None = None
    scale: Scale = SEARCHED


@dataclass(frozen=True, kw_only=True)
class GeneralText:
    """Text of no task, as every run reads it.

    window: tokens of a row. tokens: in all, at most. before: the bare base's loss; None where no
    run is left to be made.
    """

    documents: tuple[str, ...]
    window: int
    tokens: int = TEXT_TOKENS
    before: float | None = None


@dataclass(frozen=True, kw_only=True)
class Samples:
    """How much every run reads of what it is judged by; None: all, or what `EvaluationConfig` says.

    train, validation: (example, target) pairs whose losses are taken; those of validation also
    steer. test: examples. general: tokens of the text of no task. drawn: the training pairs are
    drawn, as the others are; not of runs from before they were, which read the first.
    """

    train: int | None = None
    validation: int | None = None
    test: int | None = None
    general: int | None = None
    drawn: bool = False

    def chosen(self) -> dict[str, int]:
        """Those that are not all."""
        return {name: size for name, size in asdict(self).items() if size not in (None, False)}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One method with one seed, resolved: everything that its process needs to know.

    whole: by split, how many pairs or examples there are of which `samples` takes some.
    trial: the number of this trial in the search for the method's rate. searched: that search.
    predicted: what it is expected to cost, by the names of a record. left_out: why it is not made.
    beside_cue: others of the comparison begin at the cue, and keep what the bare base reads.
    times_tokens: whether serving's latency is measured too.
    """

    method: Method | Guest
    seed: int
    task: Task
    config: TrainConfig
    evaluation: EvaluationConfig
    base: Base
    search: SearchConfig = field(default_factory=SearchConfig)
    samples: Samples = field(default_factory=Samples)
    whole: dict[str, int] = field(default_factory=dict)
    general: GeneralText | None = None
    searched: Search | None = None
    trial: int | None = None
    predicted: dict[str, float] = field(default_factory=dict)
    left_out: str | None = None
    beside_cue: bool = False
    times_tokens: bool = True
    track: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The method as one would type it, and the base's number format."""
        return label_on(self.method, self.base.dtype)

    @property
    def title(self) -> str:
        """As messages name it."""
        return f"{self.label}, seed {self.seed}"

    @property
    def keeps(self) -> str:
        """What it keeps of the frozen trunk: runs of the same find it there.

        Methods that begin at the cue keep sources; the seeds of another one what lies below its
        own blocks.
        """
        return f"cue {self.base.dtype}" if self.method.begins_at_cue else self.label

    @property
    def settled(self) -> Method | Guest:
        """The method with the settings that the task decides."""
        return self.method.on(self.task)

    @property
    def folder(self) -> Path:
        """Relative to the comparison's: the seeds of one configuration lie side by side."""
        shared = _digest({**self._decides(), "seed": None})[:8]
        return Path(f"{self._folder_name}-{shared}") / f"seed-{self.seed}"

    @property
    def search_folder(self) -> Path:
        """Where the trials for this method lie: one search for all seeds, whatever it finds."""
        decides = self._decides()
        train = {**decides["train"], "learning_rate": None}
        searched = {**decides, "train": train, "seed": None}
        return Path(f"{self._folder_name}-{_digest(searched)[:8]}-search")

    @property
    def _folder_name(self) -> str:
        return folder_name(self.method, self.base.dtype)

    @property
    def budget(self) -> Budget:
        """What it may use."""
        return Budget.of(self.config, len(self.task.pairs("train")))

    @property
    def validates_all(self) -> bool:
        """Whether validations in training take the loss of the very rows that are read at the end.

        Of another precision is only what training computes.
        """
        whole = len(self.task.pairs("validation"))
        steered = min(whole, self.config.validation_limit or whole)
        measured = min(whole, self.evaluation.validation_rows)
        return steered == measured and self.config.precision == "fp32"

    def at(self, rate: float, **changes: Any) -> Run:
        """The same run with another learning rate."""
        return replace(self, config=replace(self.config, learning_rate=rate), **changes)

    @property
    def config_hash(self) -> str:
        """A hash of all that decides the result."""
        return _digest(self._decides())

    def resolved(self) -> dict[str, Any]:
        """What `config.json` holds: the settings of this run, defaults included."""
        return {"config_hash": self.config_hash, "label": self.label, **self._decides()}

    def record(self) -> Record:
        """The record of this run before anything is measured."""
        task, base = self.task, self.base
        return Record(
            method=self.method.name,
            label=self.label,
            settings=json.loads(json.dumps(self.settled.settings())),
            seed=self.seed,
            status="running",
            config_hash=self.config_hash,
            task=TaskFacts(
                name=task.name,
                fingerprint=task.source.fingerprint,
                train_rows=len(task.pairs("train")),
                test_rows=len(task.test),
                metrics=list(task.metrics),
            ),
            samples={
                name: Sampled(rows=rows, of=self.whole[name])
                for name, rows in self.samples.chosen().items()
                if name in self.whole
            },
            model=ModelFacts(
                name=base.name,
                fingerprint=base.fingerprint,
                parameters=base.parameters,
                dtype=base.dtype,
                bytes=base.bytes,
                checkpoint=base.checkpoint,
            ),
            train=asdict(self.config),
            parameters=Parameters(trainable=None, stored=None, base=base.parameters),
            guest=is_guest(self.method),
            skipped=task.skipped.get("test"),
            trial=self.trial,
            predicted=self.predicted,
            search=self.searched,
            budget=BudgetFacts(
                kind=self.budget.kind,
                amount=self.budget.amount,
                trials=self.search.trials,
                trial_share=self.search.share,
            ),
        )

    def _decides(self) -> dict[str, Any]:
        task = self.task
        train = identity(self.config)
        train.pop("seed")
        files = self.method.files()
        return {
            "method": self.method.name,
            "settings": self.settled.identity(),
            "seed": self.seed,
            "train": train,
            "evaluation": identity(self.evaluation),
            "task": {
                "name": task.name,
                "fingerprint": task.source.fingerprint,
                "template": task.template.identity(),
                "instruction": task.instruction,
                "max_new_tokens": task.max_new_tokens,
                "metrics": list(task.metrics),
                "decoding": identity(task.decoding),
                **({} if task.long == "cut" else {"long": task.long}),
                **({} if task.choices is None else {"choices": asdict(task.choices)}),
            },
            "model": {"name": self.base.name, "fingerprint": self.base.fingerprint},
            "device": self.base.device.partition(":")[0],
            **({"search": identity(self.search)} if self.search.trials else {}),
            **({"general": _identity(self.general)} if self.general else {}),
            **({"samples": chosen} if (chosen := self.samples.chosen()) else {}),
            **({"files": files} if files else {}),
            **({"rates": shares} if (shares := self.method.shares(self.base.scale)) else {}),
        }


def runs_of(
    plan: Plan,
    base: Base,
    task: Task,
    general: GeneralText | None = None,
    samples: Samples = Samples(),
    whole: Mapping[str, int] | None = None,
) -> list[Run]:
    """Every method with the first seed, then with the second, and so on.

    In this order an interrupted comparison has already compared something. A method in which
    nothing is random runs with the first seed alone; of methods that come to the same on this task,
    the first one runs.

    Args:
        task: with its samples in the place of the splits. whole: see `Run`.
    """
    runs = [
        Run(
            method=method,
            seed=seed,
            task=task,
            config=_resolved(plan.config, method, seed, base),
            evaluation=plan.evaluation,
            base=base,
            search=plan.search,
            samples=samples,
            whole=dict(whole or {}),
            general=general,
            beside_cue=any(method.begins_at_cue for method in plan.methods),
            track=plan.track,
        )
        for seed in plan.seeds
        for method in plan.methods
        if seed in seeds_of(plan, method)
    ]
    first: dict[str, Run] = {}
    for run in runs:
        first.setdefault(run.config_hash, run)
    return list(first.values())


def seeds_of(plan: Plan, method: Method | Guest) -> tuple[int, ...]:
    """The seeds that this method runs with: one where another could not give another result."""
    random = method.seeded or plan.task.decoding.sample
    return plan.seeds if random else plan.seeds[:1]


def searches(run: Run) -> bool:
    """Whether the run's method has a rate that is to be searched for."""
    return bool(run.search.trials) and run.method.trains


def _resolved(config: TrainConfig, method: Method | Guest, seed: int, base: Base) -> TrainConfig:
    rate = config.rate(method.rate_on(base.scale)) if method.trains else config.learning_rate
    return replace(config, seed=seed, learning_rate=rate)


def _identity(text: GeneralText) -> dict[str, Any]:
    """Which text is read, without all of it."""
    return {"text": _digest({"documents": list(text.documents)}), "window": text.window}


def _digest(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
