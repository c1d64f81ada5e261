from __future__ import annotations

import pytest

from hmi.catalog import tenants, trees
from hmi.errors import Transient
from hmi.storage import Storage
from hmi.tenant_bits import bitmap_of
from tests.apis import Api
from tests.published_trees import BASE, add_base, count, publish


def test_a_tenant_lives_from_its_creation_to_its_deletion(api: Api) -> None:
    with api.http() as http:
        made = http.post("/v1/hmi/tenants", json={"name": "new", "weight": 3})
        assert (made.status_code, made.json()["weight"]) == (200, 3)
        assert http.post("/v1/hmi/tenants", json={"name": "new"}).status_code == 409
        assert http.post("/v1/hmi/tenants", json={"name": "New Name"}).status_code == 400
        assert "new" in [each["name"] for each in http.get("/v1/hmi/tenants").json()["data"]]
        key = http.post("/v1/hmi/tenants/new/keys", json={"label": "ci", "expires_in_seconds": 60}).json()
        assert key["expires_at"] == key["created_at"] + 60
        listed = http.get("/v1/hmi/tenants/new/keys").json()["data"]
        assert [each["id"] for each in listed] == [key["id"]]
        assert "key" not in listed[0]
        own = {"authorization": f"Bearer {key['key']}"}
        file = http.post("/v1/files", data={"purpose": "batch"}, files={"file": b"x"}, headers=own).json()
        assert http.get(f"/v1/files/{file['id']}", headers=own).status_code == 200
        gone = http.delete("/v1/hmi/tenants/new").json()
        assert gone == {"id": "new", "object": "hmi.tenant", "deleted": True, "purge": None}
        assert http.get("/v1/files", headers=own).status_code == 401
        assert http.delete("/v1/hmi/tenants/new").status_code == 404
        assert http.get("/v1/hmi/tenants/new/keys").status_code == 404
        assert http.delete("/v1/hmi/tenants/operator").status_code == 403
    assert not any(
        api.services.storage.exists(f"files/{folder}/{file['id']}") for folder in api.services.storage.names("files")
    )


def test_an_operators_new_key_is_an_admin_key(api: Api) -> None:
    with api.http() as http:
        key = http.post("/v1/hmi/tenants/operator/keys", json={}).json()
        assert key["role"] == "admin"
        assert http.get("/v1/hmi/nodes", headers={"authorization": f"Bearer {key['key']}"}).status_code == 200


def test_a_tenant_is_changed_by_the_operator_and_chooses_itself_whether_it_is_counted(api: Api) -> None:
    with api.http() as http:
        url = "/v1/hmi/tenants/acme"
        assert http.patch(url, json={"weight": 5}).json()["weight"] == 5
        changed = http.patch(url, json={"counts": "none"}).json()
        assert (changed["weight"], changed["counts"]) == (5, "none")
        assert http.patch(url, json={"counts": None}).json()["counts"] is None
        assert http.patch(url, json={"counts": "some"}).status_code == 400
        assert http.patch(url, json={"weight": 0}).status_code == 400
        assert http.patch("/v1/hmi/tenants/unknown", json={"weight": 5}).status_code == 404
    with api.http("acme") as http:
        assert http.get("/v1/hmi/tenant").json()["name"] == "acme"
        assert http.patch("/v1/hmi/tenant", json={"counts": "none"}).json()["counts"] == "none"
        assert http.patch("/v1/hmi/tenant", json={"weight": 9}).status_code == 400
        assert http.patch("/v1/hmi/tenants/acme", json={"weight": 9}).status_code == 403
    with api.http("rival") as http:
        assert http.get("/v1/hmi/tenant").json()["counts"] is None


def test_a_purge_rebuilds_trees_and_says_what_is_left(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    add_base(api.services)
    with api.services.database.session(read_only=True) as session:
        bit = tenants.get_tenant(session, "acme").bit
    count(api.services, "general", {1: 2.0, 2: 1.0}, bitmap_of(bit))
    count(api.services, "general", {3: 2.0})
    first, second = (publish(api.services, {"general": words}) for words in ([1], [1, 2]))
    kept, lost = api.upload(b"{}", who="acme"), api.upload(b"{}\n", who="acme")
    delete = Storage.delete

    def fail(self: Storage, path: str) -> None:
        if lost in path:
            raise Transient("the bucket does not answer")
        delete(self, path)

    monkeypatch.setattr(Storage, "delete", fail)
    with api.http() as http:
        gone = http.delete("/v1/hmi/tenants/acme?purge=true").json()["purge"]
        tree = http.get(f"/v1/hmi/trees/{BASE}").json()
    assert gone["rebuilds"] == [{"base": BASE, "number": second + 1, "building": None}]
    assert tree["requested"] == second + 1
    assert gone["ngrams"] == 2
    assert gone["versions"] == [
        {"base": BASE, "number": first, "served": False},
        {"base": BASE, "number": second, "served": True},
    ]
    (left,) = gone["files_left"]
    assert lost in left
    assert api.services.storage.exists(left)
    assert not api.services.storage.exists(left.replace(lost, kept))
    assert len(gone["notes"]) == 3
    assert trees.forget_tenants(api.services.database, settled_seconds=0) == gone["ngrams"]
