"""The comparison from end to end, on a tiny base."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftlab.comparison.plan import Plan, Run
from peftlab.comparison.run import Silent, compare
from peftlab.comparison.settings import EvaluationConfig
from peftlab.errors import DiskFull, InputError, PeftlabError
from peftlab.evaluation import text_loss
from peftlab.files import read_json
from peftlab.frozen.model import FrozenLM
from peftlab.methods import Method, parse
from peftlab.methods.adaptation import Adaptation
from peftlab.records import folders, reading
from peftlab.records.figures import named
from peftlab.records.record import Record
from peftlab.tasks import Task
from peftlab.training import TrainConfig
from tests.comparison.odd_methods import Odd


class Counting(Silent):
    """Remembers which runs were really made."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.words: list[tuple[Any, ...]] = []

    def started(self, run: Run) -> None:
        self.made.append(run.label)

    def heard(self, word: str, *values: Any) -> None:
        self.words.append((word, *values))


@pytest.fixture
def plan(base: str, task: Task) -> Plan:
    return make(base, task, "hard_prompt,lora:rank=2")


def make(base: str, task: Task, methods: str | tuple[Method, ...], **changes: Any) -> Plan:
    chosen = tuple(parse(methods)) if isinstance(methods, str) else methods
    config = TrainConfig(steps=3, batch_size=4, evaluate_every=2)
    settings: dict[str, Any] = {
        "model": base,
        "task": task,
        "methods": chosen,
        "config": config,
        "evaluation": EvaluationConfig(train_rows=5, latency_tokens=0),
    }
    return Plan(**{**settings, **changes})


@pytest.mark.slow
def test_sources_are_read_once_and_every_method_is_charged_for_them(
    base: str, task: Task, tmp_path: Path
) -> None:
    """Whoever comes first: what the others were spared counts as their training time too."""
    methods = "lora:rank=2,begin=cue,ia3:begin=cue,last_k,bitfit"
    kept: list[int] = []

    class Looking(Silent):
        def ended(self, run: Run, record: Record) -> None:
            kept.append(len(list((tmp_path / folders.TRUNK).glob("*.safetensors"))))

    plan = make(base, task, methods, seeds=(0, 1), config=TrainConfig(steps=20, batch_size=4))
    first, second, last, row, *again = compare(plan, tmp_path, Looking()).records
    assert first.seconds.train_spared is None and row.seconds.train_spared is None
    spared = second.seconds.train_spared
    assert spared is not None and again[0].seconds.train_spared == pytest.approx(spared, rel=1e-6)
    assert last.seconds.train_spared is None and again[2].seconds.train_spared
    for record in (second, again[0]):
        assert named("train_seconds").of(record) == pytest.approx(record.seconds.train + spared)
    assert kept[0] == kept[1] >= len(task.train), "the second method reads none again"
    assert not (tmp_path / folders.TRUNK).exists()


def test_every_run_leaves_a_whole_folder(plan: Plan, tmp_path: Path, task: Task) -> None:
    watcher = Counting()
    plan = replace(plan, evaluation=EvaluationConfig(train_rows=5, latency_tokens=2))
    records = compare(plan, tmp_path / "out", watcher).records
    assert [record.label for record in records] == ["hard_prompt", "lora:rank=2"]
    assert [record.status for record in records] == ["finished", "finished"]
    lora = records[1]
    # 3 blocks of four linears: A [2, in] and B [out, 2] of 32 × 96, 32 × 32, 32 × 128, 128 × 32.
    assert lora.parameters.trainable == lora.parameters.stored == 3 * 2 * (128 + 64 + 160 + 160)
    assert set(lora.scores) == {"rouge1", "rouge2", "rougeL"}
    assert all(0 <= value <= 1 for value in lora.scores.values())
    assert lora.progress is not None and lora.progress.steps == 3
    assert lora.latency is not None and lora.latency.batch_16 is not None
    assert lora.latency.merged is not None
    assert lora.peak_memory.train and lora.peak_memory.evaluate and lora.peak_memory.generate
    rate = plan.methods[1].rate_on(FrozenLM.load(plan.model).scale)
    assert lora.train["learning_rate"] == rate
    assert records[0].peak_memory.train is None, "nothing was trained"
    (folder,) = (tmp_path / "out").glob("lora*/seed-0")
    assert lora.bytes == sum(f.stat().st_size for f in (folder / "adapter").iterdir())
    assert Record.read(folder / "record.json") == lora
    assert Adaptation.load(folder / "adapter").method == plan.methods[1]
    assert json.loads((folder / "config.json").read_text())["config_hash"] == lora.config_hash
    steps = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps if "loss" in s] == [1, 2, 3]
    rows = [json.loads(x) for x in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == [example.source for example in task.test]
    sums = sum(sum(row["loss_sums"]) for row in rows)
    assert sums / sum(sum(row["loss_tokens"]) for row in rows) == pytest.approx(lora.loss.test)
    mean = sum(row["scores"]["rougeL"] for row in rows) / len(rows)
    assert mean == pytest.approx(lora.scores["rougeL"])
    assert ("phase", "train", 3, 0) in watcher.words


def test_the_validation_loss_of_the_end_is_that_of_a_sample(
    base: str, task: Task, tmp_path: Path
) -> None:
    few = EvaluationConfig(train_rows=2, validation_rows=2, latency_tokens=0)
    (sampled,) = compare(make(base, task, "hard_prompt", evaluation=few), tmp_path / "a").records
    short = replace(task, validation=task.validation[:2])
    (whole,) = compare(make(base, short, "hard_prompt"), tmp_path / "b").records
    assert len(task.validation) > 2
    assert sampled.loss.validation == pytest.approx(whole.loss.validation)


@pytest.mark.slow
def test_what_was_forgotten_is_in_the_record(base: str, task: Task, tmp_path: Path) -> None:
    text = ("Blue Spice is a coffee shop in the city centre.", "The cat sat on the mat. " * 9)
    methods = "hard_prompt,prompt_tuning:length=60,last_k"
    plan = make(base, task, methods, general_text=text)
    compared = compare(plan, tmp_path)
    hard, soft, last = (record.general for record in compared.records)
    assert hard is not None and soft is not None and last is not None
    model = FrozenLM.load(base)
    window = 96 - 60  # what the longest prompt leaves of the context, for all
    assert hard.before == pytest.approx(text_loss(model, None, text, window=window))
    assert hard.after == hard.before == soft.before == last.before
    for record, forgotten in (("prompt_tuning", soft), ("last_k", last)):
        (folder,) = tmp_path.glob(f"{record}*/seed-0/adapter")
        own = text_loss(model, Adaptation.load(folder), text, window=window)
        assert forgotten.after == pytest.approx(own) != forgotten.before
    watcher = Counting()
    again = compare(plan, tmp_path, watcher)
    assert not watcher.made and again.records == compared.records
    assert again.profile.general is not None and again.profile.general.before is None
    compare(replace(plan, general_text=text[:1]), tmp_path, watcher)
    assert len(watcher.made) == 3, "held against another text, the runs are others"


def test_finished_runs_are_not_made_again(plan: Plan, tmp_path: Path) -> None:
    first = compare(plan, tmp_path).records
    watcher = Counting()
    more = replace(plan, methods=(*plan.methods, *parse("bitfit")))
    again = compare(more, tmp_path, watcher).records
    assert watcher.made == ["bitfit"]
    assert again[:2] == first
    watcher = Counting()
    longer = replace(plan, config=replace(plan.config, steps=4))
    compare(longer, tmp_path, watcher)
    assert watcher.made == ["hard_prompt", "lora:rank=2"], "other settings are other runs"


def test_a_failing_run_does_not_stop_the_others(base: str, task: Task, tmp_path: Path) -> None:
    odd = (Odd(), Odd(how="killed"))
    methods = (*parse("hard_prompt"), *odd, *parse("last_k:k=9,lora:rank=2"))
    records = compare(make(base, task, methods), tmp_path).records
    assert [r.status for r in records] == ["finished", "failed", "failed", "failed", "finished"]
    assert "a defect of this method" in str(records[1].error)
    assert "SIGKILL" in str(records[2].error)
    assert "3" in str(records[3].error), "the message says how many blocks there are"
    (folder,) = tmp_path.glob("odd-????????/seed-0")
    assert Record.read(folder / "record.json").status == "failed"
    assert "RuntimeError" in (folder / "error.txt").read_text()
    watcher = Counting()
    compare(make(base, task, methods), tmp_path, watcher)
    assert len(watcher.made) == 3, "what has failed is tried again"


def test_a_full_disk_stops_everything_and_loses_nothing(
    base: str, task: Task, tmp_path: Path
) -> None:
    methods = (*parse("hard_prompt"), Odd(how="disk"), *parse("bitfit"))
    with pytest.raises(DiskFull, match=r"disk is full.*make room"):
        compare(make(base, task, methods), tmp_path)
    watcher = Counting()
    healed = (*parse("hard_prompt"), *parse("bitfit"))
    compare(make(base, task, healed), tmp_path, watcher)
    assert watcher.made == ["bitfit"]


def test_seeds_lie_side_by_side(base: str, task: Task, tmp_path: Path) -> None:
    records = compare(make(base, task, "lora:rank=2", seeds=(0, 3)), tmp_path).records
    assert [record.seed for record in records] == [0, 3]
    assert records[0].loss.test != records[1].loss.test
    (folder,) = tmp_path.glob("lora*")
    assert sorted(f.name for f in folder.iterdir()) == ["seed-0", "seed-3"]


def test_a_folder_of_another_comparison_is_refused(plan: Plan, task: Task, tmp_path: Path) -> None:
    compare(replace(plan, methods=plan.methods[:1]), tmp_path)
    other = replace(task, source=replace(task.source, fingerprint="0" * 64), name="elsewhere")
    with pytest.raises(InputError, match=r"holds another comparison.*elsewhere"):
        compare(replace(plan, task=other), tmp_path)


def test_a_folder_of_something_else_is_refused(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="not the folder of a comparison"):
        compare(plan, tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        compare(plan, tmp_path / "file")


def test_a_base_that_cannot_be_loaded_is_one_clear_error(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PeftlabError, match=r"cannot load a model from .*empty"):
        compare(replace(plan, model=str(tmp_path / "empty")), tmp_path / "out")


def test_half_written_records_are_made_again(plan: Plan, tmp_path: Path) -> None:
    plan = replace(plan, methods=plan.methods[:1])
    compare(plan, tmp_path)
    (path,) = tmp_path.glob("*/seed-0/record.json")
    path.write_text(path.read_text()[:100])
    watcher = Counting()
    assert compare(plan, tmp_path, watcher).records[0].status == "finished"
    assert watcher.made == ["hard_prompt"]


def test_all_methods_get_the_same_source(base: str, tmp_path: Path) -> None:
    """The longest prompt decides how much of a source anybody sees."""
    source = " ".join(f"word{i}" for i in range(60))
    lines = [json.dumps({"source": f"{i} {source}", "targets": ["a cat"]}) for i in range(12)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    task = Task.load(tmp_path / "train.jsonl", max_new_tokens=4)
    plan = make(base, task, "hard_prompt,prompt_tuning:length=30,prefix_tuning:length=10")
    compared = compare(plan, tmp_path / "out")
    assert [record.status for record in compared.records] == ["finished"] * 3
    left = compared.profile.source_tokens
    assert left is not None and compared.profile.longest == ("prompt_tuning:length=30", 30)
    assert {record.truncated for record in compared.records} == {len(task.test)}
    bare = compared.records[0].context_tokens
    assert bare is not None
    assert compared.records[1].context_tokens == pytest.approx(bare + 30)
    assert compared.records[2].context_tokens == pytest.approx(bare + 10)
    assert bare + 30 + left <= 96


def test_long_test_rows_leave_for_all_methods_alike(base: str, tmp_path: Path) -> None:
    """What the longest prompt has no room for, nobody is tested on; the record counts it."""
    words = [20] * 10 + [26, 60]  # with 30 tokens of a prompt, the last two are too long
    texts = [f"{n}." + " ".join(f"{i}" for i in range(most)) for n, most in enumerate(words)]
    lines = [json.dumps({"source": t, "target": f"{i}"}) for i, t in enumerate(texts)]
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    task = Task.load(tmp_path, max_new_tokens=4, long="skip")
    compared = compare(make(base, task, "hard_prompt,prompt_tuning:length=30"), tmp_path / "out")
    skipped = compared.records[0].skipped
    assert skipped is not None and 1 <= skipped <= 2
    for run in compared.runs:
        assert run.record.status == "finished" and run.record.skipped == skipped
        assert run.record.truncated == 0
        assert run.record.task.test_rows == 12 - skipped == len(reading.predictions(run.folder))
    with pytest.raises(PeftlabError, match=r"rows of train are longer than the .* tokens that fit"):
        compare(make(base, replace(task, long="refuse"), "hard_prompt"), tmp_path / "other")


def test_the_guess_of_a_length_is_recorded(base: str, data: Path, tmp_path: Path) -> None:
    """It counts tokens of the base, and as a number it decides as one that was given."""
    guessed = compare(make(base, Task.load(data), "hard_prompt"), tmp_path / "a")
    config = read_json(guessed.runs[0].folder / folders.CONFIG)
    tokens = config["task"]["max_new_tokens"]
    given = Task.load(data, max_new_tokens=tokens)
    watcher = Counting()
    again = compare(make(base, given, "hard_prompt"), tmp_path / "a", watcher)
    assert watcher.made == [] and again.records[0].config_hash == config["config_hash"]


def test_a_prompt_without_room_is_refused(base: str, task: Task, tmp_path: Path) -> None:
    with pytest.raises(PeftlabError, match=r"prompt_tuning.*leaves no room for the source"):
        compare(make(base, task, "prompt_tuning:length=90"), tmp_path)


def test_plans_that_cannot_work_are_refused(plan: Plan) -> None:
    with pytest.raises(InputError, match="at least one method"):
        replace(plan, methods=())
    with pytest.raises(InputError, match="something twice"):
        replace(plan, seeds=(1, 1))
    with pytest.raises(InputError, match="something twice"):
        replace(plan, methods=tuple(parse("lora,lora")))
