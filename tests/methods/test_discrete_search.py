"""Discrete search against exhaustive search, plain scoring and plain autograd."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from peftlab.edits import Edits
from peftlab.errors import InputError
from peftlab.frozen.model import FrozenLM
from peftlab.loss import mean_loss
from peftlab.methods import parse_one
from peftlab.methods.adaptation import Adaptation
from peftlab.methods.base import Candidate
from peftlab.methods.discrete_search import DiscreteSearch
from peftlab.methods.search.prompt import Encode, Frame, Prompt, asked, not_text, settled
from peftlab.tasks import Encoded, Example, Template
from peftlab.training import Interrupted, TrainConfig, train
from peftlab.training.display import Show
from peftlab.training.rows import Rows as TrainingRows
from peftlab.training.search import Examples
from tests.laws.world import model, task, tokenizer
from tests.models import tiny
from tests.tasks.tokenizers_for_tests import byte_level, sentencepiece

STRATEGIES = ("gcg", "autoprompt", "pez", "phrases")
EXAMPLE = Example("name : Blue Spice | area : city centre", ("Blue Spice is a coffee shop.",))


def _examples(count: int = 5, seed: int = 0, **config: Any) -> Examples:
    lm = model("llama")
    pairs = TrainingRows(task().pairs("train"), task().template, tokenizer(), lm.shape.context)
    rng = torch.Generator().manual_seed(seed)
    method = parse_one("discrete_search")
    return Examples(lm, method, task(), pairs, range(count), TrainConfig(**config), rng)


def _loss(lm: FrozenLM, instruction: str, split: str = "train", count: int | None = None) -> float:
    """The loss of a split under an instruction, by evaluation's own way."""
    template = task().template.with_instruction(instruction)
    pairs = task().pairs(split)[:count]
    rows = [template.encode(tokenizer(), example, target, 96) for example, target in pairs]
    return mean_loss(lm, Edits(), rows)


# -- candidates ------------------------------------------------------------------------------


def test_candidates_of_one_batch_score_as_alone_and_as_in_evaluation() -> None:
    texts = ["the cat sings", "under the old tree", "red"]
    examples = _examples()
    together = examples.losses([asked(examples, text) for text in texts])
    for text, loss in zip(texts, together, strict=True):
        (alone,) = examples.losses([asked(examples, text)])
        assert loss == pytest.approx(alone, abs=1e-5)
        assert loss == pytest.approx(_loss(model("llama"), text, count=5), abs=1e-5)


def test_candidates_beyond_the_limit_of_tokens_are_scored_in_several_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examples = _examples()
    candidates = [asked(examples, text) for text in ("red", "blue", "green", "tall")]
    expected = examples.losses(candidates)
    monkeypatch.setattr("peftlab.training.search._TOKENS_A_BATCH", 250)
    assert examples.losses(candidates) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("batch_size", [2, 8])
def test_the_gradient_is_that_of_the_plain_model(batch_size: int) -> None:
    """Oracle: autograd on transformers' model, one row at a time, no peftlab code in between."""
    lm, plain = model("llama"), tiny("llama").eval()
    examples = _examples(count=5, batch_size=batch_size)
    ids = tuple(tokenizer().encode("the cat sings")[:3])
    prompt = settled(examples.encode, examples.template, tokenizer(), ids)
    assert prompt is not None
    frame = Frame(examples.encode, examples.template, tokenizer(), prompt)
    vectors = lm.embed(torch.tensor(prompt.ids))
    gradient = examples.gradient(Candidate(Edits(embeddings=vectors), frame.with_pseudo_tokens()))
    leaf = vectors.clone().requires_grad_()
    total, count = torch.zeros(()), 0
    for row in asked(examples, prompt.text).rows:
        assert row.ids[:3] == prompt.ids
        rest = plain.get_input_embeddings()(torch.tensor(row.ids[3:]))
        logits = plain(inputs_embeds=torch.cat([leaf, rest])[None], use_cache=False).logits[0]
        start, targets = row.target_start, torch.tensor(row.ids[row.target_start :])
        predicted = logits[start - 1 : len(row.ids) - 1]
        total = total + torch.nn.functional.cross_entropy(predicted, targets, reduction="sum")
        count += len(targets)
    (expected,) = torch.autograd.grad(total / count, leaf)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)


# -- what is found ----------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["gcg", "autoprompt"])
def test_one_token_of_a_small_vocabulary_is_found_as_by_exhaustion(strategy: str) -> None:
    lm, losses = model("llama"), {}
    example, target = task().pairs("train")[0]
    for token in sorted({*range(120)} - {*not_text(tokenizer(), 120)}):
        text = tokenizer().decode([token])
        row = task().template.with_instruction(text).encode(tokenizer(), example, target, 96)
        bare = task().template.encode(tokenizer(), example, target, 96)
        if row.ids[0] == token and row.ids[2:] == bare.ids:  # 1 is the line break
            losses[text] = _loss(lm, text, count=4)
    assert len(losses) > 60
    width = 120 if strategy == "autoprompt" else 3000
    method = DiscreteSearch(strategy=strategy, text="red", length=1, width=width, top_k=120)
    start = method.init(lm, task(), torch.Generator())
    updated = method.update(start, _examples(count=4))
    best = min(losses, key=lambda text: losses[text])
    assert updated.state.text["instruction"] == best != start.text["instruction"]
    assert updated.loss == pytest.approx(losses[best], abs=1e-5)


@pytest.mark.parametrize("start", ["instruction", "vocabulary"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_loss_falls_and_the_best_on_validation_is_kept(
    strategy: str, start: str, tmp_path: Path
) -> None:
    if strategy == "phrases" and start == "vocabulary":
        pytest.skip("refused: see below")
    lm, small = model("gpt2"), replace(task(), train=task().train[:6])
    method = parse_one(f"discrete_search:strategy={strategy},start={start},width=8,rate=1.0")
    config = TrainConfig(steps=12, batch_size=6, evaluate_every=4)
    trained = train(lm, method, small, config, folder=tmp_path)
    validated = [line for line in _lines(tmp_path) if "validation_loss" in line]
    assert [line["step"] for line in validated] == [0, 4, 8, 12]
    losses = [line["validation_loss"] for line in validated]
    assert trained.validation_loss == min(losses) < losses[0]
    assert trained.best_step == validated[losses.index(min(losses))]["step"]
    instruction = trained.adaptation.state.text["instruction"]
    assert _loss(lm, instruction, "validation") == pytest.approx(min(losses), abs=1e-5)
    # All training rows are in every step, so what a step accepts is better for good.
    steps = [line for line in _lines(tmp_path) if "instruction" in line]
    assert [line["step"] for line in steps] == list(range(1, 13))
    accepted = [line["loss"] for line in steps]
    assert all(later <= earlier + 1e-5 for earlier, later in pairwise(accepted))
    assert accepted[-1] == pytest.approx(_loss(lm, steps[-1]["instruction"], count=6), abs=1e-5)
    assert trained.tokens > 12 * 6 * 15
    assert not trained.adaptation.state.tensors


def test_a_start_that_nothing_beats_is_kept() -> None:
    lm = model("gpt2")
    method = DiscreteSearch(strategy="autoprompt", width=1, text="red", length=1)
    trained = train(lm, method, task(), TrainConfig(steps=1, batch_size=1, evaluate_every=1))
    start = _loss(lm, "red", "validation")
    assert trained.validation_loss is not None and trained.validation_loss <= start + 1e-5


def _lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


# -- resuming and storing ---------------------------------------------------------------------


@contextmanager
def _interrupting(_title: str, _total: int, first: int) -> Iterator[Show]:
    def show(step: int, _loss: float, _speed: float) -> None:
        if step == 3 and first == 0:
            os.kill(os.getpid(), signal.SIGINT)

    yield show


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_interrupted_and_resumed_equals_uninterrupted(strategy: str, tmp_path: Path) -> None:
    lm = model("gpt2")
    method = parse_one(f"discrete_search:strategy={strategy},width=4,rate=1.0")
    config = TrainConfig(steps=6, batch_size=4, evaluate_every=2)
    whole = train(lm, method, task(), config, folder=tmp_path / "whole")
    with pytest.raises(Interrupted, match="after step 3 of 6"):
        train(lm, method, task(), config, folder=tmp_path / "cut", display=_interrupting)
    cut = train(lm, method, task(), config, folder=tmp_path / "cut", display=_interrupting)
    assert cut.adaptation.state.text == whole.adaptation.state.text
    assert (cut.validation_loss, cut.best_step, cut.tokens) == (
        whole.validation_loss,
        whole.best_step,
        whole.tokens,
    )
    for one, other in zip(_lines(tmp_path / "cut"), _lines(tmp_path / "whole"), strict=True):
        assert {**one, "tokens_per_second": 0} == {**other, "tokens_per_second": 0}


def test_what_is_stored_is_text_and_works_as_a_hard_prompt_does(tmp_path: Path) -> None:
    lm = model("gpt2")
    trained = train(lm, DiscreteSearch(width=8), task(), TrainConfig(steps=3, batch_size=4))
    trained.adaptation.save(tmp_path)
    loaded = Adaptation.load(tmp_path)
    assert loaded.state.tensors == {} and loaded.method.count(lm.shape).stored == 0
    template = loaded.edits(lm).template
    assert template is not None
    hard = parse_one("hard_prompt:instruction=x")
    hard = replace(hard, instruction=loaded.state.text["instruction"])
    state = hard.init(lm, task(), torch.Generator())
    assert template == hard.template(task().template, state)


# -- re-tokenisation --------------------------------------------------------------------------


def _encode(made: Any, limit: int = 200) -> Encode:
    return lambda template, _: [template.encode(made, EXAMPLE, EXAMPLE.targets[0], limit)]


TOKENIZERS = {
    "byte-level": lambda: byte_level(),
    "with bos": lambda: byte_level(bos=True),
    "sentencepiece": lambda: sentencepiece("first"),
    "sentencepiece, normaliser": lambda: sentencepiece("normalizer"),
}
TEMPLATES = (
    "{source}\nSummary: {target}",
    "{instruction} {source}\nSummary: {target}",
    "{source}\n{instruction}\nSummary: {target}",
)


@pytest.mark.parametrize("cut", [0, 4])
@pytest.mark.parametrize("text", TEMPLATES)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_survivors_are_what_their_text_is_tokenised_to_in_its_row(
    kind: str, text: str, cut: int
) -> None:
    made, template = TOKENIZERS[kind](), Template(text)
    words = tuple(made.encode("Describe the coffee shop", add_special_tokens=False))
    (whole,) = _encode(made)(template.with_instruction(made.decode(words)), None)
    encode = _encode(made, len(whole.ids) - cut)
    start = settled(encode, template, made, words)
    assert start is not None and start.text.strip() == "Describe the coffee shop"
    frame = Frame(encode, template, made, start)
    (row,) = encode(template.with_instruction(start.text), None)
    assert (row.dropped > 0) == (cut > 0)
    (pseudo,) = frame.with_pseudo_tokens()
    assert sum(token < 0 for token in pseudo.ids) == len(words)
    assert tuple(words[-token - 1] if token < 0 else token for token in pseudo.ids) == row.ids
    rng, survived = torch.Generator().manual_seed(1), 0
    for _ in range(60):
        drawn = list(words)
        slot = int(torch.randint(len(words), (1,), generator=rng))
        drawn[slot] = int(torch.randint(len(made), (1,), generator=rng))
        survivor = frame.survivor(tuple(drawn))
        if survivor is not None and survivor != start:
            survived += 1
            (other,) = encode(template.with_instruction(survivor.text), None)
            changed = [i for i, (a, b) in enumerate(zip(row.ids, other.ids, strict=True)) if a != b]
            assert survivor.ids == tuple(drawn) and len(changed) == 1
            assert other.ids[changed[0]] == drawn[slot]
    assert survived > 10


def test_ids_that_come_back_as_others_are_no_candidates() -> None:
    made, template = byte_level(), Template(TEMPLATES[0])
    letters = tuple(made.convert_tokens_to_ids(c) for c in "coff")
    half = next(i for i in range(len(made)) if "\ufffd" in made.decode([i]))
    assert len(made.encode("coff")) < 4
    for ids in (letters, (half,), ()):
        assert settled(_encode(made), template, made, ids) is None
    start = settled(_encode(made), template, made, tuple(made.encode("coffee shop")))
    assert start is not None and len(start.ids) > 1
    frame = Frame(_encode(made), template, made, start)
    assert frame.survivor((half, *start.ids[1:])) is None
    assert half in not_text(made, len(made)) and made.eos_token_id in not_text(made, len(made))
    assert len(made) + 3 in not_text(made, len(made) + 5)


def test_rows_in_which_the_prompt_merges_with_its_neighbour_are_left_out() -> None:
    """ "…cof" + "fee" is other tokens than "… :" + "fee"; all such rows together are an error."""
    made, template = byte_level(), Template("{source}{instruction}\n{target}")
    sources = ("a shop: cof", "a shop :", "a shop ;")
    ids = tuple(made.encode("fee"))

    def encode(under: Template, count: int | None) -> list[Encoded]:
        return [under.encode(made, Example(s, ("x",)), "x", 200) for s in sources[:count]]

    frame = Frame(encode, template, made, Prompt(ids, "fee"))
    rows = frame.with_pseudo_tokens()
    assert [made.decode([i for i in row.ids if i >= 0])[:8] for row in rows] == [
        "a shop :", "a shop ;"
    ]  # fmt: skip
    other = frame.survivor((*ids[:-1], made.encode("s")[0]))
    assert other is not None
    with pytest.raises(InputError, match="merges with what stands beside it"):
        Frame(lambda t, _: encode(t, 1), template, made, Prompt(ids, "fee"))


def test_a_start_whose_end_merges_with_the_line_break_loses_that_end() -> None:
    """As in Llama 3's tokenizer, where ".\\n" is one token."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<eos>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    raw.train_from_iterator(["x.\ny", "z.\nw", "say.\nit"], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>")
    assert ".Ċ" in made.get_vocab()
    lm = FrozenLM(tiny("gpt2", vocab_size=300), made, "merging")
    state = DiscreteSearch(text="q r.").init(lm, task(), torch.Generator())
    assert state.text["instruction"] == "q r"


# -- settings that cannot be used -------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("discrete_search:width=0", "width is 0"),
        ("discrete_search:length=400", "length=400 leaves no room"),
        ("discrete_search:rate=0", "rate is 0"),
        ("discrete_search:strategy=phrases,start=vocabulary", "edited in words"),
        ("discrete_search:strategy=beam", "strategy is 'beam'"),
        ("lora+discrete_search", "searches alone"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_one(spec).check(model("gpt2").shape)


def test_a_prompt_is_cut_or_repeated_to_its_length() -> None:
    lm = model("gpt2")
    own = tokenizer().encode(task().instruction)
    for length in (3, len(own) + 4):
        state = DiscreteSearch(length=length).init(lm, task(), torch.Generator())
        assert state.text["ids"] == (own * 2)[:length]
