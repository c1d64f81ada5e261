"""Fine-tuning jobs go to the queue in fair order, so many at a time."""

from __future__ import annotations

import pytest

from hmi.catalog import Database, Tenant, fine_tuning
from tests.integration.catalog.seeding import add_base, add_tenant, race
from tests.integration.catalog.training_seeding import add_job, queue_jobs, row


@pytest.fixture(autouse=True)
def base(database: Database) -> None:
    add_base(database)


def serve(database: Database, tenants: dict[str, Tenant], count: int) -> str:
    """Dispatch and end one job after the other; the first letters of their tenants."""
    letters = {tenant.id: name for name, tenant in tenants.items()}
    served = ""
    for _ in range(count):
        (message,) = queue_jobs(database, in_flight=1)
        job = row(database, message.job_id)
        served += letters[job.tenant_id]
        with database.session() as session:
            fine_tuning.cancel_job(session, job.tenant_id, job.id)
    return served


def test_one_job_does_not_wait_behind_many_when_submitted_later(database: Database) -> None:
    tenants = {name: add_tenant(database, name) for name in "ab"}
    for _ in range(5):
        add_job(database, tenants["a"])
    assert serve(database, tenants, 2) == "aa"
    add_job(database, tenants["b"])
    assert "b" in serve(database, tenants, 2)


def test_tenants_are_served_by_weight_and_cost(database: Database) -> None:
    tenants = {"h": add_tenant(database, "heavy", weight=3), "l": add_tenant(database, "light")}
    for tenant in tenants.values():
        for _ in range(12):
            add_job(database, tenant)
    assert serve(database, tenants, 12).count("h") == 9
    large = {"x": add_tenant(database, "x"), "y": add_tenant(database, "y")}
    for _ in range(8):
        add_job(database, large["x"], cost=1000)
        add_job(database, large["y"], cost=4000)
    served = serve(database, tenants | large, 20)
    assert served.count("x") > 2 * served.count("y")


def test_no_more_are_in_flight_than_allowed_when_many_dispatch(database: Database) -> None:
    acme = add_tenant(database)
    for _ in range(6):
        add_job(database, acme)
    found = race([lambda: queue_jobs(database, in_flight=2)] * 4)
    assert sum(len(each) for each in found if isinstance(each, list)) == 2
    assert queue_jobs(database, in_flight=2) == []
    assert len(queue_jobs(database, in_flight=3)) == 1
