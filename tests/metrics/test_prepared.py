"""Raw text prepared as the scripts of WebNLG and DART do it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pytest

from peftlab.metrics import MetricUnavailableError, check_metric, metric_spec, score
from peftlab.metrics.prepared import split, webnlg_prediction, webnlg_reference

from .conftest import Case


def test_the_steps_of_webnlg() -> None:
    raw = "Adolfo Suárez Madrid–Barajas Airport's runway is 18L/36R."
    wanted = "adolfo suarez madrid - barajas airport ' s runway is 18l / 36r ."
    assert webnlg_prediction(raw) == webnlg_reference(raw) == wanted
    # The script turns a reference into ASCII after splitting it, a prediction before.
    assert webnlg_reference("Wait…") == "wait ..."
    assert webnlg_prediction("Wait…") == "wait . . ."


def test_the_steps_of_dart() -> None:
    assert split("U.S.  Café (2008)\n") == "U . S . Café ( 2008 )"


def _raw(tokenized: str) -> str:
    """As a model may have written it: upper case, no blanks before signs."""
    return re.sub(r" (\W)", r"\1", tokenized).upper()


@pytest.mark.parametrize("part", ["all", "new", "old"])
def test_raw_text_scores_as_the_challenge_scored_its_own(
    case: Callable[[str], Case], part: str
) -> None:
    """The official files hold prepared text, of the first three references."""
    system = case(f"webnlg17_PKUWriter_{part}-cat")
    predictions = [_raw(text) for text in system.predictions]
    references = [[_raw(text) for text in several] for several in system.references]
    for several in references:
        if len(several) == 3:
            several.append("A FOURTH REFERENCE DOES NOT COUNT.")
    ours = score("bleu-webnlg-raw", predictions, references).corpus["bleu-webnlg-raw"]
    assert f"{ours:.2f}" == f"{system.expected['published']['BLEU']:.2f}"


def test_without_text_unidecode_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "text_unidecode", None)
    with pytest.raises(MetricUnavailableError, match=r"pip install 'peftlab\[webnlg\]'"):
        check_metric("bleu-webnlg-raw")
    check_metric("bleu-dart-raw")


@pytest.mark.parametrize("metric", ["bleu-webnlg", "meteor", "ter"])
def test_prepared_text_is_left_as_it_is(metric: str) -> None:
    predictions = ["the runway is 18l / 36r .", "abilene is in texas ."]
    references = [["its runway is 18l / 36r ."], ["abilene , texas .", "it lies in texas ."]]
    raw = f"{metric.removesuffix('-webnlg')}-webnlg-raw"
    scores = score([metric, raw], predictions, references).corpus
    assert scores[raw] == scores[metric]


def test_directions_and_extras_are_those_of_the_metric() -> None:
    assert not metric_spec("ter-dart-raw").higher_is_better
    assert metric_spec("meteor-webnlg-raw").extra == "meteor"
    assert metric_spec("ter-webnlg-raw").extra == "webnlg"
    assert metric_spec("bleu-dart-raw").scale == "0–100"


def test_case_counts_for_dart_alone() -> None:
    predictions, references = ["It Is In Texas."], [["it is in texas."]]
    scores = score("bleu-dart-raw,bleu-webnlg-raw", predictions, references).corpus
    assert scores["bleu-webnlg-raw"] == pytest.approx(100)
    assert scores["bleu-dart-raw"] < 100
