"""Engines that serve the same texts, and how fast."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from benchmarks.harness import alternate
from hmi.bench import OneBase, submit_all
from hmi.engine import Engine, EngineConfig
from hmi.items import Item, ModelRef, Task
from hmi.knowledge import Keys
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.plan import TreePlan
from hmi.knowledge.store import Table, TableMeta, encode, write_table
from hmi.spec import HPLMSpec, MissPolicy, read_spec

EXACT, EXACT_NO_CACHE, BACKOFF, ORDINARY = "exact", "exact, no miss cache", "backoff", "k = 0"

Query = tuple[str, str]
"""A domain and a text."""


Result = TypeVar("Result")


def results(engine: Engine, items: Sequence[Item], kind: type[Result]) -> list[Result]:
    """Submit the items at once and return their results. Raises the error of the first item that has one."""
    found = []
    for outcome in engine.submit(items).result():
        if outcome.error is not None:
            raise outcome.error
        if not isinstance(outcome.result, kind):
            raise TypeError(f"expected a {kind.__name__}, received {outcome.result}")
        found.append(outcome.result)
    return found


def seconds_of_job(engine: Engine, items: Sequence[Item]) -> float:
    """Submit the items at once and return the seconds until all are answered. Raises the first error."""
    begin = time.perf_counter()
    results(engine, items, object)
    return time.perf_counter() - begin


def open_built_tree(folder: Path, plan: TreePlan, spec: HPLMSpec) -> KnowledgeTree:
    """Open the tables that `build_tree` wrote."""
    tables = {domain: Table.open(folder / domain) for domain, keys in plan.tables.items() if len(keys)}
    digests = {domain: function.digest for domain, function in plan.functions.items()}
    return KnowledgeTree(1, plan.parents, tables, spec.row_dtype, spec.hidden_size, digests)


def make_computed_tree(engine: Engine, base: str, spec: HPLMSpec, keys: Keys, folder: Path) -> KnowledgeTree:
    """Make a tree of one domain, `general`, with the computed rows of ascending keys."""
    meta = TableMeta("general", base, spec.row_dtype, spec.hidden_size, len(keys))
    write_table(folder, meta, keys, encode(engine.compute_rows(base, keys), spec.row_dtype))
    return KnowledgeTree(1, {"general": None}, {"general": Table.open(folder)}, spec.row_dtype, spec.hidden_size)


@dataclasses.dataclass(frozen=True, slots=True)
class Rate:
    """What a way of serving did with the same texts as the others."""

    tokens_s: float  # median of the rounds
    ratio: float  # over the ordinary model's with the same texts; median of the rounds, each of which has other texts
    hit_rate: float | None  # share of windows that the tree held; None where nothing is looked up
    # Windows computed for each token read; the lower layers' work is about 2.8 times a token's for each.
    computed: float | None


class Server:
    """One engine and one base model in a folder; `tree` may be changed between runs."""

    def __init__(self, base: Path, config: EngineConfig, policy: MissPolicy = MissPolicy.EXACT) -> None:
        self.base = base.name
        self.spec = read_spec(base)
        self.policy = policy
        self.engine = Engine(config, OneBase(base.name, base))
        self.engine.load_base(base.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()

    def publish(self, tree: KnowledgeTree) -> None:
        self.engine.publish_tree(self.base, tree)

    def run(self, queries: Sequence[Query]) -> tuple[float, int]:
        """Seconds, and tokens read."""
        items = [
            Item(ModelRef(self.base, domain, None, self.policy), Task.EMBED, text=text, truncate_to=128)
            for domain, text in queries
        ]
        begin = time.perf_counter()
        tokens = submit_all(self.engine, items)
        return time.perf_counter() - begin, tokens

    def drain(self) -> float | None:
        """Share of the windows looked up since the last call that the tree held."""
        deltas = self.engine.frequencies.drain()
        lookups = sum(each.lookups for each in deltas)
        return sum(each.hits for each in deltas) / lookups if lookups else None


def compare(servers: Mapping[str, Server], portions: Sequence[Sequence[Query]]) -> dict[str, Rate]:
    """Run every portion once on every server, in alternation; `ORDINARY` is one of them.

    Portions have no text in common, so that rows kept from one serve the next only as they would in life.
    """
    speeds: dict[str, list[float]] = {name: [] for name in servers}
    tokens = dict.fromkeys(servers, 0)
    before = {name: server.engine.stats().computed_windows for name, server in servers.items()}
    for server in servers.values():
        server.drain()

    def run(name: str) -> float:
        seconds, read = servers[name].run(portions[len(speeds[name])])
        speeds[name].append(read / seconds)
        tokens[name] += read
        return seconds

    alternate({name: partial(run, name) for name in servers}, len(portions))
    rates = {}
    for name, server in servers.items():
        computed = server.engine.stats().computed_windows - before[name]
        ratios = [speed / other for speed, other in zip(speeds[name], speeds[ORDINARY], strict=True)]
        looks_up = server.spec.k > 0
        rates[name] = Rate(
            round(statistics.median(speeds[name]), 1),
            round(statistics.median(ratios), 3),
            server.drain() if looks_up else None,
            round(computed / tokens[name], 4) if looks_up else None,
        )
    return rates


def open_servers(
    stack: ExitStack, base: Path, ordinary: Path, device: str, dtype: str, *, miss_cache: bool = True
) -> dict[str, Server]:
    """A server for each way; the first only with `miss_cache`."""
    config = EngineConfig(device=device, dtype=dtype)
    alone = dataclasses.replace(config, miss_cache_bytes=0)
    servers = {EXACT: Server(base, config)} if miss_cache else {}
    servers[EXACT_NO_CACHE] = Server(base, alone)
    servers[BACKOFF] = Server(base, alone, MissPolicy.BACKOFF)
    servers[ORDINARY] = Server(ordinary, alone)
    for server in servers.values():
        stack.enter_context(server)
    return servers
