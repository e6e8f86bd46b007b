"""Send a text with its soft prompt to a vLLM server: `python -m peftlab.export.send FOLDER TASK`.

Reads the folder that the vllm export wrote, embeds the text with the base's own embedding rows
(only that tensor is read, no model is loaded), puts the task's vectors at the pseudo tokens, and
posts all of it as `prompt_embeds`.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from peftlab.bases import gguf
from peftlab.bases.pretrained import read_tokenizer
from peftlab.errors import InputError, PeftlabError, nearest
from peftlab.export.files import read_json, read_tensors
from peftlab.export.vllm import PROMPTS, VECTORS
from peftlab.printable import echo
from peftlab.tasks import Example, Template

_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_GGUF_EMBEDDING = "token_embd.weight"  # whatever the architecture


@dataclass(frozen=True)
class Prompt:
    """An embedded prompt [T, D] in the base's own type, and the tokens that end its answer."""

    embeds: torch.Tensor
    ends: tuple[int, ...]


def prompt(folder: Path, task: str, source: str, base: str | None = None) -> Prompt:
    """The prompt of one request.

    Raises:
        InputError: no such task in the folder, or a base whose embeddings are not found.
    """
    described = read_json(folder / PROMPTS)
    if task not in described["tasks"]:
        known = described["tasks"]
        raise InputError(
            f"{folder} has no task {task!r}; it has {', '.join(known)}.{nearest(task, known)}"
        )
    base = base or described["base"]
    template = Template.from_dict(described["tasks"][task])
    tokenizer = read_tokenizer(base)
    row = template.encode(tokenizer, Example(source, ("",)), None, described["context"])
    ids = torch.tensor(row.ids)
    rows = embedding_table(base, described["embedding"])
    vectors = read_tensors(folder / VECTORS)[task].to(rows)
    known_rows = rows[ids.clamp(min=0)] * described["embedding_scale"]
    embeds = torch.where(ids[:, None] < 0, vectors[(-ids - 1).clamp(min=0)], known_rows)
    return Prompt(embeds, template.end_ids(tokenizer))


def embedding_table(base: str, name: str) -> torch.Tensor:
    """The base's embedding matrix [V, D], and nothing else of its checkpoint.

    Raises:
        InputError: there is no such tensor in safetensors files of the base, or its GGUF file.
    """
    if gguf.is_gguf(base):
        return torch.from_numpy(gguf.numbers(gguf.file_of(base), _GGUF_EMBEDDING))
    # Checkpoints of bare models (GPT-2 on the hub) lack the outermost name.
    names = (name, name.partition(".")[2])
    index = _checkpoint_file(base, _INDEX)
    files = {_SINGLE}
    if index is not None:
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {shards[n] for n in names if n in shards}
    for path in filter(None, (_checkpoint_file(base, file) for file in files)):
        with safe_open(path, "pt") as tensors:
            for stored in set(names) & set(tensors.keys()):
                return tensors.get_tensor(stored)
    raise InputError(
        f"{base} has no tensor {name} in safetensors files: give its folder with --base"
    )


def _checkpoint_file(base: str, name: str) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    if Path(base).is_dir():
        path = Path(base) / name
        return path if path.exists() else None
    try:
        return Path(hf_hub_download(base, name))
    except EntryNotFoundError:
        return None


def request(given: Prompt, model: str, **options: Any) -> dict[str, Any]:
    """The body of a completions request: vLLM reads a tensor as base64 of torch's own format."""
    buffer = io.BytesIO()
    torch.save(given.embeds.contiguous().clone(), buffer)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return {"model": model, "prompt_embeds": encoded, "stop_token_ids": [*given.ends], **options}


def send(server: str, body: dict[str, Any], timeout: float = 300.0) -> str:
    """Post a request and return the text that came back.

    Raises:
        InputError: the server is not there, or refuses; with what it says.
    """
    url = f"{server.rstrip('/')}/v1/completions"
    headers = {"Content-Type": "application/json"}
    posted = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(posted, timeout=timeout) as answer:
            return str(json.load(answer)["choices"][0]["text"]).strip()
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")[:500]
        raise InputError(
            f"{url} answered {error.code}: {said} (was vLLM started with --enable-prompt-embeds?)"
        ) from error
    except urllib.error.URLError as error:
        raise InputError(f"no server at {url}: {error.reason}") from error


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("peftlab.export.send", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("task")
    parser.add_argument("--source", required=True, help="the text, - reads it from standard input")
    parser.add_argument("--server", default="http://localhost:8000")
    parser.add_argument(
        "--base", help="the base's folder or hub id, where it is not the stored one"
    )
    parser.add_argument("--max-tokens", type=int, default=64)
    given = parser.parse_args(arguments)
    source = sys.stdin.read() if given.source == "-" else given.source
    try:
        stored = read_json(given.folder / PROMPTS)["base"]
        made = prompt(given.folder, given.task, source, given.base)
        body = request(made, stored, max_tokens=given.max_tokens, temperature=0.0)
        echo(send(given.server, body))
    except PeftlabError as error:
        echo(error, err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
