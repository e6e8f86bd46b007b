"""A folder goes to the hub, with a model card that holds the comparison's numbers.

The card is made of records (`record.json`) alone: what was measured, on what, against what.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from peftlab.errors import InputError
from peftlab.files import write_text
from peftlab.printable import code, markdown

Record = Mapping[str, Any]
_KINDS = {  # a file of the export -> the library that reads it
    "adapter_config.json": "peft",
    "config.json": "transformers",
    "adaptation.json": "peftlab",
    "prompts.json": "peftlab",
}


def model_card(
    records: Sequence[Record], label: str, *, license: str | None = None, kind: str = "peft"
) -> str:
    """The card of one method of a comparison, as Markdown with the hub's metadata.

    Args:
        records: the comparison's finished runs, over methods and seeds.
        label: the method whose adaptation is published.
        kind: the library that reads the folder.

    Raises:
        InputError: no finished record has that label.
    """
    from huggingface_hub import EvalResult, ModelCardData

    finished = [r for r in records if r["status"] == "finished"]
    own = [r for r in finished if r["label"] == label]
    if not own:
        known = sorted({r["label"] for r in finished})
        raise InputError(f"no finished run is labelled {label!r}; there are {', '.join(known)}")
    task, base = own[0]["task"], own[0]["model"]["name"]
    results = [
        EvalResult(
            task_type="text-generation", dataset_type=task["name"], dataset_name=task["name"],
            dataset_split="test", metric_type=metric, metric_value=round(value, 6),
        )
        for metric, (value, _) in _scores(own).items()
    ]  # fmt: skip
    data = ModelCardData(
        base_model=base if not Path(base).exists() else None,
        model_name=label,
        library_name=kind,
        license=license,
        pipeline_tag="text-generation",
        tags=["peftlab", own[0]["method"]],
        eval_results=results,
    )
    return "\n".join([f"---\n{data.to_yaml()}\n---", "", *_body(own, finished, label)])


def _body(own: list[Record], finished: list[Record], label: str) -> list[str]:
    record = own[0]
    task, model = record["task"], record["model"]
    seeds = sorted(r["seed"] for r in own)
    return [
        f"# {markdown(label)} for {markdown(task['name'])}",
        "",
        f"An adaptation of {code(model['name'])} ({model['parameters']:,} parameters, weights "
        f"{code(model['fingerprint'])}), trained and measured with peftlab.",
        "",
        f"- task: {markdown(task['name'])}, {task['train_rows']:,} training and "
        f"{task['test_rows']:,} test rows, fingerprint {code(task['fingerprint'][:16])}",
        f"- settings: {code(_words(record['settings']))}",
        f"- training: {code(_words(record['train']))}",
        f"- seeds: {', '.join(map(str, seeds))}",
        "",
        "## Compared with",
        "",
        "Same base, rows and budget; mean over seeds, ± is the standard deviation between them.",
        "",
        *_table(finished, label, record),
        "",
    ]


def _table(finished: list[Record], label: str, record: Record) -> list[str]:
    metrics = list(_scores([record]))
    heads = ["method", "seeds", *map(markdown, metrics), "trained", "stored", "training s"]
    rows = [heads, ["---"] * len(heads)]
    comparable = [r for r in finished if r["task"]["fingerprint"] == record["task"]["fingerprint"]]
    for name in dict.fromkeys(r["label"] for r in comparable):
        group = [r for r in comparable if r["label"] == name]
        scores = _scores(group)
        sizes = group[0]["parameters"]
        seconds = [r["seconds"]["train"] for r in group if r["seconds"]["train"] is not None]
        shown = f"**{markdown(name)}**" if name == label else markdown(name)
        rows.append(
            [
                f"{shown} (guest)" if group[0].get("guest") else shown,
                str(len(group)),
                *(_number(scores.get(metric)) for metric in metrics),
                _count(sizes["trainable"]),
                _count(sizes["stored"]),
                f"{fmean(seconds):.1f}" if seconds else "–",
            ]
        )
    return [f"| {' | '.join(cells)} |" for cells in rows]


def _scores(records: Iterable[Record]) -> dict[str, tuple[float, float | None]]:
    """Each metric's mean over seeds, and the standard deviation where there are several."""
    values: dict[str, list[float]] = {}
    for record in records:
        for metric, value in record["scores"].items():
            values.setdefault(metric, []).append(value)
    return {m: (fmean(v), stdev(v) if len(v) > 1 else None) for m, v in values.items()}


def _number(score: tuple[float, float | None] | None) -> str:
    if score is None:
        return "–"
    mean, spread = score
    return f"{mean:.4g}" if spread is None else f"{mean:.4g} ± {spread:.2g}"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _words(settings: Mapping[str, Any]) -> str:
    shown = {k: v for k, v in settings.items() if v not in (None, "", [], ())}
    return ", ".join(f"{name}={value}" for name, value in shown.items())


def push(
    folder: Path | str,
    repo_id: str,
    card: str,
    *,
    private: bool = True,
    endpoint: str | None = None,
    token: str | None = None,
) -> str:
    """Write the card into the folder and upload all of it; returns the address.

    Args:
        private: whether a repository that does not exist yet is made private.
        endpoint, token: the hub's address and the user's token; huggingface_hub's own where None.

    Raises:
        InputError: nothing that peftlab exports is in the folder, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    folder = Path(folder)
    kind_of(folder)
    write_text(folder / "README.md", card)
    api = HfApi(endpoint=endpoint, token=token)
    try:
        made = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, commit_message="Adaptation made with peftlab"
        )
    except (HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"cannot upload to {repo_id}: {reason} Log in with `hf auth login`, and give the name "
            "as user/name."
        ) from error
    return str(made)


def kind_of(folder: Path) -> str:
    """The library that reads a folder.

    Raises:
        InputError: no export is in it.
    """
    for name, library in _KINDS.items():
        if (folder / name).exists():
            return library
    raise InputError(f"{folder} holds no export: one of {', '.join(_KINDS)} was expected")
