"""Writing a table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.ngrams import NO_KEYS, Keys
from hmi.knowledge.store.manifest import (
    ALIASES_FILE,
    KEYS_FILE,
    MANIFEST_FILE,
    ROWS_FILE,
    SCALES_FILE,
    FileCheck,
    Manifest,
    TableMeta,
)
from hmi.knowledge.store.npy import create_array
from hmi.knowledge.store.rows import EncodedRows, code_dtype
from hmi.knowledge.store.search import KeySearch
from hmi.knowledge.store.table import is_ascending
from hmi.spec import RowDtype
from hmi.storage import Storage


def write_table(
    folder: Path, meta: TableMeta, keys: Keys, rows: EncodedRows | Iterable[EncodedRows], aliases: Keys = NO_KEYS
) -> None:
    """Write a table into `folder`. `rows` are in the order of `keys`, at once or in blocks.

    Files are written through, not mapped, so that a full disk is an error and not a signal. Raises `StorageFull`, and
    `ValueError` if keys or aliases do not ascend, a key is both, or they or the rows do not match `meta`.
    """
    if len(keys) != meta.entries or not is_ascending(keys):
        raise ValueError(f"table of {meta.domain}: expected {meta.entries} ascending keys, got {len(keys)}")
    if len(aliases) != meta.aliases or not is_ascending(aliases):
        raise ValueError(f"table of {meta.domain}: expected {meta.aliases} ascending aliases, got {len(aliases)}")
    if KeySearch(keys).find(aliases)[1].any():
        raise ValueError(f"table of {meta.domain}: a key that has a row is an alias too")
    folder.mkdir(parents=True, exist_ok=True)
    storage = Storage(str(folder))
    files: dict[str, FileCheck] = {}
    _write_array(storage, files, KEYS_FILE, np.ascontiguousarray(keys, np.uint64))
    scales = _write_rows(storage, files, meta, [rows] if isinstance(rows, EncodedRows) else rows)
    if meta.row_dtype is RowDtype.INT8:
        _write_array(storage, files, SCALES_FILE, np.concatenate([np.empty(0, np.float32), *scales]))
    if meta.aliases:
        _write_array(storage, files, ALIASES_FILE, np.ascontiguousarray(aliases, np.uint64))
    with storage.create(MANIFEST_FILE) as file:
        file.write(Manifest(meta, files).to_json())


def _write_rows(
    storage: Storage, files: dict[str, FileCheck], meta: TableMeta, blocks: Iterable[EncodedRows]
) -> list[NDArray[np.float32]]:
    """Write the codes; return the scales, block by block."""
    dtype = code_dtype(meta.row_dtype)
    scales: list[NDArray[np.float32]] = []
    written = 0
    with create_array(storage, ROWS_FILE, files, dtype, (meta.entries, meta.hidden_size)) as out:
        for block in blocks:
            if block.rows.dtype != dtype or block.rows.shape[1] != meta.hidden_size:
                found = f"{block.rows.dtype} rows of {block.rows.shape[1]}"
                raise ValueError(f"table of {meta.domain}: {found} values instead of {dtype} of {meta.hidden_size}")
            out.write(np.ascontiguousarray(block.rows))
            written += len(block)
            if block.scales is not None:
                scales.append(block.scales)
    if written != meta.entries:
        raise ValueError(f"table of {meta.domain}: {written} rows for {meta.entries} keys")
    return scales


def _write_array(storage: Storage, files: dict[str, FileCheck], name: str, array: NDArray[np.generic]) -> None:
    with create_array(storage, name, files, array.dtype, array.shape) as out:
        out.write(array)
