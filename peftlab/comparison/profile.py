"""A look before the runs: what the base is, what each method trains, how long sources may be.

Prompts, exemplars and prefixes take positions that are then missing for the source. So that no
method sees more of a source than another, every method gets as many source tokens as fit beside
the longest of them: `Template.source_tokens`, for training and generation alike.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.bases.names import words_of
from peftlab.comparison import samples
from peftlab.comparison.finished import but_for_samples, finished
from peftlab.comparison.label import label_on
from peftlab.comparison.plan import Base, GeneralText, Plan, Run, Samples, runs_of
from peftlab.comparison.processes import Say
from peftlab.errors import InputError, PeftlabError
from peftlab.estimate import Prediction
from peftlab.evaluation import text_loss, text_window
from peftlab.frozen import named as base
from peftlab.guests import is_guest
from peftlab.measure import choose_precision
from peftlab.methods import Count, Method
from peftlab.printable import echo
from peftlab.tasks import Example, Task, Template
from peftlab.tasks.fit import Fit, look, too_long
from peftlab.tasks.plain import TEXT_TOKENS
from peftlab.tasks.rows import spaced
from peftlab.token_limits import max_row_tokens

if TYPE_CHECKING:
    import torch

    from peftlab.frozen.model import FrozenLM

_TAKES_POSITIONS = {
    "embeddings",
    "attention",
}  # sites that bring positions; a method of no site is text
_ROWS = 3000  # rows of a split that are encoded to find the limit; more are taken evenly spaced
_PROBES = 50  # rows on which a method's own tokens are counted


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What `profile` found.

    Attributes:
        others: the base in the other number formats, once they are `joined`.
        counts: by label; a method that does not fit this base is in `misfits` with the reason.
        source_tokens: most tokens of a source that any method gets; None where all fit whole.
        longest: the method that takes most of the row, and how many tokens it takes.
        cut: how many of the rows looked at lose source tokens.
        predictions: by label, see `cost_prediction`; of what has finished already, and of
            guests, there is none.
        left_out: by label, why a method will not fit the plan's limits.
        general: the text by which forgetting is measured, with what the bare base makes of it.
        fit: what this base makes of the task: see `tasks.fit`.
        samples: how much of each split every run reads.
    """

    base: Base
    context: int
    counts: dict[str, Count]
    misfits: dict[str, str]
    source_tokens: int | None
    longest: tuple[str, int]
    cut: int
    predictions: dict[str, Prediction] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    general: GeneralText | None = None
    others: tuple[Base, ...] = ()
    fit: Fit = field(default_factory=Fit)
    samples: Samples = field(default_factory=Samples)

    @property
    def bases(self) -> tuple[Base, ...]:
        """The base in every number format."""
        return (self.base, *self.others)

    def joined(self, other: Profile) -> Profile:
        """This one with what was found of the same base in another format, to be shown."""
        return replace(
            self,
            others=(*self.others, *other.bases),
            counts=self.counts | other.counts,
            misfits=self.misfits | other.misfits,
            predictions=self.predictions | other.predictions,
            left_out=self.left_out | other.left_out,
        )

    def predicting(self, run: Run) -> Run:
        """The run with what it is expected to cost."""
        prediction = self.predictions.get(run.label)
        values = prediction.values() if prediction else {}
        return replace(run, predicted=values, left_out=self.left_out.get(run.label))

    def runs(self, plan: Plan) -> list[Run]:
        """All runs of the plan, in its order."""
        whole = self.fit.apply(plan.task)
        sizes = {
            "train": len(whole.pairs("train")),
            "validation": len(whole.pairs("validation")),
            "test": len(whole.test),
        }
        task = self.limited(plan.task)
        return runs_of(plan, self.base, task, self.general, self.samples, sizes)

    def limited(self, task: Task) -> Task:
        """The task as every run gets it."""
        task = samples.apply(self.fit.apply(task), self.samples)
        if self.source_tokens is None:
            return task
        return replace(task, template=replace(task.template, source_tokens=self.source_tokens))


def profile(_say: Say, plan: Plan, out: Path, _trunk: Path | None = None) -> Profile:
    """Load the base once, in the first of the plan's formats, and look, in a process of its own.

    Args:
        out: the comparison's folder; where all has finished there, forgetting is not measured.

    Raises:
        InputError: a base that cannot be loaded, or a method that leaves no room for a source.
    """
    choose_precision([], plan.device, plan.config.precision)  # refuses a device that is not here
    dtype = plan.base_dtypes[0]
    model = base.load(plan.model, plan.device, dtype)
    for note in model.notes:
        echo(f"Warning: {note}", err=True)
    fit = look(plan.task, model.tokenizer)
    task = fit.apply(plan.task)
    counts, extras, misfits = _fitting(model, replace(plan, task=task), dtype)
    longest = max(extras.items(), key=lambda pair: pair[1], default=("", 0))
    context = max_row_tokens(model.shape.context, plan.config.max_length)
    fits = too_long(task, task.template, model.tokenizer, context - longest[1])
    limit, cut = _source_limit(model, fits.apply(task), context - longest[1], longest[0])
    profiled = Profile(
        base=Base(
            name=plan.model,
            fingerprint=model.fingerprint,
            parameters=model.shape.size,
            device=plan.device,
            dtype=dtype,
            bytes=model.base_bytes,
            checkpoint=model.checkpoint,
            file=words_of(plan.model),
            scale=model.scale,
        ),
        context=context,
        counts=counts,
        misfits=misfits,
        source_tokens=limit,
        longest=longest,
        cut=cut,
        general=_general(plan, context, longest[1]),
        fit=fit.joined(fits),
    )
    return _forgettable(model, plan, _sampled(model, plan, profiled, out), out)


def _sampled(model: FrozenLM, plan: Plan, found: Profile, out: Path) -> Profile:
    """How much is read: what earlier runs of the folder read, unless somebody has said how much."""
    task = found.fit.apply(plan.task)
    costs = samples.costs(plan, task, model.tokenizer, found.context, model.shape.size)
    chosen = samples.decided(plan, task, costs)
    earlier = but_for_samples(found.runs(plan), out)
    chosen = samples.kept(chosen, earlier, plan.sampling.share is not None)
    if not plan.sampling.test:  # somebody has said how many
        chosen = replace(chosen, test=None)
    general = found.general and replace(found.general, tokens=chosen.general or TEXT_TOKENS)
    return replace(found, samples=chosen, general=general)


def _fitting(
    model: FrozenLM, plan: Plan, dtype: str
) -> tuple[dict[str, Count], dict[str, int], dict[str, str]]:
    """By label: what each method trains, its positions beyond the template's; why others cannot."""
    import torch

    counts, extras, misfits = {}, {}, {}
    for method in plan.methods:
        name = label_on(method, dtype)
        contrasts = plan.task.choices is not None and plan.task.choices.loss == "contrast"
        if contrasts and (is_guest(method) or method.searches):
            misfits[name] = "its losses are of right options alone: use -o choice_loss=right"
            continue
        if is_guest(method):
            continue  # PEFT says only on a base of its own what it trains there
        try:
            for site in method.sites:
                model.conformance.require(site, method.name)
            method.check(model.shape)
            counts[name] = method.count(model.shape)
            extras[name] = max(
                _extra(model, plan.task, method, torch.Generator().manual_seed(seed))
                for seed in plan.seeds
            )
        except PeftlabError as error:
            misfits[name] = str(error)
    return counts, extras, misfits


def _general(plan: Plan, context: int, taken: int) -> GeneralText | None:
    """Windows that fit beside the longest prompt, so that every method reads the same rows."""
    if not plan.general_text:
        return None
    return GeneralText(documents=plan.general_text, window=text_window(context, taken))


def _forgettable(model: FrozenLM, plan: Plan, profiled: Profile, out: Path) -> Profile:
    """The bare base's loss of the general text, where a run is left to be held against it."""
    text = profiled.general
    if text is None or all(finished(run, out) for run in profiled.runs(plan)):
        return profiled
    before = text_loss(model, None, text.documents, window=text.window, most=text.tokens)
    return replace(profiled, general=replace(text, before=before))


def _extra(model: FrozenLM, task: Task, method: Method, rng: torch.Generator) -> int:
    """The most positions that a method's rows have beyond those of the bare template."""
    if method.sites and not _TAKES_POSITIONS & set(method.sites):
        return 0
    state = method.init(model, task, rng)
    prefix = method.edits(method.materialise(state, model), model).prefix_length
    own = method.template(task.template, state)
    tokenizer = model.tokenizer
    lengths = [
        len(_probe(one, tokenizer, *pair)[0]) - len(_probe(task.template, tokenizer, *pair)[0])
        for one in (own.alone, *own.beside)
        for pair in spaced(task.pairs("train"), _PROBES)
    ]
    return prefix + max(lengths)


def _probe(
    template: Template, tokenizer: object, example: Example, target: str
) -> tuple[tuple[int, ...], int, int]:
    """A row with one source token: ids, where the target starts, source tokens left out."""
    row = replace(template, source_tokens=1).encode(tokenizer, example, target, sys.maxsize)
    return row.ids, row.target_start, row.dropped


def _source_limit(
    model: FrozenLM, task: Task, context: int, longest: str
) -> tuple[int | None, int]:
    """The source tokens that fit into rows of `context` tokens, and how many rows exceed them."""
    asked = task.template.source_tokens or sys.maxsize
    limits, needs = [], []
    for split in ("train", "validation", "test"):
        for pair in spaced(task.pairs(split), _ROWS):
            ids, start, dropped = _probe(task.template, model.tokenizer, *pair)
            tail = len(ids) - start
            if split == "test":
                tail = max(tail, task.max_new_tokens)
            limits.append(context - (start - 1) - tail)
            needs.append(min(dropped + 1, asked))
    tight = [limit for limit, need in zip(limits, needs, strict=True) if need > limit]
    if not tight:
        return task.template.source_tokens, 0
    if min(tight) < 1:
        raise InputError(
            f"{longest or 'the template'} leaves no room for the source: a row would take "
            f"{1 - min(tight)} tokens more than fit beside it. Shorten the prompt, the exemplars "
            "or max_new_tokens, leave the row out, or take a model with a longer context"
        )
    return min(tight), sum(need > min(tight) for need in needs)
