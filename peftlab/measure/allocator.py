"""What the process keeps of memory that it has used: freed activations yes, stale kernels no.

glibc's malloc: by default every large block is mapped afresh and unmapped when freed, so the kernel
zeroes each step's activations again: page faults have been seen to take half of a training step.
Raising three thresholds keeps the blocks. What it costs: resident memory then stays at its
high-water mark until `trim()`, and blocks of changing sizes leave gaps, so the peak itself can be
somewhat higher. Compare with a peer under the same setting, or show both.

oneDNN's kernels: every shape of a product in bf16 is compiled, up to a MiB each, and two caches
keep the last 1,024. Packed rows bring new shapes at every step, so a training filled both and never
came back to a shape: 1.2 GiB were seen beside a model of 25 MB. What a step repeats from block to
block fits into far fewer.
"""

from __future__ import annotations

import ctypes
import os
import platform

# Parameters of mallopt(3); its values are C ints, so 2 GiB is the most that can be asked for.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MOST = 2**31 - 1
_SETTINGS = ((_M_MMAP_THRESHOLD, _MOST), (_M_TRIM_THRESHOLD, _MOST), (_M_TOP_PAD, 512 * 2**20))
_KERNELS = 32  # at which each cache is cut; a block has no more different products in a row
_KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")  # oneDNN's, torch's
_OWN_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")


def tune_allocator() -> bool:
    """Make malloc keep freed memory and oneDNN few kernels; call it before anything is computed.

    Returns:
        True if malloc now does so because of this call. False, and nothing is touched there: on
        another C library, under another allocator (LD_PRELOAD), when the user has set malloc's
        thresholds in the environment, and with PEFTLAB_MALLOC=0.
    """
    for name in _KERNEL_CACHES:
        os.environ.setdefault(name, str(_KERNELS))  # read at the first product in bf16
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
