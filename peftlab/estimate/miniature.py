"""A model that is not here: two small models of its widths, with random weights, stand for it.

They have the family, the widths and the vocabulary of the model, and few blocks; what each block
costs is the difference between the two, and the rest follows. Rows are counted with the bundled
tokenizer, which makes about as many tokens as others do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from peftlab import layouts
from peftlab.errors import InputError
from peftlab.estimate.prediction import Prediction
from peftlab.estimate.probe import Prober
from peftlab.number_formats import rest_format
from peftlab.shapes import ModelShape
from peftlab.units import size

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods import Method
    from peftlab.tasks import Task
    from peftlab.train import TrainConfig

_BLOCKS = (2, 4)  # so that "the middle block" lies as far down in both
_ROOM = 0.8  # share of the free memory that the larger one's weights, twice over, may take
_BYTES = 4


class Miniature:
    """Predicts for a model of which only the configuration is known.

    Args:
        config: as in the model's config.json. tokenizer: a folder or hub id of any tokenizer.
        dtype: the format that the base's numbers are kept in.

    Raises:
        InputError: an unknown family, or even the small models do not fit into memory here.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tokenizer: str | Path,
        device: str = "cpu",
        dtype: str = "fp32",
    ) -> None:
        self.shape = ModelShape.read(config, layouts.parameter_shapes(config))
        self.config, self.tokenizer, self.device, self.dtype = config, tokenizer, device, dtype
        self._probers: list[Prober] = []

    def probe(
        self, method: Method, task: Task, config: TrainConfig, *, patience: float = 10.0
    ) -> Prediction:
        """As `probe` of the model itself would.

        Raises:
            InputError: settings that do not fit the model.
        """
        method.check(self.shape)
        few, many = (
            small.probe(method, task, config, patience=patience) for small in self.probers()
        )

        def whole(name: str) -> float | None:
            low, high = getattr(few, name), getattr(many, name)
            if low is None or high is None:
                return None
            slope = (high - low) / (_BLOCKS[1] - _BLOCKS[0])
            return float(max(high, low + slope * (self.shape.layers - _BLOCKS[0])))

        count = method.count(self.shape)
        header = few.adapter_bytes - _BYTES * few.stored
        return replace(
            few,
            trainable=count.trainable,
            stored=count.stored,
            adapter_bytes=_BYTES * count.stored + header,
            peak_memory=whole("peak_memory"),
            step_seconds=whole("step_seconds"),
            train_seconds=whole("train_seconds"),
            busy=few.busy or many.busy,
        )

    def probers(self) -> list[Prober]:
        """Those of the two small models."""
        if not self._probers:
            self._check_room()
            self._probers = [Prober(self._made(blocks)) for blocks in _BLOCKS]
        return self._probers

    def _check_room(self) -> None:
        block = self.shape.numel(self.shape.block_parameters(0))
        rest = self.shape.size - self.shape.layers * block
        needed = _BYTES * (2 * rest + sum(_BLOCKS) * block)
        free = psutil.virtual_memory().available
        if self.device == "cpu" and needed > _ROOM * free:
            raise InputError(
                f"a block of this model takes {size(_BYTES * block)}, its embeddings and head "
                f"{size(_BYTES * rest)}: probing needs {size(needed)} of memory, and "
                f"{size(free)} are free here. Estimate on a larger machine"
            )

    def _made(self, blocks: int) -> FrozenLM:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        from peftlab.frozen.loading import load_plain
        from peftlab.frozen.model import FrozenLM

        values = {k: v for k, v in self.config.items() if k not in ("layer_types", "dtype")}
        layers = "n_layer" if "n_layer" in values else "num_hidden_layers"
        config = AutoConfig.for_model(**{**values, layers: blocks})
        model = AutoModelForCausalLM.from_config(config)
        tokenizer = AutoTokenizer.from_pretrained(str(self.tokenizer))
        name = f"{blocks} blocks"
        if self.dtype == "fp32":
            return FrozenLM(model.to(self.device), tokenizer, name)
        with tempfile.TemporaryDirectory(prefix="peftlab-small-") as folder:
            # Quantising is part of loading; what is not quantised keeps the checkpoint's format.
            bf16 = rest_format(self.config) == "bf16"
            model.to(torch.bfloat16 if bf16 else torch.float32).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            return FrozenLM(*load_plain(folder, self.dtype, self.device), name)
