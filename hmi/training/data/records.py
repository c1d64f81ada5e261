"""A training file as records with named fields: JSON lines, or CSV with a header. One record is held at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, Any

from hmi.errors import InvalidInput
from hmi.jsonlines import parse_object, read_bounded

_BOM = b"\xef\xbb\xbf"


class FileFormat(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"

    @classmethod
    def of(cls, name: str) -> FileFormat:
        """CSV if the file's name ends with `.csv`, else JSON lines."""
        return cls.CSV if name.lower().endswith(".csv") else cls.JSONL


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with line `line` (from 1) of a file, or with the whole file if it is None."""

    line: int | None
    reason: str
    code: str

    def error(self, name: str = "") -> InvalidInput:
        """An error that names the file and the line."""
        where = [name, "" if self.line is None else f"line {self.line}"]
        return InvalidInput(": ".join([" ".join(filter(None, where)), self.reason]).removeprefix(": "), code=self.code)


@dataclass(frozen=True, slots=True)
class Record:
    """Fields by name. `line` is where the record begins."""

    line: int
    fields: Mapping[str, Any]


def read_records(stream: IO[bytes], form: FileFormat, max_bytes: int) -> Iterator[Record | Problem]:
    """Yield records and problems in order; blank lines are skipped.

    Reading JSON lines continues after a problem; CSV that cannot be parsed ends there, since the rest may be shifted.
    `max_bytes` is the limit of a line, and of a CSV record, whose fields may span lines.
    """
    return _json_records(stream, max_bytes) if form is FileFormat.JSONL else _csv_records(stream, max_bytes)


def _json_records(stream: IO[bytes], max_bytes: int) -> Iterator[Record | Problem]:
    for number, (raw, skipped) in enumerate(read_bounded(stream, max_bytes), start=1):
        try:
            content = _whole(raw, skipped, number, max_bytes).strip()
            if content:
                yield Record(number, parse_object(content, unique=True))
        except InvalidInput as error:
            yield Problem(number, error.message, error.code)


def _csv_records(stream: IO[bytes], max_bytes: int) -> Iterator[Record | Problem]:
    # `_CsvLines` bounds a record, and so its fields; the module's own limit, one for the whole process, is lower.
    csv.field_size_limit(max(csv.field_size_limit(), max_bytes))
    lines = _CsvLines(stream, max_bytes)
    reader = csv.reader(lines, strict=True)
    heading: list[str] | None = None
    try:
        for row in reader:
            first = lines.begin()
            if not row:
                continue
            if heading is None:
                heading = [name.strip() for name in row]
                if len(set(heading)) < len(heading):
                    raise InvalidInput("the heading has a column twice", code="invalid_csv")
            elif len(row) == len(heading):
                yield Record(first, dict(zip(heading, row, strict=True)))
            else:
                message = f"the record has {len(row)} fields, the heading {len(heading)}"
                yield Problem(first, message, "invalid_csv")
    except csv.Error as error:
        yield Problem(lines.first, f"not CSV: {error}", "invalid_csv")
    except InvalidInput as error:
        yield Problem(lines.number, error.message, error.code)


class _CsvLines(Iterator[str]):
    """Decoded lines, with the place where the current record began."""

    def __init__(self, stream: IO[bytes], max_bytes: int) -> None:
        self._lines = read_bounded(stream, max_bytes)
        self._max_bytes = max_bytes
        self._record_bytes = 0
        self.number = 0
        self.first = 1

    def __next__(self) -> str:
        raw, skipped = next(self._lines)
        self.number += 1
        content = _whole(raw, skipped, self.number, self._max_bytes)
        self._record_bytes += len(raw)
        if self._record_bytes > self._max_bytes + 2:
            message = f"the record that begins on line {self.first} is longer than {self._max_bytes} bytes; "
            raise InvalidInput(f"{message}is a quote not closed?", code="line_too_long")
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(f"not UTF-8 at byte {error.start}", code="invalid_csv") from None

    def begin(self) -> int:
        """The line where the record that was just read began; the next record begins after it."""
        first, self.first = self.first, self.number + 1
        self._record_bytes = 0
        return first


def _whole(raw: bytes, skipped: int, number: int, max_bytes: int) -> bytes:
    """The line without a byte order mark. Raises `InvalidInput` if it is too long."""
    length = len(raw.rstrip(b"\r\n")) + skipped
    if length > max_bytes:
        message = f"the line is {length} bytes long; at most {max_bytes} are allowed"
        raise InvalidInput(message, code="line_too_long")
    return raw.removeprefix(_BOM) if number == 1 else raw
