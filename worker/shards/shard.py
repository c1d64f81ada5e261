"""Running one shard: its lines in, its answers written under a name of shard and attempt, the shard finished.

Whatever happens in between, the shard's row says what is true: it is finished behind the fence, given
back, or left to its lease.
"""

from __future__ import annotations

import os

import structlog

from hmi.catalog import ClaimedShard, JobMessage, ShardResult, shards
from hmi.errors import Cancelled, LeaseLost, StorageFull, Transient
from worker.lifecycle import FailPoint, Lease, describe, fail_at
from worker.runtime import Runtime
from worker.shards.dispatching import dispatch
from worker.shards.finalize import finalize_if_last
from worker.shards.places import ShardPaths
from worker.shards.poison_lines import isolate_exhausted
from worker.shards.runner import answer_shard
from worker.shards.watch import Watch, is_deadline

__all__ = ["run_shard"]

_log = structlog.get_logger(__name__)

# What a shard is not to blame for. Everything else counts against it, a process that died included.
_INNOCENT = (Transient, StorageFull, Cancelled)

_EXIT_STALLED = 70  # EX_SOFTWARE


def run_shard(runtime: Runtime, shard_id: str, attempt: int) -> None:
    """Run the shard if this attempt is still the current one; a repeated or overtaken message does nothing."""
    with runtime.database.session(read_only=True) as session:
        suspect = shards.is_quarantined(session, shard_id)
    # When a process dies, every shard that it held is blamed, for nobody can tell which of them did it. So from its
    # first blame on a shard runs alone in its process: the next death is its own, and no innocent line is given up
    # for it. Before the claim: who waits must not hold a lease, or it would be blamed for the other.
    with runtime.device_lock.exclusive() if suspect else runtime.device_lock.shared():
        _run(runtime, shard_id, attempt, alone=suspect)


def _run(runtime: Runtime, shard_id: str, attempt: int, *, alone: bool) -> None:
    with runtime.database.session() as session:
        claim = shards.claim(
            session, shard_id, attempt, owner=runtime.owner, lease_seconds=runtime.settings.lease_seconds
        )
    if claim is None:
        _log.info("shard_dropped", shard=shard_id, attempt=attempt)
        return
    fail_at(FailPoint.AFTER_CLAIM)
    if claim.failures >= runtime.settings.max_shard_failures:
        # It was dispatched before anybody halved it; running it whole would only cost another worker.
        _give_back(runtime, claim, "failed too often to be run whole", blame=False)
        return
    with runtime.leases.shard(JobMessage(shard_id, attempt)) as lease:
        finished = _run_claimed(runtime, claim, lease, alone=alone)
    if finished:
        fail_at(FailPoint.BEFORE_ACK)
        dispatch(runtime)
        finalize_if_last(runtime, claim.batch_id)


def _run_claimed(runtime: Runtime, claim: ClaimedShard, lease: Lease, *, alone: bool) -> bool:
    """Whether the shard is finished, by this attempt."""
    paths = ShardPaths.of_claim(claim)
    deadline, engine = runtime.settings.shard_deadline_seconds, runtime.engine
    watch = Watch(lease, runtime.stopping, deadline, lambda: engine.stats().batches, alone=alone)
    try:
        result = answer_shard(runtime, claim, paths, watch)
        fail_at(FailPoint.AFTER_WRITE)
        return _finish(runtime, claim, result)
    except LeaseLost as error:
        _log.warning("shard_lost", shard=claim.shard_id, attempt=claim.attempt, reason=error.message)
        _discard(runtime, paths)
    except _INNOCENT as error:
        _give_back(runtime, claim, describe(error), blame=False)
    except BaseException as error:  # noqa: BLE001
        # SystemExit and MemoryError too: let through, they would cost the pool this thread for ever.
        _give_back(runtime, claim, describe(error), blame=True)
        if is_deadline(error) and watch.sees_nothing_run:
            # Nothing ran in all that time: the device hangs, and a thread cannot be killed. A supervisor
            # starts this process again; what it holds besides comes back by its leases.
            _log.critical("engine_stalled", shard=claim.shard_id, seconds=watch.waited_seconds)
            os._exit(_EXIT_STALLED)
    return False


def _finish(runtime: Runtime, claim: ClaimedShard, result: ShardResult) -> bool:
    fail_at(FailPoint.BEFORE_FINISH)
    with runtime.database.session() as session:
        finished = shards.finish(session, claim.shard_id, claim.attempt, result)
    if not finished:
        raise LeaseLost("another worker has the shard, or its batch is gone")
    _log.info(
        "shard_finished",
        shard=claim.shard_id,
        attempt=claim.attempt,
        batch=claim.batch_id,
        completed=result.completed,
        failed=result.failed,
        tokens=result.input_tokens,
    )
    return True


def _give_back(runtime: Runtime, claim: ClaimedShard, reason: str, *, blame: bool) -> None:
    _log.warning("shard_given_back", shard=claim.shard_id, attempt=claim.attempt, reason=reason, blame=blame)
    try:
        with runtime.database.session() as session:
            shards.release(session, claim.shard_id, claim.attempt, reason=reason, count_failure=blame)
        isolate_exhausted(runtime)
    except Exception as error:  # noqa: BLE001 - the lease runs out, and `reconcile` does the same
        _log.error("shard_left_to_its_lease", shard=claim.shard_id, reason=describe(error))


def _discard(runtime: Runtime, paths: ShardPaths) -> None:
    """Files of an attempt that lost are nobody's."""
    try:
        runtime.storage.delete(paths.output)
        runtime.storage.delete(paths.error)
    except Exception as error:  # noqa: BLE001 - `reconcile` sweeps the folder when the batch has ended
        _log.warning("shard_files_left", path=paths.output, reason=describe(error))
