"""The functions of `import peftlab as pl`: load, train, evaluate, generate, each in one call.

What they do stands in the packages below; here options get their defaults and names their objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftlab.files import make_folder
from peftlab.methods import Method, method_of

if TYPE_CHECKING:
    from peftlab.comparison.run import Compared
    from peftlab.conversion import Converted, Part
    from peftlab.evaluation import Evaluation
    from peftlab.frozen.model import FrozenLM
    from peftlab.generation import Reply, Request
    from peftlab.methods.adaptation import Adaptation
    from peftlab.methods.combination import How
    from peftlab.tasks import Decoding, Example, Task, Template


def load(name: str | Path, *, device: str = "auto", dtype: str = "fp32") -> FrozenLM:
    """The frozen model of a name.

    Args:
        name: "demo" (the bundled model), a folder of transformers, a hub id, or a GGUF file
            (`FILE.gguf`, `owner/name:FILE.gguf`, `owner/name:Q4_K_M`).
        device: auto, cpu, cuda, cuda:1 or mps.
        dtype: the format in which its numbers are kept: fp32, bf16, int8 or nf4.

    Raises:
        InputError: no such model, device or format, or no room for it.
        UnsupportedModel: a family that cannot be edited exactly; says why.
    """
    from peftlab.frozen import named

    return named.load(str(name), named.device_name(device), dtype)


def load_task(name: str | Path, **options: Any) -> Task:
    """What is to be learnt: a task's name, a file, a folder with splits, or a hub id.

    Args:
        options: as `-o` on the command line: `limit`, `template`, `columns`, …; see
            `peftlab.tasks.Options`.

    Raises:
        InputError: whatever cannot be used, with the nearest name where one is near.
    """
    from peftlab.tasks import Task

    return Task.load(name, **options)


def train(
    model: FrozenLM,
    method: Method | str,
    task: Task,
    *,
    out: str | Path | None = None,
    **options: Any,
) -> Adaptation:
    """Train one adaptation; the state with the lowest validation loss is returned.

    Rows of a loaded task stand in the base's chat template, where its tokenizer has one; a task
    that was loaded with chat=False does not. The adaptation keeps which (`template.frame`).

    Args:
        method: `pl.LoRA(rank=8)`, or the same in words: "lora:rank=8".
        out: a folder for the checkpoint, from which a training that was cut off continues.
        options: the fields of `peftlab.training.TrainConfig` (`steps`, `learning_rate`, `seed`, …),
            or a `budget` of any kind: "tokens=2e6".

    Raises:
        InputError: settings that do not fit the model or the task.
        Diverged, Interrupted: see `peftlab.training`.
    """
    from peftlab.training import train as train_one
    from peftlab.training.config import train_config

    chosen = method_of(method)
    folder = None if out is None else Path(out)
    if folder is not None:
        make_folder(folder)
    config = train_config(options)
    return train_one(model, chosen, task, config, folder=folder).adaptation


def convert(
    model: FrozenLM,
    adaptation: Adaptation,
    to: Method | str,
    task: Task,
    *,
    out: str | Path | None = None,
    replies: Literal["targets", "teacher"] = "targets",
    **options: Any,
) -> Converted:
    """An adaptation of another method that does what this one does: `.adaptation`, `.fidelity`.

    Args:
        to: the method, as of `train`.
        task: whose training sources are learnt on, and whose test split measures fidelity.
        out: a folder for the checkpoint, from which a conversion that was cut off continues, and
            for the result as `adapter`.
        replies: learn on the task's targets, or on replies that the adaptation samples.
        options: as of `train`, 100 steps by default; steps=0 takes none, where a change of weights
            becomes a LoRA.

    Raises:
        InputError: an adaptation of another base, or what no conversion can reach.
        Diverged, Interrupted: see `peftlab.training`.
    """
    from peftlab.conversion import STEPS
    from peftlab.conversion import convert as converted
    from peftlab.training.config import train_config

    folder = None if out is None else Path(out)
    if folder is not None:
        make_folder(folder)
    fit_only = options.get("steps") == 0
    config = train_config(options | {"steps": 1} if fit_only else options, STEPS)
    return converted(
        model,
        adaptation,
        method_of(to),
        task,
        config,
        fit_only=fit_only,
        replies=replies,
        folder=folder,
    )


def combine(
    model: FrozenLM,
    parts: Mapping[str, float] | Sequence[tuple[Adaptation | str | Path, float]],
    *,
    how: How = "linear",
    density: float | None = None,
    seed: int = 0,
    template: Template | None = None,
) -> Adaptation:
    """One adaptation of the weight changes of several: `{"runs/a": 0.7, "runs/b": 0.3}`.

    Args:
        parts: folders, or adaptations, with their weights; negative ones take a change away.
        how: linear, ties, dare_linear, dare_ties or peft_linear, see `pl.Combination`.
        density: the share of each change that ties and dare keep. seed: of what dare keeps.
        template: of its rows; the first part's where None.

    Raises:
        InputError: a part that changes something else than weights, or of another base.
    """
    from peftlab.conversion import combine as combined

    return combined(model, _parts(model, parts), how, density=density, seed=seed, template=template)


def mixture(
    model: FrozenLM, parts: Mapping[str, float] | Sequence[tuple[Adaptation | str | Path, float]]
) -> Adaptation:
    """One adaptation whose logits are the weighted sum of others', of any methods.

    Each reads every row for itself, in its own template; `{"runs/a": 1.5, "base": -0.5}` holds one
    against the bare base (Liu et al. 2021, arXiv:2105.03023). It is generated with, evaluated,
    served and compared as any adaptation, and `convert` makes one of another method of it.

    Args:
        parts: folders, or adaptations, with their weights; "base" is the bare base.

    Raises:
        InputError: parts that begin or end a target in other tokens, or of another base.
    """
    from peftlab.conversion import mixture as mixed
    from peftlab.methods.mixture import BASE

    return mixed(model, _parts(model, parts, bare=BASE))


def evaluate(
    model: FrozenLM, adaptation: Adaptation, task: Task, *, split: str = "test", **options: Any
) -> Evaluation:
    """What the adapted model generates for a split, and how good it is: `.scores`, `.replies`.

    Args:
        options: `batch_size`, `max_length` and `seed` of `peftlab.evaluation.evaluate`.

    Raises:
        InputError: no such split, an empty one, or an adaptation of another base.
    """
    from peftlab.evaluation import AdaptedLM
    from peftlab.evaluation import evaluate as evaluated

    return evaluated(AdaptedLM(model, adaptation), task, split, **options)


def generate(
    model: FrozenLM,
    requests: Sequence[Request | tuple[Adaptation, str | Example]],
    decoding: Decoding | None = None,
    *,
    max_new_tokens: int = 64,
    **options: Any,
) -> list[Reply]:
    """Answer texts with adaptations of any methods, in one batch; replies in the order asked.

    Args:
        requests: pairs of an adaptation and a text.
        decoding: greedy where None.
        max_new_tokens: of every pair.
        options: `batch_size`, `seed`, … of `peftlab.generation.generate`.

    Raises:
        InputError: an adaptation of another base, or a prompt that leaves no room for a reply.
    """
    from peftlab import generation

    asked = [
        generation.Request(*one, max_new_tokens) if isinstance(one, tuple) else one
        for one in requests
    ]
    return generation.generate(model, asked, decoding, **options)


def load_adaptation(
    folder: str | Path, model: FrozenLM, template: Template | None = None
) -> Adaptation:
    """A saved adaptation: peftlab's own folder, a run's, or PEFT's, whichever it is.

    Args:
        template: taken instead of the stored one; PEFT's folders store none.

    Raises:
        InputError: neither, damaged, or made for another base.
    """
    from peftlab.export import open_adaptation
    from peftlab.methods.adaptation import own_folder

    return open_adaptation(own_folder(Path(folder)), model, template)


def _parts(
    model: FrozenLM,
    parts: Mapping[str, float] | Sequence[tuple[Adaptation | str | Path, float]],
    bare: str | None = None,
) -> list[Part]:
    """Parts by the names that they were given, or their numbers; `bare` names the bare base."""
    from peftlab.conversion import Part

    pairs = list(parts.items() if isinstance(parts, Mapping) else parts)
    return [
        Part(str(of), None, weight) if of == bare else _part(model, number, of, weight)
        for number, (of, weight) in enumerate(pairs)
    ]


def _part(model: FrozenLM, number: int, of: Adaptation | str | Path, weight: float) -> Part:
    from peftlab.conversion import Part

    if isinstance(of, str | Path):
        return Part(str(of), load_adaptation(of, model), weight)
    return Part(f"{of.method.name}-{number}", of, weight)


def compare(
    model: str | Path,
    task: Task | str | Path,
    methods: Sequence[Method | str] | Method | str = "",
    *,
    seeds: int | Sequence[int] = 1,
    out: str | Path,
    device: str = "auto",
    general_text: str = "demo",
    **options: Any,
) -> Compared:
    """Run every method on one task under one budget, and say which to use: `.verdict`, `.records`.

    Each run is a process of its own. Finished runs in `out` are not made again; one that was cut
    off continues. `peftlab report OUT` shows the tables and the page.

    Args:
        model: a name as of `load`; every run loads it anew, so that none can change another's.
        methods: `pl.LoRA(rank=8)`, or in words: "lora:rank=8", "peft:vera"; by default five.
        seeds: a number n means 0 … n−1; a list means itself.
        out: the comparison's folder.
        options: all others of `peftlab compare --help`, called as there: `steps`, `search`,
            `max_memory`, `engine`, …

    Raises:
        InputError: settings that do not fit; a folder of another comparison.
        DiskFull, Stopped: what is finished is kept, and the same call continues.
    """
    from dataclasses import replace

    from peftlab.comparison.resolve import comparison_settings
    from peftlab.comparison.run import compare as run

    settings = comparison_settings(
        model=str(model),
        task=task,
        methods=methods,
        seeds=seeds,
        out=out,
        device=device,
        general_text=general_text,
        **options,
    )
    plan = replace(settings.plan(), predict=False)  # limits alone ask for predictions
    return run(plan, settings.out, engine=settings.engine(print))
