"""TODO"""

from __future__ import annotations

from hmi.knowledge.store.manifest import (
    ALIASES_FILE,
    KEYS_FILE,
    MANIFEST_FILE,
    ROWS_FILE,
    SCALES_FILE,
    FileCheck,
    Manifest,
)
from hmi.knowledge.store.npy import allow_maps, map_array
from hmi.knowledge.store.rows import CHUNK_ROWS, EncodedRows, code_dtype, decode, encode, entry_bytes, round_trip
from hmi.knowledge.store.search import KeySearch
from hmi.knowledge.store.stored_rows import NO_ROW, StoredRows
from hmi.knowledge.store.table import RowRefs, Table, TableMeta, find_first, write_table, write_table_blocks

__all__ = [
    "ALIASES_FILE",
    "CHUNK_ROWS",
    "KEYS_FILE",
    "MANIFEST_FILE",
    "NO_ROW",
    "ROWS_FILE",
    "SCALES_FILE",
    "EncodedRows",
    "FileCheck",
    "KeySearch",
    "Manifest",
    "RowRefs",
    "StoredRows",
    "Table",
    "TableMeta",
    "allow_maps",
    "code_dtype",
    "decode",
    "encode",
    "entry_bytes",
    "find_first",
    "map_array",
    "round_trip",
    "write_table",
    "write_table_blocks",
]
