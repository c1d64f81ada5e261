"""Tables and counts of a domain are not used for a wider audience than they came from, nor for another domain."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import delete, func, select

from hmi.catalog import OPERATOR, Audience, Principal, Role, audiences, domains, execute_dml, tenants
from hmi.catalog.registry.domains import DomainView
from hmi.catalog.schema import Domain, FrequencyPlace, NgramFrequency
from tests.rebuilding import base_artifact, count
from tests.worksite import Worksite
from worker.runtime import Runtime
from worker.trees import rebuild


@pytest.fixture
def site(site: Worksite) -> Worksite:
    """The domain `clinics` of acme and beta, and another tenant; acme is there already."""
    for name in ("beta", "other"):
        site.add_tenant(name)
    with site.database.session() as session:
        domains.create_domain(session, "clinics", tenants=["acme", "beta"])
    return site


def change(site: Worksite, call: Callable[..., DomainView], *arguments: object) -> None:
    with site.database.session() as session:
        operator = tenants.get_tenant(session, OPERATOR)
        call(session, Principal(operator.id, OPERATOR, Role.ADMIN, ""), "clinics", *arguments)


def entries(site: Worksite, runtime: Runtime) -> int:
    """The n-grams of the table that a refreshed worker uses for `clinics`."""
    runtime.load_bases()
    runtime.refresh_trees()
    table = runtime.source.tree(base_artifact(site)).tables.get("clinics")
    return 0 if table is None else len(table.keys)


def stored(site: Worksite) -> int:
    with site.database.session(read_only=True) as session:
        return session.scalars(select(func.count()).select_from(NgramFrequency)).one()


@pytest.mark.parametrize(
    ("call", "arguments"),
    [(audiences.allow, ("other",)), (audiences.set_audience, (Audience.PUBLIC,))],
    ids=["allow", "public"],
)
def test_a_domain_starts_anew_when_its_audience_becomes_wider(
    site: Worksite, runtime: Runtime, call: Callable[..., DomainView], arguments: tuple[object, ...]
) -> None:
    count(site, "clinics", [5, 9, 20])
    rebuild(runtime, "base")
    held = entries(site, runtime)
    assert held >= 3
    change(site, call, *arguments)
    assert entries(site, runtime) == 0  # at once, not with the next build
    rebuild(runtime, "base")
    assert entries(site, runtime) == 0
    assert stored(site) == 0
    count(site, "clinics", [5, 9, 20])
    rebuild(runtime, "base")
    assert entries(site, runtime) >= 3


def test_a_domain_keeps_its_table_when_its_audience_becomes_narrower(site: Worksite, runtime: Runtime) -> None:
    count(site, "clinics", [5, 9, 20])
    rebuild(runtime, "base")
    held = entries(site, runtime)
    change(site, audiences.deny, "beta")
    assert entries(site, runtime) == held
    rebuild(runtime, "base")
    assert entries(site, runtime) == held


def test_a_table_is_not_used_for_a_new_domain_of_the_same_name(site: Worksite, runtime: Runtime) -> None:
    count(site, "clinics", [5, 9, 20])
    rebuild(runtime, "base")
    assert entries(site, runtime) >= 3
    with site.database.session() as session:
        execute_dml(session, delete(FrequencyPlace))
        execute_dml(session, delete(Domain).where(Domain.name == "clinics"))
        domains.create_domain(session, "clinics", tenants=["other"])
    assert entries(site, runtime) == 0
