"""Any adaptation into one of another method, and how close it is to what it was made from."""

from peftlab.conversion.distill import STEPS, Converted, convert, in_its_template
from peftlab.conversion.fidelity import Fidelity

__all__ = ["STEPS", "Converted", "Fidelity", "convert", "in_its_template"]
