"""The API on PostgreSQL: every statement of a tenant's request runs as the role that sees that tenant's rows alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import Connection, event, make_url

from hmi.adapters.formats import FILE_NAME
from hmi.catalog import Audience, Database, domains
from hmi.settings import Settings
from tests.apis import Api, batch_line, run_api
from tests.published_trees import delta_file
from tests.unit.api.test_isolation import *  # noqa: F403 - its tests, on PostgreSQL
from tests.unit.api.test_isolation import OPEN, routes
from tests.unit.api.tuning import BASE, add_base, tune

# Decisions of a domain's owner on the rows of several tenants, which the catalog checks.
UNCONFINED = {
    ("PUT", "/v1/hmi/domains/{name}/audience"),
    ("PUT", "/v1/hmi/domains/{name}/tenants/{tenant}"),
    ("DELETE", "/v1/hmi/domains/{name}/tenants/{tenant}"),
}

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


class Statements:
    """The statements of tenants' requests after authentication, with the role and the tenant that they ran as."""

    def __init__(self, database: Database) -> None:
        self.confined = 0
        self.others: list[str] = []
        event.listen(database.engine, "before_cursor_execute", self._note)

    def _note(self, connection: Connection, cursor: Any, statement: str, *rest: object) -> None:
        # The route binds the tenant for the logs when the key is known.
        if structlog.contextvars.get_contextvars().get("tenant") in (None, "operator"):
            return
        if statement.startswith("SELECT set_config('role',"):
            return
        cursor.execute("SELECT current_user, current_setting('hmi.tenant_id', true)")
        role, tenant_id = cursor.fetchone()
        if role == "hmi_tenant" and tenant_id.startswith("tenant_"):
            self.confined += 1
        else:
            self.others.append(f"{role}: {statement}")


@pytest.fixture
def statements(api: Api) -> Statements:
    return Statements(api.services.database)


def settings_of(database_url: str, folder: Path) -> Settings:
    return Settings(
        _env_file=None,
        data_dir=folder,
        database_url=database_url,
        broker_url=SecretStr("memory://"),
        max_queued_lines_per_tenant=100,
    )


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    with run_api(settings_of(database_url, tmp_path)) as api:
        yield api


def test_every_route_of_tenants_runs_its_statements_as_their_role(
    api: Api, statements: Statements, tmp_path: Path
) -> None:
    add_base(api)
    with api.services.database.session() as session:
        domains.create_domain(session, "vault", owner="acme", audience=Audience.PRIVATE)
        domains.create_domain(session, "clinics", owner="acme", tenants=["acme"])
    delta = [("files", (FILE_NAME, delta_file(tmp_path).read_bytes()))]
    job = tune(api)
    batch = {"input_file_id": api.upload(batch_line()), "endpoint": "/v1/embeddings", "completion_window": "24h"}
    ids = {
        "file_id": api.upload(batch_line()),
        "batch_id": api.submit(batch_line()),
        "fine_tuning_job_id": job.id,
        "model": "acme/sentiment",
        "name": "acme/sentiment",
        "base": "tiny",
        "domain": "vault",
        "tenant": "rival",
    }
    requests: dict[tuple[str, str], dict[str, Any]] = {
        ("POST", "/v1/files"): {"data": {"purpose": "batch"}, "files": {"file": ("in.jsonl", batch_line())}},
        ("GET", "/v1/files"): {},
        ("GET", "/v1/files/{file_id}"): {},
        ("GET", "/v1/files/{file_id}/content"): {},
        ("DELETE", "/v1/files/{file_id}"): {},
        ("POST", "/v1/batches"): {"json": batch},
        ("GET", "/v1/batches"): {},
        ("GET", "/v1/batches/{batch_id}"): {},
        ("POST", "/v1/batches/{batch_id}/cancel"): {},
        ("POST", "/v1/fine_tuning/jobs"): {"json": {"model": BASE, "training_file": job.training_file}},
        ("GET", "/v1/fine_tuning/jobs"): {},
        ("GET", "/v1/fine_tuning/jobs/{fine_tuning_job_id}"): {},
        ("GET", "/v1/fine_tuning/jobs/{fine_tuning_job_id}/events"): {},
        ("GET", "/v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints"): {},
        ("POST", "/v1/fine_tuning/jobs/{fine_tuning_job_id}/cancel"): {},
        ("GET", "/v1/models"): {},
        ("GET", "/v1/models/{model}"): {},
        ("POST", "/v1/hmi/models"): {"data": {"name": "new", "base": "tiny", "domain": "reviews"}},
        ("GET", "/v1/hmi/models"): {},
        ("GET", "/v1/hmi/models/{name}"): {},
        ("DELETE", "/v1/hmi/models/{name}"): {},
        ("GET", "/v1/hmi/tenant"): {},
        ("PATCH", "/v1/hmi/tenant"): {"json": {"counts": "none"}},
        ("GET", "/v1/hmi/domains"): {},
        ("GET", "/v1/hmi/domains/{name}"): {},
        ("PUT", "/v1/hmi/domains/{name}/tenants/{tenant}"): {},
        ("DELETE", "/v1/hmi/domains/{name}/tenants/{tenant}"): {},
        ("PUT", "/v1/hmi/domains/{name}/audience"): {"json": {"audience": "public"}},
        ("POST", "/v1/hmi/deltas"): {"data": {"base": "tiny", "domain": "vault"}, "files": delta},
        ("GET", "/v1/hmi/deltas"): {},
        ("GET", "/v1/hmi/deltas/{base}/{domain}"): {},
        ("POST", "/v1/hmi/deltas/{base}/{domain}/publish"): {},
        ("DELETE", "/v1/hmi/deltas/{base}/{domain}"): {},
        ("GET", "/v1/hmi/trees/{base}/top"): {"params": {"domain": "vault"}},
    }
    with api.http("acme") as http:
        for (method, path), body in requests.items():
            before = statements.confined
            named = ids | ({"name": "clinics"} if "/domains/" in path else {})
            answer = http.request(method, path.format(**named), **body)
            assert answer.status_code == 200, (method, path, answer.text)
            if (method, path) in UNCONFINED:
                statements.others.clear()
            else:
                assert statements.confined > before, (method, path)
                assert statements.others == [], (method, path)
        known = {(method, path.replace("{", "").replace("}", "")) for method, path in requests}
        for method, path in routes(api):
            if path not in OPEN and (method, path) not in known:
                refused = http.request(method, path)
                assert refused.status_code == 403, f"{method} {path} serves tenants: add a request to this test"
    assert statements.others == []


def test_tenants_are_served_when_the_apis_user_does_not_own_the_tables(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE ROLE hmi_server LOGIN")
        for statement in re.findall(r"^GRANT .* TO hmi_server\b.*;$", OPERATIONS.read_text(), re.MULTILINE):
            connection.exec_driver_sql(statement)
    url = make_url(database_url).set(username="hmi_server").render_as_string(hide_password=False)
    try:
        with run_api(settings_of(url, tmp_path)) as api:
            statements = Statements(api.services.database)
            assert api.submit(batch_line())
            assert statements.confined > 0
            assert statements.others == []
            with api.http() as http:
                assert http.get("/readyz").json()["checks"]["migrations"] == "ok"
                assert http.delete("/v1/hmi/tenants/acme").status_code == 200
    finally:
        with database.engine.begin() as connection:
            connection.exec_driver_sql("DROP OWNED BY hmi_server")
            connection.exec_driver_sql("DROP ROLE hmi_server")


def test_a_statement_outside_the_role_is_found(api: Api, statements: Statements) -> None:
    with structlog.contextvars.bound_contextvars(tenant="acme"):
        api.services.database.ping()
        api.services.for_tenant("tenant_x").database.ping()
    assert [each.partition(":")[0] for each in statements.others] == ["postgres"]
    assert statements.confined == 1
