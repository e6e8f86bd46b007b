"""A file of conversations, from the command to the server: rows, losses, what an adapter keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from peftlab.cli.app import run
from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.evaluation import AdaptedLM, split_loss, taken
from peftlab.export import export
from peftlab.frozen.model import FrozenLM
from peftlab.frozen.packing import Row, pack
from peftlab.loss import row_losses
from peftlab.methods import parse_one
from peftlab.methods.adaptation import Adaptation
from peftlab.serve import Chat
from peftlab.serve import prompt as asking
from peftlab.tasks import Task
from peftlab.tasks.conversation_files import each_reply
from peftlab.tasks.fit import fitted
from peftlab.tasks.show import describe
from peftlab.training import TrainConfig, train
from peftlab.training.rows import Rows
from peftlab.trunk import TrunkStore
from tests.models import tiny
from tests.tasks.tokenizers_for_tests import CHAT, QWEN, SMOL, byte_level


def conversation(number: int) -> dict[str, Any]:
    texts = [f"hi {number}", "the cat", "and?", f"a mat {number}", "now?", "no"]
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": t} for i, t in enumerate(texts)]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "talk.jsonl"
    path.write_text("".join(json.dumps(conversation(i)) + "\n" for i in range(24)))
    return path


def base(chat: str | None = SMOL) -> FrozenLM:
    tokenizer = byte_level(chat=chat if chat is not None else False)
    return FrozenLM(tiny("llama", vocab_size=len(tokenizer)), tokenizer, "talks")


def task(file: Path, model: FrozenLM, **options: Any) -> Task:
    return fitted(Task.load(file, **options), model.tokenizer)


def test_the_command_trains_keeps_and_serves_the_conversation(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out, tokenizer = tmp_path / "base", tmp_path / "run", byte_level(chat=SMOL)
    tiny("gpt2", vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    about = f"--task {file} -o loss=replies --device cpu"
    told = f"train --model {folder} {about} --method lora:begin=cue --steps 2 --batch-size 2"
    assert run([*told.split(), "--validation-limit", "2", "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert "Conversations: messages (guessed); trained on every reply. The first: user: hi" in said
    stored = json.loads((out / "adapter/adaptation.json").read_text())["template"]
    assert stored["frame"]["jinja"] == SMOL and stored["loss"] == "replies"

    (folder / "chat_template.jinja").write_text(CHAT)  # it has no system prompt of its own
    assert run(f"evaluate --adapter {out} {about} --limit 3".split()) == 0
    assert "loss" in capsys.readouterr().out
    tokenizer.chat_template = CHAT
    model = FrozenLM(tiny("gpt2", vocab_size=len(tokenizer)), tokenizer, "talks")
    template = Adaptation.load(out / "adapter", model).edits(model).template
    assert template is not None
    talk = Chat((("user", "hi"), ("assistant", "the cat"), ("user", "and?")))
    asked = asking.encode(template, model, talk)
    own = tokenizer.apply_chat_template(
        [{"role": role, "content": text} for role, text in talk.turns],
        chat_template=SMOL,
        add_generation_prompt=True,
        return_dict=False,
    )
    assert list(asked.ids) == own
    assert tokenizer.decode(asked.ids[asked.begin :]).startswith(template.frame.bridge)  # type: ignore[union-attr]


def test_a_rows_loss_is_that_of_its_replies_in_rows_of_their_own(file: Path) -> None:
    model = base()
    made = task(file, model, loss="replies")
    template = made.template
    edits = train(model, parse_one("lora"), made, TrainConfig(steps=2, batch_size=2)).adaptation
    for example in made.train[:3]:
        row = template.encode(model.tokenizer, example, example.targets[0], 500)
        alone = [
            template.encode(model.tokenizer, one, one.targets[0], 500)
            for one in each_reply(example)
        ]
        assert len(row.spans) == len(alone) == 3
        whole, counts = row_losses(model, edits.edits(model), [row])
        parts, each = row_losses(model, edits.edits(model), alone)
        assert counts == [sum(each)]
        assert whole[0] == pytest.approx(sum(parts), rel=1e-5)


@pytest.mark.parametrize(
    "method",
    ["lora:begin=cue", "prefix_tuning:length=3,begin=cue", "prompt_tuning:length=3,begin=cue"],
)
def test_from_the_cue_of_the_first_reply_with_a_kept_past(
    file: Path, method: str, tmp_path: Path
) -> None:
    model = base()
    made = task(file, model, loss="replies")
    config = TrainConfig(steps=2, batch_size=2)
    adaptation = train(model, parse_one(method), made, config).adaptation
    edits = adaptation.edits(model)
    template = edits.template or adaptation.template
    rows = [template.encode(model.tokenizer, e, e.targets[0], 500) for e in made.train[:4]]
    assert all(len(row.spans) == 3 and 0 < row.begin <= row.target_start for row in rows)  # type: ignore[operator]
    store = TrunkStore(10**7, 10**7, tmp_path / "store")
    plain, kept = row_losses(model, edits, rows), row_losses(model, edits, rows, store=store)
    assert kept[0] == pytest.approx(plain[0], rel=1e-5) and store.computed


def test_a_kept_trunk_changes_nothing(file: Path, tmp_path: Path) -> None:
    model = base()
    made = task(file, model, loss="replies")
    config = TrainConfig(steps=12, batch_size=4, evaluate_every=4)
    store = TrunkStore(10**8, 10**8, tmp_path / "store")
    plain, kept = (
        train(model, parse_one("last_k:k=1"), made, config, store=own) for own in (None, store)
    )
    assert kept.trunk_bytes and kept.losses == pytest.approx(plain.losses, rel=1e-5)
    assert kept.validation_loss == pytest.approx(plain.validation_loss, rel=1e-5)


def test_logits_of_several_spans_are_those_of_the_whole_row() -> None:
    model, ids = base(), list(range(5, 25))
    (whole,) = [model(pack([Row(ids, 0, 0)], [Edits()]))]
    some = model(pack([Row(ids, 0, ((2, 4), (9, 13), (19, 20)))], [Edits()]))
    wanted = [*range(2, 4), *range(9, 13), 19]
    assert torch.allclose(some, whole[wanted], atol=1e-6)


def test_a_guest_is_trained_on_the_same_tokens(file: Path) -> None:
    pytest.importorskip("peft")
    from peftlab.guests.guest import Guest
    from peftlab.guests.model import GuestModel, PlainBase

    model = base()
    made = task(file, model, loss="replies")
    rows = [made.template.encode(model.tokenizer, e, e.targets[0], 500) for e in made.train[:3]]
    plain = PlainBase(tiny("llama", vocab_size=len(model.tokenizer)), model.tokenizer, "talks")
    sums, counts = GuestModel(plain, Guest("lora", {}), 2).row_losses(rows)
    ours = row_losses(model, Edits(), rows)
    assert counts == ours[1] == [row.targets for row in rows]
    assert sums == pytest.approx(ours[0], rel=1e-4), "LoRA changes nothing at its start"


def test_replies_stand_apart_where_the_template_shows_them_otherwise(file: Path) -> None:
    model = base(QWEN)
    made = task(file, model, loss="replies")
    assert made.template.loss == "last" and len(made.train) == 3 * len(
        Task.load(file, loss="replies").train
    )
    assert any("in a row of its own" in note for note in made.notes)
    assert not any(turn.trained for example in made.train for turn in example.turns)
    last = task(file, model)
    assert len(last.train) == len(Task.load(file).train)


def test_an_adapter_trained_apart_reads_each_reply_by_itself(file: Path) -> None:
    model = base(QWEN)
    trained = train(model, parse_one("lora"), Task.load(file, loss="replies"),
                    TrainConfig(steps=1, batch_size=2))  # fmt: skip
    adapted = AdaptedLM(model, trained.adaptation)
    asked = Task.load(file, loss="replies")
    loss = split_loss(adapted, asked, "validation")
    assert len(loss.sums) == 3 * len(asked.validation)


def test_what_is_shown_marks_each_trained_reply(file: Path) -> None:
    model = base()
    shown = describe(Task.load(file, loss="replies"), model.tokenizer, 500)
    first = shown.partition("Example 1 of train")[2].partition("Example 2 of train")[0]
    assert first.count("⟦") == first.count("⟧") == 3
    assert "⟦the cat<|im_end|>⟧" in first and "⟦no<|im_end|>⟧" in first


def test_an_aLoRA_folder_cannot_begin_at_a_first_reply(file: Path, tmp_path: Path) -> None:  # noqa: N802
    model = base()
    made = task(file, model, loss="replies")
    config = TrainConfig(steps=1, batch_size=2)
    adaptation = train(model, parse_one("lora:begin=cue"), made, config).adaptation
    with pytest.raises(InputError, match="first reply"):
        export("peft", {"one": adaptation}, model, tmp_path / "peft")
    template = adaptation.edits(model).template
    assert template is not None
    with pytest.raises(InputError, match="send the conversation"):
        asking.encode(template, model, tuple(range(5, 20)))


def test_a_base_without_a_chat_template_reads_plain_lines(file: Path) -> None:
    model = base(None)
    made = task(file, model, loss="replies")
    assert any("plain lines, one a turn" in note for note in made.notes)
    example = made.test[1]
    row = made.template.encode(model.tokenizer, example, None, 500)
    assert model.tokenizer.decode(row.ids).endswith("User: and?\nAssistant:")
    trained = train(model, parse_one("lora"), made, TrainConfig(steps=1, batch_size=2))
    assert trained.adaptation.template.frame is not None
    talk = Chat((("user", "hi"), ("assistant", "the cat"), ("user", "and?")))
    assert asking.encode(trained.adaptation.template, model, talk).ids == tuple(
        model.tokenizer(
            "User: hi\nAssistant: the cat<|endoftext|>\nUser: and?\nAssistant:",
            add_special_tokens=False,
        )["input_ids"]
    )


def test_replies_that_are_lost_with_their_turns_are_told(file: Path) -> None:
    model = base()
    made = task(file, model, loss="replies")
    rows = Rows(made.pairs("train"), made.template, model.tokenizer, 60)
    assert rows[0].dropped and rows.lost == 3 - len(rows[0].spans) > 0
    shown = describe(Task.load(file, loss="replies"), model.tokenizer, 75)
    assert "replies that would be trained on" in shown


def test_options_are_asked_for_where_an_adapter_chose(file: Path) -> None:
    model = base()
    rows = [{"text": f"the cat {i}", "label": ("yes", "no")[i % 2]} for i in range(30)]
    path = file.with_name("labels.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = TrainConfig(steps=1, batch_size=2)
    chose = train(model, parse_one("lora"), Task.load(path), config).adaptation
    loaded = Task.load(path, choose=False)
    notes = taken(AdaptedLM(model, chose), loaded).notes
    assert any("trained to choose among options" in note for note in notes)


def test_tokens_that_are_cut_are_counted(file: Path) -> None:
    model = base()
    made = task(file, model)
    example = made.train[0]
    whole = made.template.encode(model.tokenizer, example, example.targets[0], 500)
    short = made.template.encode(model.tokenizer, example, example.targets[0], len(whole.ids) - 1)
    assert short.dropped == len(whole.ids) - len(short.ids) > 1
    assert replace(short, dropped=0).ids[-short.targets :] == whole.ids[-whole.targets :]
