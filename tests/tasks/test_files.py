"""Files as people have them: packed, wrapped, damaged, with other separators or huge numbers."""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from peftlab.errors import InputError
from peftlab.tasks import Task
from peftlab.tasks.files import read

ROWS = [{"source": f"s{i}", "target": f"t{i}"} for i in range(20)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
DIGITS = "9" * 5000


def _zstd(data: bytes) -> bytes:
    return bytes(pyarrow.compress(data, codec="zstd", asbytes=True))


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": _zstd,
}


@pytest.mark.parametrize("packed", PACK)
def test_packed_files_are_read_and_damaged_ones_refused(tmp_path: Path, packed: str) -> None:
    data = PACK[packed](LINES)
    for name in ("all", "train"):
        (tmp_path / f"{name}.jsonl{packed}").write_bytes(data)
    assert read(tmp_path / f"all.jsonl{packed}").rows == ROWS
    (tmp_path / f"all.jsonl{packed}").unlink()
    assert len(Task.load(tmp_path).train) == 17
    for bad in (data[:30], b"none of it" * 9):
        (tmp_path / f"bad.jsonl{packed}").write_bytes(bad)
        with pytest.raises(InputError, match=rf"is not a {packed} file that can be unpacked"):
            read(tmp_path / f"bad.jsonl{packed}")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", LINES.decode().encode("utf-16"), r"is UTF-16; .*iconv -f UTF-16 -t UTF-8"),
        ("a.jsonl", '{"source": "é"}'.encode("latin-1"), r"not UTF-8 .*Save the file .*iconv"),
        ("a.zip", b"PK", r"ends in '.zip'; .*Unpack it first"),
        ("a.xlsx", b"PK", r"Save the sheet as csv"),
        ("a.parquet.gz", b"", r"packed parquet file: unpack it"),
        ("a.jsonl", f'{{"source":"a","target":{DIGITS}}}', r"line 1: .*'target' holds a number of"),
        ("a.json", f'[{{"source":"a","target":{DIGITS}}}]', r"row 1: .*holds a number of 5,000"),
        ("a.jsonl", '{"source":' + "[" * 100_000, r"line 1 is nested deeper"),
        ("a.json", "[" * 100_000, r"a.json is nested deeper"),
        ("a.jsonl", '{"source":"a","target":"b","target":"c"}', r"line 1: .*'target' stands twice"),
        ("a.csv", "source,target,target\na,b,c\n", r"line 2: .*'target' stands twice in the head"),
        ("a.json", '{"train": [{"a": 1}], "test": [{"a": 1}]}', r"several lists .*train, test"),
        ("a.json", '{"messages": [{"role": "x"}, {"role": "y"}]}', r"none of them is a usual"),
        ("a.jsonl", '{"messages": [{"role": "x"}]}', r"its role is 'x'; system, user"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=said) as error:
        Task.load(path)
    assert "\n" not in str(error.value)


def test_what_is_not_used_need_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = (f'{{"source":"s{i}","target":"t","id":{DIGITS},"n":1,"n":2}}\n' for i in range(9))
    path.write_text("".join(rows))
    assert len(Task.load(path).train) == 7
    path = tmp_path / "a.csv"
    path.write_text("source,target,,\n" + "".join(f"s{i},t,x,y\n" for i in range(9)))
    assert len(Task.load(path).train) == 7


def test_a_key_twice_with_one_value_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"source": "a", "target": "b", "target": "b"}\n')
    assert read(tmp_path / "a.jsonl").rows == [{"source": "a", "target": "b"}]


def test_a_wrapped_list_is_read_and_said(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"version": "1", "data": ROWS}, indent=1))
    task = Task.load(path)
    assert len(task.train) == 17
    assert any('are the list under "data"' in note for note in task.notes)
    path.write_bytes(LINES)  # jsonl in truth
    assert read(path).rows == ROWS and read(path).place(3).endswith("line 4")


@pytest.mark.parametrize(
    ("suffix", "sign"), [("csv", ";"), ("csv", "\t"), ("tsv", ","), ("csv", "|")]
)
def test_other_separators_are_read_and_said(tmp_path: Path, suffix: str, sign: str) -> None:
    path = tmp_path / f"a.{suffix}"
    lines = [f"source{sign}target", *(f's{i}{sign}"t{i}, or {i}"' for i in range(20))]
    path.write_text("\n".join(lines))
    task = Task.load(path)
    assert {target[:1] for _, target in task.pairs("train")} == {"t"}
    assert any("are separated by" in note for note in task.notes)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_other_systems(tmp_path: Path, end: str) -> None:
    odd = "a\u2028b\u0085c\x0bd"
    lines = ["source,target", *(f"s{i},{odd}{i}" for i in range(20))]
    (tmp_path / "a.csv").write_bytes(end.join(lines).encode())
    assert read(tmp_path / "a.csv").rows[3] == {"source": "s3", "target": f"{odd}3"}
    rows = (json.dumps({"source": f"s{i}", "target": odd}, ensure_ascii=False) for i in range(9))
    if end != "\r":
        (tmp_path / "a.jsonl").write_bytes(end.join(rows).encode())
        assert read(tmp_path / "a.jsonl").rows[3] == {"source": "s3", "target": odd}


def _parquet(folder: Path, table: pyarrow.Table) -> Path:
    path = folder / "a.parquet"
    pyarrow.parquet.write_table(table, path)
    return path


def test_parquet_holds_what_python_cannot(tmp_path: Path) -> None:
    far = pyarrow.array([2**62] * 20, pyarrow.timestamp("us"))
    texts = {name: [row[name] for row in ROWS] for name in ("source", "target")}
    path = _parquet(tmp_path, pyarrow.table({**texts, "when": far}))
    assert len(Task.load(path).train) == 17
    with pytest.raises(InputError, match=r"row 1: .*'when' holds a timestamp\[us\] that Python"):
        Task.load(path, columns={"source": "when", "target": "target"})
    both = pyarrow.table([pyarrow.array(["a"])] * 2, names=["source", "source"])
    with pytest.raises(InputError, match=r"'source' stands twice in the file"):
        Task.load(_parquet(tmp_path, both.append_column("target", pyarrow.array([["b"]]))))


def test_parquet_text_that_is_none(tmp_path: Path) -> None:
    offsets = b"".join(i.to_bytes(4, "little") for i in range(21))
    parts: list[Any] = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(b"\xff" * 20)]
    broken = pyarrow.Array.from_buffers(pyarrow.string(), 20, parts)
    good = [row["source"] for row in ROWS]
    path = _parquet(tmp_path, pyarrow.table({"source": good, "target": broken}))
    with pytest.raises(InputError, match=r"row 1: .*'target' holds a string that Python cannot"):
        Task.load(path)
