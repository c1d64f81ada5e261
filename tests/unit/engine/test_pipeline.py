"""Who is answered, and with what, when the engine is closed, short of memory or half broken."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hmi.adapters.adapter import Adapter
from hmi.adapters.canonical import load_adapter
from hmi.engine.engine import Engine
from hmi.engine.hosted import HostedBase, HostedBases
from hmi.engine.request import Item, ModelRef, Task
from hmi.engine.tokenise import tokenise
from hmi.engine.work import Batch, Submission, Work
from hmi.errors import Cancelled, HmiError, InvalidInput, Overloaded
from tests.engines import FolderSource, tiny_engine
from tests.waiting import wait_until


def _item(number: int, task: Task = Task.CLASSIFY) -> Item:
    return Item(ModelRef("k0", "general", f"k0-{number}"), task, text="w1 w2")


class Gate:
    """Holds the device back from the first batch on."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.batches = 0
        healthy = engine._device.run

        def run(batch: Batch) -> list[Batch]:
            self.batches += 1
            self.reached.set()
            self.opened.wait(20)
            return healthy(batch)

        monkeypatch.setattr(engine._device, "run", run)


def test_nothing_that_waits_is_run_when_the_engine_is_closed_without_draining(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny_engine(source)
    tokenising, go_on = threading.Event(), threading.Event()

    def held_back(submission: Submission, bases: HostedBases) -> Iterator[list[Work]]:
        tokenising.set()
        go_on.wait(20)
        yield from tokenise(submission, bases)

    monkeypatch.setattr("hmi.engine.pipeline.tokenise", held_back)
    futures = [engine.submit([_item(number) for number in range(12)]) for _ in range(3)]
    assert tokenising.wait(20)
    closing = threading.Thread(target=engine.close, kwargs={"drain": False})
    closing.start()
    wait_until(lambda: engine._pipeline._abandoned)
    go_on.set()
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


def test_no_device_time_is_spent_when_the_waiter_has_left(
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
    engine._host_tier._ledger.capacity = load_adapter(source.adapters["k0-4"]).nbytes


def test_rows_wait_for_host_memory_when_the_batch_that_held_it_ends_meanwhile(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiny_engine(source) as engine:
        _with_room_for_one(engine, source)
        fetch, pipeline = engine._pipeline._fetcher.fetch, engine._pipeline
        gate = Gate(engine, monkeypatch)

        def fetch_and_dawdle(batch: Batch) -> list[Work]:
            deferred = fetch(batch)
            if deferred and not batch.works:
                gate.opened.set()
                wait_until(lambda: pipeline._in_flight == 0)
            return deferred

        monkeypatch.setattr(pipeline._fetcher, "fetch", fetch_and_dawdle)
        outcomes = engine.submit([_item(number, Task.EMBED) for number in (4, 10)]).result(20)
    assert [outcome.error for outcome in outcomes] == [None, None]


def test_a_failed_row_holds_no_memory_when_the_next_one_needs_it(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(digest: str, adapter: Adapter, base: HostedBase) -> None:
        if digest == "k0-4":
            raise InvalidInput("not this one")

    with tiny_engine(source) as engine:
        _with_room_for_one(engine, source)
        monkeypatch.setattr(engine._pipeline._fetcher, "_check_fit", check)
        outcomes = engine.submit([_item(number, Task.EMBED) for number in (4, 10)]).result(20)
    assert [type(outcome.error) for outcome in outcomes] == [InvalidInput, type(None)]


def test_a_row_is_refused_when_its_adapter_is_larger_than_host_memory(source: FolderSource) -> None:
    with tiny_engine(source) as engine:
        engine._host_tier._ledger.capacity = 100
        assert isinstance(engine.submit([_item(4)]).result(20)[0].error, Overloaded)


def test_a_dropped_adapter_leaves_the_device_when_a_batch_still_ran_with_it(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny_engine(source)
    gate = Gate(engine, monkeypatch)
    running = engine.submit([_item(1)])
    assert gate.reached.wait(20)
    engine.drop_adapter("k0-1")
    gate.opened.set()
    assert running.result(20)[0].error is None
    engine.close()
    stats = engine.stats()
    assert (stats.host.entries, stats.on_device.entries) == (0, 0)


def test_a_halved_batch_has_the_room_of_the_whole_one_when_memory_ran_out(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiny_engine(source) as engine:
        healthy, held = engine._device._run, list[weakref.ref[torch.Tensor]]()

        def run(batch: Batch) -> None:
            assert all(tensor() is None for tensor in held)
            if len(batch.works) > 2:
                activations = torch.zeros(1)
                held.append(weakref.ref(activations))
                raise torch.OutOfMemoryError("no room")
            healthy(batch)

        monkeypatch.setattr(engine._device, "_run", run)
        outcomes = engine.submit([_item(number) for number in range(8)]).result(20)
    assert len(held) == 3
    assert [outcome.error for outcome in outcomes] == [None] * 8
