"""Structured replies against free ones in the server's engine: tokens a second of a full batch.

    python -m bench.structured --model FOLDER --json

Both sides run the same engine on the same prompts for as many tokens: the structured ones follow a
JSON Schema whose list does not end before the budget does, so what differs is the mask alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from statistics import median

from bench.pairing import device_name
from peftlab.frozen import named
from peftlab.frozen.model import FrozenLM
from peftlab.methods.hard_prompt import unadapted
from peftlab.serve import Engine, Library, Limits, ServeRequest
from peftlab.structured import Structure

_ITEM = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "count": {"type": "integer"}},
    "required": ["name", "count"],
    "additionalProperties": False,
}
_LIST = Structure.of_schema({"type": "array", "items": _ITEM, "minItems": 50})


def main() -> None:
    """Measure in turn and print; the last line is a JSON object where asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    model = named.load(arguments.model, "cpu", "fp32")
    engine = _engine(model, arguments.rows)
    sides = {
        name: partial(_seconds, engine, arguments.rows, arguments.tokens, structure)
        for name, structure in (("free", None), ("structured", _LIST))
    }
    measured = _paired(sides, arguments.pairs)
    ratios = [a / b for a, b in zip(measured["free"], measured["structured"], strict=True)]
    result = {**{n: median(s) for n, s in measured.items()}, "ratio": median(ratios)}
    print(f"structured decodes at {result['ratio']:.3f} of the rate of free replies")
    if arguments.json:
        settings = vars(arguments) | {"ratios": ratios}
        print(json.dumps({**result, "device": device_name(), "settings": settings}))


def _engine(model: FrozenLM, rows: int) -> Engine:
    library = Library(model)
    library.load("base", unadapted(model))
    while library.load_one():
        pass
    return Engine(model, library, Limits(slots=rows, capacity=512, prompt_cache_bytes=0))


def _seconds(engine: Engine, rows: int, tokens: int, structure: Structure | None) -> float:
    """Of a token of every row, once all of them decode."""
    tickets = [
        engine.submit(ServeRequest("base", f"Order {i}, as JSON:", tokens, structure=structure))
        for i in range(rows)
    ]
    while engine.step():
        pass
    replies = [ticket.result(0) for ticket in tickets]
    decoding = [r.seconds - r.first for r in replies if r.first is not None and len(r.tokens) > 1]
    made = [len(r.tokens) - 1 for r in replies if len(r.tokens) > 1]
    return median(s / n for s, n in zip(decoding, made, strict=True))


def _paired(sides: dict[str, Callable[[], float]], pairs: int) -> dict[str, list[float]]:
    for side in sides.values():
        side()  # compiles, and takes memory
    measured: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(pairs):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in order:
            measured[name].append(sides[name]())
    return measured


if __name__ == "__main__":
    main()
