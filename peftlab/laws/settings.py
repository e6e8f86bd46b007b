"""What a method says of itself: its settings, its count, its layout, its rates."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, replace
from typing import TYPE_CHECKING

from peftlab.admission import misfits
from peftlab.laws.law import law, require
from peftlab.methods import Composed, build, parse_one

if TYPE_CHECKING:
    from peftlab.laws.trial import Trial
    from peftlab.methods import Method

_RATE = 1e-3
_SHARE = 0.05


def _composed(method: Method) -> str:
    return "it is composed, and has the settings of its parts" if _is_composed(method) else ""


def _is_composed(method: Method) -> bool:
    return isinstance(method, Composed)


def _unsized(method: Method) -> str:
    return "no setting of it is a size" if method.size is None else ""


@law("settings are a frozen dataclass with defaults, and its docstring says what it is", _composed)
def declared(it: Trial) -> None:
    cls = type(it.method)
    require(
        getattr(cls, "__dataclass_params__").frozen,  # noqa: B009
        "the class is no frozen dataclass: @dataclass(frozen=True, kw_only=True)",
    )
    loose = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    require(not loose, f"settings without a default: {', '.join(loose)}")
    require(bool((cls.__doc__ or "").strip()), "the class has no docstring")


@law("settings come back from JSON, and from the label")
def stored_settings(it: Trial) -> None:
    settings = json.loads(json.dumps(it.method.settings()))
    same = build(it.method.name, settings) == it.method
    require(same, f"settings {settings} build another method than {it.method}")
    same = parse_one(it.method.label) == it.method
    require(same, f"{it.method.label} is another method than {it.method}")


@law("every tensor has a rate")
def one_rate_each(it: Trial) -> None:
    groups = it.method.groups(it.first, _RATE, it.model.scale)
    named = sorted(name for group in groups for name in group["params"])
    has = sorted(it.first.tensors)
    require(named == has, f"groups name {named}, the state has {has}")
    rates = [group["lr"] for group in groups]
    require(all(rate > 0 for rate in rates), f"the rates are {rates}")
    if rates and not _is_composed(it.method):
        require(min(rates) == _RATE, f"the lowest rate is {min(rates)}, asked for {_RATE}")


@law("the count of numbers is the tensors'")
def counted(it: Trial) -> None:
    said = it.method.count(it.model.shape)
    trained = sum(tensor.numel() for tensor in it.first.tensors.values())
    stored = sum(tensor.numel() for tensor in it.adaptation(it.first).state.tensors.values())
    require(
        (said.trainable, said.stored) == (trained, stored),
        f"count says {said.trainable} and {said.stored}, the tensors hold {trained} and {stored}",
    )
    require((trained > 0) == it.method.trains, f"trains is {it.method.trains} with {trained}")


@law("names and shapes are those that are stored")
def laid_out(it: Trial) -> None:
    tensors = it.adaptation(it.first).state.tensors
    wrong = misfits(tensors, it.method.stored(it.model.shape))
    require(not wrong, f"`stored` expects other tensors than materialise gives: {'; '.join(wrong)}")


@law("a share of the base is the largest size that stores no more", _unsized)
def share_of_the_base(it: Trial) -> None:
    shape, size = it.model.shape, it.method.size or ""
    sized = it.method.with_share(shape, _SHARE)
    larger = replace(sized, **{size: getattr(sized, size) + 1})
    most = _SHARE * shape.size
    require(sized.count(shape).stored <= most, f"{sized.label} stores more than {most:,.0f}")
    require(larger.count(shape).stored > most, f"{larger.label} stores no more than {most:,.0f}")
