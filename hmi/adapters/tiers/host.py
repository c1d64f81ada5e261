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
    """Adapters by digest, in the form that `load` returns. Safe to call from many threads.

    Concurrent requests for an absent adapter share one load. A failed load fails all of them, and the next request
    tries again. A pinned adapter is never evicted.

    Args:
        budget_bytes: For all adapters that are kept. Running loads come on top: one per calling or prefetching thread.
        load: Reads the adapter of a digest from disk; its errors reach every waiting caller.
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

    def acquire(self, digest: str) -> AdapterT:
        """Return the adapter, loaded where it is absent and pinned until `release`.

        Raises the load's error, `Overloaded` where it cannot fit beside the pinned adapters, and `TooLarge` where it
        can never fit.
        """
        with self._lock:
            self._policy.pin(digest)
            adapter = self._adapters.get(digest)
            if adapter is not None:
                self._policy.hit(digest)
                return adapter
            self._policy.miss()
            loading = self._loading.get(digest)
            is_own = loading is None
            if loading is None:
                # This takes over a queued prefetch: the caller loads at once instead of waiting for a thread.
                loading = self._begin(digest)
        try:
            if is_own:
                self._finish(digest, loading)
            return loading.result()
        except BaseException:
            self.release(digest)
            raise

    def release(self, digest: str) -> bool:
        """Undo one `acquire`. Return True where the adapter was dropped meanwhile and is freed now."""
        with self._lock:
            freed = self._policy.unpin(digest)
            if freed:
                del self._adapters[digest]
            return freed

    def touch(self, digest: str) -> None:
        """Count a use that the device tier served, so that the adapter stays in this tier too."""
        with self._lock:
            if digest in self._adapters:
                self._policy.touch(digest)

    def prefetch(self, digest: str) -> None:
        """Load an absent adapter in the background. A failure is logged, and `acquire` tries again.

        Does nothing after `close`.
        """
        with self._lock:
            if self._closed or digest in self._adapters or digest in self._loading or digest in self._queued:
                return
            self._queued.add(digest)
            self._pool.submit(self._prefetch, digest)

    def drop(self, digest: str) -> None:
        """Free the adapter now, or at its last `release`; an absent adapter is no error."""
        with self._lock:
            self._queued.discard(digest)
            if self._policy.drop(digest, loading=digest in self._loading):
                del self._adapters[digest]

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

    def _prefetch(self, digest: str) -> None:
        with self._lock:
            if digest not in self._queued:
                return
            loading = self._begin(digest)
        self._finish(digest, loading)
        if loading.exception() is not None:
            _log.info("adapter %s could not be prefetched: %s", digest, loading.exception())

    def _begin(self, digest: str) -> Future[AdapterT]:
        self._queued.discard(digest)
        self._loading[digest] = Future()
        return self._loading[digest]

    def _finish(self, digest: str, loading: Future[AdapterT]) -> None:
        """Load and admit the adapter and set the future's result; never raises."""
        try:
            adapter = self._load(digest)
            with self._lock:
                if self._policy.should_admit(digest):
                    for evicted in self._policy.admit(digest, adapter.nbytes):
                        del self._adapters[evicted]
                    self._adapters[digest] = adapter
                del self._loading[digest]
        except BaseException as error:  # noqa: BLE001 - also SystemExit must reach the waiting threads
            with self._lock:
                self._loading.pop(digest, None)
                self._policy.should_admit(digest)  # forgets a drop during the load
            loading.set_exception(error)
        else:
            loading.set_result(adapter)
