"""How the engine's threads fail and stop: one sequence fails alone, and closing cancels what has not run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from hmi.engine.tasks import Submission
from hmi.errors import Cancelled

B = TypeVar("B")
R = TypeVar("R")


class Lifecycle:
    """Whether a thread's owner is closed, and the condition on which the thread waits for that or for work."""

    def __init__(self) -> None:
        self.changed = threading.Condition()  # protects the owner's state
        self.closed = False  # nothing new is accepted
        self.abandoned = False  # closed without draining: what has not run is cancelled

    def close(self, *, drain: bool) -> None:
        with self.changed:
            self.closed = True
            self.abandoned |= not drain
            self.changed.notify_all()

    def notify(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def cancellation(self, submission: Submission) -> Cancelled | None:
        """Why a sequence of the submission is not run; None where it is."""
        if self.abandoned:
            return Cancelled("the engine was closed before this ran")
        return Cancelled("the submission was cancelled") if submission.future.done() else None


def run_isolated(
    batch: B, run: Callable[[B], R], halve: Callable[[B], Sequence[B]], fail: Callable[[B, BaseException], None]
) -> list[R]:
    """Run a batch; where it fails, run it in halves, down to the sequences that fail alone, for which `fail` is called.

    `halve` returns no halves of a single sequence. Returns what `run` gave for the batch, or for its parts that did not
    fail.
    """
    try:
        return [run(batch)]
    except BaseException as error:  # noqa: BLE001 - one tenant's sequence must not fail others'
        # Without its traceback, which would keep the tensors of this attempt while the next one needs their room.
        failure = error.with_traceback(None)
    halves = halve(batch)
    if not halves:
        fail(batch, failure)
    return [result for half in halves for result in run_isolated(half, run, halve, fail)]
