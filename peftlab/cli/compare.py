"""`peftlab compare`: the main job."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peftlab.bases.number_formats import formats
from peftlab.cli import engine as engines
from peftlab.cli import options as shared
from peftlab.errors import InputError
from peftlab.printable import echo

if TYPE_CHECKING:
    from peftlab.cli.watch import Shown
    from peftlab.comparison.engine import Engine
    from peftlab.comparison.plan import Plan
    from peftlab.guests import Guest
    from peftlab.methods import Method
    from peftlab.tasks import Task

# With no argument: minutes on two cores.
DEMO_STEPS, DEMO_TEST = 150, 100
STEPS = 300
# With --full: every method, its rate searched for, under 45 minutes on two cores. The budget is of
# tokens, since a step of a discrete search takes as many as ten of the others.
FULL_SEEDS, FULL_SEARCH, FULL_BUDGET = "0,1,2", 4, "tokens=330_000"
FIVE = "hard_prompt,hard_prompt:instruction=task,prompt_tuning,lora,last_k,full"


def compare(
    context: typer.Context,
    model: shared.Model = "demo",
    base_dtype: shared.BaseDtypes = "fp32",
    task: shared.TaskName = "demo",
    methods: Annotated[
        str,
        typer.Option(
            help="Methods with settings: lora:rank=4,prompt_tuning:length=5; PEFT's as peft:oft."
        ),
    ] = "",
    full: Annotated[
        bool,
        typer.Option("--full", help="Every method, a search for each one's rate, three seeds."),
    ] = False,
    search: Annotated[
        int | None,
        typer.Option(help="Learning rates tried for each method; 0: the methods' own."),
    ] = None,
    search_share: Annotated[
        float, typer.Option(help="Of a run's budget, for each of these trials.")
    ] = 0.5,
    budget: shared.Budget = None,
    steps: shared.Steps = None,
    epochs: shared.Epochs = None,
    batch_size: shared.BatchSize = 16,
    accumulation: shared.Accumulation = 1,
    learning_rate: shared.LearningRate = None,
    optimizer: shared.Optimizer = "adamw",
    precision: shared.Precision = "fp32",
    max_length: shared.MaxLength = None,
    evaluate_every: shared.EvaluateEvery = 50,
    patience: shared.Patience = 0,
    validation_limit: shared.ValidationLimit = None,
    recompute: shared.Recompute = False,
    offload: shared.Offload = False,
    seeds: Annotated[
        str | None, typer.Option(help="With commas: 0,1,2. By default 0, with --full 0,1,2.")
    ] = None,
    limit: shared.Limit = None,
    test_limit: shared.TestLimit = None,
    metrics: shared.Metrics = None,
    task_option: shared.TaskOptions = [],  # noqa: B006 - typer copies it
    general_text: shared.GeneralText = "demo",
    experiment: Annotated[
        str | None,
        typer.Option(
            help="A published table, run again: prefix-tuning-table1, cnn-dailymail-gpt2, or a "
            "YAML file. --model and --task then stand for the experiment's own."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="With --experiment: a folder with a saved data set for every task, named after it."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of all runs; by default runs/TASK-MODEL.")
    ] = None,
    max_memory: shared.MaxMemory = None,
    max_adapter_size: shared.MaxAdapterSize = None,
    max_time: shared.MaxTime = None,
    track: shared.Track = "",
    device: shared.Device = "auto",
    engine: engines.Engine = "processes",
    address: engines.Address = None,
    cpus: engines.Cpus = None,
) -> None:
    """Train and evaluate several methods on one task, and say which is best.

    With no argument: five methods on the bundled demo, offline, in minutes. Finished runs are not
    made again; an interrupted comparison continues when the same command is given again.
    """
    from peftlab.comparison import run as comparison
    from peftlab.comparison.plan import Plan, SearchConfig
    from peftlab.training.tracking import trackers

    if experiment is not None:
        from peftlab.cli.experiment import from_options

        from_options(experiment, context)
        return
    if data is not None:
        raise InputError("--data belongs to --experiment; for a recipe give -o data=FOLDER")
    chosen = engines.engine_of(engine, address, cpus)
    if engine == "processes":
        comparison.warm_up()
    if task == "demo" and limit is None and test_limit is None and not full:
        test_limit = DEMO_TEST
    if full and budget is None and steps is None and epochs is None:
        budget = FULL_BUDGET
    loaded = shared.load_task(
        task, task_option, limit=limit, test_limit=test_limit, metrics=metrics
    )
    config = shared.train_config(
        DEMO_STEPS if task == "demo" else STEPS,
        budget=budget,
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        accumulation=accumulation,
        learning_rate=learning_rate,
        optimizer=optimizer,
        precision=precision,
        max_length=max_length,
        evaluate_every=evaluate_every,
        patience=patience,
        validation_limit=validation_limit,
        recompute=recompute,
        offload=offload,
    )
    plan = Plan(
        model=model,
        base_dtypes=formats(base_dtype),
        task=loaded,
        methods=methods_of(methods, loaded, full),
        config=config,
        search=SearchConfig(
            trials=(FULL_SEARCH if full and learning_rate is None else 0)
            if search is None
            else search,
            share=search_share,
        ),
        predict=True,
        limits=shared.limits(max_memory, max_adapter_size, max_time),
        general_text=shared.general_documents(general_text),
        seeds=seeds_of(seeds or (FULL_SEEDS if full else "0")),
        device=shared.device_name(device),
        track=trackers(track),
    )
    out = out or _default_folder(loaded.name, model)
    _carry_out(plan, out, chosen, engines.watcher(engine, plan, out))


def _carry_out(plan: Plan, out: Path, engine: Engine, watcher: Shown) -> None:
    from peftlab.comparison import run as comparison
    from peftlab.records.reading import StoredRuns
    from peftlab.report.page import write
    from peftlab.report.show import show

    command = shlex.join(["peftlab", *sys.argv[1:]])
    try:
        compared = comparison.compare(plan, out, watcher, {"command": command}, engine)
    finally:
        watcher.close()
    show(compared.runs)
    page = write(out, StoredRuns(compared.runs, []))
    echo(f"Everything is in {out}; show it again with: peftlab report {out}")
    echo(f"The page to look at and to send: {page}")
    if any(record.status == "failed" for record in compared.records):
        raise typer.Exit(1)


def methods_of(text: str, task: Task, full: bool) -> tuple[Method | Guest, ...]:
    """The methods that were named, or every one with `full`, or else five."""
    from peftlab.comparison.label import parse
    from peftlab.methods import REGISTRY

    if text:
        return parse(text)
    chosen = FIVE
    if full:
        prompts = "hard_prompt,hard_prompt:instruction=task"
        others = sorted(REGISTRY.keys() - {"hard_prompt"})
        chosen = ",".join([prompts, *others])
    return parse(
        chosen if task.instruction else chosen.replace(",hard_prompt:instruction=task", "")
    )


def seeds_of(text: str) -> tuple[int, ...]:
    """The numbers of `0,1,2`.

    Raises:
        InputError: anything else.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--seeds {text!r}: whole numbers with commas were expected: 0,1,2"
        ) from error


def _default_folder(task: str, model: str) -> Path:
    from peftlab.comparison.label import slug

    base = Path(model).name if Path(model).exists() else model
    return Path("runs") / f"{slug(task)}-{slug(base)}"
