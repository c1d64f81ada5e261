"""How this process uses its cores and memory; settled once, before torch is imported."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import MutableMapping

__all__ = ["tune_process"]

_SPIN_COUNT = "10000"
_SWITCH_SECONDS = 0.0005

# mallopt's own numbers (malloc.h).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEPT_BYTES = 2**30
_LARGEST_KEPT = 2**28


def tune_process(environment: MutableMapping[str, str]) -> None:
    """Settle what a process that runs forwards on a CPU wants otherwise than Python and the C library have it.

    - torch's threads give their core away soon when they wait for each other; an operator's own choice stays. They
      wait by spinning, by default for milliseconds. On two cores one other busy process then makes a forward
      eight times slower, and with this count three times; where the cores are free it costs nothing.
    - Freed memory is kept for the next layer. By default the C library gives every large piece back to the system
      and takes it again a moment later, page by page: a quarter of a forward's time on some machines.
    - A thread that waits for Python's lock gets it after half a millisecond: the thread that feeds the device
      launches hundreds of operations for each batch, and must not wait five for each.
    """
    environment.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
    sys.setswitchinterval(_SWITCH_SECONDS)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Only where the C library is glibc; others have no such settings."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    mallopt(_ARENA_MAX, 1)  # a thread's own arena is given back piece by piece whatever the threshold says
