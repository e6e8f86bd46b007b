"""Facts of the demo world and the articles that tell them.

A fact is a draw of one value per field. Names are put together from parts (about a thousand
towns, fifty thousand people), so that a model cannot know them by heart and has to copy them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from peftlab.demo.topics import ASIDES, Topic, words

_TOWN_HEADS = words(
    "Thorn Brindle Oak Salt Marl Hazel Crow Wind Stone Fern Amber Black Clay Dun East Fox Glen "
    "Hart Kings Lark Mill North Otter Pine Quill Raven Sand Tarn Under Vale West Yarrow Ash Birch "
    "Cold Deep Elder Frost Green Heron Iron Juniper Kettle Long Moss Nettle Over Pebble Rush "
    "Silver Thistle Umber Wal Wren Barn Cuckoo Dove Ember Flint Gold"
)
_TOWN_TAILS = words(
    "ford wick ham bury mouth stead dale port combe minster leigh ness thorpe field moor bridge"
)
_FIRST_NAMES = words(
    "Mara Tobias Ines Oskar Petra Leon Wilma Hugo Selma Jonas Clara Felix Nora Anton Greta Emil "
    "Ida Bruno Lotte Karl Rosa Viktor Edda Simon Hanna Paul Mina Georg Alma Otto Lena Walter Frida "
    "Kurt Elsa Moritz Thea Konrad Vera Ludwig Marta Erik Julia Arthur Olga Niklas Sofie Gustav "
    "Dora Henrik Nelly Ruben Agnes Filip Tilda Jasper Hilda Magnus Stella Basil"
)
_SURNAME_HEADS = words(
    "Fen Hol Bar Wes Cal Dor Hart Lin Mor Pel Rad Sel Tan Wil Bram Cor Dan El Farn Gar Hob Jar Kel "
    "Lam Mer Nor Ped Quin Rol Stan Tol Var Wat Yel Bel Cram Dew Ed Fos Gil Har Is Kem Lod Mal Nes "
    "Pol Ren Sim Tur Vin War Bon Cul Dris Ham Jes Kir Lan Mun"
)
_SURNAME_TAILS = words("son man er ley ell by wright ard kin ock low ing sted worth gate ton")
_PLACE_HEADS = words(
    "old upper little stone red long round north lower green glass market river silent great white "
    "broken new south tall"
)
_PLACE_TAILS = words(
    "mill hall barn garden square bridge library pier chapel tower school station harbour inn "
    "orchard theatre"
)
_SHOP_HEADS = words(
    "Copper Golden Crooked Happy Blue Quiet Dancing Laughing Rusty Merry Second Hidden Lucky "
    "Flying Wooden Early Royal Singing Narrow Gentle Purple Clever Silver Brave"
)
_SHOP_TAILS = words(
    "Kettle Basket Button Wheel Spoon Ladder Lantern Needle Pelican Anchor Thimble Barrel Hammer "
    "Teapot Candle Ribbon Window Acorn Compass Whistle Cupboard Badger Drawer Mirror"
)
_STREET_HEADS = words(
    "Mill Church Bridge Rose Water Market Castle Apple Bell Chestnut Duke Farm Gate High Ivy King "
    "Lime Meadow Orchard Park Queen River School Temple Well Willow"
)
_STREET_TAILS = ("Lane", "Street", "Road", "Row", "Hill", "Walk", "Yard", "Alley")
_PET_HEADS = words(
    "Bis Tum Pip Mof Zot Lul Nib Fiz Wob Jup Dax Kik Rum Sno Bub Tot Gus Hop Mil Pud"
)
_PET_TAILS = words("cuit bles per fy ty la by zle kin o us ling mo ster dle ma")
_DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")


@dataclass(frozen=True)
class Fact:
    """One thing that happened: a value for every field of its topic, derived fields included."""

    topic: Topic
    values: dict[str, str]

    @property
    def sort(self) -> str:
        """The sort of the fact's thing, by its plain name."""
        return self.topic.sorts[self.values[self.topic.thing].split()[1]]

    @property
    def share(self) -> float:
        """The fact's number as a share of its range, in [0, 1)."""
        return int(self.values[self.topic.number]) / (1000 if self.topic.number == "COUNT" else 100)

    @property
    def bucket(self) -> int:
        """0 to 9, from the town and the person: the same for equal pairs, so splits by bucket
        can share no fact."""
        key = self.values["TOWN"] + "/" + self.values[self.topic.person]
        return zlib.crc32(key.encode()) % 10


@dataclass(frozen=True)
class Article:
    """The text of a fact, and the fields that the text lets one know."""

    text: str
    fact: Fact
    fields: tuple[str, ...]


def draw_fact(rng: Random, topic: Topic, buckets: Iterable[int]) -> Fact:
    """A random fact whose bucket is one of `buckets` (see `Fact.bucket`)."""
    allowed = frozenset(buckets)
    while True:
        fact = Fact(topic, _draw_values(rng, topic))
        fact = Fact(topic, fact.values | _derived_values(rng, fact))
        if fact.bucket in allowed:
            return fact


def _draw_values(rng: Random, topic: Topic) -> dict[str, str]:
    def joined(separator: str, *parts: tuple[str, ...]) -> str:
        return separator.join(rng.choice(part) for part in parts)

    person = joined(" ", _FIRST_NAMES) + " " + joined("", _SURNAME_HEADS, _SURNAME_TAILS)
    noun = rng.choice(tuple(topic.sorts))
    number = rng.randrange(2, 100) * 10 if topic.number == "COUNT" else rng.randrange(2, 100)
    return {
        "TOWN": joined("", _TOWN_HEADS, _TOWN_TAILS),
        "DAY": rng.choice(_DAYS),
        "PLACE": joined(" ", _PLACE_HEADS, _PLACE_TAILS),
        "SHOP": joined(" ", _SHOP_HEADS, _SHOP_TAILS),
        "STREET": joined(" ", _STREET_HEADS, _STREET_TAILS),
        "PET": joined("", _PET_HEADS, _PET_TAILS),
        "TIME": f"{rng.randrange(1, 12)} {rng.choice(('am', 'pm'))}",
        "PRICE": str(rng.randrange(2, 100)),
        topic.person: person,
        topic.thing: f"{rng.choice(topic.first_words)} {noun}",
        topic.number: str(number),
    }


def _derived_values(rng: Random, fact: Fact) -> dict[str, str]:
    """What follows from a fact; for sort and size one of two ways to say it, at random."""
    topic, values, large = fact.topic, fact.values, fact.share >= 0.5
    return {
        "DY": values["DAY"][:3],
        "SURNAME": values[topic.person].split()[1],
        "SORT": rng.choice((fact.sort, topic.nicknames[fact.sort])),
        "SIZE": rng.choice((("small", topic.sizes[0]), ("large", topic.sizes[2]))[large]),
    }


def fields_in(sentence: str) -> tuple[str, ...]:
    """The fields that a sentence with `{FIELD}` places says."""
    return tuple(re.findall(r"{([A-Z]+)}", sentence))


def write_article(rng: Random, fact: Fact, needed: Iterable[str] = ()) -> Article:
    """Two to five sentences that tell the fact, in random phrasings and order.

    Each detail is told with probability .65, and always where a field of `needed` follows from it.
    """
    topic, wanted = fact.topic, {fact.topic.derived.get(field, field) for field in needed}
    lead = rng.choice(topic.leads)
    chosen = [
        rng.choice(detail)
        for detail in topic.details
        if rng.random() < 0.65 or wanted.intersection(fields_in(detail[0]))
    ]
    if not chosen:
        chosen = [rng.choice(topic.details[0])]
    rng.shuffle(chosen)
    sentences = [lead, *chosen]
    known = {field for sentence in sentences for field in fields_in(sentence)}
    if rng.random() < 0.3:
        sentences.append(rng.choice(ASIDES))
    text = " ".join(sentences).format_map(fact.values)
    known |= {derived for derived, source in topic.derived.items() if source in known}
    return Article(text, fact, tuple(field for field in fact.values if field in known))
