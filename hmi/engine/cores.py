"""How this process behaves towards others on the same cores; settled before torch is imported."""

from __future__ import annotations

from collections.abc import MutableMapping

__all__ = ["share_cores"]

_SPIN_COUNT = "10000"


def share_cores(environment: MutableMapping[str, str]) -> None:
    """Let torch's threads give their core away soon when they wait for each other; an operator's own choice stays.

    They wait by spinning, by default for milliseconds. On two cores one other busy process then makes a
    forward eight times slower, and with this count three times; where the cores are free it costs nothing.
    """
    environment.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
