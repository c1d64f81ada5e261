"""From a plan to table folders: copy the rows that the old version has, compute the others.

Tables are written one after the other into folders of their own. One that is finished is kept when
the build is run again; one that is not is written anew.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmi.errors import Corrupt
from hmi.knowledge.builder import TreePlan
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.report import BuildReport, DomainReport, report_domain
from hmi.knowledge.rows import EncodedRows, code_dtype, encode
from hmi.knowledge.table import Places, Table, TableMeta, find_first, write_table_blocks
from hmi.knowledge.tree import KnowledgeTree
from hmi.spec import RowDtype

__all__ = ["BuildReport", "ComputeRows", "DomainReport", "build_tree", "verify_sample"]

ComputeRows = Callable[[Keys], NDArray[np.float32]]
"""Windows' keys `[n]` to the lower layers' rows, float32 `[n, hidden]`."""

_log = logging.getLogger(__name__)

_BLOCK_CHUNKS = 16  # rows are written in blocks of so many chunks: few new keys still fill a chunk to compute


def build_tree(
    folder: Path,
    plan: TreePlan,
    old: KnowledgeTree | None,
    compute: ComputeRows,
    *,
    function: str,
    row_dtype: RowDtype,
    hidden_size: int,
    progress: Callable[[int, int], None],
    chunk: int = 1024,
) -> BuildReport:
    """Write `<folder>/<domain>/` for every domain of the plan.

    Args:
        old: The version to copy from; a table of another function, row dtype or hidden size, or one
            that fails its checksums, is passed over.
        compute: Called with at most `chunk` keys at a time.
        function: Digest of what `compute` is.
        progress: Called with the rows done and all rows, after each call of `compute` and each block
            written. What it raises ends the build, and so does what `compute` raises.

    Raises:
        Corrupt: A computed row cannot be stored, see `rows.encode`.
        StorageFull: No room left.
    """
    total = sum(len(keys) for keys in plan.tables.values())
    usable = _usable(old, function, row_dtype, hidden_size) if old else []
    old_keys = {domain: table.keys for domain, table in old.tables.items()} if old else {}
    domains: dict[str, DomainReport] = {}
    done = 0
    for domain in sorted(plan.tables):
        keys = plan.tables[domain]
        meta = TableMeta(domain, function, row_dtype, hidden_size, len(keys))
        # The domain's own old table is the likeliest to hold a key; with one function, any will do.
        sources = sorted(usable, key=lambda table: (table.meta.domain != domain, table.meta.domain))
        places = find_first(sources, keys)
        copied = int(np.count_nonzero(places.table >= 0))
        target = folder / domain
        if not _is_finished(target, meta, keys):
            shutil.rmtree(target, ignore_errors=True)

            def report_rows(rows: int, before: int = done) -> None:
                progress(before + rows, total)

            write_table_blocks(target, meta, keys, _blocks(meta, keys, sources, places, compute, chunk, report_rows))
        done += len(keys)
        progress(done, total)
        domains[domain] = report_domain(domain, plan, old_keys, copied, Table.open(target).bytes)
    return BuildReport(domains)


def verify_sample(
    tables: Iterable[Table], compute: ComputeRows, n: int, *, tolerance: float = 0.01, seed: int = 0
) -> None:
    """Recompute up to `n` rows of each table, in one call for each, and compare.

    Args:
        tolerance: How far, as a share of the row's largest value, a row may move between two batches
            of the model's arithmetic; one step of the stored form comes on top.

    Raises `Corrupt`, naming the table and the n-gram, for a row that is not what `compute` gives.
    """
    random = np.random.default_rng(seed)
    for table in tables:
        count = min(n, table.meta.entries)
        if not count:
            continue
        index = np.sort(random.choice(table.meta.entries, count, replace=False)).astype(np.int64)
        fresh, stored = compute(table.keys[index]), table.read(index)
        peak = np.abs(fresh).max(axis=1)
        step = 1 / 127 if table.meta.row_dtype is RowDtype.INT8 else 2.0**-10
        error = np.abs(fresh - stored).max(axis=1)
        wrong = np.flatnonzero(~(error <= peak * (step + tolerance)))  # a NaN is wrong too
        if len(wrong):
            at = wrong[0]
            raise Corrupt(
                f"table of {table.meta.domain} ({table.folder}): {len(wrong)} of {count} rows are not what the "
                f"model gives; that of n-gram {int(table.keys[index[at]])} is off by {error[at]:.3g}, "
                f"where values reach {peak[at]:.3g}"
            )


def _usable(old: KnowledgeTree, function: str, row_dtype: RowDtype, hidden_size: int) -> list[Table]:
    """Tables of the old version whose rows may be copied."""
    usable = []
    for domain, table in old.tables.items():
        meta = table.meta
        if (meta.function, meta.row_dtype, meta.hidden_size) != (function, row_dtype, hidden_size):
            continue
        try:
            table.verify()  # or a flipped byte would get a checksum of its own in the new version
        except Corrupt as error:
            _log.warning("the old rows of domain %s are computed anew: %s", domain, error)
            continue
        usable.append(table)
    return usable


def _is_finished(folder: Path, meta: TableMeta, keys: Keys) -> bool:
    """An earlier run left exactly this table, whole."""
    if not folder.exists():
        return False
    try:
        table = Table.open(folder)
        table.verify()
    except Corrupt:
        return False
    return table.meta == meta and np.array_equal(table.keys, keys)


def _blocks(
    meta: TableMeta,
    keys: Keys,
    sources: list[Table],
    places: Places,
    compute: ComputeRows,
    chunk: int,
    progress: Callable[[int], None],
) -> Iterator[EncodedRows]:
    """The table's rows in the order of its keys, a block at a time."""
    size = chunk * _BLOCK_CHUNKS
    for start in range(0, len(keys), size):
        table, row = places.table[start : start + size], places.row[start : start + size]
        codes = np.empty((len(table), meta.hidden_size), code_dtype(meta.row_dtype))
        scales = np.empty(len(table), np.float32) if meta.row_dtype is RowDtype.INT8 else None
        for position, source in enumerate(sources):
            here = np.flatnonzero(table == position)
            if len(here):
                _put(codes, scales, here, source.encoded(row[here]))
        missing = np.flatnonzero(table < 0)
        for first in range(0, len(missing), chunk):
            here = missing[first : first + chunk]
            fresh = compute(keys[start + here])
            if fresh.shape != (len(here), meta.hidden_size):
                raise ValueError(f"{len(here)} keys gave rows of shape {fresh.shape}")
            _put(codes, scales, here, encode(fresh, meta.row_dtype))
            progress(start + int(here[-1]) + 1)
        yield EncodedRows(codes, scales)
        progress(start + len(table))


def _put(
    codes: NDArray[np.int8] | NDArray[np.float16],
    scales: NDArray[np.float32] | None,
    here: NDArray[np.intp],
    encoded: EncodedRows,
) -> None:
    codes[here] = encoded.rows
    if scales is not None and encoded.scales is not None:
        scales[here] = encoded.scales
