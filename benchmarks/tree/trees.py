"""Trees on disk to look up in: entries spread evenly over a line of domains, rows of random values."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge import Keys
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.store import (
    KEYS_FILE,
    MANIFEST_FILE,
    ROWS_FILE,
    SCALES_FILE,
    EncodedRows,
    FileCheck,
    Manifest,
    Table,
    TableMeta,
    code_dtype,
    encode,
    write_table,
)
from hmi.spec import RowDtype

HIDDEN = 768
DOMAIN = "domain-0"
"""The one that is asked; its ancestors are numbered upward."""

_FUNCTION = "benchmark"
_BLOCK_ROWS = 16_384
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # a product's high bits say where a key goes


def write_tables(folder: Path, keys: Keys, ancestors: int, row_dtype: RowDtype) -> None:
    """Every n-gram in one of the line's tables, whichever."""
    place = (keys * _SPREAD >> np.uint64(40)) % np.uint64(ancestors + 1)
    # The same rows again and again: what they hold does not matter, that each has a place of its own does.
    block = encode(np.random.default_rng(0).standard_normal((_BLOCK_ROWS, HIDDEN), np.float32), row_dtype)
    for number in range(ancestors + 1):
        own = keys[place == number]
        domain = f"domain-{number}"
        meta = TableMeta(domain, _FUNCTION, row_dtype, HIDDEN, len(own))
        write_table(folder / domain, meta, own, _blocks(block, len(own)))


def _blocks(block: EncodedRows, rows: int) -> Iterator[EncodedRows]:
    for start in range(0, rows, _BLOCK_ROWS):
        size = min(_BLOCK_ROWS, rows - start)
        yield EncodedRows(block.rows[:size], None if block.scales is None else block.scales[:size])


def write_hollow(folder: Path, entries: int, ancestors: int) -> None:
    """Tables of so many int8 entries whose arrays take no room on disk: good for opening and nothing else."""
    own = entries // (ancestors + 1)
    for number in range(ancestors + 1):
        domain = f"domain-{number}"
        arrays = {
            KEYS_FILE: (np.dtype(np.uint64), (own,)),
            ROWS_FILE: (code_dtype(RowDtype.INT8), (own, HIDDEN)),
            SCALES_FILE: (np.dtype(np.float32), (own,)),
        }
        files = {}
        (folder / domain).mkdir(parents=True)
        for name, (dtype, shape) in arrays.items():
            with (folder / domain / name).open("wb") as file:
                header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                size = file.tell() + int(np.prod(shape)) * dtype.itemsize
                file.truncate(size)
            files[name] = FileCheck(size, "")
        meta = TableMeta(domain, _FUNCTION, RowDtype.INT8, HIDDEN, own)
        (folder / domain / MANIFEST_FILE).write_bytes(Manifest(meta, files).to_json())


def open_tree(folder: Path, ancestors: int, row_dtype: RowDtype) -> KnowledgeTree:
    domains = [f"domain-{number}" for number in range(ancestors + 1)]
    tables = {domain: Table.open(folder / domain) for domain in domains}
    return _tree(tables, row_dtype)


def resident(tree: KnowledgeTree) -> KnowledgeTree:
    """The same tree with its arrays copied into memory of this process."""
    tables = {}
    for domain, table in tree.tables.items():
        rows: NDArray[Any] = np.array(table.rows)
        encoded = EncodedRows(rows, None if table.scales is None else np.array(table.scales))
        manifest = Manifest.read(table.folder)
        tables[domain] = Table(table.folder, manifest, np.array(table.keys), encoded, np.array(table.aliases))
    return _tree(tables, tree.row_dtype)


def _tree(tables: dict[str, Table], row_dtype: RowDtype) -> KnowledgeTree:
    domains = list(tables)
    parents = dict(zip(domains, [*domains[1:], None], strict=True))
    return KnowledgeTree(1, parents, tables, row_dtype, HIDDEN)


def bytes_on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def drop_pages(folder: Path) -> None:
    """Have the system forget the files' pages, so that they come from the disk again; no process may map them."""
    gc.collect()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
