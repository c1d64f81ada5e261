"""Unloading a tenant frees its bytes in host and device memory within a second."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from hmi.engine import Engine
from tests.integration.engine.tenants import Registry, Revision, assert_own_answers, engine_of, items_for
from tests.waiting import wait_until

ROOMY = 8 * 1024**2  # bytes of either tier: nothing is evicted
VICTIM, OTHERS = 0, range(1, 12)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path, 12)


@contextmanager
def _load(engine: Engine, revisions: list[Revision]) -> Iterator[Callable[[], int]]:
    """Run batches of these during the block; yields the number of submissions answered so far."""
    stop = threading.Event()
    answered = 0

    def run() -> None:
        nonlocal answered
        rng = random.Random(1)
        while not stop.is_set():
            asked = rng.choices(revisions, k=32)
            assert_own_answers(asked, engine.submit(items_for(asked, rng)).result(60))
            answered += 1

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        try:
            yield lambda: answered
        finally:
            stop.set()
        running.result(60)


def _ask(engine: Engine, revisions: list[Revision]) -> None:
    assert_own_answers(revisions, engine.submit(items_for(revisions, random.Random(2))).result(60))


def _wait_for_more(answered: Callable[[], int]) -> None:
    before = answered()
    wait_until(lambda: answered() > before, what="another answer")


def _bytes(engine: Engine) -> tuple[int, int]:
    stats = engine.stats()
    return stats.host.bytes, stats.on_device.bytes


def test_bytes_are_free_within_a_second_when_nothing_runs(registry: Registry) -> None:
    with engine_of(registry, host_adapter_bytes=ROOMY, device_adapter_bytes=ROOMY) as engine:
        _ask(engine, registry.current(OTHERS))
        others = _bytes(engine)
        (victim,) = registry.current([VICTIM])
        _ask(engine, [victim])
        assert all(now > before for now, before in zip(_bytes(engine), others, strict=True))
        engine.drop_adapter(victim.digest)
        wait_until(lambda: _bytes(engine) == others, 1)


def test_bytes_are_free_within_a_second_when_batches_of_others_run(registry: Registry) -> None:
    with engine_of(registry, host_adapter_bytes=ROOMY, device_adapter_bytes=ROOMY) as engine:
        _ask(engine, registry.current(OTHERS))
        others = _bytes(engine)
        (victim,) = registry.current([VICTIM])
        with _load(engine, registry.current(OTHERS)) as answered:
            for _ in range(5):
                _ask(engine, [victim])
                engine.drop_adapter(victim.digest)
                wait_until(lambda: _bytes(engine) == others, 1)
            _wait_for_more(answered)


def test_batches_end_well_and_leave_no_bytes_when_their_own_adapter_is_dropped_under_way(registry: Registry) -> None:
    with engine_of(registry, host_adapter_bytes=ROOMY, device_adapter_bytes=ROOMY) as engine:
        revisions = registry.current(range(12))
        with _load(engine, revisions) as answered:
            for turn in range(300):
                engine.drop_adapter(revisions[turn % 12].digest)
                if turn % 30 == 0:
                    _wait_for_more(answered)
        for revision in revisions:
            engine.drop_adapter(revision.digest)
        wait_until(lambda: _bytes(engine) == (0, 0), 1)
