"""Where edits begin that begin at the cue: a place in tokens, whatever the tokens are."""

from __future__ import annotations

from typing import Any

import pytest

from peftlab.errors import InputError
from peftlab.tasks import Example, Template
from peftlab.tasks.cue import cue_ids
from peftlab.tasks.encode import last_place

EXAMPLE = Example("the cat sat on the mat", ("a cat",), {"question": "who sat?"})
LIMIT = 200


def encoded(tokenizer: Any, text: str, *, target: str | None = "a cat", **changes: Any) -> Any:
    template = Template(text, begin="cue", **changes)
    return template.encode(tokenizer, EXAMPLE, target, changes.pop("limit", LIMIT))


def read(tokenizer: Any, text: str) -> str:
    """A text as this tokenizer gives it back."""
    return str(tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])).strip()


@pytest.mark.parametrize("text", ["{source}\nSummary: {target}", "Read: {source} So? {target}"])
def test_the_cue_is_what_follows_the_source(any_tokenizer: Any, text: str) -> None:
    row = encoded(any_tokenizer, text)
    whole = Template(text).encode(any_tokenizer, EXAMPLE, "a cat", LIMIT)
    assert row.ids == whole.ids, "ids stay as they are"
    assert 0 < row.begin < row.target_start
    after = any_tokenizer.decode(row.ids[row.begin : row.target_start])
    cue = text.partition("{source}")[2].removesuffix(" {target}")
    assert after.strip() == read(any_tokenizer, cue)


def test_another_place_can_be_named(any_tokenizer: Any) -> None:
    text = "{source}\nQ: {question}{begin}\nA: {target}"
    row = encoded(any_tokenizer, text)
    assert any_tokenizer.decode(row.ids[row.begin : row.target_start]).strip() == read(
        any_tokenizer, "A:"
    )
    plain = Template(text.replace("{begin}", "")).encode(any_tokenizer, EXAMPLE, "a cat", LIMIT)
    assert row.ids == plain.ids


def test_a_mark_may_stand_once() -> None:
    with pytest.raises(InputError, match="more than once"):
        Template("{source}{begin} {begin}{target}").pseudo_tokens  # noqa: B018


def test_a_token_across_the_boundary_is_the_cues(bpe: Any) -> None:
    source = Example("the c", ("at",))
    whole = Template("{source}at: {target}").encode(bpe, source, None, LIMIT)
    row = Template("{source}at: {target}", begin="cue").encode(bpe, source, None, LIMIT)
    assert row.ids == whole.ids
    assert "the c".startswith(bpe.decode(row.ids[: row.begin]))
    assert bpe.decode(row.ids[row.begin :]).strip().endswith("at:")


def test_without_words_after_the_source_its_last_token_is_edited(any_tokenizer: Any) -> None:
    row = encoded(any_tokenizer, "{source} {target}")
    assert row.begin == row.target_start - 1
    prompt = encoded(any_tokenizer, "{source} {target}", infix=3)
    assert list(prompt.ids[prompt.begin :][:3]) == [-1, -2, -3]
    assert prompt.target_start == prompt.begin + 3


def test_a_prompt_stands_at_the_cue(any_tokenizer: Any) -> None:
    text = "{source}\nSummary: {target}"
    plain, row = encoded(any_tokenizer, text), encoded(any_tokenizer, text, infix=2)
    assert row.begin == plain.begin
    assert row.ids == (*plain.ids[: plain.begin], -1, -2, *plain.ids[plain.begin :])
    numbered = encoded(any_tokenizer, "{p:3}" + text, infix=2)
    assert [i for i in numbered.ids if i < 0] == [-1, -2, -3, -4, -5]


@pytest.mark.parametrize("truncate", ["start", "end"])
@pytest.mark.parametrize("infix", [0, 4])
def test_what_is_cut_moves_the_place(any_tokenizer: Any, truncate: Any, infix: int) -> None:
    text = "{source}\nSummary: {target}"
    whole = encoded(any_tokenizer, text, infix=infix)
    template = Template(text, begin="cue", infix=infix, truncate=truncate)
    row = template.encode(any_tokenizer, EXAMPLE, "a cat", len(whole.ids) - 2)
    assert row.dropped >= 2
    assert row.begin == whole.begin - row.dropped
    assert row.ids[row.begin :] == whole.ids[whole.begin :]


def test_in_a_chat_it_is_the_head_of_the_replys_turn(chat_bpe: Any) -> None:
    template = Template("{source}\nIn short? {target}", chat=True, begin="cue")
    row = template.encode(chat_bpe, EXAMPLE, "a cat", LIMIT)
    frame = template.framing(chat_bpe)
    assert frame is not None
    assert chat_bpe.decode(row.ids[row.begin : row.target_start]) == frame.bridge
    assert chat_bpe.decode(row.ids[: row.begin]).endswith("In short?")


def test_it_is_stored_and_older_templates_are_as_they_were() -> None:
    old = Template("{source}: {target}")
    assert not {"begin", "infix"} & old.to_dict().keys()
    new = old.with_prompt(5, "cue")
    assert Template.from_dict(new.to_dict()) == new
    assert old.identity() != new.identity()
    assert new.beginning("row") == old and new.with_prompt(3).begin == "row"
    with pytest.raises(InputError, match="no cue to stand at"):
        Template("{source}{target}", infix=3)
    with pytest.raises(InputError, match="row or cue"):
        Template.from_dict({**old.to_dict(), "begin": "middle"})


def test_the_cue_by_its_ids(bpe: Any) -> None:
    constant = Template("{source}\n\nTL;DR:{target}", begin="cue")
    assert bpe.decode(cue_ids(constant, bpe)) == "\n\nTL;DR:"
    asked = Template("{source}\nQ: {question}\nA:{target}", begin="cue", infix=2)
    assert bpe.decode(cue_ids(asked, bpe)).strip() == "Q:", "what a column holds is in no prompt"
    assert cue_ids(Template("{source}{target}", begin="cue"), bpe) == ()


def test_the_last_place_of_ids() -> None:
    assert last_place([1, 2, 3, 2, 3, 4], [2, 3]) == 3
    assert last_place([1, 2], [2, 3]) is None


def test_a_column_called_begin_is_no_place(bpe: Any) -> None:
    example = Example("from", ("x",), {"begin": "Rome"})
    with pytest.raises(InputError, match="a column called begin"):
        Template("{source} {begin}: {target}").encode(bpe, example, None, LIMIT)
