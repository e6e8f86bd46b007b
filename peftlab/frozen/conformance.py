"""What works on this model family: checked at load on random rows, since some failures are silent.

The oracle is the plain model with transformers' own eager attention, one row at a time, before
anything is overridden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from transformers import PreTrainedModel

from peftlab.edits import Bottleneck, Edits, LinearEdit
from peftlab.errors import PeftlabError
from peftlab.frozen.batch import Batch
from peftlab.frozen.editable import EditableLM
from peftlab.frozen.forward import PLAIN, ForwardContext, ForwardOptions
from peftlab.frozen.packing import Row, pack

SITES = ("embeddings", "attention", "linear", "sublayer", "weights", "resume", "last_block", "head")
_LENGTHS = (5, 12, 9)
_WINDOW = 6  # shorter than two of the rows, so that a window that gets lost is seen
_SPLIT = 4


class UnsupportedModel(PeftlabError):
    """The model's family cannot be run packed through our attention; says why."""


@dataclass(frozen=True)
class Reference:
    """Random rows and the plain model's logits of each."""

    rows: list[list[int]]
    logits: list[torch.Tensor]
    windows: bool


@dataclass(frozen=True)
class Conformance:
    """Per site None where it works, or the reason why it does not."""

    sites: dict[str, str | None] = field(default_factory=dict)

    def require(self, site: str, method: str) -> None:
        """Refuse a method whose site does not work on this model.

        Raises:
            UnsupportedModel: with the reason.
        """
        reason = self.sites.get(site)
        if reason is not None:
            raise UnsupportedModel(
                f"{method} needs the {site} site, which this model lacks: {reason}"
            )


@torch.no_grad()
def reference(model: PreTrainedModel) -> Reference:
    """The plain model's logits of random rows, one at a time, with a shrunken sliding window."""
    generator = torch.Generator().manual_seed(0)
    vocab = model.get_input_embeddings().weight.shape[0]
    rows = [torch.randint(3, vocab, (n,), generator=generator).tolist() for n in _LENGTHS]
    model.set_attn_implementation("eager")
    with _short_windows(model) as windows:
        logits = [
            model(torch.tensor([row], device=model.device), use_cache=False).logits[0]
            for row in rows
        ]
    return Reference(rows, logits, windows)


@torch.no_grad()
def check(lm: EditableLM, expected: Reference) -> Conformance:
    """Compare packed rows with the reference, then try every site.

    Raises:
        UnsupportedModel: the family ignores our attention, or packed rows are wrong.
    """
    with _short_windows(lm.model):
        batch = _packed(expected, [Edits()])
        context = ForwardContext(batch, ForwardOptions(collect=True))
        try:
            logits = lm.run(context)
        except Exception as error:
            raise UnsupportedModel(f"{lm.shape.family}: packed rows fail: {error}") from error
        if len(context.collected) != lm.shape.layers:
            raise UnsupportedModel(
                f"{lm.shape.family} calls our attention function in {len(context.collected)} of "
                f"{lm.shape.layers} blocks: it does not use transformers' AttentionInterface, so "
                "prefixes and packed rows would silently be ignored"
            )
        gap = _difference(batch.split_kept(logits), expected.logits)
        if gap > _tolerance(lm):
            raise UnsupportedModel(
                f"{lm.shape.family}: packed rows differ from separate ones by {gap:.1e}; their "
                "logits depend on their neighbours"
            )
        probe = _Probe(lm, expected)
        gaps = {site: _reason(getattr(probe, site)) for site in SITES}
    return Conformance({**gaps, **lm.sublayer_gaps})


def _reason(attempt: Callable[[], str | None]) -> str | None:
    try:
        return attempt()
    except Exception as error:  # whatever goes wrong is the reason that the user is shown
        return f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class _Probe:
    """One attempt a site; each returns None or what is wrong."""

    lm: EditableLM
    expected: Reference

    def embeddings(self) -> str | None:
        """The embeddings of real tokens, as pseudo tokens, give those tokens' logits."""
        ids = torch.tensor(self.expected.rows[0])
        edits = Edits(embeddings=self.lm.embed(ids))
        rows = [[-1 - i for i in range(len(ids))], *self.expected.rows[1:]]
        return self._same(_packed(replace(self.expected, rows=rows), [edits, Edits()], [0, 1, 1]))

    def attention(self) -> str | None:
        """A row's own first keys and values, as a prefix, give the rest of the row its logits."""
        row = self.expected.rows[1]
        prefix = Edits(
            attention={b: (kv,) for b, kv in self.lm.keys_values(Edits(), row[:_SPLIT]).items()}
        )
        rows = [self.expected.rows[0], row[_SPLIT:], self.expected.rows[2]]
        logits = [*self.expected.logits]
        logits[1] = logits[1][_SPLIT:]
        batch = _packed(replace(self.expected, rows=rows), [Edits(), prefix], [0, 1, 0])
        return self._same(batch, logits)

    def linear(self) -> str | None:
        """A low-rank change equals the same change of the weight."""
        linear = self.lm.shape.linears[0]
        generator = torch.Generator().manual_seed(1)
        down = torch.randn(2, linear.in_features, generator=generator) * linear.in_features**-0.5
        up = torch.randn(linear.out_features, 2, generator=generator) * 0.5
        low_rank = Edits(linear={linear.path: LinearEdit(down=down, up=up)})
        name = f"{linear.path}.weight"
        change = (down.T @ up.T if self.lm.shape.transposed else up @ down).to(self.lm.device)
        return self._alike(low_rank, Edits(weights={name: self.lm.gather(name).float() + change}))

    def sublayer(self) -> str | None:
        """A constant added by a bottleneck equals the same bias of the sublayer's last linear.

        Experts have no last linear: there, it equals the constant added to what enters the next
        block.
        """
        width, reason = self.lm.shape.hidden, None
        constant = torch.linspace(-1, 1, width, device=self.lm.device)
        zero = torch.zeros(1, width, device=self.lm.device)
        edit = Bottleneck(down=zero, up=zero.T, up_bias=constant)
        for which, role in (("attention", "o"), ("mlp", "down")):
            site = Edits(sublayer={(0, which): edit})  # type: ignore[dict-item]
            last = [x for x in self.lm.shape.linears if x.block == 0 and role in x.parts]
            if last and not self._inside_experts(last[-1].path):
                bias = Edits(linear={last[-1].path: LinearEdit(bias=constant)})
                reason = reason or self._alike(site, bias)
            else:
                reason = reason or self._shifts_the_next_block(site, constant)
        return reason

    def _inside_experts(self, path: str) -> bool:
        """Whether a linear is one part of a feed-forward: a shared expert's beside others."""
        return path.removeprefix(self.lm.shape.block_prefix).count(".") > 2

    def _shifts_the_next_block(self, site: Edits, constant: torch.Tensor) -> str | None:
        plain, states = self._kept_input(1)
        resumed = ForwardOptions(resume=(1, states + constant.to(states)))
        expected = plain.split_kept(self.lm(plain, resumed))
        return self._same(_packed(self.expected, [site]), expected)

    def weights(self) -> str | None:
        """Random replacements of every kind of leaf change their own rows and no others."""
        generator = torch.Generator().manual_seed(2)
        for name in self._one_of_each_kind():
            weight = self.lm.gather(name).float()
            noise = torch.randn(weight.shape, generator=generator).to(weight.device)
            changed = Edits(weights={name: weight + noise})
            if problem := self._alike(changed, None):
                return f"{name}: {problem}"
        return None

    def resume(self) -> str | None:
        """The upper blocks alone, from the kept input of the middle one, give the same logits."""
        middle = self.lm.shape.layers // 2
        batch, states = self._kept_input(middle)
        return self._same(batch, options=ForwardOptions(resume=(middle, states)))

    def last_block(self) -> str | None:
        """The last block at the kept tokens only gives their logits."""
        rows = [Row(ids, 0, -2) for ids in self.expected.rows]
        batch = pack(rows, [Edits()], device=self.lm.device, share=False)
        return self._same(batch, [logits[-2:] for logits in self.expected.logits])

    def head(self) -> str | None:
        """The head run apart gives the model's logits."""
        batch = _packed(self.expected, [Edits()])
        logits = batch.split_kept(self.lm.head(self.lm.hidden(batch)))
        gap = _difference(logits, self.expected.logits)
        return None if gap <= _tolerance(self.lm) else f"logits differ by {gap:.1e}"

    def _one_of_each_kind(self) -> list[str]:
        """Of every parameter the first block's that has it: some blocks alone have experts."""
        kinds: dict[str, str] = {}
        for name in self.lm.shape.parameters:
            # A bias of the keys alone moves all of a query's scores alike: softmax cannot see it.
            if not name.endswith("k_proj.bias"):
                kinds.setdefault(_without_block(self.lm, name), name)
        return [name for name in kinds.values() if self.lm.shape.numel([name]) < 2**22]

    def _kept_input(self, block: int) -> tuple[Batch, torch.Tensor]:
        """The plain rows, and what enters a block for them."""
        batch = _packed(self.expected, [Edits()])
        context = ForwardContext(batch, ForwardOptions(keep_input_of=block))
        self.lm.run(context)
        assert context.kept_input is not None
        return batch, context.kept_input

    def _same(
        self,
        batch: Batch,
        expected: list[torch.Tensor] | None = None,
        options: ForwardOptions = PLAIN,
    ) -> str | None:
        got = batch.split_kept(self.lm(batch, options))
        gap = _difference(got, expected or self.expected.logits)
        return (
            None
            if gap <= _tolerance(self.lm)
            else f"logits differ by {gap:.1e} from the plain model's"
        )

    def _alike(self, first: Edits, second: Edits | None) -> str | None:
        """Both edits change row 1 alike (or the first alone as when alone) and leave the others."""
        mixed = _packed(self.expected, [Edits(), first], [0, 1, 0])
        got = mixed.split_kept(self.lm(mixed))
        alone = pack([Row(self.expected.rows[1], 0, 0)], [second or first], device=self.lm.device)
        expected = [self.expected.logits[0], self.lm(alone), self.expected.logits[2]]
        if _difference([got[1]], [self.expected.logits[1]]) <= _tolerance(self.lm) / 100:
            return "an edit does not change the output"
        gap = _difference(got, expected)
        return (
            None
            if gap <= _tolerance(self.lm)
            else f"logits differ by {gap:.1e} from what they should be"
        )


def _without_block(lm: EditableLM, name: str) -> str:
    block = lm.shape.block_of(name)
    return name if block is None else name.removeprefix(f"{lm.shape.block_prefix}{block}.")


def _packed(expected: Reference, owners: list[Edits], by: list[int] | None = None) -> Batch:
    owner_of = by or [0] * len(expected.rows)
    rows = [Row(ids, owner, 0) for ids, owner in zip(expected.rows, owner_of, strict=True)]
    device = expected.logits[0].device
    return pack(rows, owners, device=device, share=False)


def _difference(got: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """The largest difference, as a share of the largest logit."""
    pairs = zip(got, expected, strict=True)
    gaps = [
        float((g.float() - e.float()).abs().max() / e.float().abs().max().clamp(min=1e-6))
        for g, e in pairs
    ]
    return max(gaps) if all(gap == gap for gap in gaps) else float("nan")


def _tolerance(lm: EditableLM) -> float:
    return 1e-4 if lm.model.dtype == torch.float32 else 5e-2


@contextmanager
def _short_windows(model: PreTrainedModel) -> Iterator[bool]:
    """Shrink every sliding window, in the configuration and in the modules that copied it."""
    config = model.config.get_text_config()
    owners = [config, *model.modules()]
    saved = [
        (o, o.sliding_window) for o in owners if isinstance(getattr(o, "sliding_window", None), int)
    ]
    for owner, _ in saved:
        owner.sliding_window = _WINDOW
    try:
        yield bool(saved)
    finally:
        for owner, window in saved:
            owner.sliding_window = window
