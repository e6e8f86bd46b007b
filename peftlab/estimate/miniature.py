"""A model that is not here: two small models of its widths, with random weights, stand for it.

They have the family, the widths, the vocabulary and the number format of the model, and few blocks;
what each block costs is the difference between the two, and the rest follows. Rows are counted with
the bundled tokenizer, which makes about as many tokens as others do.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from peftlab.bases import layouts
from peftlab.bases.shapes import ModelShape
from peftlab.errors import InputError
from peftlab.estimate.prediction import Prediction
from peftlab.units import size

if TYPE_CHECKING:
    from peftlab.methods import Method

_BLOCKS = (2, 4)  # so that "the middle block" lies as far down in both
_USABLE = 0.8  # share of the free memory that the larger one's weights, twice over, may take
_BYTES = 4


class Miniature:
    """Predicts for a model of which only the configuration is known.

    Args:
        config: as in the model's config.json.

    Raises:
        InputError: an unknown family.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.shape = ModelShape.read(config, layouts.parameter_shapes(config))
        self.config = config

    def write(self, folder: Path, tokenizer: str | Path) -> tuple[Path, Path]:
        """Make the two small models, to be probed like any other, in folders within this one.

        Args:
            tokenizer: a folder or hub id of any tokenizer.

        Raises:
            InputError: not even these fit into memory, or onto the disk, here.
        """
        self._check_memory(folder)
        few, many = (self._written(folder / f"{n}-blocks", n, tokenizer) for n in _BLOCKS)
        return few, many

    def whole(self, method: Method, few: Prediction, many: Prediction) -> Prediction:
        """What the model would take, from what the two small ones take.

        Raises:
            InputError: settings that do not fit the model.
        """
        method.check(self.shape)

        def grown(name: str) -> float | None:
            low, high = getattr(few, name), getattr(many, name)
            if low is None or high is None:
                return None
            slope = (high - low) / (_BLOCKS[1] - _BLOCKS[0])
            return float(max(high, low + slope * (self.shape.layers - _BLOCKS[0])))

        return replace(
            Prediction.counted(method.count(self.shape)),
            peak_memory=grown("peak_memory"),
            step_seconds=grown("step_seconds"),
            train_seconds=grown("train_seconds"),
            busy=few.busy or many.busy,
        )

    def _check_memory(self, folder: Path) -> None:
        block = self.shape.numel(self.shape.block_parameters(0))
        rest = self.shape.size - self.shape.layers * block
        told = (
            f"a block of this model takes {size(_BYTES * block)}, its embeddings and head "
            f"{size(_BYTES * rest)}: probing needs"
        )
        needed, free = 2 * _BYTES * (rest + max(_BLOCKS) * block), psutil.virtual_memory().available
        if needed > _USABLE * free:
            raise InputError(
                f"{told} {size(needed)} of memory, and {size(free)} are free here. Estimate on a "
                "larger machine"
            )
        needed = _BYTES * (len(_BLOCKS) * rest + sum(_BLOCKS) * block)
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise InputError(
                f"{told} {size(needed)} of disk, and {size(free)} are free in {folder}. Name a "
                "folder with more room in TMPDIR"
            )

    def _written(self, folder: Path, blocks: int, tokenizer: str | Path) -> Path:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        values = {k: v for k, v in self.config.items() if k != "layer_types"}
        layers = "n_layer" if "n_layer" in values else "num_hidden_layers"
        try:
            config = AutoConfig.for_model(**{**values, layers: blocks})
        except AttributeError as error:  # of torch, asked for a dtype by its name
            raise InputError(
                f"the model's config.json has a dtype that torch lacks ({error}); float32, "
                "bfloat16 or float16 was expected"
            ) from error
        logging.disable_progress_bar()
        # In the checkpoint's format: what is converted when loaded is no longer a mapped file.
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(str(tokenizer)).save_pretrained(folder)
        return folder
