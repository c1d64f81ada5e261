"""A worker's runtime over `StubEngine`, without threads: tests call what its threads would call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from hmi.catalog import Database
from hmi.items import Item
from tests.stub_engine import StubEngine
from tests.worksite import Worksite
from worker.app import make_celery
from worker.runtime import EngineFactory, Runtime
from worker.shards import ShardRunner

__all__ = ["Watcher", "run_shard", "run_waiting", "running"]


class Watcher:
    """Called by the stub with each item; a test sets `look`."""

    def __init__(self) -> None:
        self.look: Callable[[Item], None] | None = None

    def __call__(self, item: Item) -> None:
        if self.look is not None:
            self.look(item)


@contextlib.contextmanager
def running(
    site: Worksite,
    watcher: Watcher | None = None,
    name: str = "test@here",
    make_engine: EngineFactory | None = None,
) -> Iterator[Runtime]:
    """Yield a runtime with the site's settings; several at once are several workers."""
    runtime = Runtime(
        site.settings,
        make_celery(site.settings),
        Database(site.settings.resolved_database_url),
        make_engine or (lambda source: StubEngine(source, watch=watcher)),
        lambda device: name,
    )
    try:
        yield runtime
    finally:
        runtime.stop()
        runtime.client.close()


def run_shard(runtime: Runtime, shard_id: str, attempt: int) -> None:
    ShardRunner(runtime).run(shard_id, attempt)


def run_waiting(runtime: Runtime, site: Worksite) -> int:
    """Run every pending shard here, once, and return their number."""
    messages = site.queue()
    for message in messages:
        run_shard(runtime, message.job_id, message.attempt)
    return len(messages)
