"""A generator for each decoder, made when its first text comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from hmi.engine.decode.loop import DecodeLoop
from hmi.engine.hosted import LoadedModel
from hmi.engine.work import SequenceTask, to_hmi_error

__all__ = ["DecodeLoops"]


class DecodeLoops:
    """Thread-safe.

    Args:
        make: A generator of a base model; raises what is wrong with it.
    """

    def __init__(self, make: Callable[[LoadedModel], DecodeLoop]) -> None:
        self._make = make
        self._made: dict[str, DecodeLoop] = {}
        self._lock = threading.Lock()
        self._ended = 0  # preemptions of generators that have ended

    def add(self, works: Sequence[SequenceTask]) -> None:
        """Texts to continue, all of one base model."""
        base = works[0].base
        try:
            with self._lock:
                if base.digest not in self._made:
                    self._made[base.digest] = self._make(base)
                generator = self._made[base.digest]
        except Exception as error:  # noqa: BLE001 - the texts', and nobody else's
            for work in works:
                work.fail(to_hmi_error(error))
        else:
            generator.add(works)

    @property
    def preemptions(self) -> int:
        return self._ended + sum(each.preemptions for each in list(self._made.values()))

    def close(self, *, drain: bool) -> None:
        """No text may be added any more."""
        for generator in self._made.values():
            generator.close(drain=drain)
        self._ended = self.preemptions
        self._made.clear()
