from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from hmi.errors import Cancelled, HmiError, LeaseLost
from worker import watch
from worker.leases import Lease
from worker.stopping import Stopping
from worker.watch import Watch, is_deadline


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_POLL_SECONDS", 0.01)


def resolved(value: int) -> Future[int]:
    future: Future[int] = Future()
    future.set_result(value)
    return future


def test_result_comes_through_when_nothing_happens() -> None:
    future: Future[int] = Future()
    threading.Timer(0.05, future.set_result, [7]).start()
    assert Watch(Lease("it"), Stopping(), 60).wait(future) == 7


def test_waiting_ends_when_the_lease_is_lost() -> None:
    lease = Lease("it")
    threading.Timer(0.05, lease.lose).start()
    with pytest.raises(LeaseLost, match="it"):
        Watch(lease, Stopping(), 60).wait(Future())


def test_waiting_ends_when_the_deadline_is_over() -> None:
    with pytest.raises(HmiError) as raised:
        Watch(Lease("it"), Stopping(), 0.05).wait(Future())
    assert is_deadline(raised.value)
    assert not is_deadline(ValueError())


def test_nothing_more_is_begun_when_the_process_stops() -> None:
    stopping = Stopping()
    watching = Watch(Lease("it"), stopping, 60)
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
        Watch(Lease("it"), stopping, 60).wait(Future())


def test_engine_that_closed_is_told_apart_from_a_fault() -> None:
    future: Future[int] = Future()
    future.cancel()
    with pytest.raises(Cancelled):
        Watch(Lease("it"), Stopping(), 60).wait(future)


def test_fault_of_the_engine_reaches_the_waiter() -> None:
    future: Future[int] = Future()
    future.set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        Watch(Lease("it"), Stopping(), 60).wait(future)
