"""Nothing of one tenant can be read, listed, guessed or changed by another, and admin routes are the operator's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.apis import Api, batch_line
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
]
UNKNOWN = {
    "file": "file-" + "0" * 32,
    "batch": "batch_" + "0" * 32,
    "job": "ftjob-" + "0" * 32,
    "text": "file-" + "1" * 32,
    "model": "unknown/sentiment",
}


OWN = {"/v1/hmi/tenant"}  # for tenants too, beside models
LISTS = ("/v1/files", "/v1/batches", "/v1/fine_tuning/jobs", "/v1/models", "/v1/hmi/models")


@pytest.fixture
def acme(api: Api) -> dict[str, str]:
    add_base(api)
    job = tune(api)
    return {
        "file": api.upload(batch_line()),
        "batch": api.submit(batch_line()),
        "job": job.id,
        "text": job.training_file,
        "model": "acme/sentiment",
    }


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


def test_every_admin_route_is_closed_to_tenants(api: Api) -> None:
    admin = [(method, path) for method, path in routes(api) if path.startswith("/v1/hmi/") and "/models" not in path]
    admin = [(method, path) for method, path in admin if path not in OWN]
    assert len(admin) >= 24
    assert {
        ("GET", "/v1/hmi/trees/base"),
        ("GET", "/v1/hmi/trees/base/top"),
        ("GET", "/v1/hmi/trees/base/diff"),
        ("POST", "/v1/hmi/trees/base/rollback"),
        ("POST", "/v1/hmi/deltas"),
        ("DELETE", "/v1/hmi/deltas/base/domain"),
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
