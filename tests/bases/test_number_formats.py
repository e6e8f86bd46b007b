"""Sizes of bases by configuration alone, and the memory that there is for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from peftlab.bases import known_models, layouts
from peftlab.bases.number_formats import FORMATS, base_bytes, quantises, rest_format
from peftlab.measure import free_memory, memory


def test_llama_in_every_format() -> None:
    """By hand: 16 blocks of 60,817,408 in matrices, the rest tied embeddings and norms."""
    config = {**known_models.config("llama-3.2-1b"), "dtype": "bfloat16"}
    shapes = layouts.parameter_shapes(config)
    total, matrices = 1_235_814_400, 16 * 60_817_408
    rest = 2 * (total - matrices)
    sizes = {name: base_bytes(config, shapes, name) for name in FORMATS}
    assert sizes["fp32"] == 4 * total and sizes["bf16"] == 2 * total
    assert sizes["int8"] == pytest.approx(matrices + rest, rel=0.01)
    assert sizes["nf4"] == pytest.approx((4 + 0.127) / 8 * matrices + rest, rel=1e-3)


def test_what_is_not_quantised_keeps_the_checkpoint_s_format() -> None:
    assert rest_format({"dtype": torch.bfloat16}) == rest_format({"dtype": "bfloat16"}) == "bf16"
    assert rest_format({"dtype": "float16"}) == rest_format({}) == "fp32"
    assert quantises("model.layers.3.mlp.up_proj.weight", (8, 8))
    assert not quantises("model.embed_tokens.weight", (8, 8))
    assert not quantises("model.layers.3.mlp.experts.gate_up_proj", (4, 8, 8))
    assert not quantises("model.layers.3.self_attn.q_norm.weight", (8, 8))


def test_free_memory_heeds_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"_LIMIT": "1000000", "_USED": "400000", "_STATISTICS": "anon 1\ninactive_file 100000"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(memory, name, tmp_path / name)
    assert free_memory("cpu") == 700_000
    (tmp_path / "_LIMIT").write_text("max\n")
    assert free_memory("cpu") > 700_000
    (tmp_path / "_LIMIT").unlink()
    assert free_memory("cpu") > 700_000
