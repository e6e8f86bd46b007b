"""The live view: drawn on a console of fixed width, told in lines where nothing can be drawn."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from rich.console import Console

from peftlab.cli import dashboard
from peftlab.cli.dashboard import Dashboard, Expected, View, live, sparks
from peftlab.measure import held, phase

MIB = 2**20


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def drawn(board: Dashboard, width: int = 100, **options: Any) -> str:
    """The dashboard as a terminal of so many columns shows it."""
    console = Console(
        width=width, file=io.StringIO(), record=True, force_terminal=True, legacy_windows=False,
        **options,
    )  # fmt: skip
    console.print(board)
    return console.export_text()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Dashboard:
    """A comparison of four runs, one of them finished, the second under way for 30 seconds."""
    made = Dashboard(clock)
    titles = ["lora:rank=8, seed 0", "full, seed 0", "hard_prompt, seed 0"]
    seconds, memory = [60.0, 90.0, 0.0], [440.0 * MIB, 480.0 * MIB, None]
    made.plan([Expected(*one) for one in zip(titles, seconds, memory, strict=True)], 1, 4)
    made.begin(titles[0])
    made.hear("phase", "load", 0, 0)
    clock.now += 10
    made.hear("phase", "train", 300, 0)
    for step in range(1, 101):
        clock.now += 0.2
        made.hear("step", step, 4.0 - 0.03 * step, 8123.4)
        made.hear("memory", (433 if step == 50 else 420) * MIB)
    return made


def test_everything_that_matters_is_on_it(board: Dashboard) -> None:
    text = drawn(board)
    flat = " ".join(text.split())
    assert "lora:rank=8, seed 0" in text.splitlines()[0]
    assert "training" in flat and "100/300" in flat and "40 s left" in flat
    assert "loss 1.000" in flat and "lowest 1.000" in flat and "8,123 tokens/s" in flat
    assert "memory 420 MiB, peak 433 MiB" in flat and "~440 MiB predicted" in flat
    assert "next: full, seed 0, hard_prompt, seed 0" in flat
    # 60 s were predicted for this run, 40 are left of its training; 90 for the next.
    assert "run 2 of 4, 30 s so far, about 2 min 10 s left" in flat
    assert "█" in text and text.index("█") < text.index("▁"), "the loss has fallen"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_it_fits_every_terminal(board: Dashboard, width: int) -> None:
    lines = drawn(board, width).splitlines()
    assert max(map(len, lines)) <= width
    assert "100/300" in "".join(lines) and "loss 1.000" in " ".join(" ".join(lines).split())
    assert len({len(line.rstrip()) for line in lines}) == 1, "the frame is whole"


def test_a_terminal_without_unicode(board: Dashboard) -> None:
    console = Console(
        width=80, file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), force_terminal=True
    )
    with console.capture() as captured:
        console.print(board)
    captured.get().encode("ascii")


def test_what_runs_took_besides_training_counts_for_those_to_come(
    board: Dashboard, clock: Clock
) -> None:
    board.hear("phase", "generate", 50, 0)
    assert "generating" in drawn(board) and "0/50" in drawn(board)
    clock.now += 20
    board.end(trained=25.0)  # 50 s in all: 25 besides
    assert drawn(board).strip() == ""
    assert board.left() == pytest.approx(90 + 25 + 0 + 25)
    board.begin("hard_prompt, seed 0")  # full had been finished before
    assert board.waiting == [] and board.left() == pytest.approx(25)
    clock.now += 100
    assert board.left() == 0.0, "it takes longer than was thought, which is no negative time"


def test_without_a_prediction_the_runs_so_far_tell(clock: Clock) -> None:
    board = Dashboard(clock)
    board.plan([Expected("peft:oft, seed 0"), Expected("peft:oft, seed 1")], 0, 2)
    board.begin("peft:oft, seed 0")
    assert board.left() is None and "about" not in drawn(board)
    clock.now += 8
    board.end(trained=5.0)
    assert board.left() == pytest.approx(8)


def test_trials_of_a_search_are_named(board: Dashboard) -> None:
    board.hear("trial", 2, 4, 0.00123)
    board.hear("phase", "train", 150, 0)
    text = drawn(board)
    assert "trial 2 of 4, rate 0.0012: training" in text and "0/150" in text
    assert "loss" not in text, "each trial has its own"
    board.hear("phase", "load", 0, 0)
    board.hear("phase", "evaluate", 3, 0)
    board.hear("step", 1, None, None)
    assert "trial" not in drawn(board) and "1/3" in drawn(board)


def test_words_before_the_first_run_and_unknown_ones_change_nothing(clock: Clock) -> None:
    board = Dashboard(clock)
    board.hear("step", 1, 2.0, 3.0)
    board.begin("full")
    before = drawn(board)
    board.hear("something new", 1, 2)
    assert drawn(board) == before


def test_where_nothing_can_be_drawn_there_is_a_line_a_minute(clock: Clock) -> None:
    file = io.StringIO()
    board = Dashboard(clock)
    view = View(board, Console(file=file, width=80))
    view.open()
    board.begin("lora, seed 0")
    view.hear("phase", "train", 300, 0)
    for step in range(1, 301):
        clock.now += 0.5
        view.hear("step", step, 2.0, 900.0)
        view.hear("memory", 420 * MIB)
    view.close()
    lines = file.getvalue().splitlines()
    assert lines == [
        "lora, seed 0: training 121/300, loss 2.000, 1 min 30 s left, 420 MiB",
        "lora, seed 0: training 242/300, loss 2.000, 29 s left, 420 MiB",
    ]


def test_on_a_terminal_it_comes_and_goes(clock: Clock) -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, legacy_windows=False)
    board = Dashboard(clock)
    view = View(board, console)
    for title in ("lora, seed 0", "full, seed 0"):
        board.begin(title)
        view.open()
        view.hear("phase", "train", 10, 0)
        view.close()
        view.close()
        assert title in file.getvalue()
        assert file.getvalue().endswith("\x1b[1A\x1b[2K"), "taken away again"
        board.end(1.0)
    assert file.getvalue().count("\x1b[?25l") == file.getvalue().count("\x1b[?25h") == 2


def test_one_training(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, legacy_windows=False)
    monkeypatch.setattr(dashboard, "terminal", lambda: console)
    with live(torch.device("cpu"))("lora", 10, 2) as show:
        for step in range(3, 6):
            show(step, 1.5, 100.0)
    assert "lora" in file.getvalue() and "\x1b[?25h" in file.getvalue()


def test_memory_that_is_held_is_counted_as_peaks_are() -> None:
    with phase("test", "cpu") as measured:
        block = torch.ones(64 * MIB // 4)
        now = held(torch.device("cpu"))
    assert abs(now - measured.peak_bytes) < 16 * MIB and block.numel()
    del block


def test_sparks() -> None:
    assert sparks([3.0, 2.0, 1.0], 3) == "█▅▁" and sparks([1.0]) == "▁"
    assert len(sparks([float(i) for i in range(1000)], 24)) == 24
    assert sparks([1.0, 1.0, 5.0, 5.0], 2) == "▁█"
