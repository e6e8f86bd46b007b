"""An adaptation: a method's result, ready for use, saved and loaded as a folder.

The folder holds `adaptation.json` (method, settings, template, the base's fingerprint, plain
values) and `adaptation.safetensors`. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.lazy import torch
from peftlab.methods.base import Method, State
from peftlab.methods.parse import build
from peftlab.tasks import Template

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM

_FORMAT = 1
_KEYS = ("method", "settings", "template", "base", "text")
_SIZES = ("family", "layers", "hidden", "heads", "kv_heads", "head_dim", "vocab")


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


class OtherFormat(UserWarning):
    """An adaptation is used on its base in another number format than it was made on."""


@dataclass(frozen=True)
class Adaptation:
    """A baked state with all that is needed to use it on its base.

    Attributes:
        template: the task's template, before the method changes it.
        base: the model that it was made for, see `base_of`.
    """

    method: Method
    state: State
    template: Template
    base: Mapping[str, Any]

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
        return replace(edits, template=self.method.template(self.template, self.state))

    def check(self, model: FrozenLM) -> None:
        """Refuse a base that this adaptation was not made for, see `edits`."""
        for site in self.method.sites:
            model.conformance.require(site, self.method.name)
        problems = self._other_weights(model)
        problems += [
            f"{size} is {getattr(model.shape, size)}, not {value}"
            for size, value in self.base.get("shape", {}).items()
            if getattr(model.shape, size) != value
        ]
        try:
            self.method.check(model.shape)
            stored = self.method.count(model.shape).stored
        except InputError as error:
            problems.append(str(error))
        else:
            have = sum(tensor.numel() for tensor in self.state.tensors.values())
            if stored != have:
                problems.append(
                    f"holds {have:,} numbers where {self.method.name} has {stored:,} on this model"
                )
        if problems:
            raise InputError(f"this adaptation is for another base: {'; '.join(problems)}")

    def _other_weights(self, model: FrozenLM) -> list[str]:
        """What is wrong with the model's weights; the same ones in another format are let pass."""
        if self.base["fingerprint"] == model.fingerprint:
            return []
        made, here = self.base.get("dtype", "fp32"), model.base_dtype
        if made != here and self._same_checkpoint(model):
            warnings.warn(
                f"this {self.method.name} was made on {self.base['name']} in {made} and is used on "
                f"it in {here}: its figures will not be those that were measured",
                OtherFormat,
                stacklevel=4,
            )
            return []
        mend = f"; load the base with --base-dtype {made}" if made != here else ""
        digits = _digits(self.base["fingerprint"])
        return [
            f"made for {self.base['name']} in {made} ({digits}), loaded on {model.name} in {here} "
            f"({_digits(model.fingerprint)}){mend}"
        ]

    def _same_checkpoint(self, model: FrozenLM) -> bool:
        made = self.base.get("checkpoint")
        return made is not None and made == model.checkpoint

    def save(self, folder: Path | str) -> None:
        """Write the folder; each file appears whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {n: t.detach().cpu().contiguous() for n, t in self.state.tensors.items()}
        described = {
            "format": _FORMAT,
            "method": self.method.name,
            "settings": self.method.settings(),
            "template": self.template.to_dict(),
            "base": dict(self.base),
            "text": dict(self.state.text),
        }
        _replace(folder / "adaptation.safetensors", lambda path: save_file(tensors, path))
        text = json.dumps(described, indent=2, ensure_ascii=False)
        _replace(folder / "adaptation.json", lambda path: path.write_text(text, encoding="utf-8"))

    @classmethod
    def load(cls, folder: Path) -> Adaptation:
        """Read a folder that `save` wrote.

        Raises:
            InputError: not such a folder, a damaged or pickled file, or another format.
        """
        for name in ("adaptation.json", "adaptation.safetensors"):
            if not (folder / name).is_file():
                raise InputError(f"{folder} holds no adaptation: {name} is missing")
        try:
            described = json.loads((folder / "adaptation.json").read_text(encoding="utf-8"))
            tensors = load_file(folder / "adaptation.safetensors")
        except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(
                f"{folder} is damaged ({error}); a folder with adaptation.json and a safetensors "
                "file was expected (pickled files are never loaded)"
            ) from error
        found = described if isinstance(described, dict) else {}
        if found.get("format") != _FORMAT:
            raise InputError(
                f"{folder} has format {found.get('format')}; this version reads {_FORMAT}"
            )
        if lacks := [key for key in _KEYS if key not in found]:
            raise InputError(f"{folder}/adaptation.json is damaged: it lacks {', '.join(lacks)}")
        return cls(
            build(described["method"], described["settings"]),
            State(tensors, described["text"]),
            Template.from_dict(described["template"]),
            described["base"],
        )


def _digits(fingerprint: object) -> str:
    """Enough of a fingerprint for people to tell two apart."""
    return str(fingerprint).rpartition(":")[2][:12]


def _replace(path: Path, write: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write(temporary)
    temporary.replace(path)
