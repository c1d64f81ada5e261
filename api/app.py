"""`create_app(settings)`: the application, which reads nothing from the environment."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from api import bases, batches, domains, files, fine_tuning, models, operations, tenants, trees
from api.errors import install_error_handlers
from api.middleware import RequestContext
from api.services import Services
from hmi.settings import Settings

_BODY_BYTES = 1024**2  # of requests that carry no file
_FORM_BYTES = 1024**2  # a form's fields and borders, beside its files
_TEXTS_BYTES = 32 * 1024**2  # texts to count
_ASSETS = "/docs/assets"

_DESCRIPTION = """\
Multi-tenant inference for fine-tuned language models: one base model on the device, thousands of tenants' adapters.

* **Files**, **Batches**, **Fine-tuning** and **Models** follow OpenAI's API; the `openai` client works unchanged.
* Lines of a batch go to `/v1/classify` (vLLM's shape), or to `/v1/embeddings`, `/v1/completions` or
  `/v1/chat/completions` (OpenAI's).
* **Administration** under `/v1/hmi/` needs an admin key, except for a tenant's own models, domains and deltas.

Every error is `{"error": {"message", "type", "param", "code"}}`, and every answer carries `x-request-id`.
"""


def create_app(settings: Settings) -> FastAPI:
    """Build the application, whose start fails where the catalog is not migrated."""
    services = Services.from_settings(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await run_in_threadpool(services.prepare)
            yield
        finally:
            await run_in_threadpool(services.close)

    app = FastAPI(
        title="HMI",
        version="1",
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.services = services
    app.add_middleware(RequestContext)
    install_error_handlers(app)
    _include_routers(app, settings)
    if settings.docs:
        _add_docs(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _include_routers(app: FastAPI, settings: Settings) -> None:
    """Each router has a body limit: the application's own would answer outside of the middleware."""
    for router, max_bytes in (
        (files.router, settings.max_file_bytes + _FORM_BYTES),
        (batches.router, _BODY_BYTES),
        (fine_tuning.router, _BODY_BYTES),
        (models.router, _BODY_BYTES),
        (tenants.router, _BODY_BYTES),
        (tenants.own_router, _BODY_BYTES),
        (domains.router, _BODY_BYTES),
        (domains.audiences_router, _BODY_BYTES),
        (bases.router, settings.max_base_bytes + _FORM_BYTES),
        (models.registration_router, settings.max_adapter_bytes + _FORM_BYTES),
        (domains.deltas_router, settings.max_adapter_bytes + _FORM_BYTES),
        (trees.router, _BODY_BYTES),
        (trees.ngrams_router, _BODY_BYTES),
        (trees.top_router, _BODY_BYTES),
        (domains.frequencies_router, _TEXTS_BYTES),
        (operations.nodes_router, _BODY_BYTES),
        (operations.health_router, _BODY_BYTES),
    ):
        app.include_router(router, max_body_size=max_bytes)


def _add_docs(app: FastAPI) -> None:
    """Serve Swagger UI with its assets from here, so that it needs no other host."""
    app.mount(_ASSETS, StaticFiles(packages=[("fastapi_offline", "static")]))

    @app.get("/docs", include_in_schema=False)
    async def show_docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=app.openapi_url or "",
            title=app.title,
            swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{_ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{_ASSETS}/favicon.png",
            swagger_ui_parameters={"docExpansion": "list", "defaultModelsExpandDepth": 0, "persistAuthorization": True},
        )


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description without the 422 answers that it adds: HMI's are 400 in the envelope."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for operations in schema["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        schema.get("components", {}).get("schemas", {}).pop("HTTPValidationError", None)
        schema.get("components", {}).get("schemas", {}).pop("ValidationError", None)
        app.openapi_schema = schema
    return app.openapi_schema
