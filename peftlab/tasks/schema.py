"""The option that names a JSON Schema."""

from __future__ import annotations

from peftlab.options import Option
from peftlab.structured import schema_of

SCHEMA = Option(
    "A JSON Schema that every reply follows: a file, or its text.",
    name="schema",
    metavar="FILE",
    parse=schema_of,
)
