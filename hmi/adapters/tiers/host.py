"""The host tier: adapters read from disk once and kept in memory, ready to be copied, under a byte budget."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from hmi.adapters.tiers.eviction import EvictionPolicy
from hmi.stats import TierStats

__all__ = [
    "HostTier",
]

_log = logging.getLogger(__name__)


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


AdapterT = TypeVar("AdapterT", bound=Sized)


class HostTier(Generic[AdapterT]):
    """Adapters by digest, in whatever form `load` gives them. Safe to call from many threads.

    However many ask for an absent adapter at once, it is loaded once, and a failed load fails all of them
    and is not remembered. A pinned adapter is never evicted.

    Args:
        budget_bytes: Of all weights kept. Loads under way come on top: one per calling or prefetching thread.
        load: Reads the adapter of a digest from disk; any error it raises reaches those who wait.
    """

    def __init__(self, budget_bytes: int, load: Callable[[str], AdapterT], *, prefetch_threads: int = 2) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._ledger = EvictionPolicy(budget_bytes, tier="host")
        self._adapters: dict[str, AdapterT] = {}
        self._loading: dict[str, Future[AdapterT]] = {}
        self._wished: set[str] = set()  # prefetches that no thread has begun yet
        self._closed = False
        self._pool = ThreadPoolExecutor(prefetch_threads, thread_name_prefix="hmi-adapter-load")

    def acquire(self, digest: str) -> AdapterT:
        """The adapter, loaded where it is absent, and pinned until `release`.

        Raises what the load raises, `Overloaded` where it cannot fit beside what is pinned, `TooLarge` where it never
        can.
        """
        with self._lock:
            self._ledger.pin(digest)
            adapter = self._adapters.get(digest)
            if adapter is not None:
                self._ledger.hit(digest)
                return adapter
            self._ledger.miss()
            loading = self._loading.get(digest)
            begin = loading is None
            if loading is None:
                # A params still waiting for a thread is taken over, so that this caller waits for its own load only.
                loading = self._begin(digest)
        try:
            if begin:
                self._finish(digest, loading)
            return loading.result()
        except BaseException:
            self.release(digest)
            raise

    def release(self, digest: str) -> bool:
        """Undo one `acquire`. True where the adapter was dropped meanwhile and is freed now."""
        with self._lock:
            freed = self._ledger.unpin(digest)
            if freed:
                del self._adapters[digest]
            return freed

    def touch(self, digest: str) -> None:
        """Count a use of the adapter that was served from another tier, so that it keeps its place here."""
        with self._lock:
            if digest in self._adapters:
                self._ledger.touch(digest)

    def prefetch(self, digest: str) -> None:
        """Start loading in the background what is absent. A failure is left to whoever acquires it.

        After `close` it does nothing.
        """
        with self._lock:
            if self._closed or digest in self._adapters or digest in self._loading or digest in self._wished:
                return
            self._wished.add(digest)
            self._pool.submit(self._prefetch, digest)

    def drop(self, digest: str) -> None:
        """Free the adapter now, or at its last `release`; nothing there is no error."""
        with self._lock:
            self._wished.discard(digest)
            if self._ledger.drop(digest, expected=digest in self._loading):
                del self._adapters[digest]

    def stats(self) -> TierStats:
        with self._lock:
            return self._ledger.stats()

    def close(self) -> None:
        """Stop prefetching; loads under way are waited for."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prefetch(self, digest: str) -> None:
        with self._lock:
            if digest not in self._wished:
                return
            loading = self._begin(digest)
        self._finish(digest, loading)
        if loading.exception() is not None:
            _log.info("adapter %s could not be prefetched: %s", digest, loading.exception())

    def _begin(self, digest: str) -> Future[AdapterT]:
        self._wished.discard(digest)
        self._loading[digest] = Future()
        return self._loading[digest]

    def _finish(self, digest: str, loading: Future[AdapterT]) -> None:
        """Load, admit, and tell all who wait; never raises."""
        try:
            adapter = self._load(digest)
            with self._lock:
                if self._ledger.wanted(digest):
                    for evicted in self._ledger.admit(digest, adapter.nbytes):
                        del self._adapters[evicted]
                    self._adapters[digest] = adapter
                del self._loading[digest]
        except BaseException as error:  # noqa: BLE001 - a thread that ends in SystemExit must not leave others waiting
            with self._lock:
                self._loading.pop(digest, None)
                self._ledger.wanted(digest)  # a params to drop it ends with the load
            loading.set_exception(error)
        else:
            loading.set_result(adapter)
