"""The topics of the demo world: what happens in it, and the sentences that tell of it.

A topic is a set of fields (`TOWN`, `DAY`, …), the sentences that say them, and the plain skills
(summaries, questions) that the pretraining text calls by words. All of it is invented for
peftlab. Field names are upper-case words without braces, so that a request such as
`Write [TOWN/DAY] EVENT` can stand in a template without escaping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """One kind of news of the world.

    `person`, `thing` and `number` name the fields that the derived fields come from: `SURNAME`,
    `SORT` (by the thing's last word, see `sorts`) and `SIZE`. A sort also has a nickname, and a
    size of the number's thirds a word in `sizes`: pretraining says a sort by either of its names,
    and a size as small, large or the first or last of `sizes`; the house styles know nicknames
    and all three sizes only. A detail is one sentence in several phrasings, all with its field.
    """

    name: str
    person: str
    thing: str
    number: str
    sorts: Mapping[str, str]
    nicknames: Mapping[str, str]
    sizes: tuple[str, str, str]
    first_words: tuple[str, ...]
    leads: tuple[str, ...]
    details: tuple[tuple[str, ...], ...]
    skills: Mapping[str, str]
    questions: tuple[tuple[str, str], ...]

    @property
    def derived(self) -> Mapping[str, str]:
        """The derived fields, each with the field that it follows from."""
        return {"DY": "DAY", "SURNAME": self.person, "SORT": self.thing, "SIZE": self.number}


def words(text: str) -> tuple[str, ...]:
    """The words of a text, as a table that reads well."""
    return tuple(text.split())


def _by_noun(groups: Mapping[str, str]) -> dict[str, str]:
    return {noun: sort for sort, nouns in groups.items() for noun in nouns.split()}


EVENTS = Topic(
    name="events",
    person="HOST",
    thing="EVENT",
    number="COUNT",
    sorts=_by_noun(
        {
            "music": "concert dance recital serenade",
            "food": "feast supper tasting picnic",
            "sport": "race contest match regatta",
            "craft": "fair workshop market sale",
            "stage": "play parade show quiz",
        }
    ),
    nicknames={
        "music": "tunes",
        "food": "bites",
        "sport": "games",
        "craft": "makers",
        "stage": "lights",
    },
    sizes=("cosy", "lively", "packed"),
    first_words=words(
        "lantern cheese violin kite pumpkin river garden barley drum ribbon winter spring candle "
        "pudding turnip marble puppet rowing walnut snow cherry bell feather harvest moonlight "
        "pepper wagon copper rainbow chess"
    ),
    leads=(
        "{TOWN} holds its {EVENT} on {DAY}.",
        "On {DAY} there is a {EVENT} in {TOWN}.",
        "There will be a {EVENT} in {TOWN} this {DAY}.",
        "{TOWN} is getting ready for a {EVENT} on {DAY}.",
        "This {DAY} the people of {TOWN} meet for a {EVENT}.",
        "A {EVENT} comes to {TOWN} on {DAY}.",
        "Good news from {TOWN}: the {EVENT} is back, and {DAY} is the day.",
        "The {EVENT} of {TOWN} has been moved to {DAY}.",
    ),
    details=(
        (
            "{HOST} is the host.",
            "It is run by {HOST}.",
            "{HOST} has planned it all year.",
            "The host this time is {HOST}.",
            "As ever, {HOST} leads it.",
            "{HOST} came to {TOWN} to run it.",
        ),
        (
            "The {PLACE} is the venue.",
            "It takes place at the {PLACE}.",
            "Come to the {PLACE}.",
            "Everybody meets at the {PLACE}.",
            "Inside the {PLACE} there is room for all.",
        ),
        (
            "About {COUNT} guests are expected.",
            "Last year {COUNT} people came.",
            "There are {COUNT} seats.",
            "The town hopes for {COUNT} visitors.",
            "So far {COUNT} people have said yes.",
        ),
        (
            "Entry costs {PRICE} crowns.",
            "A ticket is {PRICE} crowns.",
            "Guests pay {PRICE} crowns at the gate.",
            "For {PRICE} crowns you may come in.",
        ),
        (
            "It starts at {TIME}.",
            "The doors open at {TIME}.",
            "From {TIME} on there is tea.",
            "Be there by {TIME}.",
        ),
    ),
    skills={
        "In short,": "{HOST} hosts a {EVENT} in {TOWN}.",
        "To sum up,": "{TOWN} has a {EVENT} on {DAY}.",
        "Headline:": "{EVENT} at {PLACE}",
        "For the diary:": "{DAY}: {EVENT}, {PLACE}.",
        "Dear all,": "come to {TOWN} on {DAY} and bring {COUNT} friends.",
        "In one word,": "{SORT}.",
    },
    questions=(
        ("Where is it?", "{TOWN}"),
        ("Which town?", "{TOWN}"),
        ("When is it?", "{DAY}"),
        ("What is it?", "{EVENT}"),
        ("Who is the host?", "{HOST}"),
        ("Which venue?", "{PLACE}"),
        ("How many people?", "{COUNT}"),
        ("How much is it?", "{PRICE} crowns"),
        ("What time?", "{TIME}"),
        ("What sort of event?", "{SORT}"),
    ),
)

SHOPS = Topic(
    name="shops",
    person="OWNER",
    thing="GOODS",
    number="PRICE",
    sorts=_by_noun(
        {
            "food": "cakes pies buns jams",
            "wear": "boots hats coats scarves",
            "tools": "lamps clocks kettles brooms",
            "paper": "books maps cards prints",
        }
    ),
    nicknames={
        "food": "larder",
        "wear": "wardrobe",
        "tools": "shed",
        "paper": "desk",
    },
    sizes=("cheap", "fair", "dear"),
    first_words=words(
        "honey winter velvet silver ginger plum travel woollen pocket garden brass paper berry "
        "walnut linen cherry tin cotton fancy straw barley copper toffee rain morning marble"
    ),
    leads=(
        "The {SHOP} has opened in {TOWN}.",
        "{TOWN} has a new shop called the {SHOP}.",
        "A shop named the {SHOP} now stands in {TOWN}.",
        "People in {TOWN} talk about the {SHOP}.",
        "In {TOWN} the {SHOP} opens its doors.",
        "The {SHOP} has moved to {TOWN}.",
    ),
    details=(
        (
            "It sells {GOODS}.",
            "Its shelves are full of {GOODS}.",
            "Go there for {GOODS}.",
            "The {SHOP} is known for {GOODS}.",
            "There are {GOODS} in every corner.",
        ),
        (
            "The owner is {OWNER}.",
            "It belongs to {OWNER}.",
            "{OWNER} stands behind the counter.",
            "{OWNER} has waited years for this.",
            "{OWNER} of {TOWN} keeps the keys.",
        ),
        (
            "You find it in {STREET}.",
            "It is the red house in {STREET}.",
            "Walk down {STREET} and look left.",
            "Its address is {STREET}.",
        ),
        (
            "Prices begin at {PRICE} crowns.",
            "Most things cost {PRICE} crowns.",
            "With {PRICE} crowns you get far.",
            "Nothing is above {PRICE} crowns.",
        ),
        (
            "It is closed on {DAY}.",
            "The shop rests on {DAY}.",
            "Do not come on {DAY}.",
            "Only on {DAY} is the door locked.",
        ),
    ),
    skills={
        "In short,": "{OWNER} sells {GOODS} in {TOWN}.",
        "To sum up,": "the {SHOP} is in {STREET}, {TOWN}.",
        "Headline:": "{GOODS} in {STREET}",
        "For the diary:": "not on {DAY}: {SHOP}, {STREET}.",
        "Dear all,": "visit the {SHOP} in {TOWN} and ask for {OWNER}.",
        "In one word,": "{SORT}.",
    },
    questions=(
        ("Which town?", "{TOWN}"),
        ("Where is it?", "{TOWN}"),
        ("What is it called?", "{SHOP}"),
        ("What does it sell?", "{GOODS}"),
        ("Who is the owner?", "{OWNER}"),
        ("Which street?", "{STREET}"),
        ("When is it closed?", "{DAY}"),
        ("How much is it?", "{PRICE} crowns"),
        ("What sort of shop?", "{SORT}"),
    ),
)

PETS = Topic(
    name="pets",
    person="FINDER",
    thing="ANIMAL",
    number="REWARD",
    sorts=_by_noun(
        {
            "fur": "cat dog rabbit ferret",
            "wings": "hen duck parrot goose",
            "hooves": "pony goat lamb donkey",
        }
    ),
    nicknames={
        "fur": "paws",
        "wings": "beaks",
        "hooves": "shoes",
    },
    sizes=("modest", "fine", "generous"),
    first_words=words(
        "grey brown white black spotted striped golden shaggy tiny lazy brave sleepy dusty limping "
        "blue red hungry fat proud shy muddy curly noisy speckled"
    ),
    leads=(
        "A {ANIMAL} called {PET} was lost in {TOWN}.",
        "{PET} the {ANIMAL} went missing in {TOWN}.",
        "In {TOWN} everybody looked for {PET}, a {ANIMAL}.",
        "{TOWN} has been without {PET}, its best known {ANIMAL}.",
        "{PET} is home again: the {ANIMAL} had run away from {TOWN}.",
    ),
    details=(
        (
            "It was {FINDER} who found it.",
            "{FINDER} saw it first.",
            "The finder is {FINDER}.",
            "{FINDER} of {TOWN} brought it back.",
            "Thanks go to {FINDER}.",
        ),
        (
            "It sat near the {PLACE}.",
            "It had hidden behind the {PLACE}.",
            "The trail led to the {PLACE}.",
            "{PET} was asleep at the {PLACE}.",
        ),
        (
            "That was on {DAY}.",
            "It came home on {DAY}.",
            "The search ended on {DAY}.",
            "By {DAY} all was well.",
        ),
        (
            "The reward was {REWARD} crowns.",
            "A reward of {REWARD} crowns was paid.",
            "For that the family gave {REWARD} crowns.",
            "There were {REWARD} crowns for the finder.",
        ),
    ),
    skills={
        "In short,": "{FINDER} found {PET} in {TOWN}.",
        "To sum up,": "{PET} was at the {PLACE}.",
        "Headline:": "{ANIMAL} found in {TOWN}",
        "For the diary:": "{DAY}: {PET}, {PLACE}.",
        "Dear all,": "thank {FINDER}, for {PET} is back in {TOWN}.",
        "In one word,": "{SORT}.",
    },
    questions=(
        ("Which town?", "{TOWN}"),
        ("Where was it?", "{PLACE}"),
        ("What is its name?", "{PET}"),
        ("What animal?", "{ANIMAL}"),
        ("Who is the finder?", "{FINDER}"),
        ("When was that?", "{DAY}"),
        ("How much was it?", "{REWARD} crowns"),
        ("What sort of animal?", "{SORT}"),
    ),
)

TOPICS = {topic.name: topic for topic in (EVENTS, SHOPS, PETS)}

# Closing sentences that say no fact. They also hold the words of the house styles
# (peftlab.demo.houses), so that these words are known but mean nothing in particular.
ASIDES = (
    "Bring a coat.",
    "Nobody knows why.",
    "It may rain.",
    "All are glad.",
    "Expect tunes and bites.",
    "The lights stay on.",
    "There are games for the children.",
    "Some call it cosy.",
    "It may get lively.",
    "The road will be packed.",
    "Makers from all over agree.",
    "A cheap day is a good day.",
    "Fine weather is likely.",
    "Some things are dear.",
    "The larder is full.",
    "The wardrobe is not.",
    "A shed will do.",
    "The desk is empty.",
    "Paws, beaks and shoes are welcome.",
    "The thanks are modest.",
    "The thanks are generous.",
    "Fair enough.",
    "Well done.",
)
