from __future__ import annotations

import threading

from tests.waiting import wait_until
from worker.lifecycle import Periodic


def test_action_runs_again_when_it_raised() -> None:
    calls = []

    def act() -> None:
        calls.append(1)
        raise ValueError

    periodic = Periodic("acting", 0.01, act)
    periodic.start()
    wait_until(lambda: len(calls) >= 3)
    periodic.stop()
    after = len(calls)
    assert not any(thread.name == "acting" for thread in threading.enumerate())
    assert len(calls) == after


def test_stop_returns_when_it_never_started() -> None:
    Periodic("idle", 60, lambda: None).stop()
