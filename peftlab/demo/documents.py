"""Pretraining documents of the demo world.

Most ask for a random format in words; some show several examples of one format and ask nothing;
some call a plain skill by its words ("In short,"). No document holds the request of a house
style (peftlab.demo.houses), and no fact of a demo task's splits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from peftlab.demo.facts import Article, draw_fact, fields_in, write_article
from peftlab.demo.formats import fields_of, random_format, render
from peftlab.demo.houses import HOUSES
from peftlab.demo.topics import TOPICS, Topic

PRETRAINING_BUCKETS = (0, 1, 2, 3)
HELD_OUT_BUCKETS = (4,)

_CUES = ("\nLine:", "\nLine:", "\nCard:", "\nNote:", "\nEntry:")
_HOUSE_WORDS = frozenset(house.words for house in HOUSES)

_Piece = tuple[str, bool]


@dataclass(frozen=True)
class Document:
    """A text in pieces, each with whether what comes before decides it (as an answer) or not (as
    an article, whose names nobody can foresee)."""

    pieces: tuple[_Piece, ...]

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(text for text, _ in self.pieces)


@dataclass(frozen=True)
class DemoRequest:
    """A prompt in a pretraining format, its answer, and the values in the answer that stand in the
    article word for word (used to measure how well copying has formed)."""

    prompt: str
    answer: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class DocumentSource:
    """Documents about facts of some buckets; with `simple`, few fields and questions only, which
    makes copying form sooner when pretraining starts on them."""

    buckets: tuple[int, ...] = PRETRAINING_BUCKETS
    simple: bool = False

    def documents(self, seed: int) -> Iterator[Document]:
        """An endless stream of documents, the same for the same seed."""
        rng = Random(seed)
        kinds = (_questions, _several, _asked, _examples, _skill, _from_notes)
        weights = (4, 4, 2, 0, 1, 0) if self.simple else (2, 3, 6, 5, 3, 1)
        while True:
            yield Document(tuple(rng.choices(kinds, weights)[0](rng, self.buckets)))

    def requests(self, seed: int) -> Iterator[DemoRequest]:
        """An endless stream of single requests, asked in words before the article."""
        rng = Random(seed)
        while True:
            yield _request(rng, self.buckets)


def _article(rng: Random, buckets: Sequence[int], topic: Topic | None = None) -> Article:
    topic = topic or rng.choice(tuple(TOPICS.values()))
    return write_article(rng, draw_fact(rng, topic, buckets))


def _free_format(rng: Random, fields: Sequence[str]) -> str:
    """A random format that no house asks for."""
    while True:
        line_format = random_format(rng, fields)
        if line_format not in _HOUSE_WORDS:
            return line_format


def _ask(rng: Random, line_format: str) -> str:
    return rng.choice(("Write ", "Write ", "Write ", "Give ", "Use ")) + line_format


def _request(rng: Random, buckets: Sequence[int]) -> DemoRequest:
    article = _article(rng, buckets)
    line_format = _free_format(rng, article.fields)
    values = article.fact.values
    prompt = f"{_ask(rng, line_format)}\n{article.text}{rng.choice(_CUES)}"
    answer = " " + render(line_format, values)
    copied = (values[field] for field in fields_of(line_format) if values[field] in article.text)
    return DemoRequest(prompt, answer, tuple(copied))


def _asked(rng: Random, buckets: Sequence[int]) -> list[_Piece]:
    request = _request(rng, buckets)
    return [(request.prompt, False), (request.answer, True)]


def _several(rng: Random, buckets: Sequence[int]) -> list[_Piece]:
    """One article, then two to four requests, each answered at once."""
    article = _article(rng, buckets)
    pieces = [(article.text, False)]
    for _ in range(rng.randrange(2, 5)):
        line_format = _free_format(rng, article.fields)
        pieces.append((f"\n{_ask(rng, line_format)}{rng.choice(_CUES)}", False))
        pieces.append((" " + render(line_format, article.fact.values), True))
    return pieces


def _examples(rng: Random, buckets: Sequence[int]) -> list[_Piece]:
    """Two to four articles of one topic with their lines in one format, sometimes asked for."""
    topic, cue = rng.choice(tuple(TOPICS.values())), rng.choice(_CUES)
    count = rng.choices((2, 3, 4), (5, 3, 1))[0]
    first = _article(rng, buckets, topic)
    line_format = _free_format(rng, first.fields)
    facts = [draw_fact(rng, topic, buckets) for _ in range(count - 1)]
    needed = fields_of(line_format)
    articles = [first, *(write_article(rng, fact, needed) for fact in facts)]
    asked = rng.random() < 0.25
    pieces = [(_ask(rng, line_format) + "\n", False)] if asked else []
    for index, article in enumerate(articles):
        answer = " " + render(line_format, article.fact.values)
        pieces.append((("\n\n" if index else "") + article.text + cue, False))
        pieces.append((answer, asked or index > 0))
    return pieces


def _skill(rng: Random, buckets: Sequence[int]) -> list[_Piece]:
    """A plain skill called by its words after the article."""
    article = _article(rng, buckets)
    values, known = article.fact.values, frozenset(article.fields)
    skills = {
        cue: text
        for cue, text in article.fact.topic.skills.items()
        if known.issuperset(fields_in(text))
    }
    if not skills or rng.random() < 0.2:
        fields = rng.sample(list(article.fields), min(4, len(article.fields)))
        record = "; ".join(f"{field.lower()}: {values[field]}" for field in fields)
        return [(f"{article.text}\nAs a record:", False), (" " + record, True)]
    cue = rng.choice(tuple(skills))
    return [(f"{article.text}\n{cue}", False), (" " + skills[cue].format_map(values), True)]


def _questions(rng: Random, buckets: Sequence[int]) -> list[_Piece]:
    """An article with two to five questions and their short answers."""
    article = _article(rng, buckets)
    known = frozenset(article.fields)
    pairs = [pair for pair in article.fact.topic.questions if known.issuperset(fields_in(pair[1]))]
    pieces = [(article.text, False)]
    for question, answer in rng.sample(pairs, min(len(pairs), rng.randrange(2, 6))):
        pieces.append(("\n" + question, False))
        pieces.append((" " + answer.format_map(article.fact.values), True))
    return pieces


def _from_notes(rng: Random, buckets: Sequence[int]) -> list[_Piece]:
    """Notes first, then the article that tells them."""
    article = _article(rng, buckets)
    values = article.fact.values
    fields = [field for field in article.fields if values[field] in article.text]
    rng.shuffle(fields)
    notes = ", ".join(f"{field.lower()} = {values[field]}" for field in fields)
    return [(f"{notes}\nIn full:", False), (" " + article.text, True)]
