"""Many references stream: 10,000 examples with 8 of them each stay under a gigabyte."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

_SCRIPT = """
import random, re, sys
from pathlib import Path
from peftlab.metrics import score

rng = random.Random(0)
words = [f"w{i}" for i in range(5000)]
chances = [1 / (i + 1) for i in range(5000)]  # as in language: few words are most of a text

def text():
    return " ".join(rng.choices(words, chances, k=rng.randint(10, 30))) + " ."

predictions = [text() for _ in range(10_000)]
references = [[text() for _ in range(8)] for _ in range(10_000)]
for name in sys.argv[1:]:
    scores = score(name, predictions, references)
    assert len(scores.per_example[name]) == 10_000
# Not getrusage's, which begins with the memory of the process that started this one.
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024)
"""
needs_tables = pytest.mark.skipif(
    find_spec("peftlab_meteor") is None, reason="plugins/peftlab-meteor is not installed"
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read as Linux gives it")
@pytest.mark.parametrize(
    "names",
    [
        "bleu-e2e nist cider rougeL-coco",
        "rouge1 rougeL chrf exact_match",
        pytest.param("meteor", marks=needs_tables),
    ],
)
def test_many_references_stay_under_a_gigabyte(names: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *names.split()], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 1 << 30
