"""How a template writes calls of tools, found by what it renders, and read again from replies."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from peftlab.errors import InputError
from peftlab.structured import Grammars
from peftlab.tasks.calls import CallForm, call_form
from peftlab.tasks.chat import frame
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
LISTED = template(
    '[{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}]'
)
NAMES = {"clock", "a", "b"}
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
        (template(""), "shows no calls of tools"),
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
        (f"I use <tool_call> tags. {one('a')}", "I use <tool_call> tags.", [("a", "{}")]),
        (one("other"), one("other"), []),
        ('<tool_call>{"name": "a"}</tool_call>', '<tool_call>{"name": "a"}</tool_call>', []),
        (
            '<tool_call>{"name": "a", "arguments": null}</tool_call>',
            "",
            [("a", "{}")],
        ),
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
    assert call_form(byte_level(chat=HERMES)).parsed(reply, NAMES) == (text, calls)


def test_a_call_without_marks_is_all_that_there_is() -> None:
    form = call_form(byte_level(chat=LLAMA))
    called = '{"name": "a", "parameters": {"x": [1]}}'
    assert form.parsed(called, NAMES) == ("", [("a", '{"x": [1]}')])
    assert form.parsed(f"{called}\n{called}", NAMES, 1) == (called, [("a", '{"x": [1]}')])
    for text in ('It is {"name": "a", "parameters": {}}', '{"answer": 3}', "{",
                 '{"name": "Ann", "age": 3}', '{"name": "Ann", "parameters": {}}'):  # fmt: skip
        assert form.parsed(text, NAMES) == (text, [])


def test_calls_of_a_list_are_all_read() -> None:
    form = call_form(byte_level(chat=LISTED))
    assert form.before == "[" and form.after == "]"
    a, b = (json.dumps({"name": name, "arguments": {}}) for name in "ab")
    assert form.parsed(f"[{a}, {b}]", NAMES) == ("", [("a", "{}"), ("b", "{}")])
    assert form.parsed(f"See [1]: [{a}]", NAMES) == ("See [1]:", [("a", "{}")])
    assert form.parsed(f"[{a}, {b}]", NAMES, 1)[1] == [("a", "{}")]


def test_arguments_as_text_follow_no_schema() -> None:
    with pytest.raises(InputError, match="as text, which cannot be made to follow"):
        call_form(byte_level(chat=AS_TEXT)).structure([{"name": "a"}])


ZONE = {"type": "object", "properties": {"zone": {"enum": ["utc", "cet"]}}, "required": ["zone"],
        "additionalProperties": False}  # fmt: skip
STRICT = {"name": "clock", "parameters": ZONE, "strict": True}


@pytest.mark.parametrize("jinja", [HERMES, LLAMA])
def test_calls_of_strict_tools_follow_their_schemas_and_all_else_is_free(jinja: str) -> None:
    tokenizer = byte_level(chat=jinja)
    form = call_form(tokenizer)
    guide = Grammars(tokenizer, len(tokenizer)).guide(form.structure([STRICT, {"name": "a"}], True))

    def may_be(text: str) -> bool:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return guide.accepts(ids)

    def call(name: str, **arguments: object) -> str:
        told = json.dumps({form.name: name, form.arguments: arguments})
        return f"{form.before}{told}{form.after}"

    alone = not form.before
    assert may_be(call("clock", zone="utc")) and may_be(call("a", any=[1], thing={"b": None}))
    for text in ("", "It is five.", "Two\nlines, < and > in them: {no call}", " [1]"):
        assert may_be(text)
        assert may_be(text + call("clock", zone="utc")) or alone
    assert not may_be(call("clock", zone="est"))
    assert not may_be(call("clock"))
    assert not may_be(call("other", zone="utc"))
    assert not may_be(call("clock", zone="utc")[:-3])
    if not alone:
        twice = f"First {call('clock', zone='utc')} then {call('clock', zone='cet')} done"
        assert may_be(twice)
        assert not may_be(twice.replace("cet", "est"))


def test_a_list_in_a_text_is_not_told_from_a_call() -> None:
    with pytest.raises(InputError, match="writes a call as a list"):
        call_form(byte_level(chat=LISTED)).structure([STRICT], free=True)


def test_an_adapter_writes_calls_in_its_own_template() -> None:
    own = replace(frame(byte_level(chat=HERMES)), jinja=LLAMA)
    assert call_form(byte_level(chat=HERMES), own).arguments == "parameters"
