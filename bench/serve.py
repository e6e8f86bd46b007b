"""Sixteen tasks served at once against PEFT, each reply as long as its reference in both.

    python -m bench.serve --tasks 16 --workload dialogsum --peer peft-switch --size small --json

Peers: `peft-switch` answers requests in their order, calling `set_adapter` for each (its own way of
serving several tasks; for methods that it lacks the bare model answers); `peft-grouped` answers all
requests of an adapter as one padded batch; `peft-adapter-names` is PEFT's mixed batch, LoRA alone,
so both sides then serve LoRA alone. The others are our engine too: `own-single` with one adaptation
for all requests; `own-10` with ten of the adaptations (for `--tasks 1000`); `own-alone` answering
one request at a time, where `share_differing` says how many replies a batch has changed (rounding
differs with a matmul's shape, so two scores that lie close may change places).
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoTokenizer

from bench.pairing import Measured, base_name, common_arguments, compare, report
from bench.workloads import Asked, Layout, make_model, make_task

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation
    from peftlab.tasks import Task

MIXED = (
    "lora:rank=8,targets={lora}",
    "prompt_tuning:length=20",
    "prefix_tuning:length=20,reparametrisation=none",
    "ia3",
    "llama_adapter:length=10,layers=2",
    "p_tuning:length=20,placement=first",
    "bottleneck:bottleneck=32",
    "bitfit",
)
METHODS = {
    "mixed": MIXED,
    # What PEFT itself can switch between in one model of several adapters.
    "lora": MIXED[:1],
    "last-k": (*MIXED[:3], "last_k:k=1"),
}
PEERS = (
    "peft-switch", "peft-grouped", "peft-adapter-names", "own-single", "own-10", "own-alone",
)  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--workload", choices=("dialogsum", "e2e"), default="dialogsum")
    parser.add_argument("--peer", choices=PEERS, default="peft-switch")
    parser.add_argument("--methods", choices=METHODS, default="mixed")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--prefill", type=int, default=512, help="prompt tokens a step")
    common_arguments(parser)
    arguments = parser.parse_args()
    if arguments.peer == "peft-adapter-names":
        arguments.methods = "lora"
    with tempfile.TemporaryDirectory() as folder:
        settings = vars(arguments) | {
            "model": str(make_model(arguments.size, Path(folder), 0.0, arguments.model))
        }
        other = OWN.get(arguments.peer, peer)
        result = compare(ours, other, settings, arguments.repeats)
    if arguments.peer == "own-alone":
        result["share_differing"] = result.pop("check_differing")
    title = (
        f"{arguments.tasks} tasks ({arguments.methods}), {arguments.workload}, "
        f"{base_name(arguments)}: output tokens/s against {arguments.peer}"
    )
    report(result, title, arguments.json)


def asked(settings: dict[str, Any]) -> list[Asked]:
    """The requests, in the order in which they come: adapters at random, real lengths."""
    task = make_task(settings["workload"], settings["requests"])
    vocabulary = AutoTokenizer.from_pretrained(settings["model"])
    rng, asked_for = random.Random(0), []
    for i, example in enumerate(task.test[: settings["requests"]]):
        length = len(vocabulary(" " + example.targets[0])["input_ids"]) + 1
        asked_for.append(Asked(i % settings["tasks"], example.source, length))
    rng.shuffle(asked_for)
    return asked_for


def specs(settings: dict[str, Any]) -> list[str]:
    """Each task's method, in the words of the command line."""
    kinds = METHODS[settings["methods"]]
    lora = Layout.of(settings["model"]).lora
    return [kinds[i % len(kinds)].format(lora=lora) for i in range(settings["tasks"])]


def ours(settings: dict[str, Any]) -> Callable[[], Measured]:
    """Our engine with every task's adaptation."""
    return _engine(settings, specs(settings), asked(settings))


def single(settings: dict[str, Any]) -> Callable[[], Measured]:
    """Our engine with the first task's adaptation for all requests."""
    requests = [Asked(0, one.source, one.tokens) for one in asked(settings)]
    return _engine(settings, specs(settings)[:1], requests)


def ten(settings: dict[str, Any]) -> Callable[[], Measured]:
    """Our engine with ten adaptations, which answer the requests of all others too."""
    requests = [Asked(one.adapter % 10, one.source, one.tokens) for one in asked(settings)]
    return _engine(settings, specs(settings)[:10], requests)


def alone(settings: dict[str, Any]) -> Callable[[], Measured]:
    """Our engine with room for one row, so that every reply is made without neighbours."""
    return _engine(settings | {"slots": 1}, specs(settings), asked(settings))


OWN = {"own-single": single, "own-10": ten, "own-alone": alone}


def adaptations(model: FrozenLM, task: Task, methods: Sequence[str]) -> Iterator[Adaptation]:
    """One a method, untrained but moved away from where it starts, so that each answers its way."""
    import torch

    from peftlab.methods import State, parse_one
    from peftlab.methods.adaptation import Adaptation, base_of

    rng = torch.Generator()
    for i, spec in enumerate(methods):
        method = parse_one(spec)
        with torch.no_grad():
            state = method.materialise(method.init(model, task, rng.manual_seed(i)), model)
        moved = {
            name: t + 0.02 * torch.randn(t.shape, generator=rng)
            for name, t in state.tensors.items()
        }
        yield Adaptation(method, State(moved, state.text), task.template, base_of(model))


def _engine(
    settings: dict[str, Any], methods: list[str], requests: list[Asked]
) -> Callable[[], Measured]:
    from peftlab.frozen.model import FrozenLM
    from peftlab.measure import phase, tune_allocator
    from peftlab.serve import Engine, Library, Limits, ServeRequest

    if settings["malloc"] != "none":
        tune_allocator()
    model = FrozenLM.load(settings["model"])
    task = make_task(settings["workload"], settings["requests"])
    library = Library(model)
    for i, adaptation in enumerate(adaptations(model, task, methods)):
        library.load(f"task{i}", adaptation)
    while library.load_one():
        pass
    limits = Limits(
        slots=settings["slots"], capacity=768, prefill_tokens=settings["prefill"],
        queue=len(requests), queue_share=len(requests),
        prompt_cache_bytes=0,  # repetitions ask the same again
    )  # fmt: skip
    engine = Engine(model, library, limits)

    def work() -> Measured:
        with phase("serve", "cpu") as cost:
            begun = time.perf_counter()
            tickets = [
                engine.submit(
                    ServeRequest(
                        f"task{one.adapter}", one.source, one.tokens, one.tokens, truncate=True
                    ),
                    stream=False,
                )
                for one in requests
            ]
            while engine.step():
                pass
            seconds = time.perf_counter() - begun
        replies = [ticket.result(0) for ticket in tickets]
        made = sum(len(reply.tokens) for reply in replies)
        if settings["peer"] == "own-alone":
            check = [float(sum(token.id for token in reply.tokens)) for reply in replies]
        else:
            check = [float(made)]
        return Measured(seconds, made, cost.growth_bytes, check)

    return work


def peer(settings: dict[str, Any]) -> Callable[[], Measured]:
    """PEFT: one request at a time, one adapter's requests at a time, or LoRA rows mixed."""
    import torch

    from bench.serve_peers import Peer
    from peftlab.measure import phase, tune_allocator

    if settings["malloc"] == "both":
        tune_allocator()
    made, requests = Peer(settings["model"], specs(settings)), asked(settings)
    answer = {
        "peft-switch": made.one_by_one,
        "peft-grouped": made.grouped,
        "peft-adapter-names": made.mixed,
    }[settings["peer"]]

    def work() -> Measured:
        with phase("serve", "cpu") as cost, torch.no_grad():
            begun = time.perf_counter()
            tokens = answer(requests)
            seconds = time.perf_counter() - begun
        return Measured(seconds, tokens, cost.growth_bytes, [float(tokens)])

    return work


if __name__ == "__main__":
    main()
