"""What large plans are reckoned from."""

from __future__ import annotations

import random

import pytest

from bench import scale, scale_plan
from bench.queueing import StepCost
from bench.scale_plan import Machine
from bench.scale_serve import Step, fitted


def test_the_large_base_is_llama_3s() -> None:
    shape = scale_plan.large_shape()
    assert shape.size == 70_553_706_496  # as its publisher counts
    assert scale_plan.weights(shape)["bf16"] == 2 * shape.size
    assert scale_plan.weights(shape)["nf4"] < scale_plan.weights(shape)["int8"] < 80e9
    assert scale_plan.keys_values(shape) == 2 * 2 * 8 * 128 * 80
    rank, blocks = 8, 80
    lora = 4 * blocks * rank * ((8192 + 8192) + (8192 + 1024))
    assert scale_plan.adapter_bytes(shape, "lora:rank=8,targets=q+v") == lora


def test_training_takes_what_its_operations_take() -> None:
    shape, machine = scale_plan.large_shape(), Machine(flops=1e12, training=0.5)
    assert scale_plan.training_seconds(shape, 1e3, machine) == pytest.approx(
        2 * shape.size * 1e3 / 0.5e12
    )


def test_more_machines_take_less_time_and_no_less_money() -> None:
    for base in ("1 B", "8 B", "70 B"):
        rows = [row for row in scale.grid() if row["base"] == base]
        hours, dollars = ([row[name] for row in rows] for name in ("hours", "dollars"))
        assert hours == sorted(hours, reverse=True)
        assert dollars == sorted(dollars)


def test_all_adapters_hit_where_all_fit() -> None:
    result = scale_plan.adapters(1e6, 100, 1e8, 1.0, Machine(disk=1e9))
    assert (result["slots"], result["hits"]) == (100, 1.0)
    assert result["miss_seconds"] == pytest.approx(1e-3)
    assert scale_plan.adapters(1e6, 100, 1e7, 1.0, Machine())["hits"] < 1


def test_a_steps_cost_is_found_from_steps() -> None:
    rng, cost = random.Random(0), StepCost(fixed=4e-3, row=2e-4, prompt=5e-5, adapter=5e-4)
    steps = []
    for _ in range(500):
        rows, prompt, adapters = rng.randrange(16), rng.randrange(200), rng.randrange(8)
        noise = rng.uniform(0.98, 1.02)
        seconds = cost.seconds(rows, prompt, adapters) * noise
        steps.append(Step(rows, prompt, adapters, seconds))
    steps.append(Step(1, 0, 1, 5.0))  # something else happened
    fitted_cost = fitted(steps)
    assert fitted_cost.fixed == pytest.approx(cost.fixed, rel=0.1)
    assert fitted_cost.row == pytest.approx(cost.row, rel=0.1)
    assert fitted_cost.prompt == pytest.approx(cost.prompt, rel=0.1)
    assert fitted_cost.adapter == pytest.approx(cost.adapter, rel=0.1)
