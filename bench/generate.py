"""Generation for evaluation against transformers' `generate`, every reply as long as its reference.

    python -m bench.generate --method lora --workload dialogsum --size mini --json

Random weights rarely end, so both sides forbid the end before the reference's length and force it
there. The peer pads batches of rows in the data set's order on the left, as its users do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.pairing import Measured, base_name, common_arguments, compare, report
from bench.workloads import METHODS, WORKLOADS, make_model, make_task, spec, tokenizer


def main() -> None:
    """Measure and print; the share of rows whose tokens differ comes with the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--method", choices=METHODS, default="lora")
    parser.add_argument("--workload", choices=WORKLOADS, default="dialogsum")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument(
        "--again", action="store_true", help="the split was read before: ours keeps its prompts"
    )
    common_arguments(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = vars(arguments) | {
            "model": str(make_model(arguments.size, Path(folder), 0.0, arguments.model))
        }
        result = compare(ours, peer, settings, arguments.repeats)
    result["share_differing"] = result.pop("check_differing")
    title = f"{arguments.method}, {arguments.workload}, {base_name(arguments)}: replies/s"
    report(result, title, arguments.json)


def _lengths(settings: dict[str, Any], vocabulary: Any) -> list[int]:
    task = make_task(settings["workload"], settings["rows"])
    return [max(2, len(vocabulary.encode(" " + e.targets[0]))) for e in task.test]


def ours(settings: dict[str, Any]) -> Callable[[], Measured]:
    """peftlab's generate, on an untrained adaptation."""
    from peftlab.frozen.model import FrozenLM
    from peftlab.generation import Request, generate
    from peftlab.measure import phase, tune_allocator
    from peftlab.methods import parse_one
    from peftlab.tasks import Decoding
    from peftlab.training import TrainConfig, train
    from peftlab.trunk import TrunkStore

    if settings["malloc"] != "none":
        tune_allocator()
    model = FrozenLM.load(settings["model"])
    task = make_task(settings["workload"], settings["rows"])
    config = TrainConfig(steps=1, batch_size=1, evaluate_every=0, learning_rate=1e-12)
    adaptation = train(
        model, parse_one(spec(settings["method"], settings["model"])), task, config
    ).adaptation
    lengths = _lengths(settings, model.tokenizer)
    requests = [
        Request(adaptation, e, n, min_new_tokens=n) for e, n in zip(task.test, lengths, strict=True)
    ]
    decoding = Decoding(beams=settings["beams"])
    # The round that warms up fills it.
    store = TrunkStore(8 << 30) if settings["again"] else None

    def work() -> Measured:
        with phase("generate", "cpu") as cost:
            begun = time.perf_counter()
            replies = generate(
                model, requests, decoding, batch_size=settings["batch_size"], store=store
            )
            seconds = time.perf_counter() - begun
        sums = [float(sum(reply.tokens)) for reply in replies]
        return Measured(seconds, len(requests), cost.growth_bytes, sums)

    return work


def peer(settings: dict[str, Any]) -> Callable[[], Measured]:
    """PEFT's model in transformers' generate."""
    from transformers import LogitsProcessorList

    from bench.peers import peer_model
    from peftlab.measure import phase, tune_allocator

    if settings["malloc"] == "both":
        tune_allocator()
    vocabulary = tokenizer(settings["model"])
    vocabulary.pad_token, vocabulary.padding_side = vocabulary.eos_token, "left"
    task = make_task(settings["workload"], settings["rows"])
    lengths = _lengths(settings, vocabulary)
    model = peer_model(settings["model"], settings["method"]).eval()
    prompts = [list(task.template.encode(vocabulary, e, None, 900).ids) for e in task.test]
    size = settings["batch_size"]

    def work() -> Measured:
        sums: list[float] = []
        with phase("generate", "cpu") as cost, torch.no_grad():
            begun = time.perf_counter()
            for start in range(0, len(prompts), size):
                rows, wanted = prompts[start : start + size], lengths[start : start + size]
                inputs = vocabulary.pad({"input_ids": rows}, return_tensors="pt")
                ends = _EndsAt(wanted, settings["beams"], vocabulary.eos_token_id)
                out = model.generate(
                    **inputs, max_new_tokens=max(wanted) + 1, do_sample=False,
                    num_beams=settings["beams"], logits_processor=LogitsProcessorList([ends]),
                    pad_token_id=vocabulary.pad_token_id,
                )  # fmt: skip
                made = out[:, -(out.shape[1] - inputs["input_ids"].shape[1]) :]
                sums += [float(row[:n].sum()) for row, n in zip(made, wanted, strict=True)]
            seconds = time.perf_counter() - begun
        return Measured(seconds, len(prompts), cost.growth_bytes, sums)

    return work


class _EndsAt:
    """Forbids the end before each row's length and forces it there."""

    def __init__(self, lengths: list[int], beams: int, end: int) -> None:
        self.lengths = torch.tensor(lengths).repeat_interleave(beams)
        self.end = end
        self.begun: int | None = None

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        # A soft prompt given as embeddings shortens or empties `ids`: count from the first call.
        self.begun = ids.shape[1] if self.begun is None else self.begun
        over = ids.shape[1] - self.begun >= self.lengths
        scores = scores.masked_fill(over[:, None], float("-inf"))
        # A sure end: our rows stop at their length, and no beam is ranked by how likely that was.
        scores[:, self.end] = torch.where(over, 0.0, float("-inf"))
        return scores


if __name__ == "__main__":
    main()
