"""WebNLG's own files (Gardent et al. 2017): entries of XML as rows in the layout of the hub's copy.

`<benchmark><entries><entry category eid size>` holds one `modifiedtripleset` of `mtriple`s, the
sets of `originaltripleset`, and texts as `<lex comment lid>`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from peftlab.errors import InputError
from peftlab.tasks.opened import opened
from peftlab.tasks.table import Table


def read_webnlg(path: Path, first: int | None = None) -> Table:
    """The entries of one file, no more than `first`.

    Raises:
        InputError: it is no XML, or XML of another kind.
    """
    with opened(path) as file:
        try:
            root = ElementTree.parse(file).getroot()
        except ElementTree.ParseError as error:
            raise InputError(f"{path} is not XML that can be read: {error}.") from error
    entries = root.findall("entries/entry")
    if root.tag != "benchmark" or not entries:
        raise InputError(
            f"{path} is XML, and of XML only WebNLG's is read: <benchmark> with <entries> of "
            "<entry>. Convert it to jsonl, a row a line."
        )
    # The hub's test split is three files in one, which this column tells apart.
    return Table(str(path), [_row(entry, path.stem) for entry in entries[:first]])


def _row(entry: Element, stem: str) -> dict[str, Any]:
    texts = entry.findall("lex")
    return {
        "category": entry.get("category", ""),
        "eid": entry.get("eid", ""),
        "size": entry.get("size", ""),
        "shape": entry.get("shape", ""),
        "shape_type": entry.get("shape_type", ""),
        "original_triple_sets": {"otriple_set": _sets(entry, "originaltripleset", "otriple")},
        "modified_triple_sets": {"mtriple_set": _sets(entry, "modifiedtripleset", "mtriple")},
        "lex": {
            "comment": [text.get("comment", "") for text in texts],
            "lid": [text.get("lid", "") for text in texts],
            "text": [text.text or "" for text in texts],
        },
        "test_category": stem,
    }


def _sets(entry: Element, name: str, triple: str) -> list[list[str]]:
    return [[(it.text or "") for it in triples.findall(triple)] for triples in entry.findall(name)]
