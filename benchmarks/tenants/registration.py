"""Registrations of tenants and their models in the catalog, timed one by one."""

from __future__ import annotations

import secrets
import statistics
import time
from pathlib import Path
from typing import Any

from hmi.spec import HPLMSpec, MissPolicy

WINDOW = 500  # registrations at either end that the medians are taken over

_SUMMARY: dict[str, Any] = {
    "kind": "lora",
    "rank": 8,
    "ranks": [8],
    "layers": [6, 7, 8, 9, 10, 11],
    "sites": ["q", "v"],
    "placement": None,
    "activation": None,
    "bytes": 596_000,
    "labels": ["negative", "positive"],
    "multi_label": False,
    "pooling": "mean",
    "transform": "none",
}


def measure_registrations(url: str, spec: HPLMSpec, count: int) -> list[float]:
    """Seconds of each registration in three transactions, as the API does one: a tenant, look-ups, a model.

    The database gets the newest schema and keeps what is registered, so it should be one made for this.
    """
    from hmi.catalog import GENERAL, Database, bases, domains, models, tenants, upgrade_schema  # noqa: PLC0415 - needs packages that engines do without

    upgrade_schema(url)
    database = Database(url)
    run = secrets.token_hex(4)
    base, artifact = f"bench-{run}", secrets.token_hex(32)
    seconds = []
    try:
        with database.session() as session:
            bases.register_base(session, base, artifact, spec)
        for number in range(count):
            name = f"bench-{run}-{number}"
            begin = time.perf_counter()
            with database.session() as session:
                tenants.create_tenant(session, name)
            with database.session(read_only=True) as session:
                tenant_id = tenants.get_tenant(session, name).id
                bases.get_base(session, base)
                domains.get_domain(session, GENERAL)
            with database.session() as session:
                models.register_model(
                    session,
                    tenant_id,
                    "sentiment",
                    base=base,
                    domain=GENERAL,
                    miss_policy=MissPolicy.EXACT,
                    artifact=secrets.token_hex(32),
                    summary=_SUMMARY,
                )
            seconds.append(time.perf_counter() - begin)
    finally:
        database.dispose()
    return seconds


def report_registrations(folder: Path, url: str | None, spec: HPLMSpec, count: int) -> dict[str, Any]:
    """Medians of the first and the last registrations, in milliseconds, and their ratio; by default with SQLite."""
    try:
        seconds = measure_registrations(url or f"sqlite:///{folder / 'catalog.db'}", spec, count)
    except ModuleNotFoundError as error:
        return {"skipped": f"the catalog needs the package {error.name}", "last_over_first": None}
    window = min(WINDOW, count // 2)
    first, last = statistics.median(seconds[:window]), statistics.median(seconds[-window:])
    return {
        "database": (url or "sqlite").partition(":")[0],
        "registrations": count,
        "window": window,
        "first_ms": round(1e3 * first, 3),
        "last_ms": round(1e3 * last, 3),
        "last_over_first": round(last / first, 3),
    }
