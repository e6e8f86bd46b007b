"""What a method is: settings, trainable tensors, and a pure function from tensors to edits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import prod
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    NamedTuple,
    Protocol,
    Self,
    TypeVar,
)

from peftlab.edits import Edits
from peftlab.errors import InputError, nearest
from peftlab.lazy import torch
from peftlab.options import Since, first_defaults, hints, identity, valid
from peftlab.tasks.example import Begin

if TYPE_CHECKING:
    from peftlab.bases.scale import Scale
    from peftlab.bases.shapes import ModelShape
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Encoded, Example, Task, Template

Params = dict[str, "torch.Tensor"]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Count:
    """How many numbers are trained, and how many are stored to use the result."""

    trainable: int
    stored: int


@dataclass(frozen=True)
class State:
    """What an adaptation consists of: tensors, and plain JSON values (such as exemplars)."""

    tensors: Params = field(default_factory=dict)
    text: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """What a search wants scored: an owner and its rows."""

    edits: Edits
    rows: Sequence[Encoded]


class Answer(NamedTuple):
    """What the model answers to an example, and its score by the metric that methods are ranked
    by; more is better, whatever the metric."""

    text: str
    score: float


class Examples(Protocol):
    """The training examples of one step of a search, and what may be asked about them.

    Attributes:
        rng: random numbers of this step alone.
    """

    model: FrozenLM
    task: Task
    rng: torch.Generator

    @property
    def template(self) -> Template:
        """The task's."""

    @property
    def room(self) -> int:
        """Tokens that a prompt may have, beside the longest reply."""

    def encode(self, template: Template, count: int | None = None) -> list[Encoded]:
        """The rows of all examples, or of the first `count`, in a template."""

    def losses(self, candidates: Sequence[Candidate]) -> list[float]:
        """Every candidate's loss per target token; all of them are owners of one batch."""

    def gradient(self, candidate: Candidate) -> torch.Tensor:
        """The gradient [P, D] of the candidate's loss per target token by `edits.embeddings`."""

    def answers(self, state: State, examples: Sequence[Example]) -> list[Answer]:
        """What the model answers to these examples of the task under a state of the method."""

    def written(self, asked: Sequence[str], author: str) -> list[tuple[str, int]]:
        """What a language model writes to each request, and the tokens of both.

        Args:
            author: "base", a folder, or "openai/NAME".

        Raises:
            InputError: it is not there, or does not answer.
        """


@dataclass(frozen=True)
class SearchStep:
    """What a step of a search has come to.

    Attributes:
        loss: of this state on the step's examples. notes: JSON values for the trace.
        ended: there is nothing left to try.
    """

    state: State
    loss: float
    notes: Mapping[str, Any]
    ended: bool = False


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """One way of adapting a frozen model. A subclass's fields are its settings, everywhere.

    Their types and limits (`Annotated[int, Ge(1)]`) hold for words, files and Python alike.

    Class attributes:
        name: set by `register`.
        sites: the sites it needs (see `frozen.conformance`).
        trains: whether there are tensors for gradient descent.
        searches: whether training is a search instead, by `update`. judges: whether that says by
            itself which state is the best, by another measure than the validation loss.
        starts_as_base: whether the untrained adaptation leaves the model's output unchanged.
        size: the setting that scales its number of parameters, if one does.
        library: whose code carries it out.
    """

    name: ClassVar[str]
    library: ClassVar[str] = "peftlab"
    sites: ClassVar[tuple[str, ...]] = ()
    trains: ClassVar[bool] = True
    searches: ClassVar[bool] = False
    judges: ClassVar[bool] = False
    starts_as_base: ClassVar[bool] = False
    size: ClassVar[str | None] = None

    def __new__(cls, /, *values: Any, **settings: Any) -> Self:
        """Refuse settings that there are not, wherever they come from; see `__post_init__`."""
        known, called = sorted(item.name for item in fields(cls)), _called(cls)
        if values:
            raise InputError(f"{called} got {values[0]!r:.60}; its settings go by their names")
        for key in settings:
            if key not in known:
                raise InputError(
                    f"{called} has no setting {key!r}; it has {', '.join(known) or 'none'}."
                    f"{nearest(key, known)}"
                )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Check each setting, and convert it to its type: a number, a choice, parts as `q+v`.

        Raises:
            InputError: lists all that cannot be used.
        """
        known = hints(type(self))
        given = {key: _several(known[key], value) for key, value in vars(self).items()}
        checked = valid(type(self), given, lambda key: f"{_called(type(self))}: {key}")
        for key, value in checked.items():
            object.__setattr__(self, key, value)

    @property
    def label(self) -> str:
        """`lora`, or `lora:rank=4,targets=q+k` where settings differ from the method's defaults."""
        return self._worded({item.name: item.default for item in fields(self)})

    @property
    def folder_label(self) -> str:
        """The same beside the defaults of the beginning: what folders of its runs are called."""
        return self._worded(first_defaults(type(self)))

    def _worded(self, defaults: Mapping[str, Any]) -> str:
        changed = [
            f"{name}={_typed(getattr(self, name))}"
            for name, default in defaults.items()
            if getattr(self, name) not in (None, default)
        ]
        return self.name + (":" + ",".join(changed) if changed else "")

    @property
    def seeded(self) -> bool:
        """Whether its result depends on a seed; where not, one run knows it all."""
        return True

    @property
    def begins_at_cue(self) -> bool:
        """Whether it leaves what comes before the cue as the base has it."""
        return False

    @property
    def learning_rate(self) -> float:
        """A peak rate for AdamW that learns on the base of `bases.scale.SEARCHED`.

        What was tried for each method: "What a search of defaults found" in docs/methods.md.
        """
        return 1e-3

    def rate_on(self, scale: Scale) -> float:
        """The peak rate for a base of that scale; the comparison's search looks round it."""
        return self.learning_rate * scale.narrower

    def shares(self, scale: Scale) -> list[float]:
        """Where parts of it train at rates of their own: these, of the one that is recorded."""
        return []

    @abstractmethod
    def init(self, model: FrozenLM, task: Task, rng: torch.Generator) -> State:
        """The state before training; text, labels or real activations may be its source."""

    def materialise(self, state: State, model: FrozenLM) -> State:
        """The state as it is stored for use: a reparametrisation is replaced by its output.

        Differentiable; the training loop differentiates `edits(materialise(state))`.
        """
        return state

    @abstractmethod
    def edits(self, state: State, model: FrozenLM, seed: int | None = None) -> Edits:
        """The edits of a materialised state. `seed` turns the method's own dropout on."""

    def template(self, template: Template, state: State) -> Template:
        """The text that this adaptation's rows have, made from the task's."""
        return template

    @abstractmethod
    def stored(self, shape: ModelShape) -> Shapes:
        """Name and shape of every tensor of a materialised state, by closed formula.

        What is read from a file is held against it before anything is allocated, see `admission`.
        """

    def count(self, shape: ModelShape) -> Count:
        """The numbers of parameters; a method that trains others than it stores says so itself."""
        total = sum(prod(size) for size in self.stored(shape).values())
        return Count(total, total)

    def groups(self, state: State, rate: float, scale: Scale) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser: a dict with `params` (names) and `lr` each.

        Args:
            rate: that of most of them. scale: the base's.
        """
        return [{"params": list(state.tensors), "lr": rate}]

    def update(self, state: State, examples: Examples) -> SearchStep:
        """One step of a search on one step's training examples, for methods that search."""
        raise NotImplementedError(f"{self.name} does not search")

    def check(self, shape: ModelShape) -> None:  # noqa: B027 - most settings fit any model
        """Refuse settings that do not fit the model.

        Raises:
            InputError: says what was got and what the model has.
        """

    def on(self, task: Task) -> Method:
        """The same method, settings that a task decides having come to what they are on it."""
        return self

    def settings(self) -> dict[str, Any]:
        """The resolved settings as JSON values."""
        return asdict(self)

    def identity(self) -> dict[str, Any]:
        """The settings that decide a result, see `options.Since`."""
        return identity(self, self.settings())

    def files(self) -> dict[str, str]:
        """Fingerprints of the files that settings name: with other contents it is another run.

        Raises:
            InputError: a file is missing.
        """
        return {}

    def with_share(self, shape: ModelShape, share: float) -> Method:
        """The same method sized so that it stores at most this share of the base's parameters.

        Raises:
            InputError: the method has no size, or even its smallest size stores more.
        """
        if self.size is None:
            raise InputError(f"{self.name} has no size that could be set by a share of the base")
        limit, low, high = share * shape.size, 0, 1 << 20
        while low < high:
            middle = (low + high + 1) // 2
            fits = replace(self, **{self.size: middle}).count(shape).stored <= limit
            low, high = (middle, high) if fits else (low, middle - 1)
        if low == 0:
            least = replace(self, **{self.size: 1}).count(shape).stored / shape.size
            raise InputError(
                f"share={share}: {self.name} with {self.size}=1 already stores {least:.4%} of the "
                "base"
            )
        return replace(self, **{self.size: low})


@dataclass(frozen=True, kw_only=True)
class BeginningMethod(Method):
    """A method whose change can begin at the cue, so that the source stays the base's own.

    Settings:
        begin: row: the whole row is changed; cue: what comes after the source, which is then read
            once for all methods, rates, seeds and epochs (after Greenewald et al. 2025,
            arXiv:2504.12397).
    """

    begin: Annotated[Begin, Since("row")] = "row"

    @property
    def begins_at_cue(self) -> bool:
        return self.begin == "cue"

    def template(self, template: Template, state: State) -> Template:
        return template.beginning(self.begin)


REGISTRY: dict[str, type[Method]] = {}
DERIVED: dict[str, type[Method]] = {}
"""Methods that are made of trained adaptations: nothing without them, so no list names them."""
M = TypeVar("M", bound=type[Method])


def register(name: str) -> Callable[[M], M]:
    """Enter a method into the registry, under the name that the command line and records use."""
    return _entering(REGISTRY, name)


def derived(name: str) -> Callable[[M], M]:
    """Enter one that is made of trained adaptations, see `DERIVED`."""
    return _entering(DERIVED, name)


def _entering(registry: dict[str, type[Method]], name: str) -> Callable[[M], M]:
    def enter(cls: M) -> M:
        if name in REGISTRY or name in DERIVED:
            raise ValueError(f"two methods are registered as {name!r}")
        cls.name = name
        registry[name] = cls
        return cls

    return enter


def _typed(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _called(cls: type[Method]) -> str:
    """As words and records have it; a class that is not registered has its own name."""
    name = getattr(cls, "name", None)
    return name if isinstance(name, str) else cls.__name__


def _several(hint: Any, value: Any) -> Any:
    """The parts of `q+v`, where a setting has several."""
    if isinstance(value, str) and "tuple" in str(hint):
        return tuple(filter(None, value.split("+")))
    return value
