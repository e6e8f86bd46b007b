"""A cost and a metric are one entry each, and stand wherever people look."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from peftlab.errors import InputError
from peftlab.experiments.spec import ColumnSpec
from peftlab.records.figures import BYTES, FIGURES, chosen, figures, named, outline, scored, tracked
from peftlab.report.formats import render
from peftlab.report.table import as_csv
from tests.report.made import record

ROOT = Path(__file__).parents[2]

# In a process of its own, since the entries are made before anything else is imported.
EVERYWHERE = """
import json, sys
from io import StringIO
from pathlib import Path

from peftlab import metrics
from peftlab.records import figures

COST = figures.Figure(
    name="energy", title="energy used", unit=figures.BYTES, usual=lambda records: True,
    read=lambda record: record.environment["energy"], label="energy",
    cost="of energy", predicted="energy",
)
figures.FIGURES += (COST,)
metrics.register(metrics.MetricSpec("wit", "how witty", lambda: None, title="Wit", digits=2))

from rich.console import Console
from peftlab.records.reading import read
from peftlab.report import page
from peftlab.report.formats import render
from peftlab.report.show import show, words
from peftlab.study.points import drawn
from peftlab.verdict.judgement import judge
from peftlab.verdict.measured import read_entries
from peftlab.verdict.outcome import verdict
from tests.report.pages import keep

out = Path(sys.argv[1])
for label, energy, wit in (("lora", 3 << 20, 1.9849), ("full", 5 << 20, 2.5)):
    for seed in (0, 1):
        made = keep(out, label, seed, environment={"energy": energy}, predicted={"energy": 4 << 20})
        made.scores["wit"] = wit
        made.write(out / label / f"seed-{seed}")
stored = read(out)
console = Console(width=250, record=True, file=StringIO())
show(stored.runs, console)
limited = judge(read_entries({r.folder: r.record for r in stored.runs}, "rougeL"),
                limits={"energy": 4 << 20})
print(json.dumps({
    "table": console.export_text(),
    "md": render(stored.records, "md"),
    "latex": render(stored.records, "latex"),
    "csv": render(stored.records, "csv"),
    "page": page.render(out, stored),
    "front": verdict(stored.runs).front["energy"],
    "limits": " ".join(limited.sentences),
    "words": " ".join(words(stored.runs)),
    "trackers": figures.tracked(stored.records[0]),
    "study": [drawn("wit").title, drawn("wit").unit.said(1.98)],
}))
"""


def test_a_new_cost_and_a_new_metric_stand_everywhere(tmp_path: Path) -> None:
    line = [sys.executable, "-c", EVERYWHERE, str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)
    assert not done.returncode, done.stderr
    told = json.loads(done.stdout)
    for place in ("table", "md", "latex"):
        assert "3 MiB" in told[place] and "1.98" in told[place] and "1.985" not in told[place]
        assert "Wit" in told[place]
    assert "energy used" in told["md"] and "energy used" in told["latex"]
    head, *lines = told["csv"].splitlines()
    assert {"scores.wit", "energy"} <= set(head.split(",")) and len(lines) == 4
    assert "energy used" in told["page"] and 'data-cost="energy"' in told["page"]
    assert "energy, predicted" in told["page"] and ">Wit<" in told["page"]
    assert set(told["front"]) <= {"lora", "full"} and told["front"]
    assert "limits of 4 MiB of energy" in told["limits"]
    assert "full: 5 MiB of energy" in told["limits"]
    assert "Predictions of energy were off by" in told["words"]
    assert told["trackers"]["cost/energy"] == 3 << 20 and told["trackers"]["test/wit"] == 1.9849
    assert told["study"] == ["Wit", "1.98"]


def test_every_figure_has_names_of_its_own() -> None:
    for names in ([one.name for one in FIGURES], [one.tracker for one in FIGURES]):
        assert len(set(names)) == len(names)
    titles = [one.title for one in FIGURES]
    assert len(set(titles)) == len(titles)
    flat = as_csv([record()]).splitlines()[0].split(",")
    assert len(set(flat)) == len(flat), "what is computed is not called as a place of a record"


def test_figures_are_read_where_they_stand() -> None:
    made = record(
        bytes=5, latency={"first_token": 0.5, "token": 0.25},
        search={"rate": 0.1, "trials": [], "seconds": 7.5, "tokens": 1},
        general={"before": 2.0, "after": 2.25},
    )  # fmt: skip
    values = {one.name: one.of(made) for one in FIGURES}
    assert values["adapter_bytes"] == 5 and values["latency"] == 0.25
    assert values["training_seconds"] == 20.0 and values["train_seconds"] == 12.5
    assert values["share_of_base"] == 0.5 and values["forgetting"] == 0.25
    bare = {one.name: one.of(record()) for one in FIGURES}
    assert bare["latency"] is None and bare["search_seconds"] is None
    assert named("peak_memory").mean([made, record(peak_memory={})]) == 300 * 2**20


@pytest.mark.parametrize(
    ("metric", "value", "said"),
    [
        ("nist", 8.8149, "8.81"),
        ("cider", 1.98, "1.98"),
        ("rougeL", 0.41234, "0.412"),
        ("bleu", 1.25, "1.2"),
        ("bleu", -0.04, "0.0"),
        ("gone-with-its-plugin", 0.5, "0.500"),
    ],
)
def test_digits_are_the_metrics(metric: str, value: float, said: str) -> None:
    assert scored(metric).unit.said(value) == said
    if value >= 0:
        assert f"| {said} |" in render([record(scores={metric: value})], "md")
        assert outline(record(scores={metric: value})).endswith(said)


def test_trackers_keep_their_names() -> None:
    told = tracked(record())
    assert told["test/rougeL"] == 0.5 and told["test/loss"] == 2.0
    assert told["train/seconds"] == 12.5 and told["train/peak_bytes"] == 300 * 2**20
    assert told["parameters/trainable"] == told["parameters/stored"] == 5000


def test_columns_are_chosen() -> None:
    records = [record(subsets={"seen": {"rougeL": 0.25}})]
    usual = [one.name for one in chosen(records)]
    assert usual[:4] == ["trainable_parameters", "share_of_base", "test_loss", "rougeL"]
    assert [one.name for one in chosen(records, "rougeL, train_loss")] == ["train_loss", "rougeL"]
    more = [one.name for one in chosen(records, "usual,validation_loss,evaluate_memory")]
    assert set(more) == {*usual, "validation_loss", "evaluate_memory"}
    every = [one.name for one in chosen(records, "all")]
    assert "generate_seconds" in every and "latency" not in every, "what was measured"
    assert len(figures(records)) > len(every)
    with pytest.raises(InputError, match=r"no column 'valid_loss'.*Did you mean"):
        chosen(records, "valid_loss")
    for format in ("md", "latex"):
        text = render(records, format, "train_loss,validation_loss,evaluate_memory,rougeL seen")
        assert "1.000" in text and "1.500" in text and "0 MiB" in text and "0.250" in text
    with pytest.raises(InputError, match="csv holds everything"):
        render(records, "csv", "all")


def test_bytes_have_one_unit_in_a_column_and_their_own_where_rows_are_loose() -> None:
    assert BYTES.cell(1.5 * 2**30) == "1,536 MiB" and BYTES.loose.cell(1.5 * 2**30) == "1.5 GiB"


def test_an_experiments_cost_is_one_of_them() -> None:
    assert ColumnSpec(title="t", cost="evaluate_memory").cost == "evaluate_memory"
    with pytest.raises(ValueError, match="Did you mean"):
        ColumnSpec(title="t", cost="evaluate_memori")


def test_the_docs_name_every_column() -> None:
    text = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")
    assert [one.name for one in FIGURES if f"`{one.name}`" not in text] == []
