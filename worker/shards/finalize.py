"""The end of a batch: its shards' files become its output and error file, once."""

from __future__ import annotations

import structlog

from hmi.catalog import Batch, NewFile, finalizing, new_id, shards
from hmi.errors import HmiError
from hmi.jobs import AssembledFile, NotRun, assemble
from worker.lifecycle import FailPoint, describe, fail_at
from worker.paths import keep_results, result_folder, shard_folder
from worker.runtime import Runtime

_log = structlog.get_logger(__name__)

# After so many leases an assembling process counts as dead. Two that assemble the same batch write the same bytes to
# different places, and one of them is published.
_LEASES = 2


def finalize_if_last(runtime: Runtime, batch_id: str) -> bool:
    """Assemble and publish the batch's result if no shard of it is open and no other process assembles it.

    Errors are logged, and left to a later `reconcile`.
    """
    try:
        return _finalize(runtime, batch_id)
    except HmiError as error:
        _log.error("batch_not_finalized", batch=batch_id, reason=describe(error))
        return False


def _finalize(runtime: Runtime, batch_id: str) -> bool:
    with runtime.database.session() as session:
        lease_seconds = _LEASES * runtime.settings.lease_seconds
        batch = finalizing.begin_finalizing(session, batch_id, lease_seconds=lease_seconds)
        if batch is None:
            return False
        finished = shards.finished_shards(session, batch_id)
        dropped = shards.dropped_shards(session, batch_id)
    reason = NotRun.CANCELLED if batch.cancelling_at is not None else NotRun.EXPIRED
    # In the folder that is deleted when the batch ends: a crash leaves no file behind.
    folder = shard_folder(batch.id)
    assembled = assemble(
        runtime.storage,
        batch_id=batch.id,
        input_path=batch.input_path,
        total_lines=batch.total_lines,
        shards=finished,
        not_run=reason if dropped else None,
        output_path=f"{folder}/{new_id('file-')}",
        error_path=f"{folder}/{new_id('file-')}",
    )
    fail_at(FailPoint.BEFORE_COMPLETE)
    output = _publish(runtime, batch, assembled.output, "output")
    error = _publish(runtime, batch, assembled.error, "error")
    published = [file.path for file in (output, error) if file is not None]
    with runtime.database.session() as session:
        completed = finalizing.complete(session, batch_id, output=output, error=error)
    if not completed:
        for path in published:
            runtime.storage.delete(path)
        return False
    _log.info("batch_ended", batch=batch_id, shards=len(finished), dropped=len(dropped))
    keep_results(runtime.storage, batch_id, published, folder)
    return True


def _publish(runtime: Runtime, batch: Batch, file: AssembledFile | None, name: str) -> NewFile | None:
    """Move an assembled file to its final path."""
    if file is None:
        return None
    file_id = file.path.rpartition("/")[2]
    path = f"{result_folder(batch.id)}/{file_id}"
    runtime.storage.move(file.path, path)
    return NewFile(
        file_id=file_id,
        purpose="batch_output",
        filename=f"{batch.id}_{name}.jsonl",
        bytes=file.bytes,
        sha256=file.sha256,
        path=path,
    )
