"""An experiment's table: units, directions, the best of each base, what is missing."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from peftlab.errors import InputError
from peftlab.experiments.kept import Cell, Experiment
from peftlab.experiments.spec import ExperimentSpec, parse
from peftlab.experiments.table import as_latex, as_markdown, notes, render, sections
from tests.report.made import record

SPEC: dict[str, Any] = {
    "name": "small",
    "title": "A small table",
    "sources": {"us": "Us et al. 2020, table 1"},
    "models": ["big", "small"],
    "tasks": {
        "webnlg_2017": {
            "title": "WebNLG",
            "columns": [
                {
                    "title": "BLEU",
                    "metric": "bleu-webnlg-raw",
                    "digits": 1,
                    "parts": ["seen", "all"],
                },
                {"title": "TER", "metric": "ter-webnlg-raw", "times": 0.01},
                {"title": "MB", "cost": "peak_memory", "times": 1e-6, "digits": 0},
            ],
        }
    },
    "rows": [
        {
            "title": "full",
            "method": "full",
            "published": [
                {"model": "big", "source": "us", "webnlg_2017": [60, 50.5, 0.4, None]},
                {"model": "small", "source": "us", "webnlg_2017": [1, 2, 3, 4]},
            ],
        },
        {
            "title": "lora",
            "method": "lora",
            "published": [{"model": "big", "source": "us", "webnlg_2017": [59, 50.5, 0.3, 9]}],
        },
        {
            "title": "before",
            "published": [{"model": "big", "source": "us", "webnlg_2017": [99, 99, 0, None]}],
        },
    ],
    "remarks": ["Mind\n  this."],
}


def spec() -> ExperimentSpec:
    return parse(copy.deepcopy(SPEC), "here")


def made(full: Any, lora: Any) -> Experiment:
    """Two rows of the big base, with the scores (seen, all, TER) of each; None: failed."""
    records = {}
    for row, several in (("full", full), ("lora", lora)):
        for seed, scores in enumerate(several):
            cell = Cell("big", "webnlg_2017", row, f"{row}/seed-{seed}")
            if scores is None:
                records[cell] = record(row, seed=seed, status="failed", error="out of luck")
                continue
            seen, whole, ter = scores
            values = {"bleu-webnlg-raw": whole, "ter-webnlg-raw": ter}
            parts = {"seen": {**values, "bleu-webnlg-raw": seen}}
            records[cell] = record(row, seed=seed, scores=values, subsets=parts)
    return Experiment(spec(), ("big",), ("webnlg_2017",), records)


def test_numbers_stand_in_the_papers_unit_and_the_best_of_each_base_is_marked() -> None:
    experiment = made([(61.0, 40.0, 45.0)], [(60.0, 40.04, 55.0)])
    (section,) = sections(experiment)
    assert section.heads == ("BLEU seen", "BLEU all", "TER ↓", "MB")
    shown = {(line.model, line.row, line.source): line for line in section.lines}
    ours = shown["big", "full", None]
    assert [n.text for n in ours.numbers] == ["61.0", "40.0", "0.45", "315"]
    assert [n.best for n in ours.numbers] == [True, False, True, False], "less TER is better"
    assert not any(n.best for n in shown["big", "lora", None].numbers), "all read 40.0"
    assert [n.best for n in shown["big", "full", "us"].numbers] == [True, False, False, False]
    assert [n.best for n in shown["big", "lora", "us"].numbers] == [False, False, True, False]
    assert not any(n.best for n in shown["big", "before", "us"].numbers), "of no base"
    assert [n.best for n in shown["small", "full", "us"].numbers] == [True, True, True, False]
    assert shown["big", "full", "us"].numbers[3].text == "–"
    order = [(line.model, line.row, line.source) for line in section.lines]
    assert order == [
        ("big", "full", None), ("big", "full", "us"), ("big", "lora", None), ("big", "lora", "us"),
        ("big", "before", "us"), ("small", "full", "us"),
    ]  # fmt: skip


def test_several_seeds_are_their_mean() -> None:
    (section,) = sections(made([(60.0, 40.0, 45.0), (62.0, 41.0, 46.0)], [None]))
    assert [n.text for n in section.lines[0].numbers[:3]] == ["61.0", "40.5", "0.46"]


def test_what_failed_or_is_not_made_says_so() -> None:
    experiment = made([(60.0, 40.0, 45.0)], [None])
    assert "WebNLG, big, lora: failed: out of luck." in notes(experiment)
    assert {n.text for n in sections(experiment)[0].lines[2].numbers} == {"–"}
    nothing = Experiment(spec(), ("big",), ("webnlg_2017",), {})
    assert "WebNLG, big, full: not made yet." in notes(nothing)


def test_the_formats() -> None:
    experiment = made([(61.0, 40.0, 45.0)], [(60.0, 41.0, 55.0)])
    text = as_markdown(experiment)
    assert "| WebNLG | BLEU seen | BLEU all | TER ↓ | MB |" in text
    assert "| big full | **61.0** | 40.0 | **0.45** | 315 |" in text
    assert "| big full (published, us) | **60.0** | 50.5 | 0.40 | – |" in text
    assert "Published (us): Us et al. 2020, table 1." in text and "Mind this." in text
    latex = as_latex(experiment)
    assert r"TER $\downarrow$ & MB \\" in latex
    assert r"big full & \textbf{61.0} & 40.0 & \textbf{0.45} & 315 \\" in latex
    values = json.loads(render(experiment, "json"))
    assert values[0]["lines"][0]["numbers"][0] == {"text": "61.0", "value": 61.0, "best": True}
    with pytest.raises(InputError, match="no format 'html'"):
        render(experiment, "html")


def test_times_that_others_disturbed_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peftlab.measure.company.MOST", 0.05)
    values = copy.deepcopy(SPEC)
    column = {"title": "s", "cost": "training_seconds", "digits": 1}
    values["tasks"]["webnlg_2017"]["columns"] = [column]
    for row in values["rows"]:
        row["published"] = []
    records = {
        Cell("big", "webnlg_2017", name, name): record(name, others={"step": share})
        for name, share in (("full", 0.3), ("lora", 0.0))
    }
    experiment = Experiment(parse(values, "here"), ("big",), ("webnlg_2017",), records)
    assert "| big full | ≈ 12.5 |" in as_markdown(experiment)
    assert "| big lora | 12.5 |" in as_markdown(experiment)
    assert r"$\approx$ 12.5" in as_latex(experiment)
