"""Tables of rows: immutable folders of memory-mapped arrays with a manifest and checksums.

Start with `table`: `Table.open` maps a folder that `write_table` (`writer`) wrote; `manifest` describes its files,
`npy` maps them, `search` finds keys. `rows` encodes rows as int8 or float16. `row_refs` finds the first of several
tables that holds each key. `stored_rows` collects the rows of one batch, still encoded.
"""

from __future__ import annotations

from hmi.knowledge.store.manifest import (
    KEY_FILES,
    KEYS_FILE,
    MANIFEST_FILE,
    ROWS_FILE,
    SCALES_FILE,
    FileCheck,
    Manifest,
    TableMeta,
)
from hmi.knowledge.store.npy import allow_maps
from hmi.knowledge.store.row_refs import RowRefs, RowSource, find_first, gather_rows
from hmi.knowledge.store.rows import CHUNK_ROWS, EncodedRows, code_dtype, decode, encode, entry_bytes, round_trip
from hmi.knowledge.store.search import KeySearch
from hmi.knowledge.store.stored_rows import NO_ROW, StoredRows
from hmi.knowledge.store.table import Table
from hmi.knowledge.store.writer import write_table

__all__ = [
    "CHUNK_ROWS",
    "KEYS_FILE",
    "KEY_FILES",
    "MANIFEST_FILE",
    "NO_ROW",
    "ROWS_FILE",
    "SCALES_FILE",
    "EncodedRows",
    "FileCheck",
    "KeySearch",
    "Manifest",
    "RowRefs",
    "RowSource",
    "StoredRows",
    "Table",
    "TableMeta",
    "allow_maps",
    "code_dtype",
    "decode",
    "encode",
    "entry_bytes",
    "find_first",
    "gather_rows",
    "round_trip",
    "write_table",
]
