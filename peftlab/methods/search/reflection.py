"""Instructions that evolve by reflection: GEPA (Agrawal et al. 2025, arXiv:2507.19457).

The library `gepa` keeps the pool, draws parents from the Pareto frontier and words the requests.
It runs anew from its beginning in every step, one iteration further: what it asks for again stands
in the transcript, so that costs nothing, and a checkpoint holds no more than the transcript.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peftlab.methods.search.transcript import OPENAI, Asking
from peftlab.metrics import metric_spec

_COMPONENT = "instruction"
_TEXT = 2000  # characters of a text that the author reads
_IDLE = 20  # iterations without a new question after which there is nothing left to ask


def evolved(asking: Asking, iterations: int) -> int:
    """Run GEPA for so many iterations, and on until it asks something new.

    `asking.best` then knows the best instruction.

    Returns:
        the iterations that it came to; fewer than asked for where there was nothing left to ask.

    Raises:
        InputError: the author does not answer.
    """
    before = _asked(asking)
    for more in range(_IDLE):
        _run(asking, iterations + more)
        if _asked(asking) != before:
            return iterations + more
    return iterations - 1


def _asked(asking: Asking) -> tuple[int, int]:
    return asking.transcript.calls, sum(map(len, asking.transcript.answers.values()))


def _run(asking: Asking, iterations: int) -> None:
    from gepa.api import optimize

    spec, author = metric_spec(asking.metric), _Author(asking)
    optimize(
        seed_candidate={_COMPONENT: asking.start},
        trainset=asking.train,
        valset=asking.validation,
        adapter=_Adapter(asking),
        reflection_lm=author,
        perfect_score=spec.bounds[1] if spec.higher_is_better else -spec.bounds[0],
        stop_callbacks=lambda state: author.failed is not None or state.i + 1 >= iterations,
        logger=_Silent(),
        seed=asking.transcript.seed,
        track_best_outputs=False,
    )
    if author.failed is not None:  # gepa goes on without the reply
        raise author.failed


class _Silent:
    def log(self, message: str) -> None:
        """Nothing: what a step has come to stands in the run's trace."""


class _Author:
    """Writes what GEPA asks for; the same request a second time is another reply.

    Attributes:
        failed: why it does not answer; it is then asked no more.
    """

    def __init__(self, asking: Asking) -> None:
        self._asking, self._before = asking, dict[str, int]()
        self.failed: Exception | None = None

    def __call__(self, prompt: Any) -> str:
        if self.failed is not None:
            raise self.failed
        text = str(prompt)
        times = self._before[text] = self._before.get(text, 0) + 1
        try:
            return self._asking.written([text] * times)[-1]
        except Exception as error:  # whatever it is, gepa would go on without the reply
            self.failed = error
            raise


class _Adapter:
    """Runs the frozen model under an instruction (`gepa.GEPAAdapter`); data are examples' keys."""

    propose_new_texts: Any = None

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        # A model here reads three examples of three texts each in its own context.
        local = not asking.author.startswith(OPENAI)
        self._most = min(_TEXT, asking.examples.model.shape.context // 3) if local else _TEXT

    def evaluate(
        self, batch: Sequence[str], candidate: Mapping[str, str], capture_traces: bool = False
    ) -> Any:
        """The answers to these examples, and their scores."""
        from gepa.core.adapter import EvaluationBatch

        answers = self._asking.answers(candidate[_COMPONENT], batch)
        traces = list(zip(batch, answers, strict=True))
        return EvaluationBatch(
            outputs=[answer.text for answer in answers],
            scores=[answer.score for answer in answers],
            trajectories=traces if capture_traces else None,
        )

    def make_reflective_dataset(
        self, candidate: Mapping[str, str], eval_batch: Any, components_to_update: Sequence[str]
    ) -> dict[str, list[dict[str, str]]]:
        """What the author is told of each example."""
        asking, most, told = self._asking, self._most, list[dict[str, str]]()
        for key, answer in eval_batch.trajectories:
            example = asking.example(key)
            score = f"The score by {asking.metric}: {asking.told(answer.score)}."
            told.append(
                {
                    "Inputs": example.told()[:most],
                    "Generated Outputs": answer.text[:most],
                    "Feedback": f"{score} The answer that is wanted: {example.targets[0][:most]}",
                }
            )
        return dict.fromkeys(components_to_update, told)
