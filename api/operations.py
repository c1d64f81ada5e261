"""/healthz and /readyz for supervisors, without a key and without details; /v1/hmi/nodes for administrators."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Response

from api.routing import Served, admin_router
from api.services import Services
from hmi.catalog import nodes
from hmi.errors import HmiError
from hmi.jobs import ping
from hmi.schemas import Health, Listing, NodeObject, Readiness

_log = structlog.get_logger(__name__)

health_router = APIRouter(tags=["Health"])
nodes_router = admin_router("/v1/hmi/nodes", "operation")


@nodes_router.get("", summary="List worker nodes")
def list_nodes(
    services: Served,
    seen_within_seconds: Annotated[
        float, Query(gt=0, le=30 * 24 * 3600, description="Nodes without a report for longer are left out.")
    ] = 120,
) -> Listing[NodeObject]:
    """Worker processes that reported lately, with the figures of their engines."""
    with services.database.session(read_only=True) as session:
        rows = nodes.list_nodes(session, seen_within_seconds)
    return Listing(data=[NodeObject.model_validate(row) for row in rows])


@health_router.get("/healthz", summary="Is the process alive?")
async def check_health() -> Health:
    """Answers while the process is alive."""
    return Health()


@health_router.get(
    "/readyz", summary="Can requests be served?", responses={503: {"model": Readiness, "description": "Not now."}}
)
def check_readiness(services: Served, response: Response) -> Readiness:
    """Database, migrations, broker and storage, each tried now."""
    checks = {name: _outcome(name, check, services) for name, check in _CHECKS.items()}
    is_ready = all(outcome == "ok" for outcome in checks.values())
    if not is_ready:
        response.status_code = 503
    return Readiness(status="ready" if is_ready else "not_ready", checks=checks)


def _outcome(name: str, check: Callable[[Services], None], services: Services) -> str:
    try:
        check(services)
    except (HmiError, OSError) as error:
        _log.warning("not_ready", check=name, error=str(error))
        return "unavailable"
    return "ok"


def _check_storage(services: Services) -> None:
    """Write, since a full disk still reads."""
    path = f"health/{secrets.token_hex(8)}"
    with services.storage.create(path) as file:
        file.write(b"ok")
    services.storage.delete(path)


_CHECKS: dict[str, Callable[[Services], None]] = {
    "database": lambda services: services.database.ping(),
    "migrations": Services.check_schema,
    "broker": lambda services: ping(services.broker),
    "storage": _check_storage,
}
