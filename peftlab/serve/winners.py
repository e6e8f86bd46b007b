"""The best adaptation of each comparison, ready to be served under its task's name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.errors import InputError
from peftlab.records import folders
from peftlab.records.reading import StoredRun
from peftlab.serve.adapters_folder import as_name
from peftlab.verdict.outcome import verdict

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM


@dataclass(frozen=True)
class Winner:
    """What is served of a comparison.

    Attributes:
        name: the task's. label: the method, as one would type it. folder: of the adaptation.
        base: the model that it was made for, its weights' fingerprint, and their number format.
    """

    name: str
    label: str
    seed: int
    folder: Path
    base: tuple[str, str, str]


def winners(runs: Sequence[StoredRun], problems: list[str] | None = None) -> list[Winner]:
    """The best method of each comparison, by the verdict; of its seeds, the lowest validation loss.

    The test split has chosen the method, so it does not choose the seed as well. Guests, which the
    engine cannot run, and runs whose adapter is gone take no part.

    Args:
        runs: of any number of comparisons, each a task, its rows and a base.
        problems: takes a sentence for each run, or comparison, that cannot be judged, and the
            others are served; without it, the first such is an error.

    Raises:
        InputError: runs of one task and base that cannot be compared.
    """
    groups: dict[tuple[Path, str, str], list[StoredRun]] = {}
    for run in runs:
        record = run.record
        if record.status == "finished" and not record.guest and _adapter(run).is_dir():
            out = run.folder.parent.parent
            key = (out, record.task.fingerprint, record.model.fingerprint)
            groups.setdefault(key, []).append(run)
    best: dict[tuple[Path, str, str], Winner] = {}
    for key, group in groups.items():
        try:
            best[key] = _winner(group, problems)
        except InputError as error:
            if problems is None:
                raise
            problems.append(f"left out: {key[0]}: {error}")
    named = {(it.name, out) for (out, _, _), it in best.items()}
    twice = Counter(name for name, _ in named)  # a comparison has one winner a base
    return [
        replace(it, name=f"{it.name}.{as_name(out.name, 'runs')}") if twice[it.name] > 1 else it
        for (out, _, _), it in best.items()
    ]


def for_base(
    candidates: Sequence[Winner], model: FrozenLM, problems: Sequence[str] = ()
) -> tuple[list[Winner], list[str]]:
    """Those that were made for this base, and a sentence for each of the others.

    Args:
        problems: why there are no more candidates.

    Raises:
        InputError: none was.
    """
    fitting = [it for it in candidates if it.base[1] == model.fingerprint]
    others = [_left_out(it, model) for it in candidates if it not in fitting]
    if not fitting:
        said = "; ".join([*others, *problems]) or "there is no finished run with an adapter"
        raise InputError(f"nothing can be served of these runs: {said}")
    return fitting, others


def _left_out(it: Winner, model: FrozenLM) -> str:
    name, _, dtype = it.base
    said = f"left out: {it.name} ({it.label}) was made for {name}"
    if dtype != model.base_dtype:
        return f"{said} in {dtype}, not for {model.name} in {model.base_dtype} (see --base-dtype)"
    return f"{said}, whose weights are not those of {model.name}"


def _winner(group: Sequence[StoredRun], problems: list[str] | None) -> Winner:
    labels = {run.record.label for run in group}
    best = next(iter(labels)) if len(labels) == 1 else verdict(group, problems=problems).best
    mine = [run for run in group if run.record.label == best]
    chosen = min(mine, key=lambda run: (_loss(run), run.record.seed))
    record = chosen.record
    base = (record.model.name, record.model.fingerprint, record.model.dtype)
    return Winner(
        as_name(record.task.name, "task"), record.label, record.seed, _adapter(chosen), base
    )


def _adapter(run: StoredRun) -> Path:
    return run.folder / folders.ADAPTER


def _loss(run: StoredRun) -> float:
    loss = run.record.loss.validation
    return float("inf") if loss is None else loss
