"""The processes of one training: which one this is, and what they tell each other.

`torchrun` and `accelerate launch` start the same program several times and say in the environment
who is who. Every process works on rows of its own; what is decided is decided alike in all of them.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from peftlab.errors import InputError, PeftlabError
from peftlab.lazy import torch

PATIENCE = 600.0  # seconds that processes wait for each other
_DRAINED = 0.5  # seconds in which every thread of a busy machine gets its turn

T = TypeVar("T")

_SIGNS_OF_LOSS = (
    "gloo", "NCCL", "Connection closed by peer", "Connection reset", "Broken pipe", "Timed out",
    "ProcessGroup",
)  # fmt: skip
_OTHER_WAYS = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")


class Lost(PeftlabError):
    """Another process has ended, or does not answer; this one cannot go on alone."""


@dataclass(frozen=True)
class Processes:
    """This process among those that were started with it; by itself it is the only one.

    Attributes:
        index, count: which one it is, of how many. local: how many run on this machine.
    """

    index: int = 0
    count: int = 1
    local: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and talks to people."""
        return self.index == 0

    def mine(self, items: Sequence[T]) -> list[T]:
        """This process's share."""
        return list(items[self.index :: self.count])

    def shares(
        self, share_of: Callable[[int], Sequence[T]], even: bool = False
    ) -> Iterator[tuple[T, bool]]:
        """This process's pieces of work, and whether a piece counts.

        Args:
            share_of: the pieces of a process by its index.
            even: every process takes equally many; who has fewer does others' pieces besides, which
                then do not count. A sharded base needs it: its blocks are gathered from all.
        """
        own = share_of(self.index)
        yield from ((piece, True) for piece in own)
        if even and self.count > 1:
            longest = max((share_of(i) for i in range(self.count)), key=len)
            yield from ((piece, False) for piece in longest[len(own) :])

    def sum(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The sums over all processes, of equal shapes in each; one message for each dtype."""
        if self.count == 1 or not tensors:
            return list(tensors)
        sums: list[torch.Tensor] = list(tensors)
        for dtype in {tensor.dtype for tensor in tensors}:
            chosen = [i for i, tensor in enumerate(tensors) if tensor.dtype == dtype]
            flat = torch.cat([tensors[i].reshape(-1) for i in chosen])
            torch.distributed.all_reduce(flat)
            pieces = flat.split([tensors[i].numel() for i in chosen])
            for i, piece in zip(chosen, pieces, strict=True):
                sums[i] = piece.view(tensors[i].shape)
        return sums

    def numbers(self, *values: float) -> list[tuple[float, ...]]:
        """These numbers of every process, in the order of the processes."""
        if self.count == 1:
            return [values]
        own = torch.tensor(values, dtype=torch.float64)
        everyone = [torch.empty_like(own) for _ in range(self.count)]
        torch.distributed.all_gather(everyone, own)
        return [tuple(each.tolist()) for each in everyone]

    def told(self, value: T) -> list[T]:
        """This value of every process, in the order of the processes."""
        if self.count == 1:
            return [value]
        everyone: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(everyone, value)
        return everyone

    def from_first(self, tensors: Sequence[torch.Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor.detach(), 0)

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Refuse to go on together where processes differ.

        Raises:
            InputError: in every process; names what differs, where, and what each one has.
        """
        everyone = self.told((socket.gethostname(), dict(_flat(facts))))
        first = everyone[0][1]
        problems = [
            f"{name} is {first.get(name)!r} in process 0 and {own.get(name)!r} in process {index} "
            f"(on {host})"
            for index, (host, own) in enumerate(everyone)
            for name in {**first, **own}
            if first.get(name) != own.get(name)
        ]
        if problems:
            raise InputError(
                f"the processes of one training must be alike, but {'; '.join(problems[:5])}"
            )

    @contextmanager
    def watched(self, advice: str = "start all again") -> Iterator[None]:
        """Say clearly that another process is gone.

        Raises:
            Lost: with the advice.
        """
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not _is_loss(error):
                raise
            reason = str(error).strip().splitlines()[0].partition(". ")[0]
            raise Lost(
                f"process {self.index} of {self.count} got no answer from another one, which has "
                f"ended or hangs ({reason}); {advice}"
            ) from error


def _flat(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Facts inside facts under names with dots, so that a message names what differs alone."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


ALONE = Processes()


def expected() -> int:
    """How many processes the launcher has started, by the environment."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def local_device(kind: str) -> str:
    """The device of this process where each has one of its own, for example `cuda:1`.

    Raises:
        InputError: more processes on this machine than it has such devices.
    """
    if kind != "cuda" or expected() == 1:
        return kind
    local, have = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if local > have:
        raise InputError(
            f"{local} processes were started on a machine with {have} GPUs; start one for each, or "
            "use --device cpu"
        )
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def join(device: torch.device | str, patience: float = PATIENCE) -> Processes:
    """Meet the processes that were started with this one.

    Args:
        device: where it computes. patience: seconds after which a silent process counts as lost.

    Raises:
        InputError: they have other versions, or the launcher asks for a library's own sharding.
        Lost: one of them is not there.
    """
    distributed = torch.distributed
    if not distributed.is_available():
        return ALONE
    if not distributed.is_initialized():
        if expected() == 1:
            return ALONE
        _refuse_other_ways()
        cuda = torch.device(device).type == "cuda"
        if cuda:
            torch.cuda.set_device(torch.device(device))
        with Processes(count=2).watched():
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timedelta(seconds=patience)
            )
        processes = _here()
        with processes.watched():
            processes.agree(_versions())
        return processes
    return _here()


def leave() -> None:
    """Part from the others, at the end of the program."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        # Gloo's threads drop a message's tensors after it has been waited for, and need the
        # interpreter for that. Before Python 3.14 one that comes too late, when the interpreter is
        # ending, aborts the process ("terminate called without an active exception").
        time.sleep(_DRAINED)


def _here() -> Processes:
    rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return Processes(rank, count, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _versions() -> dict[str, str]:
    from peftlab.measure import environment

    here = environment()
    git = here["git"] or {}
    return {**here["versions"], "peftlab's commit": str(git.get("commit"))}


def _refuse_other_ways() -> None:
    for way in _OTHER_WAYS:
        if os.environ.get(f"ACCELERATE_USE_{way}", "false").lower() == "true":
            raise InputError(
                f"accelerate is configured to use {way.lower()}; peftlab shards the base itself: "
                "launch without it and use --shard"
            )


def _is_loss(error: RuntimeError) -> bool:
    lost = isinstance(error, torch.distributed.DistError)
    return lost or any(sign in str(error) for sign in _SIGNS_OF_LOSS)
