"""The end of a batch: its shards' files become its output and error file, once."""

from __future__ import annotations

import contextlib

import structlog

from hmi.catalog import Batch, NewFile, Shard, finalizing, new_id, shards
from hmi.errors import HmiError, Transient
from hmi.jobs import AssembledFile, NotRun, assemble
from worker.lifecycle import FailPoint, describe, fail_at
from worker.runtime import Runtime
from worker.shards.places import result_folder, shard_folder

__all__ = ["finalize_if_last"]

_log = structlog.get_logger(__name__)

# How long the assembling of one batch is left alone before it is taken for dead. Two that assemble the
# same batch write the same bytes to different places, and one of them is published.
_LEASES = 2


def finalize_if_last(runtime: Runtime, batch_id: str) -> bool:
    """Assemble and publish the batch's result if nothing of it is left to run and nobody is at it.

    What goes wrong is logged, and left to a later `reconcile`.
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
    ids = new_id("file-"), new_id("file-")
    files = _assemble(runtime, batch, finished, _reason(batch, dropped), ids)
    fail_at(FailPoint.BEFORE_COMPLETE)
    output, error = (
        _publish(runtime, batch, file, name) for file, name in zip(files, ("output", "error"), strict=True)
    )
    with runtime.database.session() as session:
        completed = finalizing.complete(session, batch_id, output=output, error=error)
    if not completed:
        for file in (output, error):
            if file is not None:
                runtime.storage.delete(file.path)
        return False
    _log.info("batch_ended", batch=batch_id, shards=len(finished), dropped=len(dropped))
    _clean(runtime, batch_id, {file.path for file in (output, error) if file is not None})
    return True


def _reason(batch: Batch, dropped: list[Shard]) -> NotRun | None:
    if not dropped:
        return None
    return NotRun.CANCELLED if batch.cancelling_at is not None else NotRun.EXPIRED


def _assemble(
    runtime: Runtime, batch: Batch, finished: list[Shard], reason: NotRun | None, ids: tuple[str, str]
) -> tuple[AssembledFile | None, AssembledFile | None]:
    assembled = assemble(
        runtime.storage,
        batch_id=batch.id,
        input_path=batch.input_path,
        total_lines=batch.total_lines,
        shards=finished,
        not_run=reason,
        # In the folder that goes when the batch ends: a crash leaves nothing that nobody owns.
        output_path=f"{shard_folder(batch.id)}/{ids[0]}",
        error_path=f"{shard_folder(batch.id)}/{ids[1]}",
    )
    return assembled.output, assembled.error


def _publish(runtime: Runtime, batch: Batch, file: AssembledFile | None, name: str) -> NewFile | None:
    """Move a whole file to where it stays."""
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


def _clean(runtime: Runtime, batch_id: str, published: set[str]) -> None:
    """Remove the shards' files, and what an earlier try may have left beside the results."""
    folder = result_folder(batch_id)
    with contextlib.suppress(OSError, Transient):  # the sweep of `reconcile` comes by again
        for path in {f"{folder}/{name}" for name in runtime.storage.names(folder)} - published:
            runtime.storage.delete(path)
        runtime.storage.delete(shard_folder(batch_id))
