"""A table's manifest, `table.json`: what the files hold, with their checksums and its own.

It holds no time and no version number, so equal tables are equal files and are stored once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmi.errors import Corrupt
from hmi.knowledge.store.rows import entry_bytes
from hmi.spec import RowDtype

MANIFEST_FILE = "table.json"
KEYS_FILE = "keys.npy"
ROWS_FILE = "rows.npy"
SCALES_FILE = "scales.npy"
ALIASES_FILE = "aliases.npy"
KEY_FILES = (MANIFEST_FILE, KEYS_FILE, ALIASES_FILE)
"""Files that say what a table holds: a hundredth of its bytes. The last exists only where there are aliases."""

_FORMAT = 2


@dataclass(frozen=True, slots=True)
class TableMeta:
    domain: str
    function: str  # digest; rows of another function do not replace these
    row_dtype: RowDtype
    hidden_size: int
    entries: int  # number of n-grams with a row
    aliases: int = 0  # number of n-grams without a row, for which the ancestors' row is close enough
    alias_function: str | None = None  # digest of the function above that the aliases refer to, if any

    def __post_init__(self) -> None:
        if self.hidden_size < 1 or self.entries < 0 or self.aliases < 0:
            raise ValueError(f"{self.entries} entries of {self.hidden_size} values and {self.aliases} aliases")
        if self.aliases and self.alias_function is None:
            raise ValueError(f"{self.aliases} aliases that refer to no function")

    @property
    def entry_bytes(self) -> int:
        return entry_bytes(self.row_dtype, self.hidden_size)


@dataclass(frozen=True, slots=True)
class FileCheck:
    """Size and SHA-256 (hex) of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A table's meta data and the check of each file by name."""

    meta: TableMeta
    files: Mapping[str, FileCheck]

    def to_json(self) -> bytes:
        body: dict[str, Any] = {"format": _FORMAT, **dataclasses.asdict(self.meta)}
        body["files"] = {name: dataclasses.asdict(check) for name, check in self.files.items()}
        return json.dumps(body | {"checksum": _checksum(body)}, indent=1, sort_keys=True).encode()

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises `Corrupt` if `table.json` is missing, altered, or of another format."""
        path = folder / MANIFEST_FILE
        try:
            body = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise Corrupt(f"{path} is missing") from None
        except ValueError as error:
            raise Corrupt(f"{path} is not JSON: {error}") from error
        if not isinstance(body, dict) or body.pop("checksum", None) != _checksum(body):
            raise Corrupt(f"{path} was altered: it does not match its own checksum")
        if body.get("format") != _FORMAT:
            raise Corrupt(f"{path} is of format {body.get('format')!r}; this version reads format {_FORMAT}")
        try:
            return cls._from_body(body)
        except (ValueError, TypeError, KeyError) as error:
            raise Corrupt(f"{path} does not describe a table: {error!r}") from error

    @classmethod
    def _from_body(cls, body: Mapping[str, Any]) -> Manifest:
        row_dtype = RowDtype(body["row_dtype"])
        meta = TableMeta(
            domain=str(body["domain"]),
            function=str(body["function"]),
            row_dtype=row_dtype,
            hidden_size=int(body["hidden_size"]),
            entries=int(body["entries"]),
            aliases=int(body["aliases"]),
            alias_function=None if body["alias_function"] is None else str(body["alias_function"]),
        )
        files = {str(name): FileCheck(int(f["bytes"]), str(f["sha256"])) for name, f in body["files"].items()}
        expected = {KEYS_FILE, ROWS_FILE}
        expected |= {SCALES_FILE} if row_dtype is RowDtype.INT8 else set()
        expected |= {ALIASES_FILE} if meta.aliases else set()
        if set(files) != expected:
            raise ValueError(f"files {sorted(files)} instead of {sorted(expected)}")
        return cls(meta, files)


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
