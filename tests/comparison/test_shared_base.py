"""While a comparison is planned the base is loaded once; what is forked from it is as if alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from peftlab.comparison import local
from peftlab.comparison.engine import PROFILE
from peftlab.comparison.processes import Died, RunFailed, call
from peftlab.comparison.run import compare
from peftlab.comparison.shared_base import Named, SharedBase
from peftlab.tasks import Task
from tests.comparison.test_comparison import make

HELPERS = "tests.comparison.cluster_helpers"

pytestmark = pytest.mark.skipif(not SharedBase.works_on("cpu"), reason="only Linux forks so")


def _deaf(*_: Any) -> None: ...


def test_processes_share_one_base_and_have_all_threads(base: str) -> None:
    with SharedBase() as shared:
        on = Named(base, "fp32", "cpu")
        one, two = (shared.call(on, f"{HELPERS}:about_base", (base,), _deaf) for _ in range(2))
        assert one["parent"] == two["parent"] and one["process"] != two["process"]
        assert one["address"] == two["address"]
        assert one["threads"] == torch.get_num_threads()
        other = shared.call(on._replace(dtype="bf16"), f"{HELPERS}:about_base", (base,), _deaf)
        assert other["parent"] != one["parent"] and not psutil.pid_exists(one["parent"])
    assert not psutil.pid_exists(other["parent"])


def test_a_base_that_is_not_there_and_a_process_that_dies(base: str) -> None:
    with SharedBase() as shared:
        nothing = Named("/nowhere/at/all", "fp32", "cpu")
        with pytest.raises(RunFailed, match="/nowhere/at/all"):
            shared.call(nothing, f"{HELPERS}:about_base", (base,), _deaf)
        on = Named(base, "fp32", "cpu")
        with pytest.raises(Died, match="SIGKILL"):
            shared.call(on, f"{HELPERS}:kills_itself", (), _deaf)
        assert shared.call(on, f"{HELPERS}:about_base", (base,), _deaf)["process"]


@pytest.mark.slow
def test_only_the_plan_shares_and_finds_what_it_would_find_alone(
    base: str, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, alone = list[str](), list[str]()
    plain_shared, plain_alone = SharedBase.call, local.call

    def sharing(self: SharedBase, on: Named, function: str, *rest: Any) -> Any:
        shared.append(function.split(":")[1])
        return plain_shared(self, on, function, *rest)

    def apart(function: str, *rest: Any, **options: Any) -> Any:
        alone.append(function.split(":")[1])
        return plain_alone(function, *rest, **options)

    monkeypatch.setattr(SharedBase, "call", sharing)
    monkeypatch.setattr(local, "call", apart)
    plan = make(base, task, "lora:rank=2,ia3", predict=True)
    compared = compare(plan, tmp_path / "one")
    assert shared == ["profile", "predict", "predict"]
    assert [name for name in alone if name != "again"] == ["work", "work"]
    found = call(PROFILE, plan, tmp_path / "two")
    assert (found.base, found.counts) == (compared.profile.base, compared.profile.counts)
