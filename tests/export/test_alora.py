"""LoRA that begins at the cue is PEFT's aLoRA: the same logits, and refused where it is not."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch

from peftlab.cli.share import _begun_again
from peftlab.errors import InputError
from peftlab.export import export
from peftlab.export.cue import begun_again, invocation
from peftlab.export.peft import load
from peftlab.frozen.packing import Row, pack
from peftlab.generation import Request, generate
from peftlab.loss import row_losses
from peftlab.methods import parse_one
from peftlab.methods.adaptation import Adaptation, base_of
from peftlab.methods.lora import LoRA
from peftlab.pasts import continued
from peftlab.serve.loaded import LoadedAdapter, RowLimits
from peftlab.serve.request import ServeRequest
from peftlab.tasks import Example, Template
from peftlab.tasks.example import BeginsNowhere
from tests.export.made import deprecations_of_peft, gap, random_state
from tests.laws import world
from tests.models import tiny

SPEC = "lora:rank=4,targets=all-linear,alpha=8,begin=cue"


def adapted(family: str, spec: str = SPEC, text: str = "{source}\nsay it: {target}") -> Adaptation:
    lm = world.model(family)
    return Adaptation(parse_one(spec), random_state(spec, lm), Template(text), base_of(lm))


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_peft_gives_the_same_logits(family: str, tmp_path: Path) -> None:
    lm, adaptation = world.model(family), adapted(family)
    export("peft", {"one": adaptation}, lm, tmp_path / "one")
    with deprecations_of_peft():
        theirs = peft.PeftModel.from_pretrained(tiny(family), str(tmp_path / "one")).eval()
    template = adaptation.method.template(adaptation.template, adaptation.state)
    edits = adaptation.edits(lm)
    twice = Example("they say it\nsay it: and go on", ("it is",))  # the last place is the cue's
    for example in [*world.task().test[:3], twice]:
        row = template.encode(lm.tokenizer, example, example.targets[0], 90)
        (given,) = continued(lm, [Row(row.ids, 0, row.begin, begin=row.begin)])
        with torch.no_grad():
            ours = lm(pack([given], [edits]))
            expected = theirs(torch.tensor([row.ids])).logits[0, row.begin :]
        assert gap([ours], [expected]) < 1e-5


def test_the_ids_are_those_that_every_prompt_has_after_its_source(tmp_path: Path) -> None:
    lm, adaptation = world.model("llama"), adapted("llama")
    ids = invocation(adaptation, lm)
    assert lm.tokenizer.decode(ids) == "\nsay it:"
    export("peft", {"one": adaptation}, lm, tmp_path / "one")
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert config["alora_invocation_tokens"] == ids


def test_our_own_folder_comes_back_and_another_template_is_refused(tmp_path: Path) -> None:
    lm, adaptation = world.model("llama"), adapted("llama")
    folder = tmp_path / "one"
    export("peft", {"one": adaptation}, lm, folder)
    again = load(folder, lm)
    method = again.method
    assert isinstance(method, LoRA) and method.begin == "cue"
    edits = [one.edits(lm) for one in (adaptation, again)]
    for path, edit in edits[0].linear.items():
        other = edits[1].linear[path]
        assert edit.up is not None and other.up is not None
        torch.testing.assert_close(other.up, edit.up)
    assert not again.template.invocation  # its template goes on with them


def foreign(
    folder: Path, words: str = " so it is", text: str = "{source} ->{target}"
) -> Adaptation:
    """An aLoRA whose tokens are not what the template goes on with."""
    lm = world.model("llama")
    export("peft", {"one": adapted("llama")}, lm, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    ids = lm.tokenizer.encode(words, add_special_tokens=False)
    (folder / "adapter_config.json").write_text(
        json.dumps({**config, "alora_invocation_tokens": ids})
    )
    with pytest.warns(BeginsNowhere, match="begins at the last place of ' so it is'"):
        return load(folder, lm, Template(text))


def test_a_foreign_one_begins_at_the_last_place_of_its_own_tokens(tmp_path: Path) -> None:
    """Among others that hold them twice, once and never: PEFT's logits and its greedy replies."""
    lm, one = world.model("llama"), foreign(tmp_path / "one")
    with deprecations_of_peft():
        theirs = peft.PeftModel.from_pretrained(tiny("llama"), str(tmp_path / "one")).eval()
    sources = ["a so it is b so it is c", "it was so it is", "it was never so", "is it so it is?"]
    edits = one.edits(lm)
    template = edits.template
    assert template is not None
    examples = [Example(source, ("it said",)) for source in sources]
    rows = [template.encode(lm.tokenizer, e, e.targets[0], 90) for e in examples]
    assert [row.begin is None for row in rows] == [False, False, True, False]
    sums, _ = row_losses(lm, edits, rows)
    for row, ours in zip(rows, sums, strict=True):
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            logits = theirs(ids).logits[0, row.target_start - 1 : -1]
        wanted = ids[0, row.target_start :]
        expected = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
        assert ours == pytest.approx(float(expected), rel=1e-5)
    with pytest.warns(BeginsNowhere, match="1 of 4 prompts"):
        replies = generate(lm, [Request(one, source, 5) for source in sources])
    for row, reply in zip(rows, replies, strict=True):
        prompt = torch.tensor([row.ids[: row.target_start]])
        made = theirs.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=5,
            do_sample=False, eos_token_id=template.end_id(lm.tokenizer), pad_token_id=0,
        )  # fmt: skip
        kept = tuple(made[0, prompt.shape[1] :].tolist())
        assert reply.tokens == kept[: len(reply.tokens)]


def test_a_server_answers_by_the_base_what_lacks_its_tokens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lm, one = world.model("llama"), foreign(tmp_path / "one")
    adapter = LoadedAdapter.make("mine", 1, one, lm)
    for text, begins in (("it was so it is", True), ("it was never so", False)):
        for source in (text, tuple(lm.tokenizer.encode(text, add_special_tokens=False))):
            row = adapter.encode(lm, ServeRequest("mine", source, 4), RowLimits(1, 90))
            caplog.clear()
            (owner,) = adapter.owners(row, lm)
            assert (row.begin is not None) == begins == (not owner.edits.changes_nothing)
            assert ("lack the tokens" in caplog.text) == (not begins)
    assert adapter.fingerprints == {""}, "what comes before its tokens is the base's"


def test_a_foreign_one_is_written_with_the_ids_that_it_came_with(tmp_path: Path) -> None:
    lm, one = world.model("llama"), foreign(tmp_path / "one")
    one.save(tmp_path / "ours")
    again = Adaptation.load(tmp_path / "ours", lm)
    assert again.template.invocation == one.template.invocation
    export("peft", {"one": again}, lm, tmp_path / "two")
    ids = [json.loads((tmp_path / name / "adapter_config.json").read_text())
           ["alora_invocation_tokens"] for name in ("one", "two")]  # fmt: skip
    assert ids[0] == ids[1] == list(one.template.invocation)


@pytest.mark.parametrize("ids", ["a", [], [-1], [1, True], [1 << 30]])
def test_ids_that_are_none_are_refused(ids: object, tmp_path: Path) -> None:
    lm, folder = world.model("llama"), tmp_path / "one"
    export("peft", {"one": adapted("llama")}, lm, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps({**config, "alora_invocation_tokens": ids})
    )
    with pytest.raises(InputError, match=r"alora_invocation_tokens is .*token ids from 0"):
        load(folder, lm)


def test_replies_in_which_peft_would_begin_again_are_counted(
    tmp_path: Path,
) -> None:
    lm, adaptation = world.model("llama"), adapted("llama")
    texts = ["fine", "well\nsay it: again", "say it:", "so\nsay it"]
    assert begun_again(adaptation, lm, texts) == 1
    run = tmp_path / "run"
    rows = [
        {"index": i, "prediction": text, "references": ["fine"], "scores": {}}
        for i, text in enumerate(texts)
    ]
    adaptation.save(run / "adapter")
    (run / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = _begun_again(run / "adapter", adaptation, lm)
    assert said.startswith("Warning: 1 of 4 replies or references")
    row = adapted("llama", SPEC.replace("cue", "row"))
    assert not _begun_again(run, row, lm) and not _begun_again(tmp_path, adaptation, lm)


def test_prompts_with_nothing_in_common_there_are_refused(tmp_path: Path) -> None:
    bare = adapted("llama", text="{source} {target}")
    with pytest.raises(InputError, match="no tokens in common"):
        export("peft", {"one": bare}, world.model("llama"), tmp_path / "one")


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("merged", SPEC),
        ("merged", "full:begin=cue"),
        ("vllm", SPEC),
        ("vllm", "prompt_tuning:begin=cue"),
        ("embedding-rows", "prompt_tuning:begin=cue"),
        ("peft", "ia3:begin=cue"),
        ("peft", "prefix_tuning:begin=cue"),
        ("peft", "prompt_tuning:begin=cue"),
    ],
)
def test_what_cannot_hold_it_says_so(kind: str, spec: str, tmp_path: Path) -> None:
    lm = world.model("llama")
    method = parse_one(spec)
    state = method.materialise(method.init(lm, world.task(), torch.Generator()), lm)
    adaptation = Adaptation(method, state, world.task().template, base_of(lm))
    with pytest.raises(InputError, match=r"(begins|stand) at the cue"):
        export(kind, {"one": adaptation}, lm, tmp_path / "one")
    assert not (tmp_path / "one").exists()
