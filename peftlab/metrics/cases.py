"""Ours beside the official scorers' numbers on outputs of published systems, as a Markdown table.

    python -m peftlab.metrics.cases FOLDER

FOLDER has one folder per case, with `outputs.jsonl` (prediction, references) and `expected.json`
(what the official scorer gave). docs/metrics.md holds this table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftlab.files import read_jsonl
from peftlab.metrics.errors import MetricInputError
from peftlab.metrics.scoring import score


@dataclass(frozen=True)
class Check:
    """Where an official number stands in `expected.json`, and what of ours it is.

    official · scale is in our unit; they agree if equal to `digits`, or within `tolerance` of the
    official unit. `reference` picks one reference per example.
    """

    path: str
    name: str
    scale: float = 1
    digits: int = 4
    tolerance: float | None = None
    reference: int | None = None


_PERL = "official_run_perl."
_STEMMED = "rouge_score_mean_stemmed."
CHECKS = (
    Check(_PERL + "BLEU", "bleu-e2e", 100),
    Check(_PERL + "NIST", "nist"),
    Check(_PERL + "METEOR", "meteor-coco"),
    Check(_PERL + "ROUGE_L", "rougeL-coco"),
    Check(_PERL + "CIDEr", "cider"),
    Check("official_run_python_flag_p.NIST", "nist-e2e-p"),
    *(
        Check(f"rouge_score_score_multi_{kind}.{variant}", variant + suffix)
        for kind, suffix in (("unstemmed", ""), ("stemmed", "-stem"))
        for variant in ("rouge1", "rouge2", "rougeL")
    ),
    *(
        Check(f"{_STEMMED}vs_summary{i + 1}.{variant}", f"{variant}-stem", 0.01, reference=i)
        for i in range(3)
        for variant in ("rouge1", "rouge2", "rougeL")
    ),
    *(
        check
        for variant in ("rouge1", "rouge2", "rougeL")
        for check in (
            Check(f"{_STEMMED}score_multi_max_of_3.{variant}", f"{variant}-stem", 0.01),
            Check(f"rouge_score_mean_unstemmed_vs_summary1.{variant}", variant, 0.01, reference=0),
            Check(f"published.{variant}_vs_summary1", f"{variant}-dialogsum", 0.01, tolerance=0.1),
        )
    ),
)
WEBNLG_CHECKS = (
    Check("published.BLEU", "bleu-webnlg", digits=2),
    Check("published.METEOR", "meteor", digits=12),
    Check("published.TER", "ter", 100, tolerance=0.0015),
)


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    case: str
    check: Check
    ours: float
    official: float
    seconds: float

    @property
    def agrees(self) -> bool:
        """Whether ours is the official number."""
        if self.check.tolerance is not None:
            return abs(self.ours - self.official) <= self.check.tolerance
        return f"{self.ours:.{self.check.digits}f}" == f"{self.official:.{self.check.digits}f}"


def compare_case(folder: Path) -> Iterator[Line]:
    """Every official number of one case beside ours.

    Raises:
        MetricInputError: the folder lacks `outputs.jsonl` or `expected.json`.
    """
    try:
        rows = read_jsonl(folder / "outputs.jsonl")
        expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MetricInputError(
            f"{folder} is no metric case: {error.filename} is missing; expected outputs.jsonl and"
            " expected.json in it"
        ) from error
    predictions = [row["prediction"] for row in rows]
    checks = WEBNLG_CHECKS if folder.name.startswith("webnlg") else CHECKS
    for check in checks:
        official = _look_up(expected, check.path)
        if official is not None:
            chosen = slice(
                check.reference, None if check.reference is None else check.reference + 1
            )
            references = [row["references"][chosen] for row in rows]
            begun = time.process_time()
            ours = score([check.name], predictions, references).corpus[check.name] / check.scale
            yield Line(folder.name, check, ours, official, time.process_time() - begun)


def _look_up(tree: Any, path: str) -> float | None:
    for key in path.split("."):
        if not isinstance(tree, dict) or key not in tree:
            return None
        tree = tree[key]
    return float(tree)


def main() -> None:
    """Print the table of all cases in a folder."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="folder of metric cases")
    folder = parser.parse_args().folder
    print("| case | official | metric | ours | official number | agrees | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for case in sorted(path for path in folder.iterdir() if path.is_dir()):
        for line in compare_case(case):
            digits = max(line.check.digits, 4) if line.check.tolerance else line.check.digits
            print(
                f"| {line.case} | {line.check.path} | `{line.check.name}` | {line.ours:.{digits}f}"
                f" | {line.official:.{digits}f} | {'yes' if line.agrees else 'NO'} |"
                f" {line.seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
