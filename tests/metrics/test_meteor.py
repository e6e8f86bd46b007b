"""METEOR: parts on a tiny release made here, the whole against the official scores."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from importlib.metadata import entry_points
from importlib.util import find_spec
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftlab.metrics import MetricUnavailableError, metric_spec, score

pytest.importorskip("peftlab_meteor", reason="plugins/peftlab-meteor is not installed")
from peftlab_meteor.align import EXACT, PARAPHRASE, STEM, Lexicon, Line, align, count_chunks
from peftlab_meteor.normalize import Normalizer
from peftlab_meteor.tables import find_release, read_paraphrases, read_words

from .conftest import Case

Load = Callable[[str], Case]
WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=6)
BARE = Lexicon(stem=str, meanings=lambda _: frozenset(), paraphrases={})

released = pytest.mark.skipif(
    find_spec("pycocoevalcap") is None, reason="pycocoevalcap, which carries METEOR, is absent"
)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release with a handful of words."""
    with zipfile.ZipFile(tmp_path / "meteor-1.5.jar", "w") as jar:
        jar.writestr("function/english.words", "the\na\nof\n")
        jar.writestr("nonbreaking/english.prefixes", "#titles\nMr\nNo #NUMERIC_ONLY#\n\n")
        jar.writestr("synonym/english.exceptions", "mouse\nmice\n")
        jar.writestr("synonym/english.synsets", "mouse\n01 02\nbig\n03\nlarge\n03 04\nhope\n05\n")
    (tmp_path / "data").mkdir()
    with gzip.open(tmp_path / "data" / "paraphrase-en.gz", "wt", encoding="utf-8") as file:
        file.write("0.5\na lot of\nmany\n0.1\nmany\na lot of\n0.2\nmany\nseveral\n")
    return tmp_path


def test_word_lists(release: Path) -> None:
    words = read_words(release)
    assert words.meanings("mice") == {"01", "02"}
    assert words.meanings("large") & words.meanings("big") == {"03"}
    assert words.meanings("hopes") == words.meanings("hoped") == words.meanings("hoping") == {"05"}
    assert words.meanings("glass") == frozenset()
    assert (words.prefixes, words.numeric_prefixes) == ({"Mr"}, {"No"})


def test_paraphrases_are_those_of_the_corpus(release: Path) -> None:
    table = read_paraphrases(release)
    assert table.among({b"many", b"a lot of"}) == {"a lot of": ["many"], "many": ["a lot of"]}
    assert table.among({b"many", b"several", b"a lot of"})["many"] == ["a lot of", "several"]
    assert table.among(set()) == table.among({b"several"}) == {}


def test_peftlab_finds_the_plugin_by_its_entry_points() -> None:
    for name in ("meteor", "meteor-coco"):
        assert metric_spec(name).factory == "peftlab_meteor.score:Meteor"
    assert [entry.name for entry in entry_points(group="peftlab.metrics")].count("meteor") == 1


def test_the_table_is_read_once_a_process(release: Path) -> None:
    name = f"meteor:folder={release}"
    first = score(name, ["many mice"], [["a lot of mice"]]).corpus[name]
    (release / "data" / "paraphrase-en.gz").write_bytes(b"not even a gzip file")
    assert score(name, ["many mice"], [["a lot of mice"]]).corpus[name] == first > 0


def test_a_folder_that_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(MetricUnavailableError, match=r"expected meteor-1\.5\.jar"):
        find_release(tmp_path)


# right-hand sides are the jar's output
NORMALIZED = [
    ("Mr. Smith's U.S.-based full-time job", "mr. smith 's us based full time job"),
    ("No. 5, no. Yes.", "no. 5 , no . yes ."),
    ("It costs 1,000,50 or x,5...", "it costs 1,000,50 or x , 5 ..."),
    ("“rock 'n' roll” – don’t", "\" rock ' n ' roll \" - don 't"),
    ("(a) [b] 1990's", "( a ) [ b ] 1990 's"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "tokens"), NORMALIZED)
def test_normalization(text: str, tokens: str) -> None:
    assert " ".join(Normalizer({"Mr"}, {"No"}).tokens(text)) == tokens


def best_by_force(line1: list[str], line2: list[str]) -> tuple[int, int]:
    """Most words matched, and the fewest chunks of any alignment that matches so many."""
    best = (0, 0)
    slots = [*range(len(line1)), *[-1] * len(line2)]
    for chosen in set(permutations(slots, len(line2))):
        pairs = [(j, i) for j, i in enumerate(chosen) if i >= 0]
        if all(line1[i] == line2[j] for j, i in pairs):
            follows = sum((j - 1, i - 1) in pairs for j, i in pairs)
            best = min(best, (-len(pairs), len(pairs) - follows))
    return -best[0], best[1]


@given(WORDS.filter(lambda words: len(words) < 5), WORDS.filter(lambda words: len(words) < 5))
@settings(max_examples=60, deadline=None)
def test_alignment_matches_most_words_in_fewest_chunks(line1: list[str], line2: list[str]) -> None:
    matches = align(Line(line1, BARE), Line(line2, BARE))
    assert (len(matches), count_chunks(matches)) == best_by_force(line1, line2)


def test_modules() -> None:
    lexicon = Lexicon(
        stem=lambda word: word.removesuffix("s"),
        meanings=lambda word: frozenset({word.count("x")} if "x" in word else ()),
        paraphrases={"a lot of": ["many"]},
    )
    line1, line2 = ["many", "cats", "saw"], ["a", "lot", "of", "cat", "saw"]
    matches = align(Line(line1, lexicon), Line(line2, lexicon))
    assert [match.module for match in matches] == [PARAPHRASE, STEM, EXACT]
    assert (matches[0].length, matches[0].length1) == (3, 1)
    assert count_chunks(matches) == 1


def test_score_by_hand(release: Path) -> None:
    """Two of three words match, one of them "the": P = R = (.75 + .25) / (1.5 + .25), one chunk."""
    name = f"meteor:folder={release}"
    ours = score(name, ["the cat slept"], [["the cat ran"]]).corpus[name]
    part = (0.75 + 0.25) / (2 * 0.75 + 0.25)
    assert ours == pytest.approx(part * (1 - 0.6 * (1 / 2) ** 0.2))


def test_perfect_empty_and_wrong_predictions(release: Path) -> None:
    name = f"meteor:folder={release}"
    scores = score(name, ["a big mouse", "", "x"], [["a big mouse"], ["a cat"], ["", "y"]])
    assert scores.per_example[name] == [1, 0, 0]


def test_the_best_reference_counts(release: Path) -> None:
    name = f"meteor:folder={release}"
    scores = score(name, ["mice"], [["x", "mouse", "mice"]])
    assert scores.corpus[name] == 1


def test_blocks_do_not_change_the_score(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"meteor:folder={release}"
    predictions = ["many mice", "a lot of hope", "big cats"]
    references = [["a lot of mice"], ["many hopes", "x"], ["large cat", "big cat"]]
    whole = score(name, predictions, references).per_example[name]
    assert whole[1] > 0
    monkeypatch.setattr("peftlab_meteor.score.BLOCK", 20)
    assert score(name, predictions, references).per_example[name] == whole


def check_official(system: Case, name: str) -> None:
    ours = score(name, system.predictions, system.references).corpus[name]
    published = system.expected["official_run_perl" if name == "meteor-coco" else "published"]
    digits = 4 if name == "meteor-coco" else 12
    assert f"{ours:.{digits}f}" == f"{published['METEOR']:.{digits}f}"


@released
def test_official_number_of_the_e2e_example(case: Load) -> None:
    check_official(case("e2e_example10"), "meteor-coco")


@released
@pytest.mark.slow
@pytest.mark.parametrize("name", ["e2e_dev_ukp_model_d_seed1", "e2e_test_slug", "e2e_test_tgen"])
def test_official_numbers_of_the_e2e_challenge(case: Load, name: str) -> None:
    check_official(case(name), "meteor-coco")


@released
@pytest.mark.slow
@pytest.mark.parametrize("name", ["all", "old"])
def test_official_numbers_of_webnlg(case: Load, name: str) -> None:
    check_official(case(f"webnlg17_PKUWriter_{name}-cat"), "meteor")


@released
def test_official_scores_per_segment(case: Load) -> None:
    system = case("webnlg17_PKUWriter_new-cat")
    report = (system.folder / "official_meteor.txt").read_text(encoding="utf-8").splitlines()
    official = [float(line.split()[-1]) for line in report if line.startswith("Segment")]
    scores = score("meteor", system.predictions, system.references)
    assert scores.per_example["meteor"] == pytest.approx(official, abs=1e-12)
    assert scores.corpus["meteor"] == pytest.approx(
        system.expected["published"]["METEOR"], abs=1e-12
    )
