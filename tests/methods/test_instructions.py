"""Instructions that a model writes and a metric chooses, with a scripted author."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from peftlab.errors import InputError
from peftlab.evaluation import AdaptedLM, evaluate
from peftlab.methods import parse_one
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.methods.base import Answer, State
from peftlab.methods.hard_prompt import HardPrompt
from peftlab.methods.search.instructions import instruction_in
from peftlab.methods.search.transcript import Transcript
from peftlab.tasks import Example, Task
from peftlab.training import Interrupted, TrainConfig, train
from peftlab.training import search as training_search
from peftlab.training.authors import Written, write
from peftlab.training.display import Show
from peftlab.training.rows import Rows
from peftlab.training.search import Examples
from tests.laws.world import model, task

OFFERED = [f"say {'it ' * (i % 5)}{'well ' * (7 * i % 4)}{i}" for i in range(60)]
START = task().instruction
PROPOSE = "hard_prompt:optimise=propose,examples=4,pool=6,width=3"
GEPA = "hard_prompt:optimise=gepa,examples=4,pool=6"


@contextmanager
def scripted(patch: pytest.MonkeyPatch, most: int = 10**6) -> Iterator[list[str]]:
    """An author that offers one instruction after the other, and at last no more; what it was
    asked.
    """
    asked: list[str] = []

    def says(_: Any, author: str, requests: Sequence[str], seed: int) -> list[Written]:
        first = len(asked)
        if first >= most:
            raise InputError("the author does not answer")
        asked.extend(requests)
        texts = [OFFERED[(first + i) % len(OFFERED)] for i in range(len(requests))]
        return [Written(f"```\n{text}\n```", 11) for text in texts]

    patch.setattr(training_search, "write", says)
    yield asked


def worth(text: str, example: Example) -> float:
    """A score that hangs on both, and has one best instruction."""
    return (len(text) * 31 % 17) / 20 + (len(example.source) + len(text)) % 3 / 20


def by_worth(patch: pytest.MonkeyPatch) -> None:
    def answers(self: Examples, state: State, examples: Sequence[Example]) -> list[Answer]:
        text = state.text["instruction"]
        self._count(10 * len(examples))
        return [Answer(f"{text}!", worth(text, one)) for one in examples]

    patch.setattr(Examples, "answers", answers)


def _train(words: str, steps: int = 12, own: Task | None = None, **more: Any) -> Any:
    own = own or task()
    return train(model("llama"), parse_one(words), own, TrainConfig(steps=steps), **more)


def _transcript(words: str, own: Task) -> Transcript:
    return Transcript.begun(own, parse_one(words).pool, parse_one(words).examples, 0)  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", [PROPOSE, GEPA])
def test_the_best_by_the_metric_on_validation_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str
) -> None:
    by_worth(monkeypatch)
    with scripted(monkeypatch) as asked:
        found = _train(words, folder=tmp_path).adaptation.state.text
    assert found.keys() == {"instruction", "exemplars"}
    places = _transcript(words, task()).places["validation"]
    own = [task().validation[i] for i in places]
    means = {text: fmean(worth(text, one) for one in own) for text in (START, "", *offered(asked))}
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "score" in line]
    assert found["instruction"] == steps[-1]["instruction"]
    assert means[found["instruction"]] == pytest.approx(steps[-1]["score"])
    assert [line["score"] for line in steps] == sorted(line["score"] for line in steps)
    assert steps[-1]["calls"] == len(asked) > 2
    if words == PROPOSE:  # four examples: nothing is screened away
        assert means[found["instruction"]] == max(means.values())
    assert len(set(asked)) > 3  # not for the same examples again and again


def offered(asked: Sequence[str]) -> list[str]:
    return [OFFERED[i % len(OFFERED)].strip() for i in range(len(asked))]


def test_what_is_behind_on_the_first_examples_is_not_scored_on_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_worth(monkeypatch)
    many = replace(task(), validation=[*task().validation, *task().test, *task().train])
    counts: dict[str, int] = {}
    answers = Examples.answers

    def counted(self: Examples, state: State, examples: Sequence[Example]) -> list[Answer]:
        text = state.text["instruction"]
        counts[text] = counts.get(text, 0) + len(examples)
        return answers(self, state, examples)

    monkeypatch.setattr(Examples, "answers", counted)
    with scripted(monkeypatch):
        best = _train(f"{PROPOSE},examples=20".replace("examples=4,", ""), own=many)
    assert set(counts.values()) == {8, 20}
    assert counts[best.adaptation.state.text["instruction"]] == 20


def test_gepa_goes_the_way_that_the_library_goes_by_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import gepa

    by_worth(monkeypatch)
    with scripted(monkeypatch) as asked:
        found = _train(GEPA, folder=tmp_path)
    iterations = 0
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        iterations = json.loads(line).get("iterations", iterations)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "score" in line]
    state = parse_one(GEPA).init(model("llama"), task(), torch.Generator().manual_seed(0))
    places = _transcript(GEPA, task()).places
    held = {n: [task().split(n)[i] for i in places[n]] for n in ("train", "validation")}

    class Adapter:
        propose_new_texts = None

        def evaluate(self, batch: Any, candidate: Any, capture_traces: bool = False) -> Any:
            text = candidate["instruction"]
            scores = [worth(text, one) for one in batch]
            return gepa.EvaluationBatch(scores, scores, [*zip(batch, scores, strict=True)])

        def make_reflective_dataset(self, candidate: Any, batch: Any, names: Any) -> Any:
            return {"instruction": [{"Inputs": one.source} for one, _ in batch.trajectories]}

    replies = iter(f"```\n{text}\n```" for text in OFFERED)

    class Quiet:
        def log(self, message: str) -> None: ...

    own = gepa.optimize(
        seed_candidate={"instruction": state.text["start"]},
        trainset=held["train"],
        valset=held["validation"],
        adapter=Adapter(),
        reflection_lm=lambda _: next(replies),
        perfect_score=1.0,
        stop_callbacks=lambda at: at.i + 1 >= iterations,
        logger=Quiet(),
        seed=state.text["seed"],
    )
    bare = fmean(worth("", one) for one in held["validation"])
    best = own.best_candidate["instruction"]  # type: ignore[index]
    assert found.adaptation.state.text["instruction"] == best
    assert own.val_aggregate_scores[own.best_idx] >= bare
    assert len(asked) == steps[-1]["calls"] > 3


def uninterrupted(patch: pytest.MonkeyPatch, words: str) -> tuple[Any, list[str]]:
    """What a search comes to in one go, and what it asks the author."""
    by_worth(patch)
    with scripted(patch) as asked:
        return _train(words), list(asked)


@pytest.mark.parametrize("words", [PROPOSE, GEPA])
def test_a_search_that_was_cut_off_goes_on_and_asks_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str
) -> None:
    whole, requests = uninterrupted(monkeypatch, words)

    @contextmanager
    def cut(title: str, total: int, first: int) -> Iterator[Show]:
        def show(step: int, loss: float, speed: float) -> None:
            if step > total // 3:
                os.kill(os.getpid(), signal.SIGINT)

        yield show

    with scripted(monkeypatch) as asked:
        with pytest.raises(Interrupted):
            _train(words, folder=tmp_path, display=cut)
        assert 0 < len(asked) < len(requests)
        again = _train(words, folder=tmp_path)
        assert asked == requests
    assert again.adaptation.state.text == whole.adaptation.state.text
    assert again.forward_tokens == whole.forward_tokens


def test_what_is_written_and_answered_counts_in_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    by_worth(monkeypatch)
    with scripted(monkeypatch) as asked:
        found = _train(PROPOSE, steps=40)
    spent = _train("lora:rank=2", steps=40).forward_tokens
    assert 0 < found.forward_tokens < 1.3 * spent
    assert found.forward_tokens > 11 * len(asked) + 40


@pytest.mark.parametrize("words", [PROPOSE, GEPA])
def test_an_author_that_stops_answering_ends_the_run_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str
) -> None:
    whole, requests = uninterrupted(monkeypatch, words)
    with scripted(monkeypatch, most=3), pytest.raises(InputError, match="does not answer"):
        _train(words, folder=tmp_path)
    with scripted(monkeypatch) as asked:
        asked.extend(requests[:3])
        again = _train(words, folder=tmp_path)
    assert asked == requests
    assert again.adaptation.state.text == whole.adaptation.state.text


@pytest.mark.parametrize("words", [PROPOSE, GEPA])
def test_where_the_author_repeats_itself_the_search_ends(
    monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    by_worth(monkeypatch)

    def says(_: Any, author: str, requests: Sequence[str], seed: int) -> list[Written]:
        return [Written("Say it.", 3)] * len(requests)

    monkeypatch.setattr(training_search, "write", says)
    found = _train(words, steps=4)
    means = {t: fmean(worth(t, e) for e in task().validation) for t in (START, "", "Say it.")}
    assert found.adaptation.state.text["instruction"] in means


def test_rows_that_leave_and_starts_that_are_long_are_no_trouble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_worth(monkeypatch)
    long = Example("red " * 90, ("cat",))
    own = replace(task(), validation=[long, *task().validation], long="skip")
    with scripted(monkeypatch):
        found = _train(PROPOSE, own=own)
        assert found.adaptation.state.text["instruction"] in (START, "", *OFFERED)
        words = f"{PROPOSE},instruction={'red ' * 20}"
        assert _train(words).steps > 0


def test_too_long_instructions_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    by_worth(monkeypatch)

    def says(_: Any, author: str, requests: Sequence[str], seed: int) -> list[Written]:
        return [Written("red blue " * 60 + str(seed), 3)] * len(requests)

    monkeypatch.setattr(training_search, "write", says)
    assert _train(PROPOSE, steps=2).adaptation.state.text["instruction"] in (START, "")


def test_answers_are_those_of_evaluation() -> None:
    lm, method = model("llama"), parse_one(PROPOSE)
    some = list(task().validation[:3])
    state = State(text={"instruction": "Say it", "exemplars": []})
    rows = Rows(task().pairs("train"), task().template, lm.tokenizer, 96)
    asking = Examples(lm, method, task(), rows, [0], TrainConfig(), None)  # type: ignore[arg-type]
    found = asking.answers(state, some)
    adapted = AdaptedLM(lm, Adaptation(HardPrompt(), state, task().template, base_of(lm)))
    own = evaluate(adapted, replace(task(), validation=some), "validation")
    assert [one.text for one in found] == [reply.text for reply in own.replies]
    assert [one.score for one in found] == own.scores.per_example[task().metrics[0]]
    assert asking.forward_tokens == sum(r.prompt_tokens + len(r.tokens) for r in own.replies)


def test_the_base_itself_writes() -> None:
    lm = model("llama")
    first, again, other = (write(lm, "base", ["red cat", "red cat"], seed) for seed in (1, 1, 2))
    assert first == again != other
    assert all(0 < one.tokens <= 256 for one in first)


@contextmanager
def endpoint(reply: str | None, whole: bool = False) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An OpenAI server that says one thing; None: an error; whole: that is all it sends."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            message = {"role": "assistant", "content": reply}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
            made = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
            body = (
                reply.encode()
                if whole and reply
                else json.dumps({**made, "choices": [choice], "usage": usage}).encode()
            )
            self.send_response(200 if reply is not None else 400)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", seen
    server.shutdown()
    server.server_close()


def test_an_endpoint_writes_and_its_tokens_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with endpoint("Say it well.") as (url, seen):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        found = write(model("llama"), "openai/m", ["one", "two"], 3)
    assert found == [Written("Say it well.", 7)] * 2
    assert [call["messages"][0]["content"] for call in seen] == ["one", "two"]
    assert {call["model"] for call in seen} == {"m"}


@pytest.mark.parametrize(
    "body",
    ['"<html>"', "[1, 2]", "{}", '{"choices": []}', '{"choices": [{"index": 0}]}',
     '{"choices": [{"index": 0, "message": {"role": "assistant", "content": 5}}]}',
     '{"error": {"message": "no such model"}}'],
)  # fmt: skip
@pytest.mark.parametrize("words", [PROPOSE, GEPA])
def test_what_is_no_completion_ends_the_search_in_one_line(
    monkeypatch: pytest.MonkeyPatch, words: str, body: str
) -> None:
    by_worth(monkeypatch)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with endpoint(body, whole=True) as (url, _):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        with pytest.raises(InputError, match="openai/m does not answer") as refused:
            _train(f"{words},reflection_lm=openai/m")
    assert "\n" not in str(refused.value)


def test_replies_are_cut_mended_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    message = {"role": "assistant", "content": "red \ud800" + "red " * 10**5}
    body = json.dumps({"choices": [{"index": 0, "message": message}]})
    with endpoint(body, whole=True) as (url, _):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        (found,) = write(model("llama"), "openai/m", ["red cat"], 3)
    assert found.text.startswith("red ?red")
    assert len(found.text) == 8000
    assert found.tokens > 1000


@pytest.mark.parametrize("words", [PROPOSE, GEPA])
def test_an_author_that_writes_nothing_is_told_of(
    monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    by_worth(monkeypatch)
    monkeypatch.setattr(
        training_search, "write", lambda _, author, asked, seed: [Written("", 5)] * len(asked)
    )
    with pytest.raises(InputError, match="has written nothing in 6 replies"):
        _train(words)


def test_a_search_goes_by_what_methods_are_ranked_by(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def says(_: Any, author: str, requests: Sequence[str], seed: int) -> list[Written]:
        seen.extend(requests)
        return [Written(f"say {seed}", 3)] * len(requests)

    monkeypatch.setattr(training_search, "write", says)
    for metrics, expected in ((("ter", "rougeL"), "rougeL"), (("ter", "bleu"), "ter")):
        seen.clear()
        _train(PROPOSE, steps=2, own=replace(task(), metrics=metrics))
        assert f"is scored by {expected}." in seen[0]
        assert ("(less is better)" in seen[0]) == (expected == "ter")


def test_an_author_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with endpoint(None) as (url, _):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        with pytest.raises(InputError, match="openai/m does not answer") as refused:
            write(model("llama"), "openai/m", ["one"], 3)
    assert "\n" not in str(refused.value)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InputError, match="OPENAI_API_KEY"):
        write(model("llama"), "openai/m", ["one"], 3)


@pytest.mark.parametrize(
    ("written", "instruction"),
    [
        ("```\nSay it.\n```", "Say it."),
        ("Sure!\n```text\nSay it\nwell.\n```\nThat is better.", "Say it\nwell."),
        ("Instruction: Say it.", "Say it."),
        ('New instruction:\n"Say it."', "Say it."),
        ("Say it.", "Say it."),
        ("```Say it", "Say it"),
        ("``` ```", ""),
    ],
)
def test_an_instruction_is_found_in_what_was_written(written: str, instruction: str) -> None:
    assert instruction_in(written) == instruction


@pytest.mark.parametrize(
    ("words", "changes", "said"),
    [
        ("hard_prompt:reflection_lm=openai/m", {}, "optimise=none asks for none"),
        (PROPOSE, {"validation": []}, "has none"),
        (PROPOSE, {"metrics": ("cider",)}, "name another metric first"),
        (f"{PROPOSE},reflection_lm=/nowhere", {}, "no folder of a model"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    words: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        method = parse_one(words)
        method.files()
        train(model("llama"), method, replace(task(), **changes), TrainConfig(steps=2))
