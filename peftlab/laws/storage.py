"""What is stored is what was trained."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from peftlab.laws.law import law, require
from peftlab.methods.adaptation import Adaptation

if TYPE_CHECKING:
    from peftlab.laws.trial import Trial


@law("saved and loaded is the same")
def saved(it: Trial) -> None:
    adaptation = it.adaptation(it.moved)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "stored"
        adaptation.save(folder)
        again = [Adaptation.load(folder), Adaptation.load(folder, it.model)]
        hidden = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    require(not hidden, f"saving leaves {', '.join(hidden)} behind")
    with torch.no_grad():  # as in use; with gradients an LSTM takes another kernel
        trained = it.logits(it.rows(), it.edits(it.moved))
    template = adaptation.edits(it.model).template
    for loaded in again:
        require(loaded.method == it.method, f"{loaded.method} is loaded, {it.method} was saved")
        require(_same(loaded, adaptation), "tensors differ after saving and loading")
        edits = loaded.edits(it.model)
        require(edits.template == template, "the template differs after saving and loading")
        same = all(map(torch.equal, it.logits(it.rows(), edits), trained))
        require(same, "logits differ after saving and loading")


def _same(loaded: Adaptation, stored: Adaptation) -> bool:
    """Whether they hold the same numbers, bit for bit, under the same names."""
    one, other = loaded.state.tensors, stored.state.tensors
    return one.keys() == other.keys() and all(
        torch.equal(one[n].to(t.device), t) for n, t in other.items()
    )
