"""An engine without a model, for tests of all that surrounds one: no torch, no weights, no device.

It has `Engine`'s face. Answers are made of a hash of the model and the text, so they are the same on
every run and differ between tenants; adapters, deltas and trees are really read through the `ModelSource`, so
that a missing or damaged one fails as it would in the engine.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from hmi.errors import Cancelled, HmiError
from hmi.items import Classification, Embedding, Item, ModelRef, Outcome, Task
from hmi.knowledge import Function, ngrams
from hmi.knowledge.counts import FrequencyCounter
from hmi.knowledge.lookup import KnowledgeTree
from hmi.spec import MissPolicy, RowDtype
from hmi.stats import EngineStats, TierStats, TreeUse

__all__ = ["StubEngine", "StubSource"]

_LABELS = ("negative", "positive")
_VOCABULARY = 1000
_NO_TIER = TierStats(entries=0, bytes=0, budget_bytes=0, hits=0, misses=0, evictions=0)


class StubSource(Protocol):
    """`hmi.engine.ModelSource`, repeated here because `hmi.engine` imports torch."""

    def base_folder(self, digest: str) -> Path: ...

    def adapter_file(self, digest: str) -> Path: ...

    def tree(self, base: str) -> KnowledgeTree: ...


class StubEngine:
    """See the module.

    Args:
        hidden: Width of embeddings and of computed rows.
        seconds_per_item: How long the pretended device takes for one item.
        watch: Called with each item before it is answered; what it raises becomes the item's error
            (`HmiError`) or strikes the submission (anything else).
    """

    device = "cpu"

    def __init__(
        self,
        source: StubSource,
        *,
        hidden: int = 8,
        seconds_per_item: float = 0.0,
        watch: Callable[[Item], None] | None = None,
    ) -> None:
        self.frequencies = FrequencyCounter(100_000)
        self._source = source
        self._hidden = hidden
        self._seconds_per_item = seconds_per_item
        self._watch = watch
        self._adapters: set[str] = set()
        self._trees: dict[str, KnowledgeTree] = {}
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="stub-device")
        self._unfinished: set[Future[list[Outcome]]] = set()
        self._closed = threading.Event()
        self._batches = self._sequences = self._tokens = 0
        self._started = time.monotonic()

    def submit(self, items: Sequence[Item], on_outcome: Callable[[], None] | None = None) -> Future[list[Outcome]]:
        if self._closed.is_set():
            raise Cancelled("the engine is closed")
        future = self._worker.submit(self._run, tuple(items), on_outcome)
        with self._lock:
            self._unfinished.add(future)
        future.add_done_callback(self._finish)
        return future

    def _finish(self, future: Future[list[Outcome]]) -> None:
        with self._lock:
            self._unfinished.discard(future)

    def busy(self) -> bool:
        with self._lock:
            return bool(self._unfinished)

    def prefetch(self, refs: Iterable[ModelRef]) -> None:
        """Loads happen at the item; a stub has no cold start to hide."""

    def load_base(self, digest: str) -> None:
        if digest in self._trees:
            return
        self._source.base_folder(digest)
        try:
            tree = self._source.tree(digest)
        except HmiError:  # as the engine: a damaged tree costs speed, never answers
            tree = KnowledgeTree(0, {}, {}, RowDtype.INT8, self._hidden)
        with self._lock:
            self._trees.setdefault(digest, tree)

    def publish_tree(self, base: str, tree: KnowledgeTree) -> None:
        with self._lock:
            if base in self._trees:
                self._trees[base] = tree

    def compute_rows(
        self, base: str, keys: NDArray[np.uint64], delta: str | None = None, *, fresh: bool = False
    ) -> NDArray[np.float32]:
        """Rows float32 `[n, hidden]`, a function of base, delta and key. A delta moves rows a little."""
        self._load_adapter(delta)
        rows = np.empty((len(keys), self._hidden), np.float32)
        for row, key in zip(rows, keys.tolist(), strict=True):
            change = 0.0 if delta is None else 0.1 * self._vector(f"{delta}/{key}")
            row[:] = self._vector(f"{base}/{key}") + change
        return rows

    def estimate_error(self, base: str, delta: str | None = None) -> float | None:
        """None: there is no estimator, and shorter n-grams are used."""
        return None

    def drop_adapter(self, digest: str) -> None:
        self._adapters.discard(digest)

    def stats(self) -> EngineStats:
        with self._lock:
            trees = tuple(TreeUse(base, tree.number, tree.entries, tree.bytes) for base, tree in self._trees.items())
        return EngineStats(
            device=self.device,
            dtype="float32",
            device_threads=1,
            seconds=time.monotonic() - self._started,
            batches=self._batches,
            sequences=self._sequences,
            tokens=self._tokens,
            padded_tokens=self._tokens,
            computed_windows=0,
            busy_seconds={},
            host=_NO_TIER,
            on_device=_NO_TIER,
            trees=trees,
        )

    def close(self, *, drain: bool = True) -> None:
        self._closed.set()
        self._worker.shutdown(wait=True, cancel_futures=not drain)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(drain=error is None)

    def _run(self, items: tuple[Item, ...], on_outcome: Callable[[], None] | None) -> list[Outcome]:
        outcomes = []
        for item in items:
            outcomes.append(self._answer(item))
            if on_outcome is not None:
                on_outcome()
        self._batches += 1
        return outcomes

    def _answer(self, item: Item) -> Outcome:
        if self._seconds_per_item:
            time.sleep(self._seconds_per_item)
        try:
            if self._watch is not None:
                self._watch(item)
            self.load_base(item.model.base)
            self._load_adapter(item.model.adapter)
        except HmiError as error:
            return Outcome(result=None, error=error, tokens=0)
        ids = self._tokenise(item)
        self._look_up(item.model, ids, item.requester)
        self._sequences += 1
        self._tokens += len(ids)
        vector = self._vector(f"{item.model}/{ids.tolist()}")
        if item.task is Task.EMBED:
            return Outcome(Embedding(vector / np.linalg.norm(vector)), None, len(ids))
        share = (float(vector[0]) + 1) / 2
        return Outcome(Classification(_LABELS, (1 - share, share)), None, len(ids))

    def _load_adapter(self, digest: str | None) -> None:
        if digest is not None and digest not in self._adapters:
            self._source.adapter_file(digest).read_bytes()
            self._adapters.add(digest)

    def _tokenise(self, item: Item) -> NDArray[np.int64]:
        """One id for each word, int64 `[T]`."""
        words = (item.text or "").split()
        ids = item.tokens or [int.from_bytes(_digest(word)[:4]) % _VOCABULARY for word in words]
        return np.asarray(ids, np.int64)[: item.truncate_to]

    def _look_up(self, model: ModelRef, ids: NDArray[np.int64], requester: int | None) -> None:
        if not len(ids):
            return
        tree = self._trees[model.base]
        keys = ngrams.window_keys(ids, np.array([len(ids)]))
        hit = inherited = np.zeros(len(keys), bool)
        knows = model.domain in tree.parents
        if knows and tree.function_of(model.domain) == Function(model.base, model.delta).digest:
            found = tree.lookup(model.domain, keys)
            hit, inherited = found.hit, found.inherited & found.hit
        self.frequencies.count(
            model.base,
            model.domain,
            keys,
            hit,
            tree.number,
            tenants=[(requester, len(keys))],
            inherited=int(np.count_nonzero(inherited)),
            approximate=model.miss_policy is MissPolicy.BACKOFF,
        )

    def _vector(self, of: str) -> NDArray[np.float32]:
        """Float32 `[hidden]` in -1..1."""
        seed = np.frombuffer(_digest(of), np.uint32)
        return np.random.default_rng(seed).uniform(-1, 1, self._hidden).astype(np.float32)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
