"""How this process uses its cores and memory; set once, before torch is imported."""

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
    """Change defaults of Python and the C library that slow forwards on a CPU down.

    - torch's threads wait for each other by spinning, by default for milliseconds. On two cores one other busy process
      then makes a forward eight times slower, and with this count three times; on free cores it costs nothing. A count
      that the environment sets stays.
    - Freed memory is kept for the next layer. By default the C library returns each large piece to the system and
      takes it again a moment later, page by page: a quarter of a forward's time on some machines.
    - A thread that waits for Python's lock gets it after half a millisecond: the thread that feeds the device
      launches hundreds of operations for each batch, and must not wait five for each.
    """
    environment.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
    sys.setswitchinterval(_SWITCH_SECONDS)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """On glibc; other C libraries have no such settings."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    mallopt(_ARENA_MAX, 1)  # memory of per-thread arenas is returned piece by piece whatever the threshold
