"""Writing counts of n-grams to the catalog: how fast, and how long others wait meanwhile.

    python -m benchmarks.flush [--quick] [--json] [--rows 1000000] [--domains 100] [--database sqlite]

One million (`--quick`: 100,000) different n-grams of a hundred domains are flushed as a worker flushes them, to
SQLite and to PostgreSQL, each a server or file of its own, synced to disk at every commit:

- `first`: all are new; `again`: the same n-grams once more, so that every row is changed;
- `half_life`: the same again after the half-life was set anew, which changes how all weights fade;
- `trim`: half of the rows are too many and are forgotten;
- `load`: all that is left is read for a rebuild.

Meanwhile two others write to the catalog every few milliseconds: one changes a row of a table that has nothing to do
with counts, as a lease's extension does, the other counts a few n-grams that are being flushed too. Of each step:

- `rows_s`: rows over seconds;
- `longest_transaction_ms`: of those that write rows, from when its locks are its own to the end of the commit;
- `longest_wait_ms`, `longest_count_wait_ms`: what the two others waited for a transaction of theirs, the
  transaction itself counted in; `idle_wait_ms` is the longest of the same while nothing is flushed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import update

from benchmarks.command import as_table, make_parser
from hmi.catalog import (
    ChunkedTransactions,
    Database,
    FrequencyLimits,
    NgramCounts,
    Tenant,
    bases,
    domains,
    execute_dml,
    frequencies,
    trees,
    upgrade_schema,
)
from hmi.knowledge.counts import FrequencyCounter
from hmi.logs import configure_logs
from hmi.spec import Family, HPLMSpec
from worker.serving import FrequencyFlusher

DATABASES = ("sqlite", "postgresql")
STEPS = ("first", "again", "half_life", "trim", "load")
_BASE = "0" * 64
_HALF_LIFE = 7 * 86_400.0
_EVERY_SECONDS = 0.005  # of the two other writers
_IDLE_SECONDS = 2.0
_PLENTY = FrequencyLimits(10**9, 10**9)
_SPEC = HPLMSpec(
    family=Family.BERT,
    vocab_size=30_522,
    hidden_size=768,
    layers=12,
    heads=12,
    intermediate_size=3072,
    max_positions=512,
    type_vocab_size=2,
    layer_norm_eps=1e-12,
    activation="gelu",
    pad_token_id=0,
)


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    configure_logs("WARNING", as_json=False)
    report: dict[str, Any] = {"rows": options.rows, "domains": options.domains}
    for name in options.database:
        with _catalog(name) as database:
            report[name] = _measure(database, options.rows, options.domains, options.step or STEPS)
    print(json.dumps(report, indent=1) if options.json else _as_text(report))


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("flush", __doc__)
    parser.add_argument("--rows", type=int, help="default: 1000000, with --quick 100000")
    parser.add_argument("--domains", type=int, default=100)
    parser.add_argument("--database", action="append", choices=DATABASES, help="default: both")
    parser.add_argument("--step", action="append", choices=STEPS, help="default: all, each on what the others left")
    options = parser.parse_args(argv)
    options.database = options.database or list(DATABASES)
    if options.rows is None:
        options.rows = 100_000 if options.quick else 1_000_000
    return options


@contextlib.contextmanager
def _catalog(name: str) -> Iterator[Database]:
    """A migrated catalog that is gone when the block ends."""
    with contextlib.ExitStack() as stack:
        if name == "sqlite":
            url = f"sqlite:///{Path(stack.enter_context(tempfile.TemporaryDirectory())) / 'catalog.db'}"
        else:
            from tests.integration.servers import postgres_server  # noqa: PLC0415 - only here is it needed

            url = stack.enter_context(postgres_server(durable=True)).create("hmi")
        upgrade_schema(url)
        database = Database(url)
        stack.callback(database.dispose)
        yield database


def _measure(database: Database, rows: int, domain_count: int, chosen: Sequence[str]) -> dict[str, Any]:
    with database.session() as session:
        base_id = bases.register_base(session, "base", _BASE, _SPEC).id
        made = [domains.create_domain(session, f"domain{number}") for number in range(domain_count)]
    chance = np.random.default_rng(0)
    keys = np.sort(chance.choice(2**40, rows, replace=False).astype(np.uint64) * np.uint64(2**22))
    parts = [chance.permutation(part) for part in np.array_split(chance.permutation(keys), domain_count)]
    counter = FrequencyCounter(rows, rows)

    def flush(half_life: float = _HALF_LIFE) -> int:
        for domain, part in zip(made, parts, strict=True):
            counter.count(_BASE, domain.name, part, np.zeros(len(part), bool), 0)
        flusher = FrequencyFlusher(database, counter, half_life, _PLENTY)
        flusher.flush()
        return rows

    steps: dict[str, Callable[[], int]] = {
        "first": flush,
        "again": flush,
        "half_life": lambda: flush(_HALF_LIFE / 2),
        "trim": lambda: trees.trim_frequencies(database, FrequencyLimits(rows, rows // 2)),
        "load": lambda: sum(len(each.ngrams) for each in frequencies.load(database, base_id).values()),
    }
    others = _Others(database, base_id, made[0].id, parts[0][:20])
    with others.writing() as waits:
        time.sleep(_IDLE_SECONDS)
    report: dict[str, Any] = {"idle_wait_ms": _longest(waits[0] + waits[1])}
    for name in chosen:
        with others.writing() as waits, _watched() as transactions:
            began = time.perf_counter()
            done = steps[name]()
            seconds = time.perf_counter() - began
        report[name] = {
            "rows_s": round(done / seconds),
            "seconds": round(seconds, 3),
            "transactions": len(transactions),
            "median_transaction_ms": round(statistics.median(transactions or [0.0]) * 1000, 1),
            "longest_transaction_ms": _longest(transactions),
            "longest_wait_ms": _longest(waits[0]),
            "longest_count_wait_ms": _longest(waits[1]),
            "rows": done,
        }
    return report


class _Others:
    """Two that write a little, again and again, and measure how long that takes."""

    def __init__(self, database: Database, base_id: str, domain_id: str, keys: NDArray[np.uint64]) -> None:
        self._database = database
        self._base_id = base_id
        self._domain_id = domain_id
        self._keys = keys

    @contextlib.contextmanager
    def writing(self) -> Iterator[tuple[list[float], list[float]]]:
        """The seconds of each of their transactions, complete when the block has ended."""
        stop, waits = threading.Event(), (list[float](), list[float]())
        threads = [
            threading.Thread(target=self._write, args=(action, stop, each))
            for action, each in zip((self._change_a_row, self._count), waits, strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            yield waits
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _write(self, action: Callable[[], None], stop: threading.Event, waits: list[float]) -> None:
        while not stop.wait(_EVERY_SECONDS):
            began = time.perf_counter()
            action()
            waits.append(time.perf_counter() - began)

    def _change_a_row(self) -> None:
        with self._database.session() as session:
            execute_dml(session, update(Tenant).values(weight=Tenant.weight % 100 + 1))

    def _count(self) -> None:
        with self._database.session() as session:
            counts = np.ones(len(self._keys))
            part = NgramCounts(self._base_id, self._domain_id, self._keys, counts)
            frequencies.add(session, [part], half_life_seconds=_HALF_LIFE)


@contextlib.contextmanager
def _watched() -> Iterator[list[float]]:
    """The seconds of each transaction of `ChunkedTransactions` in the block."""
    found: list[float] = []
    measured = ChunkedTransactions.adapt

    def note(self: ChunkedTransactions, rows: int, seconds: float) -> None:
        found.append(seconds)
        measured(self, rows, seconds)

    with mock.patch.object(ChunkedTransactions, "adapt", note):
        yield found


def _longest(seconds: list[float]) -> float:
    return round(max(seconds, default=0.0) * 1000, 1)


def _as_text(report: dict[str, Any]) -> str:
    columns = ("rows_s", "longest_transaction_ms", "longest_wait_ms", "longest_count_wait_ms")
    lines = [f"{report['rows']} n-grams of {report['domains']} domains"]
    for name in DATABASES:
        if name in report:
            steps = {step: each for step, each in report[name].items() if isinstance(each, dict)}
            rows = [(step, *(each[column] for column in columns)) for step, each in steps.items()]
            lines += ["", f"idle_wait_ms: {report[name]['idle_wait_ms']}", as_table((name, *columns), rows)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
