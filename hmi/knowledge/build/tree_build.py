"""From a plan to table folders: copy the rows that the previous version has, compute the others.

Domains are built from the root down. First the rows that neither the previous version nor a chunk has are computed into
chunks, once for each function; then tables are written by copying. In a domain with a delta, rows can be compared only
when the tables above it are written. So domains are built in levels, by how often the function changes above them.

A build that is run again takes over the chunks of the one that was killed and writes its tables anew, by copying. So
the result is the same to the byte as without the interruption.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.build.report import BuildReport, DomainReport, report_domain
from hmi.knowledge.build.row_chunks import ComputeRows, RowChunks, find_rows
from hmi.knowledge.domains import ancestor_chains, function_changes, function_run
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.ngrams import NO_KEYS, Keys, holds, union
from hmi.knowledge.plan import COMPUTE, WRITE, BuildProgress, PreviousTree, TreePlan, kept_aliases
from hmi.knowledge.store import EncodedRows, RowRefs, RowSource, Table, TableMeta, decode, gather_rows, write_table
from hmi.spec import RowDtype

_CHUNKS = ".chunks"  # no domain can have this name
_BLOCK_ROWS = 16_384  # rows in memory at a time


def build_tree(
    folder: Path,
    plan: TreePlan,
    previous: PreviousTree,
    compute: ComputeRows,
    *,
    row_dtype: RowDtype,
    hidden_size: int,
    tolerance: float,
    progress: Callable[[BuildProgress], None],
    chunk: int = 1024,
) -> BuildReport:
    """Write `<folder>/<domain>/` for every domain of the plan.

    Takes memory for the plan's keys and a block of rows, however many rows there are.

    Args:
        previous: The version to copy from; rows of another function, row dtype or hidden size are ignored.
        compute: Called with at most `chunk` keys at a time.
        tolerance: A domain's own row is not stored if its ancestors' differs from it by at most this share of its
            length (L2); 0: it always is.
        progress: Called after each call of `compute` and each block written. Its exceptions end the build, as do those
            of `compute`.

    Raises `Corrupt` for a computed row that cannot be stored (see `rows.encode`), `StorageFull`.
    """
    if tolerance < 0:
        raise ValueError(f"not a tolerance: {tolerance}")
    functions = {each.digest: each for each in plan.functions.values()}
    chunks = RowChunks(folder / _CHUNKS, functions, row_dtype, hidden_size, compute, chunk)
    return _Build(folder, plan, previous, chunks, tolerance, progress).run()


@dataclass(frozen=True, slots=True)
class _KeySplit:
    """Which of a domain's planned keys stay aliases, which need a row, and which rows have to be compared first."""

    domain: str
    function: str  # digest
    foreign: str | None  # the nearest foreign ancestor, if any
    alias_function: str | None  # digest of its function
    aliases: Keys  # ascending keys that were aliases and stay aliases
    rows: Keys  # ascending keys whose own row is needed
    is_uncompared: NDArray[np.bool_]  # for each of `rows`: ancestors give a row too, and the two were not compared yet


class _Build:
    def __init__(
        self,
        folder: Path,
        plan: TreePlan,
        previous: PreviousTree,
        chunks: RowChunks,
        tolerance: float,
        progress: Callable[[BuildProgress], None],
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._previous = previous
        self._chunks = chunks
        self._tolerance = tolerance
        self._progress = progress
        self._format = chunks.row_dtype, chunks.hidden_size
        self._chains = ancestor_chains(plan.parents)
        self._functions = {domain: plan.functions[domain].digest for domain in self._chains}
        self._tables: dict[str, Table] = {}
        self._reports: dict[str, DomainReport] = {}
        self._computed = 0
        self._computed_of: dict[str, Keys] = {}  # by function, which may be that of domains on several levels
        self._written, self._total = 0, sum(len(keys) for keys in plan.tables.values())

    def run(self) -> BuildReport:
        levels: defaultdict[int, list[str]] = defaultdict(list)
        for domain in sorted(self._chains, key=lambda each: (len(self._chains[each]), each)):
            levels[function_changes(self._chains[domain], self._functions)].append(domain)
        for level in sorted(levels):
            above = KnowledgeTree(0, self._plan.parents, self._tables, *self._format, self._functions)
            splits = [self._split(domain, above) for domain in levels[level]]
            self._compute_missing(splits)
            for split in splits:
                self._write(split, above)
        return BuildReport(self._reports, self._computed, self._tolerance)

    def _split(self, domain: str, above: KnowledgeTree) -> _KeySplit:
        """Split a domain's planned keys; `above` has at least the tables of its foreign ancestors."""
        keys, function = self._plan.tables[domain], self._functions[domain]
        _, foreign = function_run(self._chains[domain], self._functions)
        if foreign is None:
            return _KeySplit(domain, function, None, None, NO_KEYS, keys, np.zeros(len(keys), bool))
        sources = np.array([self._functions[each] for each in above.chain(foreign)])
        functions = function, self._functions[foreign]
        held = self._previous.held.values()
        known = [each for each in held if (each.function, each.alias_function) == functions]

        def gives(source: str, keys: Keys) -> NDArray[np.bool_]:
            positions = above.holder_positions(foreign, keys)
            given: NDArray[np.bool_] = (positions >= 0) & (sources[positions] == source)
            return given

        is_alias = kept_aliases(known, keys, gives)
        rows = keys[~is_alias]
        is_uncompared = (above.holder_positions(foreign, rows) >= 0) & ~holds([each.compared for each in known], rows)
        return _KeySplit(domain, function, foreign, self._functions[foreign], keys[is_alias], rows, is_uncompared)

    def _previous_tables(self, function: str, domain: str) -> list[Table]:
        """Return tables to copy this function's rows from; first the domain's own, the likeliest to hold a key."""
        expected = function, *self._format
        tables = [
            table
            for table in self._previous.tables.values()
            if (table.meta.function, table.meta.row_dtype, table.meta.hidden_size) == expected
        ]
        return sorted(tables, key=lambda table: (table.meta.domain != domain, table.meta.domain))

    def _compute_missing(self, splits: Sequence[_KeySplit]) -> None:
        """Compute the rows that neither the previous version nor a chunk has."""
        missing: defaultdict[str, list[Keys]] = defaultdict(list)
        for split in splits:
            refs = find_rows(self._previous_tables(split.function, split.domain), split.rows)
            missing[split.function].append(split.rows[refs.table < 0])
        new: dict[str, Keys] = {}
        for function in sorted(missing):
            keys, before = union(missing[function]), self._computed_of.get(function)
            new[function] = keys if before is None else keys[~holds([before], keys)]
            self._computed_of[function] = keys if before is None else union([before, keys])
        total = self._computed + sum(len(keys) for keys in new.values())
        for function, keys in new.items():
            fresh = keys[find_rows(self._chunks.of(function), keys).table < 0]
            known = self._computed + len(keys) - len(fresh)

            def report(done: int, known: int = known) -> None:
                self._progress(BuildProgress(COMPUTE, known + done, total))

            self._chunks.compute(function, fresh, report)
            self._computed += len(keys)
            self._progress(BuildProgress(COMPUTE, self._computed, total))

    def _write(self, split: _KeySplit, above: KnowledgeTree) -> None:
        domain = split.domain
        tables = self._previous_tables(split.function, domain)
        sources: list[RowSource] = [*tables, *self._chunks.of(split.function)]
        refs = find_rows(sources, split.rows)
        is_close = self._compare(split, sources, refs, above)
        keys, refs = split.rows[~is_close], refs[~is_close]
        aliases = union([split.aliases, split.rows[is_close]])
        meta = TableMeta(domain, split.function, *self._format, len(keys), len(aliases), split.alias_function)
        target = self._folder / domain
        shutil.rmtree(target, ignore_errors=True)
        write_table(target, meta, keys, self._blocks(sources, refs), aliases)
        self._written += len(keys) + len(aliases)
        self._progress(BuildProgress(WRITE, self._written, self._total))
        table = Table.open(target)
        self._tables[domain] = table
        copied = int(np.count_nonzero(refs.table < len(tables)))
        self._reports[domain] = report_domain(domain, self._plan, self._previous, copied, table)

    def _blocks(self, sources: Sequence[RowSource], refs: RowRefs) -> Iterator[EncodedRows]:
        for start in range(0, len(refs.table), _BLOCK_ROWS):
            block = gather_rows(sources, refs[start : start + _BLOCK_ROWS], *self._format)
            yield block
            self._progress(BuildProgress(WRITE, self._written + start + len(block), self._total))

    def _compare(
        self, split: _KeySplit, sources: Sequence[RowSource], refs: RowRefs, above: KnowledgeTree
    ) -> NDArray[np.bool_]:
        """Return which of the split's rows the ancestors' rows replace, within the tolerance."""
        is_close = np.zeros(len(split.rows), bool)
        if split.foreign is None or not self._tolerance:
            return is_close
        uncompared = np.flatnonzero(split.is_uncompared)
        for start in range(0, len(uncompared), _BLOCK_ROWS):
            part = uncompared[start : start + _BLOCK_ROWS]
            own = decode(gather_rows(sources, refs[part], *self._format))
            given = above.lookup(split.foreign, split.rows[part]).rows
            is_close[part] = np.linalg.norm(own - given, axis=1) <= self._tolerance * np.linalg.norm(own, axis=1)
            self._progress(BuildProgress(WRITE, self._written, self._total))
        return is_close
