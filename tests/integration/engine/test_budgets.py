"""A tier never exceeds its budget, whatever is requested and dropped."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmi.adapters.tiers.eviction import EvictionPolicy
from hmi.engine import Engine
from hmi.items import Outcome
from tests.integration.engine.tenants import Registry, Revision, assert_own_answers, engine_of, items_for

TENANTS = 24


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(tmp_path_factory.mktemp("tenants"), TENANTS)


@contextmanager
def _peaks() -> Iterator[list[tuple[int, int]]]:
    """(used, capacity) after everything that was let in during the block, between two looks at the stats too."""
    seen: list[tuple[int, int]] = []
    admit = EvictionPolicy.admit

    def watched(ledger: EvictionPolicy, key: str, size: int) -> list[str]:
        evicted = admit(ledger, key, size)
        seen.append((ledger.used, ledger.capacity))
        return evicted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EvictionPolicy, "admit", watched)
        yield seen


def _assert_within_budgets(engine: Engine, host: int, device: int) -> None:
    stats = engine.stats()
    assert 0 <= stats.host.bytes <= stats.host.budget_bytes <= host
    assert 0 <= stats.on_device.bytes <= stats.on_device.budget_bytes <= device


SUBMIT = st.lists(st.integers(0, TENANTS - 1), min_size=1, max_size=20)
STEPS = st.lists(st.one_of(SUBMIT, st.integers(0, TENANTS - 1)), min_size=1, max_size=25)


@settings(max_examples=25, deadline=None)
@given(steps=STEPS, host=st.integers(1, TENANTS + 4), device=st.integers(1, TENANTS + 4), seed=st.integers(0, 99))
def test_tiers_stay_within_their_budgets_when_jobs_and_drops_are_mixed(
    registry: Registry, steps: list[list[int] | int], host: int, device: int, seed: int
) -> None:
    """A list of tenants is a job over their models, a number is the one to drop; budgets count in largest adapters."""
    rng = random.Random(seed)
    row = max(revision.bytes for revision in registry.revisions) + 2048  # packed rows are filled up to the width
    running: list[tuple[list[Revision], Future[list[Outcome]]]] = []
    with (
        _peaks() as peaks,
        engine_of(registry, host_adapter_bytes=host * row, device_adapter_bytes=device * row) as engine,
    ):
        for step in steps:
            if isinstance(step, int):
                engine.drop_adapter(registry.current([step])[0].digest)
            else:
                asked = registry.current(step)
                running.append((asked, engine.submit(items_for(asked, rng))))
            _assert_within_budgets(engine, host * row, device * row)
        for asked, answers in running:
            assert_own_answers(asked, answers.result(60))
            _assert_within_budgets(engine, host * row, device * row)
    assert all(used <= capacity for used, capacity in peaks)
    assert bool(peaks) == bool(running)
