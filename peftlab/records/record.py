"""`record.json`: all that is known of one run. Everything shown anywhere is made from these files.

Units: seconds, bytes, nats per target token; ROUGE 0–1; BLEU, chrF and TER 0–100. A figure that was
not measured is null; it is never left out and never zero.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from peftlab.errors import InputError, refusing
from peftlab.files import make_folder, read_json, write_json
from peftlab.methods import build
from peftlab.methods.parse import relabelled

VERSION = 1
NAME = "record.json"

Status = Literal["running", "finished", "failed", "pruned", "left out"]
"""pruned: a trial that was ended since others did better. left out: not run, since it was predicted
to exceed a limit."""


class Part(BaseModel):
    """Base of all parts: unknown names are refused, so that a typing error cannot lose a figure."""

    model_config = ConfigDict(
        extra="forbid", protected_namespaces=(), populate_by_name=True, allow_inf_nan=False
    )


Count = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0)]
"""Of seconds, bytes or tokens. What is negative, or too large for any machine, is damage."""


class Parameters(Part):
    """Numbers that are trained, that are stored to use the result, and of the frozen base."""

    trainable: Count | None
    stored: Count | None
    base: Annotated[Count, Field(ge=1)]


class Seconds(Part):
    """Wall time of a run, by what it went to; of records before 2026-12 only four are known.

    Attributes:
        load: of the base. prepare: what training takes beside what follows: rows encoded, a first
            state, the optimiser, logs. train: steps alone. validation: of validations in training.
        step: a warm one (median); part of `train`.
        evaluate: losses. forgetting: the loss of general text. generate: texts and their scores.
        latency: its measurement. save: checkpoints, adapter, predictions.
        measure: readings of memory and cores, and the tidying up before them.
        train_spared: what steps would have taken besides, had not earlier runs of the comparison
            kept what they read; counted as training time, and in no sum of what has passed.
        total: from the begin of the run's process to its record, with what an earlier process had
            done of it; the others but `step`, `train_spared` and `train_again` add up to it.
        train_again: what training takes at the pace of twenty steps that were taken again, since
            others used the machine meanwhile; the times above stay those of the clock.
    """

    load: Amount | None = None
    prepare: Amount | None = None
    train: Amount | None = None
    step: Amount | None = None
    validation: Amount | None = None
    evaluate: Amount | None = None
    forgetting: Amount | None = None
    generate: Amount | None = None
    latency: Amount | None = None
    save: Amount | None = None
    measure: Amount | None = None
    total: Amount | None = None
    train_spared: Amount | None = None
    train_again: Amount | None = None


Share = Annotated[float, Field(ge=0, le=1)]


class Others(Part):
    """Shares of the cores given to a run that processes outside the comparison used meanwhile.

    null: not known, on other systems than Linux and of less than half a second. step: while what
    `Seconds.step` and `train_again` say was measured; that of train where nothing was taken again.
    """

    load: Share | None = None
    train: Share | None = None
    step: Share | None = None
    evaluate: Share | None = None
    generate: Share | None = None
    latency: Share | None = None


class Delay(Part):
    """first_token: from encoded prompts to their first tokens. token: from one to the next."""

    first_token: Amount
    token: Amount


class Delays(Delay):
    """One row at a time, and sixteen together."""

    batch_16: Delay | None = None


class Latency(Delays):
    """Of the adaptation beside the base, and `merged` into it where it changes linear maps only."""

    merged: Delays | None = None


class PeakMemory(Part):
    """Most bytes held in each phase, the model included. gauge: how they were measured."""

    train: Count | None = None
    evaluate: Count | None = None
    generate: Count | None = None
    gauge: str | None = None


class Loss(Part):
    """Per target token. test is null in search trials. train: of a sample, with the best state.

    …_error: its standard error over rows of its kind, of which these are some.
    """

    train: float | None = None
    validation: float | None = None
    test: float | None = None
    train_error: Amount | None = None
    validation_error: Amount | None = None
    test_error: Amount | None = None


class Sampled(Part):
    """A split of which a sample was read: pairs of train and validation, examples of test."""

    rows: Count
    of: Count


class GeneralLoss(Part):
    """Per token of a text that belongs to no task: of the bare base, and with the adaptation on."""

    before: float
    after: float

    @property
    def forgotten(self) -> float:
        """By how much the text has become less likely; negative where it has become more so."""
        return self.after - self.before


class TaskFacts(Part):
    """Which rows were learnt: the fingerprint is of all rows after limits."""

    name: str
    fingerprint: str
    train_rows: Count
    test_rows: Count
    metrics: list[str]


class ModelFacts(Part):
    """The frozen base: the fingerprint is of its weights as they are kept.

    dtype: the format that they are kept in. bytes: what they take. checkpoint: where they come
    from, the same for every format; null where it is not known.
    """

    name: str
    fingerprint: str
    parameters: Count
    dtype: str = "fp32"
    bytes: Count | None = None
    checkpoint: str | None = None


class Progress(Part):
    """steps: taken. best_step: whose state was kept. tokens: packed ones of training rows.

    forward_tokens: through the base, those of a backward pass once more; what a budget of tokens
    counts; `passes` in older records. validated: those of validations during training.
    """

    steps: Count
    best_step: Count
    tokens: Count
    forward_tokens: Count | None = Field(
        default=None, validation_alias=AliasChoices("forward_tokens", "passes")
    )
    validated: Count | None = None
    tokens_per_second: Amount | None


class BudgetFacts(Part):
    """What every method of the comparison was allowed.

    Attributes:
        kind: steps, tokens or seconds, of which each run gets `amount`.
        trials, trial_share: trials of the search for a rate, and each one's share of `amount`.
    """

    kind: str
    amount: float
    trials: int
    trial_share: float


class Tried(Part):
    """One trial of a search: its rate, its lowest validation loss and how it ended."""

    rate: float
    loss: float | None
    status: Status
    steps: Count


class Search(Part):
    """How a method's rate was found, by validation alone, and what that cost in all.

    tokens: through the base, validations included and those of a backward pass once more. others:
    mean share of the cores that processes outside the comparison used.
    """

    rate: float
    trials: list[Tried]
    seconds: Amount
    tokens: Count
    others: Share | None = None


class Record(Part):
    """One run, or one trial of a search.

    Attributes:
        label: the method with the settings that differ from its defaults, as one would type it.
        settings: all settings of the method.
        config_hash: of all that decides the result; a finished run is known again by it.
        error: why the run failed, or was left out.
        diverged_at: the step at which the loss ceased to be finite.
        trial: the number of a search's trial; its test figures stay empty.
        search: how the rate was found; None where it is the stored one.
        samples: by split, how much of it was read, where that was not all: losses and scores are of
            these rows, the same for every method.
        bytes: of the saved adapter's files.
        context_tokens: mean positions before the target that are not the source's.
        subsets: scores of the task's named parts of its test split.
        truncated: test prompts that lost source tokens.
        skipped: test examples that the scores leave out, for every method alike, since they are
            longer than fits; None where long rows are cut.
        general: what the adaptation has cost elsewhere; None where it was not measured.
        predicted: what was estimated before the run (bytes, seconds), and as `…_error` the share by
            which it was above what was then measured.
        guest: the run was made by another library, under the same measurements.
    """

    version: int = VERSION
    method: str
    label: str
    settings: dict[str, Any]
    seed: int
    status: Status
    error: str | None = None
    diverged_at: int | None = None
    trial: int | None = None
    config_hash: str
    task: TaskFacts
    model: ModelFacts
    train: dict[str, Any]
    parameters: Parameters
    budget: BudgetFacts | None = None
    search: Search | None = None
    progress: Progress | None = None
    bytes: Count | None = None
    seconds: Seconds = Field(default_factory=Seconds)
    others: Others = Field(default_factory=Others)
    latency: Latency | None = None
    peak_memory: PeakMemory = Field(default_factory=PeakMemory)
    samples: dict[str, Sampled] = Field(default_factory=dict)
    loss: Loss = Field(default_factory=Loss)
    general: GeneralLoss | None = None
    scores: dict[str, float] = Field(default_factory=dict)
    subsets: dict[str, dict[str, float]] = Field(default_factory=dict)
    context_tokens: Amount | None = None
    truncated: Count | None = None
    skipped: Count | None = None
    environment: dict[str, Any] = Field(default_factory=dict)
    predicted: dict[str, float] = Field(default_factory=dict)
    guest: bool = False

    def failed(self, message: str, diverged_at: int | None = None) -> Record:
        """The same run, ended by an error."""
        changes = {"status": "failed", "error": message, "diverged_at": diverged_at}
        return self.model_copy(update=changes)

    def write(self, folder: Path) -> None:
        """Replace the folder's record, whole or not at all; makes the folder if there is none."""
        make_folder(folder)
        write_json(folder / NAME, self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path) -> Record:
        """The record of a file, its label beside the defaults of today.

        Raises:
            InputError: damaged, half written, or of another version; says which file and why.
        """
        values = read_json(path)
        version = values.get("version")
        if version != VERSION:
            raise InputError(
                f"{path} has version {version!r}; this peftlab reads version {VERSION}"
            )
        with refusing(f"{path} is damaged: "):
            return cls.model_validate(values)._relabelled()

    def _relabelled(self) -> Record:
        """A label of earlier defaults would name another method today."""
        if self.guest:
            return self
        try:
            method = build(self.method, self.settings)
        except InputError:  # of a plug-in that is not here
            return self
        named, at, dtype = self.label.partition(f"@{self.model.dtype}")
        return self.model_copy(update={"label": relabelled(named, method) + at + dtype})
