"""Many adapters asked about one document, against switching between them.

    python -m bench.shared_document --model FOLDER --json

Ours: LoRA that begins at the cue, so the engine reads the document once for all. Peers:
`peft-switch`, the same adapters as PEFT's aLoRA in one model, each set by `set_adapter` before its
reply, for which the document is read again; `own-switch`, our engine with one row at a time and
nothing kept. Every repetition has a document of its own, which nobody has read before.

`share_differing` is the share of replies whose tokens differ (rounding differs with a matmul's
shape, so two scores that lie close may change places). `start` is what a known start costs one row
against reading it, in milliseconds: nothing of a hit is computed, but it is copied into the row's
slot.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig

from bench.pairing import Measured, base_name, common_arguments, compare, report
from bench.serve import adaptations
from bench.workloads import Layout, make_model, tokenizer

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation

_TEMPLATE = "{source}\nSummary:{target}"
_SPARE = 16  # positions for the cue
_COPIES = 20  # of a start, to see what one costs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--adapters", type=int, default=16)
    parser.add_argument("--document", type=int, default=500, help="tokens")
    parser.add_argument("--reply", type=int, default=30, help="tokens")
    parser.add_argument("--peer", choices=("peft-switch", "own-switch"), default="peft-switch")
    common_arguments(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = vars(arguments) | {
            "model": str(make_model(arguments.size, Path(folder), 0.0, arguments.model))
        }
        room = AutoConfig.from_pretrained(settings["model"]).max_position_embeddings
        most = room - _SPARE - arguments.reply
        if not 0 < arguments.document <= most:
            parser.error(f"--document {arguments.document}: 1 to {most} was expected")
        peer = peft_switch if arguments.peer == "peft-switch" else own_switch
        result = compare(together, peer, settings, arguments.repeats)
        result["share_differing"] = result.pop("check_differing")
        result["start"] = start(settings)
    title = (
        f"{arguments.adapters} adapters over {arguments.document} tokens, {base_name(arguments)}: "
        f"output tokens/s against {arguments.peer}"
    )
    report(result, title, arguments.json)
    print(
        f"replies that differ: {result['share_differing']:.0%}; a known start of "
        f"{result['start']['tokens']} tokens: copied in {result['start']['copied_ms']:.2f} ms, "
        f"read in {result['start']['read_ms']:.2f} ms"
    )


@dataclass(frozen=True)
class _Base:
    """The frozen base, its adapters, and documents without end."""

    model: FrozenLM
    adapters: list[Adaptation]
    documents: Iterator[str]

    @classmethod
    def load(cls, settings: dict[str, Any]) -> _Base:
        from peftlab.frozen.model import FrozenLM
        from peftlab.measure import tune_allocator
        from peftlab.tasks import Task

        if settings["malloc"] != "none":
            tune_allocator()
        model = FrozenLM.load(settings["model"])
        task = Task.load("demo", limit=64)
        lora = f"lora:rank=8,targets={Layout.of(settings['model']).lora},begin=cue"
        asking = replace(task, template=replace(task.template, text=_TEMPLATE))
        made = [*adaptations(model, asking, [lora] * settings["adapters"])]
        sources = [example.source for example in task.train]
        return cls(model, made, _documents(settings, sources))


def _documents(settings: dict[str, Any], sources: Sequence[str]) -> Iterator[str]:
    words, rng = tokenizer(settings["model"]), random.Random(0)
    while True:
        text = " ".join(rng.choices(sources, k=settings["document"] // 4 + 1))
        ids = words(text, add_special_tokens=False, verbose=False)["input_ids"]
        yield words.decode(ids[: settings["document"]])


def together(settings: dict[str, Any]) -> Callable[[], Measured]:
    """Our engine, all adapters asked at once."""
    return _engine(settings, slots=settings["adapters"], prompt_cache_bytes=1 << 30)


def own_switch(settings: dict[str, Any]) -> Callable[[], Measured]:
    """Our engine, one adapter after the other, each reading the document."""
    return _engine(settings, slots=1, prompt_cache_bytes=0)


def _engine(settings: dict[str, Any], **limits: int) -> Callable[[], Measured]:
    from peftlab.measure import phase
    from peftlab.serve import Engine, Library, Limits, ServeRequest

    base = _Base.load(settings)
    library = Library(base.model)
    for i, adaptation in enumerate(base.adapters):
        library.load(f"task{i}", adaptation)
    while library.load_one():
        pass
    room = settings["document"] + _SPARE + settings["reply"]
    queue = settings["adapters"]
    engine = Engine(base.model, library, Limits(capacity=room, queue=queue, **limits))

    def work() -> Measured:
        document, length = next(base.documents), settings["reply"]
        asked = [ServeRequest(f"task{i}", document, length, length) for i in range(queue)]
        with phase("serve", "cpu") as cost:
            begun = time.perf_counter()
            tickets = [engine.submit(one, stream=False) for one in asked]
            while engine.step():
                pass
            seconds = time.perf_counter() - begun
        replies = [[token.id for token in ticket.result(0).tokens] for ticket in tickets]
        return _measured(replies, seconds, cost.growth_bytes)

    return work


def peft_switch(settings: dict[str, Any]) -> Callable[[], Measured]:
    """PEFT's aLoRA: one adapter after the other set in one model, each reading the document."""
    import torch

    from peftlab.measure import phase

    base = _Base.load(settings)
    model = _in_peft(settings, base)
    words = tokenizer(settings["model"])

    def work() -> Measured:
        ids = _prompt(base, next(base.documents))
        inputs, replies = torch.tensor([ids]), list[list[int]]()
        with phase("serve", "cpu") as cost, torch.no_grad():
            begun = time.perf_counter()
            for i in range(settings["adapters"]):
                model.set_adapter(f"task{i}")
                made = model.generate(
                    input_ids=inputs, attention_mask=torch.ones_like(inputs), do_sample=False,
                    max_new_tokens=settings["reply"], min_new_tokens=settings["reply"],
                    pad_token_id=words.eos_token_id,
                )  # fmt: skip
                replies.append(made[0, len(ids) :].tolist())
            seconds = time.perf_counter() - begun
        return _measured(replies, seconds, cost.growth_bytes)

    return work


def _in_peft(settings: dict[str, Any], base: _Base) -> Any:
    """One PEFT model on a copy of the base with every adapter."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from peftlab.export import export

    plain = AutoModelForCausalLM.from_pretrained(settings["model"]).float().eval()
    model: Any = None
    with tempfile.TemporaryDirectory() as folder:
        for i, adaptation in enumerate(base.adapters):
            name, place = f"task{i}", Path(folder) / f"task{i}"
            export("peft", {name: adaptation}, base.model, place)
            if model is None:
                model = PeftModel.from_pretrained(plain, str(place), adapter_name=name)
            else:
                model.load_adapter(str(place), adapter_name=name)
    return model.eval()


def _prompt(base: _Base, document: str) -> tuple[int, ...]:
    from peftlab.tasks import Example

    template, model = base.adapters[0].template, base.model
    return template.encode(model.tokenizer, Example(document, ()), None, model.shape.context).ids


def _measured(replies: list[list[int]], seconds: float, memory: int) -> Measured:
    """check: a number for each reply, another as soon as a token differs."""
    import zlib

    check = [float(zlib.crc32(str(tokens).encode())) for tokens in replies]
    return Measured(seconds, sum(map(len, replies)), memory, check)


def start(settings: dict[str, Any]) -> dict[str, float]:
    """What a row's start of a document's length costs, copied from the cache and read."""
    import torch

    from peftlab.edits import Edits
    from peftlab.frozen.batch import Past
    from peftlab.frozen.model import FrozenLM
    from peftlab.frozen.packing import Row, pack
    from peftlab.serve.slots import Slots

    torch.set_num_threads(settings["threads"])
    model, count = FrozenLM.load(settings["model"]), settings["document"]
    slots = Slots(model, 2, count, 1 << 40)
    ids = torch.randint(0, model.shape.vocab, (count,)).tolist()

    def read() -> None:
        with torch.no_grad():
            model(pack([Row(ids, 0, count, Past(0, 0))], [Edits()]), slots.options)

    def copy() -> None:
        slots.cache.restore(1, 0, stacks)

    reading = _milliseconds(read)
    stacks = slots.cache.copied(0, 0, count)
    return {"tokens": count, "read_ms": reading, "copied_ms": _milliseconds(copy)}


def _milliseconds(work: Callable[[], None]) -> float:
    times = []
    for _ in range(_COPIES + 1):
        begun = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - begun))
    return median(times[1:])


if __name__ == "__main__":
    main()
