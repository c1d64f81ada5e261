"""Pacing of background work beside jobs."""

from __future__ import annotations

import pytest

from worker.lifecycle import Pace


class Time:
    """A clock that only work and sleep advance."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept = 0.0
        self.jobs_until = 0.0
        self.stop_at = float("inf")

    def busy(self) -> bool:
        return self.now < self.jobs_until

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        self.slept += seconds

    def check(self) -> None:
        if self.now >= self.stop_at:
            raise InterruptedError

    def pace(self, share: float) -> Pace:
        return Pace(share, self.busy, self.check, lambda: self.now, self.sleep)


@pytest.mark.parametrize("share", [0.1, 0.25, 1.0])
def test_steps_take_their_share_of_the_time_when_jobs_run(share: float) -> None:
    time = Time()
    time.jobs_until = float("inf")
    pace = time.pace(share)
    worked = 0.0
    for step in (0.5, 0.01, 2.0, 0.3):
        time.now += step
        worked += step
        pace()
        assert worked / (worked + time.slept) == pytest.approx(share)
    assert pace.waited_seconds == pytest.approx(time.slept)


def test_no_time_is_lost_when_no_job_runs() -> None:
    time = Time()
    pace = time.pace(0.1)
    for _ in range(10):
        time.now += 1.0
        pace()
    assert time.slept == 0.0


def test_waiting_ends_when_the_jobs_end() -> None:
    time = Time()
    time.jobs_until = 103.0
    pace = time.pace(0.1)
    time.now += 1.0  # would be nine seconds of waiting
    pace()
    assert 103.0 <= time.now < 103.2
    time.now += 1.0
    pace()
    assert time.now < 104.2


def test_waiting_does_not_count_as_work_of_the_next_step() -> None:
    time = Time()
    time.jobs_until = float("inf")
    pace = time.pace(0.1)
    time.now += 1.0
    pace()
    slept = time.slept
    pace()
    assert time.slept == slept


def test_waiting_ends_when_the_check_raises() -> None:
    time = Time()
    time.jobs_until = float("inf")
    time.stop_at = 101.5
    pace = time.pace(0.1)
    time.now += 1.0
    with pytest.raises(InterruptedError):
        pace()
    assert time.now < 101.7


def test_a_step_costs_its_device_time_when_that_is_known() -> None:
    time = Time()
    time.jobs_until = float("inf")
    pace = time.pace(0.1)
    time.now += 8.0  # of which it worked for half a second, and waited for jobs in the rest
    pace.after(0.5)
    assert time.slept == 0.0
    time.now += 1.0
    pace.after(0.5)
    assert time.slept == pytest.approx(4.0)
