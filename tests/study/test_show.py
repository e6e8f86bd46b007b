"""Figures hold every point, words say what numbers say, and nothing breaks out of a page."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from peftlab.errors import InputError
from peftlab.plots import png
from peftlab.plots.drawing import LETTER, drawing, file_of, put, text_of
from peftlab.plots.labels import Box
from peftlab.plots.legend import Key, headed
from peftlab.study import words
from peftlab.study.common import FULL, place
from peftlab.study.page import render, write
from peftlab.study.plot import figure
from peftlab.study.result import NAME, Axis, Level, Point, Result
from tests.report.pages import EVIL
from tests.study.conftest import panel, point, result

AT = place("length")


def standing(points: list[tuple[float, float, str]]) -> list[Point]:
    return [replace(point("s", x, v), standing=how) for x, v, how in points]  # type: ignore[arg-type]


@pytest.mark.parametrize("narrow", [False, True])
def test_every_point_is_in_the_figure(narrow: bool) -> None:
    points = [point(s, x, v) for s in "ab" for x, v in ((1, 0.2), (10, 0.5), (100, 0.7))]
    made = result(panel(*points), panel(*points, metric="loss", quantity="test loss"))
    svg = text_of(figure(made, narrow))
    assert svg.count('class="point on-front"') == 2 * 6
    assert svg.count('class="level"') == 2
    assert svg.count('class="stroke"') == 2 * 2, "a line a series"
    for said in ("ROUGE-L", "test loss", "length in positions", "full fine-tuning"):
        assert said in svg
    ticks = re.findall(r"<text [^>]*>(\d+)</text>", svg)
    assert {"1", "10", "100"} <= set(ticks), "places are the ticks"
    assert "NaN" not in svg and "inf" not in svg


def test_points_lie_inside_the_figure_in_the_right_order() -> None:
    points = [point("a", x, v) for x, v in ((1, 0.1), (50, 0.9), (200, 0.5))]
    svg = figure(result(panel(*points)))
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    places = [
        (float(e.attrib["cx"]), float(e.attrib["cy"]))
        for e in svg.iter("circle")
        if e.attrib.get("class") == "target"
    ]
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert places[1][1] < places[2][1] < places[0][1], "higher is better is higher up"
    assert all(0 < x < width and 0 < y < height for x, y in places)


def test_places_that_are_names_stand_side_by_side() -> None:
    axis = Axis("initialisation", ("text", "random"))
    points = [point(s, x, 0.5) for s in "ab" for x in (0, 1)]
    svg = text_of(figure(result(panel(*points, axis=axis, connected=False))))
    assert ">text</text>" in svg and ">random</text>" in svg
    assert 'class="stroke"' not in svg, "names have no order that a line could follow"
    xs = re.findall(r'class="target" cx="([\d.]+)"', svg)
    assert len(set(xs)) == 4


def test_points_that_share_a_place_are_no_line() -> None:
    spans = [point("spans", 3, 0.2, name="without 1"), point("spans", 3, 0.5, name="without 2")]
    svg = text_of(figure(result(panel(*spans))))
    assert 'class="stroke"' not in svg and ">without 1<" in svg and ">without 2<" in svg


def test_seeds_are_dots_and_many_series_are_grey() -> None:
    points = [point(f"series {i}", 1, 0.5, seeds=(0.4, 0.6)) for i in range(10)]
    svg = text_of(figure(result(panel(*points))))
    assert svg.count('class="seed"') == 20
    assert 'class="curve rest"' in svg


def test_names_from_data_are_escaped() -> None:
    points = [point(EVIL, 1, 0.2, name=EVIL, label=EVIL)]
    made = result(
        panel(*points, task=EVIL, axis=Axis(EVIL), words=(EVIL,)), title=EVIL, problems=(EVIL,),
        command=EVIL, note=EVIL,
    )  # fmt: skip
    page = render(made)
    assert "<script>alert" not in page and "<img src=x" not in page
    assert page.count("<script>") == 1, "the page's own"
    ElementTree.fromstring(file_of(figure(made), "", EVIL))


def test_the_page_needs_no_network(tmp_path: Path) -> None:
    made = result(panel(point("a", 1, 0.5), point("a", 2, 0.7)), caution="one seed")
    files = write(tmp_path, made)
    page = files[0].read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert "default-src &#39;none&#39;" in page and "one seed" in page


def test_a_picture_in_pixels() -> None:
    pytest.importorskip("resvg_py")
    made = figure(result(panel(point("a", 1, 0.5))))
    picture = png.of_svg(file_of(made, "", "x"))
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width = int.from_bytes(picture[16:20], "big")
    assert width == png.ZOOM * float(made.attrib["viewBox"].split()[2])


def test_without_the_extra_a_picture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "available", lambda: False)
    with pytest.raises(InputError, match=r"pip install 'peftlab\[png\]'"):
        png.of_svg("<svg/>")


def test_a_rising_series_in_words() -> None:
    made = standing(
        [(1, 0.2, "below"), (5, 0.5, "undecided"), (20, 0.6, "best"), (50, 0.6, "tied")]
    )
    said = words.climb(panel(*made), "s", AT)
    assert said == (
        "On t, ROUGE-L of s goes from 0.200 at length 1 to 0.600 at length 20; from length 5 on "
        "none is shown to be below it."
    )


@pytest.mark.parametrize(
    ("made", "end"),
    [
        ([(1, 0.2, "below"), (5, 0.9, "best")], "the largest tried; all others are shown to be"),
        ([(1, 0.9, "best"), (5, 0.2, "below")], "is best at length 1 already (0.900); length 5"),
        ([(1, 0.8, "undecided"), (5, 0.9, "best")], "none of the others is shown to be below it"),
        ([(1, 0.2, "untested"), (5, 0.9, "untested")], "at length 5, the largest tried."),
        ([(1, 0.8, "tied"), (5, 0.2, "below"), (9, 0.9, "best")], "below it: length 1."),
        ([(1, 0.8, "best")], "of s is 0.800 at length 1."),
    ],
)
def test_other_series_in_words(made: list[tuple[float, float, str]], end: str) -> None:
    assert end in words.climb(panel(*standing(made)), "s", AT)


def test_losses_are_best_where_they_are_lowest() -> None:
    made = panel(
        point("s", 1, 3.0), point("s", 2, 1.0), metric="loss", quantity="test loss",
        higher_is_better=False,
    )  # fmt: skip
    assert "from 3.00 at length 1 to 1.00 at length 2" in words.climb(made, "s", AT)
    assert "%" not in words.against(made, "full fine-tuning"), "a share of a loss says nothing"
    assert "best with length 2 (1.00) and worst with length 1" in words.ranking(
        made, made.points, AT
    )


def test_against_a_level() -> None:
    said = words.against(panel(point("s", 1, 0.45), point("s", 2, 0.81)), "full fine-tuning")
    assert said == "On t, ROUGE-L of full fine-tuning is 0.900; the best: s 0.810 (90 % of it)."
    assert words.against(panel(point("s", 1, 0.4)), "nothing of that name") == ""


def test_damaged_results_are_refused(tmp_path: Path) -> None:
    made = result(panel(point("a", 1, 0.5)))
    made.write(tmp_path)
    assert Result.read(tmp_path) == made
    path = tmp_path / NAME
    whole = path.read_text()
    path.write_text(whole[:50])
    with pytest.raises(InputError, match="is damaged"):
        Result.read(tmp_path)
    path.write_text(whole.replace('"version": 1', '"version": 9'))
    with pytest.raises(InputError, match="has version 9"):
        Result.read(tmp_path)
    path.write_text(whole.replace('"axis"', '"axes"'))
    with pytest.raises(InputError, match="is damaged"):
        Result.read(tmp_path)


def texts(svg: Element) -> list[tuple[str, Box]]:
    """Every text of a figure with the room it takes."""
    texts_of: list[tuple[str, Box]] = []

    def walk(part: Element, dx: float, dy: float) -> None:
        moved = [float(n) for n in re.findall(r"-?[\d.]+", part.get("transform", "0 0"))]
        dx, dy = dx + moved[0], dy + moved[1]
        if part.tag == "text":
            text = part.text or ""
            x, y, wide = float(part.attrib["x"]), float(part.attrib["y"]), LETTER * len(text)
            left = dx + x - {"end": wide, "middle": wide / 2}.get(part.get("text-anchor", ""), 0)
            texts_of.append((text, Box(left, dy + y - 11, left + wide, dy + y + 3)))
        for inner in part:
            walk(inner, dx, dy)

    walk(svg, 0.0, 0.0)
    return texts_of


def crowded(study: str, draw: random.Random) -> Result:
    """Panels as `layers`, `alpha` and `spectrum` have them, with numbers close to each other."""

    def some() -> float:
        return draw.uniform(0.4, draw.choice((0.42, 0.9)))

    names = {1: "without 2–3", 4: "without 4–5", 6: "without 2–5"}
    series = {
        "layers": ("top blocks", "bottom blocks"),
        "alpha": ("lora", "lora:rslora=true"),
        "spectrum": ("LoRA trained at this rank", "full fine-tuning, cut to this rank"),
    }[study]
    panels = []
    for task in ("demo", "a-task-with-a-long-name"):
        for metric, quantity in (("rougeL", "ROUGE-L"), ("loss", "test loss")):
            points = [point(one, x, some()) for one in series for x in (1, 4, 16, 64)]
            if study == "layers":
                points += [point("all but a span", 4, some(), name=name) for name in names.values()]
            levels = [Level(n, n, some(), None, None) for n in ("asked in words", FULL)]
            panels.append(
                panel(*points, task=task, metric=metric, quantity=quantity, levels=tuple(levels))
            )
        if study == "spectrum":
            points = [point("the base's W", x, 1 / x) for x in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)]
            quantity = "singular values as shares of the largest"
            panels.append(panel(*points, task=task, metric="", quantity=quantity, levels=()))
    return result(*panels)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("study", ["layers", "alpha", "spectrum"])
def test_texts_of_a_panel_lie_apart(study: str, narrow: bool) -> None:
    for seed in range(12):
        svg = figure(crowded(study, random.Random(seed)), narrow)
        width = float(svg.attrib["viewBox"].split()[2])
        texts_drawn = texts(svg)
        assert sum(text == FULL for text, _ in texts_drawn) == 4, "every level has its name"
        for (one, box), (other, second) in combinations(texts_drawn, 2):
            assert not box.meets(second), (seed, one, other)
        assert all(box.left >= 0 and box.right <= width for _, box in texts_drawn)


def test_a_legend_takes_as_many_lines_as_it_needs_and_no_name_leaves_the_figure() -> None:
    made = drawing(200, 50, "x")
    put(made, "rect", x=1, y=2)
    keys = [Key("lora", 0), Key("full", 1), Key("a" * 90, None), Key("train", phase=0)]
    svg = headed(made, keys)
    assert svg.attrib["viewBox"] == "0 0 200 122" and svg.get("aria-label") == "x"
    assert [text[:5] for text, _ in texts(svg)] == ["lora", "full", "aaaaa", "train"]
    assert all(box.right <= 200 for _, box in texts(svg))
    assert len({box.top for _, box in texts(svg)}) == 3
    assert [r.get("class") for r in svg.iter("rect")] == ["phase p0", None]
