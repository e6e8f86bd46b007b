"""What is trained on and generated for: real lengths of public data sets, and fixed lengths.

Real data and GPT-2's tokenizer are not part of the project: PEFTLAB_DATA (default `../shared/data`)
holds the data sets, and the folder `gpt2_tokenizer` beside it the tokenizer.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
)

from peftlab import demo
from peftlab.files import read_jsonl
from peftlab.tasks import Example, Provenance, Task, Template

DATA = Path(os.environ.get("PEFTLAB_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
WORKLOADS = ("dialogsum", "e2e", "summarisation")
METHODS = {
    "lora": "lora:rank=8,targets={lora}",
    "prefix": "prefix_tuning:length=20,reparametrisation=none",
    "prompt": "prompt_tuning:length=20",
    "prompt-100": "prompt_tuning:length=100",
    "p-tuning": "p_tuning:length=20,placement=first,encoder=lstm",
    "bottleneck": "bottleneck:bottleneck=32",
    "llama-adapter-top2": "llama_adapter:layers=2,gate=layer,tanh=false",
    "last-1": "last_k:k=1",
    "full": "full",
}
# GPT-2 small, and a smaller shape with the full vocabulary that trains in a tenth of the time.
DEMO = Path(demo.__file__).parent / "model"
SIZES = {"small": (12, 768, 12), "mini": (4, 256, 4)}
_SOURCE, _TARGET = 196, 59  # tokens; with the cue and the end they make 256, 60 of them trained on


@dataclass(frozen=True)
class Layout:
    """What a base's modules are called, so that both sides adapt the same ones.

    Attributes:
        blocks: the path of its blocks. lora: targets in our words. modules: the same in PEFT's.
        ia3: PEFT's targets and, of those, its feed-forward ones, as our `ia3` has by default.
        transposed: whether its linears keep their weights as [in, out].
    """

    blocks: str
    lora: str
    modules: tuple[str, ...]
    ia3: tuple[str, ...]
    feedforward: str
    transposed: bool

    @classmethod
    def of(cls, folder: str | Path) -> Layout:
        """Of GPT-2's layout, or of Llama's."""
        if AutoConfig.from_pretrained(folder).model_type == "gpt2":
            down = "mlp.c_proj"
            return cls("transformer.h", "c_attn", ("c_attn",), ("c_attn", down), down, True)
        down = "down_proj"
        targets = ("k_proj", "v_proj", down)
        return cls("model.layers", "q+v", ("q_proj", "v_proj"), targets, down, False)


def spec(method: str, folder: str | Path, begin: str = "row") -> str:
    """One of `METHODS` on this base, in the words of the command line."""
    words = METHODS[method].format(lora=Layout.of(folder).lora)
    return words if begin == "row" else f"{words}{',' if ':' in words else ':'}begin={begin}"


@dataclass(frozen=True)
class Asked:
    """A request: its adapter's number, its source and its reply's length in tokens."""

    adapter: int
    source: str
    tokens: int


def tokenizer(model: str | Path | None = None) -> PreTrainedTokenizerBase:
    """A base's tokenizer, or GPT-2's, from a local folder."""
    if model is not None:
        return AutoTokenizer.from_pretrained(model)
    folder = DATA.parent / "gpt2_tokenizer"
    if not folder.exists():
        raise SystemExit(f"{folder} is missing: set PEFTLAB_DATA to the data sets beside it")
    return AutoTokenizer.from_pretrained(folder)


def make_model(size: str, folder: Path, dropout: float = 0.0, model: Path | None = None) -> Path:
    """Save a GPT-2 of random weights, with its tokenizer, and return its folder.

    The bundled model where the size is `demo`; the user's own where one is given.
    """
    if model is not None:
        return model
    if size == "demo":
        return DEMO
    layers, width, heads = SIZES[size]
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=layers, n_embd=width, n_head=heads, resid_pdrop=dropout, embd_pdrop=dropout,
        attn_pdrop=dropout,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def make_task(workload: str, rows: int, seed: int = 0) -> Task:
    """A task of so many training and test rows, without validation: nothing else is timed."""
    if workload == "summarisation":
        pairs = _fixed_lengths(2 * rows, seed)
        train, test = pairs[:rows], pairs[rows:]
    else:
        train, test = (_read(workload, split, rows, seed) for split in ("train", "test"))
    template = Template("{source}\nSummary:{target}", truncate="end")
    source = Provenance("files", workload, f"{workload}-{rows}-{seed}")
    return Task(workload, template, train, [], test, ("rougeL",), 64, source)


def _read(workload: str, split: str, rows: int, seed: int) -> list[Example]:
    path = DATA / workload / f"{split}.jsonl"
    if not path.exists():
        raise SystemExit(f"{path} is missing: set PEFTLAB_DATA to a folder that has it")
    rows_read = read_jsonl(path)
    random.Random(seed).shuffle(rows_read)
    return [Example(row["source"], (row["targets"][0],)) for row in rows_read[:rows]]


def _fixed_lengths(rows: int, seed: int) -> list[Example]:
    """Random words that are one token each, so that every row has the same length."""
    vocabulary = tokenizer()
    words = [
        w for w in vocabulary.get_vocab() if w.startswith("Ġ") and w[1:].isalpha() and w.isascii()
    ]
    words = words or [w for w in vocabulary.get_vocab() if w[0] == "Ġ" and w[1:].isalpha()]
    plain, rng = sorted(word[1:] for word in words), random.Random(seed)

    def text(count: int) -> str:
        return " " + " ".join(rng.choices(plain, k=count))

    return [Example(text(_SOURCE), (text(_TARGET),)) for _ in range(rows)]
