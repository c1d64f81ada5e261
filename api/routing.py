"""Routers for tenants and for administrators, and what their endpoints are given: the services and the caller.

Authentication is part of the route, not a dependency: FastAPI reads a request's whole body before it solves
dependencies, and without a key no gigabytes may be written to the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from api.services import Services
from hmi.catalog import Principal, tenants
from hmi.errors import Forbidden, Unauthenticated
from hmi.schemas import ErrorResponse

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

# Only for the OpenAPI description and the "Authorize" button; the routes below check the key.
_bearer = HTTPBearer(auto_error=False, scheme_name="API key", description="`Authorization: Bearer hmi_...`")

_MEANINGS = {
    400: "The request cannot be understood.",
    401: "No API key, or one that is unknown, expired or revoked.",
    403: "The key is valid, but does not permit this.",
    404: "It does not exist, or it is another tenant's: the same answer.",
    409: "It exists already, or its state does not allow this. Clients must not retry.",
    413: "The body is larger than the server accepts.",
    429: "A quota is full. Retry after `retry-after` seconds.",
    503: "A required service does not answer. Retry after `retry-after` seconds.",
    507: "The storage is full.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of an operation that may fail with these; 400 and 503 are always among them."""
    return {
        status: {"model": ErrorResponse, "description": _MEANINGS[status]} for status in sorted({400, 503, *statuses})
    }


class _TenantRoute(APIRoute):
    """Checks the API key before anything of the body is read."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            principal = await run_in_threadpool(_authenticate, request)
            self.check_role(principal)
            request.state.principal = principal
            structlog.contextvars.bind_contextvars(tenant=principal.tenant_name, key_id=principal.key_id)
            return await handle(request)

        return guarded

    def check_role(self, principal: Principal) -> None:
        """Raises `Forbidden` where the key does not permit this route."""


class _AdminRoute(_TenantRoute):
    def check_role(self, principal: Principal) -> None:
        if not principal.is_admin:
            raise Forbidden("this needs an admin key")


def tenant_router(prefix: str, tag: str) -> APIRouter:
    """A router for every API key."""
    return APIRouter(
        prefix=prefix, tags=[tag], route_class=_TenantRoute, dependencies=[Depends(_bearer)], responses=errors(401)
    )


def admin_router(prefix: str, tag: str) -> APIRouter:
    """A router for admin keys alone."""
    return APIRouter(
        prefix=prefix,
        tags=[f"Administration: {tag}"],
        route_class=_AdminRoute,
        dependencies=[Depends(_bearer)],
        responses=errors(401, 403),
    )


def _authenticate(request: Request) -> Principal:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthenticated("send your API key in the header `Authorization: Bearer <key>`", code="missing_api_key")
    services: Services = request.app.state.services
    with services.database.session(read_only=True) as session:
        return tenants.authenticate(session, key.strip())


async def _services(request: Request) -> Services:
    """Those of the application; a tenant's endpoints get no other database than that tenant's."""
    services: Services = request.app.state.services
    principal: Principal | None = getattr(request.state, "principal", None)
    return services if principal is None or principal.is_admin else services.for_tenant(principal.tenant_id)


async def _unconfined(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


Served = Annotated[Services, Depends(_services)]
# For an endpoint that must look into rows of other tenants, and shows none of them.
Unconfined = Annotated[Services, Depends(_unconfined)]
Caller = Annotated[Principal, Depends(_principal)]
After = Annotated[str | None, Query(description="Last id of the page before.", max_length=64)]
Limit = Annotated[int, Query(ge=1, le=100)]
