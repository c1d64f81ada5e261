"""What it costs to leave less to probe: a miss cache for each tenant, or none."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import alternate
from benchmarks.serving import Server
from hmi.bench import make_tree, submit_all
from hmi.engine import EngineConfig
from hmi.items import Item, ModelRef, Task

SHARED, BY_TENANT, NO_CACHE = "shared", "for each tenant", "none"
TENANTS = 10
ROUNDS = 3


def measure_sharing(folder: Path, base: Path, texts: Sequence[str], config: EngineConfig) -> dict[str, Any]:
    """Serve the second half of the texts, a third of it in each round, to tenants in turn; the tree knows the first.

    `hit_rate` is of the miss cache, `ratio` the speed over that with a shared cache.
    """
    half = len(texts) // 2
    tree = make_tree(folder, base, list(texts[:half]))
    portion = (len(texts) - half) // ROUNDS
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(Server(base, made))
            for name, made in (
                (SHARED, config),
                (BY_TENANT, config),
                (NO_CACHE, dataclasses.replace(config, miss_cache_bytes=0)),
            )
        }
        rounds = dict.fromkeys(servers, 0)
        for name, server in servers.items():
            server.publish(tree)
            submit_all(server.engine, _items(base, texts[:64], name))

        def run(name: str) -> float:
            start = half + portion * rounds[name]
            rounds[name] += 1
            items = _items(base, texts[start : start + portion], name)
            begin = time.perf_counter()
            submit_all(servers[name].engine, items)
            return time.perf_counter() - begin

        seconds = alternate({name: partial(run, name) for name in servers}, ROUNDS)
        report = {}
        for name, server in servers.items():
            used = server.engine.stats().trees[0].miss_cache
            ratios = [other / own for own, other in zip(seconds[name], seconds[SHARED], strict=True)]
            rate = used.hits / used.lookups if used is not None and used.lookups else 0.0
            report[name] = {"hit_rate": round(rate, 4), "ratio": round(statistics.median(ratios), 3)}
        return report


def _items(base: Path, texts: Sequence[str], name: str) -> list[Item]:
    scopes = [f"tenant{number}" if name == BY_TENANT else "" for number in range(TENANTS)]
    refs = [ModelRef(base.name, "general", None, scope=scope) for scope in scopes]
    return [Item(refs[number % TENANTS], Task.EMBED, text=text, truncate_to=128) for number, text in enumerate(texts)]
