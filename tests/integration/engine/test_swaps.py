"""Ten thousand swaps under load: no answer is stale, none is another tenant's."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.engine.tenants import Registry, assert_own_answers, engine_of, items_for
from tests.numbered_adapters import MAX_NUMBER
from tests.waiting import wait_until

SWAPS = 10_000
TENANTS = 200
THREADS = 4


@pytest.mark.slow
def test_every_answer_is_the_asked_revisions_own_when_adapters_are_swapped_and_replaced_under_load(
    tmp_path: Path,
) -> None:
    registry = Registry(tmp_path, TENANTS)
    adapter_bytes = max(revision.bytes for revision in registry.revisions)
    # A dozen of 200 tenants on the device, sixty in host memory: nearly every row brings its adapter along.
    with engine_of(registry, host_adapter_bytes=60 * adapter_bytes, device_adapter_bytes=12 * adapter_bytes) as engine:

        def submit(seed: int) -> None:
            rng = random.Random(seed)
            while engine.stats().on_device.evictions < SWAPS:
                revisions = registry.current([rng.randrange(TENANTS) for _ in range(32)])
                answers = engine.submit(items_for(revisions, rng))
                if rng.random() < 0.5:  # while these wait or run
                    engine.drop_adapter(registry.replace(revisions[0].tenant).digest)
                assert_own_answers(revisions, answers.result(60))

        with ThreadPoolExecutor(THREADS) as pool:
            for done in [pool.submit(submit, seed) for seed in range(THREADS)]:
                done.result(240)

        stats = engine.stats()
        assert stats.on_device.evictions >= SWAPS
        assert stats.host.evictions > SWAPS / 10
        assert TENANTS < len(registry.revisions) < MAX_NUMBER
        assert stats.on_device.bytes <= stats.on_device.budget_bytes
        assert stats.host.bytes <= stats.host.budget_bytes
        for revision in registry.revisions:
            engine.drop_adapter(revision.digest)
        wait_until(lambda: engine.stats().host.bytes == 0 and engine.stats().on_device.bytes == 0, 1)
