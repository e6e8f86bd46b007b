"""How transformers is asked for a base: a folder or a hub id by its name, a GGUF file alone.

Beside a GGUF file transformers reads whatever else lies in the same folder (the tokenizer, the chat
template or the adapter of another model), so it is given a folder with nothing but the file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from peftlab.bases import gguf
from peftlab.errors import InputError, reason

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


@contextmanager
def source(path: str) -> Iterator[dict[str, str]]:
    """What `from_pretrained` is given to read that base; valid inside the context.

    Raises:
        InputError: a GGUF file that is not there or cannot be read, see `gguf.read_header`.
    """
    if not gguf.is_gguf(path):
        yield {"pretrained_model_name_or_path": path}
        return
    file = gguf.read_header(gguf.file_of(path)).path
    with tempfile.TemporaryDirectory(prefix="peftlab-gguf-") as folder:
        (Path(folder) / file.name).symlink_to(file.resolve())
        yield {"pretrained_model_name_or_path": folder, "gguf_file": file.name}


def read_config(path: str) -> PretrainedConfig:
    """The configuration of a base.

    Raises:
        InputError: a GGUF file whose configuration transformers does not read. OSError, ValueError:
            of transformers, for anything else.
    """
    from transformers import AutoConfig

    with source(path) as given:
        if "gguf_file" not in given:
            return AutoConfig.from_pretrained(**given)
        with _refused(path, "configuration"):
            config = AutoConfig.from_pretrained(**given)
    vars(config).pop("_model_name_or_path", None)  # the file's general.name, of no use to anybody
    config._name_or_path = path
    return config


def read_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a base, with its chat template.

    Raises:
        InputError: a GGUF file whose tokenizer transformers does not read. OSError, ValueError: of
            transformers, for anything else.
    """
    from transformers import AutoTokenizer

    with source(path) as given:
        if "gguf_file" not in given:
            return AutoTokenizer.from_pretrained(**given)
        with _refused(path, "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(**given)
    tokenizer.name_or_path = path
    return tokenizer


def reply_ends(path: str) -> list[int]:
    """At which ids transformers' `generate` ends a reply of that base, where nobody says more.

    Raises:
        OSError, ValueError: of transformers, for a configuration that it cannot read.
    """
    from transformers import GenerationConfig

    if gguf.is_gguf(path):
        return []  # the file names one end, which its tokenizer has
    try:
        defaults = GenerationConfig.from_pretrained(path)
    except OSError:  # there are none, so that transformers makes them of the configuration
        defaults = GenerationConfig.from_model_config(read_config(path))
    ends = defaults.eos_token_id
    return [i for i in (ends if isinstance(ends, list) else [ends]) if isinstance(i, int)]


@contextmanager
def _refused(path: str, what: str) -> Iterator[None]:
    """Say in one line what of a GGUF file transformers does not read."""
    try:
        yield
    except Exception as error:  # whatever it makes of a file that it does not expect
        from transformers import __version__

        raise InputError(
            f"the {what} of {path} ({gguf.read_header(gguf.file_of(path)).words}) is not one that "
            f"transformers {__version__} reads: {reason(error)} {_read_ones()}"
        ) from error


def _read_ones() -> str:
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    known = sorted({*GGUF_SUPPORTED_ARCHITECTURES} - {"general", "tokenizer"})
    return f"Architectures that it reads: {', '.join(known)}"
