"""Methods from words: `lora:rank=4,prompt_tuning:length=5`, and from stored settings.

A method is its registered name and settings; `a+b` composes two methods. Values of a tuple are
joined by `+`: `lora:targets=q+k+v`. Types and choices are those of the method's dataclass fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from peftlab.errors import InputError, nearest
from peftlab.methods.base import DERIVED, REGISTRY, Method
from peftlab.methods.composed import Composed
from peftlab.options import later_defaults

_SETTING_AFTER_COLON = re.compile(r":([a-z_]+=)")


def parse(text: str) -> list[Method]:
    """Every method of a comma-separated list.

    Raises:
        InputError: an unknown method (with the nearest name), setting or value.
    """
    return [parse_one(spec) for spec in specs(text)]


def specs(text: str) -> list[str]:
    """The methods of a comma-separated list, each with its settings, as they were typed.

    Raises:
        InputError: there is none.
    """
    texts: list[str] = []
    for token in filter(None, (part.strip() for part in text.split(","))):
        if texts and "=" in token and not _starts_method(token):
            texts[-1] += f",{token}"
        else:
            texts.append(token)
    if not texts:
        raise InputError(f"no methods in {text!r}; there are {', '.join(sorted(REGISTRY))}")
    return texts


def parse_one(spec: str) -> Method:
    """One method, or a composition of several."""
    made = [_single(part) for part in _parts(spec)]
    return made[0] if len(made) == 1 else Composed(parts=tuple(made))


def relabelled(label: str, method: Method) -> str:
    """What a label of an earlier version is called beside the defaults of today.

    Args:
        method: of the settings that were stored with it.
    """
    made = method.parts if isinstance(method, Composed) else (method,)
    words = _parts(label)
    if len(words) != len(made):
        return label
    pairs = zip(words, made, strict=True)
    return "+".join(one.label if word == one.folder_label else word for word, one in pairs)


def _parts(spec: str) -> list[str]:
    names = "|".join(sorted(REGISTRY | DERIVED))
    return re.split(rf"\+(?=(?:{names})(?=$|[:+]))", spec)


def method_of(given: Any) -> Method:
    """A method that may be given in words.

    Raises:
        InputError: it is neither.
    """
    if isinstance(given, str):
        return parse_one(given)
    if not isinstance(given, Method):
        raise InputError(f"the method is {given!r:.60}; pl.LoRA(rank=8) or words were expected")
    return given


def build(name: str, settings: Mapping[str, Any]) -> Method:
    """The method of a stored record; settings that came later have the default they came with.

    Raises:
        InputError: unknown method, setting or value.
    """
    is_derived = isinstance(name, str) and name in DERIVED
    if is_derived and not settings.get("parts"):
        raise InputError(f"a stored {name} has no parts: it is damaged")
    if "parts" in settings and not is_derived:
        return _composed(settings["parts"])
    cls = _registered(name)
    return cls(**{**later_defaults(cls), **settings})


def _registered(name: Any) -> type[Method]:
    known = REGISTRY | DERIVED
    if not isinstance(name, str) or name not in known:
        raise InputError(
            f"unknown method {name!r:.100}; there are {', '.join(sorted(REGISTRY))}."
            f"{nearest(str(name)[:100], REGISTRY)}"
        )
    return known[name]


def _composed(parts: Any) -> Composed:
    if not isinstance(parts, list) or len(parts) < 2:
        raise InputError(f"a composed method's parts are {parts!r:.100}; two or more were expected")
    return Composed(parts=tuple(map(build_part, parts)))


def build_part(part: Any) -> Method:
    """A part of a stored method, see `composed.described`.

    Raises:
        InputError: it is none, or see `build`.
    """
    if not isinstance(part, Mapping) or "method" not in part:
        raise InputError(f"a part of a method is {part!r:.60}; one with its settings was expected")
    return build(part["method"], {k: v for k, v in part.items() if k != "method"})


def _single(spec: str) -> Method:
    name, _, rest = spec.partition(":")
    settings = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"{spec!r}: {item!r} is no setting; key=value was expected")
        if _SETTING_AFTER_COLON.search(value):
            mended = _SETTING_AFTER_COLON.sub(r",\1", item)
            raise InputError(
                f"{spec!r}: {item!r} has another setting after a colon; settings are separated by "
                f"commas: {name.strip()}:{mended}"
            )
        settings[key.strip()] = value.strip()
    return _registered(name.strip())(**settings)


def _starts_method(token: str) -> bool:
    name = re.split(r"[:+]", token, maxsplit=1)[0]
    return ":" in token and "=" not in name
