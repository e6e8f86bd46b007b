"""Structures: what may come next, by brute force and by validators that are not ours."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
import torch
from pydantic import BaseModel, Field

import peftlab as pl
from peftlab.errors import InputError
from peftlab.evaluation import AdaptedLM, evaluate
from peftlab.generation import Request, generate
from peftlab.methods.hard_prompt import unadapted
from peftlab.metrics import score
from peftlab.structured import DeadEnd, Grammars, Guide, Structure, grammars_of, schema_of
from peftlab.tasks import Decoding, Example
from peftlab.tasks.fit import fitted
from tests.laws import world
from tests.models import tiny

TINY = world.tokenizer()
WIDTH = 120


class Item(BaseModel, extra="forbid"):
    name: str = Field(min_length=1, max_length=12)
    count: int = Field(ge=0, le=99)


class Order(BaseModel, extra="forbid"):
    status: Literal["open", "paid", "sent"]
    items: list[Item] = Field(max_length=3)
    note: str | None = None
    express: bool


@cache
def demo() -> Any:
    return pl.load("demo")


def guide(structure: Structure, tokenizer: Any = TINY, width: int = WIDTH) -> Guide:
    return grammars_of(tokenizer, width).guide(structure)


def walked(own: Guide, width: int, ends: Sequence[int], seed: int, most: int = 400) -> list[int]:
    """Random allowed tokens, the end where it may come in one case of two; [] where cut off."""
    rng, made = random.Random(seed), list[int]()
    while len(made) < most:
        if made and own.is_complete(made):
            return made
        allowed = own.allowed(made, ends).nonzero().flatten().tolist()
        if set(ends) & set(allowed) and (rng.random() < 0.5 or set(allowed) <= set(ends)):
            return made
        made.append(rng.choice([token for token in allowed if token not in ends]))
    return []


def texts(structure: Structure, count: int) -> list[str]:
    lm = demo()
    ends, width = [lm.tokenizer.eos_token_id], lm.shape.vocab
    made = (
        walked(guide(structure, lm.tokenizer, width), width, ends, seed) for seed in range(count)
    )
    return [lm.tokenizer.decode(ids).strip() for ids in made if ids]


def test_every_reply_is_of_its_pydantic_model() -> None:
    found = texts(Structure.of_schema(Order.model_json_schema()), 30)
    assert len(found) > 8
    for text in found:
        Order.model_validate_json(text)
        jsonschema.validate(json.loads(text), Order.model_json_schema())
    assert len(set(found)) > 8


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4},
        {"anyOf": [{"type": "null"}, {"type": "number", "minimum": 3}]},
        {"enum": ["a", 1, None, {"b": []}]},
        {"const": {"x": [1, 2.5, "é"]}},
        {"type": "string", "pattern": "^[a-c]{2,3}$"},
        {"type": "string", "format": "date"},
        {"type": "object", "additionalProperties": {"type": "boolean"}, "minProperties": 1},
        {"$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}},
                         "additionalProperties": False}}, "$ref": "#/$defs/n"},
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
         "additionalProperties": False},
        True,
    ],
)  # fmt: skip
def test_every_reply_is_of_its_schema(schema: Any) -> None:
    found = texts(Structure.of_schema(schema), 12)
    assert found
    for text in found:
        jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(
            json.loads(text)
        )


def test_of_choices_what_may_come_is_what_brute_force_finds() -> None:
    options = ["red", "red cat", "blue house", "blue hill"]
    own, ends = guide(Structure.of_choices(options)), [TINY.eos_token_id]
    led = [lead + one for lead in ("", " ", "\n", "  ", " \n", "\n ", "\n\n") for one in options]
    words = [TINY.decode([i]) for i in range(len(TINY))]
    special = set(TINY.all_special_ids)
    for made in ([], [*TINY(" red", add_special_tokens=False)["input_ids"]],
                 [*TINY("blue h", add_special_tokens=False)["input_ids"]]):  # fmt: skip
        text = TINY.decode(made)
        expected = {
            i
            for i, word in enumerate(words)
            if i not in special and any(one.startswith(text + word) for one in led)
        }
        found = set(own.allowed(made, ends).nonzero().flatten().tolist())
        assert found - set(ends) == expected
        assert (ends[0] in found) == (text in led)


@pytest.mark.parametrize(
    ("structure", "pattern"),
    [
        (Structure("regex", r"(red|blue) (cat|dog)s?"), r"(red|blue) (cat|dog)s?"),
        (Structure("grammar", 'start: "red" (" cat")+'), r"red( cat)+"),
        (Structure("grammar", 'root ::= "red" (" cat")*'), r"red( cat)*"),
        (Structure("regex", r"a/b [0-9]{2}"), r"a/b [0-9]{2}"),
        (Structure("grammar", 'start[capture]: "red" | "blue"'), r"red|blue"),
    ],
)
def test_expressions_and_grammars_match(structure: Structure, pattern: str) -> None:
    found = texts(structure, 10)
    assert found and all(re.fullmatch(pattern, text) for text in found)


def test_a_guide_goes_where_the_row_goes() -> None:
    """Back and on again, as beams do."""
    own, ends = guide(Structure.of_choices(["red cat", "blue dog"])), [TINY.eos_token_id]
    red, blue = (TINY(t, add_special_tokens=False)["input_ids"] for t in ("red cat", "blue dog"))
    fresh = [own.allowed(red[:n], ends) for n in range(len(red))]
    for n in range(len(blue)):
        other = guide(Structure.of_choices(["red cat", "blue dog"]))
        assert torch.equal(own.allowed(blue[:n], ends), other.allowed(blue[:n], ends))
    assert all(torch.equal(own.allowed(red[:n], ends), fresh[n]) for n in range(len(red)))
    assert own.is_complete(red) and not own.is_complete(red[:-1])
    with pytest.raises(InputError, match="cannot be followed"):
        own.allowed([*blue[:1], *red[:1]], ends)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Structure.of_schema("{"), "is no JSON"),
        (lambda: Structure.of_schema("[" * 99999), "is no JSON"),
        (lambda: Structure.of_schema("3"), "an object was expected"),
        (lambda: Structure.of_schema({"type": "strin"}), "does not compile: Invalid type"),
        (lambda: Structure.of_schema({"$ref": "#/x"}), "does not compile"),
        (lambda: Structure.of_schema({"$ref": "#"}), "nothing satisfies"),
        (lambda: Structure.of_schema(False), "does not compile: Unsatisfiable"),
        (lambda: Structure.of_schema({"type": "string", "minLength": 3, "maxLength": 2}),
         "Unsatisfiable"),
        (lambda: Structure.of_schema({"enum": ["x" * 200_000]}), "at most 131,072"),
        (lambda: Structure.of_choices([]), "texts were expected"),
        (lambda: Structure.of_choices(["a", ""]), "none of them empty"),
        (lambda: Structure("regex", "("), "does not compile"),
        (lambda: Structure("grammar", "start: x"), "does not compile"),
        (lambda: Structure("grammar", "start: start"), "nothing satisfies"),
        (lambda: Structure("grammar", "root ::= (("), "grammar"),
        (lambda: Structure("grammar", "x" * 20_000), "at most 16,384"),
        (lambda: Structure("regex", "a\ud800"), "half of a character"),
        (lambda: Structure.of_schema({"x-guidance": 5}), "an object was expected"),
    ],
)  # fmt: skip
def test_what_is_no_structure_is_one_line(make: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        Grammars(demo().tokenizer, demo().shape.vocab).guide(make())
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_what_the_tokenizer_cannot_write_is_said() -> None:
    """The tiny one has no braces."""
    own = guide(Structure.of_schema({"type": "object"}))
    with pytest.raises(InputError, match=r"no token for it|cannot be followed"):
        walked(own, WIDTH, [TINY.eos_token_id], 0)


def test_structures_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = Grammars(TINY, WIDTH)
    structure = Structure.of_choices(["red", "blue"])
    compiled.guide(structure)
    monkeypatch.setattr(compiled, "_compile", lambda _: pytest.fail("compiled again"))
    one, other = compiled.guide(structure), compiled.guide(Structure.of_choices(["red", "blue"]))
    one.allowed(TINY("red", add_special_tokens=False)["input_ids"], [2])
    assert other.allowed([], [2]).sum() > 1, "each follows its own row"


def test_greedy_replies_are_the_best_that_is_allowed() -> None:
    """Beside free rows, whose replies stay what they are."""
    lm = world.model("llama")
    own = replace(unadapted(lm), template=world.task().template)
    structure = Structure("regex", "(red|blue|green) (cat|dog|bird|house) ?")
    asked = [
        Request(own, "the old tree", 12),
        Request(own, "the old tree", 12, structure=structure),
        Request(own, "the sun", 12, structure=Structure.of_choices(["red", "blue"])),
    ]
    free, held, chosen = generate(lm, asked)
    assert free.tokens == generate(lm, asked[:1])[0].tokens
    assert re.fullmatch("(red|blue|green) (cat|dog|bird|house) ?", held.text)
    assert held.finished == chosen.finished == "end" and chosen.text in ("red", "blue")
    prompt = list(own.template.encode(lm.tokenizer, Example("the old tree", ()), None, 90).ids)
    made: list[int] = []
    walker, ends = guide(structure, lm.tokenizer), [lm.tokenizer.eos_token_id]
    plain = tiny("llama").eval()
    while not made or not walker.is_complete(made):
        with torch.no_grad():
            logits = plain(torch.tensor([[*prompt, *made]])).logits[0, -1]
        logits[~walker.allowed(made, ends)] = float("-inf")
        made.append(int(logits.argmax()))
        if made[-1] in ends:
            made.pop()
            break
    assert list(held.tokens) == made
    cut = generate(lm, [replace(asked[1], max_new_tokens=1)])[0]
    assert cut.finished == "length"
    for other in (Decoding(beams=2), Decoding(no_repeat_ngram=2), Decoding(min_new_tokens=3)):
        with pytest.raises(InputError, match="follow a structure"):
            generate(lm, asked, other)
    with pytest.raises(InputError, match="leave beams out"):
        Decoding(beams=2, json_schema="{}")


def test_a_dead_end_ends_its_own_reply_alone() -> None:
    """The tokenizer writes `red`, and has no token for what has to follow."""
    lm = world.model("llama")
    own = replace(unadapted(lm), template=world.task().template)
    free = Request(own, "the old tree", 12)
    with pytest.warns(DeadEnd, match="no token for it"):
        lost, kept = generate(lm, [replace(free, structure=Structure("regex", "red\\{\\}")), free])
    assert lost.text == "red" and kept.tokens == generate(lm, [free])[0].tokens


@cache
def orders(folder: str) -> Any:
    rows = [
        {"text": f"{n} {name}", "json": json.dumps({"name": name, "count": n})}
        for n, name in enumerate(["tea", "milk", "rice", "salt"] * 6)
    ]
    path = Path(folder) / "orders.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_a_task_with_a_schema_is_answered_and_scored_by_it(tmp_path: Path) -> None:
    schema = tmp_path / "item.json"
    schema.write_text(json.dumps(Item.model_json_schema()))
    path = orders(str(tmp_path))
    task = pl.load_task(
        path, source="text", target="json", schema=str(schema), chat=False, max_new_tokens=120
    )
    assert task.metrics == ("json_fields", "json_valid")
    assert json.loads(task.decoding.json_schema) == Item.model_json_schema()
    lm = demo()
    own = replace(unadapted(lm), template=task.template)
    found = evaluate(AdaptedLM(lm, own), task)
    assert any(reply.finished == "end" for reply in found.replies)
    whole = [reply for reply in found.replies if reply.finished == "end"]
    for reply in whole:
        Item.model_validate_json(reply.text)
    assert found.scores.corpus["json_valid"] == len(whole) / len(found.replies)
    with pytest.raises(InputError, match=r"schema is .* cannot be read"):
        pl.load_task(path, source="text", target="json", schema=str(tmp_path / "none.json"))
    assert not any("of the schema" in note for note in fitted(task, lm.tokenizer).notes)
    other = replace(task.decoding, json_schema='{"type": "object", "required": ["price"]}')
    (note,) = [
        one
        for one in fitted(replace(task, decoding=other), lm.tokenizer).notes
        if "of the schema" in one
    ]
    assert "no reply can equal them" in note
    for bad in ('{"type": "strin"}', '{"$ref": "#"}'):
        with pytest.raises(InputError, match=r"does not compile|nothing satisfies"):
            fitted(replace(task, decoding=replace(other, json_schema=bad)), lm.tokenizer)
    with pytest.raises(InputError, match="targets that are JSON were expected"):
        pl.load_task(path, source="json", target="text", schema=str(schema))
    with pytest.raises(InputError, match="leave one out"):
        rated = tmp_path / "rated.jsonl"
        rows = [{"text": f"{n} stars", "json": str(n % 2)} for n in range(30)]
        rated.write_text("\n".join(map(json.dumps, rows)))
        pl.load_task(rated, source="text", target="json", schema=str(schema), choices="0,1")
    assert schema_of("") == "" and json.loads(schema_of({"a": 1})) == {"a": 1}


def test_a_guest_follows_it_too(tmp_path: Path) -> None:
    from peftlab.guests import AdaptedGuest, Guest, PlainBase
    from peftlab.guests import train as guest_train
    from peftlab.training import TrainConfig

    schema = json.dumps(Item.model_json_schema())
    path = orders(str(tmp_path))
    task = pl.load_task(
        path, source="text", target="json", schema=schema, chat=False, max_new_tokens=50
    )
    base = PlainBase.load(Path(pl.load("demo").model.config._name_or_path), "demo", "cpu", "fp32")
    trained = guest_train(base, Guest.parse("peft:lora"), task, TrainConfig(steps=1, batch_size=2))
    found = evaluate(AdaptedGuest(trained.adaptation), task, limit=3)
    for reply in found.replies:
        if reply.finished == "end":
            Item.model_validate_json(reply.text)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ('{"a": 1, "b": {"c": [1, 2]}}', '{"b": {"c": [1, 2]}, "a": 1.0}', 1.0),
        ('{"a": 1, "b": 2}', '{"a": 1, "b": 3}', 0.5),
        ('{"a": 1}', '{"a": 1, "b": 3}', 0.5),
        ('{"a": 1, "b": 3, "c": 4, "d": 5}', '{"a": 1, "b": 3}', 0.5),
        ('{"a": true}', '{"a": 1}', 0.0),
        ('{"a": [1, 2, 4]}', '{"a": [1, 2, 3, 5]}', 0.5),
        ('{"a": []}', '{"a": {}}', 0.0),
        ('{"a.b": 1}', '{"a": {"b": 1}}', 0.0),
        ('{"a": 1', '{"a": 1}', 0.0),
        ("3", "3", 1.0),
    ],
)
def test_fields_that_are_right(prediction: str, reference: str, expected: float) -> None:
    assert score(["json_fields"], [prediction], [[reference]]).corpus["json_fields"] == expected


def test_of_several_references_the_closest_counts() -> None:
    given = ['{"a": 1}', "no", "no"], [['{"a": 2}', '{"a": 1}'], ["3"], ["no"]]
    scored = score(["json_fields", "json_valid"], *given)
    assert scored.corpus == pytest.approx({"json_fields": 2 / 3, "json_valid": 1 / 3})
    assert score(["json_valid"], ["NaN"], [["1"]]).corpus["json_valid"] == 0
