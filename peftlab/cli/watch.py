"""What a person sees of a running comparison: the plan, each run live, one line for each result."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.cli.dashboard import Dashboard, Expected, View
from peftlab.comparison.finished import finished as kept
from peftlab.comparison.finished import other_settings
from peftlab.comparison.plan import seeds_of
from peftlab.errors import InputError
from peftlab.printable import terminal
from peftlab.records.figures import outline, trained_in
from peftlab.records.reading import StoredRun, StoredRuns
from peftlab.records.samples import told
from peftlab.report.page import write
from peftlab.units import duration, size

if TYPE_CHECKING:
    from peftlab.comparison.plan import Plan, Run
    from peftlab.comparison.profile import Profile
    from peftlab.estimate import Prediction
    from peftlab.records.record import Record, Search, Tried
    from peftlab.training import Budget


class Shown:
    """A `Watcher` that prints; the dashboard is drawn on a terminal only."""

    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan, self.out = plan, out
        self.console = terminal()
        self.number = self.total = 0
        self.board = Dashboard()
        self.view = View(self.board, self.console)
        plan_line = f"{_count(plan.methods, 'method')} × {_count(plan.seeds, 'seed')}"
        self._say(f"Comparing {plan_line} on the task {plan.task.name} with {plan.model}")
        self.looking = self.console.status("looking at the base, and trying a few steps")
        if self.console.is_terminal:
            self.looking.start()

    def planned(self, runs: list[Run], profile: Profile, finished: int) -> None:
        """Say what will be done, and what is the same for every method."""
        self.looking.stop()
        task, config = self.plan.task, self.plan.config
        rows = len(task.pairs("train"))
        width = max(len(run.label) for run in runs)
        most = "" if self.plan.within is None else "at most "
        self._say(
            f"Base: {profile.base.parameters:,} parameters{_formats(profile)}, context "
            f"{profile.context}, on {profile.base.device}. Every method: "
            f"{most}{_amount(runs[0].budget)} in steps of {config.rows_a_step} rows out of "
            f"{rows:,}, {len(task.test):,} test examples."
        )
        for note in runs[0].task.notes:
            self._say(note)
        search = self.plan.search
        if search.trials:
            self._say(
                f"Each method's rate is searched for in {search.trials} trials of "
                f"{search.share:.0%} of that, by validation loss."
            )
        labels = {run.label for run in runs}
        for label, count in profile.counts.items():
            if label not in labels:
                self._say(f"  {label} comes to the same as another method here and is not run")
                continue
            part = count.trainable / profile.base.parameters
            told = f"  {label:<{width}}  {count.trainable:>12,} trainable ({part:.3%})"
            self._say(f"{told}{_cost(profile, label)}")
        for told in dict.fromkeys(filter(None, map(_asked, runs))):
            self._say(f"  {told}")
        for label, reason in profile.misfits.items():
            self._say(f"  {label:<{width}}  will fail: {reason}")
        if profile.cut:
            self._say(
                f"Sources are cut to {profile.source_tokens} tokens for every method, so that "
                f"{profile.longest[0] or 'the template'} (+{profile.longest[1]} tokens) fits too: "
                f"{profile.cut:,} rows lose some."
            )
        within = self.plan.within
        if within is None:
            for line in self._foretold(runs, profile):
                self._say(line)
        if any(prediction.busy for prediction in profile.predictions.values()):
            self._say("Other programs are busy on this machine: times may be far off.")
        if within is not None:
            planned = duration(self.board.clock() - self.board.began)
            self._say(f"{planned} of {duration(within)} went into this plan.")
            return
        if finished:
            self._say(
                f"{finished} of {len(runs)} runs are finished already and are not made again."
            )
        others = other_settings(runs, self.out)
        if others:
            self._say(others)
        self.total, self.number = len(runs), finished
        waiting = [run for run in runs if run.left_out is None and kept(run, self.out) is None]
        self.board.plan([self._expected(run, profile) for run in waiting], finished, len(runs))

    def _foretold(self, runs: list[Run], profile: Profile) -> Iterator[str]:
        """What all will take, evaluation's share of it, and what is read for that."""
        known = [
            (found, len(seeds_of(self.plan, run.method)), run)
            for run in runs
            if run.seed == self.plan.seeds[0]
            and (found := profile.predictions.get(run.label)) is not None
            and run.label not in profile.left_out
        ]
        trained = sum((one.train_seconds or 0.0) * n + one.search_seconds for one, n, _ in known)
        trained -= _kept_seconds(known)
        if trained > 0:
            evaluated = sum(one.evaluation_seconds * n for one, n, _ in known)
            besides = sum((one.besides_seconds or 0.0) * n for one, n, _ in known)
            planned = self.board.clock() - self.board.began
            share = (evaluated + planned) / trained
            yield (
                f"Training will take about {_minutes(trained)} here. Evaluation adds {share:.0%} "
                f"to that: {_minutes(planned)} for this plan, {_minutes(evaluated)} for "
                f"validations, losses and texts. Loading, latency and the like take "
                f"{_minutes(besides)}."
            )
        if read := told(runs[0].record().samples):
            yield (
                f"Evaluation reads {read}, the same for every method (--evaluation-share 0: all)."
            )

    def _expected(self, run: Run, profile: Profile) -> Expected:
        prediction = profile.predictions.get(run.label)
        if prediction is None:
            return Expected(run.title)
        searched = prediction.search_seconds if run.seed == self.plan.seeds[0] else 0.0
        whole = prediction.run_seconds
        seconds = (prediction.train_seconds or 0.0) + searched
        besides = None if whole is None else whole - (prediction.train_seconds or 0.0)
        return Expected(run.title, seconds, prediction.peak_memory, besides)

    def started(self, run: Run) -> None:
        """Show it live."""
        self.number += 1
        self.running = f"[{self.number}/{self.total}] {run.title}"
        self.board.begin(run.title)
        self.view.open()

    def heard(self, word: str, *values: Any) -> None:
        """The dashboard moves."""
        self.view.hear(word, *values)

    def close(self) -> None:
        """Nothing is drawn any more."""
        self.looking.stop()
        self.view.close()

    def ended(self, run: Run, record: Record) -> None:
        """A line takes the dashboard's place."""
        self.close()
        search = record.search.seconds if record.search else 0.0
        self.board.end((record.seconds.train or 0.0) + search)
        if record.search is not None and run.seed == self.plan.seeds[0]:
            self._say(f"{self.running}: {_search(record.search)}")
        if record.status == "failed":
            self._say(f"{self.running}: failed: {record.error}")
            return
        self._say(f"{self.running}: {outline(record)} ({trained_in(record)} training)")

    def again(self, runs: list[Run]) -> None:
        """Say what the machine is kept busy with after the last run."""
        names = ", ".join(run.title for run in runs)
        self._say(
            "Other programs used the machine meanwhile: twenty steps, or the latency, are measured "
            f"again for {names}"
        )

    def begins(self, title: str) -> None:
        """Show it live."""
        self.board.begin(title)
        self.view.open()

    def stands(self, told: str, runs: list[StoredRun]) -> None:
        """A line takes the dashboard's place; the page shows what there is."""
        self.close()
        self._say(told)
        if runs:
            with suppress(InputError):  # the page is made anew after the next step
                write(self.out, StoredRuns(runs, []))

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _kept_seconds(known: Sequence[tuple[Prediction, int, Run]]) -> float:
    """What all runs but the first save by what that has kept of the frozen trunk for them."""
    filling: dict[str, list[float]] = defaultdict(list)
    for found, count, run in known:
        if run.config.seconds is not None:
            continue  # the budget is what is announced
        trials = [found.filling_seconds * run.search.share] * run.search.trials
        filling[run.keeps] += [found.filling_seconds] * count + trials
    return sum(sum(each) - max(each) for each in filling.values() if each)


def _asked(run: Run) -> str:
    """What a method asks in a chat where it does not say so by its name."""
    settled = run.settled
    if settled.label == run.label or not run.task.template.chat:
        return ""
    return f"{run.label} is {settled.label} here"


def _formats(profile: Profile) -> str:
    """In which formats, and what they take; nothing where it is a plain base in fp32 alone."""
    file = profile.base.file
    if file is None and [base.dtype for base in profile.bases] == ["fp32"]:
        return ""
    told = " and ".join(f"{base.dtype} ({size(base.bytes or 0)})" for base in profile.bases)
    return f" in {told}" if file is None else f" of a {file}, dequantised to {told}"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:,.0f} min"


def _cost(profile: Profile, label: str) -> str:
    """What is predicted for a run, and whether it is left out for that."""
    prediction = profile.predictions.get(label)
    if prediction is None or prediction.train_seconds is None:
        return ""
    told = f"  ~{size(prediction.peak_memory or 0)}, ~{prediction.train_seconds:,.0f} s"
    told += f" + {prediction.search_seconds:,.0f} s search" if prediction.search_seconds else ""
    reason = profile.left_out.get(label)
    return told if reason is None else f"{told}: left out, {reason}"


def _amount(budget: Budget) -> str:
    told = {"tokens": "tokens through the base (a training token counts twice)"}
    return f"{budget.amount:,.0f} {told.get(budget.kind, budget.kind)}"


def _search(search: Search) -> str:
    tried = ", ".join(f"{one.rate:.2g} {_ended(one)}" for one in search.trials)
    return f"rate {search.rate:.2g} in {search.seconds:.0f} s (validation loss at {tried})"


def _ended(one: Tried) -> str:
    if one.status == "failed":
        return "diverged"
    return f"{one.loss:.3f}" if one.status == "finished" else "ended early"


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"
