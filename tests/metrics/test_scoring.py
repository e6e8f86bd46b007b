"""`score`, the registry and what happens to bad input."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from peftlab.metrics import (
    MetricInputError,
    MetricOptionError,
    MetricPluginError,
    MetricSpec,
    MetricWarning,
    UnknownMetricError,
    aggregate,
    build_metric,
    check_metric,
    metric_spec,
    metric_specs,
    metric_title,
    registry,
    score,
)

PREDICTIONS = ["the cat sat on the mat .", "a dog barked", "it rained all day in the old town"]
REFERENCES = [
    ["the cat sat on a mat .", "there is a cat on the mat ."],
    ["the dog barked loudly"],
    ["it rained all day in the old town", "rain fell", "all day long it rained"],
]
OFFLINE = [
    spec.name for spec in metric_specs() if spec.extra in (None, "webnlg") and not spec.of_choices
]


def test_importing_the_metrics_loads_no_scorer() -> None:
    code = (
        "import sys, peftlab.metrics as m; m.metric_specs();"
        "print({'torch._C', 'sacrebleu', 'nltk', 'rouge_score'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", OFFLINE)
def test_corpus_number_is_the_aggregate_of_the_rows(name: str) -> None:
    scores = score(name, PREDICTIONS, REFERENCES)
    assert len(scores.per_example[name]) == len(PREDICTIONS)
    assert scores.rows[name].shape[0] == len(PREDICTIONS)
    assert aggregate(name, scores.rows[name]) == scores.corpus[name]
    assert math.isfinite(scores.corpus[name])
    for value, row in zip(scores.per_example[name], scores.rows[name], strict=True):
        assert value == aggregate(name, row[None])


@pytest.mark.parametrize("name", OFFLINE)
def test_order_of_examples_does_not_matter(name: str) -> None:
    forward = score(name, PREDICTIONS, REFERENCES)
    backward = score(name, PREDICTIONS[::-1], REFERENCES[::-1])
    assert backward.per_example[name][::-1] == pytest.approx(forward.per_example[name])
    if not name.endswith("-dialogsum"):  # a bootstrap draws positions
        assert backward.corpus[name] == pytest.approx(forward.corpus[name])


@pytest.mark.parametrize("name", OFFLINE)
def test_empty_texts_are_scored_not_refused(name: str) -> None:
    scores = score(name, ["", "a dog", ""], [["a cat sat here"], [""], [""]])
    assert math.isfinite(scores.corpus[name])
    assert np.isfinite(scores.per_example[name]).all()


@pytest.mark.parametrize("name", OFFLINE)
def test_a_perfect_prediction_is_not_beaten(name: str) -> None:
    perfect = [targets[0] for targets in REFERENCES]
    ours = score(name, PREDICTIONS, REFERENCES).corpus[name]
    best = score(name, perfect, REFERENCES).corpus[name]
    assert best >= ours if metric_spec(name).higher_is_better else best <= ours


def test_several_metrics_at_once() -> None:
    scores = score("rouge1, bleu,ter", PREDICTIONS, REFERENCES)
    assert list(scores.corpus) == ["rouge1", "bleu", "ter"]


def test_unknown_name_says_the_nearest() -> None:
    with pytest.raises(UnknownMetricError, match='Did you mean "rougeL"'):
        score("rougel", PREDICTIONS, REFERENCES)


def test_options_are_read_from_the_name() -> None:
    assert build_metric("chrf").statistics(["ab"], [["ab"]]).shape == (1, 18)
    metric = build_metric("bleu:lowercase=true")
    assert metric.aggregate(metric.statistics(["A B C D"], [["a b c d"]])) == pytest.approx(100)
    with pytest.raises(MetricOptionError, match="colour"):
        build_metric("bleu:colour=1")
    with pytest.raises(MetricOptionError, match="key=value"):
        build_metric("bleu:lowercase")


def test_titles_are_what_people_call_a_metric() -> None:
    names = ("rougeL-stem", "bleu-e2e", "chrf++", "macro_f1", "meteor-dart-raw")
    titles = ["ROUGE-L-stem", "BLEU-e2e", "chrF++", "macro F1", "METEOR-dart-raw"]
    assert [*map(metric_title, names)] == titles
    assert metric_title("rouge1:tokenizer=unicode") == "ROUGE-1 (tokenizer=unicode)"
    assert metric_title("gone-with-its-plugin") == "gone-with-its-plugin"


def test_a_metric_without_its_plugin_is_known_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(metric_spec("meteor"), factory=None)
    monkeypatch.setitem(registry._REGISTRY, "meteor", spec)
    for name in ("meteor", "meteor-dart-raw"):
        with pytest.raises(MetricPluginError, match=r"pip install 'peftlab\[meteor\]'"):
            check_metric(name)
        assert metric_title(name).startswith("METEOR")
        assert metric_spec(name).higher_is_better


class Entry:
    """An entry point of a stranger's package."""

    name = value = "tomorrow"

    def __init__(self, spec: MetricSpec | None) -> None:
        self.spec = spec

    def load(self) -> MetricSpec:
        if self.spec is None:
            raise ImportError("no module named today")
        return self.spec


def test_plugins_are_found_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    mine = MetricSpec("tomorrow", "share of text that is right tomorrow", "peftlab.metrics.x:X")
    code = MetricSpec("meteor-coco", "", "elsewhere:Meteor", settings=(("coco", True),))
    registry._REGISTRY["meteor-coco"] = replace(metric_spec("meteor-coco"), factory=None)
    entries = [Entry(mine), Entry(code), Entry(None), Entry(mine)]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    with pytest.warns(MetricWarning) as said:
        registry._load_all.__wrapped__()
    assert metric_spec("tomorrow") is mine
    assert metric_spec("meteor-coco").factory == "elsewhere:Meteor"
    assert metric_title("meteor-coco") == "METEOR-coco"
    assert ["no module named today" in str(said[0].message), len(said)] == [True, 2]


BAD: list[tuple[Any, Any, str]] = [
    ([], [], "nothing to score"),
    (["a"], [], "1 predictions but 0"),
    (["a", "b"], [["a"]], "2 predictions but 1"),
    (["a"], ["a"], "one string, expected a list"),
    ("a", [["a"]], "got one string"),
    (["a"], [[]], "has no reference"),
    ([math.nan], [["a"]], "prediction 0 is NaN"),
    ([None], [["a"]], "prediction 0 is None"),
    (["a"], [[3.5]], "reference 0 of example 0 is 3.5 of type float"),
    (["a", "b"], [["a"], ["b", math.nan]], "reference 1 of example 1 is NaN"),
    (["a"], [7], "expected a list of strings"),
]


@pytest.mark.parametrize(("predictions", "references", "message"), BAD)
def test_bad_input_is_one_clear_error(predictions: Any, references: Any, message: str) -> None:
    with pytest.raises(MetricInputError, match=message):
        score("rouge1", predictions, references)


def test_the_scale_says_between_what_scores_lie() -> None:
    bounds = {spec.name: spec.bounds for spec in metric_specs()}
    infinite = math.inf
    assert bounds["rougeL"] == bounds["accuracy"] == (0.0, 1.0)
    assert bounds["bleu"] == bounds["chrf"] == (0.0, 100.0)
    assert bounds["ter"] == bounds["nist"] == (0.0, infinite)
    assert bounds["bertscore"] == (-1.0, 1.0)
    assert bounds["moverscore"] == (-infinite, 1.0)
    assert bounds["bleurt"] == (-infinite, infinite), "about is no bound"
