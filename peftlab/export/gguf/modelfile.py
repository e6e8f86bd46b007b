"""Ollama's Modelfile: which file, which adapter, and how a text becomes a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.bases import gguf as bases
from peftlab.export.text import plain_text
from peftlab.tasks.tokens import traits

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation

_SOURCE = "\ue000"  # which no text has
_ESCAPED = {"{": '{{ "{" }}', "}": '{{ "}" }}', _SOURCE: "{{ .Prompt }}"}


def base_file(model: FrozenLM) -> str | None:
    """Where the base lies, for programs that run elsewhere; None where it is nothing local."""
    if bases.is_gguf(model.name):
        return str(bases.file_of(model.name).resolve())
    return str(Path(model.name).resolve()) if Path(model.name).is_dir() else None


def modelfile(
    base: str, adaptation: Adaptation, model: FrozenLM, adapter: str | None = None
) -> str:
    """The text of the file. https://docs.ollama.com/modelfile

    Its template is the task's own, round the text of a request; where a task has further columns,
    or exemplars that are chosen for each source, a request has to bring its whole prompt. Replies
    are greedy, as they were measured.
    """
    lines = [f"FROM {base}", *([f"ADAPTER {adapter}"] if adapter else [])]
    template = adaptation.row_template
    text = plain_text(template, (), model.tokenizer, _SOURCE)
    if text is None or template.markup.columns:
        lines += ["# A request brings its whole prompt: the task's text has other parts besides."]
        text = _SOURCE
    # What the tokenizer adds by itself, llama.cpp and Ollama add too.
    text = text.removeprefix(model.tokenizer.decode(list(traits(model.tokenizer).bos)))
    literal = "".join(_ESCAPED.get(one, one) for one in text)
    literal = literal.replace('"""', '{{ "\\x22\\x22\\x22" }}')
    lines += [
        f'TEMPLATE """{literal}"""',
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        f"PARAMETER num_ctx {model.shape.context}",
    ]
    ends = [model.tokenizer.decode([end]) for end in template.end_ids(model.tokenizer)]
    lines += [f'PARAMETER stop "{end}"' for end in ends if not set(end) & set('"\n\r')]
    return "\n".join(lines) + "\n"
