"""Adapters in PEFT's layout, both ways: `adapter_config.json` and `adapter_model.safetensors`.

A folder that `save` wrote loads in `peft.PeftModel.from_pretrained` and gives the same logits; an
adapter that PEFT saved loads here and gives the same logits. Needs no PEFT installed. Beside PEFT's
two files stands `peftlab.json` with what PEFT has no place for: the template, and the fingerprint
of the base.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.admission import OtherBase
from peftlab.errors import InputError, nearest, shown
from peftlab.export.cue import begins_at_cue, with_invocation
from peftlab.export.files import read_json, write_tensors
from peftlab.export.instead import AS_LORA
from peftlab.export.peft import ia3, llama_adapter, lora, prompts
from peftlab.export.peft.folder import PeftFolder
from peftlab.files import together, write_json
from peftlab.methods.adaptation import Adaptation, base_of, checked_base, other_weights
from peftlab.methods.base import Method, State
from peftlab.tasks import Template

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM

CONFIG, TENSORS, BESIDE = "adapter_config.json", "adapter_model.safetensors", "peftlab.json"


@dataclass(frozen=True)
class Layout:
    """How one method is written as, and read from, one of PEFT's types."""

    peft_type: str
    write: Callable[[Adaptation, FrozenLM], prompts.Written]
    read: Callable[[PeftFolder], tuple[Method, State]]


LAYOUTS = {
    "prompt_tuning": Layout("PROMPT_TUNING", prompts.write_prompt, prompts.read_prompt),
    "p_tuning": Layout("P_TUNING", prompts.write_prompt, prompts.read_p_tuning),
    "prefix_tuning": Layout("PREFIX_TUNING", prompts.write_prefix, prompts.read_prefix),
    "lora": Layout("LORA", lora.write, lora.read),
    "ia3": Layout("IA3", ia3.write, ia3.read),
    "llama_adapter": Layout("ADAPTION_PROMPT", llama_adapter.write, llama_adapter.read),
}
_NEAREST = {
    "bottleneck": "PEFT has no bottleneck adapters; keep peftlab's own format",
    "bitfit": "use the merged export where the base has biases",
    "last_k": "use the merged export, a full checkpoint",
    "layers": "use the merged export, a full checkpoint",
    "full": "use the merged export, a full checkpoint",
    "intrinsic": "use the merged export, a full checkpoint",
    "hard_prompt": "it has no parameters: its text is all there is to take along",
}


def save(adaptation: Adaptation, model: FrozenLM, folder: Path | str) -> Path:
    """Write an adaptation as a PEFT adapter.

    Raises:
        InputError: PEFT has no such method or defines it otherwise, with the nearest alternative;
            or the adaptation is for another base.
    """
    adaptation.check(model)
    check(adaptation)
    folder, layout = Path(folder), LAYOUTS[adaptation.method.name]
    settings, tensors = layout.write(adaptation, model)
    config = {
        "peft_type": layout.peft_type,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.name,
        "inference_mode": True,
        **settings,
    }
    beside = {"template": adaptation.template.to_dict(), "base": dict(adaptation.base)}
    with together(folder) as place:
        write_tensors(place / TENSORS, tensors)
        write_json(place / CONFIG, config)
        write_json(place / BESIDE, beside)
    return folder


def check(adaptation: Adaptation) -> None:
    """Refuse what PEFT has no type for.

    Raises:
        InputError: with the reason and the nearest alternative.
    """
    name = adaptation.method.name
    if name not in LAYOUTS:
        instead = _NEAREST.get(name, "PEFT loads one method a folder; keep peftlab's own format")
        raise InputError(f"{name} cannot become a PEFT adapter: {instead}; {AS_LORA}.")
    if begins_at_cue(adaptation) and name != "lora":
        raise InputError(
            f"{name} begins at the cue, which PEFT knows for LoRA alone (aLoRA); keep peftlab's "
            f"own format, or {AS_LORA}."
        )


def load(folder: Path | str, model: FrozenLM, template: Template | None = None) -> Adaptation:
    """Read an adapter that PEFT or `save` wrote.

    Args:
        template: the text that it was trained with. PEFT does not store it; without one the
            folder's own is taken, or a bare `{source}{target}` where it has none.

    Raises:
        InputError: damaged or pickled files, an unknown type, or an adapter of another base: one
            error lists all that is missing, surplus, of a wrong shape or a wrong type.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    layout = _layout(config.get("peft_type"), folder)
    beside = read_json(folder / BESIDE) if (folder / BESIDE).exists() else {}
    if beside.get("base"):
        base = checked_base(beside["base"])
        if problems := other_weights(base, model):
            raise InputError(f"{folder} is for another base: {'; '.join(problems)}")
    else:
        base = base_of(model)
        _compare_names(folder, config.get("base_model_name_or_path"), model)
    method, state = layout.read(PeftFolder(folder / TENSORS, config, model))
    adaptation = Adaptation(method, state, template or _template(beside), base)
    adaptation.check(model)
    if not begins_at_cue(adaptation):
        return adaptation
    return with_invocation(adaptation, model, config.get("alora_invocation_tokens"))


def _compare_names(folder: Path, named: Any, model: FrozenLM) -> None:
    """Say where an adapter names another base: PEFT stores no fingerprint of the weights."""
    if not isinstance(named, str) or not named:
        return
    same = named == model.name or Path(named).name.lower() == Path(model.name).name.lower()
    if not same:
        warnings.warn(
            f"{folder} names {shown(named)} as its base and is used on {model.name}; PEFT stores "
            "nothing by which the two could be compared",
            OtherBase,
            stacklevel=3,
        )


def rank_of(folder: Path) -> int:
    """The rank that a saved LoRA has in PEFT's layout."""
    rank: int = read_json(folder / CONFIG)["r"]
    return rank


def _layout(peft_type: Any, folder: Path) -> Layout:
    by_type = {layout.peft_type: layout for layout in LAYOUTS.values()}
    if not isinstance(peft_type, str) or peft_type not in by_type:
        raise InputError(
            f"{folder} holds an adapter of the type {peft_type!r:.60}; peftlab reads "
            f"{', '.join(sorted(by_type))}.{nearest(str(peft_type)[:60], by_type)} Any type that "
            "PEFT itself knows can run as a guest: --methods peft:path/to/adapter_config.json"
        )
    return by_type[peft_type]


def _template(beside: dict[str, Any]) -> Template:
    stored = beside.get("template")
    if not isinstance(stored, dict | None):
        raise InputError(f"{BESIDE} is damaged: template is {stored!r:.60}")
    return Template.from_dict(stored) if stored else Template("{source}{target}")
