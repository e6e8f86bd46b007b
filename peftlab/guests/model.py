"""A plain copy of the base with a guest's modules in it: losses, and tokens, by PEFT's own forward.

As our own base it drops nothing out; PEFT's modules keep their own dropout. Rows are padded on the
right, so no position differs from that of a row alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftlab.bases.fingerprint import fingerprint
from peftlab.bases.scale import SEARCHED
from peftlab.bases.shapes import ModelShape
from peftlab.errors import InputError
from peftlab.files import together
from peftlab.frozen import quantised
from peftlab.frozen.loading import load_plain
from peftlab.guests.guest import Guest
from peftlab.token_limits import token_chunks

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from peftlab.tasks import Encoded

_TOKENS_A_BATCH = 2048  # padded ones, in evaluation
_IGNORED = -100  # the label that transformers' losses leave out


class PlainBase:
    """A base as transformers loads it, with what training and records need to know of it."""

    is_sharded = False
    scale = SEARCHED  # guests' rates are the same on every base

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str
    ) -> None:
        self.model, self.tokenizer, self.name = model.eval().requires_grad_(False), tokenizer, name
        self.shape = ModelShape.read(model.config.to_dict(), quantised.plain_shapes(model))
        self.fingerprint = fingerprint(quantised.stored_tensors(model))
        quantised.open_linears(model)  # as in our own base, so that both compute the same
        _no_dropout(model)
        _no_defaults(model)

    @classmethod
    def load(
        cls, path: str | Path, name: str | None = None, device: str = "cpu", dtype: str = "fp32"
    ) -> PlainBase:
        """Load a base from the hub or a folder, in a format of `number_formats`.

        Raises:
            InputError: no such model, or no room for it.
        """
        model, tokenizer = load_plain(path, dtype, device)
        return cls(model, tokenizer, name or str(path))

    @property
    def device(self) -> torch.device:
        """Where the base lies."""
        return self.model.device


def _no_dropout(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def _no_defaults(model: PreTrainedModel) -> None:
    """Forget the checkpoint's `generation_config.json`: a task's decoding is all that decides.

    transformers takes whatever a call's own configuration leaves open from the model's: penalties,
    suppressed and forced tokens, bounds of length.
    """
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig()


class GuestModel:
    """The base with PEFT's modules. `base.model` belongs to it from then on.

    Attributes:
        peft: PEFT's model. tensors: what is trained, by PEFT's names.

    Raises:
        InputError: PEFT cannot put this method into this base; with its reason.
    """

    def __init__(self, base: PlainBase, guest: Guest, steps: int, seed: int = 0) -> None:
        self.base, self.guest = base, guest
        config = guest.config(steps)
        with torch.random.fork_rng(), quiet():
            torch.manual_seed(seed)
            self.peft = _wrapped(base, guest, config)
        self.tensors = {n: p for n, p in self.peft.named_parameters() if p.requires_grad}
        self._try()

    @property
    def virtual_tokens(self) -> int:
        """Positions that a prompt or prefix takes before the row."""
        config = self.peft.active_peft_config
        return int(config.num_virtual_tokens) if config.is_prompt_learning else 0

    @cached_property
    def trainable(self) -> int:
        """How many numbers are trained."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    @property
    def stored(self) -> int:
        """How many numbers PEFT saves to use the result."""
        from peft import get_peft_model_state_dict

        with quiet():
            saved = get_peft_model_state_dict(self.peft, save_embedding_layers=False)
        return sum(tensor.numel() for tensor in saved.values())

    def install(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put tensors in the place of the trained ones, everywhere that PEFT shares them."""
        new = {id(old): tensors[name] for name, old in self.tensors.items()}
        for module in self.peft.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and id(parameter) in new:
                    given = new[id(parameter)]
                    own = given if isinstance(given, torch.nn.Parameter) else _parameter(given)
                    module._parameters[name] = own
        self.tensors = {n: p for n, p in self.peft.named_parameters() if p.requires_grad}

    def loss(self, rows: Sequence[Encoded], smoothing: float = 0.0) -> torch.Tensor:
        """The summed loss of all target tokens, with what PEFT's method adds of its own.

        PEFT (AdaLoRA) adds regularisers to the mean loss that the model returns.
        """
        batch = _Padded(rows, self.base)
        out = self.peft(**batch.inputs, labels=batch.labels)
        summed: torch.Tensor = out.loss * batch.targets
        if smoothing:
            summed = summed + batch.losses(out.logits, smoothing).sum()
            summed = summed - batch.losses(out.logits).sum()
        return summed

    @torch.no_grad()
    def row_losses(self, rows: Sequence[Encoded]) -> tuple[list[float], list[int]]:
        """Every row's summed loss in nats and its number of target tokens."""
        sums, counts = [0.0] * len(rows), [row.targets for row in rows]
        with self.evaluating():
            for chunk in _chunks(rows):
                batch = _Padded([rows[i] for i in chunk], self.base)
                losses = batch.losses(self.peft(**batch.inputs).logits)
                for i, row in zip(chunk, losses.double().sum(-1).tolist(), strict=True):
                    sums[i] = row
        return sums, counts

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Without PEFT's dropout."""
        training = self.peft.training
        self.peft.eval()
        try:
            yield
        finally:
            self.peft.train(training)

    def save(self, folder: Path) -> None:
        """Write PEFT's own folder, all of it or nothing.

        Raises:
            DiskFull: see `files.atomically`.
        """
        with quiet(), together(folder) as place:
            self.peft.save_pretrained(str(place), save_embedding_layers=False)

    def _try(self) -> None:
        """Run one row, so that what cannot run is refused before training."""
        if not self.tensors:
            raise InputError(f"{self.guest.name} trains nothing on {self.base.name}")
        try:
            with torch.no_grad(), self.evaluating():
                self.peft(input_ids=torch.zeros(1, 2, dtype=torch.long, device=self.base.device))
        except Exception as error:
            raise InputError(
                f"{self.guest.name} cannot run by itself on {self.base.name}: {error}"
            ) from error


def _parameter(tensor: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(tensor.detach().clone())


def _wrapped(base: PlainBase, guest: Guest, config: Any) -> Any:
    from peft import get_peft_model

    try:
        return get_peft_model(base.model, config).to(base.device)
    except Exception as error:
        raise InputError(
            f"PEFT cannot put {guest.name} into {base.name} ({base.shape.family}): {error} "
            "Options are set as peft:TYPE,target_modules=…"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """PEFT warns of what it does by itself, and reads names that transformers 5 has deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _labels(row: Encoded) -> list[int]:
    labels = [_IGNORED] * len(row.ids)
    for start, stop in row.spans:
        labels[start:stop] = row.ids[start:stop]
    return labels


class _Padded:
    """Rows side by side, padded on the right: ids, mask and labels, each [R, T]."""

    def __init__(self, rows: Sequence[Encoded], base: PlainBase) -> None:
        size, self.device = max(len(row.ids) for row in rows), base.device
        self.targets = sum(row.targets for row in rows)
        ids = self._filled(0, size, [row.ids for row in rows])
        mask = self._filled(0, size, [(1,) * len(row.ids) for row in rows])
        self.labels = self._filled(_IGNORED, size, [_labels(row) for row in rows])
        self.inputs = {"input_ids": ids, "attention_mask": mask}

    def _filled(self, filler: int, size: int, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        full = [[*row, *[filler] * (size - len(row))] for row in rows]
        return torch.tensor(full, device=self.device)

    def losses(self, logits: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Of every token [R, T−1], zero where there is no target; prompts before a row are cut."""
        own = logits[:, -self.labels.shape[1] : -1].float()
        return torch.nn.functional.cross_entropy(
            own.transpose(1, 2),
            self.labels[:, 1:],
            reduction="none",
            ignore_index=_IGNORED,
            label_smoothing=smoothing,
        )


def _chunks(rows: Sequence[Encoded]) -> Iterator[list[int]]:
    """Indices by length, in batches of a few padded tokens."""
    sizes = [len(row.ids) for row in rows]
    order = sorted(range(len(rows)), key=sizes.__getitem__)
    return token_chunks(order, [sizes[i] for i in order], _TOKENS_A_BATCH, padded=True)
