"""Kept trunk activations change neither losses nor the trained result, wherever they lie."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from peftlab.edits import Edits
from peftlab.errors import DiskFull
from peftlab.frozen.packing import pack
from peftlab.loss import mean_loss, training_row
from peftlab.tasks import Encoded
from peftlab.trunk import Trunk, TrunkStore
from tests.models import frozen
from tests.test_files import file_size_limit


def _rows(count: int = 40) -> list[Encoded]:
    rng = torch.Generator().manual_seed(5)
    lengths = torch.randint(8, 40, (count,), generator=rng).tolist()
    ids = [torch.randint(3, 120, (n,), generator=rng).tolist() for n in lengths]
    return [Encoded.trained_from(tuple(row), len(row) - 4) for row in ids]


def _edits(family: str) -> Edits:
    lm = frozen(family)
    top = lm.shape.block_parameters(lm.shape.layers - 1)
    return Edits(weights={n: lm.gather(n) * 1.1 for n in top})


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3_text"])
@pytest.mark.parametrize("limits", [(1 << 30, 0), (0, 1 << 30), (0, 0), (40_000, 1 << 30)])
def test_kept_states_give_the_same_loss(
    family: str, limits: tuple[int, int], tmp_path: Path
) -> None:
    lm, rows, edits = frozen(family), _rows(), _edits(family)
    store = TrunkStore(*limits, tmp_path / "trunk")
    trunk = Trunk(lm, rows, edits.lowest_block(lm.shape), store)
    expected = mean_loss(lm, edits, rows)
    assert mean_loss(lm, edits, rows, trunk) == pytest.approx(expected, abs=1e-5)
    assert store.bytes_in_memory <= limits[0] and store.bytes_on_disk <= limits[1]
    assert (store.bytes_in_memory + store.bytes_on_disk > 0) is (limits != (0, 0))


def test_states_do_not_depend_on_the_order_in_which_they_are_asked_for(tmp_path: Path) -> None:
    lm, rows = frozen("gpt2"), _rows()
    first, second = (Trunk(lm, rows, 2, TrunkStore(1 << 30)) for _ in range(2))
    forward, backward = list(range(8)), [39, 20, *reversed(range(8))]
    batches = []
    for trunk, wanted in ((first, forward), (second, backward)):
        batch = pack([training_row(rows[i]) for i in wanted], [Edits()], share=False)
        batches.append(trunk.states(batch, wanted)[1])
    length = sum(len(rows[i].ids) - 1 for i in forward)
    parts = batches[0][0].split([len(rows[i].ids) - 1 for i in forward])
    turned = torch.cat(list(reversed(parts)))
    assert torch.equal(batches[1][0, -length:], turned)


def test_files_are_shared_between_stores_and_the_limit_holds(tmp_path: Path) -> None:
    lm, rows, edits = frozen("llama"), _rows(), _edits("llama")
    first = TrunkStore(0, 1 << 30, tmp_path)
    mean_loss(lm, edits, rows, Trunk(lm, rows, 2, first))
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    again = TrunkStore(0, 0, tmp_path)
    mean_loss(lm, edits, rows, Trunk(lm, rows, 2, again))
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == files and len(files) == 3
    assert again.bytes_on_disk == 0


def test_the_limit_is_that_of_the_folder_for_all_processes_and_later_ones(tmp_path: Path) -> None:
    states = [torch.ones(5, 40)]  # 800 bytes
    for number in range(3):  # each a process of its own, as far as the store knows
        TrunkStore(0, 1000, tmp_path).put(f"chunk-{number}", states)
    (kept,) = tmp_path.glob("*.safetensors")
    assert kept.stat().st_size <= 1000
    roomy = TrunkStore(0, 2000, tmp_path)
    for number in range(5):
        roomy.put(f"other-{number}", states)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert roomy.bytes_on_disk == kept.stat().st_size


def test_a_chunk_that_cannot_be_written_is_computed_again(tmp_path: Path) -> None:
    states = [torch.ones(5, 40)]
    store = TrunkStore(0, 1 << 30, tmp_path / "trunk")
    store.put("first", states)
    with file_size_limit(500), pytest.warns(UserWarning, match=r"in files no longer.*this large"):
        store.put("second", states)
    store.put("third", states)  # without another word
    assert [path.stem for path in (tmp_path / "trunk").glob("*.safetensors")] == ["first"]
    assert store.get("first") is not None and store.get("second") is store.get("third") is None


def test_a_damaged_chunk_is_none(tmp_path: Path) -> None:
    states = [torch.ones(5, 40)]
    TrunkStore(0, 1 << 30, tmp_path).put("chunk", states)
    (tmp_path / "chunk.safetensors").write_bytes(bytes(872))  # as after a power cut
    store = TrunkStore(0, 1 << 30, tmp_path)
    assert store.get("chunk") is None
    store.put("chunk", states)
    assert torch.equal(TrunkStore(0, 0, tmp_path).get("chunk")[0], states[0])  # type: ignore[index]


def test_a_trunk_is_not_kept_where_its_run_has_gone(tmp_path: Path) -> None:
    store = TrunkStore(0, 1 << 30, tmp_path / "gone" / "trunk")
    with pytest.raises(DiskFull, match=r"its folder is gone"):
        store.put("chunk", [torch.ones(5, 40)])
    assert not (tmp_path / "gone").exists()


def test_a_shared_store_fills_files_before_its_own_memory(tmp_path: Path) -> None:
    states = [torch.ones(4, 1000)]
    store = TrunkStore(1 << 20, 20_000, tmp_path / "trunk", shared=True)
    for key in ("first", "second"):
        store.put(key, states)
    assert 16_000 < store.bytes_on_disk <= 20_000 and store.bytes_in_memory == 16_000
    other = TrunkStore(0, 20_000, tmp_path / "trunk", shared=True)
    assert other.get("first") is not None and other.get("second") is None


def test_what_another_store_has_computed_is_charged_once(tmp_path: Path) -> None:
    def compute() -> list[torch.Tensor]:
        time.sleep(0.02)
        return [torch.ones(3)]

    one, other, again = (
        TrunkStore(0, 1 << 20, tmp_path / "trunk", shared=True, owner=name)
        for name in ("one", "other", "one")
    )
    for _ in range(2):
        assert torch.equal(one.computed("key", compute)[0], torch.ones(3))
    assert one.spared == 0
    for _ in range(2):
        (states,) = other.computed("key", compute)
    assert torch.equal(states, torch.ones(3)) and 0.02 <= other.spared < 0.5
    again.computed("key", compute)
    assert again.spared == 0, "a process that was interrupted had computed it"
