"""What is to be learnt: templates, examples, data sources, ready recipes. No tensors, no model."""

from peftlab.tasks.example import Encoded, Example
from peftlab.tasks.load import Entry, catalogue
from peftlab.tasks.options import Options
from peftlab.tasks.show import describe
from peftlab.tasks.task import Decoding, Provenance, Task
from peftlab.tasks.template import Template

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
