"""The laws that every method is held to, for a method of your own: `peftlab check-method NAME`.

They are those of tests/laws, on one model and task, with reasons in words.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from peftlab.admission import misfits
from peftlab.bases.fingerprint import fingerprint
from peftlab.edits import Edits
from peftlab.frozen.packing import Row, pack
from peftlab.generation import Request, generate
from peftlab.loss import token_losses, training_row
from peftlab.methods import Composed, Method, State, build
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.token_limits import max_row_tokens

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Encoded, Task

_ROWS = 4  # training rows that the laws are tried on
_NEW_TOKENS = 6
_CLOSE = 1e-4  # logits, as a share of the largest


@dataclass(frozen=True)
class Law:
    """A law in words, and what breaks it; None where it holds."""

    name: str
    problem: str | None


def check_method(method: Method, model: FrozenLM, task: Task) -> list[Law]:
    """Hold a method to every law on this model and task.

    Raises:
        InputError: the method's settings do not fit the model.
        UnsupportedModel: the model lacks a site that the method needs.
    """
    for site in method.sites:
        model.conformance.require(site, method.name)
    method.check(model.shape)
    trial = _Trial(method, model, task)
    return [Law(name, _broken(law, trial)) for name, law in _LAWS.items()]


def _broken(law: Callable[[_Trial], str | None], trial: _Trial) -> str | None:
    try:
        return law(trial)
    except Exception as error:  # whatever a foreign method does wrong breaks the law
        return f"{type(error).__name__}: {error}"


class _Trial:
    """A method on a model: its first state, one with no tensor at its start, and a few rows."""

    def __init__(self, method: Method, model: FrozenLM, task: Task) -> None:
        self.method, self.model, self.task = method, model, task
        self.before = fingerprint(model.model.named_parameters())

    def first(self) -> State:
        """The state before training."""
        return self.method.init(self.model, self.task, torch.Generator().manual_seed(7))

    @cached_property
    def moved(self) -> State:
        """A state some way from the start."""
        rng, state = torch.Generator().manual_seed(8), self.first()
        tensors = {
            name: tensor
            + 0.1 * (1 + tensor.abs().mean()) * torch.randn(tensor.shape, generator=rng)
            for name, tensor in state.tensors.items()
        }
        return State(tensors, state.text)

    def edits(self, state: State) -> Edits:
        """The edits of a state that may still be reparametrised."""
        return self.method.edits(self.method.materialise(state, self.model), self.model)

    def adaptation(self) -> Adaptation:
        """The moved state, stored for use."""
        materialised = self.method.materialise(self.moved, self.model)
        return Adaptation(self.method, materialised, self.task.template, base_of(self.model))

    @cached_property
    def encoded(self) -> list[Encoded]:
        """Training rows under the method's text."""
        template = self.method.template(self.task.template, self.moved)
        prefix = self.edits(self.moved).prefix_length
        limit = max_row_tokens(self.model.shape.context, taken=prefix)
        pairs = self.task.pairs("train")[:_ROWS]
        return [template.encode(self.model.tokenizer, e, target, limit) for e, target in pairs]

    @torch.no_grad()
    def logits(self, rows: Sequence[Row], owners: Sequence[Edits]) -> list[torch.Tensor]:
        """Every row's kept logits."""
        batch = pack(rows, owners, device=self.model.device)
        return batch.split_kept(self.model(batch))


def _settings(it: _Trial) -> str | None:
    stored = json.loads(json.dumps(it.method.settings()))
    if isinstance(it.method, Composed) or build(it.method.name, stored) == it.method:
        return None
    return f"settings {stored} build another method than {it.method}"


def _seed(it: _Trial) -> str | None:
    one, other = it.first(), it.first()
    if one.tensors.keys() != other.tensors.keys() or one.text != other.text:
        return "init gives other names or texts the second time"
    differ = [n for n, t in one.tensors.items() if not torch.equal(t, other.tensors[n])]
    return f"init draws from elsewhere than its generator: {differ[0]}" if differ else None


def _count(it: _Trial) -> str | None:
    said = it.method.count(it.model.shape)
    trained = sum(tensor.numel() for tensor in it.first().tensors.values())
    stored = sum(tensor.numel() for tensor in it.adaptation().state.tensors.values())
    if (said.trainable, said.stored) == (trained if it.method.trains else 0, stored):
        return None
    return f"count says {said.trainable} and {said.stored}, the tensors hold {trained} and {stored}"


def _layout(it: _Trial) -> str | None:
    wrong = misfits(it.adaptation().state.tensors, it.method.stored(it.model.shape))
    return (
        f"`stored` expects other tensors than materialise gives: {'; '.join(wrong)}"
        if wrong
        else None
    )


def _groups(it: _Trial) -> str | None:
    state = it.first()
    named = [name for group in it.method.groups(state, 1e-3) for name in group["params"]]
    if sorted(named) == sorted(state.tensors):
        return None
    return f"groups name {sorted(named)}, the state has {sorted(state.tensors)}"


def _start(it: _Trial) -> str | None:
    if not it.method.starts_as_base:
        return None
    rows = [training_row(e) for e in it.encoded]
    got, plain = it.logits(rows, [it.edits(it.first())]), it.logits(rows, [Edits()])
    return _apart(got, plain, "the untrained method's logits are not the base's")


def _works(it: _Trial) -> str | None:
    if not it.method.trains:
        return None
    rows = [training_row(e) for e in it.encoded]
    got, start = it.logits(rows, [it.edits(it.moved)]), it.logits(rows, [it.edits(it.first())])
    same = all(torch.allclose(g, s, atol=1e-6) for g, s in zip(got, start, strict=True))
    return "moving every tensor changes no logit" if same else None


def _gradients(it: _Trial) -> str | None:
    if not it.method.trains:
        return None
    live = {n: t.clone().requires_grad_() for n, t in it.moved.tensors.items()}
    batch = pack([training_row(e) for e in it.encoded], [it.edits(State(live, it.moved.text))])
    token_losses(it.model, batch, it.encoded).sum().backward()
    grads = {name: tensor.grad for name, tensor in live.items()}
    for name, grad in grads.items():
        if grad is None or not grad.isfinite().all() or not float(grad.abs().max()) > 0:
            return f"{name} gets the gradient {None if grad is None else float(grad.abs().max())}"
    frozen = [n for n, p in it.model.model.named_parameters() if p.grad is not None]
    return f"the frozen {frozen[0]} gets a gradient" if frozen else None


def _mixed(it: _Trial) -> str | None:
    edits, plain = it.edits(it.moved), Edits()
    own = [training_row(e, 1) for e in it.encoded]
    base = [Row([abs(i) for i in e.ids[:-1]], 0, 0) for e in it.encoded]
    turns = [row for pair in zip(own, base, strict=True) for row in pair]
    got = it.logits(turns, [plain, edits])
    alone = [it.logits([Row(r.ids, 0, r.keep_from)], [edits])[0] for r in own]
    untouched = [it.logits([row], [plain])[0] for row in base]
    return _apart(got[::2], alone, "its rows differ in a mixed batch from those alone") or _apart(
        got[1::2], untouched, "it changes rows of others"
    )


def _cached(it: _Trial) -> str | None:
    adaptation = it.adaptation()
    edits = adaptation.edits(it.model)
    template, examples = edits.template or adaptation.template, it.task.train[:_ROWS]
    replies = generate(it.model, [Request(adaptation, e, _NEW_TOKENS) for e in examples])
    limit = max_row_tokens(it.model.shape.context, taken=edits.prefix_length + _NEW_TOKENS)
    for example, reply in zip(examples, replies, strict=True):
        prompt = template.encode(it.model.tokenizer, example, None, limit).ids
        whole = Row([*prompt, *reply.tokens], 0, len(prompt) - 1)
        chosen = it.logits([whole], [edits])[0].argmax(-1).tolist()[: len(reply.tokens)]
        if chosen != list(reply.tokens):
            return f"decoding gives {list(reply.tokens)}, a whole forward {chosen}"
    return None


def _stored(it: _Trial) -> str | None:
    adaptation = it.adaptation()
    with tempfile.TemporaryDirectory() as folder:
        adaptation.save(Path(folder))
        again = Adaptation.load(Path(folder), it.model)
    rows = [training_row(e) for e in it.encoded]
    got, kept = (it.logits(rows, [a.edits(it.model)]) for a in (again, adaptation))
    return _apart(got, kept, "logits differ after saving and loading")


def _base(it: _Trial) -> str | None:
    after = fingerprint(it.model.model.named_parameters())
    return None if after == it.before else "the base's weights have been changed"


def _frozen_fields(it: _Trial) -> str | None:
    if isinstance(it.method, Composed):  # its parts are its settings
        return None
    if not getattr(type(it.method), "__dataclass_params__").frozen:  # noqa: B009
        return "the class is no frozen dataclass: @dataclass(frozen=True, kw_only=True)"
    loose = [
        f.name for f in fields(it.method) if f.default is MISSING and f.default_factory is MISSING
    ]
    return f"settings without a default: {', '.join(loose)}" if loose else None


def _apart(got: list[torch.Tensor], expected: list[torch.Tensor], problem: str) -> str | None:
    pairs = zip(got, expected, strict=True)
    gap = max(float((g - e).abs().max() / e.abs().max().clamp(min=1e-6)) for g, e in pairs)
    return None if gap <= _CLOSE else f"{problem}: by {gap:.1e} of the largest"


_LAWS: dict[str, Callable[[_Trial], str | None]] = {
    "settings are a frozen dataclass with defaults": _frozen_fields,
    "settings come back from JSON": _settings,
    "the start hangs on the seed alone": _seed,
    "the count of numbers is the tensors'": _count,
    "names and shapes are those that are stored": _layout,
    "every tensor has a rate": _groups,
    "the start is the base, where claimed": _start,
    "training changes the output": _works,
    "every tensor gets a gradient": _gradients,
    "rows in a mixed batch are rows alone": _mixed,
    "cached decoding is uncached": _cached,
    "saved and loaded is the same": _stored,
    "the base stays untouched": _base,
}
