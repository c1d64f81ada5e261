from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hmi.adapters.formats import FILE_NAME, load_adapter
from tests.apis import Api, adapter_file


def register(api: Api, *paths: Path, who: str = "acme", **form: str) -> Any:
    fields = {"name": "sentiment", "base": "tiny", "domain": "reviews"} | form
    parts = [("files", (path.name, path.read_bytes())) for path in paths]
    with api.http(who) as http:
        return http.post("/v1/hmi/models", data=fields, files=parts or None)


def test_an_adapter_is_kept_in_its_own_form_and_revised(api: Api, tmp_path: Path) -> None:
    path = adapter_file(tmp_path / "a")
    first = register(api, path).json()
    assert (first["name"], first["revision"], first["tenant"]) == ("acme/sentiment", 2, "acme")
    assert first["summary"]["labels"] == ["bad", "good"]
    assert register(api, path).json() == first
    second = register(api, adapter_file(tmp_path / "b", seed=1), miss_policy="backoff").json()
    assert (second["revision"], second["miss_policy"]) == (3, "backoff")
    assert second["artifact"] != first["artifact"]
    stored = load_adapter(api.services.artifacts.folder(first["artifact"]) / FILE_NAME)
    np.testing.assert_array_equal(stored.tensors()["head.out"], load_adapter(path).tensors()["head.out"])


def test_an_operator_registers_for_any_tenant_by_full_name(api: Api, tmp_path: Path) -> None:
    path = adapter_file(tmp_path)
    made = register(api, path, who="operator", name="acme/topics", labels='["x", "y"]').json()
    assert (made["name"], made["summary"]["labels"]) == ("acme/topics", ["x", "y"])
    assert register(api, path, who="operator", name="topics").status_code == 400
    assert register(api, path, who="operator", name="unknown/topics").status_code == 404
    with api.http("acme") as http:
        assert http.get("/v1/hmi/models/acme/topics").json() == made
        assert http.delete("/v1/hmi/models/acme/topics").json()["deleted"]
        assert http.get("/v1/hmi/models/acme/topics").status_code == 404


def test_a_model_without_files_is_the_base_alone(api: Api) -> None:
    made = register(api, name="acme/plain").json()
    assert (made["name"], made["artifact"], made["revision"]) == ("acme/plain", None, 1)


@pytest.mark.parametrize(
    ("form", "status", "param"),
    [
        ({"base": "unknown"}, 404, "base"),
        ({"domain": "unknown"}, 404, "domain"),
        ({"miss_policy": "guess"}, 400, "miss_policy"),
        ({"name": "a b"}, 400, "name"),
        ({"name": "../x"}, 404, "name"),
        ({"name": "a/b/c"}, 404, "name"),
        ({"labels": "x"}, 400, "labels"),
        ({"labels": '["x\\u0000", "y"]'}, 400, "labels"),
        ({"labels": '["only one"]'}, 400, None),
    ],
)
def test_a_model_is_refused_by_name_when_a_field_is_wrong(
    api: Api, tmp_path: Path, form: dict[str, str], status: int, param: str | None
) -> None:
    answer = register(api, adapter_file(tmp_path), **form)
    assert answer.status_code == status, answer.text
    if param:
        assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("adapter.safetensors", b"cut short", "adapter_refused"),
        ("adapter_model.bin", b"\x80\x04pickle", "adapter_refused"),
        ("adapter_config.json", b"{}", "adapter_refused"),
        ("../../evil", b"x", "invalid_input"),
        (".hidden", b"x", "invalid_input"),
        ("adapter.safetensors", b"x" * 60_000, "request_too_large"),
    ],
)
def test_an_adapter_is_refused_with_the_reason_and_the_old_one_serves(
    api: Api, name: str, data: bytes, code: str
) -> None:
    form = {"name": "sentiment", "base": "tiny", "domain": "reviews"}
    with api.http("acme") as http:
        answer = http.post("/v1/hmi/models", data=form, files=[("files", (name, data))])
        assert http.get("/v1/hmi/models/acme/sentiment").json()["revision"] == 1
    assert answer.json()["error"]["code"] == code, answer.text
    assert answer.status_code == (413 if code == "request_too_large" else 400)
    assert not api.services.storage.names("artifacts")


def test_labels_without_an_adapter_are_refused(api: Api) -> None:
    assert register(api, labels='["x"]').json()["error"]["param"] == "labels"
