"""glibc's malloc: keep freed activations instead of handing them back to the kernel.

By default every large block is mapped afresh and unmapped when freed, so the kernel zeroes each
step's activations again: page faults have been seen to take half of a training step. Raising three
thresholds keeps the blocks. What it costs: resident memory then stays at its high-water mark until
`trim()`, and blocks of changing sizes leave gaps, so the peak itself can be somewhat higher.
Compare with a peer under the same setting, or show both.
"""

from __future__ import annotations

import ctypes
import os
import platform

# Parameters of mallopt(3); its values are C ints, so 2 GiB is the most that can be asked for.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MOST = 2**31 - 1
_SETTINGS = ((_M_MMAP_THRESHOLD, _MOST), (_M_TRIM_THRESHOLD, _MOST), (_M_TOP_PAD, 512 * 2**20))
_OWN_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")


def tune_allocator() -> bool:
    """Make malloc keep freed memory. True if it now does so because of this call.

    False, and nothing is touched: on another C library, under another allocator (LD_PRELOAD), when
    the user has set malloc's thresholds in the environment, and with PEFTLAB_MALLOC=0.
    """
    if os.environ.get("PEFTLAB_MALLOC") == "0" or not _is_glibc_malloc():
        return False
    chosen = any(name in os.environ for name in _OWN_SETTINGS)
    if chosen or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    library = ctypes.CDLL(None)
    accepted = [library.mallopt(parameter, value) == 1 for parameter, value in _SETTINGS]
    return all(accepted)


def trim() -> None:
    """Hand all freed memory back to the kernel, where the C library can."""
    if _is_glibc_malloc():
        ctypes.CDLL(None).malloc_trim(0)


def _is_glibc_malloc() -> bool:
    preloaded = os.environ.get("LD_PRELOAD", "")
    return platform.libc_ver()[0] == "glibc" and "malloc" not in preloaded
