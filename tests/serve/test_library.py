"""Adapters under names: folders, limits of memory, replacing, unloading, names that lead away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from peftlab.errors import InputError
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.serve import Engine, Library, Limits, ServeRequest, UnknownAdapter
from tests.laws import world as laws
from tests.serve import world
from tests.serve.world import NAMES, adaptation, alone, compare, run, sources


def stored(name: str, variant: int = 0, family: str = "gpt2") -> Adaptation:
    """With all that is noted of its base, as training writes it."""
    return replace(adaptation(name, variant, family), base=base_of(laws.model(family)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        stored(name).save(tmp_path / "adapters" / name)
    (tmp_path / "adapters" / "notes").mkdir()
    (tmp_path / "adapters" / ".hidden").mkdir()
    return tmp_path / "adapters"


def serving(library: Library, slots: int = 3) -> Engine:
    return Engine(library.model, library, Limits(slots=slots, capacity=world.CAPACITY))


def test_a_folder_of_adapters_is_known_and_read_when_asked_for(folder: Path) -> None:
    library = Library(laws.model("gpt2"), folder)
    assert [it.name for it in library.adapters()] == sorted(NAMES)
    assert all(it.version is None for it in library.adapters())
    engine = serving(library)
    tickets = [engine.submit(ServeRequest(name, sources()[0], 8)) for name in NAMES]
    run(engine)
    for name, ticket in zip(NAMES, tickets, strict=True):
        compare(ticket.result(0), alone(name, 0, sources()[0]))
    assert all(it.version == 1 and it.size is not None for it in library.adapters())


def test_memory_is_limited_and_what_was_used_last_stays(folder: Path) -> None:
    whole = Library(laws.model("gpt2"), folder)
    small = ("a2", "a4", "a6", "a7", "a8", "a10")
    whole.want(NAMES)
    while whole.load_one():
        pass
    sizes = {it.name: it.size or 0 for it in whole.adapters()}
    total = sum(sizes[name] for name in small)
    library = Library(laws.model("gpt2"), folder, memory=total * 2 // 3)
    engine = serving(library)
    for turn in range(3):
        tickets = [engine.submit(ServeRequest(name, sources()[turn], 4)) for name in small]
        run(engine)
        for ticket in tickets:
            compare(ticket.result(0), alone(ticket.request.adapter, 0, sources()[turn]))
        held = [it.name for it in library.adapters() if it.version]
        assert 0 < len(held) < len(small)
        assert sum(sizes[name] for name in held) <= library.memory
    ticket = engine.submit(
        ServeRequest("a13", sources()[0], 4)
    )  # full fine-tuning, too large for it
    run(engine)
    with pytest.raises(InputError, match="adapters may take"):
        ticket.result(0)


def test_rows_keep_the_version_they_started_with() -> None:
    library = world.library()
    engine = serving(library)
    before = engine.submit(ServeRequest("a9", sources()[0], 8))
    engine.step()
    engine.step()
    library.load("a9", adaptation("a9", 1))
    after = engine.submit(ServeRequest("a9", sources()[0], 8))
    run(engine)
    assert (before.result(0).version, after.result(0).version) == (1, 2)
    assert compare(before.result(0), alone("a9", 0, sources()[0]))
    assert compare(after.result(0), alone("a9", 1, sources()[0]))


def test_unloaded_its_rows_end_and_what_waits_is_told() -> None:
    library = world.library()
    engine = serving(library, slots=1)
    running, waiting = (engine.submit(ServeRequest("a4", sources()[0], 8)) for _ in range(2))
    engine.step()
    engine.step()
    library.unload("a4")
    other = engine.submit(ServeRequest("a9", sources()[0], 8))
    run(engine)
    assert compare(running.result(0), alone("a4", 0, sources()[0]))
    assert compare(other.result(0), alone("a9", 0, sources()[0]))
    with pytest.raises(UnknownAdapter):
        waiting.result(0)
    with pytest.raises(UnknownAdapter):
        library.unload("a4")


def test_a_replacement_that_cannot_be_read_leaves_the_old_one(folder: Path) -> None:
    library = Library(laws.model("gpt2"), folder)
    engine = serving(library)
    (folder / "a9" / "adaptation.safetensors").write_bytes(b"nothing of the kind")
    stored("a9").save(folder.parent / "good")
    first = library.load("a9", folder.parent / "good")
    second = library.load("a9")
    ticket = engine.submit(ServeRequest("a9", sources()[0], 8))
    run(engine)
    while library.load_one():
        pass
    assert first.result(0).version == 1
    with pytest.raises(InputError, match="damaged"):
        second.result(0)
    assert compare(ticket.result(0), alone("a9", 0, sources()[0]))
    assert library.get("a9") is not None


def test_an_adapter_of_another_base_is_refused_with_all_that_differs(folder: Path) -> None:
    stored("a9", family="llama").save(folder / "foreign")
    library = Library(laws.model("gpt2"), folder)
    engine = serving(library)
    foreign = engine.submit(ServeRequest("foreign", sources()[0], 8))
    own = engine.submit(ServeRequest("a9", sources()[0], 8))
    run(engine)
    with pytest.raises(InputError, match=r"another base: made for llama.*kv_heads is 4, not 2"):
        foreign.result(0)
    assert compare(own.result(0), alone("a9", 0, sources()[0]))


def test_numbers_that_are_none_are_refused() -> None:
    library, it = Library(laws.model("gpt2")), adaptation("a9", 0)
    tensors = {name: tensor.clone() for name, tensor in it.state.tensors.items()}
    next(iter(tensors.values()))[0] = torch.inf
    asked = library.load("a9", replace(it, state=replace(it.state, tensors=tensors)))
    library.load_one()
    with pytest.raises(InputError, match="infinite or not a number"):
        asked.result(0)


@pytest.mark.parametrize("name", ["../a9", "/etc", "a/b", "", ".", "..", "a\\b", "a\nb", "x" * 129])
def test_names_cannot_leave_the_folder(folder: Path, name: str) -> None:
    library = Library(laws.model("gpt2"), folder / "..")
    with pytest.raises(InputError, match="no adapter's name"):
        library.load(name)


def test_links_cannot_leave_the_folder_either(folder: Path) -> None:
    stored("a9").save(folder.parent / "outside")
    (folder / "link").symlink_to(folder.parent / "outside")
    library = Library(laws.model("gpt2"), folder)
    assert "link" not in [it.name for it in library.adapters()]
    with pytest.raises(InputError, match="leads out"):
        library.load("link")
    with pytest.raises(UnknownAdapter):
        library.load("nothing")
    with pytest.raises(InputError, match="is no folder"):
        Library(laws.model("gpt2"), folder / "nowhere")


def test_links_of_files_stay_inside_or_in_the_hubs_own_blobs(folder: Path) -> None:
    secret = folder.parent / "secret.json"
    secret.write_text((folder / "a9" / "adaptation.json").read_text())
    (folder / "a9" / "adaptation.json").unlink()
    (folder / "a9" / "adaptation.json").symlink_to(secret)
    library = Library(laws.model("gpt2"), folder)
    asked = library.load("a9")
    library.load_one()
    with pytest.raises(InputError, match=r"adaptation\.json is a link that leads out"):
        asked.result(0)
    hub = folder.parent / "models--me--it"
    for file in (folder / "a10").iterdir():
        blob = hub / "blobs" / file.name
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(file.read_bytes())
        link = hub / "snapshots" / "rev" / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path("..") / ".." / "blobs" / file.name)
    cached = Library(laws.model("gpt2"), hub / "snapshots")
    asked = cached.load("rev")
    cached.load_one()
    assert asked.result(0).version == 1


def test_links_in_a_circle_are_passed_over(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "a9" / "peftlab.json").symlink_to("peftlab.json")
    library = Library(laws.model("gpt2"), folder)
    assert "loop" not in [it.name for it in library.adapters()]
    with pytest.raises(InputError, match=r"no adapter|circle"):
        library.load("loop")
    asked = library.load("a9")
    library.load_one()
    with pytest.raises(InputError, match="circle"):
        asked.result(0)


def test_whoever_asked_and_left_does_not_end_the_loader() -> None:
    library = Library(laws.model("gpt2"))
    library.load("a9", adaptation("a9", 0)).cancel()
    assert library.load_one()
    assert library.load("a10", adaptation("a10", 0)) and library.load_one()
    assert [it.name for it in library.adapters()] == ["a10"]


def test_a_thousand_adapters_share_one_model(folder: Path) -> None:
    kinds = [name for name in NAMES if name not in ("a12", "a13")]
    library = Library(laws.model("gpt2"))
    for i in range(1000):
        library.load(f"n{i}", adaptation(kinds[i % len(kinds)], 0))
    while library.load_one():
        pass
    engine = Engine(library.model, library, Limits(slots=16, capacity=world.CAPACITY, queue=1000))
    tickets = [
        engine.submit(ServeRequest(f"n{i}", sources()[i % 6], 3), stream=False) for i in range(1000)
    ]
    run(engine)
    for i, ticket in enumerate(tickets):
        compare(ticket.result(0), alone(kinds[i % len(kinds)], 0, sources()[i % 6]))
