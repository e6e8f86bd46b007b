"""The page says what the records say, safely, in one file."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from rich.console import Console

from peftlab.cli.app import run as command
from peftlab.errors import InputError
from peftlab.plots import palette, png
from peftlab.plots.drawing import spoken
from peftlab.plots.scales import fitted
from peftlab.records.reading import read
from peftlab.report.page import render, write
from peftlab.report.page.cost_plot import Point, cost_plot
from peftlab.report.page.examples import compared
from peftlab.report.show import show, words
from peftlab.units import size
from peftlab.verdict.distribution import Difference
from peftlab.verdict.outcome import said, verdict
from tests.report.made import record
from tests.report.pages import EVIL, WORDS, comparison, keep


class Parsed(HTMLParser):
    """What a browser would make of a page: tags with attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag not in ("b", "wbr", "ins", "del"):
            self.words.append(" ")

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.words.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    comparison(out)
    (out / "half").mkdir()
    (out / "half" / "record.json").write_text('{"version": 1, "meth')
    (out / "later").mkdir()
    (out / "later" / "record.json").write_text('{"version": 99}')
    write(out, read(out))
    return out


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def parsed(page: str) -> Parsed:
    return Parsed(page)


def test_text_of_data_sets_stays_text(parsed: Parsed, page: str) -> None:
    assert len(parsed.all("script")) == 1 and not parsed.all("img")
    assert not [name for _, own in parsed.tags for name in own if name.startswith("on")]
    assert EVIL in parsed.text and EVIL not in page


def test_nothing_comes_from_elsewhere(parsed: Parsed, page: str) -> None:
    outside = re.findall(r"""(?:src|href|action)\s*=\s*["']?(?!#|data:,)([^"'\s>]+)""", page)
    assert not [url for url in outside if "onerror" not in url and url != "x"]
    assert not re.search(r"url\(|@import|//(?!www\.w3\.org/2000/svg)[a-z]+\.", page)
    (policy,) = [
        own["content"] for own in parsed.all("meta") if own.get("http-equiv")
    ]  # the browser is told as well
    assert policy and "default-src 'none'" in policy and "script-src 'sha256-" in policy


def test_verdict_is_the_terminals(folder: Path, parsed: Parsed) -> None:
    runs = read(folder).runs
    sentences = said(verdict(runs))
    assert len(sentences) > 4
    for sentence in sentences:
        assert " ".join(sentence.split()) in parsed.text


def test_leaderboard_has_the_means_of_the_records(folder: Path, page: str) -> None:
    (table,) = re.findall(r'<table class="sortable wide">.*?</table>', page, re.S)
    rows = re.findall(r'<th scope="row" data-value="([^"]+)">(.*?)</tr>', table, re.S)
    records = read(folder).records
    means = {}
    for label in {one.label for one in records if one.scores}:
        values = [one.scores["rougeL"] for one in records if one.label == label]
        means[label] = sum(values) / len(values)
    cells = {label: re.findall(r'data-value="([^"]*)"', rest) for label, rest in rows}
    assert [label for label, _ in rows] == [*sorted(means, key=lambda n: -means[n]), "ia3"]
    for label, mean in means.items():
        assert float(cells[label][0]) == pytest.approx(mean)
    assert "24576" in cells["lora"] or "24576.0" in cells["lora"]
    assert "no memory" in dict(rows)["ia3"]
    outcome = verdict(read(folder).runs)
    (pair,) = [p for p in outcome.pairs if {p.first, p.second} == {"lora", "full"}]
    other = "full" if outcome.best == "lora" else "lora"
    assert f">{'worse' if pair.outcome == 'better' else pair.outcome}<" in dict(rows)[other]


def test_predictions_stand_beside_measurements(tmp_path: Path) -> None:
    keep(tmp_path, "lora", predicted={"peak_memory": 330 * 2.0**20, "train_seconds": 10.0})
    keep(tmp_path, "lora", 1, predicted={"peak_memory": 330 * 2.0**20, "train_seconds": 10.0})
    keep(tmp_path, "full", predicted={"peak_memory": 306 * 2.0**20})
    keep(tmp_path, "hard_prompt")
    text = Parsed(render(tmp_path, read(tmp_path))).text
    memory = (
        "Predictions of peak memory were off by 6 % on average, at most by 10 % (lora: 330 MiB for"
        " 300 MiB)."
    )
    time = (
        "Predictions of training time were off by 20 % on average, at most by 20 % (lora: 10 s for"
        " 12 s)."
    )
    assert memory in text and time in text and "adapter size, predicted" not in text
    assert "330 MiB 300 MiB +10.0 % 10 s 12 s −20.0 %" in text
    assert "306 MiB 300 MiB +2.0 % – – –" in text
    assert memory in words(read(tmp_path).runs) and time in words(read(tmp_path).runs)


def test_without_predictions_nothing_is_said_of_them(parsed: Parsed) -> None:
    assert "redictions of" not in parsed.text and ", predicted" not in parsed.text


def test_damaged_records_are_named(parsed: Parsed) -> None:
    assert "2 files could not be used" in parsed.text
    assert "version 99" in parsed.text and "half/record.json is damaged" in parsed.text


def test_it_can_be_repeated(parsed: Parsed) -> None:
    assert "peftlab compare --seeds 0,1" in parsed.text
    assert "batch_size" in parsed.text and "weights of the base" in parsed.text
    assert " 0.01 " in parsed.text  # the highest learning rate of the logs


def test_it_can_be_read_without_sight_or_script(parsed: Parsed) -> None:
    tables = parsed.all("table")
    assert len(parsed.all("caption")) == len(tables) > 2
    assert all(own.get("scope") for own in parsed.all("th"))
    plots = [own for own in parsed.all("svg") if "plot" in str(own.get("class")).split()]
    assert len(plots) >= 10 and all(own["aria-label"] for own in plots)
    assert all(own.get("aria-hidden") for own in parsed.all("svg") if own not in plots)
    named = {own.get("id") for _, own in parsed.tags}
    assert all(str(own["href"])[1:] in named for own in parsed.all("a"))
    assert parsed.all("html")[0]["lang"] == "en"
    ids = [own["id"] for _, own in parsed.tags if own.get("id")]
    assert len(ids) == len(set(ids))
    # What needs script is hidden until there is some.
    assert all("hidden" in own for own in parsed.all("button") + parsed.all("form"))


def test_plots_are_files_of_their_own(folder: Path) -> None:
    files = sorted(file.name for file in (folder / "plots").iterdir())
    assert "quality-trainable-parameters.svg" in files and "loss-validation.svg" in files
    for name in (file for file in files if file.endswith(".svg")):
        text = (folder / "plots" / name).read_text(encoding="utf-8")
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert "var(" not in text and "tabindex" not in text
        assert name.replace(".svg", ".png") in files or not png.available()
    for name, words_of in (
        ("time", ["train", "evaluate (losses)", "generate (test outputs)"]),
        ("memory", ["train", "evaluate (losses)", "generate (test outputs)"]),
        ("loss-training", ["lora", "full", "hard_prompt:instruction=task"]),
    ):
        text = (folder / "plots" / f"{name}.svg").read_text(encoding="utf-8")
        assert all(f">{word}</text>" in text for word in words_of), "bars and lines have a legend"


@pytest.mark.parametrize(
    ("damage", "said_of_it"),
    [
        ("{half", "damaged"),
        ('{"index": 0}\n', "no prediction with references"),
        ("[1]\n", "no prediction with references"),
        (None, "is missing"),
    ],
)
def test_damaged_predictions_leave_their_run_out(
    tmp_path: Path, damage: str | None, said_of_it: str
) -> None:
    keep(tmp_path, "lora")
    keep(tmp_path, "full")
    path = tmp_path / "full" / "seed-0" / "predictions.jsonl"
    path.unlink() if damage is None else path.write_text(damage)
    text = Parsed(render(tmp_path, read(tmp_path))).text
    assert said_of_it in text and "full/seed-0/predictions.jsonl" in text
    assert "Which method" in text and "1 method " in text
    (tmp_path / "lora" / "seed-0" / "record.json").unlink()
    with pytest.raises(InputError, match="no run can be shown"):
        render(tmp_path, read(tmp_path))


def test_a_damaged_log_leaves_its_curve_out(tmp_path: Path) -> None:
    keep(tmp_path, "lora")
    (tmp_path / "lora" / "seed-0" / "metrics.jsonl").write_text("{half\n")
    text = Parsed(render(tmp_path, read(tmp_path))).text
    assert "left out of the curves" in text and "Training loss" not in text


def test_what_cannot_be_compared_is_shown_without_a_verdict(tmp_path: Path) -> None:
    keep(tmp_path, "lora")
    keep(tmp_path, "full", train={"steps": 20, "epochs": None, "batch_size": 4, "accumulation": 1})
    text = Parsed(render(tmp_path, read(tmp_path))).text
    assert "cannot be compared: steps is 10 (lora) and 20 (full)" in text
    assert "differs: 10; 20" in text


def test_failures_alone_make_a_page(tmp_path: Path) -> None:
    record("full", status="failed", error="no memory", scores={}).write(tmp_path / "full")
    text = Parsed(render(tmp_path, read(tmp_path))).text
    assert "No run finished" in text and "failed: no memory" in text


def test_one_seed_makes_no_claim(tmp_path: Path) -> None:
    keep(tmp_path, "lora", right=range(1, 9))
    keep(tmp_path, "full")
    text = Parsed(render(tmp_path, read(tmp_path))).text
    assert "One seed proves no difference" in text and "no claim" in text
    assert " worse " not in text


def test_the_rates_that_were_searched(tmp_path: Path) -> None:
    trials = [
        {"rate": 0.001, "loss": 1.5, "status": "finished", "steps": 5},
        {"rate": 0.01, "loss": 1.0, "status": "finished", "steps": 5},
        {"rate": 0.1, "loss": 9.0, "status": "pruned", "steps": 2},
        {"rate": 1.0, "loss": None, "status": "failed", "steps": 1},
    ]
    search = {"rate": 0.01, "trials": trials, "seconds": 60.0, "tokens": 5}
    keep(tmp_path, "lora", search=search)
    record("lora", trial=0).write(tmp_path / "lora-search" / "trial-0")
    page = render(tmp_path, read(tmp_path))
    assert "rate 0.01 taken out of 4 trials" in page
    assert "rate 0.1: 9.000 after 2 steps, pruned" in page and "search: 1 min" in page


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """334 methods with three seeds, and long texts."""
    out, long = tmp_path_factory.mktemp("thousand"), "word " * 1_000
    for i in range(334):
        for seed in (0, 1, 2):
            right = [(5, 6, 7, 8)[(i * j + seed) % 4] for j in range(1, 9)]
            keep(out, f"lora:rank={i}", seed, right=right, source=long)
    return out


def test_a_thousand_runs_make_a_small_page(thousand: Path) -> None:
    page = render(thousand, read(thousand))
    assert len(page.encode()) < 2_000_000
    assert len(Parsed(page).tags) < 30_000, "a browser opens it at once"
    assert "lora:rank=333" in page and page.count('class="example"') <= 40
    shown = Parsed(page).text
    assert "Pairs are tested among the 24 best of 334 methods." in shown
    assert "Every pair of the 24 best methods" in shown
    (pairs,) = re.findall(r'<table class="sortable pairs">.*?</table>', page, re.S)
    assert pairs.count("<tr>") == 1 + 24 * 23 // 2


def test_a_thousand_runs_make_a_table_at_once(
    thousand: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal tests no more pairs than the page: their number grows with the square."""
    asked: list[object] = []

    def tail(self: Difference, size: float) -> float:
        asked.append(size)
        return original(self, size)

    original = Difference.tail
    monkeypatch.setattr(Difference, "tail", tail)
    console = Console(width=200, file=io.StringIO())
    show(read(thousand).runs, console)
    assert 0 < len(asked) < 100 * 24 * 23 // 2


def test_differences_are_those_of_the_closest_reference() -> None:
    wanted = " ".join(WORDS)
    pieces = compared("the new mill by the river serves warm bread", ["quite another", wanted])
    assert "".join(piece.text for piece in pieces if piece.kind != "ins") == wanted
    assert "".join(piece.text for piece in pieces if piece.kind != "del") == (
        "the new mill by the river serves warm bread"
    )
    assert [(piece.kind, piece.text) for piece in pieces[1:3]] == [("del", "old"), ("ins", "new")]
    assert [piece.kind for piece in compared("nothing in common here", [wanted])] == ["ins"]
    assert [piece.kind for piece in compared(wanted, [wanted])] == [""]
    assert compared("", [wanted]) == []


@pytest.mark.parametrize("theme", [palette.LIGHT, palette.DARK])
def test_text_can_be_read_on_its_ground(theme: dict[str, str]) -> None:
    for ground in ("paper", "panel", "sunken"):
        for ink in ("ink", "muted", "accent"):
            assert palette.contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground)
    for kind in ("note", "good", "bad"):
        assert palette.contrast(theme[f"{kind}-ink"], theme[kind]) >= 4.5, kind
    assert palette.contrast(theme["bad-ink"], theme["panel"]) >= 4.5
    for number in range(palette.COLOURED):
        assert palette.contrast(theme[f"c{number}"], theme["panel"]) >= 4.5
    for mark in ("rest", "axis", "p0", "p2", "p3"):
        assert palette.contrast(theme[mark], theme["panel"]) >= 2.5, mark


def test_contrast_is_that_of_the_standard() -> None:
    assert palette.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert palette.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize(
    ("values", "logarithmic", "zero"),
    [
        ([1, 2, 3], False, False),
        ([10, 1e6], True, False),
        ([0, 10, 1e6], True, True),
        ([5], False, False),
    ],
)
def test_axes_keep_the_order(values: list[float], logarithmic: bool, zero: bool) -> None:
    scale = fitted(values, 50, 500)
    assert scale.logarithmic == logarithmic and (scale.zero is not None) == zero
    places = [scale(value) for value in values]
    assert places == sorted(places) and places[0] >= 50 and places[-1] <= 500
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 8 and ticks == sorted(set(ticks))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([390 << 20, 480 << 20], ["400 MiB", "450 MiB"]),
        ([100 << 10, 500 << 10], ["200 KiB", "400 KiB"]),
        ([400, 9_000_000], ["1 KiB", "10 KiB", "100 KiB", "1 MiB", "10 MiB"]),
    ],
)
def test_sizes_on_an_axis_are_round_as_they_are_written(
    values: list[float], expected: list[str]
) -> None:
    ticks = fitted(values, 0, 500, binary=True).ticks()
    assert [size(value) for value in ticks] == expected


def test_the_front_is_a_stair_and_names_lie_apart() -> None:
    points = [
        Point(f"m{i}", i, 10.0**i, 0.1 * i, 0.1 * i - 0.02, 0.1 * i + 0.02, i != 2, f"m{i}")
        for i in range(5)
    ]
    svg = cost_plot(points, cost="c", quality="q", tick=str, higher_is_better=True)
    (line,) = [part for part in svg.iter() if part.get("class") == "front-line"]
    corners = [tuple(map(float, one.split())) for one in line.get("d", "")[1:].split("L")]
    assert len(corners) == 8
    for (x, y), (u, v) in pairwise(corners):
        assert (x == u) != (y == v) and u >= x and v <= y  # to the right, then up
    labels = [part.text for part in svg.iter("text") if "label" in part.get("class", "")]
    assert sorted(map(str, labels)) == [point.label for point in points]


def test_a_name_with_semicolons_is_one_fact_of_those_that_are_told() -> None:
    made = spoken(Element("svg"), "hard_prompt:instruction=Write; shortly; \nROUGE-L 0.5", "point")
    told = made.get("aria-label", "").split(";\n")  # as `page.js` shows them
    assert told == ["hard_prompt:instruction=Write; shortly; ", "ROUGE-L 0.5"]


def test_few_methods_are_all_named_even_where_bars_are_in_the_way() -> None:
    costs = {"hard_prompt": 0.0, "lora": 24_576.0, "last_k": 444_864.0}
    points = [
        Point(label, i, cost, 0.03 + 0.02 * i, 0.0, 0.1, True, label)
        for i, (label, cost) in enumerate(costs.items())
    ]
    for width in (1040.0, 400.0):
        svg = cost_plot(points, cost="c", quality="q", tick=str, higher_is_better=True, width=width)
        labels = [part.text for part in svg.iter("text") if "label" in part.get("class", "")]
        assert sorted(map(str, labels)) == sorted(costs)


def test_formats_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(tmp_path, "hard_prompt:instruction=task")
    assert command(["report", str(tmp_path), "--format", "html"]) == 0
    assert str(tmp_path / "report.html") in capsys.readouterr().out
    assert (tmp_path / "report.html").exists()
    assert command(["report", str(tmp_path), "--format", "latex"]) == 0
    latex = capsys.readouterr().out
    assert r"hard\_prompt:instruction=task & 5,000 & 0.5\% &" in latex
    widths = {line.count(" & ") for line in latex.splitlines() if line.endswith(r"\\")}
    (columns,) = re.findall(r"\\begin\{tabular\}\{l(r+)\}", latex)
    assert widths == {len(columns)}
    line = ["report", str(tmp_path), "--format", "html", "--into", str(tmp_path / "x.md")]
    assert command(line) == 2


@pytest.mark.parametrize("format", ["table", "md", "html"])
def test_a_report_needs_no_torch(folder: Path, format: str) -> None:
    line = ["report", str(folder), "--format", format]
    code = (
        f"import sys; from peftlab.cli.app import run; run({line!r}); "
        "print('torch.nn' in sys.modules, 'nltk' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "False False"


def test_times_that_others_disturbed_are_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peftlab.measure.company.MOST", 0.05)
    latency = {"first_token": 0.01, "token": 0.002}
    shares = {"lora": {"step": 0.3, "latency": 0.2}, "full": {"step": 0.0}, "ia3": {"step": 0.0}}
    for i, (label, others) in enumerate(shares.items()):
        time = {"train": 10.0 + i, "evaluate": 1.0}
        keep(tmp_path, label, seconds=time, others=others, latency=latency)
    page = render(tmp_path, read(tmp_path))
    parsed = Parsed(page)
    assert "≈ 10.0 s" in parsed.text and "≈ 2.0 ms" in parsed.text
    assert "so nothing is judged by" in parsed.text
    assert "train: ≈ 10 s" in page and "train: 11 s" in page  # of the bars
    assert "≈ 10 s of training" in page and "11 s of training" in page  # of the points
    row = next(part for part in page.split("<tr") if "≈ 10.0 s" in part)
    assert not re.search(r"<b>\s*≈|best[^>]*>\s*≈", row), "the least, but not known to be"
