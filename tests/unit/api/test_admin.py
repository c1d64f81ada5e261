from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from sqlalchemy.orm import Session

from hmi.adapters.formats import FILE_NAME, load_adapter
from hmi.catalog import HitCounts, NgramCounts, bases, domains, frequencies, nodes, trees
from hmi.jobs import QueueName
from hmi.knowledge import pack
from hmi.spec import Family, HPLMSpec
from tests.apis import SPEC, Api, adapter_file, base_files


def as_parts(files: dict[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (name, data)) for name, data in files.items()]


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


def test_domains_are_made_under_their_parents(api: Api) -> None:
    with api.http() as http:
        assert http.post("/v1/hmi/domains", json={"name": "movies", "parent": "reviews"}).json()["parent"] == "reviews"
        assert http.post("/v1/hmi/domains", json={"name": "movies"}).status_code == 409
        assert http.post("/v1/hmi/domains", json={"name": "x", "parent": "unknown"}).status_code == 404
        found = {each["name"]: each["parent"] for each in http.get("/v1/hmi/domains").json()["data"]}
    assert found == {"general": None, "reviews": "general", "movies": "reviews"}


def test_a_base_model_is_kept_whole_and_its_name_is_for_ever(api: Api) -> None:
    with api.http() as http:
        first = http.post("/v1/hmi/bases", data={"name": "mini"}, files=as_parts(base_files())).json()
        again = http.post("/v1/hmi/bases", data={"name": "mini"}, files=as_parts(base_files())).json()
        other = base_files(dataclasses.replace(SPEC, k=0))
        assert http.post("/v1/hmi/bases", data={"name": "mini"}, files=as_parts(other)).status_code == 409
        assert {each["name"] for each in http.get("/v1/hmi/bases").json()["data"]} == {"tiny", "mini"}
    assert again == first
    assert first["spec"] == json.loads(SPEC.to_json())
    folder = api.services.artifacts.folder(first["artifact"], verify=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in base_files()} == base_files()


def changed_spec(**changes: Any) -> dict[str, bytes]:
    spec = json.loads(SPEC.to_json()) | changes
    return base_files() | {"spec.json": json.dumps(spec).encode()}


def without_tensor(name: str) -> dict[str, bytes]:
    tensors = safetensors.numpy.load(base_files()["model.safetensors"])
    del tensors[name]
    return base_files() | {"model.safetensors": safetensors.numpy.save(tensors)}


def with_tensor(name: str, array: Any) -> dict[str, bytes]:
    tensors = safetensors.numpy.load(base_files()["model.safetensors"]) | {name: array}
    return base_files() | {"model.safetensors": safetensors.numpy.save(tensors)}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({name: data for name, data in base_files().items() if name != "spec.json"}, "a base model is spec.json"),
        (base_files() | {"pytorch_model.bin": b"x"}, "a base model is spec.json"),
        (base_files() | {"spec.json": b"{}"}, "spec.json: not an hPLM spec"),
        (base_files() | {"spec.json": b"\xff"}, "spec.json"),
        (base_files() | {"spec.json": b"[" * 5000}, "spec.json"),
        (changed_spec(hidden_size="8"), "spec.json"),
        (changed_spec(hidden_size=True), "spec.json"),
        (changed_spec(vocab_size=2**40), "spec.json"),
        (changed_spec(activation="a\u0000"), "spec.json"),
        (changed_spec(layers=3), "tensor layers.2"),
        (changed_spec(layers=2**31 - 1), "tensors for the 2147483647 layers"),
        (changed_spec(**{"\ud800": 1}), "spec.json"),
        (changed_spec(max_positions=13), "has shape"),
        (base_files() | {"tokenizer.json": b"{}"}, "tokenizer.json: not a tokenizer"),
        (changed_spec(vocab_size=20), "tokenizer.json: it knows 34 tokens"),
        (base_files() | {"model.safetensors": b""}, "not a safetensors file"),
        (base_files() | {"model.safetensors": b"\xff" * 64}, "not a safetensors file"),
        (base_files() | {"model.safetensors": (2).to_bytes(8, "little") + b"[]"}, "not a safetensors header"),
        (base_files() | {"model.safetensors": base_files()["model.safetensors"][:-4]}, "cut short"),
        (without_tensor("pooler.bias"), "pooler.bias is missing"),
        (with_tensor("extra", np.zeros(2, np.float32)), "extra is not known"),
        (with_tensor("pooler.bias", np.zeros(8, np.int64)), "has dtype I64"),
    ],
)
def test_a_base_model_is_refused_with_the_reason(api: Api, files: dict[str, bytes], reason: str) -> None:
    with api.http() as http:
        answer = http.post("/v1/hmi/bases", data={"name": "mini"}, files=as_parts(files))
        assert len(http.get("/v1/hmi/bases").json()["data"]) == 1
    assert answer.status_code == 400, answer.text
    assert reason in answer.json()["error"]["message"]
    assert not api.services.storage.names("artifacts")


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


def test_texts_are_counted_as_the_engine_would_see_them(api: Api) -> None:
    with api.http() as http:
        assert http.post("/v1/hmi/bases", data={"name": "mini"}, files=as_parts(base_files())).status_code == 200
        body = {"base": "mini", "domain": "reviews", "texts": ["w0 w1", "w0 w1", "w2 " * 100]}
        counted = http.post("/v1/hmi/frequencies", json=body).json()
    assert (counted["texts"], counted["windows"]) == (3, 4 + 4 + SPEC.max_positions)
    with api.services.database.session() as session:
        base = bases.get_base(session, "mini")
    found = frequencies.load(api.services.database, base.id)["reviews"]
    w0_window = pack(np.array([2]), np.array([4]), np.array([5]))[0]
    assert found.weights[found.ngrams == w0_window] == pytest.approx(2, rel=1e-3)
    assert len(found.ngrams) == counted["ngrams"]


def test_others_may_write_in_between_when_many_ngrams_are_counted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    add = frequencies.add

    def watch(session: Session, parts: list[NgramCounts], **options: Any) -> None:
        sizes.append((session, np.size(parts[0].ngrams)))
        add(session, parts, **options)

    monkeypatch.setattr("hmi.catalog.trees.frequencies.add", watch)
    monkeypatch.setattr("hmi.catalog.ChunkedTransactions.rows", 2)
    with api.http() as http:
        http.post("/v1/hmi/bases", data={"name": "mini"}, files=as_parts(base_files()))
        body = {"base": "mini", "domain": "reviews", "texts": ["w0 w1 w2"]}
        counted = http.post("/v1/hmi/frequencies", json=body).json()
    assert counted["ngrams"] == 5
    assert [size for _, size in sizes] == [2, 2, 1]
    assert len({id(session) for session, _ in sizes}) == 3  # each commits on its own
    with api.services.database.session() as session:
        base = bases.get_base(session, "mini")
    assert len(frequencies.load(api.services.database, base.id)["reviews"].ngrams) == 5


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"base": "unknown"}, 404),
        ({"domain": "unknown"}, 404),
        ({"texts": []}, 400),
        ({"texts": [""]}, 400),
        ({"texts": ["\ud800"]}, 400),
        ({"base": "\ud800"}, 400),
        ({"domain": "\ud800"}, 400),
        ({"texts": "text"}, 400),
        ({"base": "flat"}, 400),
    ],
)
def test_counting_is_refused_when_a_field_is_wrong(api: Api, changes: dict[str, Any], status: int) -> None:
    with api.services.database.session() as session:
        bases.register_base(session, "flat", "1" * 64, dataclasses.replace(SPEC, k=0))
    body = {"base": "tiny", "domain": "reviews", "texts": ["w0"]} | changes
    with api.http() as http:
        json_type = {"content-type": "application/json"}  # httpx itself would refuse half a surrogate pair
        answer = http.post("/v1/hmi/frequencies", content=json.dumps(body).encode(), headers=json_type)
    assert answer.status_code == status


def test_a_tree_is_shown_with_what_was_built_and_found(api: Api) -> None:
    with api.http() as http:
        unpublished = http.get("/v1/hmi/trees").json()["data"]
        assert [(each["base"], each["number"]) for each in unpublished] == [("tiny", None)]
        report = {"domains": {"general": {"entries": 40, "bytes": 500}}}
        with api.services.database.session() as session:
            base = bases.get_base(session, "tiny")
            number = trees.begin_build(session, base.id, 60)
            trees.publish(session, base.id, number, {"general": "2" * 64}, report)
            domain = domains.get_domain(session, "reviews")
            trees.record_hits(session, {(base.id, number, domain.id): HitCounts(lookups=10, hits=7)})
        tree = http.get("/v1/hmi/trees?base=tiny").json()["data"][0]
        assert (tree["number"], tree["report"]) == (number, report)
        assert tree["published_at"]
        assert {name: (each["parent"], each["entries"], each["bytes"]) for name, each in tree["domains"].items()} == {
            "general": (None, 40, 500),
            "reviews": ("general", 0, 0),
        }
        assert (tree["domains"]["reviews"]["lookups"], tree["domains"]["reviews"]["hits"]) == (10, 7)
        versions = http.get("/v1/hmi/trees/tiny/versions").json()["data"]
        assert [(each["number"], each["status"]) for each in versions] == [(number, "ready")]
        assert http.get("/v1/hmi/trees?base=unknown").status_code == 404
        assert http.get("/v1/hmi/trees/unknown/versions").status_code == 404


def test_a_rebuild_is_sent_to_the_workers(api: Api) -> None:
    with api.services.broker.connection_for_write() as connection:
        connection.SimpleQueue(QueueName.CONTROL.value).clear()  # a broker in memory is one for all tests
    with api.http() as http:
        answer = http.post("/v1/hmi/trees/tiny/rebuild")
        assert http.post("/v1/hmi/trees/unknown/rebuild").status_code == 404
    assert (answer.status_code, answer.json()) == (202, {"base": "tiny", "number": 1, "building": None})
    with api.services.broker.connection_for_read() as connection:
        message = connection.SimpleQueue(QueueName.CONTROL.value).get(timeout=5)
    assert message.headers["task"] == "hmi.rebuild_trees"
    assert message.payload[0] == ["tiny"]


def test_a_rebuild_is_recorded_when_the_broker_is_down(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*args: object, **options: object) -> None:
        raise ConnectionRefusedError("no broker")

    monkeypatch.setattr(type(api.services.broker), "send_task", down)
    with api.http() as http:
        answer = http.post("/v1/hmi/trees/tiny/rebuild")
        assert (answer.status_code, answer.json()["number"]) == (202, 1)
        assert http.get("/v1/hmi/trees/tiny").json()["requested"] == 1


def test_nodes_are_listed_while_they_report(api: Api) -> None:
    stats = {"device": "cpu", "host": {"bytes": 7}}
    with api.services.database.session() as session:
        nodes.report_node(session, "hmi-cpu@here", device="cpu", pid=7, stats=stats)
    with api.http() as http:
        found = http.get("/v1/hmi/nodes").json()["data"]
    assert [(each["name"], each["device"], each["pid"], each["stats"]) for each in found] == [
        ("hmi-cpu@here", "cpu", 7, stats)
    ]


def test_shapes_are_those_of_the_model() -> None:
    import torch

    from api.bases.shapes import expected_shapes
    from hmi.models.families import HBert, HGpt

    gpt2 = {"family": Family.GPT2, "type_vocab_size": 0, "has_pooler": False, "tied": True}
    llama = {"family": Family.LLAMA, "type_vocab_size": 0, "has_pooler": False, "kv_heads": 1, "rope_theta": 1e4}
    estimates = {"estimator_size": 7}
    encoders: list[dict[str, Any]] = [{}, {"k": 0}, {"has_pooler": False}, estimates]
    for changes in (*encoders, gpt2, gpt2 | {"k": 0, "tied": False}, llama, llama | {"k": 0}, llama | estimates):
        spec: HPLMSpec = dataclasses.replace(SPEC, **changes)
        with torch.device("meta"):
            model = HGpt(spec) if spec.family.decodes else HBert(spec)
        assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == expected_shapes(spec)
