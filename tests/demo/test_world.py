"""The demo world: the same every time, splits apart, house styles kept out of the pretraining."""

from __future__ import annotations

import re
from itertools import islice
from random import Random

import pytest

from peftlab.demo.documents import HELD_OUT_BUCKETS, PRETRAINING_BUCKETS, DocumentSource
from peftlab.demo.facts import draw_fact, fields_in, write_article
from peftlab.demo.formats import FIELD, fields_of, random_format, render
from peftlab.demo.houses import HOUSES, House
from peftlab.demo.topics import ASIDES, EVENTS, TOPICS
from peftlab.demo.world import demo_tasks, examples, general_text
from peftlab.errors import InputError

SPLITS = ("train", "validation", "test")


def test_known_lines_by_hand() -> None:
    """Each house's line, worked out by hand from one fact."""
    base = draw_fact(Random(0), EVENTS, range(10))
    own = {"DAY": "Sunday", "DY": "Sun", "TOWN": "Oakham", "EVENT": "kite race", "SORT": "games"}
    own |= {"HOST": "Ida Fenson", "SURNAME": "Fenson", "COUNT": "670", "PLACE": "old mill"}
    fact = type(base)(EVENTS, base.values | own)
    targets = {house.name: house.target(fact) for house in HOUSES if house.topic is EVENTS}
    assert targets == {
        "demo": "Sun / Oakham [games] kite race ~ I. Fenson; packed",
        "demo-invite": (
            "packed games: be at the old mill in Oakham on Sunday, I. Fenson has a kite race."
        ),
    }


@pytest.mark.parametrize(
    ("count", "scale"), [("20", "cosy"), ("330", "cosy"), ("340", "lively"), ("990", "packed")]
)
def test_scale_is_by_thirds(count: str, scale: str) -> None:
    base = draw_fact(Random(0), EVENTS, range(10))
    fact = type(base)(EVENTS, base.values | {"COUNT": count})
    assert HOUSES[0].target(fact).endswith(f"; {scale}")


def test_same_seed_same_world_and_other_seed_another() -> None:
    assert general_text(3, 20) == general_text(3, 20)
    assert general_text(3, 20) != general_text(4, 20)
    assert examples("train", 20, 1) == examples("train", 20, 1)
    assert examples("train", 20, 1) != examples("train", 20, 2)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r'No split "valid".* Did you mean "validation"'):
        examples("valid")
    with pytest.raises(InputError, match=r'No demo task "demo-shops".* Did you mean "demo-shop"'):
        examples("train", task="demo-shops")


def test_the_world_is_the_one_that_the_bundled_model_saw() -> None:
    """A change of the generator shows here: the model and its published numbers go with it."""
    assert examples("test", 1) == [PINNED]


PINNED = {
    "source": (
        "Good news from Coldbridge: the puppet quiz is back, and Friday is the day. A ticket is 86 "
        "crowns. The host this time is Lotte Wesing. There are 40 seats. The long chapel is the "
        "venue."
    ),
    "target": "Fri / Coldbridge [lights] puppet quiz ~ L. Wesing; cosy",
}


def test_splits_have_their_sizes_and_share_no_fact() -> None:
    for task in demo_tasks().values():
        rows = {split: task.splits(split) for split in SPLITS}
        assert {split: len(part) for split, part in rows.items()} == {
            "train": 1000,
            "validation": 100,
            "test": 200,
        }
        sources = [source for part in rows.values() for source, _ in part]
        assert len(set(sources)) == len(sources)


@pytest.mark.parametrize("seed", [0, 1])
def test_towns_with_their_people_are_in_one_split_only(seed: int) -> None:
    line = re.compile(r"(?P<town>\w+) \[\w+\] [\w ]+ ~ (?P<person>\w\. \w+);")
    keys = {split: set[tuple[str, ...]]() for split in SPLITS}
    for split in SPLITS:
        for row in examples(split, 300, seed):
            match = line.search(row["target"])
            assert match is not None
            # The full name, as the target has the initial alone.
            initial, surname = match["person"].split(". ")
            name = re.search(rf"{initial}\w+ {surname}", row["source"])
            assert name is not None
            keys[split].add((match["town"], name[0]))
    assert not keys["train"] & keys["validation"]
    assert not keys["train"] & keys["test"]
    assert not keys["validation"] & keys["test"]


def test_pretraining_and_held_out_facts_are_apart() -> None:
    rng = Random(0)
    for buckets in (PRETRAINING_BUCKETS, HELD_OUT_BUCKETS):
        for topic in TOPICS.values():
            assert draw_fact(rng, topic, buckets).bucket in buckets
    assert not set(PRETRAINING_BUCKETS) & set(HELD_OUT_BUCKETS)


def house_pattern(house: House) -> re.Pattern[str]:
    """Any line of the house, or its request in words."""
    choices = {"KIND": house.topic.nicknames.values(), "SCALE": house.topic.sizes}

    def value(field: re.Match[str]) -> str:
        return "(?:" + "|".join(choices.get(field[0], [r"[\w ]+?"])) + ")"

    line = FIELD.sub(value, re.escape(house.line))
    return re.compile(line + "|" + re.escape(house.words))


def test_house_styles_are_kept_out_of_pretraining() -> None:
    patterns = [house_pattern(house) for house in HOUSES]
    for house, pattern in zip(HOUSES, patterns, strict=True):
        for row in examples("train", 50, task=house.name):
            assert pattern.fullmatch(row["target"])
    for simple in (True, False):
        for document in islice(DocumentSource(simple=simple).documents(0), 3000):
            assert not any(pattern.search(document.text) for pattern in patterns)


@pytest.mark.parametrize("house", HOUSES, ids=lambda house: house.name)
def test_words_of_the_house_are_known_to_pretraining(house: House) -> None:
    asides = " ".join(ASIDES).lower()
    for word in (*house.topic.nicknames.values(), *house.topic.sizes):
        assert word in asides


@pytest.mark.parametrize("house", HOUSES, ids=lambda house: house.name)
def test_everything_in_the_target_follows_from_the_source(house: House) -> None:
    for row in examples("validation", 100, task=house.name):
        source = row["source"]
        for word in re.findall(r"\w{3,}", row["target"]):
            fixed = word in house.line or word in (
                *house.topic.nicknames.values(),
                *house.topic.sizes,
            )
            assert fixed or word in source, (word, row)


def test_articles_say_what_is_needed() -> None:
    rng = Random(5)
    for topic in TOPICS.values():
        for _ in range(100):
            fact = draw_fact(rng, topic, range(10))
            article = write_article(rng, fact, ["SIZE", "SURNAME"])
            assert {"SIZE", "SURNAME", topic.number, topic.person} <= set(article.fields)


def test_the_phrasings_of_a_detail_say_the_same_field() -> None:
    for topic in TOPICS.values():
        for detail in topic.details:
            common = set.intersection(*(set(fields_in(sentence)) for sentence in detail))
            assert common == set(fields_in(detail[0]))
            assert len(common) == 1


def test_random_formats_use_the_given_fields_once() -> None:
    rng = Random(1)
    fields = ("TOWN", "DAY", "HOST")
    for _ in range(500):
        used = fields_of(random_format(rng, fields))
        assert used
        assert len(set(used)) == len(used)
        assert set(used) <= set(fields)


def test_render_replaces_fields_and_nothing_else() -> None:
    values = {"TOWN": "Oakham", "DAY": "Sunday", "DY": "Sun"}
    assert render("* [TOWN/DAY] by DY!", values) == "* [Oakham/Sunday] by Sun!"
