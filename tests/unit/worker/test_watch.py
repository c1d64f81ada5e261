from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from hmi.errors import Cancelled, HmiError, LeaseLost
from worker.lifecycle import Lease, Stopping
from worker.shards import watch
from worker.shards.watch import Watch, is_deadline


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_POLL_SECONDS", 0.01)


def watch_of(lease: Lease, stopping: Stopping | None = None, deadline_seconds: float = 60) -> Watch:
    return Watch(lease, stopping or Stopping(), deadline_seconds, lambda: 0)


def resolved(value: int) -> Future[int]:
    future: Future[int] = Future()
    future.set_result(value)
    return future


def test_result_comes_through_when_nothing_happens() -> None:
    future: Future[int] = Future()
    threading.Timer(0.05, future.set_result, [7]).start()
    assert watch_of(Lease("it")).wait(future) == 7


def test_waiting_ends_when_the_lease_is_lost() -> None:
    lease = Lease("it")
    threading.Timer(0.05, lease.lose).start()
    with pytest.raises(LeaseLost, match="it"):
        watch_of(lease).wait(Future())


def test_waiting_ends_when_the_deadline_is_over() -> None:
    with pytest.raises(HmiError) as raised:
        watch_of(Lease("it"), deadline_seconds=0.05).wait(Future())
    assert is_deadline(raised.value)
    assert not is_deadline(ValueError())


def test_deadline_counts_from_any_sequence_that_has_an_outcome() -> None:
    """Long before the first piece that was handed over is whole."""
    now = 0.0
    watching = Watch(Lease("it"), Stopping(), 10, lambda: 0, clock=lambda: now)
    for seconds in (9.0, 18.0, 27.0):
        watching.answered()
        now = seconds
        watching.check()
    now = 38.0
    with pytest.raises(HmiError) as raised:
        watching.check()
    assert is_deadline(raised.value)


def test_deadline_counts_from_the_last_answer() -> None:
    now = 0.0
    watching = Watch(Lease("it"), Stopping(), 10, lambda: 0, clock=lambda: now)
    for seconds in (9.0, 18.0, 27.0):
        now = seconds
        watching.check()
        watching.wait(resolved(1))
    now = 38.0
    assert watching.waited_seconds == 11
    with pytest.raises(HmiError) as raised:
        watching.check()
    assert is_deadline(raised.value)


def test_engine_that_stands_still_is_noticed_whatever_it_ran_before() -> None:
    ran = [0]
    watching = Watch(Lease("it"), Stopping(), 10, lambda: ran[-1])
    seen = [watching.sees_nothing_run]
    ran.append(5)
    seen.append(watching.sees_nothing_run)
    watching.wait(resolved(1))
    seen.append(watching.sees_nothing_run)
    assert seen == [True, False, True]


@pytest.mark.parametrize("alone", [True, False])
def test_a_shard_that_runs_alone_gets_on_by_what_the_engine_runs(alone: bool) -> None:
    now, ran = [0.0], [0]
    watching = Watch(Lease("it"), Stopping(), 10, lambda: ran[-1], alone=alone, clock=lambda: now[-1])
    now.append(9.0)
    ran.append(1)
    watching.check()
    now.append(18.0)
    if alone:
        watching.check()
        now.append(20.0)
    with pytest.raises(HmiError) as raised:
        watching.check()
    assert is_deadline(raised.value)
    assert watching.sees_nothing_run is alone


def test_nothing_more_is_begun_when_the_process_stops() -> None:
    stopping = Stopping()
    watching = watch_of(Lease("it"), stopping)
    watching.check()
    stopping.set()
    with pytest.raises(Cancelled):
        watching.check()
    assert watching.wait(resolved(3)) == 3


def test_waiting_ends_when_the_engine_does_not_answer_a_stopping_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_GRACE_SECONDS", 0.05)
    stopping = Stopping()
    stopping.set()
    with pytest.raises(Cancelled):
        watch_of(Lease("it"), stopping).wait(Future())


def test_engine_that_closed_is_told_apart_from_a_fault() -> None:
    future: Future[int] = Future()
    future.cancel()
    with pytest.raises(Cancelled):
        watch_of(Lease("it")).wait(future)


def test_fault_of_the_engine_reaches_the_waiter() -> None:
    future: Future[int] = Future()
    future.set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        watch_of(Lease("it")).wait(future)
