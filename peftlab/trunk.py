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
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
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
        shared: files come first, since what lies in one process's memory is of no use to others.
        owner: whose store it is; what an earlier process of the same owner has computed is its own.

    Attributes:
        bytes_in_memory, bytes_on_disk: what this store keeps now.
        spared: seconds that it took others to compute what this store has found of theirs. A run
            counts them as its own, or what it takes would hang on who came before it.
        refused: chunks that there was no room for.
    """

    def __init__(
        self,
        memory: int,
        disk: int = 0,
        folder: Path | None = None,
        shared: bool = False,
        owner: str = "",
    ) -> None:
        self.memory, self.disk, self.folder, self.shared = memory, disk, folder, shared
        self._owner = int.from_bytes(hashlib.sha256(owner.encode()).digest()[:7])
        self.refused = 0
        self.bytes_in_memory = self.bytes_on_disk = 0
        self.spared = 0.0
        self._met: set[str] = set()
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

    def computed(
        self, key: str, compute: Callable[[], list[torch.Tensor]], *, hold: bool = True
    ) -> list[torch.Tensor]:
        """The chunk's rows, computed and kept where they are not; see `get`.

        What was just written is mapped as it will be later: memory of its own for every source of a
        step, each of another length, is what the heap would keep for the rest of the run.
        """
        kept = self.get(key, hold=hold)
        if kept is None:
            begun = time.perf_counter()
            made = compute()
            if made[0].is_cuda:
                torch.cuda.synchronize(made[0].device)
            micros = int(1e6 * (time.perf_counter() - begun))
            self.put(key, [*made, torch.tensor([micros, self._owner])])
            self._met.add(key)
            kept = self.get(key, hold=hold)
            return made if kept is None else kept[:-1]
        if key not in self._met:
            self._met.add(key)
            micros, owner = kept[-1].tolist()
            self.spared += 0.0 if owner == self._owner else micros / 1e6
        return kept[:-1]

    def put(self, key: str, states: list[torch.Tensor]) -> None:
        """Keep a chunk where there is room; without room it is computed again when needed."""
        ways = [self._put_in_memory, self._put_in_files]
        for way in reversed(ways) if self.shared else ways:
            if way(key, states):
                self._known.add(key)
                return
        self.refused += 1

    def _put_in_memory(self, key: str, states: list[torch.Tensor]) -> bool:
        size = sum(tensor.nbytes for tensor in states)
        if self.bytes_in_memory + size > self.memory:
            return False
        self._chunks[key] = states
        self.bytes_in_memory += size
        return True

    def _put_in_files(self, key: str, states: list[torch.Tensor]) -> bool:
        size = sum(tensor.nbytes for tensor in states)
        if self.folder is None or size > self.disk:
            return False
        try:
            return self._put_on_disk(self.folder / f"{key}.safetensors", states)
        except DiskFull as error:
            if not (full := files.what_is_full(error)):
                raise
            self.disk = 0
            warnings.warn(
                "activations of the frozen trunk are kept in files no longer, which takes time: "
                f"{full}",
                stacklevel=2,
            )
            return False

    def _put_on_disk(self, path: Path, states: list[torch.Tensor]) -> bool:
        most = _file_bytes(states)
        with self._alone_in(path.parent) as used:
            if _mapped(path) is not None:  # another process was faster
                return True
            left = min(self.disk - used.bytes, shutil.disk_usage(path.parent).free - _DISK_RESERVE)
            if most > left:
                return False
            named = {str(i): t.cpu().contiguous() for i, t in enumerate(states)}
            before, written = used.bytes, 0
            used.note(before + most)
            try:
                files.atomically(path, lambda made: save_file(named, made), lasting=False)
                written = path.stat().st_size
            finally:
                used.note(before + written)
            self.bytes_on_disk += written
        return True

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
        continued: of edits that begin at the cue, whose rows go on from what was kept of the tokens
            before it, and have states of those after it alone: makes such rows.
    """

    def __init__(
        self,
        model: FrozenLM,
        rows: Sequence[Encoded],
        block: int,
        store: TrunkStore,
        continued: Callable[[Sequence[Row]], list[Row]] | None = None,
    ) -> None:
        self.model, self.rows, self.block, self.store = model, rows, block, store
        self.continued = continued
        self._keys: dict[tuple[int, str], str] = {}

    @property
    def chunks(self) -> int:
        """How many chunks all rows make."""
        return -(-len(self.rows) // _CHUNK_ROWS)

    def states(self, batch: Batch, indices: Sequence[int]) -> tuple[int, torch.Tensor]:
        """What lets a batch of these rows, packed with `share=False`, resume at the block."""
        device = self.model.device  # some may come from files, others from its own memory
        states = [self._row(indices[i]).to(device) for i in batch.order]
        return self.block, torch.cat(states).unsqueeze(0)

    def _row(self, index: int) -> torch.Tensor:
        chunk, place = divmod(index, _CHUNK_ROWS)
        key = self._key(chunk)
        return self.store.computed(key, lambda: self._run(self._rows_of(chunk)))[place]

    def _rows_of(self, chunk: int) -> list[Row]:
        start = chunk * _CHUNK_ROWS
        rows = [self.rows[i] for i in range(start, min(start + _CHUNK_ROWS, len(self.rows)))]
        whole = self.continued is None
        return [Row(row.ids[:-1], begin=0 if whole else row.begin or 0) for row in rows]

    def _key(self, chunk: int) -> str:
        """Names what the chunk holds: the base, the block, the number format and the tokens."""
        number = number_format(self.model.device.type)
        if (chunk, number) not in self._keys:
            rows = self._rows_of(chunk)
            begins = [row.begin for row in rows if row.begin]
            named = f"{[row.ids for row in rows]}{begins or ''}"
            told = f"{self.model.fingerprint} owned {self.block} {number} {named}"
            self._keys[chunk, number] = hashlib.sha256(told.encode()).hexdigest()[:32]
        return self._keys[chunk, number]

    def _run(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """What enters the block, [T, D] a row; a few rows at a time, which costs no time."""
        chunks = token_chunks(rows, [len(row.ids) for row in rows], _FORWARD_TOKENS)
        return [states for few in chunks for states in self._run_few(few)]

    @torch.no_grad()
    def _run_few(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        given = rows if self.continued is None else self.continued(rows)
        batch = pack(given, [Edits()], device=self.model.device, share=False)
        states = self.model.block_input(batch, self.block)[0]
        return [part.clone() for part in states.split([len(row.ids) for row in given])]


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
