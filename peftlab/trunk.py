"""Kept activations of the frozen trunk: what enters the lowest edited block, computed once a row.

Where an adaptation leaves the blocks below k alone, what enters block k is the same in every
epoch, for every seed and every learning rate. Rows are run in fixed chunks in the data set's order,
so what is kept does not depend on the order of training, and a resumed run repeats itself bit for
bit.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from peftlab import files
from peftlab.edits import Edits
from peftlab.errors import DiskFull
from peftlab.frozen.batch import Batch
from peftlab.frozen.packing import Row, pack
from peftlab.token_limits import token_chunks

if TYPE_CHECKING:
    from peftlab.frozen.model import FrozenLM
    from peftlab.tasks import Encoded

_CHUNK_ROWS = 16
_FORWARD_TOKENS = 1024  # more make no matmul faster on a processor, and take memory
_DISK_RESERVE = 2 << 30  # bytes that are never taken from a disk, whatever the limit says


class TrunkStore:
    """Where kept chunks lie: in memory up to a limit, then in memory-mapped files up to another.

    Args:
        memory, disk: limits in bytes; that of the disk holds for all processes that share the
            folder, now or earlier.
        folder: of the files, in one that exists; None keeps none. Chunks that another process has
            left there are used.

    Attributes:
        bytes_in_memory, bytes_on_disk: what this store keeps now.
    """

    def __init__(self, memory: int, disk: int = 0, folder: Path | None = None) -> None:
        self.memory, self.disk, self.folder = memory, disk, folder
        self.bytes_in_memory = self.bytes_on_disk = 0
        self._is_tidy = False
        self._known: set[str] = set()
        self._chunks: dict[str, list[torch.Tensor]] = {}

    def __len__(self) -> int:
        """How many chunks it has kept or read."""
        return len(self._known)

    def get(self, key: str, *, hold: bool = True) -> list[torch.Tensor] | None:
        """The chunk's rows, if they are kept.

        Args:
            hold: keep a file mapped, for what is asked for again and again; else its pages count
                for this process only as long as the tensors live.
        """
        if key in self._chunks or self.folder is None:
            return self._chunks.get(key)
        mapped = _mapped(self.folder / f"{key}.safetensors")
        if mapped is not None:
            self._known.add(key)
            if hold:
                self._chunks[key] = mapped
        return mapped

    def put(self, key: str, states: list[torch.Tensor]) -> None:
        """Keep a chunk where there is room; without room it is computed again when needed."""
        size = sum(tensor.nbytes for tensor in states)
        if self.bytes_in_memory + size <= self.memory:
            self._chunks[key] = states
            self._known.add(key)
            self.bytes_in_memory += size
        elif self.folder is not None and size <= self.disk:
            try:
                self._put_on_disk(self.folder / f"{key}.safetensors", states)
            except DiskFull as error:
                if not (full := files.what_is_full(error)):
                    raise
                self.disk = 0
                warnings.warn(
                    f"activations of the frozen trunk are kept no longer, which takes time: {full}",
                    stacklevel=2,
                )

    def _put_on_disk(self, path: Path, states: list[torch.Tensor]) -> None:
        most = _file_bytes(states)
        with self._alone_in(path.parent) as used:
            left = min(self.disk - used.bytes, shutil.disk_usage(path.parent).free - _DISK_RESERVE)
            if most <= left and _mapped(path) is None:  # else another process was faster
                named = {str(i): t.cpu().contiguous() for i, t in enumerate(states)}
                before, written = used.bytes, 0
                used.note(before + most)
                try:
                    files.atomically(path, lambda made: save_file(named, made), lasting=False)
                    written = path.stat().st_size
                finally:
                    used.note(before + written)
                self.bytes_on_disk += written
                self._known.add(path.stem)

    @contextmanager
    def _alone_in(self, folder: Path) -> Iterator[_Used]:
        """While no other process writes to the folder; with what is used of it."""
        with files.writing(folder):
            folder.mkdir(exist_ok=True)
            with (folder / ".lock").open("a+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not self._is_tidy:
                    files.tidy_up(folder)
                    self._is_tidy = True
                yield _Used(file, folder)


class _Used:
    """The bytes of a folder's files, kept in its lock: to count thousands of them takes longer than
    to write one.
    """

    def __init__(self, lock: TextIO, folder: Path) -> None:
        self._lock = lock
        lock.seek(0)
        noted = lock.read()
        if noted.isdecimal():
            self.bytes = int(noted)
        else:
            self.note(sum(kept.stat().st_size for kept in folder.glob("*.safetensors")))

    def note(self, used: int) -> None:
        """Set it, before a file is there: what dies in between has counted it at least."""
        self.bytes = used
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(str(used))
        self._lock.flush()


def _mapped(path: Path) -> list[torch.Tensor] | None:
    """A file's chunk, if there is one; one that a power cut has damaged is none."""
    with suppress(FileNotFoundError, SafetensorError):
        tensors = load_file(path)
        return [tensors[str(i)] for i in range(len(tensors))]
    return None


class Trunk:
    """The input of one block for the rows of one split.

    Args:
        block: the lowest block that the adaptation changes, at least 1.
    """

    def __init__(
        self, model: FrozenLM, rows: Sequence[Encoded], block: int, store: TrunkStore
    ) -> None:
        self.model, self.rows, self.block, self.store = model, rows, block, store
        self._keys: dict[tuple[int, str], str] = {}

    @property
    def chunks(self) -> int:
        """How many chunks all rows make."""
        return -(-len(self.rows) // _CHUNK_ROWS)

    def states(self, batch: Batch, indices: Sequence[int]) -> tuple[int, torch.Tensor]:
        """What lets a batch of these rows, packed with `share=False`, resume at the block."""
        states = [self._row(indices[i]) for i in batch.order]
        return self.block, torch.cat(states).unsqueeze(0).to(self.model.device)

    def _row(self, index: int) -> torch.Tensor:
        chunk, place = divmod(index, _CHUNK_ROWS)
        key = self._key(chunk)
        states = self.store.get(key)
        if states is None:
            states = self._run(self._rows_of(chunk))
            self.store.put(key, states)
        return states[place]

    def _rows_of(self, chunk: int) -> list[Sequence[int]]:
        start = chunk * _CHUNK_ROWS
        stop = min(start + _CHUNK_ROWS, len(self.rows))
        return [self.rows[i].ids[:-1] for i in range(start, stop)]

    def _key(self, chunk: int) -> str:
        """Names what the chunk holds: the base, the block, the number format and the tokens."""
        number = number_format(self.model.device.type)
        if (chunk, number) not in self._keys:
            rows = self._rows_of(chunk)
            told = f"{self.model.fingerprint} {self.block} {number} {rows}"
            self._keys[chunk, number] = hashlib.sha256(told.encode()).hexdigest()[:32]
        return self._keys[chunk, number]

    def _run(self, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """What enters the block, [T, D] a row; a few rows at a time, which costs no time."""
        chunks = token_chunks(rows, [len(ids) for ids in rows], _FORWARD_TOKENS)
        return [states for few in chunks for states in self._run_few(few)]

    @torch.no_grad()
    def _run_few(self, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        batch = pack([Row(ids) for ids in rows], [Edits()], device=self.model.device, share=False)
        states = self.model.block_input(batch, self.block)[0]
        return [part.clone() for part in states.split([len(ids) for ids in rows])]


def _file_bytes(states: Sequence[torch.Tensor]) -> int:
    """Bytes of a safetensors file, at most: a size, a header in JSON, padding, the numbers."""
    end, header = 0, {}
    for i, tensor in enumerate(states):
        begin, end = end, end + tensor.nbytes
        about = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
        header[str(i)] = about
    return 8 + len(json.dumps(header, separators=(",", ":"))) + 8 + end


def number_format(device: str) -> str:
    """What activations are computed in now, as part of the name of what is kept."""
    autocast = torch.is_autocast_enabled(device)
    return str(torch.get_autocast_dtype(device)) if autocast else "plain"
