"""Rows of token ids in files: what is read is what was written, or nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftlab.methods import parse_one
from peftlab.tasks import Encoded, Template
from peftlab.training import TrainConfig, train
from peftlab.training import rows as training_rows
from peftlab.training.rows import Rows
from peftlab.training.token_file import Kept, TokenFile, digest_of
from peftlab.trunk import TrunkStore
from tests.laws.world import model, task, tokenizer

ids = st.lists(st.integers(-50, 200_000), min_size=1, max_size=9).map(tuple)


def _encoded(beside: st.SearchStrategy[tuple[Encoded, ...]]) -> st.SearchStrategy[Encoded]:
    spans = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=3).map(tuple)
    begin = st.none() | st.integers(0, 9)
    rivals = st.lists(ids, max_size=3).map(tuple)
    return st.builds(Encoded, ids, spans, st.integers(0, 99), begin, rivals, beside)


rows = _encoded(st.lists(_encoded(st.just(())), max_size=2).map(tuple))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows, min_size=1, max_size=4))
def test_rows_come_back_as_they_were(tmp_path: Path, written: list[Encoded]) -> None:
    kept = TokenFile(tmp_path, "a")
    for number, row in enumerate(written):
        kept.put(7 * number, number + 1, row)
    for known in (kept, TokenFile(tmp_path, "a")):
        assert [known.get(7 * i, i + 1) for i in range(len(written))] == written
        assert known.get(1, 1) is None
        assert known.get(0, 99) is None  # of another example
    (tmp_path / "a.rows").unlink()
    (tmp_path / "a.places").unlink()


def test_wherever_writing_was_cut_off_rows_are_whole_or_missing(tmp_path: Path) -> None:
    first, second = Encoded((1, 2, 3), ((1, 3),)), Encoded((4, 5), ((0, 1),))
    kept, held = TokenFile(tmp_path, "a"), [tmp_path / "a.rows", tmp_path / "a.places"]
    kept.put(0, 10, first)
    edge = held[0].stat().st_size
    kept.put(1, 11, second)
    rows, places = (file.read_bytes() for file in held)

    def reading(rows: bytes, places: bytes) -> TokenFile:
        held[0].write_bytes(rows)
        held[1].write_bytes(places)
        return TokenFile(tmp_path, "a")

    for size in range(len(rows)):
        again = reading(rows[:size], places)
        assert again.get(0, 10) == (first if size >= edge else None)
        assert again.get(1, 11) is None
        again.put(1, 11, second)
        assert again.get(1, 11) == second
    for at in range(len(rows)):  # a damaged byte
        for flip in (1, 255):
            again = reading(rows[:at] + bytes([rows[at] ^ flip]) + rows[at + 1 :], places)
            assert again.get(0, 10) == (None if at < edge else first)
            assert again.get(1, 11) == (None if at >= edge else second)
    for at in range(len(places)):
        again = reading(rows, places[:at] + bytes([places[at] ^ 255]) + places[at + 1 :])
        found = [again.get(0, 10), again.get(1, 11)]
        assert found == ([None, second] if at < len(places) // 2 else [first, None])


def test_two_writers_find_what_the_other_wrote(tmp_path: Path) -> None:
    one, other = TokenFile(tmp_path, "a"), TokenFile(tmp_path, "a")
    for number in range(20):
        (one if number % 2 else other).put(number, number, Encoded((number,), ()))
    for kept in (one, other):
        assert [kept.get(i, i) for i in range(20)] == [Encoded((i,), ()) for i in range(20)]


def test_on_a_full_disk_rows_are_tokenised_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_rows, "_IN_MEMORY", 2)
    usual = Rows(task().pairs("train"), task().template, tokenizer(), 96)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    place = Kept(tmp_path, "train")
    kept = Rows(task().pairs("train"), task().template, tokenizer(), 96, None, place)
    with pytest.warns(UserWarning, match="tokenised anew") as said:
        assert list(kept) == list(usual)
    assert len(said) == 1
    assert list(kept) == list(usual)


def test_many_rows_train_alike_and_are_tokenised_once_for_all_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, config = model("llama"), TrainConfig(steps=6, batch_size=4)
    usual = train(lm, parse_one("lora:rank=2"), task(), config)
    made: list[str] = []
    encode = Template.encode

    def counted(self: Template, tokenizer: object, example: object, *rest: object) -> Encoded:
        made.append(str(example))
        return encode(self, tokenizer, example, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(training_rows, "_IN_MEMORY", 2)
    monkeypatch.setattr(Template, "encode", counted)
    for method in ("lora:rank=2", "lora:rank=2", "ia3"):
        store = TrunkStore(1 << 20, 1 << 20, tmp_path, shared=True)
        found = train(lm, parse_one(method), task(), config, store=store)
        if method != "ia3":
            assert found.losses == usual.losses
            assert found.validation_loss == usual.validation_loss
    pairs = {*task().pairs("train"), *task().pairs("validation")}
    assert len(made) == len(set(made)) <= len(pairs)


def test_splits_and_processes_without_a_folder_have_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_rows, "_IN_MEMORY", 2)
    own, pairs = (tokenizer(), 96, None), {n: task().pairs(n) for n in ("validation", "test")}
    for folder in (tmp_path, None):
        kept = {n: Rows(p, task().template, *own, Kept(folder, n)) for n, p in pairs.items()}
        for _ in range(2):
            for name, rows in kept.items():
                assert list(rows) == list(Rows(pairs[name], task().template, *own))
    sizes = [file.stat().st_size for file in tmp_path.rglob("*.rows")]
    assert len(sizes) == 2
    again = Rows(pairs["test"], task().template, *own, Kept(tmp_path, "test"))
    list(again)
    assert [file.stat().st_size for file in tmp_path.rglob("*.rows")] == sizes


def test_where_nothing_can_be_written_rows_are_tokenised_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_rows, "_IN_MEMORY", 2)
    (tmp_path / "a").write_text("no folder")
    place = Kept(tmp_path / "a", "train")
    rows = Rows(task().pairs("train"), task().template, tokenizer(), 96, None, place)
    with pytest.warns(UserWarning, match="tokenised anew"):
        assert len(rows[0].ids) > 1
    assert rows[1] == Rows(task().pairs("train"), task().template, tokenizer(), 96)[1]


def test_what_a_row_is_made_of_has_a_digest_of_its_own() -> None:
    pairs = [*task().pairs("train"), *task().pairs("test")]
    assert len({digest_of(*pair) for pair in pairs}) == len(set(pairs))
