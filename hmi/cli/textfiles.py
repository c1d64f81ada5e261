"""Text that a person hands over in files: plain lines, and labelled examples as JSON lines or CSV."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from hmi.errors import InvalidInput

__all__ = ["read_labelled", "read_lines"]


def read_lines(path: Path) -> list[str]:
    """The lines that are not blank. Raises `InvalidInput`."""
    return [line for line in _text_of(path).splitlines() if line.strip()]


def read_labelled(path: Path, *, text_field: str, label_field: str) -> list[tuple[str, str]]:
    """(text, label) of each record: of a CSV file with a heading where the name ends in .csv, else of JSON
    lines. Raises `InvalidInput` naming the line.
    """
    content = _text_of(path)
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader(io.StringIO(content, newline=""))
        records = [(reader.line_num, record) for record in reader]
    else:
        records = [
            (number, _json_record(path, number, line))
            for number, line in enumerate(content.splitlines(), start=1)
            if line.strip()
        ]
    return [
        (_field(path, number, record, text_field), _field(path, number, record, label_field))
        for number, record in records
    ]


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error


def _json_record(path: Path, number: int, line: str) -> dict[str, object]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InvalidInput(f"{path} line {number}: not JSON ({error})") from error
    if not isinstance(record, dict):
        raise InvalidInput(f"{path} line {number}: not a JSON object")
    return record


def _field(path: Path, number: int, record: dict[str, object], name: str) -> str:
    value = record.get(name)
    # A label may be a number or a truth value; text is text.
    if value is None or isinstance(value, list | dict | float):
        raise InvalidInput(f"{path} line {number}: {name!r} is missing or no text")
    return str(value)
