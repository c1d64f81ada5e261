"""Outcomes when the engine is closed, short of memory or partly broken."""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hmi.adapters.formats import load_adapter, save_adapter
from hmi.adapters.tiers import PackedAdapter, Resident, pack_adapter
from hmi.engine import Engine
from hmi.engine.memory import LoadedModels, adapter_key
from hmi.engine.stages import ComputedBatch, PlannedBatch, StagedBatch, tokenise
from hmi.engine.tasks import SequenceTask, Submission
from hmi.errors import AdapterRefused, Cancelled, HmiError, InvalidInput, Overloaded, TooLarge
from hmi.items import Item, ModelRef, Task
from tests.engines import FolderSource, numbers, tiny_engine
from tests.waiting import wait_until

WIDTH = 32


def _item(number: int, task: Task = Task.CLASSIFY) -> Item:
    return Item(ModelRef("k0", "general", f"k0-{number}"), task, text="w1 w2")


def _packed(source: FolderSource, digest: str) -> PackedAdapter:
    return pack_adapter(load_adapter(source.adapters[digest]), WIDTH, torch.float32)


class Gate:
    """Holds the device back from the first batch on."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.batches = 0
        healthy = engine._runner.run

        def run(batch: StagedBatch) -> list[ComputedBatch]:
            self.batches += 1
            self.reached.set()
            self.opened.wait(20)
            return healthy(batch)

        monkeypatch.setattr(engine._runner, "run", run)


def test_nothing_that_waits_is_run_when_the_engine_is_closed_without_draining(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny_engine(source)
    tokenising, resume = threading.Event(), threading.Event()

    def held_back(submission: Submission, bases: LoadedModels) -> Iterator[list[SequenceTask]]:
        tokenising.set()
        resume.wait(20)
        yield from tokenise(submission, bases)

    monkeypatch.setattr("hmi.engine.pipeline.tokenise", held_back)
    futures = [engine.submit([_item(number) for number in range(12)]) for _ in range(3)]
    assert tokenising.wait(20)
    closing = threading.Thread(target=engine.close, kwargs={"drain": False})
    closing.start()
    wait_until(lambda: engine._pipeline._lifecycle.abandoned)
    resume.set()
    closing.join(20)
    assert engine.stats().batches == 0
    assert all(isinstance(outcome.error, Cancelled) for future in futures for outcome in future.result(0))


def test_everything_submitted_is_answered_when_the_engine_drains(source: FolderSource) -> None:
    engine = tiny_engine(source)
    futures = [engine.submit([_item(number) for number in range(12)]) for _ in range(6)]
    engine.close(drain=True)
    assert all(outcome.error is None for future in futures for outcome in future.result(0))


def test_a_closed_engine_says_so_when_the_adapter_is_cold(source: FolderSource) -> None:
    engine = tiny_engine(source)
    engine.close()
    engine.prefetch([_item(1).model])
    with pytest.raises(Cancelled):
        engine.submit([_item(1)])


def test_no_device_time_is_spent_when_the_future_is_cancelled(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiny_engine(source) as engine:
        gate = Gate(engine, monkeypatch)
        kept = engine.submit([_item(1)])
        assert gate.reached.wait(20)
        left = engine.submit([_item(number % 12) for number in range(500)])
        assert left.cancel()
        last = engine.submit([_item(2)])
        gate.opened.set()
        assert [future.result(20)[0].error for future in (kept, last)] == [None, None]
    assert gate.batches < 10


def test_batch_mates_are_answered_when_one_adapters_file_cannot_be_read(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = source.adapter_file

    def adapter_file(digest: str) -> Path:
        if digest == "k0-3":
            raise PermissionError("the disk does not like this one")
        return healthy(digest)

    monkeypatch.setattr(source, "adapter_file", adapter_file)
    with tiny_engine(source) as engine:
        outcomes = engine.submit([_item(number) for number in (1, 2, 3, 4)]).result(20)
    assert [type(outcome.error) for outcome in outcomes] == [type(None), type(None), HmiError, type(None)]


def _with_room_for_one(engine: Engine, source: FolderSource) -> None:
    """Give host memory for one of the adapters 4 and 10, which are of one size."""
    engine._resources.adapters.host._policy.capacity = _packed(source, "k0-4").nbytes


def _device_bytes_for_one(source: FolderSource) -> int:
    """Likewise on the device, beside the row of zeros."""
    return _packed(source, "k0-4").nbytes + WIDTH * 4


def _let_go_when_a_whole_batch_is_deferred(engine: Engine, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch that runs ends between the attempt to fetch another one and the wait for it. Gives how many waited."""
    fetch, pipeline, waited = engine._pipeline._fetcher.fetch, engine._pipeline, list[int]()

    def fetch_and_dawdle(batch: PlannedBatch) -> tuple[StagedBatch | None, list[SequenceTask]]:
        before = pipeline._capacity.count
        staged, deferred = fetch(batch)
        if deferred and staged is None:
            waited.append(len(deferred))
            gate.opened.set()
            wait_until(lambda: pipeline._capacity.count > before)
        return staged, deferred

    monkeypatch.setattr(pipeline._fetcher, "fetch", fetch_and_dawdle)
    return waited


def test_adapters_pass_through_host_memory_one_by_one_when_there_is_room_for_one(source: FolderSource) -> None:
    with tiny_engine(source) as engine:
        _with_room_for_one(engine, source)
        outcomes = engine.submit([_item(number) for number in (4, 10)]).result(20)
        assert engine.stats().batches == 1
        assert engine.stats().on_device.entries == 2
    assert [outcome.error for outcome in outcomes] == [None, None]


@pytest.mark.parametrize("meanwhile", [False, True])
def test_rows_wait_for_host_memory_that_another_fetcher_holds_and_others_run(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch, meanwhile: bool
) -> None:
    """It is released while they wait for it, or `meanwhile`: between their attempt and their wait."""
    with tiny_engine(source) as engine:
        _with_room_for_one(engine, source)
        held = adapter_key("k0", "k0-4")
        engine._resources.adapters.host.acquire(held)
        fetch, attempts, deferred = engine._pipeline._fetcher.fetch, list[int](), threading.Event()

        def release() -> None:
            engine._resources.adapters.host.release(held)
            engine._pipeline._capacity.notify()

        def watched(batch: PlannedBatch) -> tuple[StagedBatch | None, list[SequenceTask]]:
            attempts.append(len(batch.tasks))
            staged, left = fetch(batch)
            if left:
                deferred.set()
                if meanwhile:
                    release()
            return staged, left

        monkeypatch.setattr(engine._pipeline._fetcher, "fetch", watched)
        waiting = engine.submit([_item(10, Task.EMBED)])
        assert deferred.wait(20)
        beside = engine.submit([Item(ModelRef("k0", "general", None), Task.EMBED, text="w1")]).result(20)
        if not meanwhile:
            assert not waiting.done()
            release()
        outcomes = [*waiting.result(20), *beside]
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert attempts == [1, 1, 1]


def test_an_adapter_that_no_tier_could_hold_alone_is_refused_at_once(source: FolderSource) -> None:
    bytes_for_less = _device_bytes_for_one(source) - WIDTH * 4
    with tiny_engine(source, device_adapter_bytes=bytes_for_less) as engine:
        (outcome,) = engine.submit([_item(10, Task.EMBED)]).result(20)
    assert isinstance(outcome.error, TooLarge)


def test_what_waits_for_room_is_cancelled_when_the_engine_is_closed(source: FolderSource) -> None:
    engine = tiny_engine(source)
    _with_room_for_one(engine, source)
    engine._resources.adapters.host.acquire(adapter_key("k0", "k0-4"))
    waiting = engine.submit([_item(10, Task.EMBED)])
    wait_until(lambda: engine._pipeline._deferred)
    engine.close(drain=False)
    assert isinstance(waiting.result(0)[0].error, Cancelled)


def test_rows_wait_for_device_memory_when_the_batch_that_held_it_ends_meanwhile(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiny_engine(source, device_adapter_bytes=_device_bytes_for_one(source)) as engine:
        gate = Gate(engine, monkeypatch)
        waited = _let_go_when_a_whole_batch_is_deferred(engine, gate, monkeypatch)
        outcomes = engine.submit([_item(number, Task.EMBED) for number in (4, 10, 4)]).result(20)
        stats = engine.stats()
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert waited == [1]
    assert (stats.batches, stats.on_device.evictions, stats.on_device.entries) == (2, 1, 1)


def test_rows_are_deferred_again_and_again_when_the_device_holds_one_adapter_at_a_time(source: FolderSource) -> None:
    """Each running batch ends by itself and makes room for the next one."""
    wanted = [4, 10] * 10
    with tiny_engine(source) as roomy, tiny_engine(source, device_adapter_bytes=_device_bytes_for_one(source)) as tight:
        expected, found = (
            numbers(engine.submit([_item(number) for number in wanted]).result(60)) for engine in (roomy, tight)
        )
        assert tight.stats().on_device.evictions > 0
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_refused_adapter_takes_no_host_memory_when_the_next_one_needs_it(source: FolderSource) -> None:
    """It was made for all layers of `k0`; `k2` has two that look rows up."""
    misfit, good = (Item(ModelRef("k2", "general", name), Task.EMBED, text="w1") for name in ("k0-4", "k2-10"))
    with tiny_engine(source) as engine:
        engine._resources.adapters.host._policy.capacity = _packed(source, "k2-10").nbytes
        outcomes = engine.submit([misfit, good]).result(20)
        assert engine.stats().host.entries == 1
    assert [type(outcome.error) for outcome in outcomes] == [AdapterRefused, type(None)]


def test_a_failed_row_holds_no_device_memory_when_the_next_one_needs_it(source: FolderSource, tmp_path: Path) -> None:
    headless = dataclasses.replace(load_adapter(source.adapters["k0-4"]), head=None)
    source.adapters["headless"] = tmp_path / "headless.safetensors"
    save_adapter(headless, source.adapters["headless"])
    failing = Item(ModelRef("k0", "general", "headless"), Task.CLASSIFY, text="w1 w2")
    with tiny_engine(source, device_adapter_bytes=_device_bytes_for_one(source)) as engine:
        outcomes = engine.submit([failing, _item(10)]).result(20)
    assert [type(outcome.error) for outcome in outcomes] == [InvalidInput, type(None)]


def test_a_row_is_refused_when_its_adapter_is_larger_than_host_memory(source: FolderSource) -> None:
    with tiny_engine(source) as engine:
        engine._resources.adapters.host._policy.capacity = 100
        assert isinstance(engine.submit([_item(4)]).result(20)[0].error, Overloaded)


def test_a_row_is_refused_and_its_mates_are_not_when_its_adapter_is_larger_than_the_devices_memory(
    source: FolderSource,
) -> None:
    with tiny_engine(source, device_adapter_bytes=_packed(source, "k0-5").nbytes + WIDTH * 4) as engine:
        outcomes = engine.submit([_item(number) for number in (5, 4, 5)]).result(20)
    assert [type(outcome.error) for outcome in outcomes] == [type(None), TooLarge, type(None)]


def test_a_dropped_adapter_leaves_the_device_when_a_batch_still_ran_with_it(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny_engine(source)
    gate = Gate(engine, monkeypatch)
    running = engine.submit([_item(1)])
    assert gate.reached.wait(20)
    assert engine.stats().on_device.entries == 1
    engine.drop_adapter("k0-1")
    gate.opened.set()
    assert running.result(20)[0].error is None
    engine.close()
    stats = engine.stats()
    assert (stats.host.entries, stats.on_device.entries) == (0, 0)


def test_a_dropped_adapter_leaves_the_device_when_it_was_on_its_way_there(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny_engine(source)
    bank = engine._resources.adapters.tier(WIDTH)
    insert = bank.insert_pinned

    def drop_and_insert(key: str, adapter: PackedAdapter) -> Resident:
        engine.drop_adapter("k0-1")
        return insert(key, adapter)

    monkeypatch.setattr(bank, "insert_pinned", drop_and_insert)
    assert engine.submit([_item(1)]).result(20)[0].error is None
    engine.close()
    stats = engine.stats()
    assert (stats.host.entries, stats.on_device.entries) == (0, 0)


def test_a_dropped_adapter_leaves_when_two_bases_ran_with_it(source: FolderSource) -> None:
    """Made for the upper layers of `k2`, it fits `k0` as well; it is packed for each base."""
    items = [Item(ModelRef(base, "general", "k2-1"), Task.CLASSIFY, text="w1 w2") for base in ("k0", "k2")]
    with tiny_engine(source) as engine:
        one, other = numbers(engine.submit(items).result(20))
        assert not np.allclose(one, other, atol=1e-3)
        assert (engine.stats().host.entries, engine.stats().on_device.entries) == (2, 2)
        engine.drop_adapter("k2-1")
        assert engine.stats().host.entries == 0
    assert engine.stats().on_device.entries == 0


def test_a_halved_batch_has_the_room_of_the_whole_one_when_memory_ran_out(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiny_engine(source) as engine:
        healthy, held = engine._runner._run, list[weakref.ref[torch.Tensor]]()

        def run(batch: StagedBatch) -> ComputedBatch:
            assert all(tensor() is None for tensor in held)
            if len(batch.tasks) > 2:
                activations = torch.zeros(1)
                held.append(weakref.ref(activations))
                raise torch.OutOfMemoryError("no room")
            return healthy(batch)

        monkeypatch.setattr(engine._runner, "_run", run)
        outcomes = engine.submit([_item(number) for number in range(8)]).result(20)
    assert len(held) == 3
    assert [outcome.error for outcome in outcomes] == [None] * 8
