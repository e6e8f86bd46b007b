"""Any adaptation into one of another method, and how close it is to what it was made from."""

from peftlab.conversion.convert import STEPS, Converted, convert
from peftlab.conversion.fidelity import Fidelity

__all__ = ["STEPS", "Converted", "Fidelity", "convert"]
