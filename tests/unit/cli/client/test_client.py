from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

import hmi.errors
from hmi.cli.client import HmiClient
from hmi.errors import (
    AdapterRefused,
    Conflict,
    HmiError,
    InvalidInput,
    NotFound,
    Overloaded,
    StorageFull,
    Transient,
    Unauthenticated,
)
from hmi.jobs import error_detail, http_status
from hmi.schemas import DeltaObject, TenantModelObject, TenantObject
from tests.answers import filled_json

Handler = Callable[[httpx.Request], httpx.Response]


def _client(handler: Handler, key: str | None = "the key") -> HmiClient:
    return HmiClient("http://api.test/v1/", key, transport=httpx.MockTransport(handler))


def _answer(status_code: int = 200, **body: object) -> Handler:
    return lambda request: httpx.Response(status_code, json=body)


def _errors() -> list[HmiError]:
    classes = [getattr(hmi.errors, name) for name in hmi.errors.__all__]
    return [cls("what went wrong") for cls in classes]


@pytest.mark.parametrize("error", _errors(), ids=lambda error: type(error).__name__)
def test_error_is_the_apis_own_when_it_comes_in_an_envelope(error: HmiError) -> None:
    with (
        _client(_answer(http_status(error), **error_detail(error).envelope())) as client,
        pytest.raises(HmiError) as caught,
    ):
        client.tenants()
    assert type(caught.value) is type(error)
    assert (caught.value.message, caught.value.code) == (error.message, error.code)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "missing_required_parameter", InvalidInput),
        (400, "adapter_refused", AdapterRefused),
        (401, None, Unauthenticated),
        (404, "model_not_found", NotFound),
        (409, "name_taken", Conflict),
        (413, "request_too_large", InvalidInput),
        (429, "quota", Overloaded),
        (500, "what", HmiError),
        (503, None, Transient),
        (507, "disk", StorageFull),
    ],
)
def test_error_class_follows_the_status_when_the_code_is_a_finer_one(
    status: int, code: str | None, kind: type[HmiError]
) -> None:
    envelope = {"message": "no", "type": "", "param": "name", "code": code}
    with _client(_answer(status, error=envelope)) as client, pytest.raises(HmiError) as caught:
        client.tenants()
    assert type(caught.value) is kind
    assert caught.value.param == "name"


def test_error_says_where_when_another_server_answers() -> None:
    with (
        _client(lambda request: httpx.Response(502, text="<html>Bad gateway</html>")) as client,
        pytest.raises(Transient, match=r"http://api\.test/v1/hmi/tenants answered 502"),
    ):
        client.tenants()
    with (
        _client(lambda request: httpx.Response(200, text="<html>hello</html>")) as client,
        pytest.raises(HmiError, match="is it another server"),
    ):
        client.tenants()


@pytest.mark.parametrize("body", [{"data": [{"weight": 1}]}, {"data": None}, {}, [], "text"])
def test_answer_is_refused_when_it_lacks_what_is_read(body: object) -> None:
    with (
        _client(lambda request: httpx.Response(200, json=body)) as client,
        pytest.raises(HmiError, match="is it another server"),
    ):
        client.tenants()


def test_error_says_how_to_start_when_nothing_listens() -> None:
    with HmiClient("http://127.0.0.1:9", "key") as client, pytest.raises(Transient, match="start it with `hmi up`"):
        client.tenants()


@pytest.mark.parametrize("url", ["api.test", "ftp://api.test", "http://host:port"])
def test_address_is_refused_when_it_is_none(url: str) -> None:
    with pytest.raises(InvalidInput, match="not an address"), HmiClient(url, "key") as client:
        client.tenants()


def test_reason_is_given_when_the_api_is_not_ready() -> None:
    checks = {"database": "ok", "broker": "unavailable"}
    with (
        _client(_answer(503, status="not_ready", checks=checks)) as client,
        pytest.raises(Transient, match="broker: unavailable"),
    ):
        client.check_ready()
    with _client(_answer(200, status="ready", checks={"database": "ok"})) as client:
        client.check_ready()


def test_unknown_fields_are_kept_when_a_newer_api_answers() -> None:
    sent = filled_json(TenantObject, name="acme", weight=2, colour="red")
    with _client(_answer(data=[sent])) as client:
        (tenant,) = client.tenants()
    assert tenant.weight == 2
    assert sent["colour"] == "red"
    assert tenant.model_dump(mode="json") == sent


def test_requests_carry_the_key_and_quoted_names_when_sent() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=filled_json(TenantModelObject, name="acme/a b"))

    with _client(handle) as client:
        client.model("acme/a b")
    assert seen[0].headers["authorization"] == "Bearer the key"
    assert seen[0].url.raw_path == b"/v1/hmi/models/acme/a%20b"


def test_adapter_files_are_uploaded_when_a_model_is_registered(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    (tmp_path / ".DS_Store").write_text("not ours")
    (tmp_path / "checkpoint").mkdir()
    bodies: list[bytes] = []

    def handle(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        return httpx.Response(200, json=filled_json(TenantModelObject, name="acme/m"))

    with _client(handle) as client:
        client.register_model("acme/m", base="b", domain="d", adapter=tmp_path, labels=["no", "yes"])
        client.register_model("acme/m", base="b", domain="d")
    for part in (
        b'filename="adapter_config.json"',
        b'filename="adapter_model.safetensors"',
        b"weights",
        b'["no", "yes"]',
    ):
        assert part in bodies[0]
    assert b"DS_Store" not in bodies[0]
    assert bodies[1] == b"name=acme%2Fm&base=b&domain=d&miss_policy=exact"


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("")])
def test_folder_is_refused_when_it_holds_nothing(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "adapter")
    with _client(_answer()) as client, pytest.raises(InvalidInput, match=r"adapter (is not a folder|holds no files)"):
        client.register_base("name", tmp_path / "adapter")


def test_content_is_written_as_it_comes_when_a_file_is_downloaded() -> None:
    target = io.BytesIO()
    with _client(lambda request: httpx.Response(200, content=b"line\n" * 1000)) as client:
        assert client.download("file_1", target) == 5000
    assert target.getvalue() == b"line\n" * 1000
    envelope = {"error": {"message": "there is no file", "code": "not_found"}}
    with (
        _client(lambda request: httpx.Response(404, content=json.dumps(envelope))) as client,
        pytest.raises(NotFound, match="there is no file"),
    ):
        client.download("file_2", target)


def test_key_is_never_shown_when_a_client_is_printed() -> None:
    with _client(_answer(), key="hmi_secret") as client:
        assert "hmi_secret" not in repr(client)


def test_a_single_file_is_uploaded_under_the_name_that_the_api_knows(tmp_path: Path) -> None:
    path = tmp_path / "movies.safetensors"
    path.write_bytes(b"weights")
    bodies: list[bytes] = []

    def handle(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        return httpx.Response(200, json=filled_json(DeltaObject, base="b", domain="d"))

    with _client(handle) as client:
        client.set_delta("b", "d", path)
        with pytest.raises(InvalidInput, match="is not a folder"):
            client.set_delta("b", "d", tmp_path / "absent")
    assert b'filename="adapter.safetensors"' in bodies[0]
    assert b"weights" in bodies[0]
