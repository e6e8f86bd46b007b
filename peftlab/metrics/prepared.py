"""Raw text made what the official scripts of WebNLG 2017 and DART score.

WebNLG's (`evaluation.py` of the challenge) lower-cases, splits at every sign that is no part of a
word, and turns everything into ASCII; it does so to predictions in another order than to
references, which a sign of several letters (… → ...) shows. DART's (`tolower.py`, whose name
misleads) only splits. Both score against the first three references.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from peftlab.metrics.errors import MetricUnavailableError
from peftlab.metrics.registry import Rows, build_metric

REFERENCES = 3
_BREAK = re.compile(r"(\W)")


def split(text: str) -> str:
    """Words and single other signs, one blank between them."""
    return " ".join(" ".join(_BREAK.split(text)).split())


def ascii_letters(text: str) -> str:
    """The text in ASCII, signs of other scripts by their sound.

    Raises:
        MetricUnavailableError: text-unidecode is not installed.
    """
    try:
        from text_unidecode import unidecode  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise MetricUnavailableError(
            "WebNLG's preparation of text needs the package text-unidecode, which is not installed;"
            " run pip install 'peftlab[webnlg]'"
        ) from error
    return str(unidecode(text))


def webnlg_prediction(text: str) -> str:
    """A prediction as WebNLG's script writes it."""
    return split(ascii_letters(ascii_letters(text.strip()).lower()))


def webnlg_reference(text: str) -> str:
    """A reference as WebNLG's script writes it."""
    return ascii_letters(split(text).lower())


_WAYS: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
    "webnlg": (webnlg_prediction, webnlg_reference),
    "dart": (split, split),
}


class Prepared:
    """A metric of prepared text.

    Args:
        metric: the name of the metric that scores it.
        way: whose preparation.

    Raises:
        MetricUnavailableError: WebNLG's needs a package that is not installed.
    """

    def __init__(self, metric: str, way: Literal["webnlg", "dart"]) -> None:
        self.metric = build_metric(metric)
        self.prediction, self.reference = _WAYS[way]
        self.prediction("")  # what is missing is said before there is text to score

    def statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        """The metric's rows, [examples, its width]."""
        return self.metric.statistics(
            [self.prediction(text) for text in predictions],
            [[self.reference(text) for text in several[:REFERENCES]] for several in references],
        )

    def aggregate(self, rows: Rows) -> float:
        """The metric's corpus number."""
        return self.metric.aggregate(rows)
