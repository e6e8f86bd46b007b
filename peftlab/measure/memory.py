"""How much memory a device has free, before anything is put there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

# cgroup v2's limit of a container, which the system's own figures do not know.
_LIMIT = Path("/sys/fs/cgroup/memory.max")
_USED = Path("/sys/fs/cgroup/memory.current")
_STATISTICS = Path("/sys/fs/cgroup/memory.stat")


def free_memory(device: torch.device | str) -> int:
    """Bytes that can be taken on a device without taking them from others."""
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    contained = _free_in_container()
    return free if contained is None else min(free, contained)


def _free_in_container() -> int | None:
    """What the container's limit leaves; None without a limit."""
    try:
        limit = _LIMIT.read_text().strip()
        if limit == "max":
            return None
        used = int(_USED.read_text()) - _reclaimable(_STATISTICS.read_text())
    except (OSError, ValueError):
        return None
    return max(0, int(limit) - used)


def _reclaimable(statistics: str) -> int:
    """File pages that the kernel gives up when somebody needs memory."""
    rows = dict(line.split() for line in statistics.splitlines())
    return int(rows.get("inactive_file", 0))
