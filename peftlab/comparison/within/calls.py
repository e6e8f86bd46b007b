"""What a comparison within a given time asks of processes, besides whole runs.

Both are called as all calls of an engine are, see `comparison.engine`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from peftlab.choosing import rescored
from peftlab.comparison.hosts import host
from peftlab.comparison.plan import Run
from peftlab.comparison.processes import Say
from peftlab.comparison.work import Pipe, lock, prediction_lines, progress_of, shared_store
from peftlab.evaluation import subset_scores
from peftlab.files import make_folder, write_json, write_text
from peftlab.loss import mean_of
from peftlab.measure import environment, in_company, tune_allocator
from peftlab.metrics import metric_spec, score
from peftlab.records import folders
from peftlab.records.reading import predictions
from peftlab.records.record import NAME, Record
from peftlab.training import Diverged


def trials_folder(run: Run) -> Path:
    """Of all trainings that screen a run's method for one whole length, whatever their own."""
    level = replace(run.config, steps=1, epochs=None, warmup=0.0)
    return replace(run, config=level).search_folder


def trial_folder(run: Run) -> Path:
    """Of one of them, relative to the comparison's."""
    config = run.config
    return trials_folder(run) / f"{config.learning_rate or 0:.4g}-{config.steps}"


def trial(say: Say, run: Run, out: Path, trunk: Path | None = None) -> Record:
    """Train to the run's length, as far as no shorter one did, and take the validation loss.

    One that diverges leaves a record that says so. What a longer one goes on from is in `stems`, so
    the checkpoint goes.
    """
    tune_allocator()
    folder = out / trial_folder(run)
    make_folder(folder)
    with lock(folder):
        record = run.record()
        record.environment = environment()
        write_json(folder / folders.CONFIG, run.resolved())
        own = host(run)
        stems = folder.parent / f"stems-{run.config.learning_rate or 0:.4g}"
        pipe = Pipe(say, own.device)
        try:
            with in_company() as company:
                store = shared_store(run, trunk)
                trained = own.train(run, folder, store, stems, display=pipe.display)
            record.others.train = company.share
        except Diverged as error:
            record = record.failed(str(error), error.step)
        else:
            record.loss.validation = trained.validation_loss
            record.loss.validation_error = trained.validation_error
            record.progress, record.status = progress_of(trained), "finished"
            # What this length took beyond what a shorter one had left for it.
            spent = trained.seconds + trained.validation_seconds + trained.saving_seconds
            record.seconds.train = max(0.0, spent - trained.earlier_seconds)
        record.write(folder)
        (folder / folders.CHECKPOINT).unlink(missing_ok=True)
    return record


def more(say: Say, run: Run, out: Path, _trunk: Path | None = None) -> Record:
    """Read test examples that a finished run has not read: those of the run's task beyond them."""
    tune_allocator()
    folder = out / run.folder
    with lock(folder):
        record, known = Record.read(folder / NAME), predictions(folder)
        whole = run.task
        fresh = whole.test[len(known) :]
        own = host(replace(run, task=replace(whole, test=fresh)))
        own.take_up(folder / folders.ADAPTER)
        say("phase", "generate", len(fresh), 0)
        evaluation, losses = own.evaluate(lambda count: say("step", count, None, None))
        lines = list(prediction_lines(fresh, evaluation, losses, first=len(known)))
        path = folder / folders.PREDICTIONS
        write_text(path, path.read_text(encoding="utf-8") + "".join(lines))
        _rescored(record, run, folder)
        record.write(folder)
    return record


def _rescored(record: Record, run: Run, folder: Path) -> None:
    """Scores and loss of all that has been read."""
    rows = predictions(folder)
    texts = [row["prediction"] for row in rows]
    references = [row["references"] for row in rows]
    metrics = run.task.metrics
    of_texts = [name for name in metrics if not metric_spec(name).of_choices]
    found = {**score(of_texts, texts, references).corpus, **rescored(metrics, rows)}
    record.scores = {name: found[name] for name in metrics}
    record.subsets = subset_scores(run.task, of_texts, texts, references)
    for name, places in run.task.subsets.items():
        if inside := [rows[i] for i in places if i < len(rows)]:
            record.subsets.setdefault(name, {}).update(rescored(metrics, inside))
    sums = [one for row in rows for one in row.get("loss_sums", ())]
    counts = [one for row in rows for one in row.get("loss_tokens", ())]
    if sums:
        record.loss.test, record.loss.test_error = mean_of(sums, counts)
    record.task.test_rows = len(rows)
