"""What studies measure of a finished run besides its record, each in a process of its own, once.

Beside `record.json` lies STUDY.json with what was asked and what came out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.comparison.processes import Say, call
from peftlab.errors import InputError
from peftlab.files import read_json, write_json
from peftlab.frozen import named as base
from peftlab.records import folders
from peftlab.records.reading import StoredRun
from peftlab.study.base import Made, Setting, Study
from peftlab.study.make import Teller
from peftlab.tasks import Task

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation


@dataclass(frozen=True)
class Subject:
    """What is measured: a run, on its base and task; `asked` are the study's own questions."""

    folder: Path
    base: str
    device: str
    task: Task
    seed: int
    max_length: int | None
    asked: Mapping[str, Any]

    def open(self) -> tuple[FrozenLM, Adaptation]:
        """Load the base and the adaptation."""
        from peftlab.methods.adaptation import Adaptation

        model = base.load(self.base, self.device)
        return model, Adaptation.load(self.folder / folders.ADAPTER)


def measured(study: Study, setting: Setting, task: Task, made: Made, teller: Teller) -> Made:
    """The variant with what its study measures of each finished run."""
    if not study.measures:
        return made
    asked = json.loads(json.dumps(study.asks(setting, made)))
    results = [_one(study, setting, task, made, kept, asked, teller) for kept in made.runs]
    return replace(made, measured=tuple(results))


def _one(
    study: Study,
    setting: Setting,
    task: Task,
    made: Made,
    kept: StoredRun,
    asked: dict[str, Any],
    teller: Teller,
) -> dict[str, Any]:
    path = kept.folder / f"{study.name}.json"
    about = {"config_hash": kept.record.config_hash, "asked": asked}
    if path.exists():
        try:
            before = read_json(path)
        except InputError:
            before = {}  # half written: it is measured again
        if {key: before.get(key) for key in about} == about:
            values: dict[str, Any] = before["measured"]
            return values
    subject = Subject(
        folder=kept.folder,
        base=made.variant.base or setting.model,
        device=setting.device,
        task=made.variant.task or task,
        seed=kept.record.seed,
        max_length=setting.config.max_length,
        asked=asked,
    )
    teller.measuring(kept.record.label)
    values = call(study.measures, subject)
    write_json(path, {**about, "measured": values})
    return values


__all__ = ["Say", "Subject", "measured"]
