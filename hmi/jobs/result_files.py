"""Joins the files of a batch's shards into its output and error file, in the order of the input's lines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Protocol

from hmi.catalog import LineRange, Shard
from hmi.errors import Corrupt
from hmi.jobs.answers import NotRun, not_run_line
from hmi.schemas import Limits, parse_line, read_lines
from hmi.storage import Storage

_CHUNK = 1024**2


class _Target(Protocol):
    def write(self, data: bytes, /) -> int: ...


@dataclass(frozen=True, slots=True)
class AssembledFile:
    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Assembled:
    output: AssembledFile | None  # None without lines
    error: AssembledFile | None
    not_run: int  # lines


def assemble(
    storage: Storage,
    *,
    batch_id: str,
    input_path: str,
    total_lines: int,
    shards: Sequence[Shard],
    not_run: NotRun | None,
    output_path: str,
    error_path: str,
) -> Assembled:
    """Join the finished shards, in line order. A repetition writes the same bytes to the same places.

    Each line that the shards lack gets an error line with the reason `not_run`; None where the batch ran to its end.
    Raises `Corrupt` where lines are missing without a reason or shards overlap, `NotFound` where a shard's file is
    lost, `StorageFull`.
    """
    gaps = list(_gaps(storage, input_path, total_lines, shards))
    missing = sum(gap.lines for gap in gaps)
    if gaps and not_run is None:
        raise Corrupt(f"batch {batch_id}: {missing} lines have no result, from line {gaps[0].first_line + 1}")

    def write_outputs(target: _Target) -> None:
        for shard in shards:
            _copy(storage, shard.output_path, target)

    def write_errors(target: _Target) -> None:
        parts: list[Shard | LineRange] = sorted([*shards, *gaps], key=lambda part: part.first_line)
        for part in parts:
            if isinstance(part, Shard):
                _copy(storage, part.error_path, target)
            elif not_run is not None:
                _write_not_run(storage, input_path, batch_id, part, not_run, target)

    has_output = any(shard.output_path for shard in shards)
    has_errors = bool(gaps) or any(shard.error_path for shard in shards)
    return Assembled(
        output=_write(storage, output_path, write_outputs) if has_output else None,
        error=_write(storage, error_path, write_errors) if has_errors else None,
        not_run=missing,
    )


def _gaps(storage: Storage, input_path: str, total_lines: int, shards: Sequence[Shard]) -> Iterator[LineRange]:
    """The lines that no shard covers. Shards are cut without gaps, so neighbours bound the missing ones."""
    line = offset = 0
    for shard in shards:
        if shard.first_line < line:
            raise Corrupt(f"two shards hold line {shard.first_line + 1}")
        if shard.first_line > line:
            yield LineRange(line, shard.first_line - line, offset, shard.offset - offset)
        line, offset = shard.first_line + shard.lines, shard.offset + shard.length
    if line > total_lines:
        raise Corrupt(f"shards reach line {line} of {total_lines}")
    if line < total_lines:
        yield LineRange(line, total_lines - line, offset, storage.size(input_path) - offset)


def _write_not_run(
    storage: Storage, input_path: str, batch_id: str, gap: LineRange, reason: NotRun, target: _Target
) -> None:
    limits = Limits(max_line_bytes=gap.length)  # the lines were checked when the batch was created
    written = 0
    with storage.open(input_path, gap.offset) as source:
        for raw in read_lines(source, gap.length):
            if written == gap.lines:
                break  # blank lines at the end of the file
            line = parse_line(raw, limits)
            target.write(not_run_line(batch_id, gap.first_line + written, line.custom_id, reason))
            written += 1
    if written != gap.lines:
        raise Corrupt(f"batch {batch_id}: its input file has {written} lines where {gap.lines} were accepted")


def _copy(storage: Storage, path: str | None, target: _Target) -> None:
    if path is None:
        return
    with storage.open(path) as source:
        while chunk := source.read(_CHUNK):
            target.write(chunk)


class _Measured:
    """A file being written, with its size and SHA-256."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes, /) -> int:
        self.digest.update(data)
        self.bytes += len(data)
        return self._file.write(data)


def _write(storage: Storage, path: str, fill: Callable[[_Target], None]) -> AssembledFile | None:
    with storage.create(path) as file:
        measured = _Measured(file)
        fill(measured)
    if not measured.bytes:
        storage.delete(path)
        return None
    return AssembledFile(path, measured.bytes, measured.digest.hexdigest())
