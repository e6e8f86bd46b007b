"""What a run costs and where it ran: time and peak memory by phase, precision, environment."""

from __future__ import annotations

from peftlab.measure.allocator import tune_allocator
from peftlab.measure.company import in_company
from peftlab.measure.environment import environment
from peftlab.measure.gauges import held
from peftlab.measure.memory import free_memory
from peftlab.measure.phases import Phase, phase
from peftlab.measure.precision import Precision, choose_precision

__all__ = [
    "Phase",
    "Precision",
    "choose_precision",
    "environment",
    "free_memory",
    "held",
    "in_company",
    "phase",
    "tune_allocator",
]
