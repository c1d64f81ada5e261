"""What one worker process holds: settings, catalog, storage, engine, leases and background threads.

Built once at the start of the process and passed to everything that runs in it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np
import structlog
from celery import Celery
from numpy.typing import NDArray

from hmi.artifacts import ArtifactStore
from hmi.catalog import Database, FrequencyLimits, bases, nodes
from hmi.errors import Cancelled, HmiError
from hmi.items import Item, ModelRef, Outcome
from hmi.knowledge.counts import FrequencyCounter
from hmi.knowledge.lookup import KnowledgeTree
from hmi.locks import SharedLock
from hmi.settings import Settings
from hmi.stats import EngineStats
from hmi.storage import Storage
from worker.lifecycle import LeaseKeeper, Pace, Periodic, Stopping, log_errors
from worker.serving import CatalogSource, FrequencyFlusher

_log = structlog.get_logger(__name__)

_REFRESH_SECONDS = 2.0
_REPORT_SECONDS = 5.0
_PRUNE_SECONDS = 3600.0


class InferenceEngine(Protocol):
    """The part of `hmi.engine.Engine` that the worker uses; declared here, it keeps torch out of this module."""

    frequencies: FrequencyCounter

    def submit(self, items: Sequence[Item], on_outcome: Callable[[], None] | None = None) -> Future[list[Outcome]]: ...
    def prefetch(self, refs: Iterable[ModelRef]) -> None: ...
    def load_base(self, digest: str) -> None: ...
    def publish_tree(self, base: str, tree: KnowledgeTree) -> None: ...
    def compute_rows(
        self, base: str, keys: NDArray[np.uint64], delta: str | None = None, *, fresh: bool = False
    ) -> NDArray[np.float32]: ...
    def estimate_error(self, base: str, delta: str | None = None) -> float | None: ...
    def busy(self) -> bool: ...
    def stats(self) -> EngineStats: ...
    def close(self, *, drain: bool = True) -> None: ...


EngineFactory = Callable[[CatalogSource], InferenceEngine]


class Runtime:
    """Call `start` before the first task, `stop` after the last one, which disposes of `database` too.

    `make_engine` is called here: what it raises ends the process before it takes any work. `name` returns the node's
    name for the engine's resolved device.
    """

    def __init__(
        self,
        settings: Settings,
        client: Celery,
        database: Database,
        make_engine: EngineFactory,
        name: Callable[[str], str],
    ) -> None:
        self.settings = settings
        self.client = client
        self.database = database
        self.storage = Storage(settings.resolved_storage_url)
        self.artifacts = ArtifactStore(self.storage, settings.resolved_cache_dir)
        self.source = CatalogSource(self.database, self.artifacts, settings.resolved_cache_dir)
        self.engine = make_engine(self.source)
        self.device = self.engine.stats().device
        self.node = name(self.device)
        self.owner = f"{self.node}/{os.getpid()}"
        self.leases = LeaseKeeper(self.database, settings.lease_seconds)
        self.flusher = FrequencyFlusher(
            self.database,
            self.engine.frequencies,
            settings.frequency_half_life_seconds,
            FrequencyLimits(settings.frequency_max_keys, settings.frequency_max_rows),
        )
        self.stopping = Stopping()
        self.device_lock = SharedLock()  # exclusive for a quarantined shard
        self.training_lock = threading.Lock()  # a worker trains one model at a time
        self._periodic = (
            Periodic("refresh-trees", _REFRESH_SECONDS, self.refresh_trees),
            Periodic("flush-frequencies", settings.flush_seconds, self.flusher.flush),
            Periodic("report-node", _REPORT_SECONDS, self.report),
            Periodic("prune-cache", _PRUNE_SECONDS, self.artifacts.prune),
        )
        self._stopped = threading.Event()

    def load_bases(self) -> None:
        """Load every registered base model before taking work.

        A damaged one is logged and fails only its own lines. Raises the error, naming the base, if none can be loaded.
        """
        with self.database.session(read_only=True) as session:
            registered = list(bases.list_bases(session))
        failures: list[HmiError] = []
        for base in registered:
            try:
                self.engine.load_base(base.artifact)
            except HmiError as error:
                message = f"base model {base.name} cannot be loaded: {error.message}"
                _log.error("base_not_loaded", base=base.name, reason=error.message)
                failures.append(type(error)(message, code=error.code))
        if failures and len(failures) == len(registered):
            raise failures[0]

    def start(self) -> None:
        self.leases.start()
        for each in self._periodic:
            each.start()

    def stop(self) -> None:
        """Flush the counts and release everything. May be called twice."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self.stopping.set()
        for each in self._periodic:
            each.stop()
        # The last flush comes after the engine, which counts no more.
        self.engine.close(drain=False)
        with log_errors(_log, "frequencies_lost", HmiError):
            self.flusher.flush()
        self.leases.stop()
        self.database.dispose()

    def pace(self, check: Callable[[], None] | None = None, share: float | None = None) -> Pace:
        """Return the pace of background work, by default that of a tree build, ended by `Cancelled` on stopping."""
        return Pace(share or self.settings.tree_build_share, self.engine.busy, check or self.stopping.check)

    def refresh_trees(self) -> None:
        """Use the published trees. New tables are read completely first, while jobs keep running."""
        with contextlib.suppress(Cancelled):
            self.source.refresh(self.engine, self.pace())

    def report(self) -> None:
        """Record that this process is alive, with the engine's figures and the tables that its trees lack."""
        own = {"holding": len(self.leases.held()), "tables_not_used": self.source.missing()}
        stats = {**self.engine.stats().to_dict(), **own}
        with self.database.session() as session:
            nodes.report_node(session, self.node, device=self.device, pid=os.getpid(), stats=stats)
