"""An adaptation: a method's result, ready for use, saved and loaded as a folder.

The folder holds `adaptation.json` (method, settings, template, the base's fingerprint, plain
values) and `adaptation.safetensors`. Nothing is pickled.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab import admission, files
from peftlab.edits import Edits, tensors_of
from peftlab.errors import InputError
from peftlab.lazy import torch
from peftlab.methods.base import Method, State
from peftlab.methods.parse import build
from peftlab.tasks import Template

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM

ADAPTER = "adapter"
DESCRIPTION, TENSORS = "adaptation.json", "adaptation.safetensors"
_FORMAT = 1
_KEYS = ("method", "settings", "template", "base", "text")
_NAMED = ("name", "fingerprint")
_SIZES = ("family", "layers", "hidden", "heads", "kv_heads", "head_dim", "vocab")


def own_folder(folder: Path) -> Path:
    """An adapter's folder, or the `adapter` inside a run's."""
    inside = folder / ADAPTER
    return inside if inside.is_dir() else folder


def base_of(model: FrozenLM) -> dict[str, Any]:
    """What an adaptation notes of its base: name, fingerprint, and the sizes that it hangs on.

    dtype: the format of the base's numbers. checkpoint: where they came from, in any format.
    """
    shape = {name: getattr(model.shape, name) for name in _SIZES}
    return {
        "name": model.name,
        "fingerprint": model.fingerprint,
        "dtype": model.base_dtype,
        "checkpoint": model.checkpoint,
        "shape": shape,
    }


class OtherFormat(admission.OtherBase):
    """An adaptation is used on its base in another number format than it was made on."""


@dataclass(frozen=True)
class Adaptation:
    """A materialised state with all that is needed to use it on its base.

    Attributes:
        template: the task's template, before the method changes it.
        base: the model that it was made for, see `base_of`.
    """

    method: Method
    state: State
    template: Template
    base: Mapping[str, Any]

    @property
    def row_template(self) -> Template:
        """The text of its rows: the task's template as the method changes it."""
        return self.method.template(self.template, self.state)

    def edits(self, model: FrozenLM) -> Edits:
        """The edits, text included, detached.

        Raises:
            InputError: the model is another base; lists all that does not fit.
            UnsupportedModel: the model lacks a site that the method needs.
        """
        self.check(model)
        with torch.no_grad():
            state = State(
                {n: t.to(model.device) for n, t in self.state.tensors.items()}, self.state.text
            )
            edits = self.method.edits(state, model).detach()
        if not all(bool(tensor.isfinite().all()) for tensor in tensors_of(edits)):
            raise InputError(
                f"this {self.method.name} makes numbers that are infinite or not a number"
            )
        template = self.row_template
        for text, own in zip((template, *template.beside), edits.each, strict=True):
            self._check_pseudo_tokens(text, own)
        begin = template.begin if edits.changes_nothing else edits.begin
        return replace(edits, template=template, begin=begin)

    def check(self, model: FrozenLM) -> None:
        """Refuse a base that this adaptation was not made for, see `edits`."""
        for site in self.method.sites:
            model.conformance.require(site, self.method.name)
        problems = other_weights(self.base, model)
        problems += [
            f"{size} is {getattr(model.shape, size)}, not {value}"
            for size, value in self.base.get("shape", {}).items()
            if getattr(model.shape, size) != value
        ]
        damage = []
        try:
            self.method.check(model.shape)
            damage = admission.misfits(self.state.tensors, self.method.stored(model.shape))
        except InputError as error:
            problems.append(str(error))
        if problems:
            said = "; ".join([*problems, *damage])
            raise InputError(f"this adaptation is for another base: {said}")
        if damage:
            raise InputError(
                f"this is no {self.method.name} for {model.name}, or it is damaged: "
                f"{'; '.join(damage)}"
            )

    def _check_pseudo_tokens(self, template: Template, edits: Edits) -> None:
        """Refuse a text whose pseudo tokens are not those that the edits have vectors for."""
        have = 0 if edits.embeddings is None else len(edits.embeddings)
        if template.pseudo_tokens != have:
            raise InputError(
                f"its text has {template.pseudo_tokens:,} pseudo tokens, and its {self.method.name}"
                f" has {have:,}: the template does not belong to these tensors"
            )

    def save(self, folder: Path | str) -> None:
        """Write the folder, all of it or nothing.

        Raises:
            DiskFull: see `files.atomically`.
        """
        from safetensors.torch import save_file  # which imports torch

        tensors = {n: t.detach().cpu().contiguous() for n, t in self.state.tensors.items()}
        described = {
            "format": _FORMAT,
            "method": self.method.name,
            "settings": self.method.settings(),
            "template": self.template.to_dict(),
            "base": dict(self.base),
            "text": dict(self.state.text),
        }
        with files.together(Path(folder)) as place:
            save_file(tensors, place / TENSORS)
            files.write_json(place / DESCRIPTION, described)

    @classmethod
    def load(cls, folder: Path, model: FrozenLM | None = None) -> Adaptation:
        """Read a folder that `save` wrote.

        Args:
            model: the base to use it on: then `check` comes before any number is read.

        Raises:
            InputError: not such a folder, a damaged or pickled file, another format, numbers that
                are none, or, with a model, one of another base.
        """
        for name in (DESCRIPTION, TENSORS):
            if not (folder / name).is_file():
                raise InputError(f"{folder} holds no adaptation: {name} is missing")
        description = files.read_json(folder / DESCRIPTION)
        if description.get("format") != _FORMAT:
            raise InputError(
                f"{folder} has format {description.get('format')!r:.40}; "
                f"this version reads {_FORMAT}"
            )
        if lacks := [key for key in _KEYS if key not in description]:
            raise InputError(f"{folder / DESCRIPTION} is damaged: it lacks {', '.join(lacks)}")
        for key in _KEYS[1:]:
            if not isinstance(description[key], dict):
                raise InputError(f"{folder / DESCRIPTION} is damaged: {key} is no object")
        outline = admission.outline(folder / TENSORS)
        made = cls(
            build(description["method"], description["settings"]),
            State(outline, description["text"]),
            Template.from_dict(description["template"]),
            checked_base(description["base"]),
        )
        if model is not None:
            made.check(model)
        elif wrong := admission.misfits(outline, {n: t.shape for n, t in outline.items()}):
            raise InputError(f"{folder / TENSORS} is damaged: {'; '.join(wrong)}")
        state = State(admission.numbers(folder / TENSORS, outline), made.state.text)
        return replace(made, state=state)


def other_weights(base: Mapping[str, Any], model: FrozenLM) -> list[str]:
    """What is wrong with the model's weights; the same ones in another format are let pass."""
    if base["fingerprint"] == model.fingerprint:
        return []
    made, here = base.get("dtype", "fp32"), model.base_dtype
    if (
        made != here
        and base.get("checkpoint") is not None
        and base["checkpoint"] == model.checkpoint
    ):
        warnings.warn(
            f"an adaptation was made on {base['name']} in {made} and is used on it in {here}: its "
            "figures will not be those that were measured",
            OtherFormat,
            stacklevel=4,
        )
        return []
    mend = f"; load the base with --base-dtype {made}" if made != here else ""
    return [
        f"made for {base['name']} in {made} ({_digits(base['fingerprint'])}), loaded on "
        f"{model.name} in {here} ({_digits(model.fingerprint)}){mend}"
    ]


def checked_base(base: Any) -> dict[str, Any]:
    """What `base_of` has written, as far as it is relied on.

    Raises:
        InputError: something else.
    """
    shape = base.get("shape", {}) if isinstance(base, dict) else None
    named = isinstance(base, dict) and all(isinstance(base.get(n), str) for n in _NAMED)
    if not (named and isinstance(shape, dict) and set(shape) <= set(_SIZES)):
        raise InputError(
            f"what is noted of its base is damaged: {', '.join(_NAMED)} and shape were expected, "
            f"got {base!r:.100}"
        )
    return {"dtype": "fp32", **base}


def _digits(fingerprint: object) -> str:
    """Enough of a fingerprint for people to tell two apart."""
    return str(fingerprint).rpartition(":")[2][:12]
