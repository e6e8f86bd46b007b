"""Adaptations leave peftlab: as PEFT adapters, merged models, embedding rows, or for vLLM.

Every door checks that what it writes gives the adaptation's own logits, or refuses with the reason
and the nearest alternative.
"""

from peftlab.export import peft
from peftlab.export.opening import open_adaptation

__all__ = ["open_adaptation", "peft"]
