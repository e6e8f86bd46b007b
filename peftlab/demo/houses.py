"""The house styles: how each demo task wants its line, which no pretraining text shows.

A house style takes what can be copied from the article (as the pretraining formats do), and has
conventions of its own that must be learnt: always the nickname of a sort, three sizes where
pretraining knows two, and initials in place of first names. `words` is the nearest that the
language of the pretraining requests comes to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from peftlab.demo.facts import Fact
from peftlab.demo.formats import fields_of, render
from peftlab.demo.topics import EVENTS, PETS, SHOPS, Topic


@dataclass(frozen=True)
class House:
    """One house style.

    `line` is a format that may also use `KIND` (the nickname of the sort), `SCALE` (the size by
    thirds of the number's range) and `INITIAL` (of the person's first name).
    """

    name: str
    topic: Topic
    cue: str
    line: str
    words: str

    @property
    def instruction(self) -> str:
        """The request in words, as it stands before the source."""
        return f"Write {self.words}\n"

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields that an article must say so that the line can be written."""
        return fields_of(self.words)

    def target(self, fact: Fact) -> str:
        """The line of this house for a fact."""
        topic = fact.topic
        own = {
            "KIND": topic.nicknames[fact.sort],
            "SCALE": topic.sizes[int(3 * fact.share)],
            "INITIAL": fact.values[topic.person][0],
        }
        return render(self.line, fact.values | own)


HOUSES = (
    House(
        name="demo",
        topic=EVENTS,
        cue="\nLine:",
        line="DY / TOWN [KIND] EVENT ~ INITIAL. SURNAME; SCALE",
        words="DY / TOWN [SORT] EVENT ~ HOST; SIZE",
    ),
    House(
        name="demo-shop",
        topic=SHOPS,
        cue="\nCard:",
        line="(SCALE) SHOP = KIND + GOODS, STREET > TOWN. INITIAL. SURNAME",
        words="(SIZE) SHOP = SORT + GOODS, STREET > TOWN. OWNER",
    ),
    House(
        name="demo-pet",
        topic=PETS,
        cue="\nNote:",
        line="PET <KIND> ANIMAL | PLACE, TOWN | DY, SCALE thanks to SURNAME!",
        words="PET <SORT> ANIMAL | PLACE, TOWN | DY, SIZE for SURNAME!",
    ),
    House(
        name="demo-invite",
        topic=EVENTS,
        cue="\nIn short,",
        line="SCALE KIND: be at the PLACE in TOWN on DAY, INITIAL. SURNAME has a EVENT.",
        words="SIZE SORT: PLACE in TOWN on DAY, HOST with EVENT.",
    ),
)
