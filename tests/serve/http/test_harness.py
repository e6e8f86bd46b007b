"""lm-evaluation-harness against the server: the numbers of its own `hf` model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peftlab.frozen.model import FrozenLM
from peftlab.methods.hard_prompt import unadapted
from peftlab.serve import Library
from tests.models import tiny
from tests.serve.http.server import Server, serving
from tests.test_choices import base

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of transformers, about the harness
]
lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")

QUESTIONS = [
    ("Is the food good", ["yes", "no", "it is not known"], 0),
    ("Where is the place", ["near the river", "in the city centre"], 1),
    ("Who has the price", ["nobody", "the pub", "the family"], 2),
    ("Is it a pub", ["no", "yes"], 1),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, own = tmp_path_factory.mktemp("base"), base()
    tiny("llama", vocab_size=len(own.tokenizer)).save_pretrained(folder)
    own.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    own = base()
    model = FrozenLM(tiny("llama", vocab_size=len(own.tokenizer)), own.tokenizer, "base")
    library = Library(model)
    library.load("served", unadapted(model))
    while library.load_one():
        pass
    with serving(library, capacity=200) as running:
        yield running


def tasks(folder: Path) -> list[dict[str, Any]]:
    data = folder / "test.json"
    rows = [{"question": q, "options": o, "gold": g, "answer": o[g]} for q, o, g in QUESTIONS]
    data.write_text("\n".join(map(json.dumps, rows)))
    common = {
        "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test", "doc_to_text": "Q: {{question}}?\nA:",
    }  # fmt: skip
    chosen = {
        "task": "chosen", "output_type": "multiple_choice", "doc_to_choice": "{{options}}",
        "doc_to_target": "{{gold}}", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }  # fmt: skip
    written = {
        "task": "written", "output_type": "generate_until", "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n", "Q:"], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip
    return [common | chosen, common | written]


def samples(model: Any, folder: Path) -> dict[str, list[Any]]:
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model=model, tasks=tasks(folder), task_manager=TaskManager(), log_samples=True,
        bootstrap_iters=0,
    )  # fmt: skip
    return {
        name: [one["filtered_resps"] for one in sorted(rows, key=lambda one: one["doc_id"])]
        for name, rows in found["samples"].items()
    }


def test_completions_have_the_numbers_of_hf(server: Server, place: Path, tmp_path: Path) -> None:
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    theirs = samples(
        HFLM(pretrained=str(place), device="cpu", dtype="float32", batch_size=4), tmp_path
    )
    ours = samples(
        LocalCompletionsAPI(
            base_url=f"{server.url}/v1/completions", model="served", tokenizer=str(place),
            tokenizer_backend="huggingface", batch_size=4, num_concurrent=1, max_length=200,
        ),
        tmp_path,
    )  # fmt: skip
    for own, other in zip(ours["chosen"], theirs["chosen"], strict=True):
        for (mine, greedy), (its, its_greedy) in zip(own, other, strict=True):
            assert float(mine) == pytest.approx(float(its), abs=2e-3)
            assert bool(greedy) == bool(its_greedy)
    assert [one[0].strip() for one in ours["written"]] == [
        one[0].strip() for one in theirs["written"]
    ]


CHAT = (
    "{% for it in messages %}{{ it.role }}: {{ it.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_chats_have_the_replies_of_hf(tmp_path: Path) -> None:
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalChatCompletion
    from lm_eval.tasks import TaskManager

    own = base(CHAT)
    weights = tiny("llama", vocab_size=len(own.tokenizer))
    place = tmp_path / "base"
    weights.save_pretrained(place)
    own.tokenizer.save_pretrained(place)
    model = FrozenLM(weights, own.tokenizer, "base")
    library = Library(model)
    library.load("served", unadapted(model))
    while library.load_one():
        pass

    def replies(asked: Any) -> list[str]:
        found = lm_eval.simple_evaluate(
            model=asked, tasks=tasks(tmp_path)[1:], task_manager=TaskManager(), log_samples=True,
            bootstrap_iters=0, apply_chat_template=True,
        )  # fmt: skip
        rows = sorted(found["samples"]["written"], key=lambda one: one["doc_id"])
        return [one["filtered_resps"][0].strip() for one in rows]

    theirs = replies(HFLM(pretrained=str(place), device="cpu", dtype="float32", batch_size=4))
    with serving(library, capacity=200) as running:
        ours = replies(
            LocalChatCompletion(
                base_url=f"{running.url}/v1/chat/completions", model="served",
                tokenizer_backend=None, num_concurrent=1, eos_string="<|endoftext|>",
            )
        )  # fmt: skip
    assert ours == theirs
    assert any(ours)
