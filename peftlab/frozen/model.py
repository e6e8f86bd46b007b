"""The frozen language model: loaded once, never changed, edited row by row."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peftlab.bases.fingerprint import fingerprint
from peftlab.bases.scale import Scale
from peftlab.errors import InputError
from peftlab.frozen import conformance, quantised
from peftlab.frozen.batch import Batch
from peftlab.frozen.editable import EditableLM
from peftlab.frozen.forward import PLAIN, ForwardOptions
from peftlab.frozen.loading import checkpoint_of, load_plain
from peftlab.frozen.sharded_loading import load_sharded
from peftlab.processes import ALONE, Processes

_SPREAD_ROWS = 4096  # rows of the embedding table that its spread is taken of


class FrozenLM(EditableLM):
    """A decoder of transformers whose rows each bring their own edits, and for which that works.

    Attributes:
        base_dtype: the format its numbers are kept in, see `number_formats`.
        notes: what its user should know, see `checkpoint.BaseNote`; set by who tells them.
        load_seconds: what loading it took, where `named.load` did it.
        conformance: which sites work on this family, and why one does not.

    Raises:
        UnsupportedModel: the family gives wrong logits for packed rows, or bypasses our attention.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        name: str = "model",
    ) -> None:
        super().__init__(model, name)
        self._tokenizer = tokenizer
        self._path: str | None = None
        self.notes: tuple[str, ...] = ()
        self.load_seconds = 0.0
        self.base_dtype = quantised.format_of(model)
        expected = conformance.reference(model)
        self.open_sites()
        self.conformance = conformance.check(self, expected)

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        dtype: str = "fp32",
        device: torch.device | str = "cpu",
        over: Processes = ALONE,
    ) -> FrozenLM:
        """Load a decoder from the hub or a local folder and check which sites work on it.

        Args:
            dtype: the format its numbers are kept in: fp32, bf16, int8 or nf4.
            over: processes to split its blocks over; each of them calls this.

        Raises:
            InputError: no such model, or no room for it; see `load_plain`.
            UnsupportedModel: the family cannot be edited exactly; says why.
        """
        if over.count > 1:
            model, tokenizer, fingerprint = load_sharded(name, dtype, device, over)
            made = cls(model, tokenizer, str(name))
            made.fingerprint = fingerprint
        else:
            model, tokenizer = load_plain(name, dtype, device)
            made = cls(model, tokenizer, str(name))
        made._path = str(name)
        return made

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer.

        Raises:
            InputError: it came without one.
        """
        if self._tokenizer is None:
            raise InputError(
                f"{self.name} has no tokenizer: put its tokenizer.json into the model's folder"
            )
        return self._tokenizer

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the base's weights as they are kept; nothing that peftlab does changes it."""
        return fingerprint(quantised.stored_tensors(self.model))

    @cached_property
    def checkpoint(self) -> str | None:
        """The checkpoint that it was loaded from, the same for every format; None: from memory."""
        return None if self._path is None else checkpoint_of(self._path, self.model.config)

    @cached_property
    def scale(self) -> Scale:
        """What learning rates depend on; the embeddings' spread is that of evenly spaced tokens."""
        vocabulary = self.shape.vocab
        ids = torch.arange(0, vocabulary, max(1, vocabulary // _SPREAD_ROWS))
        spread = float(self.embed(ids).std())
        return Scale(self.shape.hidden, float(f"{spread:.3g}"))  # every machine's sum rounds to it

    @property
    def base_bytes(self) -> int:
        """What the weights take in memory, as they are kept, the scales of quantised ones too."""
        return sum(tensor.nbytes for _, tensor in quantised.stored_tensors(self.model))

    def head_runs_apart(self, batch: Batch, options: ForwardOptions = PLAIN) -> bool:
        """Whether no owner edits the head, and it may be run piece by piece."""
        if not options.fast or self.conformance.sites.get("head") is not None:
            return False
        edited = {*batch.sites.linear, *batch.sites.weights}
        return not edited & self._head_names

    @cached_property
    def _head_names(self) -> set[str]:
        head = self.model.get_output_embeddings()
        own = {id(parameter) for parameter in head.parameters()}
        names = {name for name, p in self.model.named_parameters() if id(p) in own}
        return names | {path for path, module in self.model.named_modules() if module is head}
