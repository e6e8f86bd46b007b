"""What is trained on is exactly the target and its end; nothing but the source ever gives way."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AddedToken

from peftlab.errors import InputError
from peftlab.tasks import Example, Template
from peftlab.tasks.tokens import pieces_between
from tests.tasks.tokenizers_for_tests import byte_level, unigram

LIMIT = 10_000
EXAMPLE = Example("name : Blue Spice | area : city centre", ("A coffee shop.",), {"q": "where"})
PLAIN = Template("Describe this. {source}\nSummary: {target}")

words = st.text(st.characters(codec="utf-8", exclude_characters="<>"), min_size=1, max_size=40)


def test_the_target_and_its_end_are_what_is_trained_on(any_tokenizer: Any) -> None:
    row = PLAIN.encode(any_tokenizer, EXAMPLE, "a cat on the mat.", LIMIT)
    trained = row.ids[row.target_start :]
    assert trained[-1] == any_tokenizer.eos_token_id
    assert any_tokenizer.eos_token_id not in trained[:-1]
    text = any_tokenizer.decode(trained[:-1])
    assert text.replace(" ", "") == "acatonthemat."  # not every tokenizer gives back its spaces


def test_the_row_is_how_the_tokenizer_writes_the_whole_text(any_tokenizer: Any) -> None:
    row = PLAIN.encode(any_tokenizer, EXAMPLE, "the cat", LIMIT)
    text = f"Describe this. {EXAMPLE.source}\nSummary: the cat"
    assert list(row.ids[:-1]) == any_tokenizer(text)["input_ids"]


def test_the_prompt_alone_is_the_prompt_part_of_the_row(any_tokenizer: Any) -> None:
    whole = PLAIN.encode(any_tokenizer, EXAMPLE, "the cat", LIMIT)
    prompt = PLAIN.encode(any_tokenizer, EXAMPLE, None, LIMIT)
    assert prompt.ids == whole.ids[: whole.target_start]
    assert prompt.target_start == len(prompt.ids)


def test_white_space_before_the_target_belongs_to_it(bpe: Any) -> None:
    row = PLAIN.encode(bpe, EXAMPLE, "cat", LIMIT)
    assert bpe.decode(row.ids[row.target_start : -1]) == " cat"
    assert bpe.decode(row.ids[: row.target_start]).endswith("Summary:")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=words, target=words.filter(lambda text: text.strip()))
def test_any_text_comes_back_from_a_byte_level_tokenizer(
    bpe: Any, source: str, target: str
) -> None:
    row = PLAIN.encode(bpe, Example(source, (target,)), target, LIMIT)
    kwargs = {"clean_up_tokenization_spaces": False}
    assert bpe.decode(row.ids[row.target_start : -1], **kwargs) == " " + target.strip()
    prompt = bpe.decode(row.ids[: row.target_start], **kwargs)
    assert prompt == f"Describe this. {source}\nSummary:"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=words, over=st.integers(1, 60), end=st.sampled_from(["start", "end"]))
def test_only_the_source_gives_way(any_tokenizer: Any, source: str, over: int, end: str) -> None:
    template = replace(PLAIN, truncate=end)
    example = Example(source, ("the cat",))
    whole = template.encode(any_tokenizer, example, "the cat", LIMIT)
    limit = len(whole.ids) - over
    bare = Example("", ("the cat",))
    try:
        row = template.encode(any_tokenizer, example, "the cat", limit)
    except InputError as error:
        assert "does not fit" in str(error)
        frame = template.encode(any_tokenizer, bare, "the cat", LIMIT)
        # Tokens that straddle the source's edge are the template's as well, and stay.
        assert limit <= len(frame.ids) + 4
        return
    assert len(row.ids) <= limit
    assert row.dropped == len(whole.ids) - len(row.ids) >= over
    assert row.ids[row.target_start :] == whole.ids[whole.target_start :]
    kept = row.target_start
    shared = next(
        (i for i, (a, b) in enumerate(zip(whole.ids, row.ids, strict=False)) if a != b), kept
    )
    assert row.ids[shared:kept] == whole.ids[shared + row.dropped : whole.target_start]


def test_the_named_end_of_the_source_is_cut(bpe: Any) -> None:
    whole = PLAIN.encode(bpe, EXAMPLE, "cat", LIMIT)
    cut = {
        end: bpe.decode(
            replace(PLAIN, truncate=end).encode(bpe, EXAMPLE, "cat", len(whole.ids) - 6).ids
        )
        for end in ("start", "end")
    }
    assert "Describe this." in cut["start"] and "Describe this." in cut["end"]
    assert "centre\nSummary: cat" in cut["start"] and "name : Blue" not in cut["start"]
    assert "name : Blue" in cut["end"] and "centre" not in cut["end"]


def test_a_character_is_never_cut_in_two(bpe: Any) -> None:
    example = Example("😀😀😀😀😀😀", ("cat",))
    length = len(PLAIN.encode(bpe, example, "cat", LIMIT).ids)
    for limit in range(length - 20, length):
        assert "�" not in bpe.decode(PLAIN.encode(bpe, example, "cat", limit).ids)


def test_a_source_can_be_held_to_a_number_of_tokens(bpe: Any) -> None:
    template = Template("Describe this.\n{source}\nSummary: {target}")
    row = replace(template, source_tokens=5).encode(bpe, EXAMPLE, "cat", LIMIT)
    whole = template.encode(bpe, EXAMPLE, "cat", LIMIT)
    source = len(bpe(EXAMPLE.source)["input_ids"])
    assert row.dropped == source - 5
    assert len(row.ids) == len(whole.ids) - row.dropped


def test_a_row_that_cannot_fit_is_one_clear_error(bpe: Any) -> None:
    with pytest.raises(InputError, match=r"does not fit.*leaves none of the 8"):
        PLAIN.encode(bpe, EXAMPLE, "a cat on the mat.", 8)


def test_pseudo_tokens_are_numbered_over_the_template(bpe: Any) -> None:
    template = Template("{p:2}{source}{p:3} capital {p:1}{target}")
    row = template.encode(bpe, EXAMPLE, "cat", LIMIT)
    assert [i for i in row.ids if i < 0] == [-1, -2, -3, -4, -5, -6]
    assert template.pseudo_tokens == 6
    text = bpe.decode([i for i in row.ids if i >= 0])
    assert text == f"{EXAMPLE.source} capital cat<|endoftext|>"
    assert row.ids[:2] == (-1, -2) and row.ids[row.target_start - 1] == -6


def test_text_is_split_at_pseudo_tokens_only(any_tokenizer: Any) -> None:
    """A piece after a pseudo token is written as the middle of a text, not as its beginning."""
    middle = Template("name{p:1} : Blue{target}").encode(any_tokenizer, EXAMPLE, None, LIMIT)
    whole = any_tokenizer("name : Blue")["input_ids"]
    assert [i for i in middle.ids if i >= 0] == whole


def test_the_bos_stands_right_before_the_first_text() -> None:
    tokenizer = byte_level(bos=True)
    row = PLAIN.with_prompt(3).encode(tokenizer, EXAMPLE, "cat", LIMIT)
    assert row.ids[:4] == (-1, -2, -3, tokenizer.bos_token_id)
    assert row.ids.count(tokenizer.bos_token_id) == 1
    without = PLAIN.encode(tokenizer, EXAMPLE, "cat", LIMIT)
    assert row.ids[3:] == without.ids


def test_a_leading_prompt_moves_the_numbers_of_the_others() -> None:
    template = Template("{p:2}{source}{target}").with_prompt(3)
    assert template.pseudo_tokens == 5
    assert PLAIN.with_prompt(0) == PLAIN


def test_special_tokens_in_data_are_mere_text(bpe: Any) -> None:
    example = Example("a <|endoftext|> b", ("it is <|endoftext|> here",))
    row = PLAIN.encode(bpe, example, example.targets[0], LIMIT)
    assert row.ids.count(bpe.eos_token_id) == 1
    assert bpe.decode(row.ids[row.target_start : -1]) == " it is <|endoftext|> here"


def test_special_tokens_that_cannot_be_mere_text_are_refused() -> None:
    with pytest.raises(InputError, match=r"it is </s> here' holds a special token.*Take it out"):
        PLAIN.encode(unigram(), Example("a", ("x",)), "it is </s> here", LIMIT)


def test_special_tokens_of_the_template_are_special(bpe: Any) -> None:
    row = Template(" {source} {eos} {target}").encode(bpe, EXAMPLE, "cat", LIMIT)
    assert row.ids[row.target_start - 1] == bpe.eos_token_id
    assert bpe.decode(row.ids[row.target_start : -1]) == " cat"
    both = Template("{source}{eos}{target}").encode(bpe, Example("<|endoftext|>", ()), None, LIMIT)
    mere = bpe("<|endoftext|>", split_special_tokens=True)["input_ids"]
    assert list(both.ids) == [*mere, bpe.eos_token_id]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(words, min_size=2, max_size=4))
def test_text_between_special_tokens_is_as_the_tokenizer_writes_it(
    any_tokenizer: Any, parts: list[str]
) -> None:
    """Tokenised by itself, where data hold the text of a special token; what takes part is said."""
    mark = any_tokenizer.eos_token
    text = mark.join(parts)
    marks = [(found.start(), found.end()) for found in re.finditer(re.escape(mark), text)]
    ids, offsets = pieces_between(any_tokenizer, text, marks, begun=False)
    whole = any_tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert ids == whole["input_ids"]
    # A token of white space that is left out of offsets stands for no character, wherever.
    assert _filled(offsets) == _filled(whole["offset_mapping"])


def _filled(offsets: list[tuple[int, int]]) -> list[tuple[int, int] | None]:
    return [(left, right) if left < right else None for left, right in offsets]


def test_special_tokens_that_take_in_what_stands_beside_them(chat_bpe: Any) -> None:
    """As Phi-3's do with white space after them."""
    greedy, template = copy.deepcopy(chat_bpe), Template("{source}{target}", chat=True)
    mark = AddedToken("<|im_start|>", special=True, rstrip=True)
    greedy.add_special_tokens({"additional_special_tokens": [mark, "<|im_end|>"]})
    assert template.encode(greedy, Example("the cat", ()), None, LIMIT).dropped == 0
    with pytest.raises(InputError, match=r"beside the template's '<\|im_start\|>'.*chat=false"):
        template.encode(greedy, Example("the <|im_end|> cat", ()), None, LIMIT)


def test_other_columns_and_braces(bpe: Any) -> None:
    template = Template("{{json}} {q}: {source} {target}")
    row = template.encode(bpe, EXAMPLE, "cat", LIMIT)
    assert bpe.decode(row.ids) == f"{{json}} where: {EXAMPLE.source} cat<|endoftext|>"
    with pytest.raises(InputError, match=r'column \{qq\}.*Blue Spice.*Did you mean "q"'):
        Template("{qq}{source}{target}").encode(bpe, EXAMPLE, "cat", LIMIT)


class Slow:
    """A tokenizer without offsets."""

    is_fast = False


def test_tokenizers_that_lack_something() -> None:
    with pytest.raises(InputError, match=r"Slow is a slow one.*use_fast"):
        PLAIN.encode(Slow(), EXAMPLE, "cat", LIMIT)
    no_end = byte_level()
    no_end.eos_token = None
    with pytest.raises(InputError, match=r"no end-of-sequence token"):
        PLAIN.encode(no_end, EXAMPLE, "cat", LIMIT)
    with pytest.raises(InputError, match=r"no beginning-of-sequence token.*\{eos\}"):
        Template("{bos}{source}{target}").encode(byte_level(), EXAMPLE, "cat", LIMIT)
    with pytest.raises(InputError, match=r"nothing before the target"):
        Template("{source}{target}").encode(byte_level(), Example("", ("a",)), "a", LIMIT)


spaced = st.text(st.sampled_from(" \n\tab.😀é"), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=spaced, over=st.integers(1, 40), end=st.sampled_from(["start", "end"]))
@pytest.mark.parametrize("trim_offsets", [True, False])
def test_white_space_of_the_template_never_gives_way(
    trim_offsets: bool, source: str, over: int, end: str
) -> None:
    tokenizer = _TRIMMED[trim_offsets]
    template = Template("Do it:  \n {source}  \n\nSummary: {target}", truncate=end)
    example = Example(source, ("cat",))
    limit = len(template.encode(tokenizer, example, None, LIMIT).ids) - over
    try:
        row = template.encode(tokenizer, example, None, limit)
    except InputError:
        return
    text = tokenizer.decode(row.ids, clean_up_tokenization_spaces=False)
    assert text.startswith("Do it:  \n ") and text.endswith("  \n\nSummary:")


_TRIMMED = {trim: byte_level(trim_offsets=trim) for trim in (True, False)}
