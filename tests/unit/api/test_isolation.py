"""Nothing of one tenant can be read, listed, guessed or changed by another, and admin routes are the operator's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import delete
from sqlalchemy.orm import Session

from hmi.adapters.formats import FILE_NAME
from hmi.catalog import Audience, domains, execute_dml, tenants
from hmi.catalog.schema import DomainTenant
from tests.apis import Api, batch_line
from tests.published_trees import delta_file
from tests.unit.api.tuning import BASE, add_base, tune, upload_text

OPEN = {"/healthz", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect"}

# Each call names something of acme's as {id}; rival gets the same answer as for what does not exist.
FOREIGN = [
    ("GET", "/v1/files/{file}"),
    ("GET", "/v1/files/{file}/content"),
    ("DELETE", "/v1/files/{file}"),
    ("GET", "/v1/files?after={file}"),
    ("GET", "/v1/batches/{batch}"),
    ("POST", "/v1/batches/{batch}/cancel"),
    ("GET", "/v1/batches?after={batch}"),
    ("GET", "/v1/fine_tuning/jobs/{job}"),
    ("POST", "/v1/fine_tuning/jobs/{job}/cancel"),
    ("GET", "/v1/fine_tuning/jobs/{job}/events"),
    ("GET", "/v1/fine_tuning/jobs/{job}/checkpoints"),
    ("GET", "/v1/fine_tuning/jobs?after={job}"),
    ("GET", "/v1/models/{model}"),
    ("GET", "/v1/hmi/models/{model}"),
    ("DELETE", "/v1/hmi/models/{model}"),
    ("GET", "/v1/hmi/domains/{domain}"),
    ("PUT", "/v1/hmi/domains/{domain}/tenants/rival"),
    ("DELETE", "/v1/hmi/domains/{domain}/tenants/acme"),
    ("GET", "/v1/hmi/deltas/tiny/{domain}"),
    ("DELETE", "/v1/hmi/deltas/tiny/{domain}"),
    ("POST", "/v1/hmi/deltas/tiny/{domain}/publish"),
    ("GET", "/v1/hmi/domains/{listed}"),
    ("PUT", "/v1/hmi/domains/{listed}/tenants/rival"),
    ("DELETE", "/v1/hmi/domains/{listed}/tenants/acme"),
    ("POST", "/v1/hmi/deltas/tiny/{listed}/publish"),
    ("GET", "/v1/hmi/trees/tiny/top?domain={domain}"),
    ("GET", "/v1/hmi/trees/tiny/top?domain={listed}"),
]
UNKNOWN = {
    "file": "file-" + "0" * 32,
    "batch": "batch_" + "0" * 32,
    "job": "ftjob-" + "0" * 32,
    "text": "file-" + "1" * 32,
    "model": "unknown/sentiment",
    "domain": "nowhere",
    "listed": "nowhere",
}


LISTS = (
    "/v1/files",
    "/v1/batches",
    "/v1/fine_tuning/jobs",
    "/v1/models",
    "/v1/hmi/models",
    "/v1/hmi/domains",
    "/v1/hmi/deltas",
)


@pytest.fixture
def acme(api: Api, tmp_path: Path) -> dict[str, str]:
    """Ids of what is acme's: a private domain with a delta, a domain shared with a third tenant, and others."""
    add_base(api)
    with api.services.database.session() as session:
        tenants.create_tenant(session, "third")
        domains.create_domain(session, "vault", owner="acme", audience=Audience.PRIVATE)
        domains.create_domain(session, "clinics", owner="acme", tenants=["third"])
    assert set_delta(api, "acme", "vault", tmp_path).status_code == 200
    job = tune(api)
    return {
        "file": api.upload(batch_line()),
        "batch": api.submit(batch_line()),
        "job": job.id,
        "text": job.training_file,
        "model": "acme/sentiment",
        "domain": "vault",
        "listed": "clinics",
    }


def set_delta(api: Api, who: str, domain: str, folder: Path, **fields: str) -> httpx.Response:
    file = ("files", (FILE_NAME, delta_file(folder).read_bytes()))
    with api.http(who) as http:
        return http.post("/v1/hmi/deltas", data={"base": "tiny", "domain": domain} | fields, files=[file])


def snapshot(api: Api) -> object:
    with api.http("acme") as http:
        return [http.get(path).json() for path in LISTS]


def neutral(answer: httpx.Response, ids: dict[str, str]) -> tuple[int, str]:
    """The answer without the id of the request."""
    text = json.dumps(answer.json())
    for value in ids.values():
        text = text.replace(value, "<id>")
    return answer.status_code, text


@pytest.mark.parametrize(("method", "path"), FOREIGN)
def test_what_is_anothers_is_answered_like_what_is_not_there(
    api: Api, acme: dict[str, str], method: str, path: str
) -> None:
    before = snapshot(api)
    with api.http("rival") as http:
        foreign = neutral(http.request(method, path.format(**acme)), acme)
        unknown = neutral(http.request(method, path.format(**UNKNOWN)), UNKNOWN)
    assert foreign == unknown
    assert foreign[0] == (400 if "after" in path else 404)
    assert snapshot(api) == before


def test_a_batch_cannot_be_made_of_anothers_file(api: Api, acme: dict[str, str]) -> None:
    answers = []
    with api.http("rival") as http:
        for ids in (acme, UNKNOWN):
            body = {"input_file_id": ids["file"], "endpoint": "/v1/embeddings", "completion_window": "24h"}
            answers.append(neutral(http.post("/v1/batches", json=body), ids))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


@pytest.mark.parametrize("field", ["training_file", "validation_file", "model"])
def test_nothing_is_trained_from_what_is_anothers(api: Api, acme: dict[str, str], field: str) -> None:
    mine, answers = upload_text(api, who="rival"), []
    with api.http("rival") as http:
        for ids in (acme, UNKNOWN):
            named = ids["model"] if field == "model" else ids["text"]
            body = {"model": BASE, "training_file": mine, "validation_file": mine, field: named}
            answers.append(neutral(http.post("/v1/fine_tuning/jobs", json=body), ids))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


def test_a_model_cannot_be_registered_for_another(api: Api, tmp_path: Path) -> None:
    answers = []
    with api.http("rival") as http:
        for tenant in ("acme", "unknown"):
            form = {"name": f"{tenant}/new", "base": "tiny", "domain": "reviews"}
            answers.append(neutral(http.post("/v1/hmi/models", data=form), {"tenant": tenant}))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


@pytest.mark.parametrize("name", ["domain", "listed"])
def test_nothing_is_made_in_a_domain_that_is_not_for_the_caller(
    api: Api, acme: dict[str, str], tmp_path: Path, name: str
) -> None:
    text, before = upload_text(api, who="rival"), snapshot(api)
    for ids in (acme, UNKNOWN):
        answers = []
        with api.http("rival") as http:
            answers.append(http.post("/v1/hmi/models", data={"name": "new", "base": "tiny", "domain": ids[name]}))
            body = {"model": BASE, "training_file": text, "hmi": {"domain": ids[name]}}
            answers.append(http.post("/v1/fine_tuning/jobs", json=body))
            change = {"audience": "public"}
            answers.append(http.put(f"/v1/hmi/domains/{ids[name]}/audience", json=change))
        answers.append(set_delta(api, "rival", ids[name], tmp_path))
        message = "there is no domain '<id>'"
        for answer in answers:
            status, said = neutral(answer, {"id": ids[name]})
            assert (status, json.loads(said)["error"]["message"]) == (404, message)
            assert answer.json()["error"]["code"] == "domain_not_found"
        with api.http() as http:  # the operator cannot register there for the tenant, either
            form = {"name": "rival/new", "base": "tiny", "domain": ids[name]}
            assert http.post("/v1/hmi/models", data=form).status_code == 404
    assert snapshot(api) == before


def test_no_model_is_trained_in_a_domain_that_the_tenant_lost(api: Api) -> None:
    add_base(api)
    with api.services.database.session() as session:
        domains.create_domain(session, "clinics", tenants=["acme", "rival"])
    with api.http("acme") as http:
        form = {"name": "m", "base": BASE, "domain": "clinics"}
        assert http.post("/v1/hmi/models", data=form).status_code == 200
        with api.services.database.session() as session:
            execute_dml(session, delete(DomainTenant).where(DomainTenant.tenant_id == _id(session, "acme")))
        text = upload_text(api)
        # Row-level security hides the model, too.
        codes = {"acme/m": {"domain_not_found", "model_not_found"}, BASE: {"domain_not_found"}}
        for model, options in (("acme/m", {}), ("acme/m", {"domain": "clinics"}), (BASE, {"domain": "clinics"})):
            body = {"model": model, "training_file": text, "hmi": options}
            answer = http.post("/v1/fine_tuning/jobs", json=body)
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] in codes[model]


def _id(session: Session, tenant: str) -> str:
    return tenants.get_tenant(session, tenant).id


def test_tenants_see_the_domains_that_they_may_use_without_names_of_others(api: Api, acme: dict[str, str]) -> None:
    seen = {}
    for who in ("acme", "rival", "operator"):
        with api.http(who) as http:
            found = http.get("/v1/hmi/domains").json()["data"]
            assert all(http.get(f"/v1/hmi/domains/{each['name']}").json() == each for each in found)
            seen[who] = {each["name"]: (each["audience"], each["owner"], each["tenants"]) for each in found}
    everything = {
        "general": ("public", None, None),
        "reviews": ("public", None, None),
        "clinics": ("tenants", "acme", ["acme", "third"]),
        "vault": ("private", "acme", None),
    }
    assert seen["operator"] == seen["acme"] == everything
    assert list(seen["rival"]) == ["general", "reviews"]
    with api.http("acme") as http:
        assert http.put("/v1/hmi/domains/clinics/tenants/rival").json()["tenants"] == ["acme", "rival", "third"]
    with api.http("rival") as http:
        listed = http.get("/v1/hmi/domains/clinics").json()
        assert (listed["audience"], listed["owner"], listed["tenants"]) == ("tenants", None, None)
        assert http.put("/v1/hmi/domains/clinics/tenants/rival").status_code == 403
        assert http.post("/v1/hmi/models", data={"name": "m", "base": "tiny", "domain": "clinics"}).status_code == 200
    with api.http("acme") as http:
        in_use = http.delete("/v1/hmi/domains/clinics/tenants/rival")
        assert (in_use.status_code, in_use.json()["error"]["code"]) == (409, "domain_in_use")
        assert http.delete("/v1/hmi/domains/clinics/tenants/third").json()["tenants"] == ["acme", "rival"]


def test_a_tenants_delta_stays_its_own_until_it_publishes_it(api: Api, acme: dict[str, str], tmp_path: Path) -> None:
    with api.services.database.session() as session:
        domains.create_domain(session, "rival-own", owner="rival", audience=Audience.PRIVATE)
    with api.http("rival") as http:
        assert http.get("/v1/hmi/deltas").json()["data"] == []
        assert http.get("/v1/hmi/deltas/tiny/reviews").status_code == 403
    with api.http("acme") as http:
        (own,) = http.get("/v1/hmi/deltas").json()["data"]
        assert (own["domain"], own["owner"], own["is_published"]) == ("vault", "acme", False)
        assert set_delta(api, "acme", "clinics", tmp_path).status_code == 403
        for owner in ("rival", "unknown"):
            assert set_delta(api, "acme", "vault", tmp_path, owner=owner).status_code == 404
    assert set_delta(api, "rival", "rival-own", tmp_path / "b").status_code == 200  # the same weights, which it has
    for domain in ("reviews", "general", "clinics", "rival-own"):
        refused = set_delta(api, "operator", domain, tmp_path)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "delta_not_published")
    with api.http("rival") as http:
        assert http.delete("/v1/hmi/deltas/tiny/rival-own").status_code == 200
    with api.http() as http:
        assert http.post("/v1/hmi/deltas/tiny/vault/publish").status_code == 403
    with api.http("acme") as http:
        assert http.post("/v1/hmi/deltas/tiny/vault/publish").json()["is_published"]
    placed = set_delta(api, "operator", "rival-own", tmp_path, owner="acme").json()
    assert (placed["owner"], placed["is_published"]) == ("acme", True)
    with api.http("rival") as http:
        assert http.get("/v1/hmi/deltas/tiny/rival-own").json()["owner"] is None


def test_lists_hold_the_callers_own_alone(api: Api, acme: dict[str, str]) -> None:
    with api.http("rival") as http:
        assert http.get("/v1/files").json()["data"] == []
        assert http.get("/v1/batches").json()["data"] == []
        assert http.get("/v1/fine_tuning/jobs").json()["data"] == []
        assert [each["id"] for each in http.get("/v1/models").json()["data"]] == ["rival/sentiment"]
        assert [each["id"] for each in http.get("/v1/hmi/models").json()["data"]] == ["rival/sentiment"]
        assert http.get("/v1/hmi/models?tenant=acme").json()["data"] == []


def test_an_operators_key_sees_all_models_but_no_tenants_files(api: Api, acme: dict[str, str]) -> None:
    with api.http() as http:
        assert {each["id"] for each in http.get("/v1/models").json()["data"]} == {"acme/sentiment", "rival/sentiment"}
        assert http.get("/v1/files").json()["data"] == []
        assert http.get(f"/v1/files/{acme['file']}").status_code == 404
        assert http.get("/v1/models/acme/sentiment").status_code == 200
        assert [each["id"] for each in http.get("/v1/hmi/models?tenant=acme").json()["data"]] == ["acme/sentiment"]


def test_a_client_reads_its_models_by_their_full_names(api: Api) -> None:
    with api.openai() as client:
        assert [model.id for model in client.models.list()] == ["acme/sentiment"]
        model = client.models.retrieve("acme/sentiment")
        assert (model.id, model.object, model.owned_by) == ("acme/sentiment", "model", "acme")


def routes(api: Api) -> Iterator[tuple[str, str]]:
    """Every method and path that the application serves, path parameters filled in."""
    for path, operations in api.app.openapi()["paths"].items():
        for method in operations:
            yield method.upper(), path.replace("{", "").replace("}", "")


def test_every_route_needs_a_key(api: Api) -> None:
    found = list(routes(api))
    assert len(found) > 25
    with httpx.Client(base_url=api.url) as http:
        for method, path in found:
            if path not in OPEN:
                assert http.request(method, path).status_code == 401, (method, path)


def serves_tenants(method: str, path: str) -> bool:
    if path == "/v1/hmi/tenant" or path.startswith(("/v1/hmi/models", "/v1/hmi/deltas", "/v1/hmi/domains/name/")):
        return True
    return method == "GET" and (path.startswith("/v1/hmi/domains") or path.endswith("/top"))


def test_every_admin_route_is_closed_to_tenants(api: Api) -> None:
    admin = [
        (method, path)
        for method, path in routes(api)
        if path.startswith("/v1/hmi/") and not serves_tenants(method, path)
    ]
    assert len(admin) >= 19
    assert {
        ("GET", "/v1/hmi/trees/base"),
        ("GET", "/v1/hmi/trees/base/diff"),
        ("POST", "/v1/hmi/trees/base/rollback"),
        ("POST", "/v1/hmi/frequencies"),
        ("POST", "/v1/hmi/domains"),
        ("PATCH", "/v1/hmi/domains/name"),
    } <= set(admin)
    with api.http("acme") as http:
        for method, path in admin:
            answer = http.request(method, path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden"), (method, path)


def test_a_revoked_key_opens_nothing(api: Api) -> None:
    with api.http() as admin, api.http("acme") as http:
        for key in admin.get("/v1/hmi/tenants/acme/keys").json()["data"]:
            assert admin.delete(f"/v1/hmi/tenants/acme/keys/{key['id']}").status_code == 200
        assert http.get("/v1/files").status_code == 401
