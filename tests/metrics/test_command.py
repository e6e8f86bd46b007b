"""`peftlab compare` prints the metrics of E2E by their short names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from peftlab.cli.app import run
from peftlab.metrics import score
from peftlab.records.record import Record
from tests.experiments.specs import save_base
from tests.metrics.conftest import DATA

NAMES = "bleu,nist,meteor,rougeL,cider,ter"


@pytest.mark.slow
def test_all_metrics_of_e2e_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not (DATA / "e2e").is_dir():
        pytest.skip(f"{DATA} is absent; set PEFTLAB_DATA to the shared data folder")
    base, out = save_base(tmp_path / "base", max_position_embeddings=1024), tmp_path / "out"
    line = f"compare --task {DATA / 'e2e'} --metrics {NAMES} --model {base} --out {out}"
    more = "--methods hard_prompt,bitfit --limit 6 --steps 2 -o max_new_tokens=12"
    assert run([*line.split(), *more.split()]) == 0
    shown = capsys.readouterr().out
    table = shown[shown.index("method") :]
    for title in ("bleu", "nist", "meteor", "ROUGE", "cider", "ter"):
        assert re.search(rf"\b{title}\b", table, re.IGNORECASE), title
    for path in out.glob("*/seed-0/record.json"):
        record = Record.read(path)
        assert list(record.scores) == NAMES.split(",")
        lines = (path.parent / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(row) for row in lines]
        again = score(NAMES, [r["prediction"] for r in rows], [r["references"] for r in rows])
        assert again.corpus == pytest.approx(record.scores)
