"""P-tuning: pseudo tokens anywhere in the template, their vectors made by a prompt encoder.

Liu et al. 2021, arXiv:2103.10385, section 3.2 and `prompt_encoder.py` of its code: embedding →
two-layer bidirectional LSTM (half the width each way) → Linear, ReLU, Linear. What that puts out
at first is noise beside the embedding table; `encoder=residual` takes a real token plus what an
encoder that starts at zero adds: Razdaibiedina et al. 2023, arXiv:2305.03937, section 3, without
their layer norm. The encoder is needed for training only: for use its output is stored, for
resuming all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from peftlab.bases.scale import Scale
from peftlab.bases.shapes import ModelShape
from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.lazy import torch
from peftlab.methods.base import BeginningMethod, Count, Params, Shapes, State, register
from peftlab.methods.prompt_tuning import fits_context, prompt_length
from peftlab.methods.soft_prompt import Start, start_vectors
from peftlab.options import Formerly

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Task, Template


# The rate of vectors themselves, times the rate of the encoder that adds to them.
_FREE = 10.0


@register("p_tuning")
@dataclass(frozen=True, kw_only=True)
class PTuning(BeginningMethod):
    """`length` pseudo tokens whose vectors an encoder makes.

    Settings:
        length: by default the pattern's, else 100, but at most a fifth of the base's context.
        placement: around puts half of them before everything and half before the target, first puts
            all before everything (PEFT's only choice); with begin=cue all stand there.
        template: a text with its own pseudo tokens as `{p:3}` and anchor words between them, for
            example `{p:3} {source} {p:3} capital of {p:3}{target}`; it replaces placement.
        encoder: lstm (the paper's), mlp (the same without its LSTM), residual (e +
            Linear(ReLU(Linear(e))), the last one zero at first), or none (the vectors themselves,
            which is prompt tuning anywhere).
        initialisation: what the encoder's input embedding e starts from.
    """

    sites: ClassVar = ("embeddings",)
    size: ClassVar = "length"

    length: Annotated[int | None, Ge(1), Formerly(20)] = None
    placement: Literal["around", "first"] = "around"
    pattern: str = ""
    encoder: Annotated[Literal["lstm", "mlp", "residual", "none"], Formerly("lstm")] = "residual"
    initialisation: Start = "text"
    text: str = ""

    @property
    def learning_rate(self) -> float:
        return 1e-1 if self.encoder == "none" else 1e-2

    def rate_on(self, scale: Scale) -> float:
        own = scale.spread if self.encoder == "none" else scale.narrower
        return self.learning_rate * own

    def check(self, shape: ModelShape) -> None:
        length = self._length(shape)
        fits_context(self.name, length, shape)
        if self.encoder == "lstm" and shape.hidden % 2:
            raise InputError(
                f"p_tuning: an LSTM each way needs an even width; this model's is {shape.hidden}"
            )
        if self.pattern and self.begin == "cue":
            raise InputError(
                "p_tuning: a pattern says itself where pseudo tokens stand; leave begin=cue out"
            )
        if self.pattern and (held := self._held()) != length:
            raise InputError(f"p_tuning: the pattern has {held} pseudo tokens, but length={length}")

    def _length(self, shape: ModelShape) -> int:
        own = self._held() if self.pattern else None
        return prompt_length(self.length or own, shape)

    def _held(self) -> int:
        from peftlab.tasks import Template

        return Template(self.pattern).pseudo_tokens

    def stored(self, shape: ModelShape) -> Shapes:
        return {"prompt": (self._length(shape), shape.hidden)}

    def count(self, shape: ModelShape) -> Count:
        d, stored = shape.hidden, super().count(shape).stored
        linear = d * d + d
        lstm = (
            2 * 2 * (4 * (d // 2) * (d + d // 2) + 2 * 4 * (d // 2))
        )  # layers × directions × gates
        trained = {"none": 0, "residual": 2 * linear, "mlp": 3 * linear, "lstm": lstm + 2 * linear}
        return Count(stored + trained[self.encoder], stored)

    def init(self, model: FrozenLM, task: Task, rng: torch.Generator) -> State:
        d = model.shape.hidden
        length = self._length(model.shape)
        vectors = start_vectors(self.initialisation, length, self.text, model, task, rng)
        if self.encoder == "none":
            return State({"prompt": vectors})
        tensors = {"embedding": vectors}
        if self.encoder == "lstm":
            tensors |= {n: _uniform(s, d // 2, rng) for n, s in _lstm_sizes(d).items()}
        depth = 3 if self.encoder == "mlp" else 2
        for i in range(depth):
            tensors[f"mlp.{i}.weight"] = _uniform((d, d), d, rng)
            tensors[f"mlp.{i}.bias"] = _uniform((d,), d, rng)
        if self.encoder == "residual":
            for part in ("weight", "bias"):
                tensors[f"mlp.{depth - 1}.{part}"].zero_()
        return State(tensors)

    def groups(self, state: State, rate: float, scale: Scale) -> list[dict[str, Any]]:
        if self.encoder != "residual":
            return super().groups(state, rate, scale)
        encoder = [name for name in state.tensors if name != "embedding"]
        free = {"params": ["embedding"], "lr": rate * _FREE * scale.spread / scale.narrower}
        return [{"params": encoder, "lr": rate}, free]

    def materialise(self, state: State, model: FrozenLM) -> State:
        if "prompt" in state.tensors:
            return state
        t = state.tensors
        x = _lstm(t["embedding"], t) if self.encoder == "lstm" else t["embedding"]
        depth = sum(name.startswith("mlp.") for name in t) // 2
        for i in range(depth):
            x = torch.nn.functional.linear(x, t[f"mlp.{i}.weight"], t[f"mlp.{i}.bias"])
            x = torch.relu(x) if i + 1 < depth else x
        return State({"prompt": t["embedding"] + x if self.encoder == "residual" else x})

    def template(self, template: Template, state: State) -> Template:
        from dataclasses import replace

        if self.pattern:
            return replace(template.beginning("row"), text=self.pattern)
        length = len(state.tensors["prompt" if "prompt" in state.tensors else "embedding"])
        if self.placement == "first" or self.begin == "cue":
            return template.with_prompt(length, self.begin)
        before = template.text.removesuffix("{target}")
        stripped = before.rstrip()
        second = length // 2
        middle = f"{{p:{second}}}" if second else ""
        text = f"{stripped}{middle}{before[len(stripped) :]}{{target}}"
        return replace(template, text=text).with_prompt(length - second)

    def edits(self, state: State, model: FrozenLM, seed: int | None = None) -> Edits:
        return Edits(embeddings=state.tensors["prompt"], begin=self.begin)


def _lstm_sizes(d: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a two-layer bidirectional LSTM in torch's order; both layers take [D]."""
    half = d // 2
    return {
        f"lstm.{part}_l{layer}{way}": (4 * half, *size)
        for layer in range(2)
        for way in ("", "_reverse")
        for part, size in (
            ("weight_ih", (d,)),
            ("weight_hh", (half,)),
            ("bias_ih", ()),
            ("bias_hh", ()),
        )
    }


def _lstm(x: torch.Tensor, tensors: Params) -> torch.Tensor:
    """[P, D] -> [P, D]."""
    d = x.shape[1]
    zero = x.new_zeros(4, 1, d // 2)
    weights = [tensors[name] for name in _lstm_sizes(d)]
    out: torch.Tensor = torch.lstm(
        x.unsqueeze(1), [zero, zero], weights, True, 2, 0.0, False, True, False
    )[0]
    return out.squeeze(1)


def _uniform(size: tuple[int, ...], fan: int, rng: torch.Generator) -> torch.Tensor:
    return (torch.rand(size, generator=rng) * 2 - 1) * fan**-0.5
