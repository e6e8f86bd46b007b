"""From options by name to a plan: what `peftlab compare` and `pl.compare` have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.comparison.label import parse, slug
from peftlab.comparison.plan import Plan
from peftlab.comparison.settings import (
    OF_THE_TASK,
    ComparisonConfig,
    EvaluationConfig,
    Limits,
    SamplingConfig,
    SearchConfig,
    comparison_entries,
)
from peftlab.errors import InputError
from peftlab.guests import Guest, is_guest
from peftlab.methods import REGISTRY, Method, method_of
from peftlab.methods.base import BeginningMethod
from peftlab.options import Called, entries, made, plainly, refuse_unknown
from peftlab.tasks import Options, Task
from peftlab.tasks.plain import general_documents
from peftlab.tasks.rows import spaced
from peftlab.training.config import BUDGETS, DECAYS_LATE, TrainConfig, train_config
from peftlab.training.tracking import trackers

if TYPE_CHECKING:
    from peftlab.comparison.engine import Engine

# With no argument: minutes on two cores.
DEMO_STEPS, DEMO_TEST = 150, 100
STEPS = 300
# With `full`: every method, its rate searched for, under 45 minutes on two cores. The budget is of
# tokens, since a step of a discrete search takes as many as ten of the others.
FULL_SEEDS, FULL_SEARCH, FULL_BUDGET = 3, 4, "tokens=330_000"
_LOOKED_AT, _LONG_SOURCE = 1000, 256  # rows; characters, some 64 tokens
FIVE = "hard_prompt,hard_prompt:instruction=task,prompt_tuning,lora,last_k,full"


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """Everything that a comparison was told, checked, with its defaults; the task is loaded.

    Attributes:
        loading: how the task was loaded, by the names of its options.
    """

    what: ComparisonConfig
    task: Task
    loading: Mapping[str, Any]
    methods: tuple[Method | Guest, ...]
    train: TrainConfig
    evaluation: EvaluationConfig
    sampling: SamplingConfig
    search: SearchConfig
    limits: Limits

    @property
    def out(self) -> Path:
        """The folder of all runs."""
        if self.what.out is not None:
            return self.what.out
        model = self.what.model
        base = Path(model).name if Path(model).exists() else model
        return Path("runs") / f"{slug(self.task.name)}-{slug(base)}"

    def plan(self) -> Plan:
        """What they come to.

        Raises:
            InputError: settings that contradict each other, or a device that is not here.
        """
        from peftlab.frozen.named import device_name

        return Plan(
            model=self.what.model,
            base_dtypes=self.what.base_dtype,
            task=self.task,
            methods=self.methods,
            config=self.train,
            evaluation=self.evaluation,
            sampling=self.sampling,
            search=self.search,
            predict=True,
            limits=self.limits,
            general_text=general_documents(self.what.general_text),
            seeds=self.what.seeds,
            device=device_name(self.what.device, is_here=self.what.engine == "processes"),
            track=trackers(self.what.track),
            within=self.what.within,
            margin=self.what.margin,
        )

    def engine(self, say: Callable[[str], None]) -> Engine:
        """What carries the runs out.

        Raises:
            InputError: options of a cluster without one, or no Ray.
        """
        if self.what.engine == "processes":
            from peftlab.comparison.local import LocalEngine

            return LocalEngine()
        from peftlab.comparison.ray.cluster import the_ray
        from peftlab.comparison.ray.engine import Ray

        the_ray()  # says at once what to install
        return Ray(self.what.address, self.what.cpus, say)

    def values(self) -> dict[str, Any]:
        """All options by name, as a YAML file holds them; they come to the same settings again."""
        parts = (self.what, self.search, self.train, self.evaluation, self.sampling, self.limits)
        by_name: dict[str, Any] = dict.fromkeys(comparison_entries())
        for part in parts:
            for name, entry in entries(type(part)).items():
                if name in by_name:
                    by_name[name] = _plain(getattr(part, entry.field))
        by_name |= {name: _plain(self.loading.get(name)) for name in OF_THE_TASK}
        by_name["methods"] = [method.label for method in self.methods]
        budget = next(b for b in reversed(BUDGETS) if by_name[b] is not None)
        unused = {"budget", *BUDGETS} - {budget}
        return {name: value for name, value in by_name.items() if name not in unused}


def comparison_settings(**given: Any) -> ComparisonSettings:
    """Settings of a comparison from keyword arguments, called as flags and YAML entries are.

    A task may be a `Task`, methods a list of methods and of what one types.

    Raises:
        InputError: an unknown name (with the nearest), or a value that cannot be used.
    """
    return resolved(given)


def resolved(given: Mapping[str, Any], called: Called = plainly) -> ComparisonSettings:
    """The same from a mapping; `called` says how an option is called where it came from."""
    refuse_unknown(given, comparison_entries(), "a comparison")
    what = made(ComparisonConfig, given, called)
    _check_engine(what, called)
    _check_within(what, given, called)
    values = _with_defaults(what, given)
    what = made(ComparisonConfig, values, called)
    loading = {name: values[name] for name in OF_THE_TASK if name in values}
    task = the_task(values, called)
    return ComparisonSettings(
        what=what,
        task=task,
        loading=loading,
        methods=methods_of(what.methods, task, what.full),
        train=config_of(values, DEMO_STEPS if _is_demo(what.task) else STEPS, called),
        evaluation=made(EvaluationConfig, values, called),
        sampling=made(
            SamplingConfig, values, called, test=not task.test_is_limited and what.within is None
        ),
        search=made(SearchConfig, values, called),
        limits=made(Limits, values, called),
    )


def config_of(
    given: Mapping[str, Any], steps: int = STEPS, called: Called = plainly
) -> TrainConfig:
    """The settings of training among options by name; `steps` where there is no budget.

    Raises:
        InputError: two budgets, or a value that cannot be used.
    """
    return train_config({k: v for k, v in given.items() if k in _TRAINING}, steps, called)


# What --within finds by itself, and the defaults that may be given all the same.
_FOUND: Mapping[str, tuple[Any, ...]] = {
    "seeds": (1, [0], (0,)),
    "search": (0,),
    "search_share": (0.5,),
    "learning_rate": (),
    "patience": (0,),
}
_WHAT = ("task", "task_option")
_TRAINING = {"budget", *entries(TrainConfig)}


def _is_demo(task: Any) -> bool:
    return (task.name if isinstance(task, Task) else task) == "demo"


def _with_defaults(what: ComparisonConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is not given, where the defaults of one option depend on others."""
    values = dict(given)
    if what.within is not None:
        values |= {"schedule": DECAYS_LATE}
    elif what.full:
        values.setdefault("seeds", FULL_SEEDS)
        if values.get("learning_rate") is None:
            values.setdefault("search", FULL_SEARCH)
        if not any(values.get(name) is not None for name in ("budget", *BUDGETS)):
            values["budget"] = FULL_BUDGET
    elif _is_demo(what.task) and not isinstance(what.task, Task) and "limit" not in values:
        values.setdefault("test_limit", DEMO_TEST)
    return values


def _check_within(what: ComparisonConfig, given: Mapping[str, Any], called: Called) -> None:
    if what.within is None:
        if what.margin is not None:
            raise InputError(f"{called('margin')} belongs to {called('within')}, which is missing")
        return
    for name in (*_FOUND, *BUDGETS[1:], "budget"):
        value = given.get(name)
        if value is not None and value not in _FOUND.get(name, ()):
            raise InputError(
                f"{called('within')} finds rates, lengths and seeds by itself; leave "
                f"{called(name)} out ({called('steps')} says how long a training may be at most)"
            )
    if given.get("schedule") not in (None, DECAYS_LATE):
        raise InputError(
            f"{called('within')} trains under the schedule {DECAYS_LATE}, under which trainings of "
            f"several lengths share their beginning; leave {called('schedule')} out"
        )
    if len(what.base_dtype) > 1:
        raise InputError(f"{called('within')} compares on one {called('base_dtype')}; got several")


def _check_engine(what: ComparisonConfig, called: Called) -> None:
    if what.engine == "processes":
        extra = [called(n) for n in ("address", "cpus") if getattr(what, n) is not None]
        if extra:
            raise InputError(
                f"{' and '.join(extra)} {'belongs' if len(extra) == 1 else 'belong'} to --engine "
                "ray, which is not given"
            )


def the_task(given: Mapping[str, Any], called: Called = plainly) -> Task:
    """The task that options name and load, or the one that is loaded already.

    Raises:
        InputError: it cannot be loaded, or options are given for a loaded one.
    """
    what = made(ComparisonConfig, {n: given[n] for n in _WHAT if n in given}, called)
    loading = {name: given[name] for name in OF_THE_TASK if name in given}
    task, options = what.task, {**what.task_option, **loading}
    if not isinstance(task, Task):
        if not isinstance(task, str | Path):
            raise InputError(f"{called('task')} is {task!r}; a name, a path or a Task was expected")
        from peftlab.tasks.load import load_with

        return load_with(task, Options.of(options, called))
    given = {name: value for name, value in options.items() if value is not None}
    if given:
        raise InputError(f"{', '.join(given)}: the task is loaded already; load it with them")
    return task


def methods_of(
    asked: str | Sequence[str | Method | Guest], task: Task, full: bool
) -> tuple[Method | Guest, ...]:
    """The methods that were named, or every one with `full`, or else five.

    Raises:
        InputError: an unknown method, setting or value.
    """
    if isinstance(asked, Method) or is_guest(asked):
        return (asked,)
    if isinstance(asked, str) and asked:
        return parse(asked)
    if not isinstance(asked, str | list | tuple):
        raise InputError(f"methods is {asked!r}; names with settings, or a list, were expected")
    if asked and not isinstance(asked, str):
        return tuple(method for one in asked for method in _named(one))
    chosen = FIVE
    if full:
        prompts = "hard_prompt,hard_prompt:instruction=task"
        others = sorted(REGISTRY.keys() - {"hard_prompt"})
        chosen = ",".join([prompts, *others, *(_at_cue(others) if _long_sources(task) else ())])
    return parse(
        chosen if task.instruction else chosen.replace(",hard_prompt:instruction=task", "")
    )


def _at_cue(names: Sequence[str]) -> list[str]:
    """Those that can begin at the cue, doing so."""
    return [f"{name}:begin=cue" for name in names if issubclass(REGISTRY[name], BeginningMethod)]


def _long_sources(task: Task) -> bool:
    """Whether reading the sources is most of the work, so that to read them once matters."""
    looked = spaced(task.pairs("train"), _LOOKED_AT)
    sources = sum(len(text) for example, _ in looked for text in example.texts)
    targets = sum(len(target) for _, target in looked)
    return sources >= max(_LONG_SOURCE * len(looked), 2 * targets)


def _named(one: Any) -> Sequence[Method | Guest]:
    """One of a list of methods; in words it may stand for several."""
    if isinstance(one, str):
        return parse(one)
    return (one,) if is_guest(one) else (method_of(one),)


def _plain(value: Any) -> Any:
    """A value as YAML has it."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value
