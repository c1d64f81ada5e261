"""Rows of windows, from token ids to float32 values, one thread; beside other ways to keep the same rows.

Texts are random tokens that repeat as text does (`benchmarks.tree.text`); 85 % of the sequences are of the text that
the tree was made from, the others are new to it. Entries are evenly spread over the chain of domains. A batch has about
4,096 tokens. Rates are medians of passes over all batches, in alternation of all that is compared.

- `lookup_tokens_per_s_per_core`: windows, keys, search, rows and decoding; three ancestors, int8, mapped, the pages in
  memory. `tokens_per_s_bf16`: the same, decoded into bfloat16.
- `memory_limit_tokens_per_s`: what this machine's memory would allow: each stored row read from its table and written
  for the batch, read again to be decoded, and its values written.
- `ratio_vs_...`: that rate over the other store's, on the same keys and rows; LMDB where `lmdb` is installed.
- `bytes_per_entry_over_row_and_key`: all files of the tree over key, row and scale.
- `open_ms_10m`: opening a tree of 10 million entries: of real tables in a full run, with `--quick` of files without
  content; `first_batch_ms` is the look-up after it, of real tables.
- `lookup`: by entries, ancestors, dtype and where the pages are: `cold` on disk when the pass begins, `mapped` from
  files in the system's memory, `resident` in the process's own.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import alternate, measure_memory_rate
from benchmarks.tree.stores import DictStore, LmdbStore, Store, TreeStore
from benchmarks.tree.text import Text, distinct_windows, make_text, mix
from benchmarks.tree.trees import HIDDEN, bytes_on_disk, drop_pages, open_tree, resident, write_hollow, write_tables
from hmi.knowledge import Keys
from hmi.knowledge.store import entry_bytes
from hmi.spec import RowDtype

_ANCESTORS = 3
_MOST_ENTRIES = 10_000_000
_BATCH_TOKENS = 4_096
_FRESH_SHARE = 0.15  # of sequences


def run(options: argparse.Namespace) -> dict[str, Any]:
    entries, tokens, rounds = (100_000, 100_000, 3) if options.quick else (1_000_000, 200_000, 5)
    folder: Path = options.folder
    keys, known = distinct_windows(entries)
    batches = _batches(known, tokens)
    report, rows = _compare(folder, keys, batches, rounds)
    for ancestors, row_dtype in ((1, RowDtype.INT8), (2, RowDtype.INT8), (4, RowDtype.INT8), (3, RowDtype.FLOAT16)):
        rows += _measure(folder / "one", keys, batches, ancestors, row_dtype, rounds)
    if options.quick:
        write_hollow(folder / "hollow", _MOST_ENTRIES, _ANCESTORS)
        report["open_ms_10m"] = round(_opening_ms(folder / "hollow"), 2)
    else:
        keys, known = distinct_windows(_MOST_ENTRIES)
        many, opening = _measure_many(folder / "many", keys, _batches(known, tokens), rounds)
        rows += many
        report |= opening
    return {**report, "lookup": rows}


def _compare(folder: Path, keys: Keys, batches: list[Text], rounds: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The tree against the others."""
    where = folder / "tree"
    write_tables(where, keys, _ANCESTORS, RowDtype.INT8)
    tree = open_tree(where, _ANCESTORS, RowDtype.INT8)
    tree.warm()
    tokens = _most_tokens(batches)
    stores: dict[str, Store] = {
        "tree": TreeStore(tree, tokens),
        "tree_bf16": TreeStore(tree, tokens, torch.bfloat16),
        "resident": TreeStore(resident(tree), tokens),
        "dict": DictStore(tree, tokens),
    }
    lmdb = LmdbStore(folder / "lmdb", tree, tokens) if find_spec("lmdb") else None
    if lmdb:
        stores["lmdb"] = lmdb
    rates = _rates(stores, batches, rounds)
    stored = entry_bytes(RowDtype.INT8, HIDDEN)
    moved = 3 * stored + 4 * HIDDEN
    report = {
        "lookup_tokens_per_s_per_core": round(rates["tree"]),
        "tokens_per_s_bf16": round(rates["tree_bf16"]),
        "memory_limit_tokens_per_s": round(measure_memory_rate(torch.device("cpu")) / moved),
        "hit_rate": round(_hit_rate(stores["tree"], batches), 4),
        "ratio_vs_lmdb": round(rates["tree"] / rates["lmdb"], 2) if lmdb else None,
        "ratio_vs_dict": round(rates["tree"] / rates["dict"], 2),
        "bytes_per_entry_over_row_and_key": round(bytes_on_disk(where) / (len(keys) * stored), 5),
        "lmdb_bytes_per_entry_over_row_and_key": round(lmdb.bytes / (len(keys) * stored), 3) if lmdb else None,
    }
    shared = (len(keys), _ANCESTORS, RowDtype.INT8)
    rows = [_row(*shared, "mapped", rates["tree"]), _row(*shared, "resident", rates["resident"])]
    if lmdb:
        lmdb.close()
    del stores, tree
    rows.append(_row(*shared, "cold", _cold_rate(where, batches)))
    shutil.rmtree(where)
    shutil.rmtree(folder / "lmdb", ignore_errors=True)
    return report, rows


def _measure(
    folder: Path, keys: Keys, batches: list[Text], ancestors: int, row_dtype: RowDtype, rounds: int
) -> list[dict[str, Any]]:
    """A tree of its own, mapped."""
    write_tables(folder, keys, ancestors, row_dtype)
    tree = open_tree(folder, ancestors, row_dtype)
    tree.warm()
    rate = _rates({"tree": TreeStore(tree, _most_tokens(batches))}, batches, rounds)["tree"]
    del tree
    shutil.rmtree(folder)
    return [_row(len(keys), ancestors, row_dtype, "mapped", rate)]


def _measure_many(
    folder: Path, keys: Keys, batches: list[Text], rounds: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The large tree, and opening it."""
    write_tables(folder, keys, _ANCESTORS, RowDtype.INT8)
    opening = {"open_ms_10m": round(_opening_ms(folder), 2)}
    tree = open_tree(folder, _ANCESTORS, RowDtype.INT8)
    begin = time.perf_counter()
    TreeStore(tree, _most_tokens(batches)).rows(batches[0])
    opening["first_batch_ms"] = round(1e3 * (time.perf_counter() - begin), 2)
    tree.warm()
    rate = _rates({"tree": TreeStore(tree, _most_tokens(batches))}, batches, rounds)["tree"]
    del tree
    shared = (len(keys), _ANCESTORS, RowDtype.INT8)
    rows = [_row(*shared, "mapped", rate), _row(*shared, "cold", _cold_rate(folder, batches))]
    shutil.rmtree(folder)
    return rows, opening


def _rates(stores: dict[str, Store], batches: list[Text], rounds: int) -> dict[str, float]:
    """Tokens per second of each store, the median of its passes."""
    for store in stores.values():
        store.rows(batches[0])
    passes: dict[str, Callable[[], float]] = {name: partial(_pass, store, batches) for name, store in stores.items()}
    return {name: statistics.median(rates) for name, rates in alternate(passes, rounds).items()}


def _pass(store: Store, batches: list[Text]) -> float:
    begin = time.perf_counter()
    for batch in batches:
        store.rows(batch)
    return sum(len(batch.ids) for batch in batches) / (time.perf_counter() - begin)


def _cold_rate(folder: Path, batches: list[Text]) -> float:
    """One pass that finds nothing in memory; no tree may be open there."""
    drop_pages(folder)
    return _pass(TreeStore(open_tree(folder, _ANCESTORS, RowDtype.INT8), _most_tokens(batches)), batches)


def _opening_ms(folder: Path) -> float:
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        open_tree(folder, _ANCESTORS, RowDtype.INT8)
        seconds.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(seconds)


def _hit_rate(store: Store, batches: list[Text]) -> float:
    return statistics.mean(float(store.rows(batch).any(dim=1).float().mean()) for batch in batches)


def _batches(known: Text, tokens: int) -> list[Text]:
    asked = mix(known, make_text(tokens, seed=1), tokens, _FRESH_SHARE, seed=2)
    return asked.batches(_BATCH_TOKENS)


def _most_tokens(batches: list[Text]) -> int:
    return max(len(batch.ids) for batch in batches)


def _row(entries: int, ancestors: int, row_dtype: RowDtype, pages: str, rate: float) -> dict[str, Any]:
    return {
        "entries": entries,
        "ancestors": ancestors,
        "row_dtype": row_dtype.value,
        "pages": pages,
        "tokens_per_s_per_core": round(rate),
    }
