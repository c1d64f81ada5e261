from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from hmi.adapters.tiers import DeviceTier, PackedAdapter, Resident, pack_adapter
from hmi.errors import Overloaded
from hmi.spec import Placement, Site
from tests.adapter_samples import bottleneck_adapter, head, head_adapter, lora_adapter, sample_spec

WIDTH = 32
ROW = WIDTH * 4


def _tier(rows: int) -> DeviceTier:
    """An arena for `rows` rows beside the zero row."""
    return DeviceTier(WIDTH, (rows + 1) * ROW, "cpu", torch.float32)


def _head_of(rows: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> PackedAdapter:
    """An adapter of exactly `rows` rows."""
    return pack_adapter(head_adapter(head(np.random.default_rng(seed), rows - 1)), WIDTH, dtype)


def _take(tier: DeviceTier, key: str, adapter: PackedAdapter) -> Resident:
    """Find or insert the adapter, pinned, as a batch does."""
    return tier.pin(key) or tier.insert_pinned(key, adapter)


def _visit(tier: DeviceTier, key: str, adapter: PackedAdapter) -> Resident:
    resident = _take(tier, key, adapter)
    tier.unpin(key)
    return resident


def _assert_intact(tier: DeviceTier, resident: Resident, adapter: PackedAdapter) -> None:
    rows = torch.from_numpy(np.concatenate([resident.body_rows, resident.head_rows]))
    assert torch.equal(tier.arena[rows], adapter.rows)


def _random_adapter(seed: int) -> PackedAdapter:
    rng = np.random.default_rng(seed)
    spec = sample_spec(k=3)
    own = head(rng, int(rng.integers(2, 5))) if rng.random() < 0.5 else None
    match seed % 3:
        case 0:
            adapter = lora_adapter(rng, int(rng.integers(1, 9)), spec=spec, sites=(Site.Q, Site.FC2), head=own)
        case 1:
            places = tuple(Placement)
            adapter = bottleneck_adapter(rng, int(rng.integers(1, 17)), spec=spec, places=places, head=own)
        case _:
            adapter = head_adapter(head(rng, int(rng.integers(2, 12))))
    return pack_adapter(adapter, WIDTH, torch.float32)


def test_residents_keep_their_weights_when_a_thousand_adapters_are_inserted_and_evicted() -> None:
    tier = _tier(300)
    rng = np.random.default_rng(0)
    adapters = [_random_adapter(seed) for seed in range(60)]
    pinned: dict[str, Resident] = {}
    for step in range(1000):
        number = int(rng.integers(len(adapters)))
        key = f"adapter {number}"
        resident = _take(tier, key, adapters[number])
        if key in pinned:
            assert resident is pinned[key]
        if key not in pinned and rng.random() < 0.1:
            pinned[key] = resident
        else:
            tier.unpin(key)
        if len(pinned) > 4:
            released = sorted(pinned)[int(rng.integers(len(pinned)))]
            del pinned[released]
            tier.unpin(released)
        if rng.random() < 0.05:
            tier.drop(f"adapter {rng.integers(len(adapters))}")
        if step % 50 == 0 or step == 999:
            places: list[int] = []
            for each, held in tier._residents.items():
                _assert_intact(tier, held, adapters[int(each.split()[1])])
                places += [*held.body_rows, *held.head_rows]
            assert len(set(places)) == len(places)
            assert 0 not in places
            assert tier.stats().bytes == len(places) * ROW
            assert tier._free_count == 300 - len(places)
            assert set(pinned) <= set(tier._residents)
    stats = tier.stats()
    assert stats.evictions > 100
    assert stats.hits + stats.misses == 1000
    assert not tier.arena[0].any()


def test_budget_is_never_exceeded_and_all_of_it_can_be_used() -> None:
    budget = 11 * ROW + ROW - 1
    tier = DeviceTier(WIDTH, budget, "cpu", torch.float32)
    assert tier.arena.numel() * 4 == 11 * ROW
    tier.insert_pinned("all", _head_of(10))
    stats = tier.stats()
    assert (stats.bytes, stats.budget_bytes, stats.entries) == (10 * ROW, 10 * ROW, 1)


def test_adapter_fits_when_free_rows_are_scattered() -> None:
    tier = _tier(12)
    for number in range(4):
        tier.insert_pinned(f"small {number}", _head_of(3, number))
    for gone in ("small 1", "small 3"):
        tier.unpin(gone)
        tier.drop(gone)
    wide = _head_of(6, 9)
    resident = tier.insert_pinned("wide", wide)
    assert tier.stats().evictions == 0
    assert np.diff(np.sort(resident.head_rows)).max() > 1  # its rows are those of both evicted adapters
    _assert_intact(tier, resident, wide)
    for number in (0, 2):
        _assert_intact(tier, _take(tier, f"small {number}", _head_of(3, number)), _head_of(3, number))
    assert tier.stats().hits == 2


@pytest.mark.parametrize("found", [False, True])
def test_pinned_adapter_stays_and_the_other_is_evicted_when_space_is_needed(found: bool) -> None:
    """`insert` pins, and so does `find`."""
    tier = _tier(8)
    kept = tier.insert_pinned("kept", _head_of(4, 1))
    if found:
        tier.unpin("kept")
        assert tier.pin("kept") is kept
    _visit(tier, "other", _head_of(4, 2))
    _visit(tier, "other", _head_of(4, 2))  # used more often, and not pinned
    tier.insert_pinned("new", _head_of(4, 3))
    _assert_intact(tier, kept, _head_of(4, 1))
    assert tier.pin("kept") is kept
    assert "kept" in tier
    assert "other" not in tier
    assert tier.pin("other") is None


def test_absent_adapter_is_a_miss_and_stays_unpinned() -> None:
    tier = _tier(8)
    assert tier.pin("a") is None
    _visit(tier, "a", _head_of(8))
    tier.insert_pinned("b", _head_of(8, 1))  # "a" can go: `pin` did not find it
    assert "a" not in tier
    assert (tier.stats().hits, tier.stats().misses) == (0, 2)
    with pytest.raises(ValueError, match="a is not pinned"):
        tier.unpin("a")


def test_adapter_is_copied_once_and_pinned_twice_when_two_insert_it() -> None:
    tier = _tier(8)
    one = tier.insert_pinned("a", _head_of(4))
    assert tier.insert_pinned("a", _head_of(4)) is one
    assert tier.stats().bytes == 4 * ROW
    tier.unpin("a")
    with pytest.raises(Overloaded):
        tier.insert_pinned("b", _head_of(8))
    tier.unpin("a")
    tier.insert_pinned("b", _head_of(8))


def test_overload_names_sizes_and_evicts_nothing_when_all_others_are_pinned() -> None:
    tier = _tier(8)
    tier.insert_pinned("kept", _head_of(5, 1))
    _visit(tier, "idle", _head_of(3, 2))
    with pytest.raises(
        Overloaded, match=rf"big needs {4 * ROW} bytes of the device tier's {8 * ROW}, .* {5 * ROW} are"
    ):
        tier.insert_pinned("big", _head_of(4, 3))
    assert tier.stats().entries == 2
    with pytest.raises(Overloaded, match=f"huge needs {9 * ROW} bytes"):
        tier.insert_pinned("huge", _head_of(9))
    tier.unpin("kept")
    tier.insert_pinned("big", _head_of(4, 3))


def test_dropped_adapter_frees_its_rows_at_the_last_unpin_when_it_is_in_use() -> None:
    tier = _tier(8)
    resident = tier.insert_pinned("a", _head_of(4))
    tier.pin("a")
    tier.drop("a")
    tier.unpin("a")
    _assert_intact(tier, resident, _head_of(4))
    assert tier.stats().entries == 1
    tier.unpin("a")
    assert tier.stats().entries == 0
    tier.drop("a")


def test_insert_copies_into_the_arena_when_it_is_in_half_precision() -> None:
    tier = DeviceTier(WIDTH, 64 * 64, "cpu", torch.bfloat16)
    adapter = _head_of(5, dtype=torch.bfloat16)
    resident = tier.insert_pinned("a", adapter)
    arena = tier.arena.data_ptr()
    _assert_intact(tier, resident, adapter)
    np.testing.assert_allclose(
        tier.arena[torch.from_numpy(resident.head_rows)].float().numpy(), _head_of(5).rows.numpy(), rtol=2**-8
    )
    tier.insert_pinned("b", _head_of(5, 1, torch.bfloat16))
    assert tier.arena.data_ptr() == arena


def test_a_resident_has_the_packed_adapters_layout_and_labels() -> None:
    adapter = pack_adapter(
        bottleneck_adapter(np.random.default_rng(5), head=head(np.random.default_rng(6), 2)), 32, torch.float32
    )
    resident = _tier(200).insert_pinned("a", adapter)
    assert resident.key == "a"
    assert (resident.body, resident.head, resident.labels) == (adapter.body, adapter.head, adapter.labels)
    assert len(resident.body_rows) == adapter.body.rows
    assert adapter.head is not None
    assert len(resident.head_rows) == adapter.head.rows


def test_budget_smaller_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no row"):
        DeviceTier(WIDTH, ROW, "cpu", torch.float32)


def test_residents_keep_their_weights_when_threads_insert_pin_and_drop() -> None:
    tier = _tier(60)
    adapters = [_head_of(3 + seed % 7, seed) for seed in range(20)]
    start = threading.Barrier(4)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        start.wait(10)
        for _ in range(150):
            number = int(rng.integers(len(adapters)))
            resident = _take(tier, f"{number}", adapters[number])
            _assert_intact(tier, resident, adapters[number])
            tier.unpin(f"{number}")
            if rng.random() < 0.1:
                tier.drop(f"{rng.integers(len(adapters))}")

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, seed) for seed in range(4)]:
            done.result(60)


class _NoRoom(torch.Tensor):
    """Cannot be copied, like to a full device."""

    def to(self, *args: object, **kwargs: object) -> torch.Tensor:
        raise torch.OutOfMemoryError


def test_no_rows_are_lost_when_the_device_runs_out_of_memory() -> None:
    tier = _tier(8)
    adapter = _head_of(5)
    with pytest.raises(torch.OutOfMemoryError):
        tier.insert_pinned("a", dataclasses.replace(adapter, rows=adapter.rows.as_subclass(_NoRoom)))
    assert (tier.stats().entries, tier.stats().bytes) == (0, 0)
    _visit(tier, "a", _head_of(8))
    _visit(tier, "b", _head_of(8))
