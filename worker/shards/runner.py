"""Running one shard: its lines in, its answers written under a name of shard and attempt, the shard finished."""

from __future__ import annotations

import os
from functools import partial

import structlog
from sqlalchemy.orm import Session

from hmi.catalog import ClaimedShard, batches, shards
from hmi.errors import LeaseLost
from hmi.jobs import TaskName
from worker.job_runner import JobRunner
from worker.lifecycle import FailPoint, Lease, describe, fail_at, log_errors
from worker.paths import ShardPaths
from worker.runtime import Runtime
from worker.shards.answers import answer_shard
from worker.shards.finalize import finalize_if_last
from worker.shards.monitor import EngineStalled, ShardMonitor
from worker.shards.poison_lines import split_exhausted

_log = structlog.get_logger(__name__)

_EXIT_STALLED = 70  # EX_SOFTWARE


class ShardRunner(JobRunner[ClaimedShard]):
    kind = "shard"
    task = TaskName.RUN_SHARD
    claimed = FailPoint.AFTER_CLAIM

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        super().__init__(runtime, shards, in_flight=settings.shards_in_flight, max_failures=settings.max_shard_failures)

    def run(self, job_id: str, attempt: int) -> None:
        with self.runtime.database.session(read_only=True) as session:
            quarantined = shards.is_quarantined(session, job_id)
        # When a process dies, a failure of every shard that it held is counted, since the cause is unknown. So after
        # its first failure a shard runs alone in its process: the next death is its own, and no innocent line fails
        # for it. The lock is taken before the claim: a shard that waits must not hold a lease, or the death of the
        # process would be counted for it too.
        lock = self.runtime.device_lock
        with lock.exclusive() if quarantined else lock.shared():
            claim = self._attempt(job_id, attempt, partial(self._answer, alone=quarantined))
            if claim is not None:
                fail_at(FailPoint.BEFORE_ACK)
                self.dispatch()
                finalize_if_last(self.runtime, claim.batch_id)

    def _answer(self, claim: ClaimedShard, lease: Lease, *, alone: bool) -> None:
        runtime = self.runtime
        deadline, engine = runtime.settings.shard_deadline_seconds, runtime.engine
        monitor = ShardMonitor(lease, runtime.stopping, deadline, lambda: engine.stats().batches, alone=alone)
        result = answer_shard(runtime, claim, _paths(claim), monitor)
        fail_at(FailPoint.AFTER_WRITE)
        fail_at(FailPoint.BEFORE_FINISH)
        with runtime.database.session() as session:
            finished = shards.finish(session, claim.shard_id, claim.attempt, result)
        if not finished:
            raise LeaseLost("another worker has the shard, or its batch is gone")
        log = _log.bind(shard=claim.shard_id, attempt=claim.attempt, batch=claim.batch_id)
        log.info("shard_finished", completed=result.completed, failed=result.failed, tokens=result.input_tokens)

    def _end_stopped(self, session: Session) -> int:
        return batches.expire_batches(session)

    def _release(self, session: Session, claim: ClaimedShard, error: BaseException, *, count_failure: bool) -> None:
        shards.release(session, claim.shard_id, claim.attempt, reason=describe(error), count_failure=count_failure)

    def _after_release(self, claim: ClaimedShard, error: BaseException) -> None:
        with log_errors(_log, "shards_not_split"):  # `reconcile` does the same
            split_exhausted(self.runtime)
        if isinstance(error, EngineStalled):
            # The device hangs, and a thread cannot be killed. A supervisor starts this process again; the leases of
            # its other work expire.
            _log.critical("engine_stalled", shard=claim.shard_id, reason=error.message)
            os._exit(_EXIT_STALLED)

    def _discard(self, claim: ClaimedShard) -> None:
        paths = _paths(claim)
        # `reconcile` deletes the folder when the batch has ended.
        with log_errors(_log, "shard_files_not_deleted", path=paths.output):
            self.runtime.storage.delete(paths.output)
            self.runtime.storage.delete(paths.error)


def _paths(claim: ClaimedShard) -> ShardPaths:
    return ShardPaths.of(claim.batch_id, claim.shard_id, claim.attempt)
