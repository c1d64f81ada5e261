from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from hmi.adapters.adapter import Adapter
from hmi.adapters.bank import Bank, Resident
from hmi.adapters.layout import pack
from hmi.errors import Overloaded
from hmi.spec import Placement, Site
from tests.adapter_samples import bottleneck_adapter, head, head_adapter, lora_adapter, sample_spec

WIDTH = 32
ROW = WIDTH * 4


def _bank(rows: int) -> Bank:
    """An arena with room for so many rows beside the zero row."""
    return Bank(WIDTH, (rows + 1) * ROW, "cpu", torch.float32)


def _head_of(rows: int, seed: int = 0) -> Adapter:
    """An adapter of exactly so many rows."""
    return head_adapter(head(np.random.default_rng(seed), rows - 1))


def _assert_intact(bank: Bank, resident: Resident, adapter: Adapter) -> None:
    rows = torch.from_numpy(np.concatenate([resident.body_rows, resident.head_rows]))
    np.testing.assert_array_equal(bank.arena[rows].numpy(), pack(adapter, WIDTH))


def _random_adapter(seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    spec = sample_spec(k=3)
    own = head(rng, int(rng.integers(2, 5))) if rng.random() < 0.5 else None
    match seed % 3:
        case 0:
            return lora_adapter(rng, int(rng.integers(1, 9)), spec=spec, sites=(Site.Q, Site.FC2), head=own)
        case 1:
            return bottleneck_adapter(rng, int(rng.integers(1, 17)), spec=spec, places=tuple(Placement), head=own)
        case _:
            return head_adapter(head(rng, int(rng.integers(2, 12))))


def test_residents_keep_their_weights_when_a_thousand_adapters_come_and_go() -> None:
    bank = _bank(300)
    rng = np.random.default_rng(0)
    adapters = [_random_adapter(seed) for seed in range(60)]
    pinned: dict[str, Resident] = {}
    for step in range(1000):
        number = int(rng.integers(len(adapters)))
        digest = f"adapter {number}"
        resident = bank.ensure(digest, adapters[number], pin=digest not in pinned and rng.random() < 0.1)
        if digest in bank._ledger._pins and digest not in pinned:
            pinned[digest] = resident
        if digest in pinned:
            assert resident is pinned[digest]
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
    assert bank.stats().evictions > 100
    assert not bank.arena[0].any()


def test_budget_is_never_exceeded_and_all_of_it_can_be_used() -> None:
    budget = 11 * ROW + ROW - 1
    bank = Bank(WIDTH, budget, "cpu", torch.float32)
    assert bank.arena.numel() * 4 == 11 * ROW
    bank.ensure("all", _head_of(10))
    stats = bank.stats()
    assert (stats.bytes, stats.budget_bytes, stats.entries) == (10 * ROW, 10 * ROW, 1)


def test_adapter_fits_when_free_rows_lie_apart() -> None:
    bank = _bank(12)
    for number in range(4):
        bank.ensure(f"small {number}", _head_of(3, number), pin=number % 2 == 0)
    bank.drop("small 1")
    bank.drop("small 3")
    wide = _head_of(6, 9)
    resident = bank.ensure("wide", wide)
    assert bank.stats().evictions == 0
    assert np.diff(np.sort(resident.head_rows)).max() > 1  # its rows are those of both that went
    _assert_intact(bank, resident, wide)
    for number in (0, 2):
        _assert_intact(bank, bank.ensure(f"small {number}", _head_of(3, number)), _head_of(3, number))


def test_pinned_adapter_stays_and_the_other_goes_when_room_is_needed() -> None:
    bank = _bank(8)
    kept = bank.ensure("kept", _head_of(4, 1), pin=True)
    bank.ensure("other", _head_of(4, 2))
    bank.ensure("other", _head_of(4, 2))  # used more often, and not pinned
    bank.ensure("new", _head_of(4, 3))
    _assert_intact(bank, kept, _head_of(4, 1))
    assert bank.ensure("kept", _head_of(4, 1)) is kept
    with pytest.raises(KeyError):
        bank.pin("other")


def test_overload_names_sizes_and_evicts_nothing_when_the_rest_is_pinned() -> None:
    bank = _bank(8)
    bank.ensure("kept", _head_of(5, 1), pin=True)
    bank.ensure("idle", _head_of(3, 2))
    with pytest.raises(
        Overloaded, match=rf"big needs {4 * ROW} bytes of the device tier's {8 * ROW}, .* {5 * ROW} are"
    ):
        bank.ensure("big", _head_of(4, 3))
    assert bank.stats().entries == 2
    with pytest.raises(Overloaded, match=f"huge needs {9 * ROW} bytes"):
        bank.ensure("huge", _head_of(9))
    bank.unpin("kept")
    bank.ensure("big", _head_of(4, 3))


def test_dropped_adapter_frees_its_rows_at_the_last_unpin_when_it_is_in_use() -> None:
    bank = _bank(8)
    resident = bank.ensure("a", _head_of(4), pin=True)
    bank.pin("a")
    bank.drop("a")
    bank.unpin("a")
    _assert_intact(bank, resident, _head_of(4))
    assert bank.stats().entries == 1
    bank.unpin("a")
    assert bank.stats().entries == 0
    bank.drop("a")


def test_insert_copies_into_the_arena_when_it_is_in_half_precision() -> None:
    bank = Bank(WIDTH, 64 * 64, "cpu", torch.bfloat16)
    adapter = _head_of(5)
    resident = bank.ensure("a", adapter)
    arena = bank.arena.data_ptr()
    np.testing.assert_allclose(
        bank.arena[torch.from_numpy(resident.head_rows)].float().numpy(), pack(adapter, WIDTH), rtol=2**-8
    )
    bank.ensure("b", _head_of(5, 1))
    assert bank.arena.data_ptr() == arena


def test_budget_without_room_for_a_row_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="holds no row"):
        Bank(WIDTH, ROW, "cpu", torch.float32)


def test_residents_stay_whole_when_threads_insert_pin_and_drop() -> None:
    bank = _bank(60)
    adapters = [_head_of(3 + seed % 7, seed) for seed in range(20)]
    start = threading.Barrier(4)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        start.wait(10)
        for _ in range(150):
            number = int(rng.integers(len(adapters)))
            resident = bank.ensure(f"{number}", adapters[number], pin=True)
            _assert_intact(bank, resident, adapters[number])
            bank.unpin(f"{number}")
            if rng.random() < 0.1:
                bank.drop(f"{rng.integers(len(adapters))}")

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, seed) for seed in range(4)]:
            done.result(60)


def test_no_rows_are_lost_when_the_device_runs_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = _bank(8)

    def run_out(adapter: Adapter, width: int) -> np.ndarray:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as short, pytest.raises(torch.OutOfMemoryError):
        short.setattr("hmi.adapters.bank.pack", run_out)
        bank.ensure("a", _head_of(5))
    assert (bank.stats().entries, bank.stats().bytes) == (0, 0)
    bank.ensure("a", _head_of(8))
    bank.ensure("b", _head_of(8))
