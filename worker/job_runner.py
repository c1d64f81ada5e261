"""Queued jobs from their message to their end, written once for every kind: shards of batches and trainings.

A message carries a job's id and its attempt. A runner claims the job, holds its lease, does the work, and finishes or
releases the job, so that the job's row in the catalog is true whatever happens in between. Each kind has a subclass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import structlog
from sqlalchemy.orm import Session

from hmi.catalog import JobMessage
from hmi.errors import Cancelled, HmiError, LeaseLost, StorageFull, Transient
from hmi.jobs import TaskName, send
from worker.lifecycle import FailPoint, Lease, TuningPoint, describe, fail_at, log_errors
from worker.runtime import Runtime

_log = structlog.get_logger(__name__)

# Errors that do not count as failures of the job. All others do, and so does the death of the process.
NOT_THE_JOBS_FAULT = (Transient, StorageFull, Cancelled)


class Claim(Protocol):
    """What a claimed job of every kind has."""

    @property
    def failures(self) -> int: ...


ClaimT = TypeVar("ClaimT", bound=Claim)
ClaimT_co = TypeVar("ClaimT_co", bound=Claim, covariant=True)


class Queue(Protocol[ClaimT_co]):
    """One kind of jobs in the catalog: `hmi.catalog.shards` or `hmi.catalog.trainings`."""

    def dispatch(self, session: Session, /, *, in_flight: int) -> list[JobMessage]: ...

    def claim(
        self, session: Session, job_id: str, attempt: int, /, *, owner: str, lease_seconds: float
    ) -> ClaimT_co | None: ...

    def extend(self, session: Session, claims: Collection[JobMessage], lease_seconds: float, /) -> set[str]: ...
    def expire_leases(self, session: Session, /) -> int: ...
    def requeue_lost(self, session: Session, timeout_seconds: float, /) -> int: ...


class JobRunner(ABC, Generic[ClaimT]):
    """Runs one kind of jobs; it holds no state of its own."""

    kind: ClassVar[str]  # in log lines
    task: ClassVar[TaskName]
    claimed: ClassVar[FailPoint | TuningPoint]
    final_errors: ClassVar[tuple[type[HmiError], ...]] = ()  # another attempt would fail in the same way

    def __init__(self, runtime: Runtime, queue: Queue[ClaimT], *, in_flight: int, max_failures: int) -> None:
        self.runtime = runtime
        self._queue = queue
        self._in_flight = in_flight
        self._max_failures = max_failures

    @abstractmethod
    def run(self, job_id: str, attempt: int) -> None:
        """Run the job if this attempt is the current one; a duplicate or stale message does nothing."""

    def dispatch(self) -> int:
        """Queue as many pending jobs as may be in flight, in fair order, and return how many messages were sent.

        A message that the broker does not take is lost: its job is pending again after `queued_timeout_seconds`.
        """
        with self.runtime.database.session() as session:
            messages = self._queue.dispatch(session, in_flight=self._in_flight)
        for sent, message in enumerate(messages):
            try:
                send(self.runtime.client, self.task, message.job_id, message.attempt)
            except Transient as error:
                _log.warning("broker_unavailable", kind=self.kind, unsent=len(messages) - sent, reason=error.message)
                return sent
        return len(messages)

    def recover(self) -> None:
        """Make jobs pending again whose worker or message was lost, and end those that cannot run any more."""
        with self.runtime.database.session() as session:
            expired = self._queue.expire_leases(session)
            lost = self._queue.requeue_lost(session, self.runtime.settings.queued_timeout_seconds)
            ended = self._end_stopped(session)
        if expired or lost or ended:
            _log.warning("jobs_recovered", kind=self.kind, leases_expired=expired, messages_lost=lost, ended=ended)

    @abstractmethod
    def _end_stopped(self, session: Session) -> int:
        """End the jobs that cannot run any more, such as expired or exhausted ones, and return their number."""

    @abstractmethod
    def _release(self, session: Session, claim: ClaimT, error: BaseException, *, count_failure: bool) -> None: ...

    def _fail(self, session: Session, claim: ClaimT, error: HmiError) -> None:
        """End the job after one of `final_errors`."""

    def _discard(self, claim: ClaimT) -> None:
        """Delete what an attempt wrote that lost its lease."""

    def _after_release(self, claim: ClaimT, error: BaseException) -> None:
        """Do what follows a release, after its commit."""

    def _attempt(self, job_id: str, attempt: int, work: Callable[[ClaimT, Lease], None]) -> ClaimT | None:
        """Claim the job, call `work`, which finishes it, and return the claim if it did.

        `work` raises `LeaseLost` if the job is another attempt's by now.
        """
        log = _log.bind(kind=self.kind, job=job_id, attempt=attempt)
        lease_seconds = self.runtime.settings.lease_seconds
        with self.runtime.database.session() as session:
            claim = self._queue.claim(session, job_id, attempt, owner=self.runtime.owner, lease_seconds=lease_seconds)
        if claim is None:
            log.info("job_skipped")
            return None
        fail_at(self.claimed)
        if claim.failures >= self._max_failures:
            # It was dispatched before `recover` found it; running it would only cost another process.
            self._put_back(claim, HmiError("failed too often to run again"), log, count_failure=False)
            return None

        def extend(session: Session, lease_seconds: float) -> bool:
            return bool(self._queue.extend(session, [JobMessage(job_id, attempt)], lease_seconds))

        with self.runtime.leases.hold(f"{self.kind} {job_id}", extend) as lease:
            return claim if self._run_leased(claim, lease, work, log) else None

    def _run_leased(self, claim: ClaimT, lease: Lease, work: Callable[[ClaimT, Lease], None], log: Any) -> bool:
        try:
            work(claim, lease)
            return True
        except LeaseLost as error:
            log.warning("job_lost", reason=error.message)
            self._discard(claim)
        except NOT_THE_JOBS_FAULT as error:
            self._put_back(claim, error, log, count_failure=False)
        except self.final_errors as error:
            log.warning("job_failed", reason=error.code)
            with log_errors(log, "job_left_to_its_lease"), self.runtime.database.session() as session:
                self._fail(session, claim, error)
        except BaseException as error:  # noqa: BLE001
            # SystemExit and MemoryError too: uncaught, they would cost the pool this thread for good.
            self._put_back(claim, error, log, count_failure=True)
        return False

    def _put_back(self, claim: ClaimT, error: BaseException, log: Any, *, count_failure: bool) -> None:
        """Release the job. If the catalog does not answer, its lease expires, and `recover` releases it."""
        log.warning("job_released", reason=describe(error), count_failure=count_failure)
        with log_errors(log, "job_left_to_its_lease"), self.runtime.database.session() as session:
            self._release(session, claim, error, count_failure=count_failure)
        self._after_release(claim, error)
