"""Make the bundled demo model: its tokenizer and its weights, from nothing, on the generated text.

    python -m peftlab.demo.pretrain --out DIR --bf16

(as the bundled one was made: --bf16 where the CPU has bf16 matrices, without it elsewhere)

A GPT-2 layout (Radford et al. 2019) with Muon (Jordan et al. 2024) on the blocks' matrices and
AdamW on the rest. The result depends on the recipe and (in its last bits) on the machine's
arithmetic.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from peftlab.demo.batches import batches, weighted_loss
from peftlab.demo.documents import HELD_OUT_BUCKETS, DemoRequest, DocumentSource
from peftlab.demo.recipe import CONTEXT, END, Recipe
from peftlab.measure import tune_allocator

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_log = logging.getLogger(__name__)


def train_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """A byte-level BPE of the generated text; digits stand alone; the end token is `END`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    documents = DocumentSource().documents(recipe.seed)
    texts = (doc.text for doc in itertools.islice(documents, recipe.vocabulary_documents))
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def attention_in_fp32(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' SDPA attention, out of autocast: on CPUs the backward pass of attention takes
    3.5 times as long in bf16 as in fp32, which would eat what the matrices gain."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    with torch.autocast("cpu", enabled=False):
        tensors = (query.float(), key.float(), value.float())
        return sdpa_attention_forward(module, *tensors, attention_mask, **options)  # type: ignore[no-any-return,no-untyped-call]


def build_model(recipe: Recipe, vocabulary: int, end: int) -> PreTrainedModel:
    """The untrained model."""
    import torch
    from transformers import AttentionInterface, GPT2Config, GPT2LMHeadModel
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    torch.manual_seed(recipe.seed)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=CONTEXT,
        n_embd=recipe.width,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=end,
    )
    model = GPT2LMHeadModel(config)
    if recipe.bf16:
        AttentionInterface.register("sdpa_in_fp32", attention_in_fp32)
        AttentionMaskInterface.register("sdpa_in_fp32", sdpa_mask)
        model.set_attn_implementation("sdpa_in_fp32")
    return model


class Optimizers:
    """Muon on the blocks' matrices, AdamW on embeddings, norms and biases, one schedule."""

    def __init__(self, model: PreTrainedModel, recipe: Recipe) -> None:
        import torch

        self.recipe = recipe
        named = dict(model.named_parameters())
        matrices = [p for name, p in named.items() if p.ndim == 2 and ".h." in name]
        rest = [p for name, p in named.items() if not (p.ndim == 2 and ".h." in name)]
        decay = recipe.weight_decay
        self.all: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=recipe.muon_rate, weight_decay=decay),
            torch.optim.AdamW(rest, lr=recipe.adamw_rate, betas=(0.9, 0.95), weight_decay=decay),
        )
        self.rates = (recipe.muon_rate, recipe.adamw_rate)

    def step(self, step: int) -> None:
        """One update at the rates of this step; clears the gradients."""
        for optimizer, rate in zip(self.all, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * self._factor(step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _factor(self, step: int) -> float:
        recipe = self.recipe
        left = (recipe.steps - step) / max(1.0, recipe.steps * recipe.decay_share)
        return min(1.0, (step + 1) / recipe.warmup, left)


def fields_right(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, requests: Iterable[DemoRequest]
) -> tuple[float, float]:
    """Greedy answers: the share of copied values that are right, and of answers with all right."""
    import torch

    asked = list(requests)
    right: list[bool] = []
    lines = 0
    for start in range(0, len(asked), 32):
        part = asked[start : start + 32]
        encoded = tokenizer(
            [r.prompt for r in part], return_tensors="pt", padding=True, padding_side="left"
        )
        with torch.inference_mode():
            out = model.generate(  # type: ignore[operator]
                **encoded.to(model.device), max_new_tokens=72, do_sample=False, pad_token_id=0
            )
        answers = tokenizer.batch_decode(
            out[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True
        )
        for request, answer in zip(part, answers, strict=True):
            right_fields = [value in answer for value in request.values]
            right += right_fields
            lines += all(right_fields)
    return sum(right) / len(right), lines / len(asked)


def pretrain(recipe: Recipe, out: Path, report_every: int) -> None:
    """Train by the recipe and save model and tokenizer in `out` (also at every report)."""
    import torch

    tokenizer = train_tokenizer(recipe)
    model = build_model(recipe, len(tokenizer), tokenizer.convert_tokens_to_ids(END))
    optimizers = Optimizers(model, recipe)
    rng = Random(recipe.seed)
    stages = [
        batches(tokenizer, DocumentSource(simple=simple).documents(recipe.seed + 1), rng, recipe)
        for simple in (True, False)
    ]
    began, losses, tokens = time.perf_counter(), list[float](), 0
    for step in range(recipe.steps):
        batch = next(stages[step >= recipe.steps * recipe.simple_share])
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            loss, answer_loss = weighted_loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(step)
        losses.append(answer_loss.item())
        tokens += int((batch.weights > 0).sum())
        if (step + 1) % report_every == 0 or step + 1 == recipe.steps:
            entry = {"step": step + 1, "answer_loss": round(sum(losses) / len(losses), 4)}
            entry |= _held_out(model, tokenizer, recipe.seed)
            seconds = round(time.perf_counter() - began)
            _log.info(json.dumps(entry | {"tokens": tokens, "seconds": seconds}))
            losses = []
            save(model, tokenizer, out)


def _held_out(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, seed: int
) -> dict[str, float]:
    requests = DocumentSource(HELD_OUT_BUCKETS).requests(seed)
    right, lines = fields_right(model, tokenizer, itertools.islice(requests, 96))
    return {"fields_right": round(right, 3), "lines_right": round(lines, 3)}


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write model and tokenizer; the weights are rounded to fp16 in the file, and the config says
    float32, so that they load as float32."""
    import copy

    import torch

    small = copy.deepcopy(model).to(torch.float16)
    small.save_pretrained(out)
    tokenizer.save_pretrained(out)
    config = json.loads((out / "config.json").read_text())
    config["dtype"] = "float32"
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    import torch

    defaults = Recipe()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report-every", type=int, default=250)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="bf16 autocast, where it pays")
    parser.add_argument("--muon-rate", type=float, default=defaults.muon_rate)
    parser.add_argument("--adamw-rate", type=float, default=defaults.adamw_rate)
    parser.add_argument("--tokens-per-step", type=int, default=defaults.tokens_per_step)
    parser.add_argument("--open-weight", type=float, default=defaults.open_weight)
    parser.add_argument("--simple-share", type=float, default=defaults.simple_share)
    options: dict[str, Any] = vars(parser.parse_args(arguments))
    if options["steps"] < 1:
        parser.error(f"--steps {options['steps']}: at least one step is needed")
    tune_allocator()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.pop("threads"))
    out, every = options.pop("out"), options.pop("report_every")
    pretrain(Recipe(**options), out, every)


if __name__ == "__main__":
    main()
