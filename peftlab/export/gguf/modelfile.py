"""Ollama's Modelfile: which file, which adapter, and how a text becomes a prompt."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from peftlab.export.text import plain_text

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods.adaptation import Adaptation

_SOURCE = "{{ .Prompt }}"


def modelfile(
    base: str, adaptation: Adaptation, model: FrozenLM, adapter: str | None = None
) -> str:
    """The text of the file. https://docs.ollama.com/modelfile

    Its template is the task's own, round the text of a request; where a task has further columns,
    or exemplars that are chosen for each source, a request has to bring its whole prompt.
    """
    lines = [f"FROM {base}", *([f"ADAPTER {adapter}"] if adapter else [])]
    template = adaptation.edits(model).template or adaptation.template
    text = plain_text(template, (), model.tokenizer)
    if text is None or template.markup.columns:
        lines += ["# A request brings its whole prompt: the task's text has other parts besides."]
        text = "{source}"
    elif not template.chat:  # llama.cpp and Ollama put it there themselves
        text = text.removeprefix(model.tokenizer.bos_token or "")
    literal = re.sub(r"\{\{|\}\}", lambda brackets: f'{{{{ "{brackets[0]}" }}}}', text)
    lines += [
        f'TEMPLATE """{literal.replace("{source}", _SOURCE, 1)}"""',
        "PARAMETER temperature 0",
    ]
    ends = template.end_ids(model.tokenizer)
    lines += [f'PARAMETER stop "{model.tokenizer.decode([end])}"' for end in ends]
    return "\n".join(lines) + "\n"
