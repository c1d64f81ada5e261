"""The host tier: adapters that were read from disk, kept in memory under a byte budget."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from hmi.adapters.tiers.eviction import EvictionPolicy
from hmi.stats import TierStats

_log = logging.getLogger(__name__)


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


AdapterT = TypeVar("AdapterT", bound=Sized)


class HostTier(Generic[AdapterT]):
    """Adapters by key, in the form that `load` returns. Safe to call from many threads.

    Concurrent requests for an absent adapter share one load. A failed load fails all of them, and the next request
    tries again. A pinned adapter is never evicted.

    Args:
        budget_bytes: For all adapters that are kept. Running loads come on top: one per calling or prefetching thread.
        load: Reads the adapter of a key from disk; its errors reach every waiting caller.
    """

    def __init__(self, budget_bytes: int, load: Callable[[str], AdapterT], *, prefetch_threads: int = 2) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._policy = EvictionPolicy(budget_bytes, tier="host")
        self._adapters: dict[str, AdapterT] = {}
        self._loading: dict[str, Future[AdapterT]] = {}
        self._queued: set[str] = set()  # prefetches that no thread has started yet
        self._closed = False
        self._pool = ThreadPoolExecutor(prefetch_threads, thread_name_prefix="hmi-adapter-load")

    def acquire(self, key: str) -> AdapterT:
        """Return the adapter, loaded where it is absent and pinned until `release`.

        Raises the load's error, `Overloaded` where it cannot fit beside the pinned adapters, and `TooLarge` where it
        can never fit.
        """
        with self._lock:
            self._policy.pin(key)
            adapter = self._adapters.get(key)
            if adapter is not None:
                self._policy.hit(key)
                return adapter
            self._policy.miss()
            loading = self._loading.get(key)
            is_own = loading is None
            if loading is None:
                # This takes over a queued prefetch: the caller loads at once instead of waiting for a thread.
                loading = self._begin(key)
        try:
            if is_own:
                self._finish(key, loading)
            return loading.result()
        except BaseException:
            self.release(key)
            raise

    def release(self, key: str) -> bool:
        """Undo one `acquire`. Return True where the adapter was dropped meanwhile and is freed now."""
        with self._lock:
            freed = self._policy.unpin(key)
            if freed:
                del self._adapters[key]
            return freed

    def touch(self, key: str) -> None:
        """Count a use that the device tier served, so that the adapter stays in this tier too."""
        with self._lock:
            if key in self._adapters:
                self._policy.touch(key)

    def prefetch(self, key: str) -> None:
        """Load an absent adapter in the background, unless closed. A failure is logged, and `acquire` tries again."""
        with self._lock:
            if self._closed or key in self._adapters or key in self._loading or key in self._queued:
                return
            self._queued.add(key)
            self._pool.submit(self._prefetch, key)

    def drop(self, key: str) -> None:
        """Free the adapter now, or at its last `release`; an absent adapter is no error."""
        with self._lock:
            self._queued.discard(key)
            if self._policy.drop(key, loading=key in self._loading):
                del self._adapters[key]

    def stats(self) -> TierStats:
        with self._lock:
            return self._policy.stats()

    def close(self) -> None:
        """Stop prefetching and wait for running loads."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prefetch(self, key: str) -> None:
        with self._lock:
            if key not in self._queued:
                return
            loading = self._begin(key)
        self._finish(key, loading)
        if loading.exception() is not None:
            _log.info("adapter %s could not be prefetched: %s", key, loading.exception())

    def _begin(self, key: str) -> Future[AdapterT]:
        self._queued.discard(key)
        self._loading[key] = Future()
        return self._loading[key]

    def _finish(self, key: str, loading: Future[AdapterT]) -> None:
        """Load and admit the adapter and set the future's result; never raises."""
        try:
            adapter = self._load(key)
            with self._lock:
                if self._policy.should_admit(key):
                    for evicted in self._policy.admit(key, adapter.nbytes):
                        del self._adapters[evicted]
                    self._adapters[key] = adapter
                del self._loading[key]
        except BaseException as error:  # noqa: BLE001 - also SystemExit must reach the waiting threads
            with self._lock:
                self._loading.pop(key, None)
                self._policy.should_admit(key)  # forgets a drop during the load
            loading.set_exception(error)
        else:
            loading.set_result(adapter)
