"""The laws that every method is held to: `peftlab check-method NAME`, and tests/laws for ours.

A law is a function of a trial (a method on a model and a task, `trial.py`) that raises
`LawBroken` with its reason. tests/laws runs each of them for every method on several tiny models.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from peftlab.laws import cue, gradients, memory, rows, settings, start, storage, training
from peftlab.laws.law import Finding, Law, LawBroken, NotApplicable
from peftlab.laws.trial import Trial

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.methods import Method
    from peftlab.tasks import Task

__all__ = ["LAWS", "Finding", "Law", "LawBroken", "NotApplicable", "Trial", "check_method"]

LAWS: tuple[Law, ...] = (
    settings.declared,
    settings.stored_settings,
    settings.one_rate_each,
    settings.counted,
    settings.laid_out,
    settings.share_of_the_base,
    start.seeded,
    start.identity,
    start.effective,
    gradients.function_of_the_state,
    gradients.every_tensor,
    gradients.recomputed,
    memory.saving,
    rows.packed,
    rows.mixed,
    rows.below,
    rows.cached,
    rows.generated,
    cue.base_before,
    cue.kept_alike,
    cue.whole_row,
    storage.saved,
    training.interrupted,
    training.learns,
    training.autocast,
    training.base_untouched,  # last: whatever the others did is seen
)


def check_method(method: Method, model: FrozenLM, task: Task) -> Iterator[Finding]:
    """Hold a method to every law on this model and task, one after the other.

    Raises:
        InputError: the method's settings do not fit the model.
        UnsupportedModel: the model lacks a site that the method needs.
    """
    for site in method.sites:
        model.conformance.require(site, method.name)
    method.check(model.shape)
    trial = Trial(method, model, task)
    return (law.hold(trial) for law in LAWS)
