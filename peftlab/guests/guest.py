"""A guest: a PEFT method by name or by its `adapter_config.json`, with the options that are set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import TypeIs

from peftlab.errors import InputError, nearest
from peftlab.files import read_json

if TYPE_CHECKING:
    from peft import PeftConfig

    from peftlab.bases.scale import Scale
    from peftlab.methods.base import State
    from peftlab.tasks import Task, Template

_ABOUT_THE_FILE = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version",
    "revision", "task_type",
}  # fmt: skip
# Vectors and prompts move by about the rate a step, so they need a higher one than matrices.
_RATES = {
    "ia3": 1e-2, "ln_tuning": 1e-2, "vera": 1e-2, "prompt_tuning": 3e-2, "cpt": 3e-2,
    "prefix_tuning": 1e-2, "p_tuning": 3e-3, "cartridge": 1e-2,
}  # fmt: skip


@dataclass(frozen=True)
class Guest:
    """A method that PEFT's own modules carry out, on a plain copy of the base.

    It offers what a comparison asks of a method: name, settings, rate. It makes no edits, so it
    takes no part in mixed batches.

    Attributes:
        kind: PEFT's type in lower case. options: of its configuration; PEFT's defaults elsewhere.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)

    library: ClassVar[str] = "peft"
    trains: ClassVar[bool] = True
    seeded: ClassVar[bool] = True
    searches: ClassVar[bool] = False
    begins_at_cue: ClassVar[bool] = False  # in a way that leaves the base's reading apart
    sites: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        known = {f.name for f in fields(_config_class(self.kind))}
        for name in self.options:
            if name not in known:
                raise InputError(
                    f"{self.name} has no option {name!r}; it has {', '.join(sorted(known))}."
                    f"{nearest(name, known)}"
                )

    @classmethod
    def parse(cls, text: str) -> Guest:
        """`peft:oft`, `peft:oft,r=4,target_modules=q_proj+v_proj` or `peft:adapter_config.json`.

        Raises:
            InputError: no such type, file or option (with the nearest name), or PEFT is missing.
        """
        first, *rest = text.removeprefix("peft:").split(",")
        guest = _from_file(Path(first)) if first.endswith(".json") else cls(first.lower())
        options = dict(guest.options)
        for item in rest:
            key, equals, value = item.partition("=")
            if not equals:
                raise InputError(f"{text!r}: {item!r} is no option; key=value was expected")
            options[key.strip()] = _value(value.strip())
        return cls(guest.kind, options)

    @property
    def name(self) -> str:
        """As in `--methods`."""
        return f"peft:{self.kind}"

    @property
    def label(self) -> str:
        """The name with its options, as one would type it."""
        typed = (f"{key}={_typed(value)}" for key, value in sorted(self.options.items()))
        return ",".join([self.name, *typed])

    @property
    def folder_label(self) -> str:
        """The same: it names only what was given, whatever PEFT's defaults become."""
        return self.label

    @property
    def learning_rate(self) -> float:
        """A peak rate to start a search from."""
        return _RATES.get(self.kind, 1e-3)

    def rate_on(self, scale: Scale) -> float:
        """The same on every base."""
        return self.learning_rate

    def shares(self, scale: Scale) -> list[float]:
        """None: it has one rate."""
        return []

    def settings(self) -> dict[str, Any]:
        """The options as JSON values."""
        return dict(self.options)

    def on(self, task: Task) -> Guest:
        """The same: PEFT takes nothing from a task."""
        return self

    def identity(self) -> dict[str, Any]:
        """All of the options: they are PEFT's, and only those that were given."""
        return self.settings()

    def files(self) -> dict[str, str]:
        """None: a configuration's file is read when the guest is named."""
        return {}

    def config(self, steps: int) -> PeftConfig:
        """PEFT's configuration; `steps` goes to types that plan over the whole training.

        Raises:
            InputError: PEFT refuses the options.
        """
        cls = _config_class(self.kind)
        options = {"task_type": "CAUSAL_LM", **self.options}
        if any(f.name == "total_step" for f in fields(cls)):
            options.setdefault("total_step", steps)
        try:
            return cls(**options)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.name}: PEFT refuses its options: {error}") from error

    def template(self, template: Template, state: State) -> Template:
        """The task's own: PEFT puts its prompts before the row by itself."""
        return template

    def groups(self, state: State, rate: float, scale: Scale) -> list[dict[str, Any]]:
        """One rate for all that PEFT trains."""
        return [{"params": list(state.tensors), "lr": rate}]


def is_guest(method: Any) -> TypeIs[Guest]:
    """Whether PEFT carries a method out."""
    return isinstance(method, Guest)


def _config_class(kind: str) -> Any:
    try:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as TYPES
    except ImportError as error:
        raise InputError(
            "guests need PEFT, which is not installed: pip install 'peftlab[peft]'"
        ) from error
    known = {str(getattr(name, "value", name)).lower(): cls for name, cls in TYPES.items()}
    if kind not in known:
        raise InputError(
            f"PEFT knows no type {kind!r}; it knows {', '.join(sorted(known))}."
            f"{nearest(kind, known)}"
        )
    return known[kind]


def _from_file(path: Path) -> Guest:
    values = read_json(path)
    if not isinstance(values.get("peft_type"), str):
        raise InputError(f"{path} names no peft_type: it is no PEFT configuration")
    options = {k: v for k, v in values.items() if k not in _ABOUT_THE_FILE and v is not None}
    return Guest(values["peft_type"].lower(), options)


def _value(text: str) -> Any:
    """JSON where it is, `a+b` (or `a+`) as a list, of numbers where all are, else the text."""
    try:
        return json.loads(text.lower() if text in ("True", "False") else text)
    except json.JSONDecodeError:
        if "+" not in text:
            return text
        parts = [part for part in text.split("+") if part]
        return [int(part) for part in parts] if all(map(str.isdecimal, parts)) else parts


def _typed(value: Any) -> str:
    kinds = {type(item) for item in value} if isinstance(value, list) else set()
    numbers = all(str(item).isdecimal() for item in value) if kinds else False
    if (kinds == {int} and numbers) or (kinds == {str} and not numbers):
        return "+".join(map(str, value)) + ("+" if len(value) == 1 else "")
    return value if isinstance(value, str) else json.dumps(value)
