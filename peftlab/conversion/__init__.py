"""Any adaptation into one of another method, and several into one."""

from peftlab.conversion.combine import OtherTemplate, Part, combine, mixture
from peftlab.conversion.distill import STEPS, Converted, convert, in_its_template
from peftlab.conversion.fidelity import Fidelity

__all__ = [
    "STEPS",
    "Converted",
    "Fidelity",
    "OtherTemplate",
    "Part",
    "combine",
    "convert",
    "in_its_template",
    "mixture",
]
