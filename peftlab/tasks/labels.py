"""What targets are one of: class labels that are given or guessed, and choices among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from peftlab.errors import InputError
from peftlab.metrics import metric_spec
from peftlab.tasks.choices import FEWEST, Choices, begun, checked
from peftlab.tasks.example import Example
from peftlab.tasks.options import Options

_MOST_LABELS = 100


def guessed_labels(
    splits: Mapping[str, Sequence[Example]], notes: list[str]
) -> tuple[str, ...] | None:
    """Return the different targets where they recur so often that they must be class labels."""
    distinct = set[str]()
    for row in chain.from_iterable(splits.values()):
        distinct.update(row.targets)
        if len(distinct) > _MOST_LABELS:
            return None
    if len(distinct) < 2 or 4 * len(distinct) > sum(map(len, splits.values())):
        return None
    labels = tuple(sorted(distinct))
    notes.append(f"The targets are class labels: {', '.join(labels)} (guessed from the column).")
    return labels


def choices_of(
    labels: tuple[str, ...] | None, own_options: bool, options: Options, notes: list[str]
) -> Choices | None:
    """What the target is one of, where that is known and the likeliest is to be taken."""
    known = own_options or (labels is not None and len(labels) >= FEWEST)
    if options.choose is False or not known:
        if options.choose or options.choice_loss == "contrast":
            raise InputError(
                "the likeliest of several options was asked for, and none are known: name them "
                "(-o choices=yes,no, or the column that holds them)."
            )
        return None
    own = () if own_options or labels is None else checked(labels, "choices")
    what = "its row's options" if own_options else f"{len(own)} options"
    notes.append(
        f"The likeliest of {what} is taken (-o choice_score={options.choice_score}); "
        "-o choose=false writes replies."
    )
    if options.choice_score == "sum" and (said := begun(own)):
        notes.append(said)
    return Choices(own, options.choice_score, options.choice_loss)


def refuse_metrics(names: Sequence[str], choices: Choices | None) -> None:
    """Refuse metrics of options' likelihoods where no options are known, and one that no method can
    be ranked by. Raises `InputError`."""
    if names and names[0].partition(":")[0] == "calibration_error":
        raise InputError(
            "calibration_error says how far to trust choices, not which are right: methods are "
            "ranked by the first metric, so name another before it."
        )
    wrong = [name for name in names if metric_spec(name).of_choices]
    if wrong and choices is None:
        raise InputError(
            f"{', '.join(wrong)} is of choices by likelihood, and no options are known: name them "
            "(-o choices=yes,no, or the column that holds them)."
        )


def checked_labels(
    labels: tuple[str, ...] | None, splits: Mapping[str, Sequence[Example]], own_options: bool
) -> tuple[str, ...] | None:
    """Return the labels, if every target is one of them. Raises `InputError` that names a row."""
    if labels is None or own_options:
        return None
    for split, rows in splits.items():
        for row in rows:
            for target in row.targets:
                if target not in labels:
                    numbers = target.isdecimal() and int(target) < len(labels)
                    mend = " (-o labels=… gives integers their names)" if numbers else ""
                    raise InputError(
                        f'The {split} example "{row.excerpt()}" has the target {target!r}, which '
                        f"is not one of the labels {', '.join(labels)}{mend}."
                    )
    return labels
