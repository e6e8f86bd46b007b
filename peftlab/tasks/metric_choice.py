"""Which metrics score a task: those given, those of its recipe, or the usual ones of its script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from peftlab.metrics import MetricPluginError, check_metric
from peftlab.metrics.words import latin_share, unspaced_share
from peftlab.tasks.example import Example

USUAL_METRICS = ("rouge1", "rouge2", "rougeL")
LABEL_METRICS = ("accuracy", "macro_f1")
_UNICODE = "tokenizer=unicode"
_OTHER_SCRIPTS = ("chrf", *(f"{name}:{_UNICODE}" for name in USUAL_METRICS))
_FEW = 0.5


def choose_metrics(
    given: Sequence[str] | None,
    own: Sequence[str] | None,
    test: Sequence[Example],
    notes: list[str],
) -> tuple[str, ...]:
    """Return the metrics of a task, after seeing that each can score; `notes` gets what was found.

    given: the user's choice. own: the task's; where there is neither, text in Latin letters gets
    the usual ROUGE, and other text chrF and ROUGE of Unicode's words. test: whose targets count.

    Raises:
        InputError: a metric that does not exist, or that lacks a package. A recipe's metric whose
            plug-in is not installed is left out instead.
    """
    share = latin_share(target for row in test for target in row.targets)
    if not given and own is None and share < _FEW:
        notes.append(
            f"Scored by chrF and by ROUGE of Unicode's words ({_UNICODE}): {share:.0%} of the"
            " letters and digits of the test targets are a–z or 0–9, and Google's ROUGE drops all"
            " others."
        )
        return _OTHER_SCRIPTS
    for name in given or ():
        check_metric(name)
    chosen = tuple(given or ()) or with_plugins(own or USUAL_METRICS, notes)
    notes += _blind_spots(chosen, share, (target for row in test for target in row.targets))
    return chosen


def with_plugins(names: Sequence[str], notes: list[str]) -> tuple[str, ...]:
    """Return metrics that a recipe names without those whose plug-in is not installed; say which.

    Raises:
        InputError: none is left, or one cannot score for another reason.
    """
    missing: dict[str, MetricPluginError] = {}
    for name in names:
        try:
            check_metric(name)
        except MetricPluginError as error:
            missing[name] = error
    kept = tuple(name for name in names if name not in missing)
    if missing:
        reason = next(iter(missing.values()))
        if not kept:
            raise reason
        notes.append(f"Not scored by {', '.join(missing)}: {reason}.")
    return kept


def _blind_spots(chosen: Sequence[str], share: float, targets: Iterable[str]) -> list[str]:
    """What the chosen metrics cannot see of these targets."""
    warnings = []
    google = [name for name in chosen if name.startswith("rouge") and _UNICODE not in name]
    google = [name for name in google if not name.startswith("rougeL-coco")]
    if google and share < _FEW:
        warnings.append(
            f"{', '.join(google)}: {share:.0%} of the letters and digits of the test targets are"
            " a–z or 0–9, and Google's ROUGE drops all others;"
            f" rouge1:{_UNICODE} reads every script."
        )
    spaced = [name for name in chosen if name == "bleu" or name.startswith("bleu-e2e")]
    if spaced and unspaced_share(targets) >= _FEW:
        warnings.append(
            f"{', '.join(spaced)}: the test targets have no spaces between words, so a sentence is"
            " one token; take bleu:tokenize=zh, ja-mecab, flores200 or char."
        )
    return warnings
