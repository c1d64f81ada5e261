"""Batches that are computed side by side."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
import torch

from hmi.engine import Engine, EngineConfig, Tracer
from hmi.engine.config import resolve_batch_tokens, resolve_device_threads
from hmi.engine.stages import ComputedBatch, StagedBatch
from hmi.errors import HmiError
from hmi.items import Item
from hmi.knowledge import unigrams
from tests.engines import FolderSource, mixed_items, numbers

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


def _config(device_threads: int, device_adapter_bytes: int = 240 * 1024) -> EngineConfig:
    """By default with room for the adapters of a few batches, so that threads and adapters wait for each other."""
    return EngineConfig(
        "cpu",
        "float32",
        device_threads=device_threads,
        batch_tokens=128,
        batch_rows=4,
        device_adapter_bytes=device_adapter_bytes,
    )


def _items(base: str, count: int = 80) -> list[Item]:
    return mixed_items(base, count, seed=8)


@pytest.mark.parametrize(
    ("asked", "threads", "device", "device_threads"),
    [(0, 1, CPU, 1), (0, 2, CPU, 2), (0, 64, CPU, 8), (3, 2, CPU, 3), (0, 16, CUDA, 1), (2, 16, CUDA, 2)],
)
def test_a_cpu_has_a_device_thread_for_each_core_by_default(
    asked: int, threads: int, device: torch.device, device_threads: int
) -> None:
    assert resolve_device_threads(asked, threads, device) == device_threads


def test_a_batch_is_as_large_as_suits_the_device_by_default() -> None:
    assert [resolve_batch_tokens(0, CPU), resolve_batch_tokens(77, CPU), resolve_batch_tokens(77, CUDA)] == [
        2048,
        77,
        77,
    ]
    assert resolve_batch_tokens(0, CUDA) > resolve_batch_tokens(0, CPU)


@pytest.mark.parametrize("base", ["k0", "k2"])
def test_answers_are_the_same_with_any_number_of_device_threads(source: FolderSource, base: str) -> None:
    items, answers, threads = _items(base), [], torch.get_num_threads()
    for device_threads in (1, 3):
        tracer = Tracer()
        with Engine(_config(device_threads), source, tracer) as engine:
            answers.append(numbers(engine.submit(items).result(60)))
            assert engine.stats().device_threads == device_threads
        assert len({span.thread for span in tracer.spans("device")}) == device_threads
    for one, three in zip(*answers, strict=True):
        np.testing.assert_allclose(one, three, rtol=0, atol=1e-5)
    assert torch.get_num_threads() == threads


def test_a_device_thread_runs_batches_when_another_hangs(source: FolderSource, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(_config(2, 4 * 1024**2), source) as engine:
        run, first = engine._runner.run, itertools.count()
        hangs, released = threading.Event(), threading.Event()

        def hang_once(batch: StagedBatch) -> list[ComputedBatch]:
            if next(first) == 0:
                hangs.set()
                assert released.wait(20)
            return run(batch)

        monkeypatch.setattr(engine._runner, "run", hang_once)
        held = engine.submit(_items("k0", 1))
        assert hangs.wait(20)  # what is submitted before could share its batch
        assert numbers(engine.submit(_items("k0", 20)).result(60))
        assert not held.done()
        released.set()
        assert numbers(held.result(20))


def test_every_item_is_settled_when_the_engine_closes_while_device_threads_run(source: FolderSource) -> None:
    engine = Engine(_config(3), source)
    futures = [engine.submit(_items("k2", 30)) for _ in range(4)]
    engine.close(drain=False)
    for outcome in (outcome for future in futures for outcome in future.result(0)):
        assert (outcome.result is None) == isinstance(outcome.error, HmiError)


def test_the_callers_threads_are_its_own_when_it_computes_rows(source: FolderSource) -> None:
    threads = torch.get_num_threads()
    rows = []
    for device_threads in (1, max(1, threads)):
        with Engine(_config(device_threads), source) as engine:
            rows.append(engine.compute_rows("k2", unigrams(50)))
        assert torch.get_num_threads() == threads
    one, other = rows
    np.testing.assert_array_equal(one, other)
