"""Finding a poison line, which kills its workers: a shard that keeps failing is halved until that line is alone."""

from __future__ import annotations

import structlog

from hmi.catalog import Batch, LineRange, Shard, ShardResult, shards
from hmi.errors import Corrupt, HmiError
from hmi.jobs import error_line, http_status
from hmi.schemas import Limits, parse_line, read_lines
from worker.lifecycle import log_errors
from worker.paths import ShardPaths
from worker.runtime import Runtime
from worker.shards.finalize import finalize_if_last

_log = structlog.get_logger(__name__)


def split_exhausted(runtime: Runtime) -> int:
    """Halve every pending shard that failed too often; a single line gets its error line instead.

    Returns the number of such shards. One with an unreadable input file does not hold up the others.
    """
    with runtime.database.session(read_only=True) as session:
        found = shards.exhausted(session, runtime.settings.max_shard_failures)
        paths = {shard.id: session.get_one(Batch, shard.batch_id).input_path for shard in found}
    for shard in found:
        with log_errors(_log, "shard_not_split", HmiError, OSError, shard=shard.id):
            end = _halve if shard.lines > 1 else _fail
            end(runtime, shard, paths[shard.id])
    return len(found)


def _halve(runtime: Runtime, shard: Shard, input_path: str) -> None:
    first = shard.lines // 2
    cost = max(1, shard.cost * first // shard.lines)
    with runtime.storage.open(input_path, shard.offset) as source:
        length = sum(len(source.readline()) for _ in range(first))
    parts = (
        LineRange(shard.first_line, first, shard.offset, length, cost),
        LineRange(
            shard.first_line + first,
            shard.lines - first,
            shard.offset + length,
            shard.length - length,
            max(1, shard.cost - cost),
        ),
    )
    with runtime.database.session() as session:
        if shards.split(session, shard.id, parts):
            _log.warning("shard_split", shard=shard.id, lines=shard.lines, reason=shard.last_failure)


def _fail(runtime: Runtime, shard: Shard, input_path: str) -> None:
    with runtime.storage.open(input_path, shard.offset) as source:
        raw = next(read_lines(source, shard.length), None)
    if raw is None:
        raise Corrupt(f"{input_path} ends before line {shard.first_line + 1}")
    line = parse_line(raw, Limits(max_line_bytes=shard.length))
    # The exact reason is for the operator's log: it names processes and files of ours.
    error = HmiError(f"running this line failed {shard.failures} times, alone; it was given up", code="poison_line")
    path = ShardPaths.of(shard.batch_id, shard.id, shard.attempt).error
    with runtime.storage.create(path) as file:
        file.write(error_line(shard.batch_id, shard.first_line, line.custom_id, http_status(error), error))
    result = ShardResult(output_path=None, error_path=path, completed=0, failed=1, input_tokens=0, output_tokens=0)
    with runtime.database.session() as session:
        failed = shards.fail_line(session, shard.id, result)
    if failed:
        _log.error("poison_line", batch=shard.batch_id, line=shard.first_line, reason=shard.last_failure)
        finalize_if_last(runtime, shard.batch_id)
