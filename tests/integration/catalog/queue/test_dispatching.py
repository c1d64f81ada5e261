"""Shards go to the queue in fair order."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from hmi.catalog import Database, JobMessage, JobState, Tenant
from hmi.catalog.batches import cancel_batch
from hmi.catalog.queue.shards import dispatch
from tests.integration.catalog.seeding import add_batch, add_tenant, queue, race, run_all, shard


def _owners(database: Database, messages: list[JobMessage]) -> list[str]:
    return [shard(database, message.job_id).tenant_id for message in messages]


def _serve(database: Database, count: int, lines: int = 10) -> list[str]:
    """Dispatch and run one shard after the other; whose they were."""
    served = []
    for _ in range(count):
        messages = queue(database, in_flight=1)
        served += _owners(database, messages)
        run_all(database, messages, lines=lines)
    return served


def test_two_shards_do_not_wait_behind_a_thousand_when_submitted_later(database: Database) -> None:
    big, small = add_tenant(database, "big"), add_tenant(database, "small")
    add_batch(database, big, shard_count=1000)
    add_batch(database, small, shard_count=2)
    messages = queue(database, in_flight=4)
    assert _owners(database, messages) == [big.id, small.id, big.id, small.id]


def test_two_shards_are_next_when_the_queue_was_full_of_another_tenants(database: Database) -> None:
    big = add_tenant(database, "big")
    add_batch(database, big, shard_count=100)
    run_all(database, queue(database, in_flight=40))
    small = add_tenant(database, "small")
    add_batch(database, small, shard_count=2)
    assert _serve(database, 4).count(small.id) == 2


def test_a_batch_is_run_in_order_when_alone(database: Database) -> None:
    acme = add_tenant(database)
    first, second = add_batch(database, acme, shard_count=3), add_batch(database, acme, shard_count=2)
    found = [shard(database, message.job_id) for message in queue(database)]
    expected = [(first.id, 0), (first.id, 10), (first.id, 20), (second.id, 0), (second.id, 10)]
    assert [(each.batch_id, each.first_line) for each in found] == expected


def test_tenants_are_served_by_weight_when_all_have_work(database: Database) -> None:
    heavy, light = add_tenant(database, "heavy", weight=3), add_tenant(database, "light", weight=1)
    for tenant in (heavy, light):
        add_batch(database, tenant, shard_count=40)
    served = Counter(_serve(database, 40))
    assert served == {heavy.id: 30, light.id: 10}


def test_a_tenant_has_saved_up_nothing_when_it_was_idle(database: Database) -> None:
    busy, idle = add_tenant(database, "busy"), add_tenant(database, "idle")
    add_batch(database, busy, shard_count=40)
    _serve(database, 20)
    add_batch(database, idle, shard_count=40)
    served = Counter(_serve(database, 20))
    assert abs(served[busy.id] - served[idle.id]) <= 1


def test_a_tenant_owes_nothing_when_it_was_alone(database: Database) -> None:
    early, late = add_tenant(database, "early"), add_tenant(database, "late")
    add_batch(database, early, shard_count=20)
    _serve(database, 20)
    add_batch(database, late, shard_count=20)
    _serve(database, 10)
    add_batch(database, early, shard_count=20)
    served = Counter(_serve(database, 10))
    assert abs(served[early.id] - served[late.id]) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_no_tenant_runs_ahead_of_another_when_both_have_work(database: Database, seed: int) -> None:
    """The bound of the method: |served / weight| of two tenants with work differs by a shard of each at most."""
    chance = random.Random(seed)
    lines = 8
    weights = [chance.randint(1, 5) for _ in range(4)]
    tenants: list[Tenant] = [add_tenant(database, f"t{i}", weight=weight) for i, weight in enumerate(weights)]
    costs = {tenant.id: chance.choice([lines, 20 * lines]) for tenant in tenants}
    for tenant in tenants:
        add_batch(database, tenant, shard_count=40, lines=lines, cost=costs[tenant.id])
    served = dict.fromkeys(costs, 0)
    for _ in range(30):
        for owner in _serve(database, 1, lines=lines):
            served[owner] += costs[owner]
        shares = [(served[t.id] / weight, costs[t.id] / weight) for t, weight in zip(tenants, weights, strict=True)]
        for one, one_shard in shares:
            for other, other_shard in shares:
                assert abs(one - other) <= one_shard + other_shard + 1e-9


def test_so_many_are_in_flight_when_dispatched_again_and_again(database: Database) -> None:
    add_batch(database, add_tenant(database), shard_count=10)
    first = queue(database, in_flight=4)
    assert len(first) == 4
    assert queue(database, in_flight=4) == []
    assert queue(database, in_flight=3) == []
    run_all(database, first[:1])
    assert len(queue(database, in_flight=4)) == 1


def test_a_shard_is_queued_once_when_dispatches_race(database: Database) -> None:
    add_batch(database, add_tenant(database), shard_count=30)
    outcomes = race([lambda: queue(database, in_flight=12)] * 4)
    messages = [message for outcome in outcomes if isinstance(outcome, list) for message in outcome]
    assert len(messages) == len({message.job_id for message in messages}) == 12
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]


def test_a_dispatch_waits_when_another_has_not_committed(database: Database) -> None:
    add_batch(database, add_tenant(database))
    with ThreadPoolExecutor(1) as pool:
        with database.session() as session:
            assert dispatch(session, in_flight=0) == []
            second = pool.submit(queue, database)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.5)
        assert len(second.result(timeout=30)) == 2


def test_a_cancelled_batchs_shards_are_never_queued_when_dispatch_races(database: Database) -> None:
    acme = add_tenant(database)
    for _ in range(5):
        batch = add_batch(database, acme, shard_count=5)

        def cancel(batch_id: str = batch.id) -> list[JobMessage]:
            with database.session() as session:
                cancel_batch(session, acme.id, batch_id)
            return []

        outcomes = race([cancel, lambda: queue(database)])
        assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        messages = [message for outcome in outcomes if isinstance(outcome, list) for message in outcome]
        assert {shard(database, message.job_id).state for message in messages} <= {JobState.DROPPED}
        assert queue(database) == []
