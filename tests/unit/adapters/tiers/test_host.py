from __future__ import annotations

import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from hmi.adapters.tiers import HostTier, PackedAdapter, pack_adapter
from hmi.errors import AdapterRefused, NotFound, Overloaded, TooLarge
from tests.adapter_samples import head, head_adapter

BYTES = 4 * 32 * 4  # of a head with three labels: a row for each, and one for their biases
DEADLINE = 20.0


class Disk:
    """Counts loads; each can be delayed and can fail."""

    def __init__(self) -> None:
        self.loads: Counter[str] = Counter()
        self.failures: dict[str, BaseException] = {}
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.Lock()

    def load(self, key: str) -> PackedAdapter:
        with self._lock:
            self.loads[key] += 1
        if not self.gate.wait(DEADLINE):
            raise TimeoutError
        if key in self.failures:
            raise self.failures[key]
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        return pack_adapter(head_adapter(head(rng, 3)), 32, torch.float32)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def make_tier(disk: Disk) -> Iterator[Callable[[int], HostTier[PackedAdapter]]]:
    tiers: list[HostTier[PackedAdapter]] = []

    def make(entries: int) -> HostTier[PackedAdapter]:
        tiers.append(HostTier(entries * BYTES, disk.load))
        return tiers[-1]

    yield make
    disk.gate.set()
    for tier in tiers:
        tier.close()


def _until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + DEADLINE
    while not holds():
        if time.monotonic() > limit:
            pytest.fail("the condition did not come to hold")
        time.sleep(0.002)


MakeTier = Callable[[int], HostTier[PackedAdapter]]


def test_adapter_is_loaded_once_when_many_threads_request_it(disk: Disk, make_tier: MakeTier) -> None:
    tier = make_tier(4)
    disk.gate.clear()
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(tier.acquire, "a") for _ in range(16)]
        _until(lambda: tier.stats().misses == 16)
        disk.gate.set()
        found = {id(each.result(DEADLINE)) for each in asked}
    assert len(found) == 1
    assert disk.loads["a"] == 1
    assert tier.stats().bytes == BYTES


@pytest.mark.parametrize("error", [AdapterRefused("damaged"), NotFound("gone"), SystemExit(3)])
def test_failed_load_reaches_every_waiter_and_is_retried_later(
    error: BaseException, disk: Disk, make_tier: MakeTier
) -> None:
    tier = make_tier(4)
    disk.gate.clear()
    disk.failures["a"] = error
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(tier.acquire, "a") for _ in range(5)]
        _until(lambda: tier.stats().misses == 5)
        disk.gate.set()
        assert [each.exception(DEADLINE) for each in asked] == [error] * 5
    disk.failures.clear()
    assert tier.acquire("a") is tier.acquire("a")
    assert disk.loads["a"] == 2


def test_failure_leaves_no_pin_behind(disk: Disk, make_tier: MakeTier) -> None:
    tier = make_tier(1)
    disk.failures["a"] = AdapterRefused("damaged")
    with pytest.raises(AdapterRefused):
        tier.acquire("a")
    disk.failures.clear()
    tier.acquire("a")
    tier.release("a")
    tier.acquire("b")  # "a" can go: nothing pins it
    assert tier.stats().evictions == 1


def test_pinned_adapter_stays_when_others_need_space(disk: Disk, make_tier: MakeTier) -> None:
    tier = make_tier(2)
    kept = tier.acquire("kept")
    for number in range(10):
        tier.acquire(f"other {number}")
        tier.release(f"other {number}")
    assert tier.acquire("kept") is kept
    assert disk.loads["kept"] == 1
    stats = tier.stats()
    assert (stats.entries, stats.evictions, stats.bytes) == (2, 9, 2 * BYTES)


def test_adapter_keeps_its_place_when_its_uses_were_served_on_the_device(disk: Disk, make_tier: MakeTier) -> None:
    tier = make_tier(2)
    for key in ("often", "once"):
        tier.acquire(key)
        tier.release(key)
    for _ in range(3):
        tier.touch("often")
    tier.touch("absent")
    tier.acquire("new")
    tier.acquire("often")
    assert disk.loads["often"] == 1
    assert (tier.stats().hits, tier.stats().misses) == (1, 3)


def test_any_value_with_nbytes_can_be_kept() -> None:
    with HostTier(3 * BYTES, lambda key: np.full(BYTES, ord(key), np.uint8)) as tier:
        assert tier.acquire("a")[0] == ord("a")
        tier.acquire("b")
        assert tier.stats().bytes == 2 * BYTES


def test_overload_names_both_sizes_when_an_adapter_cannot_fit(make_tier: MakeTier) -> None:
    tier = make_tier(1)
    tier.acquire("a")
    with pytest.raises(
        Overloaded, match=f"b needs {BYTES} bytes of the host tier's {BYTES}, of which {BYTES} are in use"
    ):
        tier.acquire("b")
    tier.release("a")
    tier.acquire("b")


def test_overload_names_both_sizes_when_an_adapter_is_larger_than_the_tier(disk: Disk) -> None:
    with (
        HostTier(BYTES - 1, disk.load) as tier,
        pytest.raises(TooLarge, match=f"needs {BYTES} bytes, and the host tier has {BYTES - 1} in all"),
    ):
        tier.acquire("a")


def test_prefetched_adapter_is_a_hit_when_it_is_acquired(disk: Disk, make_tier: MakeTier) -> None:
    tier = make_tier(4)
    tier.prefetch("a")
    tier.prefetch("a")
    _until(lambda: tier.stats().entries == 1)
    tier.prefetch("a")
    tier.acquire("a")
    assert disk.loads["a"] == 1
    assert (tier.stats().hits, tier.stats().misses) == (1, 0)


def test_failed_prefetch_is_retried_when_the_adapter_is_acquired(disk: Disk, make_tier: MakeTier) -> None:
    tier = make_tier(4)
    disk.failures["a"] = AdapterRefused("damaged")
    tier.prefetch("a")
    _until(lambda: disk.loads["a"] == 1 and not tier._loading)
    with pytest.raises(AdapterRefused):
        tier.acquire("a")
    assert disk.loads["a"] == 2


def test_caller_does_not_wait_for_queued_prefetches_when_the_threads_are_busy(disk: Disk, make_tier: MakeTier) -> None:
    tier = make_tier(9)
    disk.gate.clear()
    for number in range(5):
        tier.prefetch(f"slow {number}")
    _until(lambda: disk.loads.total() == 2)  # both threads are busy; "slow 4" is queued
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(tier.acquire, "slow 4")
        _until(lambda: disk.loads["slow 4"] == 1)
        disk.gate.set()
        asked.result(DEADLINE)
    _until(lambda: tier.stats().entries == 5)
    assert set(disk.loads.values()) == {1}


def test_dropped_adapter_frees_its_bytes_at_once_or_at_its_last_release(make_tier: MakeTier) -> None:
    tier = make_tier(4)
    tier.acquire("a")
    tier.acquire("a")
    tier.drop("a")
    tier.release("a")
    assert tier.stats().bytes == BYTES
    tier.release("a")
    assert tier.stats().bytes == 0
    tier.acquire("b")
    tier.release("b")
    tier.drop("b")
    assert tier.stats().entries == 0
    tier.drop("never there")


def test_adapter_is_not_kept_when_it_is_dropped_during_its_load(disk: Disk, make_tier: MakeTier) -> None:
    tier = make_tier(4)
    disk.gate.clear()
    tier.prefetch("a")
    _until(lambda: disk.loads["a"] == 1)
    tier.drop("a")
    disk.gate.set()
    _until(lambda: not tier._loading)
    assert tier.stats().entries == 0
    tier.acquire("a")
    assert disk.loads["a"] == 2
    assert tier.stats().entries == 1


def test_budget_holds_and_every_thread_gets_its_own_adapter_when_threads_compete(
    disk: Disk, make_tier: MakeTier
) -> None:
    tier = make_tier(8)
    reference = {f"{number}": disk.load(f"{number}") for number in range(24)}

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(200):
            key = f"{rng.integers(24)}"
            if rng.random() < 0.2:
                tier.prefetch(key)
            if rng.random() < 0.05:
                tier.drop(key)
            assert torch.equal(tier.acquire(key).rows, reference[key].rows)
            assert tier.stats().bytes <= 8 * BYTES
            tier.release(key)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, seed) for seed in range(4)]:
            done.result(60)
    assert tier.stats().evictions > 10


def test_a_closed_tier_does_not_prefetch(disk: Disk, make_tier: MakeTier) -> None:
    tier = make_tier(2)
    tier.close()
    tier.prefetch("a")
    assert not disk.loads
