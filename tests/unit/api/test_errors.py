from __future__ import annotations

import re
import time
from typing import Any

import httpx
import pytest

from hmi.errors import Transient
from tests.apis import Api
from tests.waiting import wait_until

KEYS = {"message", "type", "param", "code"}


def check_envelope(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == KEYS
    assert error["code"] == code
    assert error["message"]
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_what_no_endpoint_serves_is_enveloped(api: Api) -> None:
    with api.http() as http:
        check_envelope(http.get("/v1/nothing"), 404, "unknown_url")
        check_envelope(http.get("/v1/files/"), 404, "unknown_url")
        check_envelope(http.put("/v1/files"), 405, "method_not_allowed")
        assert http.put("/v1/files").headers["allow"]
        check_envelope(http.get("/v1/files?limit=x"), 400, "invalid_value")
        check_envelope(http.get("/v1/files?after=%00"), 400, "invalid_input")
        check_envelope(http.get("/v1/files/%00"), 400, "invalid_input")


def test_a_body_that_cannot_be_read_is_enveloped(api: Api) -> None:
    json_type = {"content-type": "application/json"}
    with api.http() as http:
        check_envelope(http.post("/v1/batches", content=b"{", headers=json_type), 400, "invalid_json")
        check_envelope(http.post("/v1/batches", content=b"[]", headers=json_type), 400, "invalid_value")
        check_envelope(http.post("/v1/batches", json={}), 400, "missing_required_parameter")
        check_envelope(http.post("/v1/batches", content=b"\xff", headers=json_type), 400, "invalid_request")
        check_envelope(http.post("/v1/batches", content=b"x" * 1_100_000, headers=json_type), 413, "request_too_large")
        check_envelope(
            http.post("/v1/files", content=b"", headers={"content-type": "multipart/form-data"}), 400, "invalid_request"
        )
        check_envelope(
            http.post("/v1/batches", content=b"x", headers={"content-encoding": "gzip"}), 415, "unsupported_media_type"
        )


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_api_key"),
        ("Basic eDp5", "missing_api_key"),
        ("Bearer", "missing_api_key"),
        ("Bearer sk-wrong", "invalid_api_key"),
        ("Bearer \xff", "invalid_api_key"),
    ],
)
def test_a_stranger_is_401_before_anything_is_read(api: Api, header: str | None, code: str) -> None:
    headers = [] if header is None else [(b"authorization", header.encode("latin-1"))]
    with httpx.Client(base_url=api.url, headers=headers) as http:
        answer = http.get("/v1/files")
        check_envelope(answer, 401, code)
        assert answer.headers["www-authenticate"] == "Bearer"
        check_envelope(http.post("/v1/files", content=b"never read as a form"), 401, code)


def test_a_stranger_cannot_upload_a_large_body(api: Api) -> None:
    with httpx.Client(base_url=api.url) as http:
        assert http.post("/v1/files", content=b"x" * 5_000_000).status_code in {401, 413}


def test_an_unexpected_failure_is_500_without_details(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("hmi.catalog.registry.files.list_files", broken)
    with api.http() as http:
        answer = http.get("/v1/files")
    check_envelope(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in answer.text


def test_a_database_that_is_away_is_503_without_details(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: object, **options: object) -> None:
        raise Transient("connection to postgres@db.internal refused")

    monkeypatch.setattr("hmi.catalog.registry.files.list_files", away)
    with api.http() as http:
        answer = http.get("/v1/files")
    check_envelope(answer, 503, "temporarily_unavailable")
    assert "internal" not in answer.text
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("2", "true")


def test_no_key_and_no_text_is_logged(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    with api.http("acme") as http:
        http.post("/v1/files", data={"purpose": "batch"}, files={"file": b"private text"})
        http.get("/v1/files?after=private")
    client = {"httpx", "httpx2", "openai"}
    written = "\n".join(str(record.msg) for record in caplog.records if record.name.split(".")[0] not in client)
    assert "/v1/files" in written
    for secret in (*api.keys.values(), "private"):
        assert secret not in written


def test_a_path_is_logged_quoted_when_it_holds_control_characters(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    with api.http("acme") as http:
        http.get("/v1/models/acme/a%1b%5B31m%0Ab")
    deadline = time.monotonic() + 30
    written: list[str] = []
    while not written and time.monotonic() < deadline:  # the line is written after the answer
        written = [str(record.msg) for record in caplog.records if record.name == "api.access"]
    assert "/v1/models/acme/a%1B%5B31m%0Ab" in "\n".join(written)


def test_a_log_line_does_not_name_the_tenant_of_the_request_before_it_on_a_connection(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    def lines() -> list[Any]:
        return [record.msg for record in caplog.records if record.name == "api.access"]

    with api.http("acme") as http:
        http.get("/v1/files")
        http.get("/v1/files", headers={"authorization": "Bearer unknown"})
        wait_until(lambda: len(lines()) == 2, what="a line for each request")
    assert [(line["status"], line.get("tenant")) for line in lines()] == [(200, "acme"), (401, None)]
