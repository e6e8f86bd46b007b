"""JSON Schema's own test suite (draft 2020-12), as the source distribution of jsonschema has it.

A schema is refused in a line, or what may be written under it is what it allows: none of the
suite's instances that are invalid, and all that is written at random is valid.
"""

from __future__ import annotations

import json
import random
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing.jsonschema

from peftlab.errors import InputError
from peftlab.structured import Guide, Structure, grammars_of
from tests.tasks.tokenizers_for_tests import byte_level
from tests.wide.conftest import PYTHON

_SUITE, _VERSION = "/json/tests/draft2020-12/", "jsonschema-4.26.0"
# Their schemas lie on a server of the suite's own, which nobody here may ask.
_REMOTE = ("refRemote.json", "dynamicRef.json", "vocabulary.json")
_WRITTEN, _MOST = 3, 300


def cases() -> Iterator[tuple[str, Any, list[dict[str, Any]]]]:
    """Every schema of the suite, what it is called, and its instances."""
    (archive,) = Path(PYTHON).parents[1].glob(f"{_VERSION}.tar.gz")
    with tarfile.open(archive) as files:
        for member in sorted(files.getmembers(), key=lambda one: one.name):
            inside = member.name.partition(_SUITE)[2]
            if inside.endswith(".json") and "/" not in inside and inside not in _REMOTE:
                for case in json.load(files.extractfile(member)):  # type: ignore[arg-type]
                    yield f"{inside}: {case['description']}", case["schema"], case["tests"]


@cache
def tokenizer() -> Any:
    return byte_level()


def ids(value: Any) -> list[int]:
    text = json.dumps(value, ensure_ascii=False)
    return list(tokenizer()(text, add_special_tokens=False)["input_ids"])


def written(guide: Guide, seed: int) -> str | None:
    """Random tokens that may come, to the end; None where there is none in sight."""
    rng, made, end = random.Random(seed), list[int](), int(tokenizer().eos_token_id)
    while len(made) < _MOST:
        try:
            allowed = guide.allowed(made, [end]).nonzero().flatten().tolist()
        except InputError:  # no token of these can go on
            return None
        if end in allowed and (len(allowed) == 1 or rng.random() < 0.5):
            return str(tokenizer().decode(made))
        made.append(rng.choice([token for token in allowed if token != end]))
    return None


def test_what_may_be_written_is_what_the_suite_allows() -> None:
    if not PYTHON:
        pytest.skip("make test-wide fetches the suite")
    grammars, wrong = grammars_of(tokenizer(), len(tokenizer())), list[str]()
    compiled = refused = texts = 0
    for name, schema, instances in cases():
        try:
            guide = grammars.guide(Structure.of_schema(schema))
        except InputError as error:
            assert "\n" not in str(error), name
            refused += 1
            continue
        compiled += 1
        for one in instances:
            if not one["valid"] and guide.accepts(ids(one["data"])):
                wrong.append(f"{name}: {one['description']}")
        registry = referencing.jsonschema.SchemaRegistry()
        check = jsonschema.Draft202012Validator(schema, registry=registry)
        for seed in range(_WRITTEN):
            text = written(guide, seed)
            if text is not None:
                texts += 1
                if not check.is_valid(json.loads(text)):
                    wrong.append(f"{name}: wrote {text!r:.80}")
    print(f"{compiled} schemas compiled, {refused} refused, {texts} texts written")
    assert not wrong, "\n".join(wrong)
    assert compiled >= 160  # of 331: llguidance knows no unevaluated*, contains, not, …
    assert texts > compiled
