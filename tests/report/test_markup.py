"""Nothing from names, data or records is markup, wherever it is shown, or raw on a terminal."""

from __future__ import annotations

import ast
import csv
import io
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

import peftlab
from peftlab.cli.app import run as command
from peftlab.plots.drawing import drawing, file_of, put, spoken, tell
from peftlab.records.reading import read
from peftlab.report.formats import render
from peftlab.report.page import write
from peftlab.report.table import as_rich
from peftlab.study.page import CSV, PAGE, SVG
from peftlab.study.page import write as write_study
from tests.report.made import record
from tests.report.pages import keep
from tests.study.conftest import panel, point, result

ODD = "a|b\n\x1b[31m[red]c[/b] *d* `e` <i> [x](y) $z$ \\ \x9b _f_ :smile: \u202e\ud800"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")


def odd(out: Path) -> Path:
    """A comparison whose task, model, labels and texts would like to be markup."""
    task = {
        "name": "=cmd|[/b]\x1b[2J", "fingerprint": "f", "train_rows": 9, "test_rows": 8,
        "metrics": ["rougeL"],
    }  # fmt: skip
    label = ODD.replace("\ud800", "")  # no file holds it
    keep(out, "full", task=task)
    keep(out, label.replace("/", "|"), task=task, source=f"{label} {{}}")
    failed = record("-1+1", status="failed", error=f"no {label}", scores={}, task=task)
    failed.write(out / "failed")
    return out


def test_a_markdown_tables_rows_have_as_many_cells_as_its_head(tmp_path: Path) -> None:
    text = render(read(odd(tmp_path)).records, "md")
    rows = [re.sub(r"\\\\|\\\|", "", line) for line in text.splitlines()]
    assert len(rows) == 5 and len({line.count("|") for line in rows}) == 1
    assert not RAW.search(text)
    for said in (r"\*d\*", r"\`e\`", r"\<i\>", r"\[x\](y)", r"\$z\$", r"\_f\_", r"a\|b\\n\\x1b\["):
        assert said in text
    assert r"| \-1+1 |" in text


def test_latex_has_no_command_of_a_name(tmp_path: Path) -> None:
    records = [record("[x]*\\end{tabular}\n%\x1b", task=record().task.model_dump())]
    text = render(records, "latex")
    row = r"{[}x]{*}\textbackslash{}end\{tabular\}\textbackslash{}n\%\textbackslash{}x1b &"
    assert row in text and text.count(r"\end{tabular}") == 1


@pytest.mark.parametrize(
    ("label", "cell"),
    [("=1+1", "'=1+1"), ("+a", "'+a"), ("-a", "'-a"), ("@a", "'@a"), ("\t=a", "'\t=a"), ("a", "a")],
)
def test_a_csv_holds_no_formula_and_numbers_stay_numbers(label: str, cell: str) -> None:
    general = {"before": 2.0, "after": 1.5}
    (row,) = csv.DictReader(io.StringIO(render([record(label, general=general)], "csv")))
    assert row["label"] == cell and row["forgetting"] == "-0.5"
    assert "\x1b" not in render([record("\x1b[2J")], "csv")


def test_a_terminal_gets_neither_markup_nor_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["report", str(odd(tmp_path))]) == 0
    told = capsys.readouterr()
    assert not RAW.search(told.out + told.err)
    assert "=cmd|[/b]\\x1b[2J (8 test examples)" in told.out
    assert "[red]c[/b]" in told.out and ":smile:" in told.out
    console = Console(width=300, record=True, file=io.StringIO())  # whatever console it is
    console.print(as_rich([record(ODD)], 300, title=ODD))
    assert (
        not RAW.search(console.export_text(clear=False)) and "[red]c[/b]" in console.export_text()
    )


def test_pages_and_plots_show_control_characters(tmp_path: Path) -> None:
    write(tmp_path, read(odd(tmp_path)))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not RAW.search(page) and "\\x1b[31m" in page and "<i>" not in page
    for file in (tmp_path / "plots").glob("*.svg"):
        text = file.read_text(encoding="utf-8")
        ElementTree.fromstring(text)
        assert not RAW.search(text)


def test_studies_do_as_well(tmp_path: Path) -> None:
    points = [point(ODD, 1, 0.2, name=ODD, label="=1+1"), point("b", 2, 0.3)]
    write_study(tmp_path, result(panel(*points, task=ODD), title=ODD, problems=(ODD,), note=ODD))
    for name in (PAGE, SVG, CSV):
        assert not RAW.search((tmp_path / name).read_text(encoding="utf-8")), name
    ElementTree.fromstring((tmp_path / SVG).read_text(encoding="utf-8"))
    assert "'=1+1" in (tmp_path / CSV).read_text(encoding="utf-8")


def test_svg_is_xml_whatever_a_name_holds() -> None:
    every = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0xD800, 0xFFFE, 0xFFFF]))
    svg = drawing(10, 10, every)
    put(svg, "text", every, x=1)
    tell(spoken(svg, every, "point", method=every), every)
    text = file_of(svg, "", every)
    assert len(ElementTree.fromstring(text)) == 5 and not RAW.search(text)


def test_whatever_is_printed_goes_one_way() -> None:
    """`typer.echo`, `print` and a console of one's own would send names raw."""
    package = Path(peftlab.__file__).parent
    own = {"printable.py", "metrics/cases.py", "demo/sizes.py"}  # itself, and no user's data
    problems = [
        f"{path.relative_to(package)}:{call.lineno}"
        for path in package.rglob("*.py")
        if str(path.relative_to(package)) not in own
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) in ("print", "typer.echo", "click.echo", "Console")
    ]
    assert not problems
