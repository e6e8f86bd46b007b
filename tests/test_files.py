"""Our own files: lines end at line feeds alone, damage is one sentence, writes are whole."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from peftlab import files
from peftlab.errors import DiskFull, InputError
from peftlab.files import found, lines_of, read_json, read_jsonl, read_yaml
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


ROOT = Path(__file__).parents[1]
TENSORS = {"a": torch.ones(500)}
WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: files.write_text(path, "x" * 2000),
    "bytes": lambda path: files.write_bytes(path, bytes(2000)),
    "json": lambda path: files.write_json(path, {"a": "x" * 2000}),
    "tensors": lambda path: files.atomically(path, lambda made: save_file(TENSORS, made)),
    "together": lambda path: together(path),
    "append": lambda path: files.append(path, "x" * 2000),
}


def together(path: Path) -> None:
    with files.together(path.parent) as place:
        (place / path.name).write_bytes(bytes(2000))
        (place / "another").write_bytes(bytes(3))


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 1, 17, 1999])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_write_that_fails_leaves_the_file_of_before(
    writer: str, size: int, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with file_size_limit(size), pytest.raises(DiskFull, match=r"may not become this large") as said:
        WRITERS[writer](path)
    assert str(tmp_path) in str(said.value) and "\n" not in str(said.value)
    assert files.what_is_full(said.value)
    assert [each.name for each in tmp_path.iterdir()] == ["file"] and path.read_text() == "before"
    WRITERS[writer](path)
    assert path.stat().st_size >= 2000 and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("writer", [name for name in WRITERS if name not in ("together",)])
def test_no_folder_is_made_where_one_has_gone(writer: str, tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match=r"gone/file cannot be written: its folder is gone") as said:
        WRITERS[writer](tmp_path / "gone" / "file")
    assert not files.what_is_full(said.value)
    assert not list(tmp_path.iterdir())


def test_what_stands_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "x").mkdir(parents=True)
    for place in (tmp_path / "file", tmp_path / "file" / "in it"):
        with pytest.raises(DiskFull, match=r"a file stands where a folder was expected"):
            files.make_folder(place)
    with pytest.raises(DiskFull, match=r"a folder stands where a file was expected"):
        files.write_text(tmp_path / "folder", "text")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full.*make room"),
        (errno.EDQUOT, "quota.*make room"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_errors_of_python_and_of_rust_say_the_same(number: int, words: str) -> None:
    said = []
    for error in (
        OSError(number, "any words"),
        RuntimeError(f"I/O error: any words (os error {number})"),
        RuntimeError(f"IoError(Os {{ code: {number}, kind: Any, message: any }})"),
    ):
        with pytest.raises(DiskFull, match=words) as caught, files.writing(Path("a/b")):
            raise error
        said.append(str(caught.value))
        assert bool(files.what_is_full(error)) is ("make room" in words)
    assert len(set(said)) == 1


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"a defect"), files.writing(Path("a/b")):
        raise RuntimeError("a defect in code 28")
    assert not files.what_is_full(ValueError("nothing of the system"))


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(
    tmp_path: Path,
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for process in (ended.pid, os.getpid()):
        (tmp_path / f".writing-{process}-0").mkdir()
        (tmp_path / f".writing-{process}-0" / ".tmpXYZ").write_text("half")
    files.write_text(tmp_path / "file", "whole")
    assert [p.name for p in tmp_path.glob(".*")] == [f".writing-{os.getpid()}-0"]


def test_what_goes_away_while_it_is_looked_for_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/one.json", "gone/b/one.json", "z/b/one.json", ".writing-1-2/one.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    looking = os.scandir

    def meanwhile(place: Any) -> Any:
        if not isinstance(place, int) and Path(place).name == "gone":
            shutil.rmtree(place, ignore_errors=True)
        return looking(place)

    monkeypatch.setattr(os, "scandir", meanwhile)
    assert found(tmp_path, "one.json") == [tmp_path / "a/one.json", tmp_path / "z/b/one.json"]


def test_all_files_are_as_readable_as_others(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    files.atomically(tmp_path / "tensors", lambda made: save_file(TENSORS, made))
    with files.together(tmp_path) as place:
        save_file(TENSORS, place / "more")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


_KILLED = """
import resource, signal, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from peftlab import files
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 10**9))
files.atomically(Path(sys.argv[1]), lambda made: save_file({"a": torch.ones(500)}, made))
"""


def test_a_kill_in_the_middle_of_rusts_write_leaves_the_file_of_before(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    command = [sys.executable, "-c", _KILLED, str(path)]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode < 0, killed.stderr.decode()
    assert path.read_text() == "before" and list(tmp_path.glob(".writing-*"))
    WRITERS["tensors"](path)
    assert not list(tmp_path.glob(".*"))


def test_json_is_for_people(tmp_path: Path) -> None:
    files.write_json(tmp_path / "x.json", {"ä": [1]})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n  "ä": [\n    1\n  ]\n}\n'
    with pytest.raises(ValueError, match=r"Out of range"):
        files.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"ä": [1]}
