"""Trainings that are killed, and disks that get full while something is written: is anything lost?

    python -m bench.interruptions kills --times 100
    python -m bench.interruptions limit --times 200    # RLIMIT_FSIZE of k bytes at the jth write
    python -m bench.interruptions killed --times 100   # the same, but it ends in that write
    python -m bench.interruptions disk --times 200     # a tmpfs with k bytes left (root alone)

`kills` ends `train` by SIGKILL at random moments between its first step and its end; every training
saves after each step. Then the same command is given again, and what it leaves (adapter,
checkpoint, journal, predictions, scores; all but clock readings) must be what an uninterrupted one
leaves, bit for bit.
The others do the same with a write that fails, over trainings of our own methods and of a guest, a
comparison with a search, and exports over an earlier export. A command that fails must say so in
one line that names what is full, leave no temporary files, and files of before as they were.

Ends with status 1 where anything is otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file

from bench.interruption_jobs import ADAPTERS, BEFORE, EXPORTS, TRAININGS, Fault, Place, carry_out
from peftlab.comparison.processes import server
from peftlab.files import found, lines_of
from peftlab.records import folders

_WAIT = 300.0  # seconds until a job counts as hung
_FULL = ("the disk is full", "files may not become this large")
_CLOCK = {  # what is measured, in JSON files, and what tells of the call
    "tokens_per_second", "seconds", "step_seconds", "validation_seconds", "latency", "peak_memory",
    "predicted", "environment", "command", "folder", "saving_seconds", "others",
}  # fmt: skip
_DISK_BYTES = 64 << 20


@dataclass(frozen=True)
class Ended:
    """How a job ended: its exit code (None: it was killed), its words, how often it wrote, and
    the seconds until its first step and its end."""

    code: int | None
    said: str = ""
    writes: int = 0
    first: float = 0.0
    seconds: float = 0.0


@dataclass
class Bench:
    """A folder with what jobs need, what they leave when nothing happens, and what was counted."""

    folder: Path
    base: str = "demo"
    task: str = "demo"
    disk: Path | None = None
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    wholes: dict[str, tuple[dict[str, Any], Ended]] = field(default_factory=dict)
    made: int = 0

    def place(self) -> Place:
        """A new folder to write to."""
        self.made += 1
        out = (self.disk or self.folder) / f"out-{self.made}"
        return Place(self.base, self.task, out, self.folder / "adapters", self.disk)

    def prepare(self) -> None:
        """Train the adapters that are exported."""
        for name in ADAPTERS:
            place = replace(self.place(), out=self.folder / "adapters" / name)
            ended = attempt(f"adapter {name}", place)
            assert ended.code == 0, ended.said

    def whole(self, job: str) -> tuple[dict[str, Any], Ended]:
        """What the job leaves when nothing happens, and how it ends."""
        if job not in self.wholes:
            place = self.place()
            ended = attempt(job, place)
            assert ended.code == 0, ended.said
            self.wholes[job] = (result(place.out), ended)
            self._clear(place)
        return self.wholes[job]

    def kill(self, job: str, rng: random.Random) -> None:
        """Kill a job at a random moment, then give the same command again."""
        left, usual = self.whole(job)
        place = self.place()
        ended = attempt(job, place, after=rng.uniform(0, usual.seconds - usual.first))
        if ended.code == 0 and ended.seconds < usual.seconds:  # the machine has become faster
            self.wholes[job] = left, ended
        self.counts["killed" if ended.code is None else "ended before"] += 1
        if ended.code is None and (place.out / "checkpoint.safetensors").exists():
            self.counts["killed with a checkpoint"] += 1
        self._again(job, place)

    def fail(self, job: str, fault: Fault) -> None:
        """Let a write of a job fail, then give the same command again."""
        place = self.place()
        if job in EXPORTS:
            assert attempt(f"{job}{BEFORE}", place).code == 0
        before = contents(place.out)
        ended = attempt(job, place, fault)
        if place.disk is not None:
            (place.disk / "filler").unlink(missing_ok=True)
        wrong = damaged(place.out)
        if ended.code is None:
            self.counts["killed"] += 1
        else:
            self.counts["failed" if ended.code else "went well"] += 1
            wrong += leftovers(place.out)
        if ended.code:
            wrong += said_wrong(ended)
            now = contents(place.out)
            wrong += [f"{n} is not what it was" for n in before if now.get(n) != before[n]]
        self.problems += [f"{job}, {fault}: {one}" for one in wrong]
        self._again(job, place, str(fault))

    def _again(self, job: str, place: Place, what: str = "killed") -> None:
        ended = attempt(job, place)
        wrong = leftovers(place.out)
        if ended.code != 0:
            wrong.append(f"does not continue: {ended.said[-500:]}")
        elif different := differences(result(place.out), self.whole(job)[0]):
            wrong.append(f"continues with another result: {different}")
        self.counts["continued with the same result"] += not wrong
        self.problems += [f"{job}, {what}: {one}" for one in wrong]
        self._clear(place)

    def _clear(self, place: Place) -> None:
        subprocess.run(["rm", "-rf", str(place.out)], check=True)


def attempt(
    job: str, place: Place, fault: Fault | None = None, after: float | None = None
) -> Ended:
    """Do a job in a process of its own, which is killed so many seconds after its first step.

    Raises:
        TimeoutError: it hangs.
    """
    context = server()
    ours, theirs = context.Pipe()
    arguments = (theirs, job, place, fault or Fault())
    child: Any = context.Process(target=carry_out, args=arguments)  # type: ignore[attr-defined]
    child.start()
    theirs.close()
    try:
        if after is not None:
            _wait_for_a_step(ours, place)
        if not ours.poll(_WAIT if after is None else after):
            if after is None:
                raise TimeoutError(f"{job} hangs")
            return Ended(None)
        return Ended(*ours.recv())
    except EOFError:  # the system has ended it
        return Ended(None)
    finally:
        child.kill()
        child.join()
        ours.close()


def _wait_for_a_step(pipe: Any, place: Place) -> None:
    """Until the journal begins, or the job has ended: imports take as long as the machine lets."""
    end = time.monotonic() + _WAIT
    while not pipe.poll(0.002) and not found(place.out, folders.METRICS):
        if time.monotonic() > end:
            raise TimeoutError("no step was taken")


def contents(folder: Path) -> dict[str, bytes]:
    """All files by their paths, locks aside."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def result(folder: Path) -> dict[str, Any]:
    """All that a job leaves, without what a clock said; pages and figures by their names alone."""
    files: dict[str, Any] = {}
    for name, content in contents(folder).items():
        kind = Path(name).suffix
        if kind == ".json":
            files[name] = _timeless(json.loads(content))
        elif kind == ".jsonl":
            files[name] = [_timeless(json.loads(line)) for line in lines_of(content.decode())]
        elif Path(name).name == "checkpoint.safetensors":
            files[name] = _checkpoint(folder / name)
        elif kind in (".html", ".svg", ".png"):
            files[name] = True
        else:
            own = content.replace(str(folder).encode(), b"OUT")
            files[name] = hashlib.sha256(own).hexdigest()
    return files


def _checkpoint(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        state = _timeless(json.loads(file.metadata()["state"]))
    tensors = load_file(path).items()
    return {"state": state, **{n: hashlib.sha256(t.numpy()).hexdigest() for n, t in tensors}}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if key not in _CLOCK}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def differences(got: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The files that differ."""
    return sorted(n for n in got.keys() | expected.keys() if got.get(n) != expected.get(n))


def leftovers(folder: Path) -> list[str]:
    """Temporary files, and activations of the frozen trunk."""
    left = [p for p in folder.rglob(".*") if p.name != ".lock"]
    return [f"{path.relative_to(folder)} is left" for path in left]


def damaged(folder: Path) -> list[str]:
    """Files that no reader could read; what lies under a temporary name does not count."""
    problems = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        try:
            if path.suffix == ".safetensors":
                load_file(path)
            elif path.suffix == ".json":
                json.loads(path.read_bytes())
            elif path.suffix == ".jsonl":
                text = path.read_text(encoding="utf-8")
                if path.name == folders.METRICS:  # whose last line counts once it has its end
                    text = text[: text.rfind("\n") + 1]
                [json.loads(line) for line in lines_of(text)]
            elif path.suffix == ".html":
                assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
        except Exception as error:
            problems.append(f"{path.relative_to(folder)} is damaged: {error}")
    return problems


def said_wrong(ended: Ended) -> list[str]:
    """What is wrong with the words of a command that failed."""
    errors = [line for line in ended.said.splitlines() if line.startswith("Error")]
    good = ended.code == 2 and len(errors) == 1 and any(full in errors[0] for full in _FULL)
    if good and "Traceback" not in ended.said and ended.said.rstrip().endswith(errors[0]):
        return []
    return [f"ended with {ended.code} and said {ended.said[-1500:]!r}"]


@contextmanager
def small_disk() -> Iterator[Path]:
    """A tmpfs of its own; needs root."""
    with tempfile.TemporaryDirectory() as place:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", place]
        subprocess.run(mount, check=True, capture_output=True)
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", place], check=True)


def faults(
    bench: Bench,
    kind: str,
    jobs: list[str],
    times: int,
    rng: random.Random,
    until: float = math.inf,
) -> None:
    """Jobs in turn: a random write of each fails, with room for a random part of its files."""
    for number in range(times):
        if time.monotonic() > until:
            return
        job = jobs[number % len(jobs)]
        _, usual = bench.whole(job)
        at = rng.randint(1, usual.writes)
        bytes_left = int(2 ** rng.uniform(0, 18)) - 1  # nothing up to 256 KiB
        bench.fail(job, Fault(kind, at, bytes_left))


def kills(
    bench: Bench, jobs: list[str], times: int, rng: random.Random, until: float = math.inf
) -> None:
    """Jobs in turn, until so many were killed before their end; twice as many tries at most."""
    for number in range(2 * times):
        if bench.counts["killed"] < times and time.monotonic() < until:
            bench.kill(jobs[number % len(jobs)], rng)


def main() -> None:
    """Interrupt and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kind", choices=["kills", "limit", "killed", "disk"])
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=math.inf, help="it ends then in any case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", default="", help="some of them, with commas")
    given = parser.parse_args()
    rng, until = random.Random(given.seed), time.monotonic() + given.seconds
    known = [*TRAININGS] if given.kind == "kills" else [*TRAININGS, "compare", *EXPORTS]
    jobs = [job for job in known if not given.jobs or job in given.jobs.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        if given.kind == "kills":
            kills(bench, jobs, given.times, rng, until)
        else:
            bench.prepare()
            if given.kind == "disk":
                with small_disk() as bench.disk:
                    faults(bench, given.kind, jobs, given.times, rng, until)
            else:
                faults(bench, given.kind, jobs, given.times, rng, until)
    print(json.dumps({"jobs": jobs, **bench.counts, "problems": bench.problems}, indent=2))
    raise SystemExit(bool(bench.problems))


if __name__ == "__main__":
    main()
