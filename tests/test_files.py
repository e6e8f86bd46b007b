"""Our own files: lines end at line feeds alone, and damage is one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftlab.errors import InputError
from peftlab.files import lines_of, read_json, read_jsonl, read_yaml
from peftlab.records import folders, reading

ODD = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei"
texts = st.lists(st.text(alphabet=st.sampled_from(ODD), max_size=9))


@given(texts)
def test_lines_end_at_line_feeds(lines: list[str]) -> None:
    assert lines_of("".join(f"{line}\n" for line in lines)) == lines
    assert lines_of("".join(f"{line}\r\n" for line in lines)) == lines


def test_predictions_keep_any_text(tmp_path: Path) -> None:
    rows = [
        {"index": i, "source": f"{ODD}{i}", "prediction": ODD, "references": [ODD], "own": 1}
        for i in range(3)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / folders.PREDICTIONS).write_text(text, encoding="utf-8")
    assert reading.predictions(tmp_path) == rows == read_jsonl(tmp_path / folders.PREDICTIONS)
    assert reading.metrics(tmp_path) == []


@pytest.mark.parametrize(
    "damage", [b'{"a": ', b"\xff", b'{"a": ' + b"9" * 5000 + b"}", b"[" * 9999]
)
def test_damage_is_one_sentence(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(damage)
    for read in (read_json, read_jsonl):
        with pytest.raises(InputError, match=r"x.json is damaged: "):
            read(path)


def test_yaml_that_is_too_deep_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("[" * 9999)
    with pytest.raises(InputError, match=r"x.yaml is not valid YAML: "):
        read_yaml(path)
