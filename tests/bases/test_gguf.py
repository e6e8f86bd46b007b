"""GGUF files as bases: whole ones equal the model that they were made of, others end in a line."""

from __future__ import annotations

import builtins
import struct
import tomllib
from pathlib import Path
from typing import Any

import gguf as library
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from peftlab.bases import gguf, names
from peftlab.bases.known_models import configuration
from peftlab.bases.layouts import parameter_count
from peftlab.bases.pretrained import read_tokenizer
from peftlab.errors import InputError
from peftlab.export.send import embedding_table
from peftlab.frozen import named
from peftlab.frozen.checkpoint import BaseNote
from peftlab.frozen.loading import checkpoint_of, load_plain
from tests import gguf_files
from tests.laws.world import tokenizer

_IDS = torch.arange(3, 60)[None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in fp32 with everything that belongs to it."""
    return gguf_files.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", gguf_files.model())


@pytest.fixture(scope="module")
def eighths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in 8 bits."""
    folder = tmp_path_factory.mktemp("gguf")
    return gguf_files.write(folder / "tiny-Q8_0.gguf", gguf_files.model(), kind="Q8_0")


def test_the_header_says_what_it_is(eighths: Path) -> None:
    header = gguf.read_header(eighths)
    assert (header.architecture, header.quantisation) == ("llama", "Q8_0")
    assert header.words == f"GGUF file of {eighths.stat().st_size / 1024:.1f} KiB (llama, Q8_0)"
    theirs = library.GGUFReader(eighths)
    assert {n: (t.kind, t.shape) for n, t in header.tensors.items()} == {
        t.name: (t.tensor_type.name, tuple(int(n) for n in reversed(t.shape)))
        for t in theirs.tensors
    }
    assert header.start == theirs.data_offset


def test_loading_draws_no_progress_bars(whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    named.load(str(whole))
    assert capfd.readouterr() == ("", "")


def test_fp32_is_the_model_that_it_was_made_of(whole: Path) -> None:
    model, _ = load_plain(whole)
    expected = gguf_files.model()
    for (name, ours), (_, theirs) in zip(
        model.named_parameters(), expected.named_parameters(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    with torch.no_grad():
        torch.testing.assert_close(model(_IDS).logits, expected(_IDS).logits)
    assert getattr(model.config, "quantization_config", None) is None


def test_8_bits_are_what_transformers_reads_in_every_format(eighths: Path) -> None:
    expected = AutoModelForCausalLM.from_pretrained(
        eighths.parent, gguf_file=eighths.name, dtype=torch.float32
    )
    for dtype, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        model, _ = load_plain(eighths, dtype)
        for (name, ours), (_, theirs) in zip(
            model.named_parameters(), expected.named_parameters(), strict=True
        ):
            assert torch.equal(ours, theirs.to(kind)), name
    first, exact = expected.state_dict(), gguf_files.model().state_dict()
    assert 0 < max(float((first[n] - t).abs().max()) for n, t in exact.items()) < 0.02


@pytest.mark.parametrize("dtype", ["int8", "nf4"])
def test_it_is_quantised_anew_as_a_folder_is(dtype: str, eighths: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    plain, own = load_plain(eighths)
    plain.save_pretrained(tmp_path / "folder")
    own.save_pretrained(tmp_path / "folder")
    found, expected = (named.load(str(it), dtype=dtype) for it in (eighths, tmp_path / "folder"))
    assert found.fingerprint == expected.fingerprint
    assert found.base_dtype == dtype


def test_the_tokenizer_and_its_chat_template_are_the_file_s(whole: Path) -> None:
    found, expected = read_tokenizer(str(whole)), tokenizer()
    texts = ["the cat sings", "red  blue\n: say", "<bos>old tree<eos>", "über 12"]
    assert [found(t)["input_ids"] for t in texts] == [expected(t)["input_ids"] for t in texts]
    assert (found.pad_token_id, found.bos_token_id, found.eos_token_id) == (0, 1, 2)
    assert found.chat_template == gguf_files.TEMPLATE


def test_what_lies_beside_the_file_is_not_read(whole: Path, tmp_path: Path) -> None:
    """Of another model: transformers would take its tokenizer and template without a word."""
    other = AutoTokenizer.from_pretrained(names.located("demo"))
    other.chat_template = "another"
    other.save_pretrained(tmp_path)
    (tmp_path / whole.name).write_bytes(whole.read_bytes())
    found = read_tokenizer(str(tmp_path / whole.name))
    assert (found.chat_template, len(found)) == (gguf_files.TEMPLATE, 121)


def test_sizes_come_from_the_header_alone(whole: Path) -> None:
    config = configuration(str(whole))
    assert config["model_type"] == "llama"
    assert parameter_count(config) == sum(p.numel() for p in gguf_files.model().parameters())


def test_a_prompt_is_embedded_with_the_file_s_own_table(eighths: Path) -> None:
    """As `peftlab.export.send` does, which loads no model."""
    table = embedding_table(str(eighths), "model.embed_tokens.weight")
    assert torch.equal(table, load_plain(eighths)[0].get_input_embeddings().weight)


def test_a_file_is_known_by_its_bytes(whole: Path, eighths: Path) -> None:
    model, again = named.load(str(whole)), named.load(str(whole))
    assert model.name == str(whole) and model.fingerprint == again.fingerprint
    assert model.checkpoint == checkpoint_of(str(whole), model.model.config)
    assert model.checkpoint != named.load(str(eighths)).checkpoint
    assert names.is_here(str(whole)) and not names.is_here(str(whole) + ".gguf")


def _llama3() -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def _scaled() -> Any:
    """A model whose slow rotary frequencies are scaled as Llama 3.1's are."""
    return gguf_files.model(hidden_size=128, head_dim=32, rope_parameters=_llama3())


def test_scaled_rotary_positions_are_kept(tmp_path: Path) -> None:
    expected = _scaled()
    plain = 1 / 10000.0 ** (np.arange(0, 32, 2, dtype=np.float32) / 32)
    factors = plain / expected.model.rotary_emb.inv_freq.numpy()
    assert factors.max() == pytest.approx(8.0)  # or nothing would be scaled
    path = gguf_files.write(
        tmp_path / "scaled.gguf",
        expected,
        more=lambda w: w.add_tensor("rope_freqs.weight", factors.astype(np.float32)),
    )
    model, _ = load_plain(path)
    torch.testing.assert_close(
        model.model.rotary_emb.inv_freq, expected.model.rotary_emb.inv_freq, rtol=1e-5, atol=0
    )
    with torch.no_grad():
        torch.testing.assert_close(model(_IDS).logits, expected(_IDS).logits, rtol=1e-4, atol=1e-4)


def _other_factors(writer: library.GGUFWriter) -> None:
    writer.add_tensor("rope_freqs.weight", np.linspace(1, 3, 4, dtype=np.float32))


def _yarn(writer: library.GGUFWriter) -> None:
    writer.add_rope_scaling_type(library.RopeScalingType.YARN)


@pytest.mark.parametrize(
    ("more", "words"), [(_other_factors, "rope_freqs.weight"), (_yarn, "yarn")]
)
def test_another_scaling_of_rotary_positions_is_refused(
    more: Any, words: str, tmp_path: Path
) -> None:
    path = gguf_files.write(tmp_path / "other.gguf", gguf_files.model(), more=more)
    with pytest.raises(InputError, match=rf"scales its rotary positions \({words}\)"):
        load_plain(path)


def test_tensors_that_are_left_out_are_told(tmp_path: Path) -> None:
    path = gguf_files.write(
        tmp_path / "more.gguf",
        gguf_files.model(),
        more=lambda w: w.add_tensor("blk.0.attn_q.bias", np.ones(32, dtype=np.float32)),
    )
    with pytest.warns(BaseNote, match=r"no place for.*blk\.\*\.attn_q\.bias; they are left out"):
        load_plain(path)


def test_a_way_of_splitting_that_transformers_lacks_is_told(tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "split.gguf", gguf_files.model(), pre="smollm")
    with pytest.warns(BaseNote, match="does not know how 'smollm' splits text"):
        load_plain(path)


# Bad input: one line, with the reason.


def _refusal(path: str | Path) -> str:
    with pytest.raises(InputError) as caught:
        named.load(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_architecture_that_transformers_does_not_read(tmp_path: Path) -> None:
    for name in ("bert", "a-new-one"):
        path = gguf_files.write(tmp_path / f"{name}.gguf", gguf_files.model(), architecture=name)
        told = _refusal(path)
        assert f"({name}, F32)" in told and "is not one that transformers" in told
        assert "Architectures that it reads:" in told and "qwen3" in told


def test_no_tokenizer(tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "mute.gguf", gguf_files.model(), with_tokenizer=False)
    assert "has no tokenizer (tokenizer.ggml.tokens is missing)" in _refusal(path)


def test_a_tokenizer_of_an_unknown_kind(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    word = struct.pack("<Q", 4) + b"gpt2"
    assert data.count(word) == 1
    (tmp_path / "x.gguf").write_bytes(data.replace(word, struct.pack("<Q", 4) + b"rwkv"))
    assert "Cannot build a tokenizer" in _refusal(tmp_path / "x.gguf")


def test_cut_off_anywhere(whole: Path, tmp_path: Path) -> None:
    """At every byte of the header's start, and then at many up to the last."""
    data, path = whole.read_bytes(), tmp_path / "cut.gguf"
    start = gguf.read_header(whole).start
    last = max(tensor.end for tensor in gguf.read_header(whole).tensors.values()) + start
    for size in {*range(4, 200), *range(200, start, 97), start, start + 1, last - 1}:
        path.write_bytes(data[:size])
        with pytest.raises(InputError, match=r"cut off|damaged|no tokenizer|does not say"):
            gguf.read_header(path)
    path.write_bytes(data[:-100_000])
    assert "is cut off: its tensors end at byte" in _refusal(path)


def test_damaged_anywhere_in_the_header(whole: Path, tmp_path: Path) -> None:
    """Whatever a byte becomes: a line, or a header that is as large as the file allows."""
    data, path = bytearray(whole.read_bytes()), tmp_path / "damaged.gguf"
    for at in range(4, gguf.read_header(whole).start, 53):
        changed = data.copy()
        changed[at] ^= 0xFF
        path.write_bytes(changed)
        try:
            gguf.read_header(path)
        except InputError as error:
            assert "\n" not in str(error)


def _nested(depth: int) -> bytes:
    """A header whose one value is an array in an array in …"""
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a"
    return head + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQ", 4, 0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "begins with b''"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is no GGUF file: it begins with b'vers"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "is of version 9 of GGUF"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "with the lowest byte first"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "1,152,921,504,606,846,976 entries"),
        (_nested(1500), "its header has arrays more than 8 deep"),
    ],
)
def test_other_files(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    assert words in _refusal(tmp_path / "x.gguf")


def test_no_file(tmp_path: Path) -> None:
    assert "there is no GGUF file" in _refusal(tmp_path / "none.gguf")


def test_one_part_of_several(tmp_path: Path) -> None:
    path = gguf_files.write(
        tmp_path / "x-00001-of-00003.gguf",
        gguf_files.model(),
        more=lambda w: w.add_uint16("split.count", 3),
    )
    assert "is one of 3 parts of a model" in _refusal(path)


def test_without_the_package(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "gguf":
            raise ImportError("No module named 'gguf'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"needs the package gguf .*pip install 'peftlab\[gguf\]'"):
        load_plain(whole)


@pytest.mark.parametrize("name", ["gguf", "transformers"])
def test_packages_that_are_too_old(name: str, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "version", lambda one: "0.9.1" if one == name else "99")
    with pytest.raises(InputError, match=rf"needs {name} .* and 0.9.1 is installed: pip install"):
        load_plain(whole)
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    asked = dict(it.split(">=") for it in project["project"]["optional-dependencies"]["gguf"])
    assert asked == gguf.NEEDED


# Names of the hub.


def test_names() -> None:
    for name in ("a.gguf", "some/where/A.GGUF", "owner/name:a-Q4_K_M.gguf", "owner/name:Q4_K_M"):
        assert gguf.is_gguf(name), name
    for name in ("demo", "owner/name", "some/folder", "gpt2", "/a/b:c/d"):
        assert not gguf.is_gguf(name), name


@pytest.fixture
def hub(whole: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub with one repository of three files; returns what was fetched."""
    there = ["README.md", "tiny-Q4_0.gguf", "tiny-Q4_K_M.gguf", "tiny-q8_0.gguf"]
    fetched: list[str] = []

    def download(repo: str, file: str) -> str:
        assert repo == "owner/name"
        fetched.append(file)
        return str(whole)

    def offline(*_: Any, **__: Any) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        raise LocalEntryNotFoundError("not here")

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda self, repo: there)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    return fetched


def test_a_file_of_the_hub_by_its_name_or_its_quantisation(hub: list[str]) -> None:
    assert not names.is_here("owner/name:Q4_K_M")
    for what in ("tiny-Q4_0.gguf", "Q4_K_M", "Q8_0"):
        named.load(f"owner/name:{what}")
    assert set(hub) == {"tiny-Q4_0.gguf", "tiny-Q4_K_M.gguf", "tiny-q8_0.gguf"}


def test_a_file_that_the_hub_lacks(hub: list[str]) -> None:
    told = _refusal("owner/name:Q5_K_M")
    assert "owner/name on the hub has no Q5_K_M; it has tiny-Q4_0.gguf, tiny-Q4_K_M" in told
