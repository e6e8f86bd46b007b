"""GGUF files as bases: their names, and what a file's header says, read in milliseconds.

GGUF is llama.cpp's format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): one file
with the weights, mostly quantised, the configuration, the tokenizer and its chat template. The
header is read here and not with the package `gguf`, whose reader takes seconds for a large
vocabulary and fails with an index out of range where a file is cut off.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from peftlab.errors import InputError, nearest, reason
from peftlab.units import size

NEEDED: Final = {"gguf": "0.18", "transformers": "5.23"}
"""The oldest versions with all that is used of them, as the extra `gguf` asks for them."""
_HUB: Final = re.compile(r"(?P<repo>[^/:\s]+/[^/:\s]+):(?P<file>[^:]+)")
_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_ALIGNMENT: Final = 32
_MOST_DIMENSIONS: Final = 4  # ggml's
_DEEPEST: Final = 8  # arrays in arrays; llama.cpp itself writes none
# The value types of the metadata that have a fixed size; 8 is a string, 9 an array.
_FIXED: Final = {
    **{0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?"},
    **{10: "<Q", 11: "<q", 12: "<d"},
}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Tensor:
    """An entry of the table of tensors.

    shape: in torch's order. kind: of ggml, `Q4_K` or `F32`. end: where its data ends, from the
    start of the data.
    """

    shape: tuple[int, ...]
    kind: str
    end: int


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    values: the metadata; of an array its length. start: where the tensors' data starts.
    """

    path: Path
    values: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    start: int

    @property
    def architecture(self) -> str:
        """In llama.cpp's words: `llama`, `qwen2`."""
        return str(self.values["general.architecture"])

    @cached_property
    def quantisation(self) -> str:
        """As file names have it, `Q4_K_M`; where the file does not say it, that of most numbers."""
        from gguf import LlamaFileType

        try:
            name = LlamaFileType(self.values["general.file_type"]).name
        except (KeyError, ValueError):
            numbers: Counter[str] = Counter()
            for tensor in self.tensors.values():
                numbers[tensor.kind] += prod(tensor.shape)
            name = numbers.most_common(1)[0][0] if numbers else "empty"
        return name.removeprefix("MOSTLY_").removeprefix("ALL_")

    @property
    def words(self) -> str:
        """What it is, for a plan: `GGUF file of 93.8 MiB (llama, Q4_1)`."""
        told = f"{self.architecture}, {self.quantisation}"
        return f"GGUF file of {size(self.path.stat().st_size)} ({told})"


def is_gguf(name: str) -> bool:
    """Whether a name is that of a GGUF file.

    `FILE.gguf`, `owner/name:FILE.gguf`, or `owner/name:Q4_K_M` as llama.cpp, vLLM and Ollama
    have it.
    """
    return not Path(name).is_dir() and (
        name.lower().endswith(".gguf") or _HUB.fullmatch(name) is not None
    )


def is_here(name: str) -> bool:
    """Whether a GGUF file can be read without a network."""
    found = _of_hub(name)
    return Path(name).is_file() if found is None else _cached(*found) is not None


def file_of(name: str) -> Path:
    """The file of a name, fetched from the hub where it is not here.

    Raises:
        InputError: there is none, or the hub does not give it.
    """
    found = _of_hub(name)
    if found is None:
        if not Path(name).is_file():
            raise InputError(f"there is no GGUF file {name}")
        return Path(name)
    return _cached(*found) or _fetched(*found)


def _of_hub(name: str) -> tuple[str, str] | None:
    """Repository and file (or quantisation) of a name that is no local file's."""
    found = None if Path(name).is_file() else _HUB.fullmatch(name)
    return None if found is None else (found["repo"], found["file"])


def _cached(repo: str, file: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        return None
    here = [path.relative_to(folder).as_posix() for path in folder.rglob("*.gguf")]
    name = _chosen(here, file)
    return None if name is None else folder / name


def _fetched(repo: str, file: str) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    try:
        there = [name for name in HfApi().list_repo_files(repo) if name.lower().endswith(".gguf")]
        name = _chosen(there, file)
        if name is not None:
            return Path(hf_hub_download(repo, name))
    except Exception as error:  # the hub's, the network's, the disk's
        raise InputError(f"cannot fetch {file} of {repo} from the hub: {reason(error)}") from error
    told = f"it has {', '.join(sorted(there))}" if there else "it has no GGUF file"
    raise InputError(f"{repo} on the hub has no {file}; {told}.{nearest(file, there)}")


def _chosen(names: list[str], file: str) -> str | None:
    """The file of that name, or the one whose name ends in that quantisation."""
    if file in names:
        return file
    end = re.compile(rf"(^|[-._]){re.escape(file)}\.gguf", re.IGNORECASE)
    fitting = [name for name in names if end.search(name)]
    if len(fitting) > 1:
        raise InputError(f"{file} is the end of several files: {', '.join(sorted(fitting))}")
    return fitting[0] if fitting else None


def read_header(path: Path) -> Header:
    """What a file says of itself, and whether all of its tensors' data is there.

    Raises:
        InputError: it is no GGUF file, cut off, damaged, one part of several or of a kind that is
            not known; or the package `gguf`, which knows the kinds of quantisation, is missing.
    """
    check_library()
    if not path.is_file():
        raise InputError(f"there is no GGUF file {path}")
    with path.open("rb") as file:
        if (begins := file.read(4)) != _MAGIC:
            raise InputError(
                f"{path} is no GGUF file: it begins with {begins!r} and not with {_MAGIC!r}"
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = _Reader(path, data).header()
    _check(header)
    return header


def numbers(path: Path, name: str) -> np.ndarray:
    """One tensor of a file, dequantised to fp32.

    Raises:
        InputError: the file cannot be read, or has no such tensor.
    """
    if name not in read_header(path).tensors:
        raise InputError(f"{path} has no tensor {name}")
    from gguf import GGUFReader, dequantize

    found = next(tensor for tensor in GGUFReader(path).tensors if tensor.name == name)
    return np.array(dequantize(found.data, found.tensor_type), dtype=np.float32)


def check_library() -> None:
    """Refuse where the packages are missing, or older than what is used of them.

    Raises:
        InputError: says what to install.
    """
    from packaging.version import Version

    try:
        import gguf  # noqa: F401 - transformers reads most architectures with it
    except ImportError as error:
        raise InputError(
            f"a GGUF file needs the package gguf ({error}): pip install 'peftlab[gguf]'"
        ) from error
    for name, least in NEEDED.items():
        found = version(name)
        if Version(found) < Version(least):
            raise InputError(
                f"a GGUF file needs {name} {least} or newer, and {found} is installed: "
                "pip install 'peftlab[gguf]'"
            )


def _check(header: Header) -> None:
    path, values = header.path, header.values
    if "general.architecture" not in values:
        raise InputError(f"{path} does not say what architecture it has (general.architecture)")
    if values.get("split.count", 1) > 1:
        raise InputError(
            f"{path} is one of {values['split.count']} parts of a model, which are not read: join "
            "them with llama.cpp's llama-gguf-split"
        )
    if not values.get("tokenizer.ggml.tokens"):
        raise InputError(
            f"{path} has no tokenizer (tokenizer.ggml.tokens is missing), without which no text "
            "can be read: convert the model with its tokenizer"
        )
    needed = header.start + max((tensor.end for tensor in header.tensors.values()), default=0)
    if (found := path.stat().st_size) < needed:
        raise InputError(
            f"{path} is cut off: its tensors end at byte {needed:,}, and the file has "
            f"{found:,} bytes. Fetch it again"
        )


class _Reader:
    """Reads a header from its first byte to its last; every length is held against the file's."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, len(_MAGIC)

    def header(self) -> Header:
        version = self.number("<I")
        if version not in _VERSIONS:
            raise InputError(
                f"{self.path} is of version {version} of GGUF; one of "
                f"{', '.join(map(str, _VERSIONS))} (with the lowest byte first) was expected"
            )
        tensors, values = self.number("<Q"), self.number("<Q")
        metadata = {self.string(): self.value(self.number("<I")) for _ in self.times(values)}
        table = dict(self.tensor() for _ in self.times(tensors))
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise self.damaged(f"an alignment of {alignment!r}")
        return Header(self.path, metadata, table, -(-self.at // alignment) * alignment)

    def tensor(self) -> tuple[str, Tensor]:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name, dimensions = self.string(), self.number("<I")
        if dimensions > _MOST_DIMENSIONS:
            raise self.damaged(f"a tensor of {dimensions} dimensions")
        shape = tuple(self.number("<Q") for _ in range(dimensions))[::-1]
        number, offset = self.number("<I"), self.number("<Q")
        try:
            kind = GGMLQuantizationType(number)
        except ValueError as error:
            raise InputError(
                f"{self.path} keeps {name} in a kind of numbers ({number}) that the installed "
                "package gguf does not know: install a newer one"
            ) from error
        elements, taken = GGML_QUANT_SIZES[kind]
        return name, Tensor(shape, kind.name, offset + prod(shape) // elements * taken)

    def value(self, kind: int, depth: int = 0) -> Any:
        """One value of the metadata; of an array how many values it has.

        Args:
            depth: how many arrays it lies in.
        """
        if kind in _FIXED:
            return self.number(_FIXED[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise self.damaged(f"a value of kind {kind}")
        if depth == _DEEPEST:
            raise self.damaged(f"arrays more than {_DEEPEST} deep in one another")
        inner, count = self.number("<I"), self.number("<Q")
        if inner in _FIXED:
            self.skip(count * struct.calcsize(_FIXED[inner]))
        else:
            for _ in self.times(count):
                self.skip(self.number("<Q")) if inner == _STRING else self.value(inner, depth + 1)
        return count

    def number(self, form: str) -> Any:
        start = self.at
        self.skip(struct.calcsize(form))
        return struct.unpack_from(form, self.data, start)[0]

    def string(self) -> str:
        length = self.number("<Q")
        start = self.at
        self.skip(length)
        return self.data[start : self.at].decode("utf-8", errors="replace")

    def skip(self, length: int) -> None:
        self.at += length
        if self.at > len(self.data):
            raise InputError(
                f"{self.path} is cut off or damaged: its header goes on after the last of its "
                f"{len(self.data):,} bytes. Fetch it again"
            )

    def times(self, count: int) -> Iterator[int]:
        """That many entries, each of which takes bytes: a count cannot exceed what is left."""
        if count > len(self.data) - self.at:
            raise self.damaged(f"{count:,} entries")
        return iter(range(count))

    def damaged(self, what: str) -> InputError:
        return InputError(f"{self.path} is damaged: its header has {what}. Fetch it again")
