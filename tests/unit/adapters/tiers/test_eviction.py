from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hmi.adapters.tiers.eviction import EvictionPolicy
from hmi.errors import Overloaded, TooLarge

KEYS = st.sampled_from([f"key {number}" for number in range(12)])


class LedgerMachine(RuleBasedStateMachine):
    """Compares the policy with a plain model of keys, sizes, pins and drops."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = EvictionPolicy(20, tier="test")
        self.sizes: dict[str, int] = {}
        self.pins: dict[str, int] = {}
        self.doomed: set[str] = set()

    @rule(key=KEYS, size=st.integers(1, 22))
    def admit_or_hit(self, key: str, size: int) -> None:
        if key in self.sizes:
            self.policy.hit(key)
            return
        in_use = sum(self.sizes.get(each, 0) for each in self.pins)
        if size > 20 - in_use:
            before = dict(self.sizes)
            said = "and the test tier has 20 in all" if size > 20 else f"of the test tier's 20, of which {in_use}"
            with pytest.raises(TooLarge if size > 20 else Overloaded, match=f"{key} needs {size} bytes,? {said}"):
                self.policy.admit(key, size)
            assert all(each in self.policy for each in before)
            return
        evicted = self.policy.admit(key, size)
        assert not set(evicted) & set(self.pins)
        for each in evicted:
            del self.sizes[each]
        self.sizes[key] = size

    @rule(key=KEYS)
    def pin(self, key: str) -> None:
        self.policy.pin(key)
        self.pins[key] = self.pins.get(key, 0) + 1

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.pins)))
        self.pins[key] -= 1
        expected = self.pins[key] == 0 and key in self.doomed and key in self.sizes
        assert self.policy.unpin(key) is expected
        if self.pins[key] == 0:
            del self.pins[key]
            if key in self.doomed:
                self.doomed.discard(key)
                self.sizes.pop(key, None)

    @rule(key=KEYS)
    def drop(self, key: str) -> None:
        struck = self.policy.drop(key)
        if key in self.pins:
            assert not struck
            self.doomed.add(key)
        else:
            assert struck is (self.sizes.pop(key, None) is not None)

    @invariant()
    def agrees_with_the_model(self) -> None:
        stats = self.policy.stats()
        assert stats.entries == len(self.sizes)
        assert stats.bytes == sum(self.sizes.values()) <= 20
        assert all(key in self.policy for key in self.sizes)


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_pinned_key_can_be_evicted_again_after_its_unpin() -> None:
    policy = EvictionPolicy(2, tier="test")
    policy.admit("a", 1)
    policy.pin("a")
    policy.admit("b", 1)
    assert policy.admit("c", 1) == ["b"]  # "a" is older, but pinned; it leaves the heap here
    policy.unpin("a")
    assert policy.admit("d", 2) == ["a", "c"]


def test_unpin_raises_when_nothing_is_pinned() -> None:
    with pytest.raises(ValueError, match="not pinned"):
        EvictionPolicy(2, tier="test").unpin("a")


def _hit_rate(requests: list[str], slots: int) -> float:
    policy = EvictionPolicy(slots, tier="test")
    for key in requests:
        if key in policy:
            policy.hit(key)
        else:
            policy.miss()
            policy.admit(key, 1)
    stats = policy.stats()
    return stats.hits / (stats.hits + stats.misses)


def _lru_hit_rate(requests: list[str], slots: int) -> float:
    resident: dict[str, None] = {}
    hits = 0
    for key in requests:
        if key in resident:
            hits += 1
            del resident[key]
        elif len(resident) == slots:
            del resident[next(iter(resident))]
        resident[key] = None
    return hits / len(requests)


def _skewed_with_scans() -> list[str]:
    """Zipf 1.0 over a thousand tenants; now and then a job over tenants that are used only once."""
    rng = np.random.default_rng(5)
    weights = 1 / np.arange(1, 1001)
    requests: list[str] = []
    for job in range(10):
        requests += [f"tenant {number}" for number in rng.choice(1000, 2000, p=weights / weights.sum())]
        requests += [f"scanned {job} {number}" for number in range(300)]
    return requests


@pytest.mark.parametrize("slots", [15, 60, 125, 250, 500])
def test_order_beats_lru_by_five_points_when_scans_run_through_skewed_traffic(slots: int) -> None:
    requests = _skewed_with_scans()
    assert _hit_rate(requests, slots) >= _lru_hit_rate(requests, slots) + 0.05


def test_key_keeps_its_score_when_it_returns_often() -> None:
    policy = EvictionPolicy(2, tier="test")
    policy.admit("steady", 1)
    policy.hit("steady")
    policy.hit("steady")
    left = []
    for turn in range(5):
        if "again" not in policy:
            left += policy.admit("again", 1)
        left += policy.admit(f"once {turn}", 1)
    assert left.index("again") < left.index("steady")  # at first its score is lower, after all its uses higher
    assert "again" in policy


def test_dropped_key_has_no_score_when_it_returns() -> None:
    policy = EvictionPolicy(2, tier="test")
    policy.admit("dropped", 1)
    for _ in range(9):
        policy.hit("dropped")
    policy.drop("dropped")
    policy.admit("other", 1)
    policy.hit("other")
    policy.admit("dropped", 1)
    assert policy.admit("new", 1) == ["dropped"]


def test_formerly_popular_key_is_evicted_in_the_end() -> None:
    policy = EvictionPolicy(3, tier="test")
    policy.admit("old favourite", 1)
    for _ in range(50):
        policy.hit("old favourite")
    for turn in range(200):
        key = f"new {turn % 4}"
        if key in policy:
            policy.hit(key)
        else:
            policy.admit(key, 1)
    assert "old favourite" not in policy


def test_order_takes_little_memory_when_one_key_is_used_often() -> None:
    policy = EvictionPolicy(3, tier="test")
    policy.admit("a", 1)
    for _ in range(10_000):
        policy.hit("a")
        policy.pin("a")
        policy.unpin("a")
    assert len(policy._heap) < 200


def test_order_takes_little_memory_when_keys_come_and_go() -> None:
    policy = EvictionPolicy(3, tier="test")
    for turn in range(10_000):
        policy.admit(f"evicted {turn}", 1)
        policy.admit("dropped", 1)
        policy.drop("dropped")
    assert len(policy._heap) < 200
    assert len(policy._ghosts) < 200
    assert len(policy._scores) == len(policy._admitted) == policy.stats().entries
