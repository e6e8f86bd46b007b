"""PEFT serving several tasks, as its users would write it: models that share one set of weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from bench.workloads import Asked, Layout, tokenizer

_KIND = {"task_type": "CAUSAL_LM"}
_MOST_TOKENS = 768


class Peer:
    """One base model with every task's adapter in it.

    LoRA, IA3, prompt tuning, prefix tuning and P-tuning are PEFT's. Adapters of one type are loaded
    into one PeftModel and switched by `set_adapter`; since PEFT does not mix types in one model,
    each type has a PeftModel on the same weights, and those that put layers into the base are
    disabled while another type answers. Bottlenecks, LLaMA-Adapter and BitFit are served by the
    bare model here: the peer is then too fast, never too slow.
    """

    def __init__(self, folder: str, specs: Sequence[str]) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.model.requires_grad_(False)
        self.vocabulary = tokenizer(folder)
        self.vocabulary.pad_token = self.vocabulary.eos_token
        self.vocabulary.padding_side = "left"
        self.kinds = [spec.partition(":")[0] for spec in specs]
        self.peft: dict[str, Any] = {}
        for i, kind in enumerate(self.kinds):
            config = _config(kind, self.model.config.hidden_size, Layout.of(folder))
            if config is not None:
                self._add(kind, f"task{i}", config)

    def _add(self, kind: str, name: str, config: Any) -> None:
        from peft import get_peft_model

        if kind in self.peft:
            self.peft[kind].add_adapter(name, config)
        else:
            self.peft[kind] = get_peft_model(self.model, config, adapter_name=name).eval()

    @contextmanager
    def _active(self, adapter: int) -> Iterator[Any]:
        """The model with this task's adapter, and the layers of the other types switched off."""
        kind = self.kinds[adapter]
        for other in ("lora", "ia3"):
            if other != kind and other in self.peft:
                self.peft[other].base_model.disable_adapter_layers()
        if kind in self.peft:
            if kind in ("lora", "ia3"):
                self.peft[kind].base_model.enable_adapter_layers()
            self.peft[kind].set_adapter(f"task{adapter}")
            yield self.peft[kind]
        else:
            yield self.model

    def one_by_one(self, requests: Sequence[Asked]) -> int:
        """Every request alone, in order, its adapter set before it."""
        total = 0
        for one in requests:
            with self._active(one.adapter) as model:
                total += self._answer(model, [one])
        return total

    def grouped(self, requests: Sequence[Asked]) -> int:
        """All requests of an adapter in one padded batch, adapter by adapter."""
        by_adapter: dict[int, list[Asked]] = defaultdict(list)
        for one in requests:
            by_adapter[one.adapter].append(one)
        total = 0
        for adapter, group in by_adapter.items():
            with self._active(adapter) as model:
                total += self._answer(model, group)
        return total

    def mixed(self, requests: Sequence[Asked], size: int = 16) -> int:
        """LoRA alone: batches in the order of arrival, `adapter_names` saying whose each row is."""
        total, model = 0, self.peft["lora"]
        for start in range(0, len(requests), size):
            group = requests[start : start + size]
            names = [f"task{one.adapter}" for one in group]
            total += self._answer(model, group, adapter_names=names)
        return total

    def _answer(self, model: nn.Module, group: Sequence[Asked], **options: Any) -> int:
        """Generate until the longest reply is done; only the tokens that were asked for count."""
        texts = [one.source + "\nSummary:" for one in group]
        longest = max(one.tokens for one in group)
        inputs = self.vocabulary(
            texts,
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=_MOST_TOKENS - longest,
        )
        model.generate(
            **inputs, max_new_tokens=longest, min_new_tokens=longest, do_sample=False,
            pad_token_id=self.vocabulary.eos_token_id, **options,
        )  # fmt: skip
        return sum(one.tokens for one in group)


def _config(kind: str, width: int, layout: Layout) -> Any:
    import peft

    if kind == "lora":
        return peft.LoraConfig(
            r=8, lora_alpha=16, target_modules=[*layout.modules],
            fan_in_fan_out=layout.transposed, **_KIND,
        )  # fmt: skip
    if kind == "ia3":
        return peft.IA3Config(
            target_modules=[*layout.ia3], feedforward_modules=[layout.feedforward], **_KIND
        )
    if kind == "prompt_tuning":
        return peft.PromptTuningConfig(num_virtual_tokens=20, **_KIND)
    if kind == "prefix_tuning":
        return peft.PrefixTuningConfig(num_virtual_tokens=20, **_KIND)
    if kind == "p_tuning":
        return peft.PromptEncoderConfig(
            num_virtual_tokens=20, encoder_hidden_size=width // 2, **_KIND
        )
    return None
