"""The peers as their users write them: PEFT's models in transformers' Trainer, TRL's trainer."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from bench.workloads import Layout, make_task, spec, tokenizer
from peftlab.tasks import Encoded, Task
from peftlab.tasks.cue import cue_ids
from peftlab.training.rows import Order, Rows

Run = Callable[[], list[float]]  # trains and returns the loss of every step


def trainer_run(settings: dict[str, Any]) -> Callable[[float, int], Run]:
    """A function from a learning rate and a number of steps to a training run on a fresh model."""
    task, vocabulary = (
        make_task(settings["workload"], settings["rows"]),
        tokenizer(settings["model"]),
    )
    vocabulary.pad_token = vocabulary.eos_token
    rows = Rows(task.pairs("train"), task.template, vocabulary, 1024 - 100)
    order = Order(len(rows), settings["batch_size"], 0)
    start = our_start(settings["model"], settings["method"], task)
    invocation = None
    if settings["peer_side"] == "peft-alora":
        invocation = list(cue_ids(task.template.beginning("cue"), vocabulary))

    def prepare(rate: float, steps: int) -> Run:
        model = peer_model(settings["model"], settings["method"], invocation)
        begin_at(model, settings["method"], start)
        batches = [[rows[i] for i in order.step(step)] for step in range(steps)]
        if settings["peer_side"] == "peft-grouped":
            batches = _grouped(batches)
        encoded = [row for batch in batches for row in batch]
        data = [
            {
                "input_ids": list(e.ids),
                "attention_mask": [1] * len(e.ids),
                "labels": [-100] * e.target_start + list(e.ids[e.target_start :]),
            }
            for e in encoded
        ]
        losses = _Losses()
        make = _sft_trainer if settings["peer_side"] == "trl" else _trainer
        trainer = make(model, data, vocabulary, settings, rate, steps)
        trainer.add_callback(losses)

        def run() -> list[float]:
            trainer.train()
            return losses.values

        run.trainer = trainer  # type: ignore[attr-defined]
        return run

    return prepare


def _grouped(batches: list[list[Encoded]]) -> list[list[Encoded]]:
    """The same rows in batches of similar length, in random order.

    As transformers' `group_by_length` does on large data; on a benchmark's few rows it groups
    nothing, since it sorts within 50 batches, or a quarter of the data where that is less.
    """
    size, flat = len(batches[0]), [row for batch in batches for row in batch]
    flat.sort(key=lambda row: len(row.ids))
    groups = [flat[i : i + size] for i in range(0, len(flat), size)]
    random.Random(0).shuffle(groups)
    return groups


class _Losses(TrainerCallback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_log(self, _args: Any, _state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.values.append(float(logs["loss"]))


def _arguments(settings: dict[str, Any], rate: float, steps: int) -> dict[str, Any]:
    return {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": settings["batch_size"],
        "max_steps": steps,
        "learning_rate": rate,
        "weight_decay": 0.0,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": not torch.cuda.is_available(),
        "disable_tqdm": True,
        "bf16": settings["precision"] == "bf16",
        "train_sampling_strategy": "sequential",
    }


def _trainer(
    model: nn.Module,
    data: list[Any],
    vocabulary: Any,
    settings: dict[str, Any],
    rate: float,
    steps: int,
) -> Trainer:
    return Trainer(
        model=model,
        args=TrainingArguments(**_arguments(settings, rate, steps)),
        train_dataset=data,
        data_collator=DataCollatorForSeq2Seq(vocabulary, padding=True),
    )


def _sft_trainer(
    model: nn.Module,
    data: list[Any],
    vocabulary: Any,
    settings: dict[str, Any],
    rate: float,
    steps: int,
) -> Trainer:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(**_arguments(settings, rate, steps), max_length=None)
    collator = DataCollatorForSeq2Seq(vocabulary, padding=True)
    return SFTTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(data), data_collator=collator,
        processing_class=vocabulary,
    )  # fmt: skip


def peer_model(folder: str, method: str, invocation: list[int] | None = None) -> nn.Module:
    """The base as a peer's user adapts it for one of the benchmark's methods."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    width, layout = model.config.hidden_size, Layout.of(folder)
    blocks = model.get_submodule(layout.blocks)
    if method == "full":
        return model
    if method == "last-1":
        model.requires_grad_(False)
        blocks[-1].requires_grad_(True)
        return model
    if method == "bottleneck":
        model.requires_grad_(False)
        for block in blocks:
            block.mlp = _WithBottleneck(block.mlp, width, 32)
        return model
    from peft import get_peft_model

    config = _config(method, width, layout)
    if invocation is not None:
        config.alora_invocation_tokens = invocation
    return get_peft_model(model, config)


def our_start(folder: str, method: str, task: Task) -> dict[str, torch.Tensor]:
    """What our training of this method begins with, so that the peer's can begin there too."""
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods import parse_one

    ours, model = parse_one(spec(method, folder)), FrozenLM.load(folder)
    return ours.init(model, task, torch.Generator().manual_seed(0)).tensors


@torch.no_grad()
def begin_at(model: nn.Module, method: str, start: dict[str, torch.Tensor]) -> None:
    """Give the peer's modules our numbers: its names, its order of axes."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and method not in ("full", "last-1"):  # those begin at the base
            values = start[_our_name(name, start)]
            if values.dim() == 5:  # a prefix: [L, 2, H, P, hd] -> [P, L · 2 · H · hd]
                values = values.permute(3, 0, 1, 2, 4)
            parameter.copy_(values.reshape(parameter.shape))


def _our_name(name: str, start: dict[str, torch.Tensor]) -> str:
    """The name by which our state has a parameter of the peer's model."""
    if name.startswith("prompt_encoder.") and len(start) == 1:
        return next(iter(start))
    renamed = (
        ("base_model.model.", ""), ("prompt_encoder.", ""), (".default", ""),
        ("default.", ""), ("embedding.weight", "embedding"), ("lora_A.weight", "lora_A"),
        ("lora_B.weight", "lora_B"), ("lstm_head.", "lstm."), ("mlp_head.0", "mlp.0"),
        ("mlp_head.2", "mlp.1"), ("attn.adaption_", ""),
    )  # fmt: skip
    for theirs, ours in renamed:
        name = name.replace(theirs, ours)
    short = name.removeprefix("transformer.h.").removeprefix("model.layers.")
    return name if name in start else short


def _config(method: str, width: int, layout: Layout) -> Any:
    import peft

    kind = {"task_type": "CAUSAL_LM"}
    if method == "lora":
        return peft.LoraConfig(
            r=8, lora_alpha=16, target_modules=[*layout.modules],
            fan_in_fan_out=layout.transposed, **kind,
        )  # fmt: skip
    if method == "prefix":
        return peft.PrefixTuningConfig(num_virtual_tokens=20, **kind)
    if method.startswith("prompt"):
        length = int(method.partition("-")[2] or 20)
        return peft.PromptTuningConfig(num_virtual_tokens=length, **kind)
    if method == "p-tuning":
        return peft.PromptEncoderConfig(
            num_virtual_tokens=20,
            encoder_reparameterization_type="LSTM",
            encoder_hidden_size=width // 2,
            **kind,
        )
    return peft.AdaptionPromptConfig(adapter_len=10, adapter_layers=2, **kind)


class _WithBottleneck(nn.Module):
    """What a user of PEFT writes by hand, since it has no bottleneck adapters (peft #244)."""

    def __init__(self, inner: nn.Module, width: int, size: int) -> None:
        super().__init__()
        self.inner, self.down, self.up = inner, nn.Linear(width, size), nn.Linear(size, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.inner(x)
        return hidden + self.up(torch.relu(self.down(hidden)))
