"""/healthz and /readyz, for supervisors: no key, no details."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import structlog
from fastapi import APIRouter, Response

from api.dependencies import Served
from api.schemas.operations import Health, Readiness
from api.services import Services
from hmi.catalog import is_schema_current
from hmi.errors import HmiError, Transient
from hmi.jobs import ping

__all__ = ["router"]

_log = structlog.get_logger(__name__)

router = APIRouter(tags=["Health"])


@router.get("/healthz", summary="Is the process alive?")
async def check_health() -> Health:
    """Yes, if this answers."""
    return Health()


@router.get(
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


def _check_migrations(services: Services) -> None:
    if not is_schema_current(services.database):
        raise Transient("the catalog's tables are missing or old; run `hmi db upgrade`")


def _check_storage(services: Services) -> None:
    """Write, since a full disk still reads."""
    path = f"health/{secrets.token_hex(8)}"
    with services.storage.create(path) as file:
        file.write(b"ok")
    services.storage.delete(path)


_CHECKS: dict[str, Callable[[Services], None]] = {
    "database": lambda services: services.database.ping(),
    "migrations": _check_migrations,
    "broker": lambda services: ping(services.broker),
    "storage": _check_storage,
}
