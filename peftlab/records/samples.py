"""What a record says of the samples that its losses and scores are of, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peftlab.records.record import Record, Sampled

_NAMES = {
    "train": "training pairs",
    "validation": "validation pairs",
    "test": "test examples",
}
_LOSSES = ("train", "validation", "test")


def told(samples: Mapping[str, Sampled]) -> str:
    """`64 of 500 validation pairs and 100 of 12,460 training pairs`; empty where all was read."""
    parts = [
        f"{one.rows:,} of {one.of:,} {_NAMES[split]}"
        for split, one in sorted(samples.items(), key=lambda item: _LOSSES.index(item[0]))
    ]
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def note(records: Sequence[Record]) -> str:
    """One sentence below a table: which samples these are, and how far their losses may be off.

    Empty where the splits were read whole. Standard errors are the largest of any run.
    """
    finished = [record for record in records if record.status == "finished" and record.samples]
    if not finished:
        return ""
    errors = [
        f"{split} ±{max(known):.3f}"
        for split in _LOSSES
        if (known := [e for r in finished if (e := getattr(r.loss, f"{split}_error")) is not None])
    ]
    read = list(dict.fromkeys(told(record.samples) for record in finished))
    said = f"Losses and scores are of samples, the same for every method: {read[0]}."
    if len(read) > 1:
        said = f"Losses and scores are of samples that differ between runs: {'; '.join(read)}."
    return f"{said} Standard errors of losses: {', '.join(errors)}." if errors else said
