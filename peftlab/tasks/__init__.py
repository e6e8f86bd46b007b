"""What is to be learnt: templates, examples, data sources, ready recipes. No tensors, no model."""

from peftlab.tasks.example import Encoded, Example
from peftlab.tasks.task import Decoding, Provenance, Task
from peftlab.tasks.template import Template

__all__ = ["Decoding", "Encoded", "Example", "Provenance", "Task", "Template"]
