"""Who is asking, and the services to answer with.

Authentication is part of the route, not a dependency: FastAPI reads a request's whole body before it
solves dependencies, and a stranger must not be able to have gigabytes written to our disk.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import structlog
from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from api.services import Services
from hmi.catalog import Principal, tenants
from hmi.errors import Forbidden, Unauthenticated

__all__ = ["AdminRoute", "AuthenticatedRoute", "Caller", "Served", "bearer"]

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

# Only for the OpenAPI description and the "Authorize" button; the routes below do the looking.
bearer = HTTPBearer(auto_error=False, scheme_name="API key", description="`Authorization: Bearer hmi_...`")


class AuthenticatedRoute(APIRoute):
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
        """Raises `Forbidden` where the key is not for this route."""


class AdminRoute(AuthenticatedRoute):
    """For admin keys alone."""

    def check_role(self, principal: Principal) -> None:
        if not principal.is_admin:
            raise Forbidden("this needs an admin key")


def _authenticate(request: Request) -> Principal:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthenticated("send your API key in the header `Authorization: Bearer <key>`", code="missing_api_key")
    services: Services = request.app.state.services
    with services.database.session(read_only=True) as session:
        return tenants.authenticate(session, key.strip())


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


Served = Annotated[Services, Depends(_services)]
Caller = Annotated[Principal, Depends(_principal)]
