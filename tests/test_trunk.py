"""Kept trunk activations change neither losses nor the trained result, wherever they lie."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from peftlab.edits import Edits
from peftlab.frozen.packing import pack
from peftlab.loss import mean_loss, training_row
from peftlab.tasks import Encoded
from peftlab.trunk import Trunk, TrunkStore
from tests.models import frozen


def _rows(count: int = 40) -> list[Encoded]:
    rng = torch.Generator().manual_seed(5)
    lengths = torch.randint(8, 40, (count,), generator=rng).tolist()
    ids = [torch.randint(3, 120, (n,), generator=rng).tolist() for n in lengths]
    return [Encoded(tuple(row), len(row) - 4, 0) for row in ids]


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
    files = sorted(path.name for path in tmp_path.iterdir())
    again = TrunkStore(0, 0, tmp_path)
    mean_loss(lm, edits, rows, Trunk(lm, rows, 2, again))
    assert sorted(path.name for path in tmp_path.iterdir()) == files and len(files) == 3
    assert again.bytes_on_disk == 0
