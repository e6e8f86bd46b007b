"""A model card for the hub, with a comparison's numbers.

It is made of records alone: what was measured, on what, against what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from peftlab.errors import InputError
from peftlab.printable import code, markdown
from peftlab.records.figures import chosen
from peftlab.records.record import Record
from peftlab.records.samples import note
from peftlab.report.table import TableRow, cells, rows


def model_card(
    records: Sequence[Record], label: str, *, license: str | None = None, kind: str = "peft"
) -> str:
    """The card of one method of a comparison, as Markdown with the hub's metadata.

    Args:
        records: the comparison's runs, over methods and seeds; of these the finished ones.
        label: the method whose adaptation is published.
        kind: the library that reads the folder.

    Raises:
        InputError: no finished record has that label.
    """
    from huggingface_hub import EvalResult, ModelCardData

    finished = [record for record in records if record.status == "finished"]
    own = [record for record in finished if record.label == label]
    if not own:
        known = sorted({record.label for record in finished})
        raise InputError(f"no finished run is labelled {label!r}; there are {', '.join(known)}")
    task, base = own[0].task, own[0].model.name
    results = [
        EvalResult(
            task_type="text-generation", dataset_type=task.name, dataset_name=task.name,
            dataset_split="test", metric_type=metric,
            metric_value=round(fmean(r.scores[metric] for r in own if metric in r.scores), 6),
        )
        for metric in own[0].scores
    ]  # fmt: skip
    data = ModelCardData(
        base_model=base if not Path(base).exists() else None,
        model_name=label,
        library_name=kind,
        license=license,
        pipeline_tag="text-generation",
        tags=["peftlab", own[0].method],
        eval_results=results,
    )
    return "\n".join([f"---\n{data.to_yaml()}\n---", "", *_body(own, finished)])


def _body(own: Sequence[Record], finished: Sequence[Record]) -> list[str]:
    record = own[0]
    task, model = record.task, record.model
    same_rows = [one for one in finished if one.task.fingerprint == task.fingerprint]
    return [
        f"# {markdown(record.label)} for {markdown(task.name)}",
        "",
        f"An adaptation of {code(model.name)} ({model.parameters:,} parameters, weights "
        f"{code(model.fingerprint)}), trained and measured with peftlab.",
        "",
        f"- task: {markdown(task.name)}, {task.train_rows:,} training and "
        f"{task.test_rows:,} test rows, fingerprint {code(task.fingerprint[:16])}",
        f"- settings: {code(_words(record.settings))}",
        f"- training: {code(_words(record.train))}",
        f"- seeds: {', '.join(str(seed) for seed in sorted(one.seed for one in own))}",
        "",
        "## Compared with",
        "",
        "Same base, rows and budget; mean over seeds, ± is the standard deviation between them.",
        "",
        *_table(same_rows, record.label),
        "",
        *([markdown(read), ""] if (read := note(same_rows)) else []),
    ]


def _table(records: Sequence[Record], label: str) -> list[str]:
    """The report's usual figures, with the number of seeds and the published method in bold."""
    wanted = chosen(records)
    lines = [
        ["method", "seeds", *(markdown(figure.title) for figure in wanted)],
        ["---", "---:", *("---:" for _ in wanted)],
    ]
    lines += [
        [_name(row, label), str(len(row.records)), *cells(row, wanted)] for row in rows(records)
    ]
    return [f"| {' | '.join(line)} |" for line in lines]


def _name(row: TableRow, label: str) -> str:
    shown = f"**{markdown(row.label)}**" if row.label == label else markdown(row.label)
    return f"{shown} (guest)" if row.records[0].guest else shown


def _words(settings: Mapping[str, Any]) -> str:
    shown = {k: v for k, v in settings.items() if v not in (None, "", [], ())}
    return ", ".join(f"{name}={value}" for name, value in shown.items())
