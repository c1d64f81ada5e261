from __future__ import annotations

from tests.apis import Api


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
        assert http.delete("/v1/hmi/tenants/new").json() == {"id": "new", "object": "hmi.tenant", "deleted": True}
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
