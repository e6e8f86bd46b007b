"""What is to be learnt: templates, examples, data sources, ready recipes. No tensors, no model.

The options of tasks are read by commands that load none, so each file is imported when it is used.
"""

from typing import TYPE_CHECKING

from peftlab.lazy import names_of

if TYPE_CHECKING:
    from peftlab.tasks.example import Encoded, Example
    from peftlab.tasks.load import Entry, catalogue
    from peftlab.tasks.options import Options
    from peftlab.tasks.show import describe
    from peftlab.tasks.task import Decoding, Provenance, Task
    from peftlab.tasks.template import Template

__getattr__ = names_of(
    __name__,
    {
        "Decoding": "task",
        "Encoded": "example",
        "Entry": "load",
        "Example": "example",
        "Options": "options",
        "Provenance": "task",
        "Task": "load",  # which also sets Task.load
        "Template": "template",
        "catalogue": "load",
        "describe": "show",
    },
)
__all__ = [
    "Decoding",
    "Encoded",
    "Entry",
    "Example",
    "Options",
    "Provenance",
    "Task",
    "Template",
    "catalogue",
    "describe",
]
