"""A hard prompt's search for a better instruction: what it starts from, and one step of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from peftlab.errors import InputError
from peftlab.methods.base import Examples, State
from peftlab.methods.search.instructions import proposed
from peftlab.methods.search.reflection import evolved
from peftlab.methods.search.transcript import OPENAI, Asking, Transcript
from peftlab.metrics import main_metric, metric_spec

if TYPE_CHECKING:
    from peftlab.tasks import Task

Optimise = Literal["none", "propose", "gepa"]
_START = "Answer the input below."


def check_installed(optimise: Optimise, author: str) -> None:
    """Refuse a search whose library is missing. Raises `InputError`."""
    needs = {"gepa": optimise == "gepa", "openai": author.startswith(OPENAI)}
    for library, needed in needs.items():
        if needed and find_spec(library) is None:
            raise InputError(
                f"hard_prompt: optimise={optimise},reflection_lm={author} needs the library "
                f"{library}: pip install 'peftlab[prompts]'"
            )


def begun(task: Task, optimise: Optimise, words: str, seed: int) -> dict[str, Any]:
    """What a search starts from, as text of its state.

    Raises:
        InputError: a task whose scores or splits it cannot go by.
    """
    name = main_metric(task.metrics)
    if (constant := metric_spec(name).of_one_example) is not None:
        raise InputError(
            f"hard_prompt: optimise={optimise} scores examples one by one, and {name} of one is "
            f"always {constant}: name another metric first (--metrics rougeL,{name})"
        )
    if not len(task.validation):
        raise InputError(
            f"hard_prompt: optimise={optimise} chooses by validation examples, and {task.name} has "
            "none"
        )
    start = words or task.instruction or task.request or _START
    return {"start": start, "seed": seed, "steps": 0}


def searched(
    examples: Examples,
    state: State,
    optimise: Optimise,
    author: str,
    sizes: tuple[int, int, int],
    saying: Callable[[str], State],
) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """One step: what changes in the state's text, what is told of it, whether nothing is left.

    The instruction that the search began with and none at all are candidates like others.

    Args:
        sizes: training examples that the author may see, validation examples that instructions are
            chosen by, instructions that are asked for.
        saying: the state with an instruction.

    Raises:
        InputError: the author does not answer.
    """
    train, validation, width = sizes
    if "transcript" in state.text:
        transcript = Transcript(**copy.deepcopy(state.text["transcript"]))
    else:  # the rows are those that are trained on by now, and not those of the beginning
        transcript = Transcript.begun(examples.task, train, validation, state.text["seed"])
    start, steps, ended = state.text["start"], state.text["steps"] + 1, False
    asking = Asking(examples, transcript, saying, start, author)
    for text in (start, ""):
        asking.mean(text, asking.validation)
    if optimise == "gepa":
        came_to = evolved(asking, steps)
        steps, ended = max(steps, came_to), came_to < steps
    else:
        proposed(asking, width, steps)
    best = asking.best()
    changed = {"instruction": best, "steps": steps, "transcript": vars(transcript)}
    told = {
        "instruction": best,
        "score": asking.own(asking.mean(best, asking.validation)),
        "tried": len(transcript.answers),
        "iterations": steps,
        "calls": transcript.calls,
        "written_tokens": transcript.tokens,
    }
    return changed, told, ended
