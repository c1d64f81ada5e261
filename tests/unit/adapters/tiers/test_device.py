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


def _bank(rows: int) -> DeviceTier:
    """An arena with room for so many rows beside the zero row."""
    return DeviceTier(WIDTH, (rows + 1) * ROW, "cpu", torch.float32)


def _head_of(rows: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> PackedAdapter:
    """An adapter of exactly so many rows."""
    return pack_adapter(head_adapter(head(np.random.default_rng(seed), rows - 1)), WIDTH, dtype)


def _take(bank: DeviceTier, digest: str, adapter: PackedAdapter) -> Resident:
    """As a batch takes it: found, or else copied in; pinned."""
    return bank.find(digest) or bank.insert(digest, adapter)


def _visit(bank: DeviceTier, digest: str, adapter: PackedAdapter) -> Resident:
    resident = _take(bank, digest, adapter)
    bank.unpin(digest)
    return resident


def _assert_intact(bank: DeviceTier, resident: Resident, adapter: PackedAdapter) -> None:
    rows = torch.from_numpy(np.concatenate([resident.body_rows, resident.head_rows]))
    assert torch.equal(bank.arena[rows], adapter.rows)


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


def test_residents_keep_their_weights_when_a_thousand_adapters_come_and_go() -> None:
    bank = _bank(300)
    rng = np.random.default_rng(0)
    adapters = [_random_adapter(seed) for seed in range(60)]
    pinned: dict[str, Resident] = {}
    for step in range(1000):
        number = int(rng.integers(len(adapters)))
        digest = f"adapter {number}"
        resident = _take(bank, digest, adapters[number])
        if digest in pinned:
            assert resident is pinned[digest]
        if digest not in pinned and rng.random() < 0.1:
            pinned[digest] = resident
        else:
            bank.unpin(digest)
        if len(pinned) > 4:
            released = sorted(pinned)[int(rng.integers(len(pinned)))]
            del pinned[released]
            bank.unpin(released)
        if rng.random() < 0.05:
            bank.drop(f"adapter {rng.integers(len(adapters))}")
        if step % 50 == 0 or step == 999:
            places: list[int] = []
            for each, held in bank._residents.items():
                _assert_intact(bank, held, adapters[int(each.split()[1])])
                places += [*held.body_rows, *held.head_rows]
            assert len(set(places)) == len(places)
            assert 0 not in places
            assert bank.stats().bytes == len(places) * ROW
            assert bank._free_count == 300 - len(places)
            assert set(pinned) <= set(bank._residents)
    stats = bank.stats()
    assert stats.evictions > 100
    assert stats.hits + stats.misses == 1000
    assert not bank.arena[0].any()


def test_budget_is_never_exceeded_and_all_of_it_can_be_used() -> None:
    budget = 11 * ROW + ROW - 1
    bank = DeviceTier(WIDTH, budget, "cpu", torch.float32)
    assert bank.arena.numel() * 4 == 11 * ROW
    bank.insert("all", _head_of(10))
    stats = bank.stats()
    assert (stats.bytes, stats.budget_bytes, stats.entries) == (10 * ROW, 10 * ROW, 1)


def test_adapter_fits_when_free_rows_lie_apart() -> None:
    bank = _bank(12)
    for number in range(4):
        bank.insert(f"small {number}", _head_of(3, number))
    for gone in ("small 1", "small 3"):
        bank.unpin(gone)
        bank.drop(gone)
    wide = _head_of(6, 9)
    resident = bank.insert("wide", wide)
    assert bank.stats().evictions == 0
    assert np.diff(np.sort(resident.head_rows)).max() > 1  # its rows are those of both that went
    _assert_intact(bank, resident, wide)
    for number in (0, 2):
        _assert_intact(bank, _take(bank, f"small {number}", _head_of(3, number)), _head_of(3, number))
    assert bank.stats().hits == 2


@pytest.mark.parametrize("found", [False, True])
def test_pinned_adapter_stays_and_the_other_goes_when_room_is_needed(found: bool) -> None:
    """`insert` pins, and so does `find`."""
    bank = _bank(8)
    kept = bank.insert("kept", _head_of(4, 1))
    if found:
        bank.unpin("kept")
        assert bank.find("kept") is kept
    _visit(bank, "other", _head_of(4, 2))
    _visit(bank, "other", _head_of(4, 2))  # used more often, and not pinned
    bank.insert("new", _head_of(4, 3))
    _assert_intact(bank, kept, _head_of(4, 1))
    assert bank.find("kept") is kept
    assert "kept" in bank
    assert "other" not in bank
    assert bank.find("other") is None


def test_what_is_not_resident_is_a_miss_and_stays_unpinned_when_it_was_looked_for() -> None:
    bank = _bank(8)
    assert bank.find("a") is None
    _visit(bank, "a", _head_of(8))
    bank.insert("b", _head_of(8, 1))  # "a" can go: looking for it did not pin it
    assert "a" not in bank
    assert (bank.stats().hits, bank.stats().misses) == (0, 2)
    with pytest.raises(ValueError, match="a is not pinned"):
        bank.unpin("a")


def test_adapter_is_copied_once_and_pinned_twice_when_two_insert_it() -> None:
    bank = _bank(8)
    one = bank.insert("a", _head_of(4))
    assert bank.insert("a", _head_of(4)) is one
    assert bank.stats().bytes == 4 * ROW
    bank.unpin("a")
    with pytest.raises(Overloaded):
        bank.insert("b", _head_of(8))
    bank.unpin("a")
    bank.insert("b", _head_of(8))


def test_overload_names_sizes_and_evicts_nothing_when_the_rest_is_pinned() -> None:
    bank = _bank(8)
    bank.insert("kept", _head_of(5, 1))
    _visit(bank, "idle", _head_of(3, 2))
    with pytest.raises(
        Overloaded, match=rf"big needs {4 * ROW} bytes of the device tier's {8 * ROW}, .* {5 * ROW} are"
    ):
        bank.insert("big", _head_of(4, 3))
    assert bank.stats().entries == 2
    with pytest.raises(Overloaded, match=f"huge needs {9 * ROW} bytes"):
        bank.insert("huge", _head_of(9))
    bank.unpin("kept")
    bank.insert("big", _head_of(4, 3))


def test_dropped_adapter_frees_its_rows_at_the_last_unpin_when_it_is_in_use() -> None:
    bank = _bank(8)
    resident = bank.insert("a", _head_of(4))
    bank.find("a")
    bank.drop("a")
    bank.unpin("a")
    _assert_intact(bank, resident, _head_of(4))
    assert bank.stats().entries == 1
    bank.unpin("a")
    assert bank.stats().entries == 0
    bank.drop("a")


def test_insert_copies_into_the_arena_when_it_is_in_half_precision() -> None:
    bank = DeviceTier(WIDTH, 64 * 64, "cpu", torch.bfloat16)
    adapter = _head_of(5, dtype=torch.bfloat16)
    resident = bank.insert("a", adapter)
    arena = bank.arena.data_ptr()
    _assert_intact(bank, resident, adapter)
    np.testing.assert_allclose(
        bank.arena[torch.from_numpy(resident.head_rows)].float().numpy(), _head_of(5).rows.numpy(), rtol=2**-8
    )
    bank.insert("b", _head_of(5, 1, torch.bfloat16))
    assert bank.arena.data_ptr() == arena


def test_a_resident_says_what_lies_there() -> None:
    adapter = pack_adapter(
        bottleneck_adapter(np.random.default_rng(5), head=head(np.random.default_rng(6), 2)), 32, torch.float32
    )
    resident = _bank(200).insert("a", adapter)
    assert resident.digest == "a"
    assert (resident.body, resident.head, resident.labels) == (adapter.body, adapter.head, adapter.labels)
    assert len(resident.body_rows) == adapter.body.rows
    assert adapter.head is not None
    assert len(resident.head_rows) == adapter.head.rows


def test_budget_without_room_for_a_row_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="holds no row"):
        DeviceTier(WIDTH, ROW, "cpu", torch.float32)


def test_residents_stay_whole_when_threads_insert_pin_and_drop() -> None:
    bank = _bank(60)
    adapters = [_head_of(3 + seed % 7, seed) for seed in range(20)]
    start = threading.Barrier(4)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        start.wait(10)
        for _ in range(150):
            number = int(rng.integers(len(adapters)))
            resident = _take(bank, f"{number}", adapters[number])
            _assert_intact(bank, resident, adapters[number])
            bank.unpin(f"{number}")
            if rng.random() < 0.1:
                bank.drop(f"{rng.integers(len(adapters))}")

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, seed) for seed in range(4)]:
            done.result(60)


class _NoRoom(torch.Tensor):
    """Cannot be copied to a device that is full."""

    def to(self, *args: object, **kwargs: object) -> torch.Tensor:
        raise torch.OutOfMemoryError


def test_no_rows_are_lost_when_the_device_runs_out_of_memory() -> None:
    bank = _bank(8)
    adapter = _head_of(5)
    with pytest.raises(torch.OutOfMemoryError):
        bank.insert("a", dataclasses.replace(adapter, rows=adapter.rows.as_subclass(_NoRoom)))
    assert (bank.stats().entries, bank.stats().bytes) == (0, 0)
    _visit(bank, "a", _head_of(8))
    _visit(bank, "b", _head_of(8))
