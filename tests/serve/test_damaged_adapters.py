"""Damaged adapters of every method: refused in one line, and nobody else notices."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from peftlab import export
from peftlab.errors import InputError, PeftlabError
from peftlab.methods import REGISTRY
from peftlab.methods.adaptation import base_of
from peftlab.serve import Engine, Failed, Library, Limits, ServeRequest
from tests.laws import world as laws
from tests.laws.cases import made, method
from tests.serve import world
from tests.serve.world import adaptation, compare, run, sources

_OWN = tuple(
    case
    for case in (*sorted(REGISTRY), "bottleneck:kind=houlsby,bottleneck=4", "lora:dora=true,rank=2",
                 "intrinsic:dimension=40,structure=true", "prefix_tuning:length=3+bitfit")
    if method(case).stored(laws.model("gpt2").shape)
)  # fmt: skip
_PEFT = ("prompt_tuning:length=4", "p_tuning:length=4,placement=first", "prefix_tuning:length=3",
         "lora:rank=2", "ia3:targets=c_attn")  # fmt: skip
Tensors = dict[str, torch.Tensor]


def _change(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path, int], None]:
    def damage(file: Path, place: int) -> None:
        tensors = load_file(file)
        name = sorted(tensors)[place % len(tensors)]
        tensors[name] = change(tensors[name]).contiguous()
        save_file(tensors, file)

    return damage


def _renamed(file: Path, place: int) -> None:
    tensors = load_file(file)
    name = sorted(tensors)[place % len(tensors)]
    save_file({**{n: t for n, t in tensors.items() if n != name}, f"x{name}": tensors[name]}, file)


def _missing(file: Path, place: int) -> None:
    tensors = load_file(file)
    del tensors[sorted(tensors)[place % len(tensors)]]
    save_file(tensors, file)


def _surplus(file: Path, place: int) -> None:
    save_file({**load_file(file), "one.more": torch.zeros(place % 3 + 1)}, file)


def _truncated(file: Path, place: int) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: place % len(whole)])


def _huge(file: Path, place: int) -> None:
    """A header that promises more than the file holds."""
    header = {"big": {"dtype": "F32", "shape": [1 << 40, place + 1], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))


def _none(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(-1)[-1] = torch.nan
    return tensor


DAMAGES: dict[str, Callable[[Path, int], None]] = {
    "renamed": _renamed,
    "reshaped": _change(lambda t: t.reshape(1, *t.shape)),
    "longer": _change(lambda t: torch.cat([t, t])),
    "integers": _change(lambda t: t.to(torch.int32)),
    "doubles": _change(lambda t: t.double()),
    "truncated": _truncated,
    "infinite": _change(lambda t: t * torch.inf),
    "not a number": _change(_none),
    "huge": _huge,
    "missing": _missing,
    "surplus": _surplus,
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder a case, whole."""
    root, lm = tmp_path_factory.mktemp("stored"), laws.model("gpt2")
    for i, case in enumerate(_OWN):
        it = made(case, "gpt2")
        replace(it.adaptation(it.moved), base=base_of(lm)).save(root / f"own{i}")
    for i, case in enumerate(_PEFT):
        it = made(case, "gpt2")
        export.peft.save(it.adaptation(it.moved), lm, root / f"peft{i}")
    return root


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine with one good adapter in memory, and a folder for a bad one."""
    folder = tmp_path_factory.mktemp("adapters")
    library = Library(laws.model("gpt2"), folder)
    library.load("good", adaptation("a9", 0))
    library.load_one()
    return Engine(library.model, library, Limits(slots=3, capacity=world.CAPACITY))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from([f"own{i}" for i in range(len(_OWN))] + [f"peft{i}" for i in range(5)]),
    damage=st.sampled_from(sorted(DAMAGES)),
    place=st.integers(0, 1 << 20),
)
def test_refused_in_one_line_and_the_others_reply_as_ever(
    kind: str, damage: str, place: int, stored: Path, served: Engine
) -> None:
    assert served.library.folder is not None
    bad = served.library.folder / "bad"
    shutil.rmtree(bad, ignore_errors=True)
    shutil.copytree(stored / kind, bad)
    export.open_adaptation(bad, laws.model("gpt2"))  # whole
    DAMAGES[damage](next(bad.glob("*.safetensors")), place)
    served.library.rescan()
    tickets = [
        served.submit(ServeRequest(name, sources()[0], 3)) for name in ("good", "bad", "good")
    ]
    run(served)
    with pytest.raises(InputError) as refused:
        tickets[1].result(0)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 2_000
    for ticket in (tickets[0], tickets[2]):
        assert compare(ticket.result(0), world.alone("a9", 0, sources()[0]))
    assert served.failure is None


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)  # fmt: skip


def _places(values: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = (
        values.items()
        if isinstance(values, dict)
        else enumerate(values)
        if isinstance(values, list)
        else ()
    )
    return [p for k, v in pairs for p in ((*before, k), *_places(v, (*before, k)))]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from([f"own{i}" for i in range(len(_OWN))] + [f"peft{i}" for i in range(5)]),
    place=st.integers(0, 1 << 20),
    value=_VALUES | st.just("{p:100000000}{source}{target}") | st.just("{p:" + "9" * 5000 + "}"),
)
def test_any_value_in_a_description_is_used_or_refused_in_one_line(
    kind: str, place: int, value: Any, stored: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("described")
    shutil.copytree(stored / kind, folder, dirs_exist_ok=True)
    files = sorted(folder.glob("*.json"))
    file = files[place % len(files)]
    values = json.loads(file.read_text(encoding="utf-8"))
    *way, last = _places(values)[place % len(_places(values))]
    inner = values
    for step in way:
        inner = inner[step]
    inner[last] = value
    file.write_text(json.dumps(values), encoding="utf-8")
    model = laws.model("gpt2")
    try:
        opened = export.open_adaptation(folder, model)
        assert opened.edits(model).template is not None
    except PeftlabError as refused:
        assert "\n" not in str(refused)
    finally:
        shutil.rmtree(folder)


def test_what_no_file_is_does_not_keep_the_reader_waiting(stored: Path, tmp_path: Path) -> None:
    lm = laws.model("gpt2")
    for kind in ("own0", "peft0"):
        for name in [path.name for path in (stored / kind).iterdir()]:
            folder = tmp_path / kind / name
            shutil.copytree(stored / kind, folder)
            (folder / name).unlink()
            os.mkfifo(folder / name)
            with pytest.raises(InputError, match=r"regular file|is missing"):
                export.open_adaptation(folder, lm)


def test_an_adapter_that_cannot_be_prepared_is_dropped_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    library = Library(laws.model("gpt2"))
    for name in ("a2", "a9"):
        library.load(name, adaptation(name, 0))
        library.load_one()
    served = Engine(library.model, library, Limits(slots=3, capacity=world.CAPACITY))
    sick = library.get("a2")
    assert sick is not None and not sick.is_ready
    monkeypatch.setattr(sick, "prepare", lambda _: torch.zeros(2) @ torch.zeros(3))
    lost, kept = (served.submit(ServeRequest(name, sources()[0], 8)) for name in ("a2", "a9"))
    run(served)
    with pytest.raises(Failed, match="loading 'a2' failed"):
        lost.result(0)
    assert compare(kept.result(0), world.alone("a9", 0, sources()[0]))
    assert "a2" in caplog.text
    again = served.submit(ServeRequest("a2", sources()[0], 8))  # it is read anew
    run(served)
    assert compare(again.result(0), world.alone("a2", 0, sources()[0]))
