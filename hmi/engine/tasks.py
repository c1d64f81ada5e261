"""What is submitted to an engine: items with the future of their outcomes, and the task of each sequence."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hmi.engine.memory import LoadedModel, adapter_key
from hmi.errors import HmiError, Overloaded
from hmi.items import Item, Outcome

_log = logging.getLogger(__name__)

_LOGGED = "this error was logged by the engine"


class Submission:
    """The items of one `submit` and the future of their outcomes. Thread-safe.

    Each item's outcome is set once; a second one for the same item is dropped. The last one resolves the future,
    whatever the outcomes are. `on_outcome` is called on the thread that sets an outcome; see `Engine.submit`.
    """

    def __init__(self, items: Sequence[Item], on_outcome: Callable[[], None] | None = None) -> None:
        self.items = tuple(items)
        self._on_outcome = on_outcome
        self.future: Future[list[Outcome]] = Future()
        self._outcomes: list[Outcome | None] = [None] * len(self.items)
        self._missing = len(self.items)
        self._lock = threading.Lock()
        if not self.items:
            self.future.set_result([])

    def settle(self, index: int, outcome: Outcome) -> None:
        with self._lock:
            if self._outcomes[index] is not None:
                return
            self._outcomes[index] = outcome
            self._missing -= 1
            outcomes = [each for each in self._outcomes if each is not None] if not self._missing else None
        if self._on_outcome is not None:
            self._on_outcome()
        if outcomes is not None and self.future.set_running_or_notify_cancel():
            self.future.set_result(outcomes)

    def fail(self, index: int, error: HmiError) -> None:
        self.settle(index, Outcome(result=None, error=error, tokens=0))


@dataclass(frozen=True, slots=True, eq=False)
class SequenceTask:
    """One sequence to run."""

    submission: Submission
    index: int  # of its item in the submission
    ids: NDArray[np.int64]  # [T], special tokens included
    base: LoadedModel

    @property
    def item(self) -> Item:
        return self.submission.items[self.index]

    @property
    def adapter(self) -> str | None:
        """The adapter's key in `AdapterMemory`."""
        digest = self.item.model.adapter
        return adapter_key(self.base.digest, digest) if digest else None

    def settle(self, outcome: Outcome) -> None:
        self.submission.settle(self.index, outcome)

    def fail(self, error: HmiError) -> None:
        self.submission.fail(self.index, error)


def to_hmi_error(error: BaseException, tokens: int | None = None) -> HmiError:
    """The error that an item gets for this one; `tokens` are those of the one sequence that it fails, if there is one.

    An error that is not an `HmiError` is reduced to its type: the tenant reads it, and its message may name our files
    and processes. The log has it whole, once however many items it fails.
    """
    if isinstance(error, HmiError):
        return error
    where = "this input" if tokens is None else f"a sequence of {tokens} tokens"
    if isinstance(error, torch.OutOfMemoryError):
        return Overloaded(f"the device has no room for {where}")
    if _LOGGED not in getattr(error, "__notes__", ()):
        error.add_note(_LOGGED)
        _log.error("the engine failed on %s: %s: %s", where, type(error).__name__, error)
    return HmiError(f"the engine failed on this input ({type(error).__name__})")
