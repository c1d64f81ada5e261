from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from hmi.errors import Cancelled, HmiError, LeaseLost
from worker.lifecycle import Lease, Stopping
from worker.shards import monitor
from worker.shards.monitor import DeadlineExceeded, EngineStalled, ShardMonitor


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_POLL_SECONDS", 0.01)


def held() -> Lease:
    return Lease("it", lambda *_: True)


def monitor_of(lease: Lease, stopping: Stopping | None = None, deadline_seconds: float = 60) -> ShardMonitor:
    return ShardMonitor(lease, stopping or Stopping(), deadline_seconds, lambda: 0)


def resolved(value: int) -> Future[int]:
    future: Future[int] = Future()
    future.set_result(value)
    return future


def test_result_comes_through_when_nothing_happens() -> None:
    future: Future[int] = Future()
    threading.Timer(0.05, future.set_result, [7]).start()
    assert monitor_of(held()).wait(future) == 7


def test_waiting_ends_when_the_lease_is_lost() -> None:
    lease = held()
    threading.Timer(0.05, setattr, (lease, "lost", True)).start()
    with pytest.raises(LeaseLost, match="it"):
        monitor_of(lease).wait(Future())


def test_waiting_ends_when_the_deadline_is_over() -> None:
    with pytest.raises(HmiError) as raised:
        monitor_of(held(), deadline_seconds=0.05).wait(Future())
    assert raised.value.code == "shard_deadline"


def test_deadline_counts_from_any_sequence_that_has_an_outcome() -> None:
    """Long before the first submission is complete."""
    now = 0.0
    watching = ShardMonitor(held(), Stopping(), 10, lambda: 0, clock=lambda: now)
    for seconds in (9.0, 18.0, 27.0):
        watching.on_outcome()
        now = seconds
        watching.check()
    now = 38.0
    with pytest.raises(DeadlineExceeded):
        watching.check()


def test_deadline_counts_from_the_last_result() -> None:
    now = 0.0
    watching = ShardMonitor(held(), Stopping(), 10, lambda: 0, clock=lambda: now)
    for seconds in (9.0, 18.0, 27.0):
        now = seconds
        watching.check()
        watching.wait(resolved(1))
    now = 37.0
    watching.check()
    now = 38.0
    with pytest.raises(DeadlineExceeded):
        watching.check()


def test_a_stalled_engine_is_noticed_whatever_it_ran_before() -> None:
    now, ran = [0.0], [0]
    watching = ShardMonitor(held(), Stopping(), 10, lambda: ran[-1], clock=lambda: now[-1])
    seen = []
    for batches, result in ((0, None), (5, None), (5, 1)):
        ran.append(batches)
        if result:
            watching.wait(resolved(result))
        now.append(now[-1] + 11)
        with pytest.raises(DeadlineExceeded) as raised:
            watching.check()
        seen.append(isinstance(raised.value, EngineStalled))
    assert seen == [True, False, True]


@pytest.mark.parametrize("alone", [True, False])
def test_every_batch_is_progress_of_a_shard_that_runs_alone(alone: bool) -> None:
    now, ran = [0.0], [0]
    watching = ShardMonitor(held(), Stopping(), 10, lambda: ran[-1], alone=alone, clock=lambda: now[-1])
    now.append(9.0)
    ran.append(1)
    watching.check()
    now.append(18.0)
    if alone:
        watching.check()
        now.append(20.0)
    with pytest.raises(DeadlineExceeded) as raised:
        watching.check()
    assert isinstance(raised.value, EngineStalled) is alone


def test_nothing_more_is_submitted_when_the_process_stops() -> None:
    stopping = Stopping()
    watching = monitor_of(held(), stopping)
    watching.check()
    stopping.set()
    with pytest.raises(Cancelled):
        watching.check()
    assert watching.wait(resolved(3)) == 3


def test_waiting_ends_when_the_engine_does_not_answer_a_stopping_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_GRACE_SECONDS", 0.05)
    stopping = Stopping()
    stopping.set()
    with pytest.raises(Cancelled):
        monitor_of(held(), stopping).wait(Future())


def test_a_closed_engine_is_no_failure() -> None:
    future: Future[int] = Future()
    future.cancel()
    with pytest.raises(Cancelled):
        monitor_of(held()).wait(future)


def test_fault_of_the_engine_reaches_the_waiter() -> None:
    future: Future[int] = Future()
    future.set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        monitor_of(held()).wait(future)
