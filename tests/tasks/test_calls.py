"""How a template writes calls of tools, found by what it renders, and read again from replies."""

from __future__ import annotations

import json

import pytest

from peftlab.errors import InputError
from peftlab.tasks.calls import CallForm, call_form
from tests.tasks.tokenizers_for_tests import byte_level

_TURNS = (
    "{% for m in messages %}{{ m.role }}: {{ m.content or '' }}CALLS{{ eos_token }}{% endfor %}"
)
_ASKED = "{% if add_generation_prompt %}assistant: {% endif %}"
_TOOLS = "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}"


def template(call: str) -> str:
    """A chat template that writes a call so."""
    each = f"{{% for c in m.tool_calls or [] %}}{call}{{% endfor %}}"
    return _TOOLS + _TURNS.replace("CALLS", each) + _ASKED


HERMES = template(
    '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": '
    "{{ c.function.arguments | tojson }}}\n</tool_call>"
)
LLAMA = template(
    '{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}'
)
AS_TEXT = template(
    '[CALL]{"function": "{{ c.function.name }}", "args": '
    "{{ (c.function.arguments | tojson) | tojson }}}"
)
PYTHON = template("{{ c.function.name }}({{ c.function.arguments }})")


@pytest.mark.parametrize(
    ("jinja", "expected"),
    [
        (HERMES, CallForm("<tool_call>\n", "\n</tool_call>", "name", "arguments", False)),
        (LLAMA, CallForm("", "", "name", "parameters", False)),
        (AS_TEXT, CallForm("[CALL]", "", "function", "args", True)),
    ],
)
def test_the_form_is_that_of_the_template(jinja: str, expected: CallForm) -> None:
    assert call_form(byte_level(chat=jinja)) == expected


@pytest.mark.parametrize(
    ("jinja", "said"),
    [
        (PYTHON, "not as JSON"),
        (template(""), "does not show the tools"),
        (None, "no chat template"),
    ],
)
def test_what_knows_no_calls_says_so(jinja: str | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call_form(byte_level(chat=jinja or False))


def one(name: str, **arguments: object) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


@pytest.mark.parametrize(
    ("reply", "text", "calls"),
    [
        ("It is nine.", "It is nine.", []),
        (one("clock", zone="utc"), "", [("clock", '{"zone": "utc"}')]),
        (
            f"Let me see.\n{one('a', x=1)}\n{one('b')}",
            "Let me see.",
            [("a", '{"x": 1}'), ("b", "{}")],
        ),
        (f"{one('a')} and so on", "and so on", [("a", "{}")]),
        ('<tool_call>\n{"name": "a", "argu', '<tool_call>\n{"name": "a", "argu', []),
        ("<tool_call>\nno\n</tool_call>", "<tool_call>\nno\n</tool_call>", []),
        ('<tool_call>{"name": 3}</tool_call>', '<tool_call>{"name": 3}</tool_call>', []),
        (f'{one("a")}\n<tool_call>\n{{"na', '<tool_call>\n{"na', [("a", "{}")]),
    ],
)
def test_calls_are_read_from_replies(reply: str, text: str, calls: list[tuple[str, str]]) -> None:
    assert call_form(byte_level(chat=HERMES)).parsed(reply) == (text, calls)


def test_a_call_without_marks_is_all_that_there_is() -> None:
    form = call_form(byte_level(chat=LLAMA))
    assert form.parsed('{"name": "a", "parameters": {"x": [1]}}') == ("", [("a", '{"x": [1]}')])
    for text in ('It is {"name": "a", "parameters": {}}', '{"answer": 3}', "{"):
        assert form.parsed(text) == (text, [])
